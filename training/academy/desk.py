"""A specialist opened for questions: its index, its adapter if it has one, its decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from models.passages import Index
from training.academy import diploma, library
from training.academy.answers import Answer, answer
from training.academy.decision import RETRIEVAL, Decision
from training.academy.settings import Querying

Tell = Callable[[str], None]
Ask = Callable[[str], Answer]


@contextmanager
def opened(folder: Path, settings: Querying, *, model: bool, tell: Tell) -> Iterator[Ask]:
    """What answers questions. Raises ConfigError, IntegrityError for an adapter that was changed.

    Without `model`, or before it was trained, retrieval alone decides.
    """
    judge, decision = None, RETRIEVAL
    card = library.read_card(folder)
    if card.get("stale"):
        tell(f"{folder.name}: {card['stale']}")
    if model and (folder / library.ADAPTER / diploma.MANIFEST).is_file():
        from training.academy import specialist  # noqa: PLC0415 - torch takes seconds

        diploma.verify(folder)
        judge = specialist.load(folder / library.ADAPTER).judge
        if found := card.get("decision"):
            decision = msgspec.convert(found, Decision)
    elif model:
        tell(f"{folder.name} was not trained yet; retrieval alone answers")
    with Index(folder / library.INDEX) as index:
        yield lambda question: answer(
            question, index, judge, decision, passages=settings.passages, words=settings.words
        )
