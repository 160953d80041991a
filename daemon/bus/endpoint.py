"""Where sockets live: one directory an edge, one lock, one uid filter; knows nothing of what is sent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import zmq

from daemon.errors import HauswartError
from daemon.locks import FileLock

MAX_SOCKET_PATH = 107  # bytes: sizeof(sockaddr_un.sun_path) - 1, unix(7)
MAX_FRAME_BYTES = (
    5 << 20
)  # the codec's largest batch and some slack; libzmq hangs up on a peer that sends more
MAX_SUBSCRIPTION_BYTES = 256  # of which libzmq keeps a hundred times as much; ours are empty
LINGER_MS = 200  # lets a last acknowledgement leave; nothing depends on it
RECONNECT_MS = 50
RECONNECT_MAX_MS = 1000


class Wire:
    """One process's sockets and the locks of the endpoints that it serves."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime.absolute()
        self._context = zmq.Context(io_threads=1)
        self._locks: list[FileLock] = []
        self._sockets: list[zmq.Socket[bytes]] = []
        self.checks_peers = True  # False once libzmq turned out to be built without SO_PEERCRED

    def serve(self, kind: int, edge: str, *, receive_limit: int) -> zmq.Socket[bytes]:
        """A bound socket; raises LockedError when another process serves this edge."""
        directory = prepare_directory(self.runtime, edge)
        address = _address(directory)
        self._locks.append(FileLock(directory / "lock", f"the edge {edge}"))
        (directory / "socket").unlink(missing_ok=True)  # a dead server's: this process holds the lock
        socket = self._open(kind, receive_limit)
        self.checks_peers = _filter_peers(socket, directory) and self.checks_peers
        previous = os.umask(0o117)  # the socket's mode becomes 0660: connecting needs write permission
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise HauswartError(f"cannot serve {address}: {error}") from error
        finally:
            os.umask(previous)
        return socket

    def reach(self, kind: int, edge: str, *, receive_limit: int) -> zmq.Socket[bytes]:
        """A connecting socket; the server may come later, and come back."""
        address = _address(self.runtime / edge)
        socket = self._open(kind, receive_limit)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if kind == zmq.DEALER:
            socket.set(zmq.IMMEDIATE, 1)  # never queue for a server that is not there
            socket.set(zmq.PROBE_ROUTER, 1)  # the server sees each new connection
        elif kind == zmq.SUB:
            socket.set(zmq.SUBSCRIBE, b"")
        socket.connect(address)
        return socket

    def close(self) -> None:
        """Close everything; the locks go last, so that no successor's socket file is removed."""
        for socket in self._sockets:
            socket.close()
        self._context.term()
        for lock in self._locks:
            lock.release()

    def _open(self, kind: int, receive_limit: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES if kind == zmq.PUB else MAX_FRAME_BYTES)
        socket.set(zmq.RCVHWM, receive_limit)
        self._sockets.append(socket)
        return socket


def prepare_directory(runtime: Path, edge: str) -> Path:
    """The directory of an edge, made with mode 0750; raises HauswartError if others may write there."""
    directory = runtime / edge
    try:
        directory.mkdir(mode=0o750, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise HauswartError(
            f"cannot make {directory}: {error.strerror}", hint="make the runtime directory"
        ) from error
    if found.st_mode & stat.S_IWOTH or found.st_uid not in {0, os.geteuid()}:
        raise HauswartError(
            f"{directory} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}",
            hint="remove it, or give it to the user of this stage with mode 0750",
        )
    return directory


def receive_parts(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """The parts of the next message, or None; never blocks."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _address(directory: Path) -> str:
    path = str(directory / "socket")
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise HauswartError(
            f"the socket path {path} has {length} bytes, Unix sockets allow {MAX_SOCKET_PATH}",
            hint="choose a shorter runtime_dir",
        )
    return f"ipc://{path}"


def _filter_peers(socket: zmq.Socket[bytes], directory: Path) -> bool:
    """Accept only our own user, root, and the directory's group; libzmq asks SO_PEERCRED of each connection.

    False where libzmq was built without it: then the modes of directory and socket alone keep others out.
    """
    try:
        for uid in {0, os.geteuid()}:
            socket.set(zmq.IPC_FILTER_UID, uid)
        group = directory.stat().st_gid
        if group != 0:
            socket.set(zmq.IPC_FILTER_GID, group)
    except zmq.ZMQError:
        return False
    return True
