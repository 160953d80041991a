"""How answers are scored: right words, right page, silence where nothing can be said, general ability.

An answer is right when it holds one of the accepted strings as whole words; a citation when it names the
document and one of the places where these strings stand. Knows nothing of how answers are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daemon.errors import ConfigError
from models.passages import Passage
from training.academy import library
from training.intervals import Interval, intervals

ROUNDS = 2000
_LINES_NEAR = 2  # an option's heading stands that far from what explains it
Question = Mapping[str, Any]
_DENIAL = re.compile(
    r"not in the (?:documents|passages|text)|not there|no (?:answer|information)"
    r"|does not (?:say|contain|mention)"
    r"|nicht in den dokumenten|keine (?:angabe|antwort|information)|steht nicht",
    re.IGNORECASE,
)


class Rate(NamedTuple):
    """A share of `count` questions with its 95 % interval."""

    value: float
    low: float
    high: float
    questions: int


def read_questions(path: Path) -> list[dict[str, Any]]:
    """Questions with accepted answers, document and places; raises ConfigError with the row that is wrong."""
    rows = library.read_lines(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("question"), str) or not isinstance(row.get("accepted"), list):
            raise ConfigError(f"{path}:{number}: needs question and accepted (a list; empty: not answerable)")
        if row["accepted"] and not (
            isinstance(row.get("document"), str) and isinstance(row.get("places"), list)
        ):
            raise ConfigError(f"{path}:{number}: an answerable question needs document and places")
    if not rows:
        raise ConfigError(f"{path} holds no question")
    return rows


def is_right(text: str, question: Question) -> bool:
    """Whether an accepted string stands in the text, not as a part of a longer word."""
    flat = " ".join(text.lower().split())
    return any(_within(" ".join(one.lower().split()), flat) for one in question["accepted"])


def is_cited(passage: Passage, question: Question) -> bool:
    """Whether document and page are where the answer stands; where there are no pages, a line near by."""
    if passage.document != question.get("document"):
        return False
    place, slack = (passage.page, 0) if passage.page else (passage.line, _LINES_NEAR)
    return any(abs(place - one) <= slack for one in question.get("places", ()))


def denies(text: str) -> bool:
    """Whether a text says that there is no answer."""
    return bool(_DENIAL.search(text))


def rate(outcomes: Sequence[bool]) -> Rate:
    """The share of true outcomes; questions are drawn for the interval."""
    values = np.asarray(outcomes, dtype=np.float64)
    if not len(values):
        return Rate(float("nan"), float("nan"), float("nan"), 0)
    found = intervals({"share": partial(_share, values)}, np.arange(len(values)), rounds=ROUNDS)["share"]
    return Rate(float(values.mean()), found.low, found.high, len(values))


def difference(first: Sequence[bool], second: Sequence[bool]) -> Interval:
    """The interval of the first share less the second, on the same questions."""
    values = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return intervals({"gain": partial(_share, values)}, np.arange(len(values)), rounds=ROUNDS)["gain"]


def general(
    weigh: Callable[[str, Sequence[str]], list[float]], rows: Sequence[Mapping[str, Any]]
) -> list[bool]:
    """Whether the first option, the right one, is the likeliest answer to each question."""
    outcomes = []
    for row in rows:
        scores = weigh(row["question"], row["options"])
        outcomes.append(max(range(len(scores)), key=scores.__getitem__) == 0)
    return outcomes


def _within(part: str, text: str) -> bool:
    before = r"(?<!\w)" if part[:1].isalnum() else ""
    after = r"(?!\w)" if part[-1:].isalnum() else ""
    return re.search(before + re.escape(part) + after, text) is not None


def _share(values: Any, weights: Any) -> float:
    return float((values * weights).sum() / weights.sum())
