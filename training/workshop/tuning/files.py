"""Tables in TOML or YAML, and files that are whole or not there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from daemon.errors import ConfigError

MAX_BYTES = 4 << 20


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a file, YAML by its name or else TOML. Raises ConfigError with the place of a fault."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    is_yaml = path.suffix.lower() in {".yaml", ".yml"}
    try:
        found = yaml.safe_load(text) if is_yaml else tomllib.loads(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{path} is no {'YAML' if is_yaml else 'TOML'}: {said}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no tables")
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is the old one or the new one at any time. Raises ConfigError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error}") from error
