"""Pseudo files read by pread on a descriptor that stays open, and counters turned into rates.

Knows nothing about what the files mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from daemon.ingest import clean
from daemon.messages import Event, Stamp

# Opening a procfs file anew costs 4-9 us more than pread on an open one (measured).
MAX_BYTES = 1 << 20
REPEAT_S = 10.0  # an idle thing repeats its zeros this often; in between it is left out of the samples


class KernelFile:
    """A pseudo file kept open and read whole from its start each time; raises OSError as the kernel does.

    A sequence file hands out about one page a call, so the read goes on to its end; `single` spares the
    last, empty call where the kernel gives everything at once.
    """

    __slots__ = ("_fd", "limit", "path", "single")

    def __init__(self, path: Path | str, *, single: bool = False, limit: int = MAX_BYTES) -> None:
        self.path = str(path)
        self.single = single
        self.limit = limit
        self._fd = -1

    def read(self) -> bytes:
        """The content, at most `limit` bytes."""
        try:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            data = os.pread(self._fd, 65536, 0)
            while not self.single and len(data) < self.limit:
                more = os.pread(self._fd, 65536, len(data))
                if not more:
                    break
                data += more
        except OSError:
            self.close()
            raise
        return data[: self.limit]

    def fileno(self) -> int:
        """The open descriptor, -1 before the first read."""
        return self._fd

    def close(self) -> None:
        """Give the descriptor back; the next read opens the file again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Rates:
    """Per-second rates of counters; the first reading and a counter that ran backwards give none."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def put(self, values: dict[str, float], name: str, counter: float, mono: float) -> None:
        """Set `values[name]` to the counter's rate since the last call, if there is one."""
        rate = self.of(name, counter, mono)
        if rate is not None:
            values[name] = rate

    def of(self, name: str, counter: float, mono: float) -> float | None:
        """The counter's rate since the last call, or None."""
        last = self._last.get(name)
        self._last[name] = (counter, mono)
        if last is None or counter < last[0] or mono <= last[1]:
            return None
        return (counter - last[0]) / (mono - last[1])

    def restamp(self, mono: float) -> None:
        """Say that no counter has moved up to now, so that the next rate is not spread over idle time."""
        for name, (counter, _) in self._last.items():
            self._last[name] = (counter, mono)


class Note(NamedTuple):
    """Something to say about a reader: what, `present|absent|gap|error`, and why."""

    name: str
    action: str
    reason: str


RETRY_S = 30.0


class Parts:
    """Functions that each add values; one that fails is noted and rests, the others go on."""

    def __init__(self, parts: Mapping[str, Callable[[float, dict[str, float]], None]]) -> None:
        self._parts = parts
        self._resting: dict[str, float] = {}
        self._notes: list[Note] = []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Let every part that does not rest add its values."""
        for name, part in self._parts.items():
            if self._resting and self._resting.get(name, 0.0) > mono:
                continue
            try:
                part(mono, values)
            except (OSError, ValueError, IndexError) as error:
                self._resting[name] = mono + RETRY_S
                reason = reason_of(error) if isinstance(error, OSError) else f"malformed: {error}"
                self._notes.append(Note(name, "error", reason))

    def notes(self) -> list[Note]:
        """Which parts failed since the last call."""
        notes, self._notes = self._notes, []
        return notes


class Reader(Protocol):
    """A part of the host sample: adds its values, and says what it lacks."""

    def open(self) -> list[Note]:
        """Find what there is to read; what is lacking comes back as notes."""
        ...

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values; raises OSError or ValueError if nothing more can be read."""
        ...

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        ...

    def close(self) -> None:
        """Give all descriptors back."""
        ...


def event_of(note: Note, source: str, now: Stamp) -> Event:
    """The reader event that carries a note."""
    return Event(now, source, "reader", note.name, note.action, {"reason": note.reason[:2000]})


def reason_of(error: OSError) -> str:
    """Why a file could not be read, without Python's decoration."""
    return f"{error.filename or 'read'}: {error.strerror or error}"


def printable(raw: bytes | str, limit: int = 200) -> str:
    """A name from a foreign hand, through the gate for foreign text, then cut."""
    return clean(raw[: 4 * limit])[0][:limit]


def number_after(data: bytes, key: bytes) -> int | None:
    """The decimal number that follows `key` (and blanks) in `data`, or None."""
    start = data.find(key)
    if start < 0:
        return None
    digits = data[start + len(key) : start + len(key) + 40].split(None, 1)
    return int(digits[0]) if digits and digits[0].isdigit() else None


def read_bytes(path: Path | str, limit: int = 4096) -> bytes | None:
    """A small file's first bytes, or None if it cannot be read (gone, or not ours to read)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(descriptor, limit)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_text(path: Path, limit: int = 4096) -> str | None:
    """A small file's printable text without its line end, or None if it cannot be read."""
    data = read_bytes(path, limit)
    return None if data is None else printable(data.strip(), limit)


def read_number(path: Path) -> int | None:
    """A small file's integer (decimal or 0x...), or None if there is none."""
    text = read_text(path, 64)
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


def subdirectories(path: Path) -> Iterator[str]:
    """Names of the directories (or links to such) below `path`, sorted; none if it cannot be listed."""
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return
    yield from (name for name in names[:4096] if (path / name).is_dir())
