"""Distil: what a larger trained model answers, as a target for a smaller one on the same rows.

A classifier's answers are computed once before the training and may come from another vocabulary; a
generator's answers, one for each token, are too many to keep: it runs beside its student and shares its
vocabulary. How strongly a student is pulled is the loss's matter (`training.losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from daemon.errors import ConfigError
from training.batches import padded
from training.folder import load_folder

_BATCH = 128
_TELL_EVERY = 100  # batches


def join(folder: Path, rows: Any, tokenizer: Any, *, bf16: bool, tell: Callable[[str], None]) -> Any:
    """Give a classifier's rows the teacher's logits as `soft`, or return the generator that teaches beside.

    Raises ConfigError for a teacher of another kind, with other heads or another vocabulary.
    """
    model, theirs, card = load_folder(folder)
    if hasattr(rows, "labels") == (card["tier"] == "top"):
        raise ConfigError(f"{folder} cannot teach: it is a model of the {card['tier']} tier")
    if card["tier"] == "top":
        if theirs.get_vocab() != tokenizer.get_vocab():
            raise ConfigError(f"{folder} cannot teach: its vocabulary is another one")
        return model.requires_grad_(requires_grad=False)
    if rows.heads != card["heads"]:
        raise ConfigError(f"{folder} cannot teach: its heads are {card['heads']}, not {rows.heads}")
    logits = answers(model, theirs, card["sequence"], rows.texts, bf16=bf16, tell=tell)
    # What a row brings with it, e.g. several teachers' mean, stands before what one teacher says.
    rows.soft = logits if rows.soft is None else torch.where(rows.soft.isnan(), logits, rows.soft)
    return None


def answers(
    model: Any,
    tokenizer: Any,
    sequence: int,
    texts: Sequence[str],
    *,
    bf16: bool = False,
    tell: Callable[[str], None] = lambda _said: None,
) -> Any:
    """A classifier's logits for texts, (texts, all heads), with the tokenizer that it was trained with."""
    tokenizer.enable_truncation(int(sequence))
    pad = model.config.pad_token_id or 0
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    found = torch.zeros(len(texts), model.config.num_labels)
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            ids = [one.ids for one in tokenizer.encode_batch([texts[at] for at in chosen])]
            found[chosen] = model(**padded(ids, pad)).logits.float()
            if start // _BATCH % _TELL_EVERY == 0:
                tell(f"teacher: {start} of {len(texts)} rows")
    return found
