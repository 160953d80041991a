"""Crashes and starts counted by program or unit: three crashes within ten minutes are a loop.

Pure, on observation time, bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from daemon.messages import Subject
from daemon.subjects import split_pid
from daemon.tiers.conditions import Breach
from daemon.tiers.wording import span
from models.taxonomy import FaultClass, Severity, SubjectKind

WINDOW_S = 600.0
LOOP = 3
WITNESSES_S = 5.0  # between the first and the last line about one crash; a dump takes its time
CLEAN_S = 4.0  # for so many restarts of what ends without an error: every two seconds, pauses included
PROGRAMS_MAX = 512
ENDLESS, ENDLESS_S = 20, 10.0  # starts: no timer asks for so many, a path that stays ready does
RULE = "known.crash-loop"
RULE_ENDLESS = "unit.starts"


class Crashes:
    """When each program or unit crashed lately, and how often it was restarted."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._last: OrderedDict[str, tuple[str, float, float]] = OrderedDict()  # witness, pid, when

    def crashed(
        self, subject: Subject, label: str, t: float, witness: str, pid: float = 0.0
    ) -> Breach | None:
        """One crash, as one witness tells it; the loop's breach if there were enough of them.

        The kernel, the audit log, whoever keeps the dump and the program itself tell of the same one.
        """
        other, before, at = self._last.get(label, (witness, 0.0, -WITNESSES_S))
        times = self._recent(label, t)
        if t - at < WITNESSES_S and (other != witness or (pid and pid == before)):
            return None
        self._last[label] = witness, pid, t
        self._last.move_to_end(label)
        if len(self._last) > PROGRAMS_MAX:
            self._last.popitem(last=False)
        times.append(t)
        return _loop(subject, label, times, 0) if len(times) >= LOOP else None

    def restarted(self, subject: Subject, label: str, restarts: int, t: float) -> Breach | None:
        """The service manager restarts it once more; a service may also exit cleanly over and over.

        One that never fails and is started anew after some seconds has done its work, and is to do more.
        """
        times = self._recent(f"restart {label}", t)
        times.append(t)
        if min(len(times), restarts) < LOOP:
            return None
        at_once = t - times[-LOOP] <= CLEAN_S
        return (
            _loop(subject, label, times, restarts)
            if at_once or self._recent(f"fail {subject.name}", t)
            else None
        )

    def failed(self, unit: str, t: float) -> None:
        """The manager says that a unit failed, in whatever way."""
        self._recent(f"fail {unit}", t).append(t)

    def begun(self, subject: Subject, t: float) -> Breach | None:
        """The manager starts a unit; the breach if it does nothing else, though nothing ever fails."""
        times = self._recent(f"start {subject.name}", t)
        times.append(t)
        if len(times) < ENDLESS or subject.kind is not SubjectKind.UNIT:
            return None
        lasted_s = max(0.1, t - times[-ENDLESS])
        return _endless(subject, lasted_s) if lasted_s <= ENDLESS_S else None

    def _recent(self, label: str, t: float) -> deque[float]:
        times = self._times.get(label)
        if times is None:
            if len(self._times) >= PROGRAMS_MAX:
                self._times.popitem(last=False)
            times = self._times[label] = deque(maxlen=256)
        self._times.move_to_end(label)
        while times and t - times[0] > WINDOW_S:
            times.popleft()
        return times


def _endless(subject: Subject, lasted_s: float) -> Breach:
    return Breach(
        rule=RULE_ENDLESS,
        label=subject.name,
        severity=Severity.ERROR,
        score=0.8,
        subjects=[subject],
        hints={FaultClass.PROCESS_STORM: 0.8, FaultClass.CRASH_LOOP: 0.3},
        text=f"{subject.name} was started {ENDLESS} times within {span(lasted_s)}, though it does not fail.",
        values={"restarts_count": float(ENDLESS), "window_s": lasted_s},
        kind="event",
    )


def _loop(subject: Subject, label: str, times: deque[float], restarts: int) -> Breach:
    count, lasted_s = float(len(times)), max(1.0, times[-1] - times[0])
    verb = "failed"
    if subject.kind is SubjectKind.PROCESS:  # every crash had a pid of its own
        verb, subject = "crashed", Subject(subject.kind, split_pid(subject.name)[0], subject.score)
    text = f"{subject.name} {verb} {count:.0f} times within {span(lasted_s)}"
    values = {"failures_count": count, "window_s": lasted_s}
    if restarts:
        text = f"{subject.name} was restarted {count:.0f} times within {span(lasted_s)}, {restarts} in all"
        values["restarts_count"] = float(restarts)
    return Breach(
        rule=RULE,
        label=label,
        severity=Severity.ERROR,
        score=0.85,
        subjects=[subject],
        hints={FaultClass.CRASH_LOOP: 0.95, FaultClass.SERVICE_CRASH: 0.2},
        text=text,
        values=values,
        kind="event",
        stale_s=180.0,  # systemd's default back-off and the slowest RestartSec= in common use stay below
        size=count,
    )
