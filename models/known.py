"""The catalogue of known messages: what a line of the kernel or of a service means, whom and what it names.

The catalogue is data (`known/*.toml`); this file loads it, finds the few entries whose words a line contains,
and reads subjects and values out of the line. Who wrote a line, and whether that is to be believed, is the
caller's to say: it gives the writer's names and gets only the entries that such a writer may utter. What
strangers gave to a server, and it repeats, is no word of its own (`own_words`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from models.complaints import priority_of
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

_ERROR = 3  # syslog's
_SURE = 0.8  # of words that nobody would write but who has done it
_FOLDER = Path(__file__).parent / "known"  # importlib.resources would cost 0.4 MB
_LETTERS = re.compile(r"[A-Za-z]+")
_UNIT = re.compile(r"\.(?:service|scope|socket|mount|swap|timer|target|device|path|automount)$")
# The device mapper names its devices by major and minor number, and calls them after the minor (dm.c).
_NUMBERS = re.compile(r"\d{1,4}:(?P<minor>\d{1,6})")
_KINDS = {kind.value: kind for kind in SubjectKind}
_ORDER = ("cgroup", "unit", "process", "device", "mount", "interface", "address", "user", "sensor", "file")
# A text that a program will fill in, of what did not happen, or a test's result (TAP): nobody's trouble.
_PATCH = re.compile(
    r"Applying: |(?=\d{0,39}[a-f])[0-9a-f]{7,40} \w[\w./-]{0,31}: "
)  # git tells one by its title
_BLANK = re.compile(r"(?<![\w%])%(?:\d\$)?(?:l{0,2}[dux]|s)\b|\bsimulated\b|^(?:not )?ok (?:\d|- )")
_DENIED = re.compile(r"\b(?:no|without(?: an?)?)\s+$", re.IGNORECASE)
_NEVER = re.compile(r"[\w-]\.invalid\b")  # a name that nobody can have (RFC 6761)
# Common and combined log format, a virtual host before it perhaps, or haproxy's (option httplog): what
# follows is what a stranger asked for.
_ACCESS = re.compile(
    r"(?:[\w.:-]{1,128} )?[\da-fA-F.:]{2,45} \S{1,64} .{1,256}? \[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\] \""
    r"|[\da-fA-F.:]{2,45}:\d{1,5} \[\d\d/\w{3}/\d{4}:[\d:]{8}\.\d{3}\] "
)
# Servers quote paths, requests and names as they come, quotes in them included: what lies between the first
# and the last quote is a stranger's, but for the one reason that nginx gives behind a path (ngx_log_errno).
_REASON = re.compile(r'" failed (?P<own>\(\d{1,3}: [^()"]{1,64}\))')
_RELAYED = "stderr: "  # of an application behind nginx, up to what nginx was doing
_GIVEN = re.compile(
    r"""(?x) (?<!\w)(?<!Got\ error\ )'(?:.*'(?!\w)|.*) | \buser=<.*> | <[^<>]*>
    | (?<!\S)\S{1,255}(?=\ ?\[[\da-fA-F.:]{3,45}\])
    | \#\d{1,5}\ \([^()]*\)
    | (?:\b[Ii](?:nvalid|llegal)\ user\ |\b(?:ruser|rhost|set_id|sasl_username|PWD|COMMAND)=
    |disconnect\ from\ |\bmaps\ to\ |identification\ |offer:\ |found:\ client\ |Change\ of\ username
    |\bsaid:\ |\bCMD\ \(|\breferer:\x20
    |\[client\ [^\]]{2,64}\]\ (?:AH(?!01071|01102|01114|01215)\d{5}|script\ |File\ does)) .*"""
)
_NAME_MAX = 200  # characters of a subject's name taken from a line

Subjects = tuple[tuple[SubjectKind, str], ...]


class Message(NamedTuple):
    """One entry. `writer` is "kernel", "pid1" or ""; then `writers` names programs, empty for any."""

    slug: str
    writer: str
    writers: frozenset[str]
    privileged: bool
    words: tuple[frozenset[str], ...]
    among: frozenset[str]  # one of these must occur, too, if there are any
    regex: str
    severity: Severity
    score: float
    hints: Mapping[FaultClass, float]
    ends: str
    repeat: str
    session: str
    persists: bool  # one is nothing, but one after the other for seconds is a fault
    wary: bool  # it says itself where strangers' words stand
    often: int  # so many of them at least, where some are as usual as none
    about: str  # "host": whoever writes it speaks of the whole host
    least: Mapping[str, float]  # a number of the line that is smaller than this makes it no news
    values: Mapping[str, float]  # what the line says without a number
    example: str

    @property
    def category(self) -> Category:
        """The category of what it hints at most."""
        if not self.hints:
            return Category.UNKNOWN
        return max(self.hints, key=lambda fault: self.hints[fault]).category

    def said(self, priority: int, text: str) -> Severity:
        """How bad it is in a line of this syslog priority.

        What any program may write is a warning, unless it says itself that it is an error: it may be data.
        """
        sure = bool(self.writer or self.writers) or self.score >= _SURE or priority <= _ERROR
        if sure or self.severity.rank <= Severity.WARNING.rank or self.category is Category.SECURITY:
            return self.severity
        return self.severity if priority_of(text) <= _ERROR else Severity.WARNING

    @property
    def pattern(self) -> re.Pattern[str]:
        """The compiled expression; compiled when first needed, since most entries never are."""
        return _compile(self.regex)


class Reading(NamedTuple):
    """What a line says: subjects, most to blame first, numbers, and the remaining named parts."""

    subjects: Subjects
    values: dict[str, float]
    parts: dict[str, str]


class Catalogue:
    """All entries, found by the words a line contains."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = tuple(messages)
        self.by_slug = {message.slug: message for message in self.messages}
        self._index: dict[str, list[tuple[frozenset[str], Message]]] = {}
        for message in self.messages:
            for words in message.words:
                anchor = max(sorted(words), key=len)
                self._index.setdefault(anchor, []).append((words, message))
        self._anchors = frozenset(self._index)

    def candidates(self, text: str) -> tuple[Message, ...]:
        """The entries of which all words of one alternative occur, in the order in which they are tried.

        Takes a few microseconds, whatever the text.
        """
        words = set(_LETTERS.findall(text))
        found: dict[str, Message] = {}
        for anchor in self._anchors & words:
            for needed, message in self._index[anchor]:
                if needed <= words and (not message.among or not message.among.isdisjoint(words)):
                    found[message.slug] = message
        return tuple(message for message in self.messages if message.slug in found) if found else ()


