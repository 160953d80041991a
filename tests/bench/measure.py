"""Measures processes from the outside: CPU seconds and proportional memory, as the kernel counts them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, unit: str, digits: int = 2) -> str:
        low, high = min(self.values), max(self.values)
        return (
            f"{self.median:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f}, n={len(self.values)})"
        )


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*"):
            try:
                queue += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds, children that were waited for included (short-lived helpers count too)."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(value) for value in fields[11:15])
    return total / TICKS


def exact_cpu_s(pids: Iterable[int]) -> float:
    """Seconds on a processor to the nanosecond; the ticks of `cpu_s` are too coarse below one per cent."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total / 1e9


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: shared pages are divided among those that share them."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


@dataclass
class Usage:
    """What one program costs, window by window."""

    cpu_ratio: Spread
    pss: Spread


def watch(roots: dict[str, Callable[[], list[int]]], windows: int, window_s: float) -> dict[str, Usage]:
    """Measure all programs side by side in the same windows, so that noise hits them alike."""
    cpu: dict[str, list[float]] = {name: [] for name in roots}
    memory: dict[str, list[float]] = {name: [] for name in roots}
    for _ in range(windows):
        before = {name: (exact_cpu_s(pids()), time.monotonic()) for name, pids in roots.items()}
        time.sleep(window_s)
        for name, pids in roots.items():
            used, at = before[name]
            cpu[name].append((exact_cpu_s(pids()) - used) / (time.monotonic() - at) * 100)
            memory[name].append(pss_bytes(pids()) / (1 << 20))
    return {name: Usage(Spread(tuple(cpu[name])), Spread(tuple(memory[name]))) for name in roots}
