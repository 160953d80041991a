"""Storage: file systems that fill, disks that cannot keep up, disks and arrays that fail."""

from __future__ import annotations

from daemon.messages import Process, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, blame, host_subject, own_unit
from daemon.tiers.wording import octets, percent, quantity, span
from models.taxonomy import FaultClass, Severity, SubjectKind

FULL, INODES, IO = FaultClass.DISK_FULL, FaultClass.INODE_EXHAUSTION, FaultClass.IO_SATURATION
FAILING, CORRUPT = FaultClass.DISK_FAILING, FaultClass.FILESYSTEM_CORRUPT

TIGHT_BYTES = 5e9  # room for one update of a distribution or one large log
STALE_S = 45.0  # a file system that is unmounted is no longer full
HELD = 0.9  # of the time; nothing that goes on reads and writes without a pause
SOON_S = 3.9  # five readings of waiting for storage: caches of a second or two are written back all day
LATE_S = 8.0  # where such bursts are usual
STEADY_RISE = 0.005
GROWTH_S = 15.0  # one interval between snapshots and a late one
EXPLAINS = (0.5, 4.0)  # a writer's rate / the growth: it moved half of it or more, and not much elsewhere
_OLD = (Severity.WARNING, 0.45)  # worth a line beside other findings, no incident of its own


def used(view: View, label: str, ratio: float) -> Breach | None:
    """Blocks of a file system run out."""
    free = view.values.get(f"fs.free_bytes{{{label}}}")
    return _filling(view, "fs.used", label, ratio, free)


def inodes(view: View, label: str, ratio: float) -> Breach | None:
    """Inodes of a file system run out while it may have blocks left."""
    return _filling(view, "fs.inodes_used", label, ratio, None)


def _filling(view: View, family: str, label: str, ratio: float, free: float | None) -> Breach | None:
    name, rule = f"{family}{{{label}}}", f"{family}.level"
    old = view.starting("fs")
    if free is not None:
        view.trend(f"free{{{label}}}", -free, 2.0 * GROWTH_S)
        if ratio < 1.0:
            view.smooth(f"size{{{label}}}", free / (1.0 - ratio), 1.0)
    if ratio < 0.88:
        view.known_full.discard(name)
        view.full_from.pop(name, None)
    if ratio < 0.5:
        return None
    course = view.trend(name, ratio, 600.0)
    if view.get(f"fs.readonly{{{label}}}") >= 1.0 and not view.conditions.opened(rule, label):
        return None  # an image is full by nature
    opened = view.conditions.opened(rule, label)
    if ratio < (0.88 if opened else 0.90):
        return None
    if old and name not in view.known_full:
        view.known_full.add(name)
        view.full_from[name] = ratio
        known = (Severity.WARNING, 0.55) if _grade(ratio, free, rising=False) else _OLD
        return _full(view, family, label, ratio, free=free, grade=known, once=True)
    rising = max(course.rise(600.0), ratio - view.level(name, ratio)) >= STEADY_RISE
    if name in view.known_full and not rising:
        risen = ratio - view.full_from.setdefault(name, ratio) >= STEADY_RISE  # too slowly to be seen rising
        grade = _grade(ratio, free, rising=False) if risen else None
        once = grade is None
        grade = _OLD if once and view.conditions.opened(rule, label) else grade
    else:
        once, grade = False, _grade(ratio, free, rising=rising or opened)
    return _full(view, family, label, ratio, free=free, grade=grade, once=once) if grade else None


def _grade(ratio: float, free: float | None, *, rising: bool) -> tuple[Severity, float] | None:
    tight = free is None or free < TIGHT_BYTES
    if ratio >= 0.995 or (free is not None and free < 4096.0):
        return Severity.CRITICAL, 0.95
    if ratio >= 0.97 and rising:
        return Severity.ERROR, 0.8
    if tight and (rising or ratio >= 0.97):
        return Severity.WARNING, 0.6
    return _OLD if rising else None


def _full(
    view: View,
    family: str,
    label: str,
    ratio: float,
    *,
    free: float | None,
    grade: tuple[Severity, float],
    once: bool,
) -> Breach:
    blocks = family == "fs.used"
    values = {"used_ratio" if blocks else "inodes_used_ratio": ratio}
    if free is not None:
        total = view.smooth(f"size{{{label}}}", 0.0, 0.0)
        values["free_bytes"] = free
        if total:
            values["total_bytes"] = total
    what = "full" if blocks else "out of inodes" if ratio >= 1.0 else "of its inodes used"
    text = f"{label} is {percent(ratio)} {what}" if blocks or ratio < 1.0 else f"{label} is {what}"
    if free is not None:
        text += (
            f": {octets(free)} of {octets(values['total_bytes'])} free" if values.get("total_bytes") else ""
        )
    text += "; it was so when hauswart started." if once else "."
    return Breach(
        f"{family}.level",
        label,
        grade[0],
        grade[1],
        [_mount(label), *_writers(view, label)],
        {FULL if blocks else INODES: 0.9 if not once else 0.5},
        text,
        values,
        ref=f"{family}{{{label}}}",
        stale_s=STALE_S,
        once=once,
    )


