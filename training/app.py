"""`hauswart train`: the verbs that make, shrink, prove and pack the control models.

A verb is a module with a typer function named `command`; it is imported only when it is asked for, so that
`hauswart --help` pays for none of them and a host without the training packages still starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from daemon.errors import MissingDependencyError

HINT = "pip install 'hauswart[training]'"

# In the order of the work; help lists them so.
VERBS = {
    "dataset": "Make a data set: rows with labels, split by group, as Parquet.",
    "finetune": "Train a model of any tier, from a shape, a folder or a named base.",
    "prune": "Cut a model: single weights, layers, width, vocabulary; then distil.",
    "quantize": "Make a model's numbers smaller: int8, for large bases 8 and 4 bit.",
    "wording": "Weigh words by judged lines, for alerts; or cross-validate that.",
    "calibrate": "Make a classifier's probabilities honest, and choose its decisions.",
    "evaluate": "Score a bundle, or the path without one, on a task's data.",
    "search": "Look for the best trade of quality against milliseconds and bytes.",
    "export": "Write a model as ONNX, safetensors or .pth.",
    "bundle": "Pack a model so that the daemon can load it.",
    "report": "Write what a run did as one self-contained HTML page.",
    "pipeline": "Run a recipe: everything from the data to the bundle.",
    "export-feedback": "Write the operator's verdicts as ChatML and preference pairs.",
}
MODULES = {"export-feedback": "feedback"}  # where the module has another name than the verb


class Verb(TyperCommand):
    """One verb by name and help; `training.VERB` is imported when it is run or its own help is read."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command; raises MissingDependencyError where its packages are missing."""
        try:
            real = _command(str(self.name))
        except ModuleNotFoundError as error:
            raise missing(f"train {self.name}", error) from error
        return real.make_context(info_name, args, parent, **extra)


class Verbs(TyperGroup):
    """The group of all verbs; naming them imports none."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        """The verb, not yet loaded."""
        return Verb(name=cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; a package that turns out missing on the way is told like one missed at once."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise missing(f"train {ctx.invoked_subcommand or ''}", error) from error


def _command(verb: str) -> Any:
    module = import_module(f"training.{MODULES.get(verb, verb)}")
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(verb, help=VERBS[verb])(module.command)
    return get_command(single)


def missing(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError | MissingDependencyError:
    """Our own modules are never missing from an installation; that would be a defect, and stays one."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "daemon", "models", "training"}:
        return error
    return MissingDependencyError(f"{what} needs {package}, which is not installed", hint=HINT)


app = typer.Typer(
    cls=Verbs,
    help="Make, shrink, prove and pack the control models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Typer builds a group only where there is a callback."""
