"""Headers of the bus: typed, and decoded with hard limits; PROTOCOL.md is the specification.

Knows nothing of sockets or of what a payload means.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any

import msgpack
import msgspec
from msgspec import Meta, Struct

PROTOCOL_VERSION = 1
MAX_HEADER_BYTES = 128 << 10  # MAX_SOURCES names of the longest size, and their counts
MAX_SOURCES = 128  # sources named in one frame; the rest share OTHER_SOURCES
MAX_SOURCE_CHARACTERS = 200  # a longer name is counted under OTHER_SOURCES
OTHER_SOURCES = "*"
MAX_NUMBER = (1 << 53) - 1  # what every MessagePack and JSON reader keeps exactly

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Edge = Annotated[str, Meta(max_length=32)]
Count = tuple[Number, Number]  # offered (dropped ones included), dropped
Counts = Annotated[
    dict[Annotated[str, Meta(max_length=MAX_SOURCE_CHARACTERS)], Count], Meta(max_length=MAX_SOURCES + 1)
]


class Drop(StrEnum):
    """Why a frame was not taken."""

    MALFORMED = (
        "malformed"  # wrong number of parts, no MessagePack map, unknown tag, field missing or out of range
    )
    OVERSIZED = "oversized"  # header or payload longer than allowed
    VERSION = "version"
    EDGE = "edge"  # meant for another edge
    FOREIGN = "foreign"  # from a peer that is not this edge's producer
    REPLAYED = "replayed"
    ORDER = "out-of-order"
    CREDIT = "over-credit"
    PAYLOAD = "payload"  # the header is right, the messages are not; counted as a gap


class Hello(Struct, frozen=True, tag="hello", tag_field="t"):
    """Producer: I am `epoch`, the oldest frame that I still hold (or will send next) is `first`."""

    v: int
    edge: Edge
    epoch: Number
    first: Number


class Batch(Struct, frozen=True, tag="batch", tag_field="t"):
    """Producer: frame `seq`, the payload follows; `counts` says what was offered since the frame before."""

    v: int
    edge: Edge
    epoch: Number
    seq: Number
    counts: Counts


class Announce(Struct, frozen=True, tag="announce", tag_field="t"):
    """Consumer: I am here; say hello."""

    v: int
    edge: Edge
    epoch: Number


class Grant(Struct, frozen=True, tag="grant", tag_field="t"):
    """Consumer to producer `to`: frames up to `done` are acknowledged, those up to `limit` may be sent.

    With `rewind` the producer goes on from frame `next`, whatever it sent before.
    """

    v: int
    edge: Edge
    epoch: Number
    to: Number
    done: Number
    next: Number
    limit: Number
    rewind: bool


class Request(Struct, frozen=True, tag="request", tag_field="t"):
    """Client: keep the record that follows; the same epoch and number is the same request."""

    v: int
    edge: Edge
    epoch: Number
    number: Number


class Response(Struct, frozen=True, tag="response", tag_field="t"):
    """Server: the reply to that request follows."""

    v: int
    edge: Edge
    epoch: Number
    number: Number


class Hint(Struct, frozen=True, tag="hint", tag_field="t"):
    """Server to all listeners: a Wake follows."""

    v: int
    edge: Edge


Header = Hello | Batch | Announce | Grant | Request | Response | Hint

_encoder = msgspec.msgpack.Encoder()


def new_epoch() -> int:
    """A number that no other start of any process has."""
    return int.from_bytes(os.urandom(8), "big") & MAX_NUMBER


def encode_header(header: Header) -> bytes:
    """One header as a MessagePack map."""
    return _encoder.encode(header)


def decode_header(data: bytes, edge: str) -> Header | Drop:
    """The header, or why it was refused; never raises on any bytes."""
    if len(data) > MAX_HEADER_BYTES:
        return Drop.OVERSIZED
    fields = _unpack(data)
    if not isinstance(fields, dict):
        return Drop.MALFORMED
    if fields.get("v") != PROTOCOL_VERSION:
        return Drop.VERSION if isinstance(fields.get("v"), int) else Drop.MALFORMED
    try:
        header: Header = msgspec.convert(fields, Header)
    except (msgspec.ValidationError, ValueError, RecursionError):
        return Drop.MALFORMED
    return header if header.edge == edge else Drop.EDGE


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=4 * MAX_SOURCE_CHARACTERS,  # bytes of UTF-8
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=2,
            max_map_len=MAX_SOURCES + 1,
        )
    except (ValueError, RecursionError, TypeError, msgpack.exceptions.UnpackException):
        return None
