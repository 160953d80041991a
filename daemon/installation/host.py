"""One host, or an image's root: each change is said, and made unless this is only a rehearsal.

A change that is already made is no change, so that doing it twice does nothing the second time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from daemon.errors import ConfigError, HauswartError, MissingDependencyError
from daemon.installation.files import Placed

COMMAND_TIMEOUT_S = 330.0  # a stage may take five minutes to start where it has to save a store


@dataclass
class Host:
    """Changes below `root`; `say` gets a line for each, `changed` counts them."""

    root: Path
    dry: bool
    say: Callable[[str], None]
    changed: int = 0

    @property
    def is_image(self) -> bool:
        """Whether this is not the running host: then nothing is started or stopped."""
        return self.root != Path("/")

    def at(self, path: Path) -> Path:
        """Where a path lies below the root."""
        return self.root / path

    def write(self, placed: Placed) -> bool:
        """Have a file with this content and mode; whether that was a change. Raises ConfigError."""
        path = self.at(placed.path)
        if read(path) == placed.content and not path.is_symlink():
            return False
        self.tell("write", placed.path)
        if not self.dry:
            try:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.new")
                partial.write_bytes(placed.content)
                partial.chmod(placed.mode)
                partial.replace(path)
            except OSError as error:
                raise _unwritable(path, error) from error
        return True

    def link(self, path: Path, target: Path) -> None:
        """Have a symbolic link; what else is there stays."""
        if os.path.lexists(self.at(path)):
            return
        self.tell("link", path, f" to {target}")
        if not self.dry:
            self.at(path).parent.mkdir(parents=True, exist_ok=True)
            self.at(path).symlink_to(target)

    def move(self, path: Path, folder: Path) -> None:
        """Have what lies at a path in a folder, if it is not there yet."""
        target = folder / path.name
        if not self.at(path).is_file() or os.path.lexists(self.at(target)):
            return
        self.tell("move", path, f" to /{target}")
        if not self.dry:
            self.at(path).rename(self.at(target))

    def set_aside(self, path: Path) -> None:
        """Keep what somebody edited beside what takes its place."""
        self.tell("keep", path, " as it was edited, with the suffix .edited")
        if not self.dry:
            self.at(path).replace(self.at(path).with_name(f"{path.name}.edited"))

    def remove(self, path: Path) -> None:
        """Have no such file, nor folders of ours that it leaves empty."""
        if not os.path.lexists(self.at(path)):
            return
        self.tell("remove", path)
        if not self.dry:
            self.at(path).unlink()
            if path.parent.name == "hauswart" and not any(self.at(path.parent).iterdir()):
                self.at(path.parent).rmdir()

    def remove_tree(self, path: Path) -> None:
        """Have no such folder."""
        if self.at(path).is_dir():
            self.tell("remove", path, " with all that is in it")
            if not self.dry:
                shutil.rmtree(self.at(path))

    def run(self, *argv: str, here: bool = True, may_fail: bool = False) -> None:
        """Run a program of the host's, with its own option for another root; raises HauswartError.

        `here` False: only on the running host.
        """
        if self.is_image and not here:
            return
        command = [argv[0], *([f"--root={self.root}"] if self.is_image else []), *argv[1:]]
        self.say(f"run {' '.join(command)}")
        if self.dry:
            return
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
            )
        except FileNotFoundError as error:
            raise MissingDependencyError(
                f"{argv[0]} is not installed", hint="hauswart host needs systemd"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise HauswartError(f"{' '.join(command)} took too long", hint="journalctl -xe") from error
        if done.returncode and not may_fail:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise HauswartError(
                f"{' '.join(command)} failed: {said[-1] if said else done.returncode}",
                hint="what was done stays; do it again after the remedy",
            )

    def tell(self, verb: str, path: Path, more: str = "") -> None:
        """Say a change."""
        self.changed += 1
        self.say(f"{verb} {self.at(path)}{more}")


def read(path: Path) -> bytes | None:
    """A file's content, None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _unwritable(path, error) from error


def digest(content: bytes) -> str:
    """What the receipt keeps of a content."""
    return sha256(content).hexdigest()


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: {error.strerror}", hint="run as root, or choose another --root")
