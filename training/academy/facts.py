"""Facts that a document states outright, as questions with their answers; no model is needed.

What terms do and default to, definitions, keys with values, rows of tables, numbers with units, procedures,
and for every other passage what it is about. Each is asked in several ways in the passage's own language.
Some words of a question are left out now and then: an operator's words are not the document's.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from models.passages import Passage
from models.terms import STOP, words
from training.academy.chunks import sentences

_DEFAULT = re.compile(
    r"(?:[Dd]efaults? to|[Bb]y default,?|[Tt]he default (?:is|value is)|[Dd]efault:|[Ss]tandardmäßig"
    r"|[Vv]oreinstellung ist|[Vv]oreingestellt ist|[Ss]tandard(?:wert)? ist)"
)
_DEFINITION = {
    "en": re.compile(
        r"^((?:An? |The )?[A-Z`\"/.\w][\w./ -]{1,48}?) (?:is|are|means|denotes|refers to) (?:an? |the |\w)"
    ),
    "de": re.compile(
        r"^((?:Ein |Eine |Der |Die |Das )?[A-ZÄÖÜ`\"„/.\w][\w./ -]{1,48}?)"
        r" (?:ist|sind|bezeichnet|bedeutet|heißt) (?:ein|der|die|das|\w)"
    ),
}
_KEY_VALUE = re.compile(r"^[-*\u2022\s]*([A-Za-zÄÖÜäöü][\w äöüß()/.-]{1,40}?)\s*(?::|=)\s+(\S.{0,160})$")
_NUMBER = re.compile(
    r"\b\d[\d.,:]*\s?(?:%|[kKMGT]i?B\b|[munµ]?s\b|min\b|h\b|Hz\b|V\b|W\b|°C|[a-zäöüß]{3,}\b)?"
)
_STEP = re.compile(r"^(?:\d{1,2}[.)]|[a-z]\))\s")
_KEEP = 0.75  # of the words of a question that repeats the document's
TERM_MAX = 60


class Fact(NamedTuple):
    """One question that a passage answers; an empty answer: nothing does."""

    kind: str
    asked: str  # what the question is about
    answer: str


@cache
def phrasings() -> dict[str, dict[str, list[str]]]:
    """The ways to ask, by kind of fact and language."""
    return tomllib.loads(Path(__file__).with_name("phrasings.toml").read_text("utf-8"))


def absent(lang: str) -> str:
    """What is said where the documents do not answer."""
    return str(phrasings()["absent"].get(lang, phrasings()["absent"]["en"]))


def find_facts(passage: Passage, source: random.Random) -> list[Fact]:
    """What the passage states, the most telling first."""
    found = [*_of_term(passage), *_of_sentences(passage, source), *_of_layout(passage)]
    topic = _topic(passage, source)
    return [*found, *([Fact("topic", topic, passage.text)] if topic else [])]


def find_procedures(passages: Sequence[Passage]) -> list[tuple[Passage, Fact]]:
    """Lists under one lead or heading, as what is to be done: their first passage, and all their items."""
    groups: dict[tuple[int, str], list[Passage]] = {}
    for one in passages:
        if one.kind == "item":
            groups.setdefault((one.section, one.term), []).append(one)
    found = []
    for (_, term), items in groups.items():
        about = term.rstrip(":") or items[0].heading.rpartition(" > ")[2]
        if len(items) > 1 and about:
            found.append((items[0], Fact("procedure", about, " ".join(one.text for one in items))))
    return found


def ask(fact: Fact, lang: str, source: random.Random, count: int) -> list[str]:
    """The fact's question in up to `count` different ways."""
    ways = list(phrasings()[fact.kind].get(lang, phrasings()[fact.kind]["en"]))
    source.shuffle(ways)
    return [way.replace("{}", fact.asked) for way in ways[:count]]


def ask_missing(passage: Passage, source: random.Random) -> str:
    """A question about something in the passage that no document answers."""
    about = passage.term[:TERM_MAX] or _topic(passage, source)
    way = source.choice(phrasings()["missing"].get(passage.lang, phrasings()["missing"]["en"]))
    return way.replace("{}", about) if about else ""


