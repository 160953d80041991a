"""`hauswart run` and each stage alone: settle the settings here, then become the lean process."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from daemon.command.session import session_of
from daemon.errors import ConfigError, HauswartError
from daemon.locks import find_holder
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
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="DIR", help="Keep all state here; also before the command."),
    ] = None,
) -> None:
    """Start the supervisor in place of this process."""
    session = session_of(context)
    settings = (session if state_dir is None else replace(session, state_dir=state_dir)).settings
    resolved = _settle(settings, settings.runtime / "settings-run.json")
    _become("supervise", str(resolved), *(["--for", str(seconds)] if seconds is not None else []))


def stage(
    context: typer.Context,
    name: Stage,
    *,
    reload: Annotated[
        bool, typer.Option("--reload", help="Check the configuration and have the running stage read it.")
    ] = False,
) -> None:
    """Start one stage in place of this process, or have the one that runs as a unit begin anew."""
    session = session_of(context)
    if reload:
        _reload(session.settings, name.value)
        return
    if session.config is not None:  # for the same stage after a reload
        os.environ["HAUSWART_CONFIG"] = str(session.config.absolute())
    if session.state_dir is not None:
        os.environ["HAUSWART_STATE_DIR"] = str(session.state_dir.absolute())
    folder = session.settings.runtime / "status"
    _become("stage", name.value, str(_settle(session.settings, folder / f"settings-{name.value}.json")))


def _reload(settings: Settings, name: str) -> None:
    """Send the stage SIGHUP; the settings were checked by being read. Raises HauswartError."""
    pid = find_holder(settings.runtime / "status" / f"{name}.lock")
    if pid is None:
        raise HauswartError(f"the stage {name} does not run", hint="`hauswart status`")
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise HauswartError(f"the stage {name} belongs to another user", hint="run as root") from error


def _settle(settings: Settings, path: Path) -> Path:
    """Make the directories and leave the resolved settings for the stages."""
    try:
        settings.state.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
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
