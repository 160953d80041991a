"""Which rules look at which metric family, and between which values none of them needs to."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from daemon.tiers.conditions import Breach
from daemon.tiers.levels import hardware, hogs, memory, network, packets, processes, processor, storage
from daemon.tiers.view import View

Rule = Callable[[View, str, float], Breach | None]


class Watch(NamedTuple):
    """Rules by name; they are asked for values outside `low..high` and while one of them holds."""

    low: float
    high: float
    rules: tuple[tuple[str, Rule], ...]


def _above(high: float, *rules: tuple[str, Rule]) -> Watch:
    return Watch(-inf, high, rules)


def _below(low: float, *rules: tuple[str, Rule]) -> Watch:
    return Watch(low, inf, rules)


# The bounds lie below (above, for what is bad when low) the thresholds of the rules, hysteresis included.
WATCHES: dict[str, Watch] = {
    "cpu.busy": _above(0.89, (processor.SATURATED, processor.saturated)),
    "cpu.steal": _above(0.19, ("cpu.steal.level", processor.stolen)),
    "unit.cpu": _above(0.69, (hogs.UNIT_HOG, hogs.unit_hog)),
    "unit.throttled": _above(0.49, ("unit.throttled.level", processor.throttled)),
    "mem.available": _below(0.5, (memory.LOW, memory.low), (memory.FORECAST, memory.forecast)),
    "psi.memory.full": _above(0.04, (memory.STALLED, memory.stalled)),
    "mem.major_faults": _above(499.0, ("mem.major_faults.level", memory.thrash)),
    "mem.oom_kills": _above(0.0, ("mem.oom_kills.level", memory.killed)),
    "unit.oom_kills": _above(0.0, ("unit.oom_kills.level", memory.unit_killed)),
    "unit.psi_memory": _above(0.14, ("unit.psi_memory.level", memory.unit_stalled)),
    "unit.memory": _above(0.89, (memory.UNIT, memory.unit_limit)),
    "fs.used": _above(-1.0, ("fs.used.level", storage.used), ("fs.used.forecast", storage.forecast)),
    "fs.inodes_used": _above(0.5, ("fs.inodes_used.level", storage.inodes)),
    "fs.readonly": _above(0.5, ("fs.readonly.level", storage.readonly)),
    "psi.io.some": _above(0.14, ("psi.io.level", storage.saturated)),
    "disk.busy": _above(0.89, ("disk.busy.level", storage.busy)),
    "disk.io_errors": _above(0.0, ("disk.io_errors.level", storage.io_errors)),
    "disk.smart_failing": _above(0.5, ("disk.smart_failing.level", storage.smart)),
    "array.degraded": _above(0.5, ("array.degraded.level", storage.degraded)),
    "proc.total": _above(-1.0, (processes.TOTAL, processes.storm)),  # always: it needs the course
    "proc.forks": _above(49.0, (processes.CHURN, processes.churn)),
    "proc.limit": _above(0.69, (processes.LIMIT, processes.limit)),
    "unit.tasks_limit": _above(0.79, ("unit.tasks.level", processes.unit_limit)),
    "unit.forks_refused": _above(0.0, ("unit.forks_refused.level", processes.forks_refused)),
    "fd.used": _above(0.74, ("fd.used.level", processes.descriptors)),
    "link.errors": _above(1.0, ("link.errors.level", network.errors)),
    "link.drops": _above(9.0, ("link.drops.level", network.drops)),
    "link.queue_drops": _above(4.9, ("link.queue_drops.level", network.queue_drops)),
    "link.carrier": _below(0.5, ("link.carrier.level", network.carrier)),
    "net.tcp_retransmits": _above(-1.0, ("net.tcp_retransmits.level", network.retransmits)),  # always: a mean
    "net.udp_errors": _above(4.0, ("net.udp_errors.level", network.datagrams)),
    "net.tcp_damaged": _above(0.4, ("net.tcp_damaged.level", packets.damaged)),
    "net.reassembly_fails": _above(-1.0, ("net.reassembly_fails.level", packets.fragments)),  # always: a mean
    "net.no_routes": _above(0.9, ("net.no_routes.level", packets.unrouted)),
    "net.icmp_unreachable": _above(0.9, ("net.icmp_unreachable.level", packets.undelivered)),
    "net.backlog_drops": _above(4.9, ("net.backlog_drops.level", network.backlog_drops)),
    "net.listen_drops": _above(0.4, ("net.listen_drops.level", network.listen_drops)),
    "net.syn_received": _above(49.0, ("net.syn_received.level", network.opens)),
    "net.conntrack": _above(0.79, ("net.conntrack.level", network.conntrack)),
    "probe.dns_ok": _below(0.5, ("probe.dns_ok.level", network.dns)),
    "probe.gateway_ok": _below(0.5, ("probe.gateway_ok.level", network.gateway)),
    "temp.critical": _above(0.91, ("temp.critical.level", hardware.hot)),
}
NOTHING = Watch(-inf, inf, ())
