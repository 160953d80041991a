"""The allow-list of commands: fixed templates whose arguments come only from collector-made names.

hauswart itself never runs one of them; they are shown to a person, who may paste them into a root shell.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from daemon.advice.facts import base_name
from daemon.advice.subjects import argument, named
from daemon.errors import IntegrityError
from daemon.messages import Incident
from models.taxonomy import SubjectKind

_FILE = Path(__file__).with_name("actions.toml")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Action(NamedTuple):
    """A command template; `changes` marks what alters the host, which is never the recommended command.

    `variants` replace the template where the log is no journal, by where the log line came from.
    """

    command: str
    changes: bool
    variants: dict[str, str]


@cache
def allow_list() -> dict[str, Action]:
    """Every action by its name; raises IntegrityError when the file is not what it should be."""
    try:
        table = tomllib.loads(_FILE.read_text("utf-8"))
        found = {
            name: Action(command, kind == "change", {o: table[o][name] for o in _ORIGINS if name in table[o]})
            for kind in ("read", "change")
            for name, command in table[kind].items()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"allow-list {_FILE}: {error!r}", hint="reinstall hauswart") from error
    return found


_ORIGINS = ("kernel", "file")


def render(name: str, incident: Incident) -> str | None:
    """The command of action `name` for this incident, or None when an argument is missing or refused.

    The texts blame the first process: no other program's pid stands in for one that it lacks.
    """
    action = allow_list()[name]
    origin, arguments = _log(incident)
    template = action.variants.get(origin, action.command)
    subjects = named(incident)
    program = next((base_name(one) for kind, one in subjects if kind is SubjectKind.PROCESS), "")
    for kind, subject in subjects:
        if kind is SubjectKind.PROCESS and base_name(subject) != program:
            continue
        if found := argument(kind, subject):
            arguments.setdefault(*found)
    if not set(_PLACEHOLDER.findall(template)) <= arguments.keys():
        return None
    return _PLACEHOLDER.sub(lambda match: arguments[match[1]], template)


def _log(incident: Incident) -> tuple[str, dict[str, str]]:
    """Where the incident's first log line was read: "kernel", "file" with its path, or "" for the journal."""
    lines = [one for one in incident.evidence if one.kind == "line"]
    for evidence in lines[:1] or incident.evidence:
        if evidence.ref == "kernel":
            return "kernel", {}
        if evidence.ref.startswith("file:") and (path := argument(SubjectKind.FILE, evidence.ref[5:])):
            return "file", {"log": path[1]}
    return "", {}


def allowed(incident: Incident) -> dict[str, Action]:
    """Every command that may be shown for this incident, by its exact text."""
    rendered = {render(name, incident): action for name, action in allow_list().items()}
    return {command: action for command, action in rendered.items() if command is not None}
