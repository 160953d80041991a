"""Silences: what they match, when they hold, and what a wrong rule is told."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.errors import ConfigError
from daemon.messages import Culprit, KeepSilence
from daemon.silences import Weekly, after_verdict, check, holds, matches, parse_recurring, quieting, whom
from models.taxonomy import FaultClass, SubjectKind
from tests.fixtures.incidents import make_incident

BERLIN = ZoneInfo("Europe/Berlin")


def local(text):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def silence(**changes):
    fields = {"id": "s1", "fault_class": "", "unit": "", "start": 0.0, "end": None, "recurring": ""}
    return KeepSilence(**(fields | {"reason": "", "user": "me"} | changes))


def incident(fault=FaultClass.DISK_FULL, *culprits):
    return make_incident(fault_class=fault, culprits=list(culprits))


@pytest.mark.parametrize(
    ("rule", "days", "begin", "end"),
    [
        ("Mon,Tue 02:00-04:00", {0, 1}, 120, 240),
        ("daily 02:00-04:00", set(range(7)), 120, 240),
        ("weekdays 9:00 - 17:30", set(range(5)), 540, 1050),
        ("weekends 00:00-24:00", {5, 6}, 0, 1440),
        ("Fri-Mon 22:00-06:00", {4, 5, 6, 0}, 1320, 360),
        ("  sunday, WED 00:00-00:01 ", {6, 2}, 0, 1),
    ],
)
def test_rule_is_understood(rule, days, begin, end):
    assert parse_recurring(rule) == Weekly(frozenset(days), begin, end)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "not days and a window"),
        ("02:00-04:00", "not days and a window"),
        ("Mon", "not days and a window"),
        ("Mon 2-4", "not days and a window"),
        ("Mon 02:00-04:00 Tue 02:00-04:00", "not days and a window"),
        ("Mon,Foo 02:00-04:00", "'foo' is not a day"),
        ("Mo 02:00-04:00", "'mo' is not a day"),
        ("Mon, 02:00-04:00", "'' is not a day"),
        ("Mon 25:00-26:00", "25:00 is not a time"),
        ("Mon 02:60-04:00", "02:60 is not a time"),
        ("Mon 02:00-24:01", "24:01 is not a time"),
        ("Mon 24:00-02:00", "begin at 24:00"),
        ("Mon 02:00-02:00", "empty"),
        ("Mon " * 1000 + "02:00-04:00", "not days and a window"),
    ],
)
def test_wrong_rule_is_told_which_part_is_wrong(rule, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_recurring(rule)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_named_error(text):
    with suppress(ConfigError):
        parse_recurring(text).covers(0.0, BERLIN)


def test_window_holds_on_its_days_by_the_local_clock():
    rule = parse_recurring("Mon,Tue 02:00-04:00")  # 2026-06-01 is a Monday
    assert rule.covers(local("2026-06-01T02:00:00"), BERLIN)
    assert rule.covers(local("2026-06-02T03:59:59"), BERLIN)
    assert not rule.covers(local("2026-06-01T04:00:00"), BERLIN)
    assert not rule.covers(local("2026-06-03T03:00:00"), BERLIN)
    assert not rule.covers(local("2026-05-31T03:00:00"), BERLIN)


def test_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    rule = parse_recurring("Sun 22:00-06:00")
    assert rule.covers(local("2026-05-31T23:00:00"), BERLIN)
    assert rule.covers(local("2026-06-01T05:59:00"), BERLIN)
    assert not rule.covers(local("2026-06-01T22:30:00"), BERLIN)
    assert not rule.covers(local("2026-05-31T05:00:00"), BERLIN)


def test_hour_that_summer_time_skips_or_repeats_follows_the_local_clock():
    rule = parse_recurring("Sun 02:00-03:00")
    spring = local("2026-03-29T01:59:59")
    assert not any(rule.covers(spring + offset, BERLIN) for offset in range(0, 7200, 60))
    autumn = local("2026-10-25T01:59:59") + 1  # 02:00 summer time; 02:00 comes again an hour later
    covered = [rule.covers(autumn + offset, BERLIN) for offset in range(0, 10800, 60)]
    assert covered == [True] * 120 + [False] * 60


def test_system_zone_decides_without_a_zone(monkeypatch):
    import time  # noqa: PLC0415

    rule = parse_recurring("daily 02:00-04:00")
    moment = local("2026-06-01T03:00:00")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    assert rule.covers(moment)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert not rule.covers(moment)
    monkeypatch.undo()
    time.tzset()


def test_clock_outside_the_calendar_is_in_no_window():
    rule = parse_recurring("daily 00:00-24:00")
    assert not rule.covers(1e300)
    assert not rule.covers(1e300, BERLIN)


@pytest.mark.parametrize(
    ("unit", "culprit", "fits"),
    [
        ("nginx.service", "nginx.service", True),
        ("nginx", "nginx.service", True),
        ("ngin*", "nginx.service", True),
        ("stress[123]", "stress[123]", True),
        ("stress", "stress[123]", True),
        ("stress*", "stress[123]", True),
        ("/srv/*", "/srv/data", True),
        ("nginx", "nginx-proxy.service", False),
        ("NGINX", "nginx.service", False),
        ("", "anything", True),
    ],
)
def test_unit_is_a_shell_pattern_on_a_culprit(unit, culprit, fits):
    assert matches(silence(unit=unit), "disk-full", [Culprit(SubjectKind.UNIT, culprit, 1.0)]) is fits


def test_class_and_unit_must_both_match():
    mount = [Culprit(SubjectKind.MOUNT, "/var", 1.0)]
    assert matches(silence(fault_class="disk-full", unit="/var"), "disk-full", mount)
    assert not matches(silence(fault_class="link-down", unit="/var"), "disk-full", mount)
    assert not matches(silence(unit="/var"), "disk-full", [])


def test_silence_holds_from_its_start_to_its_end_unless_cancelled():
    one = silence(start=100.0, end=200.0)
    assert [holds(one, moment) for moment in (99.0, 100.0, 199.0, 200.0)] == [False, True, True, False]
    assert not holds(silence(start=100.0, end=200.0, cancelled=True), 150.0)
    weekly = silence(start=local("2026-06-01T00:00:00"), recurring="daily 02:00-04:00")
    assert holds(weekly, local("2026-06-02T03:00:00"), BERLIN)
    assert not holds(weekly, local("2026-05-31T03:00:00"), BERLIN)
    assert not holds(silence(recurring="whenever it suits"), 5.0)


def test_quieting_names_the_silence():
    silences = [silence(id="a", fault_class="link-down"), silence(id="b", unit="/var", end=50.0)]
    full = incident(FaultClass.DISK_FULL, Culprit(SubjectKind.MOUNT, "/var", 1.0))
    assert quieting(silences, full, 10.0) == "b"
    assert quieting(silences, full, 60.0) == ""
    assert quieting(silences, incident(FaultClass.LINK_DOWN), 10.0) == "a"


@pytest.mark.parametrize(
    "wrong",
    [{"id": ""}, {"fault_class": "nope"}, {"end": -1.0}, {"start": float("nan")}, {"recurring": "x"}],
)
def test_silence_that_can_never_hold_is_refused(wrong):
    with pytest.raises(ConfigError):
        check(silence(**wrong))
    check(silence())


def test_bad_verdict_on_the_host_itself_leaves_its_units_alone():
    host = incident(FaultClass.CPU_SATURATION, Culprit(SubjectKind.HOST, "", 1.0))
    unit = incident(FaultClass.CPU_SATURATION, Culprit(SubjectKind.UNIT, "db.service", 1.0))
    verdict = after_verdict(host, [], "me", 10.0)
    assert quieting([verdict], host, 11.0) == verdict.id
    assert quieting([verdict], unit, 11.0) == ""


def test_bad_verdict_on_a_process_holds_for_its_next_pid():
    first = incident(FaultClass.SERVICE_CRASH, Culprit(SubjectKind.PROCESS, "worker[12]", 1.0))
    again = incident(FaultClass.SERVICE_CRASH, Culprit(SubjectKind.PROCESS, "worker[99]", 1.0))
    assert quieting([after_verdict(first, [], "me", 10.0)], again, 11.0)


def test_a_silence_is_of_a_program_whatever_its_number_is_next_time():
    stress = Culprit(SubjectKind.PROCESS, "stress[1234]", 1.0)
    found = make_incident("i1", 1e9, culprits=[stress])
    assert whom(found) == "stress"
    kept = KeepSilence("s1", found.fault_class.value, whom(found), 0.0, 60.0, "", "", "alice")
    for name, quiet in (("stress[1234]", True), ("stress[5678]", True), ("stress1", False)):
        other = Culprit(SubjectKind.PROCESS, name, 1.0)
        assert matches(kept, found.fault_class.value, [other]) is quiet


def test_what_was_learnt_of_one_quiets_nobody_beside_whom_it_stands():
    backup, miner = (Culprit(SubjectKind.UNIT, f"{name}.service", 1.0) for name in ("backup", "miner"))
    own = KeepSilence("s1", "io-saturation", "backup.service", 0.0, 60.0, "", "", "alice")
    for learned in (replace(own, user="hauswart"), replace(own, incident_id="i1")):
        assert matches(learned, "io-saturation", [backup, miner])
        assert not matches(learned, "io-saturation", [miner, backup])
    assert matches(own, "io-saturation", [miner, backup])


@pytest.mark.parametrize("name", ["*[7]", "s*[7]", "?ql[7]", "[a-z]ql[7]"])
def test_name_that_looks_like_a_pattern_quiets_its_bearer_alone(name):
    bearer, other = (Culprit(SubjectKind.PROCESS, one, 1.0) for one in (name, "sql[8]"))
    first = incident(FaultClass.CPU_SATURATION, bearer)
    made = after_verdict(first, [], "me", 10.0)
    for kept in (made, replace(made, incident_id="", user="hauswart")):
        assert quieting([kept], first, 11.0)
        assert not quieting([kept], incident(FaultClass.CPU_SATURATION, other), 11.0)
    written = replace(made, unit="s*", incident_id="")
    assert quieting([written], incident(FaultClass.CPU_SATURATION, other), 11.0)
