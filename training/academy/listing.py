"""`hauswart academy list`: the specialists and their documents."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from training.academy import library
from training.academy.settings import load
from training.academy.train import Config


def command(*, config: Config = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """One line a specialist, one a document."""
    home = load(config).folder
    found = [overview(home / name) for name in library.names(home)]
    if as_json:
        typer.echo(json.dumps({"home": str(home), "specialists": found}, ensure_ascii=False))
        return
    typer.echo(
        "\n".join(map(_told, found))
        if found
        else f"no specialist in {home}; hauswart academy train makes one"
    )


def overview(folder: Any) -> dict[str, Any]:
    """A specialist's name, state and documents."""
    card = library.read_card(folder)
    with library.opened(folder) as base:
        listed = library.documents(base)
    return {
        "name": folder.name,
        "trained": bool(card.get("trained")),
        "stale": card.get("stale", ""),
        "base": card.get("base", ""),
        "judge": card.get("judge", ""),
        "documents": listed,
    }


def _told(one: dict[str, Any]) -> str:
    trained = f"trained on {one['base']}" + (f", judged by {one['judge']}" if one["judge"] else "")
    state = one["stale"] or (trained if one["trained"] else "not trained, retrieval only")
    lines = [f"{one['name']}: {state}"]
    for document in one["documents"]:
        size = f"{document['pages']} pages, " if document["pages"] else ""
        kind = f"{document['format']}, {document['lang']}"
        lines.append(f"  {document['name']} ({kind}): {size}{document['passages']} passages")
    return "\n".join(lines)
