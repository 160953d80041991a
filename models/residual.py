"""How far a row of metrics lies from how these metrics usually move together.

The score is a regularised Mahalanobis distance: with the identity added to the covariance of the
standardised metrics (a ridge; Friedman 1989), directions that hardly ever move count about as plain z-scores
and correlated ones are not counted twice. `CovarianceScorer` streams in pure Python; `score_rows` does the
same, and a principal component residual, offline with numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import sqrt
from operator import mul
from typing import TYPE_CHECKING, Any

from models.novelty import novelty

if TYPE_CHECKING:
    from collections.abc import Iterator

RIDGE = 1.0
HORIZON_ROWS = 1800  # half an hour at 1 Hz
REFACTOR_ROWS = 120  # the factor costs 2 ms for 40 metrics; the covariance hardly changes in two minutes


class CovarianceScorer:
    """Scores standardised rows against the covariance of the rows before; about 0.1 ms a row of 40."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.seen = 0
        self._lower: list[list[float]] = [[0.0] * (i + 1) for i in range(width)]
        self._factor: list[list[float]] = [[0.0] * i for i in range(width)]
        self._pivots: list[float] = [1.0] * width  # 1 / diagonal of the factor of the identity

    def score(self, row: Sequence[float]) -> float:
        """The squared distance of a row; a row that is usual in every way scores below its width."""
        solved = self._forward(row)
        return float(sum(map(mul, solved, solved)))

    def shares(self, row: Sequence[float]) -> list[float]:
        """How much each metric contributes to the score; the shares add up to it (some may be negative)."""
        solved = self._forward(row)
        for i in range(self.width - 1, -1, -1):
            solved[i] *= self._pivots[i]
            factor, known = self._factor[i], solved[i]
            for j in range(i):
                solved[j] -= factor[j] * known
        return [value * weight for value, weight in zip(row, solved, strict=True)]

    def learn(self, row: Sequence[float], score: float) -> None:
        """Let the covariance take in a row with its `score`; the stranger it was, the less it counts."""
        self.seen += 1
        gain = max(1.0 / self.seen, 1.0 / HORIZON_ROWS)
        if score > 2.0 * self.width:
            gain *= 2.0 * self.width / score
        keep = 1.0 - gain
        for i, value in enumerate(row):
            weight = gain * value
            lower = self._lower[i]
            if weight:
                self._lower[i] = [keep * old + weight * other for old, other in zip(lower, row, strict=False)]
            else:
                self._lower[i] = [keep * old for old in lower]
        if self.seen % REFACTOR_ROWS == 0 or self.seen in {15, 30, 60}:
            self._refactor()

    def _forward(self, row: Sequence[float]) -> list[float]:
        solved: list[float] = []
        for value, factor, pivot in zip(row, self._factor, self._pivots, strict=True):
            solved.append((value - sum(map(mul, factor, solved))) * pivot)
        return solved

    def _refactor(self) -> None:
        """Cholesky factor of covariance + RIDGE * identity."""
        factor: list[list[float]] = []
        pivots: list[float] = []
        for i, lower in enumerate(self._lower):
            row: list[float] = []
            for j in range(i):
                row.append((lower[j] - sum(map(mul, row, factor[j]))) * pivots[j])
            factor.append(row)
            # The ridge keeps this positive; rounding cannot take away a whole 1.
            pivots.append(1.0 / sqrt(max(RIDGE / 2, lower[i] + RIDGE - sum(map(mul, row, row)))))
        self._factor, self._pivots = factor, pivots

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {"width": self.width, "seen": self.seen, "lower": self._lower}

    def resume(self, state: dict[str, Any]) -> bool:
        """Take up a saved state; False (and nothing changed) if it does not fit."""
        lower = state.get("lower")
        if state.get("width") != self.width or not isinstance(lower, list) or len(lower) != self.width:
            return False
        if any(len(row) != i + 1 for i, row in enumerate(lower)):
            return False
        self._lower = [[float(value) for value in row] for row in lower]
        self.seen = int(state.get("seen", 0))
        self._refactor()
        return True


# --- offline --------------------------------------------------------------------------------------------

_HALF_LIFE_ROWS = 8  # an anomaly of a host lasts minutes, SMD's rows are minutes
_FEW, _FEW_HALF_LIFE_ROWS = 3, 24.0  # on NAB half-lives of 8 and 24 rows gave an AUC-PR of .37 and .42
_CLIP = 15.0
_KEPT_VARIANCE = 0.9
_REFERENCES = 3000  # rows to be near to
_BLOCK_ROWS = 1024


