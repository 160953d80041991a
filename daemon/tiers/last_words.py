"""What a unit's programs said last before the manager found it failed: the reason often stands there.

Pure, on observation time, bounded by its owner. The words only accompany a failure; they open nothing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from daemon.messages import MAX_TEXT, Finding, Line, Subject
from daemon.tiers.conditions import Breach
from models.alertness import speaks_for, word_weight
from models.taxonomy import FaultClass, Severity, SubjectKind

RULE = "unit.last-words"
KEPT = 3
RECENT_S = 10.0  # what was said earlier was not about this end
LATE_S = 1.0  # journald may read a program's output after the manager's line about its end
SCORE, HINT = 0.2, 0.25  # it joins what failed and speaks for nothing alone
TELLING = 0.35  # words such as "error" or "cannot"; what only says that it works explains nothing
QUOTED = 0.6  # rather than the manager's "Failed with result 'exit-code'" (0.49)
_FAILURES = frozenset(
    {FaultClass.SERVICE_CRASH, FaultClass.CRASH_LOOP, FaultClass.SERVICE_HUNG, FaultClass.CONFIG_ERROR}
)


class Said(NamedTuple):
    """One line, without what need not be kept."""

    t: float
    text: str
    ref: str


class LastWords:
    """The last lines of one unit, and when it failed."""

    __slots__ = ("failed_t", "fault", "lines", "unit")

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.lines: deque[Said] = deque(maxlen=KEPT)
        self.failed_t = float("-inf")
        self.fault = FaultClass.SERVICE_CRASH

    def hear(self, line: Line, t: float) -> None:
        """Keep one more line; a few microseconds matter here."""
        self.lines.append(Said(t, line.text, line.cursor))

    def fail(self, finding: Finding, t: float) -> None:
        """The manager says that the unit failed."""
        self.failed_t = t
        self.fault = failure(finding) or self.fault

    def breaches(self, t: float) -> list[Breach]:
        """The words that belong to the failure, if there is one."""
        if t - self.failed_t > LATE_S:
            return []
        since = self.failed_t - RECENT_S
        return [self._breach(place, one) for place, one in enumerate(self.lines) if one.t >= since]

    def _breach(self, place: int, said: Said) -> Breach:
        telling = word_weight(said.text[:512]) >= TELLING
        return Breach(
            rule=RULE,
            label=f"{self.unit} {place}",
            severity=Severity.INFO,
            score=SCORE,
            subjects=[Subject(SubjectKind.UNIT, self.unit)],
            hints={**speaks_for(said.text[:512]), self.fault: HINT},
            text=said.text[:MAX_TEXT],
            values={},
            ref=said.ref,
            kind="line",
            once=True,
            category=FaultClass.SERVICE_CRASH.category,
            speaks={self.fault: QUOTED} if telling else None,
        )


def failure(finding: Finding) -> FaultClass | None:
    """The kind of failure that a finding about a unit speaks of, if it does."""
    if finding.ended or not finding.hints or finding.subjects[0].kind is not SubjectKind.UNIT:
        return None
    top = max(finding.hints, key=lambda fault: finding.hints[fault])
    return top if top in _FAILURES else None
