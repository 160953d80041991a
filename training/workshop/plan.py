"""`hauswart workshop plan`: what fits this machine, what it costs, and what to take: local or an API.

It reads the machine, measures it for two seconds, and compares by a dated list that the user may edit.
Nothing is fetched; only with `--url` a served model is asked, to know how fast it really is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from daemon.command.session import print_json
from daemon.errors import ConfigError
from training.adapters import PRESETS
from training.endpoint import Consents, Endpoint, KeyFile, ModelName, Timeout
from training.workshop.planning import catalogue as catalogues
from training.workshop.planning import machine as machines
from training.workshop.planning import written
from training.workshop.planning.costs import Scenario
from training.workshop.planning.fitting import Calibration
from training.workshop.planning.screen import WIDTH, document, show
from training.workshop.planning.verdict import Plan, make_plan
from training.workshop.planning.wording import LANGUAGES

_SIZES = {"k": 1e3, "m": 1e6, "g": 1e9}


def command(
    *,
    tokens_in: Annotated[str, typer.Option(help="Tokens read a month; 200k, 50M, 1G.")] = "10M",
    tokens_out: Annotated[str, typer.Option(help="Tokens written a month.")] = "2M",
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Conversations at a time.")] = 1,
    context: Annotated[int, typer.Option(min=128, max=1 << 20, help="Tokens of one conversation.")] = 4096,
    months: Annotated[int, typer.Option(min=1, max=240, help="Over which it has to pay.")] = 24,
    sensitive: Annotated[
        bool, typer.Option("--sensitive", help="The texts may not leave the house.")
    ] = False,
    terms: Annotated[
        bool, typer.Option("--terms", help="The domain has words of its own: fine-tuning is needed.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Somebody waits for each answer.")
    ] = False,
    least_mmlu: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="How good a model has to be; 0 takes any.")
    ] = 50.0,
    hardware_cost: Annotated[
        float, typer.Option(min=0.0, help="What is still to be bought; 0: the machine is there.")
    ] = 0.0,
    electricity: Annotated[
        float | None, typer.Option(min=0.0, help="Price of a kilowatt-hour, in the list's currency.")
    ] = None,
    hourly_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Of who sets it up and looks after it.")
    ] = None,
    training_tokens: Annotated[str, typer.Option(help="Of one epoch of fine-tuning.")] = "",
    gpu_gib: Annotated[
        float, typer.Option(min=0.0, help="Plan for a card of this size instead of what is here.")
    ] = 0.0,
    gpu: Annotated[str, typer.Option(help="That card's name, as the list has it.")] = "",
    models: Annotated[Path | None, typer.Option(help="An edited copy of the list of models.")] = None,
    preset: Annotated[str, typer.Option(help=f"Of the adapters: {', '.join(PRESETS)}.")] = "scheduler",
    out: Annotated[
        Path | None, typer.Option(help="Write adapter_config.json and training_config.yaml here.")
    ] = None,
    url: Annotated[str, typer.Option(help="A served model to measure: chat completions.")] = "",
    model: ModelName = "",
    served: Annotated[str, typer.Option(help="Which model of the list that is, as NAME:QUANTIZATION.")] = "",
    key_file: KeyFile = None,
    consent: Consents = None,
    timeout: Timeout = 120.0,
    lang: Annotated[str, typer.Option(help="en or de.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="One flat JSON object, in both languages.")] = False,
) -> None:
    """Say what fits, what it costs, and what to take."""
    if lang not in LANGUAGES:
        raise ConfigError(f"--lang {lang!r}", hint=f"one of {', '.join(LANGUAGES)}")
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r}", hint=f"one of {', '.join(PRESETS)}")
    if gpu and not gpu_gib:
        raise ConfigError(f"--gpu {gpu!r} without its size", hint="--gpu-gib 24")
    known = _with_options(
        catalogues.load(models),
        electricity_per_kwh=electricity,
        hourly_rate=hourly_rate,
        training_tokens=int(tokens("--training-tokens", training_tokens)) if training_tokens else None,
    )
    scenario = Scenario(
        tokens("--tokens-in", tokens_in),
        tokens("--tokens-out", tokens_out),
        concurrency,
        context,
        months,
        sensitive,
        terms,
        interactive,
        hardware_cost,
        least_mmlu,
        PRESETS[preset].rank,
    )
    if served and not url:
        raise ConfigError("--served without --url", hint="--url names the server that serves it")
    if not gpu_gib:
        _tell("measuring this machine, some seconds")
    here = machines.measure(machines.read_machine(known, out or Path.cwd(), gpu=gpu, gpu_gib=gpu_gib))
    calibration = Calibration()
    if url:
        from training.workshop.planning.served import calibrate  # noqa: PLC0415  # only where one is asked

        endpoint = Endpoint(url, model, key_file, {}, tuple(consent or ()), timeout)
        calibration = calibrate(endpoint, served, known, here, _tell)
    plan = make_plan(known, here, scenario, calibration)
    files = _write(plan, out, preset) if out else []
    if as_json:
        print_json(document(plan) | {"files": [str(one) for one in files]})
        return
    show(plan, "de" if lang == "de" else "en", Console(highlight=False, width=WIDTH))
    for one in files:
        sys.stdout.write(f"{one}\n")


def tokens(option: str, text: str) -> float:
    """`200k`, `50M`, `1.5G` or digits. Raises ConfigError."""
    size = _SIZES.get(text[-1:].lower(), 1.0)
    try:
        found = float(text[:-1] if size > 1 else text) * size
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is no number of tokens", hint="like 200k, 50M, 1G") from error
    if not 0 <= found <= 1e15:
        raise ConfigError(f"{option} {text!r} is out of range", hint="0 to 1e15")
    return found


def _with_options(known: catalogues.Catalogue, **given: float | None) -> catalogues.Catalogue:
    changed = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(known, assumptions=msgspec.structs.replace(known.assumptions, **changed))


def _write(plan: Plan, out: Path, preset: str) -> list[Path]:
    """For the model that is recommended, else the one that comes nearest."""
    if plan.local is None or not plan.local.training.method:
        _tell("nothing is written: no model that fits can be fine-tuned here")
        return []
    return written.write(out, preset, plan.local.training, plan.catalogue.assumptions.epochs)


def _tell(said: str) -> None:
    sys.stderr.write(f"{said}\n")
