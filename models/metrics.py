"""The metric vocabulary: every name a sample may carry, its unit, its label and what kind of change is bad.

A full name is `family` or `family{label}`; the label is the mount point, device, interface, unit or sensor.
"""

from __future__ import annotations

from typing import NamedTuple

from models.taxonomy import Category, SubjectKind


class Metric(NamedTuple):
    """One family: unit of its values, what its label names, and which direction is bad ("up", "down", "")."""

    unit: str
    subject: SubjectKind
    category: Category
    bad: str = "up"


_HOST = SubjectKind.HOST
_R, _S, _N, _H = Category.RESOURCE, Category.STORAGE, Category.NETWORK, Category.HARDWARE

METRICS: dict[str, Metric] = {
    # processor (shares of all cores since the last sample)
    "cpu.busy": Metric("ratio", _HOST, _R),
    "cpu.system": Metric("ratio", _HOST, _R),
    "cpu.iowait": Metric("ratio", _HOST, _R),
    "cpu.steal": Metric("ratio", _HOST, _R),
    "cpu.cores": Metric("count", _HOST, _R, ""),
    "load.1": Metric("count", _HOST, _R),
    # processes
    "proc.total": Metric("count", _HOST, _R),
    "proc.running": Metric("count", _HOST, _R),
    "proc.blocked": Metric("count", _HOST, _R),
    "proc.forks": Metric("1/s", _HOST, _R),
    "proc.limit": Metric(
        "ratio", _HOST, _R
    ),  # processes and threads / min(pid_max, threads-max, cgroup limit)
    # pressure: share of the interval in which some or all tasks stalled (kernel's PSI totals)
    "psi.cpu.some": Metric("ratio", _HOST, _R),
    "psi.memory.some": Metric("ratio", _HOST, _R),
    "psi.memory.full": Metric("ratio", _HOST, _R),
    "psi.io.some": Metric("ratio", _HOST, _R),
    "psi.io.full": Metric("ratio", _HOST, _R),
    # memory
    "mem.total": Metric("bytes", _HOST, _R, ""),
    "mem.available": Metric("ratio", _HOST, _R, "down"),
    "mem.available_bytes": Metric("bytes", _HOST, _R, "down"),
    "mem.swap_used": Metric("ratio", _HOST, _R),
    "mem.dirty_bytes": Metric("bytes", _HOST, _R),
    "mem.major_faults": Metric("1/s", _HOST, _R),
    "mem.oom_kills": Metric("1/s", _HOST, _R),
    # descriptors and sockets
    "fd.used": Metric("ratio", _HOST, _R),
    "sock.tcp_established": Metric("count", _HOST, _N),
    "sock.tcp_time_wait": Metric("count", _HOST, _N),
    "sock.tcp_orphan": Metric("count", _HOST, _N),
    "net.tcp_retransmits": Metric("1/s", _HOST, _N),
    "net.tcp_out_segments": Metric("1/s", _HOST, _N, ""),
    "net.listen_drops": Metric("1/s", _HOST, _N),
    "net.syn_received": Metric("1/s", _HOST, _N),  # passive opens
    "net.tcp_attempt_fails": Metric("1/s", _HOST, _N),
    "net.udp_errors": Metric("1/s", _HOST, _N),
    # These seven say by themselves what is wrong; none belongs to the usual pattern of a host's load.
    "net.udp_no_ports": Metric("1/s", _HOST, _N, ""),  # datagrams to a port at which nobody listens
    "net.tcp_timeouts": Metric("1/s", _HOST, _N, ""),  # segments sent again as no answer came in time
    "net.tcp_data_retransmits": Metric("1/s", _HOST, _N, ""),  # of the repetitions those that hold data
    "net.tcp_damaged": Metric(
        "1/s", _HOST, _N, ""
    ),  # segments whose checksum is wrong, though the link let them pass
    "net.reassembly_fails": Metric("1/s", _HOST, _N, ""),  # fragments of which the rest never came
    "net.no_routes": Metric("1/s", _HOST, _N, ""),  # packets for which there was no route
    "net.icmp_unreachable": Metric("1/s", _HOST, _N, ""),  # sent packets that somebody could not deliver
    "net.backlog_drops": Metric("1/s", _HOST, _N),  # net.core.netdev_max_backlog was full
    "net.conntrack": Metric("ratio", _HOST, _N),
    # file systems
    "fs.used": Metric("ratio", SubjectKind.MOUNT, _S),  # used / (used + available to users)
    "fs.free_bytes": Metric("bytes", SubjectKind.MOUNT, _S, "down"),
    "fs.inodes_used": Metric("ratio", SubjectKind.MOUNT, _S),
    "fs.readonly": Metric("bool", SubjectKind.MOUNT, _S),
    # block devices and arrays
    "disk.busy": Metric("ratio", SubjectKind.DEVICE, _S),
    "disk.read_bytes": Metric("bytes/s", SubjectKind.DEVICE, _S, ""),
    "disk.write_bytes": Metric("bytes/s", SubjectKind.DEVICE, _S, ""),
    "disk.await_s": Metric("s", SubjectKind.DEVICE, _S),
    "disk.io_errors": Metric("1/s", SubjectKind.DEVICE, _S),
    "disk.smart_failing": Metric("bool", SubjectKind.DEVICE, _S),
    "disk.smart_reallocated": Metric("count", SubjectKind.DEVICE, _S),
    "array.degraded": Metric("bool", SubjectKind.DEVICE, _S),  # md, btrfs device errors, ZFS pool state
    "array.sync": Metric("bool", SubjectKind.DEVICE, _S, ""),  # resync, check or scrub runs
    # interfaces
    "link.carrier": Metric("bool", SubjectKind.INTERFACE, _N, "down"),
    "link.rx_bytes": Metric("bytes/s", SubjectKind.INTERFACE, _N, ""),
    "link.tx_bytes": Metric("bytes/s", SubjectKind.INTERFACE, _N, ""),
    "link.rx_packets": Metric("1/s", SubjectKind.INTERFACE, _N, ""),
    "link.errors": Metric("1/s", SubjectKind.INTERFACE, _N),
    "link.drops": Metric("1/s", SubjectKind.INTERFACE, _N),
    "link.queue_drops": Metric("1/s", SubjectKind.INTERFACE, _N),  # by the queue before it, see tc(8)
    "link.queue_loss": Metric("ratio", SubjectKind.INTERFACE, _N),  # of what was given to that queue
    # active probes, opt-in
    "probe.dns_ok": Metric("bool", _HOST, _N, "down"),
    "probe.dns_s": Metric("s", _HOST, _N),
    "probe.gateway_ok": Metric("bool", _HOST, _N, "down"),
    "probe.gateway_s": Metric("s", _HOST, _N),
    # sensors
    "temp.celsius": Metric("celsius", SubjectKind.SENSOR, _H),
    "temp.critical": Metric("ratio", SubjectKind.SENSOR, _H),  # reading / critical trip point
    # units, or the control groups that stand for them
    "unit.cpu": Metric("cores", SubjectKind.UNIT, _R),
    "unit.throttled": Metric("ratio", SubjectKind.UNIT, _R),
    "unit.memory_bytes": Metric("bytes", SubjectKind.UNIT, _R),
    "unit.memory": Metric("ratio", SubjectKind.UNIT, _R),  # of the unit's own limit
    "unit.oom_kills": Metric("1/s", SubjectKind.UNIT, _R),
    "unit.tasks": Metric("count", SubjectKind.UNIT, _R),
    "unit.tasks_limit": Metric("ratio", SubjectKind.UNIT, _R),
    "unit.forks_refused": Metric("1/s", SubjectKind.UNIT, _R),  # by a limit of tasks
    "unit.io_bytes": Metric("bytes/s", SubjectKind.UNIT, _S, ""),
    "unit.psi_memory": Metric("ratio", SubjectKind.UNIT, _R),
    "unit.psi_io": Metric("ratio", SubjectKind.UNIT, _S),
}


def split(name: str) -> tuple[str, str]:
    """Family and label of a full metric name; the label is "" where there is none."""
    family, brace, label = name.partition("{")
    return family, label[:-1] if brace and label.endswith("}") else ""
