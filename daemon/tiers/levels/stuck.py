"""Processes of services that live and do nothing: stopped, held by a debugger, waiting in the kernel."""

from __future__ import annotations

from collections.abc import Callable

from daemon.messages import Process
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, process_subject, service, unit_subject
from daemon.tiers.wording import span
from models.taxonomy import FaultClass, Severity

HUNG, IO = FaultClass.SERVICE_HUNG, FaultClass.IO_SATURATION
STOPPED = "process.stopped.level"
TRACED = "process.traced.level"
TRACED_S = 4.0
WAITING = "process.waiting.level"
# Two intervals between snapshots without one clock tick of work; the kernel's own hung_task waits for 120 s.
WAITS_S, WAITS_N = 19.0, 3
SETTLED_S = 5.0  # who was just started may be stopped by whoever started it (Type=forking, debuggers)


def stuck(view: View) -> list[Breach]:
    """What stands still in the latest snapshot; shells in sessions and containers stop jobs as they like."""
    found = (process for process in view.processes() if _of_service(process))
    breaches = (_STATES[one.state](one) if one.state in _STATES else None for one in found)
    return [breach for breach in breaches if breach is not None]


def _of_service(process: Process) -> bool:
    return service(process.unit) and process.unit.endswith(".service") and process.age_s >= SETTLED_S


def _stopped(process: Process) -> Breach:
    text = f"{process.name}[{process.pid}] of {process.unit} is stopped by a signal and does nothing."
    return _breach(STOPPED, process, 0.6, {HUNG: 0.8}, text)


def _traced(process: Process) -> Breach | None:
    """A traced one stands still at each system call for a moment; held, it does nothing between two looks."""
    if process.cpu > 0.0:
        return None
    text = f"{process.name}[{process.pid}] of {process.unit} is held by a debugger and does nothing."
    breach = _breach(TRACED, process, 0.6, {HUNG: 0.8}, text)
    return breach._replace(sustain_s=TRACED_S, sustain_n=2)


def _waiting(process: Process) -> Breach | None:
    if process.cpu > 0.0 or process.io_bytes > 0.0:
        return None
    who = f"{process.name}[{process.pid}] of {process.unit}"
    text = f"{who} has waited in the kernel for {span(WAITS_S)} or more."
    breach = _breach(WAITING, process, 0.6, {HUNG: 0.7, IO: 0.3}, text)
    return breach._replace(sustain_s=WAITS_S, sustain_n=WAITS_N)


_STATES: dict[str, Callable[[Process], Breach | None]] = {"T": _stopped, "t": _traced, "D": _waiting}


def _breach(rule: str, process: Process, score: float, hints: dict[FaultClass, float], text: str) -> Breach:
    return Breach(
        rule,
        str(process.pid),
        Severity.WARNING,
        score,
        [unit_subject(process.unit), process_subject(process, 0.9)],
        hints,
        text,
        {"pid": float(process.pid)},
        ref=rule,
        kind="snapshot",
        clear_s=5.0,
        stale_s=60.0,
    )
