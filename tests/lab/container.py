"""A container with a real systemd, journald and logind: an overlay of this host that vanishes with it.

Everything is mounted in a mount namespace of its own and written to memory. Not enforced in there, because
the control groups' controllers stay the host's: MemoryMax= and TasksMax=. The kernel's log is the host's.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

PROJECT = Path(__file__).parents[2]
SHARED = "/lab"  # the scratch directory as the container sees it
_NUMBERS = count(1)
BOOT_S = 60.0
STOP_S = 15.0
_HYBRID = ("systemd", "unified")
_NEEDED = ("systemd-nspawn", "nsenter", "unshare", "mount")
# Of no use without a console and devices, or not possible in a container.
_PARTS = ("shared", "top", "units")  # the folders of a scratch directory
_MASKED = (
    "systemd-journald-audit.socket",
    "console-getty.service",
    "systemd-udev-trigger.service",
    "monit.service",  # has a script of the old kind, which starts it at every boot
    "openipmi.service",  # has one, too, and looks for the machine's own controller
)

_START = """
set -e
top=$1; shift
mount -t tmpfs -o size=1g,mode=755 lab "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" lab "$top/root"
cd "$top/root"
: >etc/machine-id
rm -rf var/log/journal etc/fstab etc/systemd/system/*.wants var/lib/hauswart etc/hauswart
mkdir -p var/log/journal
for unit in $MASKED; do ln -sf /dev/null "etc/systemd/system/$unit"; done
for way in $OPENED; do chmod o+x "./$way"; done
cp -a "$UNITS/." etc/systemd/system/
for unit in $ENABLED; do systemctl --root="$top/root" --quiet enable "$unit"; done
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=1
exec systemd-nspawn --quiet --directory="$top/root" --boot --register=no --private-network --console=pipe \\
    --resolv-conf=off --timezone=off --system-call-filter=@known "$@"
"""


class ContainerError(Exception):
    """The container did not start, or a command in it failed."""


def missing() -> str:
    """Why there can be no container here; "" if nothing stands against it."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(absent)}" if absent else ""


@dataclass
class Container:
    """A booted container; `shared` is the host's side of `/lab`."""

    pid: int
    shared: Path
    group: Path | None = None  # its control group in the unified hierarchy

    def run(self, command: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """A shell command as root, outside of every unit; gives its output."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # `kill 0` in there would end this process group, too
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if check and done.returncode:
            raise ContainerError(f"{command!r} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def push(self, data: bytes, path: str) -> None:
        """Write a file in the container."""
        way = self.shared / f"way-{next(_NUMBERS)}"
        way.write_bytes(data)
        self.run(f"cat {SHARED}/{way.name} >{shlex.quote(path)}")
        way.unlink()

    def pull(self, path: str) -> bytes:
        """Read a file of the container."""
        way = self.shared / f"way-{next(_NUMBERS)}"
        self.run(f"cat {shlex.quote(path)} >{SHARED}/{way.name}")
        data = way.read_bytes()
        way.unlink()
        return data

    def monitor(self, line: str) -> str:
        """A container has none."""
        raise ContainerError(f"{line!r} needs a virtual machine's monitor")


@contextlib.contextmanager
def container(
    scratch: Path, units: Mapping[str, str] | None = None, binds: Mapping[str, Path] | None = None
) -> Iterator[Container]:
    """Boot a container; raises ContainerError.

    `units` (name to text) are in place from the start, and those with WantedBy= are enabled. `binds` maps
    paths in the container to folders of this host that it may read.
    """
    name = f"hauswart-lab-{os.getpid()}-{next(_NUMBERS)}"
    for part in _PARTS:
        (scratch / part).mkdir(parents=True, exist_ok=True)
    shared, given = scratch / "shared", scratch / "units"
    shared.chmod(0o755)
    for unit, text in (units or {}).items():
        (given / unit).write_text(text)
    enabled = [unit for unit, text in (units or {}).items() if "\nWantedBy=" in text]
    groups = _groups(name)
    try:
        with (scratch / "container.log").open("wb") as log:
            process = _boot(name, scratch, groups, enabled, binds=binds or {}, log=log)
        try:
            pid = _wait_booted(process, scratch / "container.log")
            yield Container(pid, shared, next((one for one in groups if one.parent.name == "unified"), None))
        finally:
            _shut_down(process)
    finally:
        _remove(groups)


def _boot(
    name: str,
    scratch: Path,
    groups: list[Path],
    enabled: list[str],
    *,
    binds: Mapping[str, Path],
    log: BinaryIO,
) -> subprocess.Popen[bytes]:
    shared, top, given = (scratch / part for part in _PARTS)
    options = [f"--machine={name}", f"--bind={shared}:{SHARED}"]
    options += [f"--bind-ro={path}" for path in _code()]
    options += [f"--bind-ro={source}:{target}" for target, source in binds.items()]
    # Where systemd is pid 1 it gives the container a scope; elsewhere it stays in the groups made here.
    options += ["--keep-unit"] if groups else []
    script = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in groups) + _START
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(top), *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={
            "PATH": os.environ["PATH"],
            "MASKED": " ".join(_MASKED),
            "UNITS": str(given),
            "ENABLED": " ".join(enabled),
            "OPENED": " ".join(_closed_folders()),
        },
    )


def _code() -> list[Path]:
    """What the daemon is run from and the overlay of `/` does not reach, and the project itself."""
    paths = [PROJECT, Path(sys.prefix), Path(sys.base_prefix)]
    return [path for path in dict.fromkeys(paths) if path == PROJECT or _mounted_apart(path)]


def _mounted_apart(path: Path) -> bool:
    return path.stat().st_dev != Path("/").stat().st_dev


def _closed_folders() -> list[str]:
    """Folders on the way to the interpreter that only their owner may enter; made open in the container."""
    ways = [
        way for path in (PROJECT, Path(sys.prefix), Path(sys.base_prefix)) for way in (path, *path.parents)
    ]
    return sorted({str(way) for way in ways if not way.stat().st_mode & 0o001})


def _wait_booted(process: subprocess.Popen, log: Path) -> int:
    """The host's number of the container's pid 1, once every job of the boot is done."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ContainerError(f"the container ended: {log.read_text(errors='replace')[-2000:]}")
        pid = _first_child(process.pid)
        if pid:
            asked = subprocess.run(
                ["nsenter", "--target", str(pid), "--all", "systemctl", "is-system-running"],
                capture_output=True,
                text=True,
                check=False,
            )
            if asked.stdout.strip() in {"running", "degraded"}:
                return pid
        time.sleep(0.1)
    raise ContainerError(f"not booted in {BOOT_S:.0f} s: {log.read_text(errors='replace')[-2000:]}")


def _first_child(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0
    return int(children[0]) if children else 0


def _shut_down(process: subprocess.Popen) -> None:
    """Ask the container's pid 1 to halt, then end what is left of it."""
    first = _first_child(process.pid)
    if first:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGRTMIN + 4)  # systemd(1): start poweroff.target
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        if first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)  # everything in its pid namespace ends with it
        process.kill()
        process.wait()


def _groups(name: str) -> list[Path]:
    """Control groups of its own in a hybrid hierarchy that no systemd looks after."""
    if Path("/run/systemd/system").exists():
        return []
    groups = [Path("/sys/fs/cgroup", hierarchy, name) for hierarchy in _HYBRID]
    groups = [group for group in groups if group.parent.is_dir()]
    for group in groups:
        group.mkdir()
    return groups


def _remove(groups: list[Path]) -> None:
    for group in groups:
        deadline = time.monotonic() + 5.0
        while group.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # still busy: the processes are being reaped
                    Path(folder).rmdir()
            if group.exists():
                time.sleep(0.1)
