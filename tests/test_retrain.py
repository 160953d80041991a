"""Retraining on a host: what wins, what stays and why, and that only candidates are written."""

from __future__ import annotations

import json
import random
import time

import pytest

pytest.importorskip("torch")
import pyarrow as pa
import pyarrow.parquet as pq

from daemon.errors import HauswartError, LockedError
from daemon.locks import FileLock
from daemon.messages import Culprit, Evidence, KeepFeedback
from daemon.settings import Models, Settings
from daemon.store.writer import StoreWriter
from models.bundle import read_manifest, verify
from models.lines import LineVerdict, encode
from models.runtime import Classifier
from models.taxonomy import Category, FaultClass, Severity, SubjectKind
from models.wording import pack
from tests.fixtures.incidents import make_incident
from tests.fixtures.tiny import LOW_TRAINING
from training import contest, retrain
from training.bundle import make_bundle
from training.export import to_onnx
from training.feedback import line_rows, read_verdicts
from training.finetune import train_folder
from training.folder import load_folder
from training.quantize import quantize_onnx

NOW = time.time()
FAILED = contest.Golden("disk failed", alert=True, severity="err-or-worse")
LOUD = "nightly sync failed to reach its mirror"
CALM = ["session opened for user", "rotated the log", "mirror is reachable", "sync finished"]
BAD = [LOUD, "disk failed with an error", "worker failed to start", "link failed"]


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """A tiny bundle that calls everything with "failed" alert-worthy."""
    home = tmp_path_factory.mktemp("champion")
    draw = random.Random(3)
    rows = []
    for number in range(240):
        alert = number % 2
        text = encode(f"{draw.choice(BAD if alert else CALM)} unit{draw.randrange(9)}")
        severity = 0 if alert else 2
        split = "val" if number % 10 == 0 else "train"
        rows.append(
            {"text": text, "severity": severity, "alert": float(alert), "category": 5, "split": split}
        )
    pq.write_table(pa.Table.from_pylist(rows), home / "rows.parquet")
    train_folder(
        home / "rows.parquet",
        "shape:bert-1x64",
        home / "model",
        epochs=8,
        vocabulary=300,
        **LOW_TRAINING,
    )
    quantize_onnx(to_onnx(load_folder(home / "model")[0], home / "float.onnx"), home / "int8.onnx")
    make_bundle(home / "model", home / "bundle", onnx=home / "int8.onnx", version="1")
    return home / "bundle"


def judged_incident(store, verdict: str) -> None:
    line = Evidence("a-1", "line", "journal", NOW, NOW, LOUD)
    incident = make_incident(
        "aaaaaa000001",
        NOW,
        state="closed",
        closed_at=NOW,
        fault_class=FaultClass.SERVICE_CRASH,
        culprits=[Culprit(SubjectKind.UNIT, "sync.service", 1.0)],
        evidence=[line],
    )
    with StoreWriter(store) as writer:
        writer.save([incident], [])
        writer.keep(KeepFeedback(incident.id, verdict, "me", NOW))


@pytest.fixture
def host(tmp_path, champion, monkeypatch):
    """Settings of a host that serves the tiny bundle, with a store; the golden set is one line."""
    monkeypatch.setattr(contest, "read_golden", lambda: [FAILED])
    settings = Settings(state_dir=str(tmp_path), models=Models(low=str(champion)))
    return settings, tmp_path / "store.db"


def test_bad_verdict_is_learned(host, champion):
    settings, store = host
    judged_incident(store, "bad")
    before = Classifier(verify(champion, "low"))
    assert before.score([encode(LOUD)])[0]["alert"][0] > 0.5
    outcome = retrain.retrain(settings, store=store, epochs=8, promote=False)
    after = Classifier(verify(outcome.candidate, "low"))
    assert after.score([encode(LOUD)])[0]["alert"][0] < 0.5
    assert outcome.won == (not outcome.reasons)
    assert outcome.figures["feedback"] == {"n": 1, "champion": 0.0, "challenger": 1.0}
    assert any(one["text"] == encode(LOUD) for one in outcome.changed)
    assert read_manifest(outcome.candidate).recipe == "retrain"


def test_words_take_up_the_operators_word(host, champion, tmp_path):
    """Where words decide alerts, a bad verdict has to reach them: the network has but a small share."""
    settings, store = host
    words = {"failed": 9.0, "disk": 3.0, "sync": 1.0, "mirror": 1.0, "nightly": 1.0}
    shares = [0.0] * 4 + [0.1] + [0.0] * 10
    table = tmp_path / "table"
    table.write_bytes(pack(dict.fromkeys(words, 2.0), words, intercept=-1.0, gain=0.0, shares=shares))
    wordy = tmp_path / "wordy"
    make_bundle(champion.parent / "model", wordy, onnx=champion.parent / "int8.onnx", wording=table)
    settings = Settings(state_dir=settings.state_dir, models=Models(low=str(wordy)))
    judged_incident(store, "bad")
    assert Classifier(verify(wordy, "low")).score([encode(LOUD)])[0]["alert"][0] > 0.8
    outcome = retrain.retrain(settings, store=store, epochs=0.5, promote=False)
    made = Classifier(verify(outcome.candidate, "low"))
    loud, failed = (made.score([encode(text)])[0]["alert"][0] for text in (LOUD, "disk failed"))
    assert loud < 0.5 < failed
    assert outcome.figures["feedback"] == {"n": 1, "champion": 0.0, "challenger": 1.0}


