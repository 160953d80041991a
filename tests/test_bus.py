"""The bus through real sockets: order, credit, acknowledgement, loss accounted for, and hostile frames."""

import os
import stat
import time
from collections import Counter

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.bus import (
    FlowConsumer,
    FlowProducer,
    RecordsClient,
    RecordsServer,
    WakeListener,
    WakePublisher,
    Wire,
)
from daemon.bus.consumer import CREDIT, WINDOW
from daemon.bus.endpoint import MAX_FRAME_BYTES, MAX_SOCKET_PATH
from daemon.bus.frames import (
    MAX_HEADER_BYTES,
    MAX_SOURCES,
    Batch,
    Drop,
    Hello,
    decode_header,
    encode_header,
)
from daemon.bus.outbox import MAX_EVENTS, MAX_LINES, MAX_SAMPLES, ROOM_LINES, Outbox
from daemon.bus.producer import MAX_FRAME_MESSAGES
from daemon.codec import MAX_BATCH_BYTES, encode, observation_decoder
from daemon.errors import HauswartError, LockedError
from daemon.messages import (
    Committed,
    Event,
    KeepDelivery,
    Line,
    Refused,
    Sample,
    Snapshot,
    Stamp,
    Wake,
)

AT = Stamp("b" * 32, 10.0, 1000.0)


def line(number, source="journal", text=None):
    return Line(AT, source, text or f"line {number}", cursor=str(number))


def sample(number, source="host"):
    return Sample(AT, source, {"cpu.busy": float(number)})


def event(number):
    return Event(AT, "udev", "device", f"sd{number}", "remove")


class Edge:
    """A consumer and a producer that can each die and come back."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.received = []
        self.sender_wire = Wire(runtime)
        self.producer = FlowProducer(self.sender_wire, "low")
        self.start_consumer()

    def start_consumer(self):
        self.wire = Wire(self.runtime)
        self.consumer = FlowConsumer(self.wire, "low", observation_decoder())

    def stop_consumer(self):
        self.consumer.close()
        self.wire.close()

    def start_producer(self):
        self.sender_wire.close()
        self.sender_wire = Wire(self.runtime)
        self.producer = FlowProducer(self.sender_wire, "low")

    def pump(self, *, acknowledge=True):
        self.producer.flush()
        if self.consumer.socket.closed:
            return []
        arrivals = self.consumer.receive()
        for arrival in arrivals:
            self.received += arrival.messages
            if acknowledge:
                self.consumer.acknowledge(arrival)
        self.consumer.answer()
        return arrivals

    def settle(self, until, *, acknowledge=True, within_s=5.0):
        arrivals = []
        end = time.monotonic() + within_s
        while not until() and time.monotonic() < end:
            arrivals += self.pump(acknowledge=acknowledge)
            time.sleep(0.002)
        assert until(), "the edge did not settle"
        return arrivals

    def close(self):
        self.sender_wire.close()
        if not self.consumer.socket.closed:
            self.stop_consumer()


@pytest.fixture
def edge(tmp_path):
    found = Edge(tmp_path)
    yield found
    found.close()


@pytest.fixture
def raw(edge):
    """A peer that speaks raw frames to the edge's consumer."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.connect(f"ipc://{edge.runtime}/low/socket")
    yield socket
    socket.close()
    context.term()


def hear(edge, reason, count=1, within_s=3.0):
    end = time.monotonic() + within_s
    arrivals = []
    while edge.consumer.drops[reason] < count and time.monotonic() < end:
        arrivals += edge.consumer.receive()
        time.sleep(0.002)
    assert edge.consumer.drops[reason] == count
    return arrivals


# --- flow --------------------------------------------------------------------------------------------------


def test_all_messages_arrive_in_order_and_are_acknowledged(edge):
    sent = [line(i) if i % 20 else sample(i) for i in range(5000)]
    for start in range(0, 5000, 100):
        while not edge.producer.room:
            edge.pump()
        edge.producer.offer(sent[start : start + 100])
    edge.settle(lambda: edge.producer.drained)
    assert edge.received == sent
    assert edge.producer.acknowledged == 5000
    assert edge.consumer.tally.delivered == Counter(journal=4750, host=250) == edge.producer.tally.delivered
    assert not edge.consumer.tally.gap
    assert not edge.consumer.drops


