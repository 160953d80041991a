"""The top tier: incident to advice, one per language, from the catalogue and never past the fact check.

Pure judgement: no I/O but the lazy reading of the catalogue, no clock, no randomness.
"""

from __future__ import annotations

from daemon.advice.check import Violation
from daemon.advice.compose import catalogue_advice, first_true, minimal_advice
from daemon.advice.formats import Lang
from daemon.errors import IntegrityError
from daemon.messages import Advice, Incident
from daemon.settings import Top

_NOTES_MAX = 64


class TopTier:
    """Explains incidents; `counters` and `notes` tell what was refused and why."""

    def __init__(self, settings: Top) -> None:
        self._languages: list[Lang] = list(settings.languages)
        self.counters = {"advices": 0, "refused": 0, "minimal": 0, "broken_catalogue": 0}
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
        return advice or minimal_advice(lang)

    def _candidates(self, incident: Incident, lang: Lang) -> list[Advice]:
        """The texts to try, the best first."""
        try:
            return [catalogue_advice(incident, lang)]
        except IntegrityError as error:
            self.counters["broken_catalogue"] += 1
            self._add(str(error))
            return []

    def _note(self, incident: Incident, lang: Lang, violations: list[Violation]) -> None:
        first = violations[0]
        self._add(f"advice {lang} for incident {incident.id} refused: {first.part[:80]!r}: {first.reason}")

    def _add(self, note: str) -> None:
        if note not in self.notes and len(self.notes) < _NOTES_MAX:
            self.notes.append(note)
