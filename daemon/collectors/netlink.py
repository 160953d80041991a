"""Netlink's framing (netlink(7)): the messages of a datagram, the attributes of a message."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
REQUEST, DUMP = 0x01, 0x300
ERROR, DONE = 2, 3
_ATTRIBUTE = struct.Struct("=HH")


def request(kind: int, sequence: int, body: bytes) -> bytes:
    """A message that asks for everything there is."""
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | DUMP, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and payload of each message; a malformed one ends it."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each attribute; stops at the first one whose length is a lie."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
