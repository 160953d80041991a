"""`hauswart train wording`: weighs words and pairs of words by judged lines, for the low tier's alerts.

A logistic regression on TF-IDF, beside it the untrained weights of `models.alertness`, scaled such that at
even odds the sum is an honest logit for services that were not learnt from; `models.wording` reads the table.
`--folds` asks instead how well such a table ranks lines of services that it did not learn from, beside
n-grams that learnt from the rule tests alone.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from daemon.errors import ConfigError
from models import wording
from models.alertness import word_weight
from models.bundle import WORDING
from models.lines import HEADS, SEVERITY_CLASSES
from training.intervals import Array, flat, intervals, number
from training.quality import Ranking

FIGURES = "crossval.json"
STRENGTH = 10.0  # inverse of the regularisation; 3 and 30 rank within a point of it
WORD_GAIN = 4.0  # of the untrained word weights; between 2 and 6 nothing changes by more than a point
ALERT_SHARE = 0.25  # of the network's alert: more of it ranks new services worse, with none feedback is lost
SEVERITY_SHARE = 0.25  # of how far err-or-worse leads: what machines report, whose words no SIEM knows
FOLDS = 8  # over services, for the scale
BASE_RATE = 0.145  # to compare by: AUC-PR grows with the share of alerts
MARGIN = 0.4  # of an operator's word: a probability of .6 after it
STEP_MOST, ROUNDS = 2.0, 10
ASKED = ("wazuh", "fail2ban")

Row = dict[str, Any]
Tell = Callable[[str], None]


class Weighed:
    """Terms with their rarity and weight, learnt from rows with `text`, `alert` and `weight`."""

    def __init__(self, rows: Sequence[Row], *, strength: float = STRENGTH) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  # heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        taught = [row for row in rows if row.get("alert") is not None and _weight(row) > 0.0]
        labels = [round(row["alert"]) for row in taught]
        if len(set(labels)) < 2:
            raise ConfigError("the rows to learn from are all alerts, or none is")
        terms = TfidfVectorizer(analyzer=wording.terms, sublinear_tf=True)
        model = LogisticRegression(C=strength, max_iter=300, solver="liblinear")
        model.fit(
            terms.fit_transform([row["text"] for row in taught]),
            labels,
            sample_weight=[*map(_weight, taught)],
        )
        self._terms, self._model = terms, model
        self._scale, self._shift = 1.0, 0.0
        self.rows = len(taught)

    def logits(self, texts: Sequence[str]) -> Array:
        """What the words of each text say, (texts,) float64."""
        said = WORD_GAIN * np.array([word_weight(text) for text in texts])
        found: Array = self._model.decision_function(self._terms.transform(texts)) + said
        return self._scale * found + self._shift

    def settle(self, logits: Array, labels: Array, weights: Array) -> None:
        """Scale what is said so that logits of rows not learnt from are honest at even odds."""
        from training.calibrate import platt  # noqa: PLC0415 - its command is heavy

        even = np.where(labels == 1, 0.5 / weights[labels == 1].sum(), 0.5 / weights[labels == 0].sum())
        self._scale, self._shift = platt(logits, labels, weights * even * len(labels))

    def pack(self, shares: Sequence[float]) -> bytes:
        """The table as a bundle carries it."""
        places = self._terms.vocabulary_
        return wording.pack(
            {term: float(self._terms.idf_[at]) for term, at in places.items()},
            {term: self._scale * float(self._model.coef_[0, at]) for term, at in places.items()},
            intercept=self._scale * float(self._model.intercept_[0]) + self._shift,
            gain=self._scale * WORD_GAIN,
            shares=[self._scale * share for share in shares],
        )


def write_wording(
    data: Path,
    out: Path,
    *,
    strength: float = STRENGTH,
    alert_share: float = ALERT_SHARE,
    severity_share: float = SEVERITY_SHARE,
    seed: int = 0,
    tell: Tell = lambda _said: None,
) -> dict[str, Any]:
    """Weigh the words of split train of a Parquet file; a table and its figures in the folder `out`.

    The figures are of services that each fold did not learn from; held-out splits stay unread.
    """
    from training.rows import read_parquet  # noqa: PLC0415 - pyarrow

    rows = [row for row in read_parquet(data) if row["split"] == "train"]
    weighed = Weighed(rows, strength=strength)
    judged = [row for row in rows if row["source"] == ASKED[0] and _weight(row) > 0.0]
    figures: dict[str, Any] = {}
    if judged:
        words, _ = _foretold(rows, judged, folds=FOLDS, seed=seed)
        labels = np.array([round(row["alert"]) for row in judged])
        weighed.settle(words, labels, np.array([*map(_weight, judged)]))
        figures = cross_validate(rows, folds=FOLDS, seed=seed)
    content = weighed.pack(shares_of(alert_share, severity_share))
    out.mkdir(parents=True, exist_ok=True)
    (out / WORDING).write_bytes(content)
    lines = [{"source": source} | found for source, found in figures.items()]
    (out / FIGURES).write_text(json.dumps({"table": lines}, indent=1) + "\n", encoding="utf-8")
    tell(f"{weighed.rows} rows, {len(content)} bytes")
    return {"rows": weighed.rows, "terms": len(wording.Wording(content)), "bytes": len(content)} | figures


def teach(
    table: wording.Wording,
    said: Sequence[tuple[str, bool]],
    logits: Sequence[Sequence[float]],
    thresholds: Mapping[str, float],
) -> wording.Wording:
    """The table with an operator's word for these encoded texts, `logits` being the network's of them.

    Passive-aggressive steps (Crammer et al. 2006): the weights move as little as brings a text to its side.
    """
    scale, shift = (
        thresholds.get(f"alert.{name}", default) for name, default in (("scale", 1.0), ("shift", 0.0))
    )
    for _ in range(ROUNDS):
        for (text, alert), row in zip(said, logits, strict=True):
            side = 1.0 if alert else -1.0
            lacking = MARGIN - side * (scale * table.mix(text, row) + shift)
            if lacking > 0.0:
                places, values = table.values(text)
                table = table.moved(places, side * min(lacking / scale, STEP_MOST) * values)
    return table


def shares_of(alert: float, severity: float) -> list[float]:
    """What of the network's logits over all heads counts: its alert, and how far err-or-worse leads."""
    others = [-severity / (len(SEVERITY_CLASSES) - 1)] * (len(SEVERITY_CLASSES) - 1)
    shares = {"severity": [severity, *others], wording.HEAD: [alert]}
    return [share for head, size in HEADS.items() for share in shares.get(head, [0.0] * size)]


