"""How much memory training a language model with adapters takes, and what to give up where it lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from daemon.errors import ConfigError, HauswartError
from training.causal import gguf_of

GIB = 1 << 30
LEAST_BATCH, LEAST_LENGTH, LEAST_RANK = 1, 2048, 8
# Values that a layer keeps for its backward pass, in units of the hidden width: Korthikanti et al. 2022 count
# 17, without the attention's square, which fused kernels never keep. 19, 14 and the two others
# below fit SmolLM2-135M in bfloat16: 1.71 and 3.23 GB were measured at 256 and 1024 tokens (within 3 %).
_KEPT_PER_LAYER = 19
_ADAPTER_BYTES = 16  # a weight, its gradient, Adam's two moments, 32 bits each
_LOGITS_BYTES = 14  # logits in 16 and 32 bits, their softmax, their gradient
_LIBRARIES_BYTES = 400_000_000  # Python, torch, transformers
_CAST_BYTES = 2  # what computing in 16 bits keeps beside a weight of 32
_FOUR_BITS_BYTES = 0.56  # NF4 and its scales


class Shape(NamedTuple):
    """What of a model decides how large it is."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


def shape_of(base: str | Path) -> Shape:
    """A base's shape from its configuration or its file's header alone. Raises ConfigError."""
    file = gguf_of(base)
    return _shape_of_gguf(file) if file else _shape_of_config(base)


def _shape_of_gguf(file: Path) -> Shape:
    from gguf import GGUFReader  # noqa: PLC0415

    try:
        reader = GGUFReader(file)
        family = reader.fields["general.architecture"].contents()
        layers, hidden = (
            int(reader.fields[f"{family}.{name}"].contents()) for name in ("block_count", "embedding_length")
        )
        vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ConfigError(f"{file} is no GGUF file of a language model: {error}") from error
    return Shape(sum(int(one.n_elements) for one in reader.tensors), layers, hidden, vocabulary)


def _shape_of_config(base: str | Path) -> Shape:
    import torch  # noqa: PLC0415  # seconds
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot read what the base {str(base)!r} is: {said}",
            hint="offline, give a local folder or smollm2, or set HF_HOME to a cache that holds it",
        ) from error
    count = sum(one.numel() for one in model.parameters())
    return Shape(count, config.num_hidden_layers, config.hidden_size, config.vocab_size)


def estimate_bytes(
    shape: Shape,
    *,
    four_bits: bool,
    sixteen_bits: bool,
    tokens: int,
    rank: int,
    checkpointing: bool = False,
) -> int:
    """Memory at a step's peak; `tokens` in a batch with its padding."""
    width = 2 if sixteen_bits else 4
    embedding = shape.vocabulary * shape.hidden
    weights = shape.parameters * (width if sixteen_bits else width + _CAST_BYTES)
    if four_bits:
        weights = int((shape.parameters - embedding) * _FOUR_BITS_BYTES) + embedding * width
    adapters = 8 * shape.layers * shape.hidden * rank * _ADAPTER_BYTES
    layers = shape.layers**0.5 * 2 if checkpointing else shape.layers
    kept = int(tokens * shape.hidden * layers * _KEPT_PER_LAYER * width)
    return _LIBRARIES_BYTES + weights + adapters + kept + tokens * shape.vocabulary * _LOGITS_BYTES


def available_bytes() -> int:
    """Free memory of the accelerator, else of the host."""
    import torch  # noqa: PLC0415  # seconds

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    import torch  # noqa: PLC0415  # seconds

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("allocate memory" in said or "out of memory" in said)


def lessen(settings: Any) -> tuple[Any, str] | None:
    """The next settings that need less memory, and what was given up; None where nothing is left.

    `settings` is a training.course.Settings. Accumulation makes up for the batch: a step sees as many rows.
    """
    if settings.batch_size > LEAST_BATCH:
        batch = settings.batch_size // 2
        more = settings.gradient_accumulation_steps * 2
        said = (
            f"batch {settings.batch_size} to {batch}, "
            f"accumulation {settings.gradient_accumulation_steps} to {more}"
        )
        return settings._replace(batch_size=batch, gradient_accumulation_steps=more), said
    if settings.max_seq_length > LEAST_LENGTH:
        length = max(LEAST_LENGTH, settings.max_seq_length // 2)
        said = f"sequence {settings.max_seq_length} to {length}"
        return settings._replace(max_seq_length=length), said
    if settings.rank > LEAST_RANK:
        rank = max(LEAST_RANK, settings.rank // 2)
        return settings._replace(rank=rank), f"rank {settings.rank} to {rank}"
    if not settings.gradient_checkpointing:
        return settings._replace(gradient_checkpointing=True), "gradient checkpointing on"
    return None


def give_up(settings: Any, why: str, tell: Callable[[str], None]) -> tuple[Any, str]:
    """Lesser settings and what was given up, which is told. Raises HauswartError where nothing is left."""
    less = lessen(settings)
    if less is None:
        raise HauswartError(
            f"{why}, with the smallest settings too", hint="a smaller base, or a machine with more memory"
        )
    tell(f"{why}: {less[1]}")
    return less
