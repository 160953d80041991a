"""The `hauswart` command: global options, the table of commands, and errors turned into one line."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.command import (
    advise,
    configure,
    history,
    host,
    installing,
    live,
    models,
    replay,
    report,
    run,
    web,
)
from daemon.command.session import Session
from daemon.errors import HauswartError, MissingDependencyError

# typer brings click along under a name that its version decides; the parent of BadParameter is click's own
UsageError: Any = typer.BadParameter.__mro__[1]
GROUPS_NEEDING_TRAINING = ("train", "retrain", "workshop", "academy")

app = typer.Typer(
    name="hauswart",
    help="The caretaker of this host: finds what is wrong, says it with evidence, and keeps quiet otherwise.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file (default /etc/hauswart/hauswart.toml).")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", help="Where everything is kept; also HAUSWART_STATE_DIR. Needs no root."),
    ] = None,
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"hauswart {version('hauswart')}")
        raise typer.Exit
    context.obj = Session(config=config, state_dir=state_dir)


for module in (run, history, report, live, web, advise, replay, models, host, installing, configure):
    module.register(app)
for entry in entry_points(group="hauswart.commands"):
    app.add_typer(entry.load(), name=entry.name)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit codes are those of DESIGN's fixed interfaces."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        result = app(arguments, prog_name="hauswart", standalone_mode=False)
    except HauswartError as error:
        return _report(str(error), error.hint, error.exit_code)
    except UsageError as error:
        return _refuse(error, arguments)
    except typer.Abort:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, e.g. `| head`
        return 0
    return result if isinstance(result, int) else 0


def _refuse(error: Any, arguments: list[str]) -> int:
    needed = next((word for word in arguments if word in GROUPS_NEEDING_TRAINING), "")
    if needed and f"No such command '{needed}'" in error.format_message():
        missing = MissingDependencyError(
            f"{needed} needs the training package", hint="pip install 'hauswart[training]'"
        )
        return _report(str(missing), missing.hint, missing.exit_code)
    hint = f"see `{error.ctx.command_path} --help`" if error.ctx else "see `hauswart --help`"
    return _report(error.format_message(), hint, 2)


def _report(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"hauswart: {message}\n" + (f"  hint: {hint}\n" if hint else ""))
    return code
