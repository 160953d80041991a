"""The dated list of models, services and accelerators that a plan compares; the user may edit a copy."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from daemon.errors import ConfigError

SHIPPED = Path(__file__).with_name("models.toml")
MILLION = 1e6
Positive = Annotated[float, Meta(gt=0.0)]
Amount = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=1)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Quantization(Struct, frozen=True, forbid_unknown_fields=True):
    """How many bits a weight takes."""

    name: Word
    bits: Positive
    source: Word


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that can be had: its shape, and how good it is said to be (MMLU in percent, 0: unknown)."""

    name: Word
    hub: Word
    parameters: Count
    layers: Count
    hidden: Count
    kv_heads: Count
    head_size: Count
    vocabulary: Count
    context: Count
    chat: bool
    licence: Word
    date: Day
    source: Word
    mmlu: Amount = 0.0
    languages: list[str] = []


class Api(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that is served for money per million tokens."""

    name: Word
    input: Amount
    output: Amount
    context: Count
    tokens_s: Positive
    date: Day
    source: Word
    mmlu: Amount = 0.0
    training: Amount | None = None
    tuned_input: Amount | None = None
    tuned_output: Amount | None = None

    @property
    def tunable(self) -> bool:
        """Whether it can be fine-tuned at a listed price."""
        return None not in {self.training, self.tuned_input, self.tuned_output}


class Gpu(Struct, frozen=True, forbid_unknown_fields=True):
    """An accelerator by a part of its name; memory in GiB as it is sold, bandwidth in GB/s."""

    name: Word
    memory: Positive
    bandwidth: Positive
    tflops: Positive
    watts: Positive
    price: Amount
    date: Day
    source: Word


class Assumptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What costs depend on beside models; each has an option."""

    electricity_per_kwh: Amount
    hourly_rate: Amount
    setup_hours_local: Amount
    setup_hours_api: Amount
    upkeep_hours_local: Amount
    upkeep_hours_api: Amount
    watts_processor: Positive
    training_tokens: Count
    epochs: Positive


class Catalogue(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it, with the day of its last change."""

    date: Day
    currency: Word
    assumptions: Assumptions
    quantization: Annotated[list[Quantization], Meta(min_length=1, max_length=50)]
    model: Annotated[list[Model], Meta(min_length=1, max_length=500)]
    api: Annotated[list[Api], Meta(min_length=1, max_length=500)]
    gpu: Annotated[list[Gpu], Meta(min_length=1, max_length=500)]

    def accelerator(self, name: str) -> Gpu:
        """The row for a card's name: the longest match, else the general one."""
        found = [one for one in self.gpu if one.name.lower() in name.lower()]
        general = next((one for one in self.gpu if one.name == "gpu"), self.gpu[0])
        return max(found, key=lambda one: len(one.name), default=general)


def load(path: Path | None = None) -> Catalogue:
    """The list in a file, or the one that ships. Raises ConfigError."""
    path = path or SHIPPED
    try:
        content = path.read_text(encoding="utf-8")
        found = msgspec.convert(tomllib.loads(content), Catalogue)
    except OSError as error:
        raise ConfigError(f"the list of models {path} cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"the list of models {path}: {error}", hint=f"the one that ships is {SHIPPED}"
        ) from error
    for rows in (found.model, found.api, found.gpu, found.quantization):
        names = [one.name for one in rows]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"the list of models {path}: {twice!r} is there twice")
    return found
