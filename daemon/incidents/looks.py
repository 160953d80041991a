"""What came of a look at an incident: what somebody read as nothing, and which words he was not shown.

A plain record, which situations carry and keep up to date; `doubts` makes and heeds it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from daemon.incidents.context import main_class
from daemon.messages import Evidence, Finding
from daemon.subjects import Key, key
from models.masking import mask
from models.taxonomy import FaultClass, SubjectKind

TEXTS_MAX = 256  # that are remembered as read
UNREAD_MAX = 32
OFTEN = 3  # looks that say that nothing is wrong: what this writer says is data

_WRITERS = frozenset({SubjectKind.UNIT, SubjectKind.PROCESS})

Kind = tuple[Key, FaultClass]  # of words: their writer and what they speak for


class Unread(NamedTuple):
    """Words that nobody was shown: since when; `full` if of another kind, or graver than what was read."""

    since_t: float
    full: bool


class Look(NamedTuple):
    """Whether somebody says that nothing is wrong, of which words, and what he has not read of it since."""

    harmless: bool
    kinds: Mapping[Kind, int] = {}  # how bad what was read is by the rules: ranks of severities
    texts: frozenset[str] = frozenset()  # masked
    unread: Mapping[tuple[Kind, str], Unread] = {}
    writers: Mapping[Key, int] = {}  # in how many looks nothing was wrong with what they wrote
    measured: Mapping[tuple[str, Key], int] = {}  # what was shown, and nobody wrote: rules, of whom, how bad
    sizes: Mapping[tuple[str, str], float] = {}  # how much it was: by what was measured and a value's name
    refs: frozenset[str] = frozenset()  # what was measured, and of what


def kind_of(finding: Finding) -> Kind:
    """Who wrote what a finding is about, and what that speaks for: mounts and files are written about."""
    wrote = next((one for one in finding.subjects if one.kind in _WRITERS), None)
    who = wrote or (finding.subjects[0] if finding.subjects else None)
    return (("host", "") if who is None else key(who)), main_class(finding)


def noted(look: Look, finding: Finding, pieces: Iterable[Evidence], t: float) -> Look:
    """The same with what of a finding was not read."""
    if not (look.harmless and finding.words):
        return look
    kind = kind_of(finding)
    graver = look.kinds.get(kind, -1) < finding.severity.rank
    full = graver and look.writers.get(kind[0], 0) < OFTEN
    unread = dict(look.unread)
    for text in (mask(one.text) for one in pieces):
        known = unread.get((kind, text))
        if (known is None and (graver or text not in look.texts)) or (known and full and not known.full):
            _put(unread, (kind, text), Unread(t, full))
    return look._replace(unread=unread)


def _put(unread: dict[tuple[Kind, str], Unread], words: tuple[Kind, str], one: Unread) -> None:
    """Add words; where there is no room, those that count in full take the place of those that do not.

    They take over since when that is unread: a flood of new words must not keep itself from ever counting.
    """
    if words not in unread and len(unread) >= UNREAD_MAX:
        if not one.full:
            return
        gone = unread.pop(next((each for each, was in unread.items() if not was.full), next(iter(unread))))
        one = Unread(min(one.since_t, gone.since_t), full=True) if gone.full else one
    unread[words] = one


def joined(one: Look | None, other: Look | None) -> Look | None:
    """What is known of two that became one: what was read of either as nothing, unless something is wrong."""
    for each in (one, other):
        if each is not None and not each.harmless:
            return each
    if one is None or other is None:
        return one or other
    texts = one.texts | other.texts
    both = {**other.unread, **one.unread}
    measured = {**other.measured, **one.measured}
    first = sorted(both, key=lambda words: (not both[words].full, both[words].since_t))[:UNREAD_MAX]
    return Look(
        harmless=True,
        kinds=graver(one.kinds, other.kinds),
        texts=texts if len(texts) <= TEXTS_MAX else one.texts,
        unread={words: both[words] for words in first},
        writers={**other.writers, **one.writers},
        measured={each: max(one.measured.get(each, 0), other.measured.get(each, 0)) for each in measured},
        sizes={
            name: max(one.sizes.get(name, 0.0), other.sizes.get(name, 0.0))
            for name in {**other.sizes, **one.sizes}
        },
        refs=one.refs | other.refs,
    )


def graver(one: Mapping[Kind, int], other: Mapping[Kind, int]) -> dict[Kind, int]:
    """Of each kind the graver of two severities' ranks."""
    return {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in {**one, **other}}
