"""`hauswart run` and each stage alone: settle the settings here, then become the lean process."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from daemon.command.session import session_of
from daemon.errors import ConfigError
from daemon.settings import Settings, save_resolved


class Stage(StrEnum):
    """The stages that can be started alone."""

    COLLECTOR = "collector"
    LOW = "low"
    MIDDLE = "middle"
    TOP = "top"
    NOTIFY = "notify"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("run", help="Start all stages in the foreground and watch this host.")(run)
    app.command("stage", help="Start one stage alone, as its systemd unit does.")(stage)


def run(
    context: typer.Context,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0.1, help="End after this many seconds, with a summary line.")
    ] = None,
) -> None:
    """Start the supervisor in place of this process."""
    resolved = _settle(session_of(context).settings, "run")
    _become("supervise", str(resolved), *(["--for", str(seconds)] if seconds is not None else []))


def stage(context: typer.Context, name: Stage) -> None:
    """Start one stage in place of this process."""
    _become("stage", name.value, str(_settle(session_of(context).settings, name.value)))


def _settle(settings: Settings, who: str) -> Path:
    """Make the directories and leave the resolved settings for the stages."""
    path = settings.runtime / f"settings-{who}.json"
    try:
        settings.state.mkdir(mode=0o750, parents=True, exist_ok=True)
        settings.runtime.mkdir(mode=0o750, parents=True, exist_ok=True)
        save_resolved(settings, path)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {error.filename}: {error.strerror}",
            hint="run as root, or choose a directory of your own with --state-dir",
        ) from error
    return path


def _become(*arguments: str) -> None:
    """Replace this process, whose imports (typer, pydantic) would cost memory for as long as it watches."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "daemon", *arguments])  # noqa: S606  # no shell
