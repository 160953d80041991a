"""An index of documents' passages as one SQLite file, and how a question finds the best of them.

Read-only here, and without any model: the academy writes such files (`training.academy.library`), the daemon
reads them for advice. A passage is a piece of at most some fifty words with its heading, the term that it
explains and its place; its neighbours are the section around it. Two full-text tables rank sections and
passages by BM25; what they find is compared with the question word by word.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from models.errors import ConfigError
from models.terms import stem, terms

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents(
    id INTEGER PRIMARY KEY, name TEXT, path TEXT, format TEXT, sha256 TEXT UNIQUE, pages INTEGER, lang TEXT,
    added TEXT);
CREATE TABLE IF NOT EXISTS sections(
    id INTEGER PRIMARY KEY, document INTEGER REFERENCES documents(id), heading TEXT, lang TEXT, text TEXT,
    page INTEGER, line INTEGER);
CREATE TABLE IF NOT EXISTS passages(
    id INTEGER PRIMARY KEY, section INTEGER REFERENCES sections(id), kind TEXT, term TEXT, text TEXT,
    page INTEGER, line INTEGER);
CREATE INDEX IF NOT EXISTS passages_of ON passages(section);
CREATE VIRTUAL TABLE IF NOT EXISTS section_terms USING fts5(heading, body, tokenize='unicode61');
CREATE VIRTUAL TABLE IF NOT EXISTS passage_terms USING fts5(term, body, tokenize='unicode61');
CREATE VIRTUAL TABLE IF NOT EXISTS vocabulary USING fts5vocab(passage_terms, row);
"""
FORMAT = 1  # PRAGMA user_version
SECTIONS, PASSAGES = 12, 24  # how many of each are looked at closely
_MARKS = 500  # placeholders in one statement
_KIN_LEAST = 5  # letters that a part of a compound has
_KIN = 8  # relatives of a word that are looked for, the commonest first
_KIN_WORTH = 0.5
_BM25_MOST = 2.2  # of a word's weight, which is k1 + 1 with SQLite's k1 of 1.2


class Passage(NamedTuple):
    """A passage with its place: `page` 0 where the format has none, then `line` is the place."""

    id: int
    section: int
    document: str
    heading: str
    term: str
    text: str
    page: int
    line: int
    lang: str
    kind: str

    @property
    def place(self) -> str:
        """Document and page (or line), as it is cited."""
        return f"{self.document}, page {self.page}" if self.page else f"{self.document}, line {self.line}"


class Hit(NamedTuple):
    """A passage that was found: `score` orders, `features` are what it was made of (`FEATURES`)."""

    passage: Passage
    score: float
    features: tuple[float, ...]


# Shares of the question's weight (rare words weigh more): found in the passage, in the passage with its
# term and heading, in the section; whether the rarest is there; BM25 of section and passage beside the best
# possible; whether a number is asked for and there; the passage's share that the question explains.
FEATURES = ("here", "around", "section", "rarest", "bm25_section", "bm25_passage", "number", "focus")
# Chosen on the development questions of the academy's report.
WEIGHTS = (1.0, 1.4, 0.5, 0.2, 0.6, 0.4, 0.15, 0.2)


class _Asked(NamedTuple):
    """A question: each word's stems with its relatives, their weights, whether a number is asked for."""

    kin: Sequence[tuple[str, ...]]
    weights: Sequence[float]
    number: bool


