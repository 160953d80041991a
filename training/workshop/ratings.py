"""An application's ratings and edits from its own database, SQLite or PostgreSQL: only read, never written.

Which table and columns, and what counts as a thumb up or down, is the configuration's. Names of tables and
columns are quoted as identifiers; the address's password is never repeated.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from daemon.errors import ConfigError, HauswartError, MissingDependencyError

COLUMNS = ("prompt", "output", "rating", "edited", "system", "task", "language")
NEEDED = ("prompt", "output", "rating")
POSTGRES = ("postgresql", "postgres")
_ROWS_AT_ONCE = 500
_CONNECT_S = 10


class Rating(NamedTuple):
    """One output and what was said of it: good, bad or edited; `edited` is the better text."""

    prompt: str
    output: str
    verdict: str
    edited: str
    system: str
    task: str
    language: str


class Mapped(NamedTuple):
    """Where the columns are and what their values mean."""

    table: str
    columns: Mapping[str, str]
    verdicts: Mapping[str, str]  # a rating's value in small letters, and good, bad or edited


def mapped(feedback: Mapping[str, Any]) -> Mapped:
    """From the configuration's section `feedback`. Raises ConfigError."""
    columns = {name: str(feedback.get(f"columns.{name}", "")) for name in COLUMNS}
    missing = [name for name in NEEDED if not columns[name]]
    if missing or not feedback.get("table"):
        lacking = ["feedback.table"] * (not feedback.get("table"))
        lacking += [f"feedback.columns.{one}" for one in missing]
        raise ConfigError(f"nothing says what {', '.join(lacking)} is called")
    verdicts = {value: name for name in ("good", "bad", "edited") for value in feedback[name]}
    return Mapped(str(feedback["table"]), columns, verdicts)


def shown(url: str) -> str:
    """The address without user and password."""
    try:
        parts = urlsplit(url)
        place = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database"
    return f"{parts.scheme}://{place}{port}{parts.path}"


def read(url: str, where: Mapped) -> Iterator[Rating]:
    """Every row that has a verdict. Raises ConfigError, HauswartError, MissingDependencyError."""
    scheme = urlsplit(url).scheme.partition("+")[0]
    if scheme in POSTGRES:
        rows = _of_postgres(url, where)
    elif scheme == "sqlite" or not scheme:
        rows = _of_sqlite(url, where)
    else:
        raise ConfigError(f"no database {scheme}", hint="postgresql://... or sqlite:///PATH")
    names = [name for name in COLUMNS if where.columns[name]]
    for row in rows:
        found = {name: _text(value) for name, value in zip(names, row, strict=True)}
        edited = found.get("edited", "").strip()
        verdict = where.verdicts.get(found["rating"].strip().lower(), "")
        if edited and edited != found["output"].strip():
            verdict = "edited"
        if verdict == "edited" and not edited:
            verdict = ""
        if verdict:
            yield Rating(*(verdict if name == "verdict" else found.get(name, "") for name in Rating._fields))


def _text(value: Any) -> str:
    """A column's value; a database without an encoding (SQL_ASCII) gives bytes."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return "" if value is None else str(value)


def _selected(where: Mapped) -> tuple[list[str], str]:
    return [where.columns[name] for name in COLUMNS if where.columns[name]], where.table


def _of_sqlite(url: str, where: Mapped) -> Iterator[Sequence[Any]]:
    """sqlite:///relative, sqlite:////absolute, or a path."""
    path = Path(unquote(url.split("://", 1)[1]).removeprefix("/") if "://" in url else url)
    if not path.is_file():
        raise ConfigError(f"there is no database {path}")
    columns, table = _selected(where)
    quoted = ", ".join(_quoted(one) for one in columns)
    named = ".".join(_quoted(one) for one in table.split("."))
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_CONNECT_S)
        try:
            # An unknown name in double quotes would be a text to SQLite, not an error.
            known = {row[1] for row in connection.execute(f"PRAGMA table_info({named})")}
            _check_columns(columns, known, table, str(path))
            yield from connection.execute(f"SELECT {quoted} FROM {named}")  # noqa: S608  # quoted above
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise HauswartError(f"{path} cannot be read: {error}") from error


def _check_columns(columns: Sequence[str], known: set[str], table: str, place: str) -> None:
    missing = [one for one in columns if one not in known]
    if not known:
        raise ConfigError(f"{place} has no table {table}", hint="feedback.table in the configuration")
    if missing:
        raise ConfigError(
            f"the table {table} of {place} has no column {', '.join(missing)}",
            hint=f"feedback.columns in the configuration; it has {', '.join(sorted(known))}",
        )


def _quoted(name: str) -> str:
    if "\0" in name:
        raise ConfigError("a table's or column's name holds a NUL")
    return '"' + name.replace('"', '""') + '"'


def _of_postgres(url: str, where: Mapped) -> Iterator[Sequence[Any]]:
    try:
        import psycopg  # noqa: PLC0415  # only for PostgreSQL
        from psycopg import sql  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "PostgreSQL needs the package psycopg", hint="pip install 'psycopg[binary]'"
        ) from error
    plain = "postgresql://" + url.split("://", 1)[1]
    columns, table = _selected(where)
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(*table.split("."))
    )
    try:
        with psycopg.connect(plain, connect_timeout=_CONNECT_S) as connection:
            connection.read_only = True
            with connection.cursor(name="hauswart") as cursor:  # a server's: not all rows at once
                cursor.itersize = _ROWS_AT_ONCE
                cursor.execute(query)
                yield from cursor
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise ConfigError(
            f"{shown(url)}: {_one_line(error, url)}",
            hint="feedback.table and feedback.columns in the configuration",
        ) from None
    except psycopg.Error as error:
        raise HauswartError(f"{shown(url)} cannot be read: {_one_line(error, url)}") from None


def _one_line(error: Exception, url: str) -> str:
    """The driver's words without what the address keeps secret."""
    said = " ".join(str(error).split())[:300]
    try:
        parts = urlsplit(url)
        secrets = [one for part in (parts.password, parts.username) if part for one in (part, unquote(part))]
    except ValueError:
        return "the address is none"
    for secret in secrets:
        said = said.replace(secret, "...")
    return said
