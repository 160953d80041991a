"""USB devices that are neither disks nor hubs: one that is gone and stays gone was part of this machine.

Who sits at the machine unplugs a mouse or a telephone as they like. Where nobody does, a lost modem, serial
adapter, key or UPS is worth a warning. Pure, on observation time, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from daemon.messages import Event, Subject
from daemon.tiers.conditions import Breach
from models.taxonomy import FaultClass, Severity, SubjectKind

RULE = "device.unplugged"
DEVICES_MAX = 256
SEATS_MAX = 64
# What switches its mode, loads its firmware or is switched by a KVM comes back within a second or two.
AWAY_S = 2.0
STALE_S = 600.0
# Base classes (usb.org, "Defined Class Codes") and the kernel's drivers for them that say nothing of a loss:
# a disk is judged by what used it, a hub by what hung on it.
_STORAGE, _HUB = "08", "09"
_SILENT = frozenset({"usb", "hub", "usb-storage", "uas", "usbfs"})


class _Gone(NamedTuple):
    event: Event
    t: float


class Peripherals:
    """What is plugged in, by the names of the USB tree (`3-1.2` hangs on `3-1`), and what has just gone."""

    def __init__(self) -> None:
        self._drivers: OrderedDict[str, str] = OrderedDict()
        self._seated: OrderedDict[str, None] = OrderedDict()
        self._gone: dict[str, _Gone] = {}
        self._lost: dict[str, None] = {}  # what was reported

    def sit(self, event: Event) -> None:
        """A session began or ended; one with a seat has somebody at the machine."""
        if not event.attributes.get("seat"):
            return
        if event.action == "start":
            self._seated[event.name] = None
            if len(self._seated) > SEATS_MAX:
                self._seated.popitem(last=False)
        elif event.action == "end":
            self._seated.pop(event.name, None)

    def note(self, event: Event, t: float) -> bool:
        """Learn from an event of the USB tree; whether what was lost is back."""
        kind, name = event.attributes.get("devtype", ""), event.name.rpartition("/")[2]
        if kind == "usb_interface":
            self._use(name.partition(":")[0], event.attributes.get("driver", ""))
        elif kind == "usb_device":
            if event.action == "remove":
                self._remove(name, event, t)
            elif event.action == "add":
                self._gone.pop(name, None)
                if name in self._lost:
                    del self._lost[name]
                    return True
        return False

    def due(self, t: float) -> list[Breach]:
        """What has been away for long enough to be lost; of a hub and what hung on it, the hub."""
        found = [name for name, gone in self._gone.items() if t - gone.t >= AWAY_S]
        breaches = []
        for name in found:
            below = any(name.startswith(f"{hub}.") for hub in self._gone)
            if not below and not self._seated:
                self._lost[name] = None
                breaches.append(self._breach(name, self._gone[name]))
        for name in found:
            del self._gone[name]
        while len(self._lost) > DEVICES_MAX:
            del self._lost[next(iter(self._lost))]
        return breaches

    def _use(self, name: str, driver: str) -> None:
        if driver:
            self._drivers[name] = driver
            self._drivers.move_to_end(name)
            if len(self._drivers) > DEVICES_MAX:
                self._drivers.popitem(last=False)

    def _remove(self, name: str, event: Event, t: float) -> None:
        driver = self._drivers.pop(name, "")
        classes = {one[:2] for one in event.attributes.get("interfaces", "").split(":") if one}
        works = bool(classes - {_STORAGE, _HUB}) if classes else driver not in _SILENT | {""}
        hangs = any(one.startswith(f"{name}.") for one in self._gone)  # a hub that took something with it
        if (works or hangs) and len(self._gone) < DEVICES_MAX:
            self._gone[name] = _Gone(event, t)

    def _breach(self, name: str, gone: _Gone) -> Breach:
        model = gone.event.attributes.get("model", "").replace("_", " ").strip()
        text = f"The USB device {name}" + (f" ({model})" if model else "") + " has disappeared."
        return Breach(
            rule=RULE,
            label=name,
            severity=Severity.WARNING,
            score=0.55,
            subjects=[Subject(SubjectKind.DEVICE, name)],
            hints={FaultClass.DEVICE_LOST: 0.7},
            text=text,
            values={},
            ref=gone.event.name,
            kind="event",
            stale_s=STALE_S,
        )
