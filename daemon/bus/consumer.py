"""The receiving end of a flow edge: grants credit, takes frames in order, acknowledges what was done.

Knows nothing of what the messages mean; PROTOCOL.md is the specification.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import zmq

from daemon.bus.endpoint import Wire, receive_parts
from daemon.bus.frames import (
    PROTOCOL_VERSION,
    Announce,
    Batch,
    Drop,
    Grant,
    Header,
    Hello,
    decode_header,
    encode_header,
    new_epoch,
)
from daemon.bus.ledger import Ledger
from daemon.bus.outbox import Tally
from daemon.codec import MAX_BATCH_BYTES, BatchDecoder
from daemon.errors import FrameError

T = TypeVar("T")

CREDIT = (
    8  # frames sent ahead of the work: 8,000 lines, or 0.2 s of a flood; more costs memory, gains nothing
)
WINDOW = 256  # frames done but not yet acknowledged: over four minutes at 1 Hz without a middle tier
RECEIVE_LIMIT = (
    16  # frames of one peer that libzmq holds for us; what lies beyond waits in the peer's process
)
RECEIVE_AT_ONCE = (
    64  # messages read in one call, dropped ones included, so that a flood cannot hold the stage
)
MAX_EPOCHS = 8  # producers remembered


@dataclass(frozen=True)
class Arrival(Generic[T]):
    """One frame in order; `gap` counts by source what was given up since the frame before."""

    epoch: int
    seq: int
    messages: Sequence[T]
    gap: dict[str, int]


@dataclass
class _Producer:
    """What is known of one producer: frame numbers received, released (credit returned) and done."""

    received: int
    released: int
    done: int


class FlowConsumer(Generic[T]):
    """Takes frames from one producer at a time: poll `socket`, `receive`, work, `acknowledge`, `answer`.

    `release` returns the credit of a frame whose acknowledgement has to wait; `acknowledge` does both.
    `answer` sends what changed and is to be called once a round.
    """

    def __init__(self, wire: Wire, edge: str, decoder: BatchDecoder[T]) -> None:
        self.edge = edge
        self.epoch = new_epoch()
        self.socket = wire.serve(zmq.ROUTER, edge, receive_limit=RECEIVE_LIMIT)
        self.tally = Tally()
        self.drops: Counter[str] = Counter()
        self.heard_s: float | None = None  # monotonic time of the last frame or hello of a producer
        self._decoder = decoder
        self._ledger = Ledger(wire.runtime / edge / "done")
        self._identity = b""
        self._current = -1  # the producer's epoch
        self._producers: OrderedDict[int, _Producer] = OrderedDict()
        self._told = (-1, -1)  # done and limit of the last grant
        self._complained = False
        if (last := self._ledger.read()) is not None:
            self._producers[last[0]] = _Producer(last[1], last[1], last[1])

    def receive(self, limit: int = RECEIVE_AT_ONCE) -> list[Arrival[T]]:
        """The frames that arrived in order, at most `limit`; all else is dropped and counted.

        Never blocks or raises.
        """
        arrivals: list[Arrival[T]] = []
        for _ in range(RECEIVE_AT_ONCE):
            if len(arrivals) >= limit:
                break
            parts = receive_parts(self.socket)
            if parts is None:
                break
            found = self._take(parts)
            if isinstance(found, Drop):
                self.drops[found.value] += 1
            elif found is not None:
                arrivals.append(found)
        return arrivals

    def release(self, arrival: Arrival[T]) -> None:
        """The frame's work is under way elsewhere: let the producer send another one."""
        producer = self._producers.get(arrival.epoch)
        if producer is not None:
            producer.released = max(producer.released, arrival.seq)

    def acknowledge(self, arrival: Arrival[T]) -> None:
        """All frames up to this one are done for good; the producer may forget them."""
        self.release(arrival)
        producer = self._producers.get(arrival.epoch)
        if producer is not None and arrival.seq > producer.done:
            producer.done = arrival.seq
            if arrival.epoch == self._current:
                self._remember(arrival)

    def answer(self) -> None:
        """Tell the producer what is acknowledged and how far it may send, if that changed."""
        producer = self._producers.get(self._current)
        if producer is not None and self._told != (producer.done, _limit(producer)):
            self._grant(producer, rewind=False)

    def close(self) -> None:
        """Close the ledger; the socket goes with its wire."""
        self._ledger.close()

    def _remember(self, arrival: Arrival[T]) -> None:
        try:
            self._ledger.write(arrival.epoch, arrival.seq)
        except OSError:  # the runtime directory is full: after a crash, frames done may come again
            self.drops["ledger"] += 1

    def _take(self, parts: list[bytes]) -> Arrival[T] | Drop | None:
        identity, *rest = parts
        if rest == [b""]:  # the probe that opens each connection
            self._put(identity, Announce(PROTOCOL_VERSION, self.edge, self.epoch))
            return None
        if len(rest) not in {1, 2}:
            return Drop.MALFORMED
        header = decode_header(rest[0], self.edge)
        if isinstance(header, Hello) and len(rest) == 1:
            self._welcome(identity, header)
            return None
        if isinstance(header, Batch) and len(rest) == 2:
            return self._check(identity, header, rest[1])
        return header if isinstance(header, Drop) else Drop.MALFORMED

    def _welcome(self, identity: bytes, hello: Hello) -> None:
        self._identity, self._current = identity, hello.epoch
        self.heard_s = time.monotonic()
        producer = self._producers.setdefault(hello.epoch, _Producer(0, 0, 0))
        if hello.first > producer.received + 1:
            producer.received = producer.released = producer.done = hello.first - 1
        self._producers.move_to_end(hello.epoch)
        if len(self._producers) > MAX_EPOCHS:
            self._producers.popitem(last=False)
        self._grant(producer, rewind=True)

    def _check(self, identity: bytes, header: Batch, payload: bytes) -> Arrival[T] | Drop:
        if identity != self._identity or header.epoch != self._current:
            self._put(identity, Announce(PROTOCOL_VERSION, self.edge, self.epoch))
            return Drop.FOREIGN
        producer = self._producers[self._current]
        if header.seq <= producer.received:
            return Drop.REPLAYED
        if header.seq > producer.received + 1:
            if not self._complained:
                self._grant(producer, rewind=True)
                self._complained = True
            return Drop.ORDER
        if header.seq > _limit(producer):
            return Drop.CREDIT
        producer.received = header.seq
        self._complained = False
        self.heard_s = time.monotonic()
        return self._open(header, payload)

    def _open(self, header: Batch, payload: bytes) -> Arrival[T]:
        """Decode a frame that is in order; one that cannot be decoded arrives empty, as a gap."""
        counts = {
            source: (offered, min(dropped, offered)) for source, (offered, dropped) in header.counts.items()
        }
        messages = self._decode(payload, sum(offered - dropped for offered, dropped in counts.values()))
        if messages is None:
            counts = {source: (offered, offered) for source, (offered, _) in counts.items()}
        self.tally.add(counts)
        gap = {source: dropped for source, (_, dropped) in counts.items() if dropped}
        return Arrival(header.epoch, header.seq, messages or (), gap)

    def _decode(self, payload: bytes, expected: int) -> Sequence[T] | None:
        try:
            messages = self._decoder.decode(payload)
        except FrameError:
            self.drops[Drop.OVERSIZED if len(payload) > MAX_BATCH_BYTES else Drop.PAYLOAD] += 1
            return None
        if len(messages) != expected:
            self.drops[Drop.PAYLOAD] += 1
            return None
        return messages

    def _grant(self, producer: _Producer, *, rewind: bool) -> None:
        limit = _limit(producer)
        self._told = (producer.done, limit)
        grant = Grant(
            PROTOCOL_VERSION,
            self.edge,
            self.epoch,
            self._current,
            producer.done,
            producer.received + 1,
            limit,
            rewind,
        )
        self._put(self._identity, grant)

    def _put(self, identity: bytes, header: Header) -> None:
        try:
            self.socket.send_multipart((identity, encode_header(header)), zmq.NOBLOCK)
        except zmq.Again:
            self.drops["unsent"] += 1  # a peer that does not read; it will greet again


def _limit(producer: _Producer) -> int:
    return min(producer.released + CREDIT, producer.done + WINDOW)