def forecast(view: View, label: str, ratio: float) -> Breach | None:
    """A file system fills so steadily that it is full within minutes."""
    rule = "fs.used.forecast"
    opened = view.conditions.opened(rule, label)
    if ratio < 0.5:
        return None
    course = view.trend(f"pace{{{label}}}", ratio, 20.0)
    if ratio < 0.7 or ratio >= 0.995:
        return None
    left_s = course.reaches(1.0)
    if left_s is None or left_s > (600.0 if opened else 240.0):
        return None
    # Unpacking or copying something large looks alike until little is left.
    strong = ratio >= 0.88 and left_s < 120.0
    free = view.get(f"fs.free_bytes{{{label}}}")
    text = f"{label} is {percent(ratio)} full and at the pace of the last 20 s full in {span(left_s)}."
    return Breach(
        rule,
        label,
        Severity.WARNING,
        0.6 if strong else 0.4,
        [_mount(label), *_writers(view, label)],
        {FULL: 0.8},
        text,
        {"used_ratio": ratio, "free_bytes": free, "window_s": left_s},
        ref=f"fs.used{{{label}}}",
        sustain_s=4.0,
    )


def readonly(view: View, label: str, value: float) -> Breach | None:
    """A file system that was writable is read-only now: what ext4 does when it finds itself damaged."""
    known = view.usual.get(f"fs.readonly{{{label}}}")
    rule = "fs.readonly.level"
    if value < 1.0 or known is None or (known.level > 0.5 and not view.conditions.holds(rule, label)):
        return None
    return Breach(
        rule,
        label,
        Severity.ERROR,
        0.75,
        [_mount(label)],
        {CORRUPT: 0.7, FAILING: 0.3},
        f"{label} was writable and is read-only now.",
        {},
        ref=f"fs.readonly{{{label}}}",
        sustain_n=2,
    )


def saturated(view: View, label: str, some: float) -> Breach | None:
    """Tasks wait for storage for most of the time and a disk is busy without a break."""
    rule = "psi.io.level"
    opened = view.conditions.opened(rule, label)
    full = view.get("psi.io.full")
    begun = opened or view.conditions.holds(rule, label)  # a pause between two writers does not start it anew
    if some < (0.3 if begun else 0.6) and full < (0.15 if begun else 0.3):
        return None
    if not opened and _only_own(view, some):
        return None
    device, busy = busiest(view)
    # On a fast disk requests stay short, and yet a queue of tasks stands before it; one copy is no queue.
    queue = view.smooth("blocked", view.get("proc.blocked"), 0.2)
    slow = busy >= (0.5 if begun else 0.9) and (_slower(view, device) or queue >= max(4.0, 2.0 * view.cores))
    crowded = some >= 0.6 and full >= 0.25 and busy >= 0.7 and _crowd(view)
    held = some >= HELD and busy < 0.5 and queue >= 1.5 and len(stuck(view)) >= 2
    # Without a busy disk (network file systems, layers that count nothing) the wait alone must say it.
    if not opened and not (slow or crowded or held) and (full < 0.5 or some < 0.6):
        return None
    if held and not (slow or crowded):
        return _held(view, rule, label, some)
    soon_s = view.conditions.bursts.sustain_s(rule, view.t, soon_s=SOON_S, late_s=LATE_S)
    severity, score = (Severity.ERROR, 0.7) if full >= 0.6 else (Severity.WARNING, 0.6)
    return _io(
        view,
        rule,
        label,
        (severity, score),
        device=device,
        values={"stalled_ratio": some},
        sustain_s=soon_s if slow or crowded else 15.0,
    )


def _only_own(view: View, some: float) -> bool:
    """Nobody but hauswart waits: its models come from a disk that nothing else needs at the moment."""
    waits = {name[12:-1]: value for name, value in view.values.items() if name.startswith("unit.psi_io{")}
    own = max((value for unit, value in waits.items() if own_unit(unit)), default=0.0)
    others = max((value for unit, value in waits.items() if not own_unit(unit)), default=0.0)
    return own >= some - 0.1 and others < 0.2 and not stuck(view)


def stuck(view: View) -> list[Process]:
    """Processes that wait uninterruptibly (state D of proc(5)) in a snapshot that is still fresh."""
    return [process for process in view.processes() if process.state == "D"]


def _held(view: View, rule: str, label: str, some: float) -> Breach:
    """Several wait all the time for disks that do next to nothing: their volume or their group is limited.

    A task that sleeps in io_uring(7) counts as waiting for storage, too, but can be interrupted.
    """
    subjects, lead = blame(view, lambda process: float(process.state == "D"), 1.0)
    waiting = float(len(stuck(view)))
    text = f"Tasks wait for storage {percent(some)} of the time though no disk is busy"
    text += f"; {quantity(waiting)} processes wait, one of them {lead.name}[{lead.pid}]." if lead else "."
    values = {"stalled_ratio": some, "processes_count": waiting}
    return Breach(
        rule,
        label,
        Severity.WARNING,
        0.6,
        subjects or [host_subject()],
        {IO: 0.8},
        text,
        values,
        ref="psi.io.some",
        sustain_s=LATE_S,
    )


