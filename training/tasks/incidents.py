"""Task incidents: what is wrong in a situation of findings, and who caused it.

Reads JSON lines as `training.sources.cases.Case` has them: `id`, `group`, `split` (only "test" is scored
where a file has any), `at`, `findings` and `events` (the bus's messages), and the answer: `fault_class`,
`severity`, `culprits` ([kind, name], any of which is right; none where nobody is named), and where there are
any the classes and severities that are right, too (`also`, `grades`). A case is judged as the daemon judges
an open incident: by the baseline, and by the model where the baseline is unsure and the model is sure.
`model_` figures are the model's own, asked about everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from daemon.incidents.opinions import formed, unsure
from daemon.messages import Culprit, Subject
from daemon.subjects import Key, key
from models.situations import FAULTS, SEVERITIES, View, decode, encode
from training.intervals import Array, drawn_by, flat, intervals, number
from training.quality import accuracy, confusion, macro_f1
from training.sources.cases import Case, judged
from training.tables import DataError
from training.tasks import Outcome, Request, Scored

CHUNK = 256


class Judged(NamedTuple):
    """One path's verdict on one case."""

    fault: int
    severity: int
    culprit: Key
    score: float


class Seen(NamedTuple):
    """A case with what the model would see of it and the baseline's verdict."""

    case: Case
    view: View
    baseline: Judged
    asked: bool


def run(request: Request) -> Outcome:
    """Judge every case as the daemon would, with the bundle if there is one, and by the baseline."""
    seen = [see(case) for case in read_cases(request.files)]
    if not seen:
        raise DataError(f"{request.files[0]} holds no case to score")
    paths = {"": [one.baseline for one in seen]}
    figures: dict[str, float | int | str] = {
        "n": len(seen),
        "path": "baseline" if request.bundle is None else "model",
        "groups": len({one.case.group for one in seen}),
        "base_rate": Counter(one.case.fault_class for one in seen).most_common(1)[0][1] / len(seen),
        "asked_share": sum(one.asked for one in seen) / len(seen),
    }
    if request.bundle is not None:
        own, served, revised = by_model(seen, request.bundle, request.tell)
        paths = {"": served, "model_": own, "baseline_": [one.baseline for one in seen]}
        figures["revised_share"] = revised / len(seen)
    figures |= _all_figures(seen, paths, request)
    scores = [
        Scored(row, verdict.score, one.case.fault_class.value)
        for row, (one, verdict) in enumerate(zip(seen, paths[""], strict=True))
    ]
    truth = right_faults(seen, paths[""])
    guess = np.array([one.fault for one in paths[""]])
    table = confusion(truth, guess, len(FAULTS))
    return Outcome(figures, scores, {"confusion": {"classes": list(FAULTS), "cells": table.tolist()}})


def read_cases(files: Sequence[Path]) -> Iterator[Case]:
    """The cases to score; raises DataError with the line that is none."""
    decoder = msgspec.json.Decoder(Case)
    cases: list[Case] = []
    for path in files:
        with path.open("rb") as file:
            for place, line in enumerate(file, 1):
                if line.strip():
                    cases.append(_case(decoder, line, path, place))
    several = any(one.split == "test" for one in cases)
    yield from (one for one in cases if one.split == "test" or not several)


def _case(decoder: msgspec.json.Decoder[Case], line: bytes, path: Path, place: int) -> Case:
    try:
        case = decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}, line {place}: {error}") from error
    if not case.findings:
        raise DataError(f"{path}, line {place}: a case needs a finding")
    return case


def see(case: Case) -> Seen:
    """A case as the model would see it, and what the baseline says of it."""
    view, verdict = judged(case)
    baseline = Judged(
        FAULTS.index(verdict.fault_class),
        SEVERITIES.index(verdict.severity),
        _named(verdict.culprits[0]),
        verdict.score,
    )
    return Seen(case, view, baseline, unsure(verdict, view))


