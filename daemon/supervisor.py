"""`hauswart run`: starts the stages, starts them again when they die, stops them in the order of the flow.

The stages are forked, not executed: they share the pages of what this process imported for them (measured:
four stages and their parent 46 MiB of PSS, against 55 by exec; importing more here than all of them need
gains nothing, since what a stage runs it copies by counting references). Nothing here opens a ZeroMQ context,
since none survives a fork.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import daemon.bus
import daemon.stages.entry
import daemon.stages.health
import daemon.stages.process
import daemon.store.reader  # these two are imported here so that the stages share their pages
from daemon.child import signal_name
from daemon.errors import HauswartError, LockedError
from daemon.locks import FileLock
from daemon.message_ids import MessageId
from daemon.settings import Settings, load_resolved, save_resolved
from daemon.stages.life import Life, Report
from daemon.status import Status, read_status, total
from daemon.store.schema import refuse_newer

START_ORDER = ("middle", "low", "collector", "top", "notify")  # consumers first; any order works
STOP_ORDER = ("collector", "low", "top", "notify", "middle")  # last who keeps what the others say
STOP_WITHIN_S = 5.0  # each; then SIGKILL
RESTART_S = 0.1
DEATHS_MAX, DEATHS_WITHIN_S, DEATHS_PAUSE_S = 5, 60.0, 60.0
LOCKED_MAX_S = 15.0  # a killed daemon's stages need up to ten seconds to stop; whoever holds on longer stays
LOCKED_RETRY_S = 2.0
FORK_RETRY_S = 5.0  # seconds after which a host that had no room for a process may have some
LINE_SOURCES = ("journal", "kernel", "file:")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_NOT_FOR_STAGES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # they belong to the supervisor


@dataclass
class _Child:
    stage: str
    pid: int = 0
    start_s: float = 0.0
    locked_s: float = 0.0  # since when another process holds its lock
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS_MAX))


class Supervisor:
    """The parent of the stages."""

    def __init__(self, life: Life, resolved: Path, stages: tuple[str, ...], lock: FileLock) -> None:
        self._life, self._resolved, self._lock = life, resolved, lock
        self._children = {stage: _Child(stage) for stage in stages}
        self._restarts = 0
        self._locked_out = ""
        life.report = self._report

    def run(self, for_s: float | None) -> None:
        """Keep the stages running until told to stop, or for so many seconds.

        Raises LockedError where another daemon's stages run on these directories.
        """
        if self._life.died is not None:
            died = f"the last daemon (process {self._life.died.pid}) died without stopping"
            self._life.tell.warning(died, MessageId.STAGE_DIED)
        end_s = time.monotonic() + for_s if for_s is not None else math.inf
        self._life.ready(f"watching this host with {', '.join(self._children)}")
        while not self._life.stopping and not self._locked_out and time.monotonic() < end_s:
            for child in self._children.values():
                if child.pid == 0 and time.monotonic() >= child.start_s:
                    self._spawn(child)
            self._life.wait(max(0.0, min(end_s, self._next_start_s()) - time.monotonic()))
            self._reap()
        self._life.announce_stop()
        signal.alarm(0)  # the stages' own time limits add up to more than one stage's
        self._stop_all()
        if self._locked_out:
            raise LockedError(
                f"the stage {self._locked_out} of another daemon runs on these directories",
                hint="stop that one first; `hauswart status` shows it",
            )

    def _next_start_s(self) -> float:
        return min((child.start_s for child in self._children.values() if child.pid == 0), default=math.inf)

    def _spawn(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            child.pid = os.fork()
        except OSError as error:  # no process or memory is left: then of all times the others must go on
            child.start_s = time.monotonic() + FORK_RETRY_S
            self._life.tell.error(
                f"cannot start the stage {child.stage}: {error.strerror}; trying again in {FORK_RETRY_S:g} s"
            )
            return
        if child.pid:
            return
        code = 1
        try:
            self._become_child(parent)
            code = daemon.stages.entry.run_stage(child.stage, self._resolved)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _become_child(self, parent: int) -> None:
        """Die with the supervisor, hold none of its locks, and leave the terminal's Ctrl-C to it."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # till the stage has a life; ours would only note it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent or self._life.stopping:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._life.forsake()
        self._lock.release()
        for name in _NOT_FOR_STAGES:
            os.environ.pop(name, None)

    def _reap(self) -> None:
        """Note which children ended, and when to start them again."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children.values():
                if child.pid == pid:
                    self._note_death(child, os.waitstatus_to_exitcode(status))

    def _note_death(self, child: _Child, code: int) -> None:
        now_s = time.monotonic()
        child.pid = 0
        child.deaths.append(now_s)
        recent = sum(1 for at_s in child.deaths if now_s - at_s < DEATHS_WITHIN_S)
        wait_s = DEATHS_PAUSE_S if recent >= DEATHS_MAX else RESTART_S * 2 ** (recent - 1)
        if code == LockedError.exit_code:
            wait_s = min(wait_s, LOCKED_RETRY_S)
            child.locked_s = child.locked_s or now_s
            self._locked_out = child.stage if now_s - child.locked_s > LOCKED_MAX_S else ""
        else:
            child.locked_s = 0.0
        child.start_s = now_s + wait_s
        self._restarts += 1
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
        text = f"the stage {child.stage} {how}; starting it again in {wait_s:g} s"
        if recent >= DEATHS_MAX:
            self._life.tell.error(f"{text}, after {recent} deaths within {DEATHS_WITHIN_S:.0f} s")
        else:
            self._life.tell.warning(text)

    def _stop_all(self) -> None:
        for stage in STOP_ORDER:
            child = self._children.get(stage)
            if child is None or child.pid == 0:
                continue
            os.kill(child.pid, signal.SIGTERM)
            if not _wait_for(child.pid, STOP_WITHIN_S):
                self._life.tell.warning(
                    f"the stage {stage} did not stop within {STOP_WITHIN_S:g} s; killing it"
                )
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            child.pid = 0

    def _report(self) -> Report:
        down = [child.stage for child in self._children.values() if child.pid == 0 < child.start_s]
        died = self._life.died
        return Report(
            text=f"waiting to start {', '.join(down)}" if down else "all stages run",
            counters={"restarts": self._restarts} | ({"predecessor_died": died.pid} if died else {}),
        )


def supervise(resolved: Path, for_s: float | None = None) -> int:
    """Run all stages; the exit code.

    Raises LockedError when another daemon uses the same state, IntegrityError when a newer one wrote it.
    """
    settings = load_resolved(resolved)
    try:
        settings.state.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise HauswartError(f"cannot make {settings.state}: {error.strerror}") from error
    with FileLock(settings.state / "lock", f"the state in {settings.state}") as lock:
        refuse_newer(settings.store)  # no stage could work, however often it is started
        life = Life("supervisor", settings)
        own = life.runtime / "settings-supervised.json"  # a second daemon may overwrite what it was given
        save_resolved(settings, own)
        daemon.stages.process.name_process("hauswart")
        signal.signal(signal.SIGCHLD, _wake_up)
        gc.collect()
        gc.freeze()  # a collection in a child would otherwise write to, and so copy, every shared page
        began = time.time()
        Supervisor(life, own, choose_stages(settings), lock).run(for_s)
        life.end()
    sys.stdout.write(summarise(settings, time.time() - began) + "\n")
    return 0


def choose_stages(settings: Settings) -> tuple[str, ...]:
    """The stages that these settings ask for, in the order in which they start."""
    notify, metrics = settings.notify, settings.metrics
    channels = (notify.hook, notify.targets, notify.targets_file, notify.alertmanager, metrics.otlp)
    wanted = any(channels) or bool(metrics.listen)
    return START_ORDER if wanted else tuple(stage for stage in START_ORDER if stage != "notify")


def summarise(settings: Settings, lasted_s: float) -> str:
    """One line about a run, from what the stages said last."""
    said = {stage: read_status(settings.runtime, stage) for stage in STOP_ORDER}
    collector, middle = said["collector"], said["middle"]
    sources = collector.flows.get("low", {}) if collector else {}
    lines = sum(flow.offered for source, flow in sources.items() if source.startswith(LINE_SOURCES))
    lost = sum(total(status.flows, "gap") for status in said.values() if status)
    opened = _count(middle, "incidents_opened")
    return (
        f"hauswart ran {lasted_s:.0f} s: {total({'low': sources}, 'offered')} observations, {lines} lines, "
        f"{_count(middle, 'findings')} findings, {opened} incidents opened, {lost} lost"
    )


def _count(status: Status | None, name: str) -> int:
    return status.counters.get(name, 0) if status else 0


def _wake_up(number: int, frame: object) -> None:
    """SIGCHLD only has to end the wait."""


def _wait_for(pid: int, within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False
