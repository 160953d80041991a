"""Smaller numbers: what was touched, that it still computes the same, and what it weighs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.fixtures.tiny import accuracy, classifier, counting, generator, rows, trained
from tests.test_export import session
from training.export import cache_names, to_onnx
from training.graph import SurgeryError, integer_products
from training.quantize import (
    conv_to_linear,
    integer_layers,
    load_in_bits,
    quantize_model,
    quantize_onnx,
    small_layers,
)


@functools.cache
def learned(family: str) -> Any:
    return trained(classifier(family))


@pytest.fixture(scope="module")
def counter():
    return counting(generator(wide=64))


@pytest.fixture(scope="module")
def counter_path(counter, tmp_path_factory):
    """One export for all that ask about it: tracing takes seconds."""
    return to_onnx(counter, tmp_path_factory.mktemp("counter") / "model.onnx")


def cosine(one: Any, other: Any) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("family", ["albert", "bert", "distilbert", "roberta"])
def test_int8_classifier_gives_nearly_the_logits_of_torch_from_integer_products_alone(family, tmp_path):
    """Six a layer, ALBERT's repeated ones counted each time; two of the head, one of ALBERT's mapping."""
    model = learned(family)
    small = tmp_path / "small.onnx"
    touched = quantize_onnx(to_onnx(model, tmp_path / "model.onnx"), small)
    assert touched == integer_products(onnx.load(small).graph) == 2 * 6 + 2 + (family == "albert")
    ids, mask, _ = rows(100, seed=7)
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask).logits.numpy()
    (got,) = session(small).run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    assert cosine(got, wanted) > 0.99
    assert (got.argmax(1) == wanted.argmax(1)).mean() > 0.97


def test_shared_weights_of_albert_are_stored_once_in_int8(tmp_path):
    sizes = []
    for layers in (2, 6):
        small = tmp_path / f"{layers}.onnx"
        quantize_onnx(to_onnx(classifier("albert", layers=layers), tmp_path / "model.onnx"), small)
        stored = onnx.load(small).graph.initializer
        sizes.append(sum(len(one.raw_data) for one in stored))
    assert sizes[1] < 1.1 * sizes[0]


def test_no_weight_reaches_where_older_processors_saturate(counter_path, tmp_path):
    """Two products of 255 with a weight beyond 64 leave the 16 bits that processors without VNNI add in."""
    small = tmp_path / "small.onnx"
    quantize_onnx(counter_path, small)
    graph = onnx.load(small).graph
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    factors = {turned.get(n.input[1], n.input[1]) for n in graph.node if n.op_type == "MatMulInteger"}
    weights = [numpy_helper.to_array(one) for one in graph.initializer if one.name in factors]
    assert len(weights) == 9
    assert max(np.abs(each.astype(int)).max() for each in weights) <= 64


def test_int8_generator_writes_what_the_float_one_writes_and_stores_its_embedding_once(
    counter, counter_path, tmp_path
):
    small = tmp_path / "small.onnx"
    assert quantize_onnx(counter_path, small) == 2 * 4 + 1
    past = {name: np.zeros((1, 4, 0, 16), np.float32) for name in cache_names(2)}
    run, feed, said = session(small), {"input_ids": np.array([[30, 31, 32]]), **past}, []
    for _ in range(15):
        logits, *grown = run.run(None, feed)
        said.append(int(logits[0].argmax()))
        feed = {"input_ids": np.array([[said[-1]]]), **dict(zip(past, grown, strict=True))}
    assert said == list(range(33, 48))
    stored = sum(len(one.raw_data) for one in onnx.load(small).graph.initializer)
    assert stored < 0.28 * 4 * sum(one.numel() for one in counter.parameters())


def test_quantize_onnx_refuses_to_leave_a_product_in_floats(counter_path, tmp_path, monkeypatch):
    monkeypatch.setattr("training.graph.integer_products", lambda graph: 8)
    with pytest.raises(SurgeryError, match="8 of 9 products"):
        quantize_onnx(counter_path, tmp_path / "small.onnx")


def test_quantize_model_computes_every_linear_layer_in_int8_and_stays_right():
    model = learned("distilbert")
    small = quantize_model(model)
    assert len(integer_layers(small)) == 2 * 6 + 2
    assert accuracy(small) > accuracy(model) - 0.03
    assert not integer_layers(model)


def test_quantize_model_reaches_the_conv1d_layers_of_gpt2(counter):
    small = quantize_model(counter)
    assert len(integer_layers(small)) == 2 * 4 + 1
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert (small(ids).logits.argmax(-1) == ids + 1).float().mean() > 0.9


def test_conv1d_turned_into_linear_computes_the_same():
    model = generator()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model(ids).logits
        torch.testing.assert_close(conv_to_linear(model)(ids).logits, before)


@pytest.mark.parametrize("bits", [8, 4])
def test_large_base_loads_in_few_bits_and_still_writes(bits, tmp_path):
    counting(generator(wide=64)).save_pretrained(tmp_path)
    model = load_in_bits(tmp_path, bits)
    assert len(small_layers(model)) == 2 * 4
    said = model.generate(torch.arange(20, 30)[None], max_new_tokens=8, do_sample=False)
    assert said[0, 10:].tolist() == list(range(30, 38))


def test_unknown_width_is_refused(tmp_path):
    with pytest.raises(SurgeryError, match="3 bits"):
        load_in_bits(tmp_path, 3)
