"""Bytes to typed messages and back: the one decoder, with its limits (PROTOCOL.md, "Limits")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from daemon.errors import FrameError
from daemon.messages import Observation, Upward

T = TypeVar("T")

MAX_BATCH_BYTES = 4 << 20  # 1,000 lines of the longest text that a Line may carry
MAX_BATCH = 4096

_encoder = msgspec.msgpack.Encoder()


class BatchDecoder(Generic[T]):
    """Decodes a MessagePack array of tagged messages; raises FrameError on anything else."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[list[T]] = msgspec.msgpack.Decoder(list[kind])

    def decode(self, payload: bytes | memoryview) -> list[T]:
        """The messages of one batch, all valid or none."""
        if len(payload) > MAX_BATCH_BYTES:
            raise FrameError(f"batch of {len(payload)} bytes exceeds {MAX_BATCH_BYTES}")
        try:
            batch = self._decoder.decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
            raise FrameError(f"malformed batch: {error}") from error
        if len(batch) > MAX_BATCH:
            raise FrameError(f"batch of {len(batch)} messages exceeds {MAX_BATCH}")
        return batch


def encode(messages: Sequence[msgspec.Struct]) -> bytes:
    """A MessagePack array of tagged messages."""
    return _encoder.encode(messages)


def observation_decoder() -> BatchDecoder[Observation]:
    """Decoder of the edge from the collector to the low tier, and of telemetry segments."""
    return BatchDecoder[Observation](Observation)


def upward_decoder() -> BatchDecoder[Upward]:
    """Decoder of the edge from the low tier to the middle tier."""
    return BatchDecoder[Upward](Upward)
