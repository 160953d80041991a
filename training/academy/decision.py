"""Which passage is taken for the answer, and when none is: retrieval's score and the judge's opinions.

What the judge says is compared with what it says of lessons that were kept back, since each judge has a
scale of its own. What orders passages and from when on it is answered was fitted to the development questions
(`questions/development.jsonl`); models fitted to the documents' own facts were worse on these: their words
are the document's, an operator's are not.
"""

from __future__ import annotations

import math
import random
import re
import statistics
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
_SCALED_BY = (
    40  # opinions at least; with fewer the scales are those of the documents that weights were fitted on
)
Opinions = dict[str, float]  # of one passage, by name
Opine = Callable[[str, Sequence[Passage]], list[Opinions]]
Tell = Callable[[str], None]
Weights = Mapping[str, float]
# Of a causal specialist, and of retrieval alone: its score, a default stated where one is asked for.
_BY_SCORE = {"score": 1.0, "cue": 0.4, "opinion": 0.15}
_SURE_BY_SCORE = {"order": 3.0, "": -7.35}


def _nowhere(_question: str) -> list[int]:
    return []


def _nothing(_question: str, passages: Sequence[Passage]) -> list[Opinions]:
    return [{} for _ in passages]


class Judge(NamedTuple):
    """Its opinions of passages, at a glance of many, closely of few; where it looks beside the words."""

    opine: Opine
    glance: Opine = _nothing
    near: Callable[[str], list[int]] = _nowhere


class Weighed(NamedTuple):
    """A passage's place in the order, and how sure it is that it answers: answered is from 0.5 on."""

    order: float
    sure: float


class Decision(msgspec.Struct, frozen=True):
    """The judge's own scales, and weights.

    `first` orders at a glance, `order` what was looked at closely, `sure` says how sure the first of that is
    ("": added in any case).
    """

    scale: dict[str, tuple[float, float]] = {}  # mean and spread of each opinion
    first: dict[str, float] = msgspec.field(default_factory=lambda: dict(_BY_SCORE))
    order: dict[str, float] = msgspec.field(default_factory=lambda: dict(_BY_SCORE))
    sure: dict[str, float] = msgspec.field(default_factory=lambda: dict(_SURE_BY_SCORE))
    figures: dict[str, float] = {}


RETRIEVAL = Decision(scale={"opinion": (0.0, 2.0)})
# Of an encoder: fitted so that nine of ten development questions stay without an answer that are near the
# documents' topics and have none. The scales are those of multilingual-e5-small on these documents.
BY_MEANING = Decision(
    scale={"near": (0.839, 0.0253), "opinion": (0.798, 0.0336)},
    first={"score": 1.9, "near": 1.58, "named": 0.32, "cue": 0.38, "number": 0.43},
    order={"score": 1.48, "opinion": 1.6, "near": 0.51, "named": 0.25, "cue": 0.35, "number": 0.48},
    sure={"score": 0.13, "opinion": 0.75, "near": 0.32, "share": 2.38, "missing": -0.41, "": -3.91},
)
# With a teacher's lessons and a reader that was trained on them: fitted to 220 questions about what
# was taught, so that more than nine of ten stay without an answer that have none. The scales are of there.
BY_LESSONS = Decision(
    scale={
        "near": (0.8402, 0.0301),
        "opinion": (0.7977, 0.035),
        "asked": (0.7842, 0.0321),
        "asked_around": (0.7864, 0.0354),
        "open": (0.7776, 0.0276),
        "reads": (-1.617, 1.7),
        "told": (-3.6, 1.31),
        "told_around": (-3.494, 1.44),
    },
    first={
        "score": 0.4,
        "near": 0.47,
        "named": 0.17,
        "asked": 0.98,
        "asked_around": 0.42,
        "told": 0.67,
        "told_around": 0.36,
    },
    order={
        "score": 0.27,
        "opinion": 0.42,
        "near": 0.18,
        "named": 0.14,
        "asked": 0.91,
        "asked_around": 0.37,
        "told": 0.54,
        "told_around": 0.26,
        "reads": 0.48,
    },
    sure={
        "order": 0.72,
        "score": -0.86,
        "opinion": -0.17,
        "near": 0.28,
        "share": 0.54,
        "missing": -0.24,
        "asked": 0.49,
        "asked_around": 0.11,
        "open": -0.51,
        "told": 0.32,
        "told_around": 0.29,
        "reads": -0.2,
        "": -5.6,
    },
)


