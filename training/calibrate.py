"""`hauswart train calibrate`: makes a classifier's probabilities honest and chooses its decisions.

Each head's temperature minimises the loss (Guo et al. 2017), a head of one output gets Platt's two numbers,
the low tier's severity an addition to each class's log-probability for the best macro-F1 (logit adjustment,
Menon et al. 2021), and the middle tier the least probability from where on a head is right often enough to
overrule the baseline. The graph that ships is what is asked, one text at a time, as the daemon asks it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from daemon.errors import ConfigError
from models.lines import SEVERITY_CLASSES
from models.wording import HEAD
from training.holdout import rows_of
from training.intervals import Array
from training.quality import confusion, macro_f1
from training.tables import DataError

LEAST_ROWS = 20  # labelled ones; with fewer a head is left as it is
REACH, STEP, COST = 2.0, 0.1, 0.002  # of the severity offsets; the cost of one keeps them near zero
SURE = 0.9  # how often a verdict above its threshold is to be right
_LEAST = 1e-9

Tell = Callable[[str], None]


def calibrate_folder(
    model: Path,
    data: Path,
    out: Path,
    *,
    onnx: Path | None = None,
    split: str = "val",
    most: int = 6000,
    sure: float = SURE,
    alert_rate: float = 0.0,
    wording: Path | None = None,
    seed: int = 0,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Write the decisions of a trained classifier's folder to `out` as JSON: `thresholds`, `calibration`.

    `onnx` is the graph that will serve (or its folder), by default the int8 one in the model's folder. At
    most `most` rows, drawn evenly, are asked. `alert_rate` is the share of alerts where the model will serve,
    if it is another than among the rows (Saerens et al. 2002): labelled security logs hold far more of them
    than a host's log. Where a `wording` serves (`training.wording`), it has settled the alert's scale at even
    odds, and only that share is left to say. Raises ConfigError for a generator, DataError without rows.
    """
    from training.folder import load_folder  # noqa: PLC0415 - torch takes seconds

    _, tokenizer, card = load_folder(model)
    heads: dict[str, int] = card["heads"]
    if not heads:
        raise ConfigError(f"{model} writes text: there is nothing to calibrate")
    rows = rows_of(data, split)
    rows = [rows[at] for at in np.random.default_rng(seed).permutation(len(rows))[:most]]
    graph = _graph(onnx or model)
    logits = graph_logits(graph, tokenizer, int(card["sequence"]), [row["text"] for row in rows], tell)
    found: dict[str, Any] = {"thresholds": {}, "calibration": {"temperature": {}}, "rows": len(rows)}
    start = 0
    for head, size in heads.items():
        part, start = logits[:, start : start + size], start + size
        there = [at for at, row in enumerate(rows) if row.get(head) is not None]
        labels = np.array([round(rows[at][head]) for at in there], np.int64)
        if head == HEAD and wording is not None:
            shift = log_odds(alert_rate) if 0.0 < alert_rate < 1.0 else 0.0
            found["thresholds"] |= {f"{head}.scale": 1.0, f"{head}.shift": round(shift, 4)}
            continue
        if len(set(labels.tolist())) < 2 or len(labels) < LEAST_ROWS:
            tell(f"{head}: {len(labels)} rows of {split} are too few, left as it is")
            continue
        _calibrate(card["tier"], head, part[there], labels, found, sure=sure)
        if size == 1 and 0.0 < alert_rate < 1.0:
            shift = found["thresholds"][f"{head}.shift"] + log_odds(alert_rate) - log_odds(labels.mean())
            found["thresholds"][f"{head}.shift"] = round(shift, 4)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


def _calibrate(
    tier: str, head: str, logits: Array, labels: Array, found: dict[str, Any], *, sure: float
) -> None:
    thresholds = found["thresholds"]
    if logits.shape[1] == 1:
        scale, shift = platt(logits[:, 0], labels)
        thresholds |= {f"{head}.scale": round(scale, 4), f"{head}.shift": round(shift, 4)}
        return
    heat = temperature(logits, labels)
    found["calibration"]["temperature"][head] = round(heat, 4)
    likely = log_softmax(logits / heat)
    if (tier, head) == ("low", "severity"):
        added = offsets(likely, labels)
        pairs = zip(SEVERITY_CLASSES, added.tolist(), strict=True)
        thresholds |= {f"severity.{name}": round(value, 2) for name, value in pairs}
    elif tier == "middle" and head in {"fault_class", "culprit"}:
        thresholds[head] = round(threshold(likely, labels, sure), 3)


def temperature(logits: Array, labels: Array) -> float:
    """What the logits `(rows, classes)` are to be divided by so that their loss is least."""

    def loss(power: float) -> float:
        likely = log_softmax(logits / np.exp(power))
        return -float(likely[np.arange(len(labels)), labels].mean())

    low, high = -2.0, 2.5  # of the logarithm: from 0.14 to 12
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        one, two = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, two) if loss(one) < loss(two) else (one, high)
    return float(np.exp((low + high) / 2))