def cross_validate(rows: Sequence[Row], *, folds: int, seed: int = 0, rounds: int = 1000) -> dict[str, Any]:
    """How lines of services rank by words that never saw them: figures by source of the asked rows.

    Whole groups are held out; `words` is the table, `ngrams` TF-IDF and regression on the asked rows alone.
    """
    asked = [row for row in rows if row["source"] in ASKED]
    words, ngrams = _foretold(rows, asked, folds=folds, seed=seed, beside=True)
    found: dict[str, Any] = {}
    for source in ASKED:
        there = np.array([row["source"] == source for row in asked])
        if there.any():
            mine = [row for row in asked if row["source"] == source]
            found[source] = _figures(mine, words[there], ngrams[there], rounds, seed)
    return found


def _foretold(
    rows: Sequence[Row], asked: Sequence[Row], *, folds: int, seed: int, beside: bool = False
) -> tuple[Array, Array]:
    """What words, and if asked n-grams, say of each row that they did not learn from: (asked,) each."""
    kin = [row for row in rows if row["source"].split()[0] in ASKED]
    others = [row for row in rows if row["source"].split()[0] not in ASKED]
    fold_of = split_evenly([row["group"] for row in kin], folds, seed)
    words, ngrams = np.zeros(len(asked)), np.zeros(len(asked))
    for fold in range(folds):
        here = [at for at, row in enumerate(asked) if fold_of[row["group"]] == fold]
        taught = [row for row in kin if fold_of[row["group"]] != fold]
        texts = [asked[at]["text"] for at in here]
        if texts:
            words[here] = Weighed([*others, *taught]).logits(texts)
            ngrams[here] = _ngrams(taught, texts, seed) if beside else 0.0
    return words, ngrams


