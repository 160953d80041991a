"""Scores a model on the held-out rows of a data set: a trained folder by torch, a bundle by its runtime.

A classifier is judged head by head on the rows that have that head's label, a generator by how well it
foretells the completions. Knows nothing of what a head means.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daemon.errors import ConfigError
from models.lines import SEVERITY_CLASSES
from models.taxonomy import Category, FaultClass, Severity
from training.intervals import Array, drawn_by, flat, intervals, number
from training.quality import Ranking, accuracy, calibration, confusion, macro_f1, precision_recall
from training.rows import read_parquet
from training.tables import DataError

BATCH = 64
CHUNK = 1024
GENERATED_ROWS = 200  # a bundle foretells token by token: some milliseconds each
THRESHOLD = 0.5  # of a head of one output
_LEAST = 1e-9

Row = dict[str, Any]
Tell = Callable[[str], None]
Answer = tuple[dict[str, Any], dict[str, Any]]


class Foretold(NamedTuple):
    """Sums over one row's completion: negative log-likelihood (nats), tokens, tokens foretold right."""

    loss: float
    tokens: int
    right: int


def score_dataset(model: Any, eval_dataset: Any) -> tuple[float, dict[str, Any]]:
    """Accuracy and figures of a model (or folder) on a Parquet file or on ready batches of ids and labels."""
    if isinstance(model, str | Path) and isinstance(eval_dataset, str | Path):
        figures, _ = score_folder(Path(model), Path(eval_dataset))
        return float(figures["accuracy"]), figures
    if isinstance(eval_dataset, str | Path):
        raise ConfigError(
            "a Parquet file is scored with a folder", hint="a model alone knows neither tokenizer nor heads"
        )
    return _score_items(model, eval_dataset)


def score_folder(folder: Path, data: Path, *, split: str = "test", tell: Tell = lambda _said: None) -> Answer:
    """Figures and curves of a trained model's folder on one split."""
    from training.folder import load_folder  # noqa: PLC0415 - torch takes seconds

    model, tokenizer, card = load_folder(folder)
    rows = rows_of(data, split)
    began = time.perf_counter()
    if not card["heads"]:
        foretold = list(_foretell(model, tokenizer, int(card["sequence"]), rows))
        return _generator_figures(rows, foretold, time.perf_counter() - began), {}
    logits = classifier_logits(model, tokenizer, int(card["sequence"]), [row["text"] for row in rows], tell)
    took_s = time.perf_counter() - began
    scores = probabilities(logits, card["heads"])
    return classifier_figures(rows, scores, took_s=took_s, tier=card["tier"])


def score_bundle(bundle: Any, data: Path, *, split: str = "test", tell: Tell = lambda _said: None) -> Answer:
    """Figures and curves of a verified bundle on one split, by the runtime that serves it."""
    from models.runtime import Classifier, Generator  # noqa: PLC0415 - only here is it needed

    rows = rows_of(data, split)
    began = time.perf_counter()
    if bundle.config.kind == "generator":
        rows = rows[:GENERATED_ROWS]
        generator = Generator(bundle)
        foretold = [_foretell_one(generator, row) for row in rows]
        return _generator_figures(rows, foretold, time.perf_counter() - began), {}
    classifier = Classifier(bundle)
    found: dict[str, list[list[float]]] = {head: [] for head in bundle.config.heads}
    for start in range(0, len(rows), CHUNK):
        for scores in classifier.score([row["text"] for row in rows[start : start + CHUNK]]):
            for head, values in scores.items():
                found[head].append(values)
        tell(f"{min(start + CHUNK, len(rows))} of {len(rows)} rows")
    took_s = time.perf_counter() - began
    arrays = {head: np.asarray(values) for head, values in found.items()}
    return classifier_figures(rows, arrays, took_s=took_s, tier=bundle.manifest.tier)


def rows_of(data: Path, split: str) -> list[Row]:
    """The rows of one split; raises DataError where there is none."""
    rows = read_parquet(data)
    kept = [row for row in rows if row.get("split", split) == split]
    if not kept:
        known = sorted({str(row.get("split")) for row in rows})
        raise DataError(f"{data} has no rows of split {split!r}", hint=f"splits: {', '.join(known)}")
    return kept


def probabilities(logits: Array, heads: Mapping[str, int]) -> dict[str, Array]:
    """By head, softmax (or for one output the sigmoid) of its part of the logits `(rows, all heads)`."""
    found, start = {}, 0
    for head, size in heads.items():
        part = logits[:, start : start + size].astype(np.float64)
        if size == 1:
            found[head] = 1.0 / (1.0 + np.exp(-part))
        else:
            raised = np.exp(part - part.max(axis=1, keepdims=True))
            found[head] = raised / raised.sum(axis=1, keepdims=True)
        start += size
    return found


# --- classifiers --------------------------------------------------------------------------------------------


