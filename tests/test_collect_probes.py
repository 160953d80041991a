"""Active probes, against real servers on the loopback."""

import select
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import now
from daemon.collectors.probes import (
    DnsProbe,
    GatewayProbe,
    ProbeCollector,
    encode_query,
    parse_answer,
    parse_gateway,
    parse_servers,
)
from daemon.errors import ConfigError
from daemon.messages import Event, Sample, Stamp

FIXTURES = Path(__file__).parent / "fixtures"


def answer(query, code=0):
    return query[:2] + bytes([0x81, 0x80 | code]) + query[4:]


@pytest.fixture
def server():
    """A name server whose next answers are what `reply` makes of each query; None keeps silent."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(5)
    replies = []

    def serve():
        while True:
            try:
                query, client = sock.recvfrom(512)
            except OSError:
                return
            data = replies.pop(0)(query) if replies else answer(query)
            if data:
                sock.sendto(data, client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield sock.getsockname()[1], replies
    sock.close()


def resolv(tmp_path, *servers):
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {server}\n" for server in servers))
    return path


def run(probe, seconds=6.0):
    """Drive the collector as the loop does: when it is readable, or when its interval is over."""
    probe.try_s = 0.3
    collector = ProbeCollector([probe], 60.0)
    collector.open()
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not found:
        found = collector.read(now())
        if not found:
            select.select([collector.fileno()], [], [], min(1.0, collector.interval_s))
    collector.close()
    return found


def test_resolved_name_gives_ok_and_its_time(tmp_path, server):
    port, _ = server
    (sample,) = run(DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), port))
    assert isinstance(sample, Sample)
    assert sample.values["probe.dns_ok"] == 1.0
    assert 0.0 <= sample.values["probe.dns_s"] < 0.5


def test_lost_answer_is_asked_for_again(tmp_path, server):
    port, replies = server
    replies.append(lambda _: None)
    (sample,) = run(DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), port))
    assert sample.values["probe.dns_ok"] == 1.0
    assert sample.values["probe.dns_s"] >= 0.3


def test_dead_resolver_is_not_ok_and_never_blocks(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        probe = DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), sock.getsockname()[1])
        collector = ProbeCollector([probe], 60.0)
        collector.open()
        began = time.monotonic()
        collector.read(now())
        assert time.monotonic() - began < 0.1
        collector.close()
        (sample,) = run(probe)
    assert sample.values == {"probe.dns_ok": 0.0}


def test_servfail_of_every_server_is_not_ok(tmp_path, server):
    port, replies = server
    replies.extend([lambda query: answer(query, 2)] * 3)
    (sample,) = run(DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), port))
    assert sample.values == {"probe.dns_ok": 0.0}


def test_second_server_stands_in_for_the_first(tmp_path, server):
    port, _ = server
    (sample,) = run(DnsProbe("example.org", resolv(tmp_path, "127.0.0.99", "127.0.0.1"), port))
    assert sample.values["probe.dns_ok"] == 1.0


def test_forged_answers_do_not_count():
    query = encode_query("example.org", 77)
    assert parse_answer(answer(query), query) is True
    assert parse_answer(answer(query, 3), query) is False
    assert parse_answer(b"\0\0" + answer(query)[2:], query) is None
    assert parse_answer(query, query) is None
    assert parse_answer(answer(encode_query("example.com", 77)), query) is None


@given(st.binary(max_size=300))
def test_answer_parsers_survive_any_bytes(data):
    parse_answer(data, encode_query("example.org", 1))
    parse_servers(data)
    parse_gateway(data)
    parse_gateway(b"x\n" + data)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".org", ".".join(["abcdefg"] * 40)])
def test_impossible_name_is_a_configuration_error(name, tmp_path):
    with pytest.raises(ConfigError):
        DnsProbe(name, tmp_path / "resolv.conf")


def test_gateway_of_the_lowest_metric_is_asked():
    assert parse_gateway((FIXTURES / "proc-host/net/route").read_bytes()) == "192.0.2.1"
    assert parse_gateway(b"Iface Destination\n") == ""


def routed(tmp_path, address):
    number = struct.unpack("=I", socket.inet_aton(address))[0]
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text(f"head\nlo 00000000 {number:08X} 0003 0 0 0 00000000 0 0 0\n")
    return tmp_path


@pytest.mark.parametrize("method", ["icmp", "tcp"])
def test_living_gateway_is_ok_by_echo_or_by_refusal(tmp_path, method):
    probe = GatewayProbe(routed(tmp_path, "127.0.0.1"))
    probe.method = method
    (sample,) = run(probe)
    assert sample.values["probe.gateway_ok"] == 1.0
    assert sample.values["probe.gateway_s"] < 1.0


def test_gateway_that_never_answered_is_named_once_and_not_called_dead(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text("head\n")
    (event,) = run(GatewayProbe(tmp_path))
    assert isinstance(event, Event)
    assert (event.name, event.action, event.attributes["reason"]) == (
        "probe.gateway",
        "absent",
        "no default route",
    )


def test_gateway_that_stops_answering_is_not_ok(tmp_path):
    proc = routed(tmp_path, "127.0.0.1")
    probe = GatewayProbe(proc)
    probe.try_s = 0.2
    collector = ProbeCollector([probe], 1.0)
    collector.open()
    seen = []
    end = time.monotonic() + 6.0
    while time.monotonic() < end and len(seen) < 2:
        seen += collector.read(now())
        if seen:
            (proc / "net/route").write_text("head\n")  # the route is lost
        select.select([collector.fileno()], [], [], min(0.2, collector.interval_s))
    assert [sample.values["probe.gateway_ok"] for sample in seen] == [1.0, 0.0]
    collector.close()


def test_failure_is_confirmed_within_seconds_and_not_only_after_the_interval(tmp_path):
    """With a probe every 30 s nobody waits half a minute longer to hear what two seconds can tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        probe = DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), sock.getsockname()[1])
        probe.try_s = 0.1
        collector = ProbeCollector([probe], 30.0)
        collector.open()
        at, verdicts = 1000.0, []
        while at < 1012.0:
            found = collector.read(Stamp("boot", at, at))
            verdicts += [(at, one.values["probe.dns_ok"]) for one in found]
            at += 0.25
        collector.close()
    assert [ok for _, ok in verdicts] == [
        0.0,
        0.0,
    ]  # confirmed, and then left alone until the interval is over
    first, second = (t for t, _ in verdicts)
    assert 2.0 <= second - first <= 4.0
    assert 30.0 - 13.0 < collector.interval_s <= 30.0


def test_confirmation_ends_with_the_first_answer(tmp_path, server):
    port, replies = server
    replies.extend([lambda query: answer(query, 2)] * 3)
    probe = DnsProbe("example.org", resolv(tmp_path, "127.0.0.1"), port)
    collector = ProbeCollector([probe], 30.0)
    collector.open()
    seen, end = [], time.monotonic() + 6.0
    while time.monotonic() < end and len(seen) < 2:
        seen += collector.read(now())
        select.select([collector.fileno()], [], [], min(0.2, collector.interval_s))
    collector.close()
    assert [one.values["probe.dns_ok"] for one in seen] == [0.0, 1.0]
    assert probe.failures == 0
