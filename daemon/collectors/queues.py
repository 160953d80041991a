"""What the queues before the interfaces drop (tc(8)), from rtnetlink; reads, decides nothing.

An interface's own counters know nothing of it: a packet that its queue refuses was never given to it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.kernel_files import Note, printable, read_number, reason_of, subdirectories
from daemon.collectors.netlink import DONE, ERROR, attributes, messages, request

# include/uapi/linux/rtnetlink.h, gen_stats.h
_ROUTE = 0
_NEWQDISC, _GETQDISC = 36, 38
_STATS2, _BASIC, _QUEUE = 7, 1, 3
_ROOT = 0xFFFFFFFF  # the others hang below it, and it counts theirs
_QDISC = struct.Struct("=BxxxiIII")
_PACKETS = struct.Struct("=QI")
_DROPS = struct.Struct("=III")
_RECEIVE_BYTES = 65536
_TIMEOUT_S = 0.5  # the kernel answers at once
_EVERY_S = 2.0
_REPEAT_S = 30.0
_WRAP = 1 << 32


class Queue(NamedTuple):
    """The counters of an interface's root queue; they wrap at 32 bits."""

    link: int  # the interface's index
    sent: int
    dropped: int


def parse_queue(data: bytes) -> Queue | None:
    """A root queue of RTM_NEWQDISC, or None for any other one."""
    if len(data) < _QDISC.size:
        return None
    _, index, _, parent, _ = _QDISC.unpack_from(data)
    if parent != _ROOT:
        return None
    sent = dropped = None
    for attribute, payload in attributes(data[_QDISC.size :]):
        if attribute != _STATS2:
            continue
        for inner, counters in attributes(payload):
            if inner == _BASIC and len(counters) >= _PACKETS.size:
                sent = _PACKETS.unpack_from(counters)[1]
            elif inner == _QUEUE and len(counters) >= _DROPS.size:
                dropped = _DROPS.unpack_from(counters)[2]
    return None if sent is None or dropped is None else Queue(index, sent, dropped)


class QueueReader:
    """Gives `link.queue_drops` (1/s) and `link.queue_loss` (share) of each interface whose queue drops."""

    def __init__(self, sys: Path) -> None:
        self._links = sys / "class/net"
        self._socket: socket.socket | None = None
        self._names: dict[int, str] = {}
        self._last: dict[int, Queue] = {}
        self._dropped: dict[int, float] = {}  # when each queue dropped last
        self._mono = 0.0
        self._sequence = 0

    def open(self) -> list[Note]:
        """Get a socket; a sandbox without rtnetlink has none."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE)
            self._socket.settimeout(_TIMEOUT_S)
        except OSError as error:
            self.close()
            return [Note("link.queue", "absent", reason_of(error))]
        return []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add what was dropped since the last reading, every other second."""
        elapsed = mono - self._mono
        if self._socket is None or elapsed < _EVERY_S - 0.5:
            return
        before, self._last = self._last, {one.link: one for one in self._ask(self._socket)}
        self._mono = mono
        for index, now in self._last.items():
            if index in before:
                self._tell(before[index], now, mono, elapsed, values)

    def _tell(self, before: Queue, now: Queue, mono: float, elapsed: float, values: dict[str, float]) -> None:
        """A queue that never drops is not told of; one that did also says that it stopped."""
        sent, dropped = ((a - b) % _WRAP for a, b in zip(now[1:], before[1:], strict=True))
        if max(dropped, sent) >= _WRAP // 2:  # another queue, which counts anew
            return
        if dropped:
            self._dropped[now.link] = mono
        if mono - self._dropped.get(now.link, -_REPEAT_S) >= _REPEAT_S:
            return
        name = self._name(now.link)
        if name:
            values[f"link.queue_drops{{{name}}}"] = dropped / elapsed
            values[f"link.queue_loss{{{name}}}"] = dropped / max(1, dropped + sent)

    def _ask(self, sock: socket.socket) -> Iterator[Queue]:
        self._sequence += 1
        sock.send(request(_GETQDISC, self._sequence, _QDISC.pack(0, 0, 0, 0, 0)))
        while True:
            for kind, sequence, payload in messages(sock.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue  # of an answer that came too late
                if kind in (DONE, ERROR):
                    return
                queue = parse_queue(payload) if kind == _NEWQDISC else None
                if queue:
                    yield queue

    def _name(self, index: int) -> str:
        """Asked of sysfs: if_indextoname(3) needs a socket that the sandbox does not have."""
        if index not in self._names:
            folders = [self._links / name for name in subdirectories(self._links)]
            found = {read_number(folder / "ifindex"): folder.name for folder in folders}
            self._names = {number: printable(name) for number, name in found.items() if number is not None}
        return self._names.get(index, "")

    def notes(self) -> list[Note]:
        """Nothing comes up later."""
        return []

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
