"""The process that asks a served model for the top stage: one question at a time, over http.

It alone of the top tier opens an address, and only the configured one. It exists while there is something to
ask, reads nothing but its socket and the key, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec

from daemon.errors import ChatError, ConfigError
from daemon.ingest import redact
from daemon.inquiries import (
    MAX_ANSWER,
    MAX_FRAME_BYTES,
    Ask,
    Connect,
    Said,
    Told,
    Unsaid,
    decode_request,
    encode,
    key_of,
)
from daemon.settings import Served
from daemon.stages.process import inherited_channel, name_process
from daemon.stages.scorer import be_humble
from models.chat import Chat, Request

REASON_CHARS = 1000
KEPT_REQUESTS = 4


def run_explainer() -> int:
    """Answer on the socket that is the standard input until the stage is gone; the exit code."""
    channel = inherited_channel("explainer")
    name_process("hauswart-served")
    be_humble(0)  # it waits, and computes next to nothing
    serve(channel)
    return 0


def serve(channel: socket.socket) -> None:
    """Ask what the frames say; the first holds the settings."""
    with channel:
        first = _receive(channel)
        if not isinstance(first, Connect):
            return
        asker: Asker | str
        try:
            asker = Asker(first.settings)
        except ConfigError as error:
            asker = str(error)
        while isinstance(frame := _receive(channel), Ask):
            _send(channel, Unsaid(frame.id, "config", asker) if isinstance(asker, str) else asker.ask(frame))


class Asker:
    """One server. Raises ConfigError where the settings allow no request to it."""

    def __init__(self, settings: Served) -> None:
        self._settings = settings
        self._requests: list[Told] = []
        self._loose = False  # the server does not take a schema; ours holds all the same
        self._chat = Chat(
            settings.url,
            what="evidence",
            redact=redact,
            model=settings.model,
            key=key_of(settings),
            consent=settings.consent,
            timeout_s=settings.timeout_s,
            audit=self._keep,
        )

    def ask(self, frame: Ask) -> Said | Unsaid:
        """The answer, or why there is none."""
        self._requests, self._chat.timeout_s = [], frame.timeout_s
        body: dict[str, Any] = {**self._settings.parameters, "max_tokens": self._settings.max_tokens}
        try:
            answer = self._ask(frame, body)
        except ChatError as error:
            reason = f"{error}; {error.hint}" if error.hint else str(error)
            return Unsaid(frame.id, error.kind, reason[:REASON_CHARS], self._requests, error.retry_after_s)
        if len(answer.text) > MAX_ANSWER:
            return Unsaid(frame.id, "broken", f"answers {len(answer.text)} characters", self._requests)
        return Said(frame.id, answer.text, answer.model, self._requests)

    def _ask(self, frame: Ask, body: dict[str, Any]) -> Any:
        if not self._loose:
            try:
                return self._chat.ask(frame.messages, **body, response_format=frame.response_format)
            except ChatError as error:
                if error.kind != "refused":
                    raise
        answer = self._chat.ask(frame.messages, **body)
        self._loose = True
        return answer

    def _keep(self, request: Request) -> None:
        if len(self._requests) < KEPT_REQUESTS:
            self._requests.append(Told(*request))


def _receive(channel: socket.socket) -> Connect | Ask | None:
    try:
        data = channel.recv(MAX_FRAME_BYTES + 1)
        return decode_request(data) if data else None
    except (OSError, msgspec.MsgspecError):
        return None


def _send(channel: socket.socket, frame: Said | Unsaid) -> None:
    data = encode(frame)
    if len(data) > MAX_FRAME_BYTES:
        data = encode(Unsaid(frame.id, "broken", "answers more than fits a frame", frame.requests))
    with contextlib.suppress(OSError):  # the stage is gone, and this process with it
        channel.send(data)
