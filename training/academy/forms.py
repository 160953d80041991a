"""How the specialist is asked: the same words in training, at query time and in the report.

Three forms: whether a passage answers a question (yes or no), an answer from numbered passages, and a
question alone. Whatever a passage says stands between marks and is data, never an instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.passages import Passage
from training.chatml import MARKS, Message

SYSTEM = "You answer from documents."
YES, NO = "yes", "no"
PASSAGE_WORDS = 80
_HEADING = 60  # characters


def judging(question: str, passage: Passage) -> list[Message]:
    """Does this passage answer the question?"""
    return _asked(f"{shown(passage)}\n\nQuestion: {question}\nDoes the passage answer it, yes or no?")


def answering(question: str, passages: Sequence[Passage]) -> list[Message]:
    """An answer with the number of its passage, or that there is none."""
    listed = "\n".join(f"[{number}] {shown(one)}" for number, one in enumerate(passages, 1))
    return _asked(
        f"{listed}\n\nQuestion: {question}\nAnswer with the passage's number, or say it is not there."
    )


def closed(question: str) -> list[Message]:
    """The question alone."""
    return _asked(question)


def shown(passage: Passage) -> str:
    """A passage as the model sees it: what it explains, its words, no marks of a conversation."""
    heading = passage.heading.rpartition(" > ")[2][:_HEADING]
    term = f"{passage.term[:100]}: " if passage.term else ""
    return clean(f"<{heading}> {term}{' '.join(passage.text.split()[:PASSAGE_WORDS])}")


def clean(text: str) -> str:
    """The text without anything that a model takes for a turn of the conversation."""
    for mark in MARKS:
        if mark in text:
            text = text.replace(mark, " ")
    return text


def _asked(text: str) -> list[Message]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
