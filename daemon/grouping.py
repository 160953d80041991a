"""Whether two views of trouble have one cause: by a shared subject, by place, or by the causal graph.

Pure functions on `View`, which a finding and a situation both have.
"""

from __future__ import annotations

from typing import NamedTuple

from daemon.context import main_class
from daemon.messages import Finding, Subject
from daemon.situations import Situation
from daemon.subjects import Key, expand
from daemon.verdicts import classes
from models.causes import SELF_REACH, Reach, effect, kin, places
from models.taxonomy import Category, FaultClass, SubjectKind

SPEAKS = 0.4  # a class hinted at less is not what a view is about
TIED = 0.3  # a subject that bears less of the blame ties nothing together
BLAMED = 0.5  # from here on a subject is what a finding is about, so that another one is another place
LEAD_S = 10.0  # an effect may be seen this much earlier than its cause
OVER_S = 10.0  # a cause that ended longer ago than this caused nothing new
_PERSONAL = frozenset({Category.SERVICE, Category.SECURITY, Category.UNKNOWN})


class View(NamedTuple):
    """What grouping looks at: classes that are spoken for, subjects, and the stretch of time."""

    top: FaultClass
    classes: frozenset[FaultClass]
    tied: frozenset[Key]
    blamed: frozenset[Key]
    first_t: float
    last_t: float
    over_t: float | None
    stage: bool


def view_of_finding(finding: Finding, t: float) -> View:
    """A finding as grouping sees it."""
    top = main_class(finding)
    spoken = frozenset({top, *(fault for fault, hint in finding.hints.items() if hint >= SPEAKS)})
    return _view(top, spoken, finding.subjects, (t, t, None), stage=on_stage(finding))


def view_of_situation(situation: Situation, top: FaultClass) -> View:
    """A situation as grouping sees it; `top` is its present fault class."""
    subjects = [
        Subject(SubjectKind(kind), blamed.name if blamed.single else name, blamed.score)
        for condition in situation.strong()
        for (kind, name), blamed in condition.subjects.items()
    ]
    spoken = frozenset({top, *(fault for fault, score in classes(situation).items() if score >= SPEAKS)})
    times = (situation.first_t, situation.last_t, situation.over_t)
    return _view(top, spoken, subjects, times, stage=situation.stage)


def on_stage(finding: Finding) -> bool:
    """Whether a finding is about hauswart itself."""
    return any(one.kind is SubjectKind.STAGE for one in finding.subjects)


def affinity(one: View, other: View, window_s: float) -> float:
    """How strongly two views belong together; 0.0 where they do not."""
    if one.stage != other.stage or _gap(one, other) > window_s:
        return 0.0
    shared = bool(one.tied & other.tied)
    if one.top is other.top and not shared and _elsewhere(one, other, places(one.top, one.top)):
        return 0.0
    return max(
        (_pair(one, other, left, right, shared=shared) for left in one.classes for right in other.classes),
        default=0.0,
    )


def supports(oddity: View, situation: View, window_s: float) -> bool:
    """Whether a weak finding fits a situation: it speaks for its class or for an effect of it, nearby."""
    if oddity.stage != situation.stage or _gap(oddity, situation) > window_s:
        return False
    fitting = [
        fault
        for fault in oddity.classes
        if fault in situation.classes or effect(situation.top, fault) is not None
    ]
    if oddity.tied & situation.tied:
        return bool(fitting)
    return any(
        fault.category not in _PERSONAL and not _elsewhere(oddity, situation, places(situation.top, fault))
        for fault in fitting
    )


def _pair(one: View, other: View, left: FaultClass, right: FaultClass, *, shared: bool) -> float:
    if left is right:
        nameless = not (one.tied and other.tied)  # a line that names nobody is about what is known already
        reach = max(SELF_REACH.get(left, Reach.SHARED), Reach.APART if nameless else Reach.SHARED)
        return (3.0 if shared else 2.0) if _reaches(one, other, left, right, reach, shared=shared) else 0.0
    best = 1.0 if shared and kin(left, right) and not _past(one, other) else 0.0
    for cause, of, causing, caused in ((left, right, one, other), (right, left, other, one)):
        edge = effect(cause, of)
        if edge is None or not _reaches(one, other, left, right, edge.reach, shared=shared):
            continue
        if shared or _follows(causing, caused):
            best = max(best, edge.weight + (1.5 if shared else 0.0))
    return best


def _reaches(
    one: View, other: View, left: FaultClass, right: FaultClass, reach: Reach, *, shared: bool
) -> bool:
    if shared or reach is Reach.HOST:
        return True
    return reach is Reach.APART and not _elsewhere(one, other, places(left, right))


def _elsewhere(one: View, other: View, kinds: frozenset[SubjectKind]) -> bool:
    """Whether both name a place of one kind and no place is the same."""
    for kind in kinds:
        here = {name for found, name in one.blamed if found == kind.value}
        there = {name for found, name in other.blamed if found == kind.value}
        if here and there and not here & there:
            return True
    return False


def _gap(one: View, other: View) -> float:
    return max(0.0, one.first_t - other.last_t, other.first_t - one.last_t)


def _past(one: View, other: View) -> bool:
    """Whether one of them was over before the other began."""
    return any(
        a.over_t is not None and b.first_t - a.over_t > OVER_S for a, b in ((one, other), (other, one))
    )


def _follows(cause: View, caused: View) -> bool:
    """Whether an effect could come from a cause: not long before it, and not after it was over."""
    return caused.first_t >= cause.first_t - LEAD_S and not _past(cause, caused)


def _view(
    top: FaultClass,
    spoken: frozenset[FaultClass],
    subjects: list[Subject],
    times: tuple[float, float, float | None],
    *,
    stage: bool,
) -> View:
    tied = expand(subjects, TIED)
    return View(top, spoken, tied, expand(subjects, BLAMED), *times, stage)
