"""The metric path of the low tier: samples and process snapshots become findings.

Pure: no I/O, no clock but the observations' own time. A quiet host's 200 values cost about 0.2 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import msgspec

from daemon.messages import Finding, Sample, Snapshot
from daemon.settings import Low
from daemon.tiers.conditions import Breach, Conditions
from daemon.tiers.levels import hogs, network, processes, shifts, stuck
from daemon.tiers.levels.table import NOTHING, WATCHES, Rule, Watch
from daemon.tiers.view import View
from models.baselines import FLOORS, Baseline
from models.metrics import METRICS, split

SERIES_MAX = 4096  # 500 units with eight metrics each; hostile names must not grow this without end
COUNTS_MAX = 1024
VANISHED_S = 15.0  # what is idle repeats its values every ten seconds; what is silent for longer is gone
_FLEETING = ("unit.", "disk.", "link.")  # their things come and go, and rules look for one among them
FORGET_S = 3600.0  # a unit that has been gone for an hour starts afresh
STATE_VERSION = 1


class Series(Baseline):
    """A metric's baseline together with who looks at it."""

    __slots__ = ("active", "family", "high", "label", "low", "name", "rules", "shifted", "shifting")

    def __init__(self, name: str, family: str, label: str, watch: Watch) -> None:
        super().__init__(FLOORS.get(METRICS[family].unit, 1.0))
        self.name, self.family, self.label = name, family, label
        self.low, self.high = watch.low, watch.high
        self.rules: tuple[tuple[str, Rule], ...] = watch.rules
        self.active = False
        self.shifting = family in shifts.SHIFTING
        self.shifted = False


