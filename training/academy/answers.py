"""A question's way to its answer: retrieve, judge, decide, cite.

The answer is always words of a passage, never the model's own, so the page that is cited can be looked up.
Below the threshold nothing is answered (`training.academy.decision`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from models.passages import Hit, Index, Passage
from models.terms import language
from training.academy.decision import SURE, Decision, Judge, Opinions, choose, weigh
from training.academy.facts import absent

_HEADING = 80  # characters
CLOSELY = 2  # passages looked at closely for each that words are to find
READ = 8  # paragraphs that a general model chooses among
# Which of the texts answers the question (None: none does) and how sure that is; None: it did not say.
Reads = Callable[[str, Sequence[str]], "Choice | None"]


class Choice(NamedTuple):
    """What somebody who read some paragraphs says: which one answers, None if none does, and how sure."""

    at: int | None
    sure: float


class Sections(Protocol):
    """What knows the passages of a section: an index, or what has them in memory."""

    def section(self, one: Passage) -> Sequence[Passage]:
        """The passages of its section in their order."""


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
    question: str,
    index: Index,
    judge: Judge | None,
    decision: Decision,
    *,
    passages: int,
    words: int,
    sure: float = SURE,
    reads: Reads | None = None,
) -> Answer:
    """The best answer that the documents give, or that they give none that is at least so `sure`.

    With `reads`, that chooses among the best paragraphs, and says whether one answers at all.
    """
    hits = index.search(question, passages, judge.near(question) if judge else ())
    ranked = rank(question, hits, judge, decision, CLOSELY * passages)
    if reads:
        ranked = _read(question, ranked, index, words, reads)
    if not ranked or ranked[0][0] < sure:
        lang = language(question) or (hits[0].passage.lang if hits else "en")
        best = ranked[0] if ranked else (0.0, None)
        return Answer(question, absent(lang), found=False, confidence=best[0], passage=best[1])
    confidence, best_passage = ranked[0]
    others = tuple(one for _, one in ranked[1:3])
    return Answer(
        question,
        compose(best_passage, index, words),
        found=True,
        confidence=confidence,
        passage=best_passage,
        others=others,
    )


def rank(
    question: str, hits: Sequence[Hit], judge: Judge | None, decision: Decision, count: int
) -> list[tuple[float, Passage]]:
    """The `count` best passages with the probability that they answer, the best first."""
    opinions: list[Opinions] | None = None
    if judge and hits:
        glanced = judge.glance(question, [hit.passage for hit in hits])
        chosen = choose(decision, question, hits, glanced, count)
        hits = [hits[at] for at in chosen]
        closely = judge.opine(question, [hit.passage for hit in hits])
        opinions = [glanced[at] | more for at, more in zip(chosen, closely, strict=True)]
    weighed = weigh(decision, question, hits, opinions)
    pairs = sorted(zip(weighed, hits, strict=True), key=lambda pair: -pair[0].order)
    return [(one.sure, hit.passage) for one, hit in pairs]


def _read(
    question: str, ranked: list[tuple[float, Passage]], index: Sections, words: int, reads: Reads
) -> list[tuple[float, Passage]]:
    """The order and sureness that reading the first paragraphs gives; as they were where nothing was said."""
    first: dict[str, tuple[float, Passage]] = {}
    for pair in ranked:
        first.setdefault(shown(pair[1], index, words), pair)
        if len(first) == READ:
            break
    said = reads(question, list(first)) if first else None
    if said is None:
        return ranked
    pairs = list(first.values())
    if said.at is None:
        return [(0.0, one) for _, one in pairs]
    chosen = pairs.pop(said.at)
    return [(said.sure, chosen[1]), *pairs]


def compose(passage: Passage, index: Sections, words: int) -> str:
    """The passage with what stands around it in its section and on its page, nearest first, up to `words`.

    What a piece explains is said where that changes.
    """
    around = [one for one in index.section(passage) if one.page == passage.page]
    first = last = [one.id for one in around].index(passage.id)
    text = _joined(around[first : last + 1])
    grown = True
    while grown:
        grown = False
        for before, after in ((0, 1), (1, 0)):
            start, end = first - before, last + after
            if start >= 0 and end < len(around):
                longer = _joined(around[start : end + 1])
                if len(longer.split()) <= words:
                    first, last, text, grown = start, end, longer, True
    if len(text.split(" ")) > 2 * words:
        return " ".join(text.split(" ")[: 2 * words]) + " ..."
    return text


def shown(passage: Passage, index: Sections, words: int) -> str:
    """What would be answered by it, under its heading: this is what is judged and read."""
    return f"{passage.heading.rpartition(' > ')[2][:_HEADING]}. {compose(passage, index, words)}"


def _joined(pieces: Sequence[Passage]) -> str:
    said, term = [], ""
    for one in pieces:
        said.append(f"{one.term.rstrip(':')}: {one.text}" if one.term and one.term != term else one.text)
        term = one.term
    return " ".join(said)
