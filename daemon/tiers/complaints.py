"""Complaints that no catalogue knows: one is nothing, but a service that goes on complaining has a trouble.

Pure, on observation time, bounded. What a line complains about is for `models.complaints` to say, and where
no words that all programs share say it, for `models.reading`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from daemon.messages import MAX_TEXT, Line, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.oddities import subject_of
from daemon.tiers.rates import Watch
from daemon.tiers.symptoms import LABELS_MAX, Symptoms
from daemon.tiers.writers import KERNEL, OPEN_TO_ALL, Writer, of_system, own_file, retells
from models.alertness import word_weight
from models.complaints import Complaint, complaint, status
from models.known import Message, own_words
from models.reading import Reading, load, reading
from models.taxonomy import FaultClass, Severity, SubjectKind

RULE = "unit.complaint"
# So many for so many seconds: what calls itself an error needs less than what may be a remark.
GRAVE_PRIORITY = 3
GRAVE = ((3, 2.0),)
PLAIN = ((6, 4.0), (3, 8.0))
STALE_S = 60.0  # after which nobody complains any more
PAUSE_S = 15.0  # between two that belong together: pollers ask every ten seconds
CHRONIC_HOURS = 6  # of the last day in which a service complained of it: that is how it is here
DAY_HOURS = 24
FAILING = 0.5  # of the latest requests are answered with a failure
RECENT = 0.2  # weight of the latest: half of it are the latest three
NONE = 0.01  # less of them failed so long ago that none did
_ANSWER = 3  # as grave as an error is an answer that the server failed
_SCORE, _GRAVE_SCORE, _ALONE_SCORE = 0.6, 0.65, 0.55
_WARNING = 4
WORDS = 0.35  # of word_weight: a word such as "failed" or "cannot"
WEIGHED_MAX = 512  # characters of a line
EXPLAINS = 0.5  # of a reading: enough to say why a unit failed right after it
SURE = 0.7  # of a reading: of programs that it did not learn from nine in ten are faults then
ALONE_KERNEL, ALONE, ONCE = 0.8, 0.85, 0.8  # nineteen in twenty
_SAID_ONCE = frozenset(
    {FaultClass.CONFIG_ERROR, FaultClass.SERVICE_CRASH}
)  # then it ends, and that is told of
# What a runtime says of a mistake in the program: whatever its words are about, the program crashed.
_MISTAKE = re.compile(
    r"Traceback |(?:Key|Type|Value|Attribute|Index|Name|ZeroDivision|Assertion|Recursion|UnboundLocal|Range"
    r"|Runtime|Reference|Overflow|NotImplemented)Error\b"
    r"|(?:java\.lang\.)?(?:NullPointer|IndexOutOfBounds|ClassCast|Arithmetic)Exception\b"
    r"|goroutine \d|\s+(?:at|File) "
)
# So begins what a program logs; in a file that names no program it passes for the kernel's.
_LOGGER = re.compile(r"\[(?:emerg|alert|crit|error|warn|notice|info|debug)\b", re.IGNORECASE)
LEARNT = 0.45  # spoken for (grouping.SPEAKS)
# Strangers make some complain all day (`OPEN_TO_ALL`); but these are never a stranger's trouble.
_OWN = frozenset(
    {
        *(FaultClass.DISK_FULL, FaultClass.MEMORY_EXHAUSTION, FaultClass.FD_EXHAUSTION),
        *(FaultClass.FILESYSTEM_CORRUPT, FaultClass.SERVICE_CRASH),
    }
)
_STATUSES = {
    502: FaultClass.DEPENDENCY_FAILED,
    503: FaultClass.DEPENDENCY_FAILED,
    504: FaultClass.SERVICE_HUNG,
}
_BESIDE = {
    FaultClass.SERVICE_HUNG: (FaultClass.DEPENDENCY_FAILED, 0.5)
}  # whom it waits for hangs, or is gone


class _Past(NamedTuple):
    """In which of the last hours there were complaints; the newest last."""

    hours: tuple[int, ...] = ()

    def with_hour(self, hour: int) -> _Past:
        return self if hour in self.hours else _Past((*self.hours, hour)[-DAY_HOURS:])

    def before(self, hour: int) -> int:
        return sum(hour - DAY_HOURS <= one < hour for one in self.hours)


class Meaning:
    """What lines of one form may mean: by the catalogue, and as a complaint."""

    __slots__ = ("answers", "complains", "complaint", "known", "reading")

    def __init__(self) -> None:
        self.known: tuple[Message, ...] = ()
        self.complaint: Complaint | None = None  # None until a line was read for it
        self.complains = True  # or nobody has asked
        self.reading: Reading | None = None  # what it is about where no words that all share say it
        self.answers = False  # whether it stands in an access log


class Complaints:
    """What each service complains of lately."""

    def __init__(self, symptoms: Symptoms) -> None:
        """Raises BundleError if what was learnt of messages is damaged."""
        load()
        self._symptoms = symptoms
        self._past: OrderedDict[str, _Past] = OrderedDict()
        self._told: OrderedDict[str, float] = OrderedDict()  # when each was told of last

    def judge(self, watch: Watch, meaning: Meaning, writer: Writer, line: Line, t: float) -> Breach | None:
        """One line of a kind; the breach if its writer goes on complaining by now."""
        fault, priority, _ = meaning.complaint or _ask(meaning, writer, line)
        if meaning.answers:
            failed = watch.failing > 0.0 or " 5" in line.text
            fault, priority = _answered(watch, status(line.text)) if failed else None, _ANSWER
        grave = min(priority, line.priority) <= GRAVE_PRIORITY
        read = meaning.reading
        alone = read is not None and grave and _speaks_alone(read, writer, line)
        if read is not None and not alone and (fault in _SAID_ONCE or read.sure < SURE):
            fault = None
        subject = _subject(writer, line, alone=alone, own=fault in _OWN) if fault else None
        if fault is None or subject is None or self._symptoms.building(line, t):
            return None
        label = f"{fault} {subject.name}"
        least = (*GRAVE, *PLAIN) if grave else PLAIN
        lasts = self._symptoms.persists(label, t, least=least, pause_s=PAUSE_S)
        going = t - self._told.get(label, -STALE_S) < STALE_S  # one that lasts is one, however long
        if (not going and self._is_chronic(label, t)) or not (lasts or alone):
            return None
        self._told[label] = t
        self._told.move_to_end(label)
        if len(self._told) > LABELS_MAX:
            self._told.popitem(last=False)
        hints = _hints(fault, learnt=read is not None, score=_score(lasts=lasts, grave=grave))
        return _breach(label, hints, subject, line)

    def _is_chronic(self, label: str, t: float) -> bool:
        hour = int(t // 3600.0)
        past = self._past.pop(label, None) or _Past()
        self._past[label] = past.with_hour(hour)
        if len(self._past) > LABELS_MAX:
            self._past.popitem(last=False)
        return past.before(hour) >= CHRONIC_HOURS


def _ask(meaning: Meaning, writer: Writer, line: Line) -> Complaint:
    """What a kind of line complains about: by the words that all share, else by what was learnt."""
    text = own_words(line.text) if retells(line) else line.text
    said = complaint(text)
    meaning.answers = bool(status(line.text))
    unknown = said.fault is None and not said.calm and not meaning.answers
    if unknown and _may_complain(line, said.priority):
        read = reading(text, kernel=writer.role == KERNEL)
        if read.fault is not None and read.sure >= EXPLAINS:
            meaning.reading = read
            said = said._replace(fault=read.fault)
    meaning.complaint = said
    meaning.complains = said.fault is not None or meaning.answers
    return said


def _may_complain(line: Line, priority: int) -> bool:
    if _MISTAKE.match(line.text):
        return False
    return min(line.priority, priority) <= _WARNING or word_weight(line.text[:WEIGHED_MAX]) >= WORDS


def _speaks_alone(read: Reading, writer: Writer, line: Line) -> bool:
    """Whether somebody should be told though it is said only once."""
    if read.once < ONCE:
        return False
    if writer.role == KERNEL:
        said = read.sure >= ALONE_KERNEL and line.priority <= GRAVE_PRIORITY
        return said and not _LOGGER.match(line.text)
    return read.sure >= ALONE and (line.priority <= GRAVE_PRIORITY or read.fault not in _SAID_ONCE)


def _answered(watch: Watch, answer: int) -> FaultClass | None:
    """What most of the latest answers of a server fail of, if they do and this one did."""
    watch.failing += RECENT * ((answer in _STATUSES) - watch.failing)
    if watch.failing < NONE:
        watch.failing = 0.0
    return _STATUSES.get(answer) if watch.failing >= FAILING else None


def _subject(writer: Writer, line: Line, *, alone: bool, own: bool) -> Subject | None:
    """Whose complaint it is; None of those that are not to be heard here."""
    if alone and writer.role == KERNEL:
        return subject_of(line)
    if writer.role or (not OPEN_TO_ALL.isdisjoint(line.identifier.split("/")) and not own):
        return None
    if line.trusted and line.unit.endswith(".service") and of_system(line):
        return Subject(SubjectKind.UNIT, line.unit)
    path = own_file(line)
    return Subject(SubjectKind.FILE, path) if path else None


def _score(*, lasts: bool, grave: bool) -> float:
    if not lasts:
        return _ALONE_SCORE
    return _GRAVE_SCORE if grave else _SCORE


def _hints(fault: FaultClass, *, learnt: bool, score: float) -> dict[FaultClass, float]:
    """What a complaint hints at; what is only learnt may be about anything that is known of its writer."""
    if learnt:
        return {fault: score, FaultClass.UNKNOWN: LEARNT}
    other, hint = _BESIDE.get(fault, (fault, score))
    return {fault: score, other: hint}


def _breach(label: str, hints: dict[FaultClass, float], subject: Subject, line: Line) -> Breach:
    fault, score = next(iter(hints.items()))
    return Breach(
        rule=RULE,
        label=label,
        severity=Severity.WARNING,
        score=score if line.trusted else 0.9 * score,
        subjects=[subject],
        hints=hints,
        text=line.text[:MAX_TEXT],
        values={},
        ref=line.cursor or line.source,
        kind="line",
        stale_s=STALE_S,
        category=fault.category,
        words=line.source != "kernel",
    )
