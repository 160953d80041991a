"""Rows of the store: their columns, their checksum, and messages to rows and back.

Knows nothing about connections or files; `schema.sql` has the same columns in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from daemon.errors import HauswartError, IntegrityError
from daemon.growth import doublings
from daemon.messages import (
    Advice,
    Evidence,
    Finding,
    Incident,
    KeepDelivery,
    KeepFeedback,
    KeepSilence,
)
from models.digest import blake2b

Value = str | int | float | None
Row = tuple[Value, ...]

MAJOR = 1
MINOR = 0


class Table(NamedTuple):
    """A table: its columns (without the checksum) and how many of them are its key."""

    name: str
    columns: tuple[str, ...]
    keys: int

    @property
    def insert(self) -> str:
        """Statement that writes one row, or updates the row with the same key."""
        marks = ", ".join("?" * (len(self.columns) + 1))
        text = f'INSERT INTO {self.name} ("{self._joined}", checksum) VALUES ({marks})'  # noqa: S608 (names are ours)
        if not self.keys:
            return text
        key = '", "'.join(self.columns[: self.keys])
        updates = ", ".join(
            f'"{name}" = excluded."{name}"' for name in (*self.columns[self.keys :], "checksum")
        )
        return f'{text} ON CONFLICT ("{key}") DO UPDATE SET {updates}'

    @property
    def select(self) -> str:
        """Statement that reads from the table, columns in order, the checksum last; a WHERE may follow."""
        return f'SELECT "{self._joined}", checksum FROM {self.name}'  # noqa: S608 (names are ours)

    @property
    def select_view(self) -> str:
        """Like `select`, from the versioned view."""
        return f'SELECT "{self._joined}", checksum FROM {self.name}_v1'  # noqa: S608 (names are ours)

    @property
    def _joined(self) -> str:
        return '", "'.join(self.columns)


META = Table("meta", ("key", "value"), 1)
INCIDENTS = Table(
    "incidents",
    (
        *("id", "revision", "state", "fault_class", "severity", "severity_rank"),
        *("opened_at", "updated_at", "closed_at", "culprits", "basis", "body"),
    ),
    1,
)
REVISIONS = Table(
    "revisions",
    ("incident_id", "revision", "at", "state", "fault_class", "severity", "score", "basis", "changes"),
    2,
)
EVIDENCE = Table("evidence", ("incident_id", "ordinal", "text", "body"), 2)
FINDINGS = Table("findings", ("id", "at", "rule", "severity", "body"), 1)
LINKS = Table("incident_findings", ("incident_id", "ordinal", "finding_id"), 2)
ADVICE = Table("advice", ("incident_id", "revision", "lang", "basis", "body"), 3)
FEEDBACK = Table("feedback", ("incident_id", "at", "verdict", "body"), 0)
SILENCES = Table("silences", ("id", "start", "end", "cancelled", "body"), 1)
DELIVERIES = Table(
    "deliveries", ("incident_id", "revision", "target", "ok", "at", "error", "state", "severity"), 3
)
PREFERENCES = Table("preferences", ("key", "value"), 1)
REQUESTS = Table("requests", ("client", "request", "at"), 2)

TABLES = (
    *(META, INCIDENTS, REVISIONS, EVIDENCE, FINDINGS, LINKS),
    *(ADVICE, FEEDBACK, SILENCES, DELIVERIES, PREFERENCES, REQUESTS),
)
OF_INCIDENT = (REVISIONS, EVIDENCE, LINKS, ADVICE, FEEDBACK, DELIVERIES)


class Change(Struct, frozen=True, array_like=True):
    """One field of an incident that a revision changed."""

    field: str
    before: str
    after: str


class Revision(Struct, frozen=True):
    """One step of an incident's timeline."""

    incident_id: str
    revision: int
    at: float
    state: str
    fault_class: str
    severity: str
    score: float
    changes: list[Change]


class Delivery(Struct, frozen=True):
    """A notification that was handed over, with the incident's state and severity at that revision."""

    incident_id: str
    revision: int
    target: str
    ok: bool
    at: float
    error: str
    state: str
    severity: str


def checksum(table: Table, values: Sequence[Value]) -> bytes:
    """Eight bytes of BLAKE2b over the MessagePack encoding of the table's name and the row's values."""
    return blake2b(msgspec.msgpack.encode([table.name, *values]), digest_size=8).digest()


