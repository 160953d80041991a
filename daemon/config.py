"""Reads the configuration: one TOML file, then `HAUSWART_*` from the environment; unknown keys are errors.

Only the command line imports this module (pydantic costs a process 17 MB); the stages get it resolved.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from daemon import settings as plain
from daemon.errors import ConfigError
from daemon.notify.channels import channels_of

ENV_PREFIX = "HAUSWART_"
NOT_SETTINGS = {"HAUSWART_CONFIG", "HAUSWART_DATA", "HAUSWART_CHAT_KEY"}
DEFAULT_FILE = Path("/etc/hauswart/hauswart.toml")
_ADDRESS = re.compile(r"\[[0-9a-fA-F:.%]{2,64}\]:\d{1,5}$")


class _Environment(EnvSettingsSource):
    """The environment, with JSON lists inside sections, which the stock source leaves as text."""

    def __call__(self) -> dict[str, Any]:
        """The values of all variables that are set, nested by section."""
        return {
            key: _parse_inner(value) if isinstance(value, dict) else value
            for key, value in super().__call__().items()
        }


def _parse_inner(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _parse_inner(value) if isinstance(value, dict) else _parse_json(value)
        for key, value in section.items()
    }


def _parse_json(text: Any) -> Any:
    if not (isinstance(text, str) and text.startswith(("[", "{"))):
        return text
    if _ADDRESS.match(text):
        return text
    kind = "list" if text.startswith("[") else "object"
    try:
        return json.loads(text)
    except ValueError as error:
        hint = """lists are JSON: '["a", "b"]'""" if kind == "list" else """like '{"temperature": 0.2}'"""
        raise ConfigError(f"environment: {text!r} is not a JSON {kind}: {error}", hint=hint) from error


class _Sources(BaseSettings):
    """The settings with their sources in order: environment, file, defaults."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid")

    state_dir: str = plain.Settings.state_dir
    runtime_dir: str = plain.Settings.runtime_dir
    log_level: plain.LogLevel = "info"
    language: plain.Language = "en"
    collect: plain.Collect = plain.Collect()
    low: plain.Low = plain.Low()
    middle: plain.Middle = plain.Middle()
    top: plain.Top = plain.Top()
    models: plain.Models = plain.Models()
    notify: plain.Notify = plain.Notify()
    metrics: plain.Metrics = plain.Metrics()
    web: plain.Web = plain.Web()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_unused: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment overrides the file, whose values arrive as the initial arguments."""
        return _Environment(settings_cls), init_settings


def load(file: Path | None = None, *, state_dir: Path | None = None) -> plain.Settings:
    """The settings in force; raises ConfigError naming the key, the value and the nearest known key.

    Args:
        file: the TOML file; without one `HAUSWART_CONFIG` or the default file, which may be absent.
        state_dir: as `--state-dir` gives it; the runtime directory then lies below it, so that a daemon runs
            without root and beside an installed one.
    """
    path = file or (Path(os.environ["HAUSWART_CONFIG"]) if "HAUSWART_CONFIG" in os.environ else None)
    document = _read(path or DEFAULT_FILE, must_exist=path is not None)
    known = _known_keys(plain.Settings)
    _refuse_unknown(document, known, where=str(path or DEFAULT_FILE))
    _refuse_unknown_environment(known)
    try:
        merged = _Sources(**document)
    except ValidationError as error:
        raise _explain(error) from error
    resolved = _resolve(merged, state_dir)
    if resolved.top.served.url:
        from daemon.inquiries import check_served  # noqa: PLC0415  # an address's checks need http and ssl

        check_served(resolved.top.served)
    # Else it is found wrong by the stage that was to tell of it; the file of targets is not for everybody.
    channels_of(replace(resolved.notify, targets_file=""), resolved.metrics.otlp)
    return resolved


def _resolve(merged: _Sources, state_dir: Path | None) -> plain.Settings:
    values = {field.name: getattr(merged, field.name) for field in fields(plain.Settings)}
    if state_dir is not None:
        values["state_dir"] = str(state_dir.absolute())
    state_changed = values["state_dir"] != plain.Settings.state_dir
    if state_changed and values["runtime_dir"] == plain.Settings.runtime_dir:
        values["runtime_dir"] = str(Path(values["state_dir"]) / "run")
    return plain.Settings(**values)


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(f"configuration {path} does not exist", hint="check --config") from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path} is not TOML: {error}") from error


def _known_keys(kind: type) -> dict[str, Any]:
    """Nested names of all settings: a leaf maps to None."""
    defaults = kind()
    return {
        field.name: _known_keys(type(value)) if is_dataclass(value := getattr(defaults, field.name)) else None
        for field in fields(kind)
    }


def _refuse_unknown(
    document: Mapping[str, Any], known: Mapping[str, Any], *, where: str, at: str = ""
) -> None:
    for key, value in document.items():
        name = f"{at}.{key}" if at else key
        if key not in known:
            raise ConfigError(f"{where}: unknown key {name!r}", hint=_nearest(key, known, at))
        inner = known[key]
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, where=where, at=name)


def _nearest(key: str, known: Mapping[str, Any], at: str) -> str:
    spelled = {name: f"{at}.{name}" if at else name for name in known}
    for path in _paths(known):
        spelled.setdefault(path[-1], ".".join((*([at] if at else []), *path)))
    close = difflib.get_close_matches(key, spelled, n=1, cutoff=0.5)
    return f"did you mean {spelled[close[0]]!r}?" if close else f"known keys: {', '.join(sorted(known))}"


def _paths(known: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every section and setting."""
    for key, inner in known.items():
        yield (*at, key)
        yield from _paths(inner or {}, (*at, key))


def _refuse_unknown_environment(known: Mapping[str, Any]) -> None:
    names = {f"{ENV_PREFIX}{'__'.join(path)}".upper() for path in _paths(known)}
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and name not in NOT_SETTINGS and name.upper() not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(names))}"
            raise ConfigError(f"environment: unknown variable {name}", hint=hint)


def _explain(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(f"setting {name!r}: {first['msg']}, got {first['input']!r}{more}")
