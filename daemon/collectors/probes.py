"""Opt-in probes: does the resolver answer for a name, does the default gateway answer at all.

Everything is non-blocking: a probe is begun, and later calls see to its answer, its retry and its time-out.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Protocol

from daemon.collectors.kernel_files import Note, event_of, read_bytes
from daemon.errors import ConfigError
from daemon.messages import Event, Observation, Sample, Stamp

_TRIES = 3
CONFIRMED = 2  # failures in a row are told; the second one is looked for sooner than after a whole interval,
CONFIRM_S = 2.0  # but not so soon that a name server's restart looks like an outage
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_TCP_PORT = 9  # discard: closed nearly everywhere, and a refusal is a sign of life
_GATEWAY_FLAGS = 0x3  # RTF_UP | RTF_GATEWAY, include/uapi/linux/route.h


class Attempt(Protocol):
    """One try of a probe, already sent."""

    def fileno(self) -> int:
        """The socket that becomes ready."""
        ...

    def finish(self) -> bool | None:
        """True or False when it is decided, None while nothing valid has come."""
        ...

    def close(self) -> None:
        """Give the socket back."""
        ...


def encode_query(name: str, number: int) -> bytes:
    """A DNS query for the addresses of `name` (RFC 1035, 4.1); raises ConfigError for an impossible name."""
    try:
        labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
    except UnicodeError as error:
        raise ConfigError(f"dns_probe: {name!r} is no host name: {error}") from error
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ConfigError(f"dns_probe: {name!r} is no host name", hint="give a name such as example.org")
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack(">HH", 1, 1)
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question


def parse_answer(data: bytes, query: bytes) -> bool | None:
    """Whether the answer to this query resolves the name; None if it is no answer to it."""
    if len(data) < 12 or data[:2] != query[:2] or not data[2] & 0x80:
        return None
    if data[12 : len(query)].lower() != query[12:].lower():
        return None
    return data[3] & 0x0F == 0  # RCODE NOERROR


def parse_servers(data: bytes) -> list[str]:
    """The first three name servers of resolv.conf(5), else the one on this host."""
    servers = [
        fields[1].decode("ascii", "replace")
        for line in data.splitlines()
        if len(fields := line.split()) > 1 and fields[0] == b"nameserver"
    ]
    return servers[:3] or ["127.0.0.1"]


def parse_gateway(data: bytes) -> str:
    """The default gateway of the lowest metric in `/proc/net/route`, "" if there is none."""
    best: tuple[int, str] | None = None
    for line in data.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != b"00000000":
            continue
        try:
            flags, metric, address = int(fields[3], 16), int(fields[6]), int(fields[2], 16)
        except ValueError:
            continue
        if (
            flags & _GATEWAY_FLAGS == _GATEWAY_FLAGS
            and address < 1 << 32
            and (best is None or metric < best[0])
        ):
            best = metric, socket.inet_ntoa(struct.pack("=I", address))
    return best[1] if best else ""


class _Query:
    """One DNS query to one server; a connected socket takes answers from that server alone."""

    def __init__(self, name: str, server: str, port: int = 53) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self._query = encode_query(name, int.from_bytes(os.urandom(2), "big"))
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect((server, port))
            self._socket.send(self._query)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def finish(self) -> bool | None:
        try:
            return parse_answer(self._socket.recv(4096), self._query)
        except BlockingIOError:
            return None
        except OSError:  # nobody listens there (ICMP port unreachable)
            return False

    def close(self) -> None:
        self._socket.close()


class _Echo:
    """One ICMP echo over an unprivileged ping socket (icmp(7), ping_group_range); raises PermissionError."""

    def __init__(self, address: str, sequence: int) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._sequence = sequence & 0xFFFF
        self._socket = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        try:
            self._socket.connect((address, 0))
            # the kernel fills in identifier and checksum
            self._socket.send(struct.pack(">BBHHH", _ECHO_REQUEST, 0, 0, 0, self._sequence))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def finish(self) -> bool | None:
        try:
            data = self._socket.recv(256)
        except BlockingIOError:
            return None
        except OSError:  # unreachable
            return False
        ours = (
            len(data) >= 8
            and data[0] == _ECHO_REPLY
            and struct.unpack_from(">H", data, 6)[0] == self._sequence
        )
        return True if ours else None

    def close(self) -> None:
        self._socket.close()


class _Knock:
    """One TCP connection attempt, for hosts without ping sockets: a refusal is a sign of life too."""

    def __init__(self, address: str, port: int = _TCP_PORT) -> None:
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        code = self._socket.connect_ex((address, port))
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            self._socket.close()
            raise OSError(code, os.strerror(code))
        self._refused = code == errno.ECONNREFUSED

    def fileno(self) -> int:
        return self._socket.fileno()

    def finish(self) -> bool | None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if not self._refused and not poll.poll(0):
            return None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._refused or code in (0, errno.ECONNREFUSED)

    def close(self) -> None:
        self._socket.close()


class Probe:
    """One kind of question, asked again every interval; subclasses say how one try is sent."""

    metric = ""
    try_s = 1.0  # an answer within a second, else the next try

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.begun = 0.0
        self._sent = 0.0
        self._tries = 0
        self.busy = False  # whether a verdict is still awaited
        self.due = 0.0  # when to ask next
        self.failures = 0  # in a row
        self.refusal = ""

    def send(self, number: int) -> Attempt | None:
        """Send try `number`; None if there is nobody to ask. Raises OSError."""
        raise NotImplementedError

    def begin(self, mono: float) -> None:
        """Start asking."""
        self.begun, self._tries, self.busy = mono, 0, True
        self._try(mono)

    def _try(self, mono: float) -> None:
        self.close()
        self._sent = mono
        self._tries += 1
        try:
            self.attempt = self.send(self._tries)
        except OSError as error:
            self.refusal = error.strerror or str(error)

    def step(self, mono: float) -> bool | None:
        """The verdict once there is one; None before."""
        answer = self.attempt.finish() if self.attempt else None
        if answer:
            self.close()
            self.busy = False
            return True
        if answer is None and mono - self._sent < self.try_s:
            return None
        if self._tries < _TRIES:
            self._try(mono)
            return None
        self.close()
        self.busy = False
        return False

    def close(self) -> None:
        """Stop waiting."""
        if self.attempt:
            self.attempt.close()
            self.attempt = None


class DnsProbe(Probe):
    """Does any configured name server resolve the name, as the resolver library would ask them in turn."""

    metric = "probe.dns"

    def __init__(self, name: str, resolv: Path, port: int = 53) -> None:
        super().__init__()
        encode_query(name, 0)
        self._name, self._resolv, self._port = name, resolv, port

    def send(self, number: int) -> Attempt | None:
        """Ask the next server."""
        servers = parse_servers(read_bytes(self._resolv, 65536) or b"")
        return _Query(self._name, servers[(number - 1) % len(servers)], self._port)


class GatewayProbe(Probe):
    """Does the default gateway answer an echo, or a connection attempt where echoes are not allowed."""

    metric = "probe.gateway"

    def __init__(self, proc: Path) -> None:
        super().__init__()
        self._proc = proc
        self._sequence = 0
        self.method = "icmp"

    def send(self, number: int) -> Attempt | None:  # noqa: ARG002 - there is one gateway to ask
        """Ask the gateway of this moment."""
        gateway = parse_gateway(read_bytes(self._proc / "net/route", 1 << 16) or b"")
        if not gateway:
            self.refusal = "no default route"
            return None
        self._sequence += 1
        if self.method == "icmp":
            try:
                return _Echo(gateway, self._sequence)
            except PermissionError:
                self.method = "tcp"
        return _Knock(gateway)


class ProbeCollector:
    """Gives a Sample with `probe.*_ok` and, for an answer, `probe.*_s`, for each probe that ended."""

    name = "probes"

    def __init__(self, probes: list[Probe], interval_s: float = 30.0) -> None:
        self.interval_s: float | None = 0.5
        self._probes = probes
        self._every_s = interval_s
        self._answered: set[str] = set()
        self._told: set[str] = set()
        self._epoll: select.epoll | None = None

    def open(self) -> list[Event]:
        """Nothing can be said before the first answer."""
        self._epoll = select.epoll()
        return []

    def fileno(self) -> int | None:
        """Readable when an answer came."""
        return self._epoll.fileno() if self._epoll else None

    def read(self, now: Stamp) -> list[Observation]:
        """Begin what is due, look after what is under way."""
        for probe in self._probes:
            if not probe.busy and now.mono >= probe.due:
                probe.due = now.mono + self._every_s
                probe.begin(now.mono)
        values: dict[str, float] = {}
        events: list[Observation] = []
        for probe in self._probes:
            if probe.busy:
                self._step(probe, now, values, events)
        self._watch()
        waits = [0.5 if probe.busy else probe.due - now.mono for probe in self._probes]
        self.interval_s = max(0.5, min(waits, default=self._every_s))
        return [*events, *([Sample(now, self.name, values)] if values else [])]

    def _step(self, probe: Probe, now: Stamp, values: dict[str, float], events: list[Observation]) -> None:
        mono = time.monotonic() if abs(time.monotonic() - now.mono) < 1.0 else now.mono
        answer = probe.step(mono)
        if answer is None:
            return
        probe.failures = 0 if answer else probe.failures + 1
        if 0 < probe.failures < CONFIRMED:
            probe.due = min(probe.due, mono + CONFIRM_S)
        if answer:
            self._answered.add(probe.metric)
            values[f"{probe.metric}_s"] = max(0.0, mono - probe.begun)
        elif probe.metric not in self._answered:
            # a gateway that drops what we send cannot be told from a dead one before it has ever answered
            if probe.metric not in self._told and isinstance(probe, GatewayProbe):
                self._told.add(probe.metric)
                reason = probe.refusal or f"the gateway never answered ({probe.method})"
                events.append(event_of(Note(probe.metric, "absent", reason), self.name, now))
            if isinstance(probe, GatewayProbe):
                return
        values[f"{probe.metric}_ok"] = float(answer)

    def _watch(self) -> None:
        """Let the answers of all open tries make this collector readable."""
        assert self._epoll
        for probe in self._probes:
            if probe.attempt:
                event = select.EPOLLOUT if isinstance(probe.attempt, _Knock) else select.EPOLLIN
                try:
                    self._epoll.register(probe.attempt.fileno(), event | select.EPOLLERR)
                except FileExistsError:
                    continue  # closed sockets leave by themselves; this one is still open

    def pending(self) -> bool:
        """Never: answers make `fileno` readable."""
        return False

    def position(self) -> str:
        """Nothing to go on from."""
        return ""

    def close(self) -> None:
        """Stop asking."""
        for probe in self._probes:
            probe.close()
        if self._epoll:
            self._epoll.close()
            self._epoll = None