class MetricJudge:
    """Judges samples and snapshots of one host, in the order of observation time."""

    def __init__(self, settings: Low) -> None:
        self._learn_s = settings.learn_s
        self._conditions = Conditions()
        self._view = View(self._conditions)
        self._series: dict[str, Series] = {}
        self._usual: dict[str, Baseline] = {}  # the same objects and the counts of snapshots, for the view
        self._counts: dict[str, Baseline] = {}
        self._view.usual = self._usual
        self._hogs = hogs.Hogs()
        self._together = shifts.Together()
        self._sampled_t: dict[str, float] = {}
        self._noted_t = 0.0
        self._named: set[str] = set()  # values named since `_cleaned_t`
        self._cleaned_t = 0.0
        self._held: dict[str, set[tuple[str, str]]] = {}  # conditions by the group that yields them
        self._swept_t = 0.0
        self.counters = {"values_unknown": 0, "values_invalid": 0, "series_dropped": 0}

    @property
    def values(self) -> Mapping[str, float]:
        """The latest value of each metric; kept up to date."""
        return self._view.values

    def own(self, pids: Iterable[int]) -> None:
        """Tell which processes are hauswart's own, where no unit says so."""
        self._view.own_pids = frozenset(pids)

    def judge(self, sample: Sample, t: float) -> list[Finding]:
        """Findings of one sample."""
        view = self._view
        view.reach(sample.at, t)
        step_s = min(60.0, max(0.05, t - self._sampled_t.get(sample.source, t - 1.0)))
        if len(self._sampled_t) < 64 or sample.source in self._sampled_t:
            self._sampled_t[sample.source] = t
        hot, moved = self._take(sample, t, step_s)
        findings: list[Finding] = []
        for series in hot:
            findings += self._ask(series)
        for series in moved:
            findings += self._shift(series)
        if "cpu.busy" in sample.values:  # the host's own sample, the beat of everything else
            findings += self._beat(t, step_s)
        return findings

    def note(self, snapshot: Snapshot, t: float | None = None) -> list[Finding]:
        """Findings of one process snapshot; without `t` it belongs to the latest sample's time."""
        view = self._view
        view.reach(snapshot.at, max(view.t, t if t is not None else view.t))
        view.snapshot, view.snapshot_t = snapshot, view.t
        findings = self._group("hogs", self._hogs.note(view))
        findings += self._group("fds", processes.process_descriptors(view))
        findings += self._group("threads", processes.threads(view))
        findings += self._group("stuck", stuck.stuck(view))
        findings += self._group("sockets", network.sockets(view))
        self._learn_counts(snapshot, view.t)
        return findings

    def _take(self, sample: Sample, t: float, step_s: float) -> tuple[list[Series], list[Series]]:
        """Store and learn the values; which series a rule must look at, and which left their usual level."""
        hot: list[Series] = []
        moved: list[Series] = []
        values, known = self._view.values, self._series
        self._named.update(sample.values)
        for name, value in sample.values.items():
            series = known.get(name)
            if series is None:
                series = self._admit(name)
                if series is None:
                    continue
            if series.settled and value == series.last:
                if series.active or value > series.high or value < series.low:
                    hot.append(series)
                continue
            if not isfinite(value):
                self.counters["values_invalid"] += 1
                continue
            values[name] = value
            if (series.learn(value, t, step_s) and series.shifting) or series.shifted:
                moved.append(series)
            if series.active or value > series.high or value < series.low:
                hot.append(series)
        return hot, moved

    def _admit(self, name: str) -> Series | None:
        family, label = split(name)
        if family not in METRICS:
            self.counters["values_unknown"] += 1
            return None
        if len(self._series) >= SERIES_MAX:
            self.counters["series_dropped"] += 1
            return None
        series = Series(name, family, label, WATCHES.get(family, NOTHING))
        self._series[name] = self._usual[name] = series
        return series

    def _ask(self, series: Series) -> list[Finding]:
        view, conditions = self._view, self._conditions
        findings: list[Finding] = []
        series.active = False
        for rule, ask in series.rules:
            breach = ask(view, series.label, series.last)
            if breach is not None:
                findings += conditions.hold(breach, view.at, view.t)
            else:
                findings += conditions.clear(rule, series.label, view.at, view.t)
            series.active = series.active or conditions.holds(rule, series.label)
        return findings

    def _shift(self, series: Series) -> list[Finding]:
        view, conditions = self._view, self._conditions
        rule = f"{series.family}.shift"
        breach = shifts.shift(view, series.name, series, self._learn_s)
        if breach is None:
            findings = conditions.clear(rule, series.label, view.at, view.t)
        elif series.shifted or sum(other.shifted for other in self._series.values()) < shifts.OPEN_MAX:
            findings = conditions.hold(breach, view.at, view.t)
        else:
            findings = []
        series.shifted = conditions.holds(rule, series.label)
        return findings

    def _beat(self, t: float, step_s: float) -> list[Finding]:
        breach = self._together.judge(self._view, step_s, self._learn_s)
        findings = self._group("residual", [breach] if breach else [])
        if self._hogs.heavy:
            findings += self._group("hogs", self._hogs.tick(self._view), partial=True)
        if t - self._swept_t >= 5.0:
            self._swept_t = t
            findings += self._conditions.sweep(self._view.at, t)
            self._forget(t)
        if t - self._cleaned_t >= max(VANISHED_S, 3.0 * step_s):
            self._cleaned_t = t
            self._drop_vanished()
        return findings

    def _drop_vanished(self) -> None:
        """The last value of what is gone is no value: nobody is to be blamed by it."""
        names = self._view.values
        for name in [name for name in names if name.startswith(_FLEETING) and name not in self._named]:
            self._view.forget(name)
        self._named.clear()

    def _group(self, group: str, breaches: list[Breach], *, partial: bool = False) -> list[Finding]:
        """Hold what a group of rules yields; clear the rest of it, unless only part was looked at."""
        view = self._view
        findings: list[Finding] = []
        before = self._held.get(group, set())
        now = {(breach.rule, breach.label) for breach in breaches}
        for breach in breaches:
            findings += self._conditions.hold(breach, view.at, view.t)
        for rule, label in sorted(before - now):
            if not partial:
                findings += self._conditions.clear(rule, label, view.at, view.t)
            if self._conditions.holds(rule, label):
                now.add((rule, label))
        self._held[group] = now
        return findings

    def _learn_counts(self, snapshot: Snapshot, t: float) -> None:
        """What counts of children, namesakes and sockets are usual; peers come and go too often to learn."""
        step_s = min(60.0, max(1.0, t - self._noted_t)) if self._noted_t else 10.0
        self._noted_t = t
        for name, count in snapshot.counts.items():
            known = self._counts.get(name)
            if known is None:
                if count < 5 or name.startswith("peer{") or not isfinite(count):
                    continue
                if len(self._counts) >= COUNTS_MAX:
                    oldest = next(iter(self._counts))
                    del self._counts[oldest]
                    self._usual.pop(oldest, None)
                known = self._counts[name] = self._usual[name] = Baseline(FLOORS["count"])
            known.learn(count, t, step_s)

    def _forget(self, t: float) -> None:
        """Drop a few series whose metric is gone."""
        if len(self._series) < SERIES_MAX // 4:
            return
        gone = [s.name for s in self._series.values() if t - s.t > FORGET_S and not s.settled][:64]
        for name in gone:
            del self._series[name]
            self._usual.pop(name, None)
            self._view.forget(name)

    # --- learned state ------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """What was learned, bounded: levels, habits of processes, what was full from the start."""
        t = self._view.t
        learned = [series for series in self._series.values() if series.readings(t) >= 60]
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "series": {s.name: (s.level, s.deviation, s.readings(t)) for s in learned},
            "counts": {name: known.state() for name, known in self._counts.items() if known.seen >= 6},
            "hogs": self._hogs.usual,
            "full": sorted(self._view.known_full),
            "bursts": self._conditions.bursts.state(t),
            "together": self._together.scorer.state(),
        }
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> bool:
        """Take up a saved state; False (and a fresh start) if it is damaged or of another version."""
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
            return False
        if saved.version != STATE_VERSION:
            return False
        for name, known in list(saved.series.items())[:SERIES_MAX]:
            series = self._admit(name)
            if series is not None:
                series.resume(known)
        for name, known in list(saved.counts.items())[:COUNTS_MAX]:
            baseline = self._counts[name] = self._usual[name] = Baseline(FLOORS["count"])
            baseline.resume(known)
        self._hogs.usual = dict(list(saved.hogs.items())[: self._hogs.NAMES_MAX])
        self._view.known_full = set(saved.full[:1024])
        self._conditions.bursts.resume(saved.bursts)
        self._together.scorer.resume(saved.together)
        return True


class _State(msgspec.Struct):
    version: int
    series: dict[str, tuple[float, float, int]]
    counts: dict[str, tuple[float, float, int]]
    hogs: dict[str, float]
    full: list[str]
    together: dict[str, Any]
    bursts: dict[str, float] = {}
