"""Memory: little left, tasks stalled on it, the OOM killer, a unit at its own limit."""

from __future__ import annotations

from daemon.messages import Process, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, blame, host_subject, own_unit, unit_subject
from daemon.tiers.wording import binary, percent, quantity, span
from models.taxonomy import FaultClass, Severity

MEMORY = FaultClass.MEMORY_EXHAUSTION
LOW = "mem.available.level"
FORECAST = "mem.available.forecast"
STALLED = "psi.memory.level"
UNIT = "unit.memory.level"

PLENTY_RATIO = 0.15  # more is available: then it was a control group that met its own limit
RECENT_S = 15.0  # a kill frees so much at once that what was left just before must be asked
PLENTY_BYTES = 4e9  # 5 % of a large host is still room for a database; it is not exhausted


def low(view: View, label: str, ratio: float) -> Breach | None:
    """Hardly any memory left that could be given out without swapping."""
    opened = view.conditions.opened(LOW, label)
    left = view.get("mem.available_bytes", ratio * view.get("mem.total"))
    if ratio >= (0.07 if opened else 0.05) or left >= PLENTY_BYTES:
        return None
    dire = ratio < 0.02
    text = f"{binary(left)} of memory are available ({percent(ratio)} of {binary(view.get('mem.total'))})"
    severity, score = (Severity.CRITICAL, 0.9) if dire else (Severity.ERROR, 0.75)
    return _breach(view, LOW, label, (severity, score), text=text, values={}, sustain_s=1.0 if dire else 3.0)


def forecast(view: View, label: str, ratio: float) -> Breach | None:
    """Memory is being taken so fast that it is gone within a minute."""
    course = view.trend("mem.available", ratio, 20.0)
    opened = view.conditions.opened(FORECAST, label)
    if ratio >= (0.4 if opened else 0.3):
        return None
    left_s = course.reaches(0.0)
    if left_s is None or left_s > (120.0 if opened else 60.0):
        return None
    text = f"At the pace of the last 20 s the available memory ({percent(ratio)}) is gone in {span(left_s)}"
    severity, score = (Severity.ERROR, 0.7) if ratio < 0.15 else (Severity.WARNING, 0.55)
    return _breach(
        view, FORECAST, label, (severity, score), text=text, values={"window_s": left_s}, sustain_s=3.0
    )


def stalled(view: View, label: str, full: float) -> Breach | None:
    """All runnable tasks wait for memory at once: thrashing."""
    opened = view.conditions.opened(STALLED, label)
    if full < (0.05 if opened else 0.1):
        return None
    severity, score = (Severity.CRITICAL, 0.9) if full >= 0.4 else (Severity.ERROR, 0.7)
    text = f"All tasks stood still for memory {percent(full)} of the time"
    return _breach(
        view, STALLED, label, (severity, score), text=text, values={"stalled_ratio": full}, sustain_s=4.0
    )


def thrash(view: View, label: str, faults: float) -> Breach | None:
    """Pages come back from swap as fast as they leave it."""
    some = view.values.get("psi.memory.some", 1.0)
    # 500 faults/s fill half the time of a disk with 1 ms reads; without swap in use it is a program starting
    if faults < 500.0 or view.get("mem.swap_used") < 0.3 or some < 0.1:
        return None
    text = (
        f"{quantity(faults)} pages a second are read back, swap is {percent(view.get('mem.swap_used'))} used"
    )
    values = {"rate_per_s": faults, "used_ratio": view.get("mem.swap_used")}
    return _breach(
        view,
        "mem.major_faults.level",
        label,
        (Severity.WARNING, 0.65),
        text=text,
        values=values,
        sustain_s=5.0,
    )


def killed(view: View, label: str, rate: float) -> Breach | None:
    """The kernel killed a process of this host for memory."""
    if rate <= 0.0:
        return None
    units = sorted(
        name[15:-1] for name, value in view.values.items() if name.startswith("unit.oom_kills{") and value > 0
    )
    left = view.values.get("mem.available", 0.0)
    limited = (bool(units) or left > PLENTY_RATIO) and not _was_short(view)
    severity, score = (Severity.ERROR, 0.8) if limited else (Severity.CRITICAL, 0.9)
    subjects = [unit_subject(unit) for unit in units if not own_unit(unit)][:3]
    text = "The kernel killed a process because memory ran out"
    if limited:
        text += f" in its control group; the host has {percent(left)} available"
    breach = _breach(
        view,
        "mem.oom_kills.level",
        label,
        (severity, score),
        text=text,
        values={},
        clear_s=60.0,
        subjects=subjects,
    )
    if limited:
        return breach
    return breach._replace(  # what is free after the kill says nothing about before
        values={name: value for name, value in breach.values.items() if not name.startswith("available_")}
    )


