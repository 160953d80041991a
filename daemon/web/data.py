"""What the pages show besides incidents: the host in a glance, and short texts for lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.advice.titles import title
from daemon.messages import Incident, KeepFeedback, KeepSilence
from daemon.serving import serving
from daemon.settings import Settings
from daemon.silences import holds
from daemon.status import StageView, running_stages
from daemon.store.reader import StoreReader
from models.bundle import MANIFEST, TIERS
from models.taxonomy import Severity

LIKE_MAX = 5
GLANCE = ("cpu.busy", "mem.available", "psi.io.some", "load.1")  # drawn small on the first page


@dataclass(frozen=True)
class Row:
    """An incident in a list."""

    incident: Incident
    title: str
    says: str  # the advice's first sentence

    @property
    def culprit(self) -> str:
        """Who is blamed first, by name; "" if nobody."""
        return self.incident.culprits[0].name if self.incident.culprits else ""


@dataclass(frozen=True)
class Glance:
    """The host at this moment."""

    rows: Sequence[Row]
    stages: Sequence[StageView]

    @property
    def worst(self) -> Severity | None:
        """The gravest open severity."""
        return max((row.incident.severity for row in self.rows), key=lambda one: one.rank, default=None)

    @property
    def down(self) -> list[str]:
        """The stages that do not report."""
        return [one.stage for one in self.stages if not one.alive]

    @property
    def cpu_ratio(self) -> float:
        """What all stages use of one core."""
        return sum(one.cpu_ratio for one in self.stages)

    @property
    def pss_bytes(self) -> int:
        """What all stages use of the memory."""
        return sum(one.pss_bytes for one in self.stages)


def glance(reader: StoreReader, settings: Settings, lang: str) -> Glance:
    """Open incidents, the worst first, and the daemon's stages."""
    found = sorted(
        reader.incidents(state="open", limit=64), key=lambda one: (-one.severity.rank, -one.opened_at)
    )
    return Glance([row(reader, one, lang) for one in found], running_stages(settings.runtime))


def row(reader: StoreReader, incident: Incident, lang: str) -> Row:
    """An incident for a list."""
    advice = reader.advice(incident.id, lang)
    first = advice.text.strip().split("\n")[0] if advice else ""
    return Row(incident, title(incident, lang), first[:300])


def alike(reader: StoreReader, incident: Incident, lang: str) -> list[Row]:
    """Earlier incidents of the same class, those of the same culprit first."""
    found = reader.incidents(fault_class=incident.fault_class, until=incident.opened_at, limit=50)
    others = [one for one in found if one.id != incident.id and one.state != "merged"]
    mine = {who.name for who in incident.culprits[:1]}
    others.sort(key=lambda one: (not mine & {who.name for who in one.culprits[:1]}, -one.opened_at))
    return [row(reader, one, lang) for one in others[:LIKE_MAX]]


@dataclass(frozen=True)
class Quieted:
    """A silence in a list; `now` says whether it holds at this moment."""

    silence: KeepSilence
    now: bool
    learned: bool


def silences(reader: StoreReader, at: float) -> list[Quieted]:
    """What is silent now or will be again; the newest first."""
    kept = [one for one in reader.silences() if not one.cancelled and (one.end is None or one.end > at)]
    return [Quieted(one, holds(one, at), one.user == "hauswart") for one in reversed(kept)]


def models_of(settings: Settings) -> list[dict[str, Any]]:
    """What serves each tier, with its card's figures."""
    return [serving(settings, tier) for tier in TIERS]


@dataclass(frozen=True)
class Shrunk:
    """One row of what shrinking a model did."""

    detail: str
    size_bytes: float
    latency_ms: float
    quality: float | None


def shrinking(directory: str) -> list[Shrunk]:
    """The table before and after, as the bundle's manifest has it; [] where there is none or it is odd."""
    try:
        manifest = json.loads((Path(directory) / MANIFEST).read_text("utf-8"))
        table = manifest["metrics"]["shrinking"]["table"]
        return [
            Shrunk(str(row["detail"]), float(row["bytes"]), float(row["latency_ms"]), _quality(row))
            for row in table
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _quality(row: dict[str, Any]) -> float | None:
    found = row.get("quality", {}).get("macro_f1")
    return float(found) if isinstance(found, int | float) else None


def feedback(reader: StoreReader, limit: int = 200) -> list[tuple[KeepFeedback, str]]:
    """The operator's verdicts, the newest first, with the id of the incident if it is still kept."""
    given = reader.feedback()[::-1][:limit]
    known = {one.incident_id: reader.incident(one.incident_id) for one in given}
    return [(one, one.incident_id if known[one.incident_id] else "") for one in given]
