"""Who has taken a core for itself: one process, or a service that usually rests."""

from __future__ import annotations

from daemon.messages import Process
from daemon.tiers.conditions import Breach
from daemon.tiers.levels.processor import AT_START_S, BATCH_TOOLS, BUSY, CPU
from daemon.tiers.view import View, own_unit, process_subject, service, unit_subject
from daemon.tiers.wording import quantity, span
from models.taxonomy import Severity

HOG = "process.cpu.level"
UNIT_HOG = "unit.cpu.level"
HOG_CORES = 0.9  # a single-threaded loop shows 0.95-1.0 once interrupts and neighbours took their share
HOG_S = 20.0  # shorter ones are what any tool does once in a while
BEGUN_S = 120.0  # of a service that has worked since it was started: that may be what it is for
HOG_SOON_S = 10.0  # from here on it is worth a line beside other findings
UNUSUAL = 5.0  # times its own usual use
BATCH_S = 600.0


def unit_hog(view: View, label: str, cores: float) -> Breach | None:
    """A service that usually rests has taken a core."""
    name = f"unit.cpu{{{label}}}"
    usual = view.level(name, cores)
    if not service(label) or own_unit(label):
        return None
    opened = view.conditions.opened(UNIT_HOG, label)
    known = view.usual.get(name)
    if cores < (0.7 if opened else HOG_CORES) or (not opened and cores < UNUSUAL * max(usual, 0.02)):
        return None
    if known is not None and known.seen < 30 and view.watched_s < 60.0:  # busy since before we looked
        return None
    values = {"cpu_cores": cores, "cpu_ratio": min(1.0, cores / view.cores), "cores_count": view.cores}
    text = (
        f"{label} uses {quantity(cores)} of {quantity(view.cores)} cores; usually it uses {quantity(usual)}."
    )
    return Breach(
        UNIT_HOG,
        label,
        Severity.WARNING,
        0.55,
        [unit_subject(label)],
        {CPU: 0.6, BUSY: 0.1},
        text,
        values,
        ref=name,
        sustain_s=HOG_S,
    )


class Hogs:
    """Processes that have taken a core each, judged by what their name usually uses."""

    NAMES_MAX = 512

    def __init__(self) -> None:
        self.usual: dict[str, float] = {}
        self._since: dict[int, float] = {}  # pid -> observation time since which it has used a whole core
        self.heavy: list[Process] = []
        self._before: dict[int, float] = {}  # pid -> cores in the snapshot before, of those above a tenth
        self._times = (0.0, 0.0)  # of the last two snapshots

    def note(self, view: View) -> list[Breach]:
        """Breaches of the latest snapshot; their label is the pid."""
        processes = [process for process in view.processes() if process.cpu >= 0]
        self.heavy = [process for process in processes if process.cpu >= HOG_CORES - 0.05]
        self._since = {p.pid: self._since.get(p.pid, self._onset(view, p)) for p in self.heavy}
        self._before = {p.pid: p.cpu for p in processes if p.cpu >= 0.1}
        self._times = (self._times[1], view.t)
        breaches = self.tick(view, trusted=True)
        self._learn(processes)
        return breaches

    def tick(self, view: View, *, trusted: bool = False) -> list[Breach]:
        """Breaches now; between snapshots the host's own figure must confirm that the hogs go on."""
        taken = sum(process.cpu for process in self.heavy)
        if not self.heavy or not (trusted or view.get("cpu.busy") * view.cores >= 0.85 * taken):
            return []
        breaches = [self._breach(view, p, view.t - self._since[p.pid]) for p in self.heavy]
        return [breach for breach in breaches if breach is not None]

    def _onset(self, view: View, process: Process) -> float:
        """When a newly heavy process began: `cpu` is a mean since the last snapshot, so it fills that span.

        What it used in the span before tells how much earlier it was.
        """
        earlier, last = self._times
        if not last:
            return view.t
        early = min(1.0, self._before.get(process.pid, 0.0)) * (last - earlier) if earlier else 0.0
        return max(view.t - process.age_s, last - early)

    def _breach(self, view: View, process: Process, held_s: float) -> Breach | None:
        label = str(process.pid)
        opened = view.conditions.opened(HOG, label)
        usual = self.usual.get(process.name, 0.0)
        old = process.age_s > view.watched_s + 5.0 and view.watched_s < 300.0
        if process.cpu < (0.7 if opened else HOG_CORES) or held_s < HOG_SOON_S:
            return None
        batch = process.name in BATCH_TOOLS and held_s < BATCH_S
        known = usual * UNUSUAL > process.cpu or old  # it always does this, or did before we came
        begun = service(process.unit) and process.age_s <= held_s + AT_START_S
        weak = batch or known or held_s < (BEGUN_S if begun else HOG_S)
        text = (
            f"{process.name}[{process.pid}] has used {quantity(process.cpu)} of {quantity(view.cores)} cores"
            f" for {span(held_s)}."
        )
        subjects = [process_subject(process)]
        if service(process.unit):
            subjects.insert(0, unit_subject(process.unit))
        return Breach(
            HOG,
            label,
            Severity.INFO if weak else Severity.WARNING,
            0.35 if weak else 0.6,
            subjects,
            {CPU: 0.3, BUSY: 0.3} if weak else {CPU: 0.7},
            text,
            {
                "cpu_cores": process.cpu,
                "cpu_ratio": min(1.0, process.cpu / view.cores),
                "cores_count": view.cores,
                "pid": float(process.pid),
                "window_s": held_s,
            },
            ref=HOG,
            kind="snapshot",
            clear_s=5.0,
            stale_s=60.0,
        )

    def _learn(self, processes: list[Process]) -> None:
        """The usual use of a name: the heaviest process of that name, averaged over about 40 snapshots."""
        tops: dict[str, float] = {}
        for process in processes:
            if process.cpu > tops.get(process.name, -1.0):
                tops[process.name] = process.cpu
        for name, cpu in tops.items():
            before = self.usual.pop(name, 0.0)
            self.usual[name] = before + (cpu - before) / 40.0
        while len(self.usual) > self.NAMES_MAX:
            self.usual.pop(next(iter(self.usual)))
