"""`hauswart academy train`: documents in, a specialist out.

Reads, indexes, makes lessons (`--review` stops here, the file may be edited), trains an adapter, calibrates
when it answers. Each step is kept, so that `--resume` goes on behind the last one that was finished.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.errors import ConfigError
from models.passages import Index, Passage
from training.academy import library
from training.academy.documents import read_documents
from training.academy.facts import spread
from training.academy.lessons import Lesson, check_lessons, drop_repeats, make_lessons
from training.academy.settings import Settings, Training, load, to_toml
from training.causal import quieten

if TYPE_CHECKING:
    from training.academy.meaning import Library

Json = dict[str, Any]
TRAINED_ON = "trained-on"  # a digest of what the adapter is, or is being, trained on
Config = Annotated[
    Path | None, typer.Option("--config", help="A TOML file; academy show --config prints one.")
]
Name = Annotated[str, typer.Option("--name", help="Which specialist (default: the configuration's).")]


def say(text: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(text + "\n")


def take_in(documents: Sequence[Path], folder: Path, settings: Settings) -> Json:
    """Read and index documents; what was read and what could not be."""
    found, problems = read_documents(
        documents,
        tell=say,
        engine=settings.read.engine,
        ocr=settings.read.ocr,
        timeout_s=settings.read.timeout_s,
    )
    for line in problems:
        say(line)
    if not found:
        raise ConfigError("none of these documents could be read", hint="see the lines above")
    sections = 0
    with library.opened(folder) as base:
        for number, document in enumerate(found, 1):
            sections += len(library.add_document(base, document))
            size = f"{document.pages} pages" if document.pages else f"{len(document.blocks)} blocks"
            say(f"indexed {number} of {len(found)}: {document.name}, {size}")
        total = sum(one["passages"] for one in library.documents(base))
    return {"documents": len(found), "problems": problems, "sections": sections, "passages": total}


def teach(folder: Path, settings: Settings) -> Json:
    """Make the lessons: by the teacher if one is configured, and by what the passages state themselves."""
    with Index(folder / library.INDEX) as index:
        chosen = _sampled(index, settings)
        passages = spread(index.passages(), settings.teacher.source_tokens, _source(settings))
    rows = drop_repeats(make_lessons(chosen, settings.train.seed))
    result: Json = {"passages_taught": len(chosen), "extracted": len(rows)}
    if settings.teacher.enabled:
        from training.academy.teacher import distil  # noqa: PLC0415 - only with a teacher

        more, told = distil(passages, folder, settings.teacher, tell=say)
        rows, result["teacher"] = [*more, *rows], told
    library.write_lines(folder / library.LESSONS, rows)
    return result | {"lessons": len(rows), "file": str(folder / library.LESSONS)}


def _sampled(index: Index, settings: Settings) -> list[Passage]:
    """What is trained on: the same sections each time, of so many tokens."""
    return spread(index.passages(), settings.train.source_tokens, _source(settings))


def _source(settings: Settings) -> random.Random:
    return random.Random(settings.train.seed)  # noqa: S311 - a sample, not a secret


def train(folder: Path, settings: Settings) -> Json:
    """Train the adapter on the lessons as they are now, then calibrate. Raises ConfigError."""
    from training.academy import curriculum, desk, diploma, replay  # noqa: PLC0415 - torch takes seconds
    from training.course import Settings as Course  # noqa: PLC0415

    lessons = _lessons(folder)
    if not lessons:
        raise ConfigError(f"{folder / library.LESSONS} holds no lesson", hint="train with documents first")
    options = settings.train
    started = time.monotonic()
    with Index(folder / library.INDEX) as index:
        # A judge that cannot be loaded is no news for after the training.
        known = desk.open_library(folder, options.judge, index, settings.query.words, say)
        count = max(1, int(options.rows * (1 - options.judging - options.answering - options.closed_book)))
        sampled = {one.id for one in _sampled(index, settings)}
        taught = [row for row in lessons if row["passage"] in sampled]
        plan = curriculum.make_curriculum(
            taught or lessons, index, options, replay.rows(options.base, count, folder, tell=say)
        )
    course = Course(
        quantization="none",
        max_seq_length=options.max_seq_length,
        rank=options.rank,
        alpha=options.alpha,
        epochs=options.epochs,
        batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        evaluations=1,
        packing=False,
        seed=options.seed,
    )
    metrics = _adapt(folder, plan, options, course)
    read = _teach_reader(folder, options, known)
    decision = calibrate(folder, settings, plan.calibration, known)
    told = {
        "rows": len(plan.train),
        "training": metrics,
        "reader": read,
        "decision": decision,
        "seconds": round(time.monotonic() - started, 1),
    }
    library.write_card(folder, base=options.base, judge=options.judge, trained=True, stale="", **told)
    figures = {"training": metrics, "reader": read, "decision": decision.get("figures", {})}
    diploma.write(folder, base=options.base, judge=options.judge, metrics=figures)
    return told


def _adapt(folder: Path, plan: Any, options: Any, course: Any) -> Json:
    """The adapter of these conversations: the one that is there, or one that goes on from its checkpoints."""
    from training.course import CARD, CHECKPOINTS  # noqa: PLC0415 - torch takes seconds
    from training.lora import train_lora  # noqa: PLC0415

    adapter, mark = folder / library.ADAPTER, folder / TRAINED_ON
    key = hashlib.sha256(json.dumps([plan.train, course, options.base]).encode()).hexdigest()
    same = mark.is_file() and mark.read_text(encoding="ascii") == key
    if same and (adapter / CARD).is_file():
        say("the adapter is of these lessons already")
        return dict(json.loads((adapter / CARD).read_text(encoding="utf-8"))["metrics"])
    if not same:
        shutil.rmtree(adapter, ignore_errors=True)
        mark.write_text(key, encoding="ascii")
    metrics = train_lora(plan.train, plan.watch, options.base, adapter, course, resume=same, tell=say)
    shutil.rmtree(adapter / CHECKPOINTS, ignore_errors=True)
    return metrics


def _teach_reader(folder: Path, options: Training, known: Library | None) -> Json:
    """The judge's reader of a teacher's lessons; {} where there is no judge, or too few of them."""
    file = folder / library.ADAPTER / library.READER
    if known is None:
        file.unlink(missing_ok=True)
        return {}
    from training.academy import drill  # noqa: PLC0415 - torch takes seconds

    return drill.teach(known, file, groups=options.groups, seed=options.seed, tell=say)


def calibrate(folder: Path, settings: Settings, lessons: Sequence[Lesson], known: Library | None) -> Json:
    """Decide when to answer, by lessons that were not trained on."""
    import msgspec  # noqa: PLC0415

    from training.academy import decision, desk  # noqa: PLC0415

    asked = {row["question"] for row in lessons[: settings.train.calibration]}
    start, judge = desk.open_judge(folder, known, without=asked)
    with Index(folder / library.INDEX) as index:
        found = decision.calibrate(
            lessons,
            index,
            judge,
            start,
            passages=settings.query.passages,
            count=settings.train.calibration,
            seed=settings.train.seed,
            tell=say,
        )
    return dict(msgspec.to_builtins(found))


def _lessons(folder: Path) -> list[Lesson]:
    rows = library.read_lines(folder / library.LESSONS)
    with Index(folder / library.INDEX) as index:
        known = {
            one.id
            for one in index.passages({row["passage"] for row in rows if isinstance(row.get("passage"), int)})
        }
    kept, problems = check_lessons(rows, known)
    for line in problems:
        say(f"left out: {folder / library.LESSONS}: {line}")
    return kept


def command(
    documents: Annotated[list[Path] | None, typer.Argument(help="Files and directories.")] = None,
    *,
    config: Config = None,
    name: Name = "",
    review: Annotated[
        bool, typer.Option("--review", help="Stop when the lessons are written, to look at them.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: with the lessons as they are now, edited or not.")
    ] = False,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Only make the documents searchable.")
    ] = False,
    base: Annotated[
        str, typer.Option("--base", help="The model to train, instead of the configuration's.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Documents to a specialist. The adapter stays on this host."""
    quieten()
    settings = load(config)
    if base:
        from msgspec import structs  # noqa: PLC0415

        settings = structs.replace(settings, train=structs.replace(settings.train, base=base))
    folder = library.folder_of(settings.folder, name or settings.specialist, must=resume)
    result: Json = {"specialist": folder.name, "folder": str(folder)}
    if documents:
        result |= take_in(documents, folder, settings)
        (folder / "academy.toml").write_text(to_toml(settings), encoding="utf-8")
        library.write_card(folder, trained=False, stale="")
    elif not resume:
        raise ConfigError("no documents are given", hint="hauswart academy train FILE..., or --resume")
    if not index_only:
        if documents or not (folder / library.LESSONS).is_file():
            result |= teach(folder, settings)
        if not review:
            result |= train(folder, settings)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _told(result, review=review))


def _told(result: Json, *, review: bool) -> str:
    lines = [f"specialist {result['specialist']} in {result['folder']}"]
    if "documents" in result:
        lines.append(
            f"{result['documents']} documents, {result['passages']} passages,"
            f" {len(result['problems'])} remarks"
        )
    if "lessons" in result:
        lines.append(f"{result['lessons']} lessons in {result['file']}")
    if review:
        lines.append("look at them, then: hauswart academy train --resume")
    if "decision" in result:
        figures = result["decision"]["figures"]
        lines.append(
            f"trained on {result['rows']} conversations in {result['seconds']:.0f} s;"
            f" on lessons kept back it answers {figures.get('answered', 0):.0%},"
            f" right {figures.get('answered_right', 0):.0%}"
        )
    return "\n".join(lines)