def sealed(table: Table, *values: Value) -> tuple[Value | bytes, ...]:
    """The row with its checksum; raises HauswartError for a number that SQLite cannot hold."""
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise HauswartError(f"store: {table.name} cannot hold the number {value}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise HauswartError(f"store: {table.name} cannot hold the number {value}")
    try:
        return (*values, checksum(table, values))
    except UnicodeEncodeError as error:
        raise HauswartError(f"store: {table.name} cannot hold text that is not Unicode") from error


def intact(table: Table, row: Sequence[Value | bytes]) -> bool:
    """Whether a row's checksum (its last value) agrees with its content."""
    try:
        return row[-1] == checksum(table, row[:-1])  # type: ignore[arg-type]  # a blob here is damage and differs
    except (TypeError, UnicodeEncodeError):
        return False


def checked(table: Table, row: Sequence[Value | bytes]) -> Sequence[Value | bytes]:
    """The row itself; raises IntegrityError if it is not what was written."""
    if not intact(table, row):
        raise IntegrityError(
            f"store: a row of {table.name} ({str(row[0])[:64]!r}) does not match its checksum",
            hint="restart the daemon: it moves the damaged store aside and keeps every sound row",
        )
    return row


def _json(message: Struct) -> str:
    """The message's body; raises HauswartError if it could not be read back (NaN, or beyond the limits)."""
    try:
        body = msgspec.json.encode(message)
        msgspec.json.decode(body, type=type(message))
    except (UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise HauswartError(f"store: {type(message).__name__} cannot be kept ({error})") from error
    return body.decode()


def basis(incident: Incident) -> str:
    """What advice depends on, in 16 hex digits: class, severity, culprits, kinds of evidence, doubled counts.

    Other fresh numbers of the same metrics and more lines of the same kind do not change it.
    """
    kinds = sorted({(item.kind, "" if item.kind == "line" else item.ref) for item in incident.evidence})
    culprits = [(culprit.kind, culprit.name) for culprit in incident.culprits[:3]]
    content = (incident.fault_class, incident.severity, culprits, kinds, doublings(incident.evidence))
    return blake2b(msgspec.msgpack.encode(content), digest_size=8).hexdigest()


def incident_row(incident: Incident) -> tuple[Value | bytes, ...]:
    """The incident's latest revision; evidence and finding ids have tables of their own."""
    bare = msgspec.structs.replace(incident, evidence=[], finding_ids=[])
    return sealed(
        INCIDENTS,
        *(incident.id, incident.revision, incident.state),
        *(incident.fault_class.value, incident.severity.value, incident.severity.rank),
        *(float(incident.opened_at), float(incident.updated_at)),
        None if incident.closed_at is None else float(incident.closed_at),
        " ".join(culprit.name for culprit in incident.culprits),
        basis(incident),
        _json(bare),
    )


def changes(before: Incident | None, after: Incident) -> list[Change]:
    """What differs between two revisions, in words of the message's fields."""
    now = _described(after)
    old = dict.fromkeys(now, "") if before is None else _described(before)
    return [Change(field, old[field], value) for field, value in now.items() if old[field] != value]


def _described(incident: Incident) -> dict[str, str]:
    return {
        "state": incident.state,
        "fault_class": incident.fault_class.value,
        "severity": incident.severity.value,
        "culprits": ", ".join(f"{item.kind.value} {item.name}" for item in incident.culprits[:8]),
        "context": ", ".join(f"{note.name} {note.effect}" for note in incident.context[:8]),
        "merged_into": incident.merged_into,
        "quieted": incident.quieted,
        "findings_count": str(incident.findings_count),
    }


def revision_row(incident: Incident, changed: list[Change]) -> tuple[Value | bytes, ...]:
    """One step of the timeline."""
    return sealed(
        REVISIONS,
        *(incident.id, incident.revision, float(incident.updated_at), incident.state),
        *(incident.fault_class.value, incident.severity.value, float(incident.score), basis(incident)),
        msgspec.json.encode(changed).decode(),
    )


def evidence_row(incident_id: str, ordinal: int, item: Evidence) -> tuple[Value | bytes, ...]:
    """One piece of evidence; its text also stands alone for the search."""
    return sealed(EVIDENCE, incident_id, ordinal, item.text, _json(item))


def finding_row(finding: Finding) -> tuple[Value | bytes, ...]:
    """One finding."""
    return sealed(
        FINDINGS, finding.id, float(finding.at.wall), finding.rule, finding.severity.value, _json(finding)
    )


def advice_row(
    incident_id: str, revision: int, advice_basis: str, advice: Advice
) -> tuple[Value | bytes, ...]:
    """One language's advice for one revision."""
    return sealed(ADVICE, incident_id, revision, advice.lang, advice_basis, _json(advice))


def feedback_row(record: KeepFeedback) -> tuple[Value | bytes, ...]:
    """One verdict of the operator."""
    return sealed(FEEDBACK, record.incident_id, float(record.at), record.verdict, _json(record))


def silence_row(record: KeepSilence) -> tuple[Value | bytes, ...]:
    """One silence."""
    end = None if record.end is None else float(record.end)
    return sealed(SILENCES, record.id, float(record.start), end, int(record.cancelled), _json(record))


def delivery_row(record: KeepDelivery, state: str, severity: str) -> tuple[Value | bytes, ...]:
    """One delivery of a notification."""
    return sealed(
        DELIVERIES,
        *(record.incident_id, record.revision, record.target, int(record.ok)),
        *(float(record.at), record.error, state, severity),
    )
