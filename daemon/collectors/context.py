"""What the host does on purpose: boot, timers, updates, rebuilds, backups, scrubs, maintenance.

Everything is looked up in files; no process is started. One look costs about a millisecond and is taken
every five seconds, so that it costs 0.2 ms a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.generations import Generations
from daemon.collectors.jobs import LOCKS, MARKS, job_of_process, job_of_unit
from daemon.collectors.programs import Programs, unit_of
from daemon.collectors.source import MAX_ATTRIBUTE, reader_event
from daemon.collectors.timers import Timers
from daemon.ingest import Clean, clean
from daemon.messages import Event, Observation, Stamp

INTERVAL_S = 5.0
BOOT_S = 180.0  # of uptime; systemd's own default for a unit to start is 90 s, and they queue
_LOCK_BYTES = 256 << 10


class Job(NamedTuple):
    """One thing that goes on: its context's name, and what tells it from another of that name."""

    name: str
    key: str


class ContextCollector:
    """Compares what goes on now with what went on at the last look."""

    name = "context"
    interval_s: float | None = INTERVAL_S

    def __init__(
        self,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        root: Path = Path("/"),
        clean_text: Clean = clean,
    ) -> None:
        self._proc = proc
        self._sys = sys
        self._root = root
        self._clean = clean_text
        self._programs = Programs(proc)
        self._timers = Timers(root, sys)
        self._generations = Generations(root)
        self._going: dict[Job, dict[str, str]] = {}
        self._locks_failed = False

    def open(self) -> list[Event]:
        """Say what there is to look at; contexts are never absent as a whole."""
        parts = ["processes", "package locks"]
        parts += ["timers"] if self._timers.present else []
        parts += ["generations"] if self._generations.present else []
        return [reader_event(self.name, "present", ", ".join(parts))]

    def fileno(self) -> int | None:
        """Contexts are looked at, not waited for."""
        return None

    def pending(self) -> bool:
        """Every look is whole."""
        return False

    def position(self) -> str:
        """Contexts have no position."""
        return ""

    def close(self) -> None:
        """Nothing is held open."""

    def read(self, now: Stamp) -> list[Observation]:
        """What began and what ended since the last look."""
        going: dict[Job, dict[str, str]] = {}
        for job, attributes in self._look(now):
            going.setdefault(job, attributes)
        events = [self._event(job, "end", told, now) for job, told in self._going.items() if job not in going]
        events += [
            self._event(job, "start", told, now) for job, told in going.items() if job not in self._going
        ]
        # What was told at the start is told again at the end, so that the two can be matched.
        self._going = {job: self._going.get(job, told) for job, told in going.items()}
        return [*events, *self._failures(now)]

    def _event(self, job: Job, action: str, told: dict[str, str], now: Stamp) -> Event:
        attributes = {key: self._clean(value)[0][:MAX_ATTRIBUTE] for key, value in told.items() if value}
        return Event(now, self.name, "context", job.name, action, attributes)

    def _failures(self, now: Stamp) -> Iterable[Event]:
        for reason in (*self._programs.take_notes(), *self._timers.take_notes()):
            yield reader_event(self.name, "error", reason, now)

    # --- what goes on -----------------------------------------------------------------------------

    def _look(self, now: Stamp) -> Iterable[tuple[Job, dict[str, str]]]:
        if now.mono < BOOT_S:
            yield Job("boot", ""), {"uptime_s": str(round(now.mono))}
        programs = [
            (program, job_of_process(program.comm, program.command)) for program in self._programs.running()
        ]
        special = {program.unit: name for program, name in programs if name}
        busy = self._timers.running(now.mono)
        for unit in busy:
            name = job_of_unit(unit)
            yield (
                Job(special.get(unit, name) if name == "timer" else name, unit),
                {"unit": unit, "trigger": "timer"},
            )
        for program, name in programs:
            if name and program.unit not in busy:
                told = _told(program.comm, program.pid, program.unit) | {"uid": str(program.uid)}
                yield Job(name, f"{program.comm}/{program.unit}"), told
        yield from self._updates()
        yield from self._checks()
        generation = self._generations.switching(now.mono, busy="rebuild" in special.values())
        if generation:
            yield Job("rebuild", f"generation {generation}"), {"generation": generation}

    def _updates(self) -> Iterable[tuple[Job, dict[str, str]]]:
        """A package manager's lock that is held, or its mark that is there."""
        inodes: dict[int, str] = {}
        for lock in LOCKS:
            try:
                inodes[(self._root / lock).stat().st_ino] = lock
            except OSError:  # another distribution's
                continue
        for pid, inode in self._held() if inodes else ():
            if inode in inodes:
                path = f"/{inodes[inode]}"
                yield Job("update", path), {"lock": path} | _told("", pid, unit_of(self._proc, pid))
        for mark in MARKS:
            if (self._root / mark).exists():
                name = "rebuild" if "nixos" in mark else "update"
                yield Job(name, f"/{mark}"), {"lock": f"/{mark}"}

    def _held(self) -> Iterable[tuple[int, int]]:
        """Process and inode of every lock: `1: POSIX ADVISORY WRITE 1234 fe:01:131 0 EOF`, proc_locks(5)."""
        try:
            with (self._proc / "locks").open("rb") as file:
                data = file.read(_LOCK_BYTES)
        except OSError:
            return
        for line in data.splitlines():
            fields = line.split()
            if len(fields) == 8 and b":" in fields[5] and fields[4].isdigit():
                inode = fields[5].rpartition(b":")[2]
                if inode.isdigit():
                    yield int(fields[4]), int(inode)

    def _checks(self) -> Iterable[tuple[Job, dict[str, str]]]:
        """Software arrays that are being checked; a resync after a failure is no scrub."""
        for action in (self._sys / "block").glob("md*/md/sync_action"):
            try:
                doing = action.read_text().strip()
            except OSError:  # the array was stopped
                continue
            if doing in {"check", "repair"}:
                array = action.parent.parent.name
                yield Job("scrub", array), {"job": array, "device": array}


def _told(comm: str, pid: int, unit: str) -> dict[str, str]:
    return {"job": comm, "pid": str(pid), "process": f"{comm}[{pid}]" if comm else "", "unit": unit}
