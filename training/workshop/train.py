"""`hauswart workshop train`: fine-tune a language model on data/processed, after looking at the machine."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from training import chatml, course
from training.causal import quieten
from training.workshop import folders, preflight, settings


def train(
    workdir: Path,
    config: settings.Workshop,
    *,
    adapter: Path | None = None,
    wandb_project: str = "",
    resume: bool = False,
    tell: preflight.Tell = lambda _said: None,
) -> dict[str, Any]:
    """Train on what `prepare` wrote and leave the adapter in output/lora_adapter; figures.

    Raises ConfigError where nothing is prepared, HauswartError where memory does not suffice.
    """
    from training.lora import fitting, told_time, train_lora  # noqa: PLC0415  # seconds

    rows = _rows(workdir / folders.TRAIN, tell)
    val = chatml.read_file(workdir / folders.VAL).rows if (workdir / folders.VAL).is_file() else []
    pairs, val_pairs = (
        chatml.read_file(path).pairs if (path := workdir / name).is_file() else []
        for name in (folders.TRAIN_PAIRS, folders.VAL_PAIRS)
    )
    for line in preflight.judge(preflight.look(workdir)):
        tell(line)
    from training.memory import available_bytes, shape_of  # noqa: PLC0415

    shape = shape_of(config.base_model)
    tell(f"{config.base_model}: {shape.parameters / 1e6:,.0f} million parameters")
    wanted = fitting(config.training, tell)
    wanted = preflight.fit_memory(shape, wanted, rows, available_bytes(), tell)
    tell(f"by this machine's arithmetic about {told_time(preflight.guess_seconds(shape, wanted, rows))}")
    metrics = train_lora(
        rows,
        val,
        config.base_model,
        adapter or workdir / folders.ADAPTER,
        wanted,
        pairs=pairs,
        val_pairs=val_pairs,
        resume=resume,
        report_to=_trackers(wandb_project, tell),
        sources=_sources(workdir, rows),
        tell=tell,
    )
    _write_readme(adapter or workdir / folders.ADAPTER, config.base_model, metrics)
    return metrics


def _rows(path: Path, tell: preflight.Tell) -> list[chatml.Row]:
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="first: hauswart workshop prepare")
    return chatml.read_rows(path, tell)


def _trackers(wandb_project: str, tell: preflight.Tell) -> list[str]:
    """Weights & Biases where asked for and installed; the log file is always written."""
    if not wandb_project:
        return []
    if find_spec("wandb") is None:
        tell(f"wandb is not installed: figures go to {course.LOG} beside the adapter alone")
        return []
    os.environ["WANDB_PROJECT"] = wandb_project
    return ["wandb"]


def _sources(workdir: Path, rows: list[chatml.Row]) -> dict[str, Any]:
    """What the card says of the data: counts, and the system prompt if most rows have the same."""
    firsts = [row["messages"][0] for row in rows]
    systems = Counter(one["content"] for one in firsts if one["role"] == "system").most_common(1)
    system = systems[0][0] if systems and systems[0][1] > len(rows) / 2 else ""
    known = workdir / folders.PROCESSED / "prepared.json"
    counts = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    return {"system": system, "prepared": counts}


def _write_readme(adapter: Path, base: str, metrics: dict[str, Any]) -> None:
    """What a hub or a colleague reads first."""
    named = base if "/" in base and not Path(base).exists() else Path(base).name
    losses = [f"{metrics[key]:.3f}" for key in ("eval_loss_before", "eval_loss") if key in metrics]
    text = (
        f"---\nbase_model: {named}\nlibrary_name: peft\n---\n\n# A LoRA adapter of {named}\n\n"
        f"Trained on {metrics['train_rows']} conversations in {metrics['steps']} steps"
        + (f"; loss on {metrics['val_rows']} others {' -> '.join(losses)}" if losses else "")
        + f".\n\nSettings, data and figures: `{course.CARD}`. Load it with peft's "
        "`PeftModel.from_pretrained`, or merge and export it with `hauswart workshop export`.\n"
    )
    (adapter / "README.md").write_text(text, encoding="utf-8")


def command(
    *,
    workdir: folders.Workdir = Path(),
    config: folders.Config = None,
    wandb_project: Annotated[str, typer.Option("--wandb-project", help="Track with Weights & Biases.")] = "",
    base: Annotated[str, typer.Option("--base", help="Instead of model.base_model.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    as_json: folders.AsJson = False,
) -> None:
    """Reads data/processed, writes output/lora_adapter."""
    quieten()
    wanted = settings.load(config)
    metrics = train(
        workdir,
        wanted._replace(base_model=base) if base else wanted,
        wandb_project=wandb_project,
        resume=resume,
        tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
    )
    if as_json:
        sys.stdout.write(json.dumps(metrics) + "\n")
        return
    losses = [f"{metrics[key]:.3f}" for key in ("eval_loss_before", "eval_loss") if key in metrics]
    sys.stdout.write(
        f"{metrics['steps']} steps in {metrics['seconds']:.0f} s"
        + (f"; loss on val {' -> '.join(losses)}" if losses else "")
        + f"\nadapter in {workdir / folders.ADAPTER}\nnext: hauswart workshop export\n"
    )
