"""Findings about hauswart itself: a stage crashed, fell silent, or lost what it was offered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from daemon.clock import now
from daemon.messages import Event, Evidence, Finding, Stamp, Subject
from daemon.status import Status, read_status
from daemon.tiers.conditions import finding_id
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

STARTS_WITHIN_S = 90.0  # as long as systemd by itself waits for a service (DefaultTimeoutStartSec=)
JUST_STARTED_S = 30.0  # a middle tier that is started later has told it before


def find_crash(stage: str, died: Status, at: Stamp | None = None) -> Finding:
    """The finding that the process of a stage died without stopping."""
    text = f"The stage {stage} (process {died.pid}) died without stopping and was started again."
    values = {"pid": float(died.pid)}
    return _finding("stage.crashed", stage, text, values, FaultClass.SERVICE_CRASH, at=at or now())


def find_predecessor(runtime: Path) -> Status | None:
    """The whole daemon before this one, if it was killed; only its supervisor's successor knows."""
    now_running = read_status(runtime, "supervisor")
    pid = now_running.counters.get("predecessor_died", 0) if now_running else 0
    if now_running is None or not pid or time.time() - now_running.started > JUST_STARTED_S:
        return None
    return structs.replace(now_running, pid=pid)


def is_starting(runtime: Path) -> bool:
    """Whether a stage below the middle tier is not up yet, or was stopped in order: then nothing can come."""
    below = [read_status(runtime, stage) for stage in ("collector", "low")]
    return any(status is None or status.state != "running" for status in below)


def find_silence(stage: str, silent_s: float, *, ended: bool) -> Finding:
    """The finding that nothing comes from a stage, or that something comes again."""
    text = (
        f"The stage {stage} is heard again."
        if ended
        else f"The stage {stage} has not been heard for {silent_s:.0f} s; nothing is being judged meanwhile."
    )
    values = {"window_s": round(silent_s, 1)}
    return _finding("stage.silent", stage, text, values, FaultClass.SERVICE_HUNG, at=now(), ended=ended)


def find_gap(stage: str, lost: Mapping[str, int]) -> Finding:
    """The finding that messages had to be given up between two stages, by source."""
    count = sum(lost.values())
    named = ", ".join(f"{source} {n}" for source, n in sorted(lost.items(), key=lambda item: -item[1])[:5])
    text = f"The stage {stage} had to drop {count} messages ({named}), since what follows did not keep up."
    return _finding("stage.gap", stage, text, {"lost_count": float(count)}, FaultClass.UNKNOWN, at=now())


def crash_event(stage: str, died: Status) -> Event:
    """The event that the process of a stage died without stopping."""
    return Event(
        at=now(), source=stage, kind="stage", name=stage, action="crashed", attributes={"pid": str(died.pid)}
    )


def gap_event(stage: str, source: str, lost: int) -> Event:
    """The event that a source's observations had to be given up on their way."""
    return Event(
        at=now(),
        source=stage,
        kind="reader",
        name=source,
        action="gap",
        attributes={"reason": "the low tier did not keep up", "lost": str(lost)},
    )


def _finding(
    rule: str,
    stage: str,
    text: str,
    values: dict[str, float],
    hint: FaultClass,
    *,
    at: Stamp,
    ended: bool = False,
) -> Finding:
    number = finding_id(rule, stage, at)
    return Finding(
        id=number,
        at=at,
        rule=rule,
        category=Category.SERVICE,
        severity=Severity.WARNING,
        score=0.6,  # a hole in the watch is worth an incident by itself
        subjects=[Subject(SubjectKind.STAGE, stage)],
        hints={hint: 0.6},
        evidence=[Evidence(f"{rule}/{number}", "event", f"stage:{stage}", at.wall, at.wall, text, values)],
        ended=ended,
    )
