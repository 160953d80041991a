"""Followed log files: a path or a glob pattern; every line of theirs is untrusted."""

from __future__ import annotations

import glob
import time
from pathlib import Path

import msgspec

from daemon.collectors.headers import Heads
from daemon.collectors.source import MAX_LINES, MAX_READ_S, reader_event
from daemon.collectors.tail import Saved, Tail, require_directory
from daemon.ingest import Clean, clean
from daemon.messages import MAX_NAME, Event, Line, Observation, Stamp

INTERVAL_S = 1.0  # a stat a file costs 2 us; inotify would save nothing that can be measured
PATTERN_INTERVAL_S = 10.0
MAX_FILES = 64  # followed by one pattern
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
_LINES_A_TURN = 64  # between two looks at the clock


class FileCollector:
    """Follows the files of one path or pattern."""

    interval_s: float | None = INTERVAL_S

    def __init__(self, pattern: str, position: str = "", clean_text: Clean = clean) -> None:
        self.name = f"file:{pattern}"[:MAX_NAME]
        self._pattern = pattern
        self._clean = clean_text
        self._saved = _decode_position(position)
        self._tails: dict[str, Tail] = {}
        self._heads: dict[str, Heads] = {}
        self._globbed_at = float("-inf")
        self._polled_at = float("-inf")
        self._started = False
        self._crowded = False
        self._crowd_named = False

    def open(self) -> list[Event]:
        """Find the files; raises SourceError where their directory is missing or unreadable."""
        plain = not glob.has_magic(self._pattern)
        path = Path(self._pattern)
        if plain or not glob.has_magic(str(path.parent)):
            require_directory(path.parent)
        self._find()
        self._started = True
        if plain and not path.exists():
            return [reader_event(self.name, "absent", "does not exist yet")]
        return [reader_event(self.name, "present", f"{len(self._tails)} files are followed")]

    def fileno(self) -> int | None:
        """Files are looked at, not waited for."""
        return None

    def pending(self) -> bool:
        """Whether some file has more."""
        return any(tail.more for tail in self._tails.values())

    def position(self) -> str:
        """Inode, offset and beginning of every file, as JSON."""
        return msgspec.json.encode(self._places()).decode()

    def _places(self) -> dict[str, Saved]:
        found = {path: tail.saved for path, tail in self._tails.items()}
        return {path: place for path, place in found.items() if place} or self._saved

    def close(self) -> None:
        """Close every file; open() goes on where they were left."""
        self._saved = self._places()
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        self._heads.clear()
        self._started = False

    def read(self, now: Stamp) -> list[Observation]:
        """The next lines of all files in turn, and what was lost of them."""
        if now.mono - self._polled_at >= INTERVAL_S / 2:
            self._polled_at = now.mono
            self._poll(now)
        found: list[Observation] = []
        deadline = time.monotonic() + MAX_READ_S
        waiting = [item for item in self._tails.items() if item[1].more]
        while waiting and len(found) < MAX_LINES and time.monotonic() < deadline:
            for path, tail in waiting:
                source = f"file:{path}"[:MAX_NAME]
                heads = self._heads[path]
                found += [self._line(source, raw, heads, now) for raw in tail.take(_LINES_A_TURN)]
            waiting = [item for item in waiting if item[1].more]
        self._report(found, now)
        return found

    # --- files ------------------------------------------------------------------------------------

    def _poll(self, now: Stamp) -> None:
        if now.mono - self._globbed_at >= PATTERN_INTERVAL_S:
            self._globbed_at = now.mono
            self._find()
        for tail in self._tails.values():
            tail.poll()

    def _find(self) -> None:
        """Follow what the pattern matches now; what it no longer matches is read to its end by its tail."""
        for path in self._matches():
            if path in self._tails:
                continue
            if len(self._tails) >= MAX_FILES and not self._make_room():
                self._crowded = True
                return
            new = self._started and not self._is_renamed(Path(path))
            tail = Tail(Path(path), self._saved.pop(path, None), from_start=new)
            tail.poll()
            self._tails[path] = tail
            self._heads[path] = Heads(tail.saved.head if tail.saved else b"")

    def _matches(self) -> list[str]:
        if not glob.has_magic(self._pattern):
            return [self._pattern]
        found = glob.iglob(self._pattern)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return sorted(path for path in found if not path.endswith(_COMPRESSED) and _is_text(path))

    def _is_renamed(self, path: Path) -> bool:
        """Whether a new name is that of a file which was followed under another one."""
        try:
            inode = path.stat().st_ino
        except OSError:
            return False
        return any(inode in tail.inodes for tail in self._tails.values())

    def _make_room(self) -> bool:
        """Forget a file that is gone and read to its end."""
        for path, tail in list(self._tails.items()):
            if tail.saved is None:
                del self._tails[path], self._heads[path]
                return True
        return False

    def _report(self, found: list[Observation], now: Stamp) -> None:
        for tail in self._tails.values():
            for action, reason in tail.notes:
                lost = {"lost": "unknown"} if action == "gap" else {}
                found.append(reader_event(self.name, action, reason, now, **lost))
            tail.notes.clear()
        if self._crowded and not self._crowd_named:
            self._crowd_named = True
            reason = f"the pattern matches more than {MAX_FILES} files"
            found.append(reader_event(self.name, "error", reason, now))

    # --- lines --------------------------------------------------------------------------------------

    def _line(self, source: str, raw: bytes, heads: Heads, now: Stamp) -> Line:
        raw = raw.lstrip(b"\0").rstrip(b"\r")
        header = heads.of(raw)
        text, cut = self._clean(raw[header.text_at :])
        return Line(
            at=now,
            source=source,
            text=text,
            priority=header.priority,
            identifier=header.identifier,
            pid=header.pid,
            trusted=False,
            truncated=cut,
        )


def _decode_position(position: str) -> dict[str, Saved]:
    if not position:
        return {}
    try:
        return msgspec.json.decode(position, type=dict[str, Saved])
    except (msgspec.MsgspecError, ValueError):
        return {}


def _is_text(path: str) -> bool:
    """Whether a name can be told: one that is no UTF-8 stands in no message and no saved position."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
