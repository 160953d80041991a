"""Processes and descriptors: storms of forks, task limits, descriptor tables that run full."""

from __future__ import annotations

from daemon.messages import Process, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.levels.processor import BATCH_TOOLS, cpu_blame
from daemon.tiers.view import View, host_subject, own_unit, process_subject, service, unit_subject
from daemon.tiers.wording import percent, quantity
from models.taxonomy import FaultClass, Severity, SubjectKind

STORM, FDS, BUSY = FaultClass.PROCESS_STORM, FaultClass.FD_EXHAUSTION, FaultClass.HEAVY_BUT_NORMAL_LOAD
TOTAL = "proc.total.level"
CHURN = "proc.forks.level"
LIMIT = "proc.limit.level"

GROWTH = 100.0  # processes within 10 s; a pod or a pool of workers starts with some tens
GRAVE = 3.0  # times as many: a server's clients that all come at once are fewer
GROWTH_A_CORE = 6.0  # a parallel build runs about four a job (make, sh, driver, compiler)
# What piles up more slowly takes longer to believe: jobs that never end, started several times a second.
STEADY_S, STEADY_TIMES, STEADY_PACE = 30.0, 1.5, 8.0
# Judgement: a compiler takes milliseconds, so a build stays below some hundred a second for each core.
WILD, WILD_TIMES = 500.0, 20.0
WILD_COUNT, WILD_S = 4000.0, 3.0  # so many were started: the wilder it is, the sooner one can be sure of it
NAMELESS = 4.0  # times as many, where nobody is seen to start them
COUNT_LEAST = 20.0  # children or namesakes that make a suspect
STARTER_CORES = 0.1  # to start a thousand processes a second takes a seventh of a core, the rest is theirs
# More than widely used servers allow themselves by default (Tomcat and Jetty 200, MySQL's 151 connections,
# Apache's 400 over all processes), and still growing by a pool's worth.
THREADS, THREADS_GROWN, THREADS_S = 500, 100.0, 12.0
THREADS_KNOWN = 64  # what a snapshot is sure to hold
KERNEL_PARENTS = ("1/", "2/")  # init adopts every orphan, kthreadd owns every kernel thread


def storm(view: View, label: str, total: float) -> Breach | None:
    """The number of processes multiplies within seconds, and goes on growing or is very large at once."""
    course = view.trend("proc.total", total, 30.0)
    opened = view.conditions.opened(TOTAL, label)
    usual = min(view.level("proc.total", total), total)
    grown = total - usual
    if opened:  # over when most of what came is gone again
        if grown < GROWTH / 2:
            return None
    else:
        fast, fresh = course.rise(10.0), course.rise(2.5)
        least = max(GROWTH, GROWTH_A_CORE * view.cores)
        # Some hosts have thousands of processes: to double them is too late a sign, a burst of forks is not.
        part = 0.4 if view.get("proc.forks") >= 50.0 else 1.0
        growing = fresh >= max(10.0, 0.15 * fast)
        sudden = fast >= max(least, part * usual) and (growing or fast >= 2.0 * least)
        steady = course.rise(STEADY_S) >= max(STEADY_TIMES * least, part * usual) and fresh >= STEADY_PACE
        if not (sudden or steady) or grown < least / 2:  # what was stopped comes back
            return None
    share = view.get("proc.limit")
    # Many that were started at once and stay are somebody's doing more often than those that go on coming.
    comes = course.rise(2.5) >= max(10.0, 0.15 * course.rise(10.0))
    grave = (comes and grown >= GRAVE * max(GROWTH, GROWTH_A_CORE * view.cores)) or share >= 0.5
    severity, score = (Severity.CRITICAL, 0.95) if share >= 0.9 else (Severity.ERROR, 0.85)
    severity = severity if grave else Severity.WARNING
    subjects, said, children = suspects(view)
    text = f"The number of processes rose from about {usual:.0f} to {total:.0f}"
    forks = view.get("proc.forks")
    text += (f", {quantity(forks)} forks a second" if forks >= 10.0 else "") + f"{said}."
    return Breach(
        TOTAL,
        label,
        severity,
        score,
        subjects or [host_subject()],
        {STORM: 0.9},
        text,
        _values(view, total) | children,
        ref="proc.total",
        sustain_s=2.0,
        size=max(1.0, grown),
    )


