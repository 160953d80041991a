"""What a search is told: its file (TOML or YAML), over which the options of the command line go.

url = "http://localhost:11434/v1/chat/completions"
model = "llama3"
system = "Answer in one sentence."
prompt = "..."                     # one case here; many as [[case]], or in a file of their own
target = "..."
init_points = 5
n_iter = 25

[pbounds]
temperature = [0.1, 0.9]

[fixed]                            # goes into each request as it is
max_tokens = 100
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from daemon.errors import ConfigError
from models.chat import DEFAULT_URL, TIMEOUT_S
from training.endpoint import Endpoint
from training.workshop.tuning.files import read_tables

Engine = Literal["bayes", "optuna", "random"]
Measure = Literal["sequence", "composite"]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of the file. `case` is read by `training.workshop.tuning.cases`, `pbounds` by `...space`."""

    url: str = DEFAULT_URL
    model: str = ""
    key_file: str = ""
    headers: dict[str, str] = {}
    consent: tuple[str, ...] = ()
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = TIMEOUT_S

    system: str = ""
    prompt: str = ""
    target: str = ""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    case: list[Any] = []
    held_out: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3

    pbounds: Any = None
    fixed: dict[str, Any] = {}
    engine: Engine = "bayes"
    similarity: Measure = "composite"
    init_points: Count = 5
    n_iter: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 25
    repeats: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    minutes: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    probe: bool = True
    drop_ignored: bool = False

    def endpoint(self, audit_file: Path | None = None) -> Endpoint:
        """Where to ask."""
        return Endpoint(
            url=self.url,
            model=self.model,
            key_file=Path(self.key_file) if self.key_file else None,
            headers=self.headers,
            consent=self.consent,
            timeout_s=self.timeout_s,
            audit_file=audit_file,
        )


def read_settings(path: Path | None, over: Mapping[str, Any], *, max_tokens: int | None = None) -> Settings:
    """The settings of a file, or the defaults, with those that `over` has. Raises ConfigError."""
    plain = read_tables(path) if path else {}
    plain |= {name: value for name, value in over.items() if value is not None}
    fixed = plain.get("fixed", {})
    if max_tokens is not None and isinstance(fixed, dict):
        plain["fixed"] = {**fixed, "max_tokens": max_tokens}
    try:
        return msgspec.convert(plain, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path or 'the options'}: {error}", hint=_hint(str(error))) from error


def _hint(said: str) -> str:
    return f"known keys: {', '.join(Settings.__struct_fields__)}" if "unknown field" in said else ""
