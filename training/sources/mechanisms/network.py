"""Mechanisms of links, packets, names and connections."""

# ruff: noqa: D103 - a mechanism's name says it; log lines are quoted whole; no SQL runs here

from __future__ import annotations

from models.taxonomy import FaultClass as F
from models.taxonomy import Severity
from training.sources.mechanisms.registry import mechanism
from training.sources.symptoms import (
    KERNEL,
    Cause,
    Counted,
    Happened,
    Pieces,
    Said,
    Scene,
    culprits,
    says,
    step,
    unit,
    unresolved,
)

W, E, C = Severity.WARNING, Severity.ERROR, Severity.CRITICAL


def goes_down(link: str, action: str = "down", after_s: float = 0.0) -> Pieces:
    """An interface's event."""
    return [Happened(after_s, "link", link, action, (("index", "2"),))]


# --- links ------------------------------------------------------------------------------------------------


@mechanism(F.LINK_DOWN, 2.0)
def cable_pulled(s: Scene) -> Cause:
    link = s.link()
    said: Pieces = [Said(0.0, KERNEL, f"e1000e 0000:00:1f.6 {link}: NIC Link is Down", 6)]
    daemon: Pieces = [Said(0.4, "systemd-networkd", f"{link}: Lost carrier", 6)]
    carrier: Pieces = [step(f"link.carrier{{{link}}}", 0.0), step(f"link.rx_packets{{{link}}}", 0.0)]
    return Cause(E, culprits(("interface", link)), [[*goes_down(link), *carrier], said, daemon], place=link)


@mechanism(F.LINK_DOWN)
def link_flaps(s: Scene) -> Cause:
    link = s.link()
    flaps: Pieces = []
    for n in range(s.random.randint(4, 7)):
        flaps += goes_down(link, after_s=n * 4.0)
        flaps += goes_down(link, "up", after_s=n * 4.0 + 2.0)
    return Cause(W, culprits(("interface", link)), [flaps], place=link)


@mechanism(F.LINK_DOWN)
def no_lease(s: Scene) -> Cause:
    link = s.link()
    said: Pieces = [
        Said(n * 3.0, "NetworkManager", f"dhcp4 ({link}): request timed out", 4) for n in range(2)
    ]
    lost: Pieces = [Said(1.0, "NetworkManager", f"device ({link}): carrier: link disconnected", 4)]
    return Cause(E, culprits(("interface", link)), [said, lost, goes_down(link)], place=link)


@mechanism(F.LINK_DOWN)
def switch_restarts(s: Scene) -> Cause:
    link = s.host.links[0]
    said: Pieces = [Said(0.0, KERNEL, f"igb 0000:02:00.0 {link}: igb: {link} NIC Link is Down", 6)]
    probes: Pieces = [step("probe.gateway_ok", 0.0)]
    probes = [*probes, *goes_down(link)]
    return Cause(E, culprits(("interface", link)), [said, probes], place=link)


# --- packets ----------------------------------------------------------------------------------------------


@mechanism(F.PACKET_LOSS)
def damaged_frames(s: Scene) -> Cause:
    link = s.host.links[0]
    pieces: Pieces = [
        step(f"link.errors{{{link}}}", s.span(20, 400)),
        step(f"link.rx_packets{{{link}}}", 300.0),
    ]
    again: Pieces = [step("net.tcp_retransmits", s.span(8, 60)), step("net.tcp_out_segments", 90.0)]
    return Cause(W, culprits(("interface", link)), [pieces, again], place=link)


@mechanism(F.PACKET_LOSS)
def path_loses(s: Scene) -> Cause:
    link = s.host.links[0]
    pieces: Pieces = [
        step("net.tcp_retransmits", s.span(10, 120)),
        step("net.tcp_out_segments", s.span(80, 300)),
    ]
    pieces += [step(f"link.tx_bytes{{{link}}}", 9e5)]
    words = says(
        s,
        s.service(),
        "read tcp: i/o timeout",
        "connection reset by peer",
        "request timed out",
        times=3,
        priority=4,
    )
    return Cause(W, culprits(("interface", link)), [pieces, words], place=link)


@mechanism(F.PACKET_LOSS)
def queue_drops(s: Scene) -> Cause:
    link = s.host.links[0]
    pieces: Pieces = [
        step(f"link.drops{{{link}}}", s.span(60, 2000)),
        step(f"link.rx_packets{{{link}}}", 1500.0),
    ]
    return Cause(W, culprits(("interface", link)), [pieces], place=link)


