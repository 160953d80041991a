"""What a model is trained for: several heads at once, missing labels masked, a teacher beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from training.batches import NONE


@dataclass
class Loss:
    """The loss of a batch; `classes` weighs the classes of a head, `head_weights` the heads."""

    heads: Mapping[str, int]
    head_weights: Mapping[str, float]
    classes: Mapping[str, Any] = field(default_factory=dict)
    soft_weight: float = 0.5
    temperature: float = 2.0
    teacher: Any = None

    def of(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        """Loss (a scalar) and the model's outputs."""
        known = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if not self.heads:
            return self._of_text(model, known, batch["labels"])
        outputs = model(**known)
        logits = outputs.logits.float()  # (batch, all heads)
        loss = self._hard(logits, batch["labels"], batch["weight"])
        soft = batch.get("soft")
        if soft is not None:
            known_rows = ~soft.isnan().any(dim=1)
            if known_rows.any():
                pull = self._pull(logits[known_rows], soft[known_rows])
                loss = (1.0 - self.soft_weight) * loss + self.soft_weight * pull
        return loss, outputs

    def _hard(self, logits: Any, labels: Any, weight: Any) -> Any:
        total, at = logits.sum() * 0.0, 0
        for number, (name, size) in enumerate(self.heads.items()):
            part, wanted, at = logits[:, at : at + size], labels[:, number], at + size
            there = wanted != NONE
            if not there.any():
                continue
            part, wanted, share = part[there], wanted[there], weight[there]
            if size == 1:
                each = functional.binary_cross_entropy_with_logits(part[:, 0], wanted, reduction="none")
            else:
                classes = self.classes.get(name)
                each = functional.cross_entropy(part, wanted.long(), weight=classes, reduction="none")
            # The share of rows that have the label, so that a rare label in a batch does not shout.
            mean = (each * share).sum() / share.sum().clamp(min=1e-6)
            total = total + self.head_weights.get(name, 1.0) * mean * there.float().mean().sqrt()
        return total

    def _pull(self, logits: Any, soft: Any) -> Any:
        """Kullback-Leibler divergence from the teacher, head by head (Hinton et al. 2015)."""
        total, at, heat = logits.sum() * 0.0, 0, self.temperature
        for name, size in self.heads.items():
            ours, theirs, at = logits[:, at : at + size], soft[:, at : at + size], at + size
            weight = self.head_weights.get(name, 1.0)
            if size == 1:
                wanted = torch.sigmoid(theirs)
                total = total + weight * functional.binary_cross_entropy_with_logits(ours, wanted)
                continue
            ours, theirs = (functional.log_softmax(one / heat, dim=1) for one in (ours, theirs))
            apart = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
            total = total + weight * heat * heat * apart
        return total

    def _of_text(self, model: Any, known: dict[str, Any], labels: Any) -> tuple[Any, Any]:
        outputs = model(**known)
        logits = outputs.logits[:, :-1].float()  # (batch, tokens - 1, vocabulary)
        wanted = labels[:, 1:]
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NONE)
        if self.teacher is not None and model.training:
            with torch.no_grad():
                theirs = self.teacher(**known).logits[:, :-1].float()
            there = wanted != NONE
            ours, theirs = (functional.log_softmax(one[there], dim=1) for one in (logits, theirs))
            pull = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
            loss = (1.0 - self.soft_weight) * loss + self.soft_weight * pull
        return loss, outputs


def class_weights(
    found: Sequence[Mapping[str, Any]], heads: Mapping[str, int], balance: float
) -> dict[str, Any]:
    """Weights by head that move from none (`balance` 0) to the inverse of each class's frequency (1)."""
    weights: dict[str, Any] = {}
    for name, size in heads.items():
        if size == 1 or not balance:
            continue
        counts = Counter(int(row[name]) for row in found if row.get(name) is not None)
        most = max(counts.values(), default=1)
        raw = [(most / max(1, counts.get(number, 0))) ** balance for number in range(size)]
        mean = sum(raw[n] * c for n, c in counts.items()) / max(1, counts.total())
        weights[name] = torch.tensor([min(one / mean, 20.0) for one in raw])
    return weights
