"""`hauswart academy show`: one specialist, the passages of a document, or the configuration in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from models.passages import Index
from training.academy import library
from training.academy.listing import overview
from training.academy.settings import load, to_toml
from training.academy.train import Name

_PASSAGES = 2000  # shown at most


def command(
    *,
    config: Annotated[
        Path | None, typer.Option("--from", help="The configuration file; without one the defaults.")
    ] = None,
    name: Name = "",
    as_config: Annotated[
        bool, typer.Option("--config", help="Print the configuration with every key.")
    ] = False,
    document: Annotated[str, typer.Option("--document", help="Its passages, each with its place.")] = "",
    lessons: Annotated[bool, typer.Option("--lessons", help="What it is taught.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Documents, passages, lessons, figures."""
    settings = load(config)
    if as_config:
        typer.echo(to_toml(settings), nl=False)
        return
    folder = library.folder_of(settings.folder, name or settings.specialist)
    if document:
        found = _passages(folder, document)
        typer.echo("\n".join(json.dumps(one, ensure_ascii=False) if as_json else _line(one) for one in found))
        return
    if lessons:
        rows = library.read_lines(folder / library.LESSONS)
        typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
        return
    result = overview(folder) | {"folder": str(folder), **_kinds(folder), "card": library.read_card(folder)}
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _told(result))


def _passages(folder: Path, document: str) -> list[dict[str, Any]]:
    with Index(folder / library.INDEX) as index:
        found = [one._asdict() | {"place": one.place} for one in index.passages() if one.document == document]
    if not found:
        raise ConfigError(
            f"{folder.name} has no document {document!r}", hint="hauswart academy list names them"
        )
    return found[:_PASSAGES]


def _kinds(folder: Path) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    for row in library.read_lines(folder / library.LESSONS):
        key = f"{row.get('source', 'edited')} {row.get('kind', '')}"
        kinds[key] = kinds.get(key, 0) + 1
    return {"lessons": kinds}


def _line(one: dict[str, Any]) -> str:
    term = f"{one['term']}: " if one["term"] else ""
    return f"{one['place']} ({one['heading']})\n    {term}{one['text']}"


def _told(result: dict[str, Any]) -> str:
    card = result["card"]
    lines = [f"{result['name']} in {result['folder']}"]
    lines += [
        f"  {one['name']}: {one['passages']} passages, {one['lang']}, added {one['added']}"
        for one in result["documents"]
    ]
    lines += [f"  lessons {kind}: {count}" for kind, count in sorted(result["lessons"].items())]
    if result["stale"]:
        lines.append(f"  {result['stale']}")
    if figures := (card.get("decision") or {}).get("figures"):
        lines += [f"  on lessons kept back, {name}: {value:.3f}" for name, value in figures.items()]
    for row in card.get("report") or ():
        lines.append(f"  report, {row['way']}: right {row['right']['value']:.3f}")
    return "\n".join(lines)
