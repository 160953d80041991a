"""Courses of metrics for the page: which there are, their values thinned, and what was usual meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from daemon.errors import ConfigError
from daemon.messages import Sample
from daemon.store.segments import SegmentReader, read_series, segment_paths
from models.baselines import FLOORS, Baseline
from models.metrics import METRICS, split

NAMES_MAX = 4000
POINTS = 600  # a curve has no more pixels
SPAN_MAX_S = 86400.0  # an hour of telemetry takes a third of a second to read
BAND = 4.0  # scales; a value beyond is rare: ordinary load crosses four many times an hour, not for long
NAMES_SEGMENTS = 1  # the newest segment names all that is alive
_reading = threading.Lock()  # one reader of segments at a time: this host has better things to do


class Course(NamedTuple):
    """One metric over time; `low` and `high` bound what was usual, None before anything was."""

    name: str
    unit: str
    times: list[float]
    values: list[float]
    low: list[float | None]
    high: list[float | None]


def names(telemetry: Path) -> list[str]:
    """All metrics of the newest segment, sorted."""
    found: set[str] = set()
    with _reading:
        for batch in SegmentReader(segment_paths(telemetry)[-NAMES_SEGMENTS:]):
            for one in batch:
                if isinstance(one, Sample) and len(found) < NAMES_MAX:
                    found.update(one.values)
    return sorted(found)


def course(telemetry: Path, name: str, since: float, until: float) -> Course:
    """A metric between two Unix times; raises ConfigError for a span or a name that makes no sense."""
    if not 0.0 < until - since <= SPAN_MAX_S:
        raise ConfigError("a span of more than a day", hint="choose a shorter one")
    family = METRICS.get(split(name)[0])
    if family is None:
        raise ConfigError(f"no metric is called {name[:80]!r}", hint="choose one of the list")
    with _reading:
        found = read_series(telemetry, [name], since, until)[name]
    ordered = sorted(zip(*found, strict=True))  # a clock that was set back, or a boot before
    times, values = [t for t, _ in ordered], [value for _, value in ordered]
    low, high = band(times, values, FLOORS[family.unit])
    return thinned(Course(name, family.unit, times, values, low, high))


def band(
    times: Sequence[float], values: Sequence[float], floor: float
) -> tuple[list[float | None], list[float | None]]:
    """What was usual before each value, as the low tier's baseline learns it."""
    baseline, last = Baseline(floor), None
    low: list[float | None] = []
    high: list[float | None] = []
    for t, value in zip(times, values, strict=True):
        if baseline.seen < 10:
            low.append(None)
            high.append(None)
        else:
            reach = BAND * baseline.scale
            low.append(max(0.0, baseline.level - reach) if baseline.level > 0.0 else baseline.level - reach)
            high.append(baseline.level + reach)
        baseline.learn(value, t, max(0.1, t - last) if last is not None else 1.0)
        last = t
    return low, high


def thinned(found: Course) -> Course:
    """At most about POINTS places, of each stretch the one that lies farthest from the usual."""
    count = len(found.values)
    if count <= POINTS:
        return found
    size = -(-count // POINTS)

    def oddness(place: int) -> float:
        low, high = found.low[place], found.high[place]
        middle = found.values[0] if low is None or high is None else (low + high) / 2.0
        return abs(found.values[place] - middle)

    stretches = (range(start, min(start + size, count)) for start in range(0, count, size))
    kept = [max(stretch, key=oddness) for stretch in stretches]
    columns = (found.times, found.values, found.low, found.high)
    return Course(found.name, found.unit, *([column[place] for place in kept] for column in columns))  # type: ignore[arg-type]
