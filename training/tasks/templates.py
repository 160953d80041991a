"""Task log-template: does the miner group the lines of a system as its experts do?

Data are loghub's structured tables: a `Content` column (or the raw `.log` beside it) and `EventId` or
`EventTemplate`. Grouping accuracy after Zhu et al. 2019, mean over systems; the baseline is masking alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.lines import split_header
from models.masking import mask
from models.templates import assign
from training.intervals import Array, flat, intervals, number
from training.quality import grouped_right
from training.tables import DataError, Table, check_size, header, read_csv
from training.tasks import Outcome, Request, Scored

_TRUTHS = ("EventId", "EventTemplate")
_SUFFIX = "_structured.csv"


@dataclass(frozen=True)
class System:
    """One system's lines with their true groups, and which lines each path grouped right."""

    name: str
    lines: Sequence[str]
    truth: Sequence[str]
    found: Sequence[int]
    right: Array
    masked_right: Array


def run(request: Request) -> Outcome:
    """Mine each system's file from scratch; nothing is learned across files."""
    systems = []
    for path in chosen(request.files):
        systems.append(_mine(path))
        request.tell(f"{systems[-1].name}: {systems[-1].right.mean():.3f}")
    return Outcome(_figures(systems, request), _scores(systems))


def chosen(files: Sequence[Path]) -> list[Path]:
    """The structured tables: a raw log stands for the table beside it."""
    tables: dict[Path, None] = {}
    for path in files:
        beside = path.with_name(path.name + _SUFFIX)
        if path.suffix == ".csv":
            tables[path] = None
        elif beside.exists():
            tables[beside] = None
        elif path.suffix == ".log" and len(files) == 1:
            raise DataError(f"{path} has no labels", hint=f"put {beside.name} beside it")
    if not tables:
        raise DataError(
            f"{files[0].parent} holds no table", hint="columns: Content, EventId or EventTemplate"
        )
    kept = [path for path in tables if len(files) == 1 or _is_labelled(path)]
    if not kept:
        raise DataError(f"{files[0].parent}: no table has a column EventId or EventTemplate")
    return kept


def _is_labelled(path: Path) -> bool:
    """A folder of loghub also holds lists of templates, which are no lines."""
    columns = header(path)
    return any(name in columns for name in _TRUTHS) and ("Content" in columns or "LineId" in columns)


def _mine(path: Path) -> System:
    table = read_csv(path)
    truth_column = next((name for name in _TRUTHS if name in table.columns), None)
    if truth_column is None:
        raise DataError(f"{path}, line 1: no column 'EventId' or 'EventTemplate'")
    truth = [row.values[truth_column] for row in table.rows]
    lines = _contents(table)
    found = assign(lines)
    return System(
        name=path.name.removesuffix(_SUFFIX).removesuffix(".log").removesuffix(".csv"),
        lines=lines,
        truth=truth,
        found=found,
        right=grouped_right(truth, found),
        masked_right=grouped_right(truth, [mask(line) for line in lines]),
    )


def _contents(table: Table) -> list[str]:
    if "Content" in table.columns:
        return [row.values["Content"] for row in table.rows]
    raw = table.path.with_name(table.path.name.removesuffix(_SUFFIX))
    if "LineId" not in table.columns or raw == table.path or not raw.exists():
        raise DataError(f"{table.path}, line 1: no column 'Content', and no raw log beside it")
    check_size(raw)
    lines = raw.read_text(encoding="utf-8", errors="replace").split("\n")
    numbers = [table.integer(row, "LineId", 1, len(lines)) for row in table.rows]
    return [split_header(lines[at - 1])[1] for at in numbers]


def _figures(systems: Sequence[System], request: Request) -> dict[str, float | int | str]:
    """Means over systems; the interval draws true groups within each system, since lines repeat."""
    lines = sum(len(system.lines) for system in systems)
    figures: dict[str, float | int | str] = {
        "n": lines,
        "systems": len(systems),
        "path": "baseline",
        "grouping_accuracy": float(np.mean([system.right.mean() for system in systems])),
        "baseline_grouping_accuracy": float(np.mean([system.masked_right.mean() for system in systems])),
    }
    if len(systems) > 1:
        figures |= {f"grouping_accuracy_{one.name}": float(one.right.mean()) for one in systems}
    starts = np.cumsum([0, *(len(system.lines) for system in systems)])
    right = np.concatenate([system.right for system in systems]).astype(np.float64)

    def mean(weights: Array) -> float:
        sums = np.add.reduceat(weights, starts[:-1])
        shares = np.add.reduceat(weights * right, starts[:-1]) / np.where(sums > 0, sums, np.nan)
        return float(np.nanmean(shares)) if (sums > 0).any() else float("nan")

    groups = number([(one.name, truth) for one in systems for truth in one.truth])
    found = intervals({"grouping_accuracy": mean}, groups, rounds=request.rounds, seed=request.seed)
    return figures | flat(found)


def _scores(systems: Sequence[System]) -> list[Scored]:
    return [
        Scored(row, group, truth, system.name)
        for system in systems
        for row, (group, truth) in enumerate(zip(system.found, system.truth, strict=True))
    ]
