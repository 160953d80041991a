"""Recordings as cases: each incident of a run with what its scenario says was wrong.

What the middle tier learns from and is judged on (`training.sources.cases`). The answer is the scenario's,
not the daemon's: whatever opens between the injection and the end of the window is about the fault that was
played, or, in a harmless doing, about nothing. The mechanism is the group, so that no split cuts one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from daemon import config as configuration
from daemon.errors import ConfigError
from daemon.messages import (
    Event,
    Finding,
    Incident,
    Line,
    Observation,
    Sample,
    Snapshot,
    Stamp,
    Subject,
    Upward,
)
from daemon.replay import Ask, Replay
from daemon.status import ModelTier
from daemon.store.segments import SegmentReader, segment_paths
from daemon.subjects import key
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.lab.moments import Moments
from tests.lab.said import as_said, of_others
from tests.lab.scenario import Run, Scenario
from training.rows import write_parquet
from training.sources.cases import Case
from training.sources.degraded import WAYS, as_seen
from training.sources.episodes import views
from training.sources.situations import row

SOURCE = "lab"
SUFFIXES = {".jsonl": "cases", ".parquet": "rows"}
KINDS = {"lines": Line, "samples": Sample, "snapshots": Snapshot, "events": Event}
# The taxonomy's word for a harmless doing of whatever kind; the model then says nothing.
HARMLESS = FaultClass.HEAVY_BUT_NORMAL_LOAD


class Watched(Replay):
    """A replay that remembers findings, events and every revision of the incidents."""

    def __init__(self, folder: Path, ask: Mapping[ModelTier, Ask]) -> None:
        super().__init__(configuration.load(folder / "hauswart.toml"), ask)
        self.findings: dict[str, Finding] = {}
        self.events: list[Event] = []
        self.told: dict[str, list[tuple[Incident, Stamp]]] = {}

    def _take(self, upward: Sequence[Upward]) -> None:
        before = dict(self.incidents)
        super()._take(upward)
        self.findings |= {one.id: one for one in upward if isinstance(one, Finding)}
        told = (one for one in upward if isinstance(one, Event) and one.kind in {"context", "session"})
        self.events += told
        for number, incident in self.incidents.items():
            if incident is not before.get(number):
                self.told.setdefault(number, []).append((incident, upward[-1].at))


def cases(
    folder: Path, scenario: Scenario, ask: Mapping[ModelTier, Ask], without: Iterable[str] = ()
) -> Iterator[Case]:
    """Up to three views of each incident of a recorded run: as it opened, midway, and as it was told last.

    `ask` may ask the low tier's model; what the middle tier's says would be in the answer's way. `without`
    names kinds of observations that this host has no reader for (`KINDS`).
    """
    missing = [KINDS[one] for one in without]
    run = json.loads((folder / "run.json").read_text())
    label = Run(scenario, run["seed"], run["number"], run["parameters"])
    moments = Moments(run["times"])
    replay = Watched(folder, {tier: one for tier, one in ask.items() if tier == "low"})
    for batch in moments.until(SegmentReader(segment_paths(folder / "telemetry")), "ended"):
        replay.feed([seen for one in batch if (seen := _unread(one, missing)) is not None])
    for number, told in replay.told.items():
        opened = [(one, at) for one, at in told if one.state == "open"]
        if opened and _is_about(replay.incidents[number], run, label):
            for incident, at in views(opened):
                case = _case(replay, incident, at, label)
                source = "-without-".join([SOURCE, *without])
                yield msgspec.structs.replace(case, id="-".join([case.id, *without]), source=source)


def _unread(one: Observation, missing: Sequence[type]) -> Observation | None:
    """An observation on a host that lacks these readers; samples become empty, or time would not pass."""
    if type(one) not in missing:
        return one
    return msgspec.structs.replace(one, values={}) if isinstance(one, Sample) else None


def _is_about(incident: Incident, run: Mapping[str, Any], label: Run) -> bool:
    """Whether the incident opened while the fault was there, and is not about the machine's other work."""
    moments = Moments(run["times"])
    [said] = as_said([incident], moments.since_effect) or [None]
    return said is not None and said.opened_s >= moments.of("began") and not of_others(said, dict(run), label)


