"""An incident as the lab sees it: what was said, when, how loudly, and whether it is about the run at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from daemon.messages import Incident
from daemon.replay import Replay
from models.taxonomy import Severity
from tests.lab.scenario import Run, names

# Where others keep a whole core busy, load that the daemon lays at nobody's door is theirs.
AMBIENT_CORES = 1.0
LOAD = {"cpu-saturation", "io-saturation"}
OWN = "unit:lab-guest.service"  # runs what the lab asks for in a virtual machine, where every step is slow
STAGE = "stage:"  # whom hauswart blames where it complains about itself


@dataclass(frozen=True)
class Said:
    """An incident as far as it is scored; times in seconds after the effect (benign: after the beginning)."""

    fault_class: str
    severity: str
    culprits: list[str]
    opened_s: float
    path: str
    text: str = ""
    loudest: str = ""  # severity that it ever had, where that is known
    worse_s: tuple[float, ...] = ()  # when it got worse since, where that is known
    named: tuple[tuple[float, str], ...] = ()  # what it was called, since when, where that is known
    before_s: float | None = None  # when it opened, if that was before the injection and it got worse since
    merged: bool = False  # it became part of another one
    told_after_s: float | None = 0.0  # from its opening until somebody is told of it; None if nobody is
    loud_s: float | None = None  # when somebody is told first that it is worse than a warning, where known

    @property
    def told_s(self) -> float | None:
        """When somebody is told of it, as `opened_s`: its words may have to be read first."""
        return None if self.told_after_s is None else self.opened_s + self.told_after_s

    @property
    def loud(self) -> bool:
        """At any time worse than a warning: somebody is woken up."""
        return _loud(Severity(self.loudest or self.severity))

    @property
    def about_itself(self) -> bool:
        """Whether hauswart complains about itself: a stage was silent, dropped something or died."""
        return bool(self.culprits) and self.culprits[0].startswith(STAGE)


def as_said(
    incidents: list[Incident],
    since: Callable[[float], float],
    replay: Replay | None = None,
    *,
    merged: bool = False,
) -> list[Said]:
    """Incidents as far as they are scored, in order; `since` gives the seconds of a time in Unix seconds.

    With `merged`, those too that became part of another one.
    """
    heard, named = (replay.heard, replay.named) if replay else ({}, {})
    kept = sorted(
        (one for one in incidents if merged or one.state != "merged"),
        key=lambda one: (since(one.opened_at), one.id),
    )
    return [
        Said(
            one.fault_class.value,
            one.severity.value,
            [f"{who.kind}:{who.name}" for who in one.culprits],
            round(since(one.opened_at), 3),
            one.path,
            one.evidence[0].text[:200] if one.evidence else "",
            heard[one.id][-1].severity.value if one.id in heard else "",
            tuple(round(since(each.at), 3) for each in heard.get(one.id, [])[1:]),
            tuple((round(since(at), 3), called.value) for at, called in named.get(one.id, [])),
            merged=one.state == "merged",
            told_after_s=_told_after(one, replay),
            loud_s=next(
                (round(since(each.at), 3) for each in heard.get(one.id, []) if _loud(each.severity)), None
            ),
        )
        for one in kept
    ]


def _loud(severity: Severity) -> bool:
    return severity.rank > Severity.WARNING.rank


def _told_after(one: Incident, replay: Replay | None) -> float | None:
    """How long after its opening somebody is told of an incident; None if nobody is."""
    if replay is None:
        return None if one.waits or one.severity is Severity.INFO else 0.0
    heard = replay.heard.get(one.id)
    return round(max(0.0, heard[0].at - one.opened_at), 3) if heard else None


def heard_since(began_s: float, said: Said) -> Said | None:
    """An incident as of when somebody heard of it first since the injection; None if it was older news.

    One that was there before and gets worse is told anew: that counts like one that opens.
    """
    if said.opened_s >= began_s:
        return said
    if said.told_s is not None and said.told_s >= began_s:  # opened right before, and still to be read then
        return replace(said, opened_s=said.told_s, told_after_s=0.0)
    at = next((at for at in said.worse_s if at >= began_s), None)
    return None if at is None else replace(said, opened_s=at, before_s=said.opened_s, told_after_s=0.0)


def of_others(said: Said, run: dict[str, Any], label: Run) -> bool:
    """Whether an incident about load is about what else this machine did.

    A container's daemon sees no process outside, so who is blamed by name there is the run's own; but it sees
    every disk of the machine, those of runs beside it, too: a run's own loop devices stand in its scenario.
    What is said of another run's disk is no hit, whatever its class is; one that is neither load nor right is
    scored as wrong.
    """
    right = said.fault_class in label.scenario.right_classes
    if run["system"] == "container" and _of_another_run(said, label):
        return right or said.fault_class in LOAD
    if right or said.fault_class not in LOAD:
        return False
    if said.culprits[:1] == [OWN]:
        return True
    named = [one for one in said.culprits[:1] if one != "host:"]
    if run["system"] == "host":
        named = [one for one in named if any(names(right, one) for right in label.culprits)]
    return not named and run["ambient_cores"] >= AMBIENT_CORES


def _of_another_run(said: Said, label: Run) -> bool:
    """Whether an incident blames a loop device first that its run neither names nor could have been given."""
    kind, _, name = (said.culprits or [""])[0].partition(":")
    done = label.fill(json.dumps(msgspec.to_builtins(label.scenario.document)))
    given = re.search(r"losetup (?:-\S+ )*(?:-f|--find)", done)
    return kind == "device" and name.startswith("loop") and not given and not re.search(rf"\b{name}\b", done)
