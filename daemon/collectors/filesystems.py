"""Which mounted file systems are real, local and worth watching, and how full they are.

Network and FUSE file systems are left alone: asking them for their size may hang for ever.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from daemon.collectors.kernel_files import KernelFile, Note, printable, reason_of

MAX_MOUNTS = 128
_COMPARE_EVERY_S = 5.0  # options such as ext4's emergency_ro change without a mount event
_COST_SHARE = 0.01  # asking all mounts may take this share of the time, else they are asked less often
_SLOWEST_S = 30.0
# read-only by nature: always "full"
_IMAGES = {"squashfs", "erofs", "iso9660", "udf", "cramfs", "romfs"}
# their server may hang: a hung statfs(2) cannot be interrupted (nfs(5), "hard")
_REMOTE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "virtiofs", "ocfs2", "gfs2", "glusterfs"),
    *("lustre", "beegfs", "ncpfs", "coda", "orangefs", "autofs"),
}
_LOCAL_WITHOUT_DEVICE = {"btrfs", "zfs", "bcachefs", "tmpfs"}
# every container and credential brings a tmpfs of its own
_FOREIGN_TMPFS = re.compile(
    r"/(run/credentials|run/user/\d+/|run/netns|run/containerd|run/docker|run/lock$|dev/pts"
    r"|var/lib/(docker|containers|containerd|kubelet|lxc|machines|lxd|incus)|sys|proc)(/|$)"
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo (proc_pid_mountinfo(5)), and whether new data cannot be written."""

    point: bytes
    device: str
    kind: str
    readonly: bool
    emergency: bool  # the kernel refuses writes after errors though the mount says rw

    @property
    def label(self) -> str:
        """The mount point as it appears in metric names."""
        return printable(self.point)


def parse_mountinfo(data: bytes) -> list[Mount]:
    """All mounts, one a mount point: the last one hides the others."""
    mounts: dict[bytes, Mount] = {}
    for line in data.split(b"\n"):
        fields = line.split(b" ")
        if b"-" not in fields[6:] or len(fields) < 10:
            continue
        dash = fields.index(b"-", 6)
        if len(fields) < dash + 4:
            continue
        point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 255]), fields[4])
        options = fields[5].split(b",") + fields[dash + 3].split(b",")
        mounts.pop(point, None)
        mounts[point] = Mount(
            point,
            fields[2].decode("ascii", "replace"),
            fields[dash + 1].decode("ascii", "replace"),
            b"ro" in options,
            b"emergency_ro" in options or b"shutdown" in options,
        )
    return list(mounts.values())


def choose(
    mounts: Iterable[Mount], before: Container[tuple[str, bytes]] = ()
) -> tuple[list[Mount], list[str]]:
    """One mount for each real local file system, the shortest writable one; and what is left alone.

    What was chosen `before` (device and mount point) stays chosen, also when it turns read-only.
    """

    def rank(mount: Mount) -> tuple[bool, bool, int, bytes]:
        chosen = (mount.device, mount.point) in before
        return not chosen, mount.readonly, len(mount.point), mount.point

    best: dict[str, Mount] = {}
    left = []
    for mount in mounts:
        kind = mount.kind
        if kind in _REMOTE or kind.startswith("fuse"):
            if kind not in ("autofs", "fusectl"):
                left.append(mount.label)
            continue
        if not _is_real(mount) and (mount.device, mount.point) not in before:
            continue
        other = best.get(mount.device)
        if other is None or rank(mount) < rank(other):
            best[mount.device] = mount
    return sorted(best.values(), key=rank)[:MAX_MOUNTS], left


def _is_real(mount: Mount) -> bool:
    if mount.kind in _IMAGES:
        return False
    if mount.kind == "tmpfs":
        return not mount.readonly and not _FOREIGN_TMPFS.match(os.fsdecode(mount.point))
    if mount.kind == "overlay":
        return mount.point == b"/"  # a live system or a container; elsewhere it only repeats its upper layer
    return mount.kind in _LOCAL_WITHOUT_DEVICE or not mount.device.startswith("0:")


