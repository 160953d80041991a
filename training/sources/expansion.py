"""Turns an extended regular expression into lines that it matches; knows nothing about logs.

It covers what rules for log lines use: literals, classes (POSIX names too), groups, alternatives, repeats.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

_NAMED = {
    "alnum": ascii_lowercase + digits,
    "alpha": ascii_lowercase,
    "digit": digits,
    "xdigit": "0123456789abcdef",
    "lower": ascii_lowercase,
    "upper": ascii_uppercase,
    "space": " ",
    "blank": " ",
    "punct": "-_.",
    "graph": ascii_lowercase + digits,
    "print": ascii_lowercase + digits,
}
_ESCAPES = {"d": digits, "w": ascii_lowercase, "s": " ", "S": ascii_lowercase}
_WORDS = ("alice", "server", "web", "mail", "client", "node", "backup", "local", "main", "data")
_REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}")

_Part = Callable[[random.Random], str]


@dataclass(frozen=True)
class _Letter:
    """One of some characters."""

    members: str

    def __call__(self, chance: random.Random) -> str:
        return chance.choice(self.members)


def expand(pattern: str, chance: random.Random) -> str:
    """A line that the expression matches; raises ValueError for one that is malformed."""
    part, end = _alternatives(pattern, 0)
    if end != len(pattern):
        raise ValueError(f"unbalanced expression at {end}: {pattern[:80]}")
    return part(chance)


def _alternatives(text: str, at: int) -> tuple[_Part, int]:
    choices: list[_Part] = []
    while True:
        part, at = _sequence(text, at)
        choices.append(part)
        if at >= len(text) or text[at] != "|":
            return lambda chance: chance.choice(choices)(chance), at
        at += 1


def _sequence(text: str, at: int) -> tuple[_Part, int]:
    parts: list[_Part] = []
    while at < len(text) and text[at] not in "|)":
        part, at = _atom(text, at)
        low, high, at = _repeats(text, at)
        parts.append(_repeated(part, low, high))
    return lambda chance: "".join(part(chance) for part in parts), at


def _repeated(part: _Part, low: int, high: int) -> _Part:
    if (low, high) == (1, 1):
        return part

    # A long run of letters is a name: a word of the trade reads better than random letters.
    named = isinstance(part, _Letter) and low <= 1 and high > 4 and set(ascii_lowercase) <= set(part.members)

    def several(chance: random.Random) -> str:
        if named:
            return chance.choice(_WORDS)
        return "".join(part(chance) for _ in range(chance.randint(low, high)))

    return several


def _atom(text: str, at: int) -> tuple[_Part, int]:
    char = text[at]
    if char == "(":
        start = at + 3 if text.startswith("(?:", at) else at + 1
        part, end = _alternatives(text, start)
        if end >= len(text):
            raise ValueError(f"a group is not closed: {text[:80]}")
        return part, end + 1
    if char == "[":
        return _class(text, at)
    if char == "\\" and at + 1 < len(text):
        char, at = text[at + 1], at + 1
        members = "" if char in "bB<>" else _ESCAPES.get(char, char)
    else:
        members = "" if char in "^$" else ascii_lowercase if char == "." else char
    return (_Letter(members) if members else _nothing), at + 1


def _nothing(_chance: random.Random) -> str:
    return ""


def _class(text: str, at: int) -> tuple[_Part, int]:
    at += 1
    inverted = text[at : at + 1] == "^"
    at += inverted
    members, start = "", at
    while at < len(text) and (text[at] != "]" or at == start):
        if text.startswith("[:", at):
            name = text[at + 2 : text.index(":]", at)]
            members += _NAMED.get(name, "")
            at += len(name) + 4
        elif text[at + 1 : at + 2] == "-" and text[at + 2 : at + 3] not in {"]", ""}:
            members += "".join(map(chr, range(ord(text[at]), ord(text[at + 2]) + 1)))
            at += 3
        else:
            members += text[at]
            at += 1
    if at >= len(text):
        raise ValueError(f"a class is not closed: {text[:80]}")
    if inverted:
        left = [one for one in ascii_lowercase + digits + "-_" if one not in members]
        return _Letter("".join(left) or "X"), at + 1
    return _Letter("".join(filter(str.isalnum, members)) or members), at + 1


def _repeats(text: str, at: int) -> tuple[int, int, int]:
    char = text[at : at + 1]
    if char in {"?", "*", "+"}:
        low, high = {"?": (0, 1), "*": (1, 6), "+": (1, 6)}[char]
        return low, high, at + 1
    match = _REPEAT.match(text, at)
    if match is None:
        return 1, 1, at
    low = int(match[1] or 0)
    high = int(match[3]) if match[3] else low + 3 if match[2] else low
    return low, min(high, low + 3), match.end()
