"""`hauswart train dataset`: gathers rows, drops what must not train, splits them by group, writes Parquet.

Rows come from the tiers' own sources (`training/sources`), from labelled tables, and for the low tier from
this host's lines. The file says of itself how it was made: the statistics stand in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from daemon.command.session import console, session_of
from daemon.errors import ConfigError
from training import hostlines
from training.recipe import Source, check_files, nearest, read_recipe
from training.rows import HEADS, read_parquet, read_table, write_parquet
from training.splits import Row, cap_uids, drop_duplicates, drop_overlap, split_groups
from training.tables import DataError

SHARES = {"test": 0.1, "val": 0.1}
Tell = Callable[[str], None]


class Prepared(NamedTuple):
    """Rows ready to be written, and what is to be said of them."""

    rows: list[Row]
    statistics: dict[str, Any]


def preprocess_data(
    rows: Iterable[Row],
    *,
    seed: int = 0,
    shares: Mapping[str, float] | None = None,
    keep_overlap: bool = False,
) -> Prepared:
    """Normalise, drop duplicates, split by group, keep held-out texts and loud users out of training.

    Args:
        rows: at least `group` and `source`, and `text` (classifier) or `prompt` and `completion` (generator);
            a row may bring its `split`.
        seed: of the split.
        shares: rows wanted in `test` and `val`, a tenth each if None.
        keep_overlap: whether a text of val or test may also train.

    Raises DataError for rows without these columns, or a group that stands in two splits.
    """
    found, duplicates = drop_duplicates(map(_checked, rows), _content)
    if not found:
        raise DataError("the data set is empty")
    text = "text" if "text" in found[0] else "prompt"
    split_groups(found, SHARES if shares is None else shares, seed)
    overlap = 0
    if not keep_overlap and text == "text":
        found, overlap = drop_overlap(found, text)
    found, capped = cap_uids(found, text, seed)
    dropped = {"duplicates": duplicates, "held out elsewhere": overlap, **capped}
    return Prepared(found, describe(found) | {"dropped": {name: n for name, n in dropped.items() if n}})


def describe(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts by split: rows, groups, sources, labels of each head, and the largest shares of uids."""
    by_split: dict[str, dict[str, Any]] = {}
    for split in sorted({row["split"] for row in rows}):
        mine = [row for row in rows if row["split"] == split]
        uids = Counter(str(row["uid"]) for row in mine if row.get("uid") is not None)
        labels = {
            head: Counter(str(row[head]) for row in mine if row.get(head) is not None) for head in HEADS
        }
        by_split[split] = {
            "rows": len(mine),
            "groups": len({row["group"] for row in mine}),
            "sources": dict(Counter(row["source"] for row in mine).most_common()),
            "labels": {head: dict(sorted(counts.items())) for head, counts in labels.items() if counts},
            "uid_shares": {uid: round(n / len(mine), 4) for uid, n in uids.most_common(5)},
        }
    return {"rows": len(rows), "splits": by_split}


