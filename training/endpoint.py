"""The served model that a command of training asks: its options, its key, retries and what it costs.

One place for all of them, so that consent, redaction and audit are the same everywhere (see `models.chat`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tenacity
import typer

from daemon.errors import ChatError, ConfigError
from daemon.ingest import redact
from models.chat import DEFAULT_URL, LEAVES, TIMEOUT_S, Answer, Chat, Message, Request, What

KEY_VARIABLE = "HAUSWART_CHAT_KEY"
ATTEMPTS = 5
_LONGEST_WAIT_S = 60.0
Tell = Callable[[str], None]

Url = Annotated[str, typer.Option("--url", help="A chat-completions server.")]
ModelName = Annotated[str, typer.Option("--model", help="The model's name there.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help=f"A file with the key; else ${KEY_VARIABLE}.")
]
Headers = Annotated[list[str] | None, typer.Option("--header", help="A further header, 'Name: value'.")]
Consents = Annotated[
    list[str] | None,
    typer.Option("--consent", help=f"What may leave this host for a server elsewhere: {', '.join(LEAVES)}."),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one answer.")]


class Endpoint(NamedTuple):
    """Where to ask; what a configuration file or the options above give."""

    url: str = DEFAULT_URL
    model: str = ""
    key_file: Path | None = None
    headers: Mapping[str, str] = {}
    consent: Sequence[str] = ()
    timeout_s: float = TIMEOUT_S
    audit_file: Path | None = None  # one JSON line a request


class Patient:
    """A chat that asks again where that can help, and counts what it did.

    At most `per_minute` requests a minute (0: as many as wanted). Errors of the kinds `final` are not asked
    again. Safe to be shared by threads.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        attempts: int = ATTEMPTS,
        per_minute: float = 0.0,
        tell: Tell = lambda _said: None,
        final: Collection[str] = (),
    ) -> None:
        self.chat, self._tell = chat, tell
        self.requests = self.prompt_tokens = self.answer_tokens = 0
        self.seconds = 0.0
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(attempts),
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, ChatError) and error.retry and error.kind not in final
            ),
            wait=_wait,
            before_sleep=self._say,
            reraise=True,
        )

    def ask(self, messages: Sequence[Message], **parameters: Any) -> Answer:
        """As Chat.ask; raises the last ChatError when all attempts failed."""
        answer: Answer = self._retrying(self._once, messages, parameters)
        return answer

    def _once(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Answer:
        with self._lock:
            now = time.monotonic()
            wait_s, self._next = max(0.0, self._next - now), max(now, self._next) + self._gap_s
            self.requests += 1
        if wait_s:
            time.sleep(wait_s)
        answer = self.chat.ask(messages, **parameters)
        with self._lock:
            self.prompt_tokens += answer.prompt_tokens
            self.answer_tokens += answer.answer_tokens
            self.seconds += answer.seconds
        return answer

    def _say(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        self._tell(f"{error}; again in {wait_s:.0f} s")


def _wait(state: tenacity.RetryCallState) -> float:
    """Doubling from half a second, unless the server said how long."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ChatError) else None
    return float(min(_LONGEST_WAIT_S, asked if asked is not None else 0.5 * 2**state.attempt_number))


def open_chat(
    endpoint: Endpoint,
    what: What,
    *,
    attempts: int = ATTEMPTS,
    per_minute: float = 0.0,
    tell: Tell = lambda _said: None,
    final: Collection[str] = (),
) -> Patient:
    """The chat at `endpoint` for texts of the kind `what`. Raises ConfigError."""
    chat = Chat(
        endpoint.url,
        what=what,
        redact=redact,
        model=endpoint.model,
        key=read_key(endpoint.key_file),
        headers=endpoint.headers,
        consent=endpoint.consent,
        timeout_s=endpoint.timeout_s,
        audit=_writer(endpoint.audit_file) if endpoint.audit_file else lambda _request: None,
    )
    return Patient(chat, attempts=attempts, per_minute=per_minute, tell=tell, final=final)


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """`Name: value` lines as a mapping. Raises ConfigError."""
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"{line!r} is no header", hint="like 'X-Title: hauswart'")
        found[name.strip()] = value.strip()
    return found


def read_key(path: Path | None) -> str:
    """The key in a file, else in the environment, else none. Raises ConfigError."""
    if path is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key's file {path} cannot be read: {error}") from error
    if not key:
        raise ConfigError(f"the key's file {path} is empty")
    return key


def _writer(path: Path) -> Callable[[Request], None]:
    def write(request: Request) -> None:
        line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **request._asdict()})
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return write
