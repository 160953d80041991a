"""Link events from netlink: the parser, the bookkeeping, and a real pair of interfaces."""

import errno
import select
import socket
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.links import LinkCollector, parse
from daemon.errors import SourceError
from daemon.messages import Stamp

NOW = Stamp("b" * 32, 1.0, 1.7e9)
NEW, DEL, DONE = 16, 17, 3
UP, RUNNING = 0x1, 0x10000


def attribute(kind, payload):
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(index, name, flags, *, kind=NEW, sequence=0, family=0, driver=b"veth"):
    body = struct.pack("=BxHiII", family, 1, index, flags, 0) + attribute(3, name + b"\0")
    body += attribute(18, attribute(1, driver + b"\0"))
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


class FakeSocket:
    """Hands out datagrams (or errors) as the kernel would."""

    def __init__(self, *items):
        self.items = list(items)
        self.sent = []

    def recvfrom(self, _):
        if not self.items:
            raise BlockingIOError
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, tuple) else (item, (0, 1))

    def send(self, data):
        self.sent.append(data)


def collector(*items):
    links = LinkCollector()
    links._socket = FakeSocket(*items)
    return links


def said(events):
    return [(event.kind, event.name, event.action) for event in events]


def test_states_of_a_link():
    datagram = message(1, b"a", 0) + message(2, b"b", UP) + message(3, b"c", UP | RUNNING)
    links = [m.link for m in parse(datagram)]
    assert [(link.name, link.state, link.kind) for link in links] == [
        ("a", "admin-down", "veth"),
        ("b", "down", "veth"),
        ("c", "up", "veth"),
    ]


@given(st.binary(max_size=400))
def test_parser_survives_any_bytes(data):
    list(parse(data))
    list(parse(struct.pack("=IHHII", 16 + len(data), NEW, 0, 0, 0) + data))
    list(
        parse(
            struct.pack("=IHHII", 48 + len(data), NEW, 0, 0, 0) + struct.pack("=BxHiII", 0, 1, 1, 1, 0) + data
        )
    )


def test_changes_become_events_and_repetitions_do_not():
    links = collector(
        message(2, b"eth0", UP | RUNNING),
        message(2, b"eth0", UP | RUNNING),
        message(2, b"eth0", UP),
        message(2, b"eth0", UP | RUNNING),
        message(2, b"eth0", 0),
        message(2, b"lan0", 0),
        message(2, b"lan0", 0, kind=DEL),
    )
    events = links.read(NOW)
    assert said(events) == [
        ("link", "eth0", "added"),
        ("link", "eth0", "down"),
        ("link", "eth0", "up"),
        ("link", "eth0", "admin-down"),
        ("link", "eth0", "removed"),
        ("link", "lan0", "added"),
        ("link", "lan0", "removed"),
    ]
    assert events[1].attributes["was"] == "up"


def test_bridge_port_messages_and_other_senders_are_ignored():
    links = collector(
        message(2, b"eth0", UP | RUNNING),
        message(2, b"eth0", 0, kind=DEL, family=socket.AF_BRIDGE),
        (message(2, b"eth0", UP), (4711, 0)),
    )
    assert said(links.read(NOW)) == [("link", "eth0", "added")]


def test_lost_messages_are_a_gap_and_the_differences_come_from_a_new_dump():
    links = collector(message(2, b"eth0", UP | RUNNING), message(3, b"old", UP | RUNNING))
    links.read(NOW)
    done = struct.pack("=IHHII", 20, DONE, 2, 1, 0) + bytes(4)
    links._socket.items = [
        OSError(errno.ENOBUFS, "No buffer space available"),
        message(2, b"eth0", UP, sequence=1) + message(4, b"new", UP, sequence=1),
        done,
    ]
    events = links.read(NOW)
    assert said(events) == [
        ("reader", "links", "gap"),
        ("link", "eth0", "down"),
        ("link", "new", "added"),
        ("link", "old", "removed"),
    ]
    assert len(links._socket.sent) == 1


def test_flood_of_changes_is_cut_into_calls():
    links = collector(*(message(2, b"eth0", UP | RUNNING * (i & 1)) for i in range(2500)))
    assert len(links.read(NOW)) <= 1001
    assert links.pending()


def test_broken_socket_is_a_source_error():
    with pytest.raises(SourceError):
        collector(OSError(errno.EBADF, "Bad file descriptor")).read(NOW)


def test_present_state_is_learned_silently():
    links = LinkCollector()
    assert links.open() == []
    assert "lo" in {link.name for link in links._links.values()}
    assert links.read(NOW) == []
    links.close()


def wait(links):
    events = []
    while select.select([links.fileno()], [], [], 0.3)[0]:
        events += [e for e in links.read(NOW) if e.name.startswith("hwt")]
    return said(events)


@pytest.mark.lab
def test_real_link_that_loses_its_peer_is_down():
    links = LinkCollector()
    links.open()

    def ip(*argv):
        return subprocess.run(["ip", "link", *argv], capture_output=True, check=False).returncode == 0

    if not ip("add", "hwt0", "type", "veth", "peer", "name", "hwt1"):
        pytest.skip("needs root, ip and veth")
    try:
        assert set(wait(links)) == {("link", "hwt0", "added"), ("link", "hwt1", "added")}
        assert ip("set", "hwt0", "up")
        assert ip("set", "hwt1", "up")
        assert wait(links)[-2:] == [("link", "hwt1", "up"), ("link", "hwt0", "up")]
        assert ip("set", "hwt1", "down")
        assert set(wait(links)) == {("link", "hwt1", "admin-down"), ("link", "hwt0", "down")}
    finally:
        ip("del", "hwt0")
    assert {("link", "hwt0", "removed"), ("link", "hwt1", "removed")} <= set(wait(links))
    links.close()
