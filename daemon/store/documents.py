"""The JSON shapes that scripts, hooks and `--json` see; they change only with `schema`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from daemon.messages import SCHEMA, Advice, Evidence, Incident


def rfc3339(at: float | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC, milliseconds; None stays None, nonsense is clamped to the calendar."""
    if at is None:
        return None
    bounded = min(max(at, 0.0), 253402300799.0) if at == at else 0.0  # noqa: PLR0124 (NaN differs from itself); 9999-12-31
    return datetime.fromtimestamp(bounded, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def incident_document(incident: Incident, advice: Advice | None) -> dict[str, Any]:
    """An incident with its advice, `schema: 1`."""
    return {
        "schema": SCHEMA,
        "id": incident.id,
        "revision": incident.revision,
        "state": incident.state,
        "fault_class": incident.fault_class.value,
        "severity": incident.severity.value,
        "score": incident.score,
        "culprits": [
            {"kind": one.kind.value, "name": one.name, "score": one.score} for one in incident.culprits
        ],
        "opened_at": rfc3339(incident.opened_at),
        "updated_at": rfc3339(incident.updated_at),
        "closed_at": rfc3339(incident.closed_at),
        "evidence_at": rfc3339(incident.evidence_at),
        "boot_id": incident.boot_id,
        "context": [
            {
                "kind": note.kind,
                "name": note.name,
                "started": rfc3339(note.started),
                "ended": rfc3339(note.ended),
                "effect": note.effect,
                "text": note.text,
            }
            for note in incident.context
        ],
        "evidence": [_evidence(item) for item in incident.evidence],
        "findings_count": incident.findings_count,
        "merged_into": incident.merged_into or None,
        "quieted": incident.quieted or None,
        "waits": incident.waits,
        "path": incident.path,
        "advice": advice_document(advice),
    }


def advice_document(advice: Advice | None) -> dict[str, Any] | None:
    """Advice as it stands inside an incident."""
    if advice is None:
        return None
    return {
        "text": advice.text,
        "lang": advice.lang,
        "origin": advice.origin,
        "action": advice.action or None,
        "sources": advice.sources,
        **({"author": advice.author} if advice.author else {}),
    }


def _evidence(item: Evidence) -> dict[str, Any]:
    where = {"line": "cursor", "metric": "metric"}.get(item.kind, "ref")
    return {
        "id": item.id,
        "kind": item.kind,
        where: item.ref,
        "start": rfc3339(item.start),
        "end": rfc3339(item.end),
        "text": item.text,
        "values": item.values,
    }
