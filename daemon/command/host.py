"""`hauswart doctor` and `hauswart purge`: the state of the installation, and forgetting."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from daemon.command import times
from daemon.command.checks import examine
from daemon.command.session import console, operator, print_json, session_of
from daemon.errors import ConfigError
from daemon.messages import KeepPurge
from daemon.store.purge import Erased, purge_candidates, purge_copies, purge_telemetry
from models.taxonomy import FaultClass

MARKS = {"ok": "[green]ok[/]", "absent": "[yellow]absent[/]", "problem": "[red]problem[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("doctor", help="Say what hauswart can see on this host, what it lacks, and the remedy.")(
        doctor
    )
    app.command("purge", help="Erase what was kept: incidents, telemetry, or everything.")(purge)


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a check.")] = False,
) -> None:
    """Exit code 1 if something keeps hauswart from its work."""
    checks = list(examine(session_of(context).settings))
    if as_json:
        for check in checks:
            print_json(asdict(check))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for check in checks:
            table.add_row(MARKS[check.state], check.name, Text(check.text), Text(check.remedy, style="dim"))
        console().print(table)
    if any(check.state == "problem" for check in checks):
        sys.stdout.flush()
        raise typer.Exit(1)


def purge(
    context: typer.Context,
    *,
    before: Annotated[str, typer.Option(help="Older than this: 30d, 2026-01-01")] = "",
    fault_class: Annotated[
        FaultClass | None, typer.Option("--class", help="Only incidents of this class.")
    ] = None,
    telemetry: Annotated[bool, typer.Option("--telemetry", help="Telemetry instead of incidents.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All of it, silences too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Asks before it erases; what is erased is gone."""
    if not (before or fault_class or telemetry or everything):
        raise ConfigError(
            "nothing was named to be erased", hint="--before 30d, --class, --telemetry or --all"
        )
    if telemetry and fault_class:
        raise ConfigError("telemetry has no fault class", hint="--class goes with incidents")
    now = time.time()
    limit = times.parse_when(before, now) if before else None
    what = (
        "all that was kept"
        if everything
        else "telemetry"
        if telemetry
        else f"{fault_class or 'all'} incidents"
    )
    if not yes:
        typer.confirm(f"Erase {what}{f' older than {before}' if before else ''} for good?", abort=True)
    session = session_of(context)
    if everything or not telemetry:
        with session.reader() as reader:
            count = reader.count(limit, fault_class or "")
        session.keep(KeepPurge(user=operator(), at=now, before=limit, fault_class=fault_class or ""))
        sys.stdout.write(f"erased {count} incidents\n")
    if everything and limit is None:  # they have no age
        _say("copies of a damaged store", purge_copies(session.store_path))
        _say("files of retraining's candidates", purge_candidates(session.settings.state))
    if everything or telemetry:
        _say("telemetry segments", purge_telemetry(session.settings.state / "telemetry", limit))


def _say(what: str, erased: Erased) -> None:
    sys.stdout.write(f"erased {erased.files} {what}, {erased.size_bytes / 1e6:.1f} MB\n")
