"""What a line that no catalogue knows is about: a fault class and how sure that is, learnt from messages.

Logistic regressions on TF-IDF of words, pairs of words and the beginnings of long words: one table for the
kernel's lines and one for those of programs (`readings/`, made by `hauswart train reading`). They are read
without numpy, since the low tier's process has none. Knows nothing of how often a line comes.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from math import exp, log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from models import wording
from models.errors import BundleError
from models.lines import encode
from models.taxonomy import FaultClass

FOLDER = Path(__file__).with_name("readings")
KERNEL, PROGRAMS = "kernel", "programs"  # whose lines a table reads
FORM = "1"  # how terms are cut, hashed and added up
ONCE = "once"  # beside the classes: an operator should be told though it is said only once
TEXT_MAX = 400  # characters; what stands behind them was often said by others
STEM = 5  # letters that stand for a longer word
_CODES = {"hashes": "I", "rarity": "H", "starts": "I", "classes": "B", "weights": "h"}
_SIZES = {"hashes": 4, "rarity": 2, "starts": 4, "classes": 1, "weights": 2}
_TYPES = {"hashes": "U32", "rarity": "U16", "starts": "U32", "classes": "U8", "weights": "I16"}


class Reading(NamedTuple):
    """The likeliest fault class with its probability, None if it is likelier none; `once` is one, too."""

    fault: FaultClass | None
    sure: float
    once: float


class Table:
    """Terms by the hash of each, with their rarity and their weights for the classes that they speak for."""

    def __init__(self, content: bytes) -> None:
        """Parse the bytes of a table; raises BundleError where they hold something else."""
        try:
            told, columns = _parse(content)
            self.names: list[str] = told["names"]
            self._biases: list[float] = told["biases"]
            self._scales: tuple[float, float] = told["rarity"], told["weight"]
            self.faults = [FaultClass(name) if name not in {"none", ONCE} else None for name in self.names]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"holds no weights of terms: {error}") from error
        self._hashes, self._rarity, self._starts, self._classes, self._weights = columns
        sound = (
            len(self._starts) == len(self._hashes) + 1 == len(self._rarity) + 1
            and all(one <= other for one, other in pairwise(self._starts))
            and len(self._classes) == len(self._weights) == self._starts[-1]
            and len(self._biases) == len(self.names)
            and self.names[-1:] == [ONCE]
            and max(self._classes, default=0) < len(self.names)
        )
        if not sound or any(one >= other for one, other in pairwise(self._hashes)):
            raise BundleError("holds no weights of terms as this version adds them up")

    def __len__(self) -> int:
        return len(self._hashes)

    def read(self, text: str) -> Reading:
        """What an encoded text (`models.lines.encode`) is about."""
        *parts, once = (1.0 / (1.0 + exp(-score)) for score in self.scores(text))
        best = max(range(len(parts)), key=parts.__getitem__)
        return Reading(self.faults[best], parts[best] / sum(parts), once)

    def scores(self, text: str) -> list[float]:
        """The logits of each name, that of `once` last."""
        known: list[tuple[int, float]] = []
        for term, count in Counter(terms(text)).items():
            number = wording.hash_term(term)
            place = bisect_left(self._hashes, number)
            if place < len(self._hashes) and self._hashes[place] == number:
                known.append((place, (1.0 + log(count)) * self._rarity[place] * self._scales[0]))
        length = sqrt(sum(value * value for _, value in known)) or 1.0
        scores = list(self._biases)
        for place, value in known:
            for at in range(self._starts[place], self._starts[place + 1]):
                scores[self._classes[at]] += self._weights[at] * self._scales[1] * value / length
        return scores


def terms(text: str) -> list[str]:
    """Words, pairs of neighbours, and the beginnings of long words, of an encoded text."""
    found = wording.terms(text)
    return found + [f"~{term[:STEM]}" for term in found if len(term) > STEM + 1 and " " not in term]


def load() -> None:
    """Read the tables now rather than at the first unknown line; raises BundleError if one is damaged."""
    for name in (KERNEL, PROGRAMS):
        _table(name)


def reading(text: str, *, kernel: bool = False) -> Reading:
    """What a line is about; some tenth of a millisecond, so ask once for each kind of line."""
    return _table(KERNEL if kernel else PROGRAMS).read(encode(text[:TEXT_MAX]))


@cache
def _table(name: str) -> Table:
    path = FOLDER / f"{name}.safetensors"
    try:
        return Table(path.read_bytes())
    except (OSError, BundleError) as error:
        raise BundleError(f"{path} cannot be read: {error}", hint="install hauswart again") from error


# --- the file -------------------------------------------------------------------------------------------


def pack(
    names: list[str], biases: Iterable[float], rarity: dict[str, float], weights: dict[str, dict[int, float]]
) -> bytes:
    """The bytes of a table; `weights` are by term and number of name. Of one hash the first term stays."""
    by_hash: dict[int, str] = {}
    for term in weights:
        by_hash.setdefault(wording.hash_term(term), term)
    kept = [by_hash[number] for number in sorted(by_hash)]
    rare = max((rarity[term] for term in kept), default=1.0) / 65535.0
    heavy = max((abs(one) for term in kept for one in weights[term].values()), default=1.0) / 32767.0
    starts, classes, numbers = [0], [], []
    for term in kept:
        for at, weight in sorted(weights[term].items()):
            classes.append(at)
            numbers.append(round(weight / heavy))
        starts.append(len(classes))
    columns = {
        "hashes": array("I", sorted(by_hash)),
        "rarity": array("H", [round(rarity[term] / rare) for term in kept]),
        "starts": array("I", starts),
        "classes": array("B", classes),
        "weights": array("h", numbers),
    }
    told = {"names": names, "biases": [*biases], "rarity": rare, "weight": heavy}
    header: dict[str, Any] = {"__metadata__": {"reading": FORM, "told": json.dumps(told)}}
    offset = 0
    for name, column in columns.items():
        end = offset + _SIZES[name] * len(column)
        header[name] = {"dtype": _TYPES[name], "shape": [len(column)], "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(one.tobytes() for one in columns.values())


def _parse(content: bytes) -> tuple[dict[str, Any], list[array[Any]]]:
    """The settings and the columns of a file that has these, in this order, and no others."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__")
    if metadata["reading"] != FORM or list(header) != list(_CODES):
        raise ValueError("has another form")
    columns = []
    for name, code in _CODES.items():
        start, end = header[name]["data_offsets"]
        column = array(code)
        column.frombytes(content[8 + size + start : 8 + size + end])
        if header[name]["dtype"] != _TYPES[name] or header[name]["shape"] != [len(column)]:
            raise ValueError(f"has {name} of another shape")
        columns.append(column)
    return json.loads(metadata["told"]), columns
