"""`hauswart train pipeline`: runs a recipe, from the data to the bundle and its report.

    hauswart train pipeline training/recipes/low.toml --data DIR --out runs/low

The recipe's form is told in `training.recipe`. Everything lies in the run's folder: each step's output under
its name, `results/STEP.json` with what the step returned, and `pipeline.json` with hashes and times. A step
is skipped when its verb, keys, seed and the bytes of all that it reads are those of its last run, and what it
made is still there unchanged; `--from STEP` runs it and all that follow again (after the code changed, which
no hash here knows). A step's function writes to `out`; one that was cut short goes on where it can.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from daemon.errors import ConfigError, LockedError
from training.recipe import Recipe, Step, check_files, check_options, file_digest, load_step, read_recipe

STATE = "pipeline.json"
RESULTS = "results"
ENVIRONMENT = "HAUSWART_DATA"
DATA = "$data/"


@dataclass
class Run:
    """A recipe in its folder: what was made with which key, and how a step's arguments are put together."""

    recipe: Recipe
    out: Path
    data_dir: Path | None
    tell: Callable[[str], None]
    state: dict[str, Any]

    def path(self, step: Step) -> Path:
        """What the step makes."""
        return self.out / step.out

    def step(self, name: str) -> Step:
        """A step by its name."""
        return next(step for step in self.recipe.steps if step.name == name)


def run_recipe(
    path: Path,
    out: Path,
    *,
    data_dir: Path | None = None,
    start: str = "",
    until: str = "",
    changes: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda _said: None,
) -> dict[str, Any]:
    """Run the steps that need it; the results of all steps by name.

    Raises ConfigError for a recipe that cannot run (before anything ran), IntegrityError for other data.
    """
    recipe = read_recipe(path, changes)
    names = [step.name for step in recipe.steps]
    for name in (start, until):
        if name and name not in names:
            raise ConfigError(f"recipe {path} has no step {name!r}", hint=f"steps: {', '.join(names)}")
    options = {step.name: check_options(recipe, step, load_step(step.verb)) for step in recipe.steps}
    if recipe.sources:
        check_files(recipe.sources, _need(data_dir))
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    with _locked(out):
        run = Run(recipe, out, data_dir, tell, _load(out / STATE))
        last = names.index(until) if until else len(names) - 1
        forced = False
        for at, step in enumerate(recipe.steps[: last + 1]):
            forced = forced or step.name == start
            _take(run, step, options[step.name], f"{at + 1}/{len(names)} {step.name}", forced=forced)
    return {name: json.loads(_result(out, name).read_text()) for name in names[: last + 1]}


