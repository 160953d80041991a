"""How busy this machine is with what is none of the lab's business, so that nobody is blamed for it.

A container sees the whole machine's processor time, but only its own processes. What is busy outside is
known from the machine's total and the container's control group (or the virtual machine's process); without
either, from the time before the fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Ambient:
    """Begin it before the daemon's warm-up, `mark` the injection, ask for the cores at the end."""

    used: Callable[[], float] | None = None  # processor seconds that the system itself has used

    def __post_init__(self) -> None:
        self._begun = self._now()
        self._marked: tuple[float, float, float] | None = None

    def mark(self) -> None:
        """The injection begins."""
        self._marked = self._now()

    def cores(self) -> float:
        """Cores that others kept busy on average: while it was watched, or at least before the injection."""
        before = self._busy(self._begun, self._marked or self._now())
        if self.used is None or self._marked is None:
            return before
        return round(max(before, self._busy(self._marked, self._now())), 2)

    def _busy(self, begin: tuple[float, float, float], end: tuple[float, float, float]) -> float:
        wall, total, own = (after - before for before, after in zip(begin, end, strict=True))
        return round(max(0.0, (total - own) / wall), 2) if wall > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Seconds: monotonic, busy on all cores, busy inside the system."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, soft, _steal = map(int, fields)
        own = self.used() if self.used else 0.0
        return time.monotonic(), (user + nice + system + irq + soft) / TICKS, own


def of_group(group: Path) -> float:
    """Processor seconds of a control group."""
    lines = (group / "cpu.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6


def of_process(pid: int) -> float:
    """Processor seconds of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # proc(5): utime and stime, counted from the state
