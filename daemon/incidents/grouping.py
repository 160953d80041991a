"""Whether two views of trouble have one cause: by a shared subject, by place, or by the causal graph.

Pure functions on `View`, which a finding and a situation both have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from daemon.incidents.context import main_class
from daemon.incidents.situations import Condition, Situation
from daemon.incidents.unexplained import READ
from daemon.incidents.verdicts import classes
from daemon.messages import Finding, Subject
from daemon.subjects import Key, expand, stacked
from models.causes import AT_LENGTH, SELF_REACH, STARVING, Reach, effect, far, kin, places
from models.taxonomy import Category, FaultClass, SubjectKind

SPEAKS = 0.4  # a class hinted at less is not what a view is about
TIED = 0.3  # a subject that bears less of the blame ties nothing together
BLAMED = 0.5  # from here on a subject is what a finding is about, so that another one is another place
LEAD_S = 10.0  # an effect may be seen this much earlier than its cause,
FOREIGN_LEAD_S = 2.0  # but not where it is laid to somebody else: then that one was there before
NEARBY_S = 30.0  # a mere oddity belongs to what happens within half a minute of it
LISTING_S = 5.0  # many lines of the kernel about one thing come within seconds, on a slow console, too
OVER_S = 10.0  # a cause that ended longer ago than this caused nothing new
_NOTHING: frozenset[str] = frozenset()
_BELOW = frozenset({"collector", "low"})
_KINDS = {kind.value: kind for kind in SubjectKind}
_SUFFERING = frozenset({FaultClass.SERVICE_HUNG, FaultClass.SERVICE_CRASH, FaultClass.CRASH_LOOP})
_WAITING = frozenset({FaultClass.SERVICE_HUNG, FaultClass.DEPENDENCY_FAILED})
_MANAGERS = frozenset(
    {
        "known.unit-dependency",
        "known.device-timeout",
        "known.mount-failed",
        "known.mount-unit-failed",
        "known.emergency-mode",
    }
)
_OF_A_MOUNT = frozenset({FaultClass.DISK_FULL, FaultClass.INODE_EXHAUSTION})
_MOUNTS = frozenset({SubjectKind.MOUNT})
_PERSONAL = frozenset({Category.SERVICE, Category.SECURITY, Category.UNKNOWN})


class View(NamedTuple):
    """What grouping looks at: classes that are spoken for, subjects, and the stretch of time."""

    top: FaultClass
    classes: frozenset[FaultClass]
    far: frozenset[FaultClass]  # what may belong to it without a shared subject
    tied: frozenset[Key]
    places: dict[SubjectKind, frozenset[str]]  # the names that bear half of the blame or more
    first_t: float
    last_t: float
    over_t: float | None
    stage: bool
    made_t: float  # `last_t` when it was made: what ended since then may still be in it
    lasting: bool = False  # it was told and nobody said that it is over
    bereft: bool = False  # a program complains of another one that it cannot reach


def view_of_finding(finding: Finding, t: float) -> View:
    """A finding as grouping sees it."""
    top = main_class(finding)
    spoken = frozenset({top, *(fault for fault, hint in finding.hints.items() if hint >= SPEAKS)})
    places = () if guesses(finding.rule) else finding.subjects
    view = _view(top, spoken, (finding.subjects, places), (t, t, None), stage=on_stage(finding))
    return view._replace(bereft=_complains(finding))


def view_of_situation(situation: Situation, top: FaultClass, window_s: float) -> View:
    """A situation as grouping sees it; `top` is its present fault class.

    What ended longer ago than `window_s` draws nothing to it: in an incident that lasts for hours everything
    that was ever busy would otherwise come together.
    """
    since = situation.last_t - window_s
    current = {
        where: one
        for where, one in situation.conditions.items()
        if one.ended_t is None or one.ended_t >= since
    }
    subjects: list[Subject] = []
    places: list[Subject] = []
    for (rule, _), condition in current.items():
        if not condition.weak:
            named = _subjects(condition)
            subjects += named
            places += () if guesses(rule) else named
    spoken = frozenset(
        {top, *(fault for fault, score in classes(current.values()).items() if score >= SPEAKS)}
    )
    times = (situation.first_t, situation.last_t, situation.over_t)
    view = _view(top, spoken, (subjects, places), times, stage=situation.stage)
    bereft = any(_complains(one.finding) for one in current.values() if not one.weak)
    return view._replace(lasting=lasts(situation), bereft=bereft)


def lasts(situation: Situation) -> bool:
    """Whether something of an open incident has not ended, however long ago it was told of last."""
    return situation.open and situation.over_t is None


def _complains(finding: Finding) -> bool:
    """Whether a program says that it waits for another one in vain; the manager knows whom it waits for."""
    waits = finding.hints.get(FaultClass.DEPENDENCY_FAILED, 0.0) >= SPEAKS
    return waits and finding.rule not in _MANAGERS


def guesses(rule: str) -> bool:
    """Whether a rule is about the memory of the whole host: the largest process it names is a guess."""
    return rule.startswith(("mem.", "psi.memory."))


def silent_below(finding: Finding) -> bool:
    """Whether it says that nothing comes from below."""
    named = finding.subjects[0].name if finding.subjects else ""
    return finding.rule == "stage.silent" and named in _BELOW and not finding.ended


def blinds(finding: Finding, blind: bool) -> bool:  # noqa: FBT001
    """Whether nothing comes from below, after a finding; `blind`: before it.

    What stages above tell of themselves, or read, proves nothing.
    """
    if silent_below(finding):
        return True
    told_below = not on_stage(finding) and not finding.rule.startswith(READ)
    return blind and not told_below and not finding.ended


def on_stage(finding: Finding) -> bool:
    """Whether a finding is about hauswart itself."""
    return any(one.kind is SubjectKind.STAGE for one in finding.subjects)


def strangers(one: View, other: View) -> bool:
    """Whether two views surely have nothing to do with each other: the usual case, told cheaply."""
    return (
        not (one.stage or other.stage)
        and not (one.bereft and other.bereft)
        and one.tied.isdisjoint(other.tied)
        and one.far.isdisjoint(other.classes)
        and bool(one.tied)
        and bool(other.tied)
    )


def affinity(one: View, other: View, window_s: float) -> float:
    """How strongly two views belong together; 0.0 where they do not."""
    if one.stage or other.stage:
        starved = _starved(one, other, window_s)
        if starved or _apart(one, other):
            return starved
    if _gap(one, other) > window_s and not _goes_on(one, other):
        return 0.0
    if one.top is other.top and one.top in _OF_A_MOUNT and _elsewhere(one, other, _MOUNTS):
        return 0.0  # two of them are full, though one program filled both
    shared = not one.tied.isdisjoint(other.tied)
    if _miss_one_thing(one, other):
        return 1.0
    if not shared and one.top is other.top and not _again(one, other, one.top):
        return 0.0  # the same fault elsewhere, whatever else they have in common
    best = max(
        (_pair(one, other, left, right, shared=shared) for left in one.classes for right in other.classes),
        default=0.0,
    )
    return max(best, _told_beside(one, other))


def about_stage(one: View, other: View) -> bool:
    """Whether what both are is about hauswart itself: not if it suffers from what the host is short of."""
    if one.stage == other.stage:
        return one.stage
    host = other if one.stage else one
    return not host.tied and one.top is other.top


def _starved(one: View, other: View, window_s: float) -> float:
    """How surely hauswart's own stages suffer from one thing: from the host's, or all at once."""
    stages = [view for view in (one, other) if view.stage]
    if any(view.top not in _SUFFERING for view in stages):
        return 0.0
    silent = all(view.top is FaultClass.SERVICE_HUNG for view in stages)
    if len(stages) == 2:  # two that were killed are two
        return 1.0 if silent and _gap(one, other) <= window_s else 0.0
    host = other if one.stage else one
    kills = host.top is FaultClass.MEMORY_EXHAUSTION  # whoever died of something else has a reason of its own
    if not (kills or (silent and host.top in STARVING)) or not _follows(host, stages[0]):
        return 0.0
    return 1.0 if host.lasting or _gap(one, other) <= window_s else 0.0


def _apart(one: View, other: View) -> bool:
    """Whether one is about hauswart and the other is not; what names nobody may be about the same fault."""
    if one.stage == other.stage:
        return False
    host = other if one.stage else one
    return bool(host.tied) or one.top is not other.top


def supports(oddity: View, situation: View, window_s: float) -> float:
    """How well a weak finding fits a situation: it speaks for its class, for an effect or a cause of it."""
    if oddity.stage != situation.stage or _gap(oddity, situation) > min(window_s, NEARBY_S):
        return 0.0
    shared = not oddity.tied.isdisjoint(situation.tied)
    return max((_fit(oddity, situation, fault, shared=shared) for fault in oddity.classes), default=0.0)


def _fit(oddity: View, situation: View, fault: FaultClass, *, shared: bool) -> float:
    edge = effect(situation.top, fault)
    weight = 1.0 if fault is situation.top else 0.5 if fault in situation.classes else 0.0
    if shared:
        root = effect(fault, situation.top)  # a cause may be seen faintly where its effect is loud
        best = max(weight, edge.weight if edge else 0.0, root.weight / 2.0 if root else 0.0)
        return 1.0 + best if best else 0.0
    if fault.category in _PERSONAL or _elsewhere(oddity, situation, places(situation.top, fault)):
        return 0.0
    return max(weight, edge.weight if edge and edge.reach is not Reach.SHARED else 0.0)


def _miss_one_thing(one: View, other: View) -> bool:
    """Whether two that wait in vain at the same time wait for the same: whom each lacks nobody says."""
    return (
        one.bereft
        and other.bereft
        and {one.top, other.top} <= _WAITING
        and abs(one.first_t - other.first_t) <= NEARBY_S
        and not _past(one, other)
    )


def _told_beside(one: View, other: View) -> float:
    """How surely what nobody understands, and that names nobody, is part of what was told at that moment."""
    for odd, known in ((one, other), (other, one)):
        alone = odd.top is FaultClass.UNKNOWN and not odd.tied
        if alone and known.top in AT_LENGTH and _gap(odd, known) <= LISTING_S:
            return 0.5
    return 0.0


def _pair(one: View, other: View, left: FaultClass, right: FaultClass, *, shared: bool) -> float:
    if left is right:
        return (3.0 if shared else 2.0) if shared or _again(one, other, left) else 0.0
    best = 1.0 if shared and kin(left, right) and not _past(one, other) else 0.0
    for cause, of, causing, caused in ((left, right, one, other), (right, left, other, one)):
        edge = effect(cause, of)
        if edge is None or not _reaches(causing, caused, cause, of, edge.reach, shared=shared):
            continue
        waits = caused.bereft and caused.top in _WAITING  # of what it waits for, not of itself
        if not shared and of is not caused.top and effect(caused.top, of) and not waits:
            continue  # it has a cause where it is
        if shared or _follows(causing, caused):
            best = max(best, edge.weight + (1.5 if shared else 0.0))
    return best


def _again(one: View, other: View, fault: FaultClass) -> bool:
    """Whether a class seen in both is one fault, although they share no subject."""
    nameless = not (one.tied and other.tied)  # a line that names nobody is about what is known already
    reach = max(SELF_REACH.get(fault, Reach.SHARED), Reach.APART if nameless else Reach.SHARED)
    if fault is FaultClass.SERVICE_HUNG and (_waits(one) or _waits(other)):
        reach = Reach.HOST  # who waits in vain waits for the one that hangs
    for view in (one, other):
        if view.top is not fault:  # there it is the effect of something, so it reaches as far as that does
            if fault is FaultClass.NAME_RESOLUTION and view.top.category is Category.SERVICE:
                continue  # a name server that failed
            edge = effect(view.top, fault)
            reach = min(reach, edge.reach if edge else Reach.SHARED)
    if reach is Reach.NAMELESS:
        return nameless
    if reach is Reach.APART:
        return not _elsewhere(one, other, places(one.top, fault) | places(other.top, fault))
    return reach is Reach.HOST


def _waits(view: View) -> bool:
    """Whether what hangs only waits for another one's answer."""
    return FaultClass.DEPENDENCY_FAILED in view.classes


