"""Processor: the whole host, or a unit at its quota, has none left."""

from __future__ import annotations

from daemon.messages import Process, Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import (
    SNAPSHOT_FRESH_S,
    View,
    alike,
    blame,
    host_subject,
    in_session,
    own_unit,
    service,
    unit_subject,
)
from daemon.tiers.wording import percent, quantity
from models.taxonomy import FaultClass, Severity

CPU, BUSY = FaultClass.CPU_SATURATION, FaultClass.HEAVY_BUT_NORMAL_LOAD
SATURATED = "cpu.busy.level"

AT_START_S = 10.0  # an interval between snapshots
SOON_S = 1.9  # three readings (they jitter), which are three seconds of a host that does nothing else
LATE_S = 6.0  # where such bursts are usual, or somebody has just begun something
STARTING_S = 15.0  # a service that reads its code and its data
SATURATING = 0.25  # share of all cores below which nobody is called the culprit of their saturation
UNTHROTTLED = 8  # readings of a service that has run without meeting its quota
CROWDED, CROWDED_SHARE = 0.1, 0.6  # of all cores, and of what all visible processes use together
WAITING = 0.3  # of the time, by PSI
SEEN_SHARE, SHORT_LIVED = 0.2, 50.0  # of the busy time; processes started a second
UNKNOWN_S = 16.0  # one snapshot interval of 10 s longer than where somebody is known

_INTERPRETERS = frozenset({"sh", "bash", "dash", "python", "perl", "ruby", "node", "java", "php"})

# Programs whose purpose is to take a core for minutes and then to end. Nobody gains by borrowing such a name:
# after BATCH_S they are judged like any other.
BATCH_TOOLS = frozenset(
    {
        "apt",
        "apt-get",
        "aptitude",
        "dpkg",
        "dpkg-deb",
        "unattended-upgr",
        "apt-check",
        "dnf",
        "yum",
        "rpm",
        "zypper",
        "pacman",
        "packagekitd",
        "pip",
        "pip3",
        "uv",
        "npm",
        "cargo",
        "rustc",
        "cc",
        "cc1",
        "cc1plus",
        "lto1",
        "gcc",
        "g++",
        "clang",
        "clang++",
        "ld",
        "ld.lld",
        "ld.gold",
        "go",
        "compile",
        "link",
        "javac",
        "make",
        "ninja",
        "cmake",
        "nix",
        "nix-build",
        "nix-daemon",
        "nix-env",
        "nix-store",
        "nixos-rebuild",
        "mandb",
        "updatedb",
        "update-initramf",
        "mkinitramfs",
        "depmod",
        "ldconfig",
        "localedef",
        "logrotate",
        "xz",
        "gzip",
        "pigz",
        "bzip2",
        "zstd",
        "lz4",
        "tar",
        "cpio",
        "rsync",
        "restic",
        "borg",
        "duplicity",
        "rclone",
        "mysqldump",
        "pg_dump",
        "e2scrub",
        "fsck",
        "fstrim",
        "btrfs",
        "ffmpeg",
        "sha256sum",
        "md5sum",
        "find",
    }
)


def saturated(view: View, label: str, busy: float) -> Breach | None:
    """No processor time left and tasks wait for it (PSI), or more tasks run than there are cores (no PSI)."""
    opened = view.conditions.opened(SATURATED, label)
    if busy < (0.90 if opened else 0.95):
        return None
    stalled = view.values.get("psi.cpu.some")
    load = view.get("load.1")
    # Tasks that wait a third of the time halve each other's speed; without PSI a queue says the same.
    waiting = view.get("proc.running") > view.cores + 0.5 if stalled is None else stalled >= WAITING
    calm = load <= view.cores if stalled is None else stalled < 0.15
    sustain_s = LATE_S
    if not (waiting or (opened and not calm)):
        # As many loops as cores leave nothing free but make nobody wait on an idle host.
        if busy < 0.97 or view.level("cpu.busy", busy) > 0.6:
            return None
        sustain_s = 15.0
    return _saturation(view, label, busy, sustain_s)


def _saturation(view: View, label: str, busy: float, sustain_s: float) -> Breach:
    stalled, load = view.values.get("psi.cpu.some"), view.get("load.1")
    lasting = view.conditions.held_s(SATURATED, label, view.t) > 60.0
    heavy = stalled is not None and stalled >= 0.6 and lasting
    subjects, lead = cpu_blame(view, SATURATING * view.cores)
    crowded = not subjects
    if crowded:
        subjects, lead = _crowd(view)
    since_t = view.t - view.conditions.held_s(SATURATED, label, view.t)
    batch = lead is not None and lead.name in BATCH_TOOLS
    # No snapshot shows what short-lived ones use together.
    churning = view.get("proc.forks") >= SHORT_LIVED and lead is not None and lead.age_s < AT_START_S
    unsure = view.snapshot_t <= since_t or not subjects or (crowded and not churning)
    if view.snapshot and unsure:
        sustain_s = max(sustain_s, UNKNOWN_S)  # it is from before: the next one shows who it is
    elif sustain_s == LATE_S and lead and not batch and not _on_purpose(view, lead):
        bursts = view.conditions.bursts
        sustain_s = bursts.sustain_s(SATURATED, view.t, soon_s=SOON_S, late_s=LATE_S)
    outside = not subjects and (stalled or 0.0) >= WAITING and _taken_outside(view, busy)
    values = {"busy_ratio": busy, "cores_count": view.cores, "load": load}
    text = f"All {quantity(view.cores)} cores are {percent(busy)} busy"
    if stalled is None:
        text += f" at load {quantity(load)}"
    else:
        text += f" and tasks wait {percent(stalled)} of the time"
        values["stalled_ratio"] = stalled
    if lead:
        text += f"; {lead.name}[{lead.pid}] uses {quantity(lead.cpu)} cores"
        values |= {"cpu_cores": lead.cpu, "cpu_ratio": lead.cpu / view.cores, "pid": float(lead.pid)}
    return Breach(
        SATURATED,
        label,
        Severity.INFO if outside else Severity.ERROR if heavy else Severity.WARNING,
        0.4 if batch or outside else 0.75 if heavy else 0.65,
        subjects or [host_subject()],
        {CPU: 0.4, BUSY: 0.4} if batch else {CPU: 0.4} if outside else {CPU: 0.8},
        text + ".",
        values,
        ref="cpu.busy",
        sustain_s=sustain_s,
    )


