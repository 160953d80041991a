"""How busy this machine is with what is none of the lab's business, so that nobody is blamed for it.

A container sees the whole machine's processor time, but only its own processes. What is busy outside is
known from the machine's total and the container's control group; without one, from the time before the fault.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Ambient:
    """Begin it before the daemon's warm-up, `mark` the injection, ask for the cores at the end."""

    group: Path | None = None  # the container's control group

    def __post_init__(self) -> None:
        self._begun = self._now()
        self._marked: tuple[float, float, float] | None = None

    def mark(self) -> None:
        """The injection begins."""
        self._marked = self._now()

    def cores(self) -> float:
        """Cores that others kept busy on average: while it was watched, or at least before the injection."""
        before = self._busy(self._begun, self._marked or self._now())
        if self.group is None or self._marked is None:
            return before
        return round(max(before, self._busy(self._marked, self._now())), 2)

    def _busy(self, begin: tuple[float, float, float], end: tuple[float, float, float]) -> float:
        wall, total, own = (after - before for before, after in zip(begin, end, strict=True))
        return round(max(0.0, (total - own) / wall), 2) if wall > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Seconds: monotonic, busy on all cores, busy inside the container."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, soft, _steal = map(int, fields)
        own = 0.0
        if self.group is not None:
            lines = (self.group / "cpu.stat").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6
        return time.monotonic(), (user + nice + system + irq + soft) / TICKS, own
