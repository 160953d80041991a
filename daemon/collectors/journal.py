"""The live journal: follows it from a saved cursor, counts what it lost; knows no other log.

The raw reader is used (`systemd._reader._Reader`): it gives 213,000 entries per CPU second where
`journal.Reader` with its converters gives 65,000.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.collectors.entry import Cursor, line_of, parse_cursor, stamp_of
from daemon.collectors.source import MAX_LINES, MAX_READ_S, reader_event
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.messages import Event, Line, Observation, Stamp

if TYPE_CHECKING:
    from systemd._reader import _Reader

INTERVAL_S = 5.0  # besides the descriptor, for file systems without inotify
QUIET_REOPEN_S = 300.0  # a journal directory made after the start is seen only by a new reader
BACKLOG = 20_000  # entries after which the reader's memory maps (up to 64 x 8 MiB) are given back
LARGE_BYTES = 1 << 20
MAX_FAILURES = 3  # at one place, before what lies there is given up
_FIELD_BYTES = 64 << 10  # libsystemd's default; caps what is decompressed of one field
_NEEDS_GROUP = "the user needs the group systemd-journal"
_CHECK_TIME = 31  # the clock is read every 32 entries


class JournalCollector:
    """Follows the local journal, or the journal files of one directory."""

    name = "journal"
    interval_s: float | None = INTERVAL_S

    def __init__(
        self, cursor: str = "", path: Path | None = None, clean_text: Clean = clean, run: Path = Path("/run")
    ) -> None:
        self.damaged = 0  # entries that could not be read
        self.duplicates = 0  # entries given twice, after a flush from /run to /var
        self.lost = 0  # entries that vacuuming took before they were read
        self._cursor = cursor
        self._path = path
        self._clean = clean_text
        self._run = run
        self._reader: _Reader | None = None
        self._poll: select.epoll | None = None
        self._last: Cursor | None = None
        self._more = False
        self._failures = 0
        self._since_open = 0
        self._active_at = 0.0
        self._gap = 0
        self._unknown = ""

    def open(self) -> list[Event]:
        """Open the journal at the saved cursor, or at its end; raises SourceError where there is none."""
        self._require()
        readable, unreadable = self._count_files()
        if not readable:
            hint = _NEEDS_GROUP if unreadable else "is journald running?"
            raise SourceError(f"no readable journal file, {unreadable} unreadable", hint=hint)
        if self._path is None and not self._reads_system():
            raise SourceError(
                "only the journal of this user can be read, not the system's", hint=_NEEDS_GROUP
            )
        self._start()
        reason = f"{unreadable} journal files cannot be read" if unreadable else "all journal files readable"
        return [reader_event(self.name, "present", reason, unreadable=unreadable)]

    def fileno(self) -> int | None:
        """A descriptor that stays the same when the journal is opened again."""
        return self._poll.fileno() if self._poll else None

    def pending(self) -> bool:
        """Whether the last read stopped for its limit."""
        return self._more

    def position(self) -> str:
        """The cursor of the last entry read."""
        return self._cursor

    def close(self) -> None:
        """Close the journal."""
        self._close_reader()
        if self._poll:
            self._poll.close()
        self._poll = None

    def _close_reader(self) -> None:
        if self._reader:
            self._reader.close()
        self._reader = None

    def read(self, now: Stamp) -> list[Observation]:
        """The next entries, and a gap event where entries are missing."""
        found: list[Observation] = []
        try:
            self._refresh(now)
            self._more = self._take(found)
            self._failures = 0
        except (OSError, SourceError) as error:
            self._recover(error)
        if found:
            self._active_at = now.mono
        self._report_gap(found, now)
        return found

    # --- opening ----------------------------------------------------------------------------------

    def _require(self) -> None:
        if self._path is not None:
            if not self._path.is_dir():
                raise SourceError(f"{self._path} is no directory")
        elif not (self._run / "systemd/journal/stdout").exists():
            raise SourceError("journald is not running", hint="log files and /dev/kmsg are read instead")

    def _start(self) -> None:
        """A new reader, placed after the last entry read, watching the directories from the beginning."""
        try:
            from systemd._reader import LOCAL_ONLY, _Reader  # noqa: PLC0415 - hosts without journald lack it
        except ImportError as error:
            raise SourceError(f"python-systemd: {error}", hint="install systemd-python") from error
        self._close_reader()
        self._poll = self._poll or select.epoll()
        try:
            self._reader = reader = _Reader(LOCAL_ONLY) if self._path is None else _Reader(0, str(self._path))
            reader.data_threshold = _FIELD_BYTES
            # Without fileno() the reader never learns of rotated files.
            self._poll.register(reader.fileno(), select.EPOLLIN)
            self._seek(reader)
        except (OSError, ValueError) as error:
            raise SourceError(f"journal: {error}") from error
        self._since_open = 0

    def _seek(self, reader: _Reader) -> None:
        if self._cursor and self._seek_cursor(reader):
            return
        reader.seek_tail()
        if reader._previous():  # noqa: SLF001 - the raw reader's only interface
            self._cursor = reader._get_cursor()  # noqa: SLF001
            self._last = parse_cursor(self._cursor)
        else:
            reader.seek_head()  # an empty journal: whatever comes is new

    def _seek_cursor(self, reader: _Reader) -> bool:
        """Stand on the saved entry, or just before the first that is left; False for a foreign cursor."""
        try:
            self._last = parse_cursor(self._cursor)
            reader.seek_cursor(self._cursor)
        except (OSError, ValueError):
            self._unknown = "the saved cursor is not of this journal"
            return False
        # Where the saved entry is gone the next one has not been read; before the first one is only the head.
        if (
            reader._next()  # noqa: SLF001
            and not reader.test_cursor(self._cursor)
            and not reader._previous()  # noqa: SLF001
        ):
            reader.seek_head()
        return True

    def _count_files(self) -> tuple[int, int]:
        """Journal files that can be read, and that cannot."""
        files = self._files()
        readable = sum(1 for file in files if os.access(file, os.R_OK))
        return readable, len(files) - readable

    def _reads_system(self) -> bool:
        """Whether the system's own journal can be read; every user may read the one of his own."""
        files = [file for file in self._files() if file.name.startswith("system")]
        return not files or any(os.access(file, os.R_OK) for file in files)

    def _files(self) -> list[Path]:
        roots = [self._path] if self._path else [self._run / "log/journal", Path("/var/log/journal")]
        return [file for root in roots if root.is_dir() for file in root.rglob("*.journal")]

    # --- reading ----------------------------------------------------------------------------------

    def _refresh(self, now: Stamp) -> None:
        """Let the reader learn of new and vanished files; reopen it where that is due."""
        if not self._active_at:
            self._active_at = now.mono
        caught_up = not self._more
        if self._since_open > BACKLOG or (caught_up and now.mono - self._active_at > QUIET_REOPEN_S):
            self._active_at = now.mono
            self._start()
        if self._reader is None:
            self._start()
        elif caught_up:
            self._reader.process()

    def _take(self, found: list[Observation]) -> bool:
        """Read entries into `found`; whether there may be more."""
        reader = self._reader
        if reader is None:
            return False
        deadline = time.monotonic() + MAX_READ_S
        for count in range(MAX_LINES):
            if not reader._next():  # noqa: SLF001 - the raw reader's only interface
                return False
            line = self._read_entry(reader)
            if line is not None:
                found.append(line)
            if count & _CHECK_TIME == _CHECK_TIME and time.monotonic() > deadline:
                return True
        return True

    def _read_entry(self, reader: _Reader) -> Line | None:
        self._since_open += 1
        try:
            text = reader._get_cursor()  # noqa: SLF001
            cursor = parse_cursor(text)
        except (OSError, ValueError):
            self.damaged += 1  # the jump of the next entry's number counts it as lost
            return None
        if self._is_duplicate(cursor):
            return None
        self._cursor = text
        try:
            entry = reader._get_all()  # noqa: SLF001
        except (OSError, ValueError):  # UnicodeDecodeError, too: a damaged file
            self.damaged += 1
            self._gap += 1
            return None
        if "MESSAGE" not in entry:
            return None
        if len(entry["MESSAGE"]) > LARGE_BYTES:
            self._since_open = BACKLOG + 1  # libsystemd keeps its decompressed copy until the file is closed
        return line_of(entry, stamp_of(cursor), text, self._clean)

    def _is_duplicate(self, cursor: Cursor) -> bool:
        """Compare with the last entry: count what is missing between them, know what was given before."""
        last, self._last = self._last, cursor
        if last is None:
            return False
        if cursor.sequence_id != last.sequence_id:
            self._unknown = "the journal began a new sequence"
            return False
        if cursor.sequence > last.sequence + 1:
            self._gap += cursor.sequence - last.sequence - 1
        if cursor.boot == last.boot and cursor.mono_us < last.mono_us:
            # journald stamps in order; only a flush gives old entries new numbers
            self._last = last._replace(sequence=cursor.sequence)
            self.duplicates += 1
            return True
        return False

    # --- losses -----------------------------------------------------------------------------------

    def _recover(self, error: Exception) -> None:
        """Open again at the same place; give the place up after some failures."""
        self._failures += 1
        self._unknown = f"journal: {error}"
        self._more = False
        if self._failures > MAX_FAILURES:
            self._cursor = ""
        self._close_reader()

    def _report_gap(self, found: list[Observation], now: Stamp) -> None:
        if self._gap:
            self.lost += self._gap
            found.append(reader_event(self.name, "gap", "entries are missing", now, lost=self._gap))
        if self._unknown:
            found.append(reader_event(self.name, "gap", self._unknown, now, lost="unknown"))
        self._gap, self._unknown = 0, ""
