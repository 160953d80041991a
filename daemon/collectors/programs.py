"""Running programs that are worth a name, found by reading only what is new in /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.jobs import NAMES_TO_READ

MAX_NEW = 500  # processes looked at in one scan; in a fork storm the rest waits for the next
_COMMAND_BYTES = 4096


class Program(NamedTuple):
    """One running program."""

    pid: int
    comm: str
    command: str
    unit: str
    uid: int  # of its owner, -1 if it could not be read: anybody may name his program `restic`


class Programs:
    """Keeps what it knows of each process, so that a scan reads the new ones only."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._root = str(proc)
        self._settled: set[str] = set()
        self._young: set[str] = set()  # seen once: between fork and exec it had its parent's name
        self._jobs: dict[str, Program] = {}
        self._notes: list[str] = []
        self._failed = False

    def take_notes(self) -> list[str]:
        """What could not be read, each said once."""
        notes, self._notes = self._notes, []
        return notes

    def running(self) -> list[Program]:
        """The programs of interest that run now."""
        try:
            present = {name for name in os.listdir(self._root) if name.isdigit()}  # noqa: PTH208 - half the time
        except OSError as error:
            if not self._failed:
                self._notes.append(f"{self._proc}: {error.strerror}")
            self._failed = True
            return []
        self._failed = False
        self._settled &= present
        for pid in self._jobs.keys() - present:
            del self._jobs[pid]
        fresh = sorted(present - self._settled - self._young, key=int)[:MAX_NEW]
        again = self._young & present
        for pid in (*again, *fresh):
            self._look(pid)
        self._settled |= again
        self._young = set(fresh)
        return [self._jobs[pid] for pid in sorted(self._jobs, key=int)]

    def _look(self, pid: str) -> None:
        comm = _read(f"{self._root}/{pid}/comm", 64).strip()
        if comm in NAMES_TO_READ:
            command = _read(f"{self._root}/{pid}/cmdline", _COMMAND_BYTES).replace("\0", " ")
            unit = unit_of(self._proc, int(pid))
            self._jobs[pid] = Program(int(pid), comm, command, unit, _owner(f"{self._root}/{pid}"))
        else:
            self._jobs.pop(pid, None)


def unit_of(proc: Path, pid: int) -> str:
    """The systemd unit of a process by its control group, "" if it has none."""
    for line in _read(f"{proc}/{pid}/cgroup", 4096).splitlines():
        number, _, rest = line.partition(":")
        controller, _, path = rest.partition(":")
        if number == "0" or controller == "name=systemd":
            for part in reversed(path.split("/")):
                if part.endswith((".service", ".scope")):
                    return part
    return ""


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid  # noqa: PTH116 - a string costs less than a Path
    except OSError:  # the process has ended
        return -1


def _read(path: str, limit: int) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open costs twice as much here
            return (file.read(limit) or b"").decode("utf-8", "backslashreplace")
    except OSError:  # the process has ended
        return ""