def test_producer_never_has_more_than_its_credit_in_flight(edge):
    edge.producer.offer([sample(0)])
    edge.settle(lambda: edge.producer.drained)
    for i in range(CREDIT):
        edge.producer.offer([sample(i)])
        edge.settle(lambda n=i: len(edge.received) > n + 1, acknowledge=False)
    edge.producer.offer([sample(99)])
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        edge.pump(acknowledge=False)
    assert edge.producer.waiting
    assert edge.producer._sealed == edge.producer._sent == 1 + CREDIT
    assert sample(99) not in edge.received


def test_released_frames_return_credit_before_they_are_acknowledged(edge):
    arrivals = []
    for i in range(2 * CREDIT):
        edge.producer.offer([sample(i)])
        for arrival in edge.settle(lambda n=i: len(edge.received) > n, acknowledge=False):
            edge.consumer.release(arrival)
            arrivals.append(arrival)
    assert edge.producer.acknowledged == 0
    edge.consumer.acknowledge(arrivals[-1])
    edge.settle(lambda: edge.producer.drained)
    assert edge.producer.acknowledged == 2 * CREDIT


def test_unacknowledged_frames_are_bounded_by_the_window(edge):
    arrivals = 0
    end = time.monotonic() + 5.0
    while time.monotonic() < end and edge.producer._sealed < WINDOW:
        edge.producer.offer([line(0)])
        for arrival in edge.pump(acknowledge=False):
            edge.consumer.release(arrival)
            arrivals += 1
        edge.consumer.answer()
    for _ in range(50):
        edge.producer.offer([line(0)])
        edge.pump(acknowledge=False)
    assert edge.producer._sealed == WINDOW


def test_consumer_that_comes_back_gets_what_it_had_not_acknowledged_and_nothing_twice(edge):
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)
    edge.producer.offer([line(2)])
    edge.settle(lambda: len(edge.received) == 2, acknowledge=False)
    edge.stop_consumer()
    edge.producer.offer([line(3)])
    edge.producer.flush()
    edge.received.clear()
    edge.start_consumer()
    edge.settle(lambda: edge.producer.drained)
    assert [one.text for one in edge.received] == ["line 2", "line 3"]
    assert edge.consumer.tally.offered["journal"] == 2


def test_acknowledged_frame_is_known_to_the_next_consumer_when_its_answer_was_lost(edge):
    edge.producer.offer([line(1)])
    arrivals = edge.settle(lambda: len(edge.received) == 1, acknowledge=False)
    edge.consumer.acknowledge(arrivals[0])  # without answer(): killed in between
    edge.stop_consumer()
    edge.received.clear()
    edge.start_consumer()
    edge.settle(lambda: edge.producer.drained)
    assert edge.received == []
    assert edge.producer.tally.delivered["journal"] == 1


def test_new_producer_starts_where_the_dead_one_ended(edge):
    for i in range(3):
        edge.producer.offer([line(i)])
        edge.settle(lambda: edge.producer.drained)
    edge.start_producer()
    edge.producer.offer([line(3)])
    edge.settle(lambda: edge.producer.drained)
    assert [one.cursor for one in edge.received] == ["0", "1", "2", "3"]
    assert not edge.consumer.drops


def test_producer_may_start_long_before_its_consumer(tmp_path):
    wire = Wire(tmp_path)
    producer = FlowProducer(wire, "low")
    producer.offer([line(i) for i in range(10)])
    producer.flush()
    assert producer.waiting
    consumer_wire = Wire(tmp_path)
    consumer = FlowConsumer(consumer_wire, "low", observation_decoder())
    end, got = time.monotonic() + 5, []
    while len(got) < 10 and time.monotonic() < end:
        producer.pump()
        for arrival in consumer.receive():
            got += arrival.messages
        consumer.answer()
    assert len(got) == 10
    consumer.close()
    consumer_wire.close()
    wire.close()