def _reaches(
    causing: View, caused: View, cause: FaultClass, of: FaultClass, reach: Reach, *, shared: bool
) -> bool:
    if shared or reach is Reach.HOST:
        return True
    if reach is Reach.NAMELESS:
        return not caused.tied
    if reach is Reach.BEREFT:
        return not caused.tied or (caused.bereft and caused.top in _WAITING)
    return reach is Reach.APART and not _elsewhere(causing, caused, places(cause, of))


def _elsewhere(one: View, other: View, kinds: frozenset[SubjectKind]) -> bool:
    """Whether both name a place of one kind and no place is the same."""
    for kind in kinds:
        here, there = one.places.get(kind), other.places.get(kind)
        if here and there and here.isdisjoint(there) and not _one_stack(one, other):
            return True
    return False


def _one_stack(one: View, other: View) -> bool:
    """Whether a device that lies on others is told of together with another device: it climbs the stack."""
    here, there = (view.places.get(SubjectKind.DEVICE, _NOTHING) for view in (one, other))
    if not (here and there) or abs(one.first_t - other.first_t) > LISTING_S:
        return False
    return any(map(stacked, here)) and any(map(stacked, there))


def _gap(one: View, other: View) -> float:
    return max(0.0, one.first_t - other.last_t, other.first_t - one.last_t)


