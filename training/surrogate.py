"""What to try next: Bayesian optimisation by the package bayesian-optimization, and what its model believes.

A Gaussian process with a Matern kernel 5/2 over all trials so far. Stateless, so that a search goes on from
its log: the same trials and seed give the same proposal.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bayes_opt import BayesianOptimization

# Variance of a trial's luck, as a share of that of all targets. Of the settings tried on ten surfaces that no
# test has, this one came nearest to the optimum (see LOG.md).
_NOISE = 0.05

Point = Mapping[str, float]
Bounds = Mapping[str, tuple[float, float]]


def propose(
    bounds: Bounds, points: Sequence[Point], targets: Sequence[float], *, seed: int
) -> dict[str, float]:
    """The most promising point where trials are exact: the upper confidence bound, as the package has it."""
    return _suggested(_model(bounds, seed), points, targets)


def propose_noisy(
    names: Sequence[str], points: Sequence[Point], targets: Sequence[float], *, seed: int
) -> dict[str, float]:
    """The most promising point of the unit cube where each trial is noisy."""
    return _suggested(_noisy(names, seed), points, targets)


def believed(names: Sequence[str], points: Sequence[Point], targets: Sequence[float]) -> list[float]:
    """What the noisy model believes of the points that were tried: their targets without the luck."""
    process: Any = _noisy(names, 0)._gp  # noqa: SLF001 - the package shows no other way to its beliefs
    table = np.array([[point[name] for name in names] for point in points])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process.fit(table, np.array(targets))
        return [float(one) for one in process.predict(table)]


def _model(bounds: Bounds, seed: int) -> Any:
    return BayesianOptimization(
        f=None, pbounds=dict(bounds), random_state=seed, verbose=0, allow_duplicate_points=True
    )


def _noisy(names: Sequence[str], seed: int) -> Any:
    model = _model(dict.fromkeys(names, (0.0, 1.0)), seed)
    model.set_gp_params(alpha=_NOISE)
    return model


def _suggested(model: Any, points: Sequence[Point], targets: Sequence[float]) -> dict[str, float]:
    for point, target in zip(points, targets, strict=True):
        model.register(params=dict(point), target=target)
    return {name: float(value) for name, value in model.suggest().items()}
