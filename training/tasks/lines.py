"""Tasks log-severity and log-alert: how loud is a line meant to be, and is it one to wake somebody for?

log-severity reads the kernel's messages (`severity,template,subsystem,file`; 0 to 7), log-alert lines of a
SIEM's rule tests (`line,level,service`; 7 and up) or of fail2ban's (`line,match,service`). Intervals draw
whole subsystems or services. Texts that read the same to the model are judged once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.alertness import line_score
from models.lines import SEVERITY_CLASSES, LineVerdict, decode, encode
from training.baselines import ngram_probabilities
from training.intervals import Array, drawn_by, flat, intervals, number
from training.quality import Ranking, accuracy, calibration, confusion, macro_f1, precision_recall
from training.tables import DataError, Table, header, read_csv
from training.tasks import Outcome, Request, Scored

ALERT_LEVEL = 7
ALERT_THRESHOLD = 0.5
CHUNK = 1024
_TRUTHS = {"true": 1, "false": 0, "1": 1, "0": 0}
# Without a model: above the first weight an error, above the second a warning, else a notice. The weights
# are `line_score`'s of an error's words ("failed", "unable") and of a warning's ("missing", "retry").
_ERROR, _WARNING = 0.40, 0.25

ERROR, WARNING, NOTICE, DEBUG = range(len(SEVERITY_CLASSES))


class Labelled(NamedTuple):
    """The rows of all files: text, true class, group, and where they stand."""

    texts: list[str]
    labels: Array
    groups: list[str]
    places: list[tuple[int, str]]


class Judged(NamedTuple):
    """What a path says of every row: the chosen class, and the score that ranks the rows."""

    chosen: Array
    score: Array


class Kind(NamedTuple):
    """One of the two tasks: how its files are read and how a verdict or a plain text is judged."""

    read: Callable[[Table], Iterator[tuple[str, int, str]]]
    classes: tuple[str, ...]
    positive: int  # the class that the ranking looks for
    judge: Callable[[LineVerdict], tuple[int, float]]
    guess: Callable[[str], tuple[int, float]]


def run(request: Request) -> Outcome:
    """Judge every row by the bundle if there is one, and by the baseline path beside it."""
    kind = KINDS[request.task]
    data = _read(kind, request.files)
    plain = _by_text(data.texts, lambda texts: [kind.guess(text) for text in texts])
    spoken = plain if request.bundle is None else _by_model(kind, data, request)
    figures: dict[str, float | int | str] = {
        "n": len(data.texts),
        "path": "baseline" if request.bundle is None else "model",
        "texts": len(set(data.texts)),
        "groups": len(set(data.groups)),
        "base_rate": float(np.mean(data.labels == kind.positive)),
    }
    figures |= _figures(kind, data, spoken) | _intervals(kind, data, spoken, request)
    if request.bundle is not None:
        figures |= {f"baseline_{name}": value for name, value in _figures(kind, data, plain).items()}
    if request.train is not None:
        figures |= _ngram_figures(kind, data, request)
    scores = [
        Scored(row, score, kind.classes[label] if len(kind.classes) > 2 else int(label), file)
        for (row, file), score, label in zip(data.places, spoken.score.tolist(), data.labels, strict=True)
    ]
    return Outcome(figures, scores, _curves(kind, data, spoken))


def score_texts(texts: Sequence[str], bundle: Any, tell: Callable[[str], None]) -> list[LineVerdict]:
    """The bundle's verdict on each text; the texts may repeat, the model is asked once for each."""
    from models.runtime import Classifier  # noqa: PLC0415 - loads the runtime only where a bundle speaks

    classifier = Classifier(bundle)
    encoded = [encode(text) for text in texts]
    distinct = sorted(set(encoded), key=len)
    verdicts: dict[str, LineVerdict] = {}
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        for text, scores in zip(chunk, classifier.score(chunk), strict=True):
            verdicts[text] = decode(scores, bundle.config.thresholds)
        tell(f"{start + len(chunk)} of {len(distinct)} texts")
    return [verdicts[text] for text in encoded]


def _by_model(kind: Kind, data: Labelled, request: Request) -> Judged:
    def judge(texts: list[str]) -> list[tuple[int, float]]:
        return [kind.judge(verdict) for verdict in score_texts(texts, request.bundle, request.tell)]

    return _by_text(data.texts, judge)


def _by_text(texts: Sequence[str], judge: Callable[[list[str]], list[tuple[int, float]]]) -> Judged:
    distinct = list(dict.fromkeys(texts))
    found = dict(zip(distinct, judge(distinct), strict=True))
    return _judged([found[text] for text in texts])


def _judged(pairs: Sequence[tuple[int, float]]) -> Judged:
    return Judged(np.array([one for one, _ in pairs]), np.array([score for _, score in pairs]))


def _figures(kind: Kind, data: Labelled, spoken: Judged) -> dict[str, float]:
    table = confusion(data.labels, spoken.chosen, len(kind.classes))
    ranking = Ranking(data.labels == kind.positive, spoken.score)
    return {
        "macro_f1": macro_f1(table),
        "accuracy": accuracy(table),
        "auc_pr": ranking.average_precision(),
    }


