"""Values as a person writes them, in English and German, and back; knows nothing about incidents.

`write` and `parse` share the unit table, so that what one prints the other reads with the same meaning.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Literal, NamedTuple

Lang = Literal["en", "de"]

_KILO, _KIBI = 1000.0, 1024.0
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

# Written unit -> (dimension, factor to the SI base unit). Longest spelling wins when reading.
UNITS: dict[str, tuple[str, float]] = {
    "%": ("ratio", 0.01),
    "percent": ("ratio", 0.01),
    "Prozent": ("ratio", 0.01),
    "B": ("bytes", 1.0),
    "bytes": ("bytes", 1.0),
    "Bytes": ("bytes", 1.0),
    "Byte": ("bytes", 1.0),
    "byte": ("bytes", 1.0),
    **{f"{p}B": ("bytes", _KILO ** (i + 1)) for i, p in enumerate("kMGTP")},
    "KB": ("bytes", _KILO),
    **{f"{p}iB": ("bytes", _KIBI ** (i + 1)) for i, p in enumerate("KMGTP")},
    "µs": ("time", 1e-6),
    "ms": ("time", 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds", "Sekunde", "Sekunden"), ("time", 1.0)),
    **dict.fromkeys(("min", "minute", "minutes", "Minute", "Minuten"), ("time", _MINUTE)),
    **dict.fromkeys(("h", "hour", "hours", "Stunde", "Stunden"), ("time", _HOUR)),
    **dict.fromkeys(("d", "day", "days", "Tag", "Tage", "Tagen"), ("time", _DAY)),
    **dict.fromkeys(("week", "weeks", "Woche", "Wochen"), ("time", 7 * _DAY)),
    **dict.fromkeys(("/s", "per second", "pro Sekunde", "a second"), ("rate", 1.0)),
    **dict.fromkeys(("/min", "per minute", "pro Minute", "a minute"), ("rate", 1 / _MINUTE)),
    **dict.fromkeys(("°C", "degrees", "Grad"), ("celsius", 1.0)),
    # never collected: a number in one of these cannot come from evidence
    **dict.fromkeys(("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Mbit", "Gbit"), ("foreign", 1.0)),
    **dict.fromkeys(("Hz", "kHz", "MHz", "GHz", "V", "W", "A", "rpm", "ns", "K"), ("foreign", 1.0)),
    **dict.fromkeys(("°F", "‰", "x", "month", "months", "Monat", "Monate", "Monaten"), ("foreign", 1.0)),
    **dict.fromkeys(("year", "years", "Jahr", "Jahre", "Jahren"), ("foreign", 1.0)),
}
UNITS |= {
    f"{unit}/s": ("bytes/s", factor)
    for unit, (dimension, factor) in list(UNITS.items())
    if dimension == "bytes" and unit.endswith("B")
}

_UNIT = re.compile(
    "[ \u00a0\u202f]?(" + "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True)) + r")(?![\w/])"
)
_DIGITS = {
    "en": re.compile(r"[-+\u2212]?(\d{1,3}(?:[,\u00a0\u202f]\d{3})+|\d+)(\.\d+)?"),
    "de": re.compile(r"[-+\u2212]?(\d{1,3}(?:[.\u00a0\u202f]\d{3})+|\d+)(,\d+)?"),
}


class Quantity(NamedTuple):
    """A number read from a text: value in units of `factor`, how far rounding moved it, what it measures."""

    value: float
    tolerance: float
    dimension: str
    factor: float
    end: int  # offset behind the number and its unit

    def states(self, fact: float, dimension: str) -> bool:
        """Whether this is `fact` (SI base unit) written with the printed digits."""
        if self.dimension != dimension or (self.value == 0 and self.factor > 1):
            return False  # "0 GB" would hide anything below half a gigabyte
        slack = self.tolerance * (1 + 1e-6) + 1e-9 * self.value  # binary fractions
        return abs(abs(fact) / self.factor - self.value) <= slack


def parse(text: str, start: int, lang: Lang) -> Quantity | None:
    """The number and unit that begin at `start`, or None when they are not written as `lang` writes them."""
    match = _DIGITS[lang].match(text, start)
    if match is None:
        return None
    whole = re.sub(r"\D", "", match[1])
    decimals = len(match[2]) - 1 if match[2] else 0
    value = float(whole + (("." + match[2][1:]) if match[2] else ""))
    end, dimension, factor = match.end(), "plain", 1.0
    if unit := _UNIT.match(text, end):
        end, (dimension, factor) = unit.end(), UNITS[unit[1]]
    elif text[end : end + 1].isalnum() or re.match(r"[.,/]\w", text[end : end + 2]):
        return None
    return Quantity(value, 0.5 * 10.0**-decimals, dimension, factor, end)


def write(value: float, kind: str, lang: Lang) -> str:
    """`value` (SI base unit) in the format `kind`, one of FORMATS."""
    return FORMATS[kind](value, lang)


def _decimal(value: float, decimals: int, lang: Lang) -> str:
    grouped = 10_000 <= abs(value) < 1e9  # four digits read well without; 8.233.203.100 would be an address
    text = f"{value:,.{decimals}f}" if grouped else f"{value:.{decimals}f}"
    return text.translate(str.maketrans(",.", ".,")) if lang == "de" else text


def _short(value: float, lang: Lang, whole_from: float = 10.0) -> str:
    """One decimal below `whole_from`, none above or where it would be zero."""
    return _decimal(value, 0 if value >= whole_from or round(value, 1) == int(value) else 1, lang)


def _percent(value: float, lang: Lang) -> str:
    """Never rounds up to 100 or down to 0: what is nearly full is not full."""
    percent = value * 100
    decimals = 0 if percent >= 10 or percent == int(percent) else 1
    while decimals < 4 and round(percent, decimals) in {0.0, 100.0} and percent not in {0.0, 100.0}:
        decimals += 1
    return f"{_decimal(percent, decimals, lang)} %"


def _bytes(value: float, lang: Lang) -> str:
    """Decimal units like `wording.octets`, so that text and evidence agree."""
    size, index = abs(value), 0
    while size >= _KILO and index < len(_BYTES) - 1:
        size, index = size / _KILO, index + 1
    return f"{_short(size, lang, 100.0) if index else _decimal(size, 0, lang)} {_BYTES[index]}"


def _memory(value: float, lang: Lang) -> str:
    """Binary units like `wording.binary`: memory is limited and sold in them."""
    size, index = abs(value), 0
    while size >= _KIBI and index < len(_MEMORY) - 1:
        size, index = size / _KIBI, index + 1
    return f"{_short(size, lang, 100.0) if index else _decimal(size, 0, lang)} {_MEMORY[index]}"


_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_MEMORY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _duration(value: float, lang: Lang) -> str:
    size = abs(value)
    for limit, factor, unit in _DURATIONS:
        if size < limit:
            return f"{_short(size / factor, lang)} {unit}"
    return f"{_decimal(size / _DAY, 0, lang)} d"


_DURATIONS = (
    (1.0, 1e-3, "ms"),
    (2 * _MINUTE, 1.0, "s"),
    (2 * _HOUR, _MINUTE, "min"),
    (3 * _DAY, _HOUR, "h"),
)


def _signal(value: float, _lang: Lang) -> str:
    """A signal's number, with its name where this platform knows one (signal(7))."""
    number, name = round(abs(value)), signal_name_of(value)
    return f"{number} ({name})" if name else str(number)