def _of_term(passage: Passage) -> Iterator[Fact]:
    term = passage.term.strip()
    if not term or len(term) > TERM_MAX or term.endswith(":"):
        return
    parts = sentences(passage.text)
    for sentence in parts:
        if _DEFAULT.search(sentence):
            yield Fact("default", term, sentence)
            break
    yield Fact("purpose", term, parts[0])
    yield Fact("which", _paraphrase(parts[0], term), f"{term}: {parts[0]}")


def _of_sentences(passage: Passage, source: random.Random) -> Iterator[Fact]:
    if passage.kind in {"code", "row"}:
        return
    for sentence in sentences(passage.text):
        if match := _DEFINITION.get(passage.lang, _DEFINITION["en"]).match(sentence):
            about = match[1].strip()
            if words(about)[-1:] and words(about)[-1] not in STOP.get(passage.lang, ()) and len(about) > 2:
                yield Fact("definition", about, sentence)
        numbers = _NUMBER.findall(sentence)
        if len(numbers) == 1 and len(sentence.split()) > 5:
            yield Fact("number", thin(sentence.replace(numbers[0].strip(), "..."), source), sentence)


def _of_layout(passage: Passage) -> Iterator[Fact]:
    if passage.kind == "row":
        cells = [cell.strip() for cell in passage.text.split(" | ")]
        if len(cells) > 1:
            yield Fact("row", cells[0].rpartition(": ")[2], passage.text)
    elif passage.kind == "code" and passage.term.endswith(":"):
        yield Fact("procedure", passage.term.rstrip(":"), passage.text)
    elif match := _KEY_VALUE.match(passage.text):
        yield Fact("value", match[1], passage.text)


def _paraphrase(sentence: str, term: str) -> str:
    """The sentence as somebody would ask for it who does not know the term."""
    own = {*words(term), term.lower()}
    kept = [word for word in sentence.split()[:24] if word.lower().strip("=,.;:\"'") not in own]
    text = " ".join(kept).rstrip(".")
    return text[:1].lower() + text[1:]


def _topic(passage: Passage, source: random.Random) -> str:
    """A few telling words of the passage, out of order as in a search."""
    stop = STOP["en"] | STOP["de"]
    telling = [
        word for word in dict.fromkeys(re.findall(r"[\w./-]{4,}", passage.text)) if word.lower() not in stop
    ]
    if len(telling) < 3:
        return ""
    chosen = source.sample(telling[:20], min(len(telling), source.choice((3, 4, 5))))
    joint = " und " if passage.lang == "de" else " and "
    return f"{', '.join(chosen[:-1])}{joint}{chosen[-1]}"


def thin(text: str, source: random.Random) -> str:
    """The text without some of its words: an operator knows the gist, not the wording."""
    kept = [word for word in text.split()[:30] if source.random() < _KEEP or word == "..."]
    return " ".join(kept).rstrip(".")


def spread(passages: Iterable[Passage], tokens: int, source: random.Random) -> list[Passage]:
    """A sample of whole sections with about that many tokens, the same share of each document."""
    by_document: dict[str, dict[int, list[Passage]]] = {}
    for one in passages:
        by_document.setdefault(one.document, {}).setdefault(one.section, []).append(one)
    sizes = {
        name: sum(map(_tokens, (p for s in kept.values() for p in s))) for name, kept in by_document.items()
    }
    total = sum(sizes.values()) or 1
    chosen = []
    for name, kept in sorted(by_document.items()):
        left = tokens * sizes[name] / total if total > tokens else sizes[name]
        order = list(kept.values())
        source.shuffle(order)
        for section in order:
            size = sum(map(_tokens, section))
            if size <= left:
                chosen += section
                left -= size
    return chosen


def _tokens(passage: Passage) -> int:
    return len(passage.text) // 4 + 1  # a token has some four characters
