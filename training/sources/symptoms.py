"""What a fault leaves in a host's observations, as building blocks: lines, metric courses, processes, events.

Every block is a list of pieces with times relative to its own start. The texts are those of the kernel, of
systemd and of common services; who says them is who says them on a real host.
"""

# ruff: noqa: E501, S108 - log lines are quoted whole, and name what they name

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

from daemon.messages import Process
from models.taxonomy import FaultClass, Severity, SubjectKind
from training.sources.hosts import Host, Mount, Service

Who = tuple[SubjectKind, str]
F, K = FaultClass, SubjectKind
KERNEL, MANAGER = "kernel", "pid1"


class Said(NamedTuple):
    """A log line; `writer` is KERNEL, MANAGER (about `unit`), a service, or a system program's name."""

    after_s: float
    writer: str | Service
    text: str
    priority: int = 6
    unit: str = ""


class Course(NamedTuple):
    """A metric's values from `points` of (seconds, value), straight between them, the last one stays."""

    metric: str
    points: tuple[tuple[float, float], ...]
    until_s: float = 1e9


class Shown(NamedTuple):
    """A process in the snapshots from `after_s` to `until_s`."""

    process: Process
    after_s: float = 0.0
    until_s: float = 1e9


class Counted(NamedTuple):
    """A count in the snapshots, growing from 0 to `value` within `over_s`."""

    key: str
    value: float
    over_s: float = 1.0
    after_s: float = 0.0


class Happened(NamedTuple):
    """An event of the collectors."""

    after_s: float
    kind: Literal["context", "device", "link", "session"]
    name: str
    action: str
    attributes: tuple[tuple[str, str], ...] = ()


class Jumped(NamedTuple):
    """The wall clock jumps."""

    after_s: float
    by_s: float


Piece = Said | Course | Shown | Counted | Happened | Jumped
Pieces = list[Piece]


class Symptom(NamedTuple):
    """Pieces that belong together; `fault`, `severity` and `culprits` are what they mean by themselves."""

    fault: FaultClass
    severity: Severity
    culprits: tuple[Who, ...]
    pieces: Pieces
    at_s: float = 0.0
    telling: bool = False  # it shows the episode's cause, and is no mere effect


class Cause(NamedTuple):
    """A mechanism at work: its signs (each tells of the cause), whom to blame, and who suffers."""

    severity: Severity
    culprits: tuple[Who, ...]
    signs: list[Pieces]
    victims: tuple[Service, ...] = ()
    place: str = ""  # path, device or interface, for effects that name it


class Scene:
    """A host and one episode's randomness; gives each part to one role only."""

    def __init__(self, host: Host, random: Random) -> None:
        self.host, self.random = host, random
        self._services = random.sample(host.services, len(host.services))
        self._mounts = random.sample(host.mounts[1:], len(host.mounts) - 1)
        self._pid = random.randrange(31000, 60000)

    def service(self) -> Service:
        """A service that no other role has."""
        return self._services.pop()

    def mount(self) -> Mount:
        """A mount that no other role has."""
        return self._mounts.pop() if self._mounts else self.host.mounts[0]

    def link(self) -> str:
        """An interface."""
        return self.random.choice(self.host.links)

    def address(self) -> str:
        """Somebody's address."""
        return self.host.address(self.random)

    def user(self) -> str:
        """A user."""
        return self.random.choice(self.host.users)

    def pid(self) -> int:
        """A new pid."""
        self._pid += self.random.randrange(1, 40)
        return self._pid

    def of(self, *texts: str) -> str:
        """One of several wordings."""
        return self.random.choice(texts)

    def span(self, low: float, high: float) -> float:
        """A number between two."""
        return round(self.random.uniform(low, high), 2)

    def chance(self, share: float) -> bool:
        """Whether something happens that has this probability."""
        return self.random.random() < share


def unit(service: Service) -> tuple[Who, ...]:
    """A service as a culprit: its unit or its program."""
    return ((K.UNIT, service.unit), (K.PROCESS, service.program))


# --- what services and their manager say ------------------------------------------------------------------


def says(scene: Scene, service: Service, *texts: str, times: int = 1, priority: int = 3) -> Pieces:
    """A service utters one of these, some times."""
    step = scene.span(0.3, 3.0)
    return [Said(step * n, service, scene.of(*texts), priority) for n in range(times)]