def split_evenly(groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """The fold of each group: the largest first, each into the fold that has fewest rows so far."""
    sizes = Counter(groups)
    chance = np.random.default_rng(seed)
    order = sorted(sorted(sizes), key=lambda one: -sizes[one] * chance.uniform(0.7, 1.3))
    filled, found = [0] * folds, {}
    for group in order:
        found[group] = filled.index(min(filled))
        filled[found[group]] += sizes[group]
    return found


def _ngrams(taught: Sequence[Row], texts: Sequence[str], seed: int) -> Array:
    from training.baselines import ngram_probabilities  # noqa: PLC0415 - as scikit-learn

    known = [row for row in taught if row["source"] == ASKED[0]]
    labels = [round(row["alert"]) for row in known]
    found: Array = ngram_probabilities([row["text"] for row in known], labels, texts, seed=seed)[:, 1]
    return found


def _figures(rows: Sequence[Row], words: Array, ngrams: Array, rounds: int, seed: int) -> dict[str, Any]:
    labels = np.array([round(row["alert"]) for row in rows])
    groups = number([row["group"] for row in rows])
    rate = float(labels.mean())
    odds = BASE_RATE / (1.0 - BASE_RATE) / (rate / (1.0 - rate)) if 0.0 < rate < 1.0 else 1.0
    level = np.where(labels == 1, odds, 1.0)
    figures: dict[str, Callable[[Array], float]] = {}
    for name, scores in (("words", words), ("ngrams", ngrams)):
        ranking = Ranking(labels == 1, scores)
        figures[f"{name}_auc_pr"] = ranking.average_precision
        figures[f"{name}_auc_pr_at_{BASE_RATE}"] = _at(ranking, level)
    found = {name: figure(np.ones(len(rows))) for name, figure in figures.items()}
    found |= flat(intervals(figures, groups, rounds=rounds, seed=seed))
    whole = {"n": len(rows), "groups": int(groups.max()) + 1, "base_rate": rate} | found
    return {name: round(value, 4) for name, value in whole.items()}


def _at(ranking: Ranking, level: Array) -> Callable[[Array], float]:
    return lambda weights: ranking.average_precision(weights * level)


def _weight(row: Row) -> float:
    return 1.0 if row.get("weight") is None else float(row["weight"])


# --- command ------------------------------------------------------------------------------------------------


def command(
    data: Annotated[Path, typer.Argument(help="Judged rows as Parquet: `train dataset --source judged`.")],
    *,
    out: Annotated[Path, typer.Option(help="A folder for the table and its figures.")] = Path("wording"),
    folds: Annotated[
        int, typer.Option(help="Write nothing: cross-validate over services in so many folds.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    rounds: Annotated[int, typer.Option(help="Resamples of the bootstrap.", min=0)] = 1000,
) -> None:
    """One JSON object; progress goes to standard error."""
    from training.rows import read_parquet  # noqa: PLC0415 - pyarrow

    if folds == 1:
        raise ConfigError("--folds 1 leaves nothing to learn from", hint="5 or more")
    found = (
        cross_validate(read_parquet(data), folds=folds, seed=seed, rounds=rounds)
        if folds
        else write_wording(data, out, tell=_tell)
    )
    sys.stdout.write(json.dumps(found) + "\n")


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {said}\n")