def test_only_candidates_are_written_unless_it_is_promoted(host, monkeypatch):
    settings, store = host
    judged_incident(store, "bad")
    lost = contest.Contest({"feedback": {"n": 1, "champion": 1.0, "challenger": 0.0}}, ["feedback: worse"])
    monkeypatch.setattr(contest, "compare", lambda *_, **__: lost)
    before = {path for path in settings.state.rglob("*") if "candidates" not in path.parts}
    outcome = retrain.retrain(settings, store=store, epochs=0.5)
    assert {path for path in settings.state.rglob("*") if "candidates" not in path.parts} == before
    assert (outcome.won, outcome.promoted, outcome.reasons) == (False, False, ["feedback: worse"])
    told = json.loads(outcome.candidate.with_name(f"{outcome.candidate.name}.json").read_text())
    assert told["reasons"] == ["feedback: worse"]
    assert "the champion goes on serving" in retrain.describe(outcome)
    won = contest.Contest({}, [])
    monkeypatch.setattr(contest, "compare", lambda *_, **__: won)
    monkeypatch.setattr(retrain.time, "strftime", lambda *_: "later")
    outcome = retrain.retrain(settings, store=store, epochs=0.5)
    serving = settings.state / "bundles" / "low" / "current"
    assert outcome.promoted
    assert read_manifest(serving).version == "later"


def test_only_the_latest_candidates_stay_and_nobody_elses_files_go(tmp_path):
    names = [f"202611{day:02d}T040000" for day in range(1, 10)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").touch()
        (tmp_path / f"{name}.json").touch()
    (tmp_path / "mine").mkdir()
    retrain.forget(tmp_path)
    kept = names[-retrain.KEPT :]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*kept, *(f"{name}.json" for name in kept), "mine"]
    )


def test_host_without_feedback_and_lines_has_nothing_to_learn_from(host):
    settings, store = host
    with pytest.raises(HauswartError, match="nothing to learn"):
        retrain.retrain(settings, store=store)


def test_second_retraining_beside_the_first_says_so_and_harms_nothing(host):
    settings, store = host
    judged_incident(store, "bad")
    shop = settings.state / "candidates" / "low"
    (shop / retrain.WORK).mkdir(parents=True)
    with (
        FileLock(shop / retrain.LOCK, "retraining"),
        pytest.raises(LockedError, match="retraining is in use") as raised,
    ):
        retrain.retrain(settings, store=store)
    assert "wait" in raised.value.hint
    assert (shop / retrain.WORK).exists()


def verdict(alert: float, name: str = "notice-or-info") -> LineVerdict:
    return LineVerdict(Category.SERVICE, Severity.INFO, alert, (0.0, 0.0, 1.0, 0.0), name)


def judge(alerting: set[str], severity: str = "notice-or-info"):
    return lambda texts: [verdict(float(any(word in text for word in alerting)), severity) for text in texts]


GOLDEN = [
    contest.Golden("disk failed", alert=True, severity="notice-or-info"),
    contest.Golden("all fine", alert=False, severity="notice-or-info"),
]


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        (judge(set()), "golden set, alert"),
        (judge({"failed"}, "debug"), "golden set, severity"),
        (judge({"failed", "kind"}), "canary set"),
        (judge({"failed", "sync"}), "feedback"),
        (judge({"failed"}), ""),
    ],
)
def test_challenger_may_be_worse_at_nothing(challenger, reason):
    result = contest.compare(
        judge({"failed"}),
        challenger,
        golden=GOLDEN,
        canary=[f"kind {number}" for number in range(50)],
        feedback=[("sync is late", False), ("pump failed", True)],
    )
    assert result.won == (not reason)
    assert [one for one in result.reasons if one.startswith(reason)] == (result.reasons[:1] if reason else [])


def test_golden_lines_are_whole_and_a_damaged_file_is_named(tmp_path):
    golden = contest.read_golden()
    assert len(golden) >= 60
    assert {one.alert for one in golden} == {True, False}
    assert {one.severity for one in golden} == {"err-or-worse", "warning", "notice-or-info", "debug"}
    (tmp_path / "g.tsv").write_text("1\tloud\tdisk failed\n")
    with pytest.raises(Exception, match="line 1"):
        contest.read_golden(tmp_path / "g.tsv")


def test_telemetry_lines_become_the_canary(host, monkeypatch):
    settings, store = host
    judged_incident(store, "good")
    rows = [
        {
            "text": f"kind {n} of line",
            "group": f"template {n}",
            "source": "telemetry",
            "uid": 0,
            "severity": None,
        }
        for n in range(60)
    ]
    monkeypatch.setattr(retrain, "gather", lambda *_: (retrain_rows(store), rows))
    outcome = retrain.retrain(settings, store=store, epochs=0.5, promote=False)
    assert 5 <= outcome.figures["canary alerts"]["n"] <= 30


def retrain_rows(store):
    return list(line_rows(read_verdicts(store)))
