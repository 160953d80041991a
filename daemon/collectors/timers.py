"""Services that a systemd timer started, while they run; read from unit files and control groups."""

from __future__ import annotations

from pathlib import Path

REFRESH_S = 60.0
MAX_TIMERS = 500
_UNIT_BYTES = 16 << 10
_UNIT_FOLDERS = (  # systemd.unit(5), in the order of precedence
    *("etc/systemd/system", "run/systemd/system", "run/systemd/transient", "run/systemd/generator"),
    *("usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"),
)
_GROUP_FOLDERS = (
    "fs/cgroup/system.slice",
    "fs/cgroup/systemd/system.slice",
    "fs/cgroup/unified/system.slice",
)


class Timers:
    """Knows which service belongs to which timer."""

    def __init__(self, root: Path, sys: Path) -> None:
        self._root = root
        self._sys = sys
        self._services: list[str] = []
        self._groups: Path | None = None
        self._refreshed_at = float("-inf")
        self._changed_at: tuple[int, ...] = ()
        self._notes: list[str] = []
        self.present = (root / "run/systemd/system").is_dir()

    def take_notes(self) -> list[str]:
        """What could not be read, each said once."""
        notes, self._notes = self._notes, []
        return notes

    def running(self, mono: float) -> set[str]:
        """The services with a timer whose control group exists."""
        if not self.present:
            return set()
        changed = self._changed()
        if changed != self._changed_at or mono - self._refreshed_at >= REFRESH_S:
            self._refreshed_at, self._changed_at = mono, changed
            self._refresh()
        groups = self._groups
        return {unit for unit in self._services if groups and (groups / unit).is_dir()}

    def _changed(self) -> tuple[int, ...]:
        """When units were last added to or taken from each folder."""
        changed = []
        for folder in _UNIT_FOLDERS:
            try:
                changed.append((self._root / folder).stat().st_mtime_ns)
            except OSError:  # not every host has them all
                changed.append(0)
        return tuple(changed)

    def _refresh(self) -> None:
        folders = (self._sys / folder for folder in _GROUP_FOLDERS)
        self._groups = next((folder for folder in folders if folder.is_dir()), None)
        files: dict[str, Path] = {}
        for folder in _UNIT_FOLDERS:
            try:
                found = sorted((self._root / folder).glob("*.timer"))
            except OSError as error:
                self._notes.append(f"/{folder}: {error.strerror}")
                continue
            for file in found:
                files.setdefault(file.name, file)
        if len(files) > MAX_TIMERS:
            self._notes.append(f"{len(files)} timers, only {MAX_TIMERS} are watched")
        self._services = sorted({_service_of(file) for file in list(files.values())[:MAX_TIMERS]})


def _service_of(timer: Path) -> str:
    """The unit that a timer starts: `Unit=`, else the service of its own name."""
    try:
        with timer.open("rb") as file:
            text = file.read(_UNIT_BYTES).decode("utf-8", "backslashreplace")
    except OSError:  # masked by a link to /dev/null, or gone
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "Unit" and value.strip() and "/" not in value:
            return value.strip()
    return timer.name.removesuffix(".timer") + ".service"
