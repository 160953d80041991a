"""Which parameters are tried next, and which of the tried ones are recommended.

Three engines: `bayes` (bayesian-optimization), `optuna` (its TPE) and `random`, the control. Each is a
function of the trials so far, so that a search goes on from its log. Knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, get_args

import numpy as np

from training.workshop.tuning.settings import Engine
from training.workshop.tuning.space import Params, Space

Trials = Sequence[Mapping[str, Any]]  # params, target


def suggest(engine: Engine, space: Space, trials: Trials, *, init_points: int, seed: int) -> Params:
    """The next parameters: random ones first, the same for every engine, then the engine's own."""
    if len(trials) < init_points or engine == "random":
        draw = np.random.default_rng([seed, len(trials)])
        return space.params_at({name: float(draw.random()) for name in space.dimensions})
    return _ENGINES[engine](space, trials, seed * 100_003 + len(trials))


def recommend(engine: Engine, space: Space, trials: Trials, *, init_points: int) -> Mapping[str, Any]:
    """The best trial, its `target` the mean of all trials of these parameters.

    For `bayes` the best is what its model believes in, since the highest target may be luck.
    """
    told = [repr(one["params"]) for one in trials]
    means = [
        fmean(one["target"] for one, said in zip(trials, told, strict=True) if said == mine) for mine in told
    ]
    worth = means
    if engine == "bayes" and len(trials) > init_points:
        from training.surrogate import believed  # noqa: PLC0415 - heavy

        points = [space.point_of(one["params"]) for one in trials]
        worth = believed(space.dimensions, points, [float(one["target"]) for one in trials])
    best = worth.index(max(worth))
    return {**trials[best], "target": round(means[best], 6)}


def _bayes(space: Space, trials: Trials, seed: int) -> Params:
    from training.surrogate import propose_noisy  # noqa: PLC0415 - heavy

    points = [space.point_of(one["params"]) for one in trials]
    targets = [float(one["target"]) for one in trials]
    return space.params_at(propose_noisy(space.dimensions, points, targets, seed=seed % 2**31))


def _optuna(space: Space, trials: Trials, seed: int) -> Params:
    import optuna  # noqa: PLC0415 - heavy, and only for this engine

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {one.name: _distribution(one, optuna.distributions) for one in space.parameters}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**31, n_startup_trials=1)
    )
    for one in trials:
        study.add_trial(
            optuna.trial.create_trial(params=dict(one["params"]), distributions=kinds, value=one["target"])
        )
    found = study.ask(kinds).params
    # Optuna's numbers have all their digits; what is kept is what was sent.
    return space.params_at(space.point_of(found))


def _distribution(one: Any, kinds: Any) -> Any:
    if one.kind == "choice":
        return kinds.CategoricalDistribution(one.values)
    if one.kind == "int":
        return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
    return kinds.FloatDistribution(one.low, one.high, log=one.log)


_ENGINES: dict[str, Callable[[Space, Trials, int], Params]] = {"bayes": _bayes, "optuna": _optuna}
assert {*_ENGINES, "random"} == set(get_args(Engine))
