"""Incidents that were closed a short while ago: the same trouble, back, is the same incident."""

from __future__ import annotations

from collections.abc import Callable

from daemon.incidents.situations import Situation
from daemon.incidents.verdicts import Verdict
from daemon.messages import Incident
from daemon.subjects import Key, expand
from models.taxonomy import FaultClass

CLOSED_MAX = 32
REOPEN_S = 180.0  # the same trouble within three minutes after closing is the same incident
_TIED = 0.3
_CRASHES = frozenset({FaultClass.SERVICE_CRASH, FaultClass.CRASH_LOOP})


class Closed:
    """The last of them, bounded."""

    def __init__(self) -> None:
        self._closed: dict[str, Situation] = {}

    def __len__(self) -> int:
        return len(self._closed)

    def add(self, situation: Situation, t: float) -> None:
        """One is over since `t`."""
        situation.close(t)
        self._closed[situation.id] = situation
        while len(self._closed) > CLOSED_MAX:
            del self._closed[next(iter(self._closed))]

    def take(self, situation: Situation, verdict: Verdict, tied: frozenset[Key]) -> Situation | None:
        """The incident of the same trouble, which is no longer kept here; `tied`: whom it is about now."""
        for former in reversed(self._closed.values()):
            if former.incident is None or former.stage != situation.stage:
                continue
            faults = {former.incident.fault_class, verdict.fault_class}
            if (len(faults) == 1 or faults <= _CRASHES) and _shared(former, tied):
                del self._closed[former.id]
                return former
        return None

    def forget(self, erased: Callable[[Incident], bool]) -> None:
        """Forget those that the operator has erased."""
        kept = self._closed.items()
        self._closed = {name: one for name, one in kept if one.incident is None or not erased(one.incident)}

    def expire(self, t: float) -> None:
        """Forget what does not come back any more."""
        over = [one.id for one in self._closed.values() if t - (one.closed_t or t) > REOPEN_S]
        for number in over:
            del self._closed[number]


def _shared(former: Situation, tied: frozenset[Key]) -> bool:
    subjects = [one for condition in former.strong() for one in condition.finding.subjects]
    known = expand(subjects, _TIED)
    return bool(known & tied) or not (known or tied)
