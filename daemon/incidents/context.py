"""What the host was doing on purpose, and how that weighs on a finding: noted, lowered or explained.

`Contexts` keeps the windows that events open and close; `Contexts.weigh` judges one finding against them. It
knows nothing about incidents. A learned schedule would be one more source of windows, given to `add`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from daemon.incidents.unexplained import READ
from daemon.messages import ContextNote, Event, Finding, Subject
from daemon.subjects import generic
from models.taxonomy import FaultClass, Severity, SubjectKind

Effect = Literal["noted", "lowered", "explained"]

BOOT_S = 300.0  # a boot that never reported its end is over after five minutes
AFTERMATH_S = 600.0  # what begins within ten minutes after a rebuild, an update or a sudo is said to
TRAIL_S = 30.0  # caches are written back and services settle for a while after a job has ended
LOWERED = 0.8  # a surely failed unit (0.65) still opens an incident, a guess (0.6) does not
SUFFERS_S = 30.0  # between two words of one who suffers, and of a load that is told again
SLIP_LINES = 1.0  # one that says so may be a slip
SLOW = "line.slow"  # the rule that says so
LATE_S = 2.0  # the line that says a job was started may be read this long after its first effect
# A job that runs longer than this is no excuse any more: a day's backup is rare, a timer's job is short.
LONGEST_S = {"backup": 12 * 3600.0, "scrub": 48 * 3600.0, "maintenance-job": 4 * 3600.0, "timer": 3600.0}
_MAX_WINDOWS = 64
_MAX_NOTES = 8
_AGE_DIGITS = 9  # of seconds: thirty years

_F = FaultClass
# Never explained away nor lowered, whatever the host was doing: data or safety is at stake.
GRAVE = frozenset(
    {
        _F.DISK_FAILING,
        _F.FILESYSTEM_CORRUPT,
        _F.AUTH_BRUTEFORCE,
        _F.KERNEL_BUG,
        _F.HARDWARE_ERROR,
        _F.PRIVILEGE_MISUSE,
    }
)
_LOAD = frozenset({_F.CPU_SATURATION, _F.IO_SATURATION, _F.HEAVY_BUT_NORMAL_LOAD})
_STRAIN = _LOAD | {_F.MEMORY_EXHAUSTION, _F.PROCESS_STORM, _F.PACKET_LOSS, _F.SERVICE_HUNG, _F.FD_EXHAUSTION}
_SPACE = frozenset({_F.DISK_FULL, _F.INODE_EXHAUSTION})
_SERVICE = frozenset(
    {_F.SERVICE_CRASH, _F.CRASH_LOOP, _F.SERVICE_HUNG, _F.CONFIG_ERROR, _F.DEPENDENCY_FAILED}
)
_NETWORK = frozenset({_F.LINK_DOWN, _F.PACKET_LOSS, _F.NAME_RESOLUTION})
_STATISTICS = frozenset({"level", "shift", "forecast", "residual", "novel", "rate", "burst", "silence"})
_WORDS = re.compile(r"[._-]")
_JOBS = frozenset({"backup", "scrub", "maintenance-job", "timer"})
CHANGES = frozenset({"rebuild", "update"})


class Window(NamedTuple):
    """A stretch of time in which the host did something on purpose; `_t` is observation time, else Unix."""

    kind: str  # boot, backup, update, rebuild, scrub, maintenance-job, timer or session
    name: str
    unit: str
    began_t: float
    began: float
    ended_t: float | None = None
    ended: float | None = None

    def age(self, t: float) -> float:
        """Seconds since it ended, or 0 while it lasts."""
        return 0.0 if self.ended_t is None else max(0.0, t - self.ended_t)


class Weighing(NamedTuple):
    """What the context leaves of a finding: a factor on its score, and the windows that say so."""

    factor: float
    notes: tuple[tuple[Window, Effect], ...] = ()

    @property
    def explained(self) -> bool:
        """Whether nothing is left."""
        return self.factor == 0.0

    def severity(self, finding: Finding) -> Severity:
        """The finding's severity in this light: one step lower if it was lowered, but never below warning."""
        if self.explained:
            return Severity.INFO
        return finding.severity if self.factor == 1.0 else _lower(finding.severity)


