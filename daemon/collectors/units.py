"""Processor, memory, tasks, input/output and pressure of each unit or other control group.

A group whose own activity counter stood still has changed nothing worth reading, so most groups cost one
pread a second.
"""

from __future__ import annotations

from pathlib import Path

from daemon.collectors.cgroups import Groups, Layout
from daemon.collectors.kernel_files import REPEAT_S, KernelFile, Note, Rates, number_after, read_bytes
from daemon.collectors.system import parse_pressure

MAX_GROUPS = 256
_SEARCH_EVERY_S = 30.0  # a change in the link counts starts a search at once
_NO_LIMIT = 1 << 62  # v1 says "none" by the largest page-aligned number


def _limit_of(data: bytes | None) -> int:
    """A limit file's number, 0 for none."""
    text = (data or b"").strip()
    number = int(text) if text.isdigit() else 0
    return 0 if number >= _NO_LIMIT else number


def sum_io(data: bytes) -> int:
    """Bytes read and written over all devices of a v2 `io.stat`."""
    total = 0
    for field in data.split():
        key, _, number = field.partition(b"=")
        if key in (b"rbytes", b"wbytes") and number.isdigit():
            total += int(number)
    return total


class Group:
    """One control group: its files, by what they tell, and its last activity."""

    def __init__(self, label: str, paths: dict[str, str], activity: str) -> None:
        self.label = label
        self.paths = paths
        self.activity = KernelFile(activity, single=True, limit=4096)
        self.last = b""
        self.moved = False  # has ever done anything
        self.active_at = 0.0
        self.repeat_at = 0.0
        self.rates = Rates()
        self.seen_at = 0.0

    def begin_at(self, mono: float) -> None:
        """It was created at about this time, so its counters began at zero."""
        self.moved = True
        for family in ("unit.cpu", "unit.oom_kills", "unit.forks_refused"):
            self.rates.of(f"{family}{{{self.label}}}", 0, mono)

    def get(self, kind: str) -> bytes | None:
        """The content of one of its files, None where it has none."""
        path = self.paths.get(kind)
        return read_bytes(path) if path else None


