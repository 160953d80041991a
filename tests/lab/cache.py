"""What takes minutes to make and is kept: folders under a name made of what they were made from.

It knows nothing about what is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]


class LabError(Exception):
    """The image or the machine could not be made, or a command in the machine failed."""


def cache() -> Path:
    """Where images and snapshots are kept; `$HAUSWART_LAB_CACHE`, else below the project."""
    return Path(os.environ.get("HAUSWART_LAB_CACHE") or PROJECT / "build/lab").absolute()


def kept(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `kind-key`, filled by `build(folder)` if need be; of the others the newest stays."""
    place = cache()
    folder = place / f"{kind}-{key}"
    if folder.is_dir():
        return folder
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / f"{kind}.lock"):
        if not folder.is_dir():
            unfinished = [path for path in place.glob(f"{kind}.*") if path.is_dir()]
            others = sorted(place.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
            for old in unfinished + others[:-1]:  # a machine that still runs from one has its files open
                _remove(old)
            made = Path(tempfile.mkdtemp(prefix=f"{kind}.", dir=place))
            build(made)
            made.chmod(0o755)
            made.rename(folder)
    return folder


def run(*argv: str, timeout_s: float = 900.0, **options) -> str:
    """A program that must succeed; gives its output, raises LabError with what it said."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        **options,
    )
    if done.returncode:
        raise LabError(f"{' '.join(argv)} gave {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def digest(*parts: bytes) -> str:
    """A short name of some contents."""
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _remove(folder: Path) -> None:
    """Never through a mount: below one lies what belongs to this host."""
    if str(folder) in Path("/proc/self/mounts").read_text():
        raise LabError(f"something is mounted below {folder}: unmount it, then remove the folder")
    shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time, also of several processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
