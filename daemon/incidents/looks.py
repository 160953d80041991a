"""What came of a look at an incident: a plain record, which situations carry and `doubts` makes and heeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from daemon.subjects import Key
from models.taxonomy import FaultClass

Kind = tuple[Key, FaultClass]  # of words: their writer and what they speak for


class Look(NamedTuple):
    """Whether somebody says that nothing is wrong, and of which words; how bad these are by the rules."""

    harmless: bool
    kinds: Mapping[Kind, int]  # ranks of severities
    texts: frozenset[str]  # masked
    unread_t: float | None = None  # since when there are others


def joined(one: Look | None, other: Look | None) -> Look | None:
    """What is known of two that became one: what was read of either as nothing, unless something is wrong."""
    for each in (one, other):
        if each is not None and not each.harmless:
            return each
    if one is None or other is None:
        return one or other
    since = [each.unread_t for each in (one, other) if each.unread_t is not None]
    return Look(
        harmless=True,
        kinds=graver(one.kinds, other.kinds),
        texts=one.texts | other.texts,
        unread_t=min(since, default=None),
    )


def graver(one: Mapping[Kind, int], other: Mapping[Kind, int]) -> dict[Kind, int]:
    """Of each kind the graver of two severities' ranks."""
    return {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in {**one, **other}}
