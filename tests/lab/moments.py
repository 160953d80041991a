"""When things happened in a run, in seconds after its effect, whatever its clock was set to meanwhile.

Knows a run's times only, which were taken by the system's own clocks: Unix time, and seconds since the boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from daemon.messages import Observation

SET_S = 1.0  # a clock that differs by more was set; less is the time between two readings
AFTER_S = 60.0  # what is said so long after the end still belongs to the time after the clock was set


@dataclass(frozen=True)
class Moments:
    """The times of `run.json`."""

    times: Mapping[str, Mapping[str, float]]

    def since_effect(self, wall: float) -> float:
        """Seconds between the effect and an instant in Unix time, as the system's clock told it."""
        effect = self.times["effect"]
        after = wall - effect["wall"]
        if not self.was_set or self._is_after(after):
            return after
        began = self.times["began"]
        return wall - began["wall"] + began["mono"] - effect["mono"]

    def of(self, name: str) -> float:
        """One of the run's times, in seconds after the effect."""
        if self.was_set:
            return self.times[name]["mono"] - self.times["effect"]["mono"]
        return self.times[name]["wall"] - self.times["effect"]["wall"]

    @property
    def was_set(self) -> bool:
        """Whether the clock was set between the injection and its effect."""
        offsets = [self.times[name]["wall"] - self.times[name]["mono"] for name in ("began", "effect")]
        return abs(offsets[1] - offsets[0]) > SET_S

    def until(self, batches: Iterable[list[Observation]], name: str) -> Iterator[list[Observation]]:
        """Only what was observed before one of the run's times."""
        end = self.times[name]
        for batch in batches:
            early = [one for one in batch if not self._late(one, end)]
            if early:
                yield early

    def _late(self, one: Observation, end: Mapping[str, float]) -> bool:
        if self.was_set:  # in virtual machines alone, which are never suspended: both kinds of clock agree
            return one.at.mono > end["mono"]
        return one.at.wall > end["wall"]

    def _is_after(self, after_s: float) -> bool:
        last = max(self.times, key=lambda name: self.times[name]["mono"])
        return self.of("began") <= after_s <= self.of(last) + AFTER_S
