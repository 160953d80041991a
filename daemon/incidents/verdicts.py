"""What a situation adds up to: fault class, severity, score, culprits and context notes.

Pure derivations from a situation's conditions and the contexts (the baseline path of the middle tier),
without state of its own, so that a model can stand in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec.structs import replace

from daemon.incidents.context import CHANGES, Contexts, Effect, Weighing, Window, describe, main_class
from daemon.incidents.situations import OCCURRENCES_TOLD, Condition, Opinion, Situation, family
from daemon.incidents.unexplained import READ
from daemon.messages import ContextNote, Culprit
from daemon.subjects import Key, generic, split_pid
from models.causes import Reach, correct, effect
from models.taxonomy import FaultClass, Severity, SubjectKind

FULL_HINT = (
    0.5  # from here on a hint is no oddity but a statement, and the finding's own score counts in full
)
FRESH_S = 35.0  # what lasts is reported again every 30 s; what is not grows old
RECOVERED = 0.5  # what ended before an incident opened counts half
CRASHES_IN_LOOP = (
    OCCURRENCES_TOLD  # the third crash in one situation is a loop; systemd gives up at the fifth by default
)
LOOP_SCORE = 0.95
BEHIND = 0.9  # of the score of what causes it
CULPRITS_MAX = 8
NOTES_MAX = 8

_F, _K = FaultClass, SubjectKind
_EXECUTED = frozenset({_K.UNIT, _K.PROCESS})
# Which kinds of culprit are actionable for a class, best first; the kinds of one set compete by their blame.
_CRASH = (frozenset({_K.UNIT}), frozenset({_K.PROCESS}))
_PLACE = (frozenset({_K.MOUNT}), frozenset({_K.DEVICE}), _EXECUTED)
_DISK = (frozenset({_K.DEVICE}), frozenset({_K.MOUNT}), _EXECUTED)
_LINK = (frozenset({_K.INTERFACE}), frozenset({_K.DEVICE}))
_PEER = (frozenset({_K.ADDRESS}), frozenset({_K.USER}), _EXECUTED)
_ACTIONABLE: dict[FaultClass, tuple[frozenset[SubjectKind], ...]] = {
    _F.DISK_FULL: _PLACE,
    _F.INODE_EXHAUSTION: _PLACE,
    _F.DISK_FAILING: _DISK,
    _F.FILESYSTEM_CORRUPT: _DISK,
    _F.DEVICE_LOST: _DISK,
    _F.IO_SATURATION: (_EXECUTED, frozenset({_K.DEVICE}), frozenset({_K.MOUNT})),
    _F.HARDWARE_ERROR: (frozenset({_K.DEVICE, _K.SENSOR}),),
    _F.LINK_DOWN: _LINK,
    _F.PACKET_LOSS: _LINK,
    _F.AUTH_BRUTEFORCE: _PEER,
    _F.CONNECTION_FLOOD: _PEER,
    _F.PRIVILEGE_MISUSE: (frozenset({_K.USER}), _EXECUTED),
    _F.CERTIFICATE_EXPIRED: (frozenset({_K.FILE}), _EXECUTED),
    _F.SERVICE_CRASH: _CRASH,
    _F.CRASH_LOOP: _CRASH,
    _F.SERVICE_HUNG: _CRASH,
    _F.CONFIG_ERROR: (frozenset({_K.UNIT}), frozenset({_K.FILE}), frozenset({_K.PROCESS})),
    _F.DEPENDENCY_FAILED: _CRASH,
}
_USUAL = (_EXECUTED,)
_WORDS = re.compile(r"[._-]")
_PIDLESS = frozenset({_F.SERVICE_CRASH, _F.CRASH_LOOP})  # the pid of what crashed is gone
_GENERIC_TIER, _HOST_TIER = 8, 9
EFFECT_RANK: dict[Effect, int] = {"noted": 0, "lowered": 1, "explained": 2}


class Verdict(NamedTuple):
    """The judgement of a situation; `opens` is False where context or oddity alone speaks."""

    fault_class: FaultClass
    severity: Severity
    score: float
    scores: dict[FaultClass, float]
    culprits: list[Culprit]
    notes: list[ContextNote]
    lowered: bool  # everything that speaks for it was lowered by context
    excused: bool  # something of it was lowered or explained, which may pass
    benign: bool  # what speaks most is that the host did it on purpose
    path: Literal["baseline", "model"] = "baseline"  # who named the fault class or the first culprit
    words: bool = False  # nothing but what programs wrote says how bad it is
    harmless: bool = False  # somebody read it, and says that nothing is wrong
    meant: Severity | None = None  # by the rules, as long as they are doubted
    waits: bool = False  # some of them are still to be read


class _Weighed(NamedTuple):
    condition: Condition
    weighing: Weighing
    factor: float


def judge(
    situation: Situation, contexts: Contexts, t: float, fresh_s: float, opinion: Opinion | None = None
) -> Verdict:
    """The verdict at observation time `t`; before it is open, evidence halves in weight every `fresh_s`.

    An opinion replaces the fault class and puts its culprit first, nothing else.
    """
    weighed = [_weigh(one, situation, contexts, t, fresh_s) for one in situation.conditions.values()]
    causes = [one for one in weighed if not _suffers(one.condition, situation)]
    raw = _combine(causes)
    scores = _behind(correct(raw), causes)
    fault = max(
        (one for one in scores if not one.benign), key=lambda one: (scores[one], one), default=_F.UNKNOWN
    )
    strong = [one for one in causes if not one.condition.weak and not one.weighing.explained]
    telling = _telling(strong)
    held = opinion if opinion is not None and fault in opinion.of else None
    told = fault if held is None or held.fault_class is None else held.fault_class
    return Verdict(
        fault_class=told,
        severity=max(map(_severity, telling), key=lambda one: one.rank, default=Severity.INFO),
        score=round(_support(weighed), 3),
        scores={one: round(score, 3) for one, score in scores.items() if score >= 0.01},
        culprits=_first(_rank(told, causes), _better(told, causes, held.culprit if held else None)),
        notes=_notes(weighed, situation.first_wall),
        lowered=bool(strong) and all(one.weighing.factor < 1.0 for one in strong),
        excused=any(one.weighing.factor < 1.0 for one in weighed),
        benign=any(one.benign and scores[one] >= scores.get(fault, 0.0) for one in scores),
        path="model" if held or _read(told, strong) else "baseline",
        words=bool(telling) and all(one.condition.words for one in strong),
    )


def classes(conditions: Iterable[Condition]) -> dict[FaultClass, float]:
    """How strongly each class is spoken for, without context or causality."""
    found: dict[FaultClass, float] = {}
    for condition in conditions:
        finding = condition.finding
        for fault, hint in finding.hints.items():
            found[fault] = max(found.get(fault, 0.0), hint * finding.score)
    return found


def _behind(scores: dict[FaultClass, float], weighed: Sequence[_Weighed]) -> dict[FaultClass, float]:
    """The scores, where a strain that names nobody comes after what is named and causes such strains."""
    named = {main_class(one.condition.finding) for one in weighed if _names(one.condition)}
    for fault in {main_class(one.condition.finding) for one in weighed if not one.condition.weak} - named:
        causes = (one for one in named if (edge := effect(one, fault)) and edge.reach is Reach.NAMELESS)
        most = max((scores.get(one, 0.0) for one in causes), default=0.0)
        if 0.0 < most < scores[fault]:
            scores[fault] = BEHIND * most
    return scores


def _names(condition: Condition) -> bool:
    """Whether what could make an incident says whom it is about."""
    return not condition.weak and any(who[0] != _K.HOST for who in condition.subjects)


def _read(fault: FaultClass, strong: Sequence[_Weighed]) -> bool:
    """Whether nobody but a served model, which read what no rule knows, speaks for the class."""
    speaking = [
        one.condition.finding for one in strong if one.condition.finding.hints.get(fault, 0.0) >= FULL_HINT
    ]
    return bool(speaking) and all(one.rule.startswith(READ) for one in speaking)


def _telling(strong: list[_Weighed]) -> list[_Weighed]:
    """What says how bad it is: a line that nobody understands does not, beside those that somebody does."""
    known = [one for one in strong if main_class(one.condition.finding) is not _F.UNKNOWN]
    return known or strong


def _suffers(condition: Condition, situation: Situation) -> bool:
    """Whether this is one of hauswart's own stages, which has part in a trouble of the host's."""
    subjects = condition.finding.subjects
    return not situation.stage and bool(subjects) and subjects[0].kind is _K.STAGE


def _weigh(
    condition: Condition, situation: Situation, contexts: Contexts, t: float, fresh_s: float
) -> _Weighed:
    weighing = contexts.weigh(condition.finding, condition.first_t, condition.last_t)
    before = condition.weighing
    if situation.open and before is not None and before.factor >= weighing.factor:
        weighing = before
    condition.weighing = weighing
    factor = weighing.factor
    if not situation.open:
        factor *= 0.5 ** (max(0.0, t - condition.last_t - FRESH_S) / fresh_s)
        factor *= RECOVERED if condition.ended_t is not None else 1.0
    return _Weighed(condition, weighing, factor)


def _severity(weighed: _Weighed) -> Severity:
    return weighed.weighing.severity(weighed.condition.finding)


def _combine(weighed: Iterable[_Weighed]) -> dict[FaultClass, float]:
    """Noisy-or over families of rules; inside a family only the strongest counts.

    What a finding might also be is not made sure by others of which the same is true: of that the strongest
    counts.
    """
    families: dict[str, dict[FaultClass, float]] = {}
    for condition, _, factor in weighed:
        finding = condition.finding
        best = families.setdefault(family(finding.rule), {})
        for fault, hint in finding.hints.items():
            best[fault] = max(best.get(fault, 0.0), hint * finding.score * factor)
        if _loops(condition):
            loop = families.setdefault("crashes", {})
            loop[_F.CRASH_LOOP] = max(loop.get(_F.CRASH_LOOP, 0.0), LOOP_SCORE * factor)
    combined: dict[FaultClass, float] = {}
    aside: dict[FaultClass, float] = {}
    for best in families.values():
        most = max(best.values(), default=0.0)
        for fault, weight in best.items():
            if weight < most:
                aside[fault] = max(aside.get(fault, 0.0), weight)
            else:
                combined[fault] = _or(combined.get(fault, 0.0), weight)
    return combined | {fault: _or(combined.get(fault, 0.0), weight) for fault, weight in aside.items()}


def _or(one: float, other: float) -> float:
    return 1.0 - (1.0 - one) * (1.0 - min(1.0, other))


def _loops(condition: Condition) -> bool:
    if main_class(condition.finding) not in _PIDLESS:
        return False
    told = max((one.values.get("failures_count", 0.0) for one in condition.evidence), default=0.0)
    return max(condition.happened, told) >= CRASHES_IN_LOOP


def _support(weighed: Iterable[_Weighed]) -> float:
    """How sure it is that something is wrong at all, whatever it is."""
    families: dict[str, float] = {}
    for condition, _, factor in weighed:
        finding = condition.finding
        hint = max((weight for fault, weight in finding.hints.items() if not fault.benign), default=0.0)
        name = family(finding.rule)
        families[name] = max(families.get(name, 0.0), finding.score * min(1.0, hint / FULL_HINT) * factor)
    doubt = 1.0
    for support in families.values():
        doubt *= 1.0 - support
    return 1.0 - doubt


def _rank(fault: FaultClass, weighed: Sequence[_Weighed]) -> list[Culprit]:
    """Culprits by how actionable their kind is for the class, then by accumulated blame."""
    blame: dict[Key, float] = {}
    names: dict[Key, set[str]] = {}
    for condition, _, factor in weighed:
        weight = condition.finding.score * factor * _relevance(fault, condition)
        weight *= 0.3 if condition.weak else 1.0
        for who, blamed in condition.subjects.items():
            blame[who] = 1.0 - (1.0 - blame.get(who, 0.0)) * (1.0 - blamed.score * weight)
            names.setdefault(who, set()).add(blamed.name if blamed.single else who[1])
    order = {who: place for place, who in enumerate(blame)}
    kinds = _kinds(fault, weighed)
    ranked = sorted(blame, key=lambda who: (_tier(kinds, who), -round(blame[who], 2), order[who]))
    most = max(blame.values(), default=0.0)
    named = [who for who in ranked if blame[who] >= max(1e-6, 0.1 * most)][:CULPRITS_MAX]
    if not named:
        return [Culprit(_K.HOST, "", 1.0)]
    first = blame[named[0]]
    return [
        Culprit(SubjectKind(who[0]), _shown(fault, who, names[who]), round(min(1.0, blame[who] / first), 2))
        for who in named
    ]


def _better(fault: FaultClass, causes: Sequence[_Weighed], who: Key | None) -> Key | None:
    """Whom the model names, unless somebody of a kind that more can be done about is named as well."""
    if who is None:
        return None
    kinds = _kinds(fault, causes)
    named = {one for cause in causes if not cause.condition.weak for one in cause.condition.subjects}
    least = min((_tier(kinds, one) for one in named), default=_HOST_TIER)
    return who if _tier(kinds, who) <= least else None


def _first(ranked: list[Culprit], who: Key | None) -> list[Culprit]:
    """The culprits with `who` at their head, under its full name where the ranking gave one."""
    if who is None:
        return ranked
    chosen = [one for one in ranked if (one.kind.value, split_pid(one.name)[0]) == who]
    head = chosen[0] if chosen else Culprit(SubjectKind(who[0]), who[1], 1.0)
    rest = [one for one in ranked if one is not head and one.kind is not _K.HOST]
    return [replace(head, score=1.0), *rest][:CULPRITS_MAX]


def _shown(fault: FaultClass, who: Key, names: set[str]) -> str:
    return who[1] if fault in _PIDLESS or len(names) != 1 else next(iter(names))


def _kinds(fault: FaultClass, weighed: Sequence[_Weighed]) -> tuple[frozenset[SubjectKind], ...]:
    """Which kinds are actionable here; memory is the unit's affair if the unit met a limit of its own."""
    if fault is not _F.MEMORY_EXHAUSTION:
        return _ACTIONABLE.get(fault, _USUAL)
    own = any("unit" in _WORDS.split(one.condition.finding.rule) for one in weighed)
    return _CRASH if own else tuple(reversed(_CRASH))


