"""A stage's life: one lock, one status file, signals, the watchdog, and whether the one before died."""

from __future__ import annotations

import math
import os
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

import zmq

from daemon.clock import boot_id
from daemon.errors import ConfigError, HauswartError
from daemon.locks import FileLock
from daemon.message_ids import MessageId
from daemon.settings import Settings
from daemon.stages.log import StageLog
from daemon.stages.process import start_anew
from daemon.stages.service import ServiceManager
from daemon.status import Flow, LatencyWindow, ModelStatus, Status, own_pss_bytes, read_status, write_status

STATUS_EVERY_S = 5.0
MEMORY_EVERY_S = 60.0  # reading smaps_rollup costs half a millisecond
STOP_WITHIN_S = (
    10  # a stage that hangs while stopping is ended by SIGALRM; what is not acknowledged comes again
)


@dataclass(frozen=True)
class Report:
    """What a stage adds to its status."""

    text: str = ""
    flows: dict[str, dict[str, Flow]] = field(default_factory=dict)
    drops: dict[str, dict[str, int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    queue_peak: int = 0
    model: ModelStatus | None = None


class Life:
    """Begins with `Life(...)`, serves with `ready`, waits with `wait`, ends with `end`.

    Raises LockedError if this stage already runs. `died` is the status of a predecessor that did not stop.
    """

    def __init__(self, stage: str, settings: Settings) -> None:
        self.stage, self.settings = stage, settings
        self.runtime = settings.runtime.absolute()
        self.tell = StageLog(stage, settings.log_level)
        self.stopping = False
        self._anew = False
        self.poller = zmq.Poller()
        self.latency = LatencyWindow()
        self.report: Callable[[], Report] = Report
        _make_directory(self.runtime / "status")
        _refuse_root(self.runtime / "status")
        self._lock = FileLock(self.runtime / "status" / f"{stage}.lock", f"the stage {stage}")
        self.died = _find_death(self.runtime, stage)
        self._manager = ServiceManager()
        self._watchdog_s = self._manager.watchdog_s
        self._state: Literal["starting", "running", "stopped"] = "starting"
        self._started = time.time()
        self._status_due_s = self._memory_due_s = self._fed_s = 0.0
        self._pss_bytes = 0
        self._cpu = (
            time.monotonic(),
            time.process_time(),  # a reload goes on in the same process
            0.0,
        )  # when, CPU seconds then, and the share of a core since before
        self._status_lost = 0
        self._wakeup = self._catch_signals()
        self._write_status()

    def ready(self, text: str) -> None:
        """The stage serves from now on."""
        self._state = "running"
        self.tell.info(text, MessageId.STAGE_READY)
        self._manager.ready(text)
        self._write_status()

    def wait(self, timeout_s: float) -> dict[object, int]:
        """Sleep until a registered socket or descriptor is ready, a signal comes or the time is over."""
        now_s = time.monotonic()
        self._beat(now_s)
        if self.stopping:
            return {}
        limit_s = min(timeout_s, max(self._status_due_s - now_s, 0.0), self._watchdog_s or timeout_s)
        ready: dict[object, int] = dict(self.poller.poll(max(0, math.ceil(limit_s * 1000))))
        if ready.pop(self._wakeup, None):
            os.read(self._wakeup, 4096)
        return ready

    def listen(self, source: zmq.Socket[bytes] | int, *, wanted: bool) -> None:
        """Wake for this socket or descriptor from now on, or no longer."""
        if wanted and source not in self.poller:
            self.poller.register(source, zmq.POLLIN)
        elif not wanted and source in self.poller:
            self.poller.unregister(source)

    def end(self) -> None:
        """Say that this stage stopped on purpose; after SIGHUP, begin again in this very process."""
        self._state = "stopped"
        self._write_status()
        self._lock.release()
        signal.alarm(0)
        if self._anew:
            start_anew(self.stage)

    def forsake(self) -> None:
        """In a forked child: hold nothing of this life, and leave its file alone."""
        self._lock.release()
        os.close(self._wakeup)
        signal.set_wakeup_fd(-1)

    def announce_stop(self) -> None:
        """Tell the service manager, and see to it that stopping ends."""
        if self._anew:
            self.tell.info("reading the configuration again", MessageId.STAGE_RELOADING)
            self._manager.reloading()
        else:
            self._manager.stopping()
        signal.alarm(STOP_WITHIN_S)

    def _beat(self, now_s: float) -> None:
        if self._watchdog_s is not None and now_s - self._fed_s >= self._watchdog_s / 2:
            self._fed_s = now_s
            self._manager.feed_watchdog()
        if now_s >= self._status_due_s:
            self._write_status()

    def _write_status(self) -> None:
        now_s = time.monotonic()
        self._status_due_s = now_s + STATUS_EVERY_S
        report = self.report()
        status = self._compose(now_s, report)
        self._manager.status(report.text)
        try:
            write_status(self.runtime, status)
        except OSError as error:
            if self._status_lost == 0:
                self.tell.warning(f"cannot write the status file: {error}")
            self._status_lost += 1

    def _compose(self, now_s: float, report: Report) -> Status:
        then_s, cpu_then_s, ratio = self._cpu
        cpu_s = time.process_time()
        if now_s - then_s > STATUS_EVERY_S / 2:
            ratio = (cpu_s - cpu_then_s) / (now_s - then_s)
            self._cpu = (now_s, cpu_s, ratio)
        if now_s >= self._memory_due_s:
            self._memory_due_s = now_s + (MEMORY_EVERY_S if self._memory_due_s else STATUS_EVERY_S)
            self._pss_bytes = own_pss_bytes()
        return Status(
            stage=self.stage,
            pid=os.getpid(),
            boot=boot_id(),
            started=self._started,
            updated=time.time(),
            state=self._state,
            text=report.text,
            cpu_s=round(cpu_s, 4),
            cpu_ratio=round(ratio, 6),
            pss_bytes=self._pss_bytes,
            latency=self.latency.summary(),
            queue_peak=report.queue_peak,
            flows=report.flows,
            drops=report.drops,
            counters=report.counters
            | {"status_lost": self._status_lost, "log_unwritten": self.tell.unwritten},
            model=report.model,
        )

    def _catch_signals(self) -> int:
        """SIGTERM and SIGINT stop, a pipe wakes the poller for them.

        SIGHUP is `systemctl reload` for a stage of its own; elsewhere a terminal that closes sends it, and it
        is ignored.
        """
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        if (
            signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        ):  # under a supervisor, the terminal's Ctrl-C is its
            signal.signal(signal.SIGINT, self._stop)
        reloads = self._manager.present and self.stage != "supervisor"
        signal.signal(signal.SIGHUP, self._begin_anew if reloads else signal.SIG_IGN)
        self.poller.register(readable, zmq.POLLIN)
        return readable

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopping, self._anew = True, False

    def _begin_anew(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.stopping:
            self.stopping = self._anew = True


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise HauswartError(
            f"cannot make {path}: {error.strerror}", hint="choose a runtime_dir that this user may write"
        ) from error


def _refuse_root(status: Path) -> None:
    """Make nothing as root where the units' users could not replace it (units/hauswart.tmpfiles: sticky)."""
    if os.geteuid() == 0 and status.stat().st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"{status.parent} belongs to hauswart's units",
            hint="`systemctl start hauswart.target`, or another --state-dir",
        )


def _find_death(runtime: Path, stage: str) -> Status | None:
    """The last status of a predecessor of this boot that did not say it stopped."""
    last = read_status(runtime, stage)
    return last if last is not None and last.state != "stopped" and last.boot == boot_id() else None
