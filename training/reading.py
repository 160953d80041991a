"""`hauswart train reading`: learns what unknown lines are about from labelled messages of real programs.

A logistic regression on TF-IDF for each class, and one more for whether a line counts though it is said only
once; `models.reading` reads the table. `--folds` asks instead how well it reads programs that it did not
learn from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from daemon.errors import ConfigError
from models import reading
from models.lines import encode
from models.taxonomy import FaultClass
from training.intervals import Array
from training.tables import DataError
from training.wording import split_evenly

MESSAGES = Path(__file__).parent / "sources" / "messages"
KERNEL_FILE = "kernel.tsv"  # the others hold what programs say
STRENGTH = 30.0  # inverse of the regularisation; 10 is less sure, 100 no better
LEAST_WEIGHT = 0.7  # smaller ones make a table twice as large and move one decision in fifty
NONE = "none"
DEGREES = (NONE, "lasting", reading.ONCE)
SURE = (0.5, 0.6, 0.7, 0.8, 0.9)  # where figures are given


class Labelled(NamedTuple):
    """One message; `name` is a fault class or "none", `text` is encoded."""

    name: str
    once: bool
    program: str
    text: str


def messages(folder: Path, writer: str) -> list[Labelled]:
    """The labelled messages of the kernel or of programs, equal texts of one label once; raises DataError."""
    paths = [
        path
        for path in sorted(folder.glob("*.tsv"))
        if (path.name == KERNEL_FILE) == (writer == reading.KERNEL)
    ]
    found = dict.fromkeys(one for path in paths for one in _rows(path))
    if not found:
        raise DataError(f"{folder} holds no labelled messages of the {writer} (*.tsv)")
    return [*found]


def _rows(path: Path) -> Iterator[Labelled]:
    names = {NONE, *(fault.value for fault in FaultClass if not fault.benign)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("# "):
            continue
        name, degree, program, text, *_ = [*line.split("\t"), "", "", "", ""]
        if name not in names or degree not in DEGREES or not text:
            raise DataError(f"{path}:{number}: wants class, degree, program and message, not {line[:80]!r}")
        encoded = encode(text[: reading.TEXT_MAX])
        if len(encoded) >= 3:
            yield Labelled(name, degree == reading.ONCE, program, encoded)


class Reader:
    """What was learnt from labelled messages."""

    def __init__(self, rows: Sequence[Labelled], *, strength: float = STRENGTH) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  # heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        self._terms = TfidfVectorizer(analyzer=reading.terms, sublinear_tf=True)
        features = self._terms.fit_transform([row.text for row in rows])
        self.names = sorted({row.name for row in rows})
        asked = [[row.name == name for row in rows] for name in self.names] + [[row.once for row in rows]]
        self._models = [
            LogisticRegression(C=strength, solver="liblinear").fit(features, one) for one in asked
        ]

    def table(self) -> bytes:
        """The bytes that `models.reading.Table` reads."""
        columns = np.vstack([model.coef_ for model in self._models]).T
        weights = {term: _kept(columns[place]) for term, place in self._terms.vocabulary_.items()}
        rarity = {term: float(self._terms.idf_[place]) for term, place in self._terms.vocabulary_.items()}
        biases = [float(model.intercept_[0]) for model in self._models]
        kept = {term: said for term, said in weights.items() if said}
        return reading.pack([*self.names, reading.ONCE], biases, rarity, kept)


def _kept(weights: Array) -> dict[int, float]:
    return {int(at): float(weights[at]) for at in np.flatnonzero(np.abs(weights) >= LEAST_WEIGHT)}


def write_reading(out: Path, rows: Sequence[Labelled]) -> dict[str, Any]:
    """Learn from all rows and write the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    content = Reader(rows).table()
    table = reading.Table(content)
    out.write_bytes(content)
    return {"messages": len(rows), "terms": len(table), "bytes": len(content)}


def foretell(rows: Sequence[Labelled], *, folds: int, seed: int = 0) -> list[reading.Reading]:
    """What a table that did not learn from a message's program reads in it."""
    fold_of = split_evenly([row.program for row in rows], folds, seed)
    found: list[reading.Reading | None] = [None] * len(rows)
    for fold in range(folds):
        here = [at for at, row in enumerate(rows) if fold_of[row.program] == fold]
        table = reading.Table(Reader([row for row in rows if fold_of[row.program] != fold]).table())
        for at in here:
            found[at] = table.read(rows[at].text)
    return [one for one in found if one is not None]


def figures(rows: Sequence[Labelled], read: Sequence[reading.Reading]) -> list[dict[str, float]]:
    """At each degree of sureness: how many are spoken of, how many of these are faults and rightly named.

    `alone_` is what may be told though it is said only once.
    """
    labels = {
        "fault": [row.name != NONE for row in rows],
        "once": [row.once for row in rows],
        "right": [
            one.fault is not None and one.fault.value == row.name for one, row in zip(read, rows, strict=True)
        ],
    }
    known = {name: np.array(values) for name, values in labels.items()}
    said = np.array([one.sure if one.fault is not None else 0.0 for one in read])
    alone = np.array([one.once for one in read])
    return [_at(least, said >= least, alone >= least, known) for least in SURE]


def _at(least: float, told: Array, once: Array, known: Mapping[str, Array]) -> dict[str, float]:
    alone = told & once
    whole = {
        "sure": least,
        "told": _share(told),
        "faults": _share(known["fault"][told]),
        "right": _share(known["right"][told]),
        "found": _share((told & known["right"])[known["fault"]]),
        "alone": _share(alone),
        "alone_faults": _share(known["fault"][alone]),
        "alone_once": _share(known["once"][alone]),
        "alone_found": _share(alone[known["once"]]),
    }
    return {name: round(value, 4) for name, value in whole.items()}


def _share(of: Array) -> float:
    return float(of.mean()) if len(of) else 0.0


# --- command ------------------------------------------------------------------------------------------------


def command(
    data: Annotated[Path, typer.Argument(help="A folder of labelled messages (*.tsv).")] = MESSAGES,
    *,
    out: Annotated[Path, typer.Option(help="A folder for the two tables.")] = Path("readings"),
    folds: Annotated[
        int, typer.Option(help="Write nothing: cross-validate over programs in so many folds.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
) -> None:
    """One JSON object; progress goes to standard error."""
    if folds == 1:
        raise ConfigError("--folds 1 leaves nothing to learn from", hint="5 or more")
    found: dict[str, Any] = {}
    for writer in (reading.KERNEL, reading.PROGRAMS):
        rows = messages(data, writer)
        _tell(f"{writer}: {len(rows)} messages of {len({row.program for row in rows})} programs")
        if folds:
            found[writer] = figures(rows, foretell(rows, folds=folds, seed=seed))
        else:
            found[writer] = write_reading(out / f"{writer}.safetensors", rows)
    sys.stdout.write(json.dumps(found) + "\n")


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {said}\n")
