"""The search for trades: what counts as best, what is tried next, and that it goes on where it stopped."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from daemon.errors import ConfigError
from tests.fixtures.tiny import classifier, numbers, rows, trained
from training import search
from training.app import app
from training.finetune import HEADS
from training.folder import make_card, save_folder
from training.search import Cut, Space, pareto, search_folder, suggest, weighed

SPACE = Space(layers=(1, 6), feed_forward=(32, 256), amount=(0.0, 0.5))


def trial(quality: float, ms: float, size: int, **cut: Any) -> dict[str, Any]:
    known = {"layers": 1, "feed_forward": 32, "amount": 0.0, "bits": 8} | cut
    return {"quality": quality, "latency_ms": ms, "bytes": size, "cut": known}


def test_front_holds_what_no_other_trial_beats():
    best, fast, small = trial(0.9, 9.0, 900), trial(0.7, 1.0, 500), trial(0.6, 2.0, 100)
    beaten, equal = trial(0.6, 2.0, 501), trial(0.9, 9.0, 900)
    assert pareto([small, beaten, best, fast, equal]) == [best, fast, small]


def simulated(cut: Cut) -> dict[str, Any]:
    """Quality falls off below three layers and width 96; time and size grow with both."""
    quality = min(1.0, cut.layers / 3) * min(1.0, cut.feed_forward / 96) - 0.2 * cut.amount**2
    work = cut.layers * (40 + cut.feed_forward) * cut.bits
    return trial(quality, work / 1000, work * 10, **vars(cut))


def run(seed: int, count: int, *, random_only: bool = False) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    while len(done) < count:
        init = count if random_only else 5
        done.append(simulated(suggest(SPACE, done, init_points=init, seed=seed)))
    return done


def test_search_finds_better_trades_than_chance():
    """Within 16 trials, counted as the sum of the best figures under fixed weightings of the three goals."""
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 20)

    def merit(guided: list[Any], random: list[Any]) -> float:
        both = guided + random
        found = np.array([weighed(both, one) for one in weights])  # (weightings, trials)
        return float((found[:, :16].max(1) - found[:, 16:].max(1)).mean())

    assert np.mean([merit(run(seed, 16), run(seed + 50, 16, random_only=True)) for seed in range(2)]) > 0


def test_search_begins_with_the_whole_model_and_tries_nothing_twice():
    done = run(0, 12)
    assert done[0]["cut"] == {"layers": 6, "feed_forward": 256, "amount": 0.0, "bits": 8}
    assert len({json.dumps(one["cut"]) for one in done}) == 12


def test_same_seed_tries_the_same_cuts():
    assert run(3, 7) == run(3, 7)
    assert run(3, 7) != run(4, 7)


def test_space_that_is_used_up_is_said():
    tiny = Space(layers=(1, 1), feed_forward=(32, 32), amount=(0.0, 0.0))
    done = [simulated(Cut(1, 32, 0.0, bits)) for bits in (8, 32)]
    with pytest.raises(ConfigError, match="2 cuts"):
        suggest(tiny, done, init_points=1, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small trained model of the low tier; rows of its task lie beside it."""
    folder = tmp_path_factory.mktemp("search")
    ids, mask, labels = rows(260, seed=5)
    texts = [" ".join(f"w{n}" for n in row[: int(k)]) for row, k in zip(ids, mask.sum(1), strict=True)]
    found = [
        {"text": text, "category": int(label), "split": "train" if number < 160 else "val"}
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    parquet.write_table(pa.Table.from_pylist(found), folder / "rows.parquet")
    made = trained(classifier("distilbert", labels=15), steps=60, first=5)
    return save_folder(made, numbers(), make_card("low", HEADS["low"], sequence=16), folder / "model")


def test_search_goes_on_where_it_was_cut_short(model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(search, "try_cut", lambda _folder, cut, *_, **__: asked.append(cut) or simulated(cut))
    known = {"data": model.parent / "rows.parquet", "seed": 1}
    whole = search_folder(model, tmp_path / "whole", trials=7, **known)
    search_folder(model, tmp_path / "cut", trials=4, **known)
    with (tmp_path / "cut" / search.LOG).open("a") as file:
        file.write('{"trial": 5, "cut": {"lay')  # the machine went down
    asked.clear()
    assert search_folder(model, tmp_path / "cut", trials=7, resume=True, **known)["trials"] == 7
    assert len(asked) == 3
    log = [(tmp_path / name / search.LOG).read_text().splitlines()[1:] for name in ("whole", "cut")]
    assert [json.loads(one)["cut"] for one in log[0]] == [json.loads(one)["cut"] for one in log[1]]
    assert whole["trials"] == 7


def test_another_search_is_not_overwritten(model, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "try_cut", lambda _folder, cut, *_, **__: simulated(cut))
    known = {"data": model.parent / "rows.parquet", "trials": 1}
    search_folder(model, tmp_path / "out", **known)
    with pytest.raises(ConfigError, match="holds a search"):
        search_folder(model, tmp_path / "out", **known)
    with pytest.raises(ConfigError, match="something else: "):
        search_folder(model, tmp_path / "out", resume=True, max_steps=7, **known)


def test_search_begins_no_trial_after_its_minutes(model, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "try_cut", lambda _folder, cut, *_, **__: simulated(cut))
    result = search_folder(model, tmp_path / "out", data=model.parent / "rows.parquet", minutes=1e-9)
    assert result["trials"] == 0


@pytest.mark.timeout(400)  # two cuts, trained and exported; half a minute of an idle processor
def test_search_command_cuts_measures_and_tells_the_front(model, tmp_path):
    argv = [
        "search",
        str(model),
        "--data",
        str(model.parent / "rows.parquet"),
        "--out",
        str(tmp_path / "out"),
    ]
    argv += [
        "--trials",
        "2",
        "--init-points",
        "2",
        "--max-steps",
        "20",
        "--learning-rate",
        "1e-3",
        "--seed",
        "3",
        "--json",
    ]
    said = json.loads(CliRunner().invoke(app, argv, catch_exceptions=False).stdout)
    assert said["trials"] == 2
    log = [json.loads(one) for one in (tmp_path / "out" / search.LOG).read_text().splitlines()[1:]]
    assert said["front"] == pareto(log)
    whole, cut = log
    assert whole["quality"] > 0.8
    assert (cut["cut"]["layers"], cut["cut"]["feed_forward"]) == (1, 32)
    assert cut["bytes"] < 0.8 * whole["bytes"]
    assert cut["parameters"] < whole["parameters"]
    assert {one["cut"]["bits"] for one in log} <= {8, 32}
    assert all(one["latency_ms"] > 0 and one["memory_mib"] > 0 for one in log)
