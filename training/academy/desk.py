"""A specialist opened for questions: its index, its judge if it was trained, its decision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.passages import Index
from training.academy import diploma, library
from training.academy.answers import Answer, Reads, answer
from training.academy.decision import RETRIEVAL, Decision, Judge
from training.academy.settings import Querying

if TYPE_CHECKING:
    from training.academy.meaning import Library

_ANEW = "hauswart academy train --resume"
Tell = Callable[[str], None]
Ask = Callable[[str], Answer]


def open_library(folder: Path, name: str, index: Index, words: int, tell: Tell) -> Library | None:
    """What the encoder of that name knows of the documents; None without a name. Raises ConfigError."""
    if not name:
        return None
    from training.academy import encoder, meaning  # noqa: PLC0415 - torch takes seconds

    return meaning.Library(folder, index, encoder.load(name), words, tell)


def open_judge(
    folder: Path, known: Library | None, *, without: Collection[str] = ()
) -> tuple[Decision, Judge]:
    """The encoder as judge, or without one the specialist itself; where its decision starts from.

    `without`: questions of lessons that the judge is not to know. Raises ConfigError.
    """
    if known is None:
        from training.academy import specialist  # noqa: PLC0415 - torch takes seconds

        return RETRIEVAL, Judge(specialist.load(folder / library.ADAPTER).opine)
    from training.academy import meaning  # noqa: PLC0415

    return meaning.open_judge(folder, known, without)


@contextmanager
def opened(
    folder: Path, settings: Querying, *, model: bool, tell: Tell, reads: Reads | None = None
) -> Iterator[Ask]:
    """What answers questions. Raises ConfigError, IntegrityError for an adapter that was changed.

    Without `model`, or before it was trained, retrieval alone decides; with `reads`, that has the last word.
    """
    judge: Judge | None = None
    decision = RETRIEVAL
    card = library.read_card(folder)
    if card.get("stale"):
        tell(f"{folder.name}: {card['stale']}")
    with Index(folder / library.INDEX) as index:
        found = card.get("decision") or {}
        if model and not (folder / library.ADAPTER / diploma.MANIFEST).is_file():
            tell(f"{folder.name} was not trained yet; retrieval alone answers")
        elif model and found and "scale" not in found:
            tell(f"{folder.name} was trained by an older version; retrieval alone answers until {_ANEW}")
        elif model:
            diploma.verify(folder)
            known = open_library(folder, card.get("judge", ""), index, settings.words, tell)
            decision, judge = open_judge(folder, known)
            decision = msgspec.convert(found, Decision) if found else decision
        yield lambda question: answer(
            question,
            index,
            judge,
            decision,
            passages=settings.passages,
            words=settings.words,
            sure=settings.sure,
            reads=reads,
        )
