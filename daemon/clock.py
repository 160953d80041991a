"""Observation time: maps a stamp to one non-decreasing axis that no wall-clock jump can bend.

Windows, rates, silences and cool-downs run on this axis, so a replay is deterministic and as fast as the
machine. `now` is the only place that asks the operating system.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from daemon.messages import Stamp


@cache
def boot_id(proc: Path = Path("/proc")) -> str:
    """The kernel's id of this boot as 32 hex digits, or zeros where it cannot be read."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:
        return "0" * 32


def now() -> Stamp:
    """The present instant."""
    return Stamp(boot_id(), time.monotonic(), time.time())


class Timeline:
    """Turns stamps into seconds that never run backwards: near Unix time at first, then CLOCK_MONOTONIC.

    A stamp of another boot re-anchors the axis at its wall time, but never before the latest time already
    given out. Once a live stamp (a sample's, a tick's) told which boot runs, only another live one does:
    what is still read of an earlier boot's log moves nothing. `drift` tells how far the wall clock has moved
    away from the axis since the anchor.
    """

    def __init__(self) -> None:
        self.latest = 0.0
        self._boot = ""
        self._base = 0.0
        self._live = False

    def at(self, stamp: Stamp, *, live: bool = False) -> float:
        """Seconds on the axis; a stamp older than the latest one gets the latest one's time."""
        if stamp.boot != self._boot:
            if self._live and not live:
                return self.latest
            self._boot = stamp.boot
            self._base = max(stamp.wall, self.latest) - stamp.mono
        self._live = self._live or live
        self.latest = max(self.latest, self._base + stamp.mono)
        return self.latest

    def drift(self, stamp: Stamp) -> float:
        """Seconds by which the wall clock runs ahead (+) or behind (-) of the axis at this stamp."""
        return stamp.wall - (self._base + stamp.mono) if stamp.boot == self._boot else 0.0
