"""Network: links that lose packets or their carrier, connection floods, probes that fail."""

from __future__ import annotations

from daemon.messages import Subject
from daemon.tiers.conditions import Breach
from daemon.tiers.view import View, host_subject, unit_subject
from daemon.tiers.wording import percent, quantity
from models.taxonomy import FaultClass, Severity, SubjectKind

LOSS, FLOOD = FaultClass.PACKET_LOSS, FaultClass.CONNECTION_FLOOD
DOWN, DNS, HUNG = FaultClass.LINK_DOWN, FaultClass.NAME_RESOLUTION, FaultClass.SERVICE_HUNG

COUNTS_LEAST = 6  # a minute of snapshots
LOSS_S = 3.0  # of repeated segments
USUAL_TIMES = 3.0  # as much as usual is news
STALLED = 0.5  # from here on hardly anything but repetitions leaves


def errors(view: View, label: str, rate: float) -> Breach | None:
    """An interface receives or sends damaged frames."""
    return _lossy(view, "link.errors", label, rate, least=3.0, ratio_least=0.001)


def drops(view: View, label: str, rate: float) -> Breach | None:
    """An interface drops packets; a warning, as frames that nobody here understands count as well.

    A few of these are normal on any network, and thousands where machines talk past the host: the kernel adds
    them to what is lost (net/core/dev.c, `rx_dropped`).
    """
    return _lossy(view, "link.drops", label, rate, least=20.0, ratio_least=0.01)


def _lossy(
    view: View, family: str, label: str, rate: float, *, least: float, ratio_least: float
) -> Breach | None:
    rule, name = f"{family}.level", f"{family}{{{label}}}"
    opened = view.conditions.opened(rule, label)
    usual = view.level(name, 0.0)
    packets = view.get(f"link.rx_packets{{{label}}}")
    ratio = rate / (packets + rate) if packets + rate > 0 else 0.0
    if rate < (least / 2 if opened else least) or ratio < ratio_least:
        return None
    if not opened and rate < 10.0 * usual:
        return None
    what = "damaged" if family == "link.errors" else "dropped"
    text = f"{label}: {quantity(rate)} packets a second are {what}, {percent(ratio)} of those received."
    values = {f"{family.rpartition('.')[2]}_per_s": rate, "loss_ratio": ratio}
    gross = family == "link.errors" and ratio >= 0.2
    severity, score = (Severity.ERROR, 0.75) if gross else (Severity.WARNING, 0.6)
    subject = Subject(SubjectKind.INTERFACE, label)
    return Breach(rule, label, severity, score, [subject], {LOSS: 0.7}, text, values, name, sustain_s=3.0)


def queue_drops(view: View, label: str, rate: float) -> Breach | None:
    """The queue before an interface is full: more is sent than may leave.

    Queues that manage themselves drop to slow a sender down, below two packets of a hundred (RFC 8290, 3.2);
    what loses more of them is too short, or is given far more than it may pass on.
    """
    rule, name = "link.queue_drops.level", f"link.queue_drops{{{label}}}"
    loss = view.get(f"link.queue_loss{{{label}}}")
    opened = view.conditions.opened(rule, label)
    if rate < (5.0 if opened else 10.0) or loss < (0.03 if opened else 0.05):
        return None
    text = f"The queue of {label} drops {quantity(rate)} packets a second, {percent(loss)} of what is sent."
    severity, score = (Severity.ERROR, 0.75) if loss >= 0.2 else (Severity.WARNING, 0.65)
    return Breach(
        rule,
        label,
        severity,
        score,
        [Subject(SubjectKind.INTERFACE, label)],
        {LOSS: 0.8},
        text,
        {"drops_per_s": rate, "loss_ratio": loss},
        name,
        sustain_s=1.5,  # two readings
    )


