"""An incident by words alone: what programs write may be data, a test or a plan, which a reader can tell.

Where a served model looks at incidents, such a one is a warning, and nobody is notified of it, until it has
looked, or has not within `WAIT_S`. Where it says that nothing is wrong, it is of severity info, as long as no
measure and no event speak for it. Other words than were read are read in their turn; what nobody read within
`WAIT_S` is a warning if it is of the same kind, and else as bad as the rules say. Never doubted is what is
about security, nor what is critical, unless nothing but the level at which a program wrote a line that no
rule knows makes it so. Pure.
"""

from __future__ import annotations

from math import inf

from daemon.incidents.context import main_class
from daemon.incidents.looks import Kind, Look, graver
from daemon.incidents.situations import Condition, Situation
from daemon.incidents.verdicts import Verdict
from daemon.messages import REVIEWED
from daemon.subjects import key, split_pid
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity

WAIT_S = 20.0  # for the answer: as long as until the second look, and what a small model on a processor takes
TEXTS_MAX = 256  # that are remembered as read; of more the latest look's


def look(situation: Situation, *, harmless: bool, until_t: float = inf, until_wall: float = inf) -> Look:
    """Somebody has looked at it as it was then."""
    kinds: dict[Kind, int] = {}
    texts: set[str] = set()
    for one in situation.strong():
        if one.first_t <= until_t:
            kinds[_kind(one)] = max(kinds.get(_kind(one), 0), one.finding.severity.rank)
            texts.update(mask(piece.text) for piece in one.evidence if piece.start <= until_wall)
    before = situation.looked
    if before is not None and before.harmless and harmless:
        kinds = graver(before.kinds, kinds)
        texts |= before.texts if len(before.texts) < TEXTS_MAX else set()
    return Look(harmless, kinds, frozenset(texts))


def recall(situation: Situation) -> None:
    """What a restart leaves of a look: that nothing is wrong, if all of its words had been read."""
    known = situation.incident
    if known is None or known.meant is None or known.waits:
        return
    if any(one.ref == REVIEWED for one in known.evidence):
        # Which words were read of whom is gone: of all that it was about.
        told = {
            ((who.kind.value, split_pid(who.name)[0]), fault): known.meant.rank
            for who in known.culprits
            for fault in known.scores
        }
        found = look(situation, harmless=True)
        situation.looked = found._replace(kinds=graver(found.kinds, told))


def tempered(verdict: Verdict, situation: Situation, t: float, *, awaited: bool) -> Verdict:
    """The verdict by the rules as it is told; `situation.doubt_t` is until when that holds."""
    situation.doubt_t = None
    looked = situation.looked
    if not awaited or verdict.severity.rank < Severity.WARNING.rank or not doubtful(verdict, situation):
        return verdict
    if looked is None:
        return _until_read(verdict, situation, t)
    return _read_as_nothing(verdict, situation, looked, t) if looked.harmless else verdict


def _until_read(verdict: Verdict, situation: Situation, t: float) -> Verdict:
    known = situation.incident
    told = known is not None and known.state == "open" and not known.waits
    until_t = min((one.first_t for one in situation.strong()), default=t) + WAIT_S
    if told or t >= until_t:
        return verdict
    situation.doubt_t = until_t
    return verdict._replace(severity=Severity.WARNING, meant=verdict.severity, waits=True)


def _read_as_nothing(verdict: Verdict, situation: Situation, looked: Look, t: float) -> Verdict:
    others = [
        t if _kind(one) in looked.kinds else one.first_t  # it has become graver now
        for one in situation.strong()
        if looked.kinds.get(_kind(one), -1) < one.finding.severity.rank
    ]
    nothing = verdict._replace(severity=Severity.INFO, meant=verdict.severity, harmless=True)
    if not others and not any(_says_more(one, looked) for one in situation.strong()):
        situation.looked = looked._replace(unread_t=None)
        return nothing
    since_t = min([*others, t]) if looked.unread_t is None else looked.unread_t
    situation.looked = looked._replace(unread_t=since_t)
    if t < since_t + WAIT_S:
        situation.doubt_t = since_t + WAIT_S
        return nothing._replace(waits=True)
    return verdict if others else verdict._replace(severity=Severity.WARNING, meant=verdict.severity)


def doubtful(verdict: Verdict, situation: Situation) -> bool:
    """Whether a reader may say of what the rules think that it is nothing."""
    known = verdict.fault_class is not FaultClass.UNKNOWN  # else the program's own word for its level counts
    grave = known and verdict.severity is Severity.CRITICAL
    grave = grave or verdict.fault_class.category is Category.SECURITY
    return verdict.words and not grave and not situation.stage


def _kind(condition: Condition) -> Kind:
    finding = condition.finding
    who = key(finding.subjects[0]) if finding.subjects else ("host", "")
    return who, main_class(finding)


def _says_more(condition: Condition, looked: Look) -> bool:
    return any(mask(one.text) not in looked.texts for one in condition.evidence)