def _take(run: Run, step: Step, options: dict[str, Any], title: str, *, forced: bool) -> None:
    """Skip the step or run it and write down what it made."""
    key = _key(run, step, options)
    known = run.state.get(step.name, {})
    target = run.path(step)
    if not forced and known.get("key") == key and known.get("digest") == tree_digest(target):
        run.tell(f"{title}: unchanged, skipped")
        return
    run.tell(f"{title}: {step.verb}")
    run.state[step.name] = {"begun": key}
    _save(run.out / STATE, run.state)
    resumed = known.get("begun") == key  # only a step that died half-way may go on from its own leavings
    if target.is_dir() and not resumed:
        shutil.rmtree(target)
    elif not target.is_dir():
        target.unlink(missing_ok=True)
    began = time.monotonic()
    result = load_step(step.verb)(**_arguments(run, step, options, resume=resumed))
    took_s = time.monotonic() - began
    _save(_result(run.out, step.name), _plain(result))
    run.state[step.name] = {
        "key": key,
        "verb": step.verb,
        "out": step.out,
        "digest": tree_digest(target),
        "seconds": round(took_s, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    _save(run.out / STATE, run.state)
    run.tell(f"{title}: done in {took_s:.0f} s")


def _arguments(run: Run, step: Step, options: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """The step's own keys, and whatever else its function takes of what the recipe knows."""
    function = load_step(step.verb)
    known = {
        "out": run.path(step),
        "run": run.out,
        "tier": run.recipe.tier,
        "seed": run.recipe.seed,
        "data_dir": run.data_dir,
        "sources": [msgspec.to_builtins(source) for source in run.recipe.sources],
        "recipe": run.recipe.name,
        "resume": resume,
        "tell": run.tell,
    }
    taken = inspect.signature(function).parameters
    own: dict[str, Any] = _resolve(run, options)
    return {name: value for name, value in known.items() if name in taken} | own


def _resolve(run: Run, value: Any) -> Any:
    """The value with every `@STEP/...` as a path in the run's folder, `$data/...` as one in the data's."""
    if isinstance(value, Mapping):
        return {key: _resolve(run, one) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolve(run, one) for one in value]
    text = str(value) if isinstance(value, Path) else value
    if not isinstance(text, str) or not text.startswith(("@", DATA)):
        return value
    if text.startswith(DATA):
        path = _need(run.data_dir) / text.removeprefix(DATA)
    else:
        name, _, rest = text[1:].partition("/")
        path = run.path(run.step(name)) / rest if rest else run.path(run.step(name))
    return path if isinstance(value, Path) else str(path)


def _key(run: Run, step: Step, options: dict[str, Any]) -> str:
    """What the step's outcome depends on, as one hash."""
    parts = {
        "verb": step.verb,
        "options": {name: _identity(run, value) for name, value in options.items()},
        "seed": run.recipe.seed,
        "tier": run.recipe.tier,
        "sources": [source.sha256 for source in run.recipe.sources] if step.verb == "dataset" else [],
        "run": _before(run, step) if "run" in inspect.signature(load_step(step.verb)).parameters else [],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _before(run: Run, step: Step) -> list[str]:
    """What the steps before this one made: the reading of a step that takes the whole run's folder."""
    names = [one.name for one in run.recipe.steps]
    return [run.state.get(name, {}).get("digest", "") for name in names[: names.index(step.name)]]


def _identity(run: Run, value: Any) -> Any:
    """A value for the key: other steps' outputs and files by their bytes, the rest as it is."""
    if isinstance(value, Mapping):
        return {key: _identity(run, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(run, one) for one in value]
    if isinstance(value, str) and value.startswith(("@", DATA)):
        return tree_digest(Path(_resolve(run, value)))
    if isinstance(value, Path):
        return tree_digest(_resolve(run, value))
    return value


def tree_digest(path: Path) -> str:
    """SHA-256 over a file, or over names and bytes of all files of a folder; "" where there is nothing."""
    if path.is_file():
        return file_digest(path)
    whole = hashlib.sha256()
    found = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else []
    for one in found:
        whole.update(f"{one.relative_to(path)}\0{file_digest(one)}\n".encode())
    return whole.hexdigest() if found else ""


def _need(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ConfigError("the recipe reads data", hint=f"say where it lies: --data DIR, or {ENVIRONMENT}")
    return data_dir


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"another pipeline runs in {out}") from error
        yield


def _result(out: Path, name: str) -> Path:
    return out / RESULTS / f"{name}.json"


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # a new run, or one that a crash cut short: then every step runs
    return dict(found) if isinstance(found, dict) else {}


def _save(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")
    part.replace(path)


def _plain(result: Any) -> Any:
    """What can be written down of what a step returned: a model's value lies in the step's folder."""
    if isinstance(result, Path):
        return {"out": str(result)}
    try:
        return json.loads(msgspec.json.encode(result))
    except (TypeError, ValueError):
        return {}


# --- command ------------------------------------------------------------------------------------------------


def command(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; training/recipes/ holds those that ship.")],
    *,
    data: Annotated[
        Path | None, typer.Option(help=f"Where the recipe's sources lie; also {ENVIRONMENT}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default runs/NAME).")] = None,
    start: Annotated[str, typer.Option("--from", help="Run this step and all after it again.")] = "",
    until: Annotated[str, typer.Option(help="Stop after this step.")] = "",
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="STEP.KEY=VALUE, a TOML value, instead of the recipe's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="--no-resume forgets what was made in that folder before.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The steps' results as one JSON object.")] = False,
) -> None:
    """Steps whose inputs are unchanged are skipped; progress goes to standard error."""
    changes = dict(map(_change, change or []))
    if seed is not None:
        changes["seed"] = seed
    target = out or Path("runs") / recipe.stem
    if not resume:
        (target / STATE).unlink(missing_ok=True)
    folder = data or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    results = run_recipe(
        recipe, target, data_dir=folder, start=start, until=until, changes=changes, tell=_tell
    )
    sys.stdout.write((json.dumps(results) if as_json else str(target)) + "\n")


def _change(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"] if sign else value
    except tomllib.TOMLDecodeError:
        return key.strip(), value  # a bare word is a string


def _tell(said: str) -> None:
    sys.stderr.write(f"hauswart: {time.strftime('%H:%M:%S')} {said}\n")
