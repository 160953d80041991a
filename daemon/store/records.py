"""How incidents and records become rows: what is checked, what is counted, what is left as it was.

Everything here runs inside a transaction of `daemon.store.writer`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from daemon.errors import NO_INCIDENT, HauswartError
from daemon.messages import (
    Incident,
    KeepAdvice,
    KeepDelivery,
    KeepFeedback,
    KeepFinding,
    KeepPurge,
    KeepSilence,
)
from daemon.silences import check as check_silence
from daemon.store import rows
from daemon.store.expiry import erase_incidents

MAX_REVISIONS = 1000  # of one incident in the timeline; beyond that only those that change what it is
MAX_ADVICE = 64  # rows of one incident: the oldest go
_INCIDENT = msgspec.json.Decoder(Incident)
_BASIS = rows.INCIDENTS.columns.index("basis")


def save_incident(connection: sqlite3.Connection, incident: Incident) -> None:
    """Write an incident's newest revision; an older one than is kept changes nothing."""
    found = connection.execute(f"{rows.INCIDENTS.select} WHERE id = ?", (incident.id,)).fetchone()
    sound = found is not None and rows.intact(rows.INCIDENTS, found)  # a damaged row heals by being replaced
    before = _INCIDENT.decode(str(found[11])) if sound else None
    if before is not None and before.revision > incident.revision:
        return  # an older revision, delivered again after a restart
    row = rows.incident_row(incident)
    changed = rows.changes(before, incident)
    step = rows.revision_row(incident, changed)
    evidence = [rows.evidence_row(incident.id, at, item) for at, item in enumerate(incident.evidence)]
    links = [rows.sealed(rows.LINKS, incident.id, at, name) for at, name in enumerate(incident.finding_ids)]
    connection.execute(rows.INCIDENTS.insert, row)  # nothing was written before all could be encoded
    renewed = sound and found[_BASIS] != row[_BASIS]  # advice of this revision is kept under its basis
    if (
        incident.revision <= MAX_REVISIONS
        or renewed
        or any(change.field != "findings_count" for change in changed)
    ):
        connection.execute(rows.REVISIONS.insert, step)
    _sync_list(connection, rows.EVIDENCE, incident.id, evidence)
    _sync_list(connection, rows.LINKS, incident.id, links)
    if found is None:
        _count_opened(connection, incident)


def _sync_list(
    connection: sqlite3.Connection,
    table: rows.Table,
    incident_id: str,
    wanted: Sequence[tuple[rows.Value | bytes, ...]],
) -> None:
    """Make the incident's rows those that are wanted, touching only the ones that differ."""
    query = f"SELECT ordinal, checksum FROM {table.name} WHERE incident_id = ?"  # noqa: S608 (names are ours)
    present = dict(connection.execute(query, (incident_id,)))
    connection.executemany(table.insert, [row for row in wanted if present.get(row[1]) != row[-1]])
    if len(present) > len(wanted):
        surplus = f"DELETE FROM {table.name} WHERE incident_id = ? AND ordinal >= ?"  # noqa: S608 (names are ours)
        connection.execute(surplus, (incident_id, len(wanted)))


def _count_opened(connection: sqlite3.Connection, incident: Incident) -> None:
    """A counter that retention and purging do not turn back, by the class and severity at opening."""
    key = f"opened/{incident.fault_class.value}/{incident.severity.value}"
    row = connection.execute(f"{rows.PREFERENCES.select} WHERE key = ?", (key,)).fetchone()
    count = int(str(rows.checked(rows.PREFERENCES, row)[1])) if row else 0
    connection.execute(rows.PREFERENCES.insert, rows.sealed(rows.PREFERENCES, key, str(count + 1)))


def first_time(connection: sqlite3.Connection, client: str, request: int) -> bool:
    """Whether this request of a client is new; notes it if so."""
    query = "SELECT 1 FROM requests WHERE client = ? AND request = ?"
    if connection.execute(query, (client, request)).fetchone():
        return False
    connection.execute(rows.REQUESTS.insert, rows.sealed(rows.REQUESTS, client, request, time.time()))
    return True


def _incident_of(connection: sqlite3.Connection, incident_id: str, revision: int = 0) -> None:
    row = connection.execute("SELECT revision FROM incidents WHERE id = ?", (incident_id,)).fetchone()
    if row is None:
        raise HauswartError(f"{NO_INCIDENT} {incident_id!r}", hint="`hauswart incidents` lists them")
    if revision > row[0]:
        raise HauswartError(f"incident {incident_id} has {row[0]} revisions, there is no revision {revision}")


def _at_revision(connection: sqlite3.Connection, incident_id: str, revision: int) -> tuple[str, str, str]:
    """State, severity and basis of an incident at a revision (or the one before it in the timeline)."""
    query = f"{rows.REVISIONS.select} WHERE incident_id = ? AND revision <= ? ORDER BY revision DESC LIMIT 1"
    row = connection.execute(query, (incident_id, revision)).fetchone()
    if row is None:
        raise HauswartError(f"incident {incident_id} has no revision {revision}")
    sound = rows.checked(rows.REVISIONS, row)
    return str(sound[3]), str(sound[5]), str(sound[7])


def _keep_advice(connection: sqlite3.Connection, record: KeepAdvice) -> None:
    _incident_of(connection, record.incident_id, record.revision)
    _, _, basis = _at_revision(connection, record.incident_id, record.revision)
    for advice in record.advice:
        connection.execute(
            rows.ADVICE.insert, rows.advice_row(record.incident_id, record.revision, basis, advice)
        )
    connection.execute(
        "DELETE FROM advice WHERE incident_id = ?1 AND rowid NOT IN (SELECT rowid FROM advice"
        " WHERE incident_id = ?1 ORDER BY revision DESC LIMIT ?2)",
        (record.incident_id, MAX_ADVICE),
    )


def _keep_feedback(connection: sqlite3.Connection, record: KeepFeedback) -> None:
    _incident_of(connection, record.incident_id)
    if record.verdict == "edited" and not record.improved.strip():
        raise HauswartError("an edited advice needs the improved text")
    connection.execute(rows.FEEDBACK.insert, rows.feedback_row(record))


def _keep_silence(connection: sqlite3.Connection, record: KeepSilence) -> None:
    check_silence(record)
    connection.execute(rows.SILENCES.insert, rows.silence_row(record))


def _keep_delivery(connection: sqlite3.Connection, record: KeepDelivery) -> None:
    _incident_of(connection, record.incident_id, record.revision)
    query = "SELECT ok FROM deliveries WHERE incident_id = ? AND revision = ? AND target = ?"
    row = connection.execute(query, (record.incident_id, record.revision, record.target)).fetchone()
    if row and row[0]:
        return  # what was delivered stays delivered
    state, severity, _ = _at_revision(connection, record.incident_id, record.revision)
    connection.execute(rows.DELIVERIES.insert, rows.delivery_row(record, state, severity))


def _keep_finding(connection: sqlite3.Connection, record: KeepFinding) -> None:
    connection.execute(rows.FINDINGS.insert, rows.finding_row(record.finding))


def _keep_purge(connection: sqlite3.Connection, record: KeepPurge) -> None:
    erase_incidents(connection, record.before, record.fault_class)


KEEP: dict[type, Callable[[sqlite3.Connection, Any], None]] = {
    KeepAdvice: _keep_advice,
    KeepFeedback: _keep_feedback,
    KeepSilence: _keep_silence,
    KeepDelivery: _keep_delivery,
    KeepFinding: _keep_finding,
    KeepPurge: _keep_purge,
}
