"""Jumps of the wall clock against observation time; slewing is none, and waking from sleep is none either.

CLOCK_MONOTONIC stands still while the host sleeps, so a wake-up looks like a jump forward. The kernel says
when it slept; a jump forward therefore waits a moment for that word. Pure, on observation time.
"""

from __future__ import annotations

from daemon.messages import Finding, Line, Stamp, Subject
from daemon.tiers.conditions import Breach, Conditions
from daemon.tiers.wording import span
from models.taxonomy import FaultClass, Severity, SubjectKind

JUMP_S = 5.0  # NTP slews at most 0.5 ms/s, and chronyd steps only at its start
GRAVE_S = 3600.0  # certificates, timers and tickets go wrong
WAIT_S = 1.5
SLEEP_S = 120.0  # the kernel's word on sleep counts for jumps this close
RULE = "clock.jump"


class Clocks:
    """Compares each sample's two clocks with the previous one's."""

    def __init__(self) -> None:
        self._conditions = Conditions()
        self._boot = ""
        self._drift_s = 0.0
        self._waiting: tuple[float, float] | None = None  # jump and when
        self._slept_t = -SLEEP_S

    def hear(self, line: Line, t: float) -> None:
        """A line of the kernel that may say that the host sleeps or woke."""
        if line.text.startswith(
            ("PM: suspend", "PM: hibernation", "ACPI: PM: Waking", "ACPI: PM: Preparing")
        ):
            self._slept_t = t

    def judge(self, drift_s: float, at: Stamp, t: float) -> list[Finding]:
        """Findings at one sample whose wall clock is that far from the axis."""
        if at.boot != self._boot:
            self._boot, self._drift_s, self._waiting = at.boot, drift_s, None
            return []
        jump_s, self._drift_s = drift_s - self._drift_s, drift_s
        findings = self._conditions.sweep(at, t)
        if self._waiting is not None and (t - self._waiting[1] >= WAIT_S or abs(jump_s) >= JUMP_S):
            waited_s, since = self._waiting
            self._waiting = None
            slept = abs(since - self._slept_t) <= SLEEP_S
            findings += self._tell(_jump(waited_s, slept=slept), at, t)
        if jump_s >= JUMP_S:
            self._waiting = (jump_s, t)
        elif jump_s <= -JUMP_S:
            findings += self._tell(_jump(jump_s), at, t)
        return findings

    def _tell(self, breach: Breach, at: Stamp, t: float) -> list[Finding]:
        """Each jump is news of its own and ends the one before."""
        return self._conditions.end(RULE, "", at) + self._conditions.hold(breach, at, t)


def _jump(jump_s: float, *, slept: bool = False) -> Breach:
    way = "forward" if jump_s > 0 else "back"
    text = f"the wall clock went {way} by {span(abs(jump_s))}"
    severity = Severity.ERROR if abs(jump_s) >= GRAVE_S else Severity.WARNING
    return Breach(
        rule=RULE,
        label="",
        severity=Severity.INFO if slept else severity,
        score=0.1 if slept else 0.75,
        subjects=[Subject(SubjectKind.HOST, "")],
        hints={FaultClass.CLOCK_JUMP: 0.1 if slept else 0.9},
        text=f"{text} while the host slept" if slept else text,
        values={"jump_s": jump_s},
        ref=RULE,
        kind="event",
        once=True,
        stale_s=30.0,
    )
