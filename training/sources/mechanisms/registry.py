"""The table of mechanisms, filled by the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from models.taxonomy import FaultClass
from training.sources.symptoms import Cause, Scene

Make = Callable[[Scene], Cause]
MECHANISMS: dict[str, Mechanism] = {}


class Mechanism(NamedTuple):
    """One way in which a fault of a class comes about; `weight` is how often hosts see it, 1 is usual."""

    name: str
    fault: FaultClass
    make: Make
    weight: float


def mechanism(fault: FaultClass, weight: float = 1.0) -> Callable[[Make], Make]:
    """Register a function under its own name; raises ValueError where the name is taken."""

    def register(make: Make) -> Make:
        name = f"{fault.value}/{make.__name__.replace('_', '-')}"
        if name in MECHANISMS:
            raise ValueError(f"two mechanisms are called {name}")
        MECHANISMS[name] = Mechanism(name, fault, make, weight)
        return make

    return register
