"""Whether a passage really says what somebody says it says, and whether an answer is one at all.

Numbers and names must stand in the passage; of the other telling words most must. Used on what a teacher
writes, on what a general model phrases, and on what the specialist generates.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from models.terms import STOP, language, stem, terms, words

SHARE_LEAST = 0.6  # of the telling words; teachers vary the rest
_NUMBER = re.compile(r"\d[\d.,:]*")
_NAME = re.compile(r"[\w-]*(?:[=/_]|\w\.\w|[a-z][A-Z])[\w./=@-]*|\b[A-Z]{2,}\w*\b")
_STEMS_ALIKE = 5


def unsupported(said: str, passage: str, lang: str, *, question: str = "") -> str:
    """What of `said` neither the passage nor the question (it may be repeated) holds; "" if all is there."""
    known = f"{passage} {question}"
    numbers = set(_clean(_NUMBER.findall(known)))
    if wrong := [one for one in _clean(_NUMBER.findall(said)) if one not in numbers]:
        return f"the number {wrong[0]}"
    folded = known.lower()
    if wrong := [one for one in _NAME.findall(said) if one.strip(".=").lower() not in folded]:
        return f"the name {wrong[0]}"
    there = set(terms(known, lang))
    mine = [one for one in terms(said, lang) if not one.isdigit()]
    missing = [one for one in mine if one not in there and not _related(one, there)]
    if mine and 1 - len(missing) / len(mine) < SHARE_LEAST:
        return f"the words {', '.join(missing[:3])}"
    return ""


def nonsense(text: str, lang: str) -> str:
    """Why a text is no sentence of that language, "" if it may be one."""
    tokens = words(text)
    if len(tokens) < 2:
        return "too short"
    if len(set(tokens)) < len(tokens) / 3 and len(tokens) > 8:
        return "repeats itself"
    letters = sum(char.isalpha() or char.isspace() for char in text)
    if letters < 0.5 * len(text):
        return "mostly signs"
    if sum(char.isalpha() and ord(char) > 0x24F for char in text) > 0.2 * len(text):
        return "another language"
    found = language(text)
    return "another language" if found and lang and found != lang else ""


def _related(term: str, there: Collection[str]) -> bool:
    return len(term) >= _STEMS_ALIKE and any(one.startswith(term[:_STEMS_ALIKE]) for one in there)


def _clean(numbers: list[str]) -> list[str]:
    return [one.rstrip(".,:") for one in numbers]


def telling(text: str, lang: str) -> list[str]:
    """The stems of the words that carry a text."""
    stop = STOP.get(lang, STOP["en"])
    return [stem(word, lang) for word in words(text) if word not in stop]
