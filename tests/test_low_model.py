"""The low tier's model path: which lines a model is asked about, and what its answers change."""

import random

import msgspec
import pytest

from daemon.messages import Finding, Line, Sample, Stamp
from daemon.questions import BATCH, Answer
from daemon.replay import Replay
from daemon.settings import Low, Settings
from daemon.tiers import opinions
from daemon.tiers.low import LowTier
from daemon.tiers.opinions import (
    COMPANY,
    PATIENCE_S,
    PAYER_PENDING_MAX,
    PENDING_MAX,
    QUESTIONS_PER_SECOND,
    SAVED_MAX,
    Opinion,
)
from models.lines import CATEGORIES
from models.taxonomy import Category, Severity

ODD = "ring buffer of port seven collapsed into itself"
CALM = "wrote the weekly summary of garden visits"


def scores(alert, severity="err-or-worse", category=Category.HARDWARE):
    classes = ("err-or-worse", "warning", "notice-or-info", "debug")
    return {
        "alert": [alert],
        "severity": [0.91 if one == severity else 0.03 for one in classes],
        "category": [0.55 if one is category else 0.05 for one in CATEGORIES],
    }


class Host:
    """A low tier with a clock and a model that says what the test wants."""

    def __init__(self, state=None, **low):
        self.tier = LowTier(Low(**low), state)
        self.second = 0

    def stamp(self):
        return Stamp("b1", 1000.0 + self.second, 1.7e9 + self.second)

    def hear(self, text, **fields):
        fields = {"unit": "app.service", "identifier": "app", "pid": 42, "uid": 990, "priority": 6} | fields
        return self.tier.observe([Line(self.stamp(), fields.pop("source", "journal"), text, **fields)])

    def wait(self, seconds):
        for _ in range(seconds):
            self.second += 1
            self.tier.observe([Sample(self.stamp(), "host", {"cpu.busy": 0.1})])

    def learn(self):
        self.hear("nothing to report")
        self.wait(130)
        self.answer(0.01, "notice-or-info", Category.BENIGN)

    def ask(self, *, eager=True):
        return self.tier.asked(eager=eager)

    def answer(self, alert, severity="err-or-worse", category=Category.HARDWARE, bundle="low-1"):
        questions = self.ask()
        said = scores(alert, severity, category)
        return self.tier.told([Answer(one.id, said, bundle) for one in questions])


@pytest.fixture
def host():
    found = Host()
    found.learn()
    return found


def novel(upward):
    return [one for one in upward if isinstance(one, Finding) and one.rule == "line.novel"]


def test_new_kind_of_line_is_asked_about_once_with_its_program_and_without_its_values(host):
    host.hear(f"{ODD} at 10.0.0.7")
    (question,) = host.ask()
    assert question.text.startswith("app | ring buffer of port seven")
    assert "10.0.0.7" not in question.text
    host.hear(f"{ODD} at 10.0.0.8")
    assert host.ask() == []


def test_line_that_the_catalogue_knows_is_not_asked_about(host):
    host.hear(
        "Out of memory: Killed process 815 (worker) total-vm:9kB, anon-rss:8kB, file-rss:0kB",
        unit="", identifier="kernel", pid=0, uid=0,
    )  # fmt: skip
    assert host.ask() == []


def test_alert_worthy_line_is_told_again_by_the_model_with_its_category(host):
    (first,) = novel(host.hear(ODD))
    assert (first.path, first.category) == ("baseline", Category.UNKNOWN)
    host.second += 1
    (second,) = host.answer(0.95)
    assert (second.path, second.category, second.severity) == ("model", Category.HARDWARE, Severity.ERROR)
    assert second.score > first.score
    assert second.id != first.id
    assert second.evidence[0].text == ODD


def test_verdict_that_raises_nothing_is_kept_and_not_told(host):
    assert novel(host.hear(CALM))
    assert host.answer(0.02, "notice-or-info", Category.BENIGN) == []


def test_answer_that_never_comes_leaves_the_baseline_standing(host):
    assert novel(host.hear(ODD))
    (question,) = host.ask()
    assert host.tier.told([Answer(question.id, {})]) == []
    assert host.tier.told([Answer(question.id, scores(0.99))]) == []  # and nobody may answer later