def _goes_on(one: View, other: View) -> bool:
    """Whether the later one is about what was told of the same subject and never ended."""
    earlier = min(one, other, key=lambda view: view.first_t)
    return earlier.lasting and one.top is other.top and not one.tied.isdisjoint(other.tied)


def _past(one: View, other: View) -> bool:
    """Whether one of them was over before the other began."""
    return any(
        a.over_t is not None and b.first_t - a.over_t > OVER_S for a, b in ((one, other), (other, one))
    )


def _follows(cause: View, caused: View) -> bool:
    """Whether an effect could come from a cause: not long before it, and not after it was over."""
    if not caused.tied and caused.over_t is None:
        lead_s = NEARBY_S  # a strain that nobody was named for, and that goes on: now somebody is
    else:
        # Who waits in vain notices before the one that is gone is given up.
        lead_s = FOREIGN_LEAD_S if _foreign(cause, caused) and not caused.bereft else LEAD_S
    return caused.first_t >= cause.first_t - lead_s and not _past(cause, caused)


def _foreign(one: View, other: View) -> bool:
    """Whether both blame somebody who runs, and not the same."""
    here, there = (_runners(view) for view in (one, other))
    return bool(here and there) and here.isdisjoint(there)


def _runners(view: View) -> frozenset[str]:
    return view.places.get(SubjectKind.UNIT, frozenset()) | view.places.get(SubjectKind.PROCESS, frozenset())


def _subjects(condition: Condition) -> list[Subject]:
    return [
        Subject(_KINDS[kind], blamed.name if blamed.single else name, blamed.score)
        for (kind, name), blamed in condition.subjects.items()
        if blamed.score >= TIED
    ]


def _view(
    top: FaultClass,
    spoken: frozenset[FaultClass],
    subjects: tuple[Sequence[Subject], Sequence[Subject]],
    times: tuple[float, float, float | None],
    *,
    stage: bool,
) -> View:
    tied = expand(subjects[0], TIED)
    found: dict[SubjectKind, set[str]] = {}
    for kind, name in expand(subjects[1], BLAMED):
        if kind in _KINDS:
            found.setdefault(_KINDS[kind], set()).add(name)
    blamed = {kind: frozenset(names) for kind, names in found.items()}
    reached = frozenset().union(*map(far, spoken))
    return View(top, spoken, reached, tied, blamed, *times, stage, times[1])