def _device_of(path: bytes) -> str:
    number = os.stat(path).st_dev  # noqa: PTH116 - the path is bytes
    return f"{os.major(number)}:{os.minor(number)}"


class _Seen(NamedTuple):
    """A mount, the path under which this process sees it, and whether a sandbox makes it look read-only."""

    mount: Mount
    path: bytes
    veiled: bool


def _veiled(mount: Mount, path: bytes) -> bool:
    """Whether the mount is read-only for this process alone: ProtectSystem=strict, systemd.exec(5)."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY) and not mount.readonly
    except OSError:
        return False  # the next reading says why


class FileSystemReader:
    """The family fs: use of blocks and inodes, and whether a file system turned read-only."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._file = KernelFile(proc / "1/mountinfo")
        self._poll = select.poll()
        self._polled = -1
        self._data = b""
        self._compare_at = 0.0
        self._ask_at = 0.0
        self._chosen: list[_Seen] = []
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Prefer the mounts of process 1: a sandbox gives its service a namespace of its own."""
        try:
            self._file.read()
        except OSError as error:
            self._file = KernelFile(self._proc / "self/mountinfo")
            return [Note("fs.mountinfo", "absent", f"{reason_of(error)}; reading this process's own mounts")]
        return []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values; a slow round makes the next ones rarer."""
        if mono >= self._compare_at or self._changed():
            self._compare_at = mono + _COMPARE_EVERY_S
            self._refresh()
        if mono < self._ask_at:
            return
        started = time.monotonic()
        for seen in self._chosen:
            self._ask(seen, values)
        spent = time.monotonic() - started
        self._ask_at = mono + min(_SLOWEST_S, spent / _COST_SHARE) - 0.5  # half a tick of slack

    def _changed(self) -> bool:
        """Whether the kernel signals a mount or unmount since the last call (proc_pid_mounts(5))."""
        descriptor = self._file.fileno()
        if descriptor != self._polled:
            if self._polled >= 0:
                self._poll.unregister(self._polled)
            self._polled = descriptor
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLPRI | select.POLLERR)
        return bool(self._poll.poll(0))

    def _refresh(self) -> None:
        data = self._file.read()
        if data == self._data:
            return
        self._data = data
        before = {(seen.mount.device, seen.mount.point) for seen in self._chosen}
        mounts, left = choose(parse_mountinfo(data), before)
        if left:
            names = " ".join(left[:32])
            self._notes.append(Note("fs.remote", "absent", f"network or FUSE, not measured: {names}"))
        self._chosen = [
            _Seen(mount, path, _veiled(mount, path))
            for mount in mounts
            if (path := self._reach(mount)) is not None
        ]

    def _reach(self, mount: Mount) -> bytes | None:
        """The path under which this process sees that very file system, or None."""
        reason = "hidden by another mount or by the sandbox"
        for path in (mount.point, os.fsencode(self._proc / "1/root") + mount.point):
            try:
                # subvolumes and datasets have device numbers of their own
                if mount.kind in ("btrfs", "bcachefs", "zfs", "overlay") or _device_of(path) == mount.device:
                    return path
            except OSError as error:
                reason = reason_of(error)
        self._notes.append(Note(f"fs.{mount.label}", "absent", reason))
        return None

    def _ask(self, seen: _Seen, values: dict[str, float]) -> None:
        mount = seen.mount
        try:
            state = os.statvfs(seen.path)
        except OSError as error:
            self._notes.append(Note(f"fs.{mount.label}", "error", reason_of(error)))
            return
        label = f"{{{mount.label}}}"
        used, usable = state.f_blocks - state.f_bfree, state.f_bavail
        if state.f_blocks > 0:
            values["fs.used" + label] = used / (used + usable) if used + usable > 0 else 1.0
            values["fs.free_bytes" + label] = usable * state.f_frsize
        if state.f_files > 0:  # file systems with dynamic inodes say 0
            values["fs.inodes_used" + label] = (state.f_files - state.f_ffree) / state.f_files
        readonly = mount.readonly if seen.veiled else bool(state.f_flag & os.ST_RDONLY)
        values["fs.readonly" + label] = float(readonly or mount.emergency)

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()
