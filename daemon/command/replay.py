"""`hauswart replay`: what would have been said about a journal, a log file or a recording."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from daemon.collectors.archive import Archive, list_boots
from daemon.collectors.textlog import TextLog
from daemon.command import render, times
from daemon.command.session import Session, console, print_json, session_of
from daemon.errors import ConfigError
from daemon.messages import Line, Observation
from daemon.replay import Replay, batched, within
from daemon.scorer import Scorer
from daemon.settings import Settings
from daemon.stages.top import citer, writer
from daemon.status import MODEL_TIERS, ModelTier
from daemon.store.documents import incident_document
from daemon.store.segments import SegmentReader, segment_paths
from daemon.tiers.top import TopTier


@dataclass(frozen=True)
class Source:
    """Batches to replay, and how far they have been read."""

    name: str
    batches: Iterable[list[Observation]]
    total: float
    done: Callable[[], float]
    notes: Callable[[], list[str]] = list


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("replay", help="Run recorded telemetry through the same stages: what happened last night?")(
        replay
    )


def replay(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="journal (this host's), telemetry (what hauswart kept), or the path of a journal directory, "
            "a log file, a telemetry segment or a directory of them.",
        ),
    ],
    *,
    boot: Annotated[
        str, typer.Option(help="Only this boot: 0 the present, -1 the one before, or its id.")
    ] = "",
    since: Annotated[str, typer.Option(help="2h, yesterday, 2026-11-21T23:00")] = "",
    until: Annotated[str, typer.Option(help="The same.")] = "",
    findings: Annotated[bool, typer.Option("--findings", help="One JSON object a finding.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an incident.")] = False,
    lang: Annotated[str | None, typer.Option("--lang", help="en or de")] = None,
    no_models: Annotated[bool, typer.Option("--no-models", help="The baselines alone, to compare.")] = False,
) -> None:
    """Nothing is stored; the learned state of the daemon is neither used nor changed."""
    session, now = session_of(context), time.time()
    source = open_source(session, what, boot)
    span = (times.parse_when(since, now) if since else None, times.parse_when(until, now) if until else None)
    started = time.monotonic()
    with scorers(session.settings, wanted=not no_models) as models:
        run = Replay(session.settings, {tier: one.ask_now for tier, one in models.items() if tier != "top"})
        for batch in shown(source, within(source.batches, *span)):
            for finding in run.feed(batch):
                if findings:
                    print_json(finding)
        run.finish()
        took_s = time.monotonic() - started
        speaks = models and models["top"].state != "off"
        write = writer(models["top"]) if speaks else None
        top = TopTier(session.settings.top, write, citer(session.settings.top.runbooks))
        _tell(session, run, source, took_s, top, as_json=as_json, quiet=findings, lang=lang)
        for note in (note for one in models.values() for note in one.notes):
            sys.stderr.write(f"hauswart: {note}\n")


@contextlib.contextmanager
def scorers(settings: Settings, *, wanted: bool) -> Iterator[dict[ModelTier, Scorer]]:
    """The models of all tiers; they are waited for, so that what they say is the same every time."""
    patient = replace(settings.models, idle_s=600.0, start_timeout_s=120.0)
    patient = replace(patient, low_timeout_s=60.0, middle_timeout_s=60.0, top_timeout_s=60.0)
    tiers = MODEL_TIERS if wanted else ()
    found = {tier: Scorer(tier, replace(settings, models=patient)) for tier in tiers}
    try:
        yield found
    finally:
        for one in found.values():
            one.close()


def open_source(session: Session, what: str, boot: str) -> Source:
    """What the operator named; raises ConfigError where it is nothing that can be replayed."""
    if what == "journal":
        return _journal(None, boot)
    path = session.settings.state / "telemetry" if what == "telemetry" else Path(what)
    if not path.exists():
        hint = "nothing was kept yet" if what == "telemetry" else "journal, telemetry, or a path"
        raise ConfigError(f"{path} does not exist", hint=hint)
    if path.is_dir() and any(path.rglob("*.journal")):
        return _journal(path, boot)
    if path.is_dir() or path.name.endswith(".msgpack.zst"):
        segments = SegmentReader(segment_paths(path) if path.is_dir() else [path])
        if not segments.bytes_total:
            raise ConfigError(f"{path} holds neither a journal nor telemetry segments")
        return Source(
            str(path), segments, segments.bytes_total, lambda: segments.bytes_read, lambda: segments.notes
        )
    log, read = TextLog(path, kernel=True), [0]
    return Source(str(path), batched(_lines(log, read)), log.total, lambda: read[0])


def _lines(log: TextLog, read: list[int]) -> Iterator[Line]:
    """The lines; `read` follows how many bytes they took."""
    for line, read[0] in log:
        yield line


def _journal(path: Path | None, boot: str) -> Source:
    archive = Archive(path, _boot_id(path, boot) if boot else "")
    return Source(str(path or "journal"), batched(archive), archive.total, lambda: archive.done)


def _boot_id(path: Path | None, boot: str) -> str:
    boots = list_boots(path)
    try:
        return boots[int(boot) - 1].id if int(boot) <= 0 else boots[int(boot)].id
    except ValueError:
        found = [one.id for one in boots if one.id.startswith(boot.replace("-", ""))]
        if len(found) == 1:
            return found[0]
    except IndexError:
        pass
    known = ", ".join(f"{number - len(boots) + 1}: {one.id[:8]}" for number, one in enumerate(boots))
    raise ConfigError(f"no boot {boot!r}", hint=f"boots here: {known}")


def shown(source: Source, batches: Iterable[list[Observation]]) -> Iterator[list[Observation]]:
    """The batches, with a progress bar on a terminal's standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(source.name, total=source.total or None)
        for batch in batches:
            yield batch
            bar.update(task, completed=source.done())


def _tell(
    session: Session,
    run: Replay,
    source: Source,
    took_s: float,
    top: TopTier,
    *,
    as_json: bool,
    quiet: bool,
    lang: str | None,
) -> None:
    chosen = lang or session.settings.language
    kept = (one for one in run.incidents.values() if one.state != "merged")
    incidents = sorted(kept, key=lambda one: one.opened_at)
    if as_json:
        for one in incidents:
            advice = next((said for said in top.advise(one) if said.lang == chosen), None)
            print_json(incident_document(one, advice))
    elif not quiet:
        out = console()
        out.print(render.incident_table(incidents, chosen, time.time()) if incidents else "No incident.")
    seen = sum(run.counts[kind] for kind in ("sample", "line", "event", "snapshot"))
    said = (
        f"{seen} observations, {run.counts['findings']} findings, {len(incidents)} incidents, {took_s:.1f} s"
    )
    sys.stderr.write(f"hauswart: {source.name}: {said}\n")
    for note in source.notes():
        sys.stderr.write(f"hauswart: {note}\n")
