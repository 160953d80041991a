"""Quantise: int8 for what ships, torch's dynamic int8 as the guide has it, 8 and 4 bit for large bases.

Each way counts what it touched and fails when that is not all it should have touched: quantisers skip what
they do not know (GPT-2's Conv1D, weights behind a transpose) and say nothing.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
import typer
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from daemon.errors import ConfigError
from training import graph, measure, served
from training.export import to_onnx
from training.folder import load_folder
from training.graph import SurgeryError
from training.show import print_table

FLOAT, SMALL, TABLE = "model.onnx", "model.int8.onnx", "table.json"
QUALITY_ROWS = 1000  # one text at a time, as it is served: the parent of the middle tier takes a minute


def quantize_onnx(source: Path, target: Path) -> int:
    """Write float32 ONNX as int8, a scale for each channel or embedding row; how many products.

    Raises SurgeryError when a product with a stored weight stays float.
    """
    model = onnx.load(source)
    graph.tidy(model)
    expected = graph.weight_products(model.graph)
    graph.shrink_tables(model)
    logging.getLogger("root").setLevel(logging.ERROR)  # it advises a preprocessing that `tidy` has done
    target.parent.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul"],  # a Gemm becomes a MatMul first
        per_channel=True,
        reduce_range=True,  # see graph.HEAD_RANGE
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    made = onnx.load(target)
    graph.tidy(made)
    touched = graph.integer_products(made.graph)
    if touched != expected:
        raise SurgeryError(
            f"{touched} of {expected} products of {source} became integers",
            hint="export it again with `hauswart train export`; an unknown operator holds a weight",
        )
    onnx.save(made, target)
    return touched


def quantize_model(model: Any) -> Any:
    """A copy with dynamic int8 Linear layers (torch), Conv1D layers turned into Linear ones first.

    In torch alone and on the processor; the daemon gets `quantize_onnx`. Raises
    SurgeryError when a layer stays float.
    """
    straight = conv_to_linear(copy.deepcopy(model).eval())
    expected = sum(isinstance(layer, torch.nn.Linear) for layer in straight.modules())
    small = torch.ao.quantization.quantize_dynamic(straight, {torch.nn.Linear}, dtype=torch.qint8)
    touched = len(integer_layers(small))
    if touched != expected or not touched:
        raise SurgeryError(f"{touched} of {expected} linear layers of {type(model).__name__} became int8")
    return small


def integer_layers(model: Any) -> list[str]:
    """Names of the layers that torch computes in int8."""
    kind = torch.ao.nn.quantized.dynamic.Linear
    return [name for name, layer in model.named_modules() if isinstance(layer, kind)]


def conv_to_linear(model: Any) -> Any:
    """Replace GPT-2's Conv1D (a Linear with its weight turned) in place by Linear; the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, Conv1D):
                continue
            linear = torch.nn.Linear(*layer.weight.shape)
            linear.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous())
            linear.bias = torch.nn.Parameter(layer.bias.detach())
            setattr(parent, name, linear)
    return model


