"""`hauswart train evaluate`: the fixed interface, its figures, and what it says of files that are none."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from daemon.settings import Models
from models import bundle as bundles
from models.residual import score_rows
from tests.fixtures.bundles import make_bundle
from training import quality
from training.baselines import ngram_probabilities, residual_scores
from training.evaluate import evaluate, evaluate_model, serving
from training.intervals import drawn_by, intervals, number
from training.tables import DataError
from training.tasks import find
from training.tasks.metrics import read

ROOT = Path(__file__).parent.parent
BAD, GOOD = ("Failed to read %s: error %d", "disk is corrupt"), ("%s registered", "probed %d ports")


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def printk(tmp_path):
    rows = []
    for number_ in range(40):
        rows.append((3, f"{BAD[number_ % 2]} in x{number_ % 9}", f"drivers/a{number_ % 10}", "f.c"))
        rows.append((6, f"{GOOD[number_ % 2]} on y{number_ % 7}", f"drivers/b{number_ % 10}", "f.c"))
    return write_csv(tmp_path / "printk.csv", ("severity", "template", "subsystem", "file"), rows)


@pytest.fixture
def series(tmp_path):
    source = np.random.default_rng(1)
    usual = source.normal(size=(600, 5)).astype(np.float32)
    test = source.normal(size=(300, 5)).astype(np.float32)
    label = np.zeros(300, np.int8)
    test[100:120] += 6.0
    label[100:120] = 1
    path = tmp_path / "host.npz"
    np.savez(path, train=usual, test=test, label=label)
    return path


def run(*arguments):
    argv = [sys.executable, "-m", "training", "evaluate", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


# --- the interface ------------------------------------------------------------------------------------------


def test_json_is_one_flat_object_without_null(printk, tmp_path):
    done = run(
        "--task",
        "log-severity",
        "--data",
        printk,
        "--bundle",
        "none",
        "--scores",
        tmp_path / "s.csv",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {
        "task",
        "n",
        "macro_f1",
        "accuracy",
        "auc_pr",
        "base_rate",
        "auc_pr_low",
        "bundle",
    } <= found.keys()
    assert found["task"] == "log-severity"
    assert found["bundle"] == "none"
    assert found["path"] == "baseline"
    assert found["n"] == 80
    assert all(isinstance(value, int | float | str) for value in found.values())
    scores = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [int(row["row"]) for row in scores] == list(range(80))
    assert {row["label"] for row in scores} == {"err-or-worse", "notice-or-info"}


def test_table_is_for_people(printk):
    done = run("--task", "log-severity", "--data", printk, "--bundle", "none")
    assert done.returncode == 0
    assert "95 % interval" in done.stdout
    assert "macro_f1" in done.stdout


def test_bundle_speaks_and_the_baseline_stands_beside_it(printk, tmp_path):
    made = bundles.verify(make_bundle(tmp_path / "b", "low"), "low")
    found, outcome = evaluate("log-severity", printk, bundle=made, rounds=20)
    assert found["bundle"] == made.name
    assert found["path"] == "model"
    assert found["baseline_auc_pr"] == evaluate("log-severity", printk, rounds=20)[0]["auc_pr"]
    assert sum(map(sum, outcome.curves["confusion"])) == 80


def test_serving_bundle_is_the_installed_one_and_none_where_there_is_none(tmp_path, monkeypatch):
    settings = SimpleNamespace(state=tmp_path, models=Models())
    session = SimpleNamespace(settings=settings)
    monkeypatch.setattr("models.shelf.SHIPPED", tmp_path / "shipped")
    assert serving("log-severity", "", session) is None
    make_bundle(tmp_path / "shipped" / "low", "low", "7")
    found = serving("log-severity", "", session)
    assert found is not None
    assert found.manifest.version == "7"
    assert serving("log-severity", "none", session) is None
    assert serving("metrics", "", session) is None


def test_damaged_bundle_is_refused_with_the_integrity_code(printk, tmp_path):
    made = make_bundle(tmp_path / "b", "low")
    (made / "model.onnx").write_bytes(b"x")
    done = run("--task", "log-severity", "--data", printk, "--bundle", made, "--json")
    assert done.returncode == 4
    assert "model.onnx" in done.stderr


@pytest.mark.parametrize("task", ["log-severty", "incident"])
def test_unknown_task_names_the_nearest(task, printk):
    done = run("--task", task, "--data", printk)
    assert done.returncode == 2
    assert {"log-severty": "log-severity", "incident": "incidents"}[task] in done.stderr


def test_task_whose_module_is_absent_says_so(monkeypatch):
    monkeypatch.setitem(find.__globals__["TASKS"], "later", ("training.tasks.later", ""))
    with pytest.raises(Exception, match=r"training\.tasks\.later"):
        find("later")


def test_same_seed_gives_the_same_answer(printk):
    first, second = (evaluate("log-severity", printk, seed=3, rounds=50)[0] for _ in range(2))
    assert first == second


# --- tasks --------------------------------------------------------------------------------------------------


def test_alert_rows_of_both_kinds_are_recognised_by_their_header(tmp_path):
    wazuh = write_csv(
        tmp_path / "w.csv",
        ("service", "line", "level"),
        [("sshd", f"Failed password for root {n}", 10) for n in range(5)]
        + [("cron", "session opened", 3)] * 5,
    )
    fail2ban = write_csv(
        tmp_path / "f.csv",
        ("service", "line", "match"),
        [("dovecot", "auth failed", "True"), ("dovecot", "connected", "False")],
    )
    found, _ = evaluate("log-alert", wazuh, rounds=5)
    assert (found["n"], found["base_rate"], found["auc_pr"]) == (10, 0.5, 1.0)
    found, _ = evaluate("log-alert", fail2ban, rounds=5)
    assert (found["n"], found["base_rate"]) == (2, 0.5)
    found, outcome = evaluate("log-alert", tmp_path, rounds=5)
    assert found["n"] == 12
    assert {one.file for one in outcome.scores} == {"w.csv", "f.csv"}


def test_ngram_baseline_learns_only_from_groups_that_are_not_scored(printk, tmp_path):
    rows = [(3 if "rror" in text else 6, text, "drivers/a1", "f") for text in (*BAD, *GOOD)]
    rows += [
        (level, f"{text} {n}", f"net/{n}", "f")
        for n in range(6)
        for level, text in ((3, BAD[0]), (4, "slow link"), (6, GOOD[0]), (7, "state dump"))
    ]
    train = write_csv(tmp_path / "train.csv", ("severity", "template", "subsystem", "file"), rows)
    found, _ = evaluate("log-severity", printk, train=train, rounds=5)
    assert found["train_n"] == 24
    assert found["baseline_ngram_auc_pr"] > found["base_rate"]
    with pytest.raises(DataError, match="lack a class"):
        evaluate("log-severity", printk, train=printk, rounds=5)


def test_templates_are_grouped_and_compared_with_masking_alone(tmp_path):
    lines = [(n, f"user u{n:x}{'qwerty'[n % 6]} logged in", "E1") for n in range(30)]
    lines += [(30 + n, f"disk sd{n % 3} failed", "E2") for n in range(10)]
    write_csv(tmp_path / "A_2k.log_structured.csv", ("LineId", "Content", "EventId"), lines)
    write_csv(tmp_path / "A_2k.log_templates.csv", ("EventId", "EventTemplate"), [("E1", "x")])
    (tmp_path / "A_2k.log").write_text("raw\n")
    found, outcome = evaluate("log-template", tmp_path, rounds=20)
    assert found["n"] == 40
    assert found["grouping_accuracy"] == 1.0
    assert found["baseline_grouping_accuracy"] < 1.0
    assert len({one.score for one in outcome.scores}) == 2


def test_raw_log_beside_its_table_is_enough(tmp_path):
    (tmp_path / "A.log").write_text("Jun 14 15:16:01 combo sshd[1]: check pass\n" * 3)
    write_csv(tmp_path / "A.log_structured.csv", ("LineId", "EventId"), [(n, "E1") for n in (1, 2, 3)])
    assert evaluate("log-template", tmp_path / "A.log", rounds=5)[0]["grouping_accuracy"] == 1.0


def test_metrics_are_ranked_above_the_base_rate_and_beside_the_residual(series):
    found, outcome = evaluate("metrics", series, rounds=20)
    assert found["auc_pr"] > 0.6
    assert found["base_rate"] == pytest.approx(20 / 300, abs=1e-3)
    assert 0.0 < found["baseline_auc_pr"] <= 1.0
    assert [one.row for one in outcome.scores] == list(range(300))


def test_metric_scores_never_see_what_comes_later_or_a_label(series, tmp_path):
    with np.load(series) as content:
        arrays = dict(content)
    changed = arrays["test"].copy()
    changed[200:] = 50.0
    np.savez(tmp_path / "other.npz", train=arrays["train"], test=changed, label=1 - arrays["label"])
    one, two = (evaluate("metrics", path, rounds=0)[1].scores for path in (series, tmp_path / "other.npz"))
    np.testing.assert_allclose([s.score for s in one[:200]], [s.score for s in two[:200]])


def test_metrics_without_labels_give_scores_only(series, tmp_path):
    with np.load(series) as content:
        np.savez(tmp_path / "bare.npz", train=content["train"], test=content["test"])
    found, outcome = evaluate("metrics", tmp_path / "bare.npz")
    assert found == {"task": "metrics", "n": 300, "files": 1, "path": "baseline", "bundle": "none"}
    assert {one.label for one in outcome.scores} == {None}


def test_nab_series_is_judged_after_its_probation_and_gets_nabs_score(tmp_path):
    source = np.random.default_rng(2)
    values = np.sin(np.arange(1000) / 8.0) + 0.05 * source.normal(size=1000)
    values[700:720] += 4.0
    rows = [(f"t{n}", repr(float(value)), int(690 <= n < 730)) for n, value in enumerate(values)]
    path = write_csv(tmp_path / "s.csv", ("timestamp", "value", "label"), rows)
    found, outcome = evaluate("metrics", path, rounds=5)
    assert found["n"] == 850
    assert outcome.scores[0].row == 150
    assert found["nab_standard"] > 50


def test_lone_series_and_hosts_have_the_same_scores_as_the_daemons_function(series):
    one = read(series)
    scores = [found.score for found in evaluate("metrics", series, rounds=0)[1].scores]
    np.testing.assert_allclose(scores, score_rows(one.train, one.test))


# --- hostile and wrong files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("severity,template,subsystem,file\n9,x,a,b\n", ["line 2", "column severity", "'9'"]),
        ("severity,template,subsystem,file\n3,x,a,b\nhigh,x,a,b\n", ["line 3", "'high'"]),
        ("severty,template,subsystem,file\n3,x,a,b\n", ["no column 'severity'"]),
        ("severity,template,subsystem,file\n3,x,a\n", ["line 2", "3 fields"]),
        ("severity,template,subsystem,file\n", ["no row"]),
        ("severity,severity\n", ["twice"]),
        ('severity,template,subsystem,file\n3,"x,a,b\n', ["line"]),
        ("", ["empty"]),
    ],
)
def test_wrong_table_is_told_by_file_line_column_and_value(content, said, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        evaluate("log-severity", path)
    assert all(part in str(caught.value) for part in ["bad.csv", *said])


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"severity,template,subsystem,file\n3,\xff\xfe,a,b\n")
    with pytest.raises(DataError, match="not UTF-8"):
        evaluate("log-severity", path)


def test_endless_field_is_refused(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("severity,template,subsystem,file\n3," + "x" * 2_000_000 + ",a,b\n")
    with pytest.raises(DataError, match="line"):
        evaluate("log-severity", path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"test": np.zeros((5, 2))}, "no array 'train'"),
        ({"train": np.zeros((50, 2)), "test": np.zeros((5, 3))}, "train has 2 metrics, test 3"),
        ({"train": np.zeros((50, 2)), "test": np.zeros((5, 2)), "label": np.zeros(4)}, "4 labels for 5 rows"),
        ({"train": np.zeros((50, 2)), "test": np.zeros((5, 2)), "label": np.full(5, 2)}, "neither 0 nor 1"),
        ({"train": np.zeros((2, 2)), "test": np.zeros((5, 2))}, "2 rows of past"),
        ({"train": np.zeros((50, 2)), "test": np.full((5, 2), np.inf)}, "infinite"),
        ({"train": np.array(["a"] * 20), "test": np.zeros((5, 2))}, "is not (rows, metrics)"),
    ],
)
def test_wrong_arrays_are_told(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        evaluate("metrics", tmp_path / "a.npz")
    assert said in str(caught.value)


def test_pickled_arrays_are_never_opened(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.array([{}], dtype=object), test=np.zeros((5, 2)))
    with pytest.raises(DataError, match="no array file"):
        evaluate("metrics", tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["missing.csv", "folder"])
def test_nothing_there_is_told(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError):
        evaluate("log-severity", tmp_path / name)


# --- figures ------------------------------------------------------------------------------------------------


def test_average_precision_and_macro_f1_are_those_of_the_field():
    metrics = pytest.importorskip("sklearn.metrics")
    source = np.random.default_rng(3)
    labels, scores = source.integers(0, 2, 500), source.integers(0, 40, 500) / 40.0
    assert quality.average_precision(labels, scores) == pytest.approx(
        metrics.average_precision_score(labels, scores)
    )
    truth, guess = source.integers(0, 4, 300), source.integers(0, 3, 300)
    table = quality.confusion(truth, guess, 5)
    assert quality.macro_f1(table) == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    assert quality.accuracy(table) == pytest.approx(metrics.accuracy_score(truth, guess))


def test_figure_that_the_data_cannot_give_is_no_number():
    assert math.isnan(quality.average_precision(np.zeros(4), np.arange(4)))
    assert math.isnan(quality.macro_f1(quality.confusion(np.zeros(0, int), np.zeros(0, int), 2)))


def test_weighting_a_row_twice_is_like_having_it_twice():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.3, 0.1])
    weighted = quality.Ranking(labels, scores).average_precision(np.array([1.0, 2.0, 1.0, 1.0]))
    assert weighted == quality.average_precision(np.insert(labels, 1, 0), np.insert(scores, 1, 0.8))


def test_grouping_accuracy_counts_only_whole_groups():
    right = quality.grouped_right(["a", "a", "b", "b", "c"], [1, 1, 2, 3, 4])
    assert right.tolist() == [True, True, False, False, True]


def test_intervals_draw_groups_and_grow_when_rows_of_a_group_agree():
    source = np.random.default_rng(4)
    groups = np.repeat(np.arange(20), 50)
    values = np.repeat(source.random(20), 50)

    def mean(weights):
        return float(np.average(values, weights=weights))

    by_group = intervals({"m": mean}, groups, rounds=300)["m"]
    by_row = intervals({"m": mean}, np.zeros(1000, int), rounds=300)["m"]
    assert by_group.low < values.mean() < by_group.high
    assert by_group.high - by_group.low > 3 * (by_row.high - by_row.low)
    assert (drawn_by(groups), drawn_by(number(["x"] * 9))) == ("group", "row")


def test_principal_component_residual_finds_broken_correlation():
    source = np.random.default_rng(5)
    load = source.normal(size=(400, 1))
    rows = load + 0.1 * source.normal(size=(400, 4))
    rows[350, 2] -= 3.0
    assert int(residual_scores(rows[:300], rows[300:]).argmax()) == 50
    assert residual_scores(rows[:300, :1], rows[300:, :1]).shape == (100,)


def test_ngram_probabilities_are_rows_that_add_up_to_one():
    found = ngram_probabilities(["disk error", "all good"] * 10, [0, 1] * 10, ["disk error again", "good"])
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found[0, 0] > 0.5 > found[1, 0]


# --- models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["low", "middle", "top"])
def test_evaluate_model_gives_accuracy_and_figures_for_every_tier(tier):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocab_size": 50, "num_labels": 3}
    if tier == "low":
        config = transformers.AlbertConfig(
            **small,
            hidden_size=16,
            embedding_size=16,
            num_attention_heads=2,
            intermediate_size=16,
            num_hidden_layers=1,
        )
        model = transformers.AlbertForSequenceClassification(config)
    elif tier == "middle":
        config = transformers.DistilBertConfig(**small, dim=16, n_heads=2, hidden_dim=16, n_layers=1)
        model = transformers.DistilBertForSequenceClassification(config)
    else:
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)
        )
    ids = torch.randint(4, 50, (12, 7)).tolist()
    labels = [one if tier == "top" else [number_ % 3] for number_, one in enumerate(ids)]
    rows = [{"input_ids": one, "labels": label} for one, label in zip(ids, labels, strict=True)]
    share, figures = evaluate_model(model, rows)
    assert 0.0 <= share <= 1.0
    assert share == figures["accuracy"]
    assert figures["n"] == 12
    assert ("perplexity" in figures) == (tier == "top")
    assert ("macro_f1" in figures) == (tier != "top")
    assert figures["ms_per_row"] > 0.0
