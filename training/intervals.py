"""Intervals of a figure by the bootstrap: whole groups are drawn, since rows of one group are alike.

Percentile intervals at 95 % (Efron 1979; for clustered data Davison and Hinkley 1997, section 3.8). A figure
is a function of row weights: a group drawn three times counts three times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
GROUPS_LEAST = 8  # with fewer groups their resampling says little; rows are drawn instead, and that is said
SHARE = 0.95


class Interval(NamedTuple):
    """Bounds of a figure, NaN where no resample gave one."""

    low: float
    high: float


def number(groups: Sequence[Hashable]) -> Array:
    """Groups as 0, 1, 2, ... in order of first appearance: (rows,) int64."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(one, len(seen)) for one in groups), np.int64, len(groups))


def drawn_by(groups: Array) -> str:
    """What a resample draws of these groups: "group", or "row" where there are too few groups."""
    return "group" if len(groups) and int(groups.max()) + 1 >= GROUPS_LEAST else "row"


def intervals(
    figures: dict[str, Callable[[Array], float]], groups: Array, *, rounds: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The interval of each figure, all from the same resamples.

    Args:
        figures: by name, each a function of row weights `(rows,) float64`.
        groups: the number of each row's group, as `number` gives it.
        rounds: resamples.
        seed: the same seed gives the same intervals.
    """
    source = np.random.default_rng(seed)
    units = groups if drawn_by(groups) == "group" else np.arange(len(groups))
    count = int(units.max()) + 1 if len(units) else 0
    found: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(rounds if count else 0):
        weights = np.bincount(source.integers(0, count, count), minlength=count).astype(np.float64)[units]
        for name, figure in figures.items():
            found[name].append(figure(weights))
    return {name: _bounds(values) for name, values in found.items()}


def _bounds(values: list[float]) -> Interval:
    known = np.asarray([value for value in values if np.isfinite(value)])
    if not len(known):
        return Interval(float("nan"), float("nan"))
    tail = (1.0 - SHARE) / 2.0
    return Interval(float(np.quantile(known, tail)), float(np.quantile(known, 1.0 - tail)))


def flat(bounds: dict[str, Interval]) -> dict[str, float]:
    """`NAME_low` and `NAME_high` for each interval that there is."""
    pairs = ((name, one) for name, one in bounds.items() if np.isfinite(one.low))
    return {f"{name}_{end}": value for name, one in pairs for end, value in one._asdict().items()}
