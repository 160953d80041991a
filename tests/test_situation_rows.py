"""The simulated situations that the middle tier's model learns from."""

from __future__ import annotations

from itertools import islice
from random import Random

import msgspec
import pytest

from daemon.subjects import key
from models.situations import HEADS, SLOTS
from models.taxonomy import FaultClass, Severity, SubjectKind
from training.sources.answers import Answers
from training.sources.cases import Case, judged
from training.sources.episodes import EFFECT, play, warmed
from training.sources.mechanisms.registry import MECHANISMS, mechanism
from training.sources.situations import cases, row, rows, split
from training.sources.symptoms import Said, Symptom

F = FaultClass


@pytest.fixture(scope="module")
def some() -> list[Case]:
    return list(cases(seed=3, episodes=60))


@pytest.fixture(scope="module")
def stage():
    return warmed(11)


def test_a_seed_makes_the_same_rows_and_another_one_others():
    first, again, other = (list(islice(rows(seed=seed, episodes=6), 12)) for seed in (3, 3, 4))
    assert first == again != other


def test_rows_have_a_text_and_labels_within_their_heads(some):
    for one in map(row, some):
        assert one["text"]
        for head, size in HEADS.items():
            assert one[head] is None or 0 <= one[head] < size


def test_no_mechanism_is_trained_on_and_measured(some):
    by_group: dict[str, set[str]] = {}
    for case in some:
        by_group.setdefault(case.group, set()).add(case.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert {case.split for case in some if case.source == EFFECT} <= {"train"}


def test_every_class_has_a_mechanism_and_nearly_every_one_is_measured():
    splits = split(1)
    assert {one.fault for one in splits} == set(FaultClass)
    measured = {one.fault for one, part in splits.items() if part == "test"}
    assert len(measured) >= 28
    trained = {one.fault for one, part in splits.items() if part == "train"}
    assert measured <= trained


@pytest.mark.parametrize("name", [one.name for one in MECHANISMS.values() if not one.fault.benign])
def test_a_mechanism_is_found_by_the_tiers_and_answered_with_its_class(stage, name):
    found: set[FaultClass] = set()
    for number in range(12):
        played = play(stage, MECHANISMS[name], Random(number), f"t.{number}", "train")
        found |= {case.fault_class for case in played}
        if MECHANISMS[name].fault in found:
            return
    pytest.fail(f"the tiers saw only {found}")


def test_nobody_is_to_blame_whom_no_finding_names(some):
    for case in some:
        named = {key(subject) for one in case.findings for subject in one.subjects}
        assert {(kind.value, name) for kind, name in case.culprits} <= named


def test_the_right_culprit_is_nearly_always_among_the_slots(some):
    there = [
        row(case)["culprit"] is not None for case in some if case.culprits and len(judged(case)[0].slots) > 1
    ]
    assert sum(there) >= 0.95 * len(there)
    assert all(len(judged(case)[0].slots) <= SLOTS for case in some)


def test_a_case_survives_its_file(some):
    again = msgspec.json.decode(msgspec.json.encode(some[0]), type=Case)
    assert row(again) == row(some[0])


def test_an_answer_never_says_more_than_the_evidence(stage):
    loop = next(one for one in MECHANISMS.values() if one.name == "crash-loop/restarted-in-vain")
    opened = [play(stage, loop, Random(n), f"o.{n}", "train")[0] for n in range(6)]
    for case in opened:
        crashes = [one for one in case.findings if one.hints.get(F.SERVICE_CRASH, 0.0) > 0.3]
        if not any(F.CRASH_LOOP in one.hints for one in case.findings) and len(crashes) < 3:
            assert case.fault_class is F.SERVICE_CRASH


def test_a_unit_that_ended_is_a_crash_whatever_ended_it(some):
    said = Said(0.0, "pid1", "a.service: Failed with result 'exit-code'.", 4, "a.service")
    culprit = (SubjectKind.UNIT, "a.service")
    symptom = Symptom(F.CONFIG_ERROR, Severity.ERROR, (culprit,), [said], telling=True)
    template = next(one for case in some for one in case.findings if one.rule == "known.unit-failed")
    piece = msgspec.structs.replace(template.evidence[0], ref="e0.0")
    finding = msgspec.structs.replace(template, evidence=[piece])
    answer = Answers([symptom], [(0, said)]).of([finding])
    assert answer is not None
    assert answer.fault is F.SERVICE_CRASH


def test_two_mechanisms_of_one_name_are_refused():
    taken = next(iter(MECHANISMS.values()))
    with pytest.raises(ValueError, match="two mechanisms"):
        mechanism(taken.fault)(taken.make)
