"""`hauswart workshop prepare`: seed examples and feedback checked, duplicates dropped, split in two.

Rows that ask nearly the same stay on one side, so that val asks nothing that was trained on. Each task and
language has its share on both sides.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from daemon.errors import ConfigError
from training import chatml, language
from training.chatml import Row
from training.workshop import folders, settings

EXAMPLES = {"host": "host_examples.jsonl", "social": "social_media_examples.jsonl"}
ALIKE = 0.75  # chrF of two questions from which they stay on one side
REPORT = "prepared.json"
Tell = Callable[[str], None]


class Prepared(NamedTuple):
    """What was written, and what was found on the way."""

    train: int
    val: int
    train_pairs: int
    val_pairs: int
    duplicates: int = 0
    broken: int = 0
    mixed: int = 0
    tasks: Mapping[str, int] = {}
    languages: Mapping[str, int] = {}


def prepare(
    workdir: Path,
    *,
    config: settings.Workshop,
    examples: Sequence[str] = (),
    strict: bool = False,
    tell: Tell = lambda _said: None,
) -> Prepared:
    """Write train.jsonl and val.jsonl (and pairs). Raises ConfigError where `strict` and a row is broken."""
    folders.make_folders(workdir)
    _place_examples(workdir / folders.SEED, examples, tell)
    rows, pairs, problems = _read(workdir)
    for problem in problems:
        tell(f"{'broken' if strict else 'left out'}: {problem}")
    if problems and strict:
        raise ConfigError(f"{len(problems)} rows are broken", hint="mend them, or go without --strict")
    kept, duplicates = _without_duplicates([*rows, *pairs])
    if not any("messages" in row for row in kept):
        places = f"{workdir / folders.SEED} and {workdir / folders.FEEDBACK}"
        raise ConfigError(f"there is no usable row in {places}")
    if config.max_samples and len(kept) > config.max_samples:
        kept = random.Random(config.training.seed).sample(kept, config.max_samples)  # noqa: S311  # a choice
        tell(f"data.max_samples: {config.max_samples} rows stay")
    described = [_described(row) for row in kept]
    mixed = [row for row in described if row["mixed"]]
    for row in mixed[:5]:
        tell(f"mixed languages, kept: {row['mixed']}: {_asked(row)[:60]!r}")
    train, val = split(described, config.train_split, config.training.seed)
    counts = [
        chatml.write_rows([_bare(row) for row in side if name in row], workdir / path)
        for name, side, path in (
            ("messages", train, folders.TRAIN),
            ("messages", val, folders.VAL),
            ("chosen", train, folders.TRAIN_PAIRS),
            ("chosen", val, folders.VAL_PAIRS),
        )
    ]
    tasks = dict(Counter(row["task"] for row in described).most_common())
    languages = dict(Counter(row["lang"] for row in described).most_common())
    dropped: dict[str, Any] = {"duplicates": duplicates, "broken": len(problems), "mixed": len(mixed)}
    dropped |= {"tasks": tasks, "languages": languages}
    prepared = Prepared(counts[0], counts[1], counts[2], counts[3], **dropped)
    text = json.dumps(prepared._asdict(), indent=1) + "\n"
    (workdir / folders.PROCESSED / REPORT).write_text(text, encoding="utf-8")
    return prepared


def _place_examples(folder: Path, examples: Sequence[str], tell: Tell) -> None:
    """The shipped examples that are asked for; those of this product where there is nothing else."""
    for name in examples or ([] if any(folder.glob("*.jsonl")) else ["host"]):
        if name not in EXAMPLES:
            raise ConfigError(f"there are no examples {name!r}", hint=", ".join(EXAMPLES))
        target = folder / EXAMPLES[name]
        if not target.exists():
            target.write_bytes(files("training.workshop").joinpath("seed", EXAMPLES[name]).read_bytes())
            tell(f"the shipped examples {EXAMPLES[name]} are now in {folder}")


def _read(workdir: Path) -> tuple[list[Row], list[Row], list[chatml.Problem]]:
    rows, pairs, problems = [], [], []
    for folder in (folders.SEED, folders.FEEDBACK):
        for path in sorted((workdir / folder).glob("*.jsonl")):
            found = chatml.read_file(path)
            rows += found.rows
            pairs += found.pairs
            problems += found.problems
    return rows, pairs, problems


def _without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Each conversation once, whatever its spaces and case."""
    seen: dict[str, Row] = {}
    for row in rows:
        parts = [one for name in ("messages", "prompt", "chosen", "rejected") for one in row.get(name, ())]
        text = json.dumps([[one["role"], " ".join(one["content"].split()).casefold()] for one in parts])
        seen.setdefault(text, row)
    return list(seen.values()), len(rows) - len(seen)


