"""Questions that lessons ask and answer: a teacher foresaw much of what will be asked.

One that is asked again in other words is near one of them, and its answer stands in that lesson's passage.
How near the nearest is says much about whether there is an answer at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.passages import Passage
from training.academy.encoder import Vectors
from training.academy.lessons import Lesson
from training.academy.paragraphs import Paragraphs
from training.academy.vectors import Table

_LOOKED_AT = 400  # lessons, the nearest; what has none of these is as far as the last
Places = npt.NDArray[np.int64]


class _Column(NamedTuple):
    """Lessons of one sort: vectors of their questions, and what each is about, as paragraph and section."""

    vectors: Vectors
    passages: Places
    paragraphs: Places
    sections: Places

    def nearest(self, question: Vectors, places: Places) -> tuple[dict[int, float], float]:
        """For each of `places` the nearest question's cosine, and the cosine of those that have none."""
        if not len(self.vectors):
            return {}, 0.0
        near = self.vectors @ question
        order = np.argsort(near)[-_LOOKED_AT:]  # the nearest last, so that it is the one that stays
        return {int(places[at]): float(near[at]) for at in order}, float(near[order[0]])


class Asked:
    """The lessons' questions. `table` has a vector for each lesson."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        table: Table,
        passages: Sequence[Passage],
        paragraphs: Paragraphs,
        without: Collection[str] = (),
    ) -> None:
        self._known = {one.id: one for one in passages}
        self._paragraphs = paragraphs
        rows = [at for at, row in enumerate(lessons) if row["question"] not in without]
        self._answered = self._column(lessons, table, [at for at in rows if lessons[at]["answer"]])
        self._open = self._column(lessons, table, [at for at in rows if not lessons[at]["answer"]])

    def _column(self, lessons: Sequence[Lesson], table: Table, rows: Sequence[int]) -> _Column:
        about = [self._known[lessons[at]["passage"]] for at in rows]
        return _Column(
            table.vectors[rows],
            np.array([one.id for one in about], np.int64),
            np.array([self._paragraphs.place(one) for one in about], np.int64),
            np.array([one.section for one in about], np.int64),
        )

    def near(self, question: Vectors, count: int) -> list[int]:
        """The passages of the nearest lessons, by their ids."""
        order = np.argsort(-(self._answered.vectors @ question), kind="stable")[:count]
        return list(dict.fromkeys(int(one) for one in self._answered.passages[order]))

    def opinions(self, question: Vectors, passages: Sequence[Passage]) -> list[dict[str, float]]:
        """How near the nearest lesson of each passage's paragraph and section is, and what is open there."""
        paragraph, far = self._answered.nearest(question, self._answered.paragraphs)
        section, _ = self._answered.nearest(question, self._answered.sections)
        left, left_far = self._open.nearest(question, self._open.sections)
        return [
            {
                "asked": paragraph.get(self._paragraphs.place(one), far),
                "asked_around": section.get(one.section, far),
                "unanswered": left.get(one.section, left_far),
            }
            for one in passages
        ]
