"""Fills a sentence from one piece of evidence, or drops it: what cannot be stated is left out.

Placeholders: `{culprit}` or a kind (`{mount}`, `{user}`, ...) is a name, `{other}` that of the next culprit
of the same kind; `{run:ACTION}` is a command of the allow-list; `{quote}` is the log line that says most, and
`{said}` the part of one that the sentence's `said` asks for; `{key:format}` or `{key@family:format}` is a
number of `Evidence.values`, the latter only from evidence whose metric begins with `family`. All numbers of a
sentence come from the same piece of evidence, so that "5 in 60 s" never mixes two of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from daemon.advice.actions import render
from daemon.advice.facts import closeness, is_quotation, quotable, source_of
from daemon.advice.formats import Lang, write
from daemon.advice.subjects import display, named, quote
from daemon.messages import REOPENED, REVIEWED, Culprit, Evidence, Incident
from models.taxonomy import Severity, SubjectKind

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
VALUE = re.compile(r"(\w+)(?:@([\w.]+))?:(\w+)")
HEARD_CHARS = 512  # of a piece of evidence: strangers write lines that make a search long
NAME_PLACEHOLDERS = frozenset({"culprit", "other", *(kind.value for kind in SubjectKind)} - {"host"})


class Sentence(NamedTuple):
    """One sentence with the conditions under which it is true."""

    text: str
    severity: str = "info"  # at least this
    below: str = ""  # less than this
    state: str = ""
    at_least: Mapping[str, float] = {}
    at_most: Mapping[str, float] = {}
    said: tuple[str, ...] = ()  # a piece of evidence says one of these (see `compiled`),
    unsaid: tuple[str, ...] = ()  # and none says one of those


class Filled(NamedTuple):
    """A finished sentence and where each number and name in it comes from."""

    text: str
    sources: dict[str, str]


def sentences(entry: Any) -> tuple[Sentence, ...]:
    """The alternatives of a catalogue entry's item: a string, a table with conditions, or a list of these."""
    if isinstance(entry, str):
        return (Sentence(entry),)
    if isinstance(entry, dict):
        said = (entry["said"],) if "said" in entry else ()
        return (Sentence(**(entry | {"said": said})),)
    return tuple(sentence for item in entry for sentence in sentences(item))


