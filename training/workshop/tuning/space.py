"""The parameters that are searched and their bounds: `pbounds`, as a file has them.

    [pbounds]
    temperature = [0.1, 0.9]                              # a float between these
    top_k = [1, 100]                                      # whole bounds: an integer
    repeat_penalty = { type = "float", low = 1, high = 2 }
    mirostat = { type = "choice", values = [0, 1, 2] }
    min_p = { type = "float", low = 0.001, high = 0.5, log = true }

Knows nothing of servers and of how a point is chosen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from daemon.errors import ConfigError

PBOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.1, 0.9),
    "top_p": (0.1, 0.9),
    "frequency_penalty": (-1.0, 1.0),
    "presence_penalty": (-1.0, 1.0),
    "top_k": (1, 100),
}
# Known to be real numbers, also where their bounds are whole.
_FLOATS = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "frequency_penalty", "presence_penalty", "repeat_penalty"}
)
_RESERVED = frozenset({"messages", "model", "stream", "seed", "n"})  # what the search itself sends
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DIGITS = 4  # after the point: what is printed is what was sent
MOST_PARAMETERS = 20  # more would need thousands of trials

Value = float | int | str | bool
Params = dict[str, Value]


class Parameter(NamedTuple):
    """One parameter: a number between two, or one of `values`; `log` searches its orders of magnitude."""

    name: str
    kind: str  # float, int, choice
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    values: tuple[Value, ...] = ()

    def at(self, share: float) -> Value:
        """The value so far between the bounds, 0..1."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + min(1.0, max(0.0, share)) * (high - low)
        value = min(self.high, max(self.low, math.exp(value) if self.log else value))
        return round(value) if self.kind == "int" else round(value, _DIGITS)

    def share(self, value: Value) -> float:
        """Where a value lies between the bounds, 0..1."""
        found = float(value)
        if self.log:
            return math.log(found / self.low) / math.log(self.high / self.low)
        return (found - self.low) / (self.high - self.low)


class Space(NamedTuple):
    """All parameters of a search. A choice has a dimension of the unit cube for each of its values."""

    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> list[str]:
        """The parameters' names."""
        return [one.name for one in self.parameters]

    @property
    def dimensions(self) -> list[str]:
        """The names of the unit cube's dimensions."""
        return [name for one in self.parameters for name in _dimensions(one)]

    def params_at(self, point: Mapping[str, float]) -> Params:
        """The parameters at a point of the unit cube."""
        found: Params = {}
        for one in self.parameters:
            shares = [point[name] for name in _dimensions(one)]
            found[one.name] = (
                one.values[shares.index(max(shares))] if one.kind == "choice" else one.at(shares[0])
            )
        return found

    def point_of(self, params: Mapping[str, Value]) -> dict[str, float]:
        """Where parameters lie in the unit cube."""
        point: dict[str, float] = {}
        for one in self.parameters:
            value, names = params[one.name], _dimensions(one)
            if one.kind == "choice":
                point |= {name: float(value == other) for name, other in zip(names, one.values, strict=True)}
            else:
                point[names[0]] = one.share(value)
        return point

    def without(self, names: Sequence[str]) -> Space:
        """The space of the other parameters."""
        return Space(tuple(one for one in self.parameters if one.name not in names))

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            one.name: list(one.values)
            if one.kind == "choice"
            else [one.kind, one.low, one.high, *(["log"] if one.log else [])]
            for one in self.parameters
        }


def _dimensions(one: Parameter) -> list[str]:
    if one.kind != "choice":
        return [one.name]
    return [f"{one.name}={number}" for number in range(len(one.values))]


def read_space(pbounds: Any = None, *, where: str = "pbounds") -> Space:
    """The space that `pbounds` describes, else that of PBOUNDS. Raises ConfigError with the bad key."""
    plain = PBOUNDS if pbounds is None else pbounds
    if not isinstance(plain, Mapping) or not plain:
        raise ConfigError(f"{where} is no table of bounds", hint="like temperature = [0.1, 0.9]")
    if len(plain) > MOST_PARAMETERS:
        raise ConfigError(f"{where} has {len(plain)} parameters, more than {MOST_PARAMETERS}")
    return Space(tuple(_parameter(name, said, f"{where}.{name}") for name, said in plain.items()))


def _parameter(name: Any, said: Any, where: str) -> Parameter:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(f"{where} cannot be searched", hint="a parameter that the server's API knows")
    if isinstance(said, Mapping):
        return _table(name, dict(said), where)
    if not isinstance(said, Sequence) or isinstance(said, str) or len(said) != 2:
        raise ConfigError(f"{where} is {said!r}, no pair of bounds", hint="like [0.1, 0.9]")
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in said)
    return _number(name, "int" if whole and name not in _FLOATS else "float", *said, where=where)


def _table(name: str, said: dict[str, Any], where: str) -> Parameter:
    kind = said.pop("type", "choice" if "values" in said else "float")
    known = {"values"} if kind == "choice" else {"low", "high", "log"}
    if kind not in {"float", "int", "choice"}:
        raise ConfigError(f"{where}.type is {kind!r}", hint="float, int or choice")
    if unknown := sorted(set(map(str, said)) - known):
        raise ConfigError(f"{where} has no key {unknown[0]!r}", hint=f"{kind} has {', '.join(sorted(known))}")
    if kind == "choice":
        values = said.get("values")
        good = isinstance(values, list) and len(values) > 1 and all(map(_is_value, values))
        if not good or len(set(map(repr, values or []))) < len(values or []):
            raise ConfigError(f"{where}.values is {values!r}", hint="at least two different values")
        return Parameter(name, "choice", values=tuple(values or []))
    if missing := sorted({"low", "high"} - set(said)):
        raise ConfigError(f"{where} has no {missing[0]}")
    log = said.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log is {log!r}", hint="true or false")
    return _number(name, kind, said["low"], said["high"], log=log, where=where)


def _number(name: str, kind: str, low: Any, high: Any, *, where: str, log: bool = False) -> Parameter:
    for bound in (low, high):
        number = isinstance(bound, (int, float)) and not isinstance(bound, bool) and math.isfinite(bound)
        if not number or (kind == "int" and bound != int(bound)):
            raise ConfigError(f"{where} has the bound {bound!r}", hint=f"{kind} needs two such numbers")
    if low >= high:
        raise ConfigError(f"{where} goes from {low} to {high}", hint="the first must be the lower one")
    if log and low <= 0:
        raise ConfigError(f"{where} goes from {low} on a logarithmic scale", hint="above zero")
    return Parameter(name, kind, float(low), float(high), log)


def _is_value(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))
