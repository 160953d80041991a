"""State of md arrays, btrfs file systems and ZFS pools, from sysfs and procfs, every few seconds."""

from __future__ import annotations

from pathlib import Path

from daemon.collectors.kernel_files import (
    Note,
    number_after,
    printable,
    read_bytes,
    read_number,
    read_text,
    subdirectories,
)

MAX_ARRAYS = 64
_EVERY_S = 5.0
_DISCOVER_EVERY_S = 30.0
_MAX_COUNTED = 4096  # btrfs devices whose errors are remembered
_BTRFS_ERRORS = (b"write_errs", b"read_errs", b"flush_errs", b"corruption_errs", b"generation_errs")


class ArrayReader:
    """The family array: whether redundancy is lost, and whether a resync, check or balance runs."""

    def __init__(self, proc: Path, sys: Path) -> None:
        self._block, self._btrfs, self._zfs = sys / "block", sys / "fs/btrfs", proc / "spl/kstat/zfs"
        self._md: list[str] = []
        self._volumes: list[str] = []
        self._pools: list[str] = []
        self._errors: dict[str, int] = {}  # the fewest seen of each btrfs device
        self._read_at = 0.0
        self._discover_at = 0.0

    def open(self) -> list[Note]:
        """Find the arrays; having none is no lack worth a word."""
        self._discover()
        return []

    def _discover(self) -> None:
        self._md = [
            name
            for name in subdirectories(self._block)
            if name.startswith("md") and (self._block / name / "md").is_dir()
        ][:MAX_ARRAYS]
        self._volumes = [
            name for name in subdirectories(self._btrfs) if (self._btrfs / name / "devinfo").is_dir()
        ][:MAX_ARRAYS]
        self._pools = [name for name in subdirectories(self._zfs) if (self._zfs / name / "state").exists()][
            :MAX_ARRAYS
        ]

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add the arrays' states if they are due."""
        if mono >= self._discover_at:
            self._discover_at = mono + _DISCOVER_EVERY_S
            self._discover()
        if mono < self._read_at:
            return
        self._read_at = mono + _EVERY_S
        for name in self._md:
            self._read_md(name, values)
        for name in self._volumes:
            self._read_btrfs(name, values)
        for name in self._pools:
            state = read_text(self._zfs / name / "state")
            if state:
                values[f"array.degraded{{{printable(name)}}}"] = float(state != "ONLINE")

    def _read_md(self, name: str, values: dict[str, float]) -> None:
        """Documentation/admin-guide/md.rst: `degraded` counts missing members; raid0 and linear have none."""
        directory = self._block / name / "md"
        state, missing = read_text(directory / "array_state"), read_number(directory / "degraded")
        if state is None or state in ("clear", "inactive"):
            return
        values[f"array.degraded{{{name}}}"] = float(bool(missing) or state == "broken")
        action = read_text(directory / "sync_action")
        if action:
            values[f"array.sync{{{name}}}"] = float(action not in ("idle", "frozen"))

    def _read_btrfs(self, uuid: str, values: dict[str, float]) -> None:
        """A device that is missing, or whose error counters have grown while we watched.

        The counters live on the disk, so old ones say nothing about today.
        """
        directory = self._btrfs / uuid
        devices = list(subdirectories(directory / "devices"))
        label = printable(devices[0]) if devices else uuid
        grown = missing = False
        for device in list(subdirectories(directory / "devinfo"))[:MAX_ARRAYS]:
            grown |= self._has_grown(directory / "devinfo" / device / "error_stats")
            missing |= read_number(directory / "devinfo" / device / "missing") == 1
        values[f"array.degraded{{{label}}}"] = float(missing or grown)
        operation = read_text(directory / "exclusive_operation")
        if operation:
            values[f"array.sync{{{label}}}"] = float(operation != "none")

    def _has_grown(self, path: Path) -> bool:
        """Whether a device has more errors than it had; a replaced one, or `stats -z`, begins anew."""
        stats = read_bytes(path)
        if stats is None:
            return False
        errors = sum(number_after(stats, key + b" ") or 0 for key in _BTRFS_ERRORS)
        fewest = min(errors, self._errors.get(str(path), errors))
        if str(path) in self._errors or len(self._errors) < _MAX_COUNTED:
            self._errors[str(path)] = fewest
        return errors > fewest

    def notes(self) -> list[Note]:
        """Nothing comes up later."""
        return []

    def close(self) -> None:
        """Nothing stays open."""
