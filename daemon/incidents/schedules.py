"""Schedules that the host itself teaches: the same load, by the same culprit, at the same time of day.

After its third day such load is a habit: a silence is made of it, which an operator sees and may remove. It
hides nothing: incidents under it are kept, they are only not notified. Pure, on wall time as silences are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from daemon.messages import Incident, KeepSilence
from daemon.silences import DAY_MINUTES, DAYS, LEARNED_BY
from daemon.subjects import split_pid
from models.digest import blake2b
from models.taxonomy import FaultClass, Severity, SubjectKind

HABIT_DAYS = 3
RECENT_DAYS = 4  # a daily job may miss one
KEPT_S = 29 * 86400.0  # four weeks and a day: a weekly job needs three of them
HISTORY_MAX = 512
APART_MINUTES = 30  # timers are randomised (RandomizedDelaySec=), jobs before them take longer or shorter
MARGIN_MINUTES = 15
LONGEST_MINUTES = 6 * 60  # load that lasts longer is no job with an end
USER = LEARNED_BY

# Load alone: what fills, breaks, leaks or attacks is never a habit.
LEARNED = frozenset({FaultClass.CPU_SATURATION, FaultClass.IO_SATURATION, FaultClass.HEAVY_BUT_NORMAL_LOAD})


def remembered(incidents: Callable[..., list[Incident]], wall: float) -> list[Incident]:
    """The closed incidents of the last weeks that may make a habit; `incidents` is the store reader's."""
    return [
        one
        for fault in sorted(LEARNED)
        for one in incidents(state="closed", since=wall - KEPT_S, fault_class=fault, limit=HISTORY_MAX)
    ]


class Occurrence(NamedTuple):
    """One incident as habits see it; the culprit without its pid, minutes of the local day."""

    fault: FaultClass
    culprit: str
    began: float
    day: int  # days since an arbitrary one, by the local calendar
    weekday: int
    minute: int
    lasted: int


class Schedules:
    """What load came lately, and which of it became a habit."""

    def __init__(self, past: Iterable[Incident] = (), known: Iterable[KeepSilence] = ()) -> None:
        self._known = {one.id for one in known}
        found = (occurrence(one) for one in sorted(past, key=lambda one: one.opened_at))
        self._history = deque((one for one in found if one is not None), HISTORY_MAX)

    def know(self, silence: KeepSilence) -> None:
        """A silence was made or removed: what an operator took back is not learned again."""
        self._known.add(silence.id)

    def close(self, incident: Incident) -> KeepSilence | None:
        """An incident is over; the silence that follows if that was one time too often to be news."""
        newest = occurrence(incident)
        if newest is None:
            return None
        self._history = deque(
            (one for one in self._history if newest.began - KEPT_S <= one.began < newest.began), HISTORY_MAX
        )
        self._history.append(newest)
        alike = [one for one in self._history if _alike(one, newest)]
        daily = [one for one in alike if newest.day - one.day < RECENT_DAYS]
        weekly = [one for one in alike if one.weekday == newest.weekday]
        for every_day, habit in ((True, daily), (False, weekly)):
            if len({one.day for one in habit}) >= HABIT_DAYS:
                return self._learn(newest, habit, incident, every_day=every_day)
        return None

    def _learn(
        self, newest: Occurrence, habit: list[Occurrence], incident: Incident, *, every_day: bool
    ) -> KeepSilence | None:
        after = [(_minutes_after(newest.minute, one.minute), one.lasted) for one in habit]
        day, begin = divmod(newest.minute + min(late for late, _ in after) - MARGIN_MINUTES, DAY_MINUTES)
        end = (newest.minute + max(late + lasted for late, lasted in after) + MARGIN_MINUTES) % DAY_MINUTES
        days = "daily" if every_day else DAYS[(newest.weekday + day) % 7].capitalize()
        name = blake2b(f"{newest.fault}|{newest.culprit}|{days}|{begin // 60}".encode(), digest_size=3)
        silence = KeepSilence(
            id=name.hexdigest(),
            fault_class=newest.fault.value,
            unit=newest.culprit,
            start=incident.updated_at,
            end=None,
            recurring=f"{days} {_clock(begin)}-{_clock(end)}",
            reason=f"learned: it came at this time on {len({one.day for one in habit})} days",
            user=USER,
        )
        if silence.id in self._known:
            return None
        self._known.add(silence.id)
        return silence


def occurrence(incident: Incident) -> Occurrence | None:
    """What a habit may be made of; None for what must never become one, or is quiet already."""
    culprit = incident.culprits[0] if incident.culprits else None
    if incident.state != "closed" or incident.closed_at is None or incident.quieted:
        return None
    if incident.fault_class not in LEARNED or incident.severity in {Severity.INFO, Severity.CRITICAL}:
        return None
    if culprit is None or culprit.kind not in {SubjectKind.UNIT, SubjectKind.PROCESS}:
        return None
    lasted = round((incident.closed_at - incident.evidence_at) / 60.0)
    try:
        local = time.localtime(incident.evidence_at)
    except (OverflowError, ValueError, OSError):  # a clock outside the calendar teaches nothing
        return None
    if not 0 <= lasted <= LONGEST_MINUTES:
        return None
    day = int((incident.evidence_at + local.tm_gmtoff) // 86400.0)
    minute = local.tm_hour * 60 + local.tm_min
    name = split_pid(culprit.name)[0]
    return Occurrence(incident.fault_class, name, incident.evidence_at, day, local.tm_wday, minute, lasted)


def _alike(one: Occurrence, other: Occurrence) -> bool:
    near = abs(_minutes_after(one.minute, other.minute)) <= APART_MINUTES
    return near and (one.fault, one.culprit) == (other.fault, other.culprit)


def _minutes_after(minute: int, other: int) -> int:
    """How much later in the day `other` is, from half a day earlier to half a day later."""
    half = DAY_MINUTES // 2
    return (other - minute + half) % DAY_MINUTES - half


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
