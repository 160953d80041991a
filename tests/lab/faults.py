"""Real faults on this machine, bounded and undone: each knows its effect, its class and its culprit.

A fault is injected into the kernel's own objects (a memory control group, a file system on a loop device, a
veth pair, processes); nothing about hauswart is faked. `effect` is the lab's own probe, asked ten times a
second: the moment it turns true is when the evidence exists, whatever hauswart says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON = os.path.realpath(sys.executable)
CORES = os.cpu_count() or 1


@dataclass
class Injection:
    """A fault in place: start it, ask whether its effect is there."""

    start: Callable[[], None]
    effect: Callable[[], bool]
    culprits: tuple[str, ...]  # any of these is right
    wait_s: float = 20.0  # how long the operator may have to wait for the incident


@dataclass(frozen=True)
class Fault:
    """One scenario: what it is called, what it must be recognised as, and how it is made."""

    name: str
    expected: tuple[str, ...]  # fault classes that are right
    make: Callable[[Path], contextlib.AbstractContextManager[Injection]]
    needs: tuple[str, ...] = ()  # programs


def run(*argv: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(argv, check=True, capture_output=True, text=True, **options)


def program(scratch: Path, name: str) -> str:
    """A Python interpreter under another name, so that the kernel's messages name our culprit."""
    link = scratch / name
    if not link.exists():
        link.symlink_to(PYTHON)
    return str(link)


