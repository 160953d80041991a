"""`python -m tests.bench`: measures the budgets beside peers in the same run and prints them as one table."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import daemon as daemon_package
import models as models_package
from tests.bench import peers
from tests.bench.flood import Flood, offer
from tests.bench.measure import Spread, Usage, family, watch
from tests.lab.commands import against
from tests.lab.runner import Score, chosen, daemon, inject
from tests.lab.runner import table as table_of
from tests.lab.scenario import Run

QUICK_FAULTS = [
    "memory-exhaustion/group-limit",
    "disk-full/log-grows",
    "auth-bruteforce/log-file",
    "link-down/peer-goes-down",
    "disk-failing/backing-file-cut",
]


@dataclass(frozen=True)
class Row:
    """One budget: what was measured beside its bound and aim."""

    what: str
    measured: str
    value: float
    bound: float
    aim: float
    unit: str
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        def within(limit: float) -> bool:
            return self.value >= limit if self.more_is_better else self.value <= limit

        return "aim met" if within(self.aim) else "bound met" if within(self.bound) else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], help=f"any of {', '.join(PARTS)}; default all"
    )
    parser.add_argument(
        "--window", type=float, default=60, metavar="SECONDS", help="of each measurement of cost"
    )
    parser.add_argument("--windows", type=int, default=3, help="how many of them")
    parser.add_argument("--warm", type=float, default=60, metavar="SECONDS", help="before the first")
    parser.add_argument(
        "--flood", type=int, default=60, metavar="SECONDS", help="of lines at the bound's rate"
    )
    parser.add_argument(
        "--aged", type=Path, metavar="STATE_DIR", help="of a host that ran for a day, for young"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each fault, for the latencies")
    options = parser.parse_args()
    for package in (
        daemon_package,
        models_package,
    ):  # as installing does; else each start compiles, and keeps
        compileall.compile_dir(Path(package.__file__).parent, quiet=1)  # what compiling left of its memory
    rows: list[Row] = []
    for name in options.parts or PARTS:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="hwbench-") as scratch:
            rows += PARTS[name](Path(scratch), options)
    print(table(rows))
    return int(any(row.verdict == "MISSED" for row in rows))


def quiet(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """All stages on a quiet host at 1 Hz, peers beside it."""
    found = _costs(scratch, options)
    ours = found["hauswart"]
    return [
        Row(
            "CPU, quiet host, all services",
            ours.cpu_ratio.text("%"),
            ours.cpu_ratio.median,
            1.0,
            0.5,
            "% of a core",
        ),
        Row("memory, quiet host, sum of PSS", ours.pss.text("MiB", 1), ours.pss.median, 70, 48, "MiB"),
    ]


def busy(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """The same under stress-ng; there is no budget for it, so it is only printed."""
    load = ["stress-ng", "--cpu", "1", "--cpu-load", "60", "--hdd", "1", "--hdd-bytes", "64M", "--fork", "1"]
    seconds = int(options.warm + options.window * options.windows) + 60
    with stressed([*load, "--temp-path", str(scratch), "--timeout", str(seconds)]):
        _costs(scratch, options)
    return []


def _costs(scratch: Path, options: argparse.Namespace) -> dict[str, Usage]:
    with (
        daemon(scratch) as watched,
        peers.node_exporter() as exporter,
        peers.netdata(scratch / "netdata", learning=True) as netdata,
    ):
        time.sleep(options.warm)
        stages = {name: status["pid"] for name, status in watched.stages().items()}
        roots = {"hauswart": lambda: family(watched.process.pid)}
        roots |= {f"  {name}": (lambda pid=pid: [pid]) for name, pid in stages.items()}
        if exporter:
            roots["node-exporter, scraped at 1 Hz"] = lambda: family(exporter.pid)
        if netdata:
            roots["netdata, learning"] = lambda: family(netdata.pid)
        found = watch(roots, options.windows, options.window)
        print(f"{'':<32}{'CPU, % of a core':<36}PSS, MiB")
        for name, usage in found.items():
            print(f"{name:<32}{usage.cpu_ratio.text('%'):<36}{usage.pss.text('MiB', 1)}")
        print(f"incidents meanwhile: {len(watched.incidents())}", flush=True)
    return found


def lines(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """Lines a second with all stages pinned to one core; then five times the bound's rate, to survive."""
    with daemon(scratch, core=0) as watched:
        os.sched_setaffinity(0, {core for core in range(os.cpu_count() or 1) if core} or {0})
        time.sleep(5)
        log = scratch / "auth.log"
        rates = [
            (rate, offer(watched, log, rate, options.flood if rate == 20_000 else 20))
            for rate in (20_000, 50_000, 100_000)
        ]
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    for rate, one in rates:
        print(
            f"{rate}/s for {one.seconds:.0f} s: written {one.written}, offered {one.offered}, "
            f"delivered {one.delivered}, gap {one.gap}, drained after {one.drained_after_s:.1f} s, "
            f"{one.per_line_us(one.cpu_s):.1f} us of CPU a line ("
            + ", ".join(f"{stage} {one.per_line_us(cpu_s):.1f}" for stage, cpu_s in one.stage_cpu_s.items())
            + f"), {one.samples} host samples, {'alive' if one.alive else 'DEAD'}, "
            f"{'accounted' if one.accounted else 'NOT ACCOUNTED'}",
            flush=True,
        )
    kept = max((rate for rate, one in rates if _kept_up(one)), default=0)
    survived = rates[-1][1].alive and rates[-1][1].accounted
    note = f"{kept}/s kept up with, 100000/s offered {'survived' if survived else 'NOT SURVIVED'}"
    return [
        Row("log lines, one core", note, kept if survived else 0, 20_000, 50_000, "/s", more_is_better=True)
    ]


