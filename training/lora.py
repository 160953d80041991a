"""The one LoRA trainer of language models: conversations in, an adapter with its tokenizer and card out.

It learns what the assistant says, from whole rows (see `training.packing`), then, where there are pairs,
which of two answers is better (see `training.preferences`). Before it starts it says how long it will take,
as measured on the data's own batches; where memory runs out it gives up a little and says what.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from training import course, memory, packing
from training.causal import load_causal
from training.chatml import Row
from training.course import CARD, Run, Settings

HISTORY = "history.json"
Tell = Callable[[str], None]


class Data(NamedTuple):
    """What one training reads."""

    rows: Sequence[Row]
    val_rows: Sequence[Row] = ()
    pairs: Sequence[Row] = ()
    val_pairs: Sequence[Row] = ()


def train_lora(
    rows: Sequence[Row],
    val_rows: Sequence[Row],
    base: str,
    out: Path,
    settings: Settings | None = None,
    *,
    pairs: Sequence[Row] = (),
    val_pairs: Sequence[Row] = (),
    resume: bool = False,
    report_to: Sequence[str] = (),
    sources: Mapping[str, Any] | None = None,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Train an adapter of `base` on ChatML rows and leave it in `out`; what was measured.

    `resume` goes on from the last checkpoint in `out`, if there is one. `sources` is kept in the card. Raises
    ConfigError for data, a base or settings that do not fit, HauswartError where memory does not suffice.
    """
    from training.finetune import has_bf16  # noqa: PLC0415  # seconds

    settings, given_up = fitting(settings or Settings(), tell), list[str]()
    if not rows:
        raise ConfigError("there are no rows to train on")
    out.mkdir(parents=True, exist_ok=True)
    bf16 = has_bf16() if settings.bf16 is None else settings.bf16
    data, metrics = Data(rows, val_rows, pairs, val_pairs), None
    while metrics is None:
        try:
            metrics = _train(data, Run(base, out, settings, bf16, report_to, tell), resume=resume)
        except (MemoryError, RuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
        if metrics is None:  # not above: there the error still holds the failed run's tensors
            settings, said = memory.give_up(settings, "memory ran out", tell)
            given_up.append(said)
    metrics["given_up"] = given_up
    shutil.rmtree(out / course.CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(out / "preferences", ignore_errors=True)
    card = {"base": base, "settings": settings._asdict(), "metrics": metrics, "sources": dict(sources or {})}
    (out / CARD).write_text(json.dumps(card, indent=1, default=str) + "\n", encoding="utf-8")
    return metrics


def fitting(settings: Settings, tell: Tell) -> Settings:
    """The settings as this machine can have them: 4 bits need an NVIDIA accelerator. Raises ConfigError."""
    import torch  # noqa: PLC0415  # seconds

    if settings.quantization not in {"4bit", "none"}:
        raise ConfigError(f"no quantization {settings.quantization!r}", hint="4bit or none")
    if settings.quantization == "4bit" and not torch.cuda.is_available():
        tell("no NVIDIA accelerator here: quantization 4bit to none, training on the processor")
        return settings._replace(quantization="none")
    return settings


def _train(data: Data, run: Run, *, resume: bool) -> dict[str, Any]:
    from transformers import set_seed  # noqa: PLC0415  # seconds

    settings, tell = run.settings, run.tell
    set_seed(settings.seed)
    tell(f"loading {run.base}")
    model, tokenizer = load_adapting(run.base, settings)
    packing.check_tokenizer(tokenizer)
    train, test = (_sequences(part, tokenizer, run) for part in (data.rows, data.val_rows))
    if not len(train):
        raise ConfigError("no row fits the sequence", hint="a larger model.max_seq_length")
    train = course.pack_rows(train, model, run)
    metrics, seconds = _expect(model, train, run)
    metrics |= {"train_rows": len(data.rows), "val_rows": len(data.val_rows)}

    checkpoint = course.last_checkpoint(run) if resume else None
    course.remember(run)
    trainer = course.make_course(model, train, test, run)
    if len(test):
        metrics["eval_loss_before"] = trainer.evaluate()["eval_loss"]
        tell(f"loss on val before: {metrics['eval_loss_before']:.3f}")
    if checkpoint:
        tell(f"going on from {checkpoint.name}")
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    metrics |= {"seconds": round(time.monotonic() - began, 1), "estimated_seconds": round(seconds, 1)}
    history = trainer.state.log_history
    losses = [one["loss"] for one in history if "loss" in one]
    metrics |= {"steps": trainer.state.global_step, "train_loss": losses[-1] if losses else None}
    if len(test):
        metrics["eval_loss"] = trainer.evaluate()["eval_loss"]
        tell(f"loss on val after: {metrics['eval_loss']:.3f}")
    if data.pairs:
        from training.preferences import prefer  # noqa: PLC0415

        metrics |= prefer(model, tokenizer, data.pairs, data.val_pairs, run)
    (run.out / HISTORY).write_text(json.dumps(history), encoding="utf-8")
    save_adapter(model, tokenizer, run.base, run.out)
    return metrics


def _sequences(rows: Sequence[Row], tokenizer: Any, run: Run) -> packing.Sequences:
    fit = packing.fit(rows, tokenizer, run.settings.max_seq_length, run.tell)
    return packing.Sequences([[one] for one in fit.rows], tokenizer.pad_token_id)


def _expect(model: Any, train: packing.Sequences, run: Run) -> tuple[dict[str, Any], float]:
    """Figures of the data and the speed, and how many seconds the steps will take."""
    tokens = sum(len(train[number]["input_ids"]) for number in range(len(train)))
    speed = course.calibrate(model, train, run)
    seconds = tokens * course.passes(run.settings, len(train)) / speed
    run.tell(
        f"{len(train)} sequences, {tokens} tokens, {course.steps_of(run.settings, len(train))} steps "
        f"at {speed:.0f} tokens/s{' in bfloat16' if run.bf16 else ''}: about {told_time(seconds)}"
    )
    return {"sequences": len(train), "tokens": tokens, "tokens_per_second": speed}, seconds


def load_adapting(base: str, settings: Settings) -> tuple[Any, Any]:
    """The base with fresh adapters, and its tokenizer; by Unsloth on an accelerator where it is installed."""
    import torch  # noqa: PLC0415  # seconds

    from training import adapters  # noqa: PLC0415

    preset = adapters.Preset(settings.rank, settings.alpha, settings.dropout)
    four_bits, accelerated = settings.quantization == "4bit", torch.cuda.is_available()
    if accelerated and (made := load_by_unsloth(base, settings, adapters.USUAL)):
        return made
    dtype = "float32" if not accelerated else "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    model, tokenizer = load_causal(base, four_bits=four_bits, dtype=dtype)
    if four_bits:
        from peft import prepare_model_for_kbit_training  # noqa: PLC0415

        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=settings.gradient_checkpointing
        )
    model = adapters.attach(model, "lora", preset, as_loaded=accelerated or four_bits)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()  # else nothing flows back into the checkpointed layers
    return model, tokenizer


def load_by_unsloth(base: str, settings: Settings, targets: Sequence[str]) -> tuple[Any, Any] | None:
    """Model with adapters and tokenizer by Unsloth, which trains faster; None where it is not installed."""
    try:
        from unsloth import FastLanguageModel  # noqa: PLC0415
    except (ImportError, NotImplementedError):  # it refuses to be imported where it finds no accelerator
        return None
    model, tokenizer = FastLanguageModel.from_pretrained(
        base, max_seq_length=settings.max_seq_length, load_in_4bit=settings.quantization == "4bit"
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(targets),
        bias="none",
        random_state=settings.seed,
        use_gradient_checkpointing="unsloth" if settings.gradient_checkpointing else False,
    )
    return model, tokenizer


def save_adapter(model: Any, tokenizer: Any, base: str, out: Path) -> None:
    """Adapter and tokenizer into `out`, the adapter's configuration last: without it there is no adapter."""
    model.peft_config["default"].base_model_name_or_path = base
    part = out / "adapter.part"
    model.save_pretrained(str(part))
    tokenizer.save_pretrained(str(part))
    for file in sorted(part.iterdir(), key=lambda one: one.name == "adapter_config.json"):
        file.replace(out / file.name)
    part.rmdir()


def told_time(seconds: float) -> str:
    """A span as one reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
