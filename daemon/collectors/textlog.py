"""A stored log file for replay: its lines with the times that the text gives, as far as it gives any."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.headers import Heads
from daemon.collectors.tail import MAX_LINE_BYTES
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.messages import MAX_NAME, UNNAMED, Line, Stamp

BOOT = "0" * 32  # a text file does not know its boot: one axis for all of it
KERNEL = "kernel"
_STEP_S = 0.001  # between lines of a file without any times
_TAIL_BYTES = 4096
_SEARCH_BYTES = 96  # of a line, in which its time is looked for
_DAY_S = 86400.0

_MONTHS = {
    name: index + 1 for index, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
}
_ISO = re.compile(
    rb"(\d{4})[-/](\d\d)[-/](\d\d)[T \-_](\d\d)[:.](\d\d)[:.](\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?"
)
_TRADITIONAL = re.compile(
    rb"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?: (\d{4})\b)?"
)
_ACCESS = re.compile(rb"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d)(?: ([+-]\d{4}))?")
_COMPACT = re.compile(rb"(?<!\d)(\d{4}|\d\d)[/-]?(\d\d)[/-]?(\d\d)[ _-](\d\d):?(\d\d):?(\d\d)(?!\d)")
_EPOCH = re.compile(rb"(?:^|^- |audit\()(1\d{9})(?:\.(\d{1,9}))?(?!\d)")
# As dmesg prints it: the kernel's own priorities are below 8, what a program wrote to /dev/kmsg has others.
_DMESG = re.compile(
    rb"(?:<[0-7]>)?\[(?: {0,8}\d{1,9}\.\d{6}|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})\] "
)
_UPTIME = re.compile(rb"^(?:<\d{1,3}>)?\[ {0,8}(\d{1,9}\.\d{6})\] ")


class Progress(NamedTuple):
    """A line and how many bytes of the file have been read so far."""

    line: Line
    bytes_done: int


class TextLog:
    """The lines of one log file; `total` bytes feed a progress bar.

    With `kernel`, lines under the kernel's name and lines as dmesg prints them are the kernel's: for a file
    that the operator vouches for. Without it nothing in a file is trusted.
    """

    def __init__(self, path: Path, clean_text: Clean = clean, *, kernel: bool = False) -> None:
        self._path = path
        self._kernel = kernel
        self._clean = clean_text
        self._heads = Heads()
        try:
            status = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        self.total = status.st_size
        self._times = Times(status.st_mtime, _booted_at(path, status))

    def __iter__(self) -> Iterator[Progress]:
        """Every line in the file's order; its time never runs backwards."""
        source = f"file:{self._path}"[:MAX_NAME]
        done = 0
        try:
            with self._path.open("rb") as file:
                while raw := file.readline(MAX_LINE_BYTES):
                    done += len(raw)
                    whole = raw.endswith(b"\n")
                    done += 0 if whole else _skip_line(file.readline)
                    raw = raw.strip(b"\0\r\n")
                    if raw:
                        yield Progress(self._line(raw, source), done)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from error

    def _line(self, raw: bytes, source: str) -> Line:
        wall, mono = self._times.of(raw)
        header = self._heads.of(raw)
        if self._kernel and header.identifier in {"", UNNAMED} and (match := _DMESG.match(raw)):
            header = header._replace(text_at=match.end(), identifier=KERNEL)
        text, cut = self._clean(raw[header.text_at :])
        return Line(
            at=Stamp(BOOT, mono, wall),
            source=source,
            text=text,
            priority=header.priority,
            identifier=header.identifier,
            pid=header.pid,
            trusted=self._kernel and header.identifier == KERNEL and not header.pid,
            truncated=cut or len(raw) >= MAX_LINE_BYTES,
        )


