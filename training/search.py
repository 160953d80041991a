"""Search: cuts of one model tried out, for the best trades of quality against milliseconds and bytes.

There is no best model, only those that none beats in all three: the Pareto front. Each trial cuts layers,
feed-forward width and single weights, recovers for a few steps, chooses the bits, and is measured as it would
be served. Which cut comes next is suggested by Bayesian optimisation of the three goals under random weights,
drawn anew for each trial, so that the trials spread along the front (ParEGO, Knowles 2006). Every trial is
written down at once in `trials.jsonl`; a search that was cut short goes on from there.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from daemon.errors import ConfigError
from training import measure, served, structure
from training.export import to_onnx
from training.folder import load_folder
from training.prune import prune_folder
from training.quantize import quantize_onnx
from training.surrogate import propose
from training.trials import append, open_log

LOG, FRONT = "trials.jsonl", "front.json"
FREE_STEP = 32  # inner neurons are cut in whole vectors of the processor
AUGMENT = 0.05  # how much the sum counts beside the worst goal; Knowles's rho
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Cut:
    """A point of the space: how many layers and inner neurons stay, the share of zeros, bits a weight."""

    layers: int
    feed_forward: int
    amount: float
    bits: int


@dataclass(frozen=True)
class Space:
    """What may be tried: from the smallest cut to the model as it is."""

    layers: tuple[int, int]
    feed_forward: tuple[int, int]
    amount: tuple[float, float]

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The optimiser's bounds; `bits` below a half are 8, above 32."""
        return {
            "layers": (float(self.layers[0]), float(self.layers[1])),
            "feed_forward": (float(self.feed_forward[0]), float(self.feed_forward[1])),
            "amount": self.amount,
            "bits": (0.0, 1.0),
        }

    def cut_at(self, point: Mapping[str, float]) -> Cut:
        """The nearest cut that can be made."""
        width = FREE_STEP * round(point["feed_forward"] / FREE_STEP)
        low, high = self.feed_forward
        return Cut(
            layers=round(point["layers"]),
            feed_forward=max(low, min(high, width)),
            amount=round(max(0.0, point["amount"]), 2),
            bits=8 if point["bits"] < 0.5 else 32,
        )


def point_of(cut: Cut) -> dict[str, float]:
    """Where the optimiser has a cut."""
    return {
        "layers": float(cut.layers),
        "feed_forward": float(cut.feed_forward),
        "amount": cut.amount,
        "bits": 0.25 if cut.bits == 8 else 0.75,
    }


