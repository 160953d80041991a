"""Opens the store's file: creates it, checks its version, and says what is wrong with it.

A newer minor version runs (its additions are ignored), a newer major one is refused untouched.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import HauswartError, IntegrityError
from daemon.store import pages
from daemon.store.rows import MAJOR, META, MINOR, TABLES, Table, intact, sealed

APPLICATION_ID = 0x68737774  # "hswt"
_OUT_OF_SPACE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}
_NO_ACCESS = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_AUTH, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL),
}


@dataclass(frozen=True)
class Report:
    """What a check of the store found; `sums` is False where page checksums were not available."""

    rows: int = 0
    damaged_rows: int = 0
    damaged_pages: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sums: bool = False

    @property
    def sound(self) -> bool:
        """Whether everything is what was written."""
        return not (self.damaged_rows or self.damaged_pages or self.problems)

    @property
    def described(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [f"{self.damaged_rows} rows fail their checksum"] if self.damaged_rows else []
        if self.damaged_pages:
            found.append(f"pages {self.damaged_pages} are not what the last checkpoint left there")
        return [*found, *self.problems]

    @property
    def usable(self) -> bool:
        """Whether every row can be read and is right (unused bytes may differ)."""
        return not (self.damaged_rows or self.problems)


def out_of_space(error: sqlite3.Error) -> bool:
    """Whether SQLite failed because the disk, a quota or a file size limit is exhausted."""
    return getattr(error, "sqlite_errorcode", None) in _OUT_OF_SPACE


def unavailable(path: Path, error: sqlite3.Error) -> HauswartError | None:
    """The error to raise where not the content but the access to it failed; None where the content is bad."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF not in _NO_ACCESS or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return None
    return HauswartError(
        f"store {path}: {error}", hint="check the owner, mode and disk of the state directory"
    )


def connect(path: Path, query: str) -> sqlite3.Connection:
    """A connection in autocommit mode through a URI, with a small cache (a quiet host needs no more)."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{query}", uri=True, isolation_level=None, timeout=10.0
    )
    connection.execute("PRAGMA cache_size=-512")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def connect_writer(path: Path) -> sqlite3.Connection:
    """The writing connection: WAL, every commit on the disk, erased bytes overwritten."""
    with contextlib.suppress(OSError):  # SQLite then says what is wrong
        _keep_private(path)
    connection = connect(path, "mode=rwc")
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()  # the writer sums pages at checkpoints
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _keep_private(path: Path) -> None:
    """Whatever the umask is or was, only owner and group read the store; its journals take after it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & 0o007:
            os.fchmod(descriptor, mode & 0o770)
    finally:
        os.close(descriptor)


def create(connection: sqlite3.Connection) -> None:
    """Bring the file to this version, keeping what a newer minor version added."""
    found = version(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements():
            connection.execute(statement)
        if found is None or found < (MAJOR, MINOR):
            connection.executemany(
                META.insert, [sealed(META, "major", str(MAJOR)), sealed(META, "minor", str(MINOR))]
            )
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={MAJOR * 1000 + MINOR}")
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = value")  # a damaged header may make SQLite read-only
        connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.rollback()
        raise


def _statements() -> Iterator[str]:
    text = Path(__file__).with_name("schema.sql").read_text()
    lines = (line for line in text.splitlines() if not line.startswith("--"))
    return (statement for statement in "\n".join(lines).split(";") if statement.strip())


def version(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """Major and minor version from the table `meta`, None for an empty file; raises IntegrityError."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    if "meta" not in tables:
        raise IntegrityError("store: the file is an SQLite database, but not a store of hauswart")
    rows = connection.execute(META.select).fetchall()
    known = {row[0]: row[1] for row in rows if intact(META, row)}
    try:
        return int(known["major"]), int(known["minor"])
    except (KeyError, ValueError) as error:
        raise sqlite3.DatabaseError("the version in the table meta is damaged") from error


def refuse_newer(path: Path) -> None:
    """Raise IntegrityError for another program's or a newer major version's file, without touching it.

    Damage is not judged here. `immutable` keeps SQLite from creating files beside the database.
    """
    try:
        connection = connect(path, "mode=ro&immutable=1")
    except sqlite3.Error:
        return
    try:
        found = version(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        return
    finally:
        connection.close()
    if found and found[0] > MAJOR:
        raise IntegrityError(
            f"store {path} has schema {found[0]}.{found[1]}, this hauswart knows {MAJOR}.x; it is untouched",
            hint="run the newer hauswart again, or move the file away to begin with an empty store",
        )


def inspect(path: Path, connection: sqlite3.Connection) -> Report:
    """Check pages, structure and every row; raises HauswartError if the file cannot be read."""
    damaged = pages.damaged_pages(path)
    problems: list[str] = []
    rows = bad = 0
    try:
        problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)") if row[0] != "ok"]
        for table in TABLES:
            count, wrong = _check_rows(connection, table)
            rows, bad = rows + count, bad + wrong
    except UnicodeDecodeError as error:
        problems.append(f"SQLite: {error}")
    except sqlite3.Error as error:
        failure = unavailable(path, error)
        if failure is not None:
            raise failure from error
        problems.append(f"SQLite: {error}")
    return Report(rows, bad, damaged or [], problems, damaged is not None)


def _check_rows(connection: sqlite3.Connection, table: Table) -> tuple[int, int]:
    connection.text_factory = _lenient
    rows = bad = 0
    try:
        for row in connection.execute(table.select):
            rows += 1
            bad += not intact(table, row)
    finally:
        connection.text_factory = str
    return rows, bad


def _lenient(text: bytes) -> str:
    return text.decode(errors="surrogateescape")  # damage shows in the checksum, not as an exception


def scan(
    connection: sqlite3.Connection, table: Table
) -> Iterator[Sequence[str | int | float | bytes | None]]:
    """Every row that can still be read and is intact, stepping over unreadable stretches of the table."""
    connection.text_factory = _lenient
    top = _last_rowid(connection, table)
    start, stride = 0, 1
    while start <= top:
        try:
            query = f"{table.select} WHERE rowid >= ? ORDER BY rowid".replace("SELECT ", "SELECT rowid, ", 1)
            for rowid, *row in connection.execute(query, (start,)):
                start, stride = rowid + 1, 1
                if intact(table, row):
                    yield row
        except sqlite3.Error:
            start, stride = start + stride, stride * 2
        else:
            return


def _last_rowid(connection: sqlite3.Connection, table: Table) -> int:
    try:
        row = connection.execute(f"SELECT max(rowid) FROM {table.name}").fetchone()  # noqa: S608 (names are ours)
        return int(row[0] or 0)
    except sqlite3.Error:
        return 1 << 32  # far above any row; the doubling stride gets there in 32 steps
