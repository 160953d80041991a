"""A specialist opened for questions: its index, its judge if it was trained, its decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from models.passages import Index, Passage
from training.academy import diploma, library
from training.academy.answers import Answer, answer, shown
from training.academy.decision import BY_MEANING, RETRIEVAL, Decision, Judge
from training.academy.settings import Querying

NEAR = 3  # sections that are looked at beside what the words find
Tell = Callable[[str], None]
Ask = Callable[[str], Answer]


def open_judge(folder: Path, name: str, index: Index, words: int, tell: Tell) -> tuple[Decision, Judge]:
    """The encoder of that name, or without one the specialist itself; where its decision starts from."""
    if not name:
        from training.academy import specialist  # noqa: PLC0415 - torch takes seconds

        return RETRIEVAL, Judge(specialist.load(folder / library.ADAPTER).judge)
    from training.academy import encoder, outline  # noqa: PLC0415 - torch takes seconds

    known = encoder.load(name)
    sections = outline.open_outline(folder, index, known, tell)

    def opine(asked: str, passages: Sequence[Passage]) -> list[float]:
        return known.judge(asked, [shown(one, index, words) for one in passages])

    return BY_MEANING, Judge(opine, lambda asked: sections.nearest(known.question(asked).whole, NEAR))


@contextmanager
def opened(folder: Path, settings: Querying, *, model: bool, tell: Tell) -> Iterator[Ask]:
    """What answers questions. Raises ConfigError, IntegrityError for an adapter that was changed.

    Without `model`, or before it was trained, retrieval alone decides.
    """
    judge: Judge | None = None
    decision = RETRIEVAL
    card = library.read_card(folder)
    if card.get("stale"):
        tell(f"{folder.name}: {card['stale']}")
    with Index(folder / library.INDEX) as index:
        if model and (folder / library.ADAPTER / diploma.MANIFEST).is_file():
            diploma.verify(folder)
            decision, judge = open_judge(folder, card.get("judge", ""), index, settings.words, tell)
            if found := card.get("decision"):
                decision = msgspec.convert(found, Decision)
        elif model:
            tell(f"{folder.name} was not trained yet; retrieval alone answers")
        yield lambda question: answer(
            question,
            index,
            judge,
            decision,
            passages=settings.passages,
            words=settings.words,
            sure=settings.sure,
        )
