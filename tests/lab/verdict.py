"""Replays a recorded run and says what was right about it, the same whenever and wherever that is done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from daemon import config as configuration
from daemon.advice.check import check_advice
from daemon.messages import Advice, Incident
from daemon.replay import Ask, Read, Replay
from daemon.status import ModelTier
from daemon.store.segments import SegmentReader, segment_paths
from daemon.tiers.top import TopTier, Write
from models.taxonomy import Severity
from tests.lab.age import aged
from tests.lab.answers import JOURNAL, Alert, without_repeats
from tests.lab.moments import Moments
from tests.lab.scenario import BENIGN, Run, Scenario, names

Models = tuple[Mapping[ModelTier, Ask], Read | None]  # the tiers' own, and a served one that reads
CULPRITS = 3
LONG_S = 3600.0  # of age, from which a recording is replayed but once
# Where others keep a whole core busy, load that the daemon lays at nobody's door is theirs.
AMBIENT_CORES = 1.0
LOAD = {"cpu-saturation", "io-saturation"}
OWN = "unit:lab-guest.service"  # runs what the lab asks for in a virtual machine, where every step is slow
STAGE = "stage:"  # whom hauswart blames where it complains about itself


@dataclass(frozen=True)
class Said:
    """An incident as far as it is scored; times in seconds after the effect (benign: after the beginning)."""

    fault_class: str
    severity: str
    culprits: list[str]
    opened_s: float
    path: str
    text: str = ""
    loudest: str = ""  # severity that it ever had, where that is known
    worse_s: tuple[float, ...] = ()  # when it got worse since, where that is known
    named: tuple[tuple[float, str], ...] = ()  # what it was called, since when, where that is known
    before_s: float | None = None  # when it opened, if that was before the injection and it got worse since
    merged: bool = False  # it became part of another one
    told_after_s: float | None = 0.0  # from its opening until somebody is told of it; None if nobody is

    @property
    def told_s(self) -> float | None:
        """When somebody is told of it, as `opened_s`: its words may have to be read first."""
        return None if self.told_after_s is None else self.opened_s + self.told_after_s

    @property
    def loud(self) -> bool:
        """At any time worse than a warning: somebody is woken up."""
        return Severity(self.loudest or self.severity).rank > Severity.WARNING.rank

    @property
    def about_itself(self) -> bool:
        """Whether hauswart complains about itself: a stage was silent, dropped something or died."""
        return bool(self.culprits) and self.culprits[0].startswith(STAGE)


@dataclass(frozen=True)
class Peer:
    """What another watcher raised in the same run; its alerts' times are as `Said.opened_s`."""

    version: str
    alerts: list[Alert]
    cpu_s: float | None = None
    pss_bytes: float | None = None
    dropped: int = 0  # more alerts that were not kept