def spawn(scratch: Path, name: str, code: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [program(scratch, name), "-I", "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )


@contextlib.contextmanager
def processes() -> Iterator[list[subprocess.Popen]]:
    """Processes in sessions of their own, killed with all their children at the end."""
    started: list[subprocess.Popen] = []
    try:
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# --- memory -------------------------------------------------------------------------------------------


def memory_group(name: str, limit_bytes: int) -> Path:
    """A control group with a memory limit, on cgroup v2 or v1."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    if root == v2 and "memory" not in (v2 / "cgroup.subtree_control").read_text():
        (v2 / "cgroup.subtree_control").write_text("+memory")
    group = root / name
    group.mkdir(exist_ok=True)
    (group / limit).write_text(str(limit_bytes))
    with contextlib.suppress(OSError):
        (group / "memory.swap.max").write_text("0")
    return group


@contextlib.contextmanager
def memory_limit(scratch: Path) -> Iterator[Injection]:
    group = memory_group("hwlab-memory", 64 << 20)
    code = "a=[]\nimport time\ntime.sleep(.2)\nwhile True: a.append(b'x'*(4<<20)); time.sleep(.02)"
    with processes() as started:

        def start() -> None:
            process = spawn(scratch, "leaky", code, start_new_session=True)
            (group / "cgroup.procs").write_text(str(process.pid))
            started.append(process)

        yield Injection(
            start, lambda: bool(started) and started[0].poll() == -signal.SIGKILL, ("leaky", "hwlab-memory")
        )
    for _ in range(50):
        with contextlib.suppress(OSError):
            group.rmdir()
            break
        time.sleep(0.1)


# --- storage ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def loop_device(scratch: Path, name: str, mebibytes: int) -> Iterator[tuple[str, Path]]:
    image = scratch / f"{name}.img"
    image.write_bytes(b"")
    os.truncate(image, mebibytes << 20)
    device = run("losetup", "--find", "--show", str(image)).stdout.strip()
    try:
        yield device, image
    finally:
        run("losetup", "--detach", device)
        image.unlink()


@contextlib.contextmanager
def full_file_system(scratch: Path) -> Iterator[Injection]:
    mount = scratch / "small"
    mount.mkdir(exist_ok=True)
    with loop_device(scratch, "small", 24) as (device, _):
        run("mkfs.ext4", "-q", "-m", "0", device)
        run("mount", device, str(mount))
        try:

            def start() -> None:
                with contextlib.suppress(OSError), (mount / "log").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(16 << 10))

            def effect() -> bool:
                state = os.statvfs(mount)
                return state.f_bavail * state.f_frsize < 256 << 10

            yield Injection(start, effect, (str(mount),))
        finally:
            run("umount", str(mount))


@contextlib.contextmanager
def truncated_backing_file(scratch: Path) -> Iterator[Injection]:
    with loop_device(scratch, "disk", 64) as (device, image):
        failed: list[bool] = []

        def start() -> None:
            os.truncate(image, 1 << 20)
            for block in (3000, 5000, 9000):
                done = subprocess.run(
                    [
                        "dd",
                        f"if={device}",
                        "of=/dev/null",
                        "bs=4k",
                        "count=8",
                        f"skip={block}",
                        "iflag=direct",
                    ],
                    capture_output=True,
                    check=False,
                )
                failed.append(done.returncode != 0)

        yield Injection(start, lambda: any(failed), (Path(device).name,))


# --- processes ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def fork_storm(scratch: Path) -> Iterator[Injection]:
    # 900 children at about 150 a second, each of which sleeps: bounded, and gone when the group is killed.
    code = (
        "import os,time\n"
        "for i in range(900):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(30); os._exit(0)\n"
        "    time.sleep(.005)\n"
        "time.sleep(30)"
    )
    with processes() as started:

        def effect() -> bool:
            if not started:
                return False
            children = Path(f"/proc/{started[0].pid}/task/{started[0].pid}/children")
            return len(children.read_text().split()) > 200

        yield Injection(
            lambda: started.append(spawn(scratch, "spawner", code, start_new_session=True)),
            effect,
            ("spawner",),
        )


@contextlib.contextmanager
def cpu_hog(scratch: Path) -> Iterator[Injection]:
    code = f"import os\nfor _ in range({CORES}): os.fork() or [None for _ in iter(int, 1)]\nwhile True: pass"
    with processes() as started:

        def effect() -> bool:
            fields = Path("/proc/loadavg").read_text().split()
            return int(fields[3].split("/")[0]) > CORES

        yield Injection(
            lambda: started.append(spawn(scratch, "burner", code, start_new_session=True)),
            effect,
            ("burner",),
            40.0,
        )


@contextlib.contextmanager
def crash_three_times(scratch: Path) -> Iterator[Injection]:
    crashed: list[int] = []

    def start() -> None:
        for _ in range(3):
            code = "import ctypes; ctypes.string_at(0)"
            crashed.append(spawn(scratch, "crasher", code).wait())
            time.sleep(0.7)

    yield Injection(start, lambda: len(crashed) >= 3, ("crasher",))


# --- network and sessions -----------------------------------------------------------------------------


@contextlib.contextmanager
def link_down(scratch: Path) -> Iterator[Injection]:
    run("ip", "link", "add", "hwlab0", "type", "veth", "peer", "name", "hwlab1")
    try:
        run("ip", "link", "set", "hwlab0", "up")
        run("ip", "link", "set", "hwlab1", "up")
        time.sleep(3)

        def effect() -> bool:
            return Path("/sys/class/net/hwlab0/carrier").read_text().strip() == "0"

        yield Injection(
            lambda: run("ip", "link", "set", "hwlab1", "down") and None, effect, ("hwlab0", "hwlab1")
        )
    finally:
        run("ip", "link", "del", "hwlab0")


@contextlib.contextmanager
def failed_logins(scratch: Path) -> Iterator[Injection]:
    log = scratch / "auth.log"
    written: list[int] = []

    def start() -> None:
        users = ("root", "admin", "oracle", "git", "test", "deploy")
        with log.open("a", encoding="utf-8") as file:
            for number in range(24):
                stamp = time.strftime("%b %e %H:%M:%S")
                user = users[number % len(users)]
                file.write(
                    f"{stamp} host sshd[{4000 + number}]: Failed password for invalid user {user} "
                    f"from 203.0.113.9 port {40000 + number} ssh2\n"
                )
                file.flush()
                written.append(number)
                time.sleep(0.05)

    yield Injection(start, lambda: len(written) >= 5, ("203.0.113.9",))


FAULTS = (
    Fault("memory-limit", ("memory-exhaustion",), memory_limit),
    Fault("full-file-system", ("disk-full",), full_file_system, ("mkfs.ext4", "losetup")),
    Fault("fork-storm", ("process-storm",), fork_storm),
    Fault("cpu-hog", ("cpu-saturation",), cpu_hog),
    Fault("crash-three-times", ("crash-loop",), crash_three_times),
    Fault("failed-logins", ("auth-bruteforce",), failed_logins),
    Fault("link-down", ("link-down",), link_down, ("ip",)),
    Fault("truncated-backing-file", ("disk-failing",), truncated_backing_file, ("losetup", "dd")),
)


def obstacle(fault: Fault) -> str:
    """Why a fault cannot be injected here, or ""."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in fault.needs if not shutil.which(name)]
    return f"needs {', '.join(missing)}" if missing else ""