@mechanism(F.PACKET_LOSS)
def transmitter_stalls(s: Scene) -> Cause:
    link = s.host.links[0]
    said: Pieces = [
        Said(n * 5.0, KERNEL, f"NETDEV WATCHDOG: {link} (e1000e): transmit queue 0 timed out", 4)
        for n in range(2)
    ]
    again: Pieces = [step("net.tcp_retransmits", s.span(8, 60)), step("net.tcp_out_segments", 60.0)]
    again += [step(f"link.tx_bytes{{{link}}}", 3e5), step(f"link.drops{{{link}}}", 300.0)]
    return Cause(E, culprits(("interface", link)), [again, said], place=link)


# --- names ------------------------------------------------------------------------------------------------


@mechanism(F.NAME_RESOLUTION, 1.5)
def server_does_not_answer(s: Scene) -> Cause:
    one, other = s.service(), s.service()
    said: Pieces = [
        Said(
            0.0,
            "systemd-resolved",
            "Using degraded feature set UDP instead of UDP+EDNS0 for DNS server 192.0.2.53.",
            4,
        )
    ]
    return Cause(W, (), [unresolved(s, one), unresolved(s, other), said], (one, other))


@mechanism(F.NAME_RESOLUTION)
def probe_fails(s: Scene) -> Cause:
    one = s.service()
    return Cause(E, (), [[step("probe.dns_ok", 0.0)], unresolved(s, one)], (one,))


@mechanism(F.NAME_RESOLUTION)
def resolver_fails(s: Scene) -> Cause:
    one, other = s.service(), s.service()
    said: Pieces = [
        Said(
            0.0, "unbound", "error: read (in tcp s): Connection refused for 192.0.2.53 port 53: servfail", 3
        ),
        Said(0.5, "unbound", "info: server stats: no response from 192.0.2.53, servfail", 4),
    ]
    return Cause(E, (), [said, unresolved(s, one), unresolved(s, other)], (one, other))


@mechanism(F.NAME_RESOLUTION)
def mail_and_updates_fail(s: Scene) -> Cause:
    one, other = s.service(), s.service()
    words = says(
        s,
        one,
        "warning: relay=none, Host or domain name not found. Name service error for name=example.org type=MX",
        times=2,
    )
    more = says(
        s,
        other,
        "Could not resolve 'deb.example.org'",
        "unable to resolve host address 'example.net'",
        times=2,
    )
    return Cause(W, (), [words, more, unresolved(s, other)], (one, other))


# --- connections ------------------------------------------------------------------------------------------


@mechanism(F.CONNECTION_FLOOD)
def half_open(s: Scene) -> Cause:
    peer = s.address()
    said: Pieces = [
        Said(
            0.0,
            KERNEL,
            "TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:443. Sending cookies.",
            6,
        )
    ]
    counts: Pieces = [Counted("socket{tcp/SYN_RECV}", s.span(200, 900)), Counted(f"peer{{{peer}}}", 400.0)]
    return Cause(E, culprits(("address", peer)), [counts, [*said, step("net.syn_received", 30.0)]])


@mechanism(F.CONNECTION_FLOOD)
def table_full(s: Scene) -> Cause:
    peer, it = s.address(), s.service()
    said: Pieces = [
        Said(n * 1.0, KERNEL, "nf_conntrack: nf_conntrack: table full, dropping packet", 4) for n in range(3)
    ]
    counts: Pieces = [step("net.conntrack", s.span(0.96, 1.0)), Counted(f"peer{{{peer}}}", 900.0)]
    return Cause(E, culprits(("address", peer)), [counts, said], (it,))


@mechanism(F.CONNECTION_FLOOD)
def too_many_clients(s: Scene) -> Cause:
    peer, it = s.address(), s.service()
    pieces: Pieces = [
        step("net.syn_received", s.span(150, 900)),
        step("sock.tcp_established", s.span(900, 5000)),
    ]
    pieces += [step("net.listen_drops", s.span(5, 60)), Counted(f"peer{{{peer}}}", 700.0)]
    words = says(
        s,
        it,
        "1024 worker_connections are not enough",
        "accept queue overflow, dropping connections",
        times=3,
        priority=1,
    )
    return Cause(W, (*culprits(("address", peer)), *unit(it)), [pieces, words], (it,))


@mechanism(F.CONNECTION_FLOOD)
def crawler(s: Scene) -> Cause:
    peer, it = s.address(), s.service()
    pieces: Pieces = [
        Counted("socket{tcp/ESTABLISHED}", s.span(900, 3000)),
        Counted(f"peer{{{peer}}}", 800.0),
    ]
    pieces += [step("sock.tcp_established", 1200.0), step("net.syn_received", s.span(150, 500))]
    return Cause(W, culprits(("address", peer)), [pieces, [step("cpu.busy", 0.9)]], (it,))