@pytest.mark.parametrize(
    "bad", [{"alert": [0.9]}, {"alert": [], "severity": [0.1] * 4, "category": [0.1] * 10}]
)
def test_answer_of_another_shape_is_no_answer(host, bad):
    host.hear(ODD)
    (question,) = host.ask()
    assert host.tier.told([Answer(question.id, bad)]) == []
    assert host.tier.counters["opinions"] == 1  # that of the first line


def test_nothing_is_told_of_what_came_while_learning():
    host = Host()
    host.hear(ODD)
    host.wait(130)
    assert host.answer(0.99) == []
    assert host.tier.counters["opinions"] == 1


def test_model_alone_speaks_for_no_fault_class(host):
    host.hear(ODD, priority=6)
    (finding,) = host.answer(0.99)
    assert max(finding.hints.values(), default=0.0) <= 0.3


def test_model_and_a_trusted_writer_that_says_error_speak_for_one_but_open_nothing_alone(host):
    host.hear(ODD, priority=3)
    (finding,) = host.answer(0.999)
    strongest = max(finding.hints.values())
    assert strongest > 0.3
    assert finding.score * min(1.0, strongest / 0.5) < 0.5


def test_stranger_who_says_error_is_not_believed_more_with_a_model(host):
    host.hear(ODD, priority=3, unit="", identifier="app", trusted=False, source="file:/tmp/log")
    host.wait(130)
    host.answer(0.99)
    host.hear(f"{ODD} again and again", priority=3, unit="", trusted=False, source="file:/tmp/log")
    (finding,) = host.answer(0.99)
    assert max(finding.hints.values(), default=0.0) <= 0.3
    assert finding.severity is Severity.ERROR  # its own word, which the model does not lower


def test_severity_of_a_user_program_is_raised_to_a_warning_at_most(host):
    host.hear("warm up", unit="user@1000.service", uid=1000)
    host.wait(130)
    host.answer(0.01)
    host.hear(ODD, unit="user@1000.service", uid=1000)
    (finding,) = host.answer(0.95)
    assert finding.severity is Severity.WARNING


