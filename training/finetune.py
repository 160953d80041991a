"""Fine-tune: a model of any tier from rows, fully or through adapters, alone or taught by a larger one.

Classifiers learn several heads at once and skip the labels that a row lacks; the generator learns only what
follows its prompt. The loop is transformers' Trainer. Defaults are the guide's: 3 epochs, batch 8, 500 steps
of warm-up (fewer on small runs, and said so), weight decay 0.01, output ./results, logs ./logs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from daemon.errors import ConfigError
from models import lines, situations
from training.folder import make_card, save_folder

HEADS: dict[str, dict[str, int]] = {"low": lines.HEADS, "middle": situations.HEADS, "top": {}}
SEQUENCE = {"low": 32, "middle": situations.SEQUENCE, "top": 256}
WARMUP_STEPS, WARMUP_SHARE = 500, 0.1
Method = Literal["full", "lora", "qlora"]
Tell = Callable[[str], None]


def train_folder(
    data: Path,
    base: str,
    out: Path,
    *,
    tier: str,
    epochs: float = 3.0,
    batch: int = 8,
    learning_rate: float = 5e-5,
    weight_decay: float = 0.01,
    warmup_steps: int = WARMUP_STEPS,
    accumulation: int = 1,
    sequence: int = 0,
    vocabulary: int = 8192,
    specials: Sequence[str] | None = None,
    head_weights: Mapping[str, float] | None = None,
    balance: float = 0.0,
    soft_weight: float = 0.5,
    temperature: float = 2.0,
    distil_from: Path | None = None,
    method: Method = "full",
    preset: str = "scheduler",
    rank: int = 0,
    freeze_embeddings: bool = False,
    patience: int = 0,
    evaluations: int = 4,
    evaluation_rows: int = 2000,
    max_steps: int = -1,
    bf16: bool | None = None,
    seed: int = 0,
    recipe: str = "",
    resume: bool = False,
    logs: Path | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Train `base` on a Parquet file of rows and leave a trained model's folder in `out`; its metrics.

    `specials` are marks that stay single tokens, by default the tier's own; `sequence` 0 is the tier's.
    `evaluations` times it looks at `evaluation_rows` of split val, evenly chosen, and early stopping
    (`patience` looks without gain) goes by their loss.
    `balance` 0 weighs rows alike, 1 classes alike. Rows with `soft` (a teacher's logits over all heads), and
    all rows where `distil_from` is given, pull by `soft_weight` towards the teacher. Raises ConfigError for
    data or a base that do not fit the tier.
    """
    from transformers import set_seed  # noqa: PLC0415  # seconds, see the module's `command`

    from training import adapters, bases, batches, distil, losses  # noqa: PLC0415

    if tier not in HEADS:
        raise ConfigError(f"no tier {tier!r}", hint="low, middle or top")
    set_seed(seed)
    heads, length = HEADS[tier], sequence or SEQUENCE[tier]
    bf16 = has_bf16() if bf16 is None else bf16
    train, test = batches.read_split(data, tier, "train"), batches.read_split(data, tier, "val")
    if not train:
        raise ConfigError(f"{data} has no rows of split train")
    test = test[:: -(-len(test) // evaluation_rows)] if test else test

    marks = bases.marks_of(tier) if specials is None else list(specials)
    model, tokenizer = bases.load_base(
        base,
        tier=tier,
        heads=heads,
        texts=[batches.whole_text(row) for row in train],
        vocabulary=vocabulary,
        specials=marks,
        sequence=length,
    )
    bases.check_length(model, length)
    parameters = sum(one.numel() for one in model.parameters())
    if freeze_embeddings:
        model.get_input_embeddings().requires_grad_(requires_grad=False)
    fresh = [tokenizer.token_to_id(one) for one in marks]
    model = adapters.attach(model, method, preset, rank=rank, fresh=fresh)

    make = batches.TextRows if tier == "top" else batches.LabelRows
    train_rows, test_rows = (make(part, tokenizer, heads, length) for part in (train, test))
    teacher = distil_from and distil.join(distil_from, train_rows, tokenizer, bf16=bf16, tell=tell)
    loss = losses.Loss(
        heads,
        dict(head_weights or {}),
        losses.class_weights(train, heads, balance),
        soft_weight=soft_weight,
        temperature=temperature,
        teacher=teacher,
    )
    steps = max_steps if max_steps > 0 else int(epochs * len(train_rows) / (batch * accumulation)) + 1
    warm = min(warmup_steps, int(WARMUP_SHARE * steps))
    if warm < warmup_steps:
        tell(f"warm-up clamped from {warmup_steps} to {warm} of {steps} steps")
    trainer = make_trainer(
        model,
        train_rows,
        test_rows,
        loss=loss,
        out=out / "checkpoints",
        logs=logs or out / "logs",
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=warm,
        accumulation=accumulation,
        max_steps=max_steps,
        evaluate_steps=max(1, steps // max(1, evaluations)) if test else 0,
        patience=patience,
        seed=seed,
        bf16=bf16,
        tell=tell,
    )
    cut_short = resume and any((out / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=cut_short or None)

    metrics = trainer.evaluate() if test else {}
    metrics |= {"train_rows": len(train), "val_rows": len(test), "steps": trainer.state.global_step}
    if trainer.is_world_process_zero():
        known = {"seed": seed, "recipe": recipe, "data": [dict(one) for one in sources], "metrics": metrics}
        known |= {"base": base, "method": method, "parameters": parameters}
        if method != "full":
            trainer.model.save_pretrained(out / "adapter")
        card = make_card(tier, heads, sequence=length, **known)
        save_folder(adapters.merge(trainer.model, method), tokenizer, card, out)
        (out / "history.json").write_text(json.dumps(trainer.state.log_history), encoding="utf-8")
    return metrics


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively: measured 1.2 to 1.6 times as fast as float32."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001  # there is no public one


def finetune_model(
    model: Any, train_dataset: Any, eval_dataset: Any, *, output_dir: str = "./results", epochs: float = 3.0
) -> Any:
    """The guide's function: train with its defaults and return the model.

    Data sets give dicts with `input_ids`, `attention_mask` and `labels`, as transformers has them.
    """
    warm = min(WARMUP_STEPS, int(WARMUP_SHARE * epochs * len(train_dataset) / 8))
    trainer = make_trainer(
        model,
        train_dataset,
        eval_dataset,
        loss=None,
        out=Path(output_dir),
        logs=Path("./logs") if output_dir == "./results" else Path(output_dir) / "logs",
        epochs=epochs,
        warmup_steps=warm,
    )
    trainer.train()
    return trainer.model


def make_trainer(
    model: Any,
    train_rows: Any,
    test_rows: Any,
    *,
    loss: Any,
    out: Path,
    logs: Path,
    epochs: float = 3.0,
    batch: int = 8,
    learning_rate: float = 5e-5,
    weight_decay: float = 0.01,
    warmup_steps: int = WARMUP_STEPS,
    accumulation: int = 1,
    max_steps: int = -1,
    evaluate_steps: int = 0,
    patience: int = 0,
    seed: int = 0,
    bf16: bool = False,
    tell: Tell = lambda _said: None,
    callbacks: Sequence[Any] = (),
    **changes: Any,
) -> Any:
    """Transformers' Trainer with our loss; `evaluate_steps` 0 evaluates only at the end of each epoch.

    `changes` are further TrainingArguments, or other ones than those here.
    """
    # It is imported wherever it is installed, and warns of a kernel that no CPU has.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments  # noqa: PLC0415

    from training.loop import LossTrainer, Progress  # noqa: PLC0415

    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(logs))
    tested = bool(len(test_rows)) if test_rows is not None else False
    strategy = "no" if not tested else "steps" if evaluate_steps else "epoch"
    stopping = patience > 0 and tested
    known: dict[str, Any] = {
        "output_dir": str(out),
        "num_train_epochs": epochs,
        "max_steps": max_steps,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": max(8, batch),
        "gradient_accumulation_steps": accumulation,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "eval_strategy": strategy,
        "eval_steps": evaluate_steps or None,
        "save_strategy": strategy if tested else "epoch",
        "save_steps": evaluate_steps or 500,
        "save_total_limit": 2,
        "load_best_model_at_end": stopping,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": max(1, (evaluate_steps or 100) // 10),
        "train_sampling_strategy": "group_by_length" if loss is not None else "random",
        "remove_unused_columns": loss is None,
        "bf16": bf16,
        "use_cpu": not _on_accelerator(),
        "seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    trainer = LossTrainer(
        model=model,
        args=TrainingArguments(**(known | changes)),
        train_dataset=train_rows,
        eval_dataset=test_rows if tested else None,
        data_collator=getattr(train_rows, "collate", None),
        callbacks=[Progress(tell), *callbacks, *([EarlyStoppingCallback(patience)] if stopping else [])],
        loss=loss,
    )
    trainer.remove_callback(PrinterCallback)  # `tell` says it
    return trainer


def _on_accelerator() -> bool:
    import torch  # noqa: PLC0415

    return bool(torch.cuda.is_available())


def command(
    data: Annotated[Path, typer.Argument(help="Rows as Parquet, from `hauswart train dataset`.")],
    *,
    tier: Annotated[str, typer.Option(help="low, middle or top")],
    base: Annotated[str, typer.Option(help="shape:FAMILY-LAYERSxWIDTH, minilm, a folder or a model's name.")],
    out: Annotated[Path, typer.Option(help="The trained model's folder.")] = Path("results"),
    epochs: Annotated[float, typer.Option(min=0.0)] = 3.0,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option()] = 5e-5,
    weight_decay: Annotated[float, typer.Option()] = 0.01,
    warmup_steps: Annotated[int, typer.Option(help="Clamped to a tenth of the steps.")] = WARMUP_STEPS,
    accumulation: Annotated[int, typer.Option(min=1, help="Batches a step.")] = 1,
    sequence: Annotated[int, typer.Option(help="Tokens at most; 0: the tier's own.")] = 0,
    vocabulary: Annotated[int, typer.Option(help="Pieces, where one is learned.")] = 8192,
    balance: Annotated[float, typer.Option(help="0 weighs rows alike, 1 classes alike.")] = 0.0,
    distil_from: Annotated[Path | None, typer.Option(help="A larger trained model that teaches.")] = None,
    soft_weight: Annotated[float, typer.Option(help="The teacher's share of the loss.")] = 0.5,
    temperature: Annotated[float, typer.Option(help="Of the teacher's answers.")] = 2.0,
    method: Annotated[str, typer.Option(help="full, lora or qlora (4 bits)")] = "full",
    preset: Annotated[str, typer.Option(help="Of the adapters: scheduler or lab2.")] = "scheduler",
    rank: Annotated[int, typer.Option(help="Of the adapters; 0: the preset's.")] = 0,
    patience: Annotated[int, typer.Option(help="Stop after so many evaluations without gain; 0: never.")] = 0,
    max_steps: Annotated[int, typer.Option(help="Stop here; -1: by epochs.")] = -1,
    bf16: Annotated[bool | None, typer.Option(help="Default: where the processor has it.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in --out.")] = False,
    logs: Annotated[Path | None, typer.Option(help="Default: logs in --out.")] = None,
) -> None:
    """Several processes: torchrun --nproc-per-node N -m training finetune ..."""
    if method not in {"full", "lora", "qlora"}:
        raise ConfigError(f"no method {method!r}", hint="full, lora or qlora")
    metrics = train_folder(
        data,
        base,
        out,
        tier=tier,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        accumulation=accumulation,
        sequence=sequence,
        vocabulary=vocabulary,
        balance=balance,
        distil_from=distil_from,
        soft_weight=soft_weight,
        temperature=temperature,
        method=method,  # type: ignore[arg-type]  # checked above
        preset=preset,
        rank=rank,
        patience=patience,
        max_steps=max_steps,
        bf16=bf16,
        seed=seed,
        resume=resume,
        logs=logs,
        tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
    )
    if int(os.environ.get("RANK", "0")) == 0:
        sys.stdout.write(json.dumps(metrics) + "\n")
    _leave_group()


def _leave_group() -> None:
    """End one of several processes when all are done, without taking their group down.

    A process that ends with the group's threads alive aborts now and then (1 run of 12), and taking it down
    first hung once when all was written. So they meet in the store, which needs no thread of the group, and
    end at once; the first process, which may be the one that holds the store, goes last.
    """
    import torch.distributed as group  # noqa: PLC0415

    if not (group.is_available() and group.is_initialized()):
        return
    store, size = group.distributed_c10d._get_default_store(), group.get_world_size()  # noqa: SLF001  # no public one
    for met in ("hauswart-done", "hauswart-leaves"):
        if store.add(met, 1) == size:
            store.set(f"{met}-all", "")
        if met == "hauswart-done" or group.get_rank() == 0:
            store.wait([f"{met}-all"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
