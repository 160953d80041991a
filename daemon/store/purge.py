"""Erases what hauswart has kept about the host, for `hauswart purge`.

The store is erased by its writer (`StoreWriter.purge`, or a KeepPurge record while the daemon runs); segments
and the copies of a damaged store are plain files. A segment that is being written may go too: its writer
notices and begins a new one.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from daemon.errors import HauswartError
from daemon.store.segments import segment_paths


class Erased(NamedTuple):
    """How much went."""

    files: int
    size_bytes: int


def purge_telemetry(directory: Path, before: float | None = None) -> Erased:
    """Delete the segments that end before a time (Unix seconds; None: all). Raises HauswartError."""
    paths = segment_paths(directory) if directory.is_dir() else []
    return _delete([path for path in paths if before is None or path.stat().st_mtime < before])


def purge_copies(store: Path) -> Erased:
    """Delete the copies that were moved aside when the store was damaged. Raises HauswartError."""
    return _delete(sorted(store.parent.glob(f"{store.name}.corrupt-*")))


def purge_candidates(state: Path) -> Erased:
    """Delete what retraining made: bundles, and reports that quote log lines. Raises HauswartError."""
    shop = state / "candidates"
    files = (path for path in shop.rglob("*") if path.is_symlink() or not path.is_dir())
    erased = _delete(sorted(path for path in files if path.name != ".lock"))  # a retraining may hold it
    for folder in sorted((path for path in shop.glob("*/**/*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # a retraining has just begun
            folder.rmdir()
    return erased


def _delete(paths: list[Path]) -> Erased:
    files = size = 0
    for path in paths:
        try:
            status = path.lstat()
            path.unlink()
        except FileNotFoundError:  # the quota was quicker
            continue
        except OSError as error:
            raise HauswartError(
                f"{path}: {error.strerror} ({files} files were erased before)",
                hint="purge as root or as the daemon's user",
            ) from error
        files, size = files + 1, size + status.st_size
    return Erased(files, size)