def test_what_cannot_be_written_down_is_lost_and_named_and_takes_nothing_with_it():
    box = Outbox()
    box.offer([line(1), line(2, text="a\udcff.log"), line(3)])
    carried = []
    while parcel := box.seal(10):
        carried += observation_decoder().decode(parcel.payload)
    assert [one.text for one in carried] == ["line 1", "line 3"]
    assert box.gap == {"journal": 1}


def test_names_of_sources_are_bounded(monkeypatch):
    monkeypatch.setattr("daemon.bus.outbox.MAX_TALLIED", 8)
    box = Outbox()
    box.offer([line(number, f"file:/{number}") for number in range(40)])
    assert len(box.offered) == 9
    assert box.offered.total() == 40
    counted = Counter()
    while parcel := box.seal(10):
        counted.update({source: offered for source, (offered, _) in parcel.counts.items()})
    assert counted == box.offered


def test_offered_is_delivered_plus_gap_for_each_source_when_the_queue_overflowed(edge):
    edge.stop_consumer()
    for i in range(MAX_SAMPLES + 250):
        edge.producer.offer([sample(i, "host" if i % 2 else "disks")])
    edge.producer.offer([line(i) for i in range(MAX_LINES + 77)])
    edge.producer.offer([event(i) for i in range(MAX_EVENTS + 5)])
    edge.start_consumer()
    edge.settle(lambda: edge.producer.drained)
    tally = edge.consumer.tally
    assert tally.gap == Counter(host=125, disks=125, journal=77, udev=5)
    assert tally.offered == edge.producer.outbox.offered
    for source in tally.offered:
        assert tally.offered[source] == tally.delivered[source] + tally.gap[source]
    assert tally.delivered == Counter(one.source for one in edge.received)
    assert edge.received[-1] == event(MAX_EVENTS - 1)


def test_full_queue_keeps_the_newest_samples():
    box = Outbox()
    box.offer([sample(i) for i in range(MAX_SAMPLES + 3)])
    parcel = box.seal(4096)
    kept = observation_decoder().decode(parcel.payload)
    assert kept[0] == sample(3)
    assert kept[-1] == sample(MAX_SAMPLES + 2)
    assert parcel.counts == {"host": (MAX_SAMPLES + 3, 3)}


def test_lines_make_no_room_before_any_is_lost():
    box = Outbox()
    box.offer([line(i) for i in range(ROOM_LINES)])
    assert not box.room
    box.offer([line(i) for i in range(MAX_LINES - ROOM_LINES)])
    assert not box.gap
    assert box.seal(MAX_FRAME_MESSAGES)
    box.offer([line(0)])
    assert not box.gap


def test_long_lines_make_no_room_by_their_text():
    box = Outbox()
    box.offer([line(0, text="x" * 2048) for _ in range(1025)])
    assert not box.room


def test_parcel_that_is_too_large_is_split_and_nothing_is_lost():
    box = Outbox()
    fat = {f"{'k' * 500}{n}": "v" * 4000 for n in range(60)}
    lines = [Line(AT, "journal", f"{i}", fields=fat) for i in range(40)]
    box.offer(lines)
    got = []
    while parcel := box.seal(1000):
        assert len(parcel.payload) <= MAX_BATCH_BYTES
        got += observation_decoder().decode(parcel.payload)
    assert got == lines
    assert not box.gap
    assert box.lines == 0


def test_message_that_is_too_large_alone_is_lost_and_counted():
    box = Outbox()
    huge = Snapshot(AT, "host", "jump", [], {f"{'p' * 500}{n}": 1.0 for n in range(9000)})
    box.offer([huge, line(1)])
    parcel = box.seal(1)
    assert observation_decoder().decode(parcel.payload) == [line(1)]
    assert parcel.counts == {"journal": (1, 0), "host": (1, 1)}


def test_more_sources_than_a_header_names_share_one_count():
    box = Outbox()
    box.offer([line(i, source=f"file:/{i}") for i in range(MAX_SOURCES + 20)])
    counts = box.seal(1000).counts
    assert len(counts) == MAX_SOURCES + 1
    assert counts["*"] == (20, 0)