def _was_short(view: View) -> bool:
    """Whether the host itself had hardly any memory left just now."""
    course = view.course("mem.available")
    lowest = course.lowest(view.t - RECENT_S) if course else None
    return min(view.values.get("mem.available", 1.0), 1.0 if lowest is None else lowest) <= PLENTY_RATIO


def unit_killed(view: View, label: str, rate: float) -> Breach | None:
    """The kernel killed a process of this unit for memory."""
    if rate <= 0.0 or own_unit(label):
        return None
    values = {} if _was_short(view) else _limit(view, label)
    text = f"The kernel killed a process of {label} because memory ran out"
    if values:
        limit = binary(values["limit_bytes"])
        text = f"{label} hit its memory limit of {limit} and the kernel killed a process of it"
    return _breach(
        view,
        "unit.oom_kills.level",
        label,
        (Severity.ERROR, 0.8),
        text=text,
        values=values | {"killed_count": 1.0},  # what it uses was read after the kill and says nothing
        clear_s=60.0,
        subjects=[unit_subject(label)],
    )


def unit_limit(view: View, label: str, ratio: float) -> Breach | None:
    """A unit stands at its own memory limit and waits for it; page cache alone also fills a limit."""
    if own_unit(label):
        return None
    opened = view.conditions.opened(UNIT, label)
    own = view.values.get(f"unit.psi_memory{{{label}}}")
    waits = view.get("psi.memory.some") if own is None else own
    if ratio < (0.9 if opened else 0.98) or waits < (0.02 if opened else 0.1):
        return None
    text = (
        f"{label} uses {percent(ratio)} of its memory limit and waits for memory {percent(waits)} of the time"
    )
    values = _unit_values(view, label) | {"used_ratio": ratio, "stalled_ratio": waits}
    return _breach(
        view,
        UNIT,
        label,
        (Severity.ERROR, 0.7),
        text=text,
        values=values,
        sustain_s=5.0,
        subjects=[unit_subject(label)],
    )


def unit_stalled(view: View, label: str, some: float) -> Breach | None:
    """A unit's tasks wait for memory although the host has some: MemoryHigh= makes it reclaim its own."""
    rule = "unit.psi_memory.level"
    if own_unit(label) or not label.rpartition("/")[2].endswith((".service", ".scope")):
        return None
    if some < (0.15 if view.conditions.opened(rule, label) else 0.3) or _was_short(view):
        return None
    text = f"Tasks of {label} wait for memory {percent(some)} of the time, though the host has some"
    return _breach(
        view,
        rule,
        label,
        (Severity.WARNING, 0.6),
        text=text,
        values=_unit_values(view, label) | {"stalled_ratio": some},
        sustain_s=5.0,
        subjects=[unit_subject(label)],
    )


def _unit_values(view: View, label: str) -> dict[str, float]:
    used = view.values.get(f"unit.memory_bytes{{{label}}}")
    return _limit(view, label) | ({} if used is None else {"rss_bytes": used})


def _limit(view: View, label: str) -> dict[str, float]:
    """A unit's own memory limit, from what it uses and the share that is."""
    used = view.values.get(f"unit.memory_bytes{{{label}}}")
    ratio = view.values.get(f"unit.memory{{{label}}}")
    return {"limit_bytes": float(round(used / ratio))} if used and ratio else {}


def _breach(
    view: View,
    rule: str,
    label: str,
    grade: tuple[Severity, float],
    *,
    text: str,
    values: dict[str, float],
    sustain_s: float = 0.0,
    clear_s: float = 10.0,
    subjects: list[Subject] | None = None,
) -> Breach:
    """One condition of memory, blamed on the largest process unless `subjects` say better."""
    lead: Process | None = None
    if not subjects:
        # A tenth of the memory: less than that did not exhaust it.
        subjects, lead = blame(view, _resident, 0.1 * view.get("mem.total", 1e9))
    if lead:
        text += f"; {lead.name}[{lead.pid}] holds {binary(lead.rss_bytes)}"
        values = values | {"rss_bytes": float(lead.rss_bytes), "pid": float(lead.pid)}
    if "mem.available" in view.values and not rule.startswith("unit."):
        values = values | {"available_ratio": view.get("mem.available")}
        values |= {"available_bytes": view.get("mem.available_bytes"), "total_bytes": view.get("mem.total")}
    return Breach(
        rule,
        label,
        grade[0],
        grade[1],
        subjects or [host_subject()],
        {MEMORY: 0.9},
        text + ".",
        values,
        ref=f"{rule.removesuffix('.level').removesuffix('.forecast')}{{{label}}}" if label else rule,
        sustain_s=sustain_s,
        clear_s=clear_s,
    )


def _resident(process: Process) -> float:
    return float(process.rss_bytes)