def write_rows(
    *,
    out: Path,
    modules: list[str] | None = None,
    data_dir: Path | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    sources: list[dict[str, str]] | None = None,
    tables: list[Path] | None = None,
    telemetry: Path | None = None,
    journal: list[str] | None = None,
    logs: list[Path] | None = None,
    group_by: str = "service",
    test_share: float = SHARES["test"],
    val_share: float = SHARES["val"],
    keep_overlap: bool = False,
    seed: int = 0,
    resume: bool = True,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Write the data set to `out` (Parquet); its statistics.

    Args:
        out: the file; parts of what is not finished lie beside it in `NAME.parts`.
        modules: of `training/sources`, each with `rows(data_dir, seed, ...)`.
        data_dir: where the modules' files lie.
        options: by module, further arguments of its `rows`.
        sources: a recipe's sources; then every file that a module reads must be one, marked "ship".
        tables: labelled CSV, JSONL or Parquet files: `line` (raw) or `text`, `group`, and labels.
        telemetry: a folder of telemetry segments.
        journal: arguments of journalctl, [] for all of the journal, None for none of it.
        logs: plain log files.
        group_by: what this host's lines are split by, "service" or "template".
        test_share: wanted share of the rows whose group has no split yet.
        val_share: the same.
        keep_overlap: as `preprocess_data` has it.
        seed: of the split and of what the modules make up.
        resume: take finished parts of a run that was cut short.
        tell: hears progress.
    """
    if group_by not in {"service", "template"}:
        raise ConfigError(f"group_by {group_by!r}", hint="service or template")
    parts = out.with_name(out.name + ".parts")
    if not resume:
        shutil.rmtree(parts, ignore_errors=True)
    rows: list[Row] = []
    for name in modules or []:
        module = find_source(name, sources)
        rows += _part(parts, module, data_dir, seed, (options or {}).get(name, {}), tell=tell)
    for table in tables or []:
        rows += read_table(table)
    rows += _host_rows(telemetry, journal, logs or [], group_by, tell)
    shares = {"test": test_share, "val": val_share}
    prepared = preprocess_data(rows, seed=seed, shares=shares, keep_overlap=keep_overlap)
    write_parquet(out, prepared.rows, prepared.statistics | {"seed": seed, "modules": modules or []})
    shutil.rmtree(parts, ignore_errors=True)
    return prepared.statistics


def find_source(name: str, sources: list[dict[str, str]] | None) -> Any:
    """A module of `training/sources`; raises ConfigError for none, or for one that reads what it may not."""
    if not name.isidentifier() or find_spec(f"training.sources.{name}") is None:
        known = [path.stem for path in Path(__file__).with_name("sources").glob("*.py")]
        raise ConfigError(f"no source {name!r}", hint=nearest(name, known))
    module = import_module(f"training.sources.{name}")
    if not hasattr(module, "rows"):
        raise ConfigError(f"training.sources.{name} gives no rows")
    marks = {one["path"]: one.get("mark", "ship") for one in sources or []}
    files: Sequence[str] = module.FILES if hasattr(module, "FILES") else ()
    for path in files if sources is not None else ():
        if marks.get(path) != "ship":
            said = "is marked evaluate-only" if path in marks else "is not among the recipe's sources"
            raise ConfigError(f"source {name} reads {path}, which {said}")
    return module


# --- gathering ----------------------------------------------------------------------------------------------


def _part(
    parts: Path,
    module: Any,
    data_dir: Path | None,
    seed: int,
    options: Mapping[str, Any],
    *,
    tell: Tell,
) -> list[Row]:
    """A module's rows, from its finished part if there is one."""
    name = module.__name__.rpartition(".")[2]
    key = hashlib.sha256(json.dumps([str(data_dir), seed, options], sort_keys=True).encode()).hexdigest()[:12]
    path = parts / f"{name}-{key}.parquet"
    if path.exists():
        tell(f"{name}: taken from {path.name}")
        return read_parquet(path)
    taken = signature(module.rows).parameters
    for option in options:
        if option not in taken:
            raise ConfigError(f"source {name}: no option {option!r}", hint=nearest(option, taken))
    if data_dir is None and getattr(module, "FILES", None):
        raise ConfigError(f"source {name} reads data", hint="say where it lies: --data DIR")
    rows = list(_told(module.rows(data_dir, seed, **options), name, tell))
    write_parquet(path, rows, {})
    return rows


def _told(rows: Iterable[Row], name: str, tell: Tell, step: int = 10_000) -> Iterator[Row]:
    count = 0
    for count, row in enumerate(rows, 1):
        if count % step == 0:
            tell(f"{name}: {count} rows")
        yield dict(row)
    tell(f"{name}: {count} rows in all")


def _host_rows(
    telemetry: Path | None, journal: list[str] | None, logs: Sequence[Path], group_by: str, tell: Tell
) -> list[Row]:
    found = hostlines.Collected(group_by)
    if telemetry is not None:
        hostlines.from_telemetry(telemetry, found, tell)
    if journal is not None:
        hostlines.from_journal(found, tell, journal)
    for log in logs:
        hostlines.from_log(log, found)
    if found.lines:
        tell(f"this host: {found.lines} lines, {len(found.rows)} rows")
    return sorted(found.rows, key=lambda row: row["at"] or 0.0)  # stable: without a time in the file's order


def _checked(row: Row) -> Row:
    text = row.get("text") if "text" in row else row.get("prompt")
    if not isinstance(text, str) or not row.get("group") or not row.get("source"):
        shown = json.dumps(row, default=str)[:120]
        raise DataError(f"a row lacks text, group or source: {shown}")
    return row


def _content(row: Row) -> Any:
    """What makes a row the same as another; one that is held out is not the same as one that trains."""
    labels = tuple((head, row.get(head)) for head in HEADS)
    return (*(row.get(name) for name in ("text", "prompt", "completion", "lang", "uid", "split")), labels)


# --- command ------------------------------------------------------------------------------------------------


def command(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    source: Annotated[
        list[str] | None, typer.Option(help="lines, situations, briefs: rows of a tier's own making.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="HAUSWART_DATA", help="Where these sources' files lie.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Check the data against the origins and hashes of this recipe.")
    ] = None,
    table: Annotated[
        list[Path] | None, typer.Option(help="CSV, JSONL or Parquet: line or text, group, labels.")
    ] = None,
    telemetry: Annotated[bool, typer.Option("--telemetry", help="What hauswart kept of this host.")] = False,
    segments: Annotated[Path | None, typer.Option(help="Telemetry segments of another folder.")] = None,
    journal: Annotated[bool, typer.Option("--journal", help="This host's journal.")] = False,
    journalctl: Annotated[
        list[str] | None, typer.Option(help="With --journal: an option of journalctl, e.g. --since=-7d.")
    ] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A plain log file.")] = None,
    group_by: Annotated[
        str, typer.Option(help="What the lines of this host are split by: service or template.")
    ] = "service",
    test_share: Annotated[float, typer.Option(min=0.0, max=0.9)] = SHARES["test"],
    val_share: Annotated[float, typer.Option(min=0.0, max=0.9)] = SHARES["val"],
    keep_overlap: Annotated[
        bool, typer.Option("--keep-overlap", help="Let texts of val and test train, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the split and of what sources make up.")] = 0,
    resume: Annotated[bool, typer.Option(help="Take finished parts of a run that was cut short.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The statistics as one JSON object.")] = False,
) -> None:
    """Any unprivileged user supplies at most 5 % of a split; what was dropped is said."""
    folder = session_of(context).settings.state / "telemetry" if telemetry else segments
    listed: list[Source] = list(read_recipe(recipe).sources) if recipe else []
    if recipe and data:
        check_files(listed, data)
    statistics = write_rows(
        out=out,
        modules=source,
        data_dir=data,
        sources=[{"path": one.path, "mark": one.mark} for one in listed] if recipe else None,
        tables=table,
        telemetry=folder,
        journal=(journalctl or []) if journal else None,
        logs=log,
        group_by=group_by,
        test_share=test_share,
        val_share=val_share,
        keep_overlap=keep_overlap,
        seed=seed,
        resume=resume,
        tell=_tell,
    )
    if as_json:
        sys.stdout.write(json.dumps(statistics) + "\n")
    else:
        _show(statistics, out)


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {said}\n")


def _show(statistics: Mapping[str, Any], out: Path) -> None:
    from rich.table import Table  # noqa: PLC0415 - only where somebody reads it

    splits: dict[str, dict[str, Any]] = statistics["splits"]
    table = Table("", *splits, title=f"{out}: {statistics['rows']} rows")
    for name in ("rows", "groups"):
        table.add_row(name, *(str(one[name]) for one in splits.values()))
    for kind in ("sources", "uid_shares"):
        for name in sorted({name for one in splits.values() for name in one[kind]}):
            shown = f"uid {name}" if kind == "uid_shares" else f"from {name}"
            table.add_row(shown, *(str(one[kind].get(name, "")) for one in splits.values()))
    for head in sorted({head for one in splits.values() for head in one["labels"]}):
        labels = sorted(
            {label for one in splits.values() for label in one["labels"].get(head, {})}, key=_number
        )
        for label in labels:
            counts = (str(one["labels"].get(head, {}).get(label, "")) for one in splits.values())
            table.add_row(f"{head} {label}", *counts)
    for name, count in statistics["dropped"].items():
        table.add_row(f"dropped, {name}", str(count))
    console().print(table)


def _number(label: str) -> float:
    return float(label)
