"""`hauswart models list|verify|install|rollback|diff`: which models serve, and how others take over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from daemon.command.session import Session, console, print_json, session_of
from daemon.errors import BundleError, ConfigError, HauswartError, NoBundleError
from daemon.journal import Journal
from daemon.message_ids import MessageId
from daemon.serving import described, look, serving, trust_of
from models import shelf
from models.bundle import TIERS, Bundle
from models.shelf import Choice

SHOWN_EXAMPLES = 10
SHOWN_TEXT = 100

Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Tier = Annotated[str, typer.Argument(metavar="TIER", help="low, middle or top")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle's directory.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="See, check, install and take back the control models.", no_args_is_help=True)
    group.command("list", help="Which bundle serves each tier, why this one, and how good it is.")(list_)
    group.command("verify", help="Check every byte of a bundle (of those that serve, without DIR).")(verify)
    group.command("install", help="Check a bundle, copy it and have it serve; the one before stays.")(install)
    group.command("rollback", help="Have the bundle before serve again.")(rollback)
    group.command("diff", help="Which verdicts change between two bundles.")(diff)
    app.add_typer(group, name="models")


def list_(context: typer.Context, *, as_json: Json = False) -> None:
    """Exit code 4 where a bundle that should serve is damaged or may not."""
    session = session_of(context)
    rows = [serving(session.settings, tier) for tier in TIERS]
    if as_json:
        print_json(rows)
    else:
        _show(rows)
    if any(row["refused"] for row in rows):
        raise typer.Exit(BundleError.exit_code)


def verify(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="A bundle's directory.")] = None,
    *,
    tier: Annotated[str, typer.Option(help="The tier that it is to serve.")] = "",
    as_json: Json = False,
) -> None:
    """Raises BundleError, exit code 4, with the first thing that is wrong."""
    session = session_of(context)
    trust = trust_of(session.settings.models)
    if directory is not None:
        found = [_whole(trust.verify(directory, _known(tier) if tier else None))]
    else:
        found = [_whole(choice.bundle) for choice in _serving(session)]
    for one in found:
        if as_json:
            print_json(described(one))
        else:
            signed = f", signed by {one.signer}" if one.signer else ""
            size = f"{one.size_bytes / 1e6:.1f} MB"
            console().print(Text(f"{one.directory}: ok, {one.name}, {size}{signed}"), soft_wrap=True)


def install(
    context: typer.Context,
    directory: Directory,
    *,
    tier: Annotated[str, typer.Option(help="Refuse a bundle of another tier.")] = "",
    as_json: Json = False,
) -> None:
    """Nothing changes unless all of it is right; a running daemon takes the new one up by itself."""
    session = session_of(context)
    settings = session.settings
    trust = trust_of(settings.models)
    _whole(trust.verify(directory, _known(tier) if tier else None))
    made = shelf.install(directory, tier or None, settings.state, trust)
    _record(MessageId.BUNDLE_PROMOTED, f"{made.name} serves now", made.manifest.tier, made.name)
    _tell(session, made.manifest.tier, made, "installed", as_json=as_json)


def rollback(context: typer.Context, tier: Tier, *, as_json: Json = False) -> None:
    """A second rollback takes back the first; after the only installed one comes the shipped one."""
    session = session_of(context)
    back = shelf.rollback(_known(tier), session.settings.state, trust_of(session.settings.models))
    name = back.name if back else "what ships"
    _record(MessageId.BUNDLE_ROLLED_BACK, f"{name} serves again", tier, name)
    _tell(session, tier, back, "rolled back to", as_json=as_json)


def diff(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle's directory.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Another; without one, DIR against what serves.")
    ] = None,
    *,
    on: Annotated[
        str,
        typer.Option(
            help="What to judge: a .jsonl file of texts, or what `replay` takes: telemetry (what hauswart "
            "kept), journal, a log file, a segment."
        ),
    ] = "telemetry",
    as_json: Json = False,
) -> None:
    """Both judge what the tier's model would have been asked; nothing is stored."""
    from models.difference import compare  # noqa: PLC0415  # the runtime's imports

    session = session_of(context)
    before, after = _pair(session, first, second)
    found = compare(before, after, texts_of(session, before.manifest.tier, on))
    if not found.asked:
        raise HauswartError(f"{on} holds nothing that the {before.manifest.tier} tier's model is asked about")
    counts = [
        {"what": what, "before": old, "after": new, "n": n} for (what, old, new), n in found.by.most_common()
    ]
    if as_json:
        examples = [one._asdict() for one in found.examples]
        named = {"before": before.name, "after": after.name}
        print_json(
            named | {"asked": found.asked, "changed": found.changed, "by": counts, "examples": examples}
        )
        return
    out = console()
    out.print(
        f"{before.name} to {after.name}: {found.changed} of {found.asked} verdicts change", soft_wrap=True
    )
    if counts:
        out.print(_table(counts[:SHOWN_EXAMPLES]))
    for one in found.examples[:SHOWN_EXAMPLES]:
        out.print(Text(f"\n  {one.text[:SHOWN_TEXT]}"))
        out.print(Text(f"    {_said(one.before)}  ->  {_said(one.after)}", style="dim"))


# --- what diff asks about -----------------------------------------------------------------------------------


def texts_of(session: Session, tier: str, source: str) -> Iterator[str]:
    """The texts that a tier's model is asked about, each once; raises ConfigError."""
    if source.endswith(".jsonl"):
        return iter(dict.fromkeys(_rows(tier, Path(source))))
    return iter(dict.fromkeys(_questions(session, tier, source)))


