"""Devices that come, change and go: udev's events, or the kernel's where no udevd runs."""

from __future__ import annotations

import errno
import os
import socket
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.collectors.source import MAX_ATTRIBUTE, reader_event
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.messages import MAX_NAME, Event, Observation, Stamp

if TYPE_CHECKING:
    from pyudev import Device, Monitor

SUBSYSTEMS = ("block", "usb", "scsi", "nvme", "hwmon")  # links are the network collector's
MAX_EVENTS = 100  # per read()
RECEIVE_BYTES = 1 << 20  # of the socket; a hub with disks behind it sends some hundred events at once
RENEW_S = 2.0  # how old a use may be: who unmounts a stick and pulls it out takes longer
_KNOWN = 1024  # devices whose description is kept for the time they are gone
_ACTIONS = {"add": "add", "remove": "remove", "offline": "remove"}  # the rest is a change
_SECTOR_BYTES = 512  # unit of /sys/block/*/size, whatever the device's own
_PROPERTIES = {
    "model": "ID_MODEL",
    "serial": "ID_SERIAL_SHORT",
    "filesystem": "ID_FS_TYPE",
    "driver": "DRIVER",
    "interfaces": "ID_USB_INTERFACES",  # ":CCSSPP:" of each; CC is the class of what it is for (usb.org)
}
_USES = frozenset({"in_use", "mount", "mounts_count", "array", "holder"})
_FILES = {
    "model": ("device/model", "product"),
    "serial": ("device/serial", "serial"),
    "size_bytes": ("size",),
}


