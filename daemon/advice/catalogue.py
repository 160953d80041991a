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
from daemon.advice.fill import NAME_PLACEHOLDERS, PLACEHOLDER, VALUE, Sentence, compiled
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


class Choice(NamedTuple):
    """A recommended action, and what the evidence has to say for it."""

    run: str
    said: tuple[str, ...] = ()


class Section(NamedTuple):
    """What is said to one kind of culprit: the commands to recommend, the first that fits, and the words."""

    actions: tuple[Choice, ...]
    words: dict[Lang, Words]


class Entry(NamedTuple):
    """One fault class: its sections and the numbers and names that are general knowledge."""

    constants: tuple[str, ...]
    sections: dict[str, Section]
    unused: frozenset[str] = frozenset()  # signs


@lru_cache(maxsize=4)  # incidents come in bursts of few classes; an entry is up to 0.2 MB
def load(fault: FaultClass) -> Entry:
    """The entry of `fault`; raises IntegrityError when it is missing or wrong."""
    path = FOLDER / f"{fault.value}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        entry = _entry(table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise IntegrityError(f"catalogue {path}: {error!r}", hint="reinstall hauswart") from error
    if problems := problems_of(entry):
        raise IntegrityError(f"catalogue {path}: {problems[0]}", hint="reinstall hauswart")
    return entry


def _entry(table: dict[str, Any]) -> Entry:
    """Raises KeyError, TypeError or re.error where the table is not what it should be."""
    constants, signs = tuple(table.pop("constants", ())), table.pop("signs", {})
    for pattern in signs.values():
        compiled(pattern)
    general = table["any"]
    sections = {name: _section(section, general, signs) for name, section in table.items()}
    return Entry(constants, sections, frozenset(signs) - _signs_of(table))


def _section(section: dict[str, Any], general: dict[str, Any], signs: dict[str, str]) -> Section:
    """A section says only what differs from `any`; a string stands for the sentence of that name there."""
    parts = {
        part: [_resolved(item, _named(general[part])) for item in section.get(part, general[part])]
        for part in _PARTS
    }
    words = {
        lang: Words(
            *(
                tuple(tuple(_sentence(one, lang, signs) for one in item) for item in parts[part])
                for part in _PARTS
            )
        )
        for lang in LANGUAGES
    }
    found = section.get("action", general["action"])
    choices = [found] if isinstance(found, str) else found
    actions = ({"run": one} if isinstance(one, str) else one for one in choices)
    return Section(tuple(Choice(one["run"], _patterns(one.get("said", ""), signs)) for one in actions), words)


def _named(items: list[Any]) -> dict[str, dict[str, Any]]:
    every = (one for item in items for one in (item if isinstance(item, list) else [item]))
    return {one["name"]: one for one in every if "name" in one}


def _resolved(item: Any, named: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    alternatives = item if isinstance(item, list) else [item]
    return [named[one] if isinstance(one, str) else one for one in alternatives]


def _sentence(table: dict[str, Any], lang: Lang, signs: dict[str, str]) -> Sentence:
    conditions = {key: value for key, value in table.items() if key not in {"name", *LANGUAGES}}
    for key in {"said", "unsaid"} & conditions.keys():
        conditions[key] = _patterns(conditions[key], signs)
    return Sentence(table[lang], **conditions)


def _patterns(names: str, signs: dict[str, str]) -> tuple[str, ...]:
    return tuple(signs[name] for name in names.split())


def _signs_of(table: Any) -> set[str]:
    """The signs that are named anywhere in a table."""
    if isinstance(table, list):
        return set().union(*map(_signs_of, table))
    if not isinstance(table, dict):
        return set()
    own = {name for key in ("said", "unsaid") for name in table.get(key, "").split()}
    return own.union(*map(_signs_of, table.values()))


def problems_of(entry: Entry) -> list[str]:
    """What is wrong with an entry, in words; empty when nothing is."""
    problems = [f"unknown section {name}" for name in entry.sections.keys() - SECTIONS]
    problems += [f"the sign {name} is used nowhere" for name in sorted(entry.unused)]
    for name, section in entry.sections.items():
        for choice in section.actions:
            action = allow_list().get(choice.run)
            if action is None or action.changes:
                problems.append(f"[{name}] {choice.run!r} is not a read-only action")
        if section.actions[-1].said:
            problems.append(f"[{name}] no action is left where nothing of that is said")
        for lang in LANGUAGES:
            for part in _PARTS:
                group: Group = getattr(section.words[lang], part)
                if not group:
                    problems.append(f"[{name}.{lang}] says nothing under {part}")
                where = f"[{name}.{lang}] {part}"
                if part == "look" and any("{run:" not in s.text for item in group for s in item):
                    problems.append(f"{where}: a check without a command")
                problems += [
                    f"{where}: {p}" for item in group for s in item for p in _faults_of(s, entry.constants)
                ]
    return problems


def _faults_of(sentence: Sentence, constants: tuple[str, ...]) -> list[str]:
    unasked = "{said}" in sentence.text and not sentence.said
    return [*faults_of(sentence.text, constants), *(["{said} of what is not asked for"] if unasked else [])]


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
    if placeholder in NAME_PLACEHOLDERS | {"quote", "said", "gap", "name"}:
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
