"""Puts an advice together from the catalogue, and keeps only one that passes the fact check."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from daemon.advice import catalogue
from daemon.advice.actions import render
from daemon.advice.catalogue import Group, Section
from daemon.advice.check import LENGTH_MAX, Violation, check_advice
from daemon.advice.facts import gap_to, over
from daemon.advice.fill import PLACEHOLDER, VALUE, Filled, Scene, Sentence, says
from daemon.advice.formats import Lang, write
from daemon.advice.subjects import display, sections
from daemon.messages import Advice, ContextNote, Culprit, Incident

_PHRASES = Path(__file__).with_name("phrases.toml")
_LOOK = {"en": "Check:", "de": "Prüfen:"}
_HELP = {"en": "What usually helps:", "de": "Was meist hilft:"}
_MINIMAL = {
    "en": "No explanation could be verified for this incident. The evidence listed with it is what is known.",
    "de": "Für diesen Vorfall ließ sich keine Erklärung bestätigen. Bekannt ist, was die Belege dazu zeigen.",
}


def catalogue_advice(incident: Incident, lang: Lang) -> Advice:
    """The catalogue's advice, unchecked; raises IntegrityError when the catalogue is broken."""
    section, scene = _told(incident, lang)
    means = [*_fill(scene, section.words[lang].means), *_circumstances(scene)]
    return _advice(means, scene, section, "catalogue")


def advice_citing(cited: Filled, incident: Incident, lang: Lang) -> Advice:
    """The catalogue's advice with what a model cites in the place of its own citations; raises likewise."""
    section, scene = _told(incident, lang)
    return _advice([*_fill(scene, section.words[lang].means[:1]), cited], scene, section, "model")


def with_remedies(explained: Filled, incident: Incident, lang: Lang) -> Advice:
    """A model's explanation with the catalogue's checks and remedies; raises IntegrityError likewise."""
    section, scene = _told(incident, lang)
    return _advice([explained], scene, section, "model")


def lacks_citation(incident: Incident) -> bool:
    """Whether the catalogue has but general words for this incident; raises IntegrityError likewise."""
    section, scene = _told(incident, "en")
    first, *more = (scene.choose(item) for item in section.words["en"].means)
    if first is None or any(one is not None and one.said for one in (first, *more)):
        return False
    return not any(part == "quote" or VALUE.fullmatch(part) for part in PLACEHOLDER.findall(first.text))


def _told(incident: Incident, lang: Lang) -> tuple[Section, Scene]:
    section, culprit = choose(incident)
    return section, Scene(incident, lang, culprit)


def _advice(
    means: list[Filled], scene: Scene, section: Section, origin: Literal["model", "catalogue"]
) -> Advice:
    words = section.words[scene.lang]
    look, helps = _distinct(_fill(scene, words.look)), _fill(scene, words.help)
    _shorten(means, look, helps, scene.lang)
    sources: dict[str, str] = {}
    for part in (*means, *look, *helps):
        sources |= part.sources
    text = _layout(means, look, helps, scene.lang)
    return Advice(text, scene.lang, origin, _action(section, scene.incident) or "", sources)


def recommended(incident: Incident) -> str:
    """The command that the catalogue recommends, "" where an argument is missing; raises IntegrityError."""
    section, _ = choose(incident)
    return _action(section, incident) or ""


def minimal_advice(lang: Lang) -> Advice:
    """What is left to say when nothing else passed the check."""
    return Advice(_MINIMAL[lang], lang, "catalogue")


def first_true(candidates: Iterable[Advice], incident: Incident) -> tuple[Advice | None, list[Violation]]:
    """The first candidate that passes the fact check, and what was wrong with those before it."""
    refused: list[Violation] = []
    for candidate in candidates:
        violations = check_advice(candidate, incident)
        if not violations:
            return candidate, refused
        refused += violations
    return None, refused


def choose(incident: Incident) -> tuple[Section, Culprit | None]:
    """The section for the first culprit that the catalogue has words for, else the general one."""
    entry = catalogue.load(incident.fault_class)
    for culprit in incident.culprits:
        for name in sections(culprit.kind, culprit.name):
            if name in entry.sections and _action(entry.sections[name], incident) is not None:
                return entry.sections[name], culprit
    return entry.sections["any"], _first_named(incident)


def _action(section: Section, incident: Incident) -> str | None:
    """The first of the section's commands that the evidence asks for and has the arguments of."""
    fitting = (render(one.run, incident) for one in section.actions if says(incident, one.said))
    return next((command for command in fitting if command is not None), None)


def _first_named(incident: Incident) -> Culprit | None:
    return next((culprit for culprit in incident.culprits if culprit.name), None)


def _fill(scene: Scene, group: Group) -> list[Filled]:
    return [filled for item in group if (filled := scene.first(item))]


def _distinct(look: list[Filled]) -> list[Filled]:
    """Without what names a command once more: where there is no journal, several ask the same log."""
    found: dict[str, Filled] = {}
    for filled in look:
        found.setdefault(filled.text.partition("`")[2], filled)
    return list(found.values())


@cache
def _phrases() -> dict[str, Any]:
    return tomllib.loads(_PHRASES.read_text("utf-8"))


def _circumstances(scene: Scene) -> list[Filled]:
    """What the host was doing on purpose when it began, if anything."""
    nearest = nearest_context(scene.incident)
    if nearest is None:
        return []
    gap, index, note = nearest
    sentence = Sentence(_phrase(note, scene.lang, over=over(scene.incident, note)))
    filled = scene.fill(sentence, _extra(gap, index, note, scene.lang))
    return [filled] if filled else []


def nearest_context(incident: Incident) -> tuple[float, int, ContextNote] | None:
    """The context that began (or ended) last before the incident: seconds, its place, the note."""
    notes = [
        (gap, index, note)
        for index, note in enumerate(incident.context)
        if (gap := gap_to(incident, note)) is not None
    ]
    return min(notes, key=lambda item: item[:2], default=None)


def _phrase(note: ContextNote, lang: Lang, *, over: bool) -> str:
    phrases = _phrases()[lang]
    kind = note.kind if note.kind in phrases else "other"
    if kind == "rebuild" and not note.name.isdecimal():
        kind = "rebuild-plain"
    if note.name in {"", note.kind}:  # a job that nobody named
        kind = "nameless" if kind in {"other", "session"} else kind
        return str(phrases[kind][over]).replace(" {name}", "")
    return str(phrases[kind][over])


def _extra(gap: float, index: int, note: ContextNote, lang: Lang) -> dict[str, Filled]:
    source = f"context:{index}"
    shown_gap, shown_name = write(gap, "duration", lang), display(note.name, lang)
    return {"gap": Filled(shown_gap, {shown_gap: source}), "name": Filled(shown_name, {shown_name: source})}


def _shorten(means: list[Filled], look: list[Filled], helps: list[Filled], lang: Lang) -> None:
    """Drops the least important sentences until the text fits: later hints first, the meaning last."""
    for part, keep in ((helps, 1), (look, 1), (means, 1), (helps, 0), (look, 0), (means, 0)):
        while len(part) > keep and len(_layout(means, look, helps, lang)) > LENGTH_MAX:
            part.pop()


def _layout(means: list[Filled], look: list[Filled], helps: list[Filled], lang: Lang) -> str:
    paragraphs = [" ".join(part.text for part in means)]
    if look:
        paragraphs.append("\n".join([_LOOK[lang], *(f"- {part.text}" for part in look)]))
    if helps:
        paragraphs.append(f"{_HELP[lang]} " + " ".join(part.text for part in helps))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
