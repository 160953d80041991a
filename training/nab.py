"""The standard score of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, profile "standard").

A detection counts by its place in the labelled window, the first of each window only; what lies outside costs
up to a ninth of a hit, a missed window a whole one. One threshold serves all series, the best there is, as in
the original; 0 is what a detector that never speaks gets, 100 the best possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from typing import NamedTuple

FALSE_ALARM, MISS = 0.11, 1.0
PROBATION_SHARE, PROBATION_ROWS_MAX = 0.15, 750


class Point(NamedTuple):
    """One row after the probation: its score, its window (None outside) and what a detection is worth."""

    score: float
    window: tuple[str, int] | None
    worth: float


def standard_score(series: Mapping[str, tuple[Sequence[float], Sequence[int]]]) -> float:
    """The score, at most 100, of named series: (scores, labels), a label of 1 inside a window.

    Raises ValueError when no series has a window.
    """
    points = [point for name, (scores, labels) in series.items() for point in _points(name, scores, labels)]
    windows = sum(len(windows_of(labels)) for _, labels in series.values())
    if not windows:
        raise ValueError("no series has a labelled window")
    return 100.0 * (_best(points, windows) + MISS * windows) / ((1.0 + MISS) * windows)


def windows_of(labels: Sequence[int]) -> list[tuple[int, int]]:
    """First and last row of each stretch of labels that are not 0."""
    found: list[tuple[int, int]] = []
    for row, label in enumerate(labels):
        if label and (row == 0 or not labels[row - 1]):
            found.append((row, row))
        elif label:
            found[-1] = (found[-1][0], row)
    return found


def probation(rows: int) -> int:
    """How many rows at the start of a series are not judged."""
    return min(int(PROBATION_SHARE * rows), PROBATION_ROWS_MAX)


def _points(name: str, scores: Sequence[float], labels: Sequence[int]) -> Iterator[Point]:
    windows = windows_of(labels)
    number = -1  # of the last window that has begun
    for row in range(len(labels)):
        if number + 1 < len(windows) and row >= windows[number + 1][0]:
            number += 1
        if row < probation(len(labels)):
            continue
        if number < 0:
            yield Point(float(scores[row]), None, -1.0)
            continue
        first, last = windows[number]
        if row <= last:
            yield Point(float(scores[row]), (name, number), _worth((row - last - 1) / (last - first + 1)))
        else:
            yield Point(float(scores[row]), None, _worth((row - last) / max(1, last - first)))


def _worth(place: float) -> float:
    """From nearly 1 at the start of a window (-1) through 0 at its end to -1 far behind it."""
    return -1.0 if place > 3.0 else 2.0 / (1.0 + exp(5.0 * place)) - 1.0


def _best(points: Sequence[Point], windows: int) -> float:
    """The best raw score over all thresholds, from above the highest score downwards."""
    total = best = -MISS * windows
    hits: dict[tuple[str, int], float] = {}
    ordered = sorted(points, key=lambda point: -point.score)
    for at, point in enumerate(ordered):
        if point.window is None:
            total += FALSE_ALARM * point.worth
        elif point.window not in hits:
            total += point.worth + MISS
            hits[point.window] = point.worth
        elif point.worth > hits[point.window]:
            total += point.worth - hits[point.window]
            hits[point.window] = point.worth
        if at + 1 == len(ordered) or ordered[at + 1].score < point.score:
            best = max(best, total)
    return best
