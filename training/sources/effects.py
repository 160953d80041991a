"""What follows from a fault: symptoms that are louder than their cause, and noise that has nothing to do with it."""

# ruff: noqa: ARG001, E501 - every effect is made alike; log lines are quoted whole

from __future__ import annotations

from collections.abc import Callable

from models.taxonomy import FaultClass, Severity
from training.sources.hosts import Service
from training.sources.symptoms import (
    KERNEL,
    Cause,
    Happened,
    Pieces,
    Said,
    Scene,
    Symptom,
    busy_disk,
    busy_processor,
    cannot_depend,
    culprits,
    fails,
    hangs,
    loops,
    refused,
    says,
    segfault,
    short_memory,
    step,
    unit,
    unresolved,
)

F = FaultClass
W, E, C = Severity.WARNING, Severity.ERROR, Severity.CRITICAL
Effect = Callable[[Scene, Cause, Service], Symptom]


def _crash(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.SERVICE_CRASH, E, unit(it), fails(s, it))


def _loop(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.CRASH_LOOP, E, unit(it), loops(s, it, result=s.of("exit-code", "exit-code", "signal")))


def _hang(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.SERVICE_HUNG, E, unit(it), hangs(s, it))


def _blocked(s: Scene, cause: Cause, it: Service) -> Symptom:
    text = f"INFO: task {it.program}:{it.pid} blocked for more than 120 seconds."
    return Symptom(F.SERVICE_HUNG, E, unit(it), [Said(0.0, KERNEL, text, 3)])


def _depend(s: Scene, cause: Cause, it: Service) -> Symptom:
    other = s.service()
    return Symptom(F.DEPENDENCY_FAILED, E, unit(other), [*fails(s, it), *_later(cannot_depend(other), 0.2)])


def _mount_depends(s: Scene, cause: Cause, it: Service) -> Symptom:
    path = cause.place if cause.place.startswith("/") else s.mount().path
    lines: Pieces = [Said(0.0, "pid1", f"Failed to mount {path}.", 3)]
    who = (*culprits(("mount", path)), *unit(it))
    return Symptom(F.DEPENDENCY_FAILED, E, who, [*lines, *_later(cannot_depend(it), 0.1)])


def _refused(s: Scene, cause: Cause, it: Service) -> Symptom:
    client = s.service()
    return Symptom(F.DEPENDENCY_FAILED, W, unit(client), refused(s, client))


def _unresolved(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.NAME_RESOLUTION, W, (), [*unresolved(s, it), *unresolved(s, s.service())])


def _disk_waits(s: Scene, cause: Cause, it: Service) -> Symptom:
    disk = cause.place if cause.place in s.host.disks else s.host.disks[0]
    return Symptom(F.IO_SATURATION, W, culprits(("device", disk)), busy_disk(s, disk))


def _busy(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.CPU_SATURATION, W, cause.culprits, busy_processor(s))


