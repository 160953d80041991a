"""Mechanisms of processor, memory, descriptors, processes and waiting for storage."""

# ruff: noqa: D103, S608 - a mechanism's name says it; log lines are quoted whole; no SQL runs here

from __future__ import annotations

from msgspec.structs import replace

from daemon.messages import Process
from models.taxonomy import FaultClass as F
from models.taxonomy import Severity
from training.sources.mechanisms.registry import mechanism
from training.sources.symptoms import (
    KERNEL,
    MANAGER,
    Cause,
    Counted,
    Course,
    Pieces,
    Said,
    Scene,
    Shown,
    busy_disk,
    busy_processor,
    culprits,
    fails,
    oom_kill,
    ramp,
    says,
    short_memory,
    step,
    unit,
)

W, E, C = Severity.WARNING, Severity.ERROR, Severity.CRITICAL


def stranger(
    s: Scene, name: str, *, cpu: float = 0.0, io: float = 0.0, rss: float = 5e7, fds: int = 12
) -> Process:
    """A process in a user's session."""
    pid = s.pid()
    return Process(pid, 1, name, "session-4.scope", 1000, "R", cpu, int(rss), fds, 1024, 2, io, 4.0)


# --- processor --------------------------------------------------------------------------------------------


@mechanism(F.CPU_SATURATION)
def loop_of_a_stranger(s: Scene) -> Cause:
    process = stranger(
        s, s.of("python3", "stress", "node", "java", "crunch", "a.out"), cpu=s.host.cores * 0.97
    )
    return Cause(W, culprits(("process", process.name)), [[*busy_processor(s), Shown(process)]])


@mechanism(F.CPU_SATURATION)
def spinning_service(s: Scene) -> Cause:
    it = s.service()
    cores = max(0.95, s.host.cores * s.span(0.5, 0.95))
    signs: list[Pieces] = [
        [*busy_processor(s), Shown(s.host.process(it, cpu=cores))],
        [step(f"unit.cpu{{{it.unit}}}", cores)],
    ]
    return Cause(W, unit(it), signs, (it,))


@mechanism(F.CPU_SATURATION)
def pool_of_workers(s: Scene) -> Cause:
    it = s.service()
    share = 0.95 * s.host.cores / 6
    shown: Pieces = [Shown(replace(s.host.process(it, cpu=share), pid=s.pid())) for _ in range(6)]
    slow = says(
        s,
        it,
        "server reached max_children setting, consider raising it",
        "worker pool is exhausted",
        priority=4,
    )
    return Cause(W, unit(it), [[*busy_processor(s), *shown], slow], (it,))


@mechanism(F.CPU_SATURATION)
def miner(s: Scene) -> Cause:
    name = s.of("kdevtmpfsi", "xmrig", "kinsing", "watchbog", "dbused")
    process = stranger(s, name, cpu=s.host.cores * 0.99)
    return Cause(E, culprits(("process", name)), [[*busy_processor(s), Shown(process)]])


@mechanism(F.CPU_SATURATION)
def query_without_index(s: Scene) -> Cause:
    it = s.service()
    slow = says(
        s,
        it,
        f"duration: {s.random.randrange(9000, 90000)} ms  statement: SELECT count(*) FROM events",
        "Slow query: took 48 s, rows examined 90211345",
        times=4,
        priority=4,
    )
    cores = max(0.95, s.host.cores * 0.9)
    return Cause(W, unit(it), [[*busy_processor(s), Shown(s.host.process(it, cpu=cores))], slow], (it,))


# --- memory -----------------------------------------------------------------------------------------------


def unit_oom(it_unit: str, after_s: float = 0.3) -> Pieces:
    """The manager's words about a unit of which the kernel killed a process."""
    text = f"{it_unit}: A process of this unit has been killed by the OOM killer."
    return [Said(after_s, MANAGER, text, 5, it_unit)]


@mechanism(F.MEMORY_EXHAUSTION, 2.0)
def leak_takes_the_host(s: Scene) -> Cause:
    it = s.service()
    over = s.span(5, 20)
    signs: list[Pieces] = [
        [*short_memory(s, over), Shown(s.host.process(it, rss=0.7 * s.host.memory_bytes))],
        oom_kill(s, it, own=False),
        [*unit_oom(it.unit), *fails(s, it, result="oom-kill", after_s=0.4)],
    ]
    return Cause(C, unit(it), signs, (it,))


@mechanism(F.MEMORY_EXHAUSTION, 2.0)
def unit_meets_its_limit(s: Scene) -> Cause:
    it = s.service()
    signs = [oom_kill(s, it, own=True), [*unit_oom(it.unit), *fails(s, it, result="oom-kill", after_s=0.4)]]
    return Cause(E, unit(it), signs, (it,))


