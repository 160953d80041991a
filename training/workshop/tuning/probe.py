"""Which parameters a server heeds: extreme values under the same seed, on several prompts.

Where the server repeats an answer under one seed, a parameter is heeded as soon as any answer differs, beside
the server's defaults, warm, or in the middle of the bounds. Where it does not repeat itself, samplers are
judged by whether their lowest value makes it, and the others by the greedy answer. What cannot be told is
called unclear, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from daemon.errors import ChatError, ConfigError
from training.endpoint import Patient
from training.workshop.tuning.cases import Case
from training.workshop.tuning.space import Parameter, Space, Value

Verdict = Literal["heeded", "ignored", "refused", "unclear"]
PROMPTS = 2  # of the cases; and one of our own, in which the penalties have something to do
_REPEATING = Case(prompt="Write the word disk twenty times in one line.", target="disk")
_SEED = 20_011
_WARM: Mapping[str, Value] = {"temperature": 1.0}
# Beyond the bounds, what every API admits and no answer stays the same under.
_EXTREMES: dict[str, tuple[Value, ...]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01,),
    "top_k": (1,),
    "min_p": (0.95,),
    "typical_p": (0.05,),
    "frequency_penalty": (2.0, -2.0),
    "presence_penalty": (2.0, -2.0),
    "repeat_penalty": (1.8,),
    "repetition_penalty": (1.8,),
}
# At this value a sampler leaves one token to choose from.
_STILL: dict[str, Value] = {"temperature": 0.0, "top_p": 0.0001, "top_k": 1, "min_p": 1.0}

Base = Mapping[str, Value]
Ask = Callable[[Case, Base], str]
_BASES = 3


class Heed(NamedTuple):
    """Whether a server heeds a parameter, and how that was seen."""

    name: str
    verdict: Verdict
    said: str


class Probed(NamedTuple):
    """What was found out; `seeded` says whether the server takes a seed and repeats itself under it."""

    heeds: tuple[Heed, ...]
    takes_seed: bool
    repeats: bool

    def named(self, *verdicts: Verdict) -> list[str]:
        """The parameters with one of these verdicts."""
        return [one.name for one in self.heeds if one.verdict in verdicts]


def most_requests(space: Space, cases: int) -> int:
    """How many requests probing takes at most; as a rule a fourth."""
    prompts = min(PROMPTS, cases) + 1
    return prompts * (2 + _BASES * (1 + sum(len(_values(one)) for one in space.parameters)))


def probe(
    chat: Patient, space: Space, cases: Sequence[Case], fixed: Mapping[str, Any], *, takes_seed: bool
) -> Probed:
    """Try each parameter of the space. Raises ChatError where the server fails rather than refuses."""
    prompts = [*cases[:PROMPTS], _REPEATING]

    def ask(case: Case, params: Mapping[str, Value]) -> str:
        seed = {"seed": _SEED} if takes_seed else {}
        try:
            return chat.ask(case.messages(), **{**fixed, **params, **seed}).text
        except ChatError as error:
            if error.kind == "empty":
                return ""
            raise

    contrast = _Contrast(ask, prompts)
    if contrast.repeats({}):
        middle = {one.name: one.at(0.5) for one in space.parameters if one.kind != "choice"}
        bases = [base for base in ({}, _WARM, middle) if contrast.admits(base)]
        return Probed(tuple(contrast.heed(one, bases) for one in space.parameters), takes_seed, repeats=True)
    greedy: Base = {"temperature": 0.0}
    still = contrast.admits(greedy) and contrast.repeats(greedy)
    found = []
    for one in space.parameters:
        if one.name in _STILL:
            found.append(_by_stillness(ask, one, prompts, _WARM if contrast.admits(_WARM) else {}))
        elif still:
            found.append(contrast.heed(one, [greedy]))
        else:
            found.append(Heed(one.name, "unclear", "the server never repeats itself"))
    return Probed(tuple(found), takes_seed, repeats=False)


class _Contrast:
    """Answers with a parameter against those without it; the latter are asked for once."""

    def __init__(self, ask: Ask, prompts: Sequence[Case]) -> None:
        self._ask, self._prompts = ask, prompts
        self._plain: dict[tuple[Any, ...], str] = {}

    def _without(self, case: Case, base: Base) -> str:
        key = (case.prompt, *sorted(base.items()))
        if key not in self._plain:
            self._plain[key] = self._ask(case, base)
        return self._plain[key]

    def admits(self, base: Base) -> bool:
        """Whether the server takes these parameters at all."""
        try:
            self._without(self._prompts[0], base)
        except ChatError as error:
            if error.kind != "refused":
                raise
            return False
        return True

    def repeats(self, base: Base) -> bool:
        """Whether each prompt gets its answer again."""
        return all(self._ask(case, base) == self._without(case, base) for case in self._prompts)

    def heed(self, one: Parameter, bases: Sequence[Base]) -> Heed:
        """Whether any answer differs with the parameter."""
        for base in bases:
            rest = {name: value for name, value in base.items() if name != one.name}
            for value in _values(one):
                try:
                    for case in self._prompts:
                        if self._ask(case, {**rest, one.name: value}) != self._without(case, base):
                            return Heed(one.name, "heeded", f"another answer with {value}")
                except ChatError as error:
                    if error.kind != "refused":
                        raise
                    if value in _ends(one):
                        return Heed(one.name, "refused", f"{one.name}={value}: {error}")
                    # Beyond the bounds, it may refuse.
        tried = ", ".join(map(str, _values(one)))
        return Heed(one.name, "ignored", f"the same answers with {tried} and without")


def _by_stillness(ask: Ask, one: Parameter, prompts: Sequence[Case], base: Base) -> Heed:
    value = _STILL[one.name]
    try:
        for case in prompts:
            wanted = {**base, one.name: value}
            if ask(case, wanted) != ask(case, wanted):
                return Heed(one.name, "ignored", f"different answers even with {value}")
    except ChatError as error:
        if error.kind != "refused":
            raise
        return Heed(one.name, "unclear", f"{one.name}={value}: {error}")
    return Heed(one.name, "heeded", f"always one answer with {value}")


def _ends(one: Parameter) -> tuple[Value, ...]:
    return one.values if one.kind == "choice" else (one.at(0.0), one.at(1.0))


def _values(one: Parameter) -> list[Value]:
    return list(dict.fromkeys([*_ends(one), *_EXTREMES.get(one.name, ())]))


def takes_seed(chat: Patient, case: Case, fixed: Mapping[str, Any]) -> tuple[bool, float]:
    """Whether the server takes a seed, and how many seconds an answer takes. Raises ChatError."""
    try:
        return True, chat.ask(case.messages(), **fixed, seed=_SEED).seconds
    except ChatError as error:
        if error.kind == "empty":
            raise ChatError(
                f"{error}: nothing to compare", kind="empty", hint="is it the right model? more max_tokens?"
            ) from error
        if error.kind != "refused":
            raise
    try:
        return False, chat.ask(case.messages(), **fixed).seconds
    except ChatError as error:
        if error.kind == "refused" and fixed:
            said = ", ".join(fixed)
            raise ConfigError(f"{error}", hint=error.hint or f"does it know {said} ([fixed])?") from error
        raise
