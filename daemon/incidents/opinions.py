"""What the middle tier's model is asked about a situation, and what its answer does to the verdict.

Pure. The model speaks only where the baseline is unsure, only when it is sure itself, and never says that
somebody did it on purpose: contexts decide that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from daemon.incidents.context import Weighing
from daemon.incidents.situations import RESTORED, Condition, Opinion, Situation
from daemon.incidents.verdicts import Verdict
from daemon.messages import Culprit, KeepReview
from daemon.questions import Question
from daemon.subjects import Key, generic, split_pid
from models.causes import effect
from models.situations import SLOTS, Sign, View, decode, encode
from models.taxonomy import Category, FaultClass, SubjectKind

MARGIN = (
    0.35  # between the first and the second class; beyond it the baseline erred in no more than the model
)
RIVAL = 0.5  # of the first culprit's blame; a second one that bears as much is a rival
CERTAIN = 0.9  # a baseline that is as sure as a model has to be is not contradicted
HINT = 0.8  # how strongly a line speaks for a class that somebody read in it
_CRASHES = frozenset({FaultClass.SERVICE_CRASH, FaultClass.CRASH_LOOP})
SURE = {"fault_class": 0.9, "culprit": 0.9}  # where a bundle names no thresholds
ASKED_MAX = 64  # without an answer; then the oldest is not waited for any more


def unsure(verdict: Verdict, view: View) -> bool:
    """Whether the baseline leaves room for another opinion: rival classes, rival culprits, or none."""
    shares = sorted((score for fault, score in verdict.scores.items() if not fault.benign), reverse=True)
    close = len(shares) > 1 and shares[0] - shares[1] < MARGIN
    rivals = sum(one.score >= RIVAL for one in verdict.culprits) > 1
    caused = any(_caused(verdict.fault_class, sign) for sign in view.signs)
    return verdict.fault_class is FaultClass.UNKNOWN or close or rivals or caused


def _caused(fault: FaultClass, sign: Sign) -> bool:
    """Whether a sign speaks, however faintly, for something that would explain the class."""
    return any(one is not fault and effect(one, fault) is not None for one in sign.hints)


def formed(
    scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float], view: View, baseline: FaultClass
) -> Opinion | None:
    """The opinion in a model's answer; None where it is not sure of anything that the baseline did not say.

    Raises ValueError for scores of another shape.
    """
    least = SURE | {name: thresholds[name] for name in SURE if name in thresholds}
    verdict = decode(scores, view)
    fault: FaultClass | None = verdict.fault_class
    if verdict.fault_class.benign or verdict.fault_class in {baseline, FaultClass.UNKNOWN}:
        fault = None
    if verdict.confidence < least["fault_class"] or dict(view.guesses).get(baseline, 0.0) >= CERTAIN:
        fault = None
    first = view.slots[0] if view.slots else None
    chosen = verdict.culprits[0] if verdict.culprits else None
    settled = fault is not None or verdict.fault_class is baseline  # a culprit of the class that is told
    if (chosen == first and fault is None) or verdict.culprit_confidence < least["culprit"] or not settled:
        chosen = None
    if fault is None and chosen is None:
        return None
    return Opinion(frozenset({baseline}), fault, (chosen[0].value, chosen[1]) if chosen else None)


def of_review(verdict: Verdict, said: KeepReview) -> Opinion:
    """What a review says, also while the rules come to see what follows from it; `verdict`: without it."""
    fault = said.fault_class
    follow = {one for one in FaultClass if effect(fault, one) is not None}
    crashes = _CRASHES if verdict.fault_class in _CRASHES else frozenset()
    who = said.culprit
    culprit = (who.kind.value, split_pid(who.name)[0]) if who else None
    return Opinion(frozenset({verdict.fault_class, *follow, *crashes}), fault, culprit)


def hides(fault: FaultClass, told: Sequence[FaultClass]) -> bool:
    """Whether what was told as about security would be told as something else: no line may do that."""
    return fault.category is not Category.SECURITY and any(one.category is Category.SECURITY for one in told)


def view_of(situation: Situation, verdict: Verdict) -> View:
    """A situation as the model sees it; it must hold something, and `verdict` be the baseline's."""
    conditions = list(situation.conditions.values())
    slots = candidates(conditions, verdict)
    places = {who: number for number, who in enumerate(slots)}
    guesses = sorted(verdict.scores.items(), key=lambda one: (-one[1], one[0]))
    return View(
        signs=tuple(_sign(one, places, situation.first_t) for one in conditions),
        slots=tuple((SubjectKind(kind), name) for kind, name in slots),
        contexts=tuple(dict.fromkeys((note.kind, note.effect) for note in verdict.notes)),
        guesses=tuple(guesses[:3]),
    )


