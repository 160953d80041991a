"""Which passage is taken for the answer, and when none is: retrieval's score and the judge's opinions.

What the judge says is compared with what it says of lessons that it was not trained on, since each judge has
a scale of its own. What orders passages and from when on it is answered was fitted to the development
questions (`questions/development.jsonl`); models fitted to lessons were worse on these: their words are the
document's, an operator's are not.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from models.passages import FEATURES, Hit, Index, Passage
from models.terms import STOP, language
from training.academy.lessons import Lesson

KEPT = 0.7  # of a lesson's words, so that it is not the document's wording alone
_ASKS_DEFAULT = re.compile(r"\b(?:default|standard\w*|voreingestell\w*|voreinstellung)\b", re.IGNORECASE)
_SAYS_DEFAULT = re.compile(
    r"\b(?:defaults? (?:to|is|value)|by default|the default|standardmäßig|voreinstellung|voreingestellt)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[\w./+-]*\w")
_IDENTIFIER = re.compile(r"[a-z][A-Z]|/|_|\d|-\w|\w\.\w")
_SPREAD_LEAST = 1e-3
_SPARE = 8  # passages looked at in place of those that are taken for absent
SURE = 0.5  # from which is answered, unless the configuration says otherwise
_USUAL = (0.0, 2.0)  # mean and spread of opinions where none could be measured
Opine = Callable[[str, Sequence[Passage]], list[float]]
Tell = Callable[[str], None]
Weights = Mapping[str, float]
# Of a causal specialist, and of retrieval alone: its score, a default stated where one is asked for.
_BY_SCORE = {"score": 1.0, "cue": 0.4, "opinion": 0.15}
_SURE_BY_SCORE = {"order": 3.0, "": -7.35}


def _nowhere(_question: str) -> list[int]:
    return []


class Judge(NamedTuple):
    """Its opinion of each passage, and the sections where it would look beside what the words find."""

    opine: Opine
    near: Callable[[str], list[int]] = _nowhere


class Weighed(NamedTuple):
    """A passage's place in the order, and how sure it is that it answers: answered is from 0.5 on."""

    order: float
    sure: float


class Decision(msgspec.Struct, frozen=True):
    """The judge's own scale, what orders passages, what makes sure ("": added in any case)."""

    mean: float = 0.0
    spread: float = 1.0
    order: dict[str, float] = msgspec.field(default_factory=lambda: dict(_BY_SCORE))
    sure: dict[str, float] = msgspec.field(default_factory=lambda: dict(_SURE_BY_SCORE))
    figures: dict[str, float] = {}


RETRIEVAL = Decision()
# Of an encoder: fitted so that nine of ten development questions stay without an answer that are near the
# documents' topics and have none.
BY_MEANING = Decision(
    order={"score": 1.09, "opinion": 2.17, "named": 2.02, "cue": 0.96, "number": 1.4},
    sure={"score": 0.3, "opinion": 1.11, "share": 2.61, "missing": -1.28, "": -3.87},
)


def weigh(
    decision: Decision, question: str, hits: Sequence[Hit], opinions: Sequence[float] | None
) -> list[Weighed]:
    """For each hit its place in the order and how probable it holds the answer."""
    said = opinions if opinions is not None else [decision.mean] * len(hits)
    scaled = [(one - decision.mean) / decision.spread for one in said]
    described = describe(question, hits, scaled)
    orders = [_sum(decision.order, features) for features in described]
    found = []
    for features, order, share in zip(described, orders, _shares(hits, orders), strict=True):
        sure = _sum(decision.sure, features | {"order": order, "share": share, "": 1.0})
        found.append(Weighed(order, 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, sure))))))
    return found


def describe(question: str, hits: Sequence[Hit], opinions: Sequence[float]) -> list[dict[str, float]]:
    """What is known of each hit, by name."""
    found = []
    for hit, opinion in zip(hits, opinions, strict=True):
        named, cue = _named(question, hit.passage), _cue(question, hit.passage)
        number = hit.features[FEATURES.index("number")]
        known = {"score": hit.score, "opinion": opinion, "missing": _missing(question, hit.passage)}
        found.append(known | {"named": named, "cue": cue, "number": number})
    return found


