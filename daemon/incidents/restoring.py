"""What a restart makes of a stored incident: a situation whose earlier findings stand in as one condition."""

from __future__ import annotations

from daemon.incidents.situations import OCCURRENCES_TOLD, RESTORED, Situation, condition_key
from daemon.messages import Finding, Incident, Stamp, Subject
from models.taxonomy import FaultClass, SubjectKind


def restored(incident: Incident, t: float) -> Situation:
    """The situation behind a stored incident, at `t`."""
    finding = Finding(
        id=f"{incident.id}-restored",
        at=Stamp(incident.boot_id, 0.0, incident.evidence_at),
        rule=RESTORED,
        category=incident.fault_class.category,
        severity=incident.meant or incident.severity,
        score=incident.score,
        subjects=[Subject(one.kind, one.name, one.score) for one in incident.culprits],
        hints=_remembered(incident),
        evidence=incident.evidence[:1],
        words=incident.meant is not None and not incident.measured,
    )
    stage = any(one.kind is SubjectKind.STAGE for one in incident.culprits)
    found = Situation(incident.id, incident.boot_id, t, incident.evidence_at, t, stage)
    found.add(finding, t)
    found.restored_t = t
    condition = found.conditions[condition_key(finding)]
    condition.weak, condition.evidence = False, list(incident.evidence)
    condition.happened = _occurrences(incident)
    found.incident, found.ids = incident, dict.fromkeys(incident.finding_ids)
    found.count, found.told_t, found.told_rules = incident.findings_count, t, 1
    found.stale = incident.meant is not None
    return found


def _remembered(incident: Incident) -> dict[FaultClass, float]:
    """The scores of before as hints; the class that was settled on keeps its lead."""
    hints = {fault: score / 2.0 for fault, score in incident.scores.items()}
    return {
        **hints,
        incident.fault_class: max(incident.score, incident.scores.get(incident.fault_class, 0.0)),
    }


def _occurrences(incident: Incident) -> int:
    """How many log lines at distinct seconds there are: what a restart leaves of a count of crashes.

    One crash may be told in many words: so many that it is a loop only where it was one before.
    """
    count = len({int(one.start) for one in incident.evidence if one.kind == "line"})
    return count if incident.fault_class is FaultClass.CRASH_LOOP else min(count, OCCURRENCES_TOLD - 1)