# --- hostile frames ----------------------------------------------------------------------------------------


def batch_frame(epoch, seq, messages=(), counts=None):
    found = (
        counts if counts is not None else {s: (n, 0) for s, n in Counter(m.source for m in messages).items()}
    )
    return [encode_header(Batch(1, "low", epoch, seq, found)), encode(messages)]


def bombs():
    return {
        "random": b"\x93\x00\x7f\xff" * 50,
        "empty map": b"\x80",
        "deep nesting": b"\x91" * 60000,
        "deep maps": b"\x81\xa1v" * 20000,
        "huge map": b"\xdf\xff\xff\xff\xff",
        "huge array": b"\xdd\xff\xff\xff\xff",
        "huge string": b"\xdb\xff\xff\xff\xff",
        "timestamp": msgpack.packb({"v": msgpack.Timestamp(1, 1)}),
        "not a map": msgpack.packb([1, 2]),
        "unknown tag": msgpack.packb({"t": "steal", "v": 1, "edge": "low"}),
        "number out of range": msgpack.packb({"t": "hello", "v": 1, "edge": "low", "epoch": -1, "first": 1}),
        "version is text": msgpack.packb({"t": "hello", "v": "1", "edge": "low", "epoch": 1, "first": 1}),
        "trailing bytes": encode_header(Hello(1, "low", 1, 1)) + b"\x00",
        "many sources": msgpack.packb(
            {
                "t": "batch",
                "v": 1,
                "edge": "low",
                "epoch": 1,
                "seq": 1,
                "counts": {str(n): [1, 0] for n in range(999)},
            }
        ),
    }


@pytest.mark.parametrize("name", bombs())
def test_malformed_header_is_dropped_and_the_edge_goes_on(edge, raw, name):
    raw.send_multipart([bombs()[name], b"\x90"])
    hear(edge, Drop.MALFORMED)
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)
    assert edge.received == [line(1)]


def test_frame_with_wrong_number_of_parts_is_dropped(edge, raw):
    raw.send_multipart([b"a", b"b", b"c"])
    raw.send_multipart([encode_header(Hello(1, "low", 5, 1)), b"surplus"])
    hear(edge, Drop.MALFORMED, 2)


def test_oversized_header_is_dropped(edge, raw):
    raw.send_multipart([b"\x80" * (MAX_HEADER_BYTES + 1), b""])
    hear(edge, Drop.OVERSIZED)


def test_frame_of_another_version_or_edge_is_dropped(edge, raw):
    raw.send(encode_header(Hello(2, "low", 5, 1)))
    raw.send(encode_header(Hello(1, "middle", 5, 1)))
    hear(edge, Drop.VERSION)
    hear(edge, Drop.EDGE)


def test_frame_from_a_peer_that_did_not_introduce_itself_is_foreign(edge, raw):
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)
    raw.send_multipart(batch_frame(edge.producer.epoch, 2, [line(666)]))
    hear(edge, Drop.FOREIGN)
    edge.producer.offer([line(2)])
    edge.settle(lambda: edge.producer.drained)
    assert edge.received == [line(1), line(2)]


