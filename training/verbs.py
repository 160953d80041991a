"""Command groups whose verbs are modules: one that is not asked for is not imported.

A verb is a module with a typer function named `command`. So `hauswart --help` pays for none of them, and a
host without the training packages still starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from daemon.errors import MissingDependencyError

HINT = "pip install 'hauswart[training]'"


class Verb(TyperCommand):
    """One verb by name and help; its module is imported when it is run or its own help is read."""

    def __init__(self, group: str, name: str, module: str, said: str) -> None:
        super().__init__(name=name, help=said, callback=None)
        self._group, self._module, self._said = group, module, said

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command; raises MissingDependencyError where its packages are missing."""
        try:
            module = import_module(self._module)
        except ModuleNotFoundError as error:
            raise missing(f"{self._group} {self.name}", error) from error
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(self.name, help=self._said)(module.command)
        return get_command(single).make_context(info_name, args, parent, **extra)


def missing(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError | MissingDependencyError:
    """Our own modules are never missing from an installation; that would be a defect, and stays one."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "daemon", "models", "training"}:
        return error
    return MissingDependencyError(f"{what} needs {package}, which is not installed", hint=HINT)


def group(
    name: str, package: str, verbs: Mapping[str, str], modules: Mapping[str, str], said: str
) -> typer.Typer:
    """The group `hauswart NAME`: `verbs` with their help in the order of the work.

    A verb's module is `package.verb`, or what `modules` calls it.
    """

    class Verbs(TyperGroup):
        """Naming the verbs imports none."""

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
            return list(verbs)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
            if cmd_name not in verbs:
                return None
            module = f"{package}.{modules.get(cmd_name, cmd_name)}"
            return Verb(name, cmd_name, module, verbs[cmd_name])

        def invoke(self, ctx: Any) -> Any:
            """Run a verb; a package that turns out missing on the way is told like one missed at once."""
            try:
                return super().invoke(ctx)
            except ModuleNotFoundError as error:
                raise missing(f"{name} {ctx.invoked_subcommand or ''}", error) from error

    app = typer.Typer(cls=Verbs, help=said, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_group)  # typer builds a group only where there is a callback
    return app


def _group() -> None:
    pass
