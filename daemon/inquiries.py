"""What the top stage has a served model asked, and the frames between it and the process that asks.

Knows neither incidents nor http: `daemon.served` is the stage's side, `daemon.stages.explainer` the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from daemon.errors import ConfigError
from daemon.settings import Served
from models.chat import read_key

CREDENTIAL = "hauswart.served"  # as the unit's drop-in loads it
MAX_FRAME_BYTES = 128 << 10  # as between a stage and its scorer: one frame fits the kernel's buffer
MAX_ANSWER = 16384
# What the question itself decides, and who asks.
RESERVED = ("messages", "model", "stream", "response_format", "max_tokens", "n", "tools", "tool_choice")

Short = Annotated[str, Meta(max_length=1024)]


class Connect(Struct, frozen=True, tag="connect"):
    """The first frame: the settings."""

    settings: Served


class Ask(Struct, frozen=True, tag="ask"):
    """A question, and how long its answer is waited for."""

    id: int
    messages: list[dict[str, str]]
    response_format: dict[str, Any]
    timeout_s: float


class Told(Struct, frozen=True):
    """One request as the audit has it (`models.chat.Request`)."""

    host: Short
    what: Short
    model: Short
    sent_bytes: int
    sha256: Short
    outcome: Short
    seconds: float


class Said(Struct, frozen=True, tag="said"):
    """The answer, the model that gave it, and the requests that it took."""

    id: int
    text: Annotated[str, Meta(max_length=MAX_ANSWER)]
    model: Short
    requests: Annotated[list[Told], Meta(max_length=4)]


class Unsaid(Struct, frozen=True, tag="unsaid"):
    """There is no answer; `kind` is that of ChatError, or `config`."""

    id: int
    kind: Short
    reason: Short
    requests: Annotated[list[Told], Meta(max_length=4)] = []
    retry_after_s: float | None = None


_encoder = msgspec.msgpack.Encoder()
_to_child: msgspec.msgpack.Decoder[Connect | Ask] = msgspec.msgpack.Decoder(Connect | Ask)
_from_child: msgspec.msgpack.Decoder[Said | Unsaid] = msgspec.msgpack.Decoder(Said | Unsaid)


def encode(frame: Connect | Ask | Said | Unsaid) -> bytes:
    """One frame."""
    return _encoder.encode(frame)


def decode_request(data: bytes) -> Connect | Ask:
    """What the stage sent; raises msgspec.MsgspecError."""
    return _to_child.decode(data)


def decode_answer(data: bytes) -> Said | Unsaid:
    """What the process said; raises msgspec.MsgspecError."""
    return _from_child.decode(data)


def schema_of(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an answer with exactly these, in the subset that servers turn into a grammar."""
    whole = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": whole}}


def check_served(settings: Served) -> None:
    """Raises ConfigError where nothing could be asked with these settings, or nothing may."""
    from models.chat import check_consent, parse  # noqa: PLC0415  # http and ssl, only where it is on

    try:
        check_consent(parse(settings.url), "evidence", settings.consent)
    except ConfigError as error:
        raise ConfigError(f"setting 'top.served': {error}", hint=error.hint) from error
    if wrong := sorted(set(settings.parameters).intersection(RESERVED)):
        raise ConfigError(
            f"setting 'top.served.parameters': {wrong[0]} is not for sampling",
            hint="like temperature, top_p, top_k, seed",
        )
    if settings.key_file and not os.path.isabs(settings.key_file):  # noqa: PTH117  # pathlib is not loaded for it
        raise ConfigError(
            f"setting 'top.served.key_file': {settings.key_file!r} is no absolute path", hint="/etc/..."
        )


def key_of(settings: Served) -> str:
    """The key in the file or the unit's credential, "" where there is neither. Raises ConfigError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(settings.key_file) if settings.key_file else Path(folder, CREDENTIAL)
    if not settings.key_file and not (folder and path.exists()):
        return ""
    return read_key(path)
