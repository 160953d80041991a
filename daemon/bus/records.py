"""The request edge: a record is sent until the middle tier answers that it is committed or refused."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq

from daemon.bus.endpoint import Wire, receive_parts
from daemon.bus.frames import (
    PROTOCOL_VERSION,
    Drop,
    Request,
    Response,
    decode_header,
    encode_header,
    new_epoch,
)
from daemon.errors import REFUSED, HauswartError
from daemon.messages import Record, Refused, Reply

EDGE = "records"
MAX_RECORD_BYTES = 1 << 20  # advice in eight languages at its longest is half of it
RETRY_S = 1.0
RECEIVE_LIMIT = 16
RECEIVE_AT_ONCE = 32
REMEMBERED = 1024  # answers kept for requests that come again

_record_decoder = msgspec.msgpack.Decoder(Record)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


@dataclass(frozen=True)
class Asked:
    """One request to be answered."""

    identity: bytes
    epoch: int
    number: int
    record: Record


class RecordsServer:
    """The middle tier's end: each request is handed out once, a repeated one gets the same answer again."""

    def __init__(self, wire: Wire) -> None:
        self.socket = wire.serve(zmq.ROUTER, EDGE, receive_limit=RECEIVE_LIMIT)
        self.drops: Counter[str] = Counter()
        self._answers: OrderedDict[tuple[int, int], Reply | None] = OrderedDict()  # None: being worked on

    def receive(self) -> list[Asked]:
        """New requests, at most RECEIVE_AT_ONCE; malformed ones are dropped and counted."""
        asked: list[Asked] = []
        for _ in range(RECEIVE_AT_ONCE):
            parts = receive_parts(self.socket)
            if parts is None:
                break
            found = self._take(parts)
            if isinstance(found, Drop):
                self.drops[found.value] += 1
            elif found is not None:
                asked.append(found)
        return asked

    def reply(self, asked: Asked, answer: Reply) -> None:
        """Answer a request, now and whenever it comes again."""
        self._answers[asked.epoch, asked.number] = answer
        self._send(asked.identity, asked.epoch, asked.number, answer)

    def _take(self, parts: list[bytes]) -> Asked | Drop | None:
        identity, *rest = parts
        if rest == [b""]:  # the probe that opens each connection
            return None
        if len(rest) != 2:
            return Drop.MALFORMED
        header = decode_header(rest[0], EDGE)
        if not isinstance(header, Request):
            return header if isinstance(header, Drop) else Drop.MALFORMED
        if len(rest[1]) > MAX_RECORD_BYTES:
            return Drop.OVERSIZED
        key = (header.epoch, header.number)
        if key in self._answers:
            known = self._answers[key]
            if known is not None:
                self._send(identity, *key, known)
            return Drop.REPLAYED
        return self._open(identity, header, rest[1])

    def _open(self, identity: bytes, header: Request, payload: bytes) -> Asked | Drop:
        try:
            record: Record = _record_decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._send(identity, header.epoch, header.number, Refused(header.number, str(error)[:500]))
            return Drop.PAYLOAD
        self._answers[header.epoch, header.number] = None
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return Asked(identity, header.epoch, header.number, record)

    def _send(self, identity: bytes, epoch: int, number: int, answer: Reply) -> None:
        header = encode_header(Response(PROTOCOL_VERSION, EDGE, epoch, number))
        try:
            self.socket.send_multipart((identity, header, msgspec.msgpack.encode(answer)), zmq.NOBLOCK)
        except zmq.Again:
            self.drops["unsent"] += 1  # the client asks again


class RecordsClient:
    """Has the middle tier keep a record; for the other stages and the command line."""

    def __init__(self, runtime: Path, wire: Wire | None = None) -> None:
        self._wire, self._owns_wire = wire or Wire(runtime), wire is None
        self._socket = self._wire.reach(zmq.DEALER, EDGE, receive_limit=RECEIVE_LIMIT)
        self._epoch = new_epoch()
        self._number = 0
        self.drops: Counter[str] = Counter()

    def keep(self, record: Record, timeout_s: float) -> None:
        """Return once the record is committed; raises HauswartError if it is refused or not answered in time.

        After a time-out the record may or may not have been kept.
        """
        self._number += 1
        parts = (
            encode_header(Request(PROTOCOL_VERSION, EDGE, self._epoch, self._number)),
            msgspec.msgpack.encode(record),
        )
        if len(parts[1]) > MAX_RECORD_BYTES:
            raise HauswartError(f"a record of {len(parts[1])} bytes exceeds {MAX_RECORD_BYTES}")
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            answer = self._ask(parts, min(left_s, RETRY_S))
            if isinstance(answer, Refused):
                raise HauswartError(f"{REFUSED}: {answer.reason}")
            if answer is not None:
                return
        raise HauswartError(
            f"the middle tier did not answer within {timeout_s:g} s",
            hint="`hauswart status` shows whether it runs",
        )

    def close(self) -> None:
        """Close the client's own sockets."""
        if self._owns_wire:
            self._wire.close()

    def _ask(self, parts: tuple[bytes, bytes], wait_s: float) -> Reply | None:
        """Send once and wait for the matching answer; None if none came."""
        until_s = time.monotonic() + wait_s
        if self._socket.poll(int(wait_s * 1000), zmq.POLLOUT):
            self._socket.send_multipart(parts)
        while self._socket.poll(max(0, int((until_s - time.monotonic()) * 1000)) + 1):
            answer = self._match(receive_parts(self._socket) or [])
            if answer is not None:
                return answer
        return None

    def _match(self, parts: list[bytes]) -> Reply | None:
        header = decode_header(parts[0], EDGE) if len(parts) == 2 else Drop.MALFORMED
        if not isinstance(header, Response) or (header.epoch, header.number) != (self._epoch, self._number):
            self.drops[header.value if isinstance(header, Drop) else Drop.REPLAYED.value] += 1
            return None
        try:
            answer: Reply = _reply_decoder.decode(parts[1])
        except (msgspec.MsgspecError, ValueError):
            self.drops[Drop.PAYLOAD.value] += 1
            return None
        return answer if answer.request == self._number else None