class Scene:
    """An incident told in one language, about one culprit; fills sentences."""

    def __init__(self, incident: Incident, lang: Lang, culprit: Culprit | None) -> None:
        self.incident = incident
        self.lang = lang
        self._names: dict[str, str] = {}
        if culprit is not None:
            self._names["culprit"] = culprit.name
        for kind, name in named(incident):
            self._names.setdefault(kind.value, name)
        if culprit is not None:
            self._names[culprit.kind.value] = culprit.name
        self._ours = set(self._names.values())
        if culprit is not None:
            others = (one.name for one in incident.culprits if one.kind is culprit.kind)
            self._names["other"] = next((name for name in others if name != culprit.name), "")

    def first(
        self, alternatives: tuple[Sentence, ...], extra: Mapping[str, Filled] | None = None
    ) -> Filled | None:
        """The first of `alternatives` that can be stated truthfully."""
        filled = (self.fill(sentence, extra or {}) for sentence in alternatives)
        return next(filter(None, filled), None)

    def choose(self, alternatives: tuple[Sentence, ...]) -> Sentence | None:
        """Which of them that is."""
        return next((sentence for sentence in alternatives if self.fill(sentence, {})), None)

    def fill(self, sentence: Sentence, extra: Mapping[str, Filled]) -> Filled | None:
        """The sentence with every placeholder replaced, None when one has no value or a condition fails."""
        if not self._applies(sentence):
            return None
        placeholders = PLACEHOLDER.findall(sentence.text)
        evidence = self._evidence(sentence, placeholders)
        if evidence is None:
            return None
        replaced: dict[str, str] = {}
        sources: dict[str, str] = {}
        for placeholder in placeholders:
            part = extra.get(placeholder) or self._part(placeholder, evidence, sentence.said)
            if part is None:
                return None
            replaced[placeholder] = part.text
            sources |= part.sources
        return Filled(PLACEHOLDER.sub(lambda match: replaced[match[1]], sentence.text), sources)

    def _applies(self, sentence: Sentence) -> bool:
        rank = self.incident.severity.rank
        if rank < Severity(sentence.severity).rank:
            return False
        if sentence.below and rank >= Severity(sentence.below).rank:
            return False
        if sentence.state and sentence.state != self.incident.state:
            return False
        return says(self.incident, sentence.said) and (
            not sentence.unsaid or not says(self.incident, sentence.unsaid)
        )

    def _part(self, placeholder: str, evidence: Evidence, said: tuple[str, ...]) -> Filled | None:
        if placeholder.startswith("run:"):
            command = render(placeholder[4:], self.incident)
            return Filled(f"`{command}`", {}) if command is not None else None
        if placeholder in {"quote", "said"}:
            part = self._quotation(said, whole=placeholder == "quote")
            return Filled(quote(part, self.lang), {}) if part else None
        if placeholder in NAME_PLACEHOLDERS:
            name = self._names.get(placeholder)
            if not name:
                return None
            shown = display(name, self.lang)
            return Filled(shown, {shown[:512]: source_of(self.incident, name)})
        match = VALUE.fullmatch(placeholder)
        if match is None:
            return None
        shown = write(evidence.values[match[1]], match[3], self.lang)
        return Filled(shown, {shown: evidence.id})

    def _quotation(self, said: tuple[str, ...], *, whole: bool) -> str:
        """The line that tells most of those that say it, or the part that its pattern asks for."""
        for line, _ in quotable(self.incident):
            if not said:
                return line
            for pattern in said:
                if found := compiled(pattern).search(line):
                    part = line if whole else found[found.lastindex or 0]
                    if whole or is_quotation(part, self.incident, {}):
                        return part
        return ""

    def _evidence(self, sentence: Sentence, placeholders: list[str]) -> Evidence | None:
        """The one piece of evidence that all numbers of the sentence come from."""
        matches = [VALUE.fullmatch(p) for p in placeholders if not p.startswith("run:")]
        values = [match for match in matches if match]
        keys = {match[1] for match in values} | set(sentence.at_least) | set(sentence.at_most)
        if not keys:
            return _NOTHING
        return next(self._candidates(sentence, keys, [match[2] for match in values if match[2]]), None)

    def _candidates(self, sentence: Sentence, keys: set[str], families: list[str]) -> Iterator[Evidence]:
        named = {self._names[p] for p in PLACEHOLDER.findall(sentence.text) if p in self._names}
        ranked = []
        for index, evidence in enumerate(self.incident.evidence):
            if not keys <= evidence.values.keys() or not all(map(evidence.ref.startswith, families)):
                continue
            if not all(abs(evidence.values[key]) < STATABLE for key in keys):
                continue
            low = all(evidence.values[key] >= bound for key, bound in sentence.at_least.items())
            high = all(evidence.values[key] <= bound for key, bound in sentence.at_most.items())
            near = closeness(self.incident, evidence, named or self._ours)
            # Who is named beside a number must be named by the evidence itself.
            if low and high and near >= (2 if named else 1):
                counted = max(
                    (n for key, n in evidence.values.items() if key.endswith("_count")), default=0.0
                )
                ranked.append((near, evidence.end, counted, index))
        return (self.incident.evidence[index] for *_, index in sorted(ranked, reverse=True))


class _Heard:
    """What the evidence of one incident says; each pattern is searched for once."""

    def __init__(self, incident: Incident) -> None:
        self.incident = incident
        self._texts = [
            one.text[:HEARD_CHARS] for one in incident.evidence if one.ref not in {REVIEWED, REOPENED}
        ]
        self._found: dict[str, bool] = {}

    def says(self, pattern: str) -> bool:
        if (found := self._found.get(pattern)) is None:
            search = compiled(pattern).search
            found = self._found[pattern] = any(search(text) for text in self._texts)
        return found


_latest: list[_Heard | None] = [None]


def says(incident: Incident, patterns: tuple[str, ...]) -> bool:
    """Whether a piece of evidence says one of these; true where nothing is asked for."""
    if not patterns:
        return True
    heard = _latest[0]
    if heard is None or heard.incident is not incident:
        _latest[0] = heard = _Heard(incident)  # the page asks from several threads: each goes on with its own
    return any(map(heard.says, patterns))


@lru_cache(maxsize=512)  # of some ten classes
def compiled(pattern: str) -> re.Pattern[str]:
    """What evidence may say, letter case aside; raises re.error."""
    return re.compile(pattern, re.IGNORECASE)


STATABLE = 1e18  # larger, infinite or no number at all: nothing a person could use
_NOTHING = Evidence("", "event", "", 0.0, 0.0, "")