class Index:
    """An open index. Raises ConfigError for a file that is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            found = self._base.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise ConfigError(f"{path} is no index of documents: {error}") from error
        if found != FORMAT:
            self._base.close()
            raise ConfigError(f"{path} is an index of format {found}, not {FORMAT}", hint="train it anew")
        self._total = max(1, self._base.execute("SELECT count(*) FROM passages").fetchone()[0])
        self._known: dict[str, int] = dict(self._base.execute("SELECT term, doc FROM vocabulary"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def search(self, question: str, limit: int = 8, near: Sequence[int] = ()) -> list[Hit]:
        """The best passages, the best first; none where no word of the question is known.

        Behind them come the passages `near`, given by their ids, that are not among these.
        """
        asked = self._asked(question)
        if not any(self._known.get(one) for kin in asked for one in kin):
            return []
        query = " OR ".join(f'"{one}"' for kin in asked for one in kin)
        ranked = [*self._ranked("section_terms", query, "2.0, 1.0", SECTIONS)]
        alone = dict(self._ranked("passage_terms", query, "2.0, 1.0", PASSAGES))
        sections = dict(ranked)
        found = {one.id: one for one in self._passages("section", list(sections))}
        found |= {one.id: one for one in self._passages("p.id", [*alone, *near])}
        meant = _Asked(asked, [self._weight(kin[0]) for kin in asked], _asks_number(question))
        bodies = self._bodies({one.section for one in found.values()})
        hits = []
        for one in found.values():
            ranks = (sections.get(one.section, 0.0), alone.get(one.id, 0.0))
            hits.append(self._judge(one, meant, body=bodies[one.section], ranks=ranks))
        best = sorted(hits, key=lambda hit: (-hit.score, hit.passage.id))
        beside = {hit.passage.id: hit for hit in best[limit:]}
        return [*best[:limit], *(beside[one] for one in dict.fromkeys(near) if one in beside)]

    def passages(self, keys: Iterable[int] | None = None) -> list[Passage]:
        """These passages, or all."""
        if keys is None:
            keys = [key for (key,) in self._base.execute("SELECT id FROM passages ORDER BY id")]
        found = list(keys)
        parts = (found[start : start + _MARKS] for start in range(0, len(found), _MARKS))
        return [one for part in parts for one in self._passages("p.id", part)]

    def section(self, one: Passage) -> list[Passage]:
        """The passages of its section in their order, itself among them."""
        return sorted(self._passages("p.section", [one.section]), key=lambda other: other.id)

    def _asked(self, question: str) -> list[tuple[str, ...]]:
        """Each word of the question once, as the stems that mean it, its own first."""
        english, german = terms(question, "en"), terms(question, "de")
        kin: dict[tuple[str, str], tuple[str, ...]] = {}
        for pair in zip(english, german, strict=True):
            own = tuple(dict.fromkeys(sorted(pair, key=lambda one: -self._known.get(one, 0))))
            kin[pair] = own + self._kin(own)
        return list(kin.values())

    def _kin(self, own: Sequence[str]) -> tuple[str, ...]:
        """Words of the documents that are parts of this one, or have it as a part: compounds, options."""
        long = [one for one in own if len(one) >= _KIN_LEAST]
        related = {
            known: count
            for known, count in self._known.items()
            for one in long
            if known != one and len(known) >= _KIN_LEAST and (one in known or known in one)
        }
        return tuple(sorted(related, key=lambda one: (-related[one], one))[:_KIN])

    def _weight(self, term: str) -> float:
        """Inverse document frequency, as BM25 has it; a word that no document has weighs as the rarest."""
        count = self._known.get(term, 0)
        return math.log(1 + (self._total - count + 0.5) / (count + 0.5))

    def _ranked(self, table: str, query: str, columns: str, limit: int) -> list[tuple[int, float]]:
        rows = self._base.execute(
            f"SELECT rowid, -bm25({table}, {columns}) FROM {table}"  # noqa: S608 - both are ours
            f" WHERE {table} MATCH ? ORDER BY 2 DESC LIMIT ?",
            (query, limit),
        )
        return list(rows)

    def _passages(self, column: str, keys: Sequence[int]) -> Iterable[Passage]:
        marks = ",".join("?" * len(keys))
        rows = self._base.execute(
            "SELECT p.id, p.section, d.name, s.heading, p.term, p.text, p.page, p.line, s.lang, p.kind"  # noqa: S608 - marks only
            " FROM passages p JOIN sections s ON s.id = p.section JOIN documents d ON d.id = s.document"
            f" WHERE {column} IN ({marks})",
            list(keys),
        )
        return [Passage(*row) for row in rows]

    def _bodies(self, keys: Iterable[int]) -> dict[int, set[str]]:
        found = {}
        for key in keys:
            heading, text, lang = self._base.execute(
                "SELECT heading, text, lang FROM sections WHERE id = ?", (key,)
            ).fetchone()
            found[key] = set(terms(f"{heading} {text}", lang))
        return found

    def _judge(
        self,
        one: Passage,
        asked: _Asked,
        *,
        body: set[str],
        ranks: tuple[float, float],
    ) -> Hit:
        total = sum(asked.weights) or 1.0
        here = terms(one.text, one.lang)
        around = set(here) | set(terms(f"{one.term} {one.heading}", one.lang))
        shares = [
            sum(weight * _found(kin, where) for kin, weight in zip(asked.kin, asked.weights, strict=True))
            / total
            for where in (set(here), around, body)
        ]
        rarest = max(range(len(asked.kin)), key=asked.weights.__getitem__)
        features = (
            *shares,
            _found(asked.kin[rarest], around),
            *(min(1.0, rank / (_BM25_MOST * total)) for rank in ranks),
            float(asked.number and any(char.isdigit() for char in one.text)),
            self._focus(here, asked.kin),
        )
        return Hit(one, sum(map(float.__mul__, WEIGHTS, features)), features)

    def _focus(self, here: Sequence[str], asked: Sequence[tuple[str, ...]]) -> float:
        """How much of the passage's own weight the question's words are."""
        known = {one for kin in asked for one in kin}
        weights = {term: self._weight(term) for term in here}
        total = sum(weights.values()) or 1.0
        return sum(weight for term, weight in weights.items() if term in known) / total


def _found(kin: Sequence[str], where: set[str]) -> float:
    """1 for the word itself (both languages' stems count), less for a relative."""
    if kin[0] in where or (len(kin) > 1 and kin[1] in where and kin[1][:4] == kin[0][:4]):
        return 1.0
    return _KIN_WORTH if any(one in where for one in kin[1:]) else 0.0


# Of questions whose answer has a digit, in both languages.
_NUMBER_WORDS = frozenset(
    (
        *("many", "much", "long", "often", "default", "time", "size", "number", "maximum", "minimum"),
        *(
            "limit",
            "port",
            "mode",
            "viele",
            "viel",
            "lange",
            "oft",
            "standard",
            "standardwert",
            "zeit",
            "größe",
        ),
        *("anzahl", "höchstens", "mindestens", "grenze", "rechte", "bit", "version"),
    )
)


def _asks_number(question: str) -> bool:
    return bool(_NUMBER_WORDS & set(question.lower().replace("?", " ").split()))


def stems_of(text: str, lang: str) -> str:
    """What the full-text tables hold of a text."""
    return " ".join(terms(text, lang))


__all__ = ["FEATURES", "FORMAT", "SCHEMA", "Hit", "Index", "Passage", "stem", "stems_of"]
