"""Stored journals for replay: their boots, and their lines in order with progress; follows nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from daemon.collectors.entry import Cursor, line_of, parse_cursor, stamp_of
from daemon.collectors.source import reader_event
from daemon.errors import MissingDependencyError, SourceError
from daemon.ingest import Clean, clean
from daemon.messages import Event, Line, Stamp

if TYPE_CHECKING:
    from systemd._reader import _Reader

_MAGIC = b"LPKSHHRH"
_ENTRIES_OFFSET = 152  # n_entries in the header, "Journal File Format" of systemd
_HEADER_BYTES = 160
_MAX_FAILURES = 1000  # in a row: an unreadable stretch is left, not fought with


class Boot(NamedTuple):
    """One boot in a journal: first and last entry in Unix seconds, and about how many entries."""

    id: str
    first: float
    last: float
    entries: int


def list_boots(path: Path | None = None) -> list[Boot]:
    """The boots of a journal directory (or of this host), oldest first; raises SourceError."""
    reader = _open(path)
    try:
        ids = [bytes(value).decode("ascii", "replace") for value in reader.query_unique("_BOOT_ID")]
        boots = [boot for boot in (_describe(reader, boot_id) for boot_id in ids) if boot]
    except OSError as error:
        raise SourceError(f"journal {path or 'of this host'}: {error}") from error
    finally:
        reader.close()
    return sorted(boots, key=lambda boot: (boot.first, boot.id))


def count_entries(path: Path) -> int:
    """How many entries the headers of a directory's journal files promise."""
    return sum(_promised(file) for file in path.rglob("*.journal*"))


class Archive:
    """The lines of a journal directory, or of one boot in it; `total` and `done` feed a progress bar."""

    def __init__(self, path: Path | None = None, boot: str = "", clean_text: Clean = clean) -> None:
        self.done = 0
        self.damaged = 0
        self._path = path
        self._boot = boot
        self._clean = clean_text
        self.total = self._estimate()

    def __iter__(self) -> Iterator[Line | Event]:
        """Every line in order; a gap event at the end where the files promise more than they hold."""
        reader = _open(self._path)
        last: Cursor | None = None
        try:
            if self._boot:
                reader.add_match(f"_BOOT_ID={self._boot}")
            reader.seek_head()
            for text in self._walk(reader):
                last = parse_cursor(text)
                line = self._read(reader, text, stamp_of(last))
                if line is not None:
                    yield line
        finally:
            reader.close()
        missing = self._missing()
        if last and missing:
            yield reader_event("journal", "gap", "damaged journal files", stamp_of(last), lost=missing)

    def _walk(self, reader: _Reader) -> Iterator[str]:
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                if not reader._next():  # noqa: SLF001 - the raw reader's only interface
                    return
                text = reader._get_cursor()  # noqa: SLF001
            except OSError:
                failures += 1
                self.damaged += 1
                continue
            failures = 0
            self.done += 1
            yield text

    def _read(self, reader: _Reader, text: str, at: Stamp) -> Line | None:
        try:
            entry = reader._get_all()  # noqa: SLF001
        except (OSError, ValueError):  # UnicodeDecodeError, too
            self.damaged += 1
            return None
        return line_of(entry, at, text, self._clean) if "MESSAGE" in entry else None

    def _missing(self) -> int:
        exact = self._path is not None and not self._boot
        return self.damaged + (max(0, self.total - self.done) if exact else 0)

    def _estimate(self) -> int:
        if self._boot:
            return next((boot.entries for boot in list_boots(self._path) if boot.id == self._boot), 0)
        roots = [self._path] if self._path else [Path("/var/log/journal"), Path("/run/log/journal")]
        return sum(count_entries(root) for root in roots if root.is_dir())


def _open(path: Path | None) -> _Reader:
    try:
        from systemd._reader import LOCAL_ONLY, _Reader  # noqa: PLC0415 - hosts without journald lack it
    except ImportError as error:
        raise MissingDependencyError(f"python-systemd: {error}", hint="install systemd-python") from error
    if path is not None and not path.is_dir():
        raise SourceError(f"{path} is no journal directory")
    try:
        return _Reader(LOCAL_ONLY) if path is None else _Reader(0, str(path))
    except (OSError, ValueError) as error:
        raise SourceError(f"journal {path or 'of this host'}: {error}") from error


def _describe(reader: _Reader, boot_id: str) -> Boot | None:
    """First and last entry of a boot; the entries between follow from their numbers."""
    reader.flush_matches()
    try:
        reader.add_match(f"_BOOT_ID={boot_id}")
        reader.seek_head()
        if not reader._next():  # noqa: SLF001
            return None
        first = parse_cursor(reader._get_cursor())  # noqa: SLF001
        reader.seek_tail()
        last = parse_cursor(reader._get_cursor()) if reader._previous() else first  # noqa: SLF001
    except (OSError, ValueError):
        return None
    same = first.sequence_id == last.sequence_id
    return Boot(
        boot_id, first.wall_us / 1e6, last.wall_us / 1e6, last.sequence - first.sequence + 1 if same else 0
    )


def _promised(file: Path) -> int:
    try:
        with file.open("rb") as opened:
            header = opened.read(_HEADER_BYTES)
    except OSError:
        return 0
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return 0
    return int(struct.unpack_from("<Q", header, _ENTRIES_OFFSET)[0])