def by_model(
    seen: Sequence[Seen], bundle: Any, tell: Callable[[str], None] = lambda _said: None
) -> tuple[list[Judged], list[Judged], int]:
    """The model's own verdicts, those that the daemon would tell, and in how many the model has a part."""
    from models.runtime import Classifier  # noqa: PLC0415 - loads the runtime only where a bundle speaks

    classifier, own, served, revised = Classifier(bundle), [], [], 0
    thresholds = bundle.config.thresholds
    for start in range(0, len(seen), CHUNK):
        part = seen[start : start + CHUNK]
        for one, scores in zip(part, classifier.score([encode(one.view) for one in part]), strict=True):
            own.append(_decoded(scores, one))
            opinion = formed(scores, thresholds, one.view, FAULTS[one.baseline.fault]) if one.asked else None
            revised += opinion is not None
            told = one.baseline
            if opinion is not None and opinion.fault_class is not None:
                told = told._replace(fault=FAULTS.index(opinion.fault_class))
            if opinion is not None and opinion.culprit is not None:
                told = told._replace(culprit=opinion.culprit)
            served.append(told)
        tell(f"{start + len(part)} of {len(seen)} cases")
    return own, served, revised


def _decoded(scores: dict[str, list[float]], one: Seen) -> Judged:
    verdict = decode(scores, one.view)
    first = verdict.culprits[0] if verdict.culprits else ("host", "")
    return Judged(
        FAULTS.index(verdict.fault_class),
        SEVERITIES.index(verdict.severity),
        (str(first[0]), first[1]),
        verdict.confidence,
    )


def _named(culprit: Culprit) -> Key:
    return key(Subject(culprit.kind, culprit.name))


# --- figures ----------------------------------------------------------------------------------------------


def _all_figures(
    seen: Sequence[Seen], paths: dict[str, list[Judged]], request: Request
) -> dict[str, float | int | str]:
    """Every path's figures, the intervals of what serves, and of its gain over the baseline."""
    groups = number([one.case.group for one in seen])
    measures: dict[str, Callable[[Array], float]] = {}
    for prefix, judgements in paths.items():
        for name, measure in _measures(seen, judgements).items():
            measures[f"{prefix}{name}"] = measure
    for name in ("accuracy", "macro_f1") if "baseline_" in paths else ():
        measures[f"gain_{name}"] = _gain(measures[name], measures[f"baseline_{name}"])
    plain = np.ones(len(seen))
    figures: dict[str, float | int | str] = {name: measure(plain) for name, measure in measures.items()}
    found = intervals(measures, groups, rounds=request.rounds, seed=request.seed)
    return figures | flat(found) | {"resampled": drawn_by(groups)}


def _gain(one: Callable[[Array], float], other: Callable[[Array], float]) -> Callable[[Array], float]:
    return lambda weights: one(weights) - other(weights)


def right_faults(seen: Sequence[Seen], judgements: Sequence[Judged]) -> Array:
    """The right class of each case; what was said where that is right, too."""
    pairs = zip(seen, judgements, strict=True)
    told = ((one.case, FAULTS[verdict.fault]) for one, verdict in pairs)
    return np.array([FAULTS.index(said if said in case.also else case.fault_class) for case, said in told])


def _right_severity(one: Seen, verdict: Judged) -> int:
    told = SEVERITIES[verdict.severity]
    return SEVERITIES.index(told if told in one.case.grades else one.case.severity)


def _measures(seen: Sequence[Seen], judgements: Sequence[Judged]) -> dict[str, Callable[[Array], float]]:
    truth = right_faults(seen, judgements)
    guess = np.array([one.fault for one in judgements])
    grave = np.array([_right_severity(*one) for one in zip(seen, judgements, strict=True)])
    graded = np.array([one.severity for one in judgements])
    blamed = np.array([bool(one.case.culprits) for one in seen], dtype=float)
    right = np.array(
        [
            verdict.culprit in {(kind.value, name) for kind, name in one.case.culprits}
            for one, verdict in zip(seen, judgements, strict=True)
        ],
        dtype=float,
    )

    def culprit_top1(weights: Array) -> float:
        total = float((weights * blamed).sum())
        return float((weights * blamed * right).sum()) / total if total else float("nan")

    return {
        "macro_f1": lambda weights: macro_f1(confusion(truth, guess, len(FAULTS), weights)),
        "accuracy": lambda weights: accuracy(confusion(truth, guess, len(FAULTS), weights)),
        "severity_accuracy": lambda weights: accuracy(confusion(grave, graded, len(SEVERITIES), weights)),
        "culprit_top1": culprit_top1,
    }
