"""What answers are compared with: cases of a prompt, a target and facts, and which of them are held out.

A file is JSONL, one case a line, or TOML or YAML with `[[case]]`:

    prompt = "Explain: Out of memory: Killed process 4711 (mysqld)"
    target = "The kernel killed mysqld because memory ran out."
    system = "Answer in one sentence."            # else that of the command line
    required = ["mysqld", "memory|RAM"]           # | stands between phrases of which one is enough
    forbidden = ["reboot"]
    held_out = true                               # never searched with, only judged

Where no case says `held_out`, a share of them is drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from daemon.errors import ConfigError
from training.similarity import composite, sequence_ratio
from training.workshop.tuning.files import read_tables

MOST_CASES = 10_000
MAX_BYTES = 16 << 20
LEAST_HELD_OUT = 4  # cases, below which none is held out unless it says so


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt and what its answer is compared with."""

    prompt: str
    target: str = ""
    system: str = ""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    held_out: bool | None = None

    def messages(self) -> list[dict[str, str]]:
        """As a server is asked."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        return [*said, {"role": "user", "content": self.prompt}]

    def score(self, answer: str, similarity: str) -> float:
        """How good an answer is, 0..1, by `sequence` or `composite`."""
        if similarity == "sequence":
            return sequence_ratio(answer, self.target)
        return composite(answer, self.target, required=self.required, forbidden=self.forbidden).score


def read_cases(path: Path, *, system: str = "") -> list[Case]:
    """The cases of a file; `system` is for those that have none. Raises ConfigError with the place."""
    if path.suffix.lower() in {".toml", ".yaml", ".yml"}:
        found = read_tables(path)
        rows = found.get("case", found.get("cases"))
        if not isinstance(rows, list):
            raise ConfigError(f"{path} has no [[case]]")
        placed = [(f"{path}, case {number}", one) for number, one in enumerate(rows, 1)]
    else:
        placed = list(_lines(path))
    if not placed:
        raise ConfigError(f"{path} holds no case", hint='like {"prompt": "...", "target": "..."}')
    if len(placed) > MOST_CASES:
        raise ConfigError(f"{path} holds {len(placed)} cases, more than {MOST_CASES}")
    return [check_case(one, where, system=system) for where, one in placed]


def check_case(plain: Any, where: str, *, system: str = "") -> Case:
    """A case from plain values. Raises ConfigError."""
    try:
        case = msgspec.convert(plain, Case)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not case.prompt.strip():
        raise ConfigError(f"{where}: the prompt is empty")
    if not case.target.strip() and not case.required:
        raise ConfigError(f"{where}: there is nothing to compare with", hint="give a target, or required")
    return msgspec.structs.replace(case, system=case.system or system)


def _lines(path: Path) -> Sequence[tuple[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the cases {path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append((f"{path}, line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: no JSON: {error}") from error
    return found


def split(cases: Sequence[Case], share: float) -> tuple[list[Case], list[Case]]:
    """Cases to search with and cases held out: as they say, else a share drawn by the prompts' hashes.

    The draw depends on the prompts alone, so each search of the same cases has the same split. Raises
    ConfigError where none would be left to search with.
    """
    if any(one.held_out is not None for one in cases):
        kept = [one for one in cases if not one.held_out]
        held = [one for one in cases if one.held_out]
    else:
        count = round(share * len(cases)) if len(cases) >= LEAST_HELD_OUT else 0
        ranked = sorted(cases, key=lambda one: hashlib.sha256(one.prompt.encode()).digest())
        chosen = {id(one) for one in ranked[:count]}
        kept = [one for one in cases if id(one) not in chosen]
        held = [one for one in cases if id(one) in chosen]
    if not kept:
        raise ConfigError("all cases are held out", hint="leave some to search with")
    return kept, held
