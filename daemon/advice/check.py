"""The fact check: every number, unit, name and command of an advice must come from its incident.

It guards the catalogue's texts and any model's alike. What it accepts beside the evidence are the constants
that the reviewed catalogue lists for the incident's fault class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from daemon.advice import catalogue
from daemon.advice.actions import allowed
from daemon.advice.facts import Fact, is_quotation, names, numbers
from daemon.advice.formats import Lang, parse
from daemon.advice.subjects import quoted_parts
from daemon.advice.tokens import SPELLED, Token, scan
from daemon.errors import IntegrityError
from daemon.messages import Advice, Incident

LENGTH_MAX = 900  # what a person reads at night, and what fits a notification
_CODE = re.compile(r"`([^`]*)`")
_MARKS = re.compile(r"[“”„‟«»`]")
# A share that words claim, who may claim it by the evidence, and how much there must be of it at some time.
_MOST = re.compile(r"most of the processor|größten Teil (?:der Rechenzeit|des Prozessors)")
_HALF = 0.5


class Violation(NamedTuple):
    """What in the text is not covered, and why."""

    part: str
    reason: str


class Citation(NamedTuple):
    """A line that names a page of the operator's documents, and that place."""

    line: str
    place: str


def check_advice(advice: Advice, incident: Incident, *, cited: str = "") -> list[Violation]:
    """Everything wrong with the text and the action of an advice; empty when it may be shown.

    `cited` is the line that names a page of the operator's documents (`daemon.advice.runbooks`); it may be
    the text's last, and holds no fact about the incident.
    """
    found = check(advice.text.removesuffix(f"\n\n{cited}") if cited else advice.text, incident, advice.lang)
    if not advice.text.strip():
        found.append(Violation("", "says nothing"))
    if len(advice.text) > LENGTH_MAX:
        found.append(Violation(advice.text[-20:], f"longer than {LENGTH_MAX} characters"))
    return found + check_action(advice.action, incident)


def check_action(action: str, incident: Incident) -> list[Violation]:
    """Why `action` may not be recommended; empty when it may, or when it is empty."""
    if not action:
        return []
    known = allowed(incident).get(action)
    if known is None:
        return [Violation(action, "not in the allow-list with this incident's culprits")]
    return [Violation(action, "alters the host")] if known.changes else []


def check(text: str, incident: Incident, lang: Lang) -> list[Violation]:
    """Every number, name, quotation and command of `text` that the incident does not hold."""
    found, text = _commands(text, incident)
    known = names(incident)
    wrong, text = _quotations(text, incident, known, lang)
    text = catalogue.blank_constants(text, _constants(incident))
    return found + wrong + _shares(text, incident) + _tokens(text, known, list(numbers(incident)), lang)


def _constants(incident: Incident) -> tuple[str, ...]:
    try:
        return catalogue.load(incident.fault_class).constants
    except IntegrityError:
        return ()  # stricter; the broken catalogue itself is named by the top tier


def _commands(text: str, incident: Incident) -> tuple[list[Violation], str]:
    """Blanks what stands between backticks after comparing it with the allow-list."""
    spans = list(_CODE.finditer(text))
    commands = allowed(incident) if spans else {}
    found = [Violation(m[1], "command is not in the allow-list") for m in spans if m[1] not in commands]
    return found, _CODE.sub(lambda match: " " * len(match[0]), text)


def _quotations(
    text: str, incident: Incident, known: dict[str, str], lang: Lang
) -> tuple[list[Violation], str]:
    """Blanks what stands in quotation marks after comparing it with names and log lines."""
    found = []
    for start, end in quoted_parts(text, lang):
        quoted = text[start + 1 : end - 1]
        if not is_quotation(quoted, incident, known):
            found.append(Violation(quoted, "quotation occurs neither as a name nor in a log line"))
        text = text[:start] + " " * (end - start) + text[end:]
    found += [Violation(mark, "quotation mark without its partner") for mark in _MARKS.findall(text)]
    return found, text


def _tokens(text: str, known: dict[str, str], facts: list[Fact], lang: Lang) -> list[Violation]:
    found = []
    for token in scan(text):
        if token.kind == "name" and token.text not in known:
            found.append(Violation(token.text, "name occurs neither in the evidence nor among the culprits"))
        elif token.kind == "number":
            found += _number(token, text, facts, lang)
        elif token.kind == "word" and token.text.lower() in SPELLED:
            found += _spelled(token, facts)
    return found


def _shares(text: str, incident: Incident) -> list[Violation]:
    claim = _MOST.search(text)
    if claim is None or any(_processor_share(one.values) > _HALF for one in incident.evidence):
        return []
    return [Violation(claim[0], "no evidence holds a share above one half")]


def _processor_share(values: Mapping[str, float]) -> float:
    """The culprit's, of all cores; nothing where no evidence measures it."""
    return values.get("cpu_cores", 0.0) / max(1.0, values.get("cores_count", math.inf))


def _number(token: Token, text: str, facts: list[Fact], lang: Lang) -> list[Violation]:
    quantity = parse(text, token.start, lang)
    if quantity is None:
        return [Violation(token.text, "number is not written as this language writes it")]
    written = text[token.start : quantity.end]
    if any(quantity.states(fact.value, fact.dimension) for fact in facts):
        return []
    return [Violation(written, f"no evidence holds this {quantity.dimension} value")]


def _spelled(token: Token, facts: list[Fact]) -> list[Violation]:
    value = SPELLED[token.text.lower()]
    if any(fact.dimension == "plain" and fact.value == value for fact in facts):
        return []
    return [Violation(token.text, "no evidence holds this spelled-out number")]
