"""What systemd wants to hear of a service (sd_notify(3)), through a plain socket; silent elsewhere."""

from __future__ import annotations

import os
import socket
import time


class ServiceManager:
    """Sends READY, STATUS, WATCHDOG and STOPPING to the socket that systemd named, if it named one."""

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if path else None
        )
        self._status = ""
        self.unsent = 0

    @property
    def present(self) -> bool:
        """Whether a service manager listens."""
        return self._socket is not None

    @property
    def watchdog_s(self) -> float | None:
        """How often WATCHDOG is to be sent at the latest (half of what systemd allows), None if never."""
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        if not usec.isdecimal() or (pid.isdecimal() and int(pid) != os.getpid()):
            return None
        return int(usec) / 2e6

    def ready(self, status: str) -> None:
        """The stage serves."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_one_line(text)}")

    def feed_watchdog(self) -> None:
        """The work loop turns."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The stage is about to read its configuration again; READY ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self) -> None:
        """The stage is about to end."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except OSError:  # a full or vanished socket must not stop the watch
            self.unsent += 1


def _one_line(text: str) -> str:
    return " ".join(text.split())
