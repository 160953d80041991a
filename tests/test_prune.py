"""Cuts: what they touch, what they change, and what distillation gives back."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
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
from training import structure
from training.app import app
from training.export import to_onnx
from training.finetune import HEADS, train_folder
from training.folder import load_folder, make_card, save_folder
from training.graph import SurgeryError
from training.measure import costs
from training.prune import prunable_layers, prune_folder, prune_model, sparsity

FAMILIES = ["albert", "bert", "distilbert", "roberta"]


def logits(model: Any) -> Any:
    if model.config.model_type == "gpt2":
        return model(torch.arange(20)[None]).logits
    ids, mask, _ = rows(8)
    return model(input_ids=ids, attention_mask=mask).logits


def make(family: str, **shape: int) -> Any:
    return generator(**shape) if family == "gpt2" else classifier(family, **shape)


@pytest.mark.parametrize(("family", "layers"), [("albert", 9), ("bert", 14), ("distilbert", 14), ("gpt2", 8)])
def test_prune_model_zeroes_its_share_of_every_layer_for_good(family, layers):
    """GPT-2's Conv1D layers too, and not its output head, which is the embedding."""
    model = prune_model(make(family), amount=0.3)
    found = prunable_layers(model)
    assert len(found) == layers
    assert all(0.29 < (one.weight == 0).float().mean() < 0.31 for one in found.values())
    assert not any("_orig" in name or "_mask" in name for name in model.state_dict())


def test_prune_model_takes_the_smallest_weights():
    model = classifier("bert")
    layer = model.bert.encoder.layer[0].attention.self.query
    before = layer.weight.detach().clone()
    prune_model(model, amount=0.3)
    gone = layer.weight == 0
    assert before[gone].abs().max() <= before[~gone].abs().min()


def test_pruned_generator_keeps_its_tied_head():
    model = prune_model(generator())
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not (model.lm_head.weight == 0).any(dim=1)[1:].any()


@pytest.mark.parametrize("amount", [-0.1, 1.0, 7])
def test_amount_that_is_no_share_is_refused(amount):
    with pytest.raises(SurgeryError, match="amount"):
        prune_model(classifier("bert"), amount=amount)


def test_zeroed_weights_change_neither_size_nor_speed(tmp_path):
    model = classifier("bert", wide=64)
    plain = to_onnx(model, tmp_path / "plain.onnx")
    sparse = to_onnx(prune_model(model), tmp_path / "sparse.onnx")
    before, after = costs([plain, sparse], sequence=64, rounds=100)
    assert before["bytes"] == after["bytes"]
    assert after["latency_ms"] == pytest.approx(before["latency_ms"], rel=0.2)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_fewer_layers_compute_what_the_model_computes_without_the_others(family):
    model = make(family, layers=4)
    small = structure.keep_layers(model, [0, 2])
    assert structure.layer_count(small) == 2
    stack = {
        "bert": lambda one: one.bert.encoder.layer,
        "roberta": lambda one: one.roberta.encoder.layer,
        "distilbert": lambda one: one.distilbert.transformer.layer,
        "gpt2": lambda one: one.transformer.h,
    }
    if family == "albert":  # one layer, run through twice instead of four times
        model.albert.encoder.config.num_hidden_layers = 2
    else:
        layers = stack[family](model)
        del layers[3], layers[1]
    with torch.no_grad():
        torch.testing.assert_close(logits(small), logits(model))


def test_shorter_generator_still_caches():
    model = structure.keep_layers(counting(generator(layers=3), steps=30), [0, 2])
    with torch.no_grad():
        fast = model.generate(torch.arange(10, 20)[None], max_new_tokens=8, do_sample=False, use_cache=True)
        slow = model.generate(torch.arange(10, 20)[None], max_new_tokens=8, do_sample=False, use_cache=False)
    assert fast.tolist() == slow.tolist()


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_neurons_that_do_nothing_are_the_first_to_go(family):
    model = make(family)
    idle = torch.arange(0, structure.feed_forward_width(model), 2)
    with torch.no_grad():
        for inner, outer in structure.pairs(model):
            turned = family == "gpt2"
            (inner.weight.T if turned else inner.weight)[idle] = 0
            inner.bias[idle] = 0
            (outer.weight if turned else outer.weight.T)[idle] = 0
        wanted = logits(model)
        width = structure.feed_forward_width(model)
        small = structure.cut_feed_forward(model, width - len(idle), structure.weigh_neurons(model))
        torch.testing.assert_close(logits(small), wanted)
    assert structure.feed_forward_width(small) == width // 2
    assert structure.feed_forward_width(model) == width


def test_neurons_that_the_loss_does_not_feel_have_no_score():
    model = trained(classifier("bert"), steps=10)
    for inner, outer in structure.pairs(model):
        outer.weight.data[:, 7] = 0  # what it says reaches nobody
        inner.bias.data[7] += 5
    ids, mask, labels = rows(32)
    losses = (
        torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels)
        for _ in range(2)
    )
    for score in structure.feel_neurons(model, losses):
        assert score[7] == 0
        assert (score > 0).sum() > len(score) // 2


