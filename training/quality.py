"""Quality figures of scores against labels, each with optional row weights, so that a bootstrap is cheap.

Arrays are numpy; a figure that its data cannot give (no positive row, no row at all) is NaN. Knows nothing of
tasks, files or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CURVE_POINTS = 200
CALIBRATION_BINS = 10


class Ranking:
    """Scores sorted once, so that average precision under many weightings costs a few sums each."""

    def __init__(self, labels: Array, scores: Array) -> None:
        order = np.argsort(-scores, kind="stable")
        self._order = order
        self._positive = np.asarray(labels, dtype=bool)[order].astype(np.float64)
        ordered = np.asarray(scores, dtype=np.float64)[order]
        self._last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def curve(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Precision and recall after each distinct score, from the highest down."""
        kept = np.ones(len(self._order)) if weights is None else weights[self._order]
        hits = np.cumsum(self._positive * kept)[self._last]
        said = np.cumsum(kept)[self._last]
        total = hits[-1] if len(hits) else 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(said > 0, hits / said, 1.0), hits / total

    def average_precision(self, weights: Array | None = None) -> float:
        """Area under precision and recall as a step function (no interpolation, as in scikit-learn)."""
        precision, recall = self.curve(weights)
        if not len(recall) or not np.isfinite(recall[-1]):
            return float("nan")
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precision(labels: Array, scores: Array) -> float:
    """The AUC-PR of one ranking."""
    return Ranking(np.asarray(labels), np.asarray(scores)).average_precision()


def confusion(truth: Array, guess: Array, classes: int, weights: Array | None = None) -> Array:
    """Weights of rows by true class (row) and guessed class (column): (classes, classes) float64."""
    cells = np.bincount(truth * classes + guess, weights=weights, minlength=classes * classes)
    return cells.astype(np.float64).reshape(classes, classes)


def macro_f1(table: Array) -> float:
    """Mean F1 over the classes that occur as truth or as guess, from a confusion table."""
    sums = table.sum(axis=0) + table.sum(axis=1)
    there = sums > 0
    return float(np.mean(2.0 * np.diag(table)[there] / sums[there])) if there.any() else float("nan")


def accuracy(table: Array) -> float:
    """The share of the diagonal of a confusion table."""
    total = table.sum()
    return float(np.trace(table) / total) if total else float("nan")


def grouped_right(truth: Sequence[Hashable], found: Sequence[Hashable]) -> Array:
    """Whether each line's group holds just its true group's lines (Zhu et al. 2019): (lines,) bool."""
    true_size, found_size = Counter(truth), Counter(found)
    shared = Counter(zip(truth, found, strict=True))
    return np.array(
        [shared[t, f] == true_size[t] == found_size[f] for t, f in zip(truth, found, strict=True)], dtype=bool
    )


def calibration(labels: Array, probabilities: Array) -> dict[str, Any]:
    """Stated probability against observed share in equally wide bins, and the expected calibration error."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.float64)
    stated = np.bincount(bins, weights=probabilities, minlength=CALIBRATION_BINS)
    seen = np.bincount(bins, weights=labels.astype(np.float64), minlength=CALIBRATION_BINS)
    used = counts > 0
    error = np.abs(stated[used] - seen[used]).sum() / max(1.0, counts.sum())
    return {
        "stated": (stated[used] / counts[used]).round(4).tolist(),
        "observed": (seen[used] / counts[used]).round(4).tolist(),
        "count": counts[used].astype(int).tolist(),
        "error": round(float(error), 4),
    }


def precision_recall(labels: Array, scores: Array) -> dict[str, list[float]]:
    """The curve thinned to at most CURVE_POINTS points."""
    precision, recall = Ranking(labels, scores).curve()
    if not len(recall) or not np.isfinite(recall[-1]):
        return {"precision": [], "recall": []}
    chosen = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
    return {"precision": precision[chosen].round(4).tolist(), "recall": recall[chosen].round(4).tolist()}