def pareto(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that no other one beats or equals in quality, milliseconds and bytes at once; best first."""
    goals = [(-one["quality"], one["latency_ms"], one["bytes"]) for one in trials]
    kept = [
        number
        for number, mine in enumerate(goals)
        if not any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or at < number)
            for at, other in enumerate(goals)
            if at != number
        )
    ]
    return sorted((trials[number] for number in kept), key=lambda one: (-one["quality"], one["latency_ms"]))


def suggest(space: Space, trials: Sequence[Mapping[str, Any]], *, init_points: int, seed: int) -> Cut:
    """The next cut: the whole model at 8 bits, then random ones, then the optimiser's; none twice."""
    tried = {Cut(**one["cut"]) for one in trials}
    draw = np.random.default_rng([seed, len(trials)])
    whole = Cut(space.layers[1], space.feed_forward[1], 0.0, 8)
    if whole not in tried:
        return whole
    if len(trials) > init_points:
        found = space.cut_at(_optimise(space, trials, draw))
        if found not in tried:
            return found
    for _ in range(1000):
        found = space.cut_at({name: draw.uniform(*bounds) for name, bounds in space.bounds().items()})
        if found not in tried:
            return found
    raise ConfigError(f"all of this space was tried ({len(tried)} cuts)", hint="widen the bounds")


def _optimise(
    space: Space, trials: Sequence[Mapping[str, Any]], draw: np.random.Generator
) -> dict[str, float]:
    points = [point_of(Cut(**one["cut"])) for one in trials]
    targets = weighed(trials, draw.dirichlet(np.ones(3)))
    return propose(space.bounds(), points, targets, seed=int(draw.integers(2**31)))


def weighed(trials: Sequence[Mapping[str, Any]], weights: Any) -> list[float]:
    """One figure for each trial, higher is better: the augmented Chebyshev distance under these weights."""
    goals = np.array(
        [[one["quality"], -math.log(one["latency_ms"]), -math.log(one["bytes"])] for one in trials]
    )
    spread = np.maximum(goals.max(0) - goals.min(0), 1e-9)
    parts = weights * (goals.max(0) - goals) / spread  # (trials, 3), 0 is best
    return [-float(one) for one in parts.max(1) + AUGMENT * parts.sum(1)]


def search_folder(
    model: Path,
    out: Path,
    *,
    data: Path,
    trials: int = 20,
    minutes: float = 0.0,
    init_points: int = 5,
    layers_least: int = 1,
    feed_forward_least: int = 0,
    amount_most: float = 0.5,
    max_steps: int = 100,
    batch: int = 32,
    learning_rate: float = 2e-4,
    rows: int = 500,
    rounds: int = 100,
    seed: int = 0,
    resume: bool = False,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Try cuts of a trained model's folder until `trials` are done or `minutes` over; `front` has the best.

    Quality is macro-F1 (for a generator the logarithm of perplexity, negated) on at most `rows` of the split
    val; each cut recovers for `max_steps`. Raises ConfigError where `out` holds another search.
    """
    loaded, _, card = load_folder(model)
    width = structure.feed_forward_width(loaded)
    space = Space(
        layers=(layers_least, structure.layer_count(loaded)),
        feed_forward=(feed_forward_least or max(FREE_STEP, width // 8), width),
        amount=(0.0, amount_most),
    )
    out.mkdir(parents=True, exist_ok=True)
    head = {"model": str(model), "space": asdict(space), "max_steps": max_steps, "rows": rows}
    done = open_log(out / LOG, head, resume=resume)
    judged = served.read_rows(data, card["tier"], "val", rows)
    if not judged:
        raise ConfigError(f"{data} has no rows of split val to judge by")
    recovery = {"max_steps": max_steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    deadline = time.monotonic() + 60.0 * minutes if minutes else math.inf
    while len(done) < trials and time.monotonic() < deadline:
        cut, began = suggest(space, done, init_points=init_points, seed=seed), time.monotonic()
        found = try_cut(model, cut, data, judged, space=space, recovery=recovery, rounds=rounds)
        one = {
            "trial": len(done) + 1,
            "cut": asdict(cut),
            **found,
            "seconds": round(time.monotonic() - began, 1),
        }
        done.append(one)
        append(out / LOG, one)
        tell(_line(one, trials))
    result = {"trials": len(done), "front": pareto(done)}
    (out / FRONT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def try_cut(
    model: Path,
    cut: Cut,
    data: Path,
    judged: Sequence[Any],
    *,
    space: Space,
    recovery: Mapping[str, Any],
    rounds: int,
) -> dict[str, Any]:
    """Make one cut and measure what would be served: quality, milliseconds, bytes."""
    with tempfile.TemporaryDirectory(prefix="hauswart-search-") as work:
        folder = model
        smaller = cut.layers < space.layers[1] or cut.feed_forward < space.feed_forward[1]
        if smaller or cut.amount:
            folder = Path(work) / "cut"
            prune_folder(
                model,
                folder,
                data=data,
                layers=cut.layers if cut.layers < space.layers[1] else 0,
                feed_forward=cut.feed_forward if cut.feed_forward < space.feed_forward[1] else 0,
                amount=cut.amount,
                measured=False,
                **(recovery if smaller else {}),
            )
        made, tokenizer, card = load_folder(folder)
        path = to_onnx(made, Path(work) / "model.onnx")
        if cut.bits == 8:
            quantize_onnx(path, path.with_suffix(".int8.onnx"))
            path = path.with_suffix(".int8.onnx")
        figures = served.judge_graph(path, tokenizer, card, judged)
        cost = measure.costs([path], sequence=int(card["sequence"]), rounds=rounds)[0]
    quality = figures["macro_f1"] if "macro_f1" in figures else -figures["loss"]
    parameters = sum(one.numel() for one in made.parameters())
    return {"quality": quality, **cost, "parameters": parameters, "figures": figures}


def _line(one: Mapping[str, Any], trials: int) -> str:
    cut = one["cut"]
    return (
        f"trial {one['trial']} of {trials}: {cut['layers']} layers, width {cut['feed_forward']}, "
        f"{cut['amount']:.0%} zeros, {cut['bits']} bits: quality {one['quality']:.4f}, "
        f"{one['latency_ms']:.3f} ms, {one['bytes']:,} bytes in {one['seconds']:.0f} s"
    )


def command(
    folder: Annotated[Path, typer.Argument(help="A trained model's folder.")],
    *,
    data: Annotated[Path, typer.Option(help="Rows: train recovers, val judges.")],
    out: Annotated[Path, typer.Option(help="Where the log and the front go.")] = Path("search"),
    trials: Annotated[int, typer.Option(help="Stop after so many.", min=1)] = 20,
    minutes: Annotated[float, typer.Option(help="Begin no trial after so many minutes; 0: no limit.")] = 0.0,
    init_points: Annotated[int, typer.Option(help="Random cuts before the optimiser's.", min=1)] = 5,
    layers_least: Annotated[int, typer.Option(help="Layers that stay at least.", min=1)] = 1,
    feed_forward_least: Annotated[int, typer.Option(help="Inner neurons at least; 0: an eighth.")] = 0,
    amount_most: Annotated[float, typer.Option(help="Share of zeros at most.", min=0.0, max=0.95)] = 0.5,
    max_steps: Annotated[int, typer.Option(help="Steps of distillation for each cut.", min=1)] = 100,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float, typer.Option()] = 2e-4,
    rows: Annotated[int, typer.Option(help="Rows that judge, at most.", min=1)] = 500,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with the search in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The front as one JSON object.")] = False,
) -> None:
    """Prints the cuts that none beats in quality, milliseconds and bytes at once."""
    result = search_folder(
        folder,
        out,
        data=data,
        trials=trials,
        minutes=minutes,
        init_points=init_points,
        layers_least=layers_least,
        feed_forward_least=feed_forward_least,
        amount_most=amount_most,
        max_steps=max_steps,
        batch=batch,
        learning_rate=learning_rate,
        rows=rows,
        seed=seed,
        resume=resume,
        tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
    )
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    table = Table(title=f"None of {result['trials']} trials beats these")
    for name in ("trial", "layers", "width", "zeros", "bits", "quality", "ms", "MiB", "bytes"):
        table.add_column(name, justify="right")
    for one in result["front"]:
        cut = one["cut"]
        table.add_row(
            str(one["trial"]),
            str(cut["layers"]),
            str(cut["feed_forward"]),
            f"{cut['amount']:.0%}",
            str(cut["bits"]),
            f"{one['quality']:.4f}",
            f"{one['latency_ms']:.3f}",
            f"{one['memory_mib']:.1f}",
            f"{one['bytes']:,}",
        )
    Console().print(table)
