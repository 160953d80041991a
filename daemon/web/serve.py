"""Serves the page: on a socket that systemd hands over or one of its own, until nobody asks any more."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from daemon.errors import ConfigError
from daemon.listening import listen_on
from daemon.settings import Settings, Web
from daemon.web.app import create_app
from daemon.web.guard import App, Receive, Scope, Send, is_exposed

CREDENTIAL = "hauswart.web"
SD_LISTEN_FDS_START = 3  # sd_listen_fds(3)
CONCURRENT_MAX = 32  # more than a person's browser opens; the rest is told to come back
LOOK_S = 1.0


def password_of(settings: Web) -> str:
    """The password where one is asked for; raises ConfigError."""
    if settings.auth != "password":
        return ""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(settings.password_file) if settings.password_file else Path(folder, CREDENTIAL)
    hint = f"web.password_file, or the credential {CREDENTIAL} of the unit"
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the web page's password {path}: {error}", hint=hint) from error
    if len(found) < 8:
        raise ConfigError(f"the web page's password in {path} has fewer than 8 characters", hint=hint)
    return found


def bound(settings: Web) -> tuple[socket.socket, bool]:
    """The listening socket, and whether it is systemd's; raises ConfigError where it needs a password."""
    given = os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0")) > 0
    found = (
        socket.socket(fileno=SD_LISTEN_FDS_START)
        if given
        else listen_on(settings.listen, key="web.listen", anywhere=settings.auth != "off")
    )
    if settings.auth == "off" and is_exposed(found):
        address = found.getsockname()[0]
        found.close()
        raise ConfigError(
            f"the web page would listen on {address} for everybody",
            hint="set web.auth to password or header, or listen on 127.0.0.1 or a unix socket",
        )
    return found, given


class Idle:
    """Counts what is under way and remembers when the last request ended."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._busy, self._last_s = 0, clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        self._busy += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._busy -= 1
            self._last_s = self._clock()

    def lasted_s(self) -> float:
        """For how long nobody has asked."""
        return 0.0 if self._busy else self._clock() - self._last_s


def serve(settings: Settings, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve until stopped, or until idle where systemd's socket starts it again; raises ConfigError.

    `ready` is told where, once it answers.
    """
    password = password_of(settings.web)
    listening, given = bound(settings.web)
    app = Idle(create_app(settings, password))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, limit_concurrency=CONCURRENT_MAX,
        timeout_keep_alive=5, h11_max_incomplete_event_size=32 << 10, lifespan="off", proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    ready(address_of(listening))
    asyncio.run(_run(server, listening, app, settings.web.idle_s if given else float("inf")))


async def _run(server: uvicorn.Server, listening: socket.socket, app: Idle, idle_s: float) -> None:
    async def watch() -> None:
        while not server.should_exit:
            await asyncio.sleep(min(LOOK_S, idle_s / 4.0))
            server.should_exit = server.should_exit or app.lasted_s() >= idle_s

    watching = asyncio.create_task(watch())
    await server.serve(sockets=[listening])
    watching.cancel()


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
