"""An incident as a brief for the top tier's model, and the model's text with the evidence's values in it.

Values, units and names come from the incident through the catalogue's own formats; the model decides only
which of them a sentence mentions. What it wrote is an advice only after `models.briefs` found no fault with
it, and is still subject to the fact check like any text.
"""

from __future__ import annotations

from typing import NamedTuple

from daemon.advice.compose import advice_citing, nearest_context, recommended
from daemon.advice.facts import closeness, over, quotable, reported, source_of
from daemon.advice.fill import STATABLE, Filled
from daemon.advice.formats import Lang, write
from daemon.advice.subjects import SHOWN_LINE, display, quote, sections
from daemon.messages import Advice, Culprit, Evidence, Incident
from models.briefs import (
    HOST,
    KINDS,
    NAMED_CONTEXTS,
    SLOTS,
    Brief,
    Group,
    citing,
    encode,
    fault_of,
    slots_in,
    slots_of,
)
from models.taxonomy import SubjectKind

_OWN_MAX, _ABOUT_MAX = 2, 1  # pieces of evidence whose numbers are offered
_SLOTS_MAX = 4  # of one piece of evidence
_CONTEXT_KINDS = {*NAMED_CONTEXTS, "boot", "update", "rebuild"}


class Told(NamedTuple):
    """A brief and what its slots stand for in one language."""

    brief: Brief
    parts: dict[str, Filled]

    @property
    def lang(self) -> Lang:
        """The language of its texts."""
        return "de" if self.brief.lang == "de" else "en"

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return encode(self.brief)


def tell(incident: Incident, lang: Lang) -> Told:
    """What a model may say about this incident."""
    culprit = incident.culprits[0] if incident.culprits and incident.culprits[0].name else None
    kind = kind_of(culprit)
    if kind == HOST:
        culprit = None
    parts: dict[str, Filled] = {}
    if culprit is not None:
        parts["culprit"] = _name(incident, culprit.name, lang)
    groups = _groups(incident, kind, culprit, lang, parts)
    numbers = any(slot in parts for group in groups for slot in group.slots)
    extras = _extras(incident, culprit, lang, parts, numbers=numbers)
    context = _context(incident, lang, parts)
    closed = incident.state == "closed"
    brief = Brief(
        lang, incident.fault_class.value, kind, incident.severity.value, groups, extras, context, closed
    )
    return Told(brief, parts)


def kind_of(culprit: Culprit | None) -> str:
    """The word for a culprit's kind that the model knows."""
    if culprit is None or culprit.kind is SubjectKind.HOST:
        return HOST
    return next((name for name in sections(culprit.kind, culprit.name) if name in KINDS), HOST)


def fill(text: str, told: Told, incident: Incident) -> Advice | str:
    """The model's text as an advice, or why it cannot be one."""
    text = " ".join(text.split())
    if reason := fault_of(text, told.brief):
        return reason
    filled = _filled(text, told)
    return Advice(filled.text, told.lang, "model", recommended(incident), filled.sources)


def cite(text: str, told: Told, incident: Incident) -> Advice | str:
    """What the model's text cites, within the catalogue's advice, or why that cannot be.

    What is wrong, which check and which remedy fit depends on what the evidence says, and the model sees
    nothing of that.
    """
    text = " ".join(text.split())
    if reason := fault_of(text, told.brief):
        return reason
    if not (text := citing(text, told.brief)):
        return "cites nothing"
    return advice_citing(_filled(text, told), incident, told.lang)


def _filled(text: str, told: Told) -> Filled:
    sources: dict[str, str] = {}
    for slot in slots_in(text):
        sources |= told.parts[slot].sources
    for slot, part in told.parts.items():
        text = text.replace(f"<{slot}>", part.text)
    text = text.replace("…”.", "…”").replace("…“.", "…“")
    return Filled(text, sources)


def _name(incident: Incident, name: str, lang: Lang) -> Filled:
    shown = display(name, lang)
    return Filled(shown, {shown[:512]: source_of(incident, name)})


def _groups(
    incident: Incident, kind: str, culprit: Culprit | None, lang: Lang, parts: dict[str, Filled]
) -> tuple[Group, ...]:
    """The pieces of evidence with numbers for this class, ours before the host's, the latest first."""
    ours = {culprit.name} if culprit is not None else set()
    ranked = sorted(
        (
            (closeness(incident, evidence, ours), evidence.end, -index)
            for index, evidence in enumerate(incident.evidence)
        ),
        reverse=True,
    )
    groups: list[Group] = []
    for near, _, place in ranked:
        evidence, own = incident.evidence[-place], near == 2
        room = (_OWN_MAX if own else _ABOUT_MAX) - sum(group.own == own for group in groups)
        if near == 0 or room <= 0:
            continue
        group = Group(own, _offer(evidence, kind, incident, own=own, parts=parts))
        if group.slots:
            groups.append(group)
            parts |= _values(evidence, group, lang)
    return tuple(groups)


def _offer(
    evidence: Evidence, kind: str, incident: Incident, *, own: bool, parts: dict[str, Filled]
) -> tuple[str, ...]:
    values = {key: value for key, value in evidence.values.items() if abs(value) < STATABLE}
    found = slots_of(evidence.ref, values, kind, incident.fault_class.value, own=own)
    return () if any(slot in parts for slot in found) else found[:_SLOTS_MAX]


def _values(evidence: Evidence, group: Group, lang: Lang) -> dict[str, Filled]:
    found = {}
    for name in group.slots:
        if slot := SLOTS.get(name):
            shown = write(evidence.values[slot.key], slot.format, lang)
            found[name] = Filled(shown, {shown: evidence.id})
    return found


def _extras(
    incident: Incident, culprit: Culprit | None, lang: Lang, parts: dict[str, Filled], *, numbers: bool
) -> tuple[str, ...]:
    """A log line to quote, hauswart's own words where there is nothing else to cite, who else is involved."""
    found = []
    if lines := quotable(incident):
        found.append(("quote", _quoted(lines[0][0], lines[0][1], lang)))
    elif not numbers and (told := reported(incident)):
        ours = {culprit.name} if culprit is not None else set()
        evidence = max((one for _, one in told), key=lambda one: closeness(incident, one, ours))
        found.append(("seen", _quoted(evidence.text.rstrip(".; "), evidence, lang)))
    if culprit is not None and (other := _other(incident, culprit)):
        found.append(("other", _name(incident, other, lang)))
    parts |= dict(found)
    return tuple(name for name, _ in found)


def _quoted(text: str, evidence: Evidence, lang: Lang) -> Filled:
    shown = quote(text, lang, SHOWN_LINE)
    return Filled(shown, {shown[:512]: evidence.id})


def _other(incident: Incident, culprit: Culprit) -> str:
    others = (one for one in incident.culprits[1:] if one.name and one.kind is not SubjectKind.HOST)
    return next((one.name for one in others if one.name != culprit.name), "")


def _context(incident: Incident, lang: Lang, parts: dict[str, Filled]) -> str:
    nearest = nearest_context(incident)
    if nearest is None:
        return ""
    gap, place, note = nearest
    named = note.name not in {"", note.kind}
    kind = (
        note.kind if note.kind in _CONTEXT_KINDS and (named or note.kind not in NAMED_CONTEXTS) else "other"
    )
    source, shown = f"context:{place}", write(gap, "duration", lang)
    parts["gap"] = Filled(shown, {shown: source})
    if kind in NAMED_CONTEXTS:
        name = display(note.name, lang)
        parts["name"] = Filled(name, {name[:512]: source})
    return f"{kind}-{'after' if over(incident, note) else 'during'}"
