"""`evaluate --task incidents`: cases are judged as the daemon judges them, with a model and without."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from models.bundle import verify
from models.situations import FAULTS
from models.taxonomy import FaultClass
from tests.fixtures.bundles import make_bundle
from training.sources.cases import Case
from training.sources.situations import cases, write_cases
from training.tables import DataError
from training.tasks import Request
from training.tasks.incidents import by_model, read_cases, run, see


@pytest.fixture(scope="module")
def some() -> list[Case]:
    return [case for case in cases(seed=5, episodes=40) if not case.fault_class.benign][:24]


@pytest.fixture
def file(some, tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(case) for case in some))
    return path


@pytest.fixture
def bundle(tmp_path):
    return verify(make_bundle(tmp_path / "bundle", "middle"), "middle")


def request(path, bundle=None) -> Request:
    return Request("incidents", (path,), bundle, rounds=20)


def test_the_baseline_is_scored_with_intervals(file, some):
    figures = run(request(file)).figures
    measured = sum(case.split == "test" for case in some) or len(some)
    assert figures["n"] == measured
    assert figures["path"] == "baseline"
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
    assert 0.0 <= figures["culprit_top1"] <= 1.0
    assert all(isinstance(value, float | int | str) for value in figures.values())
    json.dumps(figures)


def test_a_model_stands_beside_the_baseline_with_its_gain(file, bundle):
    figures = run(request(file, bundle)).figures
    assert figures["path"] == "model"
    gain = figures["accuracy"] - figures["baseline_accuracy"]
    assert figures["gain_accuracy"] == pytest.approx(gain)
    assert {"model_macro_f1", "baseline_culprit_top1", "gain_macro_f1_low", "revised_share"} <= figures.keys()


def test_what_is_told_differs_from_the_baseline_only_where_the_model_was_asked(some, tmp_path):
    seen = [see(case) for case in some]
    changed = []
    for seed in range(4):  # a tiny model says much the same of everything; some of it is benign
        made = verify(make_bundle(tmp_path / str(seed), "middle", seed=seed), "middle")
        easy = msgspec.structs.replace(made.config, thresholds={"fault_class": 0.0, "culprit": 0.0})
        _, served, revised = by_model(seen, replace(made, config=easy))
        differing = [one for one, told in zip(seen, served, strict=True) if told != one.baseline]
        assert revised >= len(differing)
        assert not any(FAULTS[told.fault].benign for told in served)
        changed += differing
    assert changed
    assert all(one.asked for one in changed)


def test_only_held_out_cases_are_scored_where_a_file_says_which(some, tmp_path):
    path = tmp_path / "mixed.jsonl"
    marked = [
        msgspec.structs.replace(case, split="test" if n < 5 else "train") for n, case in enumerate(some)
    ]
    path.write_bytes(b"\n".join(msgspec.json.encode(case) for case in marked))
    assert len(list(read_cases([path]))) == 5


@pytest.mark.parametrize("line", [b"{", b'{"id": "x"}', b"[]"])
def test_a_line_that_is_no_case_is_named(file, line):
    file.write_bytes(file.read_bytes() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match="line 25"):
        list(read_cases([file]))


def test_a_simulated_file_holds_one_split(tmp_path):
    out = tmp_path / "cases.jsonl"
    told = write_cases(out=out, part="test", episodes=30, seed=5)
    found = list(read_cases([out]))
    assert len(found) == told["cases"] > 0
    assert {case.split for case in found} == {"test"}
    assert all(isinstance(case.fault_class, FaultClass) for case in found)