def log_odds(share: float) -> float:
    """The logarithm of a share's odds."""
    return float(np.log(share) - np.log1p(-share))


def platt(logits: Array, labels: Array, rows: Array | None = None) -> tuple[float, float]:
    """Scale and shift of logits `(rows,)` for the least loss, by Newton's method, held (Platt 1999).

    `rows` are weights of the rows, by default alike.
    """
    scale, shift = 1.0, 0.0
    wanted = labels.astype(np.float64)
    counts = np.ones(len(logits)) if rows is None else rows
    for _ in range(100):
        said = 1.0 / (1.0 + np.exp(-np.clip(scale * logits + shift, -30, 30)))
        weight, wrong = counts * said * (1.0 - said), counts * (said - wanted)
        slope = np.array([(wrong * logits).sum() + 1e-3 * (scale - 1.0), wrong.sum()])
        cross = (weight * logits).sum()
        bend = np.array([[(weight * logits**2).sum() + 1e-3, cross], [cross, weight.sum() + 1e-3]])
        step = np.linalg.solve(bend, slope)
        scale, shift = scale - float(np.clip(step[0], -1, 1)), shift - float(np.clip(step[1], -1, 1))
        if np.abs(step).max() < 1e-6:
            break
    return max(scale, 1e-3), shift  # never turned round: the ranking is the model's


def offsets(likely: Array, labels: Array) -> Array:
    """What to add to log-probabilities `(rows, classes)` for the best macro-F1: (classes,), the first 0."""
    classes = likely.shape[1]
    added = np.zeros(classes)

    def worth(tried: Array) -> float:
        table = confusion(labels, (likely + tried).argmax(axis=1), classes)
        return macro_f1(table) - COST * float(np.abs(tried).sum())

    best = worth(added)
    for _ in range(10):  # rounds of one class at a time; three or four settle it
        before = best
        for at in range(1, classes):
            for value in np.arange(-REACH, REACH + STEP / 2, STEP):
                tried = added.copy()
                tried[at] = value
                if (found := worth(tried)) > best + 1e-9:
                    best, added = found, tried
        if best == before:
            break
    return added


def threshold(likely: Array, labels: Array, sure: float) -> float:
    """The least probability from where on the likeliest class is right in a share of `sure`; 1 if nowhere."""
    surest, right = np.exp(likely.max(axis=1)), likely.argmax(axis=1) == labels
    order = np.argsort(-surest, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(shares[LEAST_ROWS - 1 :] >= sure)
    return float(surest[order][reached[-1] + LEAST_ROWS - 1]) if len(reached) else 1.0


def graph_logits(
    path: Path, tokenizer: Any, sequence: int, texts: Sequence[str], tell: Tell = lambda _said: None
) -> Array:
    """Logits `(texts, all heads) float64` of an ONNX classifier, one text at a time as the daemon asks."""
    from training.measure import open_session  # noqa: PLC0415

    session = open_session(path)
    tokenizer.enable_truncation(sequence)
    found = []
    for at, one in enumerate(tokenizer.encode_batch(list(texts))):
        ids = np.array([one.ids], np.int64)  # (1, tokens)
        found.append(session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0])
        if at % 2000 == 0:
            tell(f"{at} of {len(texts)} rows")
    tokenizer.no_truncation()
    return np.asarray(found, np.float64)


def log_softmax(logits: Array) -> Array:
    """Logarithms of the probabilities of each row."""
    lowered = logits - logits.max(axis=1, keepdims=True)
    whole: Array = lowered - np.log(np.exp(lowered).sum(axis=1, keepdims=True) + _LEAST)
    return whole


def _graph(path: Path) -> Path:
    if path.is_file():
        return path
    for name in ("model.int8.onnx", "model.onnx"):
        if (path / name).is_file():
            return path / name
    raise DataError(f"{path} holds no ONNX file", hint="make one: hauswart train quantize")


# --- command ------------------------------------------------------------------------------------------------


def command(
    model: Annotated[Path, typer.Argument(help="A trained classifier's folder.")],
    *,
    data: Annotated[Path, typer.Option(help="Rows as Parquet.")],
    out: Annotated[Path, typer.Option(help="For `hauswart train bundle --decisions`.")] = Path(
        "decisions.json"
    ),
    onnx: Annotated[Path | None, typer.Option(help="The ONNX file that will serve, or its folder.")] = None,
    split: Annotated[str, typer.Option(help="Which rows; never those that are reported.")] = "val",
    sure: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Middle tier: how often an overruling verdict is right.")
    ] = SURE,
    alert_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Low tier: the share of alerts where it will serve.")
    ] = 0.0,
    wording: Annotated[
        Path | None, typer.Option(help="Low tier: the table of `hauswart train wording` that will serve.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rows that are drawn.")] = 0,
) -> None:
    """Progress goes to standard error."""
    found = calibrate_folder(
        model,
        data,
        out,
        onnx=onnx,
        split=split,
        sure=sure,
        alert_rate=alert_rate,
        wording=wording,
        seed=seed,
        tell=_tell,
    )
    sys.stdout.write(json.dumps(found) + "\n")


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {said}\n")
