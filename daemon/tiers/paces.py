"""How long things take, by what programs write of it: a kind of line that says far more than it used to.

"order 5123 saved in 4.1 s" is the same kind of line as ever, and no rule, no level and no count tells it from
one of 0.03 s. Pure and bounded: of a kind of line the last few values of each of its first durations.
"""

from __future__ import annotations

import re
from statistics import median
from typing import NamedTuple

PLACES = 4  # durations of a line
KEPT = 32  # lines
KNOWN_MIN = 5  # lines before there is something usual
SLOW_S = 1.0  # somebody waits
FACTOR = 5.0  # times the median,
BEYOND = 2.0  # and times the longest
ONGOING = frozenset({1, 3, 9, 27})  # slow lines in a row: the first may be a slip
READ_CHARS = 512

# What stands in a name, a date or an address is no duration: no letter, point or dash before or behind it.
_DURATION = re.compile(
    r"(?<![\w.,:/-])(\d{1,9}(?:\.\d{1,9})?) ?(us|µs|ms|msecs?|s|secs?|seconds?|min)(?![\w/-])"
)
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "msec": 1e-3, "msecs": 1e-3, "min": 60.0}


class Slow(NamedTuple):
    """What a line says that took too long: seconds now, seconds usually, how many such lines in a row."""

    now_s: float
    usual_s: float
    times: int


class Pace:
    """The durations that lines of one kind have named, by their place in the line."""

    __slots__ = ("_places", "_slow")

    def __init__(self) -> None:
        self._places: list[list[float]] = []
        self._slow = 0

    def take(self, text: str) -> Slow | None:
        """Learn one line; what is far slower in it than it was, where that should be told."""
        found: Slow | None = None
        for place, seconds in enumerate(durations(text)):
            if place == len(self._places):
                self._places.append([])
            past = self._places[place]
            if (usual := _slower(seconds, past)) is not None:
                found = found or Slow(seconds, usual, self._slow + 1)
            else:  # what is slow is not what is usual, unless it goes on
                past.append(seconds)
                del past[:-KEPT]
        self._slow = self._slow + 1 if found else 0
        if self._slow > max(ONGOING):
            self._places.clear()
            self._slow = 0
        return found if found and found.times in ONGOING else None


def durations(text: str) -> list[float]:
    """The first few durations that a line names, in seconds."""
    found = _DURATION.findall(text[:READ_CHARS])
    return [float(number) * _UNITS.get(unit, 1.0) for number, unit in found[:PLACES]]


def _slower(seconds: float, past: list[float]) -> float | None:
    """What was usual, if this is far more."""
    if seconds < SLOW_S or len(past) < KNOWN_MIN or seconds <= BEYOND * max(past):
        return None
    usual = median(past)
    return usual if seconds >= FACTOR * usual else None
