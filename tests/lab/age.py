"""A recording as of a host that was up for longer: its own quiet time, over and over, comes before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from daemon.messages import Line, Observation, Sample, Snapshot

QUIET_LEAST_S = 5.0
_GOES_ON = Line | Sample | Snapshot  # what a host says of itself all the time; events happened once


def aged(
    batches: Iterable[list[Observation]], began: Mapping[str, float], age_s: float
) -> Iterator[list[Observation]]:
    """The batches after `age_s` seconds of what came before `began`, if there is any.

    Their stamps stay; what comes before them is stamped earlier.
    """
    every = list(batches)
    quiet = [
        one for batch in every for one in batch if isinstance(one, _GOES_ON) and one.at.wall < began["wall"]
    ]
    samples = [one.at.wall for one in quiet if isinstance(one, Sample)]
    span_s = round(max(samples) - min(samples)) + 1.0 if samples else 0.0
    if span_s >= QUIET_LEAST_S:
        quiet = [one for one in quiet if one.at.wall >= min(samples)]
        for turn in range(int(age_s / span_s), 0, -1):
            yield [_earlier(one, turn * span_s) for one in quiet]
    yield from every


def _earlier(one: Observation, seconds: float) -> Observation:
    at = msgspec.structs.replace(one.at, mono=one.at.mono - seconds, wall=one.at.wall - seconds)
    return msgspec.structs.replace(one, at=at)
