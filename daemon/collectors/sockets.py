"""TCP connections by state, remote address and listening port, from `/proc/net/tcp` and `tcp6`, bounded.

Worth its cost only when there is something to see: the kernel walks its whole hash table for each reading.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

# include/net/tcp_states.h
_STATES = {
    b"01": "ESTABLISHED",
    b"02": "SYN_SENT",
    b"03": "SYN_RECV",
    b"04": "FIN_WAIT1",
    b"05": "FIN_WAIT2",
    b"06": "TIME_WAIT",
    b"07": "CLOSE",
    b"08": "CLOSE_WAIT",
    b"09": "LAST_ACK",
    b"0A": "LISTEN",
    b"0B": "CLOSING",
    b"0C": "SYN_RECV",
}
_PORT = re.compile(rb"[0-9A-F]{4}")
_MAX_BYTES = 4 << 20  # about 27,000 connections of 150 bytes a line
_MAX_PEERS = 10000
_TOP = 10


def parse_address(text: bytes) -> str:
    """An address of `/proc/net/tcp{,6}`: 32-bit words in the host's byte order; a mapped one as IPv4."""
    if len(text) not in (8, 32):
        return ""
    try:
        words = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return ""
    # the text shows each word as a number, so its bytes come out reversed on little-endian hosts
    order = -1 if sys.byteorder == "little" else 1
    raw = b"".join(words[i : i + 4][::order] for i in range(0, len(words), 4))
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw)
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


class Connections:
    """Counts of connections; feed it whole lines."""

    def __init__(self, address: Callable[[str], str] = str) -> None:
        self._address = address
        self._states: Counter[bytes] = Counter()
        self._peers: Counter[bytes] = Counter()
        self._ports: Counter[bytes] = Counter()
        self.unread = 0

    def add(self, lines: list[bytes]) -> None:
        """Count these lines; the header and malformed ones are passed over."""
        for line in lines:
            fields = line.split(None, 4)
            if len(fields) < 5 or fields[3] not in _STATES:
                continue
            state = fields[3]
            self._states[state] += 1
            if state == b"0A":
                continue
            peer = fields[2].partition(b":")[0]
            if peer in self._peers or len(self._peers) < _MAX_PEERS:
                self._peers[peer] += 1
            self._ports[fields[1].rpartition(b":")[2]] += 1

    def counts(self) -> dict[str, float]:
        """`socket{tcp/STATE}`, and the largest of `peer{ADDRESS}` and `port{tcp/LOCAL}`."""
        counts: dict[str, float] = {}
        for state, number in self._states.items():
            name = f"socket{{tcp/{_STATES[state]}}}"
            counts[name] = counts.get(name, 0) + number
        for raw, number in self._peers.most_common(_TOP):
            address = parse_address(raw)
            if address and number > 1:
                counts[f"peer{{{self._address(address)}}}"] = number
        for raw, number in self._ports.most_common(_TOP // 2):
            if number > 1 and _PORT.fullmatch(raw):
                counts[f"port{{tcp/{int(raw, 16)}}}"] = number
        if self.unread:
            counts["unscanned_sockets"] = self.unread
        return counts


def scan(proc: Path, connections: Connections) -> Iterator[None]:
    """Count all connections, giving way after every chunk; stops at a bound and says what stayed unread."""
    for name in ("net/tcp", "net/tcp6"):
        try:
            descriptor = os.open(proc / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # a kernel without this protocol; sockstat still counts
        try:
            total, rest = 0, b""
            while data := os.read(descriptor, 65536):
                total += len(data)
                *lines, rest = (rest + data).split(b"\n")
                connections.add(lines)
                if total >= _MAX_BYTES:
                    connections.unread = 1
                    break
                yield
            connections.add([rest])
        finally:
            os.close(descriptor)