def test_replayed_frame_is_dropped(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    for _ in range(2):
        raw.send_multipart(batch_frame(7, 1, [line(1)]))
    arrivals = hear(edge, Drop.REPLAYED)
    assert [arrival.seq for arrival in arrivals] == [1]


def test_frame_out_of_order_is_dropped_and_the_missing_one_is_asked_for(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    raw.send_multipart(batch_frame(7, 3, [line(3)]))
    hear(edge, Drop.ORDER)
    grants = []
    while raw.poll(500):
        grants.append(decode_header(raw.recv_multipart()[0], "low"))
    assert grants[-1].rewind
    assert grants[-1].next == 1


def test_frame_beyond_the_credit_is_dropped(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    for seq in range(1, CREDIT + 3):
        raw.send_multipart(batch_frame(7, seq, [line(seq)]))
    hear(edge, Drop.CREDIT)


def test_undecodable_payload_becomes_a_gap_of_its_sources(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    raw.send_multipart([batch_frame(7, 1, counts={"journal": (5, 2)})[0], b"\xc1garbage"])
    raw.send_multipart(batch_frame(7, 2, [line(1)]))
    arrivals = hear(edge, Drop.PAYLOAD)
    while len(arrivals) < 2:
        arrivals += edge.consumer.receive()
    assert (arrivals[0].messages, arrivals[0].gap) == ((), {"journal": 5})
    assert list(arrivals[1].messages) == [line(1)]
    tally = edge.consumer.tally
    assert (tally.offered["journal"], tally.delivered["journal"], tally.gap["journal"]) == (6, 1, 5)


def test_payload_that_does_not_match_its_counts_becomes_a_gap(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    raw.send_multipart(batch_frame(7, 1, [line(1)], counts={"journal": (9, 0)}))
    hear(edge, Drop.PAYLOAD)
    assert edge.consumer.tally.gap["journal"] == 9


def test_oversized_payload_is_dropped_as_such(edge, raw):
    raw.send(encode_header(Hello(1, "low", 7, 1)))
    raw.send_multipart([batch_frame(7, 1, counts={"journal": (1, 0)})[0], b"\x00" * (MAX_BATCH_BYTES + 1)])
    hear(edge, Drop.OVERSIZED)


def test_message_beyond_the_transports_limit_never_reaches_the_consumer(edge, raw):
    raw.send(b"\x00" * (MAX_FRAME_BYTES + 1))
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)
    assert edge.received == [line(1)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_random_frames_are_never_fatal(edge, raw, parts):
    raw.send_multipart(parts)
    edge.consumer.receive()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_decode_to_a_header_or_a_reason(data):
    decode_header(data, "low")


FIELDS = ("epoch", "seq", "first", "counts", "to", "done", "next", "limit", "rewind")
_names = st.text(max_size=20)
_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | _names
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "t": st.sampled_from(["hello", "batch", "grant", "request", 3]),
            "v": st.just(1) | _junk,
            "edge": st.just("low"),
        },
        optional=dict.fromkeys(
            ("epoch", "seq", "first", "counts", "to", "done", "next", "limit", "rewind"), _junk
        ),
    )
)
def test_any_fields_decode_to_a_header_or_a_reason(fields):
    found = decode_header(msgpack.packb(fields), "low")
    assert isinstance(found, Drop) or found.edge == "low"


# --- endpoints ---------------------------------------------------------------------------------------------


def test_second_consumer_is_told_who_holds_the_edge(edge):
    wire = Wire(edge.runtime)
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        FlowConsumer(wire, "low", observation_decoder())
    wire.close()
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)


def test_stale_socket_file_is_replaced(tmp_path):
    (tmp_path / "low").mkdir(mode=0o750)
    (tmp_path / "low/socket").write_text("left behind")
    edge = Edge(tmp_path)
    edge.producer.offer([line(1)])
    edge.settle(lambda: edge.producer.drained)
    edge.close()


def test_directory_and_socket_are_closed_to_others(edge):
    directory = edge.runtime / "low"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert stat.S_IMODE((directory / "socket").stat().st_mode) == 0o660


def test_directory_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "low").mkdir()
    (tmp_path / "low").chmod(0o777)
    wire = Wire(tmp_path)
    with pytest.raises(HauswartError, match="mode 777"):
        FlowConsumer(wire, "low", observation_decoder())
    wire.close()


def test_socket_path_beyond_the_kernels_limit_is_a_clear_error(tmp_path):
    wire = Wire(tmp_path / ("d" * MAX_SOCKET_PATH))
    with pytest.raises(HauswartError, match=f"Unix sockets allow {MAX_SOCKET_PATH}"):
        FlowProducer(wire, "low")
    wire.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_peer_of_another_user_is_not_heard(edge):
    edge.runtime.chmod(0o755)
    for parent in edge.runtime.parents:
        if parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    (edge.runtime / "low").chmod(0o755)
    (edge.runtime / "low/socket").chmod(0o666)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        socket = zmq.Context().socket(zmq.DEALER)
        socket.connect(f"ipc://{edge.runtime}/low/socket")
        socket.send(b"intruder")
        time.sleep(0.5)
        os._exit(0)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        edge.consumer.receive()
        time.sleep(0.01)
    os.waitpid(pid, 0)
    assert edge.wire.checks_peers
    assert not edge.consumer.drops


