"""`hauswart academy forget`: a document, or a whole specialist.

A document goes with its passages and with every lesson made of it. What the adapter learned of it cannot be
taken out; so the adapter goes too, and training anew is named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from training.academy import library, replay, teacher
from training.academy.settings import load
from training.academy.train import TRAINED_ON, Config, Name

_LEARNED = (
    "its adapter had learned from a document that was forgotten and went too;"
    " hauswart academy train --resume makes a new one"
)


def forget_document(folder: Path, document: str) -> dict[str, Any]:
    """Take one document out; what went. Raises ConfigError for one that is not there."""
    with library.opened(folder) as base:
        found = [one for one in library.documents(base) if document in {one["name"], one["path"]}]
        if not found:
            known = ", ".join(one["name"] for one in library.documents(base))
            raise ConfigError(f"{folder.name} has no document {document!r}", hint=f"it has: {known}")
        keys = [one["id"] for one in found]
        sections = {
            row[0]
            for key in keys
            for row in base.execute("SELECT id FROM sections WHERE document = ?", (key,))
        }
        for key in keys:
            library.remove_document(base, key)
    with library.opened(folder) as base:
        base.execute("INSERT INTO section_terms(section_terms) VALUES ('optimize')")
        base.execute("INSERT INTO passage_terms(passage_terms) VALUES ('optimize')")
    library.shrink(folder)
    names = {one["name"] for one in found}
    rows = library.read_lines(folder / library.LESSONS)
    kept = [row for row in rows if row.get("document") not in names]
    library.write_lines(folder / library.LESSONS, kept)
    taught = library.read_lines(folder / teacher.FILE)
    library.write_lines(folder / teacher.FILE, [row for row in taught if row.get("section") not in sections])
    for name in (library.PARAGRAPHS, library.ASKED):
        (folder / name).unlink(missing_ok=True)
    learned = (folder / library.ADAPTER).is_dir()
    shutil.rmtree(folder / library.ADAPTER, ignore_errors=True)
    for path in folder.glob("report*"):
        path.unlink()
    library.write_card(folder, trained=False, decision=None, report=None, stale=_LEARNED if learned else "")
    return {
        "forgot": sorted(names),
        "passages": sum(one["passages"] for one in found),
        "lessons": len(rows) - len(kept),
        "adapter": learned,
        "note": _LEARNED if learned else "",
    }


def forget_specialist(folder: Path) -> dict[str, Any]:
    """Remove everything of a specialist."""
    known = {
        library.INDEX,
        library.LESSONS,
        library.CARD,
        teacher.FILE,
        replay.FILE,
        "academy.toml",
        library.ADAPTER,
        TRAINED_ON,
        library.PARAGRAPHS,
        library.ASKED,
        "export",
    }
    strange = [
        path.name
        for path in folder.iterdir()
        if path.name not in known and not path.name.startswith("report")
    ]
    if strange:
        raise ConfigError(
            f"{folder} holds what is not the academy's: {', '.join(sorted(strange))}",
            hint="move it away first",
        )
    shutil.rmtree(folder)
    return {"forgot": [folder.name], "note": "the specialist with all its documents, lessons and its adapter"}


def command(
    document: Annotated[
        str, typer.Argument(help="A document's name or path; none: the whole specialist.")
    ] = "",
    *,
    config: Config = None,
    name: Name = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What is forgotten is gone: passages, lessons, and the adapter that learned from them."""
    settings = load(config)
    folder = library.folder_of(settings.folder, name or settings.specialist)
    what = f"{document!r} of {folder.name}" if document else f"the whole specialist {folder.name}"
    if not yes and not typer.confirm(f"forget {what}?"):
        raise typer.Exit(1)
    result = forget_document(folder, document) if document else forget_specialist(folder)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _told(result))


def _told(result: dict[str, Any]) -> str:
    counted = f" ({result['passages']} passages, {result['lessons']} lessons)" if "passages" in result else ""
    return f"forgot {', '.join(result['forgot'])}{counted}" + (
        f"\n{result['note']}" if result["note"] else ""
    )
