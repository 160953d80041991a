"""Rows for the middle tier: situations of simulated faults as the daemon's own tiers would report them.

Splits go by mechanism: what is trained on, what thresholds are chosen on and what is measured on are
different ways of failing. Nothing is read; a seed makes the same rows everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from models.situations import FAULTS, SEVERITIES, encode
from models.taxonomy import FaultClass
from training.sources.cases import Case, Split, judged
from training.sources.episodes import Stage, play, warmed
from training.sources.mechanisms import network, others, resources, services, storage  # noqa: F401 - they register
from training.sources.mechanisms.registry import MECHANISMS, Mechanism

Tell = Callable[[str], None]

EPISODES = 12000  # five minutes of a core; 28,000 cases, a third of which read differently
STAGES = 48  # hosts
HELD_OUT = 4  # a class with so many mechanisms gives one to validation and one to test
BENIGN_WEIGHT = 0.5


def rows(data_dir: Path | None = None, seed: int = 1, episodes: int = EPISODES) -> Iterator[dict[str, Any]]:  # noqa: ARG001 - as every source
    """Rows for the classifier: text, group, source, split and a label per head (None where there is none)."""
    for case in cases(seed, episodes):
        yield row(case)


def row(case: Case) -> dict[str, Any]:
    """A case as a training row."""
    view, _ = judged(case)
    right = [n for n, who in enumerate(view.slots) if who in case.culprits]
    return {
        "text": encode(view),
        "group": case.group,
        "source": case.source,
        "split": case.split,
        "fault_class": FAULTS.index(case.fault_class),
        "severity": SEVERITIES.index(case.severity),
        "culprit": right[0] if right and len(view.slots) > 1 else None,
    }


def write_cases(
    *,
    out: Path,
    part: Split = "test",
    episodes: int = EPISODES,
    seed: int = 1,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Write the cases of one split as JSON lines, which `evaluate --task incidents` scores; their number."""
    count = 0
    with out.open("wb") as file:
        for case in cases(seed, episodes, part):
            file.write(msgspec.json.encode(case) + b"\n")
            count += 1
            if count % 1000 == 0:
                tell(f"{count} cases")
    return {"cases": count}


def cases(seed: int = 1, episodes: int = EPISODES, part: Split | None = None) -> Iterator[Case]:
    """Cases of as many episodes, in a fixed order for a seed; of one split, if `part` names it."""
    splits = split(seed)
    stages: list[Stage] = []
    random = Random(seed)  # noqa: S311 - nothing secret
    chosen = random.choices(list(splits), [weight(one) for one in splits], k=episodes)
    for number, mechanism in enumerate(chosen):
        if len(stages) < STAGES:
            stages.append(warmed(seed * 1000 + number))
        stage = random.choice(stages)
        if part in {None, "train", splits[mechanism]}:  # any episode may show mere effects, which train
            name = f"{seed}.{number}"
            played = play(stage, mechanism, Random(name), name, splits[mechanism])  # noqa: S311
            yield from (one for one in played if part in {None, one.split})


def split(seed: int = 1) -> dict[Mechanism, Split]:
    """Which mechanism is trained on, which one thresholds are chosen on, which one is only measured."""
    found: dict[Mechanism, Split] = {}
    for fault in FaultClass:
        members = [one for one in MECHANISMS.values() if one.fault is fault]
        members.sort(key=lambda one: zlib.crc32(f"{seed} {one.name}".encode()))
        held: list[Split] = (
            ["test", "val"] if len(members) >= HELD_OUT else ["test"] if len(members) > 1 else []
        )
        for n, one in enumerate(members):
            found[one] = held[n] if n < len(held) else "train"
    return found


def weight(mechanism: Mechanism) -> float:
    """How often a mechanism is played: classes alike, within a class by how often hosts see it."""
    alike = sum(one.weight for one in MECHANISMS.values() if one.fault is mechanism.fault)
    commonness = BENIGN_WEIGHT if mechanism.fault.benign else alike**0.5
    return commonness * mechanism.weight / alike
