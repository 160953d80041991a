"""The middle tier's model path: what is asked, and what an answer may change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import models
from daemon.incidents.opinions import candidates, formed
from daemon.messages import Event, Finding, Incident, Stamp, Tick
from daemon.settings import Middle
from daemon.tiers.middle import QUESTIONS_MAX, MiddleTier
from models.bundle import verify
from models.runtime import Classifier
from models.situations import FAULTS, HEADS, SLOT_TOKENS, View
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.test_middle import BOOT, SCENARIOS, WALL, find

F, K = FaultClass, SubjectKind
NO_SPACE = "write failed: No space left on device"
SURE = {"fault_class": 0.6, "culprit": 0.6}


def tick(t: float) -> Tick:
    return Tick(Stamp(BOOT, t, WALL + t))


def play(*upward: Finding | Event, until: float = 20.0) -> tuple[MiddleTier, dict[str, Incident]]:
    """The tier after these, and the newest revision of each incident."""
    tier, kept = MiddleTier(Middle()), {}
    ticks = [tick(t) for t in range(int(until) + 1)]
    for item in sorted([*upward, *ticks], key=lambda one: one.at.mono):
        kept |= {one.id: one for one in tier.take([item])}
    return tier, kept


def full_but_quiet(t: float = 5.0) -> list[Finding]:
    """A service that crashes over and over since its disk is full, which only one of its lines says."""
    who = ["unit:db.service"]
    return [
        find(
            t,
            "known.no-space",
            who,
            {"disk-full": 0.7},
            score=0.5,
            kind="line",
            text="No space left on device",
        ),
        find(t + 1, "known.crash-loop", who, {"crash-loop": 0.95, "service-crash": 0.2}, score=0.85),
        find(t + 1, "known.unit-failed", who, {"service-crash": 0.75}, score=0.65, kind="line"),
    ]


def scores(
    fault: FaultClass, share: float = 0.95, culprit: int = 0, blame: float = 0.9
) -> dict[str, list[float]]:
    found = {head: [0.01] * size for head, size in HEADS.items()}
    found["fault_class"][FAULTS.index(fault)] = share
    found["culprit"][culprit] = blame
    return found


@pytest.fixture
def unsure() -> tuple[MiddleTier, Incident, int]:
    """An open incident about which the tier has asked, and the question's number."""
    tier, kept = play(*full_but_quiet())
    (incident,) = kept.values()
    (question,) = tier.asked()
    assert incident.fault_class is F.CRASH_LOOP
    assert "no space" in question.text
    return tier, incident, question.id


def test_a_sure_answer_revises_the_incident_and_says_who_spoke(unsure):
    tier, incident, number = unsure
    (told,) = tier.told(number, scores(F.DISK_FULL), SURE)
    assert (told.id, told.revision) == (incident.id, incident.revision + 1)
    assert (told.fault_class, told.path) == (F.DISK_FULL, "model")
    assert (told.severity, told.score, told.evidence) == (
        incident.severity,
        incident.score,
        incident.evidence,
    )


def test_an_answer_below_the_threshold_changes_nothing(unsure):
    tier, _, number = unsure
    assert tier.told(number, scores(F.DISK_FULL, 0.55), SURE) == []


@pytest.mark.parametrize("fault", [F.BACKUP, F.HEAVY_BUT_NORMAL_LOAD, F.UNKNOWN])
def test_the_model_never_excuses_nor_gives_up(unsure, fault):
    tier, _, number = unsure
    assert tier.told(number, scores(fault), SURE) == []


def test_the_model_that_agrees_leaves_the_baseline_its_word(unsure):
    tier, incident, number = unsure
    assert tier.told(number, scores(F.CRASH_LOOP), SURE) == []
    assert incident.path == "baseline"


def test_an_answer_counts_once_and_an_unknown_number_never(unsure):
    tier, _, number = unsure
    assert tier.told(number + 7, scores(F.DISK_FULL), SURE) == []
    assert tier.told(number, scores(F.DISK_FULL), SURE) != []
    assert tier.told(number, scores(F.INODE_EXHAUSTION), SURE) == []


def test_scores_of_another_shape_are_counted_and_dropped(unsure):
    tier, _, number = unsure
    assert tier.told(number, {"fault_class": [1.0]}, SURE) == []
    assert tier.asking.counters["misread"] == 1


def test_an_answer_about_a_closed_incident_is_dropped(unsure):
    tier, incident, number = unsure
    closed = {one.id: one for t in range(21, 400) for one in tier.take([tick(t)])}
    assert closed[incident.id].state == "closed"
    assert tier.told(number, scores(F.DISK_FULL), SURE) == []


def test_the_same_sight_is_not_asked_twice(unsure):
    tier, _, number = unsure
    tier.told(number, scores(F.DISK_FULL), SURE)
    for t in range(21, 40):
        tier.take([tick(t)])
        assert tier.asked() == []


def test_an_opinion_outlives_counts_but_not_another_baseline(unsure):
    tier, incident, number = unsure
    tier.told(number, scores(F.DISK_FULL), SURE)
    lost = find(22, "link.down", "interface:eth0", {"link-down": 0.9}, "critical", score=0.95)
    tied = find(
        22,
        "known.oom-kill",
        ["unit:db.service"],
        {"memory-exhaustion": 0.95},
        "critical",
        score=0.95,
        kind="line",
    )
    kept = {one.id: one for item in (lost, tied, tick(23), tick(24), tick(26)) for one in tier.take([item])}
    assert kept[incident.id].fault_class is F.MEMORY_EXHAUSTION
    assert kept[incident.id].path == "baseline"


