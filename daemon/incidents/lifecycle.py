"""The life of an incident: opened, revised, reopened, merged, closed.

Pure functions from one revision to the next. It knows nothing about findings' grouping:
what it writes down was judged in `daemon.incidents.verdicts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from daemon.growth import doublings
from daemon.incidents.situations import Condition, Situation
from daemon.incidents.unexplained import READ
from daemon.incidents.verdicts import EFFECT_RANK, NOTES_MAX, Verdict, thing
from daemon.messages import REOPENED, REVIEWED, ContextNote, Culprit, Evidence, Incident, KeepReview, Stamp
from models.causes import rootless
from models.taxonomy import Category, FaultClass, Severity

HOLD_S = 10.0  # between the end of the last condition and closing: links and services flap
COUNT_S, COUNT_MAX_S = 60.0, 3600.0  # before mere counts are told; doubled each time, as each is a commit
REPORTED_S = 35.0  # after a restart what holds is given so long to be told again
RECOVERY_S = 30.0  # a service that is restarted on purpose has this long to come up before it is news
AT_ONCE = 0.7  # this sure of a class that nothing else causes: waiting would teach nothing
SLACK = 0.1  # share of settle_s by which a tick may be early
EVIDENCE_MAX = 32  # what a person reads, and what a store row can bear at every revision
_FIRST_CULPRITS = 3  # an operator looks at the first few; the order of the rest is noise


def opened(situation: Situation, verdict: Verdict, at: Stamp) -> Incident:
    """The first revision of an incident."""
    return Incident(
        id=situation.id,
        revision=1,
        state="open",
        fault_class=verdict.fault_class,
        severity=verdict.severity,
        score=verdict.score,
        culprits=verdict.culprits,
        opened_at=at.wall,
        updated_at=at.wall,
        closed_at=None,
        boot_id=situation.boot,
        context=verdict.notes,
        evidence=evidence(situation),
        finding_ids=list(situation.ids),
        findings_count=situation.count,
        evidence_at=situation.first_wall,
        path=verdict.path,
        scores=verdict.scores,
        meant=verdict.meant,
        waits=verdict.waits,
        measured=not verdict.words,
    )


def revised(incident: Incident, situation: Situation, verdict: Verdict, at: Stamp) -> Incident:
    """The next revision; while it is open no context note disappears, and no severity falls by itself."""
    severity = max(incident.severity, verdict.severity, key=lambda one: one.rank)
    severity = verdict.severity if verdict.harmless else severity
    return replace(
        incident,
        revision=incident.revision + 1,
        fault_class=verdict.fault_class,
        severity=severity,
        score=max(incident.score, verdict.score),
        culprits=verdict.culprits,
        updated_at=max(incident.opened_at, at.wall),
        context=_notes(incident.context, verdict.notes),
        evidence=evidence(situation),
        finding_ids=list(situation.ids),
        findings_count=situation.count,
        evidence_at=situation.first_wall,
        path=verdict.path,
        scores=verdict.scores,
        meant=verdict.meant,
        waits=verdict.waits,
        measured=not verdict.words,
    )


def reopened(incident: Incident, situation: Situation, verdict: Verdict, at: Stamp) -> Incident:
    """An incident that came back soon after it was closed goes on under its own id, and says so."""
    times = situation.reopened
    situation.back = Evidence(
        id=f"{incident.id}-back{times}",
        kind="event",
        ref=REOPENED,
        start=at.wall,
        end=at.wall,
        text="It came back after it had ended" + ("." if times == 1 else f", {times} times."),
        values={"reopened_count": float(times)},
    )
    again = revised(incident, situation, verdict, at)
    return replace(again, state="open", closed_at=None, severity=verdict.severity)


def review(baseline: FaultClass, said: KeepReview, at: Stamp) -> Evidence:
    """What an incident's evidence says of a review; `baseline`: the class without it."""
    what = "harmless" if said.harmless else said.fault_class.value
    text = f"{said.author} read this as {what}; by the rules alone it is {baseline.value}."
    return Evidence(f"{said.incident_id}-review", "event", REVIEWED, at.wall, at.wall, text)


def closed(incident: Incident, situation: Situation, at: Stamp, unheard: Severity | None = None) -> Incident:
    """The revision that says it is over; `unheard`: how bad it is by words that nobody read by then."""
    wall = max(incident.opened_at, at.wall)
    if unheard is not None:
        incident = replace(incident, severity=unheard, meant=None, waits=False)
    return replace(
        incident,
        revision=incident.revision + 1,
        state="closed",
        updated_at=wall,
        closed_at=wall,
        evidence=evidence(situation),
        finding_ids=list(situation.ids),
        findings_count=situation.count,
    )


def merged(incident: Incident, into: Incident, at: Stamp) -> Incident:
    """The last revision of an incident that turned out to be part of another one."""
    wall = max(incident.opened_at, at.wall)
    return replace(
        incident,
        waits=False,
        revision=incident.revision + 1,
        state="merged",
        merged_into=into.id,
        updated_at=wall,
        closed_at=wall,
    )


