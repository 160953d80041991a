"""Reads and writes rows: Parquet is what the verbs exchange, labelled tables are what people bring.

Knows the columns and their types, nothing of splits, tiers' sources or models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.lines import encode
from training.tables import DataError, check_size, read_csv

Row = dict[str, Any]

HEADS = ("severity", "alert", "category", "fault_class", "culprit")
METADATA = b"hauswart"


def read_table(path: Path) -> list[Row]:
    """A labelled table's rows; raises DataError that says where something is wrong."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    found = _read_csv_rows(path) if path.suffix == ".csv" else _read_jsonl(path)
    return [_encoded(row) | {"source": row.get("source") or path.stem} for row in found]


def write_parquet(path: Path, rows: Sequence[Row], statistics: Mapping[str, Any]) -> None:
    """Rows in their order; columns that no row has are left out."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from pyarrow import parquet  # noqa: PLC0415

    types = {
        **dict.fromkeys(("text", "group", "source", "split", "prompt", "completion", "lang"), pa.string()),
        **dict.fromkeys(("severity", "category", "fault_class", "culprit"), pa.int32()),
        **dict.fromkeys(("alert", "weight"), pa.float32()),
        "soft": pa.list_(pa.float32()),
        "at": pa.float64(),
        "uid": pa.int64(),
    }
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(statistics, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    parquet.write_table(table, part, compression="zstd")
    part.replace(path)


def read_parquet(path: Path) -> list[Row]:
    """The rows of a data set; raises DataError."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from pyarrow import parquet  # noqa: PLC0415

    check_size(path)
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from error
    return rows


def _read_csv_rows(path: Path) -> Iterator[Row]:
    table = read_csv(path, ("group",))
    for one in table.rows:
        row: Row = {name: value for name, value in one.values.items() if value}
        for head in set(HEADS) & row.keys():
            try:
                row[head] = float(row[head]) if head == "alert" else int(row[head])
            except ValueError as error:
                raise table.wrong(one, head, "a number") from error
        yield row


def _read_jsonl(path: Path) -> Iterator[Row]:
    check_size(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                row = json.loads(raw)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: no JSON object")
            yield row


def _encoded(row: Row) -> Row:
    """A row whose raw `line` became the low tier's text."""
    if "line" not in row:
        return row
    kept = {name: value for name, value in row.items() if name not in {"line", "program"}}
    return kept | {"text": encode(str(row["line"]), str(row.get("program", "")))}