# --- records and wake --------------------------------------------------------------------------------------

RECORD = KeepDelivery("i1", 1, "hook", ok=True, at=5.0)


def serve_in_child(runtime, behave):
    """A server in another process; `behave(server, asked, n)` answers the n-th request."""
    pid = os.fork()
    if pid:
        return pid
    wire = Wire(runtime)
    server = RecordsServer(wire)
    for n in range(1000):
        while not (asked := server.receive()):
            server.socket.poll(1000)
        for one in asked:
            behave(server, one, n)
    os._exit(0)


def stop(pid):
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_record_is_kept_once_it_is_committed(tmp_path):
    pid = serve_in_child(tmp_path, lambda server, asked, n: server.reply(asked, Committed(asked.number)))
    client = RecordsClient(tmp_path)
    client.keep(RECORD, 5.0)
    client.keep(RECORD, 5.0)
    client.close()
    stop(pid)


def test_refused_record_raises_with_the_reason(tmp_path):
    pid = serve_in_child(
        tmp_path, lambda server, asked, n: server.reply(asked, Refused(asked.number, "no such incident"))
    )
    client = RecordsClient(tmp_path)
    with pytest.raises(HauswartError, match="no such incident"):
        client.keep(RECORD, 5.0)
    client.close()
    stop(pid)


def test_unanswered_record_times_out_with_an_error(tmp_path):
    client = RecordsClient(tmp_path)
    started = time.monotonic()
    with pytest.raises(HauswartError, match=r"within 0\.3 s"):
        client.keep(RECORD, 0.3)
    assert 0.2 < time.monotonic() - started < 2.0
    client.close()


def test_repeated_request_is_handed_out_once_and_answered_each_time(tmp_path):
    wire = Wire(tmp_path)
    server = RecordsServer(wire)
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(f"ipc://{tmp_path}/records/socket")
    request = [
        msgpack.packb({"t": "request", "v": 1, "edge": "records", "epoch": 9, "number": 4}),
        msgpack.packb(
            {
                "type": "keep-delivery",
                "incident_id": "i",
                "revision": 1,
                "target": "hook",
                "ok": True,
                "at": 1.0,
            }
        ),
    ]

    def ask():
        peer.send_multipart(request)
        assert server.socket.poll(2000)
        return server.receive()

    asked = ask()
    assert [one.number for one in asked] == [4]
    assert ask() == []
    server.reply(asked[0], Committed(4))
    assert ask() == []
    answers = [peer.recv_multipart() for _ in range(2)]
    assert answers[0] == answers[1]
    assert server.drops == Counter(replayed=2)
    peer.close(0)
    context.term()
    wire.close()


def test_undecodable_record_is_refused(tmp_path):
    wire = Wire(tmp_path)
    server = RecordsServer(wire)
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(f"ipc://{tmp_path}/records/socket")
    peer.send_multipart(
        [msgpack.packb({"t": "request", "v": 1, "edge": "records", "epoch": 9, "number": 4}), b"\xc1"]
    )
    assert server.socket.poll(2000)
    assert server.receive() == []
    assert peer.poll(2000)
    assert msgpack.unpackb(peer.recv_multipart()[1])["type"] == "refused"
    peer.close(0)
    context.term()
    wire.close()


def test_wake_reaches_a_listener_and_malformed_hints_do_not(tmp_path):
    wire, other = Wire(tmp_path), Wire(tmp_path)
    listener, publisher = WakeListener(other), WakePublisher(wire)
    hints, end = [], time.monotonic() + 5.0
    while not hints and time.monotonic() < end:
        publisher.socket.send_multipart([b"junk", b"junk"])
        publisher.publish(Wake("incidents", "i1"))
        time.sleep(0.01)
        hints = listener.drain()
    assert hints[0] == Wake("incidents", "i1")
    assert listener.drops[Drop.MALFORMED] >= 1
    other.close()
    wire.close()
