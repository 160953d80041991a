"""Where a finding belongs: keeps the situations, puts each finding into one, and unites those that are one.

Owns the table of situations (bounded) and the weak findings that wait for a strong one. When a situation
becomes an incident is not decided here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from daemon.incidents.grouping import (
    View,
    about_stage,
    affinity,
    lasts,
    on_stage,
    strangers,
    supports,
    view_of_finding,
    view_of_situation,
)
from daemon.incidents.situations import ConditionKey, Situation, began_at, condition_key, incident_id
from daemon.messages import Finding, Incident
from daemon.subjects import split_pid
from models.taxonomy import FaultClass

SITUATIONS_MAX = 128  # open incidents and what may become one; beyond it findings are counted and dropped
WEAK_MAX = 64
GOES_ON_S = 65.0  # since it was told last: what holds is told again every thirty seconds
WHERE_MAX = 4096  # conditions found without a search; the others are searched for

Label = tuple[FaultClass, str, str]  # class, kind and name (without pid) of the first culprit


class Gathering:
    """The situations by id, oldest first."""

    def __init__(self, window_s: float) -> None:
        self.situations: dict[str, Situation] = {}
        self.dropped = 0  # findings for which there was no room
        self._window_s = window_s
        self._where: dict[ConditionKey, str] = {}
        self._tops: dict[str, FaultClass] = {}
        self._views: dict[str, View] = {}
        self._weak: deque[tuple[Finding, View, float]] = deque(maxlen=WEAK_MAX)

    def put(self, finding: Finding, t: float) -> Situation | None:
        """Put a strong finding where it belongs; the situation if that learned something new from it."""
        where = condition_key(finding)
        situation = self.situations.get(self._where.get(where, ""))
        if situation is None or where[1][0] == "host":
            view = view_of_finding(finding, t)
            nearest = self._nearest(view)
            if nearest is not None:
                self._mark(nearest, about_stage(self.view(nearest), view))
            # What goes on is no news, though what it is part of has another name by now.
            situation = nearest or _going_on(situation, finding, t) or self._begin(finding, view, t)
            if situation is None:
                self.dropped += 1
                return None
        known = len(situation.conditions)
        news = situation.add(finding, t)
        if where in situation.conditions:
            self._remember(where, situation.id)
        if not news:
            return None
        self._views.pop(situation.id, None)
        if self._weak and len(situation.conditions) > known:
            self._draw(situation)
        return situation

    def support(self, finding: Finding, t: float) -> None:
        """Give a weak finding to the situation that it fits, or let it wait for one."""
        view = view_of_finding(finding, t)
        best, fitting = 0.0, None
        for situation, other in self._near(view):
            found = supports(view, other, self._window_s)
            if found > best:
                best, fitting = found, situation
        if fitting is None:
            self._weak.append((finding, view, t))
        else:
            fitting.add(finding, t)

    def end(self, finding: Finding, t: float) -> None:
        """A condition is over, wherever it was put."""
        found = [one for one in self.situations.values() if one.end(finding, t)]
        if not found:
            for situation in self.situations.values():
                situation.end_restored(finding, t)

    def restore(self, situation: Situation, top: FaultClass) -> None:
        """Take a situation that was an incident before."""
        self.situations[situation.id] = situation
        for where in situation.conditions:
            self._remember(where, situation.id)
        self._tops[situation.id] = top

    def set_top(self, situation: Situation, top: FaultClass) -> bool:
        """Tell the present fault class of a situation; True if it is another one than before."""
        changed = self._tops.get(situation.id) is not top
        if changed:
            self._tops[situation.id] = top
            self._views.pop(situation.id, None)
        return changed

    def unite(self, situation: Situation, label: Callable[[Situation], Label]) -> list[Situation]:
        """Merge what turned out to be one with `situation`; the survivor first, then those that it absorbed.

        `label` gives what no two open incidents may have in common.
        """
        absorbed: list[Situation] = []
        survivor = situation
        while (other := self._twin(survivor, label(survivor))) is not None:
            survivor, loser = self.join(survivor, other)
            absorbed.append(loser)
        return [survivor, *absorbed]

    def join(self, one: Situation, other: Situation) -> tuple[Situation, Situation]:
        """Make one of two situations; the survivor, and the one that it absorbed."""
        survivor, loser = (one, other) if _elder(one, other) else (other, one)
        stage = about_stage(self.view(survivor), self.view(loser))
        survivor.absorb(loser)
        survivor.stage = stage
        self.remove(loser)
        for where in survivor.conditions:
            self._remember(where, survivor.id)
        self._views.pop(survivor.id, None)
        return survivor, loser

    def remove(self, situation: Situation) -> None:
        """Forget a situation that is over."""
        del self.situations[situation.id]
        self._tops.pop(situation.id, None)
        self._views.pop(situation.id, None)
        for where in situation.conditions:
            if self._where.get(where) == situation.id:
                del self._where[where]

    def forget(self, erased: Callable[[Incident], bool]) -> list[str]:
        """Forget the incidents that the operator has erased; their ids."""
        found = [one for one in self.situations.values() if one.incident is not None and erased(one.incident)]
        for one in found:
            self.remove(one)
        return [one.id for one in found]

    def expire(self, t: float) -> None:
        """Forget weak findings that nothing strong followed."""
        while self._weak and t - self._weak[0][2] > self._window_s:
            self._weak.popleft()

    def view(self, situation: Situation) -> View:
        """The situation as grouping sees it now."""
        view = self._views.get(situation.id)
        if view is None or situation.last_t - view.made_t > self._window_s:
            view = view_of_situation(situation, self._tops[situation.id], self._window_s)
            self._views[situation.id] = view
        lasting = lasts(situation)
        if (view.last_t, view.over_t, view.lasting) != (situation.last_t, situation.over_t, lasting):
            view = view._replace(last_t=situation.last_t, over_t=situation.over_t, lasting=lasting)
        return view

    def _mark(self, situation: Situation, stage: bool) -> None:  # noqa: FBT001
        if stage is not situation.stage:
            situation.stage = stage
            self._views.pop(situation.id, None)

    def _remember(self, where: ConditionKey, number: str) -> None:
        self._where[where] = number
        if len(self._where) > WHERE_MAX:
            del self._where[next(iter(self._where))]

    def _near(self, view: View) -> Iterator[tuple[Situation, View]]:
        """The situations that may have to do with a view, as they are seen now."""
        views = self._views
        for number, situation in self.situations.items():
            known = views.get(number)
            if known is None or not strangers(view, known):
                yield situation, self.view(situation)

    def _nearest(self, view: View) -> Situation | None:
        best, nearest = 0.0, None
        for situation, other in self._near(view):
            found = affinity(view, other, self._window_s)
            if found > best or (
                nearest is not None and found == best > 0.0 and situation.last_t > nearest.last_t
            ):
                best, nearest = found, situation
        return nearest

    def _begin(self, finding: Finding, view: View, t: float) -> Situation | None:
        if len(self.situations) >= SITUATIONS_MAX and not self._make_room():
            return None
        boot = finding.at.boot
        number = incident_id(boot, finding.id)
        situation = Situation(number, boot, t, began_at(finding), t, on_stage(finding))
        self.situations[number] = situation
        self._tops[number] = view.top
        return situation

    def _make_room(self) -> bool:
        waiting = [one for one in self.situations.values() if not one.open]
        if waiting:
            self.remove(min(waiting, key=lambda one: (one.ripe, one.last_t, one.id)))
        return bool(waiting)

    def _draw(self, situation: Situation) -> None:
        """Give a situation the waiting weak findings that fit it."""
        view = self.view(situation)
        fits = [supports(odd, view, self._window_s) > 0.0 for _, odd, _ in self._weak]
        if not any(fits):
            return
        waiting, self._weak = self._weak, deque(maxlen=WEAK_MAX)
        for fit, one in zip(fits, waiting, strict=True):
            if fit:
                situation.add(one[0], one[2])
            else:
                self._weak.append(one)

    def _twin(self, situation: Situation, label: Label) -> Situation | None:
        for other, view in self._near(self.view(situation)):
            if other is not situation and affinity(self.view(situation), view, self._window_s) > 0.0:
                return other
        alike = (
            one
            for one in self.situations.values()
            if one.open and one.stage == situation.stage and label == label_of(one.incident)
        )
        return next((one for one in alike if one is not situation), None)


def label_of(incident: Incident | None) -> Label | None:
    """Class and first culprit as they were told."""
    if incident is None:
        return None
    first = incident.culprits[0]
    return (incident.fault_class, first.kind, split_pid(first.name)[0])


def _going_on(situation: Situation | None, finding: Finding, t: float) -> Situation | None:
    """The situation that has the finding's condition, if that goes on, is no worse, and not all there is."""
    where = condition_key(finding)
    known = situation.conditions.get(where) if situation is not None else None
    if situation is None or known is None or known.ended_t is not None or t - known.last_t > GOES_ON_S:
        return None
    worse = finding.severity.rank > known.finding.severity.rank
    beside = any(one is not known and one.ended_t is None for one in situation.strong())
    return situation if beside and not worse else None


def _elder(one: Situation, other: Situation) -> bool:
    """Whether `one` survives a merge: an open incident before a mere situation, then the older one."""
    return _age(one) <= _age(other)


def _age(situation: Situation) -> tuple[bool, float, float, str]:
    opened = situation.incident.opened_at if situation.open and situation.incident else 0.0
    return (not situation.open, opened, situation.first_t, situation.id)
