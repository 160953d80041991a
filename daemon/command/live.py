"""`hauswart watch`: what is wrong now, one incident, and the history, in a terminal; one key answers."""

from __future__ import annotations

import sys

import typer

from daemon.command.session import session_of
from daemon.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("watch", help="Watch the open incidents live; answer with one key.")(watch)


def watch(context: typer.Context) -> None:
    """Needs a terminal; `hauswart incidents --json` serves scripts."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("watch needs a terminal", hint="for scripts: hauswart incidents --json")
    from daemon.command.screen import Watch  # noqa: PLC0415 - no other command pays for a screen

    Watch(session_of(context)).run()
