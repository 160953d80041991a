"""What every collector is: a named, pollable source of observations; knows no particular one."""

from __future__ import annotations

from typing import Protocol

from daemon.clock import now as read_clock
from daemon.messages import MAX_NAME, MAX_TEXT, Event, Observation, Stamp

MAX_LINES = 1000  # lines per read(): a few milliseconds of work, so that no source starves the others
MAX_READ_S = 0.02  # and never more time than this
MAX_ATTRIBUTE = 256  # characters of one event attribute


class Collector(Protocol):
    """One source of observations, driven by the collector stage's poll loop."""

    name: str
    interval_s: float | None  # wants read() this often; None: only when fileno() is readable

    def open(self) -> list[Event]:
        """Start reading; the events name what is present. Raises SourceError when the source is absent."""
        ...

    def fileno(self) -> int | None:
        """The descriptor that becomes readable when there is something, if there is one."""
        ...

    def read(self, now: Stamp) -> list[Observation]:
        """What is new, at most about MAX_LINES lines or MAX_READ_S of work."""
        ...

    def pending(self) -> bool:
        """Whether read() should be called again without waiting."""
        ...

    def position(self) -> str:
        """Where to go on after a restart, once everything read so far was committed; "" if there is none."""
        ...

    def close(self) -> None:
        """Give back the descriptors."""
        ...


def reader_event(source: str, action: str, reason: str, at: Stamp | None = None, **more: object) -> Event:
    """A reader event: `action` is present, absent, gap or error; a gap carries `lost`."""
    attributes = {key: str(value)[:MAX_ATTRIBUTE] for key, value in more.items()}
    return Event(
        at=at or read_clock(),
        source=source[:MAX_NAME],
        kind="reader",
        name=source[:MAX_NAME],
        action=action,
        attributes={"reason": reason[:MAX_TEXT], **attributes},
    )
