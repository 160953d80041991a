"""What every command needs: the settings, the store's reader, a console, and a way to have a record kept."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console

from daemon import config as configuration
from daemon.answers import keep
from daemon.errors import HauswartError
from daemon.messages import Record
from daemon.settings import Settings
from daemon.store.reader import StoreReader


@dataclass(frozen=True)
class Session:
    """The global options of one command line."""

    config: Path | None
    state_dir: Path | None

    @cached_property
    def settings(self) -> Settings:
        """The settings in force; raises ConfigError."""
        return configuration.load(self.config, state_dir=self.state_dir)

    @property
    def store_path(self) -> Path:
        """Where the store lies."""
        return self.settings.store

    def reader(self) -> StoreReader:
        """The store, read-only."""
        return StoreReader(self.store_path)

    def keep(self, record: Record) -> None:
        """Have the daemon keep a record; see `daemon.answers.keep`."""
        keep(self.settings, record)


def session_of(context: typer.Context) -> Session:
    """The session of a command."""
    found = context.find_object(Session)
    if found is None:
        raise HauswartError("the command was started without its global options")
    return found


def console() -> Console:
    """Results go to standard output, in colour only on a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def operator() -> str:
    """The name of who gives a verdict or a silence."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
