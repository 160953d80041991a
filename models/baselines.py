"""What is usual for one metric: robust streaming statistics that see each value once and keep none.

Location and scale are a Huber M-estimate in its stochastic form (Huber 1964): a value more than CLIP scales
away counts as CLIP scales away, so a burst moves the estimate a little and a lasting change moves it within a
few horizons. Causal: a value is judged against what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence

FAST_S = 8.0  # long enough to ignore one spike, short enough to follow a fault within seconds
SLOW_S = 600.0  # what is usual is what held for the last ten minutes
CLIP = 3.0  # Huber's k is 1.3-3 scales; 3 leaves ordinary noise untouched
SIGMA = 1.2533  # standard deviation / mean absolute deviation of a normal distribution
SHIFT = 6.0  # scales between the two horizons; ordinary load crosses 4 many times an hour

# The smallest scale by unit: changes below it are of no interest however constant the metric was.
FLOORS = {
    "ratio": 0.01,
    "bool": 0.1,
    "count": 2.0,
    "1/s": 2.0,
    "bytes": 4e6,
    "bytes/s": 2e5,
    "s": 0.002,
    "celsius": 1.0,
    "cores": 0.02,
}


class Baseline:
    """Fast and slow level and the usual deviation of one metric; `learn` costs under a microsecond."""

    __slots__ = ("deviation", "fast", "floor", "last", "level", "seen", "settled", "t")

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.level = 0.0
        self.fast = 0.0
        self.deviation = 0.0
        self.last = float("nan")
        self.seen = 0
        self.settled = False
        self.t = 0.0

    @property
    def scale(self) -> float:
        """The usual standard deviation, never below the unit's floor."""
        return max(self.deviation * SIGMA, self.floor)

    def z(self, value: float) -> float:
        """How many usual deviations a value is away from the usual level."""
        return (value - self.level) / self.scale

    def learn(self, value: float, t: float, step_s: float) -> bool:
        """Take the value at `t`, `step_s` after the metric's previous reading.

        True while the fast level is SHIFT scales away from the slow one. Readings equal to `last` may be left
        out while `settled` holds: the next call accounts for them by the time that has passed.
        """
        self.last = value
        self.seen += 1
        if self.seen == 1:
            self.level = self.fast = value
            self.t = t
            self.settled = True
            return False
        gap = t - self.t
        if gap > 2.0 * step_s:
            if self.settled and self.t:  # what was left out sat at the level
                self.seen += int(gap / step_s) - 1
                self.deviation *= max(0.0, 1.0 - gap / SLOW_S)
                self.fast = self.level
            elif self.t:  # a reader that leaves out what is idle
                step_s = min(gap, 2.0 * FAST_S)
        self.t = t
        gain = step_s / SLOW_S
        if gain * self.seen < 1.0:
            gain = 1.0 / self.seen  # the first values count in full: useful after seconds
        pace = step_s / FAST_S
        self.fast += (value - self.fast) * (pace if pace < 1.0 else 1.0)  # noqa: FURB136  min() is slow
        scale = self.deviation if self.deviation > self.floor else self.floor  # noqa: FURB136  max() is slow
        step, reach = value - self.level, CLIP * scale
        if step > reach:
            step = reach
        elif step < -reach:
            step = -reach
        self.level += gain * step
        self.deviation += gain * ((step if step > 0.0 else -step) - self.deviation)
        gap = self.fast - self.level
        if gap < 0.0:
            gap = -gap
        self.settled = gap < self.floor and -self.floor < value - self.level < self.floor
        return gap > SHIFT * SIGMA * scale

    def readings(self, t: float) -> int:
        """About how many readings came until `t`, counting one a second where they were left out."""
        return self.seen + (int(t - self.t) if self.settled and self.t and t > self.t else 0)

    def state(self) -> tuple[float, float, int]:
        """What a restart needs: level, deviation, values seen."""
        return self.level, self.deviation, self.seen

    def resume(self, state: Sequence[float]) -> None:
        """Take up a saved state; the time since then counts for nothing."""
        self.level, self.deviation, self.seen = float(state[0]), abs(float(state[1])), int(state[2])
        self.fast = self.level