def choose(
    decision: Decision, question: str, hits: Sequence[Hit], opinions: Sequence[Opinions], count: int
) -> list[int]:
    """The places of those that are worth a closer look, the best first."""
    described = describe(decision, question, hits, opinions)
    orders = [_sum(decision.first, features) for features in described]
    return sorted(range(len(hits)), key=lambda at: -orders[at])[:count]


def weigh(
    decision: Decision, question: str, hits: Sequence[Hit], opinions: Sequence[Opinions] | None
) -> list[Weighed]:
    """For each hit its place in the order and how probable it holds the answer."""
    described = describe(decision, question, hits, opinions or [{} for _ in hits])
    orders = [_sum(decision.order, features) for features in described]
    found = []
    for features, order, share in zip(described, orders, _shares(hits, orders), strict=True):
        sure = _sum(decision.sure, features | {"order": order, "share": share, "": 1.0})
        found.append(Weighed(order, 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, sure))))))
    return found


def describe(
    decision: Decision, question: str, hits: Sequence[Hit], opinions: Sequence[Opinions]
) -> list[dict[str, float]]:
    """What is known of each hit, by name."""
    found = []
    for hit, said in zip(hits, opinions, strict=True):
        known = {name: _scaled(decision, name, value) for name, value in said.items()}
        known |= {"score": hit.score, "missing": _missing(question, hit.passage)}
        known |= {"named": _named(question, hit.passage), "cue": _cue(question, hit.passage)}
        found.append(known | {"number": hit.features[FEATURES.index("number")]})
    return found


def _scaled(decision: Decision, name: str, value: float) -> float:
    mean, spread = decision.scale.get(name, (0.0, 1.0))
    return (value - mean) / spread


def _shares(hits: Sequence[Hit], orders: Sequence[float]) -> list[float]:
    """For each hit the share that its section has of all, by how far before the others it is put."""
    weights = [math.exp(one - max(orders)) for one in orders]
    sections: dict[int, float] = {}
    for hit, weight in zip(hits, weights, strict=True):
        sections[hit.passage.section] = sections.get(hit.passage.section, 0.0) + weight
    return [sections[hit.passage.section] / sum(weights) for hit in hits]


def _sum(weights: Weights, features: Mapping[str, float]) -> float:
    return sum(weight * features.get(name, 0.0) for name, weight in weights.items())


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
    """`start` on this judge's scales by up to `count` lessons, and what the decision is on these."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    cases = []
    total, started = min(count, len(lessons)), time.monotonic()
    for number, case in enumerate(_cases(lessons[:count], index, judge, passages, source)):
        if number and number % 20 == 0:
            left_s = (time.monotonic() - started) / number * (total - number)
            tell(f"calibrating: {number} of {total}, about {left_s:.0f} s more")
        cases.append((case, _opinions(judge, case)))
    scale = start.scale | _scales([one for _, said in cases for one in said])
    found = msgspec.structs.replace(start, scale=scale)
    return msgspec.structs.replace(found, figures=_figures(found, cases))


class _Case(NamedTuple):
    """A question, what retrieval finds, whether it is right."""

    question: str
    hits: list[Hit]
    right: list[bool]


def _opinions(judge: Judge, case: _Case) -> list[Opinions]:
    some = [hit.passage for hit in case.hits]
    if not some:
        return []
    return [
        first | more
        for first, more in zip(
            judge.glance(case.question, some), judge.opine(case.question, some), strict=True
        )
    ]


def _scales(said: Sequence[Opinions]) -> dict[str, tuple[float, float]]:
    """Mean and spread of each opinion; of too few, none."""
    if len(said) < _SCALED_BY:
        return {}
    values = {name: [one[name] for one in said] for name in said[0]}
    return {
        name: (statistics.fmean(some), max(_SPREAD_LEAST, statistics.pstdev(some)))
        for name, some in values.items()
    }


def _cases(
    lessons: Sequence[Lesson], index: Index, judge: Judge, passages: int, source: random.Random
) -> Iterator[_Case]:
    """Of the lessons, each second as if its section were not there."""
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
        right = [not hidden and (hit.passage.id == gold.id or _holds(hit.passage, row)) for hit in hits]
        yield _Case(question, hits, right)


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


def _figures(decision: Decision, cases: Sequence[tuple[_Case, Sequence[Opinions]]]) -> dict[str, float]:
    there, absent = [], []
    for case, opinions in cases:
        weighed = weigh(decision, case.question, case.hits, opinions)
        best = max(range(len(weighed)), key=lambda at: weighed[at].order, default=-1)
        if any(case.right):
            there.append((weighed[best].sure, case.right[best]))
        else:
            absent.append(weighed[best].sure if case.hits else 0.0)
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
