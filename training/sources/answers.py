"""What a situation is, by construction: its findings are traced back to the symptoms that made them.

An answer is never more than the evidence shows: where nothing tells of the cause, the answer is what is seen;
a loop is a loop from the third crash on; nobody is to blame whom no finding names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from daemon.messages import Finding
from daemon.subjects import key
from models.metrics import split as split_metric
from models.taxonomy import FaultClass, Severity, SubjectKind
from training.sources.symptoms import (
    MANAGER,
    Counted,
    Course,
    Happened,
    Jumped,
    Piece,
    Said,
    Shown,
    Symptom,
    Who,
)

F = FaultClass
CRASHES_IN_LOOP = 3
SPEAKS = 0.3  # a finding that hints at more is no mere oddity
# What the manager says of any unit that ended, whatever the reason was.
_ENDED = re.compile(
    r"Main process exited|Failed with result '(?:exit-code|signal|core-dump|protocol)'"
    r"|Scheduled restart|Failed to start"
)
_REF = re.compile(r"e(\d+)\.(\d+)")
_BY_THEMSELVES = frozenset({F.SERVICE_CRASH, F.CRASH_LOOP})


class Answer(NamedTuple):
    """What a situation is; any of the culprits is right."""

    fault: FaultClass
    severity: Severity
    culprits: tuple[Who, ...]


class _Meaning(NamedTuple):
    answer: Answer
    telling: bool
    at_s: float


class Answers:
    """Knows which piece belongs to which symptom of one episode; `pieces` are (symptom, piece)."""

    def __init__(self, symptoms: Sequence[Symptom], pieces: Sequence[tuple[int, Piece]]) -> None:
        self._symptoms = symptoms
        self._said = [one for _, one in pieces if isinstance(one, Said)]
        courses = [(n, one) for n, one in pieces if isinstance(one, Course)]
        self._metrics = {one.metric: n for n, one in reversed(courses)}
        self._families = {split_metric(one.metric)[0]: n for n, one in reversed(courses)}
        self._names = {one.process.name: n for n, one in reversed(pieces) if isinstance(one, Shown)}
        self._names |= {name: n for n, one in pieces if isinstance(one, Counted) for name in _labels(one.key)}
        self._events = {one.name: n for n, one in pieces if isinstance(one, Happened)}
        self._jumps = [n for n, one in pieces if isinstance(one, Jumped)]

    def of(self, findings: Sequence[Finding]) -> Answer | None:
        """The answer for a situation of these findings; None where nothing strong can be traced."""
        seen = [(meaning, one) for one in findings if (meaning := self._meaning(one)) is not None]
        telling = [meaning for meaning, _ in seen if meaning.telling]
        strong = [meaning for meaning, one in seen if max(one.hints.values(), default=0.0) > SPEAKS]
        if not (telling or strong):
            return None
        best = telling[0] if telling else max(strong, key=lambda one: (one.answer.severity.rank, -one.at_s))
        if best.answer.fault is F.UNKNOWN and not telling:
            return None
        fault = best.answer.fault
        if fault is F.CRASH_LOOP and not looping(findings):
            fault = F.SERVICE_CRASH
        named = {key(subject) for one in findings for subject in one.subjects}
        visible = tuple(who for who in best.answer.culprits if (who[0].value, who[1]) in named)
        return Answer(fault, best.answer.severity, visible)

    def _meaning(self, finding: Finding) -> _Meaning | None:
        for piece in finding.evidence:
            if (match := _REF.fullmatch(piece.ref)) is not None:
                return self._of_line(int(match[1]), self._said[int(match[2])])
        number = self._traced(finding)
        if number is None:
            return None
        symptom = self._symptoms[number]
        return _Meaning(
            Answer(symptom.fault, symptom.severity, symptom.culprits), symptom.telling, symptom.at_s
        )

    def _of_line(self, number: int, said: Said) -> _Meaning:
        symptom = self._symptoms[number]
        answer = Answer(symptom.fault, symptom.severity, symptom.culprits)
        if said.writer == MANAGER and symptom.fault not in _BY_THEMSELVES and _ENDED.search(said.text):
            program = said.unit.removesuffix(".service")
            who = ((SubjectKind.UNIT, said.unit), (SubjectKind.PROCESS, program))
            fault = F.CRASH_LOOP if "restart" in said.text else F.SERVICE_CRASH
            return _Meaning(Answer(fault, Severity.ERROR, who), telling=False, at_s=symptom.at_s)
        return _Meaning(answer, symptom.telling, symptom.at_s)

    def _traced(self, finding: Finding) -> int | None:
        for piece in finding.evidence:
            for table in (self._metrics, self._events):
                if piece.ref in table:
                    return table[piece.ref]
        for subject in finding.subjects:
            if (name := subject.name.partition("[")[0]) in self._names:
                return self._names[name]
        family = finding.rule.rpartition(".")[0]
        if family in self._families:
            return self._families[family]
        if finding.rule.startswith("psi."):
            return next((n for name, n in self._families.items() if name.startswith(family)), None)
        return self._jumps[0] if self._jumps and finding.rule.startswith("clock") else None


def looping(findings: Sequence[Finding]) -> bool:
    """Whether what is seen amounts to a loop."""
    if any(one.hints.get(F.CRASH_LOOP, 0.0) >= 0.5 for one in findings):
        return True
    crashes: dict[str, set[float]] = {}
    for one in findings:
        if one.hints.get(F.SERVICE_CRASH, 0.0) > SPEAKS:
            crashes.setdefault(one.rule, set()).update(round(piece.start, 1) for piece in one.evidence)
    return any(len(times) >= CRASHES_IN_LOOP for times in crashes.values())


def _labels(name: str) -> list[str]:
    label = split_metric(name)[1]
    return [label, label.rpartition("/")[2]]
