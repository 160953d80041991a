"""The only way into the store: what returns without an error is committed and on the disk.

Knows the tables and their rules; knows nothing about the bus, nor why an incident is what it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from daemon.errors import HauswartError, IntegrityError, StoreFullError
from daemon.locks import FileLock, give_to_owner
from daemon.messages import Finding, Incident, KeepPurge, Record
from daemon.store import pages, rows, salvage, schema
from daemon.store.expiry import erase_incidents, expire
from daemon.store.records import KEEP, first_time, save_incident

MAX_NOTES = 100
MAX_CHECKPOINT_BYTES = 1 << 20  # of write-ahead log, about 250 commits of one incident


class StoreWriter:
    """Owns the store's file; one process at a time (LockedError names the other).

    `notes` says what the operator should read about what was found at opening; `salvaged` is set if the file
    was damaged and replaced by one with its sound rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.salvaged: salvage.Salvage | None = None
        self.counters = {"commits": 0, "full": 0, "checkpoints": 0, "refused": 0}
        self._pending: dict[str, int] = {}
        self._lock = _locked(path)
        try:
            self._connection = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> sqlite3.Connection:
        schema.refuse_newer(self.path)
        report = self._examine()
        try:
            self._connection = self._connect()
        except HauswartError as error:
            if 1 not in report.damaged_pages or self.salvaged or isinstance(error, StoreFullError):
                raise
            self._salvage(str(error))  # page 1 says how to open the file, and is not what it was
            self._connection = self._connect()
        # Unbuffered, as pages change under it; it stays open as long as the connection (see pages.save_sums).
        self._file = self.path.open("rb", buffering=0)
        self.checkpoint()
        self._give_away()
        return self._connection

    def _give_away(self) -> None:
        """After a command of root's, the middle tier's user goes on writing here."""
        for path in self.path.parent.glob(f"{self.path.name}*"):
            give_to_owner(path)

    def _examine(self) -> schema.Report:
        if not self.path.exists() or not self.path.stat().st_size:
            return schema.Report()
        report = salvage.verify(self.path)
        if not report.usable:
            self._salvage("; ".join(report.described[:3]))
        elif report.damaged_pages:
            self.notes.append(
                f"store {self.path}: all rows are sound, but pages {report.damaged_pages} were changed "
                "outside the daemon"
            )
        return report

    def _salvage(self, reason: str) -> None:
        self.salvaged = salvage.salvage(self.path, reason.replace("\n", " "))
        self.notes.append(str(self.salvaged))

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = schema.connect_writer(self.path)
            try:
                schema.create(connection)
            except sqlite3.Error:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return connection

    # --- what the middle tier and the other stages keep ---------------------------------------------

    def save(
        self,
        incidents: Sequence[Incident],
        findings: Sequence[Finding],
        edge_position: tuple[str, int] | None = None,
    ) -> None:
        """Keep changed incidents and findings in one transaction.

        A position alone waits for the next content or `close`, so that a quiet host causes no commit: batches
        without content may be delivered again without harm.
        """
        if edge_position is not None:
            self._pending[edge_position[0]] = edge_position[1]
        if not incidents and not findings:
            return
        with self._transaction() as connection:
            for finding in findings:
                with self._sparing(f"finding {finding.id}"):
                    connection.execute(rows.FINDINGS.insert, rows.finding_row(finding))
            for incident in incidents:
                with self._sparing(f"incident {incident.id}"):
                    save_incident(connection, incident)
            self._save_positions(connection)
        self._pending.clear()

    @contextmanager
    def _sparing(self, what: str) -> Iterator[None]:
        """What cannot be written as it is (a NaN, a text beyond its limit) must not keep the rest from it."""
        try:
            yield
        except IntegrityError:
            raise
        except HauswartError as error:
            self.counters["refused"] += 1
            self.notes.append(f"{what} was not kept: {error}")
            del self.notes[:-MAX_NOTES]

    def keep(self, record: Record, client: str = "", request: int = 0) -> None:
        """Keep a record; the same request of a client is kept once. Raises HauswartError if refused."""
        with self._transaction() as connection:
            if client and not first_time(connection, client, request):
                return
            KEEP[type(record)](connection, record)
        if isinstance(record, KeepPurge):
            try:  # what was erased is overwritten; only its room is still taken
                self.compact()
            except HauswartError as error:
                self.notes.append(f"the store keeps its size after the purge: {error}")

    def edge_position(self, edge: str) -> int | None:
        """The last position of a bus edge that was committed, or is to be with the next content."""
        if edge in self._pending:
            return self._pending[edge]
        value = self.preference(f"edge/{edge}")
        return None if value is None else int(value)

    def preference(self, key: str) -> str | None:
        """A kept preference."""
        row = self._connection.execute(f"{rows.PREFERENCES.select} WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(rows.checked(rows.PREFERENCES, row)[1])

    def put_preference(self, key: str, value: str) -> None:
        """Keep a preference (language, maintenance windows, ...) under a key."""
        with self._transaction() as connection:
            connection.execute(rows.PREFERENCES.insert, rows.sealed(rows.PREFERENCES, key, value))

    def expire(self, wall: float, incidents_days: int) -> dict[str, int]:
        """Erase what is older than the retention; counts by table. Call it about hourly."""
        with self._transaction() as connection:
            return expire(connection, wall, incidents_days)

    def purge(self, before: float | None = None, fault_class: str = "") -> dict[str, int]:
        """Erase incidents last changed before a time and of a class (None, "" match all); counts by table."""
        with self._transaction() as connection:
            counts = erase_incidents(connection, before, fault_class)
        self.compact()
        return counts

    # --- the file -----------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Give erased space back, so that nothing of what was erased remains in the file or its log."""
        try:
            self._connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise self._failure(error) from error
        self.checkpoint()

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the database and sum the changed pages; False if that must wait."""
        try:
            size = int(self._connection.execute("PRAGMA page_size").fetchone()[0])
            changed, before = pages.pages_in_wal(self.path, size), pages.load_sums(self.path)
            if not changed and before is not None:
                return True
            pages.drop_sums(self.path)
            busy = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0]
            if not busy:  # readers may still hold the log: then it is only not shortened
                self._connection.execute("PRAGMA busy_timeout=200")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._connection.execute("PRAGMA busy_timeout=10000")
            pages.save_sums(self.path, self._file, before, changed)
        except (sqlite3.OperationalError, OSError):
            self.counters["full"] += 1  # the commits are safe in the log; the next checkpoint tries again
            return False
        self.counters["checkpoints"] += 1
        return True

    def close(self) -> None:
        """Keep pending positions, checkpoint and give the lock back."""
        try:
            if self._pending:
                with self._transaction() as connection:
                    self._save_positions(connection)
        finally:
            self.checkpoint()
            if (
                pages.wal_path(self.path).exists() and pages.wal_path(self.path).stat().st_size
            ):  # SQLite will move them on closing, unsummed
                pages.drop_sums(self.path)
            self._connection.close()
            self._file.close()
            self._give_away()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            yield connection
            changed = connection.total_changes - before
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._failure(error) from error
        except BaseException:
            self._roll_back()
            raise
        if changed:
            self.counters["commits"] += 1
        self._checkpoint_if_due()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.rollback()

    def _checkpoint_if_due(self) -> None:
        try:
            due = pages.wal_path(self.path).stat().st_size > MAX_CHECKPOINT_BYTES
        except OSError:
            return
        if due:
            self.checkpoint()

    def _save_positions(self, connection: sqlite3.Connection) -> None:
        for edge, position in self._pending.items():
            row = rows.sealed(rows.PREFERENCES, f"edge/{edge}", str(position))
            connection.execute(rows.PREFERENCES.insert, row)

    def _failure(self, error: sqlite3.Error) -> HauswartError:
        if schema.out_of_space(error):
            self.counters["full"] += 1
            return StoreFullError(f"store {self.path}: no space left ({error})", hint="free some disk space")
        failure = schema.unavailable(self.path, error)
        if failure is not None:
            return failure
        if isinstance(error, sqlite3.IntegrityError):
            return HauswartError(f"store {self.path}: refused ({error})")
        return IntegrityError(
            f"store {self.path}: {error}", hint="restart the daemon: it saves the sound rows"
        )


def _locked(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HauswartError(
            f"store {path}: {error.strerror}", hint="give another --state-dir, or check its owner"
        ) from error
    return FileLock(path.with_name(path.name + ".lock"), f"the store {path}")
