"""What known messages amount to: conditions that last or end, logins that add up, sessions that begin.

Pure, on observation time. The catalogue says what a message means; here it becomes findings and events.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from daemon.messages import MAX_NAME, MAX_TEXT, Event, Finding, Line, Stamp, Subject
from daemon.subjects import label_of
from daemon.tiers.conditions import SPEAKS, Breach, Conditions
from daemon.tiers.crashes import Crashes
from daemon.tiers.logins import UNCHECKED, Attempt, Logins, Told
from daemon.tiers.oddities import subject_of
from daemon.tiers.places import Places
from daemon.tiers.privileges import Privileges
from daemon.tiers.reasons import Reasons, due_to
from daemon.tiers.symptoms import LEAST, LEAST_S, STOPPED_S, Symptoms
from daemon.tiers.view import own_unit, service
from daemon.tiers.writers import CHILD, Writers, believed, own_file, privileged, retells, role_of, unit_meant
from models.known import Message, Reading, load, read
from models.taxonomy import Category, FaultClass, SubjectKind

LASTS_S = 3600.0  # what ends by a message of its own, such as a link that comes up
STALE_S = 60.0
EVENTS_MAX = 256
VICTIMS_MAX = 64
COUNTS_MAX = 1024
FAILURES_MAX = 100  # that one line may claim; sshd gives up after six
DEPENDENT = "unit-dependency"
STARTED = "unit-started"
# Units of name servers by what they are called everywhere; a failure of theirs is one from this score on.
_RESOLVER = re.compile(
    r"^(?:[\w@-]{0,32}(?:dns|resolv)[\w@.-]{0,64}|(?:named|unbound|bind9?|nscd|kresd\S{0,8}))\.service$"
)
FAILS, RESOLVES = 0.5, 0.62  # such that it is spoken for (grouping.SPEAKS) by a unit that failed (0.65)
GONE = 0.5  # of the blame: enough to tie it to what is told of that unit (grouping.TIED)
ONCE = 1.0  # the size of a symptom; it is told again when it has doubled
PERSISTENT, PERSISTENT_HINT = 0.65, 0.7  # what goes on for seconds is as sure as a unit that failed
# The manager says "Dependency failed" right after what failed (systemd's job_finish_and_invalidate).
AT_ONCE_S = 0.5
FAULT_S = 5.0  # the manager tells of it once the core is dumped
STOPPING_S = 600.0  # longer than units usually may take (TimeoutStopSec=, 90 s by default)
STOPPING_MAX = 256
_STOPPED_IN_ORDER = frozenset({Category.SERVICE, Category.NETWORK})
_CRASH = FaultClass.SERVICE_CRASH
_ON_FILES = frozenset({"no-space", "quota-exceeded", "read-only-filesystem", "io-error"})
LEFT = 0.15  # of a hint at what a file system has enough of
SUBJECTS_MAX = 8
_HINTS = frozenset({"login-unknown-user", "login-key-refused", "login-probe", "login-attempts-exceeded"})


class Meanings:
    """Turns lines that the catalogue knows into findings; keeps what has to be added up."""

    def __init__(self, conditions: Conditions, places: Places, writers: Writers, *, read: bool) -> None:
        self.events: list[Event] = []
        self._conditions, self._is_read = conditions, read  # by somebody, before an operator is told
        self._places = places
        self._writers = writers
        self._logins = Logins()
        self._crashes = Crashes()
        self._privileges = Privileges()
        self.symptoms = Symptoms()
        self._lasting = frozenset(message.ends for message in load().messages if message.ends)
        self._endings = frozenset(message.slug for message in load().messages if _tells_no_reason(message))
        self._victims: OrderedDict[int, Subject] = OrderedDict()  # units of processes the kernel names by pid
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._stopping: OrderedDict[str, float] = OrderedDict()  # units that somebody stops, and since when
        self._reasons = Reasons()
        self._failed: tuple[Subject, float] | None = None  # what the manager said last to have failed
        self._faulted: tuple[Subject, float] | None = None  # the program whose fault the kernel told of last

    def judge(self, known: Sequence[Message], line: Line, t: float) -> tuple[bool, list[Finding]]:
        """Whether the line is one of these messages, and the findings that are due."""
        fitting: tuple[Message, Reading] | None = None
        for message in known:
            if (message.privileged and not privileged(line)) or (fitting and not _tells_why(message)):
                continue
            reading = read(message, line.text, retold=retells(line))
            if reading is None or not _about_itself(message, reading, line):
                continue
            if message.repeat in UNCHECKED:
                self._logins.unchecked(line.pid if line.trusted else 0, t, message.repeat)
                continue
            if fitting is None and message.slug in self._endings:
                fitting = message, reading  # unless another entry knows why
                continue
            return True, self._mean(message, reading, line, t)
        return (True, self._mean(*fitting, line, t)) if fitting else (False, [])

    def _mean(self, message: Message, reading: Reading, line: Line, t: float) -> list[Finding]:
        if message.session or message.repeat == "builds":
            self._note(message, reading, line, t)
            return []
        if message.repeat.startswith(("login", "pam")):
            return self._login(message, reading, line, t)
        subjects = self._subjects(message, reading, line)
        if message.writer == "pid1":
            if self._asked_to_stop(message, reading, line, t):
                return []
            self._tie_failure(message, subjects, t)
            self._tie_fault(reading, subjects, t)
            message = _of_resolver(self._reasons.of_end(message, subjects, t), subjects[0])
        else:
            self._keep(message, subjects[0], t)
            message = self._reasons.of_words(self._placed(message, subjects, line, t), subjects, line, t)
        label = label_of(subjects[0])
        if message.ends:
            begun = self._crashes.begun(subjects[0], t) if message.slug == STARTED else None
            ended = self._conditions.end(f"known.{message.ends}", label, line.at)
            return ended + (self._conditions.hold(begun, line.at, t) if begun else [])
        if (
            self._goes_down(message, line, t)
            or message.score <= 0.1
            or any(abs(reading.values.get(name, least)) < least for name, least in message.least.items())
        ):
            return []
        breach = self._breach(message, reading, line, subjects, t=t)
        if message.persists and self._goes_on(message, f"{message.slug} {label}", line, t):
            breach = self.accuse(_persistent(breach), t)
        findings = self._conditions.hold(breach, line.at, t)
        if message.repeat:
            findings += self._add_up(message, reading, line, subjects[0], t)
        return findings

    def _goes_on(self, message: Message, label: str, line: Line, t: float) -> bool:
        """Whether one more line of a symptom makes it a fault."""
        if self.symptoms.building(line, t):
            return False
        least = LEAST if message.often == 1 else ((message.often, LEAST_S),)
        return self.symptoms.persists(label, t, least=least)

    def explain(self, fault: FaultClass, sure: float, line: Line, t: float) -> None:
        """A program complained in words of its own; if it ends now, that was the reason."""
        if line.trusted and line.unit:
            self._reasons.complains(fault, line.unit, t, sure=sure)

    def accuse(self, breach: Breach, t: float) -> Breach:
        """Name whom nobody reaches any more, if the manager has just said who failed or was stopped."""
        gone = Subject(SubjectKind.UNIT, self.symptoms.away(t), GONE)
        if self._failed and t - self._failed[1] <= STOPPED_S:
            gone = replace(self._failed[0], score=GONE)
        if FaultClass.DEPENDENCY_FAILED not in breach.hints or not gone.name:
            return breach
        if any((one.kind, one.name) == (gone.kind, gone.name) for one in breach.subjects):
            return breach
        return breach._replace(subjects=[*breach.subjects, gone])

    def _add_up(
        self, message: Message, reading: Reading, line: Line, subject: Subject, t: float
    ) -> list[Finding]:
        """What one more of these lines amounts to, with those before it."""
        if message.repeat == "denied":
            breach = self._privileges.denied(reading, line, t)
        else:
            breach = self._loop(message, reading, subject, t)
        if breach is None:
            return []
        return self._conditions.hold(breach._replace(ref=line.cursor or line.source), line.at, t)

    def _breach(
        self, message: Message, reading: Reading, line: Line, subjects: list[Subject], *, t: float
    ) -> Breach:
        label = label_of(subjects[0])
        rule = f"known.{message.slug}"
        values = dict(reading.values)
        trust = 1.0 if line.trusted else 0.9 if own_file(line) else 0.8  # anybody may write to a system's log
        hints = message.hints
        if not believed(message, line) or self._of_a_build(message, line, t):
            trust, hints = 0.5, {fault: min(0.3, 0.4 * weight) for fault, weight in hints.items()}
        count = self._count(rule, label)
        if count > 1:
            values.setdefault("errors_count", float(count))
        return Breach(
            rule=rule,
            label=label,
            severity=message.severity if self._is_read else message.said(line.priority, line.text),
            score=round(trust * message.score, 3),
            subjects=subjects,
            hints=hints,
            text=line.text[:MAX_TEXT],
            values=values,
            ref=line.cursor or line.source,
            kind="line",
            stale_s=LASTS_S if message.slug in self._lasting else STALE_S,
            category=message.category,
            size=ONCE if message.persists else 0.0,
            words=not message.writer,
        )

    def _of_a_build(self, message: Message, line: Line, t: float) -> bool:
        """Whether a test or a program under test says it: that is somebody's code, and no service."""
        return message.category is Category.SERVICE and self.symptoms.building(line, t)

    def _count(self, rule: str, label: str) -> int:
        """Lines of this condition since it began."""
        key = (rule, label)
        count = self._counts.get(key, 0) + 1 if self._conditions.holds(rule, label) else 1
        self._counts[key] = count
        self._counts.move_to_end(key)
        if len(self._counts) > COUNTS_MAX:
            self._counts.popitem(last=False)
        return count

    def _loop(self, message: Message, reading: Reading, subject: Subject, t: float) -> Breach | None:
        label = label_of(subject)
        if message.repeat == "restart":
            restarts = int(min(reading.values.get("restarts_count", 0.0), 1e9))
            return self._crashes.restarted(subject, label, restarts, t)
        if message.repeat != "crash":
            return None
        told = message.slug, reading.values.get("pid", 0.0)
        return due_to(message, self._crashes.crashed(subject, label, t, *told))

    def _login(self, message: Message, reading: Reading, line: Line, t: float) -> list[Finding]:
        address = reading.parts.get("address", "")
        if address and not (privileged(line) or line.unit.endswith(".service")):
            return []  # a user's own program names a stranger
        count = reading.values.get("failures_count", 0.0)
        told: Told = "password"
        if message.repeat == "pam" or (message.slug == "login-attempts-exceeded" and count):
            told = "pam"
        elif message.slug in _HINTS:
            told = "hint"
        user = reading.parts.get("user", "")
        if told == "hint" and not (address and user):
            return []  # whoever only connects has tried nothing: a scan, or a monitor that asks for the port
        count = max(1, min(int(count), FAILURES_MAX))
        unit = line.unit if line.trusted and service(line.unit) else ""
        ref, by = line.cursor or line.source, reading.parts.get("by", "") or ("" if address or user else unit)
        attempt = Attempt(address, user, line.pid, told, count, ref, line.at, by, unit)
        accepted = message.repeat == "login-accepted"
        breach = self._logins.accepted(attempt, t) if accepted else self._logins.failed(attempt, t)
        return self._conditions.hold(breach, line.at, t) if breach else []

    def tick(self, t: float, at: Stamp) -> list[Finding]:
        """Observation time has come to `t`: attacks that fell quiet are told with their totals."""
        breaches = self._logins.quiet(t)
        return [finding for breach in breaches for finding in self._conditions.retell(breach, at, t)]

    def _note(self, message: Message, reading: Reading, line: Line, t: float) -> None:
        """What is no trouble, but tells what the host does."""
        if message.session:
            self._tell_session(message, reading, line)
        else:
            self.symptoms.builds(line, t)

    def _tell_session(self, message: Message, reading: Reading, line: Line) -> None:
        attributes = {
            key: value
            for key, value in reading.parts.items()
            if key in {"service", "tty", "target", "command", "address"}
        }
        if len(self.events) < EVENTS_MAX and (line.trusted or message.session != "sudo"):
            name = reading.parts.get("user", "")[:MAX_NAME]
            self.events.append(Event(line.at, line.source, "session", name, message.session, attributes))

    def _subjects(self, message: Message, reading: Reading, line: Line) -> list[Subject]:
        if message.about == "host":
            return [Subject(SubjectKind.HOST, "")]
        subjects = [
            Subject(kind, name, 1.0 if i == 0 else 0.6) for i, (kind, name) in enumerate(reading.subjects)
        ]
        if message.writer == "kernel":
            self._add_victim(subjects, reading.values)
        elif message.writer == "pid1":
            named = subjects and line.subject_unit.endswith(".device")  # the device under its own name
            if line.subject_unit and not named and all(one.kind is not SubjectKind.UNIT for one in subjects):
                subjects.insert(0, Subject(SubjectKind.UNIT, line.subject_unit))
        elif line.trusted and (unit := unit_meant(line)):
            if all(one.name != unit for one in subjects):
                subjects.append(Subject(SubjectKind.UNIT, unit, 0.6 if subjects else 1.0))
        elif not subjects:
            subjects.append(subject_of(line))
        return [_as_stage(one) for one in subjects] or [Subject(SubjectKind.HOST, "")]

    def _asked_to_stop(self, message: Message, reading: Reading, line: Line, t: float) -> bool:
        """Whether a unit merely gave an exit code of its own (143, 1) when it was told to stop."""
        unit = line.subject_unit
        if message.slug == STARTED:
            self.symptoms.started(unit, t)
        if message.repeat == "stopping":
            self._stopping[unit] = t
            if len(self._stopping) > STOPPING_MAX:
                self._stopping.popitem(last=False)
        elif message.repeat == "stopped":
            if self._stopping.pop(unit, None) is not None:  # else it is restarted because it failed
                self.symptoms.stopped(unit, t)
        elif "exited" in reading.parts and unit in self._stopping:
            return t - self._stopping[unit] <= STOPPING_S
        return False

    def _tie_failure(self, message: Message, subjects: list[Subject], t: float) -> None:
        """What could not start for want of another unit is tied to that one."""
        if message.score >= FAILS:
            self._crashes.failed(subjects[0].name, t)
        if message.slug == DEPENDENT:
            if self._failed and t - self._failed[1] <= AT_ONCE_S and self._failed[0] not in subjects:
                subjects.append(replace(self._failed[0], score=0.8))
        elif message.score >= 0.5:
            self._failed = (subjects[0], t)

    def _goes_down(self, message: Message, line: Line, t: float) -> bool:
        """Whether this belongs to the end of a boot: links go and services end, all on purpose.

        What stands in the journal after the next boot has begun is of that boot, by its own number.
        """
        if message.repeat == "going-down" and self._writers.surest(line):
            self.symptoms.goes_down(line.at.boot, t)
        if message.category not in _STOPPED_IN_ORDER or not self.symptoms.going_down(line.at.boot, t):
            return False
        return message.writer != "kernel" or message.category is Category.NETWORK  # a fault is one even now

    def _keep(self, message: Message, subject: Subject, t: float) -> None:
        """What the manager's next line may be about."""
        if message.writer == "kernel" and message.repeat == "crash":
            self._faulted = (subject, t)

    def _tie_fault(self, reading: Reading, subjects: list[Subject], t: float) -> None:
        """A unit that a signal ended right after a program's fault has lost that program."""
        if "fault" in reading.parts and self._faulted and t - self._faulted[1] <= FAULT_S:
            subjects.append(replace(self._faulted[0], score=0.6))
            self._faulted = None

    def _placed(self, message: Message, subjects: list[Subject], line: Line, t: float) -> Message:
        """What a program says of a file is about the file system on which that lies."""
        if message.slug not in _ON_FILES:
            return message
        mount = self._places.mount(line.text, t, lacking=message.slug == "no-space")
        lacking = self._places.lacks(mount) if mount else None
        if mount and len(subjects) < SUBJECTS_MAX:
            subjects.append(Subject(SubjectKind.MOUNT, mount, 0.6))
        if lacking is None or FaultClass.DISK_FULL not in message.hints:
            return message
        most = max(message.hints.values())
        return message._replace(
            hints={FaultClass.DISK_FULL: LEFT, FaultClass.INODE_EXHAUSTION: LEFT} | {lacking: most}
        )

    def _add_victim(self, subjects: list[Subject], values: Mapping[str, float]) -> None:
        """The kernel names a killed process's unit in a line of its own; tie the two by pid."""
        pid = int(values.get("pid", 0.0))
        if not pid:
            return
        units = [one for one in subjects if one.kind is SubjectKind.UNIT]
        if units:
            self._victims[pid] = units[0]
            if len(self._victims) > VICTIMS_MAX:
                self._victims.popitem(last=False)
        elif pid in self._victims:
            subjects.append(Subject(SubjectKind.UNIT, self._victims[pid].name, 0.8))