def test_worthy_line_among_too_many_new_ones_is_told_after_all(host):
    rng = random.Random(1)
    for number in range(12):
        host.hear(" ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(4 + number)))
    host.wait(2)  # the gate lets ten findings a second pass
    told = novel(host.answer(0.95))
    assert any(len(one.evidence[0].text.split()) > 10 for one in told)


def test_burst_of_a_kind_that_the_model_calls_harmless_is_no_warning(host):
    """The words sound bad, and by them alone 30 lines in ten seconds are a burst."""
    text = "error failed fatal: retry of nothing"
    severities = {}
    for said in (None, 0.01):
        one = Host()
        one.learn()
        one.hear(text)
        if said is not None:
            one.answer(said, "notice-or-info", Category.BENIGN)
        found = []
        for _ in range(30):
            one.wait(10)
        for _ in range(900):
            found += one.hear(text)
        severities[said] = [(x.severity, x.path) for x in found if x.rule == "line.burst"]
    assert severities[None] == [(Severity.WARNING, "baseline")]
    assert severities[0.01] == [(Severity.INFO, "model")]


def test_verdicts_outlive_a_restart_and_an_older_state_has_none(host):
    host.hear(ODD)
    host.answer(0.95)
    state = host.tier.snapshot()
    again = Host(state)
    kept = [one.state.opinion for one in again.tier._lines._miner if one.state.opinion]
    assert Opinion(Category.HARDWARE, Severity.ERROR, 0.95, "low-1") in kept
    fields = msgspec.msgpack.decode(state)
    del fields["opinions"]
    older = Host(msgspec.msgpack.encode(fields))
    assert older.tier.notes == []
    assert not any(one.state.opinion for one in older.tier._lines._miner)


@pytest.mark.parametrize(
    "damage", [b"", b"\xc1", msgspec.msgpack.encode({"version": 9, "bundles": [], "opinions": {}})]
)
def test_damaged_verdicts_are_none(damage):
    assert opinions.load(damage) == {}


def test_verdict_of_another_bundle_is_asked_for_again_when_it_matters(host):
    text = "error failed fatal: queue is full"
    host.hear(text)
    host.answer(0.9, bundle="low-1")
    host.hear(CALM)
    host.answer(0.1, bundle="low-2")
    host.wait(300)
    assert host.ask() == []
    for _ in range(600):
        host.hear(text)
    assert [one.text for one in host.ask()] == ["app | error failed fatal: queue is full"]


def test_starting_the_model_waits_for_alarm_company_or_patience(host):
    host.hear(CALM, priority=6)
    assert host.ask(eager=False) == []
    host.wait(int(PATIENCE_S) + 1)
    assert len(host.ask(eager=False)) == 1
    host.hear("error failed fatal: queue is full")
    assert len(host.ask(eager=False)) == 1
    rng = random.Random(2)
    for number in range(COMPANY):
        host.hear("calm " + " ".join(rng.choices("abcdefgh", k=3 + number)), unit=f"u{number}.service")
    assert len(host.ask(eager=False)) == BATCH


def test_alarming_line_takes_the_place_of_a_calm_one_of_the_same_writer(host):
    rng = random.Random(4)
    for number in range(PAYER_PENDING_MAX + 4):
        host.hear("calm " + " ".join(rng.choices("abcdefgh", k=3 + number)))
    assert host.ask(eager=False) == []
    host.hear("error failed fatal: queue is full")
    texts = [one.text for one in host.ask(eager=False)]
    assert len(texts) == PAYER_PENDING_MAX
    assert "app | error failed fatal: queue is full" in texts
    host.hear("calm again")
    assert host.ask(eager=False) == []


def test_flood_of_new_kinds_is_asked_about_within_a_budget_and_does_not_shut_out_others():
    host = Host()
    host.learn()
    rng = random.Random(3)
    asked, first = 0, True
    for _ in range(30):
        for _ in range(400):
            words = " ".join("".join(rng.choices("abcdefghijklmnop", k=8)) for _ in range(rng.randint(3, 30)))
            host.hear(words, unit="flood.service")
        if first:
            host.hear(ODD, unit="other.service")
            first = False
            assert any(ODD in one.text for one in host.ask())
        while questions := host.ask():
            asked += len(questions)
            host.tier.told([Answer(one.id, {}) for one in questions])
        host.wait(1)
    assert asked <= SAVED_MAX + 30 * QUESTIONS_PER_SECOND
    assert host.tier.counters["unasked"] > 1000
    waiting = host.tier._lines._opinions._waiting
    assert all(len(one) <= PAYER_PENDING_MAX for one in waiting.values())
    assert sum(map(len, waiting.values())) <= PENDING_MAX


def oracle(questions):
    """A model that is alarmed by long texts; the same text always gets the same answer."""
    return [Answer(one.id, scores(min(0.99, len(one.text) / 60)), "low-1") for one in questions]


def recording():
    rng = random.Random(5)
    batch = []
    for second in range(400):
        at = Stamp("b1", 1000.0 + second, 1.7e9 + second)
        batch.append(Sample(at, "host", {"cpu.busy": 0.1, "cpu.cores": 2.0}))
        if second % 7 == 0:
            words = " ".join("".join(rng.choices("abcdefgh", k=5)) for _ in range(rng.randint(2, 12)))
            batch.append(Line(at, "journal", words, 4, unit="app.service", identifier="app", uid=990))
    return batch


def replayed(size, ask):
    run, batch = Replay(Settings(), ask), recording()
    found = [one for start in range(0, len(batch), size) for one in run.feed(batch[start : start + size])]
    run.finish()
    return msgspec.msgpack.encode([found, list(run.incidents.values())])


def test_replay_with_a_model_gives_the_same_bytes_every_time_and_differs_from_one_without():
    once = replayed(512, {"low": oracle})
    assert once == replayed(512, {"low": oracle})
    assert b"model" in once
    assert b"model" not in replayed(512, {})


def test_replay_does_not_depend_on_where_it_was_cut_into_batches():
    whole = recording()
    seconds = [one for one in whole if isinstance(one, Sample)]
    assert len(seconds) == 400
    assert replayed(len(whole), {"low": oracle}) == replayed(512, {"low": oracle})
