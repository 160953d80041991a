"""The last acknowledged frame, written where a consumer's next start finds it."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.errors import HauswartError

_RECORD = "{:016x} {:016x}\n"  # producer's epoch, frame number
_RECORD_BYTES = 34


class Ledger:
    """One fixed-size record in the runtime directory: (producer's epoch, last frame done).

    It outlives SIGKILL, since the kernel holds what was written; a reboot ends the producers as well.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise HauswartError(f"cannot open {path}: {error.strerror}") from error

    def read(self) -> tuple[int, int] | None:
        """What was written last, None if nothing legible."""
        text = os.pread(self._descriptor, _RECORD_BYTES, 0)
        try:
            epoch, _, seq = text.decode("ascii").partition(" ")
            return int(epoch, 16), int(seq, 16)
        except ValueError:
            return None

    def write(self, epoch: int, seq: int) -> None:
        """Remember a frame as done; raises OSError when the runtime directory is full."""
        os.pwrite(self._descriptor, _RECORD.format(epoch, seq).encode("ascii"), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
