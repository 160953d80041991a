"""Templates of the log lately: which are new, which are rare, and which have fallen silent.

Mined anew from the telemetry that is kept, by the low tier's miner, so that looking costs the tiers nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from daemon.messages import Line
from daemon.replay import within
from daemon.store.segments import SegmentReader, overlapping
from models.templates import Miner, Template

LINES_MAX = 50_000  # two seconds of mining
NEW_S = 3600.0
RARE = 2
TEXT_MAX = 512
REGULAR = 6  # so many times in even steps make a rhythm that can stop
SILENT = 4.0  # rhythms without a word
SHOWN = 100
_mining = threading.Lock()


@dataclass
class Heard:
    """One template's history in the window."""

    template: Template
    unit: str
    example: str
    priority: int = 7  # the loudest
    first: float = float("inf")
    last: float = 0.0
    count: int = 0

    def take(self, other: Heard) -> None:
        """Add what else was heard of it."""
        self.priority = min(self.priority, other.priority)
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.count += other.count

    @property
    def period_s(self) -> float:
        """Seconds between two of them, on average."""
        return (self.last - self.first) / max(1, self.count - 1)


@dataclass(frozen=True)
class Overview:
    """The three lists, each with the most telling first; `since` is where the telemetry begins."""

    since: float
    until: float
    lines: int
    new: list[Heard]
    rare: list[Heard]
    silent: list[Heard]


def overview(telemetry: Path, since: float, until: float) -> Overview:
    """What was said between two Unix times."""
    with _mining:
        heard, lines, began = _listen(telemetry, since, until)
    settled = began + NEW_S  # before that everything is new
    fresh = [one for one in heard if one.first >= max(settled, until - NEW_S)]
    rare = [one for one in heard if one.count <= RARE and one not in fresh]
    silent = [
        one for one in heard if one.count >= REGULAR and until - one.last > max(60.0, SILENT * one.period_s)
    ]
    return Overview(
        began, until, lines,
        sorted(fresh, key=lambda one: (one.priority, -one.last))[:SHOWN],
        sorted(rare, key=lambda one: (one.priority, -one.last))[:SHOWN],
        sorted(silent, key=lambda one: (until - one.last) / max(1.0, one.period_s), reverse=True)[:SHOWN],
    )  # fmt: skip


def _listen(telemetry: Path, since: float, until: float) -> tuple[list[Heard], int, float]:
    """What was heard, in how many lines, since when: of too many lines the latest count."""
    began, newest = until, deque[Line](maxlen=LINES_MAX)
    for batch in within(SegmentReader(overlapping(telemetry, since, until)), since, until):
        for one in batch:
            began = min(began, one.at.wall)
            if isinstance(one, Line):
                newest.append(one)
    if len(newest) == LINES_MAX:
        began = newest[0].at.wall
    miner, lines = Miner(), len(newest)
    heard: dict[int, Heard] = {}
    while newest:
        _hear(heard, miner, newest.popleft())
    merged: dict[int, Heard] = {}
    for saying in heard.values():  # what the miner took for two at first
        template = saying.template.newest()
        known = merged.setdefault(template.number, Heard(template, saying.unit, saying.example))
        known.take(saying)
    return list(merged.values()), lines, began


def _hear(heard: dict[int, Heard], miner: Miner, line: Line) -> None:
    unit = line.unit or line.identifier
    template = miner.add(line.text[:TEXT_MAX], unit)
    known = heard.setdefault(template.number, Heard(template, unit, line.text))
    known.take(Heard(template, unit, line.text, line.priority, line.at.wall, line.at.wall, 1))
