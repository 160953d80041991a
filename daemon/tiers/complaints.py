"""Complaints that no catalogue knows: one is nothing, but a service that goes on complaining has a trouble.

Pure, on observation time, bounded. What a line complains about is `models.complaints`' to say.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from daemon.messages import MAX_TEXT, Line, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.rates import Watch
from daemon.tiers.symptoms import LABELS_MAX, Symptoms
from daemon.tiers.writers import Writer, of_system, own_file
from models.complaints import complaint, status
from models.taxonomy import FaultClass, Severity, SubjectKind

RULE = "unit.complaint"
# So many for so many seconds: what calls itself an error needs less than what may be a remark.
GRAVE_PRIORITY = 3
GRAVE = ((3, 2.0),)
PLAIN = ((6, 4.0), (3, 8.0))
PAUSE_S = 15.0  # between two that belong together: pollers ask every ten seconds
CHRONIC_HOURS = 6  # of the last day in which a service complained of it: that is how it is here
DAY_HOURS = 24
FAILING = 0.5  # of the latest requests are answered with a failure
RECENT = 0.2  # weight of the latest: half of it are the latest three
NONE = 0.01  # less of them failed so long ago that none did
_ANSWER = 3  # as grave as an error is an answer that the server failed
_SCORE, _GRAVE_SCORE = 0.6, 0.65
# Strangers make these complain all day; what they say is read by the catalogue alone.
_OPEN_TO_ALL = frozenset(
    {
        *("sshd", "sshd-session", "sshd-auth", "smtpd", "smtp", "postscreen", "qmgr", "cleanup", "exim"),
        *("exim4", "named", "sudo", "su", "cron", "crond", "CRON", "fail2ban", "fail2ban-server"),
        *("kernel", "systemd", "systemd-logind", "nginx", "apache2", "httpd"),
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


class Complaints:
    """What each service complains of lately."""

    def __init__(self, symptoms: Symptoms) -> None:
        self._symptoms = symptoms
        self._past: OrderedDict[str, _Past] = OrderedDict()

    def judge(self, watch: Watch, writer: Writer, line: Line, t: float) -> Breach | None:
        """One line of a kind; the breach if its writer goes on complaining by now."""
        if watch.complaint is None:
            watch.complaint = complaint(line.text)
            watch.failing = 0.0 if status(line.text) else -1.0
            watch.complains = watch.complaint.fault is not None or watch.failing == 0.0
        fault, priority = watch.complaint
        if watch.failing >= 0.0:
            failed = watch.failing > 0.0 or " 5" in line.text
            fault, priority = _answered(watch, status(line.text)) if failed else None, _ANSWER
        subject = _subject(writer, line) if fault else None
        if fault is None or subject is None or self._symptoms.building(line.unit, t):
            return None
        label = f"{fault} {subject.name}"
        grave = min(priority, line.priority) <= GRAVE_PRIORITY
        least = (*GRAVE, *PLAIN) if grave else PLAIN
        lasts = self._symptoms.persists(label, t, least=least, pause_s=PAUSE_S)
        if self._is_chronic(label, t) or not lasts:
            return None
        return _breach(label, fault, subject, line, grave=grave)

    def _is_chronic(self, label: str, t: float) -> bool:
        hour = int(t // 3600.0)
        past = self._past.pop(label, None) or _Past()
        self._past[label] = past.with_hour(hour)
        if len(self._past) > LABELS_MAX:
            self._past.popitem(last=False)
        return past.before(hour) >= CHRONIC_HOURS


def _answered(watch: Watch, answer: int) -> FaultClass | None:
    """What most of the latest answers of a server fail of, if they do and this one did."""
    watch.failing += RECENT * ((answer in _STATUSES) - watch.failing)
    if watch.failing < NONE:
        watch.failing = 0.0
    return _STATUSES.get(answer) if watch.failing >= FAILING else None


def _subject(writer: Writer, line: Line) -> Subject | None:
    """Whose complaint it is; None of those that are not to be heard here."""
    if writer.role or line.identifier in _OPEN_TO_ALL:
        return None
    if line.trusted and line.unit.endswith(".service") and of_system(line):
        return Subject(SubjectKind.UNIT, line.unit)
    path = own_file(line)
    return Subject(SubjectKind.FILE, path) if path else None


def _breach(label: str, fault: FaultClass, subject: Subject, line: Line, *, grave: bool) -> Breach:
    score = _GRAVE_SCORE if grave else _SCORE
    hints = {fault: score}
    if fault in _BESIDE:
        other, hint = _BESIDE[fault]
        hints[other] = hint
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
        stale_s=60.0,
        category=fault.category,
    )
