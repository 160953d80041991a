"""Snapshots of the processes that matter: every few seconds, and at once when a counter jumps.

A pass is cut into slices of some milliseconds, so that a host with many thousand processes does not stop the
collector's loop.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from daemon.collectors.jumps import Jumps
from daemon.collectors.kernel_files import Note, event_of, printable
from daemon.collectors.processes import Details, Scanner, Seen, candidates
from daemon.collectors.sockets import Connections, scan
from daemon.messages import Event, Observation, Process, Snapshot, Stamp

_SLICE_S = 0.015
_PROC = Path("/proc")
_JUMP_GAP_S = 2.0
_JUMPS_MAX = 4.0  # jumps in a row that get a snapshot at once; then one for every _JUMP_REFILL_S
_JUMP_REFILL_S = 15.0
_TOP = 10
_MANY_THREADS = 64  # a pool of workers has about as many as there are processors
_STUCK = (b"D", b"T", b"t")  # waiting for the kernel, stopped, held by a debugger: no ranking shows them
_MIN_CHILDREN = 3
_KERNEL_THREAD = 0x00200000


def choose(seen: list[Seen], parents: list[int]) -> list[Seen]:
    """The largest by cpu, memory, input/output, descriptors and threads, what is stuck, and these parents."""
    chosen: dict[int, Seen] = {}
    for key in (_by_cpu, _by_rss, _by_io, _by_fds):
        for one in heapq.nlargest(_TOP, seen, key=key):
            if key(one) > 0:
                chosen[one.pid] = one
    for one in heapq.nlargest(_TOP // 2, seen, key=_by_threads):
        if one.stat.threads >= _MANY_THREADS:
            chosen[one.pid] = one
    stuck = (one for one in seen if one.stat.state in _STUCK and not one.stat.flags & _KERNEL_THREAD)
    for one in heapq.nlargest(_TOP, stuck, key=_by_rss):
        chosen[one.pid] = one
    wanted = set(parents)
    for one in seen:
        if one.pid in wanted:
            chosen[one.pid] = one
    return sorted(chosen.values(), key=_by_cpu, reverse=True)


def _by_cpu(one: Seen) -> float:
    return one.cpu


def _by_rss(one: Seen) -> float:
    return one.stat.rss_bytes


def _by_io(one: Seen) -> float:
    return one.io_rate


def _by_fds(one: Seen) -> float:
    return one.fds


def _by_threads(one: Seen) -> float:
    return one.stat.threads


def count(seen: list[Seen]) -> tuple[dict[str, float], list[int]]:
    """Counts by parent and name, zombies and threads; and the parents with most children."""
    children: Counter[int] = Counter()
    names: Counter[bytes] = Counter()
    zombies = threads = 0
    comm = {one.pid: one.stat.name for one in seen}
    for one in seen:
        threads += one.stat.threads
        zombies += one.stat.state == b"Z"
        if not one.stat.flags & _KERNEL_THREAD:
            children[one.stat.ppid] += 1
            names[one.stat.name] += 1
    counts: dict[str, float] = {"total": len(seen), "threads": threads, "zombies": zombies}
    parents = [
        (pid, number) for pid, number in children.most_common(_TOP) if number >= _MIN_CHILDREN and pid > 0
    ]
    for pid, number in parents:
        counts[f"children{{{pid}/{printable(comm.get(pid, b'?'))}}}"] = number
    for name, number in names.most_common(_TOP):
        if number >= _MIN_CHILDREN:
            counts[f"name{{{printable(name)}}}"] = number
    return counts, [pid for pid, _ in parents]


class ProcessCollector:
    """Gives a Snapshot at every interval, and at once (at most every two seconds) when `jumps` says so."""

    name = "processes"

    def __init__(
        self,
        proc: Path,
        jumps: Jumps,
        snapshot_interval_s: float = 10.0,
        address: Callable[[str], str] = str,
        queues: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.interval_s: float | None = 1.0
        self._proc = proc
        self._jumps = jumps
        self._every_s = snapshot_interval_s
        self._address = address
        self._queues = queues  # what tells of full listen queues
        self._scanner = Scanner(proc)
        self._pass: Iterator[None] | None = None
        self._result: Snapshot | None = None
        self._begun_at = 0.0
        self._next_at = 0.0
        self._biggest: list[int] = []
        self._turn = 0  # passes so far
        self._credit = (0.0, _JUMPS_MAX)  # as of when, and how many
        self._notes: list[Note] = []
        self._told: set[str] = set()

    def open(self) -> list[Event]:
        """Nothing to say before the first pass."""
        return []

    def fileno(self) -> int | None:
        """Driven by time alone."""
        return None

    def read(self, now: Stamp) -> list[Observation]:
        """Go on with the pass for a slice of time, or begin one that is due; a finished one is given back."""
        if self._pass is None:
            if not self._due(now.mono):
                return []
            self._begin(now)
        end = time.monotonic() + _SLICE_S
        for _ in self._pass or ():
            if time.monotonic() > end:
                return []
        self._pass = None
        events = [event_of(note, self.name, now) for note in self._notes]
        self._notes = []
        return [*events, *([self._result] if self._result else [])]

    def _due(self, mono: float) -> bool:
        if mono >= self._next_at:
            return True
        if not self._jumps.waiting or mono - self._begun_at < _JUMP_GAP_S - 0.1:
            return False
        return self._jumps.urgent or self._credit_at(mono) >= 1.0

    def _credit_at(self, mono: float) -> float:
        """How many more jumps may have a snapshot at once."""
        since, credit = self._credit
        return min(_JUMPS_MAX, credit + (mono - since) / _JUMP_REFILL_S)

    def _begin(self, now: Stamp) -> None:
        jumped, sockets = self._jumps.take()
        if jumped:
            self._credit = (now.mono, max(0.0, self._credit_at(now.mono) - 1.0))
        self._begun_at = now.mono
        self._next_at = now.mono + self._every_s - 0.1  # a tenth of slack against a loop that wakes early
        self._result = None
        self._pass = self._steps(now, "jump" if jumped else "interval", sockets=sockets)

    def _steps(self, now: Stamp, reason: Literal["interval", "jump"], *, sockets: bool) -> Iterator[None]:
        seen: list[Seen] = []
        self._turn += 1
        pids, unscanned = candidates(self._proc, self._biggest, self._turn)
        yield from self._scanner.scan(pids, _uptime_of(self._proc, now.mono), now.mono, seen)
        counts, parents = count(seen)
        if unscanned:
            counts["unscanned"] = unscanned
        if sockets:
            connections = Connections(self._address)
            yield from scan(self._proc, connections)
            counts.update(connections.counts())
            counts.update(self._queues())
        elif self._jumps.established is not None:
            counts["socket{tcp/ESTABLISHED}"] = self._jumps.established
        processes = []
        for one in choose(seen, parents):
            processes.append(_process_of(one, self._scanner.details(one.pid)))
            yield
        self._biggest = [one.pid for one in processes]
        if self._scanner.unreadable:
            self._tell(
                "processes.io", "absent", "input/output of other users' processes needs CAP_SYS_PTRACE"
            )
        self._result = Snapshot(now, self.name, reason, processes, counts)

    def _tell(self, name: str, action: str, reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self._notes.append(Note(name, action, reason))

    def pending(self) -> bool:
        """Whether a pass is under way."""
        return self._pass is not None

    def position(self) -> str:
        """Nothing to go on from."""
        return ""

    def close(self) -> None:
        """Nothing stays open."""


def _uptime_of(proc: Path, mono: float) -> float:
    """Seconds since boot on the clock of the processes' start times, which counts suspended time.

    Where containers are shown their own uptime (lxcfs), start times are the host's all the same.
    """
    if proc == _PROC:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        return float((proc / "uptime").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return mono


def _process_of(one: Seen, details: Details) -> Process:
    return Process(
        one.pid,
        one.stat.ppid,
        printable(one.stat.name),
        details.unit,
        details.uid,
        printable(one.stat.state[:1]) or "?",
        round(one.cpu, 4),
        one.stat.rss_bytes,
        one.fds,
        details.fd_limit,
        one.stat.threads,
        round(one.io_rate, 1),
        round(one.age_s, 2),
        details.command,
    )