def test_a_plain_case_is_not_asked_about():
    alone = find(5, "fs.used.level", "mount:/var", {"disk-full": 0.9}, "critical", score=0.95)
    tier, kept = play(alone)
    assert len(kept) == 1
    assert tier.asked() == []


def test_no_more_is_asked_at_once_than_a_model_answers_in_a_round():
    findings = []
    for n in range(3 * QUESTIONS_MAX):
        who = f"unit:u{n}.service"
        findings += [
            find(5, "known.unit-failed", who, {"service-crash": 0.75}, score=0.65, kind="line"),
            find(5, "known.unit-timeout", who, {"service-hung": 0.75}, score=0.65, kind="line"),
        ]
    tier, kept = play(*findings)
    assert len(kept) == 3 * QUESTIONS_MAX
    assert [len(tier.asked()) for _ in range(4)] == [QUESTIONS_MAX] * 3 + [0]


def test_a_sure_culprit_comes_first_and_the_others_stay():
    hogs = ["process:burner[71]", "process:miner[72]=0.9"]
    tier, kept = play(
        find(5, "cpu.busy.level", hogs, {"cpu-saturation": 0.8}, score=0.7),
        find(6, "process.cpu.level", "process:miner[72]", {"cpu-saturation": 0.4}, "warning", score=0.3),
    )
    (incident,) = kept.values()
    (question,) = tier.asked()
    names = [one.name for one in incident.culprits]
    second = scores(F.CPU_SATURATION, culprit=1)
    (told,) = tier.told(question.id, second, SURE)
    assert [one.name for one in told.culprits] == names[::-1]
    assert told.path == "model"


def test_a_culprit_is_not_taken_from_a_model_that_is_unsure_of_the_class():
    view = View((), ((K.UNIT, "a.service"), (K.UNIT, "b.service")))
    assert formed(scores(F.DISK_FULL, 0.3, culprit=1), SURE, view, F.CRASH_LOOP) is None


def test_thresholds_of_a_bundle_decide_and_without_them_the_strict_ones():
    view = View((), ((K.UNIT, "a.service"),))
    told = scores(F.DISK_FULL, 0.7)
    assert formed(told, {}, view, F.CRASH_LOOP) is None
    assert formed(told, SURE, view, F.CRASH_LOOP).fault_class is F.DISK_FULL


def test_the_baselines_choice_is_the_first_slot_and_others_get_a_place():
    tier, kept = play(
        *full_but_quiet(), find(6, "line.novel", "mount:/var", {"disk-full": 0.3}, "info", score=0.3)
    )
    (incident,) = kept.values()
    situation = tier._gathering.situations[incident.id]
    slots = candidates(list(situation.conditions.values()), tier._weigh(situation))
    assert slots[0] == ("unit", "db.service")
    assert len(slots) == len(set(slots)) <= len(SLOT_TOKENS)


def test_the_severity_is_the_detectors_whatever_the_model_says(unsure):
    tier, incident, number = unsure
    answer = scores(F.DISK_FULL)
    answer["severity"] = [0.0, 0.0, 0.0, 1.0]
    (told,) = tier.told(number, answer, SURE)
    assert told.severity is incident.severity is Severity.ERROR


@pytest.fixture(scope="module")
def shipped() -> tuple[Classifier, Mapping[str, float]]:
    directory = Path(models.__file__).parent / "bundles" / "middle"
    if not directory.is_dir():
        pytest.skip("this tree ships no model of the middle tier")
    bundle = verify(directory, "middle")
    return Classifier(bundle), bundle.config.thresholds


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_shipped_model_leaves_the_labs_faults_right(shipped, name):
    classifier, thresholds = shipped
    make, fault, culprits = SCENARIOS[name]
    tier, kept = play(*make())
    for question in tier.asked():
        (answer,) = classifier.score([question.text])
        kept |= {one.id: one for one in tier.told(question.id, answer, thresholds)}
    (incident,) = (one for one in kept.values() if one.state == "open")
    assert incident.fault_class == fault
    assert any(right in incident.culprits[0].name for right in culprits)


def test_the_shipped_model_finds_the_full_disk_behind_a_crash_loop(shipped):
    classifier, thresholds = shipped
    tier, _ = play(*full_but_quiet())
    (question,) = tier.asked()
    (answer,) = classifier.score([question.text])
    (told,) = tier.told(question.id, answer, thresholds)
    assert (told.fault_class, told.path) == (F.DISK_FULL, "model")


def test_baseline_that_is_as_sure_as_a_model_has_to_be_is_not_contradicted():
    told = scores(F.CERTIFICATE_EXPIRED, 0.99, culprit=0)
    doubtful, certain = (
        View(
            signs=(),
            slots=((SubjectKind.UNIT, "store.service"),),
            contexts=(),
            guesses=((F.CRASH_LOOP, share),),
        )
        for share in (0.6, 0.95)
    )
    assert formed(told, SURE, doubtful, F.CRASH_LOOP).fault_class is F.CERTIFICATE_EXPIRED
    assert formed(told, SURE, certain, F.CRASH_LOOP) is None
