"""Statistical oddities: a metric that left its usual level, or metrics that move together as they never did.

They speak weakly (hints of 0.3 at most, never an incident alone) and rarely.
"""

from __future__ import annotations

from daemon.messages import Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, own_unit
from daemon.tiers.wording import octets, percent, quantity
from models.baselines import FLOORS, Baseline
from models.metrics import METRICS, split
from models.residual import CovarianceScorer
from models.taxonomy import FaultClass as Fault
from models.taxonomy import Severity, SubjectKind

OPEN_MAX = 4  # more at once say "the host does something else now", which the residual says in one finding
HINT = 0.25
SUSTAIN_S = 10.0
LEAST_FLOORS = 8.0  # a shift of fewer floors is real but of no interest

_HINTS = {
    "cpu.busy": Fault.CPU_SATURATION,
    "cpu.system": Fault.CPU_SATURATION,
    "cpu.steal": Fault.CPU_SATURATION,
    "psi.cpu.some": Fault.CPU_SATURATION,
    "cpu.iowait": Fault.IO_SATURATION,
    "psi.io.some": Fault.IO_SATURATION,
    "psi.io.full": Fault.IO_SATURATION,
    "disk.await_s": Fault.IO_SATURATION,
    "disk.busy": Fault.IO_SATURATION,
    "proc.blocked": Fault.IO_SATURATION,
    "psi.memory.some": Fault.MEMORY_EXHAUSTION,
    "psi.memory.full": Fault.MEMORY_EXHAUSTION,
    "mem.available": Fault.MEMORY_EXHAUSTION,
    "mem.swap_used": Fault.MEMORY_EXHAUSTION,
    "mem.major_faults": Fault.MEMORY_EXHAUSTION,
    "unit.memory": Fault.MEMORY_EXHAUSTION,
    "proc.total": Fault.PROCESS_STORM,
    "proc.limit": Fault.PROCESS_STORM,
    "unit.tasks_limit": Fault.PROCESS_STORM,
    "fd.used": Fault.FD_EXHAUSTION,
    "fs.used": Fault.DISK_FULL,
    "fs.inodes_used": Fault.INODE_EXHAUSTION,
    "net.tcp_retransmits": Fault.PACKET_LOSS,
    "net.udp_errors": Fault.PACKET_LOSS,
    "link.errors": Fault.PACKET_LOSS,
    "link.drops": Fault.PACKET_LOSS,
    "probe.gateway_s": Fault.PACKET_LOSS,
    "probe.dns_s": Fault.NAME_RESOLUTION,
    "net.listen_drops": Fault.CONNECTION_FLOOD,
    "net.conntrack": Fault.CONNECTION_FLOOD,
    "net.tcp_attempt_fails": Fault.CONNECTION_FLOOD,
    "sock.tcp_established": Fault.CONNECTION_FLOOD,
    "sock.tcp_orphan": Fault.CONNECTION_FLOOD,
    "temp.celsius": Fault.HARDWARE_ERROR,
}
SHIFTING = frozenset(_HINTS)


def shift(view: View, name: str, known: Baseline, learn_s: float) -> Breach | None:
    """A metric has stayed far from its usual level, in the direction that is bad for it."""
    family, label = split(name)
    metric, fault = METRICS[family], _HINTS.get(family)
    rule = f"{family}.shift"
    moved = known.fast - known.level
    if fault is None or own_unit(label) or abs(moved) < LEAST_FLOORS * known.floor:
        return None
    if view.watched_s < learn_s or known.seen < 60 or (moved > 0) != (metric.bad == "up"):
        return None
    values = {"rate_per_s": known.last} if metric.unit.endswith("/s") else {}
    text = (
        f"{name} is {_said(known.fast, metric.unit)}; usually it is about {_said(known.level, metric.unit)}."
    )
    return Breach(
        rule,
        label,
        Severity.INFO,
        0.25,
        [Subject(metric.subject, label)],
        {fault: HINT},
        text,
        values,
        ref=name,
        sustain_s=SUSTAIN_S,
        clear_s=30.0,
        once=True,
        category=metric.category,
    )


def _said(value: float, unit: str) -> str:
    if unit == "ratio":
        return percent(value)
    if unit.startswith("bytes"):
        return octets(value) + ("/s" if unit.endswith("/s") else "")
    return quantity(value, unit if unit not in {"count", "bool"} else "")


# --- all host metrics together -----------------------------------------------------------------------------

WIDTH_NAMES = tuple(
    family
    for family, metric in METRICS.items()
    if metric.subject is SubjectKind.HOST and metric.bad and not family.startswith("probe.")
)
CLIP = 10.0
GAIN = 0.08  # a half-life of eight rows, as in models.residual
STRANGE = 2.5  # log units above the usual: a score twelve times what it is on an ordinary row


class Together:
    """One weak finding when the host's metrics leave their usual pattern together."""

    def __init__(self) -> None:
        self.scorer = CovarianceScorer(len(WIDTH_NAMES))
        self._usual = Baseline(FLOORS["bool"] * 3)
        self._mean = 0.0
        self._row: list[float] = [0.0] * len(WIDTH_NAMES)

    def judge(self, view: View, step_s: float, learn_s: float) -> Breach | None:
        """Take the present row of the host's metrics; a breach while it is strange."""
        row = self._row = [self._z(view, name) for name in WIDTH_NAMES]
        distance = self.scorer.score(row)
        self.scorer.learn(row, distance)
        ratio = distance / len(row)
        self._mean += GAIN * (ratio - self._mean)
        level = self._usual.level
        self._usual.learn(min(self._mean, 1.0 + 2.0 * level), view.t, step_s)
        if self.scorer.seen < 120 or view.watched_s < learn_s or self._mean < 1.0 + STRANGE * level * 5.0:
            return None
        return self._breach(view)

    @staticmethod
    def _z(view: View, name: str) -> float:
        known = view.usual.get(name)
        if known is None or known.seen < 2:
            return 0.0
        z = (known.last - known.level) / known.scale
        return max(-CLIP, min(CLIP, z))

    def _breach(self, view: View) -> Breach:
        shares = self.scorer.shares(self._row)
        ranked = sorted(zip(shares, WIDTH_NAMES, self._row, strict=True), reverse=True)[:3]
        named = [(name, z) for share, name, z in ranked if share > 0.1 * sum(shares)]
        faults = {_HINTS[name]: 0.2 for name, z in named[:2] if name in _HINTS and z > 0}
        parts = [f"{name} {'above' if z > 0 else 'below'} its usual level" for name, z in named]
        text = "The host's metrics move together as they have not before: " + ", ".join(parts) + "."
        return Breach(
            "host.residual",
            "",
            Severity.INFO,
            0.25,
            [Subject(SubjectKind.HOST, "")],
            faults,
            text,
            {"rate_per_s": view.get("proc.forks")} if any(name == "proc.forks" for name, _ in named) else {},
            ref=named[0][0] if named else "host.residual",
            sustain_s=SUSTAIN_S,
            clear_s=30.0,
            category=METRICS[named[0][0]].category if named else None,
        )