class Contexts:
    """The windows that matter now, oldest first; bounded."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self._slow: dict[str, tuple[float, float]] = {}  # services that wait: since when, until when

    def note(self, event: Event, t: float) -> bool:
        """Learn from a context or session event; True if it changed anything."""
        if event.kind == "session":
            return event.action == "sudo" and self.add(_window(event, "session", event.name, t))
        if event.kind != "context":
            return False
        kind = event.name
        opened = _window(event, kind, _label(event), t)
        if event.action == "running":
            return self._renew(opened, event.attributes.get("running_s", ""), t)
        return self.add(opened) if event.action == "start" else self._end(opened)

    def suffers(self, finding: Finding, t: float) -> None:
        """Learn of a service that waits, by its own words: then load is not a job's own affair any more."""
        who, values = finding.subjects[0], finding.evidence[0].values
        if (
            who.kind is not SubjectKind.UNIT
            or not who.name.endswith(".service")
            or who.name.startswith("user@")
        ):
            return
        if values.get("lines_count", 0.0) <= SLIP_LINES:
            return
        began_t = t - values.get("duration_s", 0.0)
        before = self._slow.pop(who.name, (began_t, began_t))
        self._slow[who.name] = (before[0] if before[1] >= began_t - SUFFERS_S else began_t, t)
        if len(self._slow) > _MAX_WINDOWS:
            del self._slow[next(iter(self._slow))]

    def add(self, window: Window) -> bool:
        """Open a window; the same job or user seen again replaces its older one."""
        if window in self.windows:
            return False
        last = (
            (window.kind, window.name, window.unit) if window.kind in {"session", "boot"} else None
        )  # the newest says all
        self.windows = [one for one in self.windows if last is None or (one.kind, one.name, one.unit) != last]
        self.windows.append(window)
        while len(self.windows) > _MAX_WINDOWS:
            over = (one for one in self.windows if one.ended_t is not None)
            self.windows.remove(next(over, self.windows[0]))
        return True

    def expire(self, t: float) -> None:
        """Forget what cannot matter any more."""
        if self._slow:
            self._slow = {who: span for who, span in self._slow.items() if t - span[1] <= AFTERMATH_S}
        if self.windows:
            self.windows = [one for one in self.windows if not _over(one, t)]

    def weigh(self, finding: Finding, since: float, t: float) -> Weighing:
        """What is left at `t` of a finding whose condition began at `since`, given all the host was doing."""
        if not self.windows or _stage(finding):
            return Weighing(1.0)
        top = main_class(finding)
        notes = [(one, _effect(one, finding, top, since, t)) for one in self.windows]
        # Whoever read it was shown what is done; nobody else's waiting is a job's own affair.
        if top in _LOAD and (finding.rule.startswith(READ) or self._hurts(since, t)):
            notes = [(one, _lowered_at_most(one, effect)) for one, effect in notes]
        told = tuple((one, effect) for one, effect in notes if effect is not None)[-_MAX_NOTES:]
        effects = {effect for _, effect in told}
        if "explained" in effects:
            return Weighing(0.0, told)
        if "lowered" in effects:
            return Weighing(LOWERED, told)
        return Weighing(1.0, told)

    def _hurts(self, since: float, t: float) -> bool:
        """Whether somebody waited who is no job himself while a load lasted that was told at `t`."""
        if not self._slow:
            return False
        jobs = {name for one in self.windows for name in (one.unit, one.name, f"{one.name}.service")}
        return any(
            began_t <= t + SUFFERS_S and ended_t >= max(since, t - 2 * SUFFERS_S)
            for who, (began_t, ended_t) in self._slow.items()
            if who not in jobs
        )

    def _renew(self, told: Window, ran_s: str, t: float) -> bool:
        """Take in what began so long ago, if that is news: whoever was started since heard no start."""
        if not ran_s.isdecimal() or len(ran_s) > _AGE_DIGITS:
            return False
        going = told._replace(began_t=told.began_t - int(ran_s), began=told.began - int(ran_s))
        known = any(
            one[:3] == going[:3] and (one.ended_t is None or one.ended_t > going.began_t)
            for one in self.windows
        )
        return not known and not _over(going, t) and self.add(going)

    def _end(self, ended: Window) -> bool:
        for index in range(len(self.windows) - 1, -1, -1):
            one = self.windows[index]
            if one.ended_t is None and one.kind == ended.kind and _same_job(one, ended):
                self.windows[index] = one._replace(ended_t=ended.began_t, ended=ended.began)
                return True
        return False


