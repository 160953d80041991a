"""What a line that no catalogue knows complains about, by the words that all programs share.

A complaint is a failure with its topic, such as a refused connection or a wait without an answer. The
topic alone ("database") or the failure alone ("error") is none. Knows nothing about who wrote the line.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from models.taxonomy import FaultClass

TEXT_MAX = 400  # characters; what stands behind them was often said by others
HEAD_MAX = 160  # within which loggers write how bad it is


class Complaint(NamedTuple):
    """What a line complains about, and the syslog priority that it gives itself (6 if none)."""

    fault: FaultClass | None
    priority: int


UNSAID = 6
_PRIORITIES = {"crit": 2, "err": 3, "warn": 4, "calm": 7}
_FILE = Path(__file__).with_name("complaints.toml")
_WORDS = re.compile(r"[a-z]+")
_ACCESS = re.compile(
    r'" (?P<status>[1-5]\d\d) (?:\d|-)|\s-?\d+/-?\d+/-?\d+/-?\d+/\+?\d+ (?P<proxied>[1-5]\d\d) \+?\d'
)


def complaint(text: str) -> Complaint:
    """What a line complains about; up to a third of a millisecond, so ask once for each kind of line."""
    said_of = _vocabulary()
    words = _WORDS.findall(text[:TEXT_MAX].lower())
    levelled = text[1:5].isdigit() or not said_of.levels.isdisjoint(words)
    said = said_of.level.search(text, 0, HEAD_MAX) if levelled else None
    priority = _PRIORITIES.get(said.lastgroup or "", UNSAID) if said else UNSAID
    text = text[:TEXT_MAX]
    if priority > UNSAID or said_of.triggers.isdisjoint(words) or said_of.calm.search(text):
        return Complaint(None, priority)
    return Complaint(next((fault for fault, topic in said_of.topics if topic.search(text)), None), priority)


def status(text: str) -> int:
    """The HTTP status in a line of an access log (common, combined, or haproxy's), 0 if it is none."""
    found = _ACCESS.search(text[:512])
    return int(found["status"] or found["proxied"]) if found else 0


# --- the file -------------------------------------------------------------------------------------------


class _Vocabulary(NamedTuple):
    triggers: frozenset[str]
    levels: frozenset[str]
    level: re.Pattern[str]
    calm: re.Pattern[str]
    topics: tuple[tuple[FaultClass, re.Pattern[str]], ...]


@cache
def _vocabulary() -> _Vocabulary:
    """Read when a line is judged for the first time."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    parts = {f"<{name}>": content[name].strip() for name in ("cannot", "peers")}
    topics = []
    for topic in content["topic"]:
        pattern = topic["pattern"]
        for name, part in parts.items():
            pattern = pattern.replace(name, part)
        topics.append((FaultClass(topic["fault"]), re.compile(pattern, re.IGNORECASE | re.VERBOSE)))
    return _Vocabulary(
        frozenset(content["triggers"].split()),
        frozenset(content["levels"].split()),
        re.compile(content["level"], re.VERBOSE),
        re.compile(content["calm"], re.IGNORECASE | re.VERBOSE),
        tuple(topics),
    )
