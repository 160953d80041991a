"""Which parts of a sentence are plain words, which are numbers and which must be names; both languages.

The rule is strict on purpose: whatever is neither an ordinary word nor a number is a name and has to be
accounted for. Names that look like ordinary words are recognised only in quotation marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r"\S+")
_WORD = re.compile(r"[-–…]?[^\W\d_]+(?:[-–'’][^\W\d_]+)*[-–]?")  # noqa: RUF001 - typographic dashes and quotes
_NUMBER = re.compile(r"[-+−]?\d[\d.,]*(?:%|[^\W\d_]{1,3}(?:/s)?|/s|/min)?")  # noqa: RUF001 - a real minus sign
# Kernel names without a digit, and near misses that have a letter for the digit.
_DEVICE = re.compile(r"(?:sd|vd|xvd|hd)[a-z]{1,2}|(?:eth|veth|wlan|nvme|loop)[a-rt-z]")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ADDRESS = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")  # looked for first: 192.0.2.7 is no number
_PLAIN = re.compile(r"(?:I/O|E/A)(?:-[^\W\d_]+)?")
_LEADING, _TRAILING = "([{<\"'", ".,:;!?)]}>\"'…"

# Numbers written out, which a text could use to state a quantity that no evidence holds; "one" is an article.
_SPELLED_VALUES = {
    2: "two twice double pair zwei zweimal doppelt",
    3: "three thrice triple drei dreimal dreifach",
    4: "four vier viermal",
    5: "five fünf fünfmal",
    6: "six sechs sechsmal",
    7: "seven sieben siebenmal",
    8: "eight acht achtmal",
    9: "nine neun neunmal",
    10: "ten zehn zehnmal",
    11: "eleven elf elfmal",
    12: "twelve dozen zwölf zwölfmal dutzend",
    20: "twenty zwanzig",
    30: "thirty dreißig",
    40: "forty vierzig",
    50: "fifty fünfzig",
    60: "sixty sechzig",
    100: "hundred hundert",
    1000: "thousand tausend",
    1_000_000: "million millions millionen",
    -1: "dozens hundreds thousands dutzende hunderte tausende half halb hälfte",
}
SPELLED = {word: value for value, words in _SPELLED_VALUES.items() for word in words.split()}


class Token(NamedTuple):
    """A stretch of text between blanks, without the punctuation around it."""

    start: int
    text: str
    kind: str  # "word", "number", "name" or "mark" (punctuation only)


def scan(text: str) -> Iterator[Token]:
    """Every token of `text` with its offset and kind."""
    for match in _TOKEN.finditer(text):
        raw = match[0]
        left = raw.lstrip(_LEADING)
        token = left.rstrip(_TRAILING)
        if "[" in token and raw[: len(raw) - len(left) + len(token) + 1].endswith("]"):
            token += "]"  # NAME[PID]
        yield Token(match.start() + len(raw) - len(left), token, kind_of(token))


def kind_of(token: str) -> str:
    """Whether `token` (no blanks) is a word, a number, a name or only marks."""
    if _PLAIN.fullmatch(token):
        return "word"
    if token.startswith("/") or _DEVICE.fullmatch(token):
        return "name"
    if _ADDRESS.fullmatch(token):
        return "name"
    if not any(letter.isalnum() for letter in token):
        return "name" if token.count("-") > 1 else "mark"
    if _WORD.fullmatch(token):
        return "word"
    return "number" if _NUMBER.fullmatch(token) else "name"


def recognisable(name: str) -> bool:
    """Whether `name` stands in a text as one name token, so that no quotation marks are needed."""
    if not name.isprintable() or any(mark in name for mark in "“”„‟«»`‘’‚‹›"):  # noqa: RUF001 - quotation marks
        return False
    found = list(scan(name))
    return len(found) == 1 and found[0].text == name and found[0].kind == "name"