def main_class(finding: Finding) -> FaultClass:
    """The class that a finding speaks for most."""
    return max(finding.hints, key=lambda fault: (finding.hints[fault], fault), default=FaultClass.UNKNOWN)


def describe(window: Window, effect: Effect, began: float) -> ContextNote:
    """The note that an incident which began at `began` (Unix seconds) carries about a window."""
    since = max(
        0.0, began - (window.ended if window.ended is not None and window.ended < began else window.began)
    )
    text = f"began {_span(since)} after {_phrase(window, began)}"
    return ContextNote(window.kind, window.name, window.began, window.ended, effect, text)


def _phrase(window: Window, began: float) -> str:
    over = window.ended is not None and window.ended < began
    match window.kind:
        case "boot":
            return "boot" if not over else "the boot was finished"
        case "rebuild":
            return f"generation {window.name}" if window.name.isdigit() else "a system rebuild"
        case "update":
            return "a package update" + (f" ({window.name})" if window.name not in {"", "update"} else "")
        case "session":
            return f"{window.name} used sudo"
        case _:
            return f"{window.kind} {window.name} {'ended' if over else 'started'}"


def _span(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.0f} h"


def _window(event: Event, kind: str, name: str, t: float) -> Window:
    return Window(kind, name, event.attributes.get("unit", ""), t, event.at.wall)


def _label(event: Event) -> str:
    """The shortest true name of what goes on: the generation, the job, the unit without its suffix."""
    told = event.attributes
    named = told.get("generation") or told.get("job") or told.get("package") or told.get("unit", "")
    return named.removesuffix(".service").removesuffix(".timer") or event.name


def _same_job(one: Window, other: Window) -> bool:
    return (one.name, one.unit) == (other.name, other.unit) or not other.unit or not one.unit


def _over(window: Window, t: float) -> bool:
    if window.ended_t is not None:
        return t - window.ended_t > AFTERMATH_S
    if window.kind == "session":
        return t - window.began_t > AFTERMATH_S
    return t - window.began_t > LONGEST_S.get(window.kind, AFTERMATH_S + BOOT_S)


def _effect(window: Window, finding: Finding, top: FaultClass, since: float, t: float) -> Effect | None:
    """How one window weighs on one finding; None where it has nothing to do with it."""
    if window.began_t > since + LATE_S:
        return None
    if window.kind in _JOBS:
        if window.age(t) > TRAIL_S:  # it outlasted the job that it began with
            return "noted" if top in _STRAIN and window.age(since) == 0.0 else None
        return _job_effect(window, finding, top)
    if window.kind in CHANGES:
        return _change_effect(window, finding, top, t)
    if window.kind == "boot":
        return _boot_effect(window, finding, top, t)
    return _session_effect(window, finding, top, since)


def _lowered_at_most(window: Window, effect: Effect | None) -> Effect | None:
    """What a job leaves of a load that somebody suffers from."""
    return "lowered" if effect == "explained" and window.kind != "boot" else effect


