"""`python -m tests.bench.tune surface|served OUT`: what `workshop tune` is worth, over ten seeds.

surface: a scripted server whose answers are the better the nearer its parameters are to a known optimum, with
         noise; the figure is the true quality of what each engine recommends.
served:  SmolLM2-135M-Instruct served by llama.cpp; the figure is the similarity on cases held out, of what is
         recommended and of the server's defaults, under the same seeds.

Every engine has as many requests. OUT gets a JSON line a search; one that is there is not run again.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures.chat import Reply, serve
from tests.fixtures.served import serve_gguf, smollm2
from training.endpoint import Endpoint, open_chat
from training.intervals import intervals
from training.workshop.tuning.cases import Case
from training.workshop.tuning.judge import Judge, mean, seeds
from training.workshop.tuning.session import tune
from training.workshop.tuning.settings import Settings
from training.workshop.tuning.space import read_space

SEEDS = range(10)
ENGINES = ("random", "bayes", "optuna")
OPTIMUM = {"temperature": 0.35, "top_p": 0.75, "frequency_penalty": 0.3, "presence_penalty": -0.4}
_SHARPNESS = {"temperature": 5.0, "top_p": 3.0, "frequency_penalty": 2.0, "presence_penalty": 2.0}
TARGET = """
memory ran out on this host and so the kernel chose the largest process and ended it, which was the database;
give it a limit of its own or add swap space, then start the unit again and watch how much it takes by night
"""
WORDS = TARGET.split()


def quality(params: Mapping[str, Any]) -> float:
    """1 at the optimum, and never another maximum; top_k does nothing."""
    unit = read_space().point_of({"top_k": 1, **params})
    best = read_space().point_of({"top_k": 1, **OPTIMUM})
    return math.exp(-sum(weight * (unit[name] - best[name]) ** 2 for name, weight in _SHARPNESS.items()))


def scripted(body: dict[str, Any]) -> Reply:
    """Each word is right with the quality's probability; all follows from the body."""
    draw = random.Random(json.dumps(body, sort_keys=True))
    defaults = {"temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0.0, "presence_penalty": 0.0}
    share = quality({name: body.get(name, value) for name, value in defaults.items()})
    return Reply(" ".join(word if draw.random() < share else "zzz" for word in WORDS))


def surface(out: Path) -> None:
    """Each engine's true quality by seed."""
    case = Case(prompt="Explain: Out of memory: Killed process", target=" ".join(WORDS), held_out=False)
    with serve(scripted) as served:
        for seed, engine in _todo(out):
            settings = Settings(
                url=served.url, engine=engine, seed=seed, probe=False, init_points=5, n_iter=25
            )
            found = _searched([case], settings)
            _keep(out, seed, engine, quality=quality(found["params"]), params=found["params"])


CASES = [
    Case(prompt=prompt, target=target, system="Answer in one short sentence.", held_out=held_out)
    for held_out, prompt, target in (
        (False, "What is the capital of France?", "The capital of France is Paris."),
        (False, "What do bees make?", "Bees make honey."),
        (False, "What is the opposite of hot?", "The opposite of hot is cold."),
        (False, "Which planet do we live on?", "We live on the planet Earth."),
        (True, "How many days does a week have?", "A week has seven days."),
        (True, "What is frozen water called?", "Frozen water is called ice."),
        (True, "What color is the sky on a clear day?", "The sky is blue on a clear day."),
        (True, "What is the capital of Italy?", "The capital of Italy is Rome."),
        (True, "Which ocean is the largest?", "The Pacific Ocean is the largest."),
        (True, "How many legs does a spider have?", "A spider has eight legs."),
    )
]
SEARCHED = [one for one in CASES if not one.held_out]
HELD_OUT = [one for one in CASES if one.held_out]
_FIXED = {"max_tokens": 12, "stop": ["\n"]}


def served(out: Path) -> None:
    """Each engine's and the defaults' similarity on held-out cases by seed."""
    with serve_gguf(smollm2()) as url:
        chat = open_chat(Endpoint(url=url), "prompts", final=("empty",))
        judge = Judge(chat, "composite", _FIXED, seeded=True)
        for seed, engine in _todo(out, ("defaults", "random", "bayes")):
            drawn, params = seeds(seed, 1 << 20, 2), {}
            if engine != "defaults":
                settings = Settings(
                    url=url,
                    engine=engine,
                    seed=seed,
                    probe=False,
                    init_points=4,
                    n_iter=10,
                    repeats=1,
                    fixed=_FIXED,
                )
                params = _searched(SEARCHED, settings)["params"]
            found = judge.judge(HELD_OUT, params, drawn)
            _keep(
                out, seed, engine, quality=mean(found), params=params, answers=[one.answer for one in found]
            )


def _searched(cases: list[Case], settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hauswart-tune-") as work:
        return tune(cases, Path(work), settings)


def _todo(out: Path, engines: tuple[str, ...] = ENGINES) -> Iterator[tuple[int, Any]]:
    done = {(one["seed"], one["engine"]) for one in _read(out)}
    return ((seed, engine) for seed in SEEDS for engine in engines if (seed, engine) not in done)


def _keep(out: Path, seed: int, engine: str, **found: Any) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"seed": seed, "engine": engine, **found}) + "\n")


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.is_file() else []


def table(out: Path) -> None:
    """Each engine's quality, and the paired differences with their 95 % intervals over seeds."""
    by: dict[str, dict[int, float]] = {}
    for one in _read(out):
        by.setdefault(one["engine"], {})[one["seed"]] = one["quality"]
    for engine, found in by.items():
        values = list(found.values())
        print(
            f"{engine:9} n {len(values)} mean {np.mean(values):.4f} median {np.median(values):.4f} "
            f"least {min(values):.4f} most {max(values):.4f}"
        )
    for first, second in (
        ("bayes", "random"),
        ("optuna", "random"),
        ("bayes", "defaults"),
        ("random", "defaults"),
    ):
        both = sorted(set(by.get(first, {})) & set(by.get(second, {})))
        if both:
            gained = np.array([by[first][seed] - by[second][seed] for seed in both])
            bounds = intervals(
                {"gain": lambda w, g=gained: float(np.average(g, weights=w))}, np.arange(len(both))
            )
            low, high = bounds["gain"]
            print(
                f"{first} - {second}: {gained.mean():+.4f} ({low:+.4f} to {high:+.4f}), "
                f"better in {int((gained > 0).sum())} of {len(both)}"
            )


if __name__ == "__main__":
    {"surface": surface, "served": served}[sys.argv[1]](Path(sys.argv[2]))
    table(Path(sys.argv[2]))