class DeviceCollector:
    """Listens to device events and says what the device was used for."""

    name = "devices"
    interval_s: float | None = RENEW_S

    def __init__(
        self,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        run: Path = Path("/run"),
        clean_text: Clean = clean,
    ) -> None:
        self._proc = proc
        self._sys = sys
        self._run = run
        self._clean = clean_text
        self._monitor: Monitor | None = None
        self._known: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._more = False
        self._renew_at = 0.0

    def open(self) -> list[Event]:
        """Subscribe; raises SourceError where neither udev nor the kernel can be heard."""
        origin = "udev" if (self._run / "udev/control").exists() else "kernel"
        try:
            import pyudev  # noqa: PLC0415 - loads libudev, which a host without devices may lack

            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=origin)
            for subsystem in SUBSYSTEMS:
                monitor.filter_by(subsystem)
            monitor.start()
        except (ImportError, OSError, ValueError) as error:
            raise SourceError(f"device events: {error}", hint="pyudev and libudev are needed") from error
        self._monitor = monitor
        with suppress(OSError):  # without CAP_NET_ADMIN the kernel's default stays; an overflow is counted
            monitor.set_receive_buffer_size(RECEIVE_BYTES)
        self._remember_present()
        said = "udevd sends the events" if origin == "udev" else "no udevd runs, the kernel sends the events"
        return [reader_event(self.name, "present", said, origin=origin)]

    def fileno(self) -> int | None:
        """The netlink socket."""
        return int(self._monitor.fileno()) if self._monitor else None

    def pending(self) -> bool:
        """Whether the last read stopped for its limit."""
        return self._more

    def position(self) -> str:
        """Events have no position."""
        return ""

    def close(self) -> None:
        """Stop listening: the monitor's socket closes with it."""
        self._monitor = None

    def read(self, now: Stamp) -> list[Observation]:
        """The next events; equal ones of a flood are merged into one with a count."""
        merged: OrderedDict[tuple[str, str], tuple[dict[str, str], int]] = OrderedDict()
        found: list[Observation] = []
        self._more = True
        for _ in range(MAX_EVENTS):
            try:
                device = self._monitor.poll(timeout=0) if self._monitor else None
            except OSError as error:
                found.append(self._failure(error, now))
                continue
            if device is None:
                self._more = False
                break
            if device.subsystem == "scsi" and device.device_type != "scsi_device":
                continue  # hosts and targets come and go with the device itself
            key = (str(device.sys_name), _ACTIONS.get(str(device.action), "change"))
            before = merged.get(key)
            merged[key] = (before[0], before[1] + 1) if before else (self._describe(device, key[1]), 1)
        found += [self._event(key, *value, now) for key, value in merged.items()]
        if not self._more and now.mono >= self._renew_at:
            self._renew_at = now.mono + RENEW_S
            self._renew_uses()
        return found

    def _failure(self, error: OSError, now: Stamp) -> Event:
        """What failed; asking the socket for its error clears it, or poll() would raise for ever."""
        number = error.errno or 0
        if self._monitor:
            with socket.socket(fileno=os.dup(self._monitor.fileno())) as asked:
                number = asked.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or number
        if number == errno.ENOBUFS:
            return reader_event(
                self.name, "gap", "more device events than the socket holds", now, lost="unknown"
            )
        raise SourceError(f"device events stopped: {error}") from error

    def _event(self, key: tuple[str, str], attributes: dict[str, str], times: int, now: Stamp) -> Event:
        name, action = key
        if times > 1:
            attributes = attributes | {"times": str(times)}
        return Event(now, self.name, "device", self._clean(name)[0][:MAX_NAME], action, attributes)

    # --- what is known of a device --------------------------------------------------------------------

    def _describe(self, device: Device, action: str) -> dict[str, str]:
        name = str(device.sys_name)
        properties = device.properties
        found = {"subsystem": str(device.subsystem), "devtype": str(device.device_type or "")}
        found |= {key: str(properties[name]) for key, name in _PROPERTIES.items() if name in properties}
        if "/usb" in str(device.device_path):
            found["bus"] = (
                "usb"  # where no udevd gives ID_BUS, and for what lies between the bus and the disk
            )
        known = self._known.get(name, {})
        if found["subsystem"] == "block":
            found |= self._block_files(name) | self._use(name)
            if action != "remove":  # a removed one may be unmounted already: its last use is told then
                known = {key: value for key, value in known.items() if key not in _USES}
        found = known | found
        found = {key: self._clean(value)[0][:MAX_ATTRIBUTE] for key, value in found.items() if value}
        self._remember(name, found, action)
        return found

    def _remember(self, name: str, found: dict[str, str], action: str) -> None:
        self._known.pop(name, None)
        if action != "remove":
            self._known[name] = found
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def _renew_uses(self) -> None:
        """Forget uses that are over, of which no event tells; a removal that is under way was read before."""
        for name, known in self._known.items():
            if "in_use" in known:
                lasting = {key: value for key, value in known.items() if key not in _USES}
                uses = {key: self._clean(value)[0][:MAX_ATTRIBUTE] for key, value in self._use(name).items()}
                self._known[name] = lasting | uses

    def _remember_present(self) -> None:
        """Describe the block devices that are there, because a removed one tells nothing any more."""
        try:
            names = sorted(entry.name for entry in (self._sys / "class/block").iterdir())[:_KNOWN]
        except OSError:
            return
        for name in names:
            found = {"subsystem": "block"} | self._block_files(name)
            self._known[name] = {key: self._clean(value)[0][:MAX_ATTRIBUTE] for key, value in found.items()}

    def _block_files(self, name: str) -> dict[str, str]:
        folder = self._sys / "class/block" / name
        found = {}
        for key, files in _FILES.items():
            value = next((text for text in (_read(folder / file) for file in files) if text), "")
            if key == "size_bytes" and value:
                value = str(int(value) * _SECTOR_BYTES) if value.isdigit() else ""
            if value:
                found[key] = value
        return found

    def _use(self, name: str) -> dict[str, str]:
        """Mounted, swap, member of an array or under another device; partitions count for their disk."""
        mounts = [
            (device, mount)
            for device, mount in self._mounts()
            if device == f"/dev/{name}" or _is_partition(device, name)
        ]
        if mounts:
            return {"in_use": "mounted", "mount": mounts[0][1], "mounts_count": str(len(mounts))}
        swaps = (line.split(" ")[0] for line in _read(self._proc / "swaps").splitlines()[1:])
        if any(device == f"/dev/{name}" or _is_partition(device, name) for device in swaps):
            return {"in_use": "swap"}
        array = self._array(name)
        if array:
            return {"in_use": "md", "array": array}
        holders = self._sys / "class/block" / name / "holders"
        try:
            holder = next((entry.name for entry in holders.iterdir()), "")
        except OSError:
            holder = ""
        return {"in_use": "held", "holder": holder} if holder else {}

    def _mounts(self) -> list[tuple[str, str]]:
        """Device and mount point of every mount of the host; of pid 1's, a sandbox's own lies."""
        text = _read(self._proc / "1/mountinfo") or _read(self._proc / "self/mountinfo")
        found = []
        for line in text.splitlines():
            left, separator, right = line.partition(" - ")
            fields, source = left.split(" "), right.split(" ")
            if separator and len(fields) > 4 and len(source) > 1 and source[1].startswith("/dev/"):
                found.append((source[1], fields[4]))
        return found

    def _array(self, name: str) -> str:
        """The md array whose member the device, or a partition of it, is."""
        for line in _read(self._proc / "mdstat").splitlines():
            array, separator, members = line.partition(" : ")
            words = [word.partition("[")[0] for word in members.split(" ") if "[" in word]
            if separator and any(word == name or _is_partition(f"/dev/{word}", name) for word in words):
                return array.strip()
        return ""


def _is_partition(device: str, disk: str) -> bool:
    """Whether `/dev/sda1` is a partition of `sda`, `/dev/nvme0n1p2` one of `nvme0n1`."""
    rest = device.removeprefix(f"/dev/{disk}")
    if rest == device or not rest:
        return False
    return rest.isdigit() if not disk[-1:].isdigit() else rest.startswith("p") and rest[1:].isdigit()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "backslashreplace").strip()
    except OSError:  # gone with its device, or not this kernel's; the attribute is then missing
        return ""
