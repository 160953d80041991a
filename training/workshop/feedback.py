"""`hauswart workshop export-feedback`: ratings and edits as ChatML and preference pairs, in data/feedback.

From an application's database (SQLite, PostgreSQL), or from this host's own store. What was called good is
learned as it is; an edited output gives its better text to learn, and both texts as a pair. What was called
bad teaches nothing by itself and is kept apart, for a look.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.command.session import session_of
from daemon.errors import ConfigError
from training import chatml
from training.chatml import Row
from training.workshop import folders, ratings, settings
from training.workshop.ratings import Rating

VARIABLE = "DATABASE_URL"
CHATML, PREFERENCES, BAD = "database.jsonl", "database_pairs.jsonl", "bad.json"


def export(url: str, out: Path, feedback: dict[str, Any]) -> dict[str, int]:
    """Write the files into `out`; how many rows of each kind there are. Raises ConfigError, HauswartError."""
    rows: list[Row] = []
    pairs: list[Row] = []
    bad: list[Row] = []
    counts = {"good": 0, "edited": 0, "bad": 0, "unusable": 0}
    for one in ratings.read(url, ratings.mapped(feedback)):
        try:
            made = _row(one)
            pair = _pair(one) if one.verdict == "edited" else None
        except ValueError:
            counts["unusable"] += 1
            continue
        counts[one.verdict] += 1
        (bad if one.verdict == "bad" else rows).append(made)
        pairs += [pair] if pair else []
    out.mkdir(parents=True, exist_ok=True)
    chatml.write_rows(rows, out / CHATML)
    chatml.write_rows(pairs, out / PREFERENCES)
    # Not .jsonl: `prepare` reads those, and a bad answer is not to be learned.
    part = out / f"{BAD}.part"
    part.write_text(json.dumps(bad, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    part.replace(out / BAD)
    return counts | {"rows": len(rows), "pairs": len(pairs)}


def _asked(one: Rating) -> list[chatml.Message]:
    system = [{"role": "system", "content": one.system}] if one.system.strip() else []
    return [*system, {"role": "user", "content": one.prompt}]


def _known(one: Rating) -> Row:
    more = {"task": one.task, "lang": one.language, "verdict": one.verdict}
    return {name: value for name, value in more.items() if value}


def _row(one: Rating) -> Row:
    """Raises ValueError."""
    text = one.edited if one.verdict == "edited" else one.output
    row = {"messages": [*_asked(one), {"role": "assistant", "content": text}], **_known(one)}
    row = chatml.normalise(row)
    chatml.check(row)
    return row


def _pair(one: Rating) -> Row:
    """Raises ValueError."""
    sides = {"chosen": one.edited, "rejected": one.output}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
    row = chatml.normalise({"prompt": _asked(one), **answers, **_known(one)})
    chatml.check_pair(row)
    return row


def command(
    context: typer.Context,
    *,
    database_url: Annotated[
        str, typer.Option("--database-url", help=f"postgresql://... or sqlite:///...; else ${VARIABLE}.")
    ] = "",
    store: Annotated[
        Path | None, typer.Option("--store", help="hauswart's own store instead; `-`: this host's.")
    ] = None,
    workdir: folders.Workdir = Path(),
    config: folders.Config = None,
    as_json: folders.AsJson = False,
) -> None:
    """Writes data/feedback/*.jsonl."""
    url = database_url or os.environ.get(VARIABLE, "")
    out = workdir / folders.FEEDBACK
    if store is not None:
        from training.feedback import export_feedback  # noqa: PLC0415

        path = session_of(context).store_path if str(store) == "-" else store
        counts = export_feedback(path, out)
    elif url:
        counts = export(url, out, dict(settings.load(config).feedback))
    else:
        raise ConfigError(
            "nothing says where the feedback is",
            hint=f"--database-url, ${VARIABLE}, or --store - for hauswart's own",
        )
    if as_json:
        sys.stdout.write(json.dumps({**counts, "out": str(out)}) + "\n")
        return
    told = ", ".join(f"{name.removesuffix('.jsonl')} {count}" for name, count in counts.items())
    sys.stdout.write(f"{told}\nwritten to {out}\nnext: hauswart workshop prepare\n")