def _intervals(kind: Kind, data: Labelled, spoken: Judged, request: Request) -> dict[str, float | str]:
    groups, classes = number(data.groups), len(kind.classes)
    ranking = Ranking(data.labels == kind.positive, spoken.score)

    def table(weights: Array) -> Array:
        return confusion(data.labels, spoken.chosen, classes, weights)

    figures = {
        "macro_f1": lambda weights: macro_f1(table(weights)),
        "accuracy": lambda weights: accuracy(table(weights)),
        "auc_pr": ranking.average_precision,
    }
    found = intervals(figures, groups, rounds=request.rounds, seed=request.seed)
    return {**flat(found), "intervals_by": drawn_by(groups)}


def _ngram_figures(kind: Kind, data: Labelled, request: Request) -> dict[str, float | int]:
    """The same figures of n-grams under a regression that learnt from other groups' rows."""
    assert request.train is not None
    known = _read(kind, (request.train,))
    asked = set(data.groups)
    kept = [at for at, group in enumerate(known.groups) if group not in asked]
    labels = known.labels[kept]
    if len(set(labels.tolist())) < len(kind.classes):
        raise DataError(
            f"{request.train}: the groups that are not scored lack a class", hint="--train needs other groups"
        )
    texts = [encode(known.texts[at]) for at in kept]
    request.tell(f"n-grams learn from {len(texts)} rows")
    found = ngram_probabilities(texts, labels, [encode(text) for text in data.texts], seed=request.seed)
    figures = _figures(kind, data, Judged(found.argmax(axis=1), found[:, kind.positive]))
    return {f"baseline_ngram_{name}": value for name, value in figures.items()} | {"train_n": len(texts)}


def _curves(kind: Kind, data: Labelled, spoken: Judged) -> dict[str, Any]:
    positive = data.labels == kind.positive
    return {
        "classes": list(kind.classes),
        "confusion": confusion(data.labels, spoken.chosen, len(kind.classes)).astype(int).tolist(),
        "precision_recall": precision_recall(positive, spoken.score),
        "calibration": calibration(positive, np.clip(spoken.score, 0.0, 1.0)),
        "positive": kind.classes[kind.positive],
    }


# --- reading --------------------------------------------------------------------------------------------


def _read(kind: Kind, files: Sequence[Any]) -> Labelled:
    data = Labelled([], np.zeros(0, np.int64), [], [])
    labels: list[int] = []
    for path in files:
        for at, (text, label, group) in enumerate(kind.read(read_csv(path))):
            data.texts.append(text)
            data.groups.append(group)
            data.places.append((at, path.name))
            labels.append(label)
    return data._replace(labels=np.array(labels, np.int64))


def _severities(table: Table) -> Iterator[tuple[str, int, str]]:
    _require(table, "severity", "template")
    for row in table.rows:
        level = table.integer(row, "severity", 0, 7)
        group = row.values.get("subsystem") or row.values.get("file") or "one group"
        yield row.values["template"], _CLASS_OF_LEVEL[level], group


_CLASS_OF_LEVEL = (ERROR, ERROR, ERROR, ERROR, WARNING, NOTICE, NOTICE, DEBUG)


def _alerts(table: Table) -> Iterator[tuple[str, int, str]]:
    if "level" not in table.columns and "match" not in table.columns:
        raise DataError(f"{table.path}, line 1: neither a column 'level' nor 'match'")
    _require(table, "line")
    for row in table.rows:
        if row.values.get("level"):
            label = int(table.integer(row, "level", 0, 16) >= ALERT_LEVEL)
        else:
            found = _TRUTHS.get(row.values.get("match", "").strip().lower())
            if found is None:
                column = "match" if "match" in table.columns else "level"
                raise table.wrong(row, column, "True or False" if column == "match" else "a level")
            label = found
        yield row.values["line"], label, row.values.get("service") or "one group"


def _require(table: Table, *names: str) -> None:
    if any(name not in table.columns for name in names):
        header(table.path, names)


# --- judging --------------------------------------------------------------------------------------------


def _judge_severity(verdict: LineVerdict) -> tuple[int, float]:
    return SEVERITY_CLASSES.index(verdict.severity_class), verdict.severity_scores[ERROR]


def _guess_severity(text: str) -> tuple[int, float]:
    score = line_score(text)
    return (ERROR if score >= _ERROR else WARNING if score >= _WARNING else NOTICE), score


def _judge_alert(verdict: LineVerdict) -> tuple[int, float]:
    return int(verdict.alert >= ALERT_THRESHOLD), verdict.alert


def _guess_alert(text: str) -> tuple[int, float]:
    score = line_score(text)
    return int(score >= ALERT_THRESHOLD), score


KINDS = {
    "log-severity": Kind(_severities, SEVERITY_CLASSES, ERROR, _judge_severity, _guess_severity),
    "log-alert": Kind(_alerts, ("quiet", "alert"), 1, _judge_alert, _guess_alert),
}
