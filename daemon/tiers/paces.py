"""How long things take, by what programs write of it: a kind of line that says far more than it used to.

"order 5123 saved in 4.1 s" is the same kind of line as ever, and no rule, no level and no count tells it
from one of 0.03 s. Pure and bounded: of a kind of line its last few durations and the longest, half forgotten
after three days.
"""

from __future__ import annotations

import re
from array import array
from math import exp2
from statistics import median
from typing import NamedTuple

KEPT = 16  # lines
KNOWN_MIN = 5  # lines before there is something usual
SLOW_S = 2.0  # somebody waits
FACTOR = 5.0  # times the median,
BEYOND = 2.1  # and times the longest: a back-off doubles
HALF_S = 3 * 86400.0  # what a nightly job makes slow is known the next night
ROW_S = 90.0  # between two lines in a row
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
# The unit in a field's name: duration_ms=12, "elapsedMs":12.
_NAMED = re.compile(
    r"(?<![\w\\.-])(?P<quote>\"?)(?P<name>(?:[a-z]{1,24}[_.]){0,2}"
    r"(?:duration|elapsed|latency|took|taken|time|wait|waited))_?"
    r"(?P<unit>h|min|secs?|seconds|s|ms|msecs?|millis(?:econds)?|us|Ms|Millis|Secs?|Seconds)"
    r"(?P=quote)(?:=|: ?)(?P<number>\d{1,12}(?:\.\d{1,18})?)(?![\w.])"
)
_NAMES_OTHERS = re.compile(
    r"(?:start|end|begin|cpu|user|usr|sys|system|keep_?alive|poll|down|up)[_.]"
)  # no waits
_LONGEST_S = 7 * 86400.0  # more is a moment
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
# What others wrote stands in quotes; a logger's own message does, too.
_FOREIGN = re.compile(r'(\b(?:msg|message)=)?"[^"]*"')
# Beside durations that are planned, allowed or counted down, ages, and what nobody waits for.
_BEFORE = re.compile(
    r"\b(?:next|retry\w*|again|renew\w*|eta|expir\w*|interval|time-?outs?|timed|idle|uptime|sleep\w*"
    r"|every|delay|ttl|lease|schedul\w*|remain\w*|old|age|since|until|back-?off|up to|disconnect\w*"
    r"|connected|closed|banned|range|length|checkpoint)\b|\bof $",
    re.IGNORECASE,
)
_BEHIND = re.compile(r"\s*(?:\d+ )?(?:ago|left|old|avg|later|remain\w*|from now)\b", re.IGNORECASE)
_BESIDE_CHARS = 24
_AS_WORDS = str.maketrans("_.", "  ")


class Slow(NamedTuple):
    """What a line says that took too long: seconds now, seconds usually, how many such lines in a row."""

    now_s: float
    usual_s: float
    times: int


class Pace:
    """The durations that lines of one kind have named, the longest of each; rows are of one writer."""

    __slots__ = ("_lines", "_longest", "_longest_t", "_past", "_row", "_row_longest", "_row_t", "_who")

    def __init__(self) -> None:
        self._past = array("f")
        self._longest, self._longest_t = 0.0, 0.0
        self._row, self._row_longest, self._row_t, self._who = 0, 0.0, 0.0, ""
        self._lines = 0

    @property
    def timeless(self) -> bool:
        """Whether its first lines named no duration."""
        return not self._past and self._lines >= LOOKS

    @property
    def row(self) -> int:
        """How many slow lines there were since the last that was not."""
        return self._row

    def take(self, text: str, who: str, t: float) -> Slow | None:
        """Learn one line of somebody's; how far slower than usual it is, if it is."""
        self._lines += 1
        seconds = duration(text)
        if seconds is None:
            return None
        usual = self._slower(seconds, t)
        other = bool(self._row) and who != self._who
        if self._row and (t - self._row_t > ROW_S or self._row >= ACCEPTED or (usual is None and not other)):
            self._learn(self._row_longest, self._row_t)  # it came before: the next such line is no surprise
            self._row, self._row_longest = 0, 0.0
            usual, other = self._slower(seconds, t), False
        if usual is None:
            self._learn(seconds, t)
            return None
        if other:
            return None
        self._row, self._row_longest = self._row + 1, max(self._row_longest, seconds)
        self._row_t, self._who = t, who
        return Slow(seconds, usual, self._row)

    def _learn(self, seconds: float, t: float) -> None:
        self._longest, self._longest_t = max(seconds, self._longest_now(t)), t
        self._past.append(seconds)
        del self._past[:-KEPT]

    def _longest_now(self, t: float) -> float:
        return self._longest * exp2(-max(0.0, t - self._longest_t) / HALF_S)

    def _slower(self, seconds: float, t: float) -> float | None:
        """What was usual, if this is far more."""
        if seconds < SLOW_S or len(self._past) < KNOWN_MIN or seconds <= BEYOND * self._longest_now(t):
            return None
        usual = median(self._past)
        return usual if seconds >= FACTOR * usual else None


def duration(text: str) -> float | None:
    """The longest time that a line says something took, in seconds; None if it names none, or plans."""
    text = text[:READ_CHARS]
    took = []
    if '"' in text:
        took = [_named(found) for found in _NAMED.finditer(text) if found["quote"]]
        text = _FOREIGN.sub(lambda found: found[0] if found[1] else "", text)
    if "=" in text or ":" in text:
        took += [_named(found) for found in _NAMED.finditer(text) if not found["quote"]]
    took += [_seconds(found[0]) for found in _DURATION.finditer(text) if not _is_planned(text, found)]
    return max((one for one in took if one is not None), default=None)


def _named(found: re.Match[str]) -> float | None:
    """Seconds of a field that says in its name in what it counts; None if nobody waits for that."""
    name = found["name"]
    if name == "time" or _NAMES_OTHERS.search(name) or _BEFORE.search(name.translate(_AS_WORDS)):
        return None
    seconds = float(found["number"]) * _scale(found["unit"].lower())
    return seconds if seconds < _LONGEST_S else None


def _is_planned(text: str, found: re.Match[str]) -> bool:
    start, end = found.span()
    before, behind = text[max(0, start - _BESIDE_CHARS) : start], text[end : end + _BESIDE_CHARS]
    return bool(_BEFORE.search(before) or _BEHIND.match(behind))


def _seconds(span: str) -> float:
    return sum(float(number.replace(",", "")) * _scale(unit) for number, unit in _PART.findall(span))


def _scale(unit: str) -> float:
    if unit[0] in "uµ":
        return 1e-6
    return 1e-3 if unit.startswith(("ms", "mil")) else _UNITS[unit[0]]


TIMELESS = Pace()  # of all kinds of lines that name none
for _ in range(LOOKS):
    TIMELESS.take("", "", 0.0)