def _crowd(view: View) -> bool:
    """No processor rests without a task that waits for storage: as many wait or work as there are cores.

    One copy holds up one processor; on a host that has only one this says nothing.
    """
    waits = view.get("cpu.iowait")
    return view.cores >= 2.0 and waits >= 0.2 and view.get("cpu.busy") + waits >= 0.95


def busy(view: View, label: str, ratio: float) -> Breach | None:
    """A disk is busy without a break and slower than usual, on a kernel without PSI."""
    rule = "disk.busy.level"
    if "psi.io.some" in view.values or ratio < (0.9 if view.conditions.opened(rule, label) else 0.97):
        return None
    if not _slower(view, label) or view.get("proc.blocked") < 1.0:
        return None
    return _io(view, rule, label, (Severity.WARNING, 0.55), device=label, values={}, sustain_s=15.0)


def _slower(view: View, device: str) -> bool:
    """Requests take twice their usual time, or longer than a rotating disk's seek (20 ms)."""
    name = f"disk.await_s{{{device}}}"
    wait = view.get(name)
    return wait >= 0.02 or wait >= 2.0 * view.level(name, wait) > 0.0


def busiest(view: View) -> tuple[str, float]:
    """The disk with the largest busy share: its name and the share."""
    disks = [(value, name[10:-1]) for name, value in view.values.items() if name.startswith("disk.busy{")]
    ratio, device = max(disks, default=(0.0, ""))
    return device, ratio


def _io(
    view: View,
    rule: str,
    label: str,
    grade: tuple[Severity, float],
    *,
    device: str,
    values: dict[str, float],
    sustain_s: float,
) -> Breach:
    writers, lead = blame(view, lambda process: process.io_bytes, 1e6)
    share, wait = view.get(f"disk.busy{{{device}}}"), view.get(f"disk.await_s{{{device}}}")
    values = values | {"busy_ratio": share, "await_s": wait}
    text = f"Tasks wait for storage {percent(view.get('psi.io.some'))} of the time"
    if device:
        text += f"; {device} is {percent(share)} busy and needs {quantity(1e3 * wait)} ms a request"
    if lead:
        text += f"; {lead.name}[{lead.pid}] moves {octets(lead.io_bytes)} a second"
        values |= {"rate_per_s": lead.io_bytes, "pid": float(lead.pid)}
    disk = [Subject(SubjectKind.DEVICE, device, 0.5 if writers else 1.0)] if device else []
    return Breach(
        rule,
        label,
        grade[0],
        grade[1],
        [*writers, *disk] or [host_subject()],
        {IO: 0.8},
        text + ".",
        values,
        ref="psi.io.some" if not label else f"disk.busy{{{label}}}",
        sustain_s=sustain_s,
    )


def io_errors(_view: View, label: str, rate: float) -> Breach | None:
    """A disk failed to read or write."""
    if rate <= 0.0:
        return None
    text = f"{label} reported I/O errors ({quantity(rate)} a second)."
    return _failing("disk.io_errors.level", label, 0.8, text, values={"errors_per_s": rate}, clear_s=120.0)


def smart(_view: View, label: str, value: float) -> Breach | None:
    """The disk itself says that it is failing."""
    if value < 1.0:
        return None
    return _failing(
        "disk.smart_failing.level", label, 0.8, f"{label} reports by SMART that it is failing.", values={}
    )


def degraded(_view: View, label: str, value: float) -> Breach | None:
    """An array has lost a member or its redundancy."""
    if value < 1.0:
        return None
    return _failing(
        "array.degraded.level", label, 0.8, f"The array {label} is degraded.", values={}, clear_s=30.0
    )


def _failing(
    rule: str, label: str, score: float, text: str, *, values: dict[str, float], clear_s: float = 60.0
) -> Breach:
    return Breach(
        rule,
        label,
        Severity.ERROR,
        score,
        [Subject(SubjectKind.DEVICE, label)],
        {FAILING: 0.9},
        text,
        values,
        ref=f"{rule.removesuffix('.level')}{{{label}}}",
        clear_s=clear_s,
        stale_s=4 * 3600.0,  # SMART is read about hourly
    )


def _mount(label: str) -> Subject:
    return Subject(SubjectKind.MOUNT, label[:512])


def _writers(view: View, label: str) -> list[Subject]:
    """Who fills it, at half blame: the process whose rate explains what was added lately."""
    added = view.course(f"free{{{label}}}")
    pace = added.rise(GROWTH_S) / GROWTH_S if added else 0.0
    if pace <= 0.0:
        return []
    low, high = EXPLAINS
    subjects, lead = blame(view, lambda process: process.io_bytes, low * pace)
    if lead is None or lead.io_bytes > high * pace or lead.io_bytes < low * pace:
        return []
    return [Subject(s.kind, s.name, s.score / 2) for s in subjects[:2] if not own_unit(s.name)]
