"""When a passage is taken for the answer: a logistic model of retrieval's and the specialist's opinion.

Calibrated on lessons of sections that were not trained on, with some of their words left out, since an
operator words it otherwise. Half of them are asked as if their section were not there: those must not be
answered.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from models.passages import FEATURES, Hit, Index, Passage
from models.terms import STOP
from training.academy.lessons import Lesson
from training.academy.specialist import Opinion

KEPT = 0.7  # of a question's words; chosen on the development questions
FALSE_ANSWERS = 0.1  # of questions that the documents do not answer, at most; the others decide what is left
OPINIONS = ("yes", "question")
CONTEXT = ("first", "lead", "best")  # whether retrieval put it first, by how much, the best score of all
Judge = Callable[[str, Sequence[Passage]], list[Opinion]]
Tell = Callable[[str], None]


class Decision(msgspec.Struct, frozen=True):
    """Weights by feature name, the intercept, and the probability from which it is answered."""

    weights: dict[str, float]
    intercept: float
    threshold: float
    figures: dict[str, float] = {}


# Without calibration: retrieval's own score decides, with the threshold of the development questions.
UNCALIBRATED = Decision({"score": 2.0}, -4.0, 0.5)


def features(hits: Sequence[Hit], opinions: Sequence[Opinion] | None) -> list[dict[str, float]]:
    """The features of each hit by name."""
    best = hits[0].score if hits else 0.0
    found = []
    for place, hit in enumerate(hits):
        row = dict(zip(FEATURES, hit.features, strict=True)) | {"score": hit.score, "best": best}
        runner_up = max((one.score for one in hits if one is not hit), default=0.0)
        row |= {"first": float(place == 0), "lead": hit.score - runner_up}
        if opinions is not None:
            mean = sum(one.question for one in opinions) / len(opinions)
            row |= {
                "yes": opinions[place].yes,
                "question": opinions[place].question - mean,
                "likely": opinions[place].question,
            }
        found.append(row)
    return found


def weigh(decision: Decision, hits: Sequence[Hit], opinions: Sequence[Opinion] | None) -> list[float]:
    """The probability of each hit to hold the answer."""
    sums = [
        decision.intercept + sum(weight * row.get(name, 0.0) for name, weight in decision.weights.items())
        for row in features(hits, opinions)
    ]
    return [1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, one)))) for one in sums]


def calibrate(
    lessons: Sequence[Lesson],
    index: Index,
    judge: Judge | None,
    *,
    passages: int,
    count: int,
    seed: int,
    tell: Tell,
) -> Decision:
    """Weights and threshold from up to `count` lessons; what they are on these is in `figures`."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    groups = list(_groups(lessons, index, judge, passages=passages, count=count, source=source, tell=tell))
    names = sorted({name for rows, _ in groups for row in rows for name in row})
    usable = [
        (np.array([[row[name] for name in names] for row in rows]), np.array(labels))
        for rows, labels in groups
        if rows
    ]
    if sum(int(labels.sum()) for _, labels in usable) < 8:
        tell("too few lessons to calibrate with; retrieval's own score decides")
        return UNCALIBRATED
    weights, intercept = _fit(
        np.concatenate([one for one, _ in usable]), np.concatenate([labels for _, labels in usable])
    )
    sure = [(1 / (1 + np.exp(-(rows @ weights + intercept))), labels) for rows, labels in usable]
    threshold, figures = _threshold(sure)
    return Decision(
        {name: float(one) for name, one in zip(names, weights, strict=True)},
        float(intercept),
        threshold,
        figures,
    )


def _groups(
    lessons: Sequence[Lesson],
    index: Index,
    judge: Judge | None,
    *,
    passages: int,
    count: int,
    source: random.Random,
    tell: Tell,
) -> Iterator[tuple[list[dict[str, float]], list[int]]]:
    known = {one.id: one for one in index.passages({row["passage"] for row in lessons})}
    for number, row in enumerate(lessons[:count]):
        if number and number % 20 == 0:
            tell(f"calibrating: {number} of {min(count, len(lessons))}")
        gold = known[row["passage"]]
        question = reword(row["question"], gold.term, source)
        hide = number % 2 == 1 or not row["answer"]
        hits = [
            hit
            for hit in index.search(question, passages + 8)
            if not hide
            or not row["answer"]
            or (hit.passage.section != gold.section and not _holds(hit.passage, row))
        ][:passages]
        opinions = judge(question, [hit.passage for hit in hits]) if judge and hits else None
        right = [int(not hide and (hit.passage.id == gold.id or _holds(hit.passage, row))) for hit in hits]
        yield features(hits, opinions), right


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


def _fit(rows: Any, labels: Any) -> tuple[Any, float]:
    """Logistic regression on standardised features, given back for the features as they are."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - seconds

    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    model = LogisticRegression(C=0.3, max_iter=1000).fit((rows - mean) / spread, labels)
    weights = model.coef_[0] / spread
    return weights, float(model.intercept_[0] - weights @ mean)


def _threshold(groups: Sequence[tuple[Any, Any]]) -> tuple[float, dict[str, float]]:
    """The lowest threshold that keeps false answers within FALSE_ANSWERS, and what it costs here."""
    absent = sorted(float(sure.max()) for sure, labels in groups if not labels.any())
    there = [(float(sure.max()), bool(labels[int(sure.argmax())])) for sure, labels in groups if labels.any()]
    at = min(len(absent) - 1, math.ceil((1 - FALSE_ANSWERS) * len(absent))) if absent else -1
    threshold = absent[at] + 1e-6 if absent else 0.5
    answered = [right for best, right in there if best >= threshold]
    figures = {
        "answerable": float(len(there)),
        "unanswerable": float(len(absent)),
        "first_right": sum(right for _, right in there) / max(1, len(there)),
        "answered": len(answered) / max(1, len(there)),
        "answered_right": sum(answered) / max(1, len(answered)),
        "abstained": sum(one < threshold for one in absent) / max(1, len(absent)),
    }
    return threshold, figures


__all__ = ["OPINIONS", "UNCALIBRATED", "Decision", "calibrate", "features", "weigh"]
