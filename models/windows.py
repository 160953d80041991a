"""Windows over one metric: where it was a moment ago, how fast it moves and when it will arrive.

Knows nothing about what a metric means; times are seconds of observation time.
"""

from __future__ import annotations

from collections import deque

POINTS = 24  # 24 points give Theil-Sen 276 pairs: about 30 microseconds, and only for what is moving


class Trend:
    """The recent course of one value, thinned to at most POINTS points over `span_s` seconds."""

    __slots__ = ("_points", "_span_s")

    def __init__(self, span_s: float = 30.0) -> None:
        self._span_s = span_s
        self._points: deque[tuple[float, float]] = deque(maxlen=POINTS)

    def add(self, t: float, value: float) -> None:
        """Take the value at `t`; the newest point always stays, older ones at least span/POINTS apart."""
        points = self._points
        if len(points) >= 2 and t - points[-2][0] < self._span_s / POINTS:
            points.pop()
        points.append((t, value))
        while points[0][0] < t - self._span_s:
            points.popleft()

    def rise(self, within_s: float) -> float:
        """The newest value minus the lowest of the last `within_s` seconds."""
        if not self._points:
            return 0.0
        last_t, last = self._points[-1]
        return last - min(value for t, value in self._points if t >= last_t - within_s)

    def lowest(self, since_t: float) -> float | None:
        """The lowest value since then, None if there was none."""
        return min((value for t, value in self._points if t >= since_t), default=None)

    def before(self, age_s: float) -> float | None:
        """The value about `age_s` seconds before the newest one, None if the window is shorter."""
        if not self._points or self._points[-1][0] - self._points[0][0] < age_s:
            return None
        limit = self._points[-1][0] - age_s
        return next(value for t, value in reversed(self._points) if t <= limit)

    def slope(self) -> float:
        """Median of the slopes between all pairs (Theil 1950, Sen 1968), 0 with fewer than four points."""
        points = list(self._points)
        if len(points) < 4:
            return 0.0
        pairs = ((one, two) for i, one in enumerate(points) for two in points[i + 1 :])
        slopes = sorted((b - a) / (tb - ta) for (ta, a), (tb, b) in pairs if tb > ta)
        middle = len(slopes) // 2
        if len(slopes) % 2:
            return slopes[middle]
        return (slopes[middle - 1] + slopes[middle]) / 2 if slopes else 0.0

    def reaches(self, level: float) -> float | None:
        """Seconds until the newest value arrives at `level` if it keeps its pace, None if it does not."""
        if not self._points:
            return None
        slope, distance = self.slope(), level - self._points[-1][1]
        return distance / slope if slope * distance > 0 else None
