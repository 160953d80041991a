"""What `evaluate` can score: one module a task, found by name.

A task's module has `run(request: Request) -> Outcome`. The answer's figures become the flat JSON object of
the fixed interface: plain numbers and texts, nothing nested, nothing null. Intervals stand beside a figure
as `NAME_low` and `NAME_high` (95 %), the same figure of another path as `baseline_NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError, MissingDependencyError

# The module of each task, and the tier whose bundle it scores ("" where no model is asked).
TASKS = {
    "log-template": ("training.tasks.templates", ""),
    "log-severity": ("training.tasks.lines", "low"),
    "log-alert": ("training.tasks.lines", "low"),
    "metrics": ("training.tasks.metrics", ""),
    "incidents": ("training.tasks.incidents", "middle"),
    "advice": ("training.tasks.advice", "top"),
}


@dataclass(frozen=True)
class Request:
    """What to score: the task's name, its files, and the bundle that is to speak (None: the baseline path).

    `train` is data for baselines that must learn (never what is scored); `tell` takes a line of progress.
    """

    task: str
    files: tuple[Path, ...]
    bundle: Any | None = None
    train: Path | None = None
    seed: int = 0
    rounds: int = 1000  # of the bootstrap
    tell: Callable[[str], None] = lambda _said: None


class Scored(NamedTuple):
    """One row's score for `--scores`: its place in the data, and its label where the data has one."""

    row: int
    score: float
    label: int | str | None = None
    file: str = ""


@dataclass(frozen=True)
class Outcome:
    """`figures` is the flat answer without task and bundle; `curves` is what a report draws, by name."""

    figures: dict[str, float | int | str]
    scores: Sequence[Scored] = ()
    curves: dict[str, Any] = field(default_factory=dict)


def find(task: str) -> Callable[[Request], Outcome]:
    """The task's `run`; raises ConfigError for an unknown name, MissingDependencyError where it is absent."""
    if task not in TASKS:
        near = get_close_matches(task, TASKS, 1)
        raise ConfigError(
            f"no task {task!r}", hint=f"did you mean {near[0]}?" if near else f"tasks: {', '.join(TASKS)}"
        )
    module = TASKS[task][0]
    if find_spec(module) is None:
        raise MissingDependencyError(f"task {task}: this installation lacks {module}")
    run: Callable[[Request], Outcome] = import_module(module).run
    return run