def backlog_drops(view: View, label: str, rate: float) -> Breach | None:
    """Packets arrive faster than the kernel takes them up; whose they were it does not say."""
    rule = "net.backlog_drops.level"
    if rate < (5.0 if view.conditions.opened(rule, label) else 20.0):
        return None
    text = f"{quantity(rate)} arriving packets a second are dropped, as a processor's backlog is full."
    values = {"drops_per_s": rate}
    return Breach(
        rule,
        label,
        Severity.INFO,
        0.4,
        [host_subject()],
        {LOSS: 0.5},
        text,
        values,
        "net.backlog_drops",
        sustain_s=3.0,
    )


def retransmits(view: View, label: str, rate: float) -> Breach | None:
    """Much of what is sent by TCP must be sent again."""
    rule = "net.tcp_retransmits.level"
    # Over the last seconds, as a stalled sender sends in bursts; no longer, as what went well before the loss
    # would hide it for just as long.
    again = view.mean("retransmits", rate, LOSS_S)
    sent = view.mean("out_segments", view.get("net.tcp_out_segments"), LOSS_S)
    # Calls to who is not there are repeated by the dozen where many are asked that sleep; no data is lost.
    data = view.mean("data_retransmits", view.get("net.tcp_data_retransmits", rate), LOSS_S)
    opened = view.conditions.opened(rule, label)
    ratio = min(1.0, again / sent) if sent > 0 else float(again > 0.0)
    # 2 a second: a single connection to a host that does not answer repeats itself at most once a second.
    begun = opened or view.conditions.holds(rule, label)
    if again < (0.5 if begun else 2.0) or ratio < (0.03 if opened else 0.05):
        return None
    if not begun and again < USUAL_TIMES * view.level("net.tcp_retransmits", 0.0):
        return None  # mobile peers, and peers that are gone, make some hosts repeat themselves all day
    # One overrun buffer is repeated within a second or two. Where nothing new leaves any more, the pauses are
    # those between repetitions, which double each time (RFC 6298, 5.5).
    if not opened and rate < 1.0 and ratio < STALLED:
        return None
    gross = ratio >= 0.2 and data >= 5.0  # nobody waits for such a link to recover
    severity, score = (Severity.ERROR, 0.7) if gross else (Severity.WARNING, 0.6)
    text = f"{percent(ratio)} of the TCP segments sent are repetitions ({quantity(again)} a second)."
    values = {"retransmit_ratio": ratio, "rate_per_s": again}
    return Breach(
        rule,
        label,
        severity,
        score,
        [_busiest_link(view)],
        {LOSS: 0.7},
        text,
        values,
        "net.tcp_retransmits",
        sustain_s=2.0 if gross else 3.0,
    )


def _busiest_link(view: View) -> Subject:
    dropping = [
        (value, name[17:-1])
        for name, value in view.values.items()
        if name.startswith("link.queue_drops{") and value > 0
    ]
    if dropping:
        return Subject(SubjectKind.INTERFACE, max(dropping)[1], 0.9)
    links = [
        (value, name[14:-1])
        for name, value in view.values.items()
        if name.startswith("link.tx_bytes{") and name != "link.tx_bytes{lo}"
    ]
    value, label = max(links, default=(0.0, ""))
    return Subject(SubjectKind.INTERFACE, label, 0.7) if value > 0 else host_subject()


def carrier(view: View, label: str, value: float) -> Breach | None:
    """An interface that had a carrier lost it; the network's events know its kind and say so sooner."""
    rule, name = "link.carrier.level", f"link.carrier{{{label}}}"
    known = view.usual.get(name)
    holds = view.conditions.holds(rule, label)
    if value >= 0.5 or known is None or (known.level < 0.5 and not holds):
        return None
    text = f"{label} has lost its carrier."
    subject = Subject(SubjectKind.INTERFACE, label)
    return Breach(
        rule,
        label,
        Severity.INFO,
        0.35,  # a bridge whose last container has left has no carrier either
        [subject],
        {DOWN: 0.8},
        text,
        {},
        ref=name,
        sustain_s=2.0,
        clear_s=3.0,
        stale_s=20.0,
    )


