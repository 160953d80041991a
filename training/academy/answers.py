"""A question's way to its answer: retrieve, judge, decide, cite.

The answer is always words of a passage, never the model's own, so the page that is cited can be looked up.
Below the threshold nothing is answered (`training.academy.decision`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from models.passages import Hit, Index, Passage
from models.terms import language
from training.academy.decision import Decision, weigh
from training.academy.facts import absent

Judge = Callable[[str, Sequence[Passage]], list[float]]


class Answer(NamedTuple):
    """What is said. `found` False: nothing was, and `passage` is the nearest miss, if there is one."""

    question: str
    text: str
    found: bool
    confidence: float
    passage: Passage | None
    others: tuple[Passage, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The answer as JSON has it."""
        said: dict[str, Any] = {"question": self.question, "found": self.found, "answer": self.text}
        said["confidence"] = round(self.confidence, 3)
        if self.passage is not None and self.found:
            one = self.passage
            said |= {"document": one.document, "page": one.page or None, "line": one.line or None}
            said |= {"heading": one.heading, "place": one.place, "quote": one.text}
        said["see_also"] = [one.place for one in self.others]
        return said


def answer(
    question: str, index: Index, judge: Judge | None, decision: Decision, *, passages: int, words: int
) -> Answer:
    """The best answer that the documents give, or that they give none."""
    hits = index.search(question, passages)
    ranked = rank(question, hits, judge, decision)
    if not ranked or ranked[0][0] < decision.threshold:
        lang = language(question) or (hits[0].passage.lang if hits else "en")
        best = ranked[0] if ranked else (0.0, None)
        return Answer(question, absent(lang), found=False, confidence=best[0], passage=best[1])
    sure, best_passage = ranked[0]
    others = tuple(one for _, one in ranked[1:3])
    return Answer(
        question,
        compose(best_passage, index, words),
        found=True,
        confidence=sure,
        passage=best_passage,
        others=others,
    )


def rank(
    question: str, hits: Sequence[Hit], judge: Judge | None, decision: Decision
) -> list[tuple[float, Passage]]:
    """The passages with the probability that they answer, the likeliest first."""
    opinions = judge(question, [hit.passage for hit in hits]) if judge and hits else None
    sure = weigh(decision, question, hits, opinions)
    return sorted(
        ((one, hit.passage) for one, hit in zip(sure, hits, strict=True)), key=lambda pair: -pair[0]
    )


def compose(passage: Passage, index: Index, words: int) -> str:
    """The passage with the term it explains, and what goes on right after it while there is room."""
    text, last = passage.text, passage
    while (after := index.following(last)) and len(text.split()) + len(after.text.split()) <= words:
        text, last = f"{text} {after.text}", after
    if len(text.split(" ")) > 2 * words:
        text = " ".join(text.split(" ")[: 2 * words]) + " ..."
    term = passage.term.rstrip(":")
    return f"{term}: {text}" if term else text