def read(message: Message, text: str, *, retold: bool = False) -> Reading | None:
    """What the line says if it is this message, else None.

    With `retold` its writer repeats what strangers say: what any program may say must be its own words then.
    """
    match = message.pattern.search(text)
    if match is None:
        return None
    own = text
    if retold and not (message.writer or message.writers or message.wary):
        own = own_words(text)
        match = match if own == text or message.pattern.search(own) else None
    if match is None or _hearsay(message, own, match.start()):
        return None
    parts: dict[str, str] = {}
    values = dict(message.values)
    for name, value in match.groupdict().items():
        if not value:
            continue
        if name.startswith("v_"):
            key, number = _value(name[2:], value)
            values[key] = number
        else:
            parts.setdefault(name.rstrip("0123456789"), value[:_NAME_MAX])
            if name[-1].isdigit():
                parts.setdefault(name, value[:_NAME_MAX])
    if (pid := parts.get("pid")) and len(pid) <= 10:
        values["pid"] = float(pid)
    return Reading(_subjects(parts), values, parts)


def own_words(text: str) -> str:
    """The text of a server with blanks for what strangers may have put into it; as long as before."""
    start = text.find('"')
    if start >= 0 and text.endswith(_RELAYED, 0, start):
        start = text.find('" while ', start)
    if start >= 0:
        end = len(text) if text.count('"', start) % 2 else text.rindex('"') + 1
        given = "_" * (end - start)
        reasons = [match.span("own") for match in _REASON.finditer(text, start)]
        # nginx gives one where a call failed, which it names before; of two, one is somebody else's.
        if len(reasons) == 1 and text.endswith("() ", 0, start):
            first, last = reasons[0]
            given = given[: first - start] + text[first:last] + given[last - start :]
        text = text[:start] + given + text[end:]
    return _GIVEN.sub(lambda match: "_" * len(match[0]), text)


