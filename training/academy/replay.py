"""General conversations to train along: everyday requests with the base's own answers.

A model drilled on facts alone answers everything with confidence; what it would have said before keeps it
where it was. The answers are kept in the specialist's folder, by base.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.academy import library

FILE = "replay.jsonl"
TOKENS = 40
_BATCH = 8


def rows(base: str, count: int, folder: Path, *, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Up to `count` conversations."""
    kept = [row for row in library.read_lines(folder / FILE) if row.get("base") == base]
    if not kept:
        tell("asking the base general questions, so that it keeps what it knows")
        kept = _ask(base)
        library.write_lines(folder / FILE, kept)
    repeated = kept * (count // max(1, len(kept)) + 1)
    return [{"messages": row["messages"]} for row in repeated[:count]]


def _ask(base: str) -> list[dict[str, Any]]:
    from training.academy.specialist import load_base  # noqa: PLC0415 - seconds

    model = load_base(base)
    found = []
    asked = [one for prompts in requests().values() for one in prompts]
    for start in range(0, len(asked), _BATCH):
        part = [[{"role": "user", "content": one}] for one in asked[start : start + _BATCH]]
        for messages, said in zip(part, model.say(part, TOKENS), strict=True):
            if said:
                found.append({"base": base, "messages": [*messages, {"role": "assistant", "content": said}]})
    return found


def requests() -> dict[str, list[str]]:
    """The requests by language."""
    return tomllib.loads(Path(__file__).with_name("replay.toml").read_text("utf-8"))
