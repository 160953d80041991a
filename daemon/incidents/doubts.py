"""An incident by words alone: what programs write may be data, a test or a plan, which a reader can tell.

Where a served model looks at incidents, such a one is a warning, and nobody is notified of it, until it has
looked, or has not within `WAIT_S`; where it says that nothing is wrong, it is of severity info, as long as no
other words, no measure and no event speak for it. Never what is about security, and never what is critical,
unless nothing but the level at which a program wrote a line that no rule knows makes it so. Pure.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from daemon.incidents.context import main_class
from daemon.incidents.situations import Condition, Situation
from daemon.incidents.verdicts import Verdict
from daemon.messages import REVIEWED
from daemon.subjects import Key, key, split_pid
from models.taxonomy import Category, FaultClass, Severity

WAIT_S = 20.0  # for the answer: as long as until the second look, and what a small model on a processor takes


class Look(NamedTuple):
    """What came of a look at an incident: whether nothing is wrong, and of which words that was said."""

    harmless: bool
    words: frozenset[tuple[Key, FaultClass]]


def look(situation: Situation, *, harmless: bool, until_t: float = inf) -> Look:
    """Somebody has looked at it as it was then."""
    return Look(harmless, frozenset(_words(one) for one in situation.strong() if one.first_t <= until_t))


def recall(situation: Situation) -> None:
    """What a restart leaves of a look: that nothing is wrong is told as long as its words are doubted."""
    known = situation.incident
    if known is not None and known.meant is not None and any(one.ref == REVIEWED for one in known.evidence):
        # Which words were read of whom is gone: of all that it was about.
        read = frozenset(
            ((who.kind.value, split_pid(who.name)[0]), fault)
            for who in known.culprits
            for fault in known.scores
        )
        situation.looked = Look(harmless=True, words=read | look(situation, harmless=True).words)


def tempered(verdict: Verdict, situation: Situation) -> Verdict:
    """The verdict as it is told while its words are doubted."""
    if situation.doubt_t is None:
        return verdict
    read = situation.looked is not None and situation.looked.harmless
    severity = Severity.INFO if read else Severity.WARNING
    return verdict._replace(severity=severity, harmless=read, meant=verdict.severity)


def doubtful(verdict: Verdict, situation: Situation) -> bool:
    """Whether a reader may say of what the rules think that it is nothing."""
    known = verdict.fault_class is not FaultClass.UNKNOWN  # else the program's own word for its level counts
    grave = known and verdict.severity is Severity.CRITICAL
    grave = grave or verdict.fault_class.category is Category.SECURITY
    return verdict.words and not grave and not situation.stage


def due_t(verdict: Verdict, situation: Situation, *, awaited: bool) -> float | None:
    """Until when a verdict, as it is by the rules, is doubted; None if it is not."""
    looked = situation.looked
    if verdict.severity.rank < Severity.WARNING.rank or not doubtful(verdict, situation):
        return None
    if looked is not None and not looked.harmless:
        return None
    known = looked.words if looked else frozenset()
    unread = [one.first_t for one in situation.strong() if _words(one) not in known]
    if not unread:
        return inf
    return min(unread) + WAIT_S if awaited else None


def _words(condition: Condition) -> tuple[Key, FaultClass]:
    finding = condition.finding
    who = key(finding.subjects[0]) if finding.subjects else ("host", "")
    return who, main_class(finding)
