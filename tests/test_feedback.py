"""What becomes of the operator's verdicts: ChatML, preference pairs, labelled lines."""

from __future__ import annotations

import json
import time

import pytest
from msgspec.structs import replace

from daemon.messages import Advice, Culprit, Evidence, Incident, KeepAdvice, KeepFeedback
from daemon.store.writer import StoreWriter
from models.lines import encode
from models.taxonomy import FaultClass, SubjectKind
from tests.fixtures.incidents import make_incident
from training.feedback import export_feedback, line_rows, read_verdicts

NOW = time.time()


def incident(name: str) -> Incident:
    line = Evidence(f"{name}-1", "line", "journal", NOW, NOW, "worker[12]: cannot reach the queue")
    metric = Evidence(f"{name}-2", "metric", "unit.memory", NOW, NOW, "worker used 98 % of its memory.")
    return make_incident(
        name,
        NOW,
        fault_class=FaultClass.SERVICE_CRASH,
        culprits=[Culprit(SubjectKind.UNIT, "worker.service", 1.0)],
        evidence=[line, metric],
    )


def spoken(name: str, verdict: str, at: float = 0.0, **changes) -> KeepFeedback:
    return replace(KeepFeedback(name, verdict, "me", NOW + at, lang="en"), **changes)


@pytest.fixture
def store(tmp_path):
    """Three incidents: one called good, one called bad after good, one whose text was improved."""
    path = tmp_path / "store.db"
    with StoreWriter(path) as writer:
        for name in ("aaaaaa000001", "bbbbbb000002", "cccccc000003"):
            writer.save([incident(name)], [])
            texts = [
                Advice(f"{name} fell over.", "en", "catalogue"),
                Advice("Umgefallen.", "de", "catalogue"),
            ]
            writer.keep(KeepAdvice(name, 1, texts))
        writer.keep(spoken("aaaaaa000001", "good"))
        writer.keep(spoken("bbbbbb000002", "good"))
        writer.keep(spoken("bbbbbb000002", "bad", at=5.0))
        writer.keep(spoken("cccccc000003", "acknowledged"))
        better = {"original": "cccccc000003 fell over.", "improved": "The queue was gone."}
        writer.keep(spoken("cccccc000003", "edited", **better))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_good_texts_in_each_language_and_improved_ones_become_chatml(store, tmp_path):
    counts = export_feedback(store, tmp_path / "out")
    chats = read(tmp_path / "out" / "feedback.jsonl")
    assert counts["verdicts"] == 3
    said = {(one["incident"], one["lang"]): one["messages"][-1]["content"] for one in chats}
    assert said == {
        ("aaaaaa000001", "en"): "aaaaaa000001 fell over.",
        ("aaaaaa000001", "de"): "Umgefallen.",
        ("cccccc000003", "en"): "The queue was gone.",
    }
    assert [one["role"] for one in chats[0]["messages"]] == ["system", "user", "assistant"]
    assert "worker used 98 % of its memory." in chats[0]["messages"][1]["content"]


def test_edited_text_keeps_both_versions_as_a_preference(store, tmp_path):
    export_feedback(store, tmp_path / "out")
    (pair,) = read(tmp_path / "out" / "preferences.jsonl")
    assert pair["chosen"][0]["content"] == "The queue was gone."
    assert pair["rejected"][0]["content"] == "cccccc000003 fell over."


def test_last_verdict_labels_the_lines_of_its_incident(store):
    rows = {row["group"]: row for row in line_rows(read_verdicts(store))}
    assert {group: row["alert"] for group, row in rows.items()} == {
        "incident aaaaaa000001": 1.0,
        "incident bbbbbb000002": 0.0,
    }
    assert rows["incident aaaaaa000001"]["text"] == encode("worker[12]: cannot reach the queue")


def test_verdicts_before_a_time_are_left_out(store, tmp_path):
    assert export_feedback(store, tmp_path / "out", since=NOW + 3)["verdicts"] == 1