def signal_name_of(value: float) -> str:
    """The name of a signal's number, "" where there is none."""
    try:
        return signal.Signals(round(abs(value))).name
    except (ValueError, OverflowError):
        return ""


_PER_SECOND = {"en": "per second", "de": "pro Sekunde"}

FORMATS: dict[str, Callable[[float, Lang], str]] = {
    "percent": _percent,
    "int": lambda value, lang: _decimal(abs(value), 0, lang),
    "number": lambda value, lang: _short(abs(value), lang, 100.0),
    "id": lambda value, _lang: str(round(abs(value))),
    "signal": _signal,
    "bytes": _bytes,
    "memory": _memory,
    "duration": _duration,
    "rate": lambda value, lang: f"{_short(abs(value), lang)} {_PER_SECOND[lang]}",
    "celsius": lambda value, lang: f"{_short(abs(value), lang)} °C",
}
DIMENSION_OF_FORMAT = {
    "percent": "ratio",
    "int": "plain",
    "number": "plain",
    "id": "plain",
    "signal": "plain",
    "bytes": "bytes",
    "memory": "bytes",
    "duration": "time",
    "rate": "rate",
    "celsius": "celsius",
}


def dimension_of(key: str) -> str:
    """What a key of `Evidence.values` measures, from its suffix."""
    for suffix, dimension in _SUFFIXES:
        if key.endswith(suffix):
            return dimension
    return "plain"


_SUFFIXES = (
    ("bytes_per_s", "bytes/s"),
    ("_per_s", "rate"),
    ("_ratio", "ratio"),
    ("_bytes", "bytes"),
    ("_s", "time"),
    ("celsius", "celsius"),
)
