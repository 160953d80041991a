"""`hauswart train evaluate`: scores what serves, or a given bundle, on a task's data.

The answer is one flat object; the same command scores the path without a model where no bundle serves, and
says so. What a task reads and which figures it gives is the task's own matter (`training.tasks`).
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.command.session import console, session_of
from daemon.errors import ConfigError, NoBundleError
from training.tables import DataError
from training.tasks import TASKS, Outcome, Request, Scored, find

DIGITS = 4
NONE = "none"


def evaluate_model(model: Any, eval_dataset: Any) -> tuple[float, dict[str, Any]]:
    """Accuracy and further figures of a trained model on labelled rows.

    Args:
        model: a transformers model of any tier, or the folder of a trained one.
        eval_dataset: a data set as `finetune_model` takes it, or a Parquet file of rows.

    Returns:
        the accuracy over all labels (for a generator: over all predicted tokens), and loss, macro-F1 by
        head, perplexity, milliseconds a row: those that apply.
    """
    from training.holdout import score_dataset  # noqa: PLC0415 - torch takes seconds

    found: tuple[float, dict[str, Any]] = score_dataset(model, eval_dataset)
    return found


def evaluate(
    task: str,
    data: Path,
    *,
    bundle: Any | None = None,
    train: Path | None = None,
    scores: Path | None = None,
    seed: int = 0,
    rounds: int = 1000,
    tell: Callable[[str], None] = lambda _said: None,
) -> tuple[dict[str, Any], Outcome]:
    """The flat answer and all that came with it; `bundle` None means the path without a model.

    Raises DataError for data that cannot be used, ConfigError for an unknown task.
    """
    run = find(task)
    outcome = run(Request(task, files_of(data), bundle, train, seed, rounds, tell))
    name = NONE if bundle is None else bundle.name
    answer = {"task": task, **_rounded(outcome.figures), "bundle": name}
    if scores is not None:
        write_scores(scores, outcome.scores)
    return answer, outcome


def files_of(data: Path) -> tuple[Path, ...]:
    """A file, or all files below a directory in order of their names."""
    if data.is_dir():
        found = tuple(sorted(path for path in data.rglob("*") if path.is_file()))
        if not found:
            raise DataError(f"{data} is an empty directory")
        return found
    if not data.exists():
        raise DataError(f"{data} does not exist")
    return (data,)


def serving(task: str, chosen: str, session: Any) -> Any | None:
    """The bundle to score: a directory, "none", or "" for what serves this host; None for no model.

    Raises BundleError where what is to serve may not be loaded.
    """
    tier = TASKS[task][1] if task in TASKS else ""
    if not tier or chosen == NONE:
        return None
    from models.bundle import verify  # noqa: PLC0415 - tasks without a model need none of it
    from models.shelf import choose  # noqa: PLC0415

    if chosen:
        return verify(Path(chosen), tier)
    settings = session.settings.models
    key = Path(settings.allowed_signers) if settings.allowed_signers else None
    try:
        return choose(
            tier,
            getattr(settings, tier),
            session.settings.state,
            key=key,
            signature_required=settings.signature_required,
        )
    except NoBundleError:
        return None


def write_scores(path: Path, scores: Sequence[Scored]) -> None:
    """One CSV row for each row: row, score, a label where there is one, the file where there are several."""
    several = len({one.file for one in scores}) > 1
    columns = ["row", "score"]
    columns += ["label"] if any(one.label is not None for one in scores) else []
    columns += ["file"] if several else []
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for one in scores:
            values = one._asdict() | {"score": repr(float(one.score))}
            writer.writerow([values[name] for name in columns])


def _rounded(figures: dict[str, float | int | str]) -> dict[str, float | int | str]:
    """Figures that exist, floats to four digits."""
    kept: dict[str, float | int | str] = {}
    for name, value in figures.items():
        if not isinstance(value, float):
            kept[name] = value
        elif math.isfinite(value):
            kept[name] = round(value, DIGITS)
    return kept


def evaluate_step(
    *,
    out: Path,
    data: Path,
    task: str = "rows",
    split: str = "test",
    bundle: Path | None = None,
    model: Path | None = None,
    train: Path | None = None,
    seed: int = 0,
    rounds: int = 1000,
    tell: Callable[[str], None] = lambda _said: None,
) -> dict[str, Any]:
    """The verb as a recipe's step: writes figures and curves to `out`, returns the figures."""
    if task == "rows":
        answer, curves = evaluate_rows(data, bundle=bundle or "", model=model, split=split, tell=tell)
    else:
        chosen = serving(task, str(bundle) if bundle else NONE, None)
        answer, outcome = evaluate(
            task, data, bundle=chosen, train=train, seed=seed, rounds=rounds, tell=tell
        )
        curves = outcome.curves
    write_json(out, {"figures": answer, "curves": curves})
    return answer