def _memory(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(F.MEMORY_EXHAUSTION, E, cause.culprits, short_memory(s, 8.0))


def _config(s: Scene, cause: Cause, it: Service) -> Symptom:
    words = says(
        s,
        it,
        "cannot write configuration cache, check configuration",
        "configuration file is truncated",
        times=2,
    )
    return Symptom(F.CONFIG_ERROR, E, unit(it), [*words, *fails(s, it, result="exit-code")])


def _corrupt(s: Scene, cause: Cause, it: Service) -> Symptom:
    disk = cause.place if cause.place in s.host.disks else s.host.disks[0]
    part = next((m.part for m in s.host.mounts if m.disk == disk), disk)
    text = s.of(
        f"EXT4-fs error (device {part}): ext4_journal_check_start:83: comm {it.program}: Detected aborted journal",
        f"Aborting journal on device {part}-8.",
        f"EXT4-fs ({part}): Remounting filesystem read-only",
        f'XFS ({part}): metadata I/O error in "xfs_trans_read_buf_map" at daddr 0x2 len 1 error 5',
    )
    return Symptom(
        F.FILESYSTEM_CORRUPT, C, culprits(("device", part), ("device", disk)), [Said(0.0, KERNEL, text, 2)]
    )


def _disk_errors(s: Scene, cause: Cause, it: Service) -> Symptom:
    disk = cause.place if cause.place in s.host.disks else s.host.disks[0]
    text = f"I/O error, dev {disk}, sector 4096 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2"
    return Symptom(
        F.DISK_FAILING, E, culprits(("device", disk)), [Said(n * 0.5, KERNEL, text, 3) for n in range(3)]
    )


def _io_words(s: Scene, cause: Cause, it: Service) -> Symptom:
    words = says(s, it, "read failed: Input/output error", "pwrite: Input/output error", times=2)
    return Symptom(F.DISK_FAILING, E, unit(it), [*words, *fails(s, it)])


def _segfault(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(
        F.SERVICE_CRASH, E, unit(it), [*segfault(s, it), *_later(fails(s, it, result="core-dump"), 0.5)]
    )


def _loss(s: Scene, cause: Cause, it: Service) -> Symptom:
    link = cause.place or s.host.links[0]
    pieces: Pieces = [step("net.tcp_retransmits", 20.0), step("net.tcp_out_segments", 60.0)]
    return Symptom(F.PACKET_LOSS, W, culprits(("interface", link)), pieces)


def _certificates(s: Scene, cause: Cause, it: Service) -> Symptom:
    words = says(
        s, it, "x509: certificate has expired or is not yet valid", "certificate is not yet valid", times=3
    )
    return Symptom(F.CERTIFICATE_EXPIRED, E, unit(it), words)


def _descriptors(s: Scene, cause: Cause, it: Service) -> Symptom:
    return Symptom(
        F.FD_EXHAUSTION, E, unit(it), says(s, it, "accept4() failed (24: Too many open files)", times=4)
    )


def _later(pieces: Pieces, by_s: float) -> Pieces:
    return [one._replace(after_s=one.after_s + by_s) for one in pieces if isinstance(one, Said)]


EFFECTS: dict[FaultClass, tuple[Effect, ...]] = {
    F.CPU_SATURATION: (_hang, _refused),
    F.MEMORY_EXHAUSTION: (_loop, _loop, _crash, _hang, _disk_waits, _depend, _refused),
    F.FD_EXHAUSTION: (_crash, _loop, _hang, _refused, _depend),
    F.PROCESS_STORM: (_busy, _memory, _crash, _hang),
    F.IO_SATURATION: (_hang, _blocked, _refused),
    F.DISK_FULL: (_loop, _loop, _crash, _hang, _config, _depend),
    F.INODE_EXHAUSTION: (_loop, _crash, _config, _depend),
    F.DISK_FAILING: (_disk_waits, _corrupt, _blocked, _io_words, _loop, _mount_depends),
    F.FILESYSTEM_CORRUPT: (_crash, _loop, _mount_depends, _hang),
    F.HARDWARE_ERROR: (_busy, _segfault),
    F.DEVICE_LOST: (_disk_errors, _corrupt, _disk_waits, _mount_depends, _io_words),
    F.LINK_DOWN: (_unresolved, _unresolved, _refused, _loop, _loss),
    F.PACKET_LOSS: (_unresolved, _refused, _hang),
    F.NAME_RESOLUTION: (_refused, _loop, _crash),
    F.CONNECTION_FLOOD: (_loss, _descriptors, _busy, _hang),
    F.SERVICE_CRASH: (_depend, _refused),
    F.CRASH_LOOP: (_depend, _refused, _busy),
    F.SERVICE_HUNG: (_refused, _depend),
    F.CONFIG_ERROR: (_loop, _loop, _depend, _refused),
    F.DEPENDENCY_FAILED: (_loop, _crash, _hang),
    F.CERTIFICATE_EXPIRED: (_refused, _loop, _crash),
    F.AUTH_BRUTEFORCE: (_busy,),
    F.CLOCK_JUMP: (_certificates, _hang, _crash),
    F.KERNEL_BUG: (_blocked, _segfault, _hang, _refused),
}

_ODD = (
    "first time seeing peer announce feature {n}",
    "falling back to legacy codec",
    "plugin weather took {n} ms to answer",
    "deprecated option ignored",
    "WARNING: clock of sensor {n} is {n} s behind",
    "retrying request, attempt {n}",
    "user agent not recognised",
    "slow response from tracker",
    "error: client sent malformed header",
    "failed to fetch thumbnail {n}",
)


def noise(s: Scene) -> list[Symptom]:
    """Lines nobody said before, a job or a sudo that has nothing to do with anything, another small fault."""
    found: list[Symptom] = []
    for _ in range(s.random.choice((0, 0, 1, 1, 2, 4))):
        it = s.random.choice(s.host.services)
        text = s.of(*_ODD).format(n=s.random.randrange(1, 99))
        found.append(
            Symptom(
                F.UNKNOWN,
                Severity.INFO,
                unit(it),
                [Said(0.0, it, text, s.random.choice((3, 4, 6)))],
                s.span(0, 25),
            )
        )
    if s.chance(0.1):
        job = s.of("logrotate.service", "certbot.service", "backup.service")
        event = Happened(0.0, "context", s.of("timer", "maintenance-job"), "start", (("unit", job),))
        found.append(Symptom(F.UNKNOWN, Severity.INFO, (), [event], 1.0))
    if s.chance(0.1):
        event = Happened(0.0, "session", s.user(), "sudo", (("command", "/usr/bin/id"),))
        found.append(Symptom(F.UNKNOWN, Severity.INFO, (), [event], 1.0))
    if s.chance(0.08):
        it = s.service()
        found.append(Symptom(F.SERVICE_CRASH, E, unit(it), fails(s, it, result="exit-code"), s.span(3, 20)))
    return found
