"""Counters of sockets, TCP, UDP, connection tracking and interfaces, from procfs; reads, decides nothing.

Link changes as events come from `links`.
"""

from __future__ import annotations

import os
from pathlib import Path

from daemon.collectors.kernel_files import (
    REPEAT_S,
    KernelFile,
    Note,
    Parts,
    Rates,
    number_after,
    printable,
    read_number,
    reason_of,
)

MAX_INTERFACES = 64
_CARRIER_EVERY_S = 10.0  # changes come at once as link events

# metric -> counters of /proc/net/snmp and /proc/net/netstat whose sum it is (RFC 1213, net/ipv4/proc.c)
_SUMS: dict[str, tuple[str, ...]] = {
    "net.tcp_retransmits": ("Tcp.RetransSegs",),
    "net.tcp_out_segments": ("Tcp.OutSegs",),
    "net.tcp_attempt_fails": ("Tcp.AttemptFails",),
    # a handshake answered by a cookie is no passive open until its last step
    "net.syn_received": ("Tcp.PassiveOpens", "TcpExt.SyncookiesSent"),
    "net.udp_errors": ("Udp.InErrors", "Udp.SndbufErrors"),
    "net.udp_no_ports": ("Udp.NoPorts",),
    "net.listen_drops": ("TcpExt.ListenDrops",),  # includes ListenOverflows (tcp_listendrop)
    "net.tcp_timeouts": ("TcpExt.TCPTimeouts",),  # of the retransmission timer; fast repetitions are none
    "net.tcp_damaged": ("Tcp.InCsumErrors",),
    "net.reassembly_fails": ("Ip.ReasmFails",),
    "net.no_routes": ("Ip.OutNoRoutes",),
    "net.icmp_unreachable": ("Icmp.InDestUnreachs",),
}

_CALLED_AGAIN = "TcpExt.TCPSynRetrans"  # of the segments that are sent again: calls, and answers to calls


class ProtocolTable:
    """Picks counters out of the header and value line pairs of `snmp` and `netstat`."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._headers: dict[bytes, list[tuple[str, int]]] = {}

    def parse(self, data: bytes) -> dict[str, int]:
        """Wanted counters as `Prefix.Name`; lines that do not pair up are passed over."""
        found = {}
        lines = data.split(b"\n")
        for header, line in zip(lines[::2], lines[1::2], strict=False):
            columns = self._columns(header)
            if not columns:
                continue
            fields = line.split(b" ")
            for name, column in columns:
                if column < len(fields) and fields[column].isdigit():
                    found[name] = int(fields[column])
        return found

    def _columns(self, header: bytes) -> list[tuple[str, int]]:
        columns = self._headers.get(header)
        if columns is None:
            prefix, *names = header.decode("ascii", "replace").split(" ")
            columns = [
                (full, column)
                for column, name in enumerate(names, 1)
                if (full := f"{prefix[:-1]}.{name}") in self._wanted
            ]
            if len(self._headers) < 64:
                self._headers[header] = columns
        return columns


class ProtocolReader:
    """The families sock and net: TCP, UDP and connection tracking of this network namespace."""

    def __init__(self, proc: Path) -> None:
        wanted = {name for names in _SUMS.values() for name in names} | {"Tcp.CurrEstab", _CALLED_AGAIN}
        self._table = ProtocolTable(frozenset(wanted))
        self._rates = Rates()
        self._snmp = KernelFile(proc / "net/snmp")
        self._netstat = KernelFile(proc / "net/netstat", single=True)
        self._sockets = KernelFile(proc / "net/sockstat", single=True)
        self._backlog = KernelFile(proc / "net/softnet_stat")
        self._tracked = KernelFile(proc / "sys/net/netfilter/nf_conntrack_count", single=True)
        self._tracked_max = KernelFile(proc / "sys/net/netfilter/nf_conntrack_max", single=True)
        self._tracking = False
        self._extended: dict[str, int] = {}
        self._skip = True
        self._parts = Parts(
            {
                "net.extended": self._read_extended,
                "net.backlog": self._read_backlog,
                "net": self._read_counters,
                "sock": self._read_sockets,
                "net.conntrack": self._read_tracking,
            }
        )

    def open(self) -> list[Note]:
        """Find out whether connections are tracked."""
        try:
            self._tracked.read()
            self._tracked_max.read()
        except OSError as error:
            return [Note("net.conntrack", "absent", reason_of(error))]
        self._tracking = True
        return []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values."""
        self._parts.read(mono, values)

    def _read_extended(self, _: float, __: dict[str, float]) -> None:
        """The dearest file of all: every other time will do."""
        self._skip = not self._skip
        if not self._skip:
            self._extended = self._table.parse(self._netstat.read())

    def _read_backlog(self, mono: float, values: dict[str, float]) -> None:
        if not self._skip:
            self._rates.put(values, "net.backlog_drops", parse_backlog(self._backlog.read()), mono)

    def _read_counters(self, mono: float, values: dict[str, float]) -> None:
        counters = self._table.parse(self._snmp.read())
        counters.update(self._extended)
        for metric, names in _SUMS.items():
            if names[0] in counters and not (self._skip and names[0].startswith("TcpExt.")):
                self._rates.put(values, metric, sum(counters.get(name, 0) for name in names), mono)
        if not self._skip and {"Tcp.RetransSegs", _CALLED_AGAIN} <= counters.keys():  # of one instant
            again = max(0, counters["Tcp.RetransSegs"] - counters[_CALLED_AGAIN])
            self._rates.put(values, "net.tcp_data_retransmits", again, mono)
        if "Tcp.CurrEstab" in counters:
            values["sock.tcp_established"] = counters["Tcp.CurrEstab"]

    def _read_sockets(self, _: float, values: dict[str, float]) -> None:
        data = self._sockets.read()
        line = data[data.find(b"TCP:") :].partition(b"\n")[0]
        for metric, key in (("sock.tcp_orphan", b" orphan "), ("sock.tcp_time_wait", b" tw ")):
            count = number_after(line, key)
            if count is not None:
                values[metric] = count

    def _read_tracking(self, _: float, values: dict[str, float]) -> None:
        if self._tracking:
            values["net.conntrack"] = int(self._tracked.read()) / max(1, int(self._tracked_max.read()))

    def notes(self) -> list[Note]:
        """Which parts failed since the last call."""
        return self._parts.notes()

    def close(self) -> None:
        """Give all descriptors back."""
        tracking = (self._tracked, self._tracked_max)
        for file in (self._snmp, self._netstat, self._sockets, self._backlog, *tracking):
            file.close()


