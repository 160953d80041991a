"""Reads the tables that verbs are given, and says exactly what is wrong with a file that is not one.

A file may be damaged or hostile: sizes are bounded, and every complaint names file, line, column and value.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from daemon.errors import ConfigError

MAX_BYTES = 2 << 30
MAX_FIELD_CHARS = 1 << 20
_SHOWN_CHARS = 60


class DataError(ConfigError):
    """A data file cannot be used; says which file, line, column and value."""


class Row(NamedTuple):
    """One record; `line` is where it ends in its file, from 1."""

    line: int
    values: dict[str, str]


class Table(NamedTuple):
    """A CSV file with a header."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def wrong(self, row: Row, column: str, expected: str) -> DataError:
        """The error for a value that is not what it should be."""
        value = row.values[column]
        shown = value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "..."
        return DataError(f"{self.path}, line {row.line}, column {column}: {shown!r} is not {expected}")

    def integer(self, row: Row, column: str, low: int, high: int) -> int:
        """A whole number within bounds."""
        try:
            value = int(row.values[column])
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise self.wrong(row, column, f"a whole number from {low} to {high}")
        return value


def read_csv(path: Path, required: Iterable[str] = ()) -> Table:
    """A whole CSV file (RFC 4180, UTF-8) with at least one row; raises DataError."""
    rows = _records(path)
    columns = _header(path, next(rows, None), tuple(required))
    table = Table(path, columns, [])
    for line, fields in rows:
        if not fields:
            continue
        if len(fields) != len(columns):
            raise DataError(f"{path}, line {line}: {len(fields)} fields where the header has {len(columns)}")
        table.rows.append(Row(line, dict(zip(columns, fields, strict=True))))
    if not table.rows:
        raise DataError(f"{path} has a header and no row")
    return table


def header(path: Path, required: Iterable[str] = ()) -> tuple[str, ...]:
    """The column names of a CSV file, which must have the required ones; raises DataError."""
    return _header(path, next(_records(path), None), tuple(required))


def check_size(path: Path, most: int = MAX_BYTES) -> int:
    """The size of a regular file; raises DataError where there is none or it is too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not path.is_file():
        raise DataError(f"{path} is not a regular file")
    if not size:
        raise DataError(f"{path} is empty")
    if size > most:
        raise DataError(f"{path} has {size} bytes; at most {most} are read")
    return size


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    check_size(path)
    csv.field_size_limit(MAX_FIELD_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for fields in reader:
                yield reader.line_num, fields
        except UnicodeDecodeError as error:
            near = reader.line_num + 1
            raise DataError(
                f"{path}, near line {near}: not UTF-8 (byte {error.object[error.start]:#x})"
            ) from error
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _header(path: Path, first: tuple[int, list[str]] | None, required: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in first[1]) if first else ()
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}, line 1: column {twice!r} stands there twice")
    for name in required:
        if name not in columns:
            near = get_close_matches(name, columns, 1)
            hint = f"is {near[0]!r} meant?" if near else f"columns there: {', '.join(columns)[:200]}"
            raise DataError(f"{path}, line 1: no column {name!r}", hint=hint)
    return columns
