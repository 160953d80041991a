"""Hardware: sensors at their trip points."""

from __future__ import annotations

from daemon.messages import Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View
from daemon.tiers.wording import quantity
from models.taxonomy import FaultClass, Severity, SubjectKind


def hot(view: View, label: str, ratio: float) -> Breach | None:
    """A sensor reads its critical trip point: the kernel shuts the host down next."""
    rule = "temp.critical.level"
    if ratio < (0.92 if view.conditions.opened(rule, label) else 0.95):
        return None
    celsius = view.get(f"temp.celsius{{{label}}}")
    severity, score = (Severity.CRITICAL, 0.9) if ratio >= 1.0 else (Severity.WARNING, 0.55)
    text = f"{label} reads {quantity(celsius)} °C; its critical point is {quantity(celsius / ratio)} °C."
    return Breach(
        rule,
        label,
        severity,
        score,
        [Subject(SubjectKind.SENSOR, label)],
        {FaultClass.HARDWARE_ERROR: 0.8},
        text,
        {"celsius": celsius},
        ref=f"temp.critical{{{label}}}",
        sustain_s=3.0,
        clear_s=30.0,
    )
