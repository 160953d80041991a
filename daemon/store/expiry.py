"""What leaves the store: by age on its own, or because the operator purges it."""

from __future__ import annotations

import sqlite3

from daemon.store.rows import OF_INCIDENT, PREFERENCES, sealed

DAY_S = 86400.0
LOOSE_FINDINGS_DAYS = 14  # findings of no incident, as long as telemetry is kept by default
REQUESTS_DAYS = 2  # a client repeats a request within seconds
MAX_STEP_S = 2 * DAY_S
_LAST = "expired-at"
_TABLES = ("incidents", "findings", *(table.name for table in OF_INCIDENT), "silences", "requests")


def expire(connection: sqlite3.Connection, wall: float, incidents_days: int) -> dict[str, int]:
    """Erase closed incidents and the rest beyond their age; counts by table.

    The clock is believed only two days further each time: a clock that jumps years ahead must not erase all.
    """
    now = _believed(connection, wall)
    before = _count(connection)
    horizon = now - incidents_days * DAY_S
    connection.execute("DELETE FROM incidents WHERE state != 'open' AND updated_at < ?", (horizon,))
    connection.execute(
        'DELETE FROM silences WHERE start < ?1 AND (cancelled OR coalesce("end" < ?1, 0))', (horizon,)
    )
    connection.execute("DELETE FROM requests WHERE at < ?", (now - REQUESTS_DAYS * DAY_S,))
    _erase_loose_findings(connection, now - min(LOOSE_FINDINGS_DAYS, incidents_days) * DAY_S)
    after = _count(connection)
    return {table: before[table] - after[table] for table in _TABLES if before[table] != after[table]}


def erase_incidents(connection: sqlite3.Connection, before: float | None, fault_class: str) -> dict[str, int]:
    """Erase incidents, their evidence, findings, advice and feedback; counts by table.

    Without any condition everything goes that tells of the host, silences too.
    """
    counts = _count(connection)
    linked = (
        "SELECT finding_id FROM incident_findings WHERE incident_id IN (SELECT id FROM incidents WHERE {0})"
    )
    condition = "(?1 IS NULL OR updated_at < ?1) AND (?2 = '' OR fault_class = ?2)"
    values = (before, fault_class)
    connection.execute(f"DELETE FROM findings WHERE id IN ({linked.format(condition)})", values)  # noqa: S608 (constant text)
    connection.execute(f"DELETE FROM incidents WHERE {condition}", values)  # noqa: S608 (constant text)
    if not fault_class:
        connection.execute("DELETE FROM requests WHERE ?1 IS NULL OR at < ?1", (before,))
        _erase_loose_findings(connection, before)
        if before is None:
            connection.execute("DELETE FROM silences")
    after = _count(connection)
    return {table: counts[table] - after[table] for table in _TABLES if counts[table] != after[table]}


def _erase_loose_findings(connection: sqlite3.Connection, before: float | None) -> None:
    connection.execute(
        "DELETE FROM findings WHERE (?1 IS NULL OR at < ?1)"
        " AND id NOT IN (SELECT finding_id FROM incident_findings)",
        (before,),
    )


def _count(connection: sqlite3.Connection) -> dict[str, int]:
    return {
        table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 (names are ours)
        for table in _TABLES
    }


def _believed(connection: sqlite3.Connection, wall: float) -> float:
    row = connection.execute("SELECT value FROM preferences WHERE key = ?", (_LAST,)).fetchone()
    last = float(row[0]) if row else wall
    now = min(wall, last + MAX_STEP_S)
    if row is None or abs(now - last) > DAY_S / 24:
        connection.execute(PREFERENCES.insert, sealed(PREFERENCES, _LAST, repr(now)))
    return now
