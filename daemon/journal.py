"""Lines with fields for journald, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

Only where systemd connected this process's standard error to the journal; elsewhere nobody would look there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from daemon.message_ids import MessageId

SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Sends single lines to journald; never blocks and never raises."""

    def __init__(self, identifier: str, path: str = SOCKET) -> None:
        self._identifier, self._path = identifier, path
        self._socket: socket.socket | None = None

    @property
    def listens(self) -> bool:
        """Whether standard error goes to the journal: JOURNAL_STREAM names it (systemd.exec(5))."""
        try:
            found = os.fstat(2)
        except OSError:
            return False
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"

    def send(self, text: str, priority: int, message_id: MessageId | None, fields: Mapping[str, str]) -> bool:
        """Whether journald took the line; every value has to be one line."""
        named = {"MESSAGE": text, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": self._identifier}
        if message_id is not None:
            named["MESSAGE_ID"] = message_id.value
        named |= {f"HAUSWART_{name.upper()}": value for name, value in fields.items() if value}
        data = "".join(f"{name}={value}\n" for name, value in named.items())
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.sendto(data.encode(errors="replace"), socket.MSG_DONTWAIT, self._path)
        except OSError:
            return False
        return True
