"""Recipes: TOML files that say how a bundle is made, step by step, and from which data.

    format = 1
    name = "low-tiny"
    tier = "low"                       # low, middle or top
    seed = 7

    [[source]]                         # every file that is read below --data
    path = "logs/kernel/printk_templates.csv"
    origin = "Debian linux-source-6.1"
    version = "6.1.192-2"
    licence = "GPL-2.0"
    mark = "ship"                      # or "evaluate-only": then it may not train
    sha256 = "..."

    [[step]]
    name = "rows"                      # the verb, where it is left out
    verb = "dataset"
    out = "rows.parquet"               # the step's name, where it is left out: a folder
    modules = ["lines"]                # what follows are keyword arguments of the verb's function

    [[step]]
    name = "parent"
    verb = "finetune"
    data = "@rows"                     # what the step "rows" made; "@rows/x" is a file in it,
                                       # "$data/x" one below --data
    base = "shape:albert-4x128"
    epochs = 3

A key that the verb's function does not have is an error that names the nearest one. Where the function takes
them, `out`, `run` (the run's folder), `tier`, `seed`, `data_dir`, `sources`, `recipe`, `resume` and `tell`
are filled in; a step may still say its own `tier` or `seed`. Knows nothing of how steps run.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from daemon.errors import ConfigError, IntegrityError

FORMAT = 1
FILLED = frozenset({"out", "run", "tier", "seed", "data_dir", "sources", "recipe", "resume", "tell"})
OWN = frozenset({"name", "verb", "out"})

# The function behind each verb; its keyword arguments are a step's keys.
STEPS = {
    "dataset": "training.dataset:write_rows",
    "simulate": "training.sources.situations:write_cases",
    "finetune": "training.finetune:train_folder",
    "shrink": "training.albert:shrink_folder",
    "prune": "training.prune:prune_folder",
    "quantize": "training.quantize:quantize_folder",
    "wording": "training.wording:write_wording",
    "calibrate": "training.calibrate:calibrate_folder",
    "export": "training.export:export_folder",
    "evaluate": "training.evaluate:evaluate_step",
    "search": "training.search:search_folder",
    "bundle": "training.bundle:make_bundle",
    "report": "training.report:write_report",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_OUT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of data: where others can get it, and whether a bundle that ships may learn from it."""

    path: str
    origin: str
    version: str
    licence: str
    sha256: str
    mark: Literal["ship", "evaluate-only"] = "ship"


@dataclass(frozen=True)
class Step:
    """One step: a verb, what it makes (a name in the run's folder), and its keyword arguments."""

    name: str
    verb: str
    out: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; its steps refer only to steps before them."""

    path: Path
    name: str
    tier: str
    seed: int
    sources: tuple[Source, ...]
    steps: tuple[Step, ...]


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    name: str
    tier: Literal["low", "middle", "top"]
    seed: int = 0
    source: list[Source] = []
    step: list[dict[str, Any]] = []


def read_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe; `changes` maps STEP.KEY (or `seed`) to another value. Raises ConfigError.

    Whether a verb's function has a step's keys is checked by `check_options`, since that imports the verb.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: {error}") from error
    _check_keys(path, "", plain, _Head.__struct_fields__)
    for one in plain.get("source", []):
        _check_keys(path, "source.", one, Source.__struct_fields__)
    try:
        head = msgspec.convert(plain, _Head)
    except msgspec.ValidationError as error:
        raise ConfigError(f"recipe {path}: {error}") from error
    if head.format != FORMAT:
        raise ConfigError(f"recipe {path}: format {head.format}; this version reads {FORMAT}")
    recipe = Recipe(path, head.name, head.tier, head.seed, tuple(head.source), _steps(path, head.step))
    _check_sources(recipe)
    return _changed(recipe, changes or {})


def load_step(verb: str) -> Callable[..., Any]:
    """The function behind a verb; raises ConfigError for an unknown one."""
    if verb not in STEPS:
        raise ConfigError(f"no verb {verb!r}", hint=nearest(verb, STEPS))
    module, _, name = STEPS[verb].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def check_options(recipe: Recipe, step: Step, function: Callable[..., Any]) -> dict[str, Any]:
    """The step's options as the function's annotations have them (paths as Path); raises ConfigError."""
    parameters = inspect.signature(function).parameters
    named = {name for name, one in parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    where = f"recipe {recipe.path}, step {step.name} ({step.verb})"
    for key in step.options:
        if key not in named:
            raise ConfigError(f"{where}: no key {key!r}", hint=nearest(key, named - {"tell", "out"}))
    for name, one in parameters.items():
        needed = one.default is inspect.Parameter.empty and one.kind is not inspect.Parameter.VAR_KEYWORD
        if needed and name not in step.options and name not in FILLED:
            raise ConfigError(f"{where}: the key {name!r} is needed")
    hints = typing.get_type_hints(function)
    return {key: _as(hints.get(key), value) for key, value in step.options.items()}


def check_files(sources: typing.Iterable[Source], data_dir: Path) -> None:
    """Compare every source with its SHA-256; raises IntegrityError that says which file differs."""
    for source in sources:
        path = data_dir / source.path
        if not path.is_file():
            raise ConfigError(
                f"{path} is missing",
                hint=f"it comes from {source.origin} {source.version}; --data says where",
            )
        found = file_digest(path)
        if found != source.sha256:
            raise IntegrityError(
                f"{path} is not the file that the recipe names: SHA-256 {found[:12]}..., "
                f"not {source.sha256[:12]}...",
                hint=f"wanted: {source.origin} {source.version}",
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint that names the closest known word, else all of them."""
    listed = sorted(known)
    close = get_close_matches(word, listed, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(listed)}"


