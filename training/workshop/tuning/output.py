"""Found parameters as other programs read them: an Ollama Modelfile, and the settings of the top tier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from daemon.errors import ConfigError
from training.workshop.tuning.files import write_whole
from training.workshop.tuning.space import Value

# What a Modelfile may set (Ollama's docs/modelfile.md and its runner's options), by the name of the API.
MODELFILE = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "max_tokens": "num_predict",
}


def write_modelfile(path: Path, params: Mapping[str, Value], *, model: str) -> list[str]:
    """Set the parameters in a Modelfile, or make one of `model`; the names that a Modelfile does not know.

    Lines about anything else stay as they are. Raises ConfigError.
    """
    known = {MODELFILE[name]: value for name, value in params.items() if name in MODELFILE}
    if path.exists():
        kept = _other_lines(path, known)
    elif model and "\n" not in model:
        kept = [f"FROM {model}"]
    else:
        raise ConfigError(f"{path} does not exist, and nothing says what it is of", hint="give --model")
    lines = [*kept, *(f"PARAMETER {name} {value}" for name, value in known.items())]
    write_whole(path, "\n".join(lines) + "\n")
    return sorted(set(params) - set(MODELFILE))


def _other_lines(path: Path, known: Mapping[str, Value]) -> list[str]:
    """The file without what is set anew; a text between triple quotes is nobody's parameter."""
    kept, quoted = [], False
    for line in _read(path).splitlines():
        words = line.split()
        ours = len(words) > 1 and words[0].upper() == "PARAMETER" and words[1].lower() in known
        if quoted or not ours:
            kept.append(line)
        if line.count('"""') % 2:
            quoted = not quoted
    if quoted:
        raise ConfigError(f"{path} has a text whose triple quotes are not closed")
    return kept


def write_settings(path: Path, params: Mapping[str, Value]) -> None:
    """Set `parameters` of the table `[top.served]`; all else in the file stays. Raises ConfigError."""
    try:
        document: Any = tomlkit.parse(_read(path)) if path.exists() else tomlkit.document()
        top = document.setdefault("top", tomlkit.table(is_super_table=True))
        served = top.setdefault("served", tomlkit.table())
        inline = tomlkit.inline_table()
        inline.update(dict(params))
        served["parameters"] = inline
        text = tomlkit.dumps(document)
    except (TOMLKitError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be changed: {error}", hint="is it TOML, with a table top.served?"
        ) from error
    write_whole(path, text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
