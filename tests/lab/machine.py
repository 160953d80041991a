"""A virtual machine with a kernel of its own, restored from a snapshot in which hauswart's units run.

Unlike in a container (`tests.lab.container`) memory limits hold, the kernel's log is the guest's, and disks,
USB sticks and the network card can be taken away. Every instruction is emulated (TCG), so it runs where there
is no KVM, many times slower. The clock stands still between snapshot and restore: the guest notices nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.lab import image as images
from tests.lab.cache import PROJECT, LabError, digest, kept, run
from tests.lab.image import VENV, Image

MEMORY_MIB = 1024
BOOT_S = 300.0  # from power-on to the first answer: 15 s on two idle cores
RESTORE_S = 120.0
STAGES = ("collector", "low", "middle", "top", "notify")
# Novelties are reported once a source was watched for `[low] learn_s`, two minutes; then a test finds the
# daemon as it is on most days. That also leaves the boot behind.
WATCHED_S = 150.0
_QEMU = "qemu-system-x86_64"
_NEEDED = (_QEMU, "qemu-img", "setpriv")
_CODE = ("daemon", "models", "training", "pyproject.toml")
_WORDS = ("README.md", "LICENSE")  # belong to the package, change nothing in what it does
# Without anything to serve or to tell the notifying stage ends at once.
_CONFIG = b'[metrics]\nlisten = "unix:/run/hauswart/metrics/metrics.sock"\n'
_CHUNK_BYTES = 1 << 20  # of a file, per request
# The clock counts instructions, two nanoseconds each, and leaps to the next timer where none is left to do.
_SKIPPING = {"accel": "tcg,thread=single", "smp": "1", "icount": "shift=1,sleep=off"}
_COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off systemd.show_status=0 "
    "module_blacklist=cfg80211,bochs,iTCO_wdt,pcspkr,psmouse,i2c_piix4"  # load slowly, and are of no use here
)


def missing() -> str:
    """Why there can be no virtual machine here; "" if nothing stands against it."""
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    needed = ", ".join(filter(None, [images.obstacle(), *absent]))
    return f"needs {needed} (make test-vm sets it up)" if needed else ""


@dataclass
class Machine:
    """A running guest, its shell and its monitor; `folder` has the console's log and what is hot-plugged."""

    folder: Path
    process: subprocess.Popen[bytes]
    shell: socket.socket
    control: socket.socket
    _asked: int = 0
    _rest: dict[int, bytearray] = field(default_factory=dict)

    def run(self, command: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """A shell command as root, outside of hauswart's units; gives its output."""
        code, output = self._request({"command": command, "timeout_s": timeout_s}, timeout_s + 10.0)
        if check and code:
            raise LabError(f"{command!r} gave {code}: {output}")
        return output

    def push(self, data: bytes, path: str) -> None:
        """Write a file in the guest."""
        for start in range(0, max(1, len(data)), _CHUNK_BYTES):
            chunk = base64.b64encode(data[start : start + _CHUNK_BYTES]).decode()
            code, output = self._request({"write": path, "more": start > 0, "data": chunk}, 60.0)
            if code:
                raise LabError(f"{path} cannot be written in the guest: {output}")

    def pull(self, path: str) -> bytes:
        """Read a file of the guest."""
        code, output = self._request({"read": path}, 120.0)
        if code:
            raise LabError(f"{path} cannot be read in the guest: {output}")
        return base64.b64decode(output)

    def monitor(self, line: str) -> str:
        """A command of QEMU's human monitor: device_add, device_del, drive_add, set_link."""
        return self.ask("human-monitor-command", **{"command-line": line}).strip()

    def ask(self, command: str, **arguments) -> object:
        """A command of QEMU's machine protocol (QMP); gives what it returns."""
        _send(self.control, {"execute": command, "arguments": arguments})
        while True:
            said = self._line(self.control, 60.0)
            if "error" in said:
                raise LabError(f"{command} {arguments}: {said['error']}")
            if "return" in said:
                return said["return"]

    def _request(self, request: dict, patience_s: float) -> tuple[int, str]:
        self._asked += 1
        _send(self.shell, {"id": self._asked, **request})
        answer = self._line(self.shell, patience_s)
        while answer["id"] != self._asked:  # of a request that was given up
            answer = self._line(self.shell, patience_s)
        return answer["code"], answer["output"]

    def _line(self, channel: socket.socket, patience_s: float) -> dict:
        waiting = self._rest.setdefault(channel.fileno(), bytearray())
        channel.settimeout(patience_s)
        while (end := waiting.find(b"\n")) < 0:
            try:
                got = channel.recv(1 << 16)
            except TimeoutError:
                raise LabError(f"no answer in {patience_s:.0f} s; {self._last_words()}") from None
            if not got:
                raise LabError(f"the machine ended; {self._last_words()}")
            waiting += got
        line = json.loads(waiting[:end])
        del waiting[: end + 1]
        return line

    def _last_words(self) -> str:
        logs = [self.folder / name for name in ("console.log", "qemu.log")]
        return "; ".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)


