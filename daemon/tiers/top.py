"""The top tier: incident to advice, one per language, by a model or the catalogue, never past the check.

Pure judgement: no I/O but the lazy reading of the catalogue, no clock, no randomness. The model lives
elsewhere and is asked through `write`; what it writes goes through the same check as the catalogue's text.
It cites; what is wrong, which check and which remedy fit is the catalogue's to say, and where that knows what
the evidence says, or the model is silent or wrong, the catalogue cites, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from daemon.advice import brief
from daemon.advice.check import Citation, Violation, check_advice
from daemon.advice.compose import catalogue_advice, first_true, lacks_citation, minimal_advice
from daemon.advice.formats import Lang
from daemon.errors import IntegrityError
from daemon.messages import Advice, Incident
from daemon.settings import Top

_NOTES_MAX = 64
SEEDS = 5  # texts that a model may try before the catalogue speaks; a tenth of a second each

Cite = Callable[
    [Incident, Lang], tuple[Citation | None, str]
]  # a page of the operator's documents, or a note
Write = Callable[[str, int], str | None]  # prompt and seed to a slotted text; None: no model, or too slow


class TopTier:
    """Explains incidents; `counters` and `notes` tell what was refused and why."""

    def __init__(self, settings: Top, write: Write | None = None, cite: Cite | None = None) -> None:
        self._languages: list[Lang] = list(settings.languages)
        self._write, self._cite = write, cite
        names = (
            "advices",
            "refused",
            "minimal",
            "broken_catalogue",
            "model",
            "model_refused",
            "model_silent",
            "cited",
        )
        self.counters = dict.fromkeys(names, 0)
        self.notes: list[str] = []

    def advise(self, incident: Incident) -> list[Advice]:
        """One checked advice per language, in the order of the settings."""
        return [self._advise(incident, lang) for lang in self._languages]

    def _advise(self, incident: Incident, lang: Lang) -> Advice:
        self.counters["advices"] += 1
        advice, violations = first_true(self._candidates(incident, lang), incident)
        if violations:
            self.counters["refused"] += 1
            self._note(incident, lang, violations)
        if advice is None:
            self.counters["minimal"] += 1
        elif advice.origin == "model":
            self.counters["model"] += 1
        return self.cited(advice or minimal_advice(lang), incident)

    def cited(self, advice: Advice, incident: Incident) -> Advice:
        """The advice with the page of a runbook that fits, if there is one and the whole passes the check."""
        if self._cite is None:
            return advice
        citation, note = self._cite(incident, advice.lang)
        if note:
            self._add(note)
        if citation is None:
            return advice
        text = f"{advice.text}\n\n{citation.line}"
        extended = msgspec.structs.replace(
            advice, text=text, sources=advice.sources | {citation.place: "runbook"}
        )
        if check_advice(extended, incident, cited=citation.line):
            return advice
        self.counters["cited"] += 1
        return extended

    def _candidates(self, incident: Incident, lang: Lang) -> Iterator[Advice]:
        """The texts to try, the best first; the next is made only when the one before was refused."""
        try:
            if self._write is not None and lacks_citation(incident):
                yield from self._written(self._write, incident, lang)
            yield catalogue_advice(incident, lang)
        except IntegrityError as error:
            self.counters["broken_catalogue"] += 1
            self._add(str(error))

    def _written(self, write: Write, incident: Incident, lang: Lang) -> Iterator[Advice]:
        """What the model writes, as far as it keeps its own rules."""
        told = brief.tell(incident, lang)
        for seed in range(SEEDS):
            text = write(told.prompt, seed)
            if text is None:
                self.counters["model_silent"] += 1
                self._add("the top tier's model gave no text in time; the catalogue spoke")
                return
            advice = brief.cite(text, told, incident)
            if isinstance(advice, Advice):
                yield advice
            self.counters["model_refused"] += (
                1  # by its own rules or, once control is back here, by the check
            )

    def _note(self, incident: Incident, lang: Lang, violations: list[Violation]) -> None:
        first = violations[0]
        self._add(f"advice {lang} for incident {incident.id} refused: {first.part[:80]!r}: {first.reason}")

    def _add(self, note: str) -> None:
        if note not in self.notes and len(self.notes) < _NOTES_MAX:
            self.notes.append(note)