def load_in_bits(path: str | Path, bits: int, *, device: str = "cpu") -> Any:
    """Load a text model from a folder, or by name, with weights of 8 or 4 bits (bitsandbytes).

    4 bit is NF4 with double quantisation (Dettmers et al. 2023), 8 bit is LLM.int8 (Dettmers et al. 2022);
    both keep the output head as it is. Raises SurgeryError for other widths and when nothing was quantised.
    """
    configs = {
        8: BitsAndBytesConfig(load_in_8bit=True),
        4: BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    }
    if bits not in configs:
        raise SurgeryError(f"weights of {bits} bits are not offered", hint="8 or 4")
    model = AutoModelForCausalLM.from_pretrained(
        path,
        quantization_config=configs[bits],
        device_map=device,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if not small_layers(model):
        raise SurgeryError(f"no layer of {path} became {bits} bit")
    return model


def small_layers(model: Any) -> list[str]:
    """Names of the layers that bitsandbytes holds in 8 or 4 bits."""
    import bitsandbytes  # noqa: PLC0415 - seconds, and only large bases need it

    kinds = (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit)
    return [name for name, layer in model.named_modules() if isinstance(layer, kinds)]


def quantize_folder(
    model: Path,
    out: Path,
    *,
    data: Path | None = None,
    parent: Path | None = None,
    split: str = "test",
    rows: int = QUALITY_ROWS,
    measured: bool = True,
    tell: Callable[[str], None] = lambda _said: None,
) -> dict[str, Any]:
    """Write a trained model's folder as ONNX in float32 and int8 to `out`; `table` compares them.

    The table's first row is `parent` (a trained model's folder: the one that was not cut), where it is given.
    All are timed in turns, in the daemon's runtime, at the sequence length of `model`; their quality is that
    of the graphs on rows of `data`. `bytes_ratio` and `speedup` are int8 against the first row.
    """
    loaded, tokenizer, card = load_folder(model)
    plain, small = to_onnx(loaded, out / FLOAT), out / SMALL
    touched = quantize_onnx(plain, small)
    tell(f"{touched} integer products: {plain.stat().st_size} -> {small.stat().st_size} bytes")
    judged = served.read_rows(data, card["tier"], split, rows) if data else []
    table = [
        _row("float", "as trained", plain, loaded, served.judge_graph(plain, tokenizer, card, judged)),
        _row("int8", "a scale a channel", small, loaded, served.judge_graph(small, tokenizer, card, judged)),
    ]
    table[1] |= {"layers_touched": touched, "layers": touched}
    paths = [plain, small]
    with tempfile.TemporaryDirectory(prefix="hauswart-quantize-") as work:
        if parent is not None:
            first = to_onnx(load_folder(parent)[0], Path(work) / FLOAT)
            table.insert(0, _parent_row(parent, first, judged))
            paths.insert(0, first)
        if measured:
            for row, cost in zip(table, measure.costs(paths, sequence=int(card["sequence"])), strict=True):
                row.update(cost)
    result = {"table": measure.chain(table)} | _compared(table)
    (out / TABLE).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _row(step: str, detail: str, path: Path, model: Any, quality: dict[str, float]) -> dict[str, Any]:
    return measure.row(
        step,
        detail,
        parameters=sum(one.numel() for one in model.parameters()),
        sparsity=round(measure.onnx_sparsity(path), 4),
        bytes=path.stat().st_size,
        quality=quality,
    )


def _parent_row(folder: Path, path: Path, judged: list[Any]) -> dict[str, Any]:
    model, tokenizer, card = load_folder(folder)
    return _row("parent", folder.name, path, model, served.judge_graph(path, tokenizer, card, judged))


def _compared(table: list[dict[str, Any]]) -> dict[str, float]:
    first, last = table[0], table[-1]
    found = {"bytes_ratio": round(last["bytes"] / first["bytes"], 4)}
    if "latency_ms" in last:
        found["speedup"] = round(first["latency_ms"] / last["latency_ms"], 2)
    before, after = first["quality"], last["quality"]
    for name in after.keys() & before.keys() & {"macro_f1", "perplexity"}:
        found[f"{name}_change"] = round(after[name] - before[name], 4)
    return found


def quantize_in_torch(folder: Path) -> dict[str, Any]:
    """The guide's way on a trained model's folder: what `quantize_model` touches, and bytes of weights."""
    model, _, _ = load_folder(folder)
    small = quantize_model(model)
    touched = len(integer_layers(small))
    rows = [
        measure.row("float", "torch", bytes=_stored_bytes(model)),
        measure.row("int8", "torch, dynamic", touched=touched, of=touched, bytes=_stored_bytes(small)),
    ]
    return {"table": rows}


def _stored_bytes(model: Any) -> int:
    with tempfile.NamedTemporaryFile() as file:
        torch.save(model.state_dict(), file)
        return file.tell()


def quantize_base(folder: Path, out: Path, bits: int) -> dict[str, Any]:
    """A large base in 8 or 4 bits, saved to `out` as safetensors with its quantisation in config.json."""
    model = load_in_bits(folder, bits)
    model.save_pretrained(out, safe_serialization=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "hauswart.json"):
        if (folder / name).is_file():
            (out / name).write_bytes((folder / name).read_bytes())
    touched = len(small_layers(model))
    row = measure.row(
        f"{bits} bit", "bitsandbytes", touched=touched, of=touched, bytes=model.get_memory_footprint()
    )
    return {"table": [row]}


def command(
    folder: Annotated[
        Path, typer.Argument(help="A trained model's folder; with --how 8bit or 4bit any base.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Where the ONNX files go.")] = Path("quantized"),
    how: Annotated[
        str, typer.Option(help="onnx ships; torch shows the guide's; 8bit and 4bit are for large bases.")
    ] = "onnx",
    data: Annotated[Path | None, typer.Option(help="Rows to measure quality on.")] = None,
    parent: Annotated[Path | None, typer.Option(help="The model before it was cut, to compare with.")] = None,
    split: Annotated[str, typer.Option(help="Which rows.")] = "test",
    rows: Annotated[int, typer.Option(help="How many of them at most.", min=1)] = QUALITY_ROWS,
    measured: Annotated[bool, typer.Option(help="Measure time and memory.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Fails when a layer that should have become small did not."""
    if how == "onnx":
        result = quantize_folder(
            folder, out, data=data, parent=parent, split=split, rows=rows, measured=measured, tell=_tell
        )
    elif how == "torch":
        result = quantize_in_torch(folder)
    elif how in {"8bit", "4bit"}:
        result = quantize_base(folder, out, int(how[0]))
    else:
        raise ConfigError(f"no way {how!r} to quantise", hint="onnx, torch, 8bit or 4bit")
    print_table(result["table"], as_json=as_json, **{k: v for k, v in result.items() if k != "table"})


def _tell(said: str) -> None:
    print(f"hauswart: {said}", file=sys.stderr, flush=True)  # noqa: T201