@mechanism(F.MEMORY_EXHAUSTION)
def thrashing(s: Scene) -> Cause:
    it = s.service()
    pieces: Pieces = [
        ramp("mem.available", 0.3, s.span(0.03, 0.08), 6.0),
        ramp("mem.swap_used", 0.2, 0.95, 6.0),
        step("mem.major_faults", s.span(900, 6000), 4.0),
        Shown(s.host.process(it, rss=0.6 * s.host.memory_bytes)),
    ]
    if s.host.psi:
        pieces += [step("psi.memory.some", 0.6, 5.0), step("psi.memory.full", s.span(0.15, 0.5), 5.0)]
    return Cause(E, unit(it), [pieces, busy_disk(s, s.host.disks[0])], (it,))


@mechanism(F.MEMORY_EXHAUSTION)
def allocations_fail(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "failed to start thread: Cannot allocate memory",
        "Can't save in background: fork: Cannot allocate memory",
        "FATAL: out of memory. DETAIL: Failed on request of size 8192",
        "java.lang.OutOfMemoryError: Java heap space",
        "fatal error: runtime: out of memory",
        times=3,
    )
    kernel: Pieces = [
        Said(0.0, KERNEL, f"{it.program}: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)", 4)
    ]
    return Cause(E, unit(it), [words, kernel, [ramp("mem.available", 0.2, 0.06, 5.0)]], (it,))


@mechanism(F.MEMORY_EXHAUSTION)
def unit_stalls_at_its_limit(s: Scene) -> Cause:
    it = s.host.services[s.random.randrange(6)]
    pieces: Pieces = [step(f"unit.memory{{{it.unit}}}", s.span(0.985, 1.0))]
    pieces += [step(f"unit.psi_memory{{{it.unit}}}", s.span(0.2, 0.8)), step("psi.memory.some", 0.25)]
    return Cause(
        E,
        unit(it),
        [pieces, says(s, it, "GC overhead limit exceeded", "response took 9000 ms", priority=4)],
        (it,),
    )


@mechanism(F.MEMORY_EXHAUSTION)
def files_in_memory(s: Scene) -> Cause:
    it, other = s.service(), s.service()
    signs: list[Pieces] = [
        [*full_shm(s), *short_memory(s, 8.0)],
        oom_kill(s, other, own=False),
    ]
    return Cause(C, (*unit(it), *unit(other)), signs, (other,))


def full_shm(s: Scene) -> Pieces:
    """Shared memory grows."""
    return [ramp("mem.swap_used", 0.02, s.span(0.6, 0.95), 8.0)]


# --- descriptors ------------------------------------------------------------------------------------------


@mechanism(F.FD_EXHAUSTION)
def sockets_leak(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "accept4() failed (24: Too many open files)",
        "accept tcp [::]:8080: too many open files",
        times=6,
    )
    table: Pieces = [Shown(s.host.process(it, fds=1020, limit=1024))]
    return Cause(E, unit(it), [words, table], (it,))


@mechanism(F.FD_EXHAUSTION)
def host_table_full(s: Scene) -> Cause:
    it = s.service()
    kernel: Pieces = [Said(n * 1.0, KERNEL, "VFS: file-max limit 8192 reached", 6) for n in range(3)]
    held: Pieces = [step("fd.used", s.span(0.95, 1.0)), Shown(s.host.process(it, fds=7000, limit=65536))]
    others = says(s, s.service(), "open /etc/resolv.conf: too many open files in system", times=2)
    return Cause(C, unit(it), [held, kernel, others], (it,))


@mechanism(F.FD_EXHAUSTION)
def files_never_closed(s: Scene) -> Cause:
    it = s.service()
    limit = s.random.choice((1024, 4096, 65536))
    table: Pieces = [Shown(s.host.process(it, fds=int(limit * s.span(0.92, 1.0)), limit=limit))]
    words = says(
        s,
        it,
        "OSError: [Errno 24] Too many open files: '/srv/x'",
        "EMFILE: too many open files, open 'x.json'",
        times=3,
    )
    return Cause(E, unit(it), [table, words], (it,))


@mechanism(F.FD_EXHAUSTION)
def watches_exhausted(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "inotify_init() failed: Too many open files",
        "failed to create fsnotify watcher: too many open files",
        times=2,
    )
    return Cause(E, unit(it), [words, [Shown(s.host.process(it, fds=1000, limit=1024))]], (it,))


# --- processes --------------------------------------------------------------------------------------------


