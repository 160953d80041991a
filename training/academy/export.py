"""`hauswart academy export`: the adapter, the merged model, or GGUF with a Modelfile through the workshop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.errors import ConfigError
from training.academy import diploma, forms, library
from training.academy.settings import load
from training.academy.train import Config, Name, say
from training.causal import quieten

FORMATS = ("adapter", "merged", "gguf")


def export(folder: Path, out: Path, kind: str, quantization: str) -> dict[str, Any]:
    """Write the specialist in one of FORMATS. Raises ConfigError, IntegrityError."""
    if kind not in FORMATS:
        raise ConfigError(f"no format {kind!r}", hint=f"one of {', '.join(FORMATS)}")
    adapter = folder / library.ADAPTER
    if not adapter.is_dir():
        raise ConfigError(f"{folder.name} has no adapter", hint="hauswart academy train --resume")
    diploma.verify(folder)
    if kind == "adapter":
        shutil.copytree(adapter, out, dirs_exist_ok=True)
        return {"format": kind, "files": sorted(path.name for path in out.iterdir())}
    if kind == "merged":
        from training.causal import load_adapted  # noqa: PLC0415 - torch takes seconds

        model, tokenizer = load_adapted(adapter)
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(out))
        tokenizer.save_pretrained(str(out))
        return {"format": kind, "files": sorted(path.name for path in out.iterdir())}
    from training.workshop.export import export as export_gguf  # noqa: PLC0415 - torch takes seconds

    made = export_gguf(adapter, out, folder.name, quantization, system=forms.SYSTEM, tell=say)
    return {"format": kind, **made._asdict()}


def command(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    *,
    config: Config = None,
    name: Name = "",
    kind: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "adapter",
    quantization: Annotated[str, typer.Option(help="Of the GGUF file.")] = "q4_k_m",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The documents themselves and their index are not part of it."""
    quieten()
    settings = load(config)
    folder = library.folder_of(settings.folder, name or settings.specialist)
    result = export(folder, out, kind, quantization)
    typer.echo(
        json.dumps(result, ensure_ascii=False, default=str)
        if as_json
        else f"{result['format']} of {folder.name} in {out}"
    )
