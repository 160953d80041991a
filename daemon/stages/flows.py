"""What the stages around an edge share: the edge's numbers, and work that survives a bad message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from daemon.bus import Wire
from daemon.bus.outbox import Tally
from daemon.clock import boot_id
from daemon.messages import Stamp
from daemon.stages.life import Life
from daemon.status import Flow, LatencyWindow

T = TypeVar("T")
R = TypeVar("R")


def tell_unchecked(life: Life, wire: Wire) -> None:
    """Say so where libzmq cannot tell who connects."""
    if not wire.checks_peers:
        life.tell.warning("this libzmq does not check peers' credentials; only file modes keep others out")


def count_flows(tally: Tally) -> dict[str, Flow]:
    """An edge's numbers by source, for the status file."""
    return {
        source: Flow(offered, tally.delivered[source], tally.gap[source])
        for source, offered in tally.offered.items()
    }


def count_latency(window: LatencyWindow, oldest: Stamp, now_s: float, count: int) -> None:
    """Count a batch as old as its oldest message, unless that is of another boot."""
    if oldest.boot == boot_id():
        window.add(max(0.0, now_s - oldest.mono), count)


def work_through(
    work: Callable[[Sequence[T]], list[R]], batch: Sequence[T], complain: Callable[[Exception], None]
) -> list[R]:
    """Do the work on a batch; if it fails, message by message, leaving out those that make it fail.

    The messages are other people's text: one that meets an error of ours must neither end the watch nor hide
    its neighbours.
    """
    try:
        return work(batch)
    except Exception as error:  # noqa: BLE001  # see the docstring
        complain(error)
        if len(batch) == 1:
            return []
    results: list[R] = []
    for message in batch:
        results += work_through(work, [message], complain)
    return results
