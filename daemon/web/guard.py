"""Who may look and who may answer: every request passes here before a page sees it.

A browser can be made to ask a loopback address for any site's benefit, so the name that it asked for, where a
form came from and the token in it are checked, whoever is logged in.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from daemon.listening import is_loopback
from daemon.settings import Web

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "hauswart_token"
FIELD = "token"
TOKEN_BYTES = 24
WRONG_PASSWORD_S = 1.0
WRONG_AT_ONCE = 5  # guesses a second: a password of six random letters lasts two years
LOCAL_USER = "web"  # who answers where nobody has to say who they are
_WRITING = {"POST", "PUT", "PATCH", "DELETE"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Visitor:
    """Who asks: a name, whether they may answer, and the token that their forms must carry."""

    name: str
    may_answer: bool
    token: str


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """The request is turned away with this status; `reason` is safe to show."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """The gate before an ASGI application; puts a Visitor into each request's state."""

    def __init__(self, app: App, settings: Web, password: str = "") -> None:
        self._app, self._settings, self._password = app, settings, password
        self._wrong = 0  # passwords whose answer is being held back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._wrong >= WRONG_AT_ONCE and "authorization" in headers:
            await _refuse(Refusal(429, "Too many wrong passwords; try again in a second."), _sealed(send))
            return
        try:
            visitor = admit(headers, scope["method"], self._settings, self._password)
        except Refusal as refusal:
            if refusal.status == 401 and "authorization" in headers:
                await self._hold_back()
            await _refuse(refusal, _sealed(send))
            return
        scope.setdefault("state", {})["visitor"] = visitor
        fresh = _cookie(headers) != visitor.token
        await self._app(scope, receive, _sealed(send, visitor.token if fresh else ""))

    async def _hold_back(self) -> None:
        """Let whoever guesses wait; no more than some guesses a second are even looked at."""
        self._wrong += 1
        try:
            await asyncio.sleep(WRONG_PASSWORD_S)
        finally:
            self._wrong -= 1


def admit(headers: dict[str, str], method: str, settings: Web, password: str = "") -> Visitor:
    """Who asks; raises Refusal. A form's token is checked with `check_token`, once its fields are read."""
    if not _is_own_name(headers.get("host", ""), settings):
        raise Refusal(421, "This name is not one of this page's; add it to hosts in [web].")
    name = _name(headers, settings, password)
    if method in _WRITING and not _same_origin(headers):
        raise Refusal(403, "The form comes from another site.")
    operator = not settings.operators or name in settings.operators
    token = _cookie(headers)
    if len(token) < TOKEN_BYTES or not token.isascii():
        token = secrets.token_urlsafe(TOKEN_BYTES)
    return Visitor(name, operator and not settings.read_only, token)


def check_token(visitor: Visitor, token: str) -> None:
    """Raise Refusal unless the visitor may answer and the form is one of this page's own."""
    if not visitor.may_answer:
        raise Refusal(403, "You may read here, not answer.")
    if not compare_digest(token.encode(), visitor.token.encode()):
        raise Refusal(403, "The form is stale; load the page again.")


def _is_own_name(host: str, settings: Web) -> bool:
    """Whether the browser asked for a name of ours: else a site's own name was made to point here."""
    if settings.listen.startswith("unix:"):
        return True  # no browser opens it; the proxy before it knows its names
    try:
        bare = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(bare) or bare in settings.hosts or (bare != "" and bare == _listen_host(settings))


def _listen_host(settings: Web) -> str:
    return settings.listen.rpartition(":")[0].removeprefix("[").removesuffix("]")


def _name(headers: dict[str, str], settings: Web, password: str) -> str:
    if settings.auth == "header":
        name = headers.get(settings.header.lower(), "").strip()
        if not name or len(name) > 64 or not name.isprintable():
            raise Refusal(401, f"The proxy does not say who you are ({settings.header}).")
        return name
    if settings.auth == "password":
        name, given = _basic(headers.get("authorization", ""))
        if not password or not compare_digest(given.encode(), password.encode()):
            raise Refusal(401, "A name of your choice and the password, please.")
        return name[:64] or LOCAL_USER
    return LOCAL_USER


def _basic(header: str) -> tuple[str, str]:
    """Name and password of RFC 7617."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (name if name.isprintable() else ""), password


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether a form was sent from a page of ours: all browsers say one or the other since 2020."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    return origin is None or origin.partition("://")[2] == headers.get("host", "")


def _cookie(headers: dict[str, str]) -> str:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _sealed(send: Send, token: str = "") -> Send:
    """Answers with the headers that keep a page to itself; `token` is set as a cookie."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = list(_HEADERS)
            if token:
                cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
                extra.append((b"set-cookie", cookie.encode()))
            names = {name for name, _ in message.get("headers", [])}
            if b"cache-control" not in names:
                extra.append((b"cache-control", b"no-store"))
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending


async def _refuse(refusal: Refusal, send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="hauswart", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{refusal.reason}\n".encode()})


def is_exposed(bound: socket.socket) -> bool:
    """Whether others than this host's own users can reach a listening socket."""
    if bound.family == socket.AF_UNIX:
        return False
    return not is_loopback(bound.getsockname()[0])