def _persistent(breach: Breach) -> Breach:
    """A symptom that does not pass; of a line that is not to be believed nothing changes."""
    top = max(breach.hints, key=lambda fault: breach.hints[fault])
    if breach.hints[top] <= SPEAKS:
        return breach
    hints = {**breach.hints, top: max(PERSISTENT_HINT, breach.hints[top])}
    return breach._replace(score=max(PERSISTENT, breach.score), hints=hints, size=2.0 * ONCE)


def _tells_no_reason(message: Message) -> bool:
    """Whether a program only says that it ends: a reason in the same line says more."""
    return not message.writer and not message.repeat and set(message.hints) == {_CRASH}


def _tells_why(message: Message) -> bool:
    """Whether an entry gives a reason that is a fault when it is said once."""
    return not message.writer and not message.persists and _CRASH not in message.hints and message.score > 0.5


def _of_resolver(message: Message, subject: Subject) -> Message:
    """A name server's own failure speaks for what all others will say next."""
    if message.score < FAILS or not _RESOLVER.search(subject.name) or message.ends:
        return message
    return message._replace(hints={**message.hints, FaultClass.NAME_RESOLUTION: RESOLVES})


def _about_itself(message: Message, reading: Reading, line: Line) -> bool:
    """Whether the writer may say this of this unit: the manager of any, its child only of its own."""
    if message.writer != "pid1" or role_of(line) != CHILD:
        return True
    return (SubjectKind.UNIT, line.unit) in reading.subjects


def _as_stage(subject: Subject) -> Subject:
    """What the manager says of one of hauswart's own units is about that stage's health."""
    if subject.kind is not SubjectKind.UNIT or not own_unit(subject.name):
        return subject
    return replace(
        subject, kind=SubjectKind.STAGE, name=subject.name.partition(".")[0].removeprefix("hauswart-")
    )
