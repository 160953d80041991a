"""Cases of which less is seen: what a host with missing readers, or the first moment of a fault, looks like.

Pure. A case that no longer holds anything for which an incident would open is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from msgspec.structs import replace

from daemon.incidents.context import weak
from daemon.messages import Finding, Subject
from daemon.subjects import key
from models.taxonomy import FaultClass
from training.sources.answers import looping
from training.sources.cases import Case

DROPPED = 0.3  # share of findings that a host without the reader, or with a busier one, does not make
EARLY_S = 1.0
Degrade = Callable[[Case, Random], Case | None]


def as_seen(case: Case) -> Case:
    """The case with an answer that its evidence bears: no loop before the third crash, nobody unnamed."""
    named = {key(subject) for one in case.findings for subject in one.subjects}
    case = replace(case, culprits=[who for who in case.culprits if key(Subject(*who)) in named])
    if case.fault_class is FaultClass.CRASH_LOOP and not looping(case.findings):
        also = [one for one in case.also if one is not FaultClass.SERVICE_CRASH]
        return replace(case, fault_class=FaultClass.SERVICE_CRASH, also=[*also, FaultClass.CRASH_LOOP])
    return case


def thinned(case: Case, random: Random) -> Case | None:
    """Without some findings; what began and what ended of a condition go alike where they are one."""
    return _left(case, [one for one in case.findings if random.random() >= DROPPED])


def early(case: Case, random: Random) -> Case | None:  # noqa: ARG001 - as the others
    """Only what was found within a second of the first finding that could open an incident."""
    strong = [one.at.mono for one in case.findings if not (weak(one) or one.ended)]
    if not strong:
        return None
    until = min(strong) + EARLY_S
    found = _left(case, [one for one in case.findings if one.at.mono <= until])
    if found is None:
        return None
    last = max((one.at for one in found.findings), key=lambda at: at.mono)
    return replace(found, at=last, events=[one for one in found.events if one.at.mono <= last.mono])


def hushed(case: Case, random: Random) -> Case | None:
    """Every other finding without its hints: a rule that does not know what it speaks for."""
    held = [replace(one, hints={}) if random.random() < 0.5 else one for one in case.findings]
    return _left(case, held)


def _left(case: Case, findings: Sequence[Finding]) -> Case | None:
    if not any(not (weak(one) or one.ended) for one in findings):
        return None
    return as_seen(replace(case, findings=list(findings)))


WAYS: dict[str, Degrade] = {"thinned": thinned, "early": early, "hushed": hushed}
