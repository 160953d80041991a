"""Where a scenario happens: this machine, a container or a virtual machine, and the daemon in it.

All three are asked through `System`; what differs is how hauswart gets in and how its state gets out.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.lab import container as containers
from tests.lab.ambient import of_group, of_process
from tests.lab.container import PROJECT, SHARED, Container, ContainerError
from tests.lab.scenario import Kind, search_path

UP_S = 300.0  # of a guest whose every instruction is emulated, on a busy machine; elsewhere it is seconds
_MACHINE = "tests.lab.machine"
_LOCK = Path("/run/lock/hauswart-lab")
_WORK = f"{SHARED}/work"
PROGRAM = f"{SHARED}/bin/hauswart"
_STATE, _STATUS = "/var/lib/hauswart", "/run/hauswart/status"
_UNITS = (_WORK, _STATE, _STATUS, f"{_STATE}/store/store.db")  # of a place with units, in its order
_STAGES = ("collector", "low", "middle", "top")
# The units see neither /home nor the host's /tmp, so the code is mounted where they do.
_PYTHON = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
BINDS = {
    "/opt/hauswart/code": PROJECT,
    "/opt/hauswart/python": Path(sys.base_prefix),
    "/opt/hauswart/packages": Path(sysconfig.get_path("purelib")),
}
WRAPPER = f"""#!/bin/sh
export PYTHONPATH=/opt/hauswart/code:/opt/hauswart/packages LD_LIBRARY_PATH=/opt/hauswart/python/lib
exec /opt/hauswart/python/{_PYTHON} -P -m daemon "$@"
"""


class System(Protocol):
    """What runs commands, whichever it is."""

    def run(self, command: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """A shell command as root; gives its output."""
        ...

    def push(self, data: bytes, path: str) -> None:
        """Write a file in the system."""
        ...

    def pull(self, path: str) -> bytes:
        """Read a file of the system."""
        ...

    def monitor(self, line: str) -> str:
        """A command for what the system runs on, if it is a virtual machine."""
        ...


class CommandError(Exception):
    """A command failed, or there is nobody to carry it out."""


@dataclass(frozen=True)
class Host:
    """This machine itself."""

    def run(self, command: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """A shell command; gives its output."""
        done = subprocess.run(
            ["sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": search_path(), "LC_ALL": "C"},
        )
        if check and done.returncode:
            raise CommandError(f"{command!r} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def push(self, data: bytes, path: str) -> None:
        """Write a file."""
        Path(path).write_bytes(data)

    def pull(self, path: str) -> bytes:
        """Read a file."""
        return Path(path).read_bytes()

    def monitor(self, line: str) -> str:
        """There is none."""
        raise CommandError(f"{line!r} needs a virtual machine's monitor")


@dataclass
class Place:
    """A system with hauswart in it, not running yet; `work` is `$LAB` of the scenario."""

    system: System
    work: str
    state: str
    status: str
    store: str
    used: Callable[[], float] | None = None  # processor seconds of it all, by this machine's account
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self, config: Path) -> None:
        """Start hauswart with this configuration and wait until every stage runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it in order, so that everything is on the disk."""
        raise NotImplementedError

    def close(self) -> None:
        """End what is still running."""
        self._running.close()

    def fetch(self, folder: str, target: Path) -> None:
        """Copy the files of a folder of the system."""
        bundle = f"{self.work}/.fetched.tar"
        self.system.run(f"tar -C {folder} -cf {bundle} .")
        target.mkdir(exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(self.system.pull(bundle))) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    (target / Path(member.name).name).write_bytes(content.read())

    def stages(self) -> dict[str, dict]:
        """The stages' status files."""
        script = f"for f in {self.status}/*.json; do cat $f; echo; done"
        lines = self.system.run(script, check=False).splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return {one["stage"]: one for one in found if "stage" in one}


