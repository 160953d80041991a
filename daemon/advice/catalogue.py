"""The reviewed catalogue: one file a fault class, one section a kind of culprit, both languages.

A class's file is parsed only when an incident of that class is to be explained. Loading checks what a
reviewer cannot see at a glance: every placeholder is known, every command is in the allow-list, and the
only numbers and names written in a template are the file's own `constants`.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from daemon.advice.actions import allow_list
from daemon.advice.fill import NAME_PLACEHOLDERS, PLACEHOLDER, VALUE, Sentence, sentences
from daemon.advice.formats import DIMENSION_OF_FORMAT, FORMATS, Lang, dimension_of
from daemon.advice.tokens import SPELLED, scan
from daemon.errors import IntegrityError
from models.taxonomy import FaultClass, SubjectKind

FOLDER = Path(__file__).with_name("catalogue")
LANGUAGES: tuple[Lang, ...] = ("en", "de")
SECTIONS = frozenset(kind.value for kind in SubjectKind) - {"host"} | {
    "any",
    "group",
    "virtual-interface",
    "physical-interface",
    "virtual-device",
    "mapped-device",
    "array",
}
_PARTS = ("means", "look", "help")

Group = tuple[tuple[Sentence, ...], ...]  # sentences, each with its alternatives


class Words(NamedTuple):
    """One section in one language."""

    means: Group
    look: Group
    help: Group


class Section(NamedTuple):
    """What is said to one kind of culprit: recommended action and the words by language."""

    action: str
    words: dict[Lang, Words]


class Entry(NamedTuple):
    """One fault class: its sections and the numbers and names that are general knowledge."""

    constants: tuple[str, ...]
    sections: dict[str, Section]


@lru_cache(maxsize=4)  # incidents come in bursts of few classes; an entry is some 30 KB
def load(fault: FaultClass) -> Entry:
    """The entry of `fault`; raises IntegrityError when it is missing or wrong."""
    path = FOLDER / f"{fault.value}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        entry = _entry(table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"catalogue {path}: {error!r}", hint="reinstall hauswart") from error
    if problems := problems_of(entry):
        raise IntegrityError(f"catalogue {path}: {problems[0]}", hint="reinstall hauswart")
    return entry


def _entry(table: dict[str, Any]) -> Entry:
    constants = tuple(table.pop("constants", ()))
    general = table["any"]
    return Entry(constants, {name: _section(section, general) for name, section in table.items()})


def _section(section: dict[str, Any], general: dict[str, Any]) -> Section:
    """A section says only what differs from `any`."""
    words = {}
    for lang in LANGUAGES:
        merged = general[lang] | section.get(lang, {})
        words[lang] = Words(*(tuple(map(sentences, merged[part])) for part in _PARTS))
    return Section(section.get("action", general["action"]), words)


def problems_of(entry: Entry) -> list[str]:
    """What is wrong with an entry, in words; empty when nothing is."""
    problems = [f"unknown section {name}" for name in entry.sections.keys() - SECTIONS]
    for name, section in entry.sections.items():
        action = allow_list().get(section.action)
        if action is None or action.changes:
            problems.append(f"[{name}] {section.action!r} is not a read-only action")
        for lang in LANGUAGES:
            for part in _PARTS:
                group: Group = getattr(section.words[lang], part)
                if not group:
                    problems.append(f"[{name}.{lang}] says nothing under {part}")
                where = f"[{name}.{lang}] {part}"
                if part == "look" and any("{run:" not in s.text for item in group for s in item):
                    problems.append(f"{where}: a check without a command")
                problems += [
                    f"{where}: {p}"
                    for item in group
                    for s in item
                    for p in faults_of(s.text, entry.constants)
                ]
    return problems


def faults_of(text: str, constants: tuple[str, ...]) -> list[str]:
    """What is wrong with one template."""
    found = [fault for p in PLACEHOLDER.findall(text) if (fault := _placeholder_fault(p))]
    literal = blank_constants(PLACEHOLDER.sub("…", text), constants)
    for token in scan(literal):
        if token.kind in {"number", "name"} and "…" not in token.text:
            found.append(f"{token.text!r} is neither from evidence nor one of the constants")
        elif token.text.lower() in SPELLED:
            found.append(f"{token.text!r} states a number")
    return found


def _placeholder_fault(placeholder: str) -> str:
    if placeholder in NAME_PLACEHOLDERS | {"quote", "gap", "name"}:
        return ""
    if placeholder.startswith("run:"):
        return "" if placeholder[4:] in allow_list() else f"unknown action {placeholder}"
    match = VALUE.fullmatch(placeholder)
    if match is None or match[3] not in FORMATS:
        return f"unknown placeholder {{{placeholder}}}"
    if DIMENSION_OF_FORMAT[match[3]] != dimension_of(match[1]):
        return f"{match[1]} is no {match[3]}"
    return ""


def blank_constants(text: str, constants: tuple[str, ...]) -> str:
    """`text` with every whole constant replaced by blanks, so that offsets stay."""
    for constant in constants:
        whole = rf"(?<![^\s(]){re.escape(constant)}(?=[.,:;!?)]*(?:\s|$))"
        text = re.sub(whole, " " * len(constant), text)
    return text
