"""Which verdicts change when one bundle takes another's place: the same texts, asked of both.

A verdict is what the tier would make of the scores, as words by what they are about. Knows nothing of where
the texts come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.bundle import Bundle
from models.runtime import Classifier, Generator

ALERT = 0.5  # the calibrated probability from which a line is worth an alert
MAX_NEW_TOKENS = 128  # of an advice
EXAMPLES = 200

Verdict = Mapping[str, str]


class Change(NamedTuple):
    """A text of which the two bundles think differently; both verdicts whole."""

    text: str
    before: Verdict
    after: Verdict


@dataclass
class Difference:
    """How many texts were asked, how many verdicts changed, each change by what it is about, and examples."""

    asked: int = 0
    changed: int = 0
    by: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: list[Change] = field(default_factory=list)

    def add(self, text: str, before: Verdict, after: Verdict) -> None:
        """Count one text."""
        self.asked += 1
        differing = [name for name in before if before[name] != after.get(name, "")]
        if not differing:
            return
        self.changed += 1
        self.by.update((name, before[name], after.get(name, "")) for name in differing)
        if len(self.examples) < EXAMPLES:
            self.examples.append(Change(text, before, after))


def compare(first: Bundle, second: Bundle, texts: Iterable[str]) -> Difference:
    """Ask both bundles of one tier about encoded texts; raises BundleError or ModelError."""
    found, before, after = Difference(), judge(first), judge(second)
    for text in texts:
        found.add(text, before(text), after(text))
    return found


def judge(bundle: Bundle) -> Callable[[str], Verdict]:
    """What a bundle's tier makes of an encoded text."""
    if bundle.config.kind == "generator":
        generator = Generator(bundle)
        return lambda text: {"text": generator.generate(text, max_tokens=MAX_NEW_TOKENS)}
    classifier = Classifier(bundle)
    read = _line if bundle.manifest.tier == "low" else _situation
    return lambda text: read(classifier.score([text])[0], bundle.config.thresholds, text)


def _line(scores: Mapping[str, list[float]], thresholds: Mapping[str, float], _text: str) -> Verdict:
    from models.lines import decode  # noqa: PLC0415  # each tier only its own

    found = decode(scores, thresholds)
    alert = "yes" if found.alert >= ALERT else "no"
    return {"severity": found.severity_class, "alert": alert, "category": str(found.category)}


def _situation(scores: Mapping[str, list[float]], _thresholds: Mapping[str, float], text: str) -> Verdict:
    from models.situations import FAULTS, SEVERITIES, SLOT_TOKENS  # noqa: PLC0415

    words = set(text.split())
    slots = [number for number, token in enumerate(SLOT_TOKENS) if token in words]
    blamed = max(slots, key=lambda slot: scores["culprit"][slot], default=None)
    return {
        "fault_class": str(FAULTS[_best(scores["fault_class"])]),
        "severity": str(SEVERITIES[_best(scores["severity"])]),
        "culprit": "nobody" if blamed is None else SLOT_TOKENS[blamed],
    }


def _best(values: list[Any]) -> int:
    return max(range(len(values)), key=values.__getitem__)
