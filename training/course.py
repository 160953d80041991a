"""How one LoRA training goes: its steps, its speed before it starts, its trainer, its checkpoints."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from training import packing

CARD, LOG, CHECKPOINTS = "training.json", "log.jsonl", "checkpoints"
Tell = Callable[[str], None]
# Packing makes few, long sequences; with fewer steps over the whole run there is too little to learn by.
PACKED_STEPS_MIN = 100


class Settings(NamedTuple):
    """How to train; the defaults are the preset `scheduler` and what goes with it."""

    quantization: str = "4bit"  # or none; on a processor and on a Mac it is none
    max_seq_length: int = 4096
    rank: int = 16
    alpha: int = 16
    dropout: float = 0.0
    epochs: float = 3.0
    batch_size: int = 2
    gradient_accumulation_steps: int = 4
    learning_rate: float = 2e-4
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.01
    packing: bool | None = None  # None: where it leaves enough steps
    gradient_checkpointing: bool = False
    evaluations: int = 4
    patience: int = 0  # evaluations without gain after which it stops; 0: never
    max_steps: int = -1
    seed: int = 0
    bf16: bool | None = None  # None: where the processor has it
    preference_epochs: float = 1.0
    preference_learning_rate: float = 2e-5
    preference_beta: float = 0.1  # Rafailov et al. 2023


class Run(NamedTuple):
    """What holds for a whole training."""

    base: str
    out: Path
    settings: Settings
    bf16: bool
    report_to: Sequence[str]
    tell: Tell


def steps_of(settings: Settings, sequences: int) -> int:
    """How many steps a run has."""
    if settings.max_steps > 0:
        return settings.max_steps
    batches = -(-sequences // settings.batch_size)
    return max(1, int(settings.epochs * -(-batches // settings.gradient_accumulation_steps)))


def passes(settings: Settings, sequences: int) -> float:
    """How often each sequence is seen."""
    if settings.max_steps <= 0:
        return settings.epochs
    return settings.max_steps * settings.batch_size * settings.gradient_accumulation_steps / sequences


def pack_rows(train: packing.Sequences, model: Any, run: Run) -> packing.Sequences:
    """Several rows a sequence where asked for, or where enough steps stay, if the model separates them."""
    settings = run.settings
    if settings.packing is False:
        return train
    packed = train.packed(settings.max_seq_length)
    if settings.packing is None and steps_of(settings, len(packed)) < PACKED_STEPS_MIN:
        return train
    if not packing.isolates(model):
        run.tell("this model does not keep packed rows apart: each row by itself")
        return train
    run.tell(f"{len(train)} rows packed into {len(packed)} sequences")
    return packed


def calibrate(model: Any, train: packing.Sequences, run: Run) -> float:
    """Tokens a second, forward and backward; the longest batch first, as it shows if memory suffices."""
    import torch  # noqa: PLC0415  # seconds

    device, size = next(model.parameters()).device, run.settings.batch_size
    if torch.cuda.is_available() and device.type == "cpu":
        device = torch.device("cuda")
        model.to(device)
    if run.settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    order = sorted(range(len(train)), key=lambda number: -len(train[number]["input_ids"]))
    middle = len(order) // 2
    speed = 0.0
    model.train()
    for begin in (0, middle, middle):
        rows = [train[number] for number in order[begin : begin + size]]
        batch = {name: one.to(device) for name, one in train.collate(rows).items()}
        began = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        speed = sum(len(row["input_ids"]) for row in rows) / (time.monotonic() - began)
        model.zero_grad(set_to_none=True)
    return round(speed, 1)


def make_course(model: Any, train: packing.Sequences, test: packing.Sequences, run: Run) -> Any:
    """The trainer of a run."""
    from training.finetune import make_trainer  # noqa: PLC0415  # seconds
    from training.loop import LogFile  # noqa: PLC0415

    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)  # it warns of what was chosen
    settings, steps = run.settings, steps_of(run.settings, len(train))
    every = max(1, steps // max(1, settings.evaluations))
    trainer = make_trainer(
        model,
        train,
        test if len(test) else None,
        loss=None,
        out=run.out / CHECKPOINTS,
        logs=run.out / "logs",
        epochs=settings.epochs,
        batch=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=int(settings.warmup_ratio * steps),
        accumulation=settings.gradient_accumulation_steps,
        max_steps=settings.max_steps,
        evaluate_steps=every if len(test) else 0,
        patience=settings.patience,
        seed=settings.seed,
        bf16=run.bf16,
        tell=run.tell,
        callbacks=[LogFile(run.out / LOG)],
        lr_scheduler_type=settings.lr_scheduler,
        per_device_eval_batch_size=settings.batch_size,
        activation_checkpointing=settings.gradient_checkpointing,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=every,
        logging_steps=max(1, every // 10),
        report_to=list(run.report_to),
    )
    trainer.model_accepts_loss_kwargs = True  # so each learned token of a step counts alike, not each batch
    return trainer


def remember(run: Run) -> None:
    """Keep what the checkpoints to come are of."""
    folder = run.out / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(json.dumps(_identity(run)), encoding="utf-8")


def last_checkpoint(run: Run) -> Path | None:
    """The last checkpoint in the run's folder, if there is one. Raises ConfigError where it is of another."""
    from transformers.trainer_utils import get_last_checkpoint  # noqa: PLC0415  # seconds

    folder = run.out / CHECKPOINTS
    if not (folder / CARD).is_file():
        return None
    known, now = json.loads((folder / CARD).read_text(encoding="utf-8")), _identity(run)
    other = sorted(name for name in now if known.get(name) != now[name])
    if other:
        raise ConfigError(
            f"the run in {run.out} had other settings: {', '.join(other)}",
            hint="the same ones, or no --resume",
        )
    found = get_last_checkpoint(str(folder))
    return Path(found) if found else None


def _identity(run: Run) -> dict[str, Any]:
    return {**run.settings._asdict(), "base": run.base}