def _rows(tier: str, path: Path) -> Iterator[str]:
    """A row is a text, or an object with `text` and for log lines `program`; lines are encoded here."""
    import msgspec  # noqa: PLC0415  # with the runtime only

    from models.lines import encode  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                row = msgspec.json.decode(raw) if raw.strip() else ""
                text, program = (
                    (row.get("text"), row.get("program", "")) if isinstance(row, dict) else (row, "")
                )
                if not isinstance(text, str) or not isinstance(program, str):
                    raise ConfigError(
                        f"{path}, line {number}: no text", hint='{"text": "...", "program": "..."}'
                    )
                if text:
                    yield encode(text, program) if tier == "low" else text
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error


def _questions(session: Session, tier: str, source: str) -> Iterable[str]:
    """What the tiers ask while a recording is replayed; nobody answers, so their baselines go on alone."""
    from daemon.command.replay import open_source, shown  # noqa: PLC0415  # collectors and all tiers
    from daemon.questions import Answer, Question  # noqa: PLC0415
    from daemon.replay import Replay  # noqa: PLC0415

    asked: list[str] = []

    def ask(questions: Iterable[Question]) -> list[Answer]:
        listed = list(questions)
        asked.extend(question.text for question in listed)
        return [Answer(question.id, {}) for question in listed]

    run = Replay(session.settings, {tier: ask} if tier != "top" else {})  # type: ignore[dict-item]
    opened = open_source(session, source, "")
    for batch in shown(opened, opened.batches):
        run.feed(batch)
    run.finish()
    return asked if tier != "top" else _prompts(session, run.incidents.values())


def _prompts(session: Session, incidents: Iterable[Any]) -> Iterator[str]:
    from daemon.advice.brief import tell  # noqa: PLC0415  # the catalogue

    for incident in incidents:
        for lang in session.settings.top.languages:
            yield tell(incident, lang).prompt


def _pair(session: Session, first: Path, second: Path | None) -> tuple[Bundle, Bundle]:
    """The bundle that is replaced and the one that replaces it."""
    settings = session.settings
    trust = trust_of(settings.models)
    if second is not None:
        before = trust.verify(first, None)
        return before, trust.verify(second, before.manifest.tier)
    after = trust.verify(first, None)
    tier = after.manifest.tier
    return shelf.look(tier, getattr(settings.models, tier), settings.state, trust).bundle, after


# --- what is said of bundles --------------------------------------------------------------------------------


def _whole(bundle: Bundle) -> Bundle:
    """The bundle, if its model also loads and answers."""
    from models.runtime import probe  # noqa: PLC0415  # half a second

    probe(bundle)
    return bundle


def _known(tier: str) -> str:
    if tier not in TIERS:
        raise ConfigError(f"no tier {tier!r}", hint=f"one of {', '.join(TIERS)}")
    return tier


def _serving(session: Session) -> Iterator[Choice]:
    """What serves; a bundle that should and may not is an error, one that is not there is none."""
    for tier in TIERS:
        try:
            choice = look(session.settings, tier)
        except NoBundleError:
            continue
        if choice.refused:
            raise BundleError(choice.refused[0], hint=f"the {choice.source} bundle serves instead")
        yield choice


def _record(message_id: MessageId, text: str, tier: str, bundle: str) -> None:
    """Let the journal know who serves, where this runs as a unit."""
    journal = Journal("hauswart-models")
    if journal.listens:
        journal.send(text, 6, message_id, {"tier": tier, "bundle": bundle})


def _tell(session: Session, tier: str, bundle: Bundle | None, done: str, *, as_json: bool) -> None:
    pinned = getattr(session.settings.models, tier)
    if as_json:
        print_json(
            {"tier": tier, "bundle": described(bundle) if bundle else None, "pinned": pinned != "auto"}
        )
        return
    name = bundle.name if bundle else "what ships"
    out = console()
    out.print(Text(f"{done} {name}"), soft_wrap=True)
    if pinned != "auto":
        out.print(
            Text(f"but [models] {tier} is set to {pinned}, which goes on", style="yellow"), soft_wrap=True
        )


def _show(rows: list[dict[str, Any]]) -> None:
    out, table = console(), Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("tier", "version", "why", "size", "quality", "licence"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        one = row["serving"]
        if one is None:
            table.add_row(row["tier"], Text("baseline", style="dim"), row["why"])
            continue
        quality = ", ".join(f"{name} {value:.3f}" for name, value in list(one["quality"].items())[:3])
        size = f"{one['bytes'] / 1e6:.1f} MB"
        table.add_row(row["tier"], Text(one["version"]), row["why"], size, quality, Text(one["licence"]))
    out.print(table)
    for row in rows:
        for reason in row["refused"]:
            out.print(Text(f"refused: {reason}", style="red"), soft_wrap=True)
        if row["candidates"]:
            out.print(Text(f"{row['tier']}: candidates {', '.join(row['candidates'])}", style="dim"))


def _table(counts: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("what", "before", "after", "n"):
        table.add_column(heading, overflow="fold")
    for one in counts:
        table.add_row(*(Text(str(one[key])[:SHOWN_TEXT]) for key in ("what", "before", "after", "n")))
    return table


def _said(verdict: Any) -> str:
    return ", ".join(str(value)[: 2 * SHOWN_TEXT] for value in verdict.values())
