"""Replays a recorded run and says what was right about it, the same whenever and wherever that is done."""

from __future__ import annotations

import json
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
from tests.lab.age import aged
from tests.lab.answers import JOURNAL, Alert, without_repeats
from tests.lab.moments import Moments
from tests.lab.said import AMBIENT_CORES, LOAD, Said, as_said, heard_since, of_others
from tests.lab.scenario import BENIGN, Run, Scenario, names

Models = tuple[Mapping[ModelTier, Ask], Read | None]  # the tiers' own, and a served one that reads
CULPRITS = 3
LONG_S = 3600.0  # of age, from which a recording is replayed but once


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
    later: list[Said] = field(default_factory=list)  # opened, told or worse after the window, merged or not
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
    def called_its_own(self) -> bool:
        """Whether an incident is of the very class that the scenario stands in."""
        return any(self.is_right(one) and one.fault_class == self.fault_class for one in self.during)

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
    def noticed_once(self) -> bool:
        """Whether there is one incident and no other, of whatever class, and it is about the fault."""
        return len(self.during) == 1 and self.noticed

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
        derived = ("called_its_own", "noticed", "exactly_one", "severity_right", "same_as_live", "named_s")
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
    *,
    tell: Callable[[list[tuple[Incident, list[Advice]]]], None] = lambda _: None,
) -> Verdict:
    """Replay a recording, twice, and compare it with the scenario's label and with what was said live.

    What the daemon said of itself only the recording knows: a replay has no stages that could be silent or
    die. It counts as it was said live. With `age_s`, as of a host that had been quiet for so long before; if
    that is long, but once. `tell` gets the incidents with what is advised.
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
    top = TopTier(configuration.load(folder / "hauswart.toml").top, write)
    advised = [(one, top.advise(one)) for one in first.kept]
    checked, wrong = _check_advice(advised)
    tell(advised)
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
    kept = [
        one
        for one in told
        if max(one.opened_s, one.told_s or 0.0, one.loud_s or 0.0) > ended and not of_others(one, run, label)
    ]
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


def _gist(said: Said) -> tuple[str, str, str]:
    return said.fault_class, said.severity, said.culprits[0] if said.culprits else ""


def _check_advice(advised: list[tuple[Incident, list[Advice]]]) -> tuple[int, list[str]]:
    """How many advices the daemon's own check was asked about, and what it found wrong with them.

    Those of the replay: what was said live was checked by the catalogue and the commands of its day.
    """
    pairs = [(advice, one) for one, every in advised for advice in every]
    wrong = [
        f"{one.id} {advice.lang} {violation.part!r}: {violation.reason}"
        for advice, one in pairs
        for violation in check_advice(advice, one)
    ]
    return len(pairs), wrong
