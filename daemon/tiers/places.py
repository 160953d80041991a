"""Which file system a line speaks of when it names a path, and what that file system is short of.

Pure: it reads the latest values of the metrics, which the samples keep up to date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from models.taxonomy import FaultClass

_PATH = re.compile(r"/[\w.+@%:~-]+(?:/[\w.+@%:~-]*)*")
_MOUNT = "fs.used{"
PATHS_MAX = 4  # a line that names more is a listing
SCANNED = 1024  # characters of a line
TIGHT = 0.9  # from here on the level's own rule speaks, too
FULL, INODES = FaultClass.DISK_FULL, FaultClass.INODE_EXHAUSTION


class Places:
    """The mount points that are measured, as of the latest sample."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._mounts: tuple[str, ...] = ()
        self._known_t = float("-inf")

    def mount(self, text: str, t: float, *, lacking: bool = False) -> str:
        """The mount point below which a path of the text lies; "" if it names none, or only the root's.

        Much that is mounted is not measured (network file systems), so a path below "/" may lie anywhere.
        With `lacking`, rather one above it that has run out of something, if itself it has not: what was
        mounted there is so no longer.
        """
        found = self._above(text, t)
        return next((one for one in found if lacking and self.lacks(one)), found[0] if found else "")

    def _above(self, text: str, t: float) -> list[str]:
        """The mount points but "/" above the first path that has any, deepest first."""
        if t - self._known_t >= 1.0:
            self._known_t = t
            found = (name[len(_MOUNT) : -1] for name in self._values if name.startswith(_MOUNT))
            self._mounts = tuple(sorted((one for one in found if one != "/"), key=len, reverse=True))
        for place, match in enumerate(_PATH.finditer(text, 0, SCANNED)):
            if place >= PATHS_MAX:
                break
            path = match[0]
            above = [one for one in self._mounts if path == one or path.startswith(f"{one}/")]
            if above:
                return above
        return []

    def lacks(self, mount: str) -> FaultClass | None:
        """What a file system has run out of: ENOSPC means blocks and inodes alike (mkdir(2), write(2))."""
        used, inodes = (
            self._values.get(f"{family}{{{mount}}}", 0.0) for family in ("fs.used", "fs.inodes_used")
        )
        if max(used, inodes) < TIGHT:
            return None
        return INODES if inodes > used else FULL
