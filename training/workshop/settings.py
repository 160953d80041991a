"""The workshop's configuration, YAML or TOML, by dotted keys (`model.base_model`); defaults as shipped.

`training_config.yaml` beside this module names every key. A wrong one is refused with its nearest neighbour.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from training.course import Settings

SHIPPED = "training_config.yaml"
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
_AT_LEAST = {
    "model.max_seq_length": 16, "lora.rank": 1, "lora.alpha": 1, "lora.dropout": 0, "training.epochs": 0,
    "training.batch_size": 1, "training.gradient_accumulation_steps": 1, "training.learning_rate": 0,
    "training.evaluations": 1, "training.patience": 0, "training.warmup_ratio": 0, "data.max_samples": 0,
    "training.weight_decay": 0, "training.preference_epochs": 0, "training.preference_beta": 0,
    "training.preference_learning_rate": 0, "data.train_split": 0,
}  # fmt: skip
_AT_MOST = {"lora.dropout": 0.99, "data.train_split": 1.0, "training.warmup_ratio": 1.0}
_ONE_OF = {"model.quantization": ("4bit", "none"), "training.lr_scheduler": SCHEDULERS}
_MAYBE = ("training.packing", "training.bf16")  # true, false or auto


class Workshop(NamedTuple):
    """What a configuration says."""

    base_model: str
    training: Settings
    train_split: float
    max_samples: int
    feedback: Mapping[str, Any]


def load(path: Path | None = None) -> Workshop:
    """A file's settings over the shipped ones. Raises ConfigError with file, key, value and remedy."""
    known = _flat(_parse(files("training.workshop").joinpath(SHIPPED).read_text(encoding="utf-8"), "yaml"))
    where = str(path or SHIPPED)
    given = _flat(_read(path)) if path else {}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            raise ConfigError(
                f"{where}: unknown key {key}", hint=f"is {near[0]} meant?" if near else f"as in {SHIPPED}"
            )
    values = {key: _checked(where, key, given.get(key, value), value) for key, value in known.items()}
    settings = {
        key.partition(".")[2]: value
        for key, value in values.items()
        if key.startswith(("model.", "lora.", "training.")) and key != "model.base_model"
    }
    feedback = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("feedback.")}
    return Workshop(
        values["model.base_model"],
        Settings(**settings),
        values["data.train_split"],
        values["data.max_samples"],
        feedback,
    )


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return _parse(text, "toml" if path.suffix == ".toml" else "yaml")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse(text: str, form: str) -> Any:
    """Raises ValueError."""
    if form == "toml":
        return tomllib.loads(text)
    import yaml  # noqa: PLC0415  # only the workshop reads YAML

    try:
        return yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error


def _flat(tree: Any, before: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{before.rstrip('.') or 'the configuration'} is no table of keys and values")
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def _checked(where: str, key: str, value: Any, shipped: Any) -> Any:
    """The value in its key's type and bounds."""
    if key in _MAYBE:
        if value in {"auto", None}:
            return None
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{where}: {key} is {value!r}", hint="true, false or auto")
    if isinstance(shipped, list):
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{where}: {key} is {value!r}, not a list of values")
        return [str(one).lower() for one in value]
    if isinstance(shipped, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: {key} is {value!r}", hint="true or false")
        return value
    numeric = key in _AT_LEAST or isinstance(shipped, int | float)
    made = _number(where, key, value) if numeric else str(value if value is not None else "")
    if key in _ONE_OF and made not in _ONE_OF[key]:
        raise ConfigError(f"{where}: {key} is {value!r}", hint=f"one of {', '.join(_ONE_OF[key])}")
    return made


def _number(where: str, key: str, value: Any) -> float | int:
    """YAML reads 2e-4 as a text, so texts that are numbers are."""
    default = Settings._field_defaults.get(key.partition(".")[2])
    whole = isinstance(default, int) or key == "data.max_samples"
    try:
        made = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        made = float("nan")
    low, high = _AT_LEAST.get(key, float("-inf")), _AT_MOST.get(key, float("inf"))
    if not low <= made <= high or (whole and made != int(made)):
        kind = "a whole number" if whole else "a number"
        bounds = f" from {low:g}" * (low > float("-inf")) + f" to {high:g}" * (high < float("inf"))
        raise ConfigError(f"{where}: {key} is {value!r}", hint=f"{kind}{bounds}")
    return int(made) if whole else made
