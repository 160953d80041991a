"""What is odd about log lines nobody knows, as findings: new ones, too many, none any more.

Pure wording and weighing; who counts and remembers is `daemon.tiers.lines`. Everything here hints weakly, so
that it cannot open an incident alone, unless the writer itself cries alarm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from daemon.messages import MAX_TEXT, Line, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.opinions import Opinion
from daemon.tiers.rates import SUSTAINED_WINDOWS, WINDOW_S, Watch
from daemon.tiers.wording import quantity, span
from daemon.tiers.writers import Writer, nameless_file, of_system
from models.alertness import speaks_for
from models.taxonomy import Category, FaultClass, Severity, SubjectKind
from models.templates import Template

NOVEL_PER_MINUTE = 5  # of one writer; more novelties at once are one event: a new release, a new service
# A trusted writer that says "error" and a model that is this sure of it are two witnesses: they speak for a
# fault (a hint above 0.3), yet not loudly enough to open an incident alone (0.9 of 0.55 is below 0.5).
ALARM = 0.9
ALARM_HINT = 0.45
# File systems and block layers name what they speak of in front: "EXT4-fs (sda1): ", "XFS (dm-0): ".
_KERNEL_DEVICE = re.compile(
    r"(?:EXT4-fs|XFS|BTRFS|F2FS-fs|JBD2|NTFS3?|FAT-fs|SQUASHFS|EROFS)"
    r"(?: (?:error|warning|info|critical))?:? ?\((?:device )?([\w!-]{1,32})\)"
)
UNREAD = "line.unread"
READ_AT = frozenset({1, 2, 8, 64, 512})  # lines of one kind: how often says what once may not
COMPLAINED_AT = READ_AT | {4}  # what sounds like a complaint is no single slip any more
ALERT_WEIGHT = 0.25  # of the model's alert-worthiness, where the words' counts 0.1


def subject_of(line: Line) -> Subject:
    """The line's own writer as a subject: its unit, else its program, else its own file, else the host."""
    if line.trusted and line.unit:
        return Subject(SubjectKind.UNIT, line.unit)
    if line.identifier == "kernel" and line.trusted and (named := _KERNEL_DEVICE.match(line.text)):
        return Subject(SubjectKind.DEVICE, named[1])
    if path := nameless_file(line):
        return Subject(SubjectKind.FILE, path)
    if line.identifier and line.identifier != "kernel":
        return Subject(SubjectKind.PROCESS, line.identifier)
    return Subject(SubjectKind.HOST, "")


def novel(template: Template, watch: Watch, line: Line) -> Breach:
    """A kind of line that was never seen before."""
    grave = 0.3 if line.priority <= 2 and of_system(line) else 0.1 if line.priority <= 3 else 0.0
    opinion = watch.opinion
    worth = 0.1 * watch.worthy if opinion is None else ALERT_WEIGHT * opinion.alert
    return Breach(
        rule="line.novel",
        label=template.key,
        severity=_severity(line, opinion),
        score=round(min(0.6, 0.2 + grave + worth), 2),
        subjects=[subject_of(line)],
        hints=_hints(line, opinion),
        text=line.text[:MAX_TEXT],
        values={},
        ref=line.cursor or line.source,
        kind="line",
        once=True,
        category=Category.UNKNOWN if opinion is None else opinion.category,
        path="baseline" if opinion is None else "model",
        words=line.source != "kernel",
    )


def unread(template: Template, line: Line) -> Breach:
    """A kind of line that no rule here understands, for somebody who reads it; it hints at nothing."""
    return Breach(
        rule=UNREAD,
        label=f"{template.key} {template.count}",
        severity=Severity.of_priority(line.priority),
        score=0.1,
        subjects=[subject_of(line)],
        hints={},
        text=line.text[:MAX_TEXT],
        values={"lines_count": float(template.count)},
        ref=line.cursor or line.source,
        kind="line",
        once=True,
        category=Category.UNKNOWN,
    )


