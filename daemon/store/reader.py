"""Reads the store through its versioned views while the daemon writes; changes nothing, creates nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from daemon.errors import HauswartError, IntegrityError
from daemon.messages import Advice, Evidence, Finding, Incident, KeepFeedback, KeepSilence
from daemon.silences import holds
from daemon.store import pages, salvage, schema
from daemon.store.rows import (
    ADVICE,
    DELIVERIES,
    EVIDENCE,
    FEEDBACK,
    FINDINGS,
    INCIDENTS,
    LINKS,
    PREFERENCES,
    REVISIONS,
    SILENCES,
    Change,
    Delivery,
    Revision,
    Table,
    checked,
)

_T = TypeVar("_T")
_INCIDENT = msgspec.json.Decoder(Incident)
_EVIDENCE = msgspec.json.Decoder(Evidence)
_FINDING = msgspec.json.Decoder(Finding)
_ADVICE = msgspec.json.Decoder(Advice)
_FEEDBACK = msgspec.json.Decoder(KeepFeedback)
_SILENCE = msgspec.json.Decoder(KeepSilence)
_CHANGES = msgspec.json.Decoder(list[Change])
_BASIS = INCIDENTS.columns.index("basis")
_RANKS = {"info": 0, "warning": 1, "error": 2, "critical": 3}
Row = Sequence[Any]


class NoticeState(NamedTuple):
    """An incident that may have to be notified, and what was said about it so far."""

    incident: Incident
    acknowledged: bool
    deliveries: list[Delivery]


class StoreReader:
    """A read-only view of the store; a store that does not exist yet is empty.

    Raises IntegrityError for a row that is not what was written, except where a stage works through a list:
    `needing_advice` and `needing_notice` leave such incidents out and count them in `damaged`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._frozen = False

    # --- incidents --------------------------------------------------------------------------------------

    def incidents(
        self,
        *,
        state: str | None = None,
        since: float | None = None,
        until: float | None = None,
        fault_class: str | None = None,
        severity: str | None = None,
        search: str = "",
        limit: int = 100,
    ) -> list[Incident]:
        """Newest first: those that were open at some time in `since`..`until`, this severity and worse.

        `search` is a word in the evidence, a culprit, the class or the id.
        """
        rank = 0 if severity is None else _RANKS[severity]
        where = (
            "(?1 IS NULL OR state = ?1) AND (?2 IS NULL OR state = 'open' OR updated_at >= ?2)"
            " AND (?3 IS NULL OR opened_at < ?3) AND (?4 IS NULL OR fault_class = ?4) AND severity_rank >= ?5"
            " AND (?6 = '' OR instr(lower(culprits || ' ' || fault_class || ' ' || id), ?6) OR EXISTS"
            " (SELECT 1 FROM evidence_v1 AS e WHERE e.incident_id = incidents_v1.id"
            " AND instr(lower(e.text), ?6)))"
            " ORDER BY opened_at DESC, id LIMIT ?7"
        )
        fault = None if fault_class is None else str(fault_class)
        values = (state, since, until, fault, rank, search.lower(), limit)
        with self._snapshot():
            return [self._whole(row) for row in self._rows(INCIDENTS, where, values)]

    def incident(self, prefix: str) -> Incident | None:
        """The incident with this id or beginning of an id; raises HauswartError if several begin so."""
        with self._snapshot():
            exact = list(self._rows(INCIDENTS, "id = ?", (prefix,)))
            similar = "substr(id, 1, length(?1)) = ?1 LIMIT 4"
            found = exact or list(self._rows(INCIDENTS, similar, (prefix,)))
            if not found or not prefix:
                return None
            if len(found) > 1:
                names = ", ".join(str(row[0]) for row in found[:3])
                raise HauswartError(f"{len(found)} or more incidents begin with {prefix!r}: {names}")
            return self._whole(found[0])

    def _whole(self, row: Row) -> Incident:
        evidence = self._rows(EVIDENCE, "incident_id = ? ORDER BY ordinal", (row[0],))
        links = self._rows(LINKS, "incident_id = ? ORDER BY ordinal", (row[0],))
        bare: Incident = _decoded(_INCIDENT, row[11])
        return msgspec.structs.replace(
            bare,
            evidence=[_decoded(_EVIDENCE, item[3]) for item in evidence],
            finding_ids=[str(item[2]) for item in links],
        )

    def revisions(self, incident_id: str) -> list[Revision]:
        """The steps of an incident, oldest first."""
        rows = self._rows(REVISIONS, "incident_id = ? ORDER BY revision", (incident_id,))
        return [_revision(row) for row in rows]

    def timeline(self, incident_id: str) -> list[tuple[float, str]]:
        """When something changed and what, in words; steps that only added findings are left out."""
        return [(step.at, text) for step in self.revisions(incident_id) if (text := _in_words(step))]

    def findings(self, incident_id: str) -> list[Finding]:
        """The findings of an incident, oldest first."""
        where = "id IN (SELECT finding_id FROM incident_findings_v1 WHERE incident_id = ?) ORDER BY at, id"
        return [_decoded(_FINDING, row[4]) for row in self._rows(FINDINGS, where, (incident_id,))]

    def found(self, since: float, limit: int = 96) -> tuple[list[Finding], dict[str, str]]:
        """The latest findings since a time, oldest first; by their ids the class of an open incident.

        One of unknown class explains nothing, and is left out.
        """
        where = "at >= ? ORDER BY at DESC, id LIMIT ?"
        with self._snapshot():
            rows = list(self._rows(FINDINGS, where, (since, limit)))[::-1]
            query = (
                "SELECT finding_id, fault_class FROM incident_findings_v1"
                " JOIN incidents_v1 ON id = incident_id"
                " WHERE state = 'open' AND fault_class != 'unknown'"
                " AND finding_id IN (SELECT value FROM json_each(?))"
            )
            wanted = msgspec.json.encode([str(row[0]) for row in rows]).decode()
            told = {str(row[0]): str(row[1]) for row in self._execute(query, (wanted,))}
        return [_decoded(_FINDING, row[4]) for row in rows], told

    def advice(self, incident_id: str, lang: str) -> Advice | None:
        """The latest advice in a language.

        While a newer one is still to come, it recommends nothing: its command may be about somebody who is
        not blamed any more.
        """
        where = "incident_id = ? AND lang = ? ORDER BY revision DESC LIMIT 1"
        rows = list(self._rows(ADVICE, where, (incident_id, lang)))
        if not rows:
            return None
        advice: Advice = _decoded(_ADVICE, rows[0][4])
        now = [row[_BASIS] for row in self._rows(INCIDENTS, "id = ?", (incident_id,))]
        return advice if now == [rows[0][3]] else msgspec.structs.replace(advice, action="")

    def feedback(self, incident_id: str | None = None, since: float = 0.0) -> list[KeepFeedback]:
        """The operator's verdicts, oldest first."""
        where = "(?1 IS NULL OR incident_id = ?1) AND at >= ?2 ORDER BY at"
        return [_decoded(_FEEDBACK, row[3]) for row in self._rows(FEEDBACK, where, (incident_id, since))]

    def silences(self, active_at: float | None = None) -> list[KeepSilence]:
        """All silences, or those in force at a time."""
        found = [_silence(row) for row in self._raw(SILENCES, "1 ORDER BY start, id", ())]
        return [one for one in found if active_at is None or holds(one, active_at)]

    def deliveries(self, incident_id: str | None = None, since: float = 0.0) -> list[Delivery]:
        """Notifications handed over or finally failed, oldest first."""
        where = "(?1 IS NULL OR incident_id = ?1) AND at >= ?2 ORDER BY at"
        rows = self._rows(DELIVERIES, where, (incident_id, since))
        return [_delivery(row) for row in rows]

    def preference(self, key: str) -> str | None:
        """A kept preference."""
        rows = list(self._rows(PREFERENCES, "key = ?", (key,)))
        return str(rows[0][1]) if rows else None

    # --- what the stages have to do -----------------------------------------------------------------------

    def needing_advice(self, languages: Sequence[str], limit: int = 16) -> list[Incident]:
        """Incidents whose class, culprits and kinds of evidence have no advice yet in some language."""
        missing = (
            "(SELECT count(DISTINCT lang) FROM advice_v1 AS a WHERE a.incident_id = incidents_v1.id"
            " AND a.basis = incidents_v1.basis AND a.lang IN (SELECT value FROM json_each(?1))) < ?2"
        )
        where = f"state != 'merged' AND {missing} ORDER BY severity_rank DESC, opened_at LIMIT ?3"
        wanted = sorted(set(languages))
        values = (msgspec.json.encode(wanted).decode(), len(wanted), limit)
        with self._snapshot():
            return list(self._sound(INCIDENTS, where, values))

    def needing_notice(self, since: float, limit: int = 256) -> list[NoticeState]:
        """Incidents that are open or changed since a time, with what was said about them; oldest first."""
        where = "state = 'open' OR updated_at >= ? ORDER BY opened_at DESC LIMIT ?"
        states = []
        with self._snapshot():
            for incident in self._sound(INCIDENTS, where, (since, limit)):
                verdicts = self._whatever(partial(self.feedback, incident.id)) or []
                told = self._whatever(partial(self.deliveries, incident.id)) or []
                known = any(one.verdict == "acknowledged" for one in verdicts)
                states.append(NoticeState(incident, known, told))
        return states[::-1]

    def sound_advice(self, incident_id: str, lang: str) -> Advice | None:
        """The latest advice in a language, None where it is damaged: whoever has to tell goes without."""
        return self._whatever(partial(self.advice, incident_id, lang))

    def sound_silences(self, active_at: float) -> list[KeepSilence]:
        """Those in force at a time; a damaged one hides nothing from whoever has to tell."""
        rows = self._raw(SILENCES, "1 ORDER BY start, id", ())
        found = (self._whatever(partial(_silence, row)) for row in rows)
        return [one for one in found if one is not None and holds(one, active_at)]

    def _whatever(self, read: Callable[[], _T]) -> _T | None:
        """What can be read, None where a row is damaged, which is counted."""
        try:
            return read()
        except IntegrityError:
            self.damaged += 1
            return None

    def _sound(self, table: Table, where: str, values: Sequence[Any]) -> Iterator[Incident]:
        """Incidents that are intact; the others are counted, so that one bad row stops no stage."""
        for row in self._raw(table, where, values):
            try:
                yield self._whole(checked(table, row))
            except IntegrityError:
                self.damaged += 1

    def open_counts(self) -> dict[tuple[str, str], int]:
        """Open incidents by fault class and severity."""
        query = "SELECT fault_class, severity, count(*) FROM incidents_v1 WHERE state = 'open' GROUP BY 1, 2"
        return {(row[0], row[1]): row[2] for row in self._execute(query, ())}

    def opened_counts(self) -> dict[tuple[str, str], int]:
        """Incidents ever opened by fault class and severity at opening; never falls."""
        rows = self._rows(PREFERENCES, "key GLOB 'opened/*/*'", ())
        named = ((str(row[0]).split("/"), row[1]) for row in rows)
        return {(parts[1], parts[2]): int(count) for parts, count in named}

    def count(self, before: float | None = None, fault_class: str = "") -> int:
        """How many incidents a purge with these conditions would erase."""
        query = (
            "SELECT count(*) FROM incidents_v1 WHERE (?1 IS NULL OR updated_at < ?1)"
            " AND (?2 = '' OR fault_class = ?2)"
        )
        rows = self._execute(query, (before, fault_class))
        return int(rows[0][0]) if rows else 0

    def verify(self) -> list[str]:
        """What is damaged, one sentence each; empty if all is what was written."""
        return salvage.verify(self.path).described if self.path.exists() else []

    # --- the file ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All queries inside see the same commit."""
        if not self._ready() or self._connection is None:
            yield
            return
        connection = self._connection
        connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection is connection:
                connection.rollback()

    def _rows(self, table: Table, where: str, values: Sequence[Any]) -> Iterator[Row]:
        return (checked(table, row) for row in self._raw(table, where, values))

    def _raw(self, table: Table, where: str, values: Sequence[Any]) -> list[Row]:
        return self._execute(f"{table.select_view} WHERE {where}", values)

    def _execute(self, query: str, values: Sequence[Any]) -> list[Row]:
        inside = self._connection is not None and self._connection.in_transaction
        if (not inside and not self._ready()) or self._connection is None:
            return []
        try:
            return self._connection.execute(query, tuple(values)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.close()
            raise _unreadable(self.path, error) from error

    def _ready(self) -> bool:
        """Open the store if it is there; again when it was replaced, or first written since."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self.close()
            return False
        except OSError as error:
            hint = "read it as root or as the daemon's user"
            raise HauswartError(f"store {self.path}: {error.strerror}", hint=hint) from error
        identity = (status.st_dev, status.st_ino)
        waiting = self._frozen and pages.wal_path(self.path).exists()
        if self._connection is not None and (identity != self._identity or waiting):
            self.close()
        if self._connection is None:
            self._connection = self._open()
            self._identity = identity
        return self._connection is not None

    def _open(self) -> sqlite3.Connection | None:
        schema.refuse_newer(self.path)
        self._frozen = not pages.wal_path(self.path).exists()
        try:
            connection = schema.connect(self.path, "mode=ro&immutable=1" if self._frozen else "mode=ro")
            if schema.version(connection) is not None:
                return connection
            connection.close()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _unreadable(self.path, error) from error
        return None


def _revision(row: Row) -> Revision:
    incident_id, revision, at, state, fault_class, severity, score, _, changes, _ = row
    return Revision(
        incident_id, revision, at, state, fault_class, severity, score, _decoded(_CHANGES, changes)
    )


def _silence(row: Row) -> KeepSilence:
    silence: KeepSilence = _decoded(_SILENCE, checked(SILENCES, row)[4])
    return silence


def _delivery(row: Row) -> Delivery:
    incident_id, revision, target, ok, at, error, state, severity, _ = row
    return Delivery(incident_id, revision, target, bool(ok), at, error, state, severity)


def _decoded(decoder: msgspec.json.Decoder[Any], body: Any) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"store: a row is of a kind that this version does not know ({error})",
            hint="run the hauswart that wrote it",
        ) from error


def _unreadable(path: Path, error: Exception) -> HauswartError:
    failure = schema.unavailable(path, error) if isinstance(error, sqlite3.Error) else None
    if failure is not None:
        return failure
    return IntegrityError(f"store {path}: {error}", hint="restart the daemon: it saves the sound rows")


def _in_words(step: Revision) -> str:
    if step.revision <= 1 or any(change.field == "state" and not change.before for change in step.changes):
        return f"opened as {step.fault_class}, {step.severity}"
    return ", ".join(_change_in_words(step.changes))


def _change_in_words(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        if change.field == "state":
            yield change.after
        elif change.field != "findings_count":
            name = {"fault_class": "class", "merged_into": "merged into"}.get(change.field, change.field)
            yield f"{name} {change.before or 'none'} -> {change.after or 'none'}"
