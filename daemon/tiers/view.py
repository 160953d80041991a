"""What the low tier's metric rules see: the latest values, what is usual, the latest processes.

Holds the state that rules share; knows no thresholds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from daemon.messages import Process, Snapshot, Stamp, Subject
from daemon.tiers.conditions import Conditions
from models.baselines import Baseline
from models.taxonomy import SubjectKind
from models.windows import Trend

SNAPSHOT_FRESH_S = 25.0  # two of the default intervals and a late one
MEMORY_MAX = 2048
READINGS_MAX = 64
OWN = "hauswart"  # the service prefix; such units raise nothing but stage-health findings
# Scopes and services that only hold a session: their processes say more than they do.
_SESSIONS = ("session-", "user@", "user-")
_HOLDERS = (*_SESSIONS, "init.", "system.", "-.")


class View:
    """The host as known at `t`."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.at = Stamp("", 0.0, 0.0)
        self.t = 0.0
        self.began_t: float | None = None
        self.values: dict[str, float] = {}
        self.usual: dict[str, Baseline] = {}
        self.snapshot: Snapshot | None = None
        self.snapshot_t = 0.0
        self.own_pids: frozenset[int] = frozenset()
        self.known_full: set[str] = set()
        self.full_from: dict[str, float] = {}  # how full those were when that became known
        self._memory: dict[str, Trend] = {}
        self._levels: dict[str, float] = {}
        self._readings: dict[str, deque[tuple[float, float]]] = {}
        self._began: dict[str, float] = {}  # first reading of a kind

    def reach(self, at: Stamp, t: float) -> None:
        """Observation time has come to `t`."""
        self.at, self.t = at, t
        if self.began_t is None:
            self.began_t = t

    def get(self, name: str, default: float = 0.0) -> float:
        """The latest value of a metric."""
        return self.values.get(name, default)

    @property
    def watched_s(self) -> float:
        """For how long this host has been watched since the start."""
        return self.t - (self.began_t if self.began_t is not None else self.t)

    @property
    def cores(self) -> float:
        """Processors of the host, at least one."""
        return max(1.0, self.values.get("cpu.cores", 1.0))

    def level(self, name: str, value: float) -> float:
        """The usual level of a metric, or the value itself while nothing is known."""
        known = self.usual.get(name)
        return known.level if known is not None and known.seen > 0 else value

    def trend(self, name: str, value: float, span_s: float = 30.0) -> Trend:
        """The course of a metric, with its present value added."""
        course = self._memory.get(name)
        if course is None:
            if len(self._memory) >= MEMORY_MAX:
                self._memory.pop(next(iter(self._memory)))
            course = self._memory[name] = Trend(span_s)
        course.add(self.t, value)
        return course

    def course(self, name: str) -> Trend | None:
        """The course of a metric so far."""
        return self._memory.get(name)

    def starting(self, kind: str) -> bool:
        """Whether this is the first reading of its kind: what holds now held before we came."""
        return self._began.setdefault(kind, self.t) == self.t

    def smooth(self, name: str, value: float, gain: float) -> float:
        """An exponential mean of a number that is no metric of its own."""
        if name not in self._levels and len(self._levels) >= MEMORY_MAX:
            self._levels.pop(next(iter(self._levels)))
        before = self._levels.get(name, value)
        self._levels[name] = before + gain * (value - before)
        return self._levels[name]

    def mean(self, name: str, value: float, span_s: float) -> float:
        """The mean over the last `span_s` seconds of a number that is no metric of its own."""
        readings = self._readings.get(name)
        if readings is None:
            if len(self._readings) >= MEMORY_MAX:
                self._readings.pop(next(iter(self._readings)))
            readings = self._readings[name] = deque(maxlen=READINGS_MAX)
        readings.append((self.t, value))
        while readings[0][0] <= self.t - span_s:
            readings.popleft()
        return sum(one for _, one in readings) / len(readings)

    def forget(self, name: str) -> None:
        """A metric is gone."""
        self.values.pop(name, None)
        self._memory.pop(name, None)

    def processes(self) -> list[Process]:
        """The processes of a snapshot that is still fresh, without hauswart's own."""
        if self.snapshot is None or self.t - self.snapshot_t > SNAPSHOT_FRESH_S:
            return []
        return [process for process in self.snapshot.processes if not self.own(process)]

    def counts(self, family: str) -> Iterator[tuple[str, float]]:
        """Labels and counts of one family of a fresh snapshot, e.g. `children`."""
        if self.snapshot is None or self.t - self.snapshot_t > SNAPSHOT_FRESH_S:
            return
        prefix = family + "{"
        for key, count in self.snapshot.counts.items():
            if key.startswith(prefix) and key.endswith("}"):
                yield key[len(prefix) : -1], count

    def own(self, process: Process) -> bool:
        """Whether a process belongs to hauswart: by its trusted unit or a known pid, never by its name."""
        return own_unit(process.unit) or process.pid in self.own_pids or process.ppid in self.own_pids


