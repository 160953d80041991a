"""Checksums of the database file's pages, in `store.db.sums` beside it: they cover what rows' cannot.

SQLite has none of its own, so a flipped bit in a page's unused part, a header or an index goes unnoticed.
Only the writer changes the main file, and only in a checkpoint: then the changed pages are summed anew.
Knows nothing about tables.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"hswtsum1"
_WAL_HEADER = 32  # bytes; https://www.sqlite.org/fileformat2.html#walformat
_FRAME_HEADER = 24


def sums_path(database: Path) -> Path:
    """Where the page checksums of a database are kept."""
    return database.with_name(database.name + ".sums")


def wal_path(database: Path) -> Path:
    """Where SQLite keeps the database's write-ahead log."""
    return database.with_name(database.name + "-wal")


def page_size(database: Path) -> int:
    """Page size from the file's header (4096 where that is unreadable)."""
    with database.open("rb") as file:
        return _page_size(file)


def _page_size(file: BinaryIO) -> int:
    file.seek(0)
    header = file.read(18)
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size if size >= 512 and not size & (size - 1) else 4096


def pages_in_wal(database: Path, size: int) -> set[int]:
    """Numbers (from 1) of all pages with a frame in the write-ahead log, old frames included."""
    try:
        file = wal_path(database).open("rb")
    except FileNotFoundError:
        return set()
    pages: set[int] = set()
    with file:
        end = file.seek(0, os.SEEK_END)
        for offset in range(_WAL_HEADER, end - _FRAME_HEADER - size + 1, _FRAME_HEADER + size):
            file.seek(offset)
            pages.add(int.from_bytes(file.read(4), "big"))
    return pages


def load_sums(database: Path) -> array[int] | None:
    """The kept checksums, or None if there are none or they are damaged themselves."""
    try:
        content = sums_path(database).read_bytes()
    except FileNotFoundError:
        return None
    body, seal = content[8:-4], content[-4:]
    if content[:8] != _MAGIC or len(body) % 4 or zlib.crc32(body).to_bytes(4, "big") != seal:
        return None
    return array("I", body)


def drop_sums(database: Path) -> None:
    """Forget the checksums before the file changes, so that a crash in between cannot raise a false alarm."""
    sums_path(database).unlink(missing_ok=True)
    _sync_directory(database.parent)


def save_sums(database: Path, file: BinaryIO, before: array[int] | None, changed: Iterable[int]) -> None:
    """Sum the changed pages anew (all of them if nothing was known before) and keep the result.

    `file` is the database, open for as long as SQLite has it open in this process: closing any descriptor of
    it would drop SQLite's own locks (fcntl(2)), and another process would take the live log for an orphan.
    """
    size = _page_size(file)
    count = file.seek(0, os.SEEK_END) // size
    sums = array("I", bytes(4 * count))
    known = before[:count] if before is not None else array("I")
    sums[: len(known)] = known
    fresh = {page for page in changed if 1 <= page <= len(known)} | set(range(len(known) + 1, count + 1))
    for page in sorted(fresh):
        file.seek((page - 1) * size)
        sums[page - 1] = zlib.crc32(file.read(size))
    body = sums.tobytes()
    partial = sums_path(database).with_suffix(".partial")
    partial.write_bytes(_MAGIC + body + zlib.crc32(body).to_bytes(4, "big"))
    partial.replace(sums_path(database))


def damaged_pages(database: Path, limit: int = 16) -> list[int] | None:
    """Pages that are not what the last checkpoint left there; None if there is nothing to compare with.

    Asks again when the writer checkpoints at the same moment.
    """
    for _ in range(3):
        before = load_sums(database)
        if before is None:
            return None
        found = _differing(database, before, limit)
        if not found or load_sums(database) == before:
            return found
    return None


def _differing(database: Path, sums: array[int], limit: int) -> list[int]:
    size = page_size(database)
    found: list[int] = []
    with database.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        if length != size * len(sums):  # a damaged header may give a wrong page size: page 1 is then at fault
            return [1]
        file.seek(0)
        for page, expected in enumerate(sums, 1):
            if zlib.crc32(file.read(size)) != expected:
                found.append(page)
                if len(found) >= limit:
                    break
    return found


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