def churn(view: View, label: str, forks: float) -> Breach | None:
    """Processes are started far more often than usual, though they do not pile up: a build, or a loop."""
    usual = view.level("proc.forks", forks)
    opened = view.conditions.opened(CHURN, label)
    if forks < (50.0 if opened else 100.0) or (not opened and forks < 5.0 * usual):
        return None
    subjects, said, children = suspects(view)
    wild = forks >= WILD and forks >= WILD_TIMES * usual
    if wild and not subjects:  # who ended already is in no snapshot; who starts them all is busy with it
        subjects, lead = cpu_blame(view, STARTER_CORES)
        wild = lead is None or lead.name not in BATCH_TOOLS
    text = f"{quantity(forks)} processes a second are started, usually {quantity(usual)}{said}."
    held_s = view.conditions.held_s(CHURN, label, view.t)
    # In a container these are the whole machine's, and nobody in here may have started one of them.
    wild = wild and held_s >= WILD_S and held_s * forks >= WILD_COUNT * (1.0 if subjects else NAMELESS)
    return Breach(
        CHURN,
        label,
        Severity.WARNING if wild else Severity.INFO,
        0.6 if wild else 0.3,
        subjects or [host_subject()],
        {STORM: 0.6 if wild else 0.2, BUSY: 0.2 if wild else 0.3},
        text,
        _values(view, view.get("proc.total")) | children,
        ref="proc.forks",
        sustain_s=WILD_S if wild else 5.0,
    )


def limit(view: View, label: str, ratio: float) -> Breach | None:
    """Hardly any process can be started any more."""
    if ratio < (0.7 if view.conditions.opened(LIMIT, label) else 0.8):
        return None
    severity, score = (Severity.CRITICAL, 0.95) if ratio >= 0.95 else (Severity.ERROR, 0.85)
    subjects, said, children = suspects(view)
    text = f"{percent(ratio)} of the processes that this host allows exist{said}."
    values = _values(view, view.get("proc.total")) | children | {"used_ratio": ratio}
    return Breach(
        LIMIT, label, severity, score, subjects or [host_subject()], {STORM: 0.9}, text, values, "proc.limit"
    )


def unit_limit(view: View, label: str, ratio: float) -> Breach | None:
    """A unit can hardly start any more tasks under its own limit."""
    rule = "unit.tasks.level"
    if own_unit(label) or ratio < (0.8 if view.conditions.opened(rule, label) else 0.9):
        return None
    tasks = view.get(f"unit.tasks{{{label}}}")
    values = {"used_ratio": ratio, "processes_count": tasks, "limit_count": tasks / ratio}
    subject = unit_subject(label)
    text = f"{label} has {tasks:.0f} tasks, {percent(ratio)} of its limit."
    ref = f"unit.tasks_limit{{{label}}}"
    return Breach(
        rule, label, Severity.ERROR, 0.75, [subject], {STORM: 0.8}, text, values, ref, sustain_s=2.0
    )


def forks_refused(view: View, label: str, rate: float) -> Breach | None:
    """A unit's new tasks are refused: its own limit is met, or that of a slice around it."""
    if rate <= 0.0 or own_unit(label):
        return None
    tasks = view.get(f"unit.tasks{{{label}}}")
    text = f"{label} was refused {quantity(rate)} new tasks a second"
    text += f"; it has {tasks:.0f}." if tasks else "."
    return Breach(
        "unit.forks_refused.level",
        label,
        Severity.ERROR,
        0.8,
        [unit_subject(label)],
        {STORM: 0.9},
        text,
        {"processes_count": tasks} if tasks else {},
        ref=f"unit.forks_refused{{{label}}}",
        clear_s=30.0,
    )


def threads(view: View) -> list[Breach]:
    """Processes that start thread after thread and end none."""
    many = (process for process in view.processes() if process.threads >= THREADS_KNOWN)
    breaches = (_growing(view, process) for process in many)
    return [breach for breach in breaches if breach is not None]


def _growing(view: View, process: Process) -> Breach | None:
    course = view.trend(f"threads{{{process.pid}}}", float(process.threads), 30.0)
    fresh = course.rise(THREADS_S)  # since the snapshot before, which may be ten seconds old
    before = course.before(1.5)  # snapshots come no faster than every two seconds
    if process.threads < THREADS or fresh < THREADS_GROWN or before is None:
        return None
    if process.threads - before < 0.1 * fresh:
        return None  # it has what it wants
    subjects = [process_subject(process)]
    if service(process.unit):
        subjects = [unit_subject(process.unit), process_subject(process, 0.9)]
    text = f"{process.name}[{process.pid}] has {process.threads} threads, {fresh:.0f} of them new."
    return Breach(
        "process.threads.level",
        str(process.pid),
        Severity.WARNING,
        0.65,
        subjects,
        {STORM: 0.8},
        text,
        {"threads_count": float(process.threads), "pid": float(process.pid)},
        ref="process.threads.level",
        kind="snapshot",
        sustain_n=2,  # whoever starts with a thousand has them at once
        clear_s=30.0,
        stale_s=60.0,
    )


