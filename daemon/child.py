"""A child process on one socket: started by exec, told which descriptor to watch, never waited for in vain.

Knows nothing of what is said over the socket but that it comes in frames of a bounded size.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from resource import struct_rusage
from typing import Protocol

# One thread, one heap: a second arena or a thread pool would cost memory and buy nothing.
_LEAN = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_NOT_FOR_CHILDREN = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})  # they belong to the stage


def signal_name(number: int) -> str:
    """A signal's name, or its number where it has none: most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Watch(Protocol):
    """Wakes its owner when a descriptor is readable, or no longer (`Life.listen` is one)."""

    def __call__(self, source: int, /, *, wanted: bool) -> None:
        """Begin or end watching."""
        ...


class Child:
    """At most one process at a time; its standard input is the other end of a SOCK_SEQPACKET pair."""

    def __init__(
        self, command: Sequence[str], *, watch: Watch | None = None, pid_file: Path | None = None
    ) -> None:
        self.pid = 0
        self.cpu_s = 0.0  # of those that ended
        self._command, self._watch, self._pid_file = tuple(command), watch, pid_file
        self._channel: socket.socket | None = None
        self._ended: list[int] = []  # to be waited for
        self._forget_pid()

    @property
    def running(self) -> bool:
        """Whether there is a process that has not been given up."""
        return self._channel is not None

    def start(self) -> None:
        """Start the process; raises OSError.

        posix_spawn(3) rather than fork: nothing of the stage is copied, and its sockets close on exec.
        """
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        try:
            self.pid = os.posix_spawn(
                self._command[0], self._command, environment | _LEAN, file_actions=actions
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003  # the standard library's own signature
        self._channel = ours
        if self._pid_file is not None:  # so that no finding is made about this process
            with contextlib.suppress(OSError):
                self._pid_file.write_text(f"{self.pid}\n", encoding="ascii")
        if self._watch is not None:
            self._watch(ours.fileno(), wanted=True)

    def send(self, frame: bytes) -> bool:
        """Whether the child took it; False also where it ended, which `receive` tells."""
        assert self._channel is not None
        try:
            self._channel.send(frame)
        except OSError:
            return False
        return True

    def receive(self, limit: int) -> bytes | None:
        """The next frame (cut off one byte beyond the limit), None if there is none, b"" if it ended."""
        while self._channel is not None:
            try:
                return self._channel.recv(limit + 1)
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionResetError:
                continue  # it ended without reading all; what it said before is still there
        return None

    def wait_readable(self, timeout_s: float) -> None:
        """Sleep until the child says something or ends."""
        if self._channel is not None:
            select.select([self._channel], [], [], max(0.0, timeout_s))

    def tell_end(self) -> str:
        """How the process ended, as far as that can be told at once: " (SIGKILL)", " (exit code 1)" or ""."""
        code = self._wait(self.pid, os.WNOHANG) if self.pid else None
        if code is None:
            return ""
        self.pid = 0
        return f" ({signal_name(-code)})" if code < 0 else f" (exit code {code})"

    def end(self) -> None:
        """Kill the process and forget it; it is waited for later."""
        channel, self._channel = self._channel, None
        if channel is not None:
            if self._watch is not None:
                self._watch(channel.fileno(), wanted=False)
            channel.close()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended.append(self.pid)
            self.pid = 0
        self._forget_pid()
        self.reap()

    def reap(self, options: int = os.WNOHANG) -> None:
        """Wait for those that were ended; without WNOHANG until they are gone."""
        self._ended = [pid for pid in self._ended if self._wait(pid, options) is None]

    def _wait(self, pid: int, options: int) -> int | None:
        """The exit code, None while it runs; 0 where somebody else waited for it."""
        try:
            found, status, usage = os.wait4(pid, options)
        except ChildProcessError:
            return 0
        if not found:
            return None
        self._count_cpu(usage)
        return os.waitstatus_to_exitcode(status)

    def _count_cpu(self, usage: struct_rusage) -> None:
        self.cpu_s += usage.ru_utime + usage.ru_stime

    def _forget_pid(self) -> None:
        if self._pid_file is not None:
            with contextlib.suppress(OSError):
                self._pid_file.unlink(missing_ok=True)