def _severity(line: Line, opinion: Opinion | None) -> Severity:
    """The writer's own word or the model's, whichever is graver; of a stranger's line it makes a warning."""
    said = Severity.of_priority(line.priority)
    if opinion is None:
        return said
    read = opinion.severity
    if not of_system(line) and read.rank > Severity.WARNING.rank:
        read = Severity.WARNING
    return max(said, read, key=lambda one: one.rank)


def _hints(line: Line, opinion: Opinion | None) -> Mapping[FaultClass, float]:
    """What an oddity hints at: little, whatever its words, unless its writer and the model say alarm."""
    spoken = speaks_for(line.text)
    if line.priority <= 2 and of_system(line):
        return dict.fromkeys(spoken, 0.5) or {FaultClass.UNKNOWN: 0.5}
    if opinion is not None and line.priority <= 3 and of_system(line) and _alarming(opinion):
        return dict.fromkeys(spoken, ALARM_HINT) or {FaultClass.UNKNOWN: ALARM_HINT}
    return spoken


def _alarming(opinion: Opinion) -> bool:
    return opinion.alert >= ALARM and opinion.severity.rank >= Severity.ERROR.rank


def many_novel(writer: Writer, line: Line) -> Breach:
    """One writer says so much that is new that it is one event."""
    return Breach(
        rule="line.novel",
        label=f"many {writer.name}",
        severity=Severity.INFO,
        score=0.25,
        subjects=[subject_of(line)],
        hints={},
        text=f"more than {NOVEL_PER_MINUTE} kinds of lines within a minute that were never seen before",
        values={"window_s": 60.0},
        ref=line.cursor or line.source,
        kind="event",
        once=True,
        category=Category.UNKNOWN,
    )


def burst(template: Template, watch: Watch, line: Line) -> Breach:
    """Far more lines of a kind than usual."""
    rate, usual = watch.now / WINDOW_S, watch.mean / WINDOW_S
    sustained = watch.over >= SUSTAINED_WINDOWS
    bad = line.priority <= 4 or watch.worthy
    opinion = watch.opinion
    return Breach(
        rule="line.rate" if sustained else "line.burst",
        label=template.key,
        severity=Severity.WARNING if bad else Severity.INFO,
        score=0.35 if bad else 0.2,
        subjects=[subject_of(line)],
        hints=speaks_for(line.text),
        text=f"{quantity(rate)} lines/s of one kind, usually {quantity(usual)}: {line.text[:256]}",
        values={"rate_per_s": rate, "usual_per_s": usual, "window_s": WINDOW_S},
        ref=line.cursor or line.source,
        kind="line",
        stale_s=3.0 * WINDOW_S,
        category=Category.UNKNOWN if opinion is None else opinion.category,
        path="baseline" if opinion is None else "model",
    )


def silence(template: Template, watch: Watch, t: float) -> Breach:
    """A heartbeat that stopped."""
    unit = template.origin.partition("/")[0]
    subject = (
        Subject(SubjectKind.UNIT, unit) if "." in unit and "<" not in unit else Subject(SubjectKind.HOST, "")
    )
    silent_s = t - watch.last_t
    return Breach(
        rule="line.silence",
        label=template.key,
        severity=Severity.INFO,
        score=0.3,
        subjects=[subject],
        hints={FaultClass.SERVICE_HUNG: 0.25},
        text=f"no line of a kind that came every {span(watch.gap_s)} for {span(silent_s)}: {template}"[:512],
        values={"duration_s": silent_s, "period_s": watch.gap_s},
        kind="line",
        once=True,
        stale_s=600.0,
        category=Category.UNKNOWN,
    )


def overflow(count: int) -> Breach:
    """Findings that were held back."""
    return Breach(
        rule="line.overflow",
        label="",
        severity=Severity.INFO,
        score=0.2,
        subjects=[Subject(SubjectKind.HOST, "")],
        hints={},
        text=f"{count} findings about log lines were held back because there were too many",
        values={"lost_count": float(count)},
        kind="event",
        category=Category.UNKNOWN,
    )
