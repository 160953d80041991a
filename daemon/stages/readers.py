"""The collectors that run, each contained: when it is due, what it failed with, when it is tried again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.clock import now
from daemon.collectors.source import Collector, reader_event
from daemon.errors import SourceError
from daemon.message_ids import MessageId
from daemon.messages import Event, Line, Observation, Stamp
from daemon.stages.log import StageLog
from daemon.stages.process import describe

HOLD_OFF_S = (
    0.05  # a descriptor that was read empty is left alone this long: at most 20 wakeups a second each
)
RETRY_S = 1.0
RETRY_MAX_S = 300.0
FORGIVEN_AFTER_S = 120.0  # a reader that ran this long starts again with the shortest wait


@dataclass
class Reader:
    """One collector and its schedule; times are monotonic seconds."""

    collector: Collector
    due_s: float = 0.0
    held_until_s: float = 0.0
    opened_s: float = 0.0
    failures: int = 0
    is_open: bool = False
    gives_lines: bool = False  # seen in what it gave; such a reader is held back when there is no room

    @property
    def name(self) -> str:
        """The collector's name."""
        return self.collector.name


class Readers:
    """Opens, reads and closes collectors; one that fails is named, counted and tried again."""

    def __init__(self, collectors: Sequence[Collector], tell: StageLog) -> None:
        self.all = [Reader(collector) for collector in collectors]
        self.failures: Counter[str] = Counter()
        self._tell = tell

    def open(self) -> list[Event]:
        """Open all; those that are absent are named once and left out."""
        events: list[Event] = []
        for reader in list(self.all):
            events += self._open(reader, now(), first=True)
        return events

    def next_due_s(self, now_s: float, *, room: bool) -> float:
        """When something is to be done without any descriptor becoming readable."""
        due_s = math.inf
        for reader in self.all:
            if reader.gives_lines and not room:
                continue  # nor does `due` name it, opened or not: its time would pass again and again
            if not reader.is_open:
                due_s = min(due_s, reader.due_s)
            elif reader.collector.pending():
                return now_s
            else:
                due_s = min(
                    due_s, reader.due_s, reader.held_until_s if reader.held_until_s > now_s else math.inf
                )
        return due_s

    def listen(self, listen: Callable[[int, bool], None], now_s: float, *, room: bool) -> None:
        """Say for each descriptor whether to wake for it."""
        for reader in self.all:
            descriptor = reader.collector.fileno() if reader.is_open else None
            if descriptor is not None:
                listen(descriptor, now_s >= reader.held_until_s and (room or not reader.gives_lines))

    def due(self, ready: dict[object, int], at: Stamp, *, room: bool) -> list[Reader]:
        """The readers that have something to do now."""
        found = []
        for reader in self.all:
            if reader.gives_lines and not room:
                continue
            readable = reader.is_open and reader.collector.fileno() in ready
            if readable or at.mono >= reader.due_s or (reader.is_open and reader.collector.pending()):
                found.append(reader)
        return found

    def read(self, reader: Reader, at: Stamp) -> Sequence[Observation]:
        """What a reader has; opening it again and its failing give reader events instead."""
        if not reader.is_open:
            return self._open(reader, at, first=False)
        interval_s = reader.collector.interval_s
        was_due = at.mono >= reader.due_s
        if interval_s is not None and was_due:
            reader.due_s = _next_tick(at.mono, interval_s)
        try:
            observations = reader.collector.read(at)
        except Exception as error:  # noqa: BLE001  # one collector's error must not blind the others
            return [self._fail(reader, error, at)]
        if (then_s := reader.collector.interval_s) is not None and then_s != interval_s:  # a try is under way
            reader.due_s = _next_tick(at.mono, then_s) if was_due else min(reader.due_s, at.mono + then_s)
        if reader.failures and at.mono - reader.opened_s > FORGIVEN_AFTER_S:
            reader.failures = 0
        if reader.collector.fileno() is not None and not reader.collector.pending():
            reader.held_until_s = at.mono + HOLD_OFF_S
        if not reader.gives_lines and any(type(one) is Line for one in observations):
            reader.gives_lines = True
        return observations

    def close(self) -> None:
        """Close all that is open."""
        for reader in self.all:
            self._close(reader)

    def _open(self, reader: Reader, at: Stamp, *, first: bool) -> list[Event]:
        try:
            events = reader.collector.open()
        except SourceError as error:
            if first:
                self.all.remove(reader)
                why = f"{error} ({error.hint})" if error.hint else str(error)
                self._tell.info(f"{reader.name}: absent, {why}", MessageId.SOURCE_ABSENT, source=reader.name)
                return [reader_event(reader.name, "absent", why, at)]
            self._retry(reader, at)
            return []
        except Exception as error:  # noqa: BLE001  # see read
            return [self._fail(reader, error, at)]
        reader.is_open, reader.opened_s = True, at.mono
        interval_s = reader.collector.interval_s
        reader.due_s = math.inf if interval_s is None else _next_tick(at.mono, interval_s)
        return events

    def _fail(self, reader: Reader, error: Exception, at: Stamp) -> Event:
        self.failures[reader.name] += 1
        self._close(reader)
        self._retry(reader, at)
        text = str(error) if isinstance(error, SourceError) else describe(error)
        self._tell.warning(
            f"{reader.name}: {text}; next try in {reader.due_s - at.mono:.0f} s",
            MessageId.SOURCE_FAILED,
            source=reader.name,
        )
        return reader_event(reader.name, "error", text, at)

    def _retry(self, reader: Reader, at: Stamp) -> None:
        reader.due_s = at.mono + min(RETRY_S * 2**reader.failures, RETRY_MAX_S)
        reader.failures = min(reader.failures + 1, 16)

    def _close(self, reader: Reader) -> None:
        if not reader.is_open:
            return
        reader.is_open = False
        try:
            reader.collector.close()
        except Exception as error:  # noqa: BLE001  # see read
            self.failures[reader.name] += 1
            self._tell.warning(f"{reader.name}: cannot be closed: {describe(error)}")


def _next_tick(now_s: float, interval_s: float) -> float:
    """The next whole multiple of the interval, so that readers of all intervals wake together."""
    return (math.floor(now_s / interval_s + 1e-6) + 1) * interval_s
