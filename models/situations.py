"""What the middle tier's model reads and says of a situation: `encode` makes its text, `decode` its verdict.

Training and serving share this code. It knows nothing about findings' messages, about the daemon or about the
model; numbers and names never reach the text: a number is what the detector's severity made of it, a name is
one of the slots alpha to theta, which the model answers with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.masking import mask
from models.taxonomy import FaultClass, Severity, SubjectKind

FEATURES_VERSION = 1  # raise it when the same situation gets another text

# Words that are one token each in the vocabularies of BERT's family and hardly occur in logs.
SLOT_TOKENS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
SLOTS = len(SLOT_TOKENS)
FAULTS = tuple(FaultClass)
SEVERITIES = tuple(Severity)
HEADS = {"fault_class": len(FAULTS), "severity": len(SEVERITIES), "culprit": SLOTS}
SEQUENCE = 160  # tokens; 140 on average, so that what is cut is the least of many signs

TEXT_CHARS = 900  # of the encoded text
SIGN_CHARS = 72  # of one sign's own words
SIGNS_MAX = 12
LATE_S = 10.0  # an effect is mostly seen within seconds of its cause
GUESSES = 3
SPEAKS = 0.2  # a hint below it says nothing
SLOTS_TOLD = 3

_SPACE = re.compile(r"[\s\"'`(){}\[\]|=]+")
_VALUE = re.compile(r"<\w+>|\S*\d\S*")  # masked values, and what the masking left of numbers
_STRENGTHS = ((0.7, "sure"), (0.5, "likely"), (0.3, "doubtful"), (0.0, "faint"))
_AMOUNTS = ((0.8, "surely"), (0.5, "maybe"), (0.2, "hardly"))
_EDGE = ".:,;<>-"
_LETTERS = "abcdefgh"  # of the slots while a text is masked, which takes digits for values


class Sign(NamedTuple):
    """One condition of a situation: what a rule of the low tier said about one subject."""

    rule: str  # the detector's name, e.g. "fs.used.level", "known.oom-kill", "line.novel"
    severity: Severity
    score: float  # 0..1
    hints: Mapping[FaultClass, float]  # what it speaks for, 0..1
    slots: tuple[int, ...]  # indices into View.slots, most to blame first
    text: str  # the evidence in its own words
    quoted: bool  # the words are a log line's and not the rule's own
    after_s: float  # since the situation's first sign
    over: bool = False  # the condition has ended
    excused: bool = False  # what the host was doing on purpose weighs against it


class View(NamedTuple):
    """A situation in plain data: signs, candidate culprits, contexts, and the baseline's guess."""

    signs: tuple[Sign, ...]
    slots: tuple[tuple[SubjectKind, str], ...]  # at most SLOTS, without pids, the baseline's choice first
    contexts: tuple[tuple[str, str], ...] = ()  # what the host was doing, and how that was weighed
    guesses: tuple[tuple[FaultClass, float], ...] = ()  # the baseline's classes, likeliest first


class SituationVerdict(NamedTuple):
    """What the model makes of a situation; `confidence` is the probability of its fault class."""

    fault_class: FaultClass
    class_scores: dict[FaultClass, float]
    severity: Severity
    culprits: tuple[tuple[SubjectKind, str], ...]  # all slots, likeliest first
    confidence: float
    culprit_confidence: float  # the probability of the first of them


def encode(view: View) -> str:
    """The model's text of a situation: guess, slots, contexts, then the signs, the strongest first."""
    parts = [
        _guess(view),
        " ".join(f"{SLOT_TOKENS[i]} {kind}" for i, (kind, _) in enumerate(view.slots[:SLOTS])),
    ]
    parts += [f"while {kind} {effect}" for kind, effect in dict.fromkeys(view.contexts)]
    parts += [_said(signs, view) for signs in _by_rule(view.signs)]
    return " . ".join(part for part in parts if part)[:TEXT_CHARS]