def _case(replay: Watched, incident: Incident, at: Stamp, label: Run) -> Case:
    scenario, told = label.scenario, replay.findings
    held = sorted((told[one] for one in incident.finding_ids if one in told), key=lambda one: one.at.mono)
    fault = HARMLESS if scenario.benign else FaultClass(scenario.fault_class)
    severities = scenario.document.severity or [Severity.INFO]
    case = Case(
        id=f"{label.id}.{incident.id}.{incident.revision}",
        group=scenario.name,
        split="test",
        at=at,
        findings=held,
        fault_class=fault,
        severity=severities[0],
        culprits=[who for one in label.culprits for who in _who(one) if who[0] is not SubjectKind.HOST],
        events=[one for one in replay.events if one.at.mono <= at.mono],
        source=SOURCE,
        also=list(scenario.document.also),
        grades=severities[1:],
    )
    return as_seen(case)


def _who(culprit: str) -> list[tuple[SubjectKind, str]]:
    """A label's culprit as it stands, and as the daemon keeps it: a control group without its path."""
    kind, _, name = culprit.partition(":")
    bare = key(Subject(SubjectKind(kind), name))[1]
    return [(SubjectKind(kind), one) for one in dict.fromkeys((name, bare))]


def degraded(found: Iterable[Case], *, copies: int, seed: int = 1) -> Iterator[Case]:
    """So many copies of each case in each way of seeing less of it, without those that say nothing new."""
    for case in found:
        known = {msgspec.json.encode(case.findings)}
        for way, degrade in WAYS.items():
            for number in range(copies):
                random = Random(f"{seed} {case.id} {way} {number}")
                less = degrade(case, random)
                content = msgspec.json.encode(less.findings) if less else b""
                if less is not None and content not in known:
                    known.add(content)
                    yield msgspec.structs.replace(
                        less, id=f"{case.id}.{way}{number}", source=f"{case.source}-{way}"
                    )


def held_out(found: Sequence[Case], part: int, of: int) -> list[Case]:
    """The cases; every `of`-th mechanism from the `part`-th on is tested on, the others are learnt from.

    With as many parts as mechanisms that is leave-one-mechanism-out. Raises ConfigError for more parts than
    mechanisms.
    """
    groups = sorted({one.group for one in found})
    if of > len(groups):
        raise ConfigError(f"--hold-out {part}/{of}: there are {len(groups)} mechanisms", hint="fewer parts")
    held = set(groups[part - 1 :: of])
    return [msgspec.structs.replace(one, split="test" if one.group in held else "train") for one in found]


def write(found: Sequence[Case], out: Path, *, keep_split: bool = False) -> int:
    """Write cases as JSON lines, or, where `out` ends in .parquet, as rows for training; how many.

    Rows hold no names: a text has slots in their place, and values are dropped. Without `keep_split` they
    have no split, so that `hauswart train dataset --table` gives them one, by mechanism. Raises ConfigError
    for another suffix.
    """
    check(out)
    if out.suffix == ".parquet":
        left_out = set() if keep_split else {"split"}
        rows = [{name: value for name, value in row(one).items() if name not in left_out} for one in found]
        distinct = list({repr(one): one for one in rows}.values())
        write_parquet(out, distinct, {"cases": len(found)})
        return len(distinct)
    out.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in found))
    return len(found)


def check(out: Path) -> None:
    """Raise ConfigError for a file that cannot be written, before anything is replayed."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: cases are {' or '.join(SUFFIXES)}", hint="--out lab-cases.jsonl")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} does not exist", hint="make it, or write elsewhere")