def classifier_logits(
    model: Any, tokenizer: Any, sequence: int, texts: Sequence[str], tell: Tell = lambda _said: None
) -> Array:
    """Logits `(texts, all heads) float32`, computed in batches of like length."""
    import torch  # noqa: PLC0415 - seconds

    from training.batches import padded  # noqa: PLC0415

    tokenizer.enable_truncation(sequence)
    ids = [one.ids for one in tokenizer.encode_batch(list(texts))]
    tokenizer.no_truncation()
    pad = tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    found = np.zeros((len(ids), model.config.num_labels), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found[chosen] = model(**padded([ids[at] for at in chosen], pad)).logits.float().numpy()
            if start // BATCH % 100 == 0:
                tell(f"{start} of {len(order)} rows")
    return found


def classifier_figures(
    rows: Sequence[Row],
    scores: Mapping[str, Array],
    *,
    took_s: float,
    tier: str = "",
    rounds: int = 300,
    seed: int = 0,
) -> Answer:
    """Figures of all heads; `macro_f1` and `auc_pr` are those of the first head, `accuracy` that of all.

    Latency is a mean over texts as long as they are; what is compared and published is `training.measure`'s.
    """
    figures: dict[str, Any] = {"n": len(rows), "path": "model", "ms_per_row": 1000.0 * took_s / len(rows)}
    curves: dict[str, Any] = {"heads": {}}
    right = labels_seen = 0.0
    for head, values in scores.items():
        there = [at for at, row in enumerate(rows) if row.get(head) is not None]
        if not there:
            continue
        labels = np.array([round(rows[at][head]) for at in there], np.int64)
        groups = number([rows[at].get("group", "") for at in there])
        found, drawn = _head(labels, values[there], groups, rounds, seed)
        if "macro_f1" not in figures:
            figures |= found | {"intervals_by": drawn_by(groups)}
        figures |= {f"{head}_{name}": value for name, value in found.items()} | {f"{head}_n": len(there)}
        curves["heads"][head] = drawn | {"classes": class_names(tier, head, len(drawn["confusion"]))}
        right += found["accuracy"] * len(there)
        labels_seen += len(there)
    figures["accuracy"] = right / labels_seen if labels_seen else float("nan")
    if "culprit_accuracy" in figures:
        figures["culprit_top1"] = figures["culprit_accuracy"]
    return figures, curves


def class_names(tier: str, head: str, count: int) -> list[str]:
    """What a head's classes are called; numbers for a head of another make."""
    known: dict[tuple[str, str], Sequence[str]] = {
        ("low", "severity"): SEVERITY_CLASSES,
        ("low", "category"): tuple(Category),
        ("middle", "severity"): tuple(Severity),
        ("middle", "fault_class"): tuple(FaultClass),
    }
    names = known.get((tier, head), ("no", "yes") if count == 2 else ())
    return [str(name) for name in names] if len(names) == count else [str(one) for one in range(count)]


def _head(labels: Array, scores: Array, groups: Array, rounds: int, seed: int) -> Answer:
    """One head's figures with intervals, and its curves; a head of one output ranks its positives."""
    single = scores.shape[1] == 1
    classes = 2 if single else scores.shape[1]
    guess = (scores[:, 0] >= THRESHOLD).astype(np.int64) if single else scores.argmax(axis=1)
    positive, rank = (labels == 1, scores[:, 0]) if single else (labels == 0, scores[:, 0])
    table = confusion(labels, guess, classes)
    ranking = Ranking(positive, rank)
    figures = {
        "macro_f1": macro_f1(table),
        "accuracy": accuracy(table),
        "auc_pr": ranking.average_precision(),
        "base_rate": float(positive.mean()),
    }
    bounds = intervals(
        {
            "macro_f1": lambda weights: macro_f1(confusion(labels, guess, classes, weights)),
            "auc_pr": ranking.average_precision,
        },
        groups,
        rounds=rounds,
        seed=seed,
    )
    surest = np.where(guess == 1, scores[:, 0], 1.0 - scores[:, 0]) if single else scores.max(axis=1)
    drawn = {
        "confusion": table.astype(int).tolist(),
        "calibration": calibration(guess == labels, surest),
        "precision_recall": precision_recall(positive, rank),
    }
    return figures | flat(bounds), drawn


def _score_items(model: Any, items: Any) -> tuple[float, dict[str, Any]]:
    """A model on ready items of `input_ids`, `attention_mask` and `labels`, as transformers has them."""
    import torch  # noqa: PLC0415 - seconds
    from torch.nn import functional  # noqa: PLC0415

    was_training = model.training
    model.eval()
    loss, truth, guess, writes = 0.0, [], [], False
    began = time.perf_counter()
    with torch.inference_mode():
        for item in items:
            ids = torch.as_tensor(item["input_ids"])[None]  # (1, tokens)
            mask = torch.as_tensor(item.get("attention_mask", [1] * ids.shape[1]))[None]
            wanted = torch.as_tensor(item["labels"]).reshape(-1)
            logits = model(input_ids=ids, attention_mask=mask).logits.float()[0]
            writes = logits.dim() == 2  # a row of scores for each token: the next is foretold
            logits, wanted = (logits[:-1], wanted[1:]) if writes else (logits[None], wanted)  # (n, classes)
            if len(logits) != len(wanted):
                raise DataError(
                    f"{len(wanted)} labels a row where the model gives {len(logits)}",
                    hint="a model of several heads is scored with its folder and a Parquet file",
                )
            there = wanted >= 0  # -100 counts for nothing
            loss += float(functional.cross_entropy(logits[there], wanted[there].long(), reduction="sum"))
            truth += wanted[there].long().tolist()
            guess += logits.argmax(dim=1)[there].tolist()
    took_s = time.perf_counter() - began
    model.train(was_training)
    if not truth:
        raise DataError("the data set has no label")
    table = confusion(np.array(truth), np.array(guess), 1 + max(truth + guess))
    mean = loss / len(truth)
    figures = {
        "n": len(items),
        "accuracy": accuracy(table),
        "loss": mean,
        "ms_per_row": 1000.0 * took_s / len(items),
    }
    figures |= {"perplexity": math.exp(min(50.0, mean))} if writes else {"macro_f1": macro_f1(table)}
    return accuracy(table), figures


# --- generators ---------------------------------------------------------------------------------------------


def _foretell(model: Any, tokenizer: Any, sequence: int, rows: Sequence[Row]) -> Iterator[Foretold]:
    import torch  # noqa: PLC0415 - seconds

    from training.batches import NONE, TextRows  # noqa: PLC0415

    items = TextRows(rows, tokenizer, {}, sequence)
    with torch.inference_mode():
        for start in range(0, len(items), BATCH // 4):
            chosen = [items[at] for at in range(start, min(start + BATCH // 4, len(items)))]
            batch = items.collate(chosen)
            wanted = batch.pop("labels")[:, 1:]  # (batch, tokens - 1)
            likely = model(**batch).logits[:, :-1].float().log_softmax(dim=-1)
            there = wanted != NONE
            said = likely.gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]
            right = (likely.argmax(dim=-1) == wanted) & there
            for at in range(len(chosen)):
                mask = there[at]
                yield Foretold(-float(said[at][mask].sum()), int(mask.sum()), int(right[at].sum()))


def _foretell_one(generator: Any, row: Row) -> Foretold:
    """By the bundle's own runtime: each true token is fed, and the next one's score is read."""
    tokenizer = generator._tokenizer  # noqa: SLF001 - the daemon needs no such thing, and so offers none
    end = tokenizer.token_to_id("<end>")
    ids = tokenizer.encode(row["prompt"], add_special_tokens=False).ids
    wanted = tokenizer.encode(row["completion"], add_special_tokens=False).ids
    if end is not None and wanted[-1:] != [end]:
        wanted = [*wanted, end]
    wanted = wanted[: max(0, generator.config.sequence - len(ids))]
    written: list[int] = []
    loss, right = 0.0, 0
    steps = generator._steps(ids, written)  # noqa: SLF001
    for token, scores in zip(wanted, steps, strict=False):
        raised = np.exp(scores - scores.max())
        loss -= math.log(max(_LEAST, float(raised[token] / raised.sum())))
        right += int(scores.argmax() == token)
        written.append(token)
    return Foretold(loss, len(wanted), right)


def _generator_figures(rows: Sequence[Row], foretold: Sequence[Foretold], took_s: float) -> dict[str, Any]:
    losses = np.array([one.loss for one in foretold])
    tokens = np.array([float(one.tokens) for one in foretold])
    right = np.array([float(one.right) for one in foretold])
    if not tokens.sum():
        raise DataError("no row's completion fits beside its prompt")

    def perplexity(weights: Array) -> float:
        return math.exp(min(50.0, float((weights * losses).sum() / max(1.0, (weights * tokens).sum()))))

    groups = number([row.get("group", "") for row in rows[: len(foretold)]])
    everything = np.ones(len(foretold))
    figures = {
        "n": len(foretold),
        "path": "model",
        "perplexity": perplexity(everything),
        "loss": float(losses.sum() / tokens.sum()),
        "accuracy": float(right.sum() / tokens.sum()),
        "tokens": int(tokens.sum()),
        "ms_per_row": 1000.0 * took_s / len(foretold),
    }
    for lang in sorted({str(row.get("lang") or "") for row in rows} - {""}):
        mine = np.array([float(row.get("lang") == lang) for row in rows[: len(foretold)]])
        if mine.any():
            figures[f"perplexity_{lang}"] = perplexity(mine)
    return figures | flat(intervals({"perplexity": perplexity}, groups, rounds=300))