def _send(channel: socket.socket, message: dict) -> None:
    channel.settimeout(60.0)
    channel.sendall(json.dumps(message).encode() + b"\n")


@contextlib.contextmanager
def machine(scratch: Path) -> Iterator[Machine]:
    """A machine as it was when the snapshot was made; what happens in it is gone at the end. Raises LabError.

    The first call makes image and snapshot, which takes minutes; after that it is seconds.
    """
    taken = snapshot()
    with _started(scratch, taken / "disk.qcow2", images.image(), taken / "state") as restored:
        _await_migration(restored)
        restored.ask("cont")
        restored.run("true", timeout_s=RESTORE_S)
        yield restored


@contextlib.contextmanager
def skipping(scratch: Path) -> Iterator[Machine]:
    """A machine, just installed, whose clock skips what the machine sleeps through. Raises LabError.

    Nothing in it is simulated: its one processor does all that it would do, and only waiting takes no time.
    A quiet hour takes some five minutes of a core; a request to it takes as long as its clock wants.
    """
    base = images.image()
    with _started(scratch, base.disk, base, skip=True) as booted:
        _install(booted, _wheel(scratch))
        yield booted


def snapshot() -> Path:
    """The folder of disk and state of a machine whose stages all run; made if it is not there."""
    base = images.image()
    return kept("snapshot", _key(base), lambda folder: _take(base, folder))


def _key(base: Image) -> str:
    files = [
        path
        for name in _CODE
        for path in (sorted((PROJECT / name).rglob("*")) if (PROJECT / name).is_dir() else [PROJECT / name])
        if path.is_file() and "__pycache__" not in path.parts
    ]
    code = [part for path in files for part in (str(path.relative_to(PROJECT)).encode(), path.read_bytes())]
    version = run(_QEMU, "--version").encode()
    return digest(base.build.encode(), version, Path(__file__).read_bytes(), *code)


def _take(base: Image, folder: Path) -> None:
    scratch = folder / "scratch"
    with _started(scratch, base.disk, base) as booted:
        _install(booted, _wheel(scratch))
        time.sleep(WATCHED_S)
        _save(booted, folder)
    (scratch / "disk.qcow2").rename(folder / "disk.qcow2")  # backed by the image's, by its absolute path
    shutil.rmtree(scratch)


