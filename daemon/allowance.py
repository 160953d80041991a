"""How often something may be asked, so that who says very much at once does not use up the whole hour."""

from __future__ import annotations

HOUR_S = 3600.0
AT_ONCE = 4  # the part of an hour's number that may come at once: with 100, fifty seconds of one each two
_ROUNDING = 1e-9  # of sums of times: what is due now must not be a moment later


class Allowance:
    """A quarter of an hour's number at once, the rest spread over the hour; seconds of any one clock.

    `most`: how many at once.
    """

    def __init__(self, per_hour: int) -> None:
        self.most = max(1, per_hour // AT_ONCE)
        self._each_s = HOUR_S / max(1, per_hour - self.most)
        self._left, self._since_s = float(self.most), 0.0

    def at_s(self, now_s: float) -> float:
        """When the next is allowed: now or later."""
        lacking = 1.0 - self._left_at(now_s) - _ROUNDING
        return now_s + max(0.0, lacking) * self._each_s

    def full(self, now_s: float) -> bool:
        """Whether so many as ever at once are allowed."""
        return self._left_at(now_s) >= self.most

    def take(self, now_s: float) -> None:
        """One is asked."""
        self._left, self._since_s = self._left_at(now_s) - 1.0, now_s

    def _left_at(self, now_s: float) -> float:
        """A clock that was set back gives nothing."""
        return min(float(self.most), self._left + max(0.0, now_s - self._since_s) / self._each_s)


def shared(per_hour: int) -> tuple[Allowance, Allowance]:
    """What may be read of what is new, and a third for looks at incidents; neither can use up the other's."""
    looks = max(1, per_hour // 3)
    return Allowance(max(1, per_hour - looks)), Allowance(looks)