def _job_effect(window: Window, finding: Finding, top: FaultClass) -> Effect | None:
    own = _blames(finding, window)
    if top in _LOAD or (_statistical(finding) and weak(finding)):
        if own or (_blames_nobody(finding) and top in _LOAD):
            return _tame(finding, top, "explained")
        return "noted" if top in _LOAD else None
    if top in _STRAIN:
        return _tame(finding, top, "lowered") if own or _blames_nobody(finding) else "noted"
    return "noted" if own or top in _SPACE else None


def _change_effect(window: Window, finding: Finding, top: FaultClass, t: float) -> Effect | None:
    age = window.age(t)
    if age > TRAIL_S:
        return "noted" if age <= AFTERMATH_S and top in _SERVICE | _NETWORK | _SPACE else None
    if _statistical(finding) and (top in _LOAD or weak(finding)):
        return _tame(finding, top, "explained")
    if top in _STRAIN or top in _NETWORK:
        return _tame(finding, top, "lowered")
    if top in _SERVICE:  # a restart that fails is lowered; a program that crashes is not part of a restart
        return "noted" if finding.severity.rank >= Severity.ERROR.rank else "lowered"
    return "noted"


def _boot_effect(window: Window, finding: Finding, top: FaultClass, t: float) -> Effect | None:
    age = window.age(t) if window.ended_t is not None else max(0.0, t - window.began_t - BOOT_S)
    if age > TRAIL_S:
        return "noted" if top in _SERVICE | _NETWORK and age <= AFTERMATH_S else None
    if (_statistical(finding) and (top in _LOAD or weak(finding))) or top is FaultClass.CLOCK_JUMP:
        return _tame(finding, top, "explained")
    return "lowered" if top in _SERVICE | _NETWORK | _STRAIN and not _oom(finding) else "noted"


def _session_effect(window: Window, finding: Finding, top: FaultClass, since: float) -> Effect | None:
    if since - window.began_t > AFTERMATH_S:
        return None
    if "admin-down" in finding.rule or "stopped" in finding.rule:
        return "lowered"
    return "noted" if top in _SERVICE | _NETWORK or top is FaultClass.PRIVILEGE_MISUSE else None


def _tame(finding: Finding, top: FaultClass, effect: Effect) -> Effect:
    """The effect, unless the finding is one that no context may weaken."""
    full = top in _SPACE and finding.severity.rank >= Severity.ERROR.rank
    return "noted" if top in GRAVE or full or _oom(finding) else effect


def weak(finding: Finding) -> bool:
    """Whether a finding is a mere oddity that never opens an incident: it hints at most 0.3."""
    return max(finding.hints.values(), default=0.0) <= 0.3


def _statistical(finding: Finding) -> bool:
    return finding.rule.rpartition(".")[2] in _STATISTICS


def _oom(finding: Finding) -> bool:
    return "oom" in _WORDS.split(finding.rule)


def _stage(finding: Finding) -> bool:
    return any(one.kind is SubjectKind.STAGE for one in finding.subjects)


def _blames(finding: Finding, window: Window) -> bool:
    """Whether the first thing that a finding blames belongs to the window's job."""
    names = {window.unit, window.name} - {""}
    for subject in _named(finding.subjects):
        if subject.name.removesuffix(".service") in names or subject.name in names:
            return True
        if subject.score >= 0.5 and subject.kind is SubjectKind.UNIT and not generic(subject.name):
            return False
    return False


def _blames_nobody(finding: Finding) -> bool:
    return not any(one.kind in {SubjectKind.UNIT, SubjectKind.PROCESS} for one in _named(finding.subjects))


def _named(subjects: Iterable[Subject]) -> list[Subject]:
    return [one for one in subjects if one.score >= 0.3 and one.kind is not SubjectKind.HOST]


def _lower(severity: Severity) -> Severity:
    return {Severity.CRITICAL: Severity.ERROR, Severity.ERROR: Severity.WARNING}.get(severity, severity)
