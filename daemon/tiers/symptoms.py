"""What is nothing when it is said once, like a refused connection, but a fault when it goes on for seconds.

While something is being restarted its clients are refused for as long as it needs to come up, and while the
host goes down services end. Pure, on observation time, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from daemon.messages import Line

# So many of them for so many seconds, with no long pause: a client that backs off asks again within seconds.
LEAST = ((5, 3.0), (3, 4.0))
LEAST_S = 2.0  # of what counts only in great numbers
PAUSE_S = 10.0
RESTARTING_S = 15.0  # a large service needs some seconds until it listens again
STOPPED_S = 60.0  # what is started within a minute after it was stopped is restarted
BUILDING_S = 600.0  # between two lines that only a build or a test run writes
ENDING_S = 300.0  # a unit has 90 s (DefaultTimeoutStopSec=), some wait for others; a reboot may be called off
LABELS_MAX = 256


class _Row(NamedTuple):
    began_t: float
    last_t: float
    number: int


class Symptoms:
    """How long each symptom has gone on, and whether a restart excuses it."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._stopped: OrderedDict[str, float] = OrderedDict()
        self._restarted_t = float("-inf")
        self._builds: OrderedDict[str, float] = OrderedDict()
        self._ending = "", float("-inf")

    def goes_down(self, boot: str, t: float) -> None:
        """This boot is being ended."""
        self._ending = boot, t

    def going_down(self, boot: str, t: float) -> bool:
        """Whether what is said in this boot is said while it ends."""
        return boot == self._ending[0] and t - self._ending[1] <= ENDING_S

    def stopped(self, unit: str, t: float) -> None:
        """The manager has stopped a unit because it was told to."""
        self._stopped[unit] = t
        self._stopped.move_to_end(unit)
        if len(self._stopped) > LABELS_MAX:
            self._stopped.popitem(last=False)

    def started(self, unit: str, t: float) -> None:
        """The manager has started a unit."""
        if t - self._stopped.pop(unit, float("-inf")) <= STOPPED_S:
            self._restarted_t = t

    def builds(self, line: Line, t: float) -> None:
        """A unit runs compilers and tests, whose failures are somebody's code's."""
        runner = _runner(line)
        self._builds[runner] = t
        self._builds.move_to_end(runner)
        if len(self._builds) > LABELS_MAX:
            self._builds.popitem(last=False)

    def building(self, line: Line, t: float) -> bool:
        """Whether the unit of a line has lately run compilers or tests."""
        return t - self._builds.get(_runner(line), float("-inf")) <= BUILDING_S

    def away(self, t: float) -> str:
        """The unit that was stopped last within the last minute and was not started again, or ""."""
        unit = next(reversed(self._stopped), "")
        return unit if unit and t - self._stopped[unit] <= STOPPED_S else ""

    def persists(
        self, label: str, t: float, *, least: Sequence[tuple[int, float]] = LEAST, pause_s: float = PAUSE_S
    ) -> bool:
        """Take one more line of a symptom; whether it is a fault by now."""
        row = self._rows.pop(label, None)
        if row is None or t - row.last_t > pause_s:
            row = _Row(t, t, 0)
        row = self._rows[label] = _Row(row.began_t, t, row.number + 1)
        if len(self._rows) > LABELS_MAX:
            self._rows.popitem(last=False)
        lasted_s = t - row.began_t
        if t - self._restarted_t <= RESTARTING_S and lasted_s < RESTARTING_S:
            return False
        return any(row.number >= count and lasted_s >= least_s for count, least_s in least)


def _runner(line: Line) -> str:
    """Who may run compilers: a unit, or where none is known one program of a file or of the journal."""
    return line.unit or f"{line.source} {line.identifier}"
