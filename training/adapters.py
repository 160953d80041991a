"""LoRA and QLoRA: train a few added weights of a large base (peft), over 4-bit weights (bitsandbytes).

Presets as the source documents name them: `lab2` (rank 8, alpha 16, dropout 0.05, q, k, v and o) and
`scheduler` (rank 16, alpha 16, no dropout).
"""

from __future__ import annotations

from typing import Any

from daemon.errors import ConfigError

ALPHA = 16
# What attention's projections are called in the families that we train.
TARGETS = {
    "gpt2": ["c_attn", "c_proj"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin"],
    "albert": ["query", "key", "value"],
    "bert": ["query", "key", "value"],
    "roberta": ["query", "key", "value"],
}
USUAL = ["q_proj", "k_proj", "v_proj", "o_proj"]


def attach(model: Any, method: str, rank: int, *, alpha: int = ALPHA, dropout: float = 0.0) -> Any:
    """The model with adapters, its own weights frozen (and in 4 bits); unchanged for "full"."""
    if method == "full":
        return model
    from peft import LoraConfig, TaskType, get_peft_model  # noqa: PLC0415  # seconds

    if rank < 1:
        raise ConfigError(f"rank {rank} adapts nothing", hint="16 is usual")
    generator = type(model).__name__.endswith(("LMHeadModel", "ForCausalLM"))
    family = str(model.config.model_type)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=TARGETS.get(family, USUAL),
        fan_in_fan_out=family == "gpt2",
        task_type=TaskType.CAUSAL_LM if generator else TaskType.SEQ_CLS,
    )
    if method == "qlora":
        model = to_four_bits(model)
    return get_peft_model(model, config)


def to_four_bits(model: Any) -> Any:
    """Every linear layer but the heads in 4 bits (NF4), the rest frozen as it is."""
    import bitsandbytes as bnb  # noqa: PLC0415  # seconds
    import torch  # noqa: PLC0415
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415

    touched = 0
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if name in {"lm_head", "classifier", "pre_classifier", "score"}:
                continue
            transposed = isinstance(layer, Conv1D)
            if not transposed and type(layer) is not torch.nn.Linear:
                continue
            weight = layer.weight.data.T.contiguous() if transposed else layer.weight.data
            small = bnb.nn.Linear4bit(
                weight.shape[1],
                weight.shape[0],
                bias=layer.bias is not None,
                compute_dtype=torch.float32,
                quant_type="nf4",
            )
            small.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
            if layer.bias is not None:
                small.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
            setattr(owner, name, small.to("cpu"))
            touched += 1
    if not touched:
        raise ConfigError(f"{type(model).__name__} has no linear layer to hold in 4 bits")
    return model


def merge(model: Any, method: str) -> Any:
    """The model with its adapters folded in, without peft's wrapper."""
    return model if method == "full" else model.merge_and_unload()
