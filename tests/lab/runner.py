"""Runs the real daemon on this host, injects faults one after another, and scores what it said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import ConfigError
from daemon.messages import Advice, Incident
from daemon.store.reader import StoreReader
from tests.lab.injection import Injection, undone
from tests.lab.scenario import Run, find, names, runs
from tests.lab.systems import Host

HAUSWART = str(Path(sys.executable).parent / "hauswart")
USUAL = (
    "memory-exhaustion/group-limit",
    "disk-full/log-grows",
    "process-storm/children-that-stay",
    "cpu-saturation/busy-loops",
    "crash-loop/program-crashes-again",
    "auth-bruteforce/log-file",
    "link-down/peer-goes-down",
    "disk-failing/backing-file-cut",
)
REST_S = 3.0  # between set-up and injection, so that what was set up is known
SETTLE_S = 6.0  # after the incident was seen: would a second one follow?


@dataclass
class Daemon:
    """A running `hauswart run` with a state directory of its own."""

    state_dir: Path
    process: subprocess.Popen
    log: Path

    def command(self, *argv: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [HAUSWART, "--state-dir", str(self.state_dir), *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(),
        )

    def incidents(self) -> list[Incident]:
        """What the store holds, read as any reader does, without the cost of a command."""
        with StoreReader(self.state_dir / "store.db") as reader:
            return [one for one in reader.incidents() if one.state != "merged"]

    def advice(self, incident_id: str, lang: str = "en") -> Advice | None:
        """An incident's advice, if there is any yet."""
        with StoreReader(self.state_dir / "store.db") as reader:
            return reader.advice(incident_id, lang)

    def stages(self) -> dict[str, dict]:
        """The stages' status files."""
        directory = self.state_dir / "run" / "status"
        return {path.stem: json.loads(path.read_text()) for path in directory.glob("*.json")}


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HAUSWART_")}


@contextlib.contextmanager
def daemon(
    scratch: Path,
    extra: str = "",
    *,
    config: Path | None = None,
    ready_s: float = 30.0,
    core: int | None = None,
) -> Iterator[Daemon]:
    """Start the daemon (on one core only, if asked), wait until every stage reports, stop it at the end.

    Without a configuration it follows `auth.log` in the scratch folder and learns for five seconds.
    """
    state, log = scratch / "state", scratch / "daemon.log"
    if config is None:
        config = scratch / "hauswart.toml"
        config.write_text(f'[collect]\nfollow = ["{scratch}/auth.log"]\n[low]\nlearn_s = 5.0\n{extra}')
        (scratch / "auth.log").touch()
    with log.open("wb") as output:
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        process = subprocess.Popen(
            [*pinned, HAUSWART, "--config", str(config), "--state-dir", str(state), "run"],
            stdout=output,
            stderr=output,
            env=environment(),
        )
    started = Daemon(state, process, log)
    try:
        wait_until(lambda: set(started.stages()) >= {"collector", "low", "middle", "top"}, ready_s)
        yield started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition, seconds: float) -> bool:
    """Ask ten times a second; False when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@dataclass
class Score:
    """What came of one fault."""

    run: Run
    effect_at: float | None = None
    seen_at: float | None = None  # when the right incident could be read from the store
    advised_at: float | None = None  # when its advice could be
    incidents: list[Incident] = field(default_factory=list)

    @property
    def first(self) -> Incident | None:
        right = self.run.scenario.right_classes
        return next((one for one in self.incidents if one.fault_class in right), None)

    @property
    def culprit_right(self) -> bool:
        found = self.first.culprits[:1] if self.first else []
        return any(names(right, f"{one.kind}:{one.name}") for right in self.run.culprits for one in found)

    @property
    def delay_s(self) -> float | None:
        return None if self.seen_at is None or self.effect_at is None else self.seen_at - self.effect_at

    @property
    def advice_s(self) -> float | None:
        return None if self.seen_at is None or self.advised_at is None else self.advised_at - self.seen_at

    @property
    def right(self) -> bool:
        return len(self.incidents) == 1 and self.culprit_right


def chosen(patterns: list[str]) -> list[Run]:
    """A run of each scenario that was asked for, or of the usual ones; all happen on this machine."""
    found = find(patterns) if patterns else sorted(find(list(USUAL)), key=lambda one: USUAL.index(one.name))
    elsewhere = [one.name for one in found if one.document.system != "host" or one.benign]
    if elsewhere:
        hint = "`python -m tests.lab record` does"
        raise ConfigError(f"{elsewhere[0]}: only faults on this machine itself can be tried", hint=hint)
    return [runs(one, seed=1, repeat=1)[0] for one in found]


def inject(watched: Daemon, run: Run, scratch: Path) -> Score:
    """Inject one fault, wait for its incident, then see whether more follow."""
    score, document = Score(run), run.scenario.document
    assert document.effect is not None
    before = {one.id for one in watched.incidents()}
    work = scratch / run.scenario.mechanism
    work.mkdir()

    def look() -> bool:
        score.incidents = [one for one in watched.incidents() if one.id not in before]
        if score.first and score.seen_at is None:
            score.seen_at = time.time()
        return score.seen_at is not None

    def advised() -> bool:
        if score.first and watched.advice(score.first.id):
            score.advised_at = time.time()
        return score.advised_at is not None

    with undone(Injection(Host(), str(work), run, [])) as injection:
        injection.prepare()
        time.sleep(REST_S)
        injection.start()
        if wait_until(lambda: (look(), injection.probe())[1], document.effect.within_s):
            score.effect_at = time.time()
        if wait_until(look, document.window_s):
            wait_until(advised, 20)
        time.sleep(SETTLE_S)
    time.sleep(2)
    look()
    return score


def table(scores: list[Score]) -> str:
    """One line a fault."""
    lines = [f"{'fault':<32}{'incidents':>10}  {'class':<22}{'culprit':<28}{'delay':>8}  verdict"]
    for one in scores:
        found = one.first or (one.incidents[0] if one.incidents else None)
        culprit = found.culprits[0].name if found and found.culprits else "-"
        delay = f"{one.delay_s:.1f} s" if one.delay_s is not None else "-"
        lines.append(
            f"{one.run.scenario.mechanism:<32}{len(one.incidents):>10}"
            f"  {found.fault_class if found else '-':<22}"
            f"{culprit[-26:]:<28}{delay:>8}  {'right' if one.right else 'WRONG'}"
        )
        lines += [
            f"    also: {also.fault_class} {also.culprits[:1]}" for also in one.incidents if also is not found
        ]
    return "\n".join(lines)
