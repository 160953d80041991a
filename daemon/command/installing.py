"""`hauswart host install|uninstall`: the units of a host that systemd runs and that is not NixOS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from daemon.installation.host import Host

Root = Annotated[Path, typer.Option(help="Another root than this host's, for an image.", file_okay=False)]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Install hauswart's systemd units, or take them away.", no_args_is_help=True)
    group.command(
        "install", help="Users, directories, units, catalogue, completion; then start. Upgrades, too."
    )(install)
    group.command("uninstall", help="Stop everything and remove what was installed; the state stays.")(
        uninstall
    )
    app.add_typer(group, name="host")


def install(
    *,
    program: Annotated[Path | None, typer.Option(help="What the units run (default: this command).")] = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Enable for the next boot only.")] = False,
    root: Root = Path("/"),
    dry_run: Dry = False,
) -> None:
    """Doing it twice changes nothing the second time."""
    from daemon.installation import install as steps  # noqa: PLC0415  # only these two commands need it

    host = Host(root.absolute(), dry_run, _say)
    steps.install(host, steps.find_program(program), start=not no_start)
    if not host.changed:
        _say("everything was in place")


def uninstall(
    *,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Also the state, the configuration and the users: nothing is left."),
    ] = False,
    root: Root = Path("/"),
    dry_run: Dry = False,
) -> None:
    """Only what was installed, and as it was installed: an edited file stays."""
    from daemon.installation import install as steps  # noqa: PLC0415  # see above

    host = Host(root.absolute(), dry_run, _say)
    steps.uninstall(host, purge=purge)
    if not host.changed:
        _say("nothing was installed")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
