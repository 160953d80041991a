"""What may be stated about an incident: its numbers, names and quotable lines, each with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from daemon.advice.formats import dimension_of, signal_name_of
from daemon.advice.subjects import SHOWN_LINE, SHOWN_NAME, escape, named
from daemon.advice.tokens import scan
from daemon.messages import REVIEWED, ContextNote, Evidence, Incident
from models import metrics
from models.taxonomy import FaultClass, SubjectKind


class Fact(NamedTuple):
    """A number in SI base units, what it measures, and the evidence (or part of the incident) it is from."""

    value: float
    dimension: str
    source: str


def numbers(incident: Incident) -> Iterator[Fact]:
    """Every number that a text about this incident may state."""
    for evidence in incident.evidence:
        for key, value in evidence.values.items():
            yield Fact(value, dimension_of(key), evidence.id)
        if evidence.end > evidence.start:
            yield Fact(evidence.end - evidence.start, "time", evidence.id)
    yield Fact(lasted(incident), "time", "incident")
    for index, note in enumerate(incident.context):
        if (gap := gap_to(incident, note)) is not None:
            yield Fact(gap, "time", f"context:{index}")


def lasted(incident: Incident) -> float:
    """Seconds from the first evidence to the end, or to the latest change while it is open."""
    ended = incident.updated_at if incident.closed_at is None else incident.closed_at
    return max(0.0, ended - incident.evidence_at)


def gap_to(incident: Incident, note: ContextNote) -> float | None:
    """Seconds from this context's start (its end, if over) to the incident's start, None if it came later."""
    gap = incident.evidence_at - (
        note.ended if note.ended is not None and over(incident, note) else note.started
    )
    return gap if gap >= 0 else None


def over(incident: Incident, note: ContextNote) -> bool:
    """Whether this context had ended when the incident began."""
    return note.ended is not None and note.ended < incident.evidence_at


def names(incident: Incident) -> dict[str, str]:
    """Every name that a text may use, as it is shown, with its source; nothing out of a log text."""
    found: dict[str, str] = {}
    for evidence in incident.evidence:
        if evidence.kind != "line" and evidence.ref != REVIEWED:  # a server gives itself its name
            for token in scan(evidence.text):
                if token.kind == "name":
                    found.setdefault(token.text, evidence.id)
        if signal_name := signal_name_of(evidence.values.get("signal_number", 0.0)):
            found.setdefault(signal_name, evidence.id)
    for index, note in enumerate(incident.context):
        found.setdefault(escape(note.name, SHOWN_NAME), f"context:{index}")
    for kind, name in named(incident):
        source = source_of(incident, name)
        for form in _forms(kind, name):
            found.setdefault(escape(form, SHOWN_NAME), source)
    found.pop("", None)
    return found


def source_of(incident: Incident, name: str) -> str:
    """The first evidence that names `name`, or "culprit" when only the middle tier's verdict does."""
    for evidence in incident.evidence:
        if f"{{{name}}}" in evidence.ref or mentions(evidence.text, name):
            return evidence.id
    return "culprit"


def mentions(text: str, name: str) -> bool:
    """Whether `text` holds `name` (of a process also without its pid) as a word of its own."""
    for form in {name, base_name(name)} - {""}:
        at = text.find(form)
        while at >= 0:
            before, after = text[at - 1 : at] if at else "", text[at + len(form) : at + len(form) + 1]
            another = after == "[" and form != name  # the same program under another pid
            if not (before.isalnum() or after.isalnum() or another):
                return True
            at = text.find(form, at + 1)
    return False


def closeness(incident: Incident, evidence: Evidence, ours: AbstractSet[str]) -> int:
    """2: about our names; 1: about the host or nobody; 0: about somebody else, whose numbers it tells."""
    family, label = metrics.split(evidence.ref)
    if evidence.kind == "metric" and family in metrics.METRICS and label in ours:
        return 2
    if any(mentions(evidence.text, name) for name in ours):
        return 2
    if evidence.kind == "metric" and family in metrics.METRICS and label:
        return 0
    others = {culprit.name for culprit in incident.culprits} - ours - {""}
    return 0 if any(mentions(evidence.text, name) for name in others) else 1


def base_name(name: str) -> str:
    """A process's name without its `[PID]`; any other name as it is."""
    return name[: name.rfind("[")] if name.endswith("]") and "[" in name else name


def _forms(kind: SubjectKind, name: str) -> tuple[str, ...]:
    if kind is SubjectKind.PROCESS:
        return (name, base_name(name))
    return (name, f"/dev/{name}") if kind is SubjectKind.DEVICE else (name,)