def _taken_outside(view: View, busy: float) -> bool:
    """Whether hardly any of the busy time is of processes seen here, nor of many short ones.

    Then it is of others on the machine around a container: nothing in here is at fault.
    """
    if view.snapshot is None or view.t - view.snapshot_t > SNAPSHOT_FRESH_S:
        return False
    seen = sum(max(0.0, process.cpu) for process in view.snapshot.processes)
    return seen < SEEN_SHARE * busy * view.cores and view.get("proc.forks") < SHORT_LIVED


def _on_purpose(view: View, process: Process) -> bool:
    """Whether somebody has just begun this: a service that starts, what is done at a terminal, a reload."""
    if in_session(process) or process.pid == 1:
        return True
    if not service(process.unit) or process.age_s >= STARTING_S:
        return False
    kin = [one for one in view.processes() if alike(one, process) and one.name == process.name]
    # Many children of one parent, or of the same program as it, serve those who ask; what cron or a runner
    # begins has a name of its own, or an interpreter's, which tells nothing.
    many = sum(one.ppid == process.ppid for one in kin) > view.cores
    script = process.name.rstrip("0123456789.") in _INTERPRETERS
    forked = any(one.age_s >= STARTING_S for one in kin) and not script
    oldest_s = max((one.age_s for one in view.processes() if alike(one, process)), default=0.0)
    return oldest_s < STARTING_S or not (many or forked)


def cpu_blame(view: View, least_cores: float = 0.25) -> tuple[list[Subject], Process | None]:
    """Who uses the processor, from the processes or else from the units' accounting."""
    subjects, lead = blame(view, _cores, least_cores)
    if subjects:
        return subjects, lead
    units = [
        (cores, name[9:-1])
        for name, cores in view.values.items()
        if name.startswith("unit.cpu{") and cores >= 0.5 and service(name[9:-1]) and not own_unit(name[9:-1])
    ]
    return ([unit_subject(max(units)[1])] if units else []), None


def _crowd(view: View) -> tuple[list[Subject], Process | None]:
    """Who gets little, because others (of another container, too) want as much, but would take every core."""
    subjects, lead = blame(view, _cores, CROWDED * view.cores, CROWDED_SHARE)
    if lead and lead.name in BATCH_TOOLS:
        return subjects, lead  # one after the other, each too short to have used much
    if lead is None or sum(p.state == "R" and alike(p, lead) for p in view.processes()) < view.cores:
        return [], None
    return subjects, lead


def _cores(process: Process) -> float:
    return process.cpu


def throttled(view: View, label: str, ratio: float) -> Breach | None:
    """A unit stands at its own CPU quota: it is slow, the host is not.

    A quota is there to be met by some; a service that never met it and now meets nothing else is out of it.
    """
    rule, name = "unit.throttled.level", f"unit.throttled{{{label}}}"
    if ratio < 0.5 or own_unit(label):
        return None
    known = view.usual.get(name)
    new = known is not None and known.seen >= UNTHROTTLED and known.level < 0.3 and service(label)
    loud = new and ratio >= (0.6 if view.conditions.opened(rule, label) else 0.8)
    text = f"{label} was held back by its CPU quota in {percent(ratio)} of the periods."
    return Breach(
        rule,
        label,
        Severity.WARNING if loud else Severity.INFO,
        0.55 if loud else 0.3,
        [unit_subject(label)],
        {CPU: 0.7 if loud else 0.3},
        text,
        {"stalled_ratio": ratio},
        ref=name,
        sustain_s=4.0 if loud else 30.0,
    )


def stolen(view: View, label: str, ratio: float) -> Breach | None:
    """The hypervisor gives the processor to others while this host would run (steal of proc(5))."""
    rule = "cpu.steal.level"
    if ratio < (0.2 if view.conditions.opened(rule, label) else 0.3):
        return None
    text = f"The hypervisor takes {percent(ratio)} of the processor time away from this host."
    severity, score = (Severity.ERROR, 0.7) if ratio >= 0.6 else (Severity.WARNING, 0.6)
    return Breach(
        rule,
        label,
        severity,
        score,
        [host_subject()],
        {CPU: 0.8},
        text,
        {"stolen_ratio": ratio},
        ref="cpu.steal",
        sustain_s=10.0,
    )
