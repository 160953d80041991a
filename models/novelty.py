"""How new the latest values of one series are, compared with everything that the series did before.

Three causal views are added: how far the last two and three values lie from the nearest earlier pair and
triple, how far the last value lies beyond the range so far, and how far a short trailing mean lies from where
such means were before. All are relative to the range so far, so that no scale has to be set. Offline; needs
numpy. Knows nothing about what the series measures.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

MEMORY_ROWS = 8192  # earlier values a new one is compared with; 0.4 s for 4,000 rows
HALF_LIFE_ROWS = 3.0
BEYOND, SMOOTH = 1.5, 0.5  # weights of the range and of the trailing mean; the plateau is wide, see LOG.md
CALM_ROWS = 45.0  # an alarm's height halves every so many rows for those that come after it
_FAR = 5.0


def novelty(values: Any) -> Any:
    """Scores, (rows,) float64, 0 for what was there before; each from its own and earlier rows only.

    `values` is (rows,); what is not finite repeats the last finite value.
    """
    np = import_module("numpy")  # here: the resident stages import models and must not load numpy

    series = _finite(np, np.asarray(values, dtype=np.float64).reshape(-1))
    if len(series) < 2:
        return np.zeros(len(series))
    means = _trailing(np, series)
    low, high = _range(np, series)
    nearest = (_nearest(np, series, 2) + _nearest(np, series, 3, widest=True)) / 2.0
    beyond = np.maximum(np.maximum(series - high, low - series), 0.0)
    now = np.maximum(np.maximum(high, series) - np.minimum(low, series), 1e-9)
    before = np.maximum(high - low, 1e-12)
    smooth_low, smooth_high = _range(np, means)
    span = np.maximum(np.maximum(smooth_high, means) - np.minimum(smooth_low, means), 1e-9)
    far = np.clip(beyond / before, 0.0, _FAR)
    return nearest / now + BEYOND * far + SMOOTH * _nearest(np, means, 2) / span


def alarms(scores: Any) -> Any:
    """Only the scores that rise above what was alarming a while ago, the others as 0: one alarm an event."""
    np = import_module("numpy")

    kept = np.zeros(len(scores))
    height, keep = 0.0, 0.5 ** (1.0 / CALM_ROWS)
    for row, score in enumerate(np.asarray(scores, dtype=np.float64).tolist()):
        kept[row] = score if score > height else 0.0
        height = max(height * keep, score)
    return kept


def _finite(np: Any, series: Any) -> Any:
    known = np.where(np.isfinite(series), np.arange(len(series)), 0)
    return np.nan_to_num(series[np.maximum.accumulate(known)])


def _range(np: Any, series: Any) -> tuple[Any, Any]:
    """Lowest and highest value before each row; the first row is compared with itself."""
    low, high = np.minimum.accumulate(series), np.maximum.accumulate(series)
    return np.concatenate([series[:1], low[:-1]]), np.concatenate([series[:1], high[:-1]])


def _nearest(np: Any, series: Any, width: int, *, widest: bool = False) -> Any:
    """Distance of the last `width` values to the nearest such window that ended before they began."""
    windows = np.lib.stride_tricks.sliding_window_view(series, width)  # (rows - width + 1, width)
    found = np.zeros(len(series))
    for row in range(2 * width, len(series)):
        start = row - width + 1
        apart = np.abs(windows[max(0, start - width + 1 - MEMORY_ROWS) : start - width + 1] - windows[start])
        found[row] = apart.max(axis=1).min() if widest else np.sqrt((apart * apart).mean(axis=1).min())
    return found


def _trailing(np: Any, series: Any) -> Any:
    means, gain = np.empty(len(series)), 1.0 - 0.5 ** (1.0 / HALF_LIFE_ROWS)
    mean = float(series[0])
    for row, value in enumerate(series.tolist()):
        mean += gain * (value - mean)
        means[row] = mean
    return means
