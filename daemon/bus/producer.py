"""The sending end of a flow edge: frames are numbered, go by credit, and are kept until acknowledged.

Knows nothing of what the messages mean beyond the outbox's classes; PROTOCOL.md is the specification.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import zmq
from msgspec import Struct

from daemon.bus.endpoint import Wire, receive_parts
from daemon.bus.frames import (
    PROTOCOL_VERSION,
    Announce,
    Batch,
    Drop,
    Grant,
    Hello,
    decode_header,
    encode_header,
    new_epoch,
)
from daemon.bus.outbox import Outbox, Tally

MAX_FRAME_MESSAGES = 1000  # sealed into one frame; the codec takes up to MAX_BATCH
HELD_BYTES = 8 << 20  # of frames not yet acknowledged; beyond it nothing more is framed
HELLO_AFTER_S = 2.0  # an unanswered producer introduces itself again
RECEIVE_LIMIT = 256  # grants that libzmq holds for us, each under 100 bytes


@dataclass(frozen=True)
class _Held:
    seq: int
    ticket: int
    header: bytes
    payload: bytes
    counts: dict[str, tuple[int, int]]


class FlowProducer:
    """The sending end: what is offered is queued, framed as credit allows, and resent until acknowledged.

    Poll `socket` for reading while `waiting`; otherwise acknowledgements may lie until the next `pump`.
    """

    def __init__(self, wire: Wire, edge: str) -> None:
        self.edge = edge
        self.epoch = new_epoch()
        self.socket = wire.reach(zmq.DEALER, edge, receive_limit=RECEIVE_LIMIT)
        self.outbox = Outbox()
        self.tally = Tally(offered=self.outbox.offered, gap=self.outbox.gap)
        self.drops: Counter[str] = Counter()
        self.acknowledged = 0  # ticket
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._sealed = self._sent = self._limit = 0  # frame numbers; the first frame is 1
        self._flushing = False
        self._heard_s = 0.0
        self._greeted = False  # no frame leaves between a hello and its answer, so that none is sent twice

    @property
    def room(self) -> bool:
        """Whether more lines may be read; samples and events may be offered in any case."""
        return self.outbox.room

    @property
    def waiting(self) -> bool:
        """Whether something is to leave and cannot until the consumer speaks."""
        return self._flushing or self._greeted or self._sent < self._sealed

    @property
    def drained(self) -> bool:
        """Whether all that was offered is acknowledged or counted as lost."""
        return not self._held and not len(self.outbox)

    def offer(self, messages: Sequence[Struct]) -> int:
        """Queue messages; all of them are done with once `acknowledged` reaches the ticket returned."""
        return self.outbox.offer(messages)

    def flush(self) -> None:
        """Send all that waits, now or as soon as there is credit."""
        self._flushing = len(self.outbox) > 0
        self.pump()

    def ask(self) -> None:
        """Have the consumer say what it acknowledged, without waiting for its next round."""
        self._greet()

    def pump(self) -> None:
        """Read what the consumer says, then send what may be sent; never blocks."""
        while (parts := receive_parts(self.socket)) is not None:
            self._hear(parts)
        now_s = time.monotonic()
        if (self.waiting or self._held) and now_s - self._heard_s > HELLO_AFTER_S:
            self._greet()
            self._heard_s = now_s  # greet once a period, not once a call
        self._send()

    def _send(self) -> None:
        while not self._greeted and (self._sent < self._sealed or (self._flushing and self._seal())):
            if self._sent >= self._limit:
                return
            held = self._held[self._sent - self._held[0].seq + 1]
            if not self._put(held.header, held.payload):
                return
            self._sent += 1
        self._flushing = self._flushing and len(self.outbox) > 0

    def _seal(self) -> bool:
        if self._sealed >= self._limit or self._held_bytes > HELD_BYTES:
            return False
        parcel = self.outbox.seal(MAX_FRAME_MESSAGES)
        if parcel is None:
            return False
        self._sealed += 1
        header = Batch(PROTOCOL_VERSION, self.edge, self.epoch, self._sealed, parcel.counts)
        self._held.append(
            _Held(self._sealed, parcel.ticket, encode_header(header), parcel.payload, parcel.counts)
        )
        self._held_bytes += len(parcel.payload)
        return True

    def _hear(self, parts: list[bytes]) -> None:
        header = decode_header(parts[0], self.edge) if len(parts) == 1 else Drop.MALFORMED
        if isinstance(header, Announce):
            self._greet()
        elif isinstance(header, Grant) and header.to == self.epoch and header.done <= self._sealed:
            self._accept(header)
        else:
            self.drops[header.value if isinstance(header, Drop) else Drop.FOREIGN.value] += 1
            return
        self._heard_s = time.monotonic()

    def _accept(self, grant: Grant) -> None:
        while self._held and self._held[0].seq <= grant.done:
            held = self._held.popleft()
            self._held_bytes -= len(held.payload)
            self.acknowledged = held.ticket
            for source, (offered, dropped) in held.counts.items():
                self.tally.delivered[source] += offered - dropped
        self._limit = grant.limit
        first = self._held[0].seq if self._held else self._sealed + 1
        if grant.rewind:
            self._greeted = False
            self._sent = min(grant.next - 1, self._sealed)
        self._sent = max(self._sent, first - 1)

    def _greet(self) -> None:
        first = self._held[0].seq if self._held else self._sealed + 1
        self._greeted = self._put(encode_header(Hello(PROTOCOL_VERSION, self.edge, self.epoch, first)))

    def _put(self, *parts: bytes) -> bool:
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
