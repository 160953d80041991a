"""Packets that do not come whole, find no way or are not taken, by the kernel's own counters."""

from __future__ import annotations

from daemon.messages import Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, host_subject
from daemon.tiers.wording import quantity
from models.taxonomy import FaultClass, Severity, SubjectKind

LOSS, DOWN = FaultClass.PACKET_LOSS, FaultClass.LINK_DOWN
# A second, and of all packets: over the Internet one in 1,100 to 32,000 came damaged past the links' checks
# (Stone and Partridge, SIGCOMM 2000).
DAMAGED, DAMAGED_SHARE = 1.0, 1 / 1_000
FRAGMENTS = 0.5  # a second: a datagram that is lost once leaves one behind, after 30 s (ipfrag_time)


def fragments(view: View, label: str, rate: float) -> Breach | None:
    """Datagrams never become whole: some of their fragments are lost or not let through."""
    family = "net.reassembly_fails"
    again = view.mean("reassembly_fails", rate, 10.0)
    if again < _least(view, family, label, FRAGMENTS):
        return None
    text = f"{quantity(again)} datagrams a second never become whole, as fragments of them are missing."
    # Those of one moment are out of the mean by then.
    return _lost(view, family, label, again, text=text, hints={LOSS: 0.75}, sustain_s=8.0)


def damaged(view: View, label: str, rate: float) -> Breach | None:
    """Segments arrive with a wrong checksum, which the link's own check should not have let pass."""
    family = "net.tcp_damaged"
    prefix = "link.rx_packets{"
    received = max((value for name, value in view.values.items() if name.startswith(prefix)), default=0.0)
    if rate < _least(view, family, label, max(DAMAGED, DAMAGED_SHARE * received)):
        return None
    text = f"{quantity(rate)} TCP segments a second arrive damaged and have to be sent again."
    hints = {LOSS: 0.75, FaultClass.HARDWARE_ERROR: 0.3}
    return _lost(view, family, label, rate, text=text, hints=hints, sustain_s=2.0)


def _least(view: View, family: str, label: str, least: float) -> float:
    return least / 2 if view.conditions.opened(f"{family}.level", label) else least


def _lost(
    view: View,
    family: str,
    label: str,
    rate: float,
    *,
    text: str,
    hints: dict[FaultClass, float],
    sustain_s: float,
) -> Breach:
    rule, values = f"{family}.level", {"rate_per_s": rate}
    links = [_fullest_link(view)]
    return Breach(
        rule, label, Severity.WARNING, 0.65, links, hints, text, values, family, sustain_s=sustain_s
    )


def _fullest_link(view: View) -> Subject:
    """The interface that receives most."""
    prefix = "link.rx_bytes{"
    links = [
        (value, name[len(prefix) : -1])
        for name, value in view.values.items()
        if name.startswith(prefix) and name != "link.rx_bytes{lo}"
    ]
    value, label = max(links, default=(0.0, ""))
    return Subject(SubjectKind.INTERFACE, label, 0.7) if value > 0 else host_subject()


def unrouted(view: View, label: str, rate: float) -> Breach | None:
    """There is no way to where packets are to go; why, others know."""
    return _aside(view, "net.no_routes", label, rate, hints={DOWN: 0.5}, what="find no route")


def undelivered(view: View, label: str, rate: float) -> Breach | None:
    """Routers and hosts answer that packets could not be delivered."""
    hints = {DOWN: 0.4, LOSS: 0.35}
    return _aside(view, "net.icmp_unreachable", label, rate, hints=hints, what="cannot be delivered")


def _aside(
    view: View, family: str, label: str, rate: float, *, hints: dict[FaultClass, float], what: str
) -> Breach | None:
    """Something that goes with a fault and may be harmless: a host that is away, somebody who scans."""
    rule = f"{family}.level"
    usual = view.level(family, 0.0)
    if rate < (1.0 if view.conditions.opened(rule, label) else max(3.0, 5.0 * usual)):
        return None
    text = f"{quantity(rate)} packets a second {what}, usually {quantity(usual)}."
    values = {"rate_per_s": rate}
    return Breach(
        rule, label, Severity.INFO, 0.4, [host_subject()], hints, text, values, family, sustain_s=3.0
    )