class UnitReader:
    """The family unit, for at most `MAX_GROUPS` groups; the longest idle ones make room."""

    def __init__(self, sys: Path) -> None:
        self._layout = Layout(sys)
        self._groups = Groups(self._layout)
        self._known: dict[str, Group] = {}
        self._search_at = 0.0
        self._searched_at = 0.0
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Find out what this host accounts per group."""
        layout = self._layout
        if not layout.trees:
            return [Note("units", "absent", "no control groups below /sys/fs/cgroup")]
        controllers = set(layout.v1)
        if layout.unified:
            enabled = read_bytes(layout.unified / "cgroup.controllers") or b""
            controllers |= set(enabled.decode("ascii", "replace").split())
        needed = {"memory": {"memory"}, "pids": {"pids"}, "cpu": {"cpu", "cpuacct"}}
        return [
            Note(f"units.{kind}", "absent", "this control group controller is not enabled")
            for kind, names in needed.items()
            if not controllers & names
        ]

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values."""
        if mono >= self._search_at or self._groups.changed():
            self._search_at = mono + _SEARCH_EVERY_S
            self._search(mono)
        for path, group in list(self._known.items()):
            try:
                self._read_group(group, mono, values)
            except OSError:  # removed since (ENODEV); what it did last is lost with it
                group.activity.close()
                del self._known[path]
                self._search_at = 0.0

    def _search(self, mono: float) -> None:
        found = self._groups.find()
        for path in self._known.keys() - found.keys():
            self._known.pop(path).activity.close()
        fresh = [path for path in found if path not in self._known]
        room = MAX_GROUPS - len(self._known)
        if len(fresh) > room:
            idle = sorted(self._known, key=lambda path: self._known[path].active_at)
            for path in [p for p in idle if mono - self._known[p].active_at > 60][: len(fresh) - room]:
                self._known.pop(path).activity.close()
                room += 1
        for path in fresh[:room]:
            group = self._group(path, found[path])
            if group:
                self._known[path] = group
                new = path not in self._groups.met and not self._groups.cut
                if new and self._searched_at and mono > self._searched_at:
                    group.begin_at(max(self._searched_at, mono - 1.0))
        self._searched_at = mono
        if len(fresh) > room or self._groups.cut:
            self._notes.append(
                Note("units", "gap", f"more than {MAX_GROUPS} control groups; some are not measured")
            )
        if self._groups.unreadable:
            self._notes.append(Note("units", "error", self._groups.unreadable))

    def _group(self, path: str, label: str) -> Group | None:
        paths: dict[str, str] = {}
        unified = self._layout.unified
        if unified and (directory := unified / path.lstrip("/")).is_dir():
            files = _FILES_V2 if not self._layout.v1 else _PRESSURE_V2
            paths.update({kind: f"{directory}/{name}" for kind, name in files.items()})
        for controller, files in _FILES_V1.items():
            root = self._layout.v1.get(controller)
            if root and (directory := root / path.lstrip("/")).is_dir():
                paths.update({kind: f"{directory}/{name}" for kind, name in files.items()})
        activity = next((paths[kind] for kind in ("cpu", "usage", "memory") if kind in paths), None)
        return Group(label, paths, activity) if activity else None

    def _read_group(self, group: Group, mono: float, values: dict[str, float]) -> None:
        data, before = group.activity.read(), group.seen_at
        group.seen_at = mono
        if data == group.last:
            if mono < group.repeat_at or not group.moved:
                return
            group.repeat_at = mono + REPEAT_S
        else:
            if group.repeat_at:  # it stood still until the last look
                group.rates.restamp(before)
            group.moved |= group.last != b"" or _has_run(data)
            group.last, group.active_at, group.repeat_at = data, mono, 0.0
            if not group.moved:
                return
        _read_processor(group, data, mono, values)
        _read_memory(group, mono, values)
        _read_tasks(group, mono, values)
        _read_stalls(group, mono, values)

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Give all descriptors back."""
        for group in self._known.values():
            group.activity.close()


_PRESSURE_V2 = {"psi_memory": "memory.pressure", "psi_io": "io.pressure"}
_FILES_V2 = {
    **_PRESSURE_V2,
    "cpu": "cpu.stat",
    "throttled": "cpu.stat",
    "memory": "memory.current",
    "memory_limit": "memory.max",
    "oom": "memory.events",
    "tasks": "pids.current",
    "tasks_limit": "pids.max",
    "tasks_events": "pids.events",
    "io": "io.stat",
}
_FILES_V1 = {
    "cpuacct": {"usage": "cpuacct.usage"},
    "cpu": {"throttled": "cpu.stat"},
    "memory": {
        "memory": "memory.usage_in_bytes",
        "memory_limit": "memory.limit_in_bytes",
        "oom": "memory.oom_control",
    },
    "pids": {"tasks": "pids.current", "tasks_limit": "pids.max", "tasks_events": "pids.events"},
    "blkio": {"io_v1": "blkio.throttle.io_service_bytes"},
}


def _has_run(data: bytes) -> bool:
    digits = data.split()
    return bool(digits) and digits[1 if len(digits) > 1 else 0] != b"0"


def _read_processor(group: Group, activity: bytes, mono: float, values: dict[str, float]) -> None:
    label, cpu = f"{{{group.label}}}", group.paths.get("cpu")
    if cpu:
        usage_s = (number_after(activity, b"usage_usec") or 0) / 1e6
    elif "usage" in group.paths:
        usage_s = int(activity) / 1e9
    else:
        usage_s = None
    if usage_s is not None:
        group.rates.put(values, "unit.cpu" + label, usage_s, mono)
    stat = activity if cpu else group.get("throttled") or b""
    periods, throttled = number_after(stat, b"nr_periods"), number_after(stat, b"nr_throttled")
    if periods and throttled is not None:
        a, b = group.rates.of("periods", periods, mono), group.rates.of("throttled", throttled, mono)
        if a is not None and b is not None:
            values["unit.throttled" + label] = min(1.0, b / a) if a else 0.0


def _read_memory(group: Group, mono: float, values: dict[str, float]) -> None:
    label = f"{{{group.label}}}"
    used = group.get("memory")
    if used is not None and used.strip().isdigit():
        values["unit.memory_bytes" + label] = int(used)
        limit = _limit_of(group.get("memory_limit"))
        if limit:
            values["unit.memory" + label] = int(used) / limit
    kills = number_after(group.get("oom") or b"", b"oom_kill ")
    if kills is not None:
        group.rates.put(values, "unit.oom_kills" + label, kills, mono)


def _read_tasks(group: Group, mono: float, values: dict[str, float]) -> None:
    label = f"{{{group.label}}}"
    count = (group.get("tasks") or b"").strip()
    if count.isdigit():
        values["unit.tasks" + label] = int(count)
        limit = _limit_of(group.get("tasks_limit"))
        if limit:
            values["unit.tasks_limit" + label] = int(count) / limit
        # The kernel logs only the first refusal; whether the limit was a slice's it does not say.
        refused = number_after(group.get("tasks_events") or b"", b"max ")
        if refused is not None:
            group.rates.put(values, "unit.forks_refused" + label, refused, mono)


def _read_stalls(group: Group, mono: float, values: dict[str, float]) -> None:
    label = f"{{{group.label}}}"
    io = group.get("io")
    total = sum_io(io) if io is not None else number_after(group.get("io_v1") or b"", b"\nTotal")
    if total is not None:
        group.rates.put(values, "unit.io_bytes" + label, total, mono)
    for kind in ("psi_memory", "psi_io"):
        stalled = parse_pressure(group.get(kind) or b"").get("some")
        rate = group.rates.of(kind, stalled, mono) if stalled is not None else None
        if rate is not None:
            values[f"unit.{kind}{label}"] = min(1.0, rate / 1e6)
