"""What waits to be framed: bounded, in order, and exact about what it had to give up; knows no sockets."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from daemon.bus.frames import MAX_SOURCE_CHARACTERS, MAX_SOURCES, OTHER_SOURCES
from daemon.codec import MAX_BATCH_BYTES, encode
from daemon.messages import Finding, Line, Sample, Snapshot, Tick

MAX_SAMPLES = 600  # ten minutes of one collector at 1 Hz; a fresh sample says more than an old one
MAX_LINES = 4096  # lines kept whatever happens: twice ROOM_LINES, so one more read always fits
ROOM_LINES = 2048
ROOM_CHARACTERS = 2 << 20  # about 1,000 lines of the longest text
MAX_EVENTS = 4096
MAX_TALLIED = 1024  # sources counted by name; the names come from other processes

_LOSSY = frozenset({Sample, Snapshot, Tick})


@dataclass(frozen=True)
class Parcel:
    """What one frame will carry; `ticket` is that of its last message."""

    payload: bytes
    counts: dict[str, tuple[int, int]]  # by source: offered (dropped ones included), dropped
    ticket: int


@dataclass
class Tally:
    """Messages by source: offered = delivered + gap + what still waits or is on its way."""

    offered: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    gap: Counter[str] = field(default_factory=Counter)

    def add(self, counts: dict[str, tuple[int, int]]) -> None:
        """Count what one frame brought or gave up."""
        for name, (offered, dropped) in counts.items():
            source = name if name in self.offered or len(self.offered) < MAX_TALLIED else OTHER_SOURCES
            self.offered[source] += offered
            self.delivered[source] += offered - dropped
            if dropped:
                self.gap[source] += dropped


class Outbox:
    """Messages in the order offered.

    When full, samples, snapshots and ticks lose the oldest; lines are to be held back by whoever reads them
    (`room`), and beyond a reserve are refused like events and findings; each loss is counted by source.
    """

    def __init__(self) -> None:
        self.offered: Counter[str] = Counter()
        self.gap: Counter[str] = Counter()
        self.ticket = 0
        self.peak = 0
        self.lines = 0  # that wait
        self._characters = 0  # of those lines
        self._samples: deque[tuple[int, Struct]] = deque()
        self._others: deque[tuple[int, Struct]] = deque()
        self._dropped: Counter[str] = Counter()  # since the last parcel

    def __len__(self) -> int:
        return len(self._samples) + len(self._others)

    @property
    def room(self) -> bool:
        """Whether more may be read of what can wait where it is."""
        return (
            self.lines < ROOM_LINES
            and self._characters < ROOM_CHARACTERS
            and len(self._others) - self.lines < MAX_EVENTS // 2
        )

    def offer(self, messages: Sequence[Struct]) -> int:
        """Take messages in; the ticket returned is acknowledged when all up to here are."""
        for source, count in Counter(map(source_of, messages)).items():
            known = source in self.offered or len(self.offered) < MAX_TALLIED
            self.offered[source if known else OTHER_SOURCES] += count
        for message in messages:
            self.ticket += 1
            if type(message) is Line:
                self._add_line(message)
            elif type(message) in _LOSSY:
                self._samples.append((self.ticket, message))
                if len(self._samples) > MAX_SAMPLES:
                    self._lose(self._samples.popleft()[1])
            elif len(self._others) - self.lines >= MAX_EVENTS:
                self._lose(message)
            else:
                self._others.append((self.ticket, message))
        self.peak = max(self.peak, len(self))
        return self.ticket

    def seal(self, limit: int) -> Parcel | None:
        """The oldest messages, at most `limit`, encoded, with every loss since the parcel before.

        None if nothing waits. What makes the payload too large is put back; a message that is too large alone
        is lost and counted.
        """
        while entries := [self._next() for _ in range(min(limit, len(self)))]:
            payload = _encoded(entries)
            while not payload and len(entries) > 1:
                middle = len(entries) // 2
                self._put_back(entries[middle:])
                del entries[middle:]
                payload = _encoded(entries)
            if payload:
                return Parcel(payload, self._count([message for _, message in entries]), entries[-1][0])
            self._lose(entries[0][1])
        return None

    def _next(self) -> tuple[int, Struct]:
        if self._samples and (not self._others or self._samples[0][0] < self._others[0][0]):
            return self._samples.popleft()
        entry = self._others.popleft()
        if type(entry[1]) is Line:
            self.lines -= 1
            self._characters -= len(entry[1].text)
        return entry

    def _put_back(self, entries: Sequence[tuple[int, Struct]]) -> None:
        for entry in reversed(entries):
            if type(entry[1]) in _LOSSY:
                self._samples.appendleft(entry)
                continue
            self._others.appendleft(entry)
            if type(entry[1]) is Line:
                self.lines += 1
                self._characters += len(entry[1].text)

    def _count(self, messages: Sequence[Struct]) -> dict[str, tuple[int, int]]:
        counts = {source: (n, 0) for source, n in Counter(map(self._name, messages)).items()}
        for source, n in self._dropped.items():
            counts[source] = (counts.get(source, (0, 0))[0] + n, n)
        self._dropped.clear()
        return _limit_sources(counts)

    def _add_line(self, line: Line) -> None:
        if self.lines >= MAX_LINES:
            self._lose(line)
            return
        self.lines += 1
        self._characters += len(line.text)
        self._others.append((self.ticket, line))

    def _lose(self, message: Struct) -> None:
        source = self._name(message)
        self.gap[source] += 1
        self._dropped[source] += 1

    def _name(self, message: Struct) -> str:
        """What it was counted under when it was offered."""
        source = source_of(message)
        return source if source in self.offered else OTHER_SOURCES


def _encoded(entries: Sequence[tuple[int, Struct]]) -> bytes:
    """The messages as bytes; none where that is too much, or holds what cannot be written."""
    try:
        payload = encode([message for _, message in entries])
    except UnicodeEncodeError:  # a lone surrogate, of a file's name
        return b""
    return payload if len(payload) <= MAX_BATCH_BYTES else b""


def source_of(message: Struct) -> str:
    """The name a message is counted under: its source, or its kind where it has none."""
    source: str | None = getattr(message, "source", None)
    if source is None:
        return "findings" if type(message) is Finding else "ticks"
    return source if len(source) <= MAX_SOURCE_CHARACTERS else OTHER_SOURCES


def _limit_sources(counts: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The same counts under at most MAX_SOURCES names and OTHER_SOURCES."""
    if len(counts) <= MAX_SOURCES:
        return counts
    names = [name for name in counts if name != OTHER_SOURCES]
    rest = [counts[name] for name in (*names[MAX_SOURCES:], OTHER_SOURCES) if name in counts]
    kept = {name: counts[name] for name in names[:MAX_SOURCES]}
    kept[OTHER_SOURCES] = (sum(offered for offered, _ in rest), sum(dropped for _, dropped in rest))
    return kept
