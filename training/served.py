"""How good a model is on rows, in torch or as the exported graph that will ship: loss, accuracy, macro-F1.

Quick figures without intervals, to compare one model before and after a cut; `hauswart train evaluate` gives
those that are published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import batches, measure
from training.quality import confusion, macro_f1

ROWS = 2000  # macro-F1 of classes with 5 % of the rows is then within a few points
GENERATED_ROWS = 100  # token by token
BATCH = 64


def read_rows(data: Path, tier: str, split: str = "val", most: int = ROWS) -> list[dict[str, Any]]:
    """Rows of a split, evenly thinned to at most so many."""
    rows = batches.read_split(data, tier, split)
    return rows[:: -(-len(rows) // most)] if rows else []


def judge(model: Any, tokenizer: Any, card: Mapping[str, Any], rows: Sequence[Any]) -> dict[str, float]:
    """Quality of a torch model; {} without rows."""
    if not rows:
        return {}
    heads, length = card["heads"], int(card["sequence"])
    made = (batches.LabelRows if heads else batches.TextRows)(rows, tokenizer, heads, length)
    logits, labels, losses = [], [], []
    with torch.inference_mode():
        for start in range(0, len(made), BATCH):
            batch = made.collate([made[at] for at in range(start, min(start + BATCH, len(made)))])
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            if not heads:
                losses.append(_foretold(out, batch["labels"]))
                continue
            logits.append(out.numpy())
            labels.append(batch["labels"].numpy())
    return (
        _classified(np.concatenate(logits), np.concatenate(labels), heads)
        if heads
        else _written(losses, len(made))
    )


def judge_graph(path: Path, tokenizer: Any, card: Mapping[str, Any], rows: Sequence[Any]) -> dict[str, float]:
    """Quality of an ONNX file as the daemon runs it, one text at a time; {} without rows."""
    session = measure.open_session(path)
    heads, length = card["heads"], int(card["sequence"])
    if not rows:
        return {}
    if not heads:
        made = batches.TextRows(rows[:GENERATED_ROWS], tokenizer, {}, length)
        return _written([_stepwise(session, made[at]) for at in range(len(made))], len(made))
    labelled = batches.LabelRows(rows, tokenizer, heads, length)
    logits = []
    for at in range(len(labelled)):
        ids = np.array([labelled[at]["input_ids"]], np.int64)  # (1, tokens)
        logits.append(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
    return _classified(np.concatenate(logits), labelled.labels.numpy(), heads)


def _classified(logits: Any, labels: Any, heads: Mapping[str, int]) -> dict[str, float]:
    """Figures from logits (rows, all heads) and labels (rows, heads); those of the first head lead."""
    found: dict[str, float] = {}
    losses, right, seen, start = 0.0, 0.0, 0, 0
    for number, (name, size) in enumerate(heads.items()):
        there = labels[:, number] != batches.NONE
        part, wanted = logits[there, start : start + size], labels[there, number].round().astype(np.int64)
        start += size
        if not len(wanted):
            continue
        if size == 1:
            part = np.concatenate([np.zeros_like(part), part], axis=1)  # the same as its sigmoid
        likely = torch.from_numpy(part).double().log_softmax(1).numpy()
        guess = part.argmax(1)
        found[f"{name}_macro_f1"] = macro_f1(confusion(wanted, guess, part.shape[1]))
        losses -= float(likely[np.arange(len(wanted)), wanted].sum())
        right, seen = right + float((guess == wanted).sum()), seen + len(wanted)
    lead = {"n": float(len(labels)), "loss": losses / max(1, seen), "accuracy": right / max(1, seen)}
    lead["macro_f1"] = next(iter(found.values()), float("nan"))
    return {name: round(value, 4) for name, value in (lead | found).items()}


def _foretold(logits: Any, labels: Any) -> tuple[float, int, int]:
    """Negative log-likelihood (nats), tokens, and tokens foretold right, of a batch of texts."""
    wanted = labels[:, 1:]  # (batch, tokens - 1)
    there = wanted != batches.NONE
    likely = logits[:, :-1][there].log_softmax(-1)  # (completion tokens, vocabulary)
    wanted = wanted[there]
    loss = -float(likely.gather(1, wanted[:, None]).sum())
    return loss, len(wanted), int((likely.argmax(1) == wanted).sum())


def _stepwise(session: Any, item: Mapping[str, Any]) -> tuple[float, int, int]:
    """The same of one text, over the graph's past."""
    ids = item["input_ids"]
    first = next((at for at, one in enumerate(item["labels"]) if one != batches.NONE), len(ids))
    past = measure.empty_past(session)
    fed, loss, right = ids[:first], 0.0, 0
    for token in ids[first:]:
        scores, *grown = session.run(None, {"input_ids": np.array([fed], np.int64), **past})
        likely = torch.from_numpy(scores[0]).double().log_softmax(0)
        loss, right = loss - float(likely[token]), right + int(int(likely.argmax()) == token)
        past, fed = dict(zip(past, grown, strict=True)), [token]
    return loss, len(ids) - first, right


def _written(parts: Sequence[tuple[float, int, int]], rows: int) -> dict[str, float]:
    loss, tokens, right = (sum(each) for each in zip(*parts, strict=True))
    mean = loss / max(1, tokens)
    return {
        "n": float(rows),
        "loss": round(mean, 4),
        "accuracy": round(right / max(1, tokens), 4),
        "perplexity": round(math.exp(min(50.0, mean)), 4),
    }
