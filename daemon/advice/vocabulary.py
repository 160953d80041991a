"""How much of a text is in words that the reviewed catalogue uses: a story about something else is not.

The fact check looks at numbers and names; a model that has neither may still make a story up. No log line
counts here, so what a stranger wrote lends no words.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from daemon.advice import catalogue
from daemon.advice.formats import Lang
from daemon.advice.tokens import scan

_STEM = 5  # letters; enough to tell words apart, few enough for German endings
_SHORT = 3  # words up to this length are of every language and subject
_MADE = re.compile(r"\{[^{}]*\}|`[^`]*`")


def known_share(text: str, lang: Lang) -> float:
    """The share of a text's longer words whose stem the catalogue has; 1 where there are none."""
    found, known = list(_stems(text)), _known(lang)
    return sum(stem in known for stem in found) / len(found) if found else 1.0


@cache
def _known(lang: Lang) -> frozenset[str]:
    folder = Path(catalogue.FOLDER)
    files = [*folder.glob("*.toml"), folder.with_name("titles.toml"), folder.with_name("phrases.toml")]
    tables = (tomllib.loads(path.read_text(encoding="utf-8")) for path in files)
    return frozenset(
        stem for table in tables for text in _texts(table, lang, here=False) for stem in _stems(text)
    )


def _texts(value: Any, lang: Lang, *, here: bool) -> Iterator[str]:
    """Every text below a key that is the language's."""
    if isinstance(value, str):
        yield from [value] if here else []
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, lang, here=here or key == lang)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, lang, here=here)


def _stems(text: str) -> Iterator[str]:
    for token in scan(_MADE.sub(" ", text)):
        if token.kind == "word":
            for word in re.split(r"[-–]", token.text.lower()):  # noqa: RUF001 - typographic dash
                if len(word) > _SHORT:
                    yield word[:_STEM]
