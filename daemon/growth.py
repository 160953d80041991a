"""How far an incident's counted troubles have come, in doublings: what is news, what is more of the same."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.messages import Evidence

_GROWING = ("failures_count", "restarts_count", "errors_count")  # these only rise while a trouble lasts


def doublings(evidence: Iterable[Evidence]) -> int:
    """The number of binary digits of the largest count, so that 5, 10, 20 differ and 20 and 24 do not."""
    largest = max((one.values.get(name, 0.0) for one in evidence for name in _GROWING), default=0.0)
    return int(min(largest, 2.0**52)).bit_length()