def own_unit(unit: str) -> bool:
    """Whether a unit is one of hauswart's own."""
    return unit.rpartition("/")[2].startswith(OWN)


def process_subject(process: Process, score: float = 1.0) -> Subject:
    """`NAME[PID]`."""
    return Subject(SubjectKind.PROCESS, f"{process.name}[{process.pid}]"[:512], min(1.0, max(0.0, score)))


def unit_subject(unit: str, score: float = 1.0) -> Subject:
    """A systemd unit, or the control group that stands for one."""
    return Subject(SubjectKind.UNIT, unit[:512], min(1.0, max(0.0, score)))


def service(unit: str) -> bool:
    """Whether a unit is something that an operator restarts, not the shell of a login session."""
    name = unit.rpartition("/")[2]
    return name.endswith((".service", ".scope")) and not name.startswith(_HOLDERS)


def in_session(process: Process) -> bool:
    """Whether a process belongs to somebody who is logged in."""
    return process.unit.rpartition("/")[2].startswith(_SESSIONS)


def blame(
    view: View, measure: Callable[[Process], float], least: float, share_least: float = 0.0
) -> tuple[list[Subject], Process | None]:
    """Who uses most by `measure`: the heaviest service or name, its heaviest process, then the runners-up.

    Nothing is blamed that uses less than `least`, all processes of one service (or else of one name)
    together, or that has a smaller share than `share_least` of what all together use.
    """
    processes = view.processes()
    groups: dict[str, float] = {}
    for process in processes:
        who = _group(process)
        groups[who] = groups.get(who, 0.0) + max(0.0, measure(process))
    total = sum(groups.values())
    enough = max(least, share_least * total, 1e-9)
    ranked = sorted((who for who in groups if groups[who] >= enough), key=lambda who: (-groups[who], who))
    if not ranked:
        return [], None
    leads = [max((p for p in processes if _group(p) == who), key=measure) for who in ranked[:3]]
    subjects: list[Subject] = []
    for lead in leads:
        share = groups[_group(lead)] / total
        if lead is not leads[0] and share < 0.2:  # a fifth: below it a runner-up is company, not a cause
            break
        score = 1.0 if lead is leads[0] else share
        if service(lead.unit):
            subjects.append(unit_subject(lead.unit, score))
            score *= 0.9
        subjects.append(process_subject(lead, score))
    return subjects, leads[0]


def _group(process: Process) -> str:
    """A service's programs are one thing to an operator, whatever they are called."""
    return process.unit if service(process.unit) else process.name


def alike(one: Process, other: Process) -> bool:
    """Whether two processes are blamed together."""
    return _group(one) == _group(other)


def host_subject(score: float = 1.0) -> Subject:
    """The host as a whole."""
    return Subject(SubjectKind.HOST, "", score)