def decode(scores: Mapping[str, Sequence[float]], view: View) -> SituationVerdict:
    """The verdict from each head's probabilities; slots that the view has not are left out.

    Raises ValueError where a head is missing or has another size.
    """
    for head, size in HEADS.items():
        if len(scores.get(head, ())) != size:
            raise ValueError(f"the head {head} must have {size} probabilities")
    faults, severities = scores["fault_class"], scores["severity"]
    best = max(range(len(FAULTS)), key=lambda i: faults[i])
    shares = scores["culprit"][: len(view.slots)]
    order = sorted(range(len(shares)), key=lambda i: -shares[i])
    return SituationVerdict(
        fault_class=FAULTS[best],
        class_scores={
            fault: round(score, 4) for fault, score in zip(FAULTS, faults, strict=True) if score >= 0.01
        },
        severity=SEVERITIES[max(range(len(SEVERITIES)), key=lambda i: severities[i])],
        culprits=tuple(view.slots[i] for i in order),
        confidence=faults[best],
        culprit_confidence=shares[order[0]] if order else 0.0,
    )


def _guess(view: View) -> str:
    told = [
        f"{_grade(share, _AMOUNTS)} {_words(fault)}"
        for fault, share in view.guesses[:GUESSES]
        if share >= SPEAKS
    ]
    return " , ".join(told) or "no guess"


def _by_rule(signs: Sequence[Sign]) -> list[list[Sign]]:
    """Signs of one rule together; the rules by their strongest sign."""
    rules: dict[str, list[Sign]] = {}
    for sign in sorted(signs, key=_strength):
        where = sign.rule if not sign.quoted or sign.rule.startswith("known.") else f"{sign.rule} {sign.text}"
        rules.setdefault(where, []).append(sign)
    return list(rules.values())[:SIGNS_MAX]


def _strength(sign: Sign) -> tuple[bool, int, float, float]:
    weak = max(sign.hints.values(), default=0.0) <= 0.3
    return (weak, -sign.severity.rank, -sign.score, sign.after_s)


def _said(signs: list[Sign], view: View) -> str:
    """One rule's signs in words, at most about 25 tokens."""
    sign = signs[0]
    slots = dict.fromkeys(slot for one in signs for slot in one.slots[:2])
    hints = sorted(sign.hints, key=lambda fault: -sign.hints[fault])[:2]
    words = [
        "late" if sign.after_s > LATE_S else "",
        _grade(sign.score, _STRENGTHS),
        sign.severity,
        sign.rule.removeprefix("known.").replace(".", " ").replace("-", " "),
        *(_words(fault) for fault in hints if sign.hints[fault] >= SPEAKS),
        "over" if all(one.over for one in signs) else "",
        "excused" if sign.excused else "",
        *(SLOT_TOKENS[slot] for slot in list(slots)[:SLOTS_TOLD] if slot < SLOTS),
        "many" if len(signs) > SLOTS_TOLD else "",
        f": {_plain(sign.text, view)}" if sign.quoted else "",
    ]
    return " ".join(word for word in words if word)


def _plain(text: str, view: View) -> str:
    """A line's words: names as slots, values dropped, lower case."""
    text = text[:512].replace("\0", " ")  # it marks the slots below
    for slot, (_, name) in enumerate(view.slots[:SLOTS]):
        if len(name) > 1 and name in text:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?:\[\d+\])?(?!\w)", f"\0{_LETTERS[slot]}\0", text)
    pieces = [_shown(piece) for piece in _SPACE.sub(" ", mask(text)).lower().split()]
    words = [piece for piece in pieces if piece]
    first = _fitting(words, SIGN_CHARS // 3)
    rest = _fitting(words[len(first) :][::-1], SIGN_CHARS - SIGN_CHARS // 3)
    return " ".join(first + rest[::-1])


def _fitting(words: Sequence[str], chars: int) -> list[str]:
    """As many words as fit; a line says first who speaks and last what is wrong."""
    kept: list[str] = []
    for word in words:
        if sum(map(len, kept)) + len(kept) + len(word) > chars:
            break
        kept.append(word)
    return kept


def _shown(piece: str) -> str:
    marked = piece.split("\0")
    if len(marked) > 1:
        return SLOT_TOKENS[_LETTERS.index(marked[1])]
    word = _VALUE.sub("", piece).strip(_EDGE)
    return "" if word in SLOT_TOKENS else word


def _words(fault: FaultClass) -> str:
    return fault.value.replace("-", " ")


def _grade(value: float, grades: Sequence[tuple[float, str]]) -> str:
    return next((word for least, word in grades if value >= least), grades[-1][1])