def test_the_layers_that_stay_are_those_that_the_loss_misses():
    model = make("bert", layers=4)
    with torch.no_grad():
        for number in (1, 2):  # these two pass on what they get
            for part in (
                model.bert.encoder.layer[number].attention.output,
                model.bert.encoder.layer[number].output,
            ):
                part.dense.weight.zero_()
                part.dense.bias.zero_()
        wanted = logits(model)
        kept = structure.choose_layers(model, 2, lambda made: float((logits(made) - wanted).abs().sum()))
    assert kept == [0, 3]


@pytest.mark.parametrize(("count", "total", "kept"), [(3, 6, [0, 2, 5]), (1, 4, [0]), (4, 4, [0, 1, 2, 3])])
def test_layers_stay_evenly_with_first_and_last(count, total, kept):
    assert structure.spread(count, total) == kept


@pytest.mark.parametrize("kept", [[], [0, 0], [2, 1], [0, 4]])
def test_impossible_layers_are_refused(kept):
    with pytest.raises(SurgeryError, match="layers"):
        structure.keep_layers(make("bert", layers=4), kept)


# --- folders ------------------------------------------------------------------------------------------------


@functools.cache
def data(folder: Path) -> Path:
    """Rows of the low tier whose category is told by the first word; the last fifty words never occur."""
    draw, found = np.random.default_rng(0), []
    for number in range(700):
        ids = draw.integers(5, 150, 8)
        found.append(
            {
                "text": " ".join(f"w{one}" for one in ids),
                "severity": int(ids[0]) % 4,
                "alert": None,
                "category": int(ids[0] * LABELS // 150),
                "group": f"g{number}",
                "split": "train" if number < 500 else "val",
            }
        )
    parquet.write_table(pa.Table.from_pylist(found), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    """A trained four-layer model of the low tier and its rows."""
    folder = tmp_path_factory.mktemp("low")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=VOCABULARY, num_labels=15, max_position_embeddings=66, pad_token_id=0, **shape
    )
    card = make_card("low", HEADS["low"], sequence=16)
    save_folder(BertForSequenceClassification(config), numbers(), card, folder / "fresh")
    train_folder(
        data(folder),
        str(folder / "fresh"),
        folder / "model",
        tier="low",
        batch=32,
        learning_rate=3e-3,
        max_steps=180,
        evaluations=1,
        bf16=False,
        sequence=16,
    )
    return folder


def test_cut_folder_is_smaller_and_distillation_gives_back_what_the_cut_took(low, tmp_path):
    result = prune_folder(
        low / "model",
        tmp_path / "small",
        data=data(low),
        layers=2,
        feed_forward=24,
        vocabulary=150,
        amount=0.3,
        max_steps=150,
        learning_rate=3e-3,
        measured=False,
    )
    steps = {one["step"]: one for one in result["table"]}
    assert list(steps) == ["parent", "vocabulary", "layers", "feed-forward", "distil", "sparsity"]
    model, tokenizer, card = load_folder(tmp_path / "small")
    assert structure.layer_count(model) == 2
    assert structure.feed_forward_width(model) == 24
    assert model.config.vocab_size == tokenizer.get_vocab_size() <= 151
    assert sparsity(model) == pytest.approx(0.3, abs=0.01)
    assert card["parent"] == str(low / "model")
    assert json.loads(json.dumps(card["metrics"]["table"])) == result["table"]
    parent, cut, back = (steps[name] for name in ("parent", "feed-forward", "distil"))
    assert cut["parameters"] < 0.7 * parent["parameters"]
    assert parent["quality"]["macro_f1"] > 0.8
    assert back["quality"]["loss"] < cut["quality"]["loss"]
    assert back["quality_before"] == cut["quality"]
    assert not (tmp_path / "small" / "cut").exists()


def test_table_of_a_cut_has_bytes_milliseconds_and_memory_of_before_and_after(low, tmp_path):
    before, after = prune_folder(low / "model", tmp_path / "small", layers=1)["table"]
    assert after["bytes"] < 0.6 * before["bytes"]
    assert after["latency_ms"] < 0.7 * before["latency_ms"]
    assert before["latency_low_ms"] <= before["latency_ms"] <= before["latency_high_ms"]
    assert 0 < after["memory_mib"] < 100


def test_prune_command_cuts_a_folder_and_tells_as_json_what_it_did(low, tmp_path):
    argv = [
        "prune",
        str(low / "model"),
        "--out",
        str(tmp_path / "p"),
        "--layers",
        "0,3",
        "--no-measured",
    ]
    said = CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False)
    told = json.loads(said.stdout)["table"]
    assert [(one["step"], one["layers_touched"], one["layers"]) for one in told] == [
        ("parent", 0, 0),
        ("layers", 2, 4),
    ]
    assert structure.layer_count(load_folder(tmp_path / "p")[0]) == 2


def test_prune_command_without_a_cut_zeroes_three_tenths(low, tmp_path):
    argv = ["prune", str(low / "model"), "--out", str(tmp_path / "p"), "--no-measured"]
    assert "sparsity" in CliRunner().invoke(app, argv, catch_exceptions=False).stdout
    assert sparsity(load_folder(tmp_path / "p")[0]) == pytest.approx(0.3, abs=0.01)


def test_accuracy_outlives_sparsity():
    model = trained(classifier("distilbert"))
    assert accuracy(prune_model(model)) > 0.9