# What says that something went wrong.
_TELLS = re.compile(
    r"err(?:or|no)|exception|fail|refus|reject|denied|forbid|unauthori|cannot|can't|could ?n[o']t|unable"
    r"|time[d-]? ?out|lost|missing|mismatch|invalid|illegal|unknown|unrecogni|wrong|different|expired"
    r"|corrupt|damaged|broken|no (?:such|space|route|more)|exceed|exhaust|too (?:many|long|large|deep)"
    r"|not (?:found|permitted|allowed|valid|yet|installed|supported|available|enabled|configured|running|set)"
    r"|abort|terminate called|panic|killed|giv(?:e|ing) up|dropp|disconnect|gone|unreachable|stuck|stalled"
    r"|overflow|overrun|is full",
    re.IGNORECASE,
)
# What only says that something began or ended, or where: a reader learns nothing of it.
_ENDS = re.compile(
    r"(?:\S{1,255}: )?(?:(?:Main|Control) process exited|Failed with result|Scheduled restart|Deactivated"
    r"|Start request repeated)|Failed to start|(?:Start|Stopp|Reload)(?:ing|ed) |Traceback"
    r"|\s*(?:at|File) |#\d"
)
_STAMP = re.compile(  # and what servers write between it and the message
    r"\[?\d{2,4}[-/.]\w{2,3}[-/.]\d{2,4}[T ] ?\d{1,2}:\d\d:\d\d\S{0,12}\]? "
    r"(?:(?:\[\w{4,8}\]|\d{1,7}(?:#\d{1,7}:)?|\*\d{1,7}|\w{1,24}\[\d{1,7}\]:) ){0,4}"
)
_BEFORE_CHARS = 60  # of a long line, before what it complains about
_TELLING, _ENDING, _BESIDE = 0.3, -0.5, 0.1


def quotable(incident: Incident) -> list[tuple[str, Evidence]]:
    """The log lines that speak for the incident's class, as they may be quoted; the best comes first."""
    lines = [(_worth(evidence, incident.fault_class), evidence) for evidence in incident.evidence]
    ranked = sorted(
        (pair for pair in lines if pair[0] is not None), key=lambda pair: pair[0] or 0.0, reverse=True
    )
    return [(escape(_telling(evidence.text), SHOWN_LINE), evidence) for _, evidence in ranked]


def _worth(evidence: Evidence, fault: FaultClass) -> float | None:
    """How much a reader learns from a line; None of one that is only odd, or about another class."""
    speaks, tells = _speaks(evidence, fault), _TELLS.search(evidence.text) is not None
    if evidence.kind == "line" and fault in _CRASHES and tells:
        speaks = max(speaks, _BESIDE)  # what a program said last is why it ended
    if speaks <= 0.0:
        return None
    return speaks + (_TELLING if tells else 0.0) + (_ENDING if _ENDS.match(evidence.text) else 0.0)


def _telling(text: str) -> str:
    """The part of a line that is worth its room: without its time, and of a long one where it complains."""
    if stamp := _STAMP.match(text):
        text = text[stamp.end() :] or text
    if len(text) <= SHOWN_LINE or not (found := _TELLS.search(text)) or found.start() < SHOWN_LINE // 2:
        return text
    start = text.find(" ", min(found.start() - _BEFORE_CHARS, len(text) - SHOWN_LINE))
    return text[start + 1 :] if start < found.start() else text


def _speaks(evidence: Evidence, fault: FaultClass) -> float:
    """How strongly a log line names this class."""
    if evidence.kind != "line" or not evidence.text.strip():
        return 0.0
    alike = _CRASHES if fault in _CRASHES else {fault}
    return max((evidence.speaks_for.get(one, 0.0) for one in alike), default=0.0)


_CRASHES = frozenset({FaultClass.SERVICE_CRASH, FaultClass.CRASH_LOOP})


def is_quotation(text: str, incident: Incident, known: Mapping[str, str]) -> bool:
    """Whether what stands in quotation marks is a name we know, our own words or a stretch of a log line."""
    if text in known:
        return True
    lines = (line for line, _ in (*quotable(incident), *reported(incident)))
    return any(_stretch(text, line) for line in lines)


def reported(incident: Incident) -> list[tuple[str, Evidence]]:
    """What hauswart itself says of metrics, events and processes, as it may be quoted."""
    return [
        (escape(evidence.text.rstrip(".; "), SHOWN_LINE), evidence)
        for evidence in incident.evidence
        if evidence.kind != "line" and evidence.text.strip() and evidence.ref != REVIEWED
    ]


def _stretch(text: str, line: str) -> bool:
    """From word border to word border ten characters, or four without a digit: no lone number passes."""
    at = line.find(text)
    short = len(text) < 4 or (len(text) < 10 and any(one.isdigit() for one in text))
    if at < 0 or (short and text != line):
        return False
    before, after = line[at - 1 : at] if at else "", line[at + len(text) : at + len(text) + 1]
    return not (before.isalnum() and text[0].isalnum()) and not (after.isalnum() and text[-1].isalnum())
