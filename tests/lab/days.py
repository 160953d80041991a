"""Quiet days as replay: what is said of telemetry that a host recorded while nothing was wrong with it.

Any daemon keeps such telemetry in its state directory. Whether nothing was wrong is for its owner to say, so
each incident that was notified is listed, also one that became part of another one. Habits are learned as
live; what they silence from its beginning to its end is no news, what somebody had heard of before stays one.

Beside them stands how often whoever is alerted by each entry of priority 3 or worse would have been, counted
as in the comparison with others. Telemetry keeps a share of the lines of each kind, so that is the least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError
from daemon.messages import Incident, Line, Sample
from daemon.replay import Ask, Replay
from daemon.settings import Settings
from daemon.status import ModelTier
from daemon.store.segments import SegmentReader, segment_paths
from tests.lab.answers import OURS, Alert, without_repeats
from tests.lab.said import Said, as_said
from tests.lab.score import DAY_S, poisson_upper

NAIVE = 3  # priority: an error
HOLE_S = 30.0  # between two samples: the daemon did not run


@dataclass(frozen=True)
class Day:
    """A recording, however long; the incidents' times are seconds after its beginning."""

    folder: str
    watched_s: float
    said: list[Said]
    notes: list[str]
    entries: int  # of the journal, of priority 3 or worse: at least so many alerts


def replayed(folder: Path, settings: Settings, ask: Mapping[ModelTier, Ask]) -> Day:
    """What the daemon says of a folder of segments, or of a state directory with one; raises ConfigError."""
    inner = folder / "telemetry"
    paths = segment_paths(inner if inner.is_dir() else folder)
    if not paths:
        raise ConfigError(f"{folder} holds no telemetry", hint="give a state directory of hauswart")
    replay, segments = Replay(settings, ask), SegmentReader(paths)
    watched_s, began, last = 0.0, 0.0, None
    naive = []
    for batch in segments:
        replay.feed(batch)
        replay.middle.learned()
        for one in batch:
            gap_s = one.at.mono - last.mono if last is not None and last.boot == one.at.boot else inf
            if isinstance(one, Line) and gap_s <= HOLE_S and _alerts(one):
                who = one.subject_unit or one.unit
                naive.append(Alert(one.at.wall, who, "error", f"{who} {one.identifier} {one.text}"))
            if not isinstance(one, Sample) or one.source != "host":
                continue
            began = began or one.at.wall
            if 0.0 < gap_s <= HOLE_S:
                watched_s += gap_s
            last = one.at
    told: list[Incident] = [one for one in replay.incidents.values() if one.id in replay.heard]
    said = as_said(told, lambda wall: wall - began, replay, merged=True)
    return Day(str(folder), watched_s, said, segments.notes, len(without_repeats(naive)))


def _alerts(line: Line) -> bool:
    """Whether somebody who wants each error of the journal is alerted by a line."""
    bad = line.source == "journal" and line.priority <= NAIVE
    return bad and not (line.subject_unit or line.unit).startswith(OURS)


def summary(days: Sequence[Day]) -> dict[str, Any]:
    """Incidents a day, and the 95 % limits that this little time leaves (Poisson)."""
    watched = sum(one.watched_s for one in days) / DAY_S
    every = sum(len(one.said) for one in days)
    loud = sum(said.loud for one in days for said in one.said)
    return {
        "host_days": round(watched, 3),
        "incidents": every,
        "above_warning": loud,
        "a_day": every / watched if watched else None,
        "upper_a_day": poisson_upper(every) / watched if watched else None,
        "entries_a_day": sum(one.entries for one in days) / watched if watched else None,
        "days": [asdict(one) for one in days],
    }


def text(found: Mapping[str, Any]) -> str:
    """The same to read."""
    lines = []
    for day in found["days"]:
        lines.append(f"{day['folder']}: {day['watched_s'] / 3600:.1f} hours, {len(day['said'])} incidents")
        for said in day["said"]:
            who = ", ".join(said["culprits"][:2])
            merged = ", part of another one since" if said["merged"] else ""
            lines.append(
                f"  after {said['opened_s'] / 3600:.2f} h: {said['fault_class']} {said['severity']}{merged}"
                f" {who}: {said['text']}"
            )
        lines += [f"  {note}" for note in day["notes"]]
    if found["a_day"] is not None:
        lines.append(
            f"{found['host_days']} host-days: {found['incidents']} incidents ({found['above_warning']} above"
            f" warning), {found['a_day']:.2f} a day, at most {found['upper_a_day']:.1f} (95 %)"
        )
        each = f"{found['entries_a_day']:.0f} a day"
        lines.append(f"an alert for each journal entry of priority {NAIVE} or worse: {each}")
    return "\n".join(lines)
