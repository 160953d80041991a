"""Questions that lessons ask and answer: a teacher foresaw much of what will be asked.

One that is asked again in other words is near one of them, and its answer stands in that lesson's passage.
How near the nearest is says much about whether there is an answer at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from models.passages import Passage
from training.academy.encoder import Encoded, Encoder, Vectors
from training.academy.lessons import Lesson
from training.academy.paragraphs import Paragraphs
from training.academy.vectors import Table

Reads = Callable[[str, Sequence[str]], list[float]]  # a question and texts to how surely each answers it
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
        self,
        question: str,
        asked: Encoded,
        passages: Sequence[Passage],
        paragraphs: Paragraphs,
        reads: Reads | None = None,
    ) -> list[dict[str, float]]:
        """For each passage how alike the question and the nearest lessons are.

        `asked` by its paragraph, `asked_around` by its section, `open` what has no answer there; what has no
        lesson among the nearest is as far as the last of these. With `reads`, `told` and `told_around` say
        how surely the lessons with their answers, as somebody was told there, answer the question.
        """
        order = np.argsort(-(self._vectors @ asked.whole), kind="stable")[:_CLOSELY]
        rows = [self._rows[at] for at in order]
        alike = [_alike(asked.tokens, one) for one in self._read([row["question"] for row in rows])]
        found = _spread(rows, alike, passages, paragraphs, ("asked", "asked_around", "open"))
        if reads is None:
            return found
        answered = [row for row in rows if row["answer"]]
        said = reads(question, [as_text(row) for row in answered])
        told = _spread(answered, said, passages, paragraphs, ("told", "told_around"))
        return [first | more for first, more in zip(found, told, strict=True)]

    def _read(self, questions: Sequence[str]) -> list[Vectors]:
        if len(self._tokens) > _KEPT:
            self._tokens.clear()
        new = [one for one in dict.fromkeys(questions) if one not in self._tokens]
        for text, one in zip(new, self._encoder.questions(new), strict=True):
            self._tokens[text] = one.tokens
        return [self._tokens[one] for one in questions]


def as_text(row: Lesson) -> str:
    """A lesson as something that may answer: what was asked, and what was told."""
    return f"{row['question']} {row['answer']}"


def _spread(
    rows: Sequence[Lesson],
    values: Sequence[float],
    passages: Sequence[Passage],
    paragraphs: Paragraphs,
    names: Sequence[str],
) -> list[dict[str, float]]:
    """Each passage's highest value: of its paragraph, its section, of what has no answer in its section."""
    about = {one.id: one for one in paragraphs.passages({row["passage"] for row in rows})}
    far = min(values, default=0.0)
    here: dict[int, float] = {}
    around: dict[int, float] = {}
    left: dict[int, float] = {}
    for row, value in zip(rows, values, strict=True):
        passage = about[row["passage"]]
        if row["answer"]:
            _raise(here, paragraphs.place(passage), value)
        _raise(around if row["answer"] else left, passage.section, value)
    return [
        dict(
            zip(
                names,
                (
                    here.get(paragraphs.place(one), far),
                    around.get(one.section, far),
                    left.get(one.section, far),
                ),
                strict=False,
            )
        )
        for one in passages
    ]


def _raise(highest: dict[int, float], key: int, value: float) -> None:
    highest[key] = max(highest.get(key, value), value)


def _alike(one: Vectors, other: Vectors) -> float:
    """How near each token of either is to the nearest of the other, on average of both."""
    if not len(one) or not len(other):
        return 0.0
    near = one @ other.T
    return float((near.max(1).mean() + near.max(0).mean()) / 2)
