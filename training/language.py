"""Which language a text is in, among those that the data and their readers speak (py3langid)."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

# Of European ones, the neighbours too that short texts are mistaken for.
LANGUAGES = ("de", "en", "fr", "es", "pt", "it", "nl", "da", "sv", "pl", "cs", "ru", "uk", "tr", "zh", "ja")
LETTERS_MIN = 24  # of fewer letters nothing is said
SURE = 0.9


class Guess(NamedTuple):
    """A language, empty where the text is too short, and how sure."""

    language: str
    confidence: float


def detect(text: str) -> Guess:
    """The language of a text; of JSON, that of its texts."""
    spoken = " ".join(_texts(text))
    if sum(one.isalpha() for one in spoken) < LETTERS_MIN:
        return Guess("", 0.0)
    language, confidence = _identifier().classify(spoken)
    return Guess(str(language), float(confidence))


def differs(text: str, language: str) -> str:
    """The language that a text surely is in if that is another than `language`, else nothing."""
    found = detect(text)
    return found.language if found.confidence >= SURE and found.language != language[:2].lower() else ""


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  # only where asked

    made = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    made.set_languages(list(LANGUAGES))
    return made


def _texts(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return _leaves(found) if isinstance(found, dict | list) else [text]


def _leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for part in parts for one in _leaves(part)]
