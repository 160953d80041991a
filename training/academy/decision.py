"""Which passage is taken for the answer, and when none is: retrieval's score and the specialist's opinion.

What the specialist says is compared with what it says of lessons that it was not trained on, since each
adapter has a scale of its own. How much it then counts, and from which sum on it is answered, was chosen on
the development questions (`questions/development.jsonl`); a logistic model of all features, fitted to lessons
alone, was worse on these: their words are the document's, an operator's are not.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from models.passages import Hit, Index, Passage
from models.terms import STOP
from training.academy.lessons import Lesson

KEPT = 0.7  # of a lesson's words, so that it is not the document's wording alone
OPINION_WEIGHT = 0.15  # of a standard deviation of the specialist's opinion, in units of retrieval's score
SUM_LEAST = 2.45  # from which a passage is taken for the answer
CUE = 0.4  # for a passage that states a default where one is asked for
_ASKS_DEFAULT = re.compile(r"\b(?:default|standard\w*|voreingestell\w*|voreinstellung)\b", re.IGNORECASE)
_SAYS_DEFAULT = re.compile(
    r"\b(?:defaults? (?:to|is|value)|by default|the default|standardmäßig|voreinstellung|voreingestellt)\b",
    re.IGNORECASE,
)
_STEEP = 3.0  # of the probability that is shown
_USUAL = (0.0, 2.0)  # mean and spread of opinions where none could be measured
Judge = Callable[[str, Sequence[Passage]], list[float]]
Tell = Callable[[str], None]


class Decision(msgspec.Struct, frozen=True):
    """The specialist's own scale, how much it counts, the sum to reach; `figures` on lessons kept back."""

    mean: float = 0.0
    spread: float = 1.0
    weight: float = OPINION_WEIGHT
    least: float = SUM_LEAST
    figures: dict[str, float] = {}

    @property
    def threshold(self) -> float:
        """The probability from which is answered."""
        return 0.5


RETRIEVAL = Decision(weight=0.0)


def weigh(
    decision: Decision, question: str, hits: Sequence[Hit], opinions: Sequence[float] | None
) -> list[float]:
    """The probability of each hit to hold the answer."""
    said = opinions if opinions is not None else [decision.mean] * len(hits)
    sums = [
        hit.score + decision.weight * (yes - decision.mean) / decision.spread + _cue(question, hit.passage)
        for hit, yes in zip(hits, said, strict=True)
    ]
    return [1.0 / (1.0 + math.exp(-_STEEP * (one - decision.least))) for one in sums]


def _cue(question: str, passage: Passage) -> float:
    return CUE if _ASKS_DEFAULT.search(question) and _SAYS_DEFAULT.search(passage.text) else 0.0


def calibrate(
    lessons: Sequence[Lesson], index: Index, judge: Judge, *, passages: int, count: int, seed: int, tell: Tell
) -> Decision:
    """The specialist's scale by up to `count` lessons, and what the decision is on these."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    cases = []
    for number, (question, hits, right) in enumerate(_cases(lessons[:count], index, passages, source)):
        if number and number % 20 == 0:
            tell(f"calibrating: {number} of {min(count, len(lessons))}")
        cases.append((question, hits, judge(question, [hit.passage for hit in hits]) if hits else [], right))
    mean, spread = _scale([one for _, _, opinions, _ in cases for one in opinions])
    found = Decision(mean, spread)
    return msgspec.structs.replace(found, figures=_figures(found, cases))


def _scale(said: Sequence[float]) -> tuple[float, float]:
    if len(said) < 8:
        return _USUAL
    mean = sum(said) / len(said)
    return mean, max(0.1, math.sqrt(sum((one - mean) ** 2 for one in said) / len(said)))


def _cases(
    lessons: Sequence[Lesson], index: Index, passages: int, source: random.Random
) -> Iterator[tuple[str, list[Hit], list[bool]]]:
    """Questions, what retrieval finds, whether it is right; each second as if its section were not there."""
    known = {one.id: one for one in index.passages({row["passage"] for row in lessons})}
    for number, row in enumerate(lessons):
        gold = known[row["passage"]]
        question = reword(row["question"], gold.term, source)
        hidden = number % 2 == 1 or not row["answer"]
        found = index.search(question, passages + 8)
        if hidden and row["answer"]:
            found = [
                hit for hit in found if not (hit.passage.section == gold.section or _holds(hit.passage, row))
            ]
        hits = found[:passages]
        yield (
            question,
            hits,
            [not hidden and (hit.passage.id == gold.id or _holds(hit.passage, row)) for hit in hits],
        )


def _holds(passage: Passage, row: Lesson) -> bool:
    answer = row["answer"].rpartition(": ")[2].lower()
    return len(answer.split()) > 4 and answer in passage.text.lower()


def reword(question: str, term: str, source: random.Random) -> str:
    """The question without some of its telling words, as somebody asks who has not read the document."""
    stop = STOP["en"] | STOP["de"]
    kept = [
        word for word in question.split() if word.lower() in stop or word in term or source.random() < KEPT
    ]
    return " ".join(kept)


def _figures(
    decision: Decision, cases: Sequence[tuple[str, list[Hit], list[float], list[bool]]]
) -> dict[str, float]:
    there, absent = [], []
    for question, hits, opinions, right in cases:
        sure = weigh(decision, question, hits, opinions)
        best = max(range(len(sure)), key=sure.__getitem__, default=-1)
        if any(right):
            there.append((sure[best], right[best]))
        else:
            absent.append(sure[best] if hits else 0.0)
    answered = [right for one, right in there if one >= decision.threshold]
    return {
        "answerable": float(len(there)),
        "unanswerable": float(len(absent)),
        "first_right": sum(right for _, right in there) / max(1, len(there)),
        "answered": len(answered) / max(1, len(there)),
        "answered_right": sum(answered) / max(1, len(answered)),
        "abstained": sum(one < decision.threshold for one in absent) / max(1, len(absent)),
    }


__all__ = ["RETRIEVAL", "Decision", "calibrate", "reword", "weigh"]
