"""`hauswart doctor` and `hauswart purge`: the state of the installation, and forgetting."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from daemon.command.checks import examine
from daemon.command.session import console, print_json, session_of

MARKS = {"ok": "[green]ok[/]", "absent": "[yellow]absent[/]", "problem": "[red]problem[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("doctor", help="Say what hauswart can see on this host, what it lacks, and the remedy.")(
        doctor
    )


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
            table.add_row(MARKS[check.state], check.name, check.text, f"[dim]{check.remedy}[/]")
        console().print(table)
    if any(check.state == "problem" for check in checks):
        sys.stdout.flush()
        raise typer.Exit(1)
