"""Where bundles lie, which of them serves a tier, and how another one takes its place.

`STATE/bundles/TIER/VERSION` holds what was installed, `current` and `previous` beside it are symbolic links
that change by one rename(2), so that whoever looks finds the old bundle or the new one, whole. Retraining
writes only `STATE/candidates/TIER/VERSION`. What ships lies in the package itself. Knows nothing of how a
bundle is checked (`models.bundle`) or run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.bundle import MANIFEST, SIGNATURE, Bundle, verify
from models.errors import BundleError, ConfigError, HauswartError, LockedError, NoBundleError

Source = Literal["pinned", "current", "previous", "shipped"]
SHIPPED = Path(__file__).parent / "bundles"
KEPT = 3  # versions beside the current and the previous one
_CURRENT, _PREVIOUS = "current", "previous"
_STAGED = ".new-"  # the prefix of what an install did not finish


@dataclass(frozen=True)
class Trust:
    """Who may sign; see `models.bundle.verify`."""

    key: Path | None = None
    signature_required: bool = False

    def verify(self, directory: Path, tier: str | None) -> Bundle:
        """The bundle, every byte checked; raises BundleError."""
        return verify(directory, tier, key=self.key, signature_required=self.signature_required)


@dataclass(frozen=True)
class Choice:
    """The bundle that serves a tier, why it is this one, and why those before it were refused."""

    bundle: Bundle
    source: Source
    refused: tuple[str, ...] = ()


def choose(
    tier: str, pinned: str, state: Path, *, key: Path | None = None, signature_required: bool = False
) -> Bundle:
    """The bundle that serves a tier; raises BundleError, or NoBundleError where there is none.

    A pinned one serves or nothing does. Otherwise the installed one, the one before it and the shipped one
    are tried in this order, so that a damaged bundle is no worse than none.
    """
    return look(tier, pinned, state, Trust(key, signature_required)).bundle


def look(tier: str, pinned: str, state: Path, trust: Trust) -> Choice:
    """As `choose`, with the reasons."""
    if pinned == "off":
        raise NoBundleError(f"the {tier} tier's model is switched off", hint=f"[models] {tier}")
    if pinned != "auto":
        return Choice(trust.verify(Path(pinned), tier), "pinned")
    refused: list[BundleError] = []
    for source, directory in places(tier, state):
        if not os.path.lexists(directory):
            continue
        try:
            return Choice(trust.verify(directory, tier), source, tuple(str(error) for error in refused))
        except BundleError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    raise NoBundleError(f"there is no bundle for the {tier} tier", hint="`hauswart models install DIR`")


def places(tier: str, state: Path) -> list[tuple[Source, Path]]:
    """Where a bundle is looked for that nobody pinned, in order."""
    shelf = state / "bundles" / tier
    return [("current", shelf / _CURRENT), ("previous", shelf / _PREVIOUS), ("shipped", SHIPPED / tier)]


def candidates(tier: str, state: Path) -> Path:
    """The only place where retraining writes."""
    return state / "candidates" / tier


def installed(tier: str, state: Path) -> list[Path]:
    """The directories of all installed versions, by name."""
    shelf = state / "bundles" / tier
    return sorted(path for path in shelf.glob("[!.]*") if path.is_dir() and not path.is_symlink())


def install(source: Path, tier: str | None, state: Path, trust: Trust) -> Bundle:
    """Verify a bundle where it lies, copy it, verify the copy and have it serve; the one before stays.

    Raises BundleError and leaves everything as it was; LockedError while another install is at work.
    """
    offered = trust.verify(source, tier)
    shelf = state / "bundles" / offered.manifest.tier
    with _locked(shelf):
        _sweep(shelf)
        target = shelf / offered.manifest.version
        if _is_same(target, offered):
            _repair(target, offered, trust)
        elif os.path.lexists(target):
            raise BundleError(
                f"another bundle of version {offered.manifest.version} is installed in {target}",
                hint="give the bundle a version of its own",
            )
        else:
            _place(offered, target, trust)
        _switch(shelf, target.name)
        _forget(shelf)
        return trust.verify(target, offered.manifest.tier)


def rollback(tier: str, state: Path, trust: Trust) -> Bundle | None:
    """Have the bundle before serve again; None where that is the shipped one. Raises HauswartError.

    The two change places, so that a second rollback takes back the first.
    """
    shelf = state / "bundles" / tier
    if not os.path.lexists(shelf / _CURRENT):
        raise HauswartError(f"no bundle is installed for the {tier} tier", hint="`hauswart models list`")
    with _locked(shelf):
        now, before = _target(shelf / _CURRENT), _target(shelf / _PREVIOUS)
        if before in {"", now}:  # they are equal where an install was interrupted between its two steps
            if before:
                _unlink(shelf / _PREVIOUS)
            _unlink(shelf / _CURRENT)
            return None
        found = trust.verify(shelf / before, tier)
        _point(shelf, _CURRENT, before)
        _point(shelf, _PREVIOUS, now)
        return found


# --- one step each ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(shelf: Path) -> Iterator[None]:
    """Only one at a time changes a tier's shelf; the kernel lets go when the holder dies."""
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        give(shelf, shelf.parent)
        descriptor = os.open(shelf / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        give(shelf / ".lock", shelf)
    except OSError as error:
        raise ConfigError(f"{shelf} is not writable: {error.strerror}", hint="run as root") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise LockedError(f"another process changes the bundles in {shelf}", hint="try again") from error
    finally:
        os.close(descriptor)


def _sweep(shelf: Path) -> None:
    """Remove what an install that was interrupted left behind."""
    for path in shelf.glob(f"{_STAGED}*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)


def _is_same(target: Path, offered: Bundle) -> bool:
    """Whether what is installed under this version was made as this very bundle."""
    try:
        return (target / MANIFEST).read_bytes() == (offered.directory / MANIFEST).read_bytes()
    except OSError:
        return False


def _repair(target: Path, offered: Bundle, trust: Trust) -> None:
    """Take the offered copy where the installed one was damaged since."""
    try:
        trust.verify(target, offered.manifest.tier)
    except BundleError:
        if target.samefile(offered.directory):
            raise
        broken = Path(tempfile.mkdtemp(prefix=_STAGED, dir=target.parent))
        target.rename(broken / "broken")
        _place(offered, target, trust)
        shutil.rmtree(broken)


def _place(offered: Bundle, target: Path, trust: Trust) -> None:
    """Copy a bundle to where nothing is: under another name, checked and on the disk, then renamed."""
    staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=target.parent))
    try:
        staged.chmod(0o755)
        signature = [SIGNATURE] if (offered.directory / SIGNATURE).is_file() else []
        for name in (*offered.manifest.files, MANIFEST, *signature):
            _copy(offered.directory / name, staged / name)
        trust.verify(staged, offered.manifest.tier)
        give(staged, target.parent)
        _sync(staged)
        staged.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise HauswartError(
            f"cannot install into {target}: {error.strerror}", hint="nothing changed"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def give(path: Path, shelf: Path) -> None:
    """What root installs belongs to the shelf's owner, who may have to remove it one day."""
    if os.geteuid() == 0 and (owner := shelf.stat()).st_uid != 0:
        for one in (path, *path.rglob("*")):
            os.chown(one, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())
    target.chmod(0o644)


def _switch(shelf: Path, version: str) -> None:
    now = _target(shelf / _CURRENT)
    if now == version:
        return
    if now:  # first, so that a crash between the two renames leaves the old one serving
        _point(shelf, _PREVIOUS, now)
    _point(shelf, _CURRENT, version)


def _forget(shelf: Path) -> None:
    """Remove the oldest versions that no link points to, so that the shelf has a bound."""
    used = {_target(shelf / name) for name in (_CURRENT, _PREVIOUS)}
    rest = [path for path in shelf.glob("[!.]*") if not path.is_symlink() and path.name not in used]
    for path in sorted(rest, key=lambda one: one.stat().st_mtime_ns, reverse=True)[KEPT:]:
        shutil.rmtree(path)


def _point(shelf: Path, name: str, version: str) -> None:
    """Let a link point to a version, in one step."""
    fresh = shelf / f"{_STAGED}{name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(version)
    give(fresh, shelf)
    fresh.replace(shelf / name)
    _sync(shelf)


def _target(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def _unlink(link: Path) -> None:
    link.unlink(missing_ok=True)
    _sync(link.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
