"""`python -m daemon` and the command `hauswart`: lean processes here, the rest in `daemon.command`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Start a stage or the supervisor without the command line's imports, or hand over to it."""
    arguments = sys.argv[1:]
    if len(arguments) == 3 and arguments[0] == "stage" and arguments[2].endswith(".json"):
        from daemon.stages.entry import run_stage  # noqa: PLC0415  # each way imports only what it needs

        return run_stage(arguments[1], Path(arguments[2]))
    if len(arguments) == 2 and arguments[0] == "score":
        return _score(arguments[1])
    if arguments == ["explain"]:
        return _explain()
    if arguments[:1] == ["supervise"]:
        return _supervise(arguments[1:])
    from daemon.command.app import main as run_command  # noqa: PLC0415

    return run_command(arguments)


def _score(tier: str) -> int:
    """`score TIER`, as a stage starts it on a socket."""
    from daemon.errors import HauswartError  # noqa: PLC0415
    from daemon.stages.log import StageLog  # noqa: PLC0415
    from daemon.stages.scorer import run_scorer  # noqa: PLC0415

    try:
        return run_scorer(tier)
    except HauswartError as error:
        StageLog("scorer").failure(error)
        return error.exit_code


def _explain() -> int:
    """`explain`, as the top stage starts it on a socket."""
    from daemon.errors import HauswartError  # noqa: PLC0415
    from daemon.stages.explainer import run_explainer  # noqa: PLC0415
    from daemon.stages.log import StageLog  # noqa: PLC0415

    try:
        return run_explainer()
    except HauswartError as error:
        StageLog("explainer").failure(error)
        return error.exit_code


def _supervise(arguments: list[str]) -> int:
    """`supervise RESOLVED [--for SECONDS]`, as `hauswart run` calls it."""
    from daemon.errors import HauswartError  # noqa: PLC0415
    from daemon.stages.log import StageLog  # noqa: PLC0415

    try:
        resolved, for_s = _parse(arguments)
        from daemon.supervisor import supervise  # noqa: PLC0415

        return supervise(resolved, for_s)
    except HauswartError as error:
        StageLog("hauswart").failure(error)
        return error.exit_code


def _parse(arguments: list[str]) -> tuple[Path, float | None]:
    from daemon.errors import ConfigError  # noqa: PLC0415

    try:
        match arguments:
            case [resolved]:
                return Path(resolved), None
            case [resolved, "--for", seconds]:
                return Path(resolved), float(seconds)
    except ValueError as error:
        raise ConfigError(f"--for takes seconds: {error}") from error
    raise ConfigError("usage: supervise RESOLVED_SETTINGS [--for SECONDS]", hint="use `hauswart run`")


if __name__ == "__main__":
    sys.exit(main())