def candidates(conditions: Sequence[Condition], verdict: Verdict) -> list[Key]:
    """Who may be to blame, at most SLOTS: the baseline's culprits first, then whoever else is named."""
    found: dict[Key, None] = dict.fromkeys(
        (one.kind.value, _named(one)) for one in verdict.culprits if one.kind is not SubjectKind.HOST
    )
    others: dict[Key, float] = {}
    for condition in conditions:
        for who, blamed in condition.subjects.items():
            bare = who[0] == SubjectKind.HOST or (who[0] == SubjectKind.UNIT and generic(who[1]))
            if who not in found and not bare:
                others[who] = max(others.get(who, 0.0), blamed.score * condition.finding.score)
    room = SLOTS // 2 if others else SLOTS  # those that only another class would blame get a place, too
    first, rest = list(found)[:room], list(found)[room:]
    ranked = sorted(others, key=lambda who: (-others[who], who))
    return (first + ranked[: SLOTS - room] + rest)[:SLOTS] if others else first


def _named(culprit: Culprit) -> str:
    return split_pid(culprit.name)[0] if culprit.kind is SubjectKind.PROCESS else culprit.name


def _sign(condition: Condition, places: Mapping[Key, int], first_t: float) -> Sign:
    finding = condition.finding
    piece = next((one for one in condition.evidence if one.id == condition.strongest), None)
    blamed = sorted(condition.subjects, key=lambda who: -condition.subjects[who].score)
    weighing = condition.weighing or Weighing(1.0)
    return Sign(
        rule=finding.rule,
        severity=finding.severity,
        score=finding.score,
        hints=finding.hints,
        slots=tuple(places[who] for who in blamed if who in places),
        text=piece.text if piece else "",
        quoted=piece is not None and (piece.kind == "line" or finding.rule == RESTORED),
        after_s=max(0.0, condition.first_t - first_t),
        over=condition.ended_t is not None,
        excused=weighing.factor < 1.0,
    )


class _Asked(NamedTuple):
    situation: str
    view: View
    baseline: FaultClass


class Asking:
    """The questions that are on their way to a model; bounded."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(("asked", "agreed", "revised", "misread"), 0)
        self._open: dict[int, _Asked] = {}

    def ask(self, situation: Situation, verdict: Verdict) -> Question | None:
        """The question about an incident, if the baseline is unsure and what is seen was not asked before."""
        view = view_of(situation, verdict)
        text = encode(view)
        if text == situation.asked or not unsure(verdict, view):
            return None
        situation.asked = text
        self.counters["asked"] += 1
        number = self.counters["asked"]
        self._open[number] = _Asked(situation.id, view, verdict.fault_class)
        while len(self._open) > ASKED_MAX:
            del self._open[next(iter(self._open))]
        return Question(number, text)

    def read(
        self, number: int, scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]
    ) -> tuple[str, Opinion | None]:
        """The id of the situation that was asked about ("" where the answer is of no use), the opinion."""
        asked = self._open.pop(number, None)
        if asked is None:
            return "", None
        try:
            opinion = formed(scores, thresholds, asked.view, asked.baseline)
        except ValueError:
            self.counters["misread"] += 1
            return "", None
        self.counters["revised" if opinion else "agreed"] += 1
        return asked.situation, opinion
