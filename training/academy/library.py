"""A specialist's folder: its documents' index, its lessons, its adapter and what it was made with.

NAME/index.sqlite   documents, sections, passages (`models.passages`)
NAME/lessons.jsonl  what it is taught; may be edited before training
NAME/adapter/       what training made, with a manifest of hashes
NAME/paragraphs.npz, asked.npz   paragraphs and lessons' questions as vectors (`training.academy.vectors`)
NAME/academy.toml   the configuration it was made with
NAME/card.json      figures, calibration, state
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError
from models.passages import FORMAT, SCHEMA, stems_of
from training.academy.blocks import Document
from training.academy.chunks import Section, split_document

INDEX, LESSONS, ADAPTER, CARD = "index.sqlite", "lessons.jsonl", "adapter", "card.json"
PARAGRAPHS, ASKED = "paragraphs.npz", "asked.npz"
READER = "reader.safetensors"  # in the adapter's folder
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Json = dict[str, Any]


def folder_of(home: Path, name: str, *, must: bool = True) -> Path:
    """A specialist's folder. Raises ConfigError for a name that is none or, if it `must` be there, new."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a specialist", hint="letters, digits, '.', '_', '-'")
    folder = home / name
    if must and not (folder / INDEX).is_file():
        known = ", ".join(names(home)) or "none yet"
        raise ConfigError(f"there is no specialist {name!r} in {home}", hint=f"there is: {known}")
    return folder


def names(home: Path) -> list[str]:
    """The specialists that there are."""
    return sorted(path.parent.name for path in home.glob(f"*/{INDEX}"))


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index for writing, made if it is not there; what fails is undone."""
    folder.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(folder / INDEX)
    try:
        with base:
            base.executescript(SCHEMA)
            base.execute(f"PRAGMA user_version = {FORMAT}")
        with base:
            yield base
    finally:
        base.close()


def add_document(base: sqlite3.Connection, document: Document) -> list[Section]:
    """Store a document's passages, in place of those of an older file of its path; its sections."""
    for (old,) in base.execute(
        "SELECT id FROM documents WHERE path = ? OR sha256 = ?", (str(document.path), document.sha256)
    ).fetchall():
        remove_document(base, old)
    sections = split_document(document)
    lang = max(("en", "de"), key=lambda one: sum(section.lang == one for section in sections))
    key = base.execute(
        "INSERT INTO documents(name, path, format, sha256, pages, lang, added) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            document.name,
            str(document.path),
            document.format,
            document.sha256,
            document.pages,
            lang,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        ),
    ).lastrowid
    for section in sections:
        _add_section(base, key or 0, section)
    return sections


def _add_section(base: sqlite3.Connection, document: int, section: Section) -> None:
    first = section.pieces[0]
    key = base.execute(
        "INSERT INTO sections(document, heading, lang, text, page, line) VALUES (?, ?, ?, ?, ?, ?)",
        (document, section.heading, section.lang, section.text, first.page, first.line),
    ).lastrowid
    base.execute(
        "INSERT INTO section_terms(rowid, heading, body) VALUES (?, ?, ?)",
        (key, stems_of(section.heading, section.lang), stems_of(section.text, section.lang)),
    )
    for piece in section.pieces:
        row = base.execute(
            "INSERT INTO passages(section, kind, term, text, page, line) VALUES (?, ?, ?, ?, ?, ?)",
            (key, piece.kind, piece.term, piece.text, piece.page, piece.line),
        ).lastrowid
        base.execute(
            "INSERT INTO passage_terms(rowid, term, body) VALUES (?, ?, ?)",
            (
                row,
                stems_of(f"{piece.term} {section.heading}", section.lang),
                stems_of(piece.text, section.lang),
            ),
        )


def remove_document(base: sqlite3.Connection, key: int) -> None:
    """Take a document with all its passages out."""
    inside = "SELECT id FROM sections WHERE document = ?"
    base.execute(
        f"DELETE FROM passage_terms WHERE rowid IN (SELECT id FROM passages WHERE section IN ({inside}))",  # noqa: S608
        (key,),
    )
    base.execute(f"DELETE FROM passages WHERE section IN ({inside})", (key,))  # noqa: S608 - ours
    base.execute(f"DELETE FROM section_terms WHERE rowid IN ({inside})", (key,))  # noqa: S608 - ours
    base.execute("DELETE FROM sections WHERE document = ?", (key,))
    base.execute("DELETE FROM documents WHERE id = ?", (key,))


def shrink(folder: Path) -> None:
    """Rewrite the index without what was deleted, so that no word of it stays in the file."""
    base = sqlite3.connect(folder / INDEX)
    try:
        base.execute("VACUUM")
    finally:
        base.close()


def documents(base: sqlite3.Connection) -> list[Json]:
    """The documents with their numbers of passages."""
    rows = base.execute(
        "SELECT d.id, d.name, d.path, d.format, d.sha256, d.pages, d.lang, d.added, count(p.id)"
        " FROM documents d LEFT JOIN sections s ON s.document = d.id"
        " LEFT JOIN passages p ON p.section = s.id GROUP BY d.id ORDER BY d.name"
    )
    keys = ("id", "name", "path", "format", "sha256", "pages", "lang", "added", "passages")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def read_card(folder: Path) -> Json:
    """What is known of a specialist, {} before it was trained. Raises ConfigError for a damaged one."""
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{folder / CARD} is damaged: {error}") from error
    return found if isinstance(found, dict) else {}


def write_card(folder: Path, **entries: Any) -> None:
    """Put entries into the card; the file is never half written."""
    card = read_card(folder) | entries
    fresh = folder / f"{CARD}.new"
    fresh.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, folder / CARD)  # noqa: PTH105 - replaces in one step


def read_lines(path: Path) -> list[Json]:
    """The rows of a JSONL file; raises ConfigError with the line that is wrong."""
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ConfigError(f"{path}:{number}: is no JSON object")
                    rows.append(row)
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ConfigError(f"{path}:{number}: {error}", hint="one JSON object a line") from error
    return rows


def write_lines(path: Path, rows: Iterable[Json]) -> None:
    """A JSONL file, never half written."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(fresh, path)  # noqa: PTH105 - replaces in one step