def _wheel(scratch: Path) -> Path:
    """The project as a wheel, built from a copy: a build leaves folders behind."""
    source = scratch / "source"
    source.mkdir()
    for name in (*_CODE, *_WORDS):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copyfile
        copy(PROJECT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", str(scratch), str(source))
    return next(scratch.glob("hauswart-*.whl"))


def _install(booted: Machine, wheel: Path) -> None:
    """As the README says, but for the network; returns when every stage says that it runs."""
    booted.run("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    booted.push(wheel.read_bytes(), f"/root/{wheel.name}")
    pip = f"{VENV}/bin/pip install --quiet --no-index --no-deps"
    booted.run(f"{pip} /root/{wheel.name} && rm /root/{wheel.name}", timeout_s=300.0)
    booted.run("mkdir /etc/hauswart")
    booted.push(_CONFIG, "/etc/hauswart/hauswart.toml")
    booted.run(f"{VENV}/bin/hauswart host install", timeout_s=300.0)
    running = " && ".join(
        f'grep -q \'"state": *"running"\' /run/hauswart/status/{stage}.json' for stage in STAGES
    )
    booted.run(f"until {running}; do sleep 1; done", timeout_s=BOOT_S)


def _save(booted: Machine, folder: Path) -> None:
    """Write the guest's memory and devices; the guest is over after that."""
    booted.run("sync")
    booted.ask("stop")
    booted.ask("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
    booted.ask("migrate", uri=f"exec:cat > {shlex.quote(str(folder / 'state'))}")
    _await_migration(booted)
    booted.ask("quit")
    booted.process.wait(60.0)


def _await_migration(one: Machine) -> None:
    until = time.monotonic() + RESTORE_S
    while (status := one.ask("query-migrate").get("status")) != "completed":
        if status in {"failed", "cancelled"} or time.monotonic() > until:
            raise LabError(f"the guest's state was not moved: {status}; {one._last_words()}")
        time.sleep(0.05)


@contextlib.contextmanager
def _started(
    scratch: Path, disk: Path, base: Image, state: Path | None = None, *, skip: bool = False
) -> Iterator[Machine]:
    """QEMU on a disk of its own above `disk`, powered on or taking up a `state`."""
    scratch.mkdir(parents=True, exist_ok=True)
    own, form = scratch / "disk.qcow2", "raw" if state is None else "qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", str(disk.absolute()), str(own))
    pairs = [socket.socketpair() for _ in range(2)]
    theirs = [their.fileno() for _, their in pairs]
    with contextlib.ExitStack() as stack:
        for pair in pairs:
            for end in pair:
                stack.enter_context(end)
        log = stack.enter_context((scratch / "qemu.log").open("wb"))
        given = _SKIPPING if skip else {}
        process = _launch(_arguments(scratch, base, theirs, state, given), theirs, log)
        try:
            for _, their in pairs:
                their.close()
            started = Machine(scratch, process, *(our for our, _ in pairs))
            started._line(started.control, RESTORE_S)  # its greeting
            started.ask("qmp_capabilities")
            yield started
        finally:
            process.kill()
            process.wait()


def _launch(arguments: list[str], sockets: list[int], log: BinaryIO) -> subprocess.Popen[bytes]:
    """It ends with this process, however that ends."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", _QEMU, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=sockets,
    )


def _arguments(
    scratch: Path, base: Image, sockets: Sequence[int], state: Path | None, given: Mapping[str, str]
) -> list[str]:
    options = {
        "machine": "pc",
        "accel": "tcg,thread=multi",
        "cpu": "max",
        "smp": str(min(2, os.cpu_count() or 1)),
        "m": str(MEMORY_MIB),
        "display": "none",
        "rtc": "clock=vm",  # the guest's time goes on from the snapshot's
        "serial": f"file:{scratch}/console.log",
        "kernel": str(base.kernel),
        "initrd": str(base.initrd),
        "append": _COMMAND_LINE,
        "mon": "chardev=control,mode=control",
        "drive": f"if=none,id=root,file={scratch}/disk.qcow2,format=qcow2,cache=unsafe",
        "netdev": "user,id=lan,restrict=on",
    } | given
    devices = [
        "virtio-serial-pci",
        "virtserialport,chardev=shell,name=lab",
        "virtio-blk-pci,drive=root",
        "qemu-xhci,id=usb",
        "virtio-net-pci,netdev=lan,id=nic,romfile=",
    ]
    arguments = ["-nodefaults", "-no-user-config", "-no-reboot"]
    for name, number in zip(("shell", "control"), sockets, strict=True):
        arguments += ["-chardev", f"socket,id={name},fd={number}"]
    arguments += [part for name, value in options.items() for part in (f"-{name}", value)]
    arguments += [part for device in devices for part in ("-device", device)]
    return arguments + (["-incoming", f"exec:cat {shlex.quote(str(state))}"] if state else [])