def suspects(view: View) -> tuple[list[Subject], str, dict[str, float]]:
    """Whose children or namesakes have grown most, a clause that says so, and its numbers."""
    grown = [
        (count - view.level(f"children{{{who}}}", 0.0), "children", who, count)
        for who, count in _parents(view)
    ]
    grown += [
        (count - view.level(f"name{{{who}}}", 0.0), "name", who, count)
        for who, count in view.counts("name")
        if count >= COUNT_LEAST
    ]
    most = max(grown, default=(-1.0,))[0]
    if most < 0.0:  # everybody has fewer than usual
        return _crowded_unit(view)
    # A parent that holds at least half of the growth started it; else the name that multiplies must do.
    near = [entry for entry in grown if entry[0] >= 0.5 * most]
    _, family, who, count = max(near, key=lambda entry: (entry[1] == "children", entry[0]))
    if family == "children":
        pid, _, name = who.partition("/")
        number = int(pid) if pid.isdigit() else 0
        values = {"children_count": count, "pid": float(number)}
        return _with_unit(view, name, number), f"; {name}[{pid}] has {count:.0f} children", values
    oldest = max((p for p in view.processes() if p.name == who), key=lambda p: p.age_s, default=None)
    named = _with_unit(view, who, oldest.pid if oldest else 0)
    return named, f"; {count:.0f} processes are named {who}", {"namesakes_count": count}


def _parents(view: View) -> list[tuple[str, float]]:
    return [
        (who, count)
        for who, count in view.counts("children")
        if count >= COUNT_LEAST and not who.startswith(KERNEL_PARENTS)
    ]


def _with_unit(view: View, name: str, pid: int) -> list[Subject]:
    process = next((p for p in view.processes() if p.pid == pid), None)
    subjects = [Subject(SubjectKind.PROCESS, f"{name}[{pid}]"[:512] if pid else name[:512])]
    if process is not None and service(process.unit):
        subjects.insert(0, unit_subject(process.unit))
        subjects[1] = process_subject(process, 0.9)
    return subjects


def _crowded_unit(view: View) -> tuple[list[Subject], str, dict[str, float]]:
    """Without a telling snapshot: the unit whose number of tasks grew most."""
    units = [
        (count - view.level(name, count), name[11:-1], count)
        for name, count in view.values.items()
        if name.startswith("unit.tasks{") and not own_unit(name[11:-1])
    ]
    grown, unit, count = max(units, default=(0.0, "", 0.0))
    if grown < COUNT_LEAST:
        return [], "", {}
    return [unit_subject(unit, 0.8)], f"; {unit} has {count:.0f} tasks", {"tasks_count": count}


def _values(view: View, total: float) -> dict[str, float]:
    return {"processes_count": total, "forks_per_s": view.get("proc.forks")}


def descriptors(view: View, label: str, ratio: float) -> Breach | None:
    """The host's table of open files runs full."""
    rule = "fd.used.level"
    if ratio < (0.75 if view.conditions.opened(rule, label) else 0.8):
        return None
    severity, score = (Severity.ERROR, 0.85) if ratio >= 0.9 else (Severity.WARNING, 0.6)
    holders = sorted((p for p in view.processes() if p.fds > 0), key=lambda p: -p.fds)[:1]
    text = f"{percent(ratio)} of the open files that this host allows are in use"
    values = {"used_ratio": ratio}
    if holders:
        text += f"; {holders[0].name}[{holders[0].pid}] holds {holders[0].fds}"
        values |= {"fds_count": float(holders[0].fds), "pid": float(holders[0].pid)}
    subjects = [process_subject(p) for p in holders]
    return Breach(
        rule, label, severity, score, subjects or [host_subject()], {FDS: 0.9}, text + ".", values, "fd.used"
    )


def process_descriptors(view: View) -> list[Breach]:
    """Processes that stand at their own descriptor limit."""
    breaches = (_process_fds(view, process) for process in view.processes())
    return [breach for breach in breaches if breach is not None]


def _process_fds(view: View, process: Process) -> Breach | None:
    # Fewer than 32: a program under a tiny limit of its own choice, not one that leaks.
    if process.fds < 32 or process.fd_limit <= 0:
        return None
    ratio = process.fds / process.fd_limit
    rule, label = "process.fds.level", str(process.pid)
    if ratio < (0.85 if view.conditions.opened(rule, label) else 0.9):
        return None
    severity, score = (Severity.ERROR, 0.8) if ratio >= 0.98 else (Severity.WARNING, 0.65)
    subjects = [process_subject(process)]
    if service(process.unit):
        subjects.insert(0, unit_subject(process.unit))
    values = {"fds_count": float(process.fds), "fd_limit_count": float(process.fd_limit)}
    values |= {"used_ratio": min(1.0, ratio), "pid": float(process.pid)}
    text = f"{process.name}[{process.pid}] has {process.fds} of at most {process.fd_limit} files open."
    return Breach(
        rule,
        label,
        severity,
        score,
        subjects,
        {FDS: 0.9},
        text,
        values,
        ref=rule,
        kind="snapshot",
        clear_s=5.0,
        stale_s=60.0,
    )
