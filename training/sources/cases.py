"""A case: the findings of one situation with the answer, as it is trained on, kept in files and evaluated.

The situation is made again from its findings by the daemon's own code, so that a model sees what it would
see on a host, and the baseline is judged beside it on the same evidence.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from daemon.incidents import lifecycle
from daemon.incidents.context import Contexts
from daemon.incidents.opinions import view_of
from daemon.incidents.situations import Situation, began_at, incident_id
from daemon.incidents.verdicts import Verdict, judge
from daemon.messages import Event, Finding, Stamp
from models.situations import View
from models.taxonomy import FaultClass, Severity, SubjectKind

Split = Literal["train", "val", "test"]
WINDOW_S = 60.0  # as the daemon's merge_window_s


class Case(msgspec.Struct, frozen=True, omit_defaults=True):
    """One situation and its answer; one JSON object a line in a file of cases.

    `findings` and `events` (contexts and sessions) are the bus's own messages in the order of time, `at` is
    the moment of judgement. Any of `culprits` is right; none means that nobody is to blame but the host.
    Beside `fault_class` and `severity`, those of `also` and `grades` are right, too.
    """

    id: str
    group: str  # what a split must not cut: the mechanism that made it, or the host it was recorded on
    split: Split
    at: Stamp
    findings: list[Finding]
    fault_class: FaultClass
    severity: Severity
    culprits: list[tuple[SubjectKind, str]]
    events: list[Event] = []
    source: str = ""
    also: list[FaultClass] = []
    grades: list[Severity] = []


def judged(case: Case) -> tuple[View, Verdict]:
    """What the model sees of a case, and the baseline's verdict; the case must have a finding."""
    first, contexts = case.findings[0], Contexts()
    number = incident_id(first.at.boot, first.id)
    situation = Situation(number, first.at.boot, first.at.mono, began_at(first), first.at.mono, stage=False)
    told: list[Finding | Event] = [*case.findings, *case.events]
    for one in sorted(told, key=lambda one: one.at.mono):
        if isinstance(one, Event):
            contexts.note(one, one.at.mono)
        elif one.ended:
            situation.end(one, one.at.mono)
        else:
            situation.add(one, one.at.mono)
    t = case.at.mono
    situation.incident = lifecycle.opened(situation, judge(situation, contexts, t, WINDOW_S), case.at)
    verdict = judge(situation, contexts, t, WINDOW_S)
    return view_of(situation, verdict), verdict
