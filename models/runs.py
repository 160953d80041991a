"""Runs of tokens that a generator's training texts have: what keeps a small model from broken sentences.

A small model picks a plausible next word, and after a few of them a sentence that nobody would write. So the
top tier's bundle carries every run of `LENGTH` tokens of its training texts, hashed together with the first
`KEYS` tokens of the prompt (language and fault class): a token that would end a run that no text of this
language and class has is not written. Sentences are joined anew, but never inside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from models.errors import BundleError

LENGTH = 5  # at 4, 2 % of the sentences were broken; at 6 more texts came to a dead end and none was better
KEYS = 2
TENSOR = "runs"
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, as Knuth has it
_MASK = (1 << 64) - 1


class Runs:
    """The runs of one bundle: sorted 32-bit hashes, (n,) uint32."""

    def __init__(self, content: bytes) -> None:
        """Parse a verified `runs.safetensors`; raises BundleError where it holds something else."""
        import numpy as np  # noqa: PLC0415  # as in models.runtime

        size = int.from_bytes(content[:8], "little")
        try:
            header = json.loads(content[8 : 8 + size])
            found, form = header[TENSOR], header["__metadata__"]
            begin, end = found["data_offsets"]
            sound = found["dtype"] == "U32" and form == form_of()
            self._hashes = np.frombuffer(content, "<u4", (end - begin) // 4, 8 + size + begin)
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"holds no runs of tokens: {error}") from error
        if not sound or not (self._hashes[1:] > self._hashes[:-1]).all():
            raise BundleError("holds no runs of tokens as this version counts them")

    def __len__(self) -> int:
        return len(self._hashes)

    def known(self, prompt: Sequence[int], written: Sequence[int], tokens: Any, end: int) -> Any:
        """Which of these next tokens `(n,) int64` end a run that a training text has, (n,) bool."""
        import numpy as np  # noqa: PLC0415

        last = [*([end] * (LENGTH - 1)), *written][1 - LENGTH :]
        begun = 0
        for token in (*prompt[:KEYS], *last):
            begun = (begun + token + 1) * _MULTIPLIER & _MASK
        hashes = _folded(np.uint64(begun), tokens.astype(np.uint64))
        if not len(self._hashes):
            return np.zeros(len(tokens), bool)
        places = np.searchsorted(self._hashes, hashes)
        return self._hashes[np.minimum(places, len(self._hashes) - 1)] == hashes


def form_of() -> dict[str, str]:
    """What the file says of how its runs are counted."""
    return {"length": str(LENGTH), "keys": str(KEYS)}


def hash_runs(prompt: Sequence[int], text: Sequence[int], end: int) -> Any:
    """The hashes of every run of a text that `end` closes, (len(text) + 1,) uint32."""
    import numpy as np  # noqa: PLC0415

    padded = np.array([*([end] * (LENGTH - 1)), *text, end], np.uint64)  # before a text there is only its end
    windows = np.lib.stride_tricks.sliding_window_view(padded, LENGTH)  # (runs, LENGTH)
    begun = np.zeros(len(windows), np.uint64)
    with np.errstate(over="ignore"):
        for token in prompt[:KEYS]:
            begun = (begun + np.uint64(token + 1)) * np.uint64(_MULTIPLIER)
        for place in range(LENGTH - 1):
            begun = (begun + windows[:, place] + np.uint64(1)) * np.uint64(_MULTIPLIER)
    return _folded(begun, windows[:, -1])


def _folded(begun: Any, last: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    with np.errstate(over="ignore"):
        whole = (begun + last + np.uint64(1)) * np.uint64(_MULTIPLIER)
    return (whole >> np.uint64(32)).astype(np.uint32)
