"""Which words speak for an alert: a linear table of words and pairs of words beside the low tier's network.

On services that nobody trained on, words rank lines far better than what a small network makes of them
(training/LOG.md, 2026-11-27), so the low tier's bundle carries both: the alert's logit is what the words say
plus shares of the network's logits. The words' part is a logistic regression on TF-IDF (sublinear counts,
unit length) plus the untrained word weights of `models.alertness`. Knows nothing of who wrote a line.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import pairwise
from math import log, sqrt
from operator import mul
from typing import Any
from zlib import crc32

from models.alertness import word_weight
from models.errors import BundleError

HEAD = "alert"
FORM = {"wording": "1"}  # the file's one metadata entry: how words are cut, hashed and added up
_LEAST = 1e-9  # a text without a known term has no length
_WORD = re.compile(r"<\w+>|[a-z]+")
_TENSORS = {"hashes": "U32", "rarity": "F16", "weights": "F16", "scalars": "F32", "shares": "F32"}


class Wording:
    """The table of one bundle: sorted hashes `(n,) uint32`, with them rarity and weight `(n,) float16`.

    `shares` `(all heads,)` are of the network's logits.
    """

    def __init__(self, content: bytes) -> None:
        """Parse a verified `wording.safetensors`; raises BundleError where it holds something else."""
        import numpy as np  # noqa: PLC0415  # as in models.runtime

        try:
            found = _read(content)
            self._hashes, rarity, weights, scalars, shares = (found[name] for name in _TENSORS)
            self._rarity, self._weights = rarity.astype(np.float32), weights.astype(np.float32)
            self._intercept, self._gain = scalars.astype(np.float64).tolist()
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"holds no weights of words: {error}") from error
        whole = (self._rarity, self._weights, scalars, shares)
        sound = len(self._hashes) == len(rarity) == len(weights) > 0 and all(
            np.isfinite(one).all() for one in whole
        )
        if not sound or not (self._hashes[1:] > self._hashes[:-1]).all():
            raise BundleError("holds no weights of words as this version adds them up")
        self._shares: list[float] = shares.tolist()

    def __len__(self) -> int:
        return len(self._hashes)

    def mix(self, text: str, logits: Sequence[float]) -> float:
        """The alert's logit of an encoded text, by its words and by the network's logits over all heads."""
        said: float = sum(map(mul, self._shares, logits))
        return self.logit(text) + said

    def logit(self, text: str) -> float:
        """What the words of an encoded text alone say."""
        places, values = self.values(text)
        said = float(values @ self._weights[places]) if len(places) else 0.0
        found: float = self._intercept + self._gain * word_weight(text) + said
        return found

    def values(self, text: str) -> tuple[Any, Any]:
        """Where a text's known terms stand in the table, and how much each counts, of unit length."""
        import numpy as np  # noqa: PLC0415

        counts = Counter(map(hash_term, terms(text)))
        hashes = np.fromiter(counts, np.uint32, len(counts))
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        known = self._hashes[places] == hashes
        often = np.array([1.0 + log(count) for count in counts.values()])
        values = (often * self._rarity[places])[known]
        return places[known], values / max(sqrt(float(values @ values)), _LEAST)

    def moved(self, places: Any, by: Any) -> Wording:
        """A table that differs in the weights at these places."""
        other = copy(self)
        other._weights = self._weights.copy()  # noqa: SLF001 - of its own kind
        other._weights[places] += by  # noqa: SLF001
        return other

    def pack(self) -> bytes:
        """The bytes of this table."""
        return _save(self._hashes, self._rarity, self._weights, (self._intercept, self._gain), self._shares)


def terms(text: str) -> list[str]:
    """The words and pairs of neighbouring words of an encoded text."""
    words = _WORD.findall(text)
    return words + [f"{one} {other}" for one, other in pairwise(words)]


def hash_term(term: str) -> int:
    """A term's place in the table."""
    return crc32(term.encode())


def pack(
    rarity: Mapping[str, float],
    weights: Mapping[str, float],
    *,
    intercept: float,
    gain: float,
    shares: Sequence[float],
) -> bytes:
    """The bytes of a table; `rarity` and `weights` are by term, of terms with one hash the heaviest stays."""
    by_hash: dict[int, str] = {}
    for term in sorted(weights, key=lambda one: (-abs(weights[one]), one)):
        by_hash.setdefault(hash_term(term), term)
    order = sorted(by_hash)
    kept = [by_hash[one] for one in order]
    return _save(
        order, [rarity[one] for one in kept], [weights[one] for one in kept], (intercept, gain), shares
    )


def _save(
    hashes: Sequence[int],
    rarity: Sequence[float],
    weights: Sequence[float],
    scalars: Sequence[float],
    shares: Sequence[float],
) -> bytes:
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save  # noqa: PLC0415 - only training writes

    tensors = {
        "hashes": np.asarray(hashes, np.uint32),
        "rarity": np.asarray(rarity, np.float16),
        "weights": np.asarray(weights, np.float16),
        "scalars": np.asarray(scalars, np.float32),
        "shares": np.asarray(shares, np.float32),
    }
    return bytes(save(tensors, FORM))


def _read(content: bytes) -> dict[str, Any]:
    """The tensors of a safetensors file that has these, and only these, as flat arrays."""
    import numpy as np  # noqa: PLC0415

    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    if header.pop("__metadata__") != FORM or set(header) != set(_TENSORS):
        raise ValueError("it is of another form")
    found: dict[str, Any] = {}
    forms: dict[str, Sequence[Any]] = {"U32": ("<u4", 4), "F16": ("<f2", 2), "F32": ("<f4", 4)}
    for name, wanted in _TENSORS.items():
        one, (kind, width) = header[name], forms[wanted]
        begin, end = one["data_offsets"]
        if one["dtype"] != wanted or (end - begin) % width:
            raise ValueError(f"{name} is no {wanted}")
        found[name] = np.frombuffer(content, kind, (end - begin) // width, 8 + size + begin)
    return found
