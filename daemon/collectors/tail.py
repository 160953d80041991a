"""One followed file across rotation, truncation and deletion, as raw lines; knows no meaning."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path
from typing import NamedTuple

from daemon.errors import SourceError

CHUNK_BYTES = 64 << 10
MAX_LINE_BYTES = 16 << 10  # kept of one line; ingest cuts further
MAX_CHUNKS = 64  # 4 MiB a call, for what is skipped
HEAD_BYTES = 64  # of a file's beginning, to tell it from another that got its inode


class Saved(NamedTuple):
    """Where reading stopped: the file by inode and beginning, and the offset of the first unread byte."""

    inode: int
    offset: int
    head: bytes


class Tail:
    """Follows one path; `notes` collects what was lost or could not be read, for the owner to take."""

    def __init__(self, path: Path, saved: Saved | None = None, *, from_start: bool = False) -> None:
        self.notes: list[tuple[str, str]] = []  # reader event's action, reason
        self.skipped_bytes = 0
        self.more = False
        self._path = path
        self._descriptor = -1
        self._inode = 0
        self._left_inode = 0
        self._read_at = 0  # where the next chunk begins
        self._pending = 0  # bytes in lines that were read and not yet given out
        self._head = b""
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self._skipping = False
        self._quiet = 0  # polls without growth while another file has the name
        self._error = 0
        self._from_start = from_start
        if saved:
            self._resume(saved)

    @property
    def inodes(self) -> tuple[int, int]:
        """The file that is read, and the one read before it."""
        return self._inode, self._left_inode

    @property
    def saved(self) -> Saved | None:
        """The position to go on from, if a file was read."""
        taken_at = self._read_at - self._pending - len(self._rest)
        return Saved(self._inode, max(0, taken_at), self._head) if self._inode else None

    def close(self) -> None:
        """Close the file; the position is kept."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    # --- what became of the file ---------------------------------------------------------------------

    def poll(self) -> None:
        """Look at the path: open what is new, notice rotation and truncation, and growth (`more`)."""
        status = self._stat()
        if self._descriptor < 0:
            if status and self._open(self._path):
                self._begin(0 if self._from_start else self._size())
            self._from_start = True  # what appears from now on is new
        elif status and status.st_ino == self._inode:
            self._quiet = 0
            self._check_truncation(status.st_size)
        else:
            self._leave()
        self.more = self.more or (self._descriptor >= 0 and self._size() > self._read_at)

    def _stat(self) -> os.stat_result | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._name_error(error)
            return None
        return status

    def _name_error(self, error: OSError) -> None:
        """Name an error once, until another one comes."""
        number = error.errno or -1
        if number != self._error:
            self.notes.append(("error", f"{self._path}: {error.strerror}"))
        self._error = number

    def _open(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._name_error(error)
            return False
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            self._name_error(OSError(-2, "is no regular file"))
            return False
        self._descriptor, self._inode, self._error = descriptor, status.st_ino, 0
        return True

    def _begin(self, offset: int) -> None:
        self._read_at = offset
        self._rest, self._skipping = b"", False
        self._quiet = 0
        self._head = b""
        self._head = self._read_head()
        self.more = self._size() > offset

    def _size(self) -> int:
        """The file's size; one that cannot be asked has no more than was read."""
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:  # a server that no longer knows the file (ESTALE)
            self._name_error(error)
            return self._read_at

    def _read_head(self) -> bytes:
        """The file's beginning, or what was last known of it: one bad file must not blind its neighbours."""
        try:
            return os.pread(self._descriptor, HEAD_BYTES, 0)
        except OSError as error:  # a bad sector, or a link to /proc/self/mem
            self._name_error(error)
            return self._head

    def _check_truncation(self, size: int) -> None:
        """A file that shrank, or begins differently, was truncated (and maybe written again) since."""
        if size == self._read_at and len(self._head) == HEAD_BYTES:
            return
        head = self._read_head()
        if size < self._read_at or not head.startswith(self._head):
            self.notes.append(("gap", f"{self._path}: truncated after byte {self._read_at}"))
            self._begin(0)
        self._head = head

    def _leave(self) -> None:
        """The name is gone or another file's: read the old one until it is quiet, then turn to the new."""
        if self._size() > self._read_at or self._lines:
            self._quiet = 0
            return
        self._quiet += 1
        if self._quiet < 2:
            return
        rest = self._rest
        self.close()
        self._from_start = True
        self._left_inode = self._inode
        if self._open(self._path):
            self._begin(0)
        else:
            self._inode = 0
        if rest and not self._skipping:
            self._lines.append(rest)  # a last line without its end, from the old file
            self.more = True

    def _resume(self, saved: Saved) -> None:
        """Go on in the saved file, or in what it is called now."""
        for path in (self._path, *self._siblings(saved.inode)):
            try:
                same = path.stat().st_ino == saved.inode
            except OSError:
                continue
            if not same or not self._open(path):
                continue
            if self._size() >= saved.offset and self._read_head().startswith(saved.head):
                self._begin(saved.offset)
                return
            self.close()
            break
        self.notes.append(("gap", f"{self._path}: the file read before is gone"))
        self._inode = 0
        self._from_start = True

    def _siblings(self, inode: int) -> list[Path]:
        try:
            with os.scandir(self._path.parent) as entries:
                return [Path(entry.path) for entry in entries if entry.inode() == inode]
        except OSError:
            return []

    # --- lines ----------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[bytes]:
        """At most `limit` whole lines; sets `more` where there may be further ones."""
        taken: list[bytes] = []
        for _ in range(MAX_CHUNKS):
            while self._lines and len(taken) < limit:
                line = self._lines.popleft()
                self._pending = self._pending - len(line) - 1 if self._lines else 0
                if line:
                    taken.append(line)
            self.more = bool(self._lines) or self._fill()
            if not self.more or len(taken) >= limit:
                break
        return taken

    def _fill(self) -> bool:
        """Read one chunk and split it; False at the end of the file."""
        if self._descriptor < 0:
            return False
        try:
            chunk = os.pread(self._descriptor, CHUNK_BYTES, self._read_at)
        except OSError as error:
            self._name_error(error)
            return False
        if not chunk:
            return False
        self._read_at += len(chunk)
        if self._skipping:
            chunk = self._skip(chunk)
        if not self._rest and not chunk.strip(b"\0"):
            self._skip_hole()
            return True
        text = self._rest + chunk
        parts = text.split(b"\n")
        self._rest = parts.pop()
        self._lines.extend(parts)
        self._pending += len(text) - len(self._rest)
        if len(self._rest) > MAX_LINE_BYTES:
            self._cut_rest()
        return True

    def _cut_rest(self) -> None:
        """Give out what is kept of a line without end, and skip the rest of it."""
        self._lines.append(self._rest[:MAX_LINE_BYTES])
        self.skipped_bytes += len(self._rest) - MAX_LINE_BYTES
        self._pending += len(self._rest)
        self._rest = b""
        self._skipping = True

    def _skip(self, chunk: bytes) -> bytes:
        """What follows the end of the line that is being skipped."""
        skipped, newline, after = chunk.partition(b"\n")
        self.skipped_bytes += len(skipped)
        self._skipping = not newline
        return after

    def _skip_hole(self) -> None:
        """Pass over NUL bytes: a crash or a writer that ignored its truncation left a hole."""
        size = self._size()  # asked first: what is written from now on is not passed over
        try:
            data_at = os.lseek(self._descriptor, self._read_at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return
            data_at = max(size, self._read_at)  # nothing but a hole, maybe of many terabytes
        self.skipped_bytes += data_at - self._read_at
        self._read_at = data_at


def require_directory(path: Path) -> None:
    """Raise SourceError where a directory to follow cannot be looked into."""
    if not path.is_dir():
        raise SourceError(f"{path} does not exist")
    if not os.access(path, os.R_OK | os.X_OK):
        raise SourceError(f"{path} cannot be read", hint="add the daemon's user to the group that may (adm)")
