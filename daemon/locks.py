"""Locks on files: who holds one is written into it, and the kernel lets go when the holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.errors import HauswartError, LockedError

MAX_PID_TEXT = 32  # what is read of a lock file's text; a pid has at most 7 digits (pid_max <= 2^22)


class FileLock:
    """An exclusive flock(2) on `path`, held until `release` or the end of this process.

    `what` is named in the LockedError that a second holder gets, e.g. "the edge low", `hint` says what to do.
    """

    def __init__(
        self, path: Path, what: str, hint: str = "stop that one first; `hauswart status` shows it"
    ) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise HauswartError(
                f"cannot open the lock {path}: {error.strerror}", hint="check the directory's owner and mode"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise LockedError(
                f"{what} is in use by {_name_holder(path)}",
                hint=hint,
            ) from error
        give_to_owner(path)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; the file stays, since removing it would let two processes hold two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read_holder(path: Path) -> int | None:
    """The pid written by the last holder of a lock, alive or not; None where there is none."""
    try:
        with path.open("rb") as file:
            return int(file.read(MAX_PID_TEXT))
    except (OSError, ValueError):
        return None


def find_holder(path: Path) -> int | None:
    """The pid of the process that holds a lock right now; None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_holder(path)
    finally:
        os.close(descriptor)
    return None


def give_to_owner(path: Path) -> None:
    """Let what root made belong to the directory's owner: the stage that works there has to use it."""
    if os.geteuid() != 0:
        return
    owner = path.parent.stat()
    if owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _name_holder(path: Path) -> str:
    pid = read_holder(path)
    return f"process {pid}" if pid is not None else "another process"
