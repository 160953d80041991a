"""Words as retrieval compares them: folded, lightly stemmed in German and English, names taken apart.

German: the rules of CISTEM (Weissweiler and Fraser 2017). English: plural, -ing, -ed, -ation and the like, less
than Porter's. Knows nothing of indexes.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_TOKEN = re.compile(r"[^\W_]+", re.UNICODE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FOLD = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "ss", "é": "e", "è": "e", "á": "a"})
_VOWEL = re.compile(r"[aeiouy]")
_ENGLISH = ("ations", "ation", "ating", "ated", "ates", "ator", "ings", "ing", "ied", "ies", "ed", "ly", "es", "s", "ate", "e")
_DOUBLE = re.compile(r"([bdgmnprt])\1$")

STOP = {
    "en": frozenset(
        "a an the of to in on for with by from at as is are was were be been being it its this that these those and or"
        " not no if then than so such can may must should will would do does did done has have had i you we they he she"
        " what which who whom whose when where why how there here into about any all each other also only one my your"
        " their them out up over under between per via me us our tell name please mean called happen happens".split()
    ),
    "de": frozenset(
        "der die das den dem des ein eine einer eines einem einen und oder nicht kein keine ist sind war waren wird"
        " werden wurde wurden sein bin zu zum zur im in am an auf für mit von vom bei aus als auch es er sie ich du wir"
        " ihr man sich so wie was welche welcher welches welchem welchen wer wen wem wo wann warum wozu wofür womit"
        " wodurch kann können muss müssen soll sollte darf dass wenn dann nur noch schon mehr diese dieser dieses"
        " diesem diesen hat haben hatte um über unter nach vor durch sowie beim heißt dort hier dazu damit davon"
        " lautet gibt geht macht nennt bitte".split()
    ),
    "fr": frozenset("le la les des du un une et est sont dans pour pas que qui sur avec au aux ce cette il elle".split()),
    "es": frozenset("el los las una del y es son para por que con en no se su al como más este esta".split()),
    "it": frozenset("il lo gli della delle di che è sono per con non una nel alla come più questo si".split()),
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
    return [stem(word, lang) for word in words(text) if word not in _ASKED and (len(word) > 1 or word.isdigit())]


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
            return _DOUBLE.sub(r"\1", cut) if suffix in {"ing", "ings", "ed"} else _english(cut) if suffix in {"s", "es"} else cut
    return word
