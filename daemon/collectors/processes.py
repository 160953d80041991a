"""One pass over the processes in procfs: cheap facts of all, details of few, bounded in a fork storm.

Knows nothing about when to look or what to send; that is `snapshots`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.cgroups import parse_places, unit_of_path
from daemon.collectors.kernel_files import number_after, printable, read_bytes

MAX_SCANNED = 4000
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_LISTED = 65536


class Stat(NamedTuple):
    """What `/proc/PID/stat` tells (proc_pid_stat(5)); times in clock ticks."""

    name: bytes
    state: bytes
    ppid: int
    flags: int
    ticks: int
    threads: int
    started: int
    rss_bytes: int


class Seen(NamedTuple):
    """One process of a pass; `fds` -1 and `io` -1 where they cannot be read."""

    pid: int
    stat: Stat
    fds: int
    io_bytes: int
    cpu: float  # cores since the last pass, or since its start
    io_rate: float
    age_s: float


class Details(NamedTuple):
    """What is read for the few that are sent."""

    unit: str
    uid: int
    fd_limit: int
    command: str


def parse_stat(data: bytes) -> Stat | None:
    """The facts of one `stat` line; the name may hold anything, blanks and parentheses too."""
    left, right = data.find(b"("), data.rfind(b")")
    fields = data[right + 2 :].split(None, 22)
    if left < 0 or right < left or len(fields) < 22:
        return None
    try:
        return Stat(
            data[left + 1 : right],
            fields[0],
            int(fields[1]),
            int(fields[6]),
            int(fields[11]) + int(fields[12]),
            int(fields[17]),
            int(fields[19]),
            int(fields[21]) * _PAGE_BYTES,
        )
    except ValueError:
        return None


def parse_command(data: bytes) -> str:
    """What identifies a program: its first argument and a script or module; the rest may hold secrets."""
    arguments = data[:4096].split(b"\0")
    first = printable(
        b" ".join(arguments[0].split()[:2]), 120
    )  # a process that wrote its title has blanks here
    rest = [argument for argument in arguments[1:3] if argument]
    if rest and rest[0] in (b"-m", b"-jar") and len(rest) > 1 and _is_word(rest[1]):
        return f"{first} {rest[0].decode()} {printable(rest[1], 100)}"
    if rest and _is_word(rest[0]) and (b"/" in rest[0] or b"." in rest[0]):
        return f"{first} {printable(rest[0], 100)}"
    return first


def _is_word(argument: bytes) -> bool:
    return not argument.startswith(b"-") and all(
        chr(byte).isalnum() or byte in b"._/-+" for byte in argument[:100]
    )


def candidates(proc: Path, known: Iterable[int], turn: int = 0) -> tuple[list[int], int]:
    """Process ids to look at and how many are left out: the biggest known ones, the newest, some in turn."""
    pids = [int(name) for name in os.listdir(proc) if name.isdigit()]  # noqa: PTH208 - names only
    if len(pids) <= MAX_SCANNED:
        return pids, 0
    try:
        newest = int((proc / "loadavg").read_bytes().split()[-1])
    except (OSError, ValueError, IndexError):
        newest = max(pids)
    # ids are given out upwards and start over after pid_max
    pids.sort(key=lambda pid: pid - newest if pid <= newest else pid - newest - (1 << 22), reverse=True)
    first = set(known)
    chosen = [pid for pid in pids if pid in first][: MAX_SCANNED // 2]
    rest = [pid for pid in pids if pid not in first]
    share = MAX_SCANNED // 4
    newest_first = MAX_SCANNED - len(chosen) - share
    chosen += rest[:newest_first]
    older = rest[newest_first:]
    at = turn * share % max(1, len(older))
    chosen += (older[at:] + older[:at])[:share]
    return chosen, len(pids) - len(chosen)


class Scanner:
    """Remembers each process's counters from the last pass, so that the next one has rates."""

    def __init__(self, proc: Path) -> None:
        self._proc = str(proc)
        self._last: dict[int, tuple[int, int, int, int]] = {}  # started, ticks, fds, io bytes
        self._last_at = 0.0
        self._fds_in_size = self._has_fds_in_size()
        self.unreadable = 0

    def _has_fds_in_size(self) -> bool:
        """Since Linux 6.2 the size of /proc/PID/fd is the number of open descriptors."""
        try:
            return Path(f"{self._proc}/self/fd").stat().st_size > 0
        except OSError:
            return False

    def scan(self, pids: list[int], uptime_s: float, mono: float, seen: list[Seen]) -> Iterator[None]:
        """Append what can be seen of these processes, giving way after every fifty; call it to its end."""
        fresh: dict[int, tuple[int, int, int, int]] = {}
        elapsed = mono - self._last_at if self._last_at else 0.0
        self.unreadable = 0
        for index, pid in enumerate(pids, 1):
            data = read_bytes(f"{self._proc}/{pid}/stat", 1024)
            stat = parse_stat(data) if data else None
            if stat is None:
                continue  # it ended between the listing and the reading
            one = self._see(pid, stat, elapsed, uptime_s)
            fresh[pid] = (stat.started, stat.ticks, one.fds, one.io_bytes)
            seen.append(one)
            if index % 50 == 0:
                yield
        self._last, self._last_at = fresh, mono

    def _see(self, pid: int, stat: Stat, elapsed: float, uptime_s: float) -> Seen:
        age_s = max(0.0, uptime_s - stat.started / _TICKS_PER_S)
        last = self._last.get(pid)
        if last and last[0] != stat.started:
            last = None
        if stat.flags & _KERNEL_THREAD:
            fds, io_bytes = 0, 0
        elif last and last[1] == stat.ticks:
            fds, io_bytes = last[2], last[3]  # what has not run has neither opened nor read anything
        else:
            fds = self._count_fds(pid)
            io_bytes = -1 if last and last[3] < 0 else self._count_io(pid)
        if last and elapsed > 0:
            cpu = (stat.ticks - last[1]) / _TICKS_PER_S / elapsed
            io_rate = max(0, io_bytes - last[3]) / elapsed if io_bytes >= 0 and last[3] >= 0 else 0.0
        else:
            life = max(age_s, 1.0 / _TICKS_PER_S)
            cpu = stat.ticks / _TICKS_PER_S / life
            io_rate = max(0, io_bytes) / max(life, 1.0)
        return Seen(pid, stat, fds, io_bytes, max(0.0, cpu), io_rate, age_s)

    def _count_fds(self, pid: int) -> int:
        path = f"{self._proc}/{pid}/fd"
        try:
            if self._fds_in_size:
                return os.stat(path).st_size  # noqa: PTH116 - a Path costs more than the call
            with os.scandir(path) as entries:
                return sum(1 for _ in zip(entries, range(_MAX_LISTED), strict=False))
        except OSError:
            return -1

    def _count_io(self, pid: int) -> int:
        data = read_bytes(f"{self._proc}/{pid}/io", 512)
        read, written = (
            number_after(data or b"", b"\nread_bytes:"),
            number_after(data or b"", b"\nwrite_bytes:"),
        )
        if read is None or written is None:
            self.unreadable += 1
            return -1
        return read + written

    def details(self, pid: int) -> Details:
        """Unit, owner, descriptor limit and command of one process; empty where it has ended meanwhile."""
        directory = f"{self._proc}/{pid}"
        try:
            uid = os.stat(directory).st_uid  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            uid = -1
        places = read_bytes(f"{directory}/cgroup")
        limits = read_bytes(f"{directory}/limits") or b""
        limit = number_after(limits, b"\nMax open files")
        return Details(
            unit_of_path(parse_places(places)) if places else "",
            uid,
            -1 if limit is None else limit,
            parse_command(read_bytes(f"{directory}/cmdline") or b""),
        )
