"""`hauswart config show|check`: what is in force, and whether a file is sound."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon import config as configuration
from daemon.command.session import print_json, session_of

SECRET_KEYS = {"targets", "hook"}  # Apprise URLs and hook arguments may hold credentials
_LOGIN = re.compile(r"//[^/]*@")  # of an address


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Show or check the configuration.", no_args_is_help=True)
    group.command("show", help="Print the settings in force, as TOML or JSON; credentials are left out.")(
        show
    )
    group.command("check", help="Check a file (or what is in force); says which key is wrong and how.")(check)
    app.add_typer(group, name="config")


def show(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print the settings in force."""
    values = _without_secrets(asdict(session_of(context).settings))
    if as_json:
        print_json(values)
    else:
        sys.stdout.write(_as_toml(values))


def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A TOML file; without one, what is in force.")] = None,
) -> None:
    """Load the configuration; a fault is raised with its key."""
    if file is not None:
        configuration.load(file)
    else:
        _ = session_of(context).settings
    sys.stdout.write(f"{file or 'configuration'}: ok\n")


def _without_secrets(values: dict[str, Any]) -> dict[str, Any]:
    notify: dict[str, Any] = {
        key: [f"({len(value)} hidden)"] if key in SECRET_KEYS and value else value
        for key, value in values["notify"].items()
    }
    notify["alertmanager"] = _LOGIN.sub("//***@", notify["alertmanager"])
    metrics = values["metrics"] | {"otlp": _LOGIN.sub("//***@", values["metrics"]["otlp"])}
    return values | {"notify": notify, "metrics": metrics}


def _as_toml(values: dict[str, Any], at: str = "") -> str:
    """TOML of nested tables; JSON's strings, numbers, booleans and lists are TOML's too."""
    lines = [f"[{at}]"] if at else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    tables = [
        _as_toml(inner, f"{at}.{key}" if at else key)
        for key, inner in values.items()
        if isinstance(inner, dict)
    ]
    return "\n".join(["\n".join(lines) + "\n", *tables] if lines else tables)
