"""What a page about incidents shows, read from the store and the telemetry that is still kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.advice.titles import title
from daemon.messages import Advice, Incident, KeepFeedback
from daemon.pages.plots import Curve
from daemon.pages.words import Words
from daemon.store.reader import StoreReader
from daemon.store.segments import read_events, read_series
from models.taxonomy import Severity

MARGIN_S = 300.0  # of telemetry before and after an incident
CURVES_MAX = 6
BEFORE_S = 1800.0
CHANGES_MAX = 12
CHANGING = frozenset({"context", "session", "device", "link", "stage"})
INCIDENTS_MAX = 200  # in one report


@dataclass(frozen=True)
class Told:
    """One incident with everything that is known of it."""

    incident: Incident
    title: str
    advice: Advice | None
    steps: Sequence[tuple[float, str]]
    curves: Sequence[Curve]
    feedback: Sequence[KeepFeedback]
    changes: Sequence[tuple[float, str]] = ()

    @property
    def sources(self) -> list[tuple[str, str]]:
        """What the advice cites, number by number and name by name, with the evidence that says it."""
        said = {piece.id: piece.text for piece in self.incident.evidence}
        cited = self.advice.sources if self.advice else {}
        return [(name, said[number]) for name, number in cited.items() if number in said]


@dataclass(frozen=True)
class Period:
    """The incidents of a time, oldest first; `left_out` were too many."""

    since: float
    until: float
    told: Sequence[Told]
    left_out: int

    @property
    def severities(self) -> list[tuple[Severity, int]]:
        """How many of each severity, the worst first."""
        counts = Counter(one.incident.severity for one in self.told)
        return sorted(counts.items(), key=lambda one: -one[0].rank)

    @property
    def still_open(self) -> int:
        """How many are not over."""
        return sum(one.incident.state == "open" for one in self.told)


def tell(
    reader: StoreReader, telemetry: Path, incident: Incident, words: Words, *, alone: bool = False
) -> Told:
    """Everything about one incident; `alone` also looks for what changed before it."""
    return Told(
        incident,
        title(incident, words.lang),
        reader.advice(incident.id, words.lang),
        list(words.steps(reader.revisions(incident.id))),
        curves(telemetry, incident),
        reader.feedback(incident.id),
        changes(telemetry, incident, words) if alone else (),
    )


def period(reader: StoreReader, telemetry: Path, since: float, until: float, words: Words) -> Period:
    """The incidents that were open at some time between two Unix times, merged ones left to the survivors."""
    found = reader.incidents(since=since, until=until, limit=INCIDENTS_MAX * 10)
    kept = [one for one in found if one.state != "merged"][::-1]
    told = [tell(reader, telemetry, one, words) for one in kept[-INCIDENTS_MAX:]]
    return Period(since, until, told, len(kept) - len(told))


def changes(telemetry: Path, incident: Incident, words: Words) -> list[tuple[float, str]]:
    """What changed on the host in the half hour before the first evidence, as far as it was recorded."""
    until = min(incident.evidence_at, incident.opened_at)
    found = read_events(telemetry, CHANGING, until - BEFORE_S, until)
    told = ((one.at.wall, words.event(one)) for one in found)
    return list({text: (at, text) for at, text in told}.values())[-CHANGES_MAX:]


def curves(telemetry: Path, incident: Incident) -> list[Curve]:
    """The incident's metrics around it, as far as the telemetry is still kept."""
    names = list(dict.fromkeys(one.ref for one in incident.evidence if one.kind == "metric"))[:CURVES_MAX]
    if not names:
        return []
    end = incident.closed_at or incident.updated_at
    found = read_series(telemetry, names, incident.opened_at - MARGIN_S, end + MARGIN_S)
    over = incident.closed_at or end + MARGIN_S  # what is open lasts to the edge of the plot
    window = (min(incident.evidence_at, incident.opened_at), over)
    return [Curve(name, *found[name], window) for name in names if len(found[name][0]) > 1]