# --- command ------------------------------------------------------------------------------------------------


def command(
    context: typer.Context,
    *,
    task: Annotated[str, typer.Option(help=f"{', '.join(TASKS)}; or rows, for a data set of `dataset`.")],
    data: Annotated[Path, typer.Option(help="A file, or a directory of such files.")],
    bundle: Annotated[
        str, typer.Option(help='A bundle to score instead of the serving one; "none" for the path without.')
    ] = "",
    model: Annotated[
        Path | None, typer.Option(help="With --task rows: the folder of a trained model instead of a bundle.")
    ] = None,
    split: Annotated[str, typer.Option(help="With --task rows: which rows.")] = "test",
    train: Annotated[
        Path | None, typer.Option(help="Data of other groups that the n-gram baseline may learn from.")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Write each row's score to this CSV file.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write figures and curves to this JSON file, for `report`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    rounds: Annotated[int, typer.Option(help="Resamples of the bootstrap.", min=0, max=100_000)] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Without --json a table; progress goes to standard error."""
    if task == "rows":
        answer, curves = evaluate_rows(data, bundle=bundle, model=model, split=split, tell=_tell)
    else:
        found = serving(task, bundle, session_of(context))
        answer, outcome = evaluate(
            task, data, bundle=found, train=train, scores=scores, seed=seed, rounds=rounds, tell=_tell
        )
        curves = outcome.curves
    if out is not None:
        write_json(out, {"figures": answer, "curves": curves})
    if as_json:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        _show(answer)


def evaluate_rows(
    data: Path,
    *,
    bundle: str | Path = "",
    model: Path | None = None,
    split: str = "test",
    tell: Callable[[str], None] = lambda _said: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and curves of a trained folder or a bundle on one split of a Parquet data set."""
    from training import holdout  # noqa: PLC0415 - needs pyarrow

    if (model is None) == (not bundle):
        raise ConfigError("--task rows needs either --model or --bundle")
    if model is not None:
        figures, curves = holdout.score_folder(model, data, split=split, tell=tell)
        name = model.name
    else:
        from models.bundle import verify  # noqa: PLC0415

        found = verify(Path(bundle), None)
        figures, curves = holdout.score_bundle(found, data, split=split, tell=tell)
        name = found.name
    return {"task": "rows", "split": split, **_rounded(figures), "bundle": name}, curves


def write_json(path: Path, value: Any) -> None:
    """A JSON file with sorted keys, complete or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {said}\n")


def _show(answer: dict[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415 - only where somebody reads it

    table = Table("figure", "value", "95 % interval", "baseline", title=_title(answer))
    for name in _main(answer):
        low, high = answer.get(f"{name}_low"), answer.get(f"{name}_high")
        between = "" if low is None else f"{low} to {high}"
        table.add_row(name, str(answer[name]), between, str(answer.get(f"baseline_{name}", "")))
    console().print(table)


def _title(answer: dict[str, Any]) -> str:
    return f"{answer['task']}: {answer['bundle']} ({answer.get('path', 'model')})"


def _main(answer: dict[str, Any]) -> Iterable[str]:
    for name in answer:
        beside = name.endswith(("_low", "_high")) and name.rpartition("_")[0] in answer
        paired = name.startswith("baseline_") and name.removeprefix("baseline_") in answer
        if name not in {"task", "bundle", "path"} and not beside and not paired:
            yield name