class Times:
    """Reads the time of each line; a line without one has that of the line before, and time never goes back.

    A year that the text does not give is guessed: the newest that is not after the file's last change.
    Times without an offset are local, as syslog writes them. Seconds of uptime count from `booted_at`.
    """

    def __init__(self, changed_at: float, booted_at: float = 0.0) -> None:
        self._changed_at = changed_at
        self._booted_at = booted_at
        self._first: float | None = None
        self._latest = changed_at
        self._mono = 0.0
        self._index = 0
        self._key = b""
        self._parsed: float | None = None
        self._format = _FORMATS[0]

    def of(self, raw: bytes) -> tuple[float, float]:
        """Unix time, and seconds since the first line."""
        found = self._read(raw[:_SEARCH_BYTES])
        if found is None:
            found = self._latest if self._first is not None else None
        if found is None:
            self._index += 1  # no time so far: lines get a step each, before the file's last change
            self._mono = self._index * _STEP_S
            return self._changed_at, self._mono
        if self._first is None:
            self._first = found - self._index * _STEP_S
            self._latest = found
        self._latest = max(self._latest, found)
        self._mono = max(self._mono, self._latest - self._first)  # a difference of floats may be a hair less
        return self._latest, self._mono

    def _read(self, head: bytes) -> float | None:
        """The line's time by the first format that fits; the one that fitted last is tried first."""
        for pattern, convert in (self._format, *_FORMATS):
            match = pattern.search(head)
            if match:
                if match[0] != self._key:  # the lines of one second share it
                    self._key = match[0]
                    self._parsed = _convert(convert, match, self._changed_at)
                    if convert is _uptime and self._parsed is not None:
                        self._parsed += self._booted_at
                if self._parsed is not None and self._parsed <= self._changed_at + _DAY_S:
                    self._format = (pattern, convert)
                    return self._parsed
        return None


def _booted_at(path: Path, status: os.stat_result) -> float:
    """When the uptimes of a file begin, if its last line was written at the file's last change."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, status.st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    latest = next((match for line in reversed(lines) if (match := _UPTIME.match(line))), None)
    return status.st_mtime - float(latest[1]) if latest else 0.0


def _skip_line(readline: Callable[[int], bytes]) -> int:
    """Read on to the end of an overlong line; how many bytes that took."""
    skipped = 0
    while raw := readline(MAX_LINE_BYTES):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


Convert = Callable[["re.Match[bytes]", float], float]


def _convert(convert: Convert, match: re.Match[bytes], changed_at: float) -> float | None:
    try:
        return convert(match, changed_at)
    except (ValueError, KeyError, OverflowError):  # a 31st of February, a month named Foo
        return None


def _iso(match: re.Match[bytes], _changed_at: float) -> float:
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    zone = _zone(offset)
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=zone)
    return _seconds(moment) + _fraction(fraction)


def _traditional(match: re.Match[bytes], changed_at: float) -> float:
    name, day, hour, minute, second, fraction, year = match.groups()
    month, clock = _MONTHS[name], (int(hour), int(minute), int(second))
    if year:
        return _local(int(year), month, int(day), clock) + _fraction(fraction)
    latest = time.localtime(changed_at).tm_year
    for guess in range(latest, latest - 5, -1):  # a 29th of February lies at most four years back
        try:
            wall = _local(guess, month, int(day), clock)
        except ValueError:
            continue
        if wall <= changed_at + _DAY_S:
            return wall + _fraction(fraction)
    raise ValueError("no year fits")


def _access(match: re.Match[bytes], _changed_at: float) -> float:
    day, name, year, hour, minute, second, offset = match.groups()
    return _seconds(
        datetime(
            int(year), _MONTHS[name], int(day), int(hour), int(minute), int(second), tzinfo=_zone(offset)
        )
    )


def _compact(match: re.Match[bytes], _changed_at: float) -> float:
    year, month, day, hour, minute, second = map(int, match.groups())
    return _local(year if year >= 100 else 2000 + year, month, day, (hour, minute, second))


def _epoch(match: re.Match[bytes], _changed_at: float) -> float:
    return int(match[1]) + _fraction(match[2])


def _uptime(match: re.Match[bytes], _changed_at: float) -> float:
    return float(match[1])


_FORMATS: tuple[tuple[re.Pattern[bytes], Convert], ...] = (
    (_ISO, _iso),
    (_TRADITIONAL, _traditional),
    (_ACCESS, _access),
    (_UPTIME, _uptime),
    (_EPOCH, _epoch),
    (_COMPACT, _compact),
)


def _local(year: int, month: int, day: int, clock: tuple[int, int, int]) -> float:
    return _seconds(datetime(year, month, day, *clock))  # noqa: DTZ001 - log files are in local time


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _fraction(digits: bytes | None) -> float:
    return float(b"0." + digits) if digits else 0.0


def _zone(offset: bytes | None) -> timezone | None:
    if not offset:
        return None
    if offset == b"Z":
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    return timezone(timedelta(hours=hours, minutes=minutes) * (-1 if offset.startswith(b"-") else 1))
