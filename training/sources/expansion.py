"""Turns an extended regular expression into lines that it matches; knows nothing about logs.

It covers what rules for log lines use: literals, classes (POSIX names too), groups, alternatives, repeats.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_NAMED = {
    "alnum": "abcdehnorst0123",
    "alpha": "abcdehnorst",
    "digit": "0123456789",
    "xdigit": "0123456789abcdef",
    "lower": "abcdehnorst",
    "upper": "ABCDEHNORST",
    "space": " ",
    "blank": " ",
    "punct": "-_.",
    "graph": "abcdehnorst0123",
    "print": "abcdehnorst 0123",
}
_ESCAPES = {"d": "0123456789", "w": "abcdehnorst", "s": " ", "S": "abcdehnorst"}
_WORDS = ("alice", "server", "web", "mail", "client", "node", "backup", "local", "main", "data")
_REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}")

_Part = Callable[[random.Random], str]


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

    def several(chance: random.Random) -> str:
        # A long run of one class is a name: a word of the trade reads better than random letters.
        if high > 4 and part(chance).isalpha() and low <= 5:
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
        members = _ESCAPES.get(text[at + 1], "" if text[at + 1] in "bB<>" else text[at + 1])
        return (lambda chance: chance.choice(members) if members else ""), at + 2
    if char in "^$":
        return (lambda _: ""), at + 1
    if char == ".":
        return (lambda chance: chance.choice("aenst")), at + 1
    return (lambda _: char), at + 1


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
    letters = [c for c in members if c.isalnum()] or list(members)
    if inverted:
        letters = [c for c in "aehnorst" if c not in members] or ["x"]
    return (lambda chance: chance.choice(letters)), at + 1


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
