"""How long a host's short bursts of work usually last: what is over within that time is no news.

Learned from what was over by itself, before anybody was told or after. Pure, in observation time.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp2

HALF_LIFE_S = 12 * 3600.0  # a nightly job's burst still counts a quarter in the next night
LONGEST_S = 3600.0
RULES_MAX = 64
TIMES = 2.0  # a burst twice as long as any lately is another matter


class Bursts:
    """The longest burst of late, by rule; older ones count less and less."""

    def __init__(self) -> None:
        self._longest: dict[str, tuple[float, float | None]] = {}  # seconds, and when that was

    def over(self, rule: str, lasted_s: float, t: float) -> None:
        """Something held for so long and is over."""
        if lasted_s >= self.usual_s(rule, t) and (rule in self._longest or len(self._longest) < RULES_MAX):
            self._longest[rule] = (min(LONGEST_S, lasted_s), t)

    def usual_s(self, rule: str, t: float) -> float:
        """How long bursts last here, 0 where none was seen."""
        lasted_s, when = self._longest.get(rule, (0.0, t))
        if when is None:  # taken up from a saved state: whatever time has passed, nothing was seen in it
            self._longest[rule] = (lasted_s, t)
            return lasted_s
        return lasted_s * exp2(-max(0.0, t - when) / HALF_LIFE_S)

    def sustain_s(self, rule: str, t: float, *, soon_s: float, late_s: float) -> float:
        """How long to wait before a condition is believed: `soon_s`, but longer where bursts are usual."""
        return min(late_s, max(soon_s, TIMES * self.usual_s(rule, t)))

    def state(self, t: float) -> dict[str, float]:
        """What is worth keeping over a restart."""
        return {rule: self.usual_s(rule, t) for rule in self._longest}

    def resume(self, state: Mapping[str, float]) -> None:
        """Take up a saved state."""
        for rule, lasted_s in list(state.items())[:RULES_MAX]:
            self._longest[rule] = (min(LONGEST_S, max(0.0, lasted_s)), None)
