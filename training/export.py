"""Export: a torch model to ONNX for the daemon, to safetensors, or to a .pth for other uses.

What the daemon loads is ONNX with the inputs and outputs that `models.runtime` names. A `.pth` is a pickle:
other programs may want it, the daemon refuses it.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
import typer
from safetensors.torch import save_file
from transformers import DynamicCache

from daemon.errors import ConfigError
from training import graph
from training.folder import load_folder

LONGEST = 512  # tokens; an encoder's graph takes any batch and any sequence up to its own positions
FORMATS = ("onnx", "safetensors", "pth", "pth-int8")


def to_onnx(model: Any, path: Path) -> Path:
    """Write a classifier or a GPT-2 as float32 ONNX; the path.

    Classifier: `input_ids`, `attention_mask` int64 (batch, sequence) -> `logits` (batch, labels).
    Generator: `input_ids` int64 (1, sequence) and `k0, v0, k1, ...` float32 (1, heads, past, head width) ->
    `logits` (1, vocabulary) of the last position and `pk0, pv0, ...`, which are the next step's past.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _as_exported(model):
        program = _generator(model) if is_generator(model) else _classifier(model)
    proto = program.model_proto
    graph.tidy(proto)
    proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[
            :
        ]  # the exporter's stack traces: a third of a small model, and paths of this host
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


def is_generator(model: Any) -> bool:
    """Whether the model writes text (it has no labels' head)."""
    return type(model).__name__.endswith("LMHeadModel")


@contextmanager
def _as_exported(model: Any) -> Iterator[None]:
    """Eval mode and plain attention (a fifth fewer nodes, no NaN checks), put back afterwards."""
    was_training, attention = model.training, model.config._attn_implementation  # noqa: SLF001
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model.eval()
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations and shared axis names
            yield
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)
        logging.getLogger("torch.onnx").setLevel(level)


def _classifier(model: Any) -> Any:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # (batch, labels)

    # Offsets of RoBERTa's positions take two rows of the table.
    longest = min(LONGEST, model.config.max_position_embeddings - 2)
    ids = torch.randint(2, min(100, model.config.vocab_size), (2, min(8, longest)))
    axes = {
        0: torch.export.Dim("batch", min=1, max=1024),
        1: torch.export.Dim("sequence", min=2, max=longest),
    }
    return torch.onnx.export(
        Logits().eval(),
        (ids, torch.ones_like(ids)),
        dynamo=True,
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        verbose=False,
    )


def cache_names(layers: int) -> list[str]:
    """The generator's past inputs in their order: k0, v0, k1, v1, ..."""
    return [f"{kind}{layer}" for layer in range(layers) for kind in ("k", "v")]


def _generator(model: Any) -> Any:
    layers, heads = model.config.n_layer, model.config.n_head
    width = model.config.n_embd // heads

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, *past: Any) -> tuple[Any, ...]:
            cache = DynamicCache()
            for layer in range(layers):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
            before = past[0].shape[2]
            positions = (
                torch.arange(input_ids.shape[1], device=input_ids.device)[None] + before
            )  # (1, sequence)
            seen = torch.ones(1, before + input_ids.shape[1], dtype=torch.long)  # (1, past + sequence)
            out = self.model(
                input_ids=input_ids,
                past_key_values=cache,
                position_ids=positions,
                attention_mask=seen,
                use_cache=True,
                logits_to_keep=1,
            )
            grown = [each for layer in out.past_key_values.layers for each in (layer.keys, layer.values)]
            return (out.logits[:, -1], *grown)  # (1, vocabulary), then (1, heads, past + sequence, width)

    names = cache_names(layers)
    ids = torch.randint(0, model.config.vocab_size, (1, 8))
    past = tuple(torch.randn(1, heads, 5, width) for _ in names)
    dynamic = torch.export.Dim.DYNAMIC
    return torch.onnx.export(
        Step().eval(),
        (ids, *past),
        dynamo=True,
        dynamic_shapes=({1: dynamic}, tuple({2: dynamic} for _ in names)),
        input_names=["input_ids", *names],
        output_names=["logits", *(f"p{name}" for name in names)],
        verbose=False,
    )


def export_folder(
    model: Path,
    out: Path,
    *,
    formats: Sequence[str] = ("onnx",),
    tell: Callable[[str], None] = lambda _said: None,
) -> dict[str, Any]:
    """Write a trained model's folder in other formats to `out`; names and bytes of the files.

    `onnx` float32; `safetensors` and `pth` the weights by name (`low_model.pth`, as the guide has it),
    `pth-int8` those of torch's dynamic int8. Raises ConfigError for another format.
    """
    unknown = [one for one in formats if one not in FORMATS]
    if unknown or not formats:
        raise ConfigError(f"no format {', '.join(unknown) or 'given'}", hint=f"formats: {', '.join(FORMATS)}")
    loaded, _, card = load_folder(model)
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for one in dict.fromkeys(formats):
        path = write_as(loaded, one, out, card["tier"])
        made[path.name] = path.stat().st_size
        tell(f"{path}: {made[path.name]} bytes")
    return {"files": made}


def write_as(model: Any, form: str, out: Path, tier: str) -> Path:
    """Write the model in one of FORMATS under its tier's name; the file."""
    path = out / f"{tier}_model{'.int8' if form == 'pth-int8' else ''}.{form.removesuffix('-int8')}"
    if form == "onnx":
        return to_onnx(model, path)
    if form == "safetensors":
        # What is tied is stored under each of its names, so that any reader finds it.
        weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, path, {"format": "pt"})
        return path
    if form == "pth-int8":
        from training.quantize import quantize_model  # noqa: PLC0415 - it imports this module

        model = quantize_model(model)
    torch.save(model.state_dict(), path)
    return path


def command(
    folder: Annotated[Path, typer.Argument(help="A trained model's folder.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the files go, as TIER_model.FORMAT.")] = Path("exported"),
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"{', '.join(FORMATS)}; may be given several times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Names and bytes as one JSON object.")] = False,
) -> None:
    """A .pth is a pickle, for other programs: the daemon refuses it."""
    result = export_folder(folder, out, formats=formats or ["onnx"])
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, size in result["files"].items():
        sys.stdout.write(f"{out / name}  {size:,} bytes\n")
