"""Habits: load at the same time of day on three days is silent from the fourth on, and visibly so."""

import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.incidents.schedules import Schedules, remembered
from daemon.messages import Culprit, Evidence, Finding, Incident, Stamp, Subject, Tick
from daemon.settings import Middle
from daemon.silences import check, holds, parse_recurring
from daemon.store.reader import StoreReader
from daemon.store.writer import StoreWriter
from daemon.tiers.middle import MiddleTier
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

DAY = 86400.0
_numbers = count(1)


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


MIDNIGHT = 1_700_006_400.0  # a Wednesday, 00:00 UTC


def at(day, clock):
    hours, minutes = clock.split(":")
    return MIDNIGHT + day * DAY + int(hours) * 3600.0 + int(minutes) * 60.0


def load(day, clock="02:00", **changes):
    """A closed incident of half an hour."""
    began = at(day, clock)
    fields = {
        "id": f"i{next(_numbers)}",
        "revision": 2,
        "state": "closed",
        "fault_class": FaultClass.CPU_SATURATION,
        "severity": Severity.WARNING,
        "score": 0.7,
        "culprits": [Culprit(SubjectKind.PROCESS, "reindex[77]", 1.0)],
        "opened_at": began + 8.0,
        "updated_at": began + 1800.0,
        "closed_at": began + 1800.0,
        "boot_id": "b",
        "context": [],
        "evidence": [],
        "finding_ids": [],
        "findings_count": 1,
        "evidence_at": began,
    }
    return Incident(**(fields | changes))


def learn(*incidents):
    schedules = Schedules()
    return [silence for one in incidents if (silence := schedules.close(one))]


def test_load_on_three_nights_becomes_a_silence_that_holds_on_the_fourth():
    [silence] = learn(load(0), load(1, "02:10"), load(2, "01:50"))
    check(silence)
    assert (silence.fault_class, silence.unit) == ("cpu-saturation", "reindex")
    assert silence.recurring == "daily 01:35-02:55"
    assert "3 days" in silence.reason
    assert holds(silence, at(3, "02:05"))
    assert not holds(silence, at(3, "12:00"))


@pytest.mark.parametrize(
    "nights",
    [
        (load(0), load(1)),
        (load(0), load(1), load(2, "14:00")),
        (load(0), load(0, "02:20"), load(1)),  # twice in one night
        (load(0), load(1), load(2, culprits=[Culprit(SubjectKind.PROCESS, "miner[5]", 1.0)])),
        tuple(load(day, fault_class=FaultClass.DISK_FULL) for day in range(3)),
        tuple(load(day, fault_class=FaultClass.MEMORY_EXHAUSTION) for day in range(3)),
        tuple(load(day, severity=Severity.CRITICAL) for day in range(3)),
        tuple(load(day, severity=Severity.INFO) for day in range(3)),  # of which nobody heard
        tuple(load(day, culprits=[Culprit(SubjectKind.HOST, "", 1.0)]) for day in range(3)),
        tuple(load(day, quieted="s1") for day in range(3)),
        tuple(load(day, closed_at=at(day, "23:00"), updated_at=at(day, "23:00")) for day in range(3)),
        (load(0), load(7), load(13)),
    ],
)
def test_what_is_no_habit_is_not_learned(nights):
    assert learn(*nights) == []


def test_a_weekly_job_is_a_habit_of_its_day_of_the_week():
    [silence] = learn(load(0), load(7), load(14))
    assert silence.recurring == "Wed 01:45-02:45"
    assert not holds(silence, at(15, "02:10"))


def test_a_habit_around_midnight_begins_the_day_before():
    [silence] = learn(*(load(7 * week, "00:05") for week in range(3)))
    assert silence.recurring == "Tue 23:50-00:50"
    assert holds(silence, at(21, "00:10"))


def test_what_the_operator_took_back_is_not_learned_again():
    schedules = Schedules()
    [silence] = [made for day in range(3) if (made := schedules.close(load(day)))]
    schedules.know(silence)
    assert [schedules.close(load(day)) for day in range(3, 6)] == [None, None, None]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1439)), max_size=40))
def test_whatever_is_learned_is_a_silence_that_the_store_takes(times):
    nights = [load(day, f"{minute // 60}:{minute % 60}") for day, minute in sorted(times)]
    for silence in learn(*nights):
        check(silence)
        parse_recurring(silence.recurring)


# --- in the middle tier -------------------------------------------------------------------------------


def night(tier, day, kept):
    """Ten minutes of load at two o'clock, from the findings to the closed incident."""
    start = at(day, "02:00")

    def stamp(wall):
        return Stamp("b", wall - MIDNIGHT + 1000.0, wall)

    def finding(wall, *, ended=False):
        number = f"{next(_numbers):012x}"
        piece = Evidence(f"{number}-1", "metric", "cpu.busy", wall, wall, "All 2 cores are 99 % busy.", {})
        return Finding(
            number,
            stamp(wall),
            "cpu.busy.level",
            Category.RESOURCE,
            Severity.WARNING,
            0.65,
            [Subject(SubjectKind.PROCESS, f"reindex[{100 + day}]", 1.0)],
            {FaultClass.CPU_SATURATION: 0.8},
            [piece],
            ended=ended,
        )

    for second in range(640):
        wall = start + second
        told = [finding(wall)] if second < 600 and second % 30 == 0 else []
        told += [finding(wall, ended=True)] if second == 600 else []
        for incident in tier.take([*told, Tick(stamp(wall))]):
            kept[incident.id] = incident


def test_a_nightly_job_is_not_notified_after_its_third_night():
    tier, kept = MiddleTier(Middle()), {}
    for day in range(3):
        night(tier, day, kept)
    assert [one.quieted for one in kept.values()] == ["", "", ""]
    [silence] = tier.learned()
    assert tier.learned() == []
    night(tier, 3, kept)
    assert [one.quieted for one in kept.values()] == ["", "", "", silence.id]
    assert {one.state for one in kept.values()} == {"closed"}


def test_nights_before_a_restart_count(tmp_path):
    kept = {}
    for day in range(2):
        night(MiddleTier(Middle()), day, kept)
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save(list(kept.values()), [])
        with StoreReader(tmp_path / "store.db") as reader:
            tier = MiddleTier(Middle(), past=remembered(reader.incidents, at(2, "00:00")))
        night(tier, 2, kept)
        [silence] = tier.learned()
        writer.keep(silence)
        with StoreReader(tmp_path / "store.db") as reader:
            again = MiddleTier(Middle(), silences=reader.silences())
    night(again, 3, kept)
    assert list(kept.values())[-1].quieted == silence.id