def _shares(hits: Sequence[Hit], orders: Sequence[float]) -> list[float]:
    """For each hit the share that its section has of all, by how far before the others it is put."""
    weights = [math.exp(one - max(orders)) for one in orders]
    sections: dict[int, float] = {}
    for hit, weight in zip(hits, weights, strict=True):
        sections[hit.passage.section] = sections.get(hit.passage.section, 0.0) + weight
    return [sections[hit.passage.section] / sum(weights) for hit in hits]


def _sum(weights: Weights, features: Mapping[str, float]) -> float:
    return sum(weight * features[name] for name, weight in weights.items())


def _cue(question: str, passage: Passage) -> float:
    return float(bool(_ASKS_DEFAULT.search(question) and _SAYS_DEFAULT.search(passage.text)))


def _named(question: str, passage: Passage) -> float:
    """Whether the question names the document, as "loginctl" does loginctl.1."""
    return float(passage.document.partition(".")[0].lower() in re.findall(r"[\w-]+", question.lower()))


def _missing(question: str, passage: Passage) -> float:
    """How many names the question has that neither the passage nor its headings or its document have."""
    around = f" {_plain(f'{passage.text} {passage.term} {passage.heading} {passage.document}')} "
    return float(sum(_plain(name) not in around for name in names(question)))


def names(question: str) -> list[str]:
    """What is called by its name: identifiers, paths, versions, abbreviations; in English, capitals too.

    The first word is no name for being capitalised, and in German no word is.
    """
    english = language(question) != "de"
    return [
        word
        for place, word in enumerate(_WORD.findall(question))
        if _IDENTIFIER.search(word)
        or (len(word) > 1 and word.isupper())
        or (english and place and word[0].isupper())
    ]


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def calibrate(
    lessons: Sequence[Lesson],
    index: Index,
    judge: Judge,
    start: Decision,
    *,
    passages: int,
    count: int,
    seed: int,
    tell: Tell,
) -> Decision:
    """`start` on this judge's scale by up to `count` lessons, and what the decision is on these."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    cases = []
    total, started = min(count, len(lessons)), time.monotonic()
    for number, (question, hits, right) in enumerate(_cases(lessons[:count], index, judge, passages, source)):
        if number and number % 20 == 0:
            left_s = (time.monotonic() - started) / number * (total - number)
            tell(f"calibrating: {number} of {total}, about {left_s:.0f} s more")
        cases.append(
            (question, hits, judge.opine(question, [hit.passage for hit in hits]) if hits else [], right)
        )
    mean, spread = _scale([one for _, _, opinions, _ in cases for one in opinions])
    found = msgspec.structs.replace(start, mean=mean, spread=spread)
    return msgspec.structs.replace(found, figures=_figures(found, cases))


def _scale(said: Sequence[float]) -> tuple[float, float]:
    if len(said) < 8:
        return _USUAL
    mean = sum(said) / len(said)
    return mean, max(_SPREAD_LEAST, math.sqrt(sum((one - mean) ** 2 for one in said) / len(said)))


def _cases(
    lessons: Sequence[Lesson], index: Index, judge: Judge, passages: int, source: random.Random
) -> Iterator[tuple[str, list[Hit], list[bool]]]:
    """Questions, what retrieval finds, whether it is right; each second as if its section were not there."""
    known = {one.id: one for one in index.passages({row["passage"] for row in lessons})}
    for number, row in enumerate(lessons):
        gold = known[row["passage"]]
        question = reword(row["question"], gold.term, source)
        hidden = number % 2 == 1 or not row["answer"]
        found = index.search(question, passages + _SPARE, judge.near(question))
        if hidden and row["answer"]:
            found = [
                hit for hit in found if not (hit.passage.section == gold.section or _holds(hit.passage, row))
            ]
        hits = [*found[:passages], *found[passages + _SPARE :]]
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
        weighed = weigh(decision, question, hits, opinions)
        best = max(range(len(weighed)), key=lambda at: weighed[at].order, default=-1)
        if any(right):
            there.append((weighed[best].sure, right[best]))
        else:
            absent.append(weighed[best].sure if hits else 0.0)
    answered = [right for one, right in there if one >= SURE]
    return {
        "answerable": float(len(there)),
        "unanswerable": float(len(absent)),
        "first_right": sum(right for _, right in there) / max(1, len(there)),
        "answered": len(answered) / max(1, len(there)),
        "answered_right": sum(answered) / max(1, len(answered)),
        "abstained": sum(one < SURE for one in absent) / max(1, len(absent)),
    }


__all__ = ["RETRIEVAL", "Decision", "calibrate", "reword", "weigh"]
