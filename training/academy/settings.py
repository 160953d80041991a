"""The academy's configuration file: TOML, each key with its default; `academy show --config` prints it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import tomlkit

from daemon.errors import ConfigError
from training.endpoint import Endpoint

OPENROUTER = "https://openrouter.ai/api/v1/chat/completions"
FREE_MODEL = "meta-llama/llama-3.3-70b-instruct:free"
JUDGE = "intfloat/multilingual-e5-small"
BASE = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
FREE_PER_MINUTE = 16.0  # OpenRouter grants its free models 20 requests a minute; retries need some of them

Count = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Money = Annotated[float, msgspec.Meta(ge=0.0)]


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How documents are read."""

    engine: str = "auto"  # for PDF: auto, pdfium, pypdf
    ocr: bool = True  # scanned pages by tesseract, where it is installed
    timeout_s: Positive = 600.0  # for one document


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A served model; nothing is asked unless `enabled`, and nothing leaves the host without `consent`."""

    enabled: bool = False
    url: str = OPENROUTER
    model: str = FREE_MODEL
    key_file: str = ""  # else the variable HAUSWART_CHAT_KEY
    consent: list[str] = []  # ["documents"]: redacted passages may leave this host
    headers: dict[str, str] = {}
    per_minute: Money = FREE_PER_MINUTE
    timeout_s: Positive = 120.0
    audit_file: str = ""
    source_tokens: Count = 1_000_000  # of the documents that it reads; what is trained on is bounded apart
    pairs: Count = 24  # questions, each with its answer, for a hundred words of a section at most
    statements: Count = 4  # simple sentences asked for a section
    unanswered: Count = 3  # questions near a section that it does not answer
    price_in: Money = 0.0  # a million tokens
    price_out: Money = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """Where to ask."""
        key, audit = (Path(one).expanduser() if one else None for one in (self.key_file, self.audit_file))
        return Endpoint(self.url, self.model, key, self.headers, tuple(self.consent), self.timeout_s, audit)


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taught and how."""

    base: str = BASE  # any causal model by name or folder; smollm2 is the small one that a package brings
    judge: str = JUDGE  # an encoder by name or folder; e5: this one by a package; "": the base judges
    source_tokens: Count = 40_000  # of the documents, taken evenly; retrieval has all of them
    rows: Count = 2_000  # conversations trained on
    judging: Share = 0.6  # of them: whether a passage answers a question
    answering: Share = 0.15  # an answer from several passages, or that there is none
    closed_book: Share = 0.15  # without passages; the rest is general replay
    groups: Natural = (
        2_400  # a teacher's questions, each with what answers, that the judge's reader learns from
    )
    epochs: Positive = 1.0
    learning_rate: Positive = 2e-4
    rank: Count = 8
    alpha: Count = 16
    max_seq_length: Count = 384
    batch_size: Count = 4
    accumulation: Count = 2
    calibration: Count = 140  # lessons kept from training by which it is decided when to answer
    seed: int = 0


class Querying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How questions are answered."""

    passages: Count = 12  # that are judged
    words: Count = 90  # of an answer; about a paragraph
    sure: Share = 0.5  # answered from here on; less: more answers, also to what the documents do not say
    read: bool = False  # let the general model say which of the paragraphs that were found answers, or none
    phrase: bool = False  # let the general model put the answer into words, if it adds no fact


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    home: str = ""  # where specialists lie; default $XDG_DATA_HOME/hauswart/academy
    specialist: str = "documents"  # the one that is meant where none is named
    read: Reading = Reading()
    teacher: Model = Model()
    general: Model = Model(url="http://localhost:11434/v1/chat/completions", model="", per_minute=0.0)
    train: Training = Training()
    query: Querying = Querying()

    @property
    def folder(self) -> Path:
        """Where specialists lie."""
        if self.home:
            return Path(self.home).expanduser()
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(data).expanduser() / "hauswart" / "academy"


def load(path: Path | None) -> Settings:
    """The file's settings, defaults where there is none. Raises ConfigError with file, key and value."""
    if path is None:
        return Settings()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(found, Settings)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", hint="hauswart academy show --config lists all keys") from error


def to_toml(settings: Settings) -> str:
    """The settings as a file that `load` reads."""
    return tomlkit.dumps(msgspec.to_builtins(settings))
