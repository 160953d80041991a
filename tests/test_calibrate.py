"""`hauswart train calibrate`: honest probabilities and decisions from rows that nobody trained on."""

import json

import numpy as np
import pytest

from daemon.errors import ConfigError
from models import lines
from tests.fixtures.bundles import classifier_model, tokenizer
from training.calibrate import (
    calibrate_folder,
    graph_logits,
    log_softmax,
    offsets,
    platt,
    temperature,
    threshold,
)
from training.dataset import write_parquet
from training.quality import confusion, macro_f1
from training.tables import DataError

HEADS = {"severity": 4, "alert": 1, "category": 10}


def drawn(classes, rows=4000, seed=1):
    """Logits, and labels drawn from their own probabilities: already honest."""
    source = np.random.default_rng(seed)
    logits = 2.0 * source.normal(size=(rows, classes))
    noise = -np.log(-np.log(source.random(size=logits.shape)))
    return logits, (logits + noise).argmax(axis=1)


def test_temperature_finds_by_how_much_a_model_overstates():
    logits, labels = drawn(4)
    assert temperature(logits, labels) == pytest.approx(1.0, abs=0.08)
    assert temperature(3.0 * logits, labels) == pytest.approx(3.0, abs=0.25)


def test_platts_numbers_undo_a_scale_and_a_shift():
    source = np.random.default_rng(2)
    true = 2.0 * source.normal(size=5000)
    labels = (source.random(5000) < 1 / (1 + np.exp(-true))).astype(int)
    scale, shift = platt((true - 1.0) * 4.0, labels)
    assert scale == pytest.approx(0.25, rel=0.1)
    assert shift == pytest.approx(1.0, abs=0.15)


def test_ranking_is_never_turned_round():
    labels = np.array([1, 0] * 100)
    assert platt(np.where(labels == 1, -3.0, 3.0), labels)[0] > 0


def test_offsets_lift_macro_f1_of_rare_classes_and_stay_zero_where_nothing_is_gained():
    source = np.random.default_rng(3)
    labels = source.choice(3, size=3000, p=[0.8, 0.15, 0.05])
    likely = log_softmax(
        np.log([0.8, 0.15, 0.05]) + 1.2 * np.eye(3)[labels] + 0.8 * source.normal(size=(3000, 3))
    )
    added = offsets(likely, labels)

    def worth(tried):
        return macro_f1(confusion(labels, (likely + tried).argmax(axis=1), 3))

    assert worth(added) > worth(np.zeros(3)) + 0.02
    assert offsets(np.log(np.eye(3)[labels] + 1e-6), labels).tolist() == [0.0, 0.0, 0.0]


def test_threshold_is_where_verdicts_become_right_often_enough():
    logits, labels = drawn(5)
    likely = log_softmax(logits)
    least = threshold(likely, labels, 0.9)
    above = np.exp(likely.max(axis=1)) >= least
    assert (likely.argmax(axis=1) == labels)[above].mean() == pytest.approx(0.9, abs=0.02)
    assert threshold(likely, (labels + 1) % 5, 0.9) == 1.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose model is only its graph: nothing here asks torch."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "model.int8.onnx").write_bytes(classifier_model(15).SerializeToString())
    card = {"tier": "low", "heads": HEADS, "sequence": 16}
    monkeypatch.setattr("training.folder.load_folder", lambda _path: (None, tokenizer(), dict(card)))
    return made


def rows(split="val", count=300):
    words = "disk full failed link down session user root memory killed".split()  # noqa: SIM905
    source = np.random.default_rng(5)
    return [
        {
            "text": " ".join(source.choice(words, 4)),
            "group": f"g{n}",
            "source": "s",
            "split": split,
            "severity": n % 4,
            "alert": float(n % 3 == 0),
        }
        for n in range(count)
    ]


def test_decisions_are_those_that_the_low_tier_decodes_with(folder, tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "r.parquet", rows(), {})
    said = []
    found = calibrate_folder(folder, tmp_path / "r.parquet", tmp_path / "d.json", tell=said.append)
    assert json.loads((tmp_path / "d.json").read_text()) == found
    expected = {f"severity.{name}" for name in lines.SEVERITY_CLASSES} | {"alert.scale", "alert.shift"}
    assert found["thresholds"].keys() == expected
    assert found["calibration"]["temperature"].keys() == {"severity"}
    assert any(one.startswith("category: 0 rows") for one in said)
    scores = {"severity": [0.25] * 4, "alert": [0.5], "category": [0.1] * 10}
    assert lines.decode(scores, found["thresholds"]).severity_class in lines.SEVERITY_CLASSES


def test_a_rarer_alert_needs_stronger_words(folder, tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "r.parquet", rows(), {})
    usual, same, rare = (
        calibrate_folder(folder, tmp_path / "r.parquet", tmp_path / "d.json", alert_rate=rate)["thresholds"]
        for rate in (0.0, 1 / 3, 0.1)
    )
    assert same["alert.shift"] == pytest.approx(usual["alert.shift"], abs=1e-3)
    assert rare["alert.shift"] - usual["alert.shift"] == pytest.approx(
        np.log(0.1 / 0.9) - np.log(0.5), abs=1e-3
    )
    assert rare["alert.scale"] == usual["alert.scale"]


def test_same_rows_give_the_same_decisions(folder, tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "r.parquet", rows(), {})
    first, second = (
        calibrate_folder(folder, tmp_path / "r.parquet", tmp_path / name, most=200) for name in ("a", "b")
    )
    assert first == second


def test_graph_is_asked_as_the_daemon_asks(folder):
    found = graph_logits(folder / "model.int8.onnx", tokenizer(), 16, ["disk full", "link"])
    assert found.shape == (2, 15)
    np.testing.assert_allclose(
        found[1], graph_logits(folder / "model.int8.onnx", tokenizer(), 16, ["link"])[0]
    )


def test_rows_of_the_split_are_needed(folder, tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "r.parquet", rows("train"), {})
    with pytest.raises(DataError, match="val"):
        calibrate_folder(folder, tmp_path / "r.parquet", tmp_path / "d.json")


def test_generator_has_nothing_to_calibrate(folder, tmp_path, monkeypatch):
    card = {"tier": "top", "heads": {}, "sequence": 16}
    monkeypatch.setattr("training.folder.load_folder", lambda _path: (None, tokenizer(), card))
    with pytest.raises(ConfigError, match="nothing to calibrate"):
        calibrate_folder(folder, tmp_path / "r.parquet", tmp_path / "d.json")
