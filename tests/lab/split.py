"""Which mechanisms are frozen: never looked at while the daemon is developed, scored only by `--frozen`.

The rule, so that nobody picks favourites: within each class (benign is one, too) the mechanisms are ordered
by the SHA-256 of `hauswart-lab/CLASS/MECHANISM`, and the first third, rounded, is frozen. Both sides are
written down in `frozen.toml`, which only grows: a mechanism that is listed keeps its side, and of new ones so
many are frozen, the lowest hashes first, as bring their class to a third. The eight faults that the daemon
was developed with before there was a split (`runner.USUAL`) are open whatever their hash.

Whoever has looked at the frozen ones' score ends that with `freeze --scored`: they are named as `scored` from
then on and are as open as the others. What is mended because of them is shown on mechanisms made afterwards.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from daemon.errors import ConfigError

FROZEN = Path(__file__).with_name("frozen.toml")
_HEAD = "# Made by `python -m tests.lab freeze`; split.py has the rule. A name never becomes unseen again.\n"
SIDES = ("frozen", "open", "scored")
Sides = dict[str, dict[str, list[str]]]


def load_sides(path: Path = FROZEN) -> Sides:
    """The mechanisms of each class: `frozen`, `open`, and `scored`, which were frozen once."""
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def unfreeze(sides: Sides) -> Sides:
    """The sides when the score of all that is frozen has been looked at."""
    return {
        name: {"frozen": [], "open": both["open"], "scored": sorted(both["scored"] + both["frozen"])}
        for name, both in sides.items()
    }


def extend(sides: Sides, names: Iterable[str]) -> Sides:
    """The sides with what is new among `names` (CLASS/MECHANISM) put on one of them."""
    found: Sides = {name: {side: sorted(both[side]) for side in SIDES} for name, both in sides.items()}
    news: dict[str, list[str]] = defaultdict(list)
    for name in names:
        fault_class, _, mechanism = name.partition("/")
        both = found.setdefault(fault_class, {side: [] for side in SIDES})
        if not any(mechanism in both[side] for side in SIDES):
            news[fault_class].append(mechanism)
    for fault_class, new in news.items():
        both = found[fault_class]
        ordered = sorted(new, key=lambda one: hashed(f"{fault_class}/{one}"))
        total = len(new) + sum(len(both[side]) for side in SIDES)
        wanted = max(0, (total + 1) // 3 - len(both["frozen"]))
        both["frozen"] = sorted(both["frozen"] + ordered[:wanted])
        both["open"] = sorted(both["open"] + ordered[wanted:])
    return dict(sorted(found.items()))


def hashed(name: str) -> str:
    """What decides about a mechanism."""
    return hashlib.sha256(f"hauswart-lab/{name}".encode()).hexdigest()


def write_sides(sides: Sides, path: Path = FROZEN) -> None:
    """Write `frozen.toml`."""
    parts = [_HEAD]
    for name, both in sides.items():
        parts.append(f"\n[{name}]\n")
        parts += [f"{side} = {json.dumps(both[side])}\n" for side in SIDES]
    path.write_text("".join(parts), encoding="utf-8")


def side_of(name: str, sides: Sides) -> str:
    """`frozen`, `open` or `scored`; raises ConfigError for a scenario that has no side yet."""
    fault_class, _, mechanism = name.partition("/")
    both = sides.get(fault_class, {})
    for side in SIDES:
        if mechanism in both.get(side, ()):
            return side
    raise ConfigError(f"{name} is not in {FROZEN.name}", hint="run `python -m tests.lab freeze`")


def is_frozen(name: str, sides: Sides) -> bool:
    """Whether a scenario is kept unseen; raises ConfigError for one that has no side yet."""
    return side_of(name, sides) == "frozen"
