"""Checks a store's file, and saves what can be saved of a damaged one.

The damaged file is never changed or deleted: it stays beside the new one as `store.db.corrupt-DATE`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import IntegrityError, StoreFullError
from daemon.store import pages, schema
from daemon.store.rows import INCIDENTS, META, OF_INCIDENT, REQUESTS, TABLES


@dataclass(frozen=True)
class Salvage:
    """Where the damaged file went, how many rows were kept, and what was wrong."""

    moved_to: Path
    kept: dict[str, int]
    reason: str

    def __str__(self) -> str:
        kept = ", ".join(f"{count} {name}" for name, count in self.kept.items() if count) or "nothing"
        return f"the store was damaged ({self.reason}); moved to {self.moved_to}, kept: {kept}"


def verify(path: Path) -> schema.Report:
    """Check a store that a daemon may be writing; HauswartError if it cannot be read."""
    if not path.is_file():
        raise IntegrityError(f"store {path}: no such file", hint="the daemon creates it when it first runs")
    schema.refuse_newer(path)
    try:
        connection = schema.connect(
            path, "mode=ro" if pages.wal_path(path).exists() else "mode=ro&immutable=1"
        )
        try:
            return schema.inspect(path, connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        failure = schema.unavailable(path, error)
        if failure is not None:
            raise failure from error
        return schema.Report(problems=[f"SQLite: {error}"], damaged_pages=pages.damaged_pages(path) or [])


def salvage(path: Path, reason: str, wall: float | None = None) -> Salvage:
    """Move a damaged store aside and put a new one with its sound rows in its place."""
    work, fresh = path.with_name(path.name + ".salvage"), path.with_name(path.name + ".new")
    _remove(work)
    _remove(fresh)
    try:
        kept = _copy_sound_rows(path, work, fresh)
        return Salvage(_exchange(path, fresh, wall), kept, reason)
    except sqlite3.Error as error:
        if schema.out_of_space(error):
            raise StoreFullError(f"store {path} is damaged and there is no space to save its rows") from error
        raise IntegrityError(f"store {path} is damaged and saving its rows failed: {error}") from error
    except OSError as error:
        raise StoreFullError(f"store {path} is damaged; saving its rows failed: {error}") from error
    finally:
        _remove(work)
        _remove(fresh)


def _copy_sound_rows(path: Path, work: Path, fresh: Path) -> dict[str, int]:
    target = schema.connect_writer(fresh)
    try:
        schema.create(target)
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        kept = _recover(path, work, target)
        if not any(kept.values()):
            kept = _recover(path, work, target, first_page=_first_page(fresh))
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        target.close()
    return kept


def _first_page(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(pages.page_size(path))


def _recover(path: Path, work: Path, target: sqlite3.Connection, first_page: bytes = b"") -> dict[str, int]:
    """Copy sound rows; with `first_page`, read the file through a sound schema of the same version."""
    from shutil import copyfile  # noqa: PLC0415  # it loads bz2 and lzma, for what hopefully never happens

    copyfile(path, work)
    if first_page:
        _transplant(work, first_page)
    elif pages.wal_path(path).exists():
        copyfile(pages.wal_path(path), pages.wal_path(work))
    try:
        source = schema.connect(work, "mode=rw")
    except sqlite3.Error:
        return {}
    target.execute("PRAGMA foreign_keys=OFF")
    target.execute("BEGIN")
    try:
        kept = {table.name: 0 for table in TABLES if table not in {META, REQUESTS}}
        for table in TABLES:
            if table.name in kept:
                for row in schema.scan(source, table):
                    kept[table.name] += target.execute(table.insert, row).rowcount
        for table in OF_INCIDENT:  # what belonged to a lost incident means nothing alone
            orphans = f"DELETE FROM {table.name} WHERE incident_id NOT IN (SELECT id FROM {INCIDENTS.name})"  # noqa: S608
            kept[table.name] -= target.execute(orphans).rowcount
        target.execute("COMMIT")
    finally:
        source.close()
        if target.in_transaction:
            target.rollback()
        _remove(work)
    return kept


def _transplant(work: Path, first_page: bytes) -> None:
    with work.open("r+b") as file:
        count = file.seek(0, os.SEEK_END) // len(first_page)
        file.seek(0)
        # Header: database size in pages at 28, no free list (32..39); https://www.sqlite.org/fileformat2.html
        file.write(first_page[:28] + count.to_bytes(4, "big") + bytes(8) + first_page[40:])


def _exchange(path: Path, fresh: Path, wall: float | None) -> Path:
    """Put `fresh` in the place of `path`; at no instant is there neither."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() if wall is None else wall))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    os.link(path, aside)
    wal = pages.wal_path(path)
    if wal.exists():  # it must not meet the new file, whose pages it does not describe
        wal.replace(pages.wal_path(aside))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    pages.drop_sums(path)
    fresh.replace(path)
    return aside


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
