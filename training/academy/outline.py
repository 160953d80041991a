"""What each section is about, as a vector of its headings and terms: where to look beside the words.

A question in other words than the documents' finds its section here ("shared libraries": "Überprüfen der
Abhängigkeiten von Bibliotheken"). One file in the specialist's folder, made anew when sections or encoder
change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from models.passages import Index, Passage
from training.academy import library
from training.academy.encoder import Encoder, Vectors

_HEADINGS, _HEADING, _TERMS, _TERM = 2, 60, 6, 60  # the last headings of the path, characters of one; terms
_PART = 256  # sections between two lines of progress


class Outline(NamedTuple):
    """Sections, and in the same order their vectors of length 1: (sections, width) float32."""

    sections: npt.NDArray[np.int64]
    vectors: Vectors

    def nearest(self, question: Vectors, count: int) -> list[int]:
        """The sections nearest to a question's vector."""
        near = np.argsort(-(self.vectors @ question), kind="stable")[:count]
        return [int(one) for one in self.sections[near]]


def open_outline(folder: Path, index: Index, encoder: Encoder, tell: Callable[[str], None]) -> Outline:
    """The folder's outline, made where there is none of these sections by this encoder."""
    texts = described(index.passages())
    key = hashlib.sha256(repr((encoder.name, sorted(texts.items()))).encode()).hexdigest()
    try:
        with np.load(folder / library.OUTLINE, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return Outline(kept["sections"], kept["vectors"].astype(np.float32))
    except (OSError, ValueError, KeyError, BadZipFile):
        pass  # none yet, or not one that this version wrote
    vectors = _encode(list(texts.values()), encoder, tell)
    sections = np.array(list(texts), np.int64)
    fresh = folder / f"{library.OUTLINE}.new"
    with fresh.open("wb") as file:
        np.savez(file, key=np.array(key), sections=sections, vectors=vectors.astype(np.float16))
    fresh.replace(folder / library.OUTLINE)
    return Outline(sections, vectors)


def described(passages: Sequence[Passage]) -> dict[int, str]:
    """Each section in a line: its document, the last headings, the first terms that it explains."""
    terms: dict[int, dict[str, None]] = {}
    heads: dict[int, str] = {}
    for one in passages:
        path = [part[:_HEADING] for part in one.heading.split(" > ")[-_HEADINGS:]]
        heads.setdefault(one.section, f"{one.document.partition('.')[0]}, {': '.join(path)}")
        known = terms.setdefault(one.section, {})
        if one.term and not one.term.endswith(":") and len(known) < _TERMS:
            known[one.term[:_TERM]] = None
    return {key: f"{head}. {', '.join(terms[key])}" if terms[key] else head for key, head in heads.items()}


def _encode(texts: Sequence[str], encoder: Encoder, tell: Callable[[str], None]) -> Vectors:
    started = time.monotonic()
    parts: list[Vectors] = []
    for start in range(0, len(texts), _PART):
        parts += [one.whole for one in encoder.texts(texts[start : start + _PART])]
        done = min(len(texts), start + _PART)
        left_s = (time.monotonic() - started) / done * (len(texts) - done)
        tell(f"outlined {done} of {len(texts)} sections, about {left_s:.0f} s more")
    return np.stack(parts) if parts else np.zeros((0, 1), np.float32)
