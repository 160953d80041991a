"""Decides who is told what and when: pure, on the times it is given.

Each channel hears of an incident when it opens (once it was read, where it waits for that), again when
its severity rises, when it is over, and once more when it comes back. What is beyond the hourly limit goes
into a digest. Knows neither how channels are reached nor where deliveries are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from daemon.messages import Incident, KeepSilence
from daemon.settings import Notify
from daemon.silences import quieting
from daemon.store.rows import Delivery
from models.taxonomy import Severity

HOUR_S = 3600.0
ADVICE_WAIT_S = 5.0  # the budget gives advice 3 s at p95
LOOK_WAIT_S = 30.0  # the middle tier itself gives up after 20 s; if it is gone, nobody waits longer
MISSED_S = 600.0  # an incident that was over before anybody heard of it is still news for ten minutes

Reason = Literal["opened", "worse", "closed"]


class State(NamedTuple):
    """An incident, whether the operator knows of it, and what the channels were told."""

    incident: Incident
    acknowledged: bool
    deliveries: Sequence[Delivery]


class Notice(NamedTuple):
    """Something to tell some channels about an incident."""

    incident: Incident
    reason: Reason
    channels: tuple[str, ...]


class Plan(NamedTuple):
    """What to send now, one message each, what to send now as one digest, and when to look again."""

    notices: list[Notice]
    digest: list[Notice]
    look_in_s: float | None


class Said(NamedTuple):
    """The worst that a channel heard of an incident since it opened last, and whether it heard of its end."""

    revision: int
    rank: int
    closed: bool


def moments(deliveries: Iterable[Delivery]) -> list[float]:
    """When notifications were sent, each once, though several channels had it or a digest told of many."""
    of_channel: dict[str, set[float]] = {}
    for one in deliveries:
        if one.ok:
            of_channel.setdefault(one.target, set()).add(one.at)
    busiest: set[float] = max(of_channel.values(), key=len, default=set())
    return sorted(busiest)


class Planner:
    """Remembers what was handed out, so that a delivery still on its way is not handed out again.

    `mono` counts for the limits, `wall` only for silences and for what is old news.
    """

    def __init__(self, settings: Notify, channels: Sequence[str], firing: Collection[str] = ()) -> None:
        """`firing`: the channels to whom an incident is there until they hear of its end, come what may."""
        self._floor = Severity(settings.floor).rank
        self._per_hour, self._digest_s = settings.per_hour, settings.digest_s
        self._channels, self._firing = tuple(channels), frozenset(firing)
        self._sent: deque[float] = deque()
        self._handed: dict[tuple[str, str], Said] = {}
        self._seen: dict[str, float] = {}
        self._digest: set[str] = set()
        self._digest_due = 0.0

    def remember(self, ages_s: Iterable[float], mono: float) -> None:
        """Count notifications of the last hour that an earlier process sent."""
        self._sent.extend(sorted(mono - age for age in ages_s if 0 <= age < HOUR_S))

    def plan(
        self,
        states: Sequence[State],
        silences: Sequence[KeepSilence],
        advised: Collection[str],
        *,
        mono: float,
        wall: float,
    ) -> Plan:
        """What to send now; what is returned counts as handed out. `advised` are ids that have advice."""
        self._forget(states)
        notices, waiting = [], []
        pending: list[Notice] = []
        for state in states:
            notice = self._due(state, silences, wall)
            if notice is None:
                self._digest.discard(state.incident.id)
                continue
            left_s = self._wait_s(notice, advised, mono)
            if left_s > 0:
                waiting.append(left_s)
            elif notice.incident.id in self._digest or not self._may_send(mono):
                pending.append(notice)
            else:
                self._sent.append(mono)
                self._hand_out(notice)
                notices.append(notice)
        digest = self._take_digest(pending, mono)
        if self._digest:
            waiting.append(self._digest_due - mono)
        return Plan(notices, digest, min(waiting, default=None))

    def _forget(self, states: Sequence[State]) -> None:
        known = {state.incident.id for state in states}
        self._handed = {key: said for key, said in self._handed.items() if key[0] in known}
        self._seen = {name: first for name, first in self._seen.items() if name in known}
        self._digest &= known

    def _due(self, state: State, silences: Sequence[KeepSilence], wall: float) -> Notice | None:
        incident = state.incident
        reasons = {channel: self._reason(state, channel, wall) for channel in self._channels}
        hushed = incident.state == "merged" or incident.quieted or state.acknowledged
        hushed = hushed or quieting(silences, incident, wall)
        if hushed or incident.severity.rank < self._floor:
            # Whoever was told of it when it was thought worse hears of its end.
            told = {name for name in (self._firing if hushed else reasons) if self._said(state, name)}
            reasons = {name: one for name, one in reasons.items() if name in told and one == "closed"}
        due = [reason for reason in reasons.values() if reason]
        if not due:
            return None
        first = due[0]  # channels differ only after failures; the others are told in the next round
        return Notice(incident, first, tuple(name for name, reason in reasons.items() if reason == first))

    def _reason(self, state: State, channel: str, wall: float) -> Reason | None:
        incident, said = state.incident, self._said(state, channel)
        if incident.state != "open":
            ended = incident.updated_at if incident.closed_at is None else incident.closed_at
            news = said is not None or incident.id in self._digest or wall - ended < MISSED_S
            return "closed" if news and not (said and said.closed) else None
        if said is None or said.closed:  # what came back was told to be over
            return "opened"
        return "worse" if incident.severity.rank > said.rank else None

    def _said(self, state: State, channel: str) -> Said | None:
        heard = [one for one in state.deliveries if one.target == channel]
        found = [Said(one.revision, Severity(one.severity).rank, one.state != "open") for one in heard]
        handed = self._handed.get((state.incident.id, channel))
        found += [handed] if handed else []
        last: Said | None = None
        for one in sorted(found, key=lambda one: one.revision):
            worst = one.rank if last is None or last.closed else max(one.rank, last.rank)
            last = one._replace(rank=worst)
        return last

    def _wait_s(self, notice: Notice, advised: Collection[str], mono: float) -> float:
        first = self._seen.setdefault(notice.incident.id, mono)
        if notice.incident.waits:
            return first + LOOK_WAIT_S - mono
        if notice.reason == "closed" or notice.incident.id in advised:
            return 0.0
        return first + ADVICE_WAIT_S - mono

    def _may_send(self, mono: float) -> bool:
        while self._sent and mono - self._sent[0] >= HOUR_S:
            self._sent.popleft()
        return len(self._sent) < self._per_hour

    def _take_digest(self, pending: list[Notice], mono: float) -> list[Notice]:
        """The digest if it is due; else note what waits for it."""
        fresh = {notice.incident.id for notice in pending}
        if fresh and not self._digest:
            self._digest_due = mono + self._digest_s
        self._digest |= fresh
        if not pending or mono < self._digest_due:
            return []
        self._digest.clear()
        for notice in pending:
            self._hand_out(notice)
        return pending

    def _hand_out(self, notice: Notice) -> None:
        incident = notice.incident
        said = Said(incident.revision, incident.severity.rank, incident.state != "open")
        if said.closed:
            self._seen.pop(incident.id, None)  # if it comes back, it is waited for anew
        for channel in notice.channels:
            self._handed[incident.id, channel] = said
