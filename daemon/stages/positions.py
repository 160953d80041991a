"""Where each log reader goes on after a restart: kept once the lines before are committed downstream."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import msgspec

MAX_FILE_BYTES = 1 << 20


class Positions:
    """Readers' positions in one small file; each waits until the lines that led to it are acknowledged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known = _read(path)
        self._latest = dict(self.known)
        self._waiting: deque[tuple[int, str, str]] = deque()
        self._changed = False

    def note(self, ticket: int, reader: str, position: str) -> None:
        """Remember where a reader stands after the lines that end with this ticket."""
        if position and self._latest.get(reader) != position:
            self._latest[reader] = position
            self._waiting.append((ticket, reader, position))

    def settle(self, acknowledged: int) -> None:
        """Take over the positions whose lines are acknowledged."""
        while self._waiting and self._waiting[0][0] <= acknowledged:
            _, reader, position = self._waiting.popleft()
            self.known[reader] = position
            self._changed = True

    def save(self) -> None:
        """Write what changed, in one step that survives a power cut; raises OSError."""
        if not self._changed:
            return
        partial = self._path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self.known))
        partial.replace(self._path)
        self._changed = False


def _read(path: Path) -> dict[str, str]:
    """What was saved; an unreadable file means that the readers start where they would on a new host."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}
