"""Quantise: int8 for what ships, torch's dynamic int8 as the guide has it, 8 and 4 bit for large bases.

Each way counts what it touched and fails when that is not all it should have touched: quantisers skip what
they do not know (GPT-2's Conv1D, weights behind a transpose) and say nothing.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from training import graph
from training.graph import SurgeryError


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