def parse_backlog(data: bytes) -> int:
    """Packets dropped for want of room in a processor's backlog: column two (net/core/net-procfs.c)."""
    return sum(int(columns[1], 16) for line in data.splitlines() if len(columns := line.split()) > 1)


def parse_interfaces(data: bytes) -> dict[bytes, bytes]:
    """The counter text of each interface of `/proc/net/dev` but the loopback."""
    found = {}
    for line in data.split(b"\n")[2:]:
        name, colon, rest = line.rpartition(b":")  # an alias name may hold a colon itself
        name = name.strip()
        if colon and name and name != b"lo":
            found[name] = rest
    return found


def parse_counters(text: bytes) -> tuple[int, int, int, int, int] | None:
    """Received and sent bytes, received packets, errors, drops of one interface (net/core/net-procfs.c)."""
    fields = text.split()
    if len(fields) < 12 or not all(field.isdigit() for field in fields[:12]):
        return None
    rx_bytes, rx_packets, rx_errors, rx_drops = (int(field) for field in fields[:4])
    tx_bytes, _, tx_errors, tx_drops = (int(field) for field in fields[8:12])
    return rx_bytes, tx_bytes, rx_packets, rx_errors + tx_errors, rx_drops + tx_drops


class _Interface:
    """One interface's last counters and when they change or are repeated."""

    __slots__ = ("label", "last", "mono", "repeat_at", "text")

    def __init__(self, label: str) -> None:
        self.label = label
        self.text = b""
        self.last: tuple[int, int, int, int, int] | None = None
        self.mono = 0.0
        self.repeat_at = 0.0

    def read(self, text: bytes, mono: float, values: dict[str, float]) -> None:
        """Add the rates since the last call; an idle interface only says so every `REPEAT_S`."""
        if text == self.text:
            if mono < self.repeat_at:
                self.mono = mono
                return
            self.repeat_at = mono + REPEAT_S
        else:
            self.repeat_at = 0.0
        now, last, elapsed = parse_counters(text), self.last, mono - self.mono
        self.text, self.last, self.mono = text, now, mono
        if now is None or last is None or elapsed <= 0 or any(a < b for a, b in zip(now, last, strict=True)):
            return
        for family, a, b in zip(_FAMILIES, now, last, strict=True):
            values[f"{family}{{{self.label}}}"] = (a - b) / elapsed


_FAMILIES = ("link.rx_bytes", "link.tx_bytes", "link.rx_packets", "link.errors", "link.drops")


class InterfaceReader:
    """The family link: counters of each interface at every sample, the carrier now and then."""

    def __init__(self, proc: Path, sys: Path) -> None:
        self._file = KernelFile(proc / "net/dev")
        self._links = sys / "class/net"
        self._carriers_at = 0.0
        self._known: dict[bytes, _Interface] = {}
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Nothing to find out; a host without /proc/net/dev has no network."""
        try:
            self._file.read()
        except OSError as error:
            return [Note("link", "absent", reason_of(error))]
        return []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values."""
        texts = parse_interfaces(self._file.read())
        known: dict[bytes, _Interface] = {}
        for name, text in texts.items():
            if len(known) >= MAX_INTERFACES:
                if len(self._known) < MAX_INTERFACES:
                    reason = f"only {MAX_INTERFACES} of {len(texts)} interfaces are measured"
                    self._notes.append(Note("link", "gap", reason))
                break
            interface = known[name] = self._known.get(name) or _Interface(printable(name))
            interface.read(text, mono, values)
        self._known = known
        if mono >= self._carriers_at:
            self._carriers_at = mono + _CARRIER_EVERY_S
            self._read_carriers(values)

    def _read_carriers(self, values: dict[str, float]) -> None:
        """An interface that was taken down on purpose has no carrier to speak of: EINVAL.

        Not by ioctl(2): that needs a socket of a family that the collector's sandbox does not have.
        """
        for name, interface in self._known.items():
            carrier = read_number(self._links / os.fsdecode(name) / "carrier")
            if carrier is not None:
                values[f"link.carrier{{{interface.label}}}"] = float(carrier > 0)

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()
