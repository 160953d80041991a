"""Silences: what they match, when they hold, and the weekly rule `Mon,Tue 02:00-04:00`.

A silence keeps an incident from being notified, never from being kept. Knows nothing about the store.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase
from typing import NamedTuple

from daemon.errors import ConfigError
from daemon.messages import Culprit, Finding, Incident, KeepSilence
from models.digest import blake2b
from models.taxonomy import FaultClass, SubjectKind

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SETS = {"daily": range(7), "weekdays": range(5), "weekends": range(5, 7)}
_RULE = re.compile(r"\s*(\S(?:[^0-9]*\S)?)\s+(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
_EXAMPLES = "examples: 'Mon,Tue 02:00-04:00', 'Mon-Fri 22:00-06:00', 'daily 02:00-04:00'"
_PROCESS_ID = re.compile(r"\[\d+\]$")
DAY_MINUTES = 24 * 60
LEARNED_BY = "hauswart"  # the user of silences that follow from habits
TEMPLATES_MAX = 16  # of one verdict


class Weekly(NamedTuple):
    """A window on some days of the week, in minutes of the local day; it may run over midnight."""

    days: frozenset[int]  # 0 is Monday: the day on which the window begins
    begin: int
    end: int

    def covers(self, wall: float, zone: tzinfo | None = None) -> bool:
        """Whether a time (Unix seconds) lies in the window by the local clock, or that of `zone`.

        The local clock decides: an hour that daylight saving repeats is covered twice, a skipped one never.
        """
        day, minute = _local(wall, zone)
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or (
            (day - 1) % 7 in self.days and minute < self.end
        )


def _local(wall: float, zone: tzinfo | None) -> tuple[int, int]:
    try:
        if zone is not None:
            moment = datetime.fromtimestamp(wall, zone)
            return moment.weekday(), moment.hour * 60 + moment.minute
        parts = time.localtime(wall)
    except (OverflowError, ValueError, OSError):  # a clock outside the calendar is in no window
        return -1, -1
    return parts.tm_wday, parts.tm_hour * 60 + parts.tm_min


def parse_recurring(text: str) -> Weekly:
    """The weekly rule that a text means; raises ConfigError that says which part is wrong."""
    found = _RULE.fullmatch(text) if len(text) <= 128 else None
    if found is None:
        raise ConfigError(f"{text[:64]!r} is not days and a window like 02:00-04:00", hint=_EXAMPLES)
    days = _parse_days(found[1], text)
    begin, end = _minutes(found[2], found[3], text), _minutes(found[4], found[5], text)
    if begin == DAY_MINUTES:
        raise ConfigError(f"{text!r}: a window cannot begin at 24:00", hint="write 00:00 on the next day")
    if begin == end:
        raise ConfigError(f"{text!r}: the window is empty", hint="a whole day is 00:00-24:00")
    return Weekly(days, begin, end)


def _parse_days(text: str, rule: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        name = part.strip()
        if name in _SETS:
            days.update(_SETS[name])
            continue
        first, dash, last = name.partition("-")
        start = _day(first, rule)
        stop = _day(last, rule) if dash else start
        days.update((start + offset) % 7 for offset in range((stop - start) % 7 + 1))
    return frozenset(days)


def _day(text: str, rule: str) -> int:
    name = text.strip()
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    if len(name) >= 3:
        for number, day in enumerate(full):
            if day.startswith(name):
                return number
    raise ConfigError(f"{rule!r}: {name!r} is not a day", hint=_EXAMPLES)


def _minutes(hours: str, minutes: str, rule: str) -> int:
    value = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or value > DAY_MINUTES:
        raise ConfigError(f"{rule!r}: {hours}:{minutes} is not a time of day", hint=_EXAMPLES)
    return value


def check(silence: KeepSilence) -> None:
    """Raise ConfigError if a silence can never hold or its fields mean nothing."""
    if not silence.id:
        raise ConfigError("a silence needs an id")
    if silence.fault_class and silence.fault_class not in {fault.value for fault in FaultClass}:
        raise ConfigError(
            f"{silence.fault_class!r} is not a fault class", hint="`hauswart silence add --help` lists them"
        )
    ends = (silence.start,) if silence.end is None else (silence.start, silence.end)
    if not all(math.isfinite(moment) for moment in ends):
        raise ConfigError("a silence needs times that are numbers")
    if silence.end is not None and silence.end <= silence.start and not silence.cancelled:
        raise ConfigError("a silence must end after it begins")
    if silence.recurring:
        parse_recurring(silence.recurring)


def holds(silence: KeepSilence, wall: float, zone: tzinfo | None = None) -> bool:
    """Whether a silence is in force at a time (Unix seconds)."""
    if silence.cancelled or wall < silence.start or (silence.end is not None and wall >= silence.end):
        return False
    if not silence.recurring:
        return True
    try:
        return parse_recurring(silence.recurring).covers(wall, zone)
    except ConfigError:  # never kept by this version; a rule not understood must not hide anything
        return False


def matches(silence: KeepSilence, fault_class: str, culprits: Sequence[Culprit]) -> bool:
    """Whether a silence is about this class and these culprits; empty fields match everything."""
    if silence.fault_class and silence.fault_class != fault_class:
        return False
    if silence.incident_id and not silence.unit:  # what is said of the host itself says nothing of its units
        return not culprits or culprits[0].kind is SubjectKind.HOST
    # What follows from a verdict or a habit is of whom that blamed, not of whoever comes after another one.
    meant = culprits[:1] if _follows(silence) else culprits
    return not silence.unit or any(_named(silence, culprit.name) for culprit in meant)


def _follows(silence: KeepSilence) -> bool:
    """Whether an incident or a habit made it: its `unit` is then a name, as whoever bears it chose it."""
    return bool(silence.incident_id) or silence.user == LEARNED_BY


def _named(silence: KeepSilence, name: str) -> bool:
    """Shell-style, on the whole name, on a unit's without `.service` or a process's without `[PID]`."""
    forms = {name, name.removesuffix(".service"), _PROCESS_ID.sub("", name)}
    if silence.unit in forms or _follows(silence):
        return silence.unit in forms
    return any(fnmatchcase(one, silence.unit) for one in forms)


def quieting(silences: Iterable[KeepSilence], incident: Incident, wall: float) -> str:
    """The id of the first silence that keeps an incident from being notified now, or ""."""
    fault = incident.fault_class.value
    for silence in silences:
        about = matches(silence, fault, incident.culprits) or _snoozed(silence, incident)
        if about and holds(silence, wall):
            return silence.id
    return ""


def _snoozed(silence: KeepSilence, incident: Incident) -> bool:
    """Whether somebody snoozed this very incident: it is meant, whoever is blamed first by and by."""
    snooze = silence.incident_id == incident.id and silence.id != verdict_id(incident.id)
    return snooze and silence.fault_class == incident.fault_class


def hushing(silences: Iterable[KeepSilence], finding: Finding, wall: float) -> bool:
    """Whether a bad verdict keeps lines of this template about this subject from opening an incident."""
    for silence in silences:
        if not finding.template or finding.template not in silence.templates:
            continue
        named = not silence.unit or any(_named(silence, one.name) for one in finding.subjects)
        if named and holds(silence, wall):
            return True
    return False


def whom(incident: Incident) -> str:
    """Whom a silence of an incident is about: its first culprit, whatever number its process has then."""
    return _PROCESS_ID.sub("", incident.culprits[0].name) if incident.culprits else ""


def verdict_id(incident_id: str) -> str:
    """The id of the silence that follows from a bad verdict on an incident."""
    return blake2b(f"verdict|{incident_id}".encode(), digest_size=3).hexdigest()


def after_verdict(incident: Incident, findings: Iterable[Finding], user: str, at: float) -> KeepSilence:
    """What a bad verdict keeps quiet on this host: the incident's class and culprit, and its templates."""
    templates = dict.fromkeys(one.template for one in findings if one.template and not one.ended)
    return KeepSilence(
        id=verdict_id(incident.id),
        fault_class=incident.fault_class.value,
        unit=whom(incident),
        start=at,
        end=None,
        recurring="",
        reason=f"bad verdict on incident {incident.id}",
        user=user,
        incident_id=incident.id,
        templates=list(templates)[:TEMPLATES_MAX],
    )