def listen_drops(view: View, label: str, rate: float) -> Breach | None:
    """Connections are turned away because nobody accepts them in time."""
    rule = "net.listen_drops.level"
    if rate < (0.5 if view.conditions.opened(rule, label) else 2.0):
        return None
    flood = view.get("net.syn_received") >= 4.0 * max(10.0, view.level("net.syn_received", 0.0))
    subjects, said = peers(view)
    hints = {FLOOD: 0.8} if flood or subjects else {FLOOD: 0.5, HUNG: 0.4}
    waiting, unit = max(((count, unit) for unit, count in view.counts("backlog")), default=(0.0, ""))
    where = f"the listen queue of {unit} is full, {waiting:.0f} wait" if unit else "a listen queue is full"
    subjects += [unit_subject(unit, 0.8 if subjects else 1.0)] if unit else []
    text = f"{quantity(rate)} connections a second are turned away because {where}{said}."
    values = {"drops_per_s": rate} | _connections(view)
    return Breach(
        rule,
        label,
        Severity.WARNING,
        0.65,
        subjects or [host_subject()],
        hints,
        text,
        values,
        "net.listen_drops",
        sustain_s=2.0,
    )


def datagrams(view: View, label: str, rate: float) -> Breach | None:
    """UDP datagrams that arrived are thrown away: nobody reads them in time, or they are damaged."""
    rule, name = "net.udp_errors.level", "net.udp_errors"
    opened = view.conditions.opened(rule, label)
    # A burst of answers that finds a full buffer is over within a second.
    if rate < (5.0 if opened else 20.0) or (not opened and rate < 10.0 * view.level(name, 0.0)):
        return None
    text = f"{quantity(rate)} UDP datagrams a second are lost on this host: not read in time, or damaged."
    values = {"errors_per_s": rate}
    return Breach(
        rule,
        label,
        Severity.WARNING,
        0.6,
        [host_subject()],
        {LOSS: 0.7},
        text,
        values,
        name,
        sustain_s=2.0,
    )


def opens(view: View, label: str, rate: float) -> Breach | None:
    """Many times the usual number of connections arrive, and they pile up or come from one place."""
    rule = "net.syn_received.level"
    opened = view.conditions.opened(rule, label)
    usual = view.usual.get("net.syn_received")
    level, scale = (usual.level, usual.scale) if usual is not None and usual.seen > 10 else (0.0, 2.0)
    if rate < (50.0 if opened else max(100.0, 8.0 * level, level + 8.0 * scale)):
        return None
    subjects, said = peers(view)
    strong = bool(subjects) or (_piled(view) >= 200.0 and not said)
    text = f"{quantity(rate)} connections a second arrive, usually {quantity(level)}{said}."
    values = {"rate_per_s": rate} | _connections(view)
    return Breach(
        rule,
        label,
        Severity.WARNING if strong else Severity.INFO,
        0.65 if strong else 0.4,
        subjects or [host_subject()],
        {FLOOD: 0.8 if strong else 0.4},
        text,
        values,
        "net.syn_received",
        sustain_s=3.0,
    )


def conntrack(view: View, label: str, ratio: float) -> Breach | None:
    """The table of tracked connections runs full: new connections will be dropped."""
    rule = "net.conntrack.level"
    if ratio < (0.8 if view.conditions.opened(rule, label) else 0.9):
        return None
    severity, score = (Severity.CRITICAL, 0.9) if ratio >= 0.99 else (Severity.ERROR, 0.75)
    subjects, said = peers(view)
    text = f"The table of tracked connections is {percent(ratio)} full{said}."
    values = {"used_ratio": ratio} | _connections(view)
    return Breach(
        rule,
        label,
        severity,
        score,
        subjects or [host_subject()],
        {FLOOD: 0.9},
        text,
        values,
        "net.conntrack",
    )


