"""The log of a search: a JSONL file whose head says of what; each trial is one line, written when done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError

Trial = dict[str, Any]


def open_log(path: Path, head: Mapping[str, Any], *, resume: bool) -> list[Trial]:
    """The trials that were done; a half-written last line, from a crash, is dropped.

    Raises ConfigError where the file is the log of something else, or of this and `resume` is not set.
    """
    head = json.loads(json.dumps(head))  # as it is read back
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    if not lines or not any(lines[:-1]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return []
    if not resume:
        raise ConfigError(f"{path} holds a search", hint="--resume goes on with it; or another --out")
    whole = lines[:-1]  # what follows the last line's end was cut short, or is nothing
    try:
        first, *trials = [json.loads(line) for line in whole]
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="choose another --out") from error
    if first != head:
        raise ConfigError(
            f"{path} is a search of something else: {_differing(first, head)}", hint="choose another --out"
        )
    path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    return trials


def append(path: Path, trial: Mapping[str, Any]) -> None:
    """Write one trial down."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(trial, ensure_ascii=False) + "\n")


def _differing(first: Any, head: Mapping[str, Any]) -> str:
    known = first if isinstance(first, dict) else {}
    return ", ".join(sorted(name for name in {*known, *head} if known.get(name) != head.get(name)))


def read_log(path: Path) -> list[Trial]:
    """The lines after the first, as they were written."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