def score_rows(train: Any, test: Any) -> Any:
    """Scores, (test rows,) float64, higher is stranger; from unlabelled `train` and earlier rows of `test`.

    `train` and `test` are (rows, metrics) arrays; a single series may be one-dimensional. Needs numpy.
    """
    np = import_module("numpy")  # here: the resident stages import this module and must not load numpy

    known = np.asarray(train, dtype=np.float64).reshape(len(train), -1)
    asked = np.asarray(test, dtype=np.float64).reshape(len(test), -1)
    if known.shape[1] <= _FEW:  # too few metrics to explain each other: their own past must do it
        return _few(np, np.vstack([known, asked]))[len(known) :]
    usual, rows = _standardise(np, known, asked)
    # Each sees what the others miss: a spread, a subspace, and several ways of being usual.
    strange = _distances(np, usual, rows) + _residuals(np, usual, rows) + _neighbours(np, usual, rows)
    return _trailing(np, strange)


def _few(np: Any, rows: Any) -> Any:
    """Each series compared with its own past; an anomaly lasts longer than the row that shows it first."""
    return sum(_trailing(np, novelty(column), _FEW_HALF_LIFE_ROWS) for column in rows.T)


def _standardise(np: Any, known: Any, asked: Any) -> tuple[Any, Any]:
    known, asked = np.nan_to_num(known), np.nan_to_num(asked)
    middle = np.median(known, axis=0)
    low, high = known.min(axis=0), known.max(axis=0)
    # A hundredth of a ratio's or else of the seen range: smaller changes are noise of the reading.
    ratio = ((low >= 0.0) & (high <= 1.0)) | (low == high)
    scale = np.maximum(known.std(axis=0), 0.01 * np.where(ratio, 1.0, high - low))
    return (np.clip((x - middle) / scale, -_CLIP, _CLIP) for x in (known, asked))  # type: ignore[return-value]


def _distances(np: Any, usual: Any, rows: Any) -> Any:
    covariance = np.atleast_2d(np.cov(usual.T)) + RIDGE * np.eye(usual.shape[1])
    inverse, middle = np.linalg.inv(covariance), usual.mean(axis=0)
    near, far = (np.einsum("ij,jk,ik->i", x - middle, inverse, x - middle) for x in (usual, rows))
    return far / max(float(np.quantile(near, 0.99)), 1e-9)


def _residuals(np: Any, usual: Any, rows: Any) -> Any:
    """What the principal components that carry _KEPT_VARIANCE leave over."""
    middle = usual.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(usual.T)))
    carried = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-12)
    axes = vectors[:, ::-1][:, : int(np.searchsorted(carried, _KEPT_VARIANCE)) + 1]
    near, far = ((((x - middle) - (x - middle) @ axes @ axes.T) ** 2).sum(axis=1) for x in (usual, rows))
    return far / max(float(np.quantile(near, 0.99)), 1e-9)


def _neighbours(np: Any, usual: Any, rows: Any) -> Any:
    """Squared distance to the fifth nearest of a sample of the rows before."""
    sample = usual[:: max(1, len(usual) // _REFERENCES)]
    others = usual[len(usual) % 7 :: max(1, 2 * len(usual) // _REFERENCES)]
    near = _fifth(np, sample, others, skip=1)  # a row of the sample is its own nearest neighbour
    return _fifth(np, sample, rows) / max(float(np.quantile(near, 0.99)), 1e-9)


def _fifth(np: Any, sample: Any, rows: Any, skip: int = 0) -> Any:
    nearest = min(4 + skip, len(sample) - 1)
    lengths = (sample * sample).sum(axis=1)
    found = np.empty(len(rows))
    for at in range(0, len(rows), _BLOCK_ROWS):
        block = rows[at : at + _BLOCK_ROWS]
        apart = (block * block).sum(axis=1)[:, None] + lengths - 2.0 * block @ sample.T  # (block, sample)
        found[at : at + len(block)] = np.partition(apart, nearest, axis=1)[:, nearest]
    return np.maximum(found, 0.0)


def _trailing(np: Any, values: Any, half_life: float = _HALF_LIFE_ROWS) -> Any:
    return np.fromiter(_means(values.tolist(), 1.0 - 0.5 ** (1.0 / half_life)), np.float64, len(values))


def _means(values: list[float], gain: float) -> Iterator[float]:
    mean = values[0] if values else 0.0
    for value in values:
        mean += gain * (value - mean)
        yield mean
