"""The event path of the low tier: devices, links, stages and readers become findings.

Sessions and contexts are no faults; the tier above weighs them. Pure, on observation time: `tick` lets what
lasts be repeated and what waits be settled.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from daemon.messages import Event, Finding, Stamp, Subject
from daemon.settings import Low
from daemon.tiers.conditions import Breach, Conditions
from daemon.tiers.peripherals import RULE as UNPLUGGED
from daemon.tiers.peripherals import Peripherals
from daemon.tiers.wording import quantity
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

DOWN, LOSS, LOST = FaultClass.LINK_DOWN, FaultClass.PACKET_LOSS, FaultClass.DEVICE_LOST
LINKS_MAX = 1024
DEVICE_STALE_S = 600.0  # a lost device is news for ten minutes
PAIR_S = 2.0
NEGOTIATES_S = 5.0  # that both ends of a copper link take to agree (IEEE 802.3, clause 28), at each resume
FLAPS, FLAP_S = (
    4,
    300.0,
)  # a cable that is plugged in anew or a switch that restarts drops the link once or twice

# Kinds (IFLA_INFO_KIND) that follow what is attached to them and say nothing of a cable or a peer.
_FOLLOWERS = frozenset(
    {"bridge", "dummy", "ifb", "tun", "tap", "macvlan", "macvtap", "ipvlan", "vxlan", "sit"}
)
_VIRTUAL_BLOCKS = ("loop", "ram", "zram", "dm-", "nbd", "sr", "fd")


class Grade(NamedTuple):
    """How bad, and how long a link must stay down before it counts."""

    severity: Severity
    score: float
    settle_s: float


class _Link:
    __slots__ = ("action", "carried", "downs", "enabled", "index", "kind", "name", "order", "pair", "since_t")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = ""
        self.index = -1
        self.action = "up"
        self.carried = False  # it has had a carrier
        self.enabled = False  # it was taken down, and has just been taken up again
        self.since_t = 0.0
        self.order = 0  # of going down, among all links
        self.pair = ""  # the other end, which went down together with this one
        self.downs: deque[float] = deque(maxlen=64)


class EventJudge:
    """Judges events in the order of observation time."""

    def __init__(self, settings: Low) -> None:  # noqa: ARG002  every judge is made alike
        self._conditions = Conditions()
        self._links: dict[str, _Link] = {}
        self._down: dict[str, _Link] = {}
        self._flapping: set[str] = set()
        self._drops = 0
        self._peripherals = Peripherals()
        self.counters = {"links_dropped": 0}

    def judge(self, event: Event, t: float) -> list[Finding]:
        """Findings of one event."""
        if event.kind == "link":
            return self._link(event, t) + self.tick(t, event.at)
        if event.kind == "device":
            return self._device(event, t)
        if event.kind == "session":
            self._peripherals.sit(event)
        if event.kind == "stage":
            return self._stage(event, t)
        if event.kind == "reader":
            return self._reader(event, t)
        return []

    def tick(self, t: float, at: Stamp) -> list[Finding]:
        """Observation time has come to `t`: what has settled, lasts or is over."""
        findings: list[Finding] = []
        for link in self._down.values():
            if not (link.pair and link.pair in self._down and self._leads(link.pair, link.name)):
                findings += self._conditions.hold(self._link_breach(link), at, t)
        for name in sorted(self._flapping):
            findings += self._flap(name, at, t)
        for breach in self._peripherals.due(t):
            findings += self._conditions.hold(breach, at, t)
        if len(self._conditions):
            findings += self._conditions.sweep(at, t)
        return findings

    # --- links --------------------------------------------------------------------------------------------

    def _link(self, event: Event, t: float) -> list[Finding]:
        link = self._links.get(event.name)
        if link is None:
            if len(self._links) >= LINKS_MAX:
                self.counters["links_dropped"] += 1
                return []
            link = self._links[event.name] = _Link(event.name)
        link.kind = event.attributes.get("kind", link.kind)
        index = event.attributes.get("index", "")
        link.index = int(index) if index.isdecimal() and len(index) < 10 else link.index
        link.action, link.since_t = event.action, t
        was = event.attributes.get("was", "up" if event.action == "down" else "")
        link.enabled = event.action == "down" and was == "admin-down"
        link.carried |= "up" in {event.action, event.attributes.get("state"), was}
        if event.action == "down" and not link.carried:  # enabled, and nothing at its other end yet
            return self._raised(link, event.at)
        if event.action == "removed":
            del self._links[event.name]
            return self._raised(link, event.at) + self._removed(link, event, t)
        if event.action in {"down", "admin-down"}:
            return self._dropped(link, event, t)
        return self._raised(link, event.at) if event.action == "up" else []

    def _dropped(self, link: _Link, event: Event, t: float) -> list[Finding]:
        findings: list[Finding] = []
        if link.name in self._down:  # from `down` to `admin-down` or back: another condition
            findings = self._raised(link, event.at)
        elif event.action == "down":
            link.downs.append(t)
        partner = self._partner(link, t)
        link.pair = partner.name if partner else ""
        if link.name not in self._down:
            self._drops += 1
            link.order = self._drops
            self._down[link.name] = link
        if partner:
            partner.pair = link.name
            if self._leads(link.name, partner.name):
                findings += self._end(partner, event.at)
        if link.kind not in _FOLLOWERS and len([d for d in link.downs if t - d <= FLAP_S]) >= FLAPS:
            self._flapping.add(link.name)
        return findings

    def _raised(self, link: _Link, at: Stamp) -> list[Finding]:
        self._down.pop(link.name, None)
        return self._end(link, at)

    def _end(self, link: _Link, at: Stamp) -> list[Finding]:
        findings = self._conditions.end("link.down", link.name, at)
        return findings + self._conditions.end("link.admin-down", link.name, at)

    def _removed(self, link: _Link, event: Event, t: float) -> list[Finding]:
        """A virtual interface comes and goes with its container; a card that vanishes is worth a note."""
        self._flapping.discard(link.name)
        if link.kind or event.attributes.get("kind") or "was" not in event.attributes:
            return []
        text = f"The interface {link.name} has disappeared."
        grade = Grade(Severity.INFO, 0.4, 0.0)
        hints = {LOST: 0.4, DOWN: 0.3}
        subject = _interface(link.name)
        return self._once(
            _event_breach("link.removed", subject, grade, hints=hints, text=text, event=event), event, t
        )

    def _partner(self, link: _Link, t: float) -> _Link | None:
        """The other end of a veth pair: made together, so of neighbouring index."""
        for other in self._down.values():
            near = abs(other.index - link.index) == 1 and other.index > 0
            if (
                other is not link
                and link.kind == other.kind == "veth"
                and near
                and t - other.since_t <= PAIR_S
            ):
                return other
        return None

    def _leads(self, name: str, other: str) -> bool:
        """Which end of a pair is reported: the one that lost its carrier, and of two such the first."""
        one, two = self._down[name], self._down[other]
        if one.action != two.action:
            return one.action == "down"
        return one.order < two.order

    def _link_breach(self, link: _Link) -> Breach:
        grade = _grade(link)
        subjects = [_interface(link.name)]
        text = f"{link.name} has lost its carrier" if link.action == "down" else f"{link.name} was taken down"
        other, values = self._down.get(link.pair), {}
        if other:
            values = {"peers_count": 1.0, "taken_down_count": float(other.action != "down")}
            subjects.append(_interface(other.name, 0.5))
            text += f"; its peer {other.name} " + (
                "lost it too" if other.action == "down" else "was taken down"
            )
        return Breach(
            f"link.{link.action}",
            link.name,
            grade.severity,
            grade.score,
            subjects,
            {DOWN: 0.9 if link.action == "down" else 0.5},
            text + ".",
            values,
            ref=link.name,
            kind="event",
            sustain_s=max(grade.settle_s, NEGOTIATES_S) if link.enabled else grade.settle_s,
            stale_s=60.0,
            category=Category.NETWORK,
        )

    def _flap(self, name: str, at: Stamp, t: float) -> list[Finding]:
        link = self._links[name]
        while link.downs and t - link.downs[0] > FLAP_S:
            link.downs.popleft()
        if len(link.downs) < FLAPS:
            self._flapping.discard(name)
            return self._conditions.end("link.flapping", name, at)
        count = float(len(link.downs))
        text = f"{name} has lost its carrier {quantity(count)} times in {quantity(FLAP_S / 60)} minutes."
        values = {"failures_count": count, "window_s": FLAP_S}
        hints = {DOWN: 0.7, LOSS: 0.3}
        breach = Breach(
            "link.flapping",
            name,
            Severity.WARNING,
            0.65,
            [_interface(name)],
            hints,
            text,
            values,
            name,
            "event",
        )
        return self._conditions.hold(breach, at, t)

    # --- devices, stages, readers -------------------------------------------------------------------------

    def _device(self, event: Event, t: float) -> list[Finding]:
        subject = Subject(SubjectKind.DEVICE, event.name.rpartition("/")[2] or event.name)
        back = self._peripherals.note(event, t)
        if event.action == "add":
            ended = self._conditions.end("device.removed", subject.name, event.at)
            return ended + (self._conditions.end(UNPLUGGED, subject.name, event.at) if back else [])
        if event.action != "remove":
            return []
        used = _use(event)
        grade = _device_grade(event, subject.name, used)
        if grade is None:
            return []
        text = f"The device {subject.name} has disappeared" + (f" while in use ({used})." if used else ".")
        hints = {LOST: 0.9, FaultClass.DISK_FAILING: 0.2} if grade.score >= 0.5 else {LOST: 0.3}
        breach = _event_breach("device.removed", subject, grade, hints=hints, text=text, event=event)
        return self._once(breach, event, t)

    def _stage(self, event: Event, t: float) -> list[Finding]:
        subject = Subject(SubjectKind.STAGE, event.name)
        if event.action in {"start", "stop"}:
            return [
                finding
                for rule in ("stage.crashed", "stage.silent")
                for finding in self._conditions.end(rule, event.name, event.at)
            ]
        if event.action == "crashed":
            hints = {FaultClass.SERVICE_CRASH: 0.9}
            grade = Grade(Severity.ERROR, 0.7, 0.0)
            text = f"hauswart's own stage {event.name} died without stopping."
        elif event.action == "silent":
            hints = {FaultClass.SERVICE_HUNG: 0.7, FaultClass.SERVICE_CRASH: 0.3}
            grade = Grade(Severity.WARNING, 0.6, 0.0)
            text = f"hauswart's own stage {event.name} has not given a sign of life in time."
        else:
            return []
        rule = f"stage.{event.action}"
        return self._once(_event_breach(rule, subject, grade, hints=hints, text=text, event=event), event, t)

    def _reader(self, event: Event, t: float) -> list[Finding]:
        """A source that lost something: worth knowing beside an incident, no fault of the host."""
        if event.action not in {"gap", "absent"}:
            return []
        reason = event.attributes.get("reason", "")
        lost = event.attributes.get("lost", "")
        text = f"The source {event.name} " + ("is absent" if event.action == "absent" else "has a gap")
        text += f": {reason[:300]}." if reason else "."
        subject = Subject(SubjectKind.STAGE, "collector")
        values = {"lost_count": float(lost)} if lost.isdecimal() and len(lost) < 16 else {}
        rule, grade = f"reader.{event.action}", Grade(Severity.INFO, 0.1, 0.0)
        breach = _event_breach(rule, subject, grade, hints={}, text=text, event=event)
        breach = breach._replace(label=event.name, values=values, category=Category.UNKNOWN)
        return self._conditions.hold(breach, event.at, t)

    def _once(self, breach: Breach, event: Event, t: float) -> list[Finding]:
        """Something that happened and is news for a while; nobody will say that it is over."""
        findings = self._conditions.hold(breach, event.at, t)
        return findings + self._conditions.sweep(event.at, t)


def _event_breach(
    rule: str, subject: Subject, grade: Grade, *, hints: dict[FaultClass, float], text: str, event: Event
) -> Breach:
    pid = event.attributes.get("pid", "")
    values = {"pid": float(pid)} if pid.isdecimal() and len(pid) < 10 else {}
    return Breach(
        rule,
        subject.name,
        grade.severity,
        grade.score,
        [subject],
        hints,
        text,
        values,
        ref=event.name,
        kind="event",
        stale_s=DEVICE_STALE_S,
    )


def _interface(name: str, score: float = 1.0) -> Subject:
    return Subject(SubjectKind.INTERFACE, name, score)


def _grade(link: _Link) -> Grade:
    if link.kind in _FOLLOWERS:
        return Grade(Severity.INFO, 0.2, 1.0)
    if link.action == "admin-down":  # somebody meant it; whether anybody did is for the tier above to weigh
        return Grade(Severity.INFO, 0.3, 1.0) if link.kind else Grade(Severity.WARNING, 0.5, 1.0)
    if link.kind:  # a container that stops takes its interface down a moment before it is removed
        return Grade(Severity.WARNING, 0.6, 1.0)
    # Roaming takes a wireless link (systemd's names: wl...) down for some seconds.
    return Grade(Severity.ERROR, 0.8, 5.0 if link.name.startswith("wl") else 0.0)


def _use(event: Event) -> str:
    """What used a device, as the collector says it."""
    attributes = event.attributes
    for key in ("mounts", "mount", "mountpoint", "holders", "in_use", "used_by"):
        value = attributes.get(key, "")
        if value and value.lower() not in {"0", "no", "false"}:
            return f"{key.replace('_', ' ')}: {value}"
    return ""


def _device_grade(event: Event, name: str, used: str) -> Grade | None:
    attributes = event.attributes
    subsystem = attributes.get("subsystem", "")
    if used:
        return Grade(Severity.ERROR, 0.8, 0.0)
    if attributes.get("devtype") == "partition" or name.startswith(_VIRTUAL_BLOCKS):
        return None  # the disk itself speaks for its partitions; loops are files
    # Given up before (unmounted, its array stopped) and then taken out is how it is done; a disk that dies
    # unused is told of by its bus. The other subsystems of a disk are that bus, which goes with it.
    return Grade(Severity.INFO, 0.3, 0.0) if subsystem == "block" else None