def fails(scene: Scene, service: Service, *, result: str = "", after_s: float = 0.0) -> Pieces:
    """A unit's process ends badly, once."""
    status = scene.of("1/FAILURE", "2/INVALIDARGUMENT", "70/SOFTWARE", "255/EXCEPTION")
    result = result or scene.of("exit-code", "exit-code", "signal", "core-dump", "protocol")
    code = f"code=exited, status={status}"
    if result in {"signal", "core-dump"}:
        code = scene.of(
            "code=killed, status=6/ABRT", "code=dumped, status=11/SEGV", "code=killed, status=9/KILL"
        )
    lines: Pieces = [Said(after_s, MANAGER, f"{service.unit}: Main process exited, {code}", 5, service.unit)]
    lines.append(
        Said(after_s + 0.1, MANAGER, f"{service.unit}: Failed with result '{result}'.", 4, service.unit)
    )
    return lines


def loops(scene: Scene, service: Service, *, result: str = "", times: int = 0) -> Pieces:
    """A unit fails, is restarted and fails again; at the fifth time systemd gives up."""
    times = times or scene.random.randint(3, 6)
    step = scene.span(0.4, 2.5)
    lines: Pieces = []
    for n in range(times):
        lines += fails(scene, service, result=result, after_s=n * step)
        text = f"{service.unit}: Scheduled restart job, restart counter is at {n + 1}."
        lines.append(Said(n * step + 0.2, MANAGER, text, 6, service.unit))
    if times >= 5:
        end = times * step
        lines.append(
            Said(end, MANAGER, f"{service.unit}: Start request repeated too quickly.", 4, service.unit)
        )
        lines.append(
            Said(
                end + 0.1,
                MANAGER,
                f"Failed to start {service.unit} - The {service.program}.",
                3,
                service.unit,
            )
        )
    return lines


def hangs(scene: Scene, service: Service) -> Pieces:
    """The manager finds a unit hanging."""
    text = scene.of(
        f"{service.unit}: Watchdog timeout (limit 30s)!",
        f"{service.unit}: State 'stop-sigterm' timed out. Killing.",
        f"{service.unit}: start operation timed out. Terminating.",
    )
    return [Said(0.0, MANAGER, text, 4, service.unit)]


def cannot_depend(service: Service) -> Pieces:
    """A unit cannot start for want of another."""
    return [
        Said(0.0, MANAGER, f"Dependency failed for {service.unit} - The {service.program}.", 4, service.unit),
        Said(
            0.1,
            MANAGER,
            f"{service.unit}: Job {service.unit}/start failed with result 'dependency'.",
            5,
            service.unit,
        ),
    ]


def refused(scene: Scene, service: Service) -> Pieces:
    """A service reports that what it needs does not answer."""
    peer = scene.address()
    return says(
        scene,
        service,
        f"connect() failed (111: Connection refused) while connecting to upstream {peer}:8080",
        f"upstream timed out (110: Connection timed out) while reading from {peer}",
        f"could not connect to server: Connection refused (host {peer})",
        "502 Bad Gateway: no live upstreams while connecting to upstream",
        times=scene.random.randint(1, 4),
    )


def unresolved(scene: Scene, service: Service) -> Pieces:
    """A service cannot resolve a name."""
    host = scene.of("mirror.example.org", "db.internal", "api.example.com", "smtp.example.net")
    return says(
        scene,
        service,
        f"connect to {host} failed: Temporary failure in name resolution",
        f"lookup {host}: no such host",
        f"getaddrinfo EAI_AGAIN {host}",
        f"could not resolve host: {host}",
        f"{host}: Name or service not known",
        times=scene.random.randint(1, 4),
        priority=scene.random.choice((3, 4)),
    )


def segfault(scene: Scene, service: Service, after_s: float = 0.0) -> Pieces:
    """The kernel tells of a program's fault."""
    at = f"{scene.random.getrandbits(36):x}"
    text = scene.of(
        f"{service.program}[{scene.pid()}]: segfault at 10 ip 0000{at} sp 00007ffe5e2d8f10 error 4 in "
        f"{service.program}[{at}+1000]",
        f"traps: {service.program}[{scene.pid()}] general protection fault ip:{at} sp:7ffe5e2d8f10 error:0 in "
        f"{service.program}[{at}+1000]",
    )
    return [Said(after_s, KERNEL, text, 6)]


# --- what metrics show ------------------------------------------------------------------------------------


def step(metric: str, value: float, after_s: float = 0.0) -> Course:
    """A metric that is at a value from one moment on."""
    return Course(metric, ((after_s, value),))


def ramp(metric: str, low: float, high: float, over_s: float) -> Course:
    """A metric that goes from one value to another."""
    return Course(metric, ((0.0, low), (over_s, high)))


def busy_disk(scene: Scene, disk: str, *, hard: bool = True) -> Pieces:
    """Tasks wait for a disk."""
    pieces: Pieces = [
        step(f"disk.busy{{{disk}}}", scene.span(0.95, 1.0)),
        step(f"disk.await_s{{{disk}}}", scene.span(0.05, 1.5)),
        step("cpu.iowait", scene.span(0.2, 0.7)),
        step("proc.blocked", float(scene.random.randint(1, 12))),
    ]
    if scene.host.psi:
        some = scene.span(0.65, 0.95) if hard else scene.span(0.3, 0.65)
        pieces += [step("psi.io.some", some), step("psi.io.full", some * scene.span(0.4, 0.9))]
    return pieces


