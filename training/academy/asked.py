"""Questions that lessons ask and answer: a teacher foresaw much of what will be asked.

One that is asked again in other words is near one of them, and its answer stands in that lesson's passage.
How near the nearest is says much about whether there is an answer at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from models.passages import Passage
from training.academy.encoder import Encoded, Encoder, Vectors
from training.academy.lessons import Lesson
from training.academy.paragraphs import Paragraphs
from training.academy.vectors import Table

_CLOSELY = 60  # lessons, the nearest, that are compared word for word
_KEPT = 5_000  # lessons whose tokens are remembered


class Asked:
    """The lessons' questions. `table` has a vector for each lesson."""

    def __init__(
        self, lessons: Sequence[Lesson], table: Table, encoder: Encoder, without: Collection[str] = ()
    ) -> None:
        """`without`: questions that are taken as if no lesson had them."""
        self._rows = [row for row in lessons if row["question"] not in without]
        self._vectors = table.vectors[[row["question"] not in without for row in lessons]]
        self._encoder = encoder
        self._tokens: dict[str, Vectors] = {}

    def near(self, question: Encoded, count: int) -> list[int]:
        """The passages of the nearest lessons that have an answer, by their ids."""
        order = np.argsort(-(self._vectors @ question.whole), kind="stable")[: 2 * count]
        rows = [self._rows[at] for at in order]
        return list(dict.fromkeys(row["passage"] for row in rows if row["answer"]))[:count]

    def opinions(
        self, question: Encoded, passages: Sequence[Passage], paragraphs: Paragraphs
    ) -> list[dict[str, float]]:
        """For each passage how alike the question and the nearest lessons are.

        `asked` by its paragraph, `asked_around` by its section, `open` what has no answer there; what has no
        lesson among the nearest is as far as the last of these.
        """
        order = np.argsort(-(self._vectors @ question.whole), kind="stable")[:_CLOSELY]
        rows = [self._rows[at] for at in order]
        about = {one.id: one for one in paragraphs.passages({row["passage"] for row in rows})}
        alike = [_alike(question.tokens, one) for one in self._read([row["question"] for row in rows])]
        far = min(alike, default=0.0)
        here: dict[int, float] = {}
        around: dict[int, float] = {}
        left: dict[int, float] = {}
        for row, value in zip(rows, alike, strict=True):
            passage = about[row["passage"]]
            if row["answer"]:
                _raise(here, paragraphs.place(passage), value)
            _raise(around if row["answer"] else left, passage.section, value)
        return [
            {
                "asked": here.get(paragraphs.place(one), far),
                "asked_around": around.get(one.section, far),
                "open": left.get(one.section, far),
            }
            for one in passages
        ]

    def _read(self, questions: Sequence[str]) -> list[Vectors]:
        if len(self._tokens) > _KEPT:
            self._tokens.clear()
        new = [one for one in dict.fromkeys(questions) if one not in self._tokens]
        for text, one in zip(new, self._encoder.questions(new), strict=True):
            self._tokens[text] = one.tokens
        return [self._tokens[one] for one in questions]


def _raise(highest: dict[int, float], key: int, value: float) -> None:
    highest[key] = max(highest.get(key, value), value)


def _alike(one: Vectors, other: Vectors) -> float:
    """How near each token of either is to the nearest of the other, on average of both."""
    if not len(one) or not len(other):
        return 0.0
    near = one @ other.T
    return float((near.max(1).mean() + near.max(0).mean()) / 2)
