"""`hauswart workshop tune`: the sampling parameters with which a served model answers best.

Bayesian optimisation of the similarity between answers and targets, on a chat-completions server. The parts
lie in `training.workshop.tuning`; a training run ends with it by `tune_served`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from daemon.errors import ConfigError
from training import endpoint, trials
from training.workshop.tuning.cases import Case, check_case, read_cases
from training.workshop.tuning.drawing import draw
from training.workshop.tuning.output import write_modelfile, write_settings
from training.workshop.tuning.screen import Screen
from training.workshop.tuning.session import LOG, Tell, Watch, tune
from training.workshop.tuning.settings import Settings, read_settings

CLOSING = "Beste gefundene Parameter:"  # the words of the program that this verb stands in for


def tune_served(
    cases: Path | Sequence[Case],
    out: Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    tell: Tell = lambda _said: None,
    watch: Watch = lambda _step, _total: None,
) -> dict[str, Any]:
    """Search on a served model, and draw the search; `target`, `params`, `held_out` and more.

    What a training run calls at its end, when its model is served: `settings` says where. Raises ConfigError
    and ChatError; `resume` then goes on with what was done.
    """
    settings = settings or Settings()
    found = read_cases(cases, system=settings.system) if isinstance(cases, Path) else list(cases)
    result = tune(found, out, settings, resume=resume, tell=tell, watch=watch)
    steps = [one for one in trials.read_log(out / LOG) if one.get("kind") == "trial"]
    draw(out, steps, result, init_points=settings.init_points)
    return result


def closing_lines(result: Mapping[str, Any]) -> str:
    """The two lines that end a search."""
    return f"{CLOSING}\n{ {'target': result['target'], 'params': result['params']} }"


def gather_cases(settings: Settings, path: Path | None) -> list[Case]:
    """The cases of the file, of the settings, or the one of prompt and target. Raises ConfigError."""
    if path is not None:
        return read_cases(path, system=settings.system)
    if settings.case:
        placed = enumerate(settings.case, 1)
        return [check_case(one, f"case {number}", system=settings.system) for number, one in placed]
    if not settings.prompt:
        raise ConfigError(
            "there is no case to search with", hint="give --prompt and --target, or --cases FILE"
        )
    plain = {name: getattr(settings, name) for name in ("prompt", "target", "required", "forbidden")}
    return [check_case(plain, "the case given", system=settings.system)]


def command(
    *,
    config: Annotated[
        Path | None, typer.Option(help="Settings in TOML or YAML: pbounds, fixed, all of the options below.")
    ] = None,
    cases: Annotated[Path | None, typer.Option(help="Cases: JSONL, TOML or YAML.")] = None,
    prompt: Annotated[str | None, typer.Option(help="One case: what is asked.")] = None,
    target: Annotated[str | None, typer.Option(help="One case: the answer that is wanted.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    require: Annotated[list[str] | None, typer.Option(help="One case: a fact that must be said.")] = None,
    forbid: Annotated[list[str] | None, typer.Option(help="One case: what must not be said.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the search.")] = Path("tune"),
    resume: Annotated[bool, typer.Option(help="Go on with the search in --out.")] = False,
    url: Annotated[
        str | None, typer.Option("--url", help=f"A chat-completions server (default {endpoint.DEFAULT_URL}).")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model's name there.")] = None,
    key_file: endpoint.KeyFile = None,
    header: endpoint.Headers = None,
    consent: endpoint.Consents = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.1, help="Seconds for one answer (default 120).")
    ] = None,
    init_points: Annotated[int | None, typer.Option(min=1, help="Random steps at first (default 5).")] = None,
    n_iter: Annotated[
        int | None, typer.Option(min=0, help="Suggested steps after them (default 25).")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="bayes (default), optuna or random.")] = None,
    similarity: Annotated[
        str | None,
        typer.Option(help="composite (default), or sequence: difflib's, which a swapped 'not' hardly costs."),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Answers for each case of a step, each with a seed of its own (default 2)."),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0.0, max=0.99, help="Share of cases only judged by (default 0.3).")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of an answer at most.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Begin no step after so many; 0: no limit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    probe: Annotated[bool | None, typer.Option(help="First try which parameters the server heeds.")] = None,
    drop_ignored: Annotated[
        bool | None,
        typer.Option("--drop-ignored/--keep-ignored", help="Leave ignored parameters out of the search."),
    ] = None,
    to_modelfile: Annotated[
        Path | None, typer.Option("--write-modelfile", help="Set them in this Ollama Modelfile.")
    ] = None,
    to_settings: Annotated[
        Path | None,
        typer.Option(
            "--write-settings", help="Set them in these settings of the daemon: [top.served] parameters."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
) -> None:
    """Searches with the cases, judges by those held out, and ends with the best parameters found."""
    over: dict[str, Any] = {
        "prompt": prompt, "target": target, "system": system, "required": require, "forbidden": forbid,
        "url": url, "model": model, "key_file": str(key_file) if key_file else None,
        "headers": endpoint.parse_headers(header) if header else None, "consent": consent,
        "timeout_s": timeout_s, "init_points": init_points, "n_iter": n_iter, "engine": engine,
        "similarity": similarity, "repeats": repeats, "held_out": held_out, "minutes": minutes, "seed": seed,
        "case": None if prompt is None else [],  # the one given goes before those of the file
        "probe": probe, "drop_ignored": drop_ignored,
    }  # fmt: skip
    settings = read_settings(config, over, max_tokens=max_tokens)
    found = gather_cases(settings, cases)
    with Screen(Console(stderr=True)) as screen:
        result = tune_served(found, out, settings, resume=resume, tell=screen.tell, watch=screen.step)
        screen.tell(f"the search is drawn in {out / 'search.html'} and {out / 'search.png'}")
        if to_modelfile:
            for name in write_modelfile(to_modelfile, result["params"], model=settings.model):
                screen.tell(f"a Modelfile knows no {name}; it is left out")
        if to_settings:
            write_settings(to_settings, result["params"])
    sys.stdout.write((json.dumps(result, ensure_ascii=False) if as_json else closing_lines(result)) + "\n")
