"""What was found lately and no incident explains, for somebody who reads it and knows more than the rules.

Bounded, on observation time. Asks seldom: what is new waits a moment for what belongs to it, and a moment for
a rule that explains it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from daemon.messages import Finding
from models.taxonomy import FaultClass

if TYPE_CHECKING:  # the top stage needs little of this module, and nothing of that one
    from daemon.incidents.situations import Situation

SHOWN_S = 60.0  # of what was found; what is older explains nothing
PAST_S = 600.0  # what waited for longer to be asked about is about the past
SETTLE_S = 0.4  # before what is new is asked about
APART_S = 1.9  # between two times of asking: a little less than two seconds, for ticks are not exact
RECENT_MAX = 96
ASKED_MAX = 1024
READ = "read."  # rules of what somebody read here begin so
UNREAD = "line.unread"  # the rule of a line that no rule understands
_ABOUT_OURSELVES = ("reader.", "stage.", READ)


def noteworthy(finding: Finding) -> bool:
    """Whether a finding is about the host, and news."""
    return not finding.ended and not finding.rule.startswith(_ABOUT_OURSELVES)


class Unexplained:
    """The findings of the last minute, and which of them were asked about."""

    def __init__(self) -> None:
        self._recent: deque[tuple[Finding, float]] = deque(maxlen=RECENT_MAX)
        self._asked: dict[str, None] = {}
        self._asked_t = 0.0

    def note(self, finding: Finding, t: float) -> None:
        """Something was found."""
        if noteworthy(finding):
            self._recent.append((finding, t))

    def due(self, t: float, situations: Iterable[Situation]) -> tuple[list[Finding], dict[str, str]]:
        """What was found in the last minute, the oldest first, if there is news in it to ask about now.

        And by their ids the classes of those that an open incident has; an unknown class explains nothing.
        """
        told: dict[str, str] = {}
        soon: set[str] = set()
        for one in situations:
            if not one.open:
                soon |= one.ids.keys() if one.ripe else set()
            elif one.incident and one.incident.fault_class is not FaultClass.UNKNOWN:
                told |= dict.fromkeys(one.ids, one.incident.fault_class.value)
        return self._news(t, told.keys() | soon), told

    def lately(self, t: float) -> list[Finding]:
        """What was found in the last minute, the oldest first."""
        self._expire(t)
        return [finding for finding, _ in self._recent]

    def _expire(self, t: float) -> None:
        while self._recent and t - self._recent[0][1] > SHOWN_S:
            self._recent.popleft()

    def _news(self, t: float, explained: Collection[str]) -> list[Finding]:
        self._expire(t)
        if t - self._asked_t < APART_S:
            return []
        news = [
            finding.id
            for finding, at_t in self._recent
            if t - at_t >= SETTLE_S and finding.id not in self._asked and finding.id not in explained
        ]
        if not news:
            return []
        self._asked_t = t
        self._asked |= dict.fromkeys(news)
        while len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        return [finding for finding, _ in self._recent]
