"""NixOS generations: which system runs, which one the profile names, and whether a switch is under way."""

from __future__ import annotations

import re
from pathlib import Path

SWITCH_MAX_S = 600.0  # a switch that never reaches its end (a boot-only rebuild) is over after this
SETTLE_S = 5.0  # services are still being restarted when the links already agree
_GENERATION = re.compile(r"system-(\d{1,9})-link")


class Generations:
    """Watches the two links that a rebuild changes."""

    def __init__(self, root: Path) -> None:
        self._profile = root / "nix/var/nix/profiles/system"
        self._current = root / "run/current-system"
        self._seen = self._links()
        self._began_at = float("-inf")
        self._agreed_at = float("inf")
        self._going = ""
        self.present = bool(self._seen[0])

    def switching(self, mono: float, *, busy: bool) -> str:
        """The generation that is being switched to, "" if none; `busy` says that its program still runs."""
        links = self._links()
        if links != self._seen:
            if links[0] != self._seen[0] or not self._going:
                self._going = _number(links[0]) or "unknown"
            self._seen, self._began_at, self._agreed_at = links, mono, float("inf")
        if self._going and not busy and self._agrees():
            self._agreed_at = min(self._agreed_at, mono)
        if mono - self._began_at > SWITCH_MAX_S or mono - self._agreed_at >= SETTLE_S:
            self._going, self._agreed_at = "", float("inf")
        return self._going

    def _links(self) -> tuple[str, str]:
        return _target(self._profile), _target(self._current)

    def _agrees(self) -> bool:
        """Whether the running system is the profile's."""
        try:
            return self._profile.resolve() == self._current.resolve()
        except (OSError, RuntimeError):  # a loop of links
            return False


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # no NixOS
        return ""


def _number(target: str) -> str:
    match = _GENERATION.search(target)
    return match[1] if match else ""