def with_silence(incident: Incident, silence_id: str) -> Incident:
    """The same revision under the silence that keeps it from being notified ("" for none)."""
    return incident if incident.quieted == silence_id else replace(incident, quieted=silence_id)


def quieted(incident: Incident, silence_id: str, at: Stamp) -> Incident:
    """The revision that says which silence keeps it from being notified ("" for none)."""
    return replace(
        incident,
        revision=incident.revision + 1,
        quieted=silence_id,
        updated_at=max(incident.opened_at, at.wall),
    )


def differs(incident: Incident, situation: Situation, verdict: Verdict) -> bool:
    """Whether an operator would care about what changed."""
    return (
        graver(incident, verdict)
        or (verdict.harmless and verdict.severity is not incident.severity)
        or (verdict.meant, verdict.waits) != (incident.meant, incident.waits)
        or _doublings(situation) > doublings(incident.evidence)
        or _names(incident.culprits) != _names(verdict.culprits)
        or len(_notes(incident.context, verdict.notes)) != len(incident.context)
    )


def _doublings(situation: Situation) -> int:
    return doublings(piece for one in situation.conditions.values() for piece in one.evidence)


def graver(incident: Incident, verdict: Verdict) -> bool:
    """Whether the class changed, the severity rose, or it is not doubted any more: told at once."""
    believed = incident.waits and not verdict.waits and not verdict.harmless
    worse = verdict.severity.rank > incident.severity.rank
    return incident.fault_class is not verdict.fault_class or worse or believed


def settled(situation: Situation, verdict: Verdict, t: float, settle_s: float) -> bool:
    """Whether what is believed has been so for long enough to open."""
    since = t - (t if situation.strong_t is None else situation.strong_t)
    if verdict.lowered and verdict.fault_class.category is Category.SERVICE:
        return since >= RECOVERY_S
    if since >= settle_s * (1.0 - SLACK):
        return True
    strong = [one.finding for one in situation.strong()]
    read = all(one.rule.startswith(READ) for one in strong)  # by who saw what else there is
    sure = any(one.score >= AT_ONCE for one in strong) and not verdict.excused
    return sure and (read or rootless(verdict.fault_class))


def counted(situation: Situation, t: float) -> bool:
    """Whether enough was counted to tell it; the next time takes twice as long."""
    if situation.incident is None or situation.count <= situation.incident.findings_count:
        return False
    wait_s = max(COUNT_S, situation.told_s)
    if t - situation.told_t < wait_s:
        return False
    situation.told_s = min(COUNT_MAX_S, 2.0 * wait_s)
    return True


def over(situation: Situation, t: float, heard_t: float, close_after_s: float) -> bool:
    """Whether an open incident is over; `heard_t`: since when the watch has had no hole."""
    if situation.restored_t is not None and t - situation.restored_t < REPORTED_S:
        return False
    over_t = situation.over_t
    if over_t is not None and t - over_t >= HOLD_S:
        return True
    since_t = 0.0 if situation.stage else heard_t
    return t - max(situation.last_t, since_t) >= close_after_s


def gravity(incident: Incident) -> tuple[int, float, float, str]:
    """What orders incidents where there is no room for all of them."""
    severity = incident.meant if incident.waits and incident.meant else incident.severity
    return (severity.rank, incident.score, incident.updated_at, incident.id)


def evidence(situation: Situation) -> list[Evidence]:
    """The evidence of all conditions in the order of time, at most EVIDENCE_MAX, one entry a text."""
    found: dict[str, Evidence] = {}
    ranked = sorted(situation.conditions.values(), key=_weight, reverse=True)
    for depth in range(max((len(one.evidence) for one in ranked), default=0)):
        for condition in ranked:  # the best piece of every condition before the second of any
            if depth < len(condition.evidence) and len(found) < EVIDENCE_MAX:
                piece = condition.evidence[depth]
                found.setdefault(piece.text, piece)
    pieces = sorted(found.values(), key=lambda one: (one.start, one.end, one.id))
    told = [one for one in (situation.reviewed, situation.back) if one is not None]
    return [*pieces[: EVIDENCE_MAX - len(told)], *told]


def _weight(condition: Condition) -> tuple[bool, int, float, float]:
    finding = condition.finding
    return (not condition.weak, finding.severity.rank, finding.score, -condition.first_t)


def _names(culprits: Sequence[Culprit]) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in culprits[:_FIRST_CULPRITS]]


def _notes(told: Sequence[ContextNote], now: Sequence[ContextNote]) -> list[ContextNote]:
    """One note of each thing that the host did; the later one, unless the earlier weighs more."""
    known: dict[tuple[str, str], ContextNote] = {}
    for one in (*told, *now):
        before = known.get(thing(one.kind, one.name))
        if before is None or EFFECT_RANK[one.effect] >= EFFECT_RANK[before.effect]:
            known[thing(one.kind, one.name)] = one
    return list(known.values())[-NOTES_MAX:]
