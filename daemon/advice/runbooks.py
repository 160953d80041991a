"""Where the operator's own documents speak of an incident: the passage that fits best, with its page.

Reads an index that the academy made (`models.passages`), without any model and read-only. Only the place
is said, never the passage's words: those are nobody's evidence. The check takes exactly this line for a
citation.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from daemon.advice.check import Citation
from daemon.advice.facts import quotable
from daemon.advice.formats import Lang
from daemon.advice.subjects import SHOWN_NAME, escape
from daemon.advice.titles import title
from daemon.errors import HauswartError
from daemon.messages import Incident
from models.passages import Hit, Index

# Of 4.05 possible. Where the academy's development questions are answered by the documents, retrieval's right
# first hits have 2.4 or more; where they are not, 17 of 20 have less than 2.25.
SCORE_LEAST = 2.25
_AMOUNT = re.compile(r"(?<![\w.])\d[\d.,]*(?:\s?%|\b)")  # today's; no document has it
LINES = 2  # of the evidence that are looked for, besides the title
_WORDS = 24  # of a line
_SAID = {
    "en": ("Your runbook on this: {name}, page {place}.", "Your runbook on this: {name}, line {place}."),
    "de": ("Ihre Unterlagen dazu: {name}, Seite {place}.", "Ihre Unterlagen dazu: {name}, Zeile {place}."),
}


def cite(incident: Incident, lang: Lang, path: Path) -> Citation | None:
    """The best place in the index, None where nothing fits. Raises ConfigError for an index that is none."""
    with Index(path) as index:
        found = [hit for text in _asked(incident, lang) for hit in index.search(text, 1)]
    best = max(found, key=lambda hit: hit.score, default=None)
    return _citation(best, lang) if best is not None and best.score >= SCORE_LEAST else None


def try_cite(incident: Incident, lang: Lang, path: str) -> tuple[Citation | None, str]:
    """As `cite`, with what went wrong in words instead of an error: advice does not wait for a runbook."""
    if not path:
        return None, ""
    try:
        return cite(incident, lang, Path(path)), ""
    except HauswartError as error:
        return None, f"runbooks: {error}"
    except sqlite3.Error as error:  # damaged inside, or being written
        return None, f"runbooks: {path}: {error}"


def _asked(incident: Incident, lang: Lang) -> list[str]:
    """What to look for: the title in each language, and the lines that say most."""
    other: Lang = "de" if lang == "en" else "en"
    lines = [evidence.text for _, evidence in quotable(incident)[:LINES]]
    texts = (title(incident, lang), title(incident, other), *lines)
    return [" ".join(_AMOUNT.sub(" ", text).split()[:_WORDS]) for text in texts]


def _citation(hit: Hit, lang: Lang) -> Citation:
    one = hit.passage
    paged, lined = _SAID[lang]
    name = escape(one.document, SHOWN_NAME)
    line = paged.format(name=name, place=one.page) if one.page else lined.format(name=name, place=one.line)
    return Citation(line, one.place[:SHOWN_NAME])
