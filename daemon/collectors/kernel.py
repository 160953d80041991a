"""The kernel's log from /dev/kmsg, for hosts without a journal; counts what the ring dropped.

The format is the kernel's Documentation/ABI/testing/dev-kmsg: `priority,sequence,microseconds,flags;text`,
then ` KEY=value` lines. The kernel itself writes with facility 0; whoever writes to /dev/kmsg gets another
facility, whatever he claims, so facility 0 is trusted and the rest is not.
"""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path

from daemon.clock import now as read_clock
from daemon.collectors.source import MAX_LINES, MAX_READ_S, reader_event
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.messages import Event, Line, Observation, Stamp

_RECORD_BYTES = 8192  # PRINTKRB_RECORD_MAX and CONSOLE_EXT_LOG_MAX: no record is longer
_KEPT = {"SUBSYSTEM": "_KERNEL_SUBSYSTEM", "DEVICE": "_KERNEL_DEVICE"}  # as journald names them
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_SENDER = re.compile(r"([\w./@-]{1,64})(?:\[(\d{1,9})\])?: ", re.ASCII)
_RING_RECORDS = 1 << 18  # more than the largest ring holds; a usual one is read in 10 ms
_CHECK_TIME = 31  # the clock is read every 32 records


class KernelCollector:
    """Follows /dev/kmsg from the saved record, or from now on."""

    name = "kernel"
    interval_s: float | None = None

    def __init__(self, position: str = "", path: Path = Path("/dev/kmsg"), clean_text: Clean = clean) -> None:
        self.lost = 0
        self.malformed = 0
        self._path = path
        self._clean = clean_text
        self._descriptor = -1
        self._boot, _, sequence = position.rpartition(":")
        self._last = int(sequence) if sequence.isascii() and sequence.isdigit() else -1
        self._more = False
        self._caught_up_at = -1.0  # when the ring was last read to its end
        self._drift = 0.0  # the log's clock against CLOCK_MONOTONIC

    def open(self) -> list[Event]:
        """Open the device; raises SourceError where it may not be read."""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            hint = "CAP_SYSLOG is needed where kernel.dmesg_restrict is 1"
            raise SourceError(f"{self._path}: {error.strerror}", hint=hint) from error
        self._more = self._last >= 0
        if not self._more:
            self._pass_over()
        return [reader_event(self.name, "present", f"{self._path} is read")]

    def _pass_over(self) -> None:
        """Go to the ring's end, and know its last record: a successor must not miss what comes after it."""
        at, notes = read_clock(), list[Observation]()
        for _ in range(_RING_RECORDS):
            record = self._read_record(notes, at)
            if record is None:
                break
            number = record.split(b",", 2)[1:2]
            if number and number[0].isdigit():
                self._boot, self._last = at.boot, int(number[0])
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def fileno(self) -> int | None:
        """The device, readable when there is a record."""
        return self._descriptor if self._descriptor >= 0 else None

    def pending(self) -> bool:
        """Whether the last read stopped for its limit."""
        return self._more

    def position(self) -> str:
        """`BOOT:SEQUENCE` of the last record read."""
        return f"{self._boot}:{self._last}" if self._last >= 0 else ""

    def close(self) -> None:
        """Close the device."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def read(self, now: Stamp) -> list[Observation]:
        """The next records, and a gap event where the ring dropped some."""
        if self._boot != now.boot:  # first start, or the position of another boot: the ring is all new
            self._boot, self._last = now.boot, -1
        found: list[Observation] = []
        lost = self._take(found, now)
        if lost:
            self.lost += lost
            found.append(reader_event(self.name, "gap", "the ring buffer dropped records", now, lost=lost))
        return found

    def _take(self, found: list[Observation], now: Stamp) -> int:
        lost = 0
        deadline = time.monotonic() + MAX_READ_S
        for count in range(MAX_LINES):
            record = self._read_record(found, now)
            if record is None:
                self._more, self._caught_up_at = False, now.mono
                return lost
            lost += self._take_record(record, found, now)
            if count & _CHECK_TIME == _CHECK_TIME and time.monotonic() > deadline:
                break
        self._more = True
        return lost

    def _read_record(self, found: list[Observation], now: Stamp) -> bytes | None:
        """One record; b"" after records were overwritten; None at the end."""
        try:
            return os.read(self._descriptor, _RECORD_BYTES) or None
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EPIPE:  # overwritten: the next record's number tells how many
                return b""
            found.append(reader_event(self.name, "error", f"{self._path}: {error.strerror}", now))
            return None

    def _take_record(self, record: bytes, found: list[Observation], now: Stamp) -> int:
        """Append the record's Line; how many records are missing before it."""
        if not record:
            return 0
        head, separator, rest = record.partition(b";")
        try:
            priority, sequence, micros = map(int, head.split(b",", 3)[:3])
        except ValueError:
            separator = b""
        if not separator:
            self.malformed += 1
            return 0
        lost = 0
        if self._last >= 0:
            if sequence <= self._last:
                return 0
            lost = sequence - self._last - 1
        self._last = sequence
        found.append(self._line(priority, self._stamp(micros / 1e6, now), rest))
        return lost

    def _stamp(self, logged: float, now: Stamp) -> Stamp:
        """When it was logged; the log's own clock drifts by seconds a day (sched_clock, not NTP).

        So a live record is held to bounds: not from the future, not from before the ring's end was last seen.
        """
        mono = logged + self._drift
        held = min(now.mono, max(mono, self._caught_up_at))
        if held != mono and self._caught_up_at >= 0:
            self._drift += held - mono
        return Stamp(now.boot, held, now.wall - (now.mono - held))

    def _line(self, priority: int, at: Stamp, rest: bytes) -> Line:
        raw, _, dictionary = rest.rstrip(b"\n").partition(b"\n")
        text, cut = self._clean(_ESCAPED.sub(_unescape, raw) if b"\\x" in raw else raw)
        trusted = priority >> 3 == 0
        identifier, pid = "kernel", 0
        sender = None if trusted else _SENDER.match(text)
        if sender:
            text, identifier, pid = text[sender.end() :], sender[1], int(sender[2] or 0)
        elif not trusted:
            identifier = ""
        return Line(
            at=at,
            source=self.name,
            text=text,
            priority=priority & 7,
            identifier=identifier,
            pid=pid,
            trusted=trusted,
            truncated=cut,
            fields=_fields(dictionary) if dictionary else {},
        )


def _unescape(match: re.Match[bytes]) -> bytes:
    """The kernel escapes every byte outside printable ASCII, and the backslash itself."""
    return bytes((int(match[1], 16),))


def _fields(dictionary: bytes) -> dict[str, str]:
    fields = {}
    for item in dictionary[:1024].split(b"\n"):
        key, _, value = item.strip().decode("ascii", "backslashreplace").partition("=")
        if key in _KEPT:
            fields[_KEPT[key]] = clean(value)[0][:64]
    return fields