class Units(Place):
    """Installed as units, as an operator does it."""

    def start(self, config: Path) -> None:
        """Take up the configuration and start the target."""
        self.system.push(config.read_bytes(), "/etc/hauswart/hauswart.toml")
        self.system.run("systemctl restart hauswart.target", timeout_s=UP_S)
        units = " ".join(f"hauswart-{stage}" for stage in _STAGES)
        _await(lambda: self.system.run(f"systemctl is-active {units}", check=False).split() == ["active"] * 4)
        _await(lambda: set(self.stages()) >= set(_STAGES))

    def stop(self) -> None:
        """Stop the target and wait for every stage."""
        self.system.run("systemctl stop hauswart.target 'hauswart-*.service'", timeout_s=UP_S)


class Restored(Units):
    """Units that have been at work since before the snapshot; they begin anew only for other settings."""

    def start(self, config: Path) -> None:
        """Go on with the daemon as it is, if the scenario has no settings of its own."""
        if config.read_text().strip():
            super().start(config)


class Process(Place):
    """`hauswart run` on this machine with a state directory of its own."""

    def start(self, config: Path) -> None:
        """Start the daemon."""
        from tests.lab.runner import daemon  # noqa: PLC0415  # the runner of the tests knows scenarios, too

        self._running.enter_context(daemon(Path(self.state).parent, config=config))

    def stop(self) -> None:
        """Stop the daemon."""
        self._running.close()


def _await(condition) -> None:
    until = time.monotonic() + UP_S
    while not condition():
        if time.monotonic() > until:
            raise CommandError(f"hauswart is not up after {UP_S:.0f} s")
        time.sleep(0.2)


def obstacle(kind: Kind) -> str:
    """Why there can be no such system here; "" if nothing stands against it."""
    if kind == "container":
        return containers.missing()
    if os.geteuid() != 0:
        return "needs root"
    if kind == "machine":
        found = importlib.util.find_spec(_MACHINE)
        return importlib.import_module(_MACHINE).missing() if found else "needs tests/lab/machine"
    return ""


def failures() -> tuple[type[Exception], ...]:
    """What these systems raise when they or a command in them fail."""
    found = (ContainerError, CommandError, OSError, subprocess.TimeoutExpired)
    spec = importlib.util.find_spec(_MACHINE)
    return (*found, importlib.import_module(_MACHINE).LabError) if spec else found


@contextlib.contextmanager
def opened(kind: Kind, scratch: Path) -> Iterator[Place]:
    """A system of this kind with hauswart installed; gone with the context."""
    if kind == "host":
        work = scratch / "work"
        work.mkdir(parents=True)
        scratch.chmod(0o755)
        with _turn(fcntl.LOCK_EX), contextlib.closing(_process(scratch, work)) as place:
            yield place
    elif kind == "container":
        with _turn(fcntl.LOCK_SH), _container(scratch) as box:
            yield Units(box, *_UNITS, partial(of_group, box.group) if box.group else None)
    else:
        with importlib.import_module(_MACHINE).machine(scratch) as guest:
            guest.ask("set-action", reboot="reset")  # elsewhere a restart that nobody asked for ends it
            guest.run(f"mkdir -p {_WORK}; chmod 777 {_WORK}")
            yield Restored(guest, *_UNITS, partial(of_process, guest.process.pid))


@contextlib.contextmanager
def _turn(kind: int) -> Iterator[None]:
    """Wait for this machine: what is played on itself shows in the counters of containers, too."""
    with _LOCK.open("w") as file:
        fcntl.flock(file, kind)
        yield


def _process(scratch: Path, work: Path) -> Process:
    state = scratch / "state"
    return Process(Host(), str(work), str(state), str(state / "run/status"), str(state / "store.db"))


@contextlib.contextmanager
def _container(scratch: Path) -> Iterator[Container]:
    program = scratch / "shared/bin/hauswart"
    program.parent.mkdir(parents=True)
    program.write_text(WRAPPER)
    program.chmod(0o755)
    with containers.container(scratch, {}, BINDS) as box:
        box.run(f"mkdir -m 777 {_WORK}; mkdir -p /etc/hauswart; touch /etc/hauswart/hauswart.toml")
        box.run(f"{PROGRAM} host install --no-start --program {PROGRAM}", timeout_s=120.0)
        yield box