def _hearsay(message: Message, text: str, start: int) -> bool:
    """Whether a program only quotes such a message, or says that it is none.

    Not where a stranger has a part in the text (a user's name, a request): he could hide himself by it. In a
    log of requests all is his.
    """
    if message.writer:
        return False
    security = message.category is Category.SECURITY
    if not (message.wary or (security and message.writers)) and _ACCESS.match(text):
        return True
    if message.writers or message.repeat or security:
        return False
    if _PATCH.match(text) or _BLANK.search(text) or _DENIED.search(text, max(0, start - 24), start):
        return True
    return FaultClass.NAME_RESOLUTION in message.hints and _NEVER.search(text) is not None


def unit_of_cgroup(path: str) -> str:
    """The unit of a control group (the first part after the slices), else the path, "" for the root."""
    last = ""
    for part in path.split("/"):
        if not part:
            continue
        if not part.endswith(".slice"):
            return part if _UNIT.search(part) else path
        last = part
    return last


def _value(name: str, text: str) -> tuple[str, float]:
    number = float(text[:32])
    name = name.rstrip("0123456789")
    if name.endswith("_kib"):
        return name.removesuffix("_kib"), number * 1024
    return name, number


def _subjects(parts: Mapping[str, str]) -> Subjects:
    named = [(name, parts[name].strip()) for name in _ORDER if name in parts]
    found = [_subject(name, value, parts) for name, value in named if value]
    return tuple(subject for subject in found if subject[1])


def _subject(name: str, value: str, parts: Mapping[str, str]) -> tuple[SubjectKind, str]:
    if name == "cgroup":
        return SubjectKind.UNIT, unit_of_cgroup(value)
    if name == "process" and "pid" in parts:
        return SubjectKind.PROCESS, f"{value}[{parts['pid']}]"
    if name == "mount":
        return SubjectKind.MOUNT, value if value.startswith("/") else f"/{value}"
    if name == "file" and value.startswith("/dev/") and "/" not in value[5:]:
        return SubjectKind.DEVICE, value[5:]
    if name == "device" and (numbers := _NUMBERS.fullmatch(value)):
        return SubjectKind.DEVICE, f"dm-{numbers['minor']}"
    return _KINDS[name], value


@cache
def _compile(regex: str) -> re.Pattern[str]:
    return re.compile(regex)


# --- the files ------------------------------------------------------------------------------------------


@cache
def load() -> Catalogue:
    """The catalogue that ships; read once a process."""
    messages: list[Message] = []
    for file in sorted(_FOLDER.glob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        messages.extend(_message(entry, content) for entry in content["message"])
    return Catalogue(messages)


def _message(entry: dict[str, Any], content: dict[str, Any]) -> Message:
    return Message(
        slug=entry["slug"],
        writer=entry.get("writer", content.get("writer", "")),
        writers=frozenset(entry.get("from", ())),
        privileged=entry.get("privileged", False),
        words=tuple(frozenset(_LETTERS.findall(words)) for words in entry["words"]),
        among=frozenset(entry.get("among", ())),
        regex=entry["pattern"],
        severity=Severity(entry["severity"]),
        score=float(entry["score"]),
        hints={FaultClass(fault): float(weight) for fault, weight in entry["hints"].items()},
        ends=entry.get("ends", ""),
        repeat=entry.get("repeat", ""),
        session=entry.get("session", ""),
        persists=entry.get("persists", False),
        wary=entry.get("wary", False),
        often=int(entry.get("often", 1)),
        about=entry.get("about", ""),
        least={name: float(value) for name, value in entry.get("least", {}).items()},
        values={name: float(value) for name, value in entry.get("values", {}).items()},
        example=entry["example"],
    )
