"""A model of the Llama, Mistral or Qwen2 family as a GGUF file in F16, Q8_0 or Q4_0, tensor by tensor.

The file appears under its name when it is whole. Weights that are read from a folder (safetensors) never lie
in memory all at once. Other families and kinds are llama.cpp's own tools' business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import ConfigError
from training.vocabulary import write_vocabulary

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}  # transformers' name: llama.cpp's
KINDS = ("f16", "q8_0", "q4_0")
_BYTES_A_WEIGHT = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32, "q4_k_m": 0.62}
_SHARED = ("token_embd.weight", "output.weight")  # of these the loss shows most: 8 bits in a file of 4
Tell = Callable[[str], None]


def size_of(parameters: int, kind: str) -> int:
    """About how many bytes a file has."""
    return int(parameters * _BYTES_A_WEIGHT.get(kind, 2.0)) + (16 << 20)  # the vocabulary


def convert(folder: Path, out: Path, kind: str, *, name: str = "", tell: Tell = lambda _said: None) -> Path:
    """Write the model that lies in `folder` as `out`. Raises ConfigError for a family that is not known."""
    import gguf  # noqa: PLC0415  # only an export needs it
    from transformers import AutoConfig  # noqa: PLC0415  # seconds

    from training.causal import load_tokenizer  # noqa: PLC0415

    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r}", hint=", ".join(KINDS))
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no model: {str(error).splitlines()[0]}") from error
    check_family(config)
    family = FAMILIES[config.model_type]
    part = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(part, family)
    try:
        _describe(writer, config, family, kind, name or folder.name)
        write_vocabulary(writer, load_tokenizer(folder), config.vocab_size)
        _write_tensors(writer, folder, config, kind, tell)
        writer.close()
    except BaseException:
        writer.close()
        part.unlink(missing_ok=True)
        raise
    part.replace(out)
    return out


def check_family(config: Any) -> None:
    """Raises ConfigError for what this converter would get wrong."""
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"models of the family {config.model_type} cannot be converted here, only {', '.join(FAMILIES)}",
            hint="llama.cpp's convert_hf_to_gguf.py knows it: give it with --converter PATH",
        )
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(
            f"rotary positions of the type {rope['rope_type']} cannot be converted here",
            hint="llama.cpp's convert_hf_to_gguf.py knows them: give it with --converter PATH",
        )


def _describe(writer: Any, config: Any, family: str, kind: str, name: str) -> None:
    import gguf  # noqa: PLC0415

    types = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if family == "llama":
        writer.add_rope_dimension_count(width)


def _write_tensors(writer: Any, folder: Path, config: Any, kind: str, tell: Tell) -> None:
    """First what there will be, then one after the other."""
    import gguf  # noqa: PLC0415

    family = FAMILIES[config.model_type]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config.num_hidden_layers)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    plan = []
    for source, shape in _shapes(folder):
        if (tied and source == "lm_head.weight") or source.endswith("rotary_emb.inv_freq"):
            continue
        target = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ConfigError(f"the tensor {source} has no place in a file of the family {family}")
        stored = _kind_of(target, shape, kind)
        block, size = gguf.GGML_QUANT_SIZES[stored]
        stored_bytes = math.prod(shape) // block * size
        writer.add_tensor_info(target, shape, np.dtype(np.float32), stored_bytes, raw_dtype=stored)
        plan.append((source, stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (source, stored) in enumerate(plan):
        values = _permuted(source, _tensor(folder, source), config, family)
        writer.write_tensor_data(gguf.quants.quantize(values, stored))
        if number % 100 == 99:
            tell(f"{number + 1} of {len(plan)} tensors written as {kind}")


def _kind_of(target: str, shape: list[int], kind: str) -> Any:
    """How a tensor is stored: vectors as they are, what does not divide into blocks in 16 bits."""
    import gguf  # noqa: PLC0415

    kinds = gguf.GGMLQuantizationType
    if len(shape) < 2:
        return kinds.F32
    wanted = kinds[(kind if target not in _SHARED or kind != "q4_0" else "q8_0").upper()]
    return wanted if shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else kinds.F16


def _permuted(source: str, values: Any, config: Any, family: str) -> Any:
    """llama.cpp turns pairs of neighbours where transformers turns two halves of a head."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if part in source), None)
    if family != "llama" or count is None:
        return values
    rows = values.shape[0]
    halves = values.reshape(count, 2, rows // count // 2, *values.shape[1:])  # (heads, half, pair, ...)
    return halves.swapaxes(1, 2).reshape(values.shape)


def _files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor. Raises ConfigError."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in placed.items()}
    file = folder / "model.safetensors"
    try:
        with safe_open(file, "pt") as opened:
            return dict.fromkeys(opened.keys(), file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    from safetensors import safe_open  # noqa: PLC0415

    for name, file in sorted(_files(folder).items()):
        with safe_open(file, "pt") as opened:
            yield name, list(opened.get_slice(name).get_shape())


def _tensor(folder: Path, name: str) -> Any:
    """Its values, float32."""
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(_files(folder)[name], "pt") as opened:
        return opened.get_tensor(name).float().numpy()
