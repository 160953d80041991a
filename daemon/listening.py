"""Listening sockets of what is served on this host: a unix socket or a port, checked before it is opened."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from daemon.errors import ConfigError, LockedError

BACKLOG = 128  # of whoever asks before the first is answered; one too many waits a second for its next SYN


def listen_on(listen: str, *, key: str, anywhere: bool = False) -> socket.socket:
    """A listening socket for `unix:/path` or `127.0.0.1:port`; `key` is the setting that asks for it.

    Raises ConfigError, also for anything but loopback unless it may be reached from `anywhere`, and
    LockedError where another process serves the path.
    """
    if listen.startswith("unix:"):
        return _listen_unix(Path(listen.removeprefix("unix:")), key)
    host, colon, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ConfigError(f"{key} {listen!r} is not an address", hint="unix:/path or 127.0.0.1:9469")
    if not anywhere and not is_loopback(bare):
        raise ConfigError(
            f"{key} {listen!r} is not loopback",
            hint="use unix:/path or 127.0.0.1:port, and a proxy that checks who asks",
        )
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1" if bare == "localhost" else bare, int(port)))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        raise ConfigError(f"{key} {listen!r}: {error.strerror}", hint="choose another port") from error
    return server


def is_loopback(host: str) -> bool:
    """Whether an address or `localhost` is this machine's own."""
    if host == "localhost":
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host)
    except OSError:
        return False
    return packed == socket.inet_pton(socket.AF_INET6, "::1") if len(packed) == 16 else packed[0] == 127


def _listen_unix(path: Path, key: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path, key)
        before = os.umask(0o117)  # the owner's group may connect
        try:
            server.bind(str(path))
        finally:
            os.umask(before)
        server.listen(BACKLOG)
    except (OSError, ValueError) as error:
        server.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{key} unix:{path}: {reason}", hint="choose another path") from error
    except LockedError:
        server.close()
        raise
    return server


def _remove_stale(path: Path, key: str) -> None:
    """Remove the socket of a process that is gone; never anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise LockedError(f"{key} unix:{path} is served by another process", hint="choose another path")