def busy_processor(scene: Scene) -> Pieces:
    """No processor time is left."""
    pieces: Pieces = [
        step("cpu.busy", scene.span(0.97, 1.0)),
        step("load.1", scene.host.cores * scene.span(1.3, 5.0)),
        step("proc.running", scene.host.cores * 2.0),
    ]
    return pieces + ([step("psi.cpu.some", scene.span(0.35, 0.95))] if scene.host.psi else [])


def short_memory(scene: Scene, over_s: float) -> Pieces:
    """Memory runs out."""
    pieces: Pieces = [ramp("mem.available", scene.span(0.3, 0.6), scene.span(0.01, 0.045), over_s)]
    if scene.host.psi and scene.chance(0.7):
        full = scene.span(0.12, 0.6)
        pieces += [Course("psi.memory.some", ((over_s, 0.0), (over_s + 2.0, min(1.0, full * 1.4))))]
        pieces += [Course("psi.memory.full", ((over_s, 0.0), (over_s + 2.0, full)))]
    return pieces


def oom_kill(scene: Scene, service: Service, *, own: bool, pid: int = 0) -> Pieces:
    """The kernel kills a process for memory, of the host's (`own` False) or of its unit's."""
    pid = pid or service.pid
    rss = scene.random.randrange(60_000, 4_000_000)
    kind = "CONSTRAINT_MEMCG" if own else "CONSTRAINT_NONE"
    group = f"/system.slice/{service.unit}"
    words = "Memory cgroup out of memory" if own else "Out of memory"
    lines: Pieces = [
        Said(
            0.0,
            KERNEL,
            f"{service.program} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            4,
        ),
        Said(
            0.05,
            KERNEL,
            f"oom-kill:constraint={kind},nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={group},"
            f"task_memcg={group},task={service.program},pid={pid},uid={service.uid}",
            6,
        ),
        Said(
            0.1,
            KERNEL,
            f"{words}: Killed process {pid} ({service.program}) total-vm:{rss * 2}kB, anon-rss:{rss}kB, file-rss:0kB",
            3,
        ),
        Course("mem.oom_kills", ((0.0, 1.0), (1.0, 1.0), (1.01, 0.0))),
    ]
    if own and scene.chance(0.7):
        lines.append(Course(f"unit.oom_kills{{{service.unit}}}", ((0.0, 1.0), (1.0, 1.0), (1.01, 0.0))))
    return lines


def full_mount(scene: Scene, mount: Mount, *, over_s: float, top: float = 1.0) -> Pieces:
    """A file system fills."""
    size = scene.random.choice((2e9, 8e9, 5e10, 2e11))
    low = scene.span(0.72, 0.93)
    return [
        ramp(f"fs.used{{{mount.path}}}", low, top, over_s),
        ramp(f"fs.free_bytes{{{mount.path}}}", (1.0 - low) * size, (1.0 - top) * size, over_s),
    ]


def no_space(scene: Scene, service: Service, path: str) -> Pieces:
    """A service tells that it cannot write."""
    return says(
        scene,
        service,
        f"write to {path}/{service.program}/data.{scene.random.randrange(99)} failed: No space left on device",
        f'could not extend file "{path}/base/16384": No space left on device',
        f"[ERROR] Error writing file '{path}/tmp.{scene.random.randrange(999)}' (errno: 28 - No space left on device)",
        "OSError: [Errno 28] No space left on device",
        "MISCONF Errors writing to the AOF file: No space left on device",
        times=scene.random.randint(1, 5),
    )


def culprits(*pairs: tuple[str, str]) -> tuple[Who, ...]:
    """Culprits from (kind, name)."""
    return tuple((SubjectKind(kind), name) for kind, name in pairs)


def jittered(random: Random, pieces: Sequence[Piece], at_s: float) -> list[Piece]:
    """Pieces that begin at `at_s`, with a little disorder."""
    moved: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Said | Happened | Jumped):
            moved.append(piece._replace(after_s=at_s + piece.after_s + random.uniform(0.0, 0.02)))
        elif isinstance(piece, Shown):
            moved.append(piece._replace(after_s=at_s + piece.after_s, until_s=at_s + piece.until_s))
        elif isinstance(piece, Course):
            points = tuple((at_s + t, value) for t, value in piece.points)
            moved.append(piece._replace(points=points, until_s=at_s + piece.until_s))
        else:
            moved.append(piece._replace(after_s=at_s + piece.after_s))
    return moved
