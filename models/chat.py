"""A client of chat-completions servers (Ollama, llama.cpp, a provider): one question, one checked answer.

Nothing leaves this host unless the caller's consent names it: a server that is not on loopback is refused
before a byte is sent. Every text is redacted, every answer is hostile until checked, every request is told to
`audit`. It does not retry; who may wait does (see `training.endpoint`).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from models.errors import ChatError, ConfigError

DEFAULT_URL = "http://localhost:11434/v1/chat/completions"  # Ollama's
MAX_ANSWER_BYTES = 4 << 20
TIMEOUT_S = 120.0

What = Literal["evidence", "prompts", "documents"]
# What each word of a consent means, as the operator is told.
LEAVES: dict[What, str] = {
    "evidence": "redacted evidence of incidents, and with `reads` of what may be one: log lines, metrics,"
    " names of units, devices and users",
    "prompts": "the redacted prompts and target answers of your cases and test files",
    "documents": "redacted passages of your documents, and the questions asked about them",
}

Message = Mapping[str, str]  # role, content
Redact = Callable[[str], str]


class Answer(NamedTuple):
    """What a server said: text, why it stopped, tokens of prompt and answer (0: not told), seconds."""

    text: str
    finish: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    model: str


class Request(NamedTuple):
    """One request as the audit has it: never the text itself, but its hash."""

    host: str
    what: str
    model: str
    sent_bytes: int
    sha256: str
    outcome: str
    seconds: float


class Chat:
    """One model behind one address.

    `url` is the server's root, its /v1 or the whole path; `headers` come on top of the content's type, `key`
    becomes a bearer token. `consent` names what may leave this host. Raises ConfigError for an address that
    is none or that the consent does not cover.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        what: What,
        redact: Redact,
        model: str = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
        consent: Collection[str] = (),
        timeout_s: float = TIMEOUT_S,
        audit: Callable[[Request], None] = lambda _request: None,
    ) -> None:
        self.address = parse(url)
        check_consent(self.address, what, consent)
        self.what, self.model, self.timeout_s = what, model, timeout_s
        self._redact, self._audit = redact, audit
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        if any("\n" in part or "\r" in part for pair in self._headers.items() for part in pair):
            raise ConfigError("a header or the key contains a line break", hint="one line, without its end")

    @property
    def url(self) -> str:
        """The whole address, without user and password."""
        return f"{self.address.scheme}://{_place(self.address)}{self.address.path}"

    def ask(self, messages: Sequence[Message], **parameters: Any) -> Answer:
        """The first choice's text; `parameters` go into the body as they are.

        Raises ChatError: `kind` says what went wrong, `retry` whether asking again can help.
        """
        started = time.monotonic()
        answer = self.complete(messages, **parameters)
        return _checked(answer, time.monotonic() - started)

    def complete(self, messages: Sequence[Message], **parameters: Any) -> Any:
        """The whole answer as the server gives it, unchecked JSON. Raises ChatError."""
        clean = [{"role": one["role"], "content": self._redact(one["content"])} for one in messages]
        body: dict[str, Any] = {"messages": clean, "stream": False, **parameters}
        if self.model:
            body["model"] = self.model
        return self._exchange("POST", self.address.path, body)

    def models(self) -> list[str]:
        """The names that the server gives at /models. Raises ChatError."""
        path = self.address.path.removesuffix("/chat/completions") + "/models"
        found = self._exchange("GET", path, None)
        rows = found.get("data") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise ChatError(f"{self.url} lists no models", kind="broken")
        return [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row]

    def _exchange(self, method: str, path: str, body: Any) -> Any:
        sent = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        started, outcome = time.monotonic(), "broken off"
        try:
            status, kind, retry_after_s, content = self._send(method, path, sent)
            outcome = str(status)
            if status != http.client.OK:
                raise _refusal(self.url, status, content, retry_after_s)
            return _decoded(self.url, kind, content)
        except ChatError as error:
            outcome = error.kind if outcome == "broken off" else outcome
            raise
        finally:
            digest = hashlib.sha256(sent).hexdigest()
            seconds = round(time.monotonic() - started, 3)
            host = _place(self.address)
            self._audit(Request(host, self.what, self.model, len(sent), digest, outcome, seconds))

    def _send(self, method: str, path: str, sent: bytes) -> tuple[int, str, float | None, bytes]:
        """Status, content type, Retry-After and content, all within the time; no redirect is followed."""
        connection = _connect(self.address, self.timeout_s)
        late = threading.Event()
        watch = None
        try:
            connection.connect()
            # http.client forgets the socket of an answer that ends with the connection.
            watch = threading.Timer(self.timeout_s, _cut, (connection.sock, late))
            watch.daemon = True
            watch.start()
            connection.request(method, path, sent or None, self._headers)
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
            broken = bool(response.length) and len(content) <= MAX_ANSWER_BYTES
            kind, after = response.getheader("Content-Type", ""), response.getheader("Retry-After", "")
        except http.client.IncompleteRead:
            broken, content = True, b""
        except (OSError, http.client.HTTPException) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise self._slow() from error
            raise ChatError(
                f"{self.url} cannot be reached: {str(error) or type(error).__name__}",
                kind="unreachable",
                retry=not isinstance(error, ssl.SSLCertVerificationError),
                hint="is the server running, and at this address?",
            ) from error
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()
        if late.is_set():
            raise self._slow()
        if broken:
            raise ChatError(f"{self.url} ended in the middle of its answer", kind="broken", retry=True)
        if len(content) > MAX_ANSWER_BYTES:
            raise ChatError(f"{self.url} answers more than {MAX_ANSWER_BYTES} bytes", kind="broken")
        return response.status, kind, float(after) if after.isdigit() else None, content

    def _slow(self) -> ChatError:
        return ChatError(f"{self.url} gave no whole answer in {self.timeout_s:g} s", kind="slow", retry=True)


