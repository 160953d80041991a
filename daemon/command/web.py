"""`hauswart web`: the operator's page, in the foreground or as its unit starts it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from daemon.command.session import session_of
from daemon.stages.service import ServiceManager


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("web", help="Serve the operator's page on this host.")(web)


def web(
    context: typer.Context,
    *,
    listen: Annotated[
        str, typer.Option(help="127.0.0.1:PORT or unix:/PATH; default web.listen, port 8470.")
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Show, but take no answer.")] = False,
) -> None:
    """Until it is stopped; as a unit until nobody has looked for a while, its socket starts it again."""
    from daemon.web.serve import serve  # noqa: PLC0415 - no other command pays for a web server

    settings = session_of(context).settings
    chosen = replace(
        settings.web,
        listen=listen or settings.web.listen,
        read_only=read_only or settings.web.read_only,
    )
    manager = ServiceManager()

    def ready(address: str) -> None:
        manager.ready(f"serving {address}")
        if sys.stderr.isatty():
            sys.stderr.write(f"{address}\n")

    serve(replace(settings, web=chosen), ready)
    manager.stopping()
