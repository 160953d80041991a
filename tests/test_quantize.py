"""Smaller numbers: what was touched, that it still computes the same, and what it weighs."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from onnx import numpy_helper
from pyarrow import parquet
from transformers import BertConfig, BertForSequenceClassification
from typer.testing import CliRunner

from tests.fixtures.tiny import (
    LABELS,
    VOCABULARY,
    accuracy,
    classifier,
    counting,
    generator,
    numbers,
    rows,
    trained,
)
from tests.test_export import session
from training import served
from training.app import app
from training.export import cache_names, to_onnx
from training.folder import make_card, save_folder
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


def labelled(path: Path) -> Path:
    """Rows of the test split for the task that `trained` learns."""
    ids, mask, labels = rows(200, seed=5)
    texts = [
        " ".join(f"w{one}" for one in row[: int(size)]) for row, size in zip(ids, mask.sum(1), strict=True)
    ]
    found = [{"text": t, "category": int(n), "split": "test"} for t, n in zip(texts, labels, strict=True)]
    parquet.write_table(pa.Table.from_pylist(found), path)
    return path


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


@pytest.mark.timeout(400)  # three exports; a quarter of a minute of an idle processor
def test_quantize_command_compares_int8_with_the_parent_in_bytes_time_and_quality(tmp_path):
    shape = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 66,
    }
    rows_of, made = labelled(tmp_path / "rows.parquet"), {}
    for layers in (4, 1):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=VOCABULARY, num_labels=LABELS, num_hidden_layers=layers, pad_token_id=0, **shape
        )
        model = trained(BertForSequenceClassification(config), steps=60)
        card = make_card("low", {"category": LABELS}, sequence=32)
        made[layers] = save_folder(model, numbers(), card, tmp_path / str(layers))
    argv = [
        "quantize",
        str(made[1]),
        "--out",
        str(tmp_path / "out"),
        "--parent",
        str(made[4]),
        "--data",
        str(rows_of),
    ]
    said = json.loads(CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False).stdout)
    parent, plain, small = said["table"]
    assert [one["step"] for one in said["table"]] == ["parent", "float", "int8"]
    assert (small["layers_touched"], small["layers"]) == (8, 8)
    assert small["bytes"] < 0.5 * plain["bytes"] < 0.5 * parent["bytes"]
    assert said["bytes_ratio"] == pytest.approx(small["bytes"] / parent["bytes"], abs=1e-3)
    assert said["speedup"] > 1.5
    assert small["quality"]["n"] == 200
    assert small["quality"]["macro_f1"] == pytest.approx(plain["quality"]["macro_f1"], abs=0.03)
    assert small["quality_before"] == plain["quality"]
    assert (tmp_path / "out/model.int8.onnx").stat().st_size == small["bytes"]
    assert json.loads((tmp_path / "out/table.json").read_text()) == said


@pytest.mark.parametrize(("how", "layers"), [("torch", 9), ("8bit", 8), ("4bit", 8)])
def test_quantize_command_tells_how_many_layers_other_ways_touch(how, layers, counter, tmp_path):
    folder = save_folder(counter, numbers(), make_card("top", {}, sequence=32), tmp_path / "model")
    argv = ["quantize", str(folder), "--out", str(tmp_path / "out"), "--how", how, "--json"]
    said = json.loads(CliRunner().invoke(app, argv, catch_exceptions=False).stdout)
    assert said["table"][-1]["layers_touched"] == layers


def test_graph_of_a_generator_is_judged_like_the_model_it_came_from(counter, counter_path):
    text = " ".join(f"w{number}" for number in range(20, 40))
    found = [{"prompt": text[:19], "completion": text[19:], "split": "test"}] * 3
    card = make_card("top", {}, sequence=32)
    wanted = served.judge(counter, numbers(), card, found)
    got = served.judge_graph(counter_path, numbers(), card, found)
    assert got == pytest.approx(wanted, abs=1e-3)
    assert got["accuracy"] > 0.9