def _tier(wanted: tuple[frozenset[SubjectKind], ...], who: Key) -> int:
    kind = SubjectKind(who[0])
    if kind is _K.HOST:
        return _HOST_TIER
    if kind is _K.UNIT and generic(who[1]):
        return _GENERIC_TIER
    return next((tier for tier, kinds in enumerate(wanted) if kind in kinds), len(wanted))


def _relevance(fault: FaultClass, condition: Condition) -> float:
    """How much a finding says about the class: its own hint, or half of what the class explains."""
    best = 0.1
    for hinted, hint in condition.finding.hints.items():
        edge = effect(fault, hinted)
        best = max(best, hint if hinted is fault else hint * edge.weight / 2.0 if edge else 0.0)
    return best if not _loops(condition) else max(best, LOOP_SCORE)


def _notes(weighed: Iterable[_Weighed], began: float) -> list[ContextNote]:
    strongest: dict[Window, Effect] = {}
    for _, weighing, _ in weighed:
        for window, told in weighing.notes:
            known = strongest.get(window)
            if known is None or EFFECT_RANK[told] > EFFECT_RANK[known]:
                strongest[window] = told
    return [describe(window, told, began) for window, told in _distinct(strongest)][-NOTES_MAX:]


def _distinct(strongest: Mapping[Window, Effect]) -> list[tuple[Window, Effect]]:
    """One window of each thing that the host did: the one that weighs most, of these the last."""
    told: dict[tuple[str, str], tuple[Window, Effect]] = {}
    for window, weighs in strongest.items():
        known = told.get(thing(window.kind, window.name))
        if known is None or EFFECT_RANK[weighs] >= EFFECT_RANK[known[1]]:
            told[thing(window.kind, window.name)] = (window, weighs)
    return list(told.values())


def thing(kind: str, name: str) -> tuple[str, str]:
    """What a context is about; an update or a rebuild is one thing, whichever of its programs is named."""
    return (kind, "" if kind in CHANGES else name)