@dataclass(frozen=True)
class Verdict:
    """What a replay said during a run, and whether that was right."""

    id: str
    scenario: str
    fault_class: str
    system: str
    noise: list[str]
    right_classes: list[str]
    right_culprits: list[str]
    right_severity: list[str]
    span_s: tuple[float, float]  # injection to end of the window, as `Said.opened_s`
    watched_s: float  # all that the daemon saw of the run
    before: list[Said] = field(default_factory=list)
    during: list[Said] = field(default_factory=list)
    ambient: list[Said] = field(default_factory=list)  # true of the machine, but not of this run; not scored
    merged: int = 0  # more that were opened meanwhile, and became part of another one
    absorbed: list[Said] = field(default_factory=list)  # those of them that are not ambient
    live: list[Said] = field(default_factory=list)
    later: list[Said] = field(default_factory=list)  # after the window, while it lingered, merged or not
    lingered_s: float = 0.0  # until when it did, as `Said.opened_s`; 0 if not
    ambient_cores: float = 0.0
    peers: dict[str, Peer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # peers that were asked for, and why they are not
    advice_checked: int = 0
    advice_violations: list[str] = field(default_factory=list)
    same_twice: bool | None = True  # None if it was replayed but once
    damage: list[str] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def benign(self) -> bool:
        """Whether nothing was wrong."""
        return self.fault_class == BENIGN

    @property
    def accompanied(self) -> bool:
        """Whether other watchers ran beside hauswart, or should have."""
        return bool(self.peers or self.left_out)

    @property
    def right(self) -> Said | None:
        """The first right incident."""
        return next((one for one in self.during if self.is_right(one)), None)

    @property
    def told(self) -> list[Said]:
        """All that was said in the window, whether notified or not, also what became part of another one."""
        return [*self.during, *self.absorbed]

    @property
    def named_s(self) -> float | None:
        """Since when the right incident has a right class for good, as `Said.opened_s`."""
        if self.right is None:
            return None
        since_s = self.right.opened_s
        for at_s, called in self.right.named[::-1]:
            if called not in self.right_classes:
                break
            since_s = at_s
        return max(since_s, self.right.opened_s)

    @property
    def noticed(self) -> bool:
        """Whether any incident is right or blames a right culprit first."""
        told = [one for one in self.during if one.told_after_s is not None]
        return any(self.is_right(one) or self.blames(one, 1) for one in told)

    @property
    def exactly_one(self) -> bool:
        """Whether the right incident is the only one."""
        return len(self.during) == 1 and self.right is not None

    @property
    def severity_right(self) -> bool:
        """Whether the right incident is as bad as it is."""
        return self.right is not None and self.right.severity in self.right_severity

    @property
    def same_as_live(self) -> bool:
        """Whether the daemon said the same beside the fault; of itself a replay says nothing."""
        replayed = [one for one in self.during if not one.about_itself]
        return [_gist(one) for one in replayed] == [_gist(one) for one in self.live]

    def is_right(self, said: Said) -> bool:
        """Whether somebody is told of an incident of a right class, and not about hauswart itself."""
        known = said.fault_class in self.right_classes and not said.about_itself
        return known and said.told_after_s is not None

    def blames(self, said: Said, places: int) -> bool:
        """Whether a right culprit is among the first of an incident."""
        return any(names(right, one) for right in self.right_culprits for one in said.culprits[:places])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        derived = ("noticed", "exactly_one", "severity_right", "same_as_live", "named_s")
        found = {name: getattr(self, name) for name in derived}
        culprit = {
            f"culprit_{n}": self.right is not None and self.blames(self.right, n) for n in (1, CULPRITS)
        }
        return asdict(self) | found | culprit | {"right": asdict(self.right) if self.right else None}


def is_drowned(folder: Path) -> bool:
    """Whether a fault of load was played on a machine that others kept busy: nothing can be said of it."""
    run = json.loads((folder / "run.json").read_text())
    return run["system"] == "host" and run["class"] in LOAD and run["ambient_cores"] >= AMBIENT_CORES


def judge(
    folder: Path,
    scenario: Scenario,
    models: Models,
    write: Write | None = None,
    age_s: float = 0.0,
) -> Verdict:
    """Replay a recording, twice, and compare it with the scenario's label and with what was said live.

    What the daemon said of itself only the recording knows: a replay has no stages that could be silent or
    die. It counts as it was said live. With `age_s`, as of a host that had been quiet for so long before; if
    that is long, but once.
    """
    run = json.loads((folder / "run.json").read_text())
    label = Run(scenario, run["seed"], run["number"], run["parameters"])
    moments = Moments(run["times"])
    began, end = moments.of("began"), moments.of("ended")
    first = _replay(folder, moments, models, "ended", age_s)
    second = _replay(folder, moments, models, "ended", age_s) if age_s < LONG_S else None
    live = [msgspec.convert(one["incident"], Incident) for one in run["live"]]
    lived = [one for one in as_said(live, moments.since_effect) if one.opened_s <= end]
    told = _told(first, live, moments, end)
    within = [heard for one in told if (heard := heard_since(began, one)) is not None]
    others = [one for one in within if of_others(one, run, label)]
    scored = [one for one in within if one not in others]
    checked, wrong = _check_advice(folder, first.kept, run, live, write)
    return Verdict(
        id=str(folder.relative_to(folder.parents[2])),
        scenario=run["scenario"],
        fault_class=run["class"],
        system=run["system"],
        noise=run["noise"],
        right_classes=sorted(scenario.right_classes),
        right_culprits=label.culprits,
        right_severity=[one.value for one in scenario.document.severity],
        span_s=(began, end),
        watched_s=end - moments.of("up"),
        before=[one for one in told if not one.merged and heard_since(began, one) is None],
        during=[one for one in scored if not one.merged],
        ambient=[one for one in others if not one.merged],
        merged=sum(one.merged and began <= one.opened_s for one in told),
        absorbed=[one for one in scored if one.merged],
        live=[one for one in lived if one.opened_s >= began and not of_others(one, run, label)],
        advice_checked=checked,
        advice_violations=wrong,
        same_twice=told == _told(second, live, moments, end) if second else None,
        damage=first.notes,
        losses=run["losses"],
        ambient_cores=run["ambient_cores"],
        **_beyond(folder, run, label, models, live),
        **_beside(run),
    )


def _beyond(
    folder: Path, run: dict[str, Any], label: Run, models: Models, live: list[Incident]
) -> dict[str, Any]:
    """What was said after the window in a run that lingered."""
    if "lingered" not in run["times"]:
        return {}
    moments = Moments(run["times"])
    ended, end = moments.of("ended"), moments.of("lingered")
    told = _told(_replay(folder, moments, models, "lingered"), live, moments, end)
    new = [one for one in told if one.opened_s > ended or (one.told_s or 0.0) > ended]
    kept = [one for one in new if not of_others(one, run, label)]
    return {"later": kept, "lingered_s": end}


def _beside(run: dict[str, Any]) -> dict[str, Any]:
    """The other watchers of the run."""
    moments, peers, left_out = Moments(run["times"]), {}, {}
    for name, said in run.get("peers", {}).items():
        if "left_out" in said:
            left_out[name] = said["left_out"]
            continue
        alerts = [Alert(**one) for one in said["alerts"]]
        if name == JOURNAL:  # older recordings hold each entry
            alerts = without_repeats(alerts)
        alerts = [
            replace(one, at=_since(one.at, moments), cleared_at=_since(one.cleared_at, moments))
            for one in alerts
        ]
        cost = said.get("cpu_s"), said.get("pss_bytes")
        peers[name] = Peer(said["version"], alerts, *cost, said.get("alerts_dropped", 0))
    return {"peers": peers, "left_out": left_out}


def _since(at: float | None, moments: Moments) -> float | None:
    return None if at is None else round(moments.since_effect(at), 3)


class _Replayed(NamedTuple):
    """The incidents at some time, those that became part of them, and what of the recording is damaged."""

    kept: list[Incident]
    merged: list[Incident]
    notes: list[str]
    replay: Replay


def _replay(folder: Path, moments: Moments, models: Models, end: str, age_s: float = 0.0) -> _Replayed:
    """Replay until the time called `end`."""
    replay = Replay(configuration.load(folder / "hauswart.toml"), *models)
    segments = SegmentReader(segment_paths(folder / "telemetry"))
    for batch in aged(moments.until(segments, end), moments.times["began"], age_s):
        replay.feed(batch)
    kept = [one for one in replay.incidents.values() if one.state != "merged"]
    merged = [one for one in replay.incidents.values() if one.state == "merged"]
    return _Replayed(kept, merged, segments.notes, replay)


def _told(replayed: _Replayed, live: list[Incident], moments: Moments, until_s: float) -> list[Said]:
    """All that a replay said, and what the daemon said live of itself, in order, merged or not."""
    every = [*replayed.kept, *replayed.merged]
    told = as_said(every, moments.since_effect, replayed.replay, merged=True)
    lived = as_said(live, moments.since_effect, merged=True)
    told += [one for one in lived if one.about_itself and one.opened_s <= until_s]
    return sorted(told, key=lambda one: one.opened_s)


def as_said(
    incidents: list[Incident],
    since: Callable[[float], float],
    replay: Replay | None = None,
    *,
    merged: bool = False,
) -> list[Said]:
    """Incidents as far as they are scored, in order; `since` gives the seconds of a time in Unix seconds.

    With `merged`, those too that became part of another one.
    """
    heard, named = (replay.heard, replay.named) if replay else ({}, {})
    kept = sorted(
        (one for one in incidents if merged or one.state != "merged"),
        key=lambda one: (since(one.opened_at), one.id),
    )
    return [
        Said(
            one.fault_class.value,
            one.severity.value,
            [f"{who.kind}:{who.name}" for who in one.culprits],
            round(since(one.opened_at), 3),
            one.path,
            one.evidence[0].text[:200] if one.evidence else "",
            heard[one.id][-1].severity.value if one.id in heard else "",
            tuple(round(since(each.at), 3) for each in heard.get(one.id, [])[1:]),
            tuple((round(since(at), 3), called.value) for at, called in named.get(one.id, [])),
            merged=one.state == "merged",
            told_after_s=_told_after(one, replay),
        )
        for one in kept
    ]


def _told_after(one: Incident, replay: Replay | None) -> float | None:
    """How long after its opening somebody is told of an incident; None if nobody is."""
    if replay is None:
        return None if one.waits or one.severity is Severity.INFO else 0.0
    heard = replay.heard.get(one.id)
    return round(max(0.0, heard[0].at - one.opened_at), 3) if heard else None


def heard_since(began_s: float, said: Said) -> Said | None:
    """An incident as of when somebody heard of it first since the injection; None if it was older news.

    One that was there before and gets worse is told anew: that counts like one that opens.
    """
    if said.opened_s >= began_s:
        return said
    if said.told_s is not None and said.told_s >= began_s:  # opened right before, and still to be read then
        return replace(said, opened_s=said.told_s, told_after_s=0.0)
    at = next((at for at in said.worse_s if at >= began_s), None)
    return None if at is None else replace(said, opened_s=at, before_s=said.opened_s, told_after_s=0.0)


def of_others(said: Said, run: dict[str, Any], label: Run) -> bool:
    """Whether an incident about load is about what else this machine did.

    A container's daemon sees no process outside, so who is blamed by name there is the run's own; but it sees
    every disk of the machine, those of runs beside it, too: a run's own loop devices stand in its scenario.
    What is said of another run's disk is no hit, whatever its class is; one that is neither load nor right is
    scored as wrong.
    """
    right = said.fault_class in label.scenario.right_classes
    if run["system"] == "container" and _of_another_run(said, label):
        return right or said.fault_class in LOAD
    if right or said.fault_class not in LOAD:
        return False
    if said.culprits[:1] == [OWN]:
        return True
    named = [one for one in said.culprits[:1] if one != "host:"]
    if run["system"] == "host":
        named = [one for one in named if any(names(right, one) for right in label.culprits)]
    return not named and run["ambient_cores"] >= AMBIENT_CORES


def _of_another_run(said: Said, label: Run) -> bool:
    """Whether an incident blames a loop device first that its run neither names nor could have been given."""
    kind, _, name = (said.culprits or [""])[0].partition(":")
    done = label.fill(json.dumps(msgspec.to_builtins(label.scenario.document)))
    given = re.search(r"losetup (?:-\S+ )*(?:-f|--find)", done)
    return kind == "device" and name.startswith("loop") and not given and not re.search(rf"\b{name}\b", done)


def _gist(said: Said) -> tuple[str, str, str]:
    return said.fault_class, said.severity, said.culprits[0] if said.culprits else ""


def _check_advice(
    folder: Path, replayed: list[Incident], run: dict[str, Any], live: list[Incident], write: Write | None
) -> tuple[int, list[str]]:
    """How many advices the daemon's own check was asked about, and what it found wrong with them."""
    top = TopTier(configuration.load(folder / "hauswart.toml").top, write)
    pairs = [(advice, one) for one in replayed for advice in top.advise(one)]
    for one, told in zip(live, run["live"], strict=True):
        pairs += [(msgspec.convert(advice, Advice), one) for advice in told["advice"]]
    wrong = [
        f"{one.id} {advice.lang} {violation.part!r}: {violation.reason}"
        for advice, one in pairs
        for violation in check_advice(advice, one)
    ]
    return len(pairs), wrong
