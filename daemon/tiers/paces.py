"""How long things take, by what programs write of it: a kind of line that says far more than it used to.

"order 5123 saved in 4.1 s" is the same kind of line as ever, and no rule, no level and no count tells it
from one of 0.03 s. Pure and bounded: of a kind of line its last few durations and the longest, half forgotten
after a hundred and forty lines.
"""

from __future__ import annotations

import re
from array import array
from statistics import median
from typing import NamedTuple

KEPT = 16  # lines
KNOWN_MIN = 5  # lines before there is something usual
SLOW_S = 2.0  # somebody waits
FACTOR = 5.0  # times the median,
BEYOND = 2.0  # and times the longest
FADES = 0.995
ACCEPTED = 32  # slow lines in a row: that is how it is now
LOOKS = 4  # lines of a kind that are looked at for a duration
READ_CHARS = 256

_SPAN = (
    r"\d{1,9}(?:,\d{3})*(?:\.\d{1,18})? ?"
    r"(?:hours?|h|minutes?|mins?|m(?=\d)|seconds?|secs?|s|milliseconds?|msecs?|ms|us|µs)"
)
# What stands in a name, a date or an address is no duration.
_DURATION = re.compile(rf"(?<![\w.,/-])(?<!\d:){_SPAN}(?: ?{_SPAN})*(?![\w/-])")
_PART = re.compile(r"([\d,.]+) ?([a-zµ]+)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
# What others wrote stands in quotes; a logger's own fields do, too, behind their equals sign.
_FOREIGN = re.compile(r'(?<!=)"[^"]*"')
# Durations that are planned, allowed, counted down, or ages.
_PLANNED = re.compile(
    r"\b(?:next|retry\w*|again|renew\w*|eta|expir\w*|interval|time-?outs?|timed|idle|uptime|sleep\w*|every|delay"
    r"|ttl|lease|schedul\w*|remain\w*|left|ago|old|age|since|until|back-?off|up to|avg|disconnect\w*|closed"
    r"|checkpoint)",
    re.IGNORECASE,
)


class Slow(NamedTuple):
    """What a line says that took too long: seconds now, seconds usually, how many such lines in a row."""

    now_s: float
    usual_s: float
    times: int


class Pace:
    """The durations that lines of one kind have named, the longest of each."""

    __slots__ = ("_lines", "_longest", "_past", "_row", "_row_longest")

    def __init__(self) -> None:
        self._past = array("f")
        self._longest = 0.0
        self._row, self._row_longest = 0, 0.0
        self._lines = 0

    @property
    def timeless(self) -> bool:
        """Whether its first lines named no duration."""
        return not self._past and self._lines >= LOOKS

    @property
    def row(self) -> int:
        """How many slow lines there were since the last that was not."""
        return self._row

    def take(self, text: str) -> Slow | None:
        """Learn one line; how far slower than usual it is, if it is."""
        self._lines += 1
        seconds = duration(text)
        if seconds is None:
            return None
        usual = self._slower(seconds)
        if usual is None or self._row >= ACCEPTED:
            if self._row:  # it came before: the next such line is no surprise
                self._learn(self._row_longest)
                self._row, self._row_longest = 0, 0.0
            self._learn(seconds)
            return None
        self._row, self._row_longest = self._row + 1, max(self._row_longest, seconds)
        return Slow(seconds, usual, self._row)

    def _learn(self, seconds: float) -> None:
        self._longest = max(seconds, self._longest * FADES)
        self._past.append(seconds)
        del self._past[:-KEPT]

    def _slower(self, seconds: float) -> float | None:
        """What was usual, if this is far more."""
        if seconds < SLOW_S or len(self._past) < KNOWN_MIN or seconds <= BEYOND * self._longest:
            return None
        usual = median(self._past)
        return usual if seconds >= FACTOR * usual else None


def duration(text: str) -> float | None:
    """The longest time that a line says something took, in seconds; None if it names none, or a plan."""
    text = text[:READ_CHARS]
    if '"' in text:
        text = _FOREIGN.sub("", text)
    found = _DURATION.findall(text)
    if not found or _PLANNED.search(text):
        return None
    return max(map(_seconds, found))


def _seconds(span: str) -> float:
    return sum(float(number.replace(",", "")) * _scale(unit) for number, unit in _PART.findall(span))


def _scale(unit: str) -> float:
    if unit[0] in "uµ":
        return 1e-6
    return 1e-3 if unit.startswith(("ms", "mil")) else _UNITS[unit[0]]


TIMELESS = Pace()  # of all kinds of lines that name none
for _ in range(LOOKS):
    TIMELESS.take("")