def _kept_up(flood: Flood) -> bool:
    """Everything accounted for, nothing lost, the backlog gone within a tenth of the time, no sample missed.

    The status files that say so are up to five seconds old.
    """
    drained = flood.drained_after_s <= max(6.0, flood.seconds / 10)
    return flood.accounted and flood.gap == 0 and drained and flood.samples >= flood.seconds - 6


def latency(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """From the effect of real faults, seen by the lab's own probe, to the incident in the store."""
    delays = [one.delay_s for one in _rounds(scratch, options.rounds) if one.delay_s is not None]
    p50, p95 = percentile(delays, 0.5), percentile(delays, 0.95)
    print(f"evidence to incident, n={len(delays)}: " + ", ".join(f"{one:.2f}" for one in sorted(delays)))
    return [
        Row("evidence to incident, p50", Spread(tuple(delays)).text("s"), p50, 2.0, 1.0, "s"),
        Row("evidence to incident, p95", f"{p95:.2f} s", p95, 5.0, 5.0, "s"),
    ]


def advice(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """From the incident to its advice while all cores are busy."""
    cores = os.cpu_count() or 1
    with stressed(["stress-ng", "--cpu", str(cores), "--timeout", "900"]):
        scores = _rounds(scratch, options.rounds)
    delays = [one.advice_s for one in scores if one.advice_s is not None]
    print(
        f"incident to advice, all cores busy, n={len(delays)}: "
        + ", ".join(f"{one:.2f}" for one in sorted(delays))
    )
    p95 = percentile(delays, 0.95)
    return [Row("incident to advice, p95", f"{p95:.2f} s (n={len(delays)})", p95, 10.0, 3.0, "s")]


def young(scratch: Path, options: argparse.Namespace) -> list[Row]:
    """What is found two minutes after the first start, beside a host that ran for long (`--aged`)."""
    found = {"young": _recall(scratch / "young", 120.0)}
    if options.aged:
        own = scratch / "aged"
        shutil.copytree(options.aged, own / "state", ignore=shutil.ignore_patterns("run", "*.sock", "socket"))
        found["aged"] = _recall(own, 120.0)
    for name, scores in found.items():
        print(f"{name}:\n{table_of(scores)}")
    if "aged" not in found:
        return []
    recall = {name: sum(one.right for one in scores) / len(scores) for name, scores in found.items()}
    said = f"recall {recall['young']:.2f}, of the old host {recall['aged']:.2f} (n={len(found['young'])})"
    behind = 100.0 * (recall["aged"] - recall["young"])
    return [Row("useful 2 min after installation", said, behind, 5.0, 5.0, "points behind")]


def _recall(own: Path, watch_s: float) -> list[Score]:
    """The usual faults under a daemon as shipped, on the state that lies there."""
    own.mkdir(exist_ok=True)
    (own / "auth.log").touch()
    config = own / "hauswart.toml"
    config.write_text(f'[collect]\nfollow = ["{own}/auth.log"]\n')
    with daemon(own, config=config) as watched:
        time.sleep(watch_s)
        return [inject(watched, run, own) for run in _possible([])]


PARTS = {"quiet": quiet, "busy": busy, "lines": lines, "latency": latency, "advice": advice, "young": young}


def _rounds(scratch: Path, rounds: int) -> list[Score]:
    """Each round under a daemon of its own, since the same trouble again soon is the same incident."""
    faults = _possible(QUICK_FAULTS)
    scores = []
    for number in range(rounds):
        own = scratch / str(number)
        own.mkdir()
        with daemon(own) as watched:
            time.sleep(15)
            scores += [inject(watched, fault, own) for fault in faults]
    return scores


def _possible(names: list[str]) -> list[Run]:
    """The lab's faults that can be injected here; none named means the usual ones."""
    return [run for run in chosen(names) if not against(run.scenario, [])]


@contextlib.contextmanager
def stressed(argv: list[str]) -> Iterator[None]:
    """A load beside what is measured."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; infinite without values."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)] if ordered else float("inf")


def table(rows: list[Row]) -> str:
    head = f"\n{'what':<34}{'measured':<52}{'bound':>10}{'aim':>10}  verdict"
    return "\n".join(
        [
            head,
            *(
                f"{row.what:<34}{row.measured:<52}{row.bound:>10g}{row.aim:>10g}  {row.verdict}"
                for row in rows
            ),
        ]
    )


sys.exit(main())