def references(value: Any) -> set[str]:
    """The names of the steps that an option refers to."""
    if isinstance(value, str):
        return {value[1:].partition("/")[0]} if value.startswith("@") else set()
    if isinstance(value, Mapping):
        return set().union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def _check_keys(path: Path, prefix: str, found: Any, known: typing.Iterable[str]) -> None:
    if not isinstance(found, dict):
        raise ConfigError(f"recipe {path}: {prefix.rstrip('.')} is no table")
    for key in found:
        if key not in set(known):
            raise ConfigError(f"recipe {path}: no key {prefix + key!r}", hint=nearest(key, known))


def _steps(path: Path, found: list[dict[str, Any]]) -> tuple[Step, ...]:
    steps: dict[str, Step] = {}
    for number, one in enumerate(found, 1):
        verb = one.get("verb", "")
        if verb not in STEPS:
            raise ConfigError(
                f"recipe {path}, step {number}: no verb {verb!r}", hint=nearest(str(verb), STEPS)
            )
        name = str(one.get("name", verb))
        out = str(one.get("out", name))
        if not _NAME.fullmatch(name) or not _OUT.fullmatch(out):
            raise ConfigError(f"recipe {path}, step {number}: {name!r} or {out!r} cannot be a file's name")
        if name in steps or any(other.out == out for other in steps.values()):
            raise ConfigError(f"recipe {path}: two steps are named {name!r} or make {out!r}")
        options = {key: value for key, value in one.items() if key not in OWN}
        for other in references(list(options.values())) - steps.keys():
            raise ConfigError(
                f"recipe {path}, step {name}: no step {other!r} before it", hint=nearest(other, steps)
            )
        steps[name] = Step(name, verb, out, options)
    if not steps:
        raise ConfigError(f"recipe {path} has no step")
    return tuple(steps.values())


def _check_sources(recipe: Recipe) -> None:
    for source in recipe.sources:
        parts = Path(source.path).parts
        if not _SHA256.fullmatch(source.sha256) or ".." in parts or Path(source.path).is_absolute():
            raise ConfigError(
                f"recipe {recipe.path}: source {source.path!r} needs a relative path and a SHA-256"
            )


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    seed = changes.get("seed", recipe.seed)
    known = {step.name for step in recipe.steps}
    for key in changes:
        step, dot, _ = key.partition(".")
        if key != "seed" and (not dot or step not in known):
            raise ConfigError(f"--set {key}: no such step", hint=nearest(step, known))
    steps = tuple(
        Step(
            step.name,
            step.verb,
            step.out,
            {
                **step.options,
                **{
                    key.partition(".")[2]: value
                    for key, value in changes.items()
                    if key.partition(".")[0] == step.name
                },
            },
        )
        for step in recipe.steps
    )
    return Recipe(recipe.path, recipe.name, recipe.tier, seed, recipe.sources, steps)


def _as(hint: Any, value: Any) -> Any:
    """A TOML value as an annotation has it: Path where no text is taken, floats for whole numbers."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    choices = get_args(hint) if union else (hint,)
    if isinstance(value, str) and Path in choices and str not in choices:
        return Path(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in choices and int not in choices:
        return float(value)
    inner = next((get_args(one) for one in choices if typing.get_origin(one) is type(value)), ())
    if inner and isinstance(value, list):
        return [_as(inner[0], one) for one in value]
    if inner and isinstance(value, dict):
        return {name: _as(inner[1], one) for name, one in value.items()}
    return value
