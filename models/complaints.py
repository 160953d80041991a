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
    """What a line complains about, and the syslog priority that it gives itself (6 if none).

    `calm` is whether it says itself that nothing is wrong, or that it is somebody else's trouble.
    """

    fault: FaultClass | None
    priority: int
    calm: bool = False


UNSAID = 6
_PRIORITIES = {"crit": 2, "err": 3, "warn": 4, "calm": 7}
_KLOG = frozenset("EFIW")
_FILE = Path(__file__).with_name("complaints.toml")
_WORDS = re.compile(r"[a-z]+")
# Marks of an error that could be nothing else; the rest is what a line with one must hold.
_MARKED = re.compile(
    r"^(?:E: |<[0-3]>)|\(EE\)|\[E \d|[/\[ ](?:ERROR|FATAL|CRITICAL)[/\]]"
    r"|[Ll]evel\"?[=:]\"?(?:error|fatal|crit)"
)
_HEADS = ("E: ", "<0>", "<1>", "<2>", "<3>")
_WITHIN = ("(EE)", "[E ", "ERROR", "FATAL", "CRITICAL", "evel=", 'evel":', "evel:")
_GRAVE = ("err", "crit", "fatal", "panic", "alert", "emerg", "severe")
_ACCESS = re.compile(
    r'" (?P<status>[1-5]\d\d) (?:\d|-)|\s-?\d+/-?\d+/-?\d+/-?\d+/\+?\d+ (?P<proxied>[1-5]\d\d) \+?\d'
)


def complaint(text: str) -> Complaint:
    """What a line complains about; up to a third of a millisecond, so ask once for each kind of line."""
    said_of = _vocabulary()
    words = frozenset(_WORDS.findall(text[:TEXT_MAX].lower()))
    priority = _priority(text, words)
    topics = [topic for topic in said_of.topics if not topic.words.isdisjoint(words)]
    text = text[:TEXT_MAX]
    if priority > UNSAID:
        return Complaint(None, priority, calm=True)
    fault = next((topic.fault for topic in topics if topic.pattern.search(text)), None)
    calm = bool(said_of.calm.search(text))
    return Complaint(None if calm else fault, priority, calm)


def priority_of(text: str) -> int:
    """The syslog priority that a line gives itself, 6 if none; some microseconds."""
    marked = text.startswith(_HEADS) or any(mark in text for mark in _WITHIN)
    if marked and _MARKED.search(text, 0, TEXT_MAX):
        return 3
    head = text[:HEAD_MAX].lower()
    if not (marked or any(word in head for word in _GRAVE) or (text[:1] in _KLOG and text[1:5].isdigit())):
        return UNSAID
    return _priority(text, frozenset(_WORDS.findall(head)))


def _priority(text: str, words: frozenset[str]) -> int:
    said_of = _vocabulary()
    levelled = not said_of.levels.isdisjoint(words) or (text[:1] in _KLOG and text[1:5].isdigit())
    said = said_of.level.search(text, 0, HEAD_MAX) if levelled else None
    return _PRIORITIES.get(said.lastgroup or "", UNSAID) if said else UNSAID


def status(text: str) -> int:
    """The HTTP status in a line of an access log (common, combined, or haproxy's), 0 if it is none."""
    found = _ACCESS.search(text[:512])
    return int(found["status"] or found["proxied"]) if found else 0


# --- the file -------------------------------------------------------------------------------------------


class _Topic(NamedTuple):
    fault: FaultClass
    words: frozenset[str]
    pattern: re.Pattern[str]


class _Vocabulary(NamedTuple):
    levels: frozenset[str]
    level: re.Pattern[str]
    calm: re.Pattern[str]
    topics: tuple[_Topic, ...]


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
        compiled = re.compile(pattern, re.IGNORECASE | re.VERBOSE)
        topics.append(_Topic(FaultClass(topic["fault"]), frozenset(topic["words"].split()), compiled))
    return _Vocabulary(
        frozenset(content["levels"].split()),
        re.compile(content["level"], re.VERBOSE),
        re.compile(content["calm"], re.IGNORECASE | re.VERBOSE),
        tuple(topics),
    )
