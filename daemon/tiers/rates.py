"""How often a template comes: bursts against its own past, and heartbeats that stop.

Pure arithmetic on observation time; one `Watch` a template, constant memory, well under a microsecond a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from daemon.tiers.opinions import Opinion
from daemon.tiers.paces import Pace

WINDOW_S = 10.0
SLOW = 1 / 60  # the usual rate is that of the last ten minutes
PEAK_DECAY = 0.98  # a peak is half forgotten after six minutes
PEAK_FACTOR = 4.0
SIGMAS = 8.0  # of a Poisson count; log lines come in clumps, so 3 would fire all day
ACCEPT_WINDOWS = 30  # after five minutes a new rate is what is usual
SUSTAINED_WINDOWS = 3
WORTHY_WORDS = 0.4  # of `models.alertness.word_weight`: one word of failure, or two of trouble

GAPS_MIN = 10  # gaps before a period is believed
JITTER_MAX = 0.2  # mean deviation of the gaps / their mean
MISSED = 5.0  # periods without a line before it counts as silent
PERIOD_MIN_S = 2.0
PERIOD_MAX_S = 900.0


class Watch:
    """What is known of one template: its usual rate, its period."""

    __slots__ = (
        *("beating", "failing", "first_t", "gap_s", "gaps", "jitter_s", "last_t", "limit", "mean", "now"),
        *("opinion", "over", "pace", "peak", "priority", "silent", "weight", "window_end", "windows"),
    )

    def __init__(self, t: float, weight: float, priority: int) -> None:
        self.failing = 0.0  # of an access log: the share of the latest answers that are failures
        self.opinion: Opinion | None = None
        self.pace: Pace | None = None  # where its lines say how long something took
        self.weight = weight
        self.priority = priority
        self.first_t = self.last_t = t
        self.window_end = t + WINDOW_S
        self.now = 0  # lines in this window
        self.over = 0  # windows in a row that were over the limit
        self.windows = 0
        self.mean = 0.0
        self.peak = 0.0
        self.limit = self.floor * 10  # what is new may be busy
        self.gap_s = 0.0
        self.jitter_s = 0.0
        self.gaps = 0
        self.beating = False
        self.silent = False

    @property
    def worthy(self) -> bool:
        """Whether such lines are worth an alert, by the model's opinion or else by their words."""
        return self.weight >= WORTHY_WORDS if self.opinion is None else self.opinion.worthy

    @property
    def floor(self) -> int:
        """Lines in a window that are no burst whatever was usual."""
        return 10 if self.priority <= 3 else 30 if self.priority == 4 or self.worthy else 200

    @property
    def period_s(self) -> float:
        """The heartbeat's period, 0 if it has none."""
        return self.gap_s if self.beating else 0.0

    def arrive(self, t: float) -> bool:
        """Count one line; True when it makes this window a burst."""
        gap_s = t - self.last_t
        self.last_t = t
        if t >= self.window_end:
            self._roll(t)
        if gap_s > 0.0:
            self._learn_gap(gap_s)
        self.now += 1
        return self.now == self.limit

    def forget_windows(self, t: float) -> None:
        """A new boot or a restart: what was counted lately says nothing about now."""
        self.last_t = t
        self.window_end = t + WINDOW_S
        self.now = self.over = 0
        self.beating = self.silent = False
        self.gaps = min(self.gaps, GAPS_MIN // 2)

    def _roll(self, t: float) -> None:
        idle = int((t - self.window_end) / WINDOW_S)
        over = self.now >= self.limit
        self.over = self.over + 1 if over and not idle else 0
        rate = max(SLOW, 1.0 / (self.windows + 1.0))
        self.mean += (self.now - self.mean) * rate
        self.mean *= (1.0 - SLOW) ** min(idle, 1000)
        if not over or self.over >= ACCEPT_WINDOWS:
            self.peak = max(self.now, self.peak * PEAK_DECAY ** min(idle + 1, 1000))
            usual = max(self.peak * PEAK_FACTOR, self.mean + SIGMAS * sqrt(self.mean + 1.0))
            settled = self.windows >= 12 or self.over  # two minutes
            self.limit = int(max(self.floor if settled else self.floor * 4, usual))
        self.windows += 1 + min(idle, 1000)
        self.now = 0
        self.window_end += WINDOW_S * (idle + 1)

    def _learn_gap(self, gap_s: float) -> None:
        if self.beating and gap_s > MISSED * self.gap_s:
            return  # the silence itself is no period
        share = max(0.1, 1.0 / (self.gaps + 1.0))
        self.gap_s += (gap_s - self.gap_s) * share
        self.jitter_s += (abs(gap_s - self.gap_s) - self.jitter_s) * share
        self.gaps += 1
        self.beating = (
            self.gaps >= GAPS_MIN
            and PERIOD_MIN_S <= self.gap_s <= PERIOD_MAX_S
            and self.jitter_s <= JITTER_MAX * self.gap_s
        )

    def state(self) -> list[Any]:
        """What is worth keeping over a restart."""
        return [self.weight, self.priority, self.first_t, self.windows, self.mean, self.peak, self.limit]

    @classmethod
    def resume(cls, state: Sequence[float], t: float) -> Watch:
        """The watch of a saved state."""
        weight, priority, first_t, windows, mean, peak, limit = state
        watch = cls(t, weight, int(priority))
        watch.first_t = min(first_t, t)
        watch.windows = int(windows)
        watch.mean, watch.peak, watch.limit = mean, peak, max(1, int(limit))
        return watch
