"""Offers log lines at a fixed rate through a followed file, and reads from the status what became of them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import exact_cpu_s, family
from tests.lab.runner import Daemon, wait_until

SHAPES = (
    "sshd[{a}]: Accepted publickey for deploy from 10.0.{b}.{c} port {d} ssh2: ED25519 SHA256:{h}",
    'nginx: 10.1.{b}.{c} - - "GET /items/{a}?page={b} HTTP/1.1" 200 {d} "-" "curl/8.5" 0.0{b}',
    "postgres[{a}]: LOG:  checkpoint complete: wrote {d} buffers ({b}.{c}%); {b} WAL removed",
    "kernel-like: eth0: renewed lease of 192.168.{b}.{c} for {a} seconds",
    "app[{a}]: request {h} finished in {d} ms with status {b}",
    "cron[{a}]: (root) CMD (test -x /usr/sbin/job-{b} && /usr/sbin/job-{b} --all)",
)


@dataclass(frozen=True)
class Flood:
    """What was offered and what became of it."""

    written: int
    offered: int
    delivered: int
    gap: int
    seconds: float
    drained_after_s: float
    cpu_s: float
    alive: bool
    stage_cpu_s: dict[str, float]
    samples: int  # of the host, that arrived meanwhile

    @property
    def accounted(self) -> bool:
        return self.offered == self.delivered + self.gap and self.offered == self.written

    def per_line_us(self, cpu_s: float) -> float:
        """Microseconds of this CPU time for each line."""
        return cpu_s / max(self.written, 1) * 1e6


def lines(count: int, seed: int = 7) -> list[str]:
    """Log lines of six shapes with changing values, as a busy host writes them."""
    rng = random.Random(seed)
    stamp = "Nov 22 03:00:00 host "
    return [
        stamp
        + SHAPES[rng.randrange(len(SHAPES))].format(
            a=rng.randrange(1, 99999),
            b=rng.randrange(256),
            c=rng.randrange(256),
            d=rng.randrange(1, 65536),
            h=f"{rng.getrandbits(64):016x}",
        )
        + "\n"
        for _ in range(count)
    ]


def offer(watched: Daemon, log: Path, per_second: int, seconds: int) -> Flood:
    """Write `per_second` lines a second in tenths of a second; then wait until all are accounted for."""
    batch = lines(per_second)
    tenths = ["".join(batch[start::10]) for start in range(10)]
    source = f"file:{log}"
    before, samples_before = flow(watched, source), flow(watched, "host")[1]
    stages_before, cpu_before = _stage_cpu_s(watched), exact_cpu_s(family(watched.process.pid))
    started = time.monotonic()
    with log.open("a", encoding="utf-8", buffering=1 << 20) as file:
        for number in range(seconds * 10):
            file.write(tenths[number % 10])
            file.flush()
            time.sleep(max(0.0, started + (number + 1) / 10 - time.monotonic()))
    took, written = time.monotonic() - started, per_second * seconds

    def settled() -> bool:
        offered, delivered, gap = (b - a for a, b in zip(before, flow(watched, source), strict=True))
        return offered >= written and offered == delivered + gap

    wait_until(settled, 120)
    offered, delivered, gap = (b - a for a, b in zip(before, flow(watched, source), strict=True))
    cpu = exact_cpu_s(family(watched.process.pid)) - cpu_before
    return Flood(
        written,
        offered,
        delivered,
        gap,
        seconds=took,
        drained_after_s=time.monotonic() - started - took,
        cpu_s=cpu,
        alive=watched.process.poll() is None,
        stage_cpu_s={
            stage: cpu_s - stages_before.get(stage, 0.0) for stage, cpu_s in _stage_cpu_s(watched).items()
        },
        samples=flow(watched, "host")[1] - samples_before,
    )


def _stage_cpu_s(watched: Daemon) -> dict[str, float]:
    pids = {name: status["pid"] for name, status in watched.stages().items()}
    return {name: exact_cpu_s([pids[name]]) for name in ("collector", "low", "middle") if name in pids}


def flow(watched: Daemon, source: str) -> tuple[int, int, int]:
    """Offered, delivered and gap of one source, as the collector counts them."""
    found = watched.stages().get("collector", {}).get("flows", {}).get("low", {}).get(source, {})
    return found.get("offered", 0), found.get("delivered", 0), found.get("gap", 0)
