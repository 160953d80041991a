"""What each stage says of itself: one small file in the runtime directory, and how it is read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from daemon.locks import read_holder

STAGES = ("supervisor", "collector", "low", "middle", "top", "notify")
ModelTier = Literal["low", "middle", "top"]
MODEL_TIERS: tuple[ModelTier, ...] = ("low", "middle", "top")
MAX_STATUS_BYTES = 1 << 20
STALE_S = 60.0  # twelve status periods
_FIRST_BUCKET_S = 0.001
_RATIO = 1.5  # a bucket's width: the percentiles are right within that factor, and never below the truth
_BUCKETS = 40  # up to 1 ms * 1.5^39, about two hours


class Flow(Struct, frozen=True):
    """Messages of one source over one edge, since the stage started; the rest of `offered` is on its way."""

    offered: int
    delivered: int
    gap: int


class Latency(Struct, frozen=True):
    """From observation to done, over the last minutes; each message counts as old as its batch's oldest."""

    count: int
    p50_s: float
    p95_s: float
    max_s: float


class ModelStatus(Struct, frozen=True, omit_defaults=True):
    """A tier's model, in the process that its stage starts when there is something to judge.

    `counters` are questions: asked, answered, failed, fallback (the baseline spoke alone), and processes
    started. `pss_bytes` is the most that was seen; `latency` is from question to answer, a start included.
    """

    state: Literal["off", "absent", "asleep", "starting", "ready", "broken"]
    bundle: str = ""  # the one that spoke last
    pid: int = 0
    pss_bytes: int = 0
    cpu_s: float = 0.0  # of the processes that ended
    latency: Latency | None = None
    counters: dict[str, int] = field(default_factory=dict)


class Status(Struct, frozen=True, omit_defaults=True):
    """One stage's file; times are Unix seconds, `flows` is by edge and source, `drops` by edge and reason."""

    stage: str
    pid: int
    boot: str
    started: float
    updated: float
    state: Literal["starting", "running", "stopped"]
    text: str = ""
    cpu_s: float = 0.0
    cpu_ratio: float = 0.0  # of one core, since the status before
    pss_bytes: int = 0
    latency: Latency | None = None
    queue_peak: int = 0
    flows: dict[str, dict[str, Flow]] = field(default_factory=dict)
    drops: dict[str, dict[str, int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    model: ModelStatus | None = None  # of the tiers that have one


_decoder = msgspec.json.Decoder(Status)


class StageView(Struct, frozen=True):
    """A stage as `hauswart status` shows it."""

    stage: str
    pid: int
    alive: bool
    text: str
    cpu_ratio: float
    pss_bytes: int
    latency_p95_s: float | None
    updated: float
    model: ModelStatus | None = None


class LatencyWindow:
    """A histogram of the last two periods, so that a stage's bad morning does not hide its good evening."""

    def __init__(self, period_s: float = 150.0) -> None:
        self._period_s = period_s
        self._turned_s = time.monotonic()
        self._now, self._before = [0] * _BUCKETS, [0] * _BUCKETS

    def add(self, latency_s: float, count: int = 1) -> None:
        """Count messages that were this old when they were done."""
        index, bound_s = 0, _FIRST_BUCKET_S
        while latency_s > bound_s and index < _BUCKETS - 1:
            index, bound_s = index + 1, bound_s * _RATIO
        self._now[index] += count

    def summary(self) -> Latency | None:
        """The percentiles of the last one to two periods; None if nothing was counted."""
        if time.monotonic() - self._turned_s > self._period_s:
            self._turned_s = time.monotonic()
            self._before, self._now = self._now, [0] * _BUCKETS
        counts = [a + b for a, b in zip(self._now, self._before, strict=True)]
        total = sum(counts)
        if total == 0:
            return None
        return Latency(total, _quantile(counts, 0.5), _quantile(counts, 0.95), _quantile(counts, 1.0))


def write_status(runtime: Path, status: Status) -> None:
    """Replace a stage's file in one step; raises OSError."""
    partial = f"{runtime}/status/.{status.stage}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(status))
    os.replace(partial, f"{runtime}/status/{status.stage}.json")  # noqa: PTH105  # paths cost half of a write


def read_status(runtime: Path, stage: str) -> Status | None:
    """A stage's last word, or None if there is none that can be read."""
    try:
        with (runtime / "status" / f"{stage}.json").open("rb") as file:
            return _decoder.decode(file.read(MAX_STATUS_BYTES))
    except (OSError, msgspec.MsgspecError):
        return None


def running_stages(runtime: Path) -> list[StageView]:
    """Every stage that runs or died without stopping, in the order of the flow; [] if no daemon runs."""
    found = (read_status(runtime, stage) for stage in STAGES)
    return [_view(status) for status in found if status is not None and status.state != "stopped"]


def read_pids(runtime: Path) -> frozenset[int]:
    """The processes that hold, or last held, a stage's lock, and the scorers that they started."""
    paths = [runtime / "status" / f"{stage}.lock" for stage in STAGES]
    paths += [scorer_pid_path(runtime, tier) for tier in MODEL_TIERS]
    paths.append(explainer_pid_path(runtime))
    return frozenset(pid for pid in map(read_holder, paths) if pid is not None)


def scorer_pid_path(runtime: Path, tier: ModelTier) -> Path:
    """Where a stage writes which process its scorer is, while there is one."""
    return runtime / "status" / f"score-{tier}.pid"


def explainer_pid_path(runtime: Path) -> Path:
    """Where the top stage writes which process asks the served model, while there is one."""
    return runtime / "status" / "explain-top.pid"


def total(flows: Mapping[str, Mapping[str, Flow]], part: Literal["offered", "delivered", "gap"]) -> int:
    """One number over all edges and sources."""
    return sum(getattr(flow, part) for sources in flows.values() for flow in sources.values())


def own_pss_bytes() -> int:
    """This process's share of memory, 0 where the kernel does not tell."""
    return read_pss_bytes("self")


def read_pss_bytes(pid: int | str) -> int:
    """A process's share of memory, 0 where the kernel does not tell."""
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _view(status: Status) -> StageView:
    silent_s = time.time() - status.updated
    alive = _is_alive(status.pid)
    text = status.text if alive else f"died without stopping (process {status.pid})"
    if alive and silent_s > STALE_S:
        text = f"silent for {silent_s:.0f} s; {text}"
    return StageView(
        stage=status.stage,
        pid=status.pid,
        alive=alive and silent_s <= STALE_S,
        text=text,
        cpu_ratio=status.cpu_ratio,
        pss_bytes=status.pss_bytes,
        latency_p95_s=status.latency.p95_s if status.latency else None,
        updated=status.updated,
        model=status.model,
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _quantile(counts: list[int], share: float) -> float:
    """The upper bound of the bucket in which the share is reached."""
    left = share * sum(counts)
    bound_s = _FIRST_BUCKET_S
    for count in counts:
        left -= count
        if left <= 0:
            break
        bound_s *= _RATIO
    return round(bound_s, 6)
