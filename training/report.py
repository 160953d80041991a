"""`hauswart train report`: what a run did, as one HTML page that asks for nothing from anywhere.

Reads the JSON files of a run's folder (`training.pipeline`): steps and times, the data set's statistics, loss
curves, quality with intervals and baselines beside it, and what pruning and quantising really changed. It
computes no figure of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from training import charts, page

MAX_JSON_BYTES = 64 << 20
QUALITIES = ("macro_f1", "perplexity", "auc_pr", "accuracy")  # the first that there is stands for a model

Json = dict[str, Any]


def write_report(run: Path, out: Path, *, title: str = "") -> Json:
    """Write the page of a run's folder to `out`; how many sections it has. Raises ConfigError."""
    state, results = _read(run / "pipeline.json"), _results(run)
    if not state or not results:
        raise ConfigError(f"{run} is no run's folder", hint="it holds pipeline.json and results/")
    sections = [
        ("What was run", _steps(state)),
        ("Data", _data(results)),
        ("Loss", _losses(run, state)),
        ("Quality", _quality(run, state)),
        ("What shrinking really did", _shrinking(results)),
        ("Search", _search(results)),
    ]
    kept = [(name, body) for name, body in sections if body]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.whole(title or f"hauswart: {run.resolve().name}", kept), encoding="utf-8")
    return {"sections": [head for head, _ in kept]}


# --- sections -----------------------------------------------------------------------------------------------


def _steps(state: Mapping[str, Json]) -> str:
    rows = [
        (name, one.get("verb", ""), f"{one['seconds']:.0f} s", one.get("finished", ""), one["digest"][:12])
        for name, one in state.items()
        if "digest" in one
    ]
    return page.table(("step", "verb", "took", "finished", "SHA-256"), rows)


def _data(results: Mapping[str, Json]) -> str:
    parts = []
    for name, one in results.items():
        splits = one.get("splits")
        if not isinstance(splits, dict):
            continue
        rows: list[Sequence[Any]] = [
            (what, *(split.get(what, 0) for split in splits.values())) for what in ("rows", "groups")
        ]
        for kind, shown in (("sources", "from {}"), ("uid_shares", "share of uid {}")):
            names = sorted({label for split in splits.values() for label in split.get(kind, {})})
            rows += [
                (shown.format(label), *(s.get(kind, {}).get(label, "") for s in splits.values()))
                for label in names
            ]
        parts.append(f"<h3>{escape(name)}</h3>" + page.table(("", *splits), rows))
        if dropped := one.get("dropped"):
            said = ", ".join(f"{escape(str(why))}: {count}" for why, count in dropped.items())
            parts.append(f"<p>Dropped: {said}.</p>")
    return "".join(parts)


def _losses(run: Path, state: Mapping[str, Json]) -> str:
    drawn = []
    for name, one in state.items():
        for path in sorted((run / one.get("out", name)).glob("**/history.json")):
            curves = _loss_curves(_read(path))
            if curves:
                drawn.append((name, charts.loss(curves)))
    return page.figures(drawn)


def _loss_curves(history: Any) -> dict[str, charts.Curve]:
    curves: dict[str, charts.Curve] = {}
    for key, shown in (("loss", "training"), ("eval_loss", "validation")):
        points = [(one["step"], one[key]) for one in history or [] if isinstance(one, dict) and key in one]
        if points:
            curves[shown] = ([float(step) for step, _ in points], [float(value) for _, value in points])
    return curves


def _quality(run: Path, state: Mapping[str, Json]) -> str:
    parts = []
    for name, one in state.items():
        if one.get("verb") != "evaluate" or "digest" not in one:
            continue
        found = _read(run / one["out"])
        figures, curves = found.get("figures", {}), found.get("curves", {})
        parts += [f"<h3>{escape(name)}</h3>", _figure_table(figures), page.figures(_curves(figures, curves))]
    return "".join(parts)


def _figure_table(figures: Mapping[str, Any]) -> str:
    rows = []
    for name, value in figures.items():
        beside = name.endswith(("_low", "_high")) and name.rpartition("_")[0] in figures
        if beside or (name.startswith("baseline_") and name.removeprefix("baseline_") in figures):
            continue
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        between = "" if low is None else f"{low} to {high}"
        rows.append((name, value, between, figures.get(f"baseline_{name}", "")))
    return page.table(("figure", "value", "95 % interval", "baseline"), rows)


def _curves(figures: Mapping[str, Any], curves: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Charts of one evaluation, or of each head of one."""
    heads = curves.get("heads") or {"": curves}
    for head, one in heads.items():
        prefix = f"{head}: " if head else ""
        if one.get("confusion"):
            yield prefix + "confusion", charts.confusion(one["confusion"], one["classes"])
        if one.get("calibration"):
            said = one["calibration"]
            yield prefix + "calibration", charts.calibration(said["stated"], said["observed"], said["error"])
        ranked = one.get("precision_recall") or {}
        if ranked.get("recall"):
            rate = figures.get(f"{head}_base_rate" if head else "base_rate")
            lines = {"": (ranked["precision"], ranked["recall"])}
            yield prefix + "precision and recall", charts.precision_recall(lines, rate)


def _shrinking(results: Mapping[str, Json]) -> str:
    """Every step's table of what it touched, and size against the first quality that all rows have."""
    rows = [row for one in results.values() for row in shrink_rows(one)]
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = page.table(columns, [[row.get(name, "") for name in columns] for row in rows])
    quality = next((name for name in QUALITIES if sum(name in row for row in rows) > 1), "")
    if quality:
        points = [
            (
                f"{row.get('step', '')} {row.get('detail', '')}".strip(),
                float(row["bytes"]),
                float(row[quality]),
            )
            for row in rows
            if quality in row and row.get("bytes")
        ]
        text += page.figures([("size against quality", charts.size_quality(points, quality))])
    return text


def shrink_rows(result: Mapping[str, Any]) -> list[Json]:
    """The rows of a result's table, nested figures laid flat."""
    table = result.get("table")
    found = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    return [dict(_flat(row)) for row in found]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """A row's figures; those of `quality` keep their names, those of `quality_before` are `before_...`."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, "before_" if name == "quality_before" else prefix)
        elif isinstance(value, list):
            yield prefix + name, len(value)
        else:
            yield prefix + name, value


def _search(results: Mapping[str, Json]) -> str:
    rows = [
        dict(_flat(row))
        for one in results.values()
        for row in one.get("front") or []
        if isinstance(row, dict)
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return page.table(columns, [[row.get(name, "") for name in columns] for row in rows]) if rows else ""


# --- files ------------------------------------------------------------------------------------------------


def _results(run: Path) -> dict[str, Json]:
    found = {path.stem: _read(path) for path in sorted((run / "results").glob("*.json"))}
    return {name: one for name, one in found.items() if isinstance(one, dict)}


def _read(path: Path) -> Any:
    """The JSON value of a file of the run, {} where there is none; raises ConfigError for a damaged one."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path} has more than {MAX_JSON_BYTES} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}", hint="run the pipeline again") from error


# --- command ------------------------------------------------------------------------------------------------


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a pipeline's run.")],
    *,
    out: Annotated[Path | None, typer.Option(help="The page (default RUN/report.html).")] = None,
    title: Annotated[str, typer.Option()] = "",
) -> None:
    """Everything is inside the one file: no scripts, no requests."""
    target = out or run / "report.html"
    write_report(run, target, title=title)
    typer.echo(target)