def _cut(connected: socket.socket, late: threading.Event) -> None:
    """End an exchange whose time is up, however slowly the server still drips."""
    late.set()
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def parse(url: str) -> SplitResult:
    """The address of the chat completions that `url` means. Raises ConfigError."""
    try:
        parts = urlsplit(url.strip())
        bad = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    if bad:
        raise ConfigError(f"{url!r} is no http address", hint=f"like {DEFAULT_URL}")
    if parts.username is not None:
        raise ConfigError("the address holds a user or password", hint="give a key or a header instead")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = (path or "/v1") + "/chat/completions"
    return SplitResult(parts.scheme, parts.netloc, path, "", "")


def read_key(path: Path) -> str:
    """The key that a file holds. Raises ConfigError."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key of the served model, {path}, cannot be read: {error}") from error
    if not key:
        raise ConfigError(f"the key of the served model, {path}, is empty")
    return key


def is_loopback(address: SplitResult) -> bool:
    """Whether what is sent there stays on this host."""
    name = (address.hostname or "").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_consent(address: SplitResult, what: What, consent: Collection[str]) -> None:
    """Raises ConfigError where texts of this kind may not leave the host for that address."""
    unknown = sorted(set(consent) - set(LEAVES))
    if unknown:
        raise ConfigError(f"no consent {', '.join(unknown)}", hint=f"one of {', '.join(LEAVES)}")
    if what not in consent and not is_loopback(address):
        raise ConfigError(
            f"{address.hostname} is not this host, and nothing says that {what} may leave it",
            hint=f"consent {what!r} would send it {LEAVES[what]}",
        )


def _place(address: SplitResult) -> str:
    return address.netloc.rpartition("@")[2]


def _connect(address: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    name = address.hostname or ""
    if address.scheme == "https":
        return http.client.HTTPSConnection(
            name, address.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(name, address.port, timeout=timeout_s)


def _refusal(url: str, status: int, content: bytes, retry_after_s: float | None) -> ChatError:
    said = _said(content)
    told = f"{url} answers {status}" + (f": {said}" if said else "")
    if status in {401, 403}:
        return ChatError(told, kind="key", hint="is the key right, and given?")
    if status == 429:
        hint = f"it asks to wait {retry_after_s:g} s" if retry_after_s else "it asks to wait"
        return ChatError(told, kind="busy", retry=True, retry_after_s=retry_after_s, hint=hint)
    if status == 404:
        return ChatError(told, kind="refused", hint="is the path right, and is there such a model?")
    if 300 <= status < 400:
        return ChatError(told, kind="refused", hint="redirects are not followed; give the final address")
    if status >= 500:
        return ChatError(told, kind="failed", retry=True, retry_after_s=retry_after_s)
    return ChatError(told, kind="refused")


def _said(content: bytes) -> str:
    """A server's own words on what went wrong, one line of them."""
    try:
        found = json.loads(content)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", "")) if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):
        text = "" if b"<" in content[:200] else content.decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in text)[:200].strip()


def _decoded(url: str, kind: str, content: bytes) -> Any:
    if not content.strip():
        raise ChatError(f"{url} answers nothing", kind="broken", retry=True)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        what = "a web page" if "html" in kind.lower() or content.lstrip()[:1] == b"<" else "no whole JSON"
        raise ChatError(
            f"{url} answers {what}", kind="broken", retry=True, hint="is it a chat-completions server?"
        ) from error


def _checked(answer: Any, seconds: float) -> Answer:
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        usage = answer.get("usage") or {}
        counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ChatError("the server's answer has no choices[0].message.content", kind="broken") from error
    if not isinstance(text, str) or not text.strip():
        raise ChatError("the server's answer is empty", kind="empty", retry=True)
    prompted, answered = (one if isinstance(one, int) and 0 <= one < 1 << 40 else 0 for one in counts)
    finish, model = str(choice.get("finish_reason") or ""), str(answer.get("model") or "")
    return Answer(text, finish[:40], prompted, answered, seconds, model[:200])
