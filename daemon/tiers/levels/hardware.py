"""Hardware: sensors at their trip points."""

from __future__ import annotations

from daemon.messages import Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View
from daemon.tiers.wording import quantity
from models.taxonomy import FaultClass, Severity, SubjectKind

THROTTLES_S = 120.0  # of work that no turbo carries: then its cooling is worth a look


def hot(view: View, label: str, ratio: float) -> Breach | None:
    """A sensor reads its critical trip point: the kernel shuts the host down next."""
    rule = "temp.critical.level"
    # Where that is TjMax, the processor slows itself down (Documentation/hwmon/coretemp.rst): small machines
    # may work at it for as long as there is work.
    throttles = label.startswith("coretemp/")
    if ratio < (0.92 if view.conditions.opened(rule, label) else 1.0 if throttles else 0.95):
        return None
    celsius = view.get(f"temp.celsius{{{label}}}")
    severity, score = (Severity.CRITICAL, 0.9) if ratio >= 1.0 and not throttles else (Severity.WARNING, 0.55)
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
        sustain_s=THROTTLES_S if throttles else 3.0,
        clear_s=30.0,
    )