def _asked(row: Row) -> str:
    messages = row["messages"] if "messages" in row else row["prompt"]
    return "\n".join(one["content"] for one in messages if one["role"] == "user")


def _described(row: Row) -> Row:
    """The row with its task and language, and whether its answer is in another than that."""
    answer = row["messages"][-1]["content"] if "messages" in row else row["chosen"][0]["content"]
    said = str(row.get("lang") or row.get("language") or "")
    lang = said or language.detect(answer).language or "unknown"
    other = language.differs(answer, lang) if lang != "unknown" else ""
    if not said:  # nothing is declared: the question's language is what the answer should be in
        question = language.detect(_asked(row))
        other = lang if question.confidence >= language.SURE and question.language not in {"", lang} else ""
        lang = question.language if other else lang
    mixed = f"{lang} is asked, {other} answered" if other else ""
    return row | {"task": str(row.get("task") or "unknown"), "lang": lang, "mixed": mixed}


def _bare(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "mixed"}


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Train and val: groups of rows that ask nearly the same, evenly drawn over tasks and languages."""
    from training.similarity import near_duplicates  # noqa: PLC0415  # reads its word lists

    earlier = near_duplicates([_asked(row) for row in rows], least=ALIKE)
    groups: dict[int, list[Row]] = {}
    for number, row in enumerate(rows):
        root = number
        while root in earlier:
            root = earlier[root]
        groups.setdefault(root, []).append(row)
    order = sorted(groups.values(), key=lambda group: (group[0]["task"], _drawn(group[0], seed)))
    train: list[Row] = []
    val: list[Row] = []
    for group in order:
        wanted = (len(train) + len(val) + len(group)) * (1.0 - share)
        # 1e-9: a tenth of ten rows is one, whatever 1.0 - 0.9 is in binary.
        (val if len(val) + len(group) <= wanted + 1e-9 else train).extend(group)
    return train, val


def _drawn(row: Row, seed: int) -> str:
    return hashlib.sha256(f"{seed} {_asked(row)}".encode()).hexdigest()


def command(
    *,
    workdir: folders.Workdir = Path(),
    config: folders.Config = None,
    examples: Annotated[
        list[str] | None, typer.Option("--examples", help="Shipped examples to start from: host, social.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse broken rows, not leave them out.")] = False,
    as_json: folders.AsJson = False,
) -> None:
    """Reads data/seed and data/feedback, writes data/processed."""
    found = prepare(
        workdir,
        config=settings.load(config),
        examples=examples or (),
        strict=strict,
        tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
    )
    sys.stdout.write(json.dumps(found._asdict()) + "\n" if as_json else _said(found, workdir))


def _said(found: Prepared, workdir: Path) -> str:
    def counted(figures: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in figures.items())

    pairs = f"; pairs: {found.train_pairs} and {found.val_pairs}"
    lines = [
        f"{found.train} rows to train, {found.val} to validate"
        + pairs * bool(found.train_pairs + found.val_pairs),
        f"dropped: {found.duplicates} duplicates, {found.broken} broken; mixed languages: {found.mixed}",
        f"tasks: {counted(found.tasks)}",
        f"languages: {counted(found.languages)}",
        f"written to {workdir / folders.PROCESSED}",
    ]
    return "\n".join(lines) + "\n"