@mechanism(F.PROCESS_STORM)
def fork_bomb(s: Scene) -> Cause:
    name, pid = s.of("bash", "python3", "spawner", "sh", "perl"), s.pid()
    most = s.random.randint(600, 4000)
    pieces: Pieces = [
        ramp("proc.total", 180, 180 + most, s.span(4, 15)),
        step("proc.forks", s.span(80, 700)),
        Counted(f"children{{{pid}/{name}}}", most, 5.0),
        Shown(replace(stranger(s, name), pid=pid)),
    ]
    return Cause(
        E, culprits(("process", name)), [[*pieces, ramp("proc.limit", 0.02, s.span(0.1, 0.97), 12.0)]]
    )


@mechanism(F.PROCESS_STORM)
def jobs_pile_up(s: Scene) -> Cause:
    name = s.of("backup.sh", "rsync", "php", "collect", "curl")
    most = s.random.randint(300, 900)
    pieces: Pieces = [ramp("proc.total", 180, 180 + most, 12.0), step("proc.forks", s.span(50, 90))]
    pieces += [Counted(f"name{{{name}}}", most, 10.0), Shown(stranger(s, name))]
    return Cause(E, culprits(("process", name)), [pieces])


@mechanism(F.PROCESS_STORM)
def unit_at_its_task_limit(s: Scene) -> Cause:
    it = s.service()
    kernel: Pieces = [
        Said(0.0, KERNEL, f"cgroup: fork rejected by pids controller in /system.slice/{it.unit}", 6)
    ]
    tasks: Pieces = [
        step(f"unit.tasks_limit{{{it.unit}}}", s.span(0.95, 1.0)),
        step(f"unit.tasks{{{it.unit}}}", 4915.0),
    ]
    words = says(s, it, "fork: retry: Resource temporarily unavailable", "can't start new thread", times=3)
    return Cause(E, unit(it), [tasks, kernel, words], (it,))


@mechanism(F.PROCESS_STORM)
def threads_leak(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "pthread_create failed: Resource temporarily unavailable",
        "unable to create new native thread",
        "fork: Resource temporarily unavailable",
        times=4,
    )
    pieces: Pieces = [
        ramp("proc.limit", 0.2, s.span(0.82, 0.99), 8.0),
        Shown(s.host.process(it, threads=30000)),
    ]
    return Cause(C, unit(it), [words, [*pieces, Counted(f"children{{{it.pid}/{it.program}}}", 400.0)]], (it,))


# --- waiting for storage ----------------------------------------------------------------------------------


def slow_words(s: Scene, pid: int, name: str) -> Pieces:
    """The kernel tells of a task that waits."""
    return [
        Said(0.0, KERNEL, f"INFO: task {name}:{pid} blocked for more than {s.of('120', '241')} seconds.", 3)
    ]


@mechanism(F.IO_SATURATION)
def writer_of_a_stranger(s: Scene) -> Cause:
    process = stranger(s, s.of("dd", "fio", "cp", "python3", "wget"), io=s.span(8e7, 9e8))
    disk = s.random.choice(s.host.disks)
    return Cause(W, culprits(("process", process.name)), [[*busy_disk(s, disk), Shown(process)]], place=disk)


@mechanism(F.IO_SATURATION)
def database_rewrites(s: Scene) -> Cause:
    it = s.service()
    disk = s.random.choice(s.host.disks)
    words = says(
        s,
        it,
        "checkpoints are occurring too frequently (9 seconds apart)",
        "Asynchronous AOF fsync is taking too long (disk is busy?)",
        "fsync took 4211 ms, disk is slow",
        times=3,
        priority=4,
    )
    return Cause(W, unit(it), [[*busy_disk(s, disk), Shown(s.host.process(it, io=3e8))], words], (it,), disk)


@mechanism(F.IO_SATURATION)
def tasks_blocked(s: Scene) -> Cause:
    it = s.service()
    disk = s.random.choice(s.host.disks)
    signs = [[*busy_disk(s, disk), Shown(s.host.process(it, io=2e8))], slow_words(s, it.pid, it.program)]
    return Cause(E, unit(it), signs, (it,), disk)


@mechanism(F.IO_SATURATION)
def indexer_reads_all(s: Scene) -> Cause:
    it = s.service()
    disk = s.random.choice(s.host.disks)
    waits: Pieces = [Course(f"disk.await_s{{{disk}}}", ((0.0, 0.002), (10.0, 0.4)))]
    return Cause(
        W,
        unit(it),
        [[*busy_disk(s, disk, hard=False), *waits, Shown(s.host.process(it, io=1.2e8))]],
        (it,),
        disk,
    )
