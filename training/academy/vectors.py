"""Texts of a specialist as vectors of its judge, each table one file in its folder.

Paragraphs that would be answered with: a question in other words than the documents' finds them here.
Lessons with their answers, which a teacher foresaw: what is asked again, in whatever words, finds its passage
here. A table is made anew when its texts or the encoder change.
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

from training.academy.encoder import Encoder, Vectors

_PART = 256  # texts between two lines of progress


class Table(NamedTuple):
    """Vectors of length 1, one for each text, in the texts' order: (texts, width) float32."""

    vectors: Vectors

    def nearness(self, question: Vectors) -> Vectors:
        """Each text's cosine to a question's vector: (texts,) float32."""
        return self.vectors @ question

    def nearest(self, question: Vectors, count: int) -> list[int]:
        """The places of the texts that are nearest to a question's vector."""
        return [int(one) for one in np.argsort(-self.nearness(question), kind="stable")[:count]]


def open_table(
    file: Path, texts: Sequence[str], encoder: Encoder, tell: Callable[[str], None], *, what: str
) -> Table:
    """The table of these texts, `what` they are, in that file; made where there is none by this encoder."""
    key = hashlib.sha256(repr((encoder.name, list(texts))).encode()).hexdigest()
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return Table(kept["vectors"].astype(np.float32))
    except (OSError, ValueError, KeyError, BadZipFile):
        pass  # none yet, or not one that this version wrote
    vectors = _encode(texts, encoder, tell, what)
    fresh = file.with_name(f"{file.name}.new")
    with fresh.open("wb") as opened:
        np.savez(opened, key=np.array(key), vectors=vectors.astype(np.float16))
    fresh.replace(file)
    return Table(vectors.astype(np.float16).astype(np.float32))  # as it will be read the next time


def _encode(texts: Sequence[str], encoder: Encoder, tell: Callable[[str], None], what: str) -> Vectors:
    started = time.monotonic()
    order: npt.NDArray[np.int64] = np.argsort([len(text) for text in texts], kind="stable")[::-1]
    vectors = np.zeros((len(texts), encoder.width), np.float32)
    for start in range(
        0, len(order), _PART
    ):  # the longest first, so that what is left is not more than is told
        part = order[start : start + _PART]
        found = encoder.wholes([texts[at] for at in part])
        vectors[part] = found
        done = min(len(order), start + _PART)
        left_s = (time.monotonic() - started) / done * (len(order) - done)
        tell(f"encoded {done} of {len(order)} {what}, about {left_s:.0f} s more")
    return vectors
