"""An encoder as judge: paragraphs near in meaning, lessons that ask the same, a reader if one was trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from models.passages import Index, Passage
from training.academy import library, reader
from training.academy.asked import Asked
from training.academy.decision import BY_LESSONS, BY_MEANING, Decision, Judge, Opinions
from training.academy.encoder import Encoded, Encoder
from training.academy.lessons import Lesson, check_lessons
from training.academy.paragraphs import Paragraphs
from training.academy.vectors import Table, open_table

NEAR = 12  # paragraphs, and lessons, that are looked at beside what the words find
FORESEEN = frozenset({"pair", "missing"})  # kinds of lessons that ask as people do
Tell = Callable[[str], None]


class Library:
    """What an encoder knows of a specialist: paragraphs and a teacher's lessons, each with their vectors."""

    def __init__(self, folder: Path, index: Index, encoder: Encoder, words: int, tell: Tell) -> None:
        self.encoder = encoder
        self.passages = index.passages()
        self.paragraphs = Paragraphs(self.passages, words)
        self.table = open_table(folder / library.PARAGRAPHS, self.paragraphs.texts, encoder, tell)
        self.lessons = foreseen(folder, {one.id for one in self.passages})
        questions = [row["question"] for row in self.lessons]
        self.asked: Table | None = None
        if questions:
            self.asked = open_table(folder / library.ASKED, questions, encoder, tell, asked=True)


def foreseen(folder: Path, known: set[int]) -> list[Lesson]:
    """The lessons in which a teacher asks as people do."""
    rows, _ = check_lessons(library.read_lines(folder / library.LESSONS), known)
    return [row for row in rows if row.get("source") == "teacher" and row.get("kind") in FORESEEN]


class Meaning:
    """The judge itself; without lessons or reader it says nothing of these."""

    def __init__(
        self, known: Library, read: tuple[Any, Any] | None = None, without: Collection[str] = ()
    ) -> None:
        """`without`: questions of lessons that it is not to know, since they are asked."""
        self._known, self._read = known, read
        self._asked: Asked | None = None
        if known.asked is not None:
            self._asked = Asked(known.lessons, known.asked, known.encoder, without)
        self._question = lru_cache(8)(known.encoder.question)

    def near(self, question: str) -> list[int]:
        """Passages whose paragraph is near, and those of lessons that are."""
        asked = self._encoded(question)
        places = self._known.table.nearest(asked.whole, NEAR)
        found = [one for place in places for one in self._known.paragraphs.members[place]]
        return found + (self._asked.near(asked, NEAR) if self._asked else [])

    def glance(self, question: str, passages: Sequence[Passage]) -> list[Opinions]:
        """What vectors say, and lessons that ask alike."""
        asked = self._encoded(question)
        near = self._known.table.nearness(asked.whole)
        found: list[Opinions] = [{"near": float(near[self._place(one)])} for one in passages]
        if self._asked is None:
            return found
        reads = partial(reader.opinions, *self._read) if self._read else None
        more = self._asked.opinions(question, asked, passages, self._known.paragraphs, reads)
        return [first | second for first, second in zip(found, more, strict=True)]

    def opine(self, question: str, passages: Sequence[Passage]) -> list[Opinions]:
        """What is said by looking at question and paragraph word for word, and by reading both."""
        texts = [self._known.paragraphs.texts[self._place(one)] for one in passages]
        found: list[Opinions] = [{"opinion": one} for one in self._known.encoder.judge(question, texts)]
        if self._read is None:
            return found
        said = reader.opinions(*self._read, question, texts)
        return [first | {"reads": one} for first, one in zip(found, said, strict=True)]

    def _encoded(self, question: str) -> Encoded:
        return self._question(question)

    def _place(self, passage: Passage) -> int:
        return self._known.paragraphs.place(passage)


def open_judge(folder: Path, known: Library, without: Collection[str] = ()) -> tuple[Decision, Judge]:
    """The judge that the folder has, and where its decision starts from. Raises ConfigError."""
    file = folder / library.ADAPTER / library.READER
    read = reader.load(known.encoder, file) if file.is_file() else None
    judge = Meaning(known, read, without)
    start = BY_LESSONS if read and known.asked is not None else BY_MEANING
    return start, Judge(judge.opine, judge.glance, judge.near)
