"""What parameters are worth: the cases are asked, the answers compared, and the mean is taken over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from daemon.errors import ChatError
from training.endpoint import Patient
from training.workshop.tuning.cases import Case
from training.workshop.tuning.space import Value

SEEDS = 1 << 31
MAX_ANSWER = 20_000  # characters; what comes after is neither compared nor kept


class Judged(NamedTuple):
    """One answer and its similarity; the number of its case."""

    case: int
    seed: int
    score: float
    answer: str


class Judge:
    """Asks one server and compares by one measure; `fixed` goes into each request."""

    def __init__(self, chat: Patient, similarity: str, fixed: Mapping[str, Any], *, seeded: bool) -> None:
        self._chat, self._similarity, self._fixed, self._seeded = chat, similarity, dict(fixed), seeded

    def ask(self, case: Case, params: Mapping[str, Value], seed: int) -> str:
        """The answer, "" where the server gives an empty one: that is worth nothing, but no fault.

        Raises ChatError.
        """
        sent = {**self._fixed, **params} | ({"seed": seed % SEEDS} if self._seeded else {})
        try:
            return self._chat.ask(case.messages(), **sent).text[:MAX_ANSWER]
        except ChatError as error:
            if error.kind == "empty":
                return ""
            if error.kind == "refused":
                said = ", ".join(f"{name}={value}" for name, value in params.items())
                raise ChatError(f"{error} (with {said})", kind="refused", hint=error.hint) from error
            raise

    def judge(self, cases: Sequence[Case], params: Mapping[str, Value], seeds: Sequence[int]) -> list[Judged]:
        """Each case under each seed. Raises ChatError."""
        found = []
        for number, case in enumerate(cases):
            for seed in seeds:
                answer = self.ask(case, params, seed)
                found.append(Judged(number, seed, case.score(answer, self._similarity), answer))
        return found


def mean(judged: Sequence[Judged]) -> float:
    """The mean similarity."""
    return sum(one.score for one in judged) / len(judged)


def seeds(base: int, number: int, repeats: int) -> list[int]:
    """The seeds of a trial: its own, so that no parameters are chosen for one lucky draw."""
    return [(base * 1_000_003 + number * repeats + one) % SEEDS for one in range(repeats)]
