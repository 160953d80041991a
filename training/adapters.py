"""LoRA and QLoRA: train a few added weights of a large base (peft), over 4-bit weights (bitsandbytes).

What is written in the end is always a plain model with the adapters folded in; the adapter by itself, which
others can load onto the same base, lies beside it in `adapter/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from daemon.errors import ConfigError


class Preset(NamedTuple):
    """What an adapter is: rank, scale (alpha / rank) and dropout."""

    rank: int
    alpha: int
    dropout: float


# Hu et al. 2021 give no one setting; these are two that are in wide use.
PRESETS = {"lab2": Preset(8, 16, 0.05), "scheduler": Preset(16, 16, 0.0)}
# What attention's projections are called in the families that we train.
TARGETS = {
    "gpt2": ["c_attn", "attn.c_proj"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin"],
    "albert": ["query", "key", "value", "attention.dense"],
    "bert": ["query", "key", "value", "attention.output.dense"],
    "roberta": ["query", "key", "value", "attention.output.dense"],
}
USUAL = ["q_proj", "k_proj", "v_proj", "o_proj"]
HEADS = ("lm_head", "classifier", "pre_classifier", "score")  # fresh: never frozen, never in 4 bits


def attach(
    model: Any,
    method: str,
    preset: str | Preset = "scheduler",
    *,
    rank: int = 0,
    fresh: Sequence[int] = (),
    as_loaded: bool = False,
) -> Any:
    """The model with adapters, its own weights frozen (and in 4 bits); unchanged for "full".

    `rank` 0 is the preset's. `fresh` are ids of tokens that the base has never seen: their embeddings learn.
    `as_loaded` leaves the frozen weights in the precision that they have. Raises ConfigError.
    """
    if method == "full":
        return model.float()  # a base that was stored in 16 bits would learn in 16 bits
    from peft import LoraConfig, TaskType, get_peft_model  # noqa: PLC0415  # seconds

    known = preset if isinstance(preset, Preset) else PRESETS.get(preset)
    if method not in {"lora", "qlora"} or known is None or rank < 0:
        raise ConfigError(
            f"no adapters {method!r} {preset!r} of rank {rank}", hint=f"lora or qlora; {', '.join(PRESETS)}"
        )
    generator = type(model).__name__.endswith(("LMHeadModel", "ForCausalLM"))
    family = str(model.config.model_type)
    heads = [name for name, _ in model.named_children() if name in HEADS and name != "lm_head"]
    config = LoraConfig(
        r=rank or known.rank,
        lora_alpha=known.alpha,
        lora_dropout=known.dropout,
        bias="none",
        target_modules=TARGETS.get(family, USUAL),
        fan_in_fan_out=family == "gpt2" and method == "lora",
        modules_to_save=heads or None,
        trainable_token_indices=list(fresh) or None,
        task_type=TaskType.CAUSAL_LM if generator else TaskType.SEQ_CLS,
    )
    if method == "qlora":
        model = to_four_bits(model)
    return get_peft_model(model if as_loaded else model.float(), config)


def to_four_bits(model: Any) -> Any:
    """Every linear layer but the heads in 4 bits (NF4, Dettmers et al. 2023), the rest as it is."""
    import bitsandbytes as bnb  # noqa: PLC0415  # seconds
    import torch  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    touched = 0
    for owner, name, layer in _children(model):
        transposed = isinstance(layer, Conv1D)
        if name in HEADS or (not transposed and type(layer) is not torch.nn.Linear):
            continue
        weight = layer.weight.data.T.contiguous() if transposed else layer.weight.data
        bias = None if layer.bias is None else torch.nn.Parameter(layer.bias.data, requires_grad=False)
        small = bnb.nn.Linear4bit(
            weight.shape[1],
            weight.shape[0],
            bias=bias is not None,
            compute_dtype=torch.float32,
            quant_type="nf4",
        )
        small.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        small.bias, small.was_transposed = bias, transposed
        # Else the first evaluation repacks the weights for a kernel that rounds and passes no gradient on.
        small.support_avx512bf16_for_cpu = False
        setattr(owner, name, small.to(weight.device))
        touched += 1
    if not touched:
        raise ConfigError(f"{type(model).__name__} has no linear layer to hold in 4 bits")
    return model.float()  # the rest; packed 4-bit weights are integers and stay


def merge(model: Any, method: str) -> Any:
    """The model with its adapters folded in: plain layers, in full precision, without peft's wrapper."""
    if method == "full":
        return model
    model.eval()
    if method == "qlora":
        _to_plain(model)
    return model.merge_and_unload()


def _to_plain(model: Any) -> None:
    """Each 4-bit layer, with the adapter around it if there is one, as the plain layer that computes it."""
    import bitsandbytes as bnb  # noqa: PLC0415  # seconds
    import torch  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    for owner, name, layer in _children(model):
        inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
        if name == "base_layer" or not isinstance(inner, bnb.nn.Linear4bit):
            continue
        with torch.no_grad():
            # What it makes of the identity is its weight, however the 4 bits are packed on this processor.
            device = inner.weight.device
            shift = layer(torch.zeros(1, inner.in_features, device=device))  # (1, out)
            weight = layer(torch.eye(inner.in_features, device=device)) - shift  # (in, out)
        plain = (
            Conv1D(inner.out_features, inner.in_features)
            if inner.was_transposed
            else torch.nn.Linear(inner.in_features, inner.out_features, bias=inner.bias is not None)
        )
        plain.weight.data = weight if inner.was_transposed else weight.T.contiguous()
        if plain.bias is not None:
            plain.bias.data = shift[0] if inner.bias is None else inner.bias.data.clone()
        setattr(owner, name, plain)


def _children(model: Any) -> list[tuple[Any, str, Any]]:
    return [(owner, name, layer) for owner in model.modules() for name, layer in owner.named_children()]
