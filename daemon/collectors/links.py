"""Link state of the network interfaces from rtnetlink (rtnetlink(7)): an event for each change.

What was down when we began is known and no event. A lost message (ENOBUFS) is told as a gap, then everything
is asked anew and the differences come out as events.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from daemon.collectors.kernel_files import Note, event_of, printable
from daemon.collectors.netlink import DONE, ERROR, attributes, messages, request
from daemon.errors import SourceError
from daemon.messages import Event, Observation, Stamp

# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if.h
_ROUTE, _GROUP_LINK = 0, 1
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NAME, _MASTER, _INFO = 3, 10, 18
_INFO_KIND = 1
_UP, _LOWER_UP = 0x1, 0x10000
_LINK = struct.Struct("=BxHiII")
_RECEIVE_BYTES = 65536
_BUFFER_BYTES = 1 << 20  # unused buffer costs nothing; a burst of container links fits
_MAX_LINKS = 4096
_MAX_EVENTS = 1000
_DUMP_TIMEOUT_S = 2.0


class Link(NamedTuple):
    """One interface: its name, `up|down|admin-down`, its driver's kind ("" for hardware) and bridge."""

    number: int  # the interface index
    name: str
    state: str
    kind: str = ""
    master: int = 0


class LinkMessage(NamedTuple):
    """One netlink message: a link that is new or changed, one that is gone, or the end of a dump."""

    type: int
    sequence: int
    link: Link | None


def _parse_link(data: bytes) -> Link | None:
    if len(data) < _LINK.size:
        return None
    family, _, index, flags, _ = _LINK.unpack_from(data)
    if family != socket.AF_UNSPEC:  # AF_BRIDGE tells of bridge ports, not of links
        return None
    name, kind, master = "", "", 0
    for attribute, payload in attributes(data[_LINK.size :]):
        if attribute == _NAME:
            name = printable(payload.rstrip(b"\0"), 64)
        elif attribute == _MASTER and len(payload) == 4:
            master = int.from_bytes(payload, "little" if struct.pack("=H", 1)[0] else "big")
        elif attribute == _INFO:
            for inner, text in attributes(payload):
                if inner == _INFO_KIND:
                    kind = printable(text.rstrip(b"\0"), 32)
    state = "admin-down" if not flags & _UP else "up" if flags & _LOWER_UP else "down"
    return Link(index, name, state, kind, master) if name else None


def parse(data: bytes) -> Iterator[LinkMessage]:
    """The link messages of one datagram; a malformed one ends it, one of another kind is skipped."""
    for kind, sequence, payload in messages(data):
        if kind in (_NEWLINK, _DELLINK):
            link = _parse_link(payload)
            if link:
                yield LinkMessage(kind, sequence, link)
        elif kind in (DONE, ERROR):
            yield LinkMessage(kind, sequence, None)


class LinkCollector:
    """Gives a link event for each change of state, name or existence of an interface."""

    name = "links"

    def __init__(self) -> None:
        self.interval_s: float | None = None
        self._socket: socket.socket | None = None
        self._links: dict[int, Link] = {}
        self._sequence = 0
        self._dumped: set[int] | None = None  # indexes seen in the running dump
        self._more = False

    def open(self) -> list[Event]:
        """Subscribe, then learn the present state silently; raises SourceError."""
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            sock.bind((0, _GROUP_LINK))
            self._socket = sock
            self._ask()
            sock.settimeout(_DUMP_TIMEOUT_S)
            while self._dumped is not None:
                self._take(sock.recv(_RECEIVE_BYTES), [])
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        except OSError as error:
            self.close()
            raise SourceError(f"link state: netlink: {error.strerror or error}") from error
        return []

    def _ask(self) -> None:
        """Ask for all links; the answer's sequence number tells it from later messages."""
        assert self._socket
        self._sequence += 1
        self._dumped = set()
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        self._socket.send(request(_GETLINK, self._sequence, body))

    def fileno(self) -> int | None:
        """Readable when a link changed."""
        return self._socket.fileno() if self._socket else None

    def read(self, now: Stamp) -> list[Observation]:
        """Events of the changes since the last call."""
        events: list[Observation] = []
        changes: list[tuple[Link, str, str]] = []
        self._more = False
        while self._socket:
            if len(changes) >= _MAX_EVENTS:
                self._more = True
                break
            try:
                data, (sender, _) = self._socket.recvfrom(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise SourceError(f"link state: netlink: {error.strerror}") from error
                events.append(
                    event_of(Note(self.name, "gap", "the kernel dropped link messages"), self.name, now)
                )
                self._ask()
                continue
            if sender == 0:  # only the kernel speaks of links; any process may send us a datagram
                self._take(data, changes)
        return events + [_event(link, action, was, now) for link, action, was in changes]

    def _take(self, data: bytes, changes: list[tuple[Link, str, str]]) -> None:
        for message in parse(data):
            in_dump = self._dumped is not None and message.sequence == self._sequence
            if message.link is None:
                if in_dump:
                    self._end_dump(changes)
            elif message.type == _DELLINK:
                gone = self._links.pop(message.link.number, None)
                if gone:
                    changes.append((gone, "removed", gone.state))
            else:
                if in_dump and self._dumped is not None:
                    self._dumped.add(message.link.number)
                self._learn(message.link, changes)

    def _learn(self, link: Link, changes: list[tuple[Link, str, str]]) -> None:
        known = self._links.get(link.number)
        if known is None and len(self._links) >= _MAX_LINKS:
            return
        self._links[link.number] = link
        if known is None:
            changes.append((link, "added", ""))
        elif known.name != link.name:
            changes.extend([(known, "removed", known.state), (link, "added", known.name)])
        elif known.state != link.state:
            changes.append((link, link.state, known.state))

    def _end_dump(self, changes: list[tuple[Link, str, str]]) -> None:
        for index in self._links.keys() - (self._dumped or set()):
            gone = self._links.pop(index)
            changes.append((gone, "removed", gone.state))
        self._dumped = None

    def pending(self) -> bool:
        """Whether messages were left for the next call."""
        return self._more

    def position(self) -> str:
        """Nothing to go on from."""
        return ""

    def close(self) -> None:
        """Unsubscribe."""
        if self._socket:
            self._socket.close()
            self._socket = None


def _event(link: Link, action: str, was: str, now: Stamp) -> Event:
    attributes = {"index": str(link.number), "state": link.state}
    if was:
        attributes["was"] = was
    if link.kind:
        attributes["kind"] = link.kind
    if link.master:
        attributes["master"] = str(link.master)
    return Event(now, LinkCollector.name, "link", link.name, action, attributes)
