"""Words as retrieval compares them: folded, lightly stemmed in German and English, names taken apart.

German: the rules of CISTEM (Weissweiler and Fraser 2017). English: plural, -ing, -ed, -ation and the like,
less than Porter's. Knows nothing of indexes.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import lru_cache
from pathlib import Path

_TOKEN = re.compile(r"[^\W_]+", re.UNICODE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FOLD = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "ss", "é": "e", "è": "e", "á": "a"})
_VOWEL = re.compile(r"[aeiouy]")
_ENGLISH = (
    "ations",
    "ation",
    "ating",
    "ated",
    "ates",
    "ator",
    "ings",
    "ing",
    "ied",
    "ies",
    "ed",
    "ly",
    "es",
    "s",
    "ate",
    "e",
)
_DOUBLE = re.compile(r"([bdgmnprt])\1$")

STOP = {
    lang: frozenset(common.split())
    for lang, common in tomllib.loads(Path(__file__).with_name("terms.toml").read_text("utf-8")).items()
}
_ASKED = STOP["en"] | STOP["de"]


def words(text: str) -> list[str]:
    """Lower-case words in order, those of joined names both whole and apart: RestartSec, restart, sec."""
    found = []
    for token in _TOKEN.findall(text):
        parts = _CAMEL.split(token)
        found.append(token.lower())
        if len(parts) > 1:
            found += [part.lower() for part in parts]
    return found


def terms(text: str, lang: str) -> list[str]:
    """The stems of a text's words without those that every text has."""
    return [
        stem(word, lang) for word in words(text) if word not in _ASKED and (len(word) > 1 or word.isdigit())
    ]


def language(text: str) -> str:
    """The language whose commonest words are there most, "" where too few are to tell."""
    found = Counter(word for word in map(str.lower, _TOKEN.findall(text)))
    scores = {lang: sum(found[word] for word in known) for lang, known in STOP.items()}
    best = max(scores, key=lambda lang: scores[lang])
    second = max(count for lang, count in scores.items() if lang != best)
    return best if scores[best] >= 2 and scores[best] > 1.2 * second else ""


@lru_cache(maxsize=1 << 16)
def stem(word: str, lang: str) -> str:
    """A lower-case word's stem."""
    if any(char.isdigit() for char in word):
        return word
    return _german(word) if lang == "de" else _english(word)


def _german(word: str) -> str:
    word = word.translate(_FOLD)
    if word.startswith("ge") and len(word) >= 6:
        word = word[2:]
    while len(word) > 3:
        if len(word) > 5 and word.endswith(("em", "er", "nd")):
            word = word[:-2]
        elif word[-1] in "esnt":
            word = word[:-1]
        else:
            break
    return word


def _english(word: str) -> str:
    word = word.translate(_FOLD)
    for suffix in _ENGLISH:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and _VOWEL.search(word[: -len(suffix)]):
            if suffix in {"ied", "ies"}:
                return word[: -len(suffix)] + "y"
            if suffix == "s" and word.endswith(("ss", "us", "is")):
                return word
            cut = word[: -len(suffix)]
            return (
                _DOUBLE.sub(r"\1", cut)
                if suffix in {"ing", "ings", "ed"}
                else _english(cut)
                if suffix in {"s", "es"}
                else cut
            )
    return word
