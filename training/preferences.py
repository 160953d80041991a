"""Preference tuning: which of two answers is better (DPO, Rafailov et al. 2023), on the adapter as it stands.

The reference is the model before this stage: what it makes of each answer is asked once, in advance. trl has
the same loss; it brings a trainer, a data format and a way to cut long texts of its own, so this is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from training.chatml import Row
from training.course import Run
from training.packing import IGNORED, Encoded, encode

Tell = Callable[[str], None]


class Pair(NamedTuple):
    """Two answers as tokens, and the log-likelihoods that the reference gives them."""

    chosen: Encoded
    rejected: Encoded
    reference: tuple[float, float] = (0.0, 0.0)


class Pairs:
    """A data set for the trainer: each entry one pair."""

    def __init__(self, pairs: Sequence[Pair], pad: int) -> None:
        self.pairs, self._pad = list(pairs), pad

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def collate(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """The chosen ones, then the rejected ones, (2 * batch, length); the reference's view, (2 * batch,).

        Padding stands behind, where a causal model's answers do not see it.
        """
        import torch  # noqa: PLC0415  # seconds

        rows = [*(one.chosen for one in pairs), *(one.rejected for one in pairs)]
        size = max(len(row.ids) for row in rows)
        views = [one.reference[side] for side in (0, 1) for one in pairs]
        return {
            "input_ids": torch.tensor([row.ids + [self._pad] * (size - len(row.ids)) for row in rows]),
            "labels": torch.tensor([row.labels + [IGNORED] * (size - len(row.labels)) for row in rows]),
            "reference": torch.tensor(views),
        }


class PreferenceLoss:
    """DPO's loss of a batch of pairs."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def of(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The mean loss, and each pair's margin, (batch,)."""
        import torch  # noqa: PLC0415  # seconds

        gained = likelihoods(model, inputs) - inputs["reference"]  # (2 * batch,)
        chosen, rejected = gained.chunk(2)
        margins = self._beta * (chosen - rejected)
        return -torch.nn.functional.logsigmoid(margins).mean(), margins


def likelihoods(model: Any, inputs: Mapping[str, Any]) -> Any:
    """The log-likelihood of each row's learned tokens, (rows,)."""
    import torch  # noqa: PLC0415  # seconds

    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1].float()
    labels = inputs["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return -each.sum(1)  # cross entropy is 0 where the label is IGNORED


def encode_pairs(rows: Sequence[Row], tokenizer: Any, length: int, tell: Tell) -> list[Pair]:
    """Pairs whose answers both fit; how many do not is told."""
    found = []
    for row in rows:
        chosen, rejected = (
            encode([*row["prompt"], *row[side]], tokenizer) for side in ("chosen", "rejected")
        )
        if max(len(chosen.ids), len(rejected.ids)) <= length:
            found.append(Pair(chosen, rejected))
    if len(found) < len(rows):
        tell(f"{len(rows) - len(found)} of {len(rows)} pairs are longer than {length} tokens and left out")
    return found


def judge(model: Any, pairs: Pairs, batch: int, *, bf16: bool) -> list[tuple[float, float]]:
    """What the model makes of each pair's answers: log-likelihoods."""
    import torch  # noqa: PLC0415  # seconds

    device = next(model.parameters()).device
    found: list[tuple[float, float]] = []
    model.eval()
    for begin in range(0, len(pairs), batch):
        some = pairs.pairs[begin : begin + batch]
        inputs = {name: one.to(device) for name, one in pairs.collate(some).items()}
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            chosen, rejected = likelihoods(model, inputs).chunk(2)
        found += zip(chosen.tolist(), rejected.tolist(), strict=True)
    return found


def prefer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    val_rows: Sequence[Row],
    run: Run,
) -> dict[str, Any]:
    """Tune the adapter on pairs; how many pairs of val (else of train) it gains on, and the loss."""
    from training.finetune import make_trainer  # noqa: PLC0415  # seconds

    settings, bf16, tell = run.settings, run.bf16, run.tell
    made = [encode_pairs(part, tokenizer, settings.max_seq_length, tell) for part in (rows, val_rows)]
    sets = []
    for pairs in made:
        bare = Pairs(pairs, tokenizer.pad_token_id)
        views = judge(model, bare, settings.batch_size, bf16=bf16)
        known = [one._replace(reference=view) for one, view in zip(pairs, views, strict=True)]
        sets.append(Pairs(known, tokenizer.pad_token_id))
    train, test = sets
    if not len(train):
        return {}
    tell(f"preference tuning on {len(train)} pairs")
    trainer = make_trainer(
        model,
        train,
        None,
        loss=PreferenceLoss(settings.preference_beta),
        out=run.out / "preferences",
        logs=run.out / "logs",
        epochs=settings.preference_epochs,
        batch=settings.batch_size,
        learning_rate=settings.preference_learning_rate,
        weight_decay=0.0,
        warmup_steps=0,
        accumulation=settings.gradient_accumulation_steps,
        seed=settings.seed,
        bf16=bf16,
        tell=tell,
        lr_scheduler_type=settings.lr_scheduler,
        activation_checkpointing=settings.gradient_checkpointing,
        train_sampling_strategy="random",
        save_strategy="no",
        logging_steps=1,
    )
    trainer.train()
    shown = test if len(test) else train
    after = judge(model, shown, settings.batch_size, bf16=bf16)
    gained = [
        (chosen - one.reference[0]) > (rejected - one.reference[1])
        for one, (chosen, rejected) in zip(shown.pairs, after, strict=True)
    ]
    loss = next((one["loss"] for one in reversed(trainer.state.log_history) if "loss" in one), None)
    share = sum(gained) / len(gained)
    tell(f"of {len(gained)} pairs it now leans to the better answer of {share:.0%}")
    return {
        "pairs": len(train),
        "preference_loss": loss,
        "preference_gained": share,
        "preference_n": len(gained),
    }
