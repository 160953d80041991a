"""Task metrics: how well are anomalous rows of metrics ranked, each judged from what came before it?

Data are `.npz` files (`train` unlabelled, `test`, optionally `label`) or CSV series of the Numenta Anomaly
Benchmark (`timestamp,value`, optionally `label`), whose first rows are the unlabelled past. Labels are read
only after every score is there; nothing is adjusted to anomalous stretches. The baseline is the residual of
the principal components (for a lone series the distance from its past mean). A lone series is also watched
for single alarms, which is what NAB's score counts and what its scores file holds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.novelty import alarms, novelty
from models.residual import score_rows
from training.baselines import residual_scores
from training.intervals import Array, flat, intervals
from training.nab import probation, standard_score, windows_of
from training.quality import Ranking, average_precision
from training.tables import DataError, Table, check_size, read_csv
from training.tasks import Outcome, Request, Scored

MAX_CELLS = 200_000_000
LEAST_PAST = 8  # rows
FILES_LEAST = 8  # with fewer files the interval draws blocks of rows, not files
BLOCKS = 50


class Series(NamedTuple):
    """One host or one metric: `(rows, metrics) float64`.

    `first` is the row in the file where `test` begins, `before` the labels up to there (only NAB's).
    """

    name: str
    train: Array
    test: Array
    label: Array | None
    first: int = 0
    before: Array | None = None


class Ranked(NamedTuple):
    """A series with its scores."""

    series: Series
    scores: Array
    baseline: Array
    alarms: Array | None = None  # of a lone series: one event, one alarm


def run(request: Request) -> Outcome:
    """Score every file by itself; figures are means over the files that have anomalies."""
    ranked = []
    for path in _data(request.files):
        series = read(path)
        ranked.append(
            Ranked(
                series,
                _scored(score_rows, series),
                _scored(residual_scores, series),
                _scored(_alarms, series) if path.suffix == ".csv" else None,
            )
        )
        request.tell(f"{series.name}: {len(series.test)} rows")
    return Outcome(_figures(ranked, request), _rows(ranked))


def read(path: Path) -> Series:
    """One file; raises DataError."""
    return _read_csv(path) if path.suffix == ".csv" else _read_npz(path)


def _data(files: Sequence[Path]) -> list[Path]:
    kept = [path for path in files if path.suffix in {".npz", ".csv"}]
    if not kept:
        raise DataError(f"{files[0]}: metrics are read from .npz or .csv")
    return kept


def _read_npz(path: Path) -> Series:
    check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 8 * MAX_CELLS:
                raise DataError(f"{path} unfolds to more than {8 * MAX_CELLS} bytes")
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("train", "test", "label") if name in content.files}
            known = ", ".join(content.files)[:200]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        raise DataError(f"{path} is no array file: {error}") from error
    for name in ("train", "test"):
        if name not in arrays:
            raise DataError(f"{path}: no array {name!r}", hint=f"arrays there: {known}")
    train, test = (_matrix(path, name, arrays[name]) for name in ("train", "test"))
    if train.shape[1] != test.shape[1]:
        raise DataError(f"{path}: train has {train.shape[1]} metrics, test {test.shape[1]}")
    label = arrays.get("label")
    return _series(path, train, test, None if label is None else np.ravel(label))


def _matrix(path: Path, name: str, found: Array) -> Array:
    if not np.issubdtype(found.dtype, np.number) or found.ndim not in {1, 2} or not found.size:
        raise DataError(f"{path}, {name}: {found.dtype} {found.shape} is not (rows, metrics) of numbers")
    matrix = found.astype(np.float64).reshape(len(found), -1)
    if np.isinf(matrix).any():
        row, column = np.argwhere(np.isinf(matrix))[0]
        raise DataError(f"{path}, {name}, row {row}, column {column}: an infinite value")
    return matrix


def _read_csv(path: Path) -> Series:
    table = read_csv(path, ("timestamp", "value"))
    values = np.array([[_value(table, at)] for at in range(len(table.rows))])
    start = max(probation(len(values)), min(LEAST_PAST, len(values) // 2))
    label = None
    if "label" in table.columns:
        label = np.array([table.integer(row, "label", 0, 1) for row in table.rows])
    series = _series(path, values[:start], values[start:], None if label is None else label[start:])
    return series._replace(first=start, before=None if label is None else label[:start])


def _value(table: Table, at: int) -> float:
    row = table.rows[at]
    try:
        value = float(row.values["value"])
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise table.wrong(row, "value", "a finite number")
    return value


def _series(path: Path, train: Array, test: Array, label: Array | None) -> Series:
    if len(train) < LEAST_PAST:
        raise DataError(f"{path}: {len(train)} rows of past; {LEAST_PAST} is the least")
    if label is not None and len(label) != len(test):
        raise DataError(f"{path}: {len(label)} labels for {len(test)} rows of test")
    if label is not None and not np.isin(label, (0, 1)).all():
        at = int(np.flatnonzero(~np.isin(label, (0, 1)))[0])
        raise DataError(f"{path}, label, row {at}: {label[at]!r} is neither 0 nor 1")
    kept = None if label is None else label.astype(np.int64)
    return Series(path.stem, train, test, kept)


def _alarms(train: Array, test: Array) -> Array:
    whole: Array = alarms(novelty(np.concatenate([train, test])[:, 0]))
    return whole[len(train) :]


def _scored(scorer: Callable[[Array, Array], Array], series: Series) -> Array:
    """Scores; a scorer sees the past and the rows, never a label."""
    scores: Array = np.asarray(scorer(series.train, series.test), dtype=np.float64)
    if scores.shape != (len(series.test),) or not np.isfinite(scores).all():
        raise DataError(f"{series.name}: the rows gave scores that are not numbers")
    return scores


def _figures(ranked: Sequence[Ranked], request: Request) -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {
        "n": sum(len(one.series.test) for one in ranked),
        "files": len(ranked),
        "path": "baseline",
    }
    labelled = [one for one in ranked if one.series.label is not None]
    useful = [one for one in labelled if one.series.label is not None and one.series.label.any()]
    if len(labelled) == len(ranked) and len(useful) < len(ranked):
        figures["files_without_anomaly"] = len(ranked) - len(useful)
    if not useful:
        return figures
    labels = [_label(one) for one in useful]
    figures |= {
        "base_rate": float(np.mean([label.mean() for label in labels])),
        "auc_pr": _mean(labels, [one.scores for one in useful]),
        "baseline_auc_pr": _mean(labels, [one.baseline for one in useful]),
    }
    if len(useful) > 1:
        figures |= {f"auc_pr_{one.series.name}": average_precision(_label(one), one.scores) for one in useful}
    figures |= _intervals(useful, request)
    if all(one.series.before is not None for one in labelled):
        figures |= _standard(labelled)
    return figures


def _label(one: Ranked) -> Array:
    assert one.series.label is not None
    return one.series.label


def _mean(labels: Sequence[Array], scores: Sequence[Array]) -> float:
    pairs = zip(labels, scores, strict=True)
    return float(np.mean([average_precision(label, score) for label, score in pairs]))


def _intervals(useful: Sequence[Ranked], request: Request) -> dict[str, float | int | str]:
    """By files where there are enough of them, else by blocks of rows: neighbours in time are alike."""
    rankings = [Ranking(_label(one), one.scores) for one in useful]
    if len(useful) >= FILES_LEAST:
        each = np.array([ranking.average_precision() for ranking in rankings])
        groups = np.arange(len(useful))

        def mean(weights: Array) -> float:
            return float(np.average(each, weights=weights))

    else:
        sizes = [len(one.scores) for one in useful]
        ends = np.cumsum(sizes)
        groups = np.concatenate([at * BLOCKS + np.arange(n) * BLOCKS // n for at, n in enumerate(sizes)])
        groups = np.unique(groups, return_inverse=True)[1]

        def mean(weights: Array) -> float:
            parts = np.split(weights, ends[:-1])
            pairs = zip(rankings, parts, strict=True)
            return float(np.nanmean([ranking.average_precision(part) for ranking, part in pairs]))

    found = intervals({"auc_pr": mean}, groups, rounds=request.rounds, seed=request.seed)
    return {**flat(found), "intervals_by": "file" if len(useful) >= FILES_LEAST else "block of rows"}


def _standard(labelled: Sequence[Ranked]) -> dict[str, float]:
    """NAB's standard score, with its own rule for the rows at the start that are not judged."""
    labels = [np.append(one.series.before, _label(one)).tolist() for one in labelled]  # type: ignore[arg-type]
    if not any(map(windows_of, labels)):
        return {}
    figures = {}
    for name, chosen in (("nab_standard", "alarms"), ("baseline_nab_standard", "baseline")):
        scores = [[0.0] * one.series.first + getattr(one, chosen).tolist() for one in labelled]
        pairs = zip(scores, labels, strict=True)
        figures[name] = standard_score({str(at): pair for at, pair in enumerate(pairs)})
    return figures


def _rows(ranked: Sequence[Ranked]) -> list[Scored]:
    found = []
    for one in ranked:
        scores = one.scores if one.alarms is None else one.alarms
        labels = [None] * len(scores) if one.series.label is None else one.series.label.tolist()
        pairs = zip(scores.tolist(), labels, strict=True)
        found += [Scored(one.series.first + at, *pair, one.series.name) for at, pair in enumerate(pairs)]
    return found
