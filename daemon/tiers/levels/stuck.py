"""Processes of services that do nothing although they live: stopped by a signal, or waiting in the kernel."""

from __future__ import annotations

from daemon.messages import Process
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, process_subject, service, unit_subject
from daemon.tiers.wording import span
from models.taxonomy import FaultClass, Severity

HUNG, IO = FaultClass.SERVICE_HUNG, FaultClass.IO_SATURATION
STOPPED = "process.stopped.level"
WAITING = "process.waiting.level"
# Two intervals between snapshots without one clock tick of work; the kernel's own hung_task waits for 120 s.
WAITS_S, WAITS_N = 19.0, 3
SETTLED_S = 5.0  # who was just started may be stopped by whoever started it (Type=forking, debuggers)


def stuck(view: View) -> list[Breach]:
    """What stands still in the latest snapshot; shells in sessions and containers stop jobs as they like."""
    found = (process for process in view.processes() if _of_service(process))
    breaches = (_stopped(one) if one.state == "T" else _waiting(one) for one in found)
    return [breach for breach in breaches if breach is not None]


def _of_service(process: Process) -> bool:
    return service(process.unit) and process.unit.endswith(".service") and process.age_s >= SETTLED_S


def _stopped(process: Process) -> Breach:
    text = f"{process.name}[{process.pid}] of {process.unit} is stopped by a signal and does nothing."
    return _breach(STOPPED, process, 0.6, {HUNG: 0.8}, text)


def _waiting(process: Process) -> Breach | None:
    if process.state != "D" or process.cpu > 0.0 or process.io_bytes > 0.0:
        return None
    who = f"{process.name}[{process.pid}] of {process.unit}"
    text = f"{who} has waited in the kernel for {span(WAITS_S)} or more."
    breach = _breach(WAITING, process, 0.6, {HUNG: 0.7, IO: 0.3}, text)
    return breach._replace(sustain_s=WAITS_S, sustain_n=WAITS_N)


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
