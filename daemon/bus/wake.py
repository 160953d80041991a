"""The wake edge: a hint that something new is in the store.

It may be lost, so readers also look by themselves.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import zmq

from daemon.bus.endpoint import Wire, receive_parts
from daemon.bus.frames import PROTOCOL_VERSION, Drop, Hint, decode_header, encode_header
from daemon.messages import Wake

EDGE = "wake"
MAX_WAKE_BYTES = 4096
LOOK_EVERY_S = 30.0  # how often a reader looks without having been woken
RECEIVE_LIMIT = 256
RECEIVE_AT_ONCE = 256

_header = encode_header(Hint(PROTOCOL_VERSION, EDGE))
_decoder = msgspec.msgpack.Decoder(Wake)


class WakePublisher:
    """The middle tier's end."""

    def __init__(self, wire: Wire) -> None:
        self.socket = wire.serve(zmq.PUB, EDGE, receive_limit=RECEIVE_LIMIT)

    def publish(self, wake: Wake) -> None:
        """Tell whoever listens; never blocks."""
        self.socket.send_multipart((_header, msgspec.msgpack.encode(wake)), zmq.NOBLOCK)


class WakeListener:
    """A reader's end; poll `socket` for reading, then `drain`."""

    def __init__(self, wire: Wire) -> None:
        self.socket = wire.reach(zmq.SUB, EDGE, receive_limit=RECEIVE_LIMIT)
        self.drops: Counter[str] = Counter()

    def drain(self) -> list[Wake]:
        """The hints that arrived; malformed ones are dropped and counted."""
        hints: list[Wake] = []
        for _ in range(RECEIVE_AT_ONCE):
            parts = receive_parts(self.socket)
            if parts is None:
                break
            found = _open(parts)
            if isinstance(found, Drop):
                self.drops[found.value] += 1
            else:
                hints.append(found)
        return hints


def _open(parts: list[bytes]) -> Wake | Drop:
    header = decode_header(parts[0], EDGE) if len(parts) == 2 else Drop.MALFORMED
    if not isinstance(header, Hint):
        return header if isinstance(header, Drop) else Drop.MALFORMED
    if len(parts[1]) > MAX_WAKE_BYTES:
        return Drop.OVERSIZED
    try:
        wake: Wake = _decoder.decode(parts[1])
    except (msgspec.MsgspecError, ValueError):
        return Drop.PAYLOAD
    return wake
