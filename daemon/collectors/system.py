"""Processor, load, processes, pressure, memory and descriptors of the whole host, from procfs.

Pressure comes from the kernel's running totals, so a sample says what share of its own interval was stalled.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from daemon.collectors.kernel_files import KernelFile, Note, Parts, Rates, number_after, reason_of

_ARC = {name: re.compile(rb"\n%s +\d+ +(\d{1,18})\n" % name.encode()) for name in ("size", "c_min")}
_PRESSURE = (("cpu", ("some",)), ("memory", ("some", "full")), ("io", ("some", "full")))
_HOST_PIDS = 0xEFFFFFFC  # inode of the first PID namespace, PROC_PID_INIT_INO (include/linux/proc_ns.h)
_LIMITS_EVERY_S = 60.0  # pid_max and threads-max change by an operator's hand only


def parse_processor(line: bytes) -> tuple[int, int, int, int, int] | None:
    """Total, idle, system, iowait and steal ticks of the first line of `/proc/stat` (proc(5))."""
    fields = line.split()[1:9]
    if len(fields) < 4 or not all(field.isdigit() for field in fields):
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = [int(field) for field in fields] + [0] * (
        8 - len(fields)
    )
    total = user + nice + system + idle + iowait + irq + softirq + steal
    return total, idle, system + irq + softirq, iowait, steal


def parse_pressure(data: bytes) -> dict[str, int]:
    """Stalled microseconds since boot by `some` and `full`."""
    totals = {}
    for line in data.splitlines():
        kind, _, rest = line.partition(b" ")
        total = number_after(rest, b"total=")
        if kind in (b"some", b"full") and total is not None:
            totals[kind.decode()] = total
    return totals


def _is_nested(proc: Path) -> bool:
    """Whether this process lives in a PID namespace of its own (pid_namespaces(7))."""
    try:
        return (proc / "self/ns/pid").stat().st_ino != _HOST_PIDS
    except OSError:
        return False


class SystemReader:
    """The families cpu, load, proc, psi, mem and fd."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._rates = Rates()
        self._stat = KernelFile(proc / "stat", single=True)
        self._load = KernelFile(proc / "loadavg", single=True)
        self._memory = KernelFile(proc / "meminfo", single=True)
        self._vm = KernelFile(proc / "vmstat")
        self._arc: KernelFile | None = None  # of ZFS, where there is one
        self._files = KernelFile(proc / "sys/fs/file-nr", single=True)
        self._pressure: list[tuple[str, tuple[str, ...], KernelFile]] = []
        self._ticks: tuple[int, int, int, int, int] | None = None
        self._static_links = 0
        self._nested = False  # in a container the kernel's counts are those of the host around it
        self._limit = (-_LIMITS_EVERY_S, 0)
        self._notes: list[Note] = []
        self._parts = Parts(
            {
                "cpu": self._read_processor,
                "load": self._read_load,
                "mem": self._read_memory,
                "mem.counters": self._read_counters,
                "psi": self._read_pressure,
                "fd": self._read_files,
            }
        )

    def open(self) -> list[Note]:
        """Find out which pressure files work and how many links of /proc are no processes."""
        notes = []
        for resource, kinds in _PRESSURE:
            file = KernelFile(self._proc / "pressure" / resource, single=True)
            try:
                file.read()
            except OSError as error:  # no CONFIG_PSI, or booted with psi=0 (EOPNOTSUPP)
                notes.append(Note(f"psi.{resource}", "absent", reason_of(error)))
            else:
                self._pressure.append((resource, kinds, file))
        # nlink of the procfs root is its static directories plus the kernel's process count (fs/proc/root.c)
        self._static_links = self._proc.stat().st_nlink - self._count()
        self._nested = _is_nested(self._proc)
        statistics = self._proc / "spl/kstat/zfs/arcstats"
        if statistics.exists() and not self._nested:  # a container is shown its host's
            self._arc = KernelFile(statistics)
        return notes

    def _count(self) -> int:
        return sum(name.isdigit() for name in os.listdir(self._proc))  # noqa: PTH208 - names only

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values."""
        self._parts.read(mono, values)

    def _read_pressure(self, mono: float, values: dict[str, float]) -> None:
        for resource, kinds, file in self._pressure:
            totals = parse_pressure(file.read())
            for kind in kinds:
                if kind in totals:
                    name = f"psi.{resource}.{kind}"
                    stalled = self._rates.of(name, totals[kind], mono)
                    if stalled is not None:
                        values[name] = min(1.0, stalled / 1e6)

    def _read_files(self, _: float, values: dict[str, float]) -> None:
        used, _unused, maximum = self._files.read().split()[:3]
        values["fd.used"] = int(used) / max(1, int(maximum))

    def _read_processor(self, mono: float, values: dict[str, float]) -> None:
        data = self._stat.read()
        now, last = parse_processor(data[: data.find(b"\n")]), self._ticks
        self._ticks = now
        values["cpu.cores"] = max(1, data.count(b"\ncpu"))
        if now and last and now[0] > last[0]:
            # idle and iowait may step back a little on a tickless kernel
            total, idle, system, iowait, steal = (max(0, a - b) for a, b in zip(now, last, strict=True))
            values["cpu.busy"] = max(0.0, total - idle - iowait) / total
            values["cpu.system"] = min(1.0, system / total)
            values["cpu.iowait"] = min(1.0, iowait / total)
            values["cpu.steal"] = min(1.0, steal / total)
        forks = None if self._nested else number_after(data, b"\nprocesses ")
        if forks is not None:
            self._rates.put(values, "proc.forks", forks, mono)
        for name, key in (("proc.running", b"\nprocs_running "), ("proc.blocked", b"\nprocs_blocked ")):
            count = number_after(data, key)
            if count is not None:
                values[name] = count

    def _read_load(self, mono: float, values: dict[str, float]) -> None:
        fields = self._load.read().split()
        values["load.1"] = float(fields[0])
        if self._nested:
            values["proc.total"] = self._count()
            self._rates.put(values, "proc.forks", int(fields[4]), mono)  # the last pid; rarely it wraps
        else:
            links = os.stat(self._proc).st_nlink  # noqa: PTH116 - dearer as a Path
            values["proc.total"] = max(0, links - self._static_links)
        limit = self._task_limit(mono)
        if limit:
            values["proc.limit"] = int(fields[3].split(b"/")[1]) / limit

    def _task_limit(self, mono: float) -> int:
        if mono - self._limit[0] >= _LIMITS_EVERY_S:
            limits = []
            for name in ("pid_max", "threads-max"):
                try:
                    limits.append(int((self._proc / "sys/kernel" / name).read_bytes()))
                except (OSError, ValueError) as error:
                    self._notes.append(Note(f"proc.{name}", "absent", str(error)))
            self._limit = (mono, min(limits, default=0))
        return self._limit[1]

    def _read_memory(self, _: float, values: dict[str, float]) -> None:
        data = self._memory.read()
        total, available = number_after(data, b"MemTotal:"), number_after(data, b"\nMemAvailable:")
        if total and available is not None:
            available = min(total, available + self._cached())
            values["mem.total"] = total * 1024
            values["mem.available_bytes"] = available * 1024
            values["mem.available"] = available / total
        swap, free = number_after(data, b"\nSwapTotal:"), number_after(data, b"\nSwapFree:")
        if swap and free is not None:
            values["mem.swap_used"] = (swap - free) / swap
        dirty = number_after(data, b"\nDirty:")
        if dirty is not None:
            values["mem.dirty_bytes"] = dirty * 1024

    def _cached(self) -> int:
        """KiB that ZFS gives back when they are wanted; MemAvailable does not know of them."""
        data = self._arc.read() if self._arc else b""
        size, least = (_ARC[name].search(data) for name in ("size", "c_min"))
        return max(0, int(size[1]) - int(least[1])) // 1024 if size and least else 0

    def _read_counters(self, mono: float, values: dict[str, float]) -> None:
        counters = self._vm.read()
        for name, key in (("mem.major_faults", b"\npgmajfault "), ("mem.oom_kills", b"\noom_kill ")):
            count = number_after(counters, key)
            if count is not None:
                self._rates.put(values, name, count, mono)

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes + self._parts.notes()

    def close(self) -> None:
        """Give all descriptors back."""
        for file in (self._stat, self._load, self._memory, self._vm, self._files, self._arc):
            if file:
                file.close()
        for _, _, file in self._pressure:
            file.close()