def sockets(view: View) -> list[Breach]:
    """Half-open or open connections far above what is usual, from a snapshot."""
    breaches = []
    for label, count in view.counts("socket"):
        half = label.endswith("SYN_RECV")
        if not half and not label.endswith("ESTABLISHED"):
            continue
        # Snapshots look at sockets only when something jumped; the samples count the open ones always.
        usual = _half_open(view, label) if half else view.level("sock.tcp_established", count)
        rule = "socket.half_open.level" if half else "socket.open.level"
        opened = view.conditions.opened(rule, label)
        # 128 was the kernel's default SYN backlog; 500 open connections are ten busy browsers.
        least = (64.0 if opened else 128.0) if half else (250.0 if opened else 500.0)
        if count < least or (not opened and count < 5.0 * usual):
            continue
        subjects, said = peers(view)
        what = "half-open" if half else "open"
        text = f"{count:.0f} {what} TCP connections, usually {quantity(usual)}{said}."
        strong = bool(subjects) or (half and not said)
        breaches.append(
            Breach(
                rule,
                label,
                Severity.WARNING if strong else Severity.INFO,
                0.7 if strong else 0.4,
                subjects or [host_subject()],
                {FLOOD: 0.8 if strong else 0.4},
                text,
                {"connections_count": count},
                ref=f"socket{{{label}}}",
                kind="snapshot",
                stale_s=60.0,
            )
        )
    return breaches


def _half_open(view: View, label: str) -> float:
    """The usual number, nothing before it was learned: the first counts are those of a flood that begins."""
    known = view.usual.get(f"socket{{{label}}}")
    return known.level if known is not None and known.seen >= COUNTS_LEAST else 0.0


def peers(view: View) -> tuple[list[Subject], str]:
    """The address that holds at least half of many connections, and a clause that says so.

    The host itself is nobody to be blamed: a proxy and its backend, or a client here and its server.
    """
    counts = list(view.counts("peer"))
    count, peer = max(((count, peer) for peer, count in counts), default=(0.0, ""))
    total = sum(count for _, count in counts)
    if count < 50.0 or count < 0.5 * total or peer in {"", "*", "0.0.0.0", "::"}:  # noqa: S104  a wildcard, not bound
        return [], ""
    subjects = [] if _is_own(peer) else [Subject(SubjectKind.ADDRESS, peer)]
    return subjects, f"; {count:.0f} of them from {peer}"


def _is_own(address: str) -> bool:
    """Whether an address never leaves the host (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3)."""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _piled(view: View) -> float:
    names = ("sock.tcp_established", "sock.tcp_time_wait", "sock.tcp_orphan")
    return sum(max(0.0, view.get(name) - view.level(name, view.get(name))) for name in names)


def _connections(view: View) -> dict[str, float]:
    count = view.values.get("sock.tcp_established")
    return {} if count is None else {"connections_count": count}


def dns(_view: View, label: str, ok: float) -> Breach | None:
    """Names do not resolve."""
    if ok >= 0.5:
        return None
    text = "The name probe has failed twice in a row, with three questions each time."
    return _probe("probe.dns_ok", label, text, {DNS: 0.9})


def gateway(_view: View, label: str, ok: float) -> Breach | None:
    """The gateway does not answer."""
    if ok >= 0.5:
        return None
    text = "The gateway has not answered twice in a row, to three questions each time."
    return _probe("probe.gateway_ok", label, text, {DOWN: 0.4, LOSS: 0.4})


def _probe(family: str, label: str, text: str, hints: dict[FaultClass, float]) -> Breach:
    """Two failures of three questions each: neither a lost datagram nor a restart is a fault."""
    return Breach(
        f"{family}.level",
        label,
        Severity.ERROR,
        0.75,
        [host_subject()],
        hints,
        text,
        {"failures_count": 2.0},
        ref=family,
        sustain_n=2,
        sustain_s=0.0,
        clear_s=0.0,
        stale_s=600.0,
    )
