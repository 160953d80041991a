"""When a snapshot of the processes is worth taking at once: a counter is far above its recent values.

This triggers, it does not judge: a needless snapshot costs a few milliseconds, a missed one the culprit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_MEMORY_S = 10.0  # time constant of the recent value, in seconds: a jump is news for about this long


class _Watch(NamedTuple):
    """A jump is above `floor` and above `factor` times the recent value plus `step`."""

    floor: float
    factor: float
    step: float


_WATCHED = {
    "proc.forks": _Watch(50.0, 2.0, 20.0),
    "proc.total": _Watch(50.0, 1.2, 50.0),
    "cpu.busy": _Watch(0.3, 1.0, 0.25),
    "psi.cpu.some": _Watch(0.15, 1.5, 0.1),
    "psi.memory.some": _Watch(0.05, 1.5, 0.05),
    "psi.io.some": _Watch(0.15, 1.5, 0.1),
    "mem.oom_kills": _Watch(0.0, 0.0, 0.0),
    "fd.used": _Watch(0.05, 1.2, 0.02),
    "sock.tcp_established": _Watch(100.0, 1.5, 50.0),
    "sock.tcp_time_wait": _Watch(500.0, 2.0, 500.0),
    "net.syn_received": _Watch(50.0, 2.0, 50.0),
    "net.listen_drops": _Watch(1.0, 1.5, 1.0),
}
_FALL_BYTES = 0.02  # share of all memory that went within the memory above
_SOCKETS = {"sock.tcp_established", "sock.tcp_time_wait", "net.syn_received", "net.listen_drops"}
_URGENT = {"mem.oom_kills", "proc.total", "fd.used"}
_MANY_SOCKETS = 200  # from here on a snapshot looks at the connections themselves


class Jumps:
    """Shared by the host sampler, which notes each sample, and the process collector, which takes them."""

    def __init__(self) -> None:
        self._recent: dict[str, float] = {}
        self._noted_at = 0.0
        self._jumped: set[str] = set()
        self.established: float | None = None
        self._connections = 0.0

    def note(self, values: Mapping[str, float], mono: float) -> None:
        """Compare a sample with the recent past."""
        weight = min(1.0, (mono - self._noted_at) / _MEMORY_S) if self._noted_at else 1.0
        self._noted_at = mono
        for name, watch in _WATCHED.items():
            value = values.get(name)
            if value is None:
                continue
            recent = self._recent.setdefault(name, value)
            if value > watch.floor and value > watch.factor * recent + watch.step:
                self._jumped.add(name)
            self._recent[name] = recent + weight * (value - recent)
        self._note_memory(values.get("mem.available"), weight)
        self.established = values.get("sock.tcp_established")
        self._connections = (self.established or 0) + values.get("sock.tcp_time_wait", 0)

    def _note_memory(self, available: float | None, weight: float) -> None:
        if available is None:
            return
        recent = self._recent.setdefault("mem.available", available)
        if recent - available > _FALL_BYTES:
            self._jumped.add("mem.available")
        self._recent["mem.available"] = recent + weight * (available - recent)

    @property
    def waiting(self) -> bool:
        """Whether something has jumped since the last `take`."""
        return bool(self._jumped)

    @property
    def urgent(self) -> bool:
        """Whether a jump waits whose culprit is gone soon, or whose harm grows by the second."""
        return not self._jumped.isdisjoint(_URGENT)

    def take(self) -> tuple[frozenset[str], bool]:
        """What has jumped, and whether the connections are worth a look; starts over."""
        jumped, self._jumped = frozenset(self._jumped), set()
        return jumped, self._connections >= _MANY_SOCKETS or bool(jumped & _SOCKETS)
