"""Temperatures from hwmon, or from the thermal zones where hwmon has none.

Documentation/hwmon/sysfs-interface.rst; Documentation/driver-api/thermal/sysfs-api.rst.
"""

from __future__ import annotations

import time
from pathlib import Path

from daemon.collectors.kernel_files import KernelFile, Note, read_number, read_text, subdirectories

MAX_SENSORS = 64
_EVERY_S = 5.0
_SLOW_EVERY_S = 30.0  # where a bus or a drive takes its time to answer
_SLOW_S = 0.01
_DISCOVER_EVERY_S = 300.0
_PLAUSIBLE = (-40.0, 150.0)  # unwired inputs read -128 or 127 and more


class Sensor:
    """One temperature input with its critical point, if the driver tells it."""

    def __init__(self, label: str, path: Path, critical: int | None) -> None:
        self.label = label
        self.file = KernelFile(path, single=True)
        self.critical = critical / 1000 if critical else None


def _hwmon_sensors(root: Path) -> list[Sensor]:
    sensors = []
    for chip in subdirectories(root):
        directory = root / chip
        name = read_text(directory / "name") or chip
        for path in sorted(directory.glob("temp*_input"))[:MAX_SENSORS]:
            prefix = path.name.removesuffix("_input")
            label = read_text(directory / f"{prefix}_label") or prefix
            critical = read_number(directory / f"{prefix}_crit")
            sensors.append(Sensor(f"{name}/{label}", path, critical))
    return sensors


def _zone_sensors(root: Path) -> list[Sensor]:
    sensors = []
    for zone in subdirectories(root):
        directory = root / zone
        if not zone.startswith("thermal_zone") or not (directory / "temp").exists():
            continue
        critical = None
        for path in sorted(directory.glob("trip_point_*_type"))[:16]:
            if read_text(path) == "critical":
                critical = read_number(path.with_name(path.name.replace("_type", "_temp")))
        name = read_text(directory / "type") or zone
        sensors.append(Sensor(f"{name}/{zone}", directory / "temp", critical))
    return sensors


class SensorReader:
    """The family temp."""

    def __init__(self, sys: Path) -> None:
        self._class = sys / "class"
        self._sensors: list[Sensor] = []
        self._read_at = 0.0
        self._discover_at = 0.0
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Find the sensors."""
        self._discover()
        if self._sensors:
            return []
        return [
            Note("sensors", "absent", f"no temperature input in {self._class}/hwmon or {self._class}/thermal")
        ]

    def _discover(self) -> None:
        self.close()
        found = _hwmon_sensors(self._class / "hwmon") or _zone_sensors(self._class / "thermal")
        names: dict[str, int] = {}
        for sensor in found[:MAX_SENSORS]:  # two chips of a kind carry the same labels
            names[sensor.label] = names.get(sensor.label, 0) + 1
            if names[sensor.label] > 1:
                sensor.label = f"{sensor.label}#{names[sensor.label]}"
        self._sensors = found[:MAX_SENSORS]

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add the temperatures if they are due."""
        if mono < self._read_at:
            return
        if mono >= self._discover_at:
            self._discover_at = mono + _DISCOVER_EVERY_S
            self._discover()
        started = time.monotonic()
        for sensor in self._sensors:
            self._read_one(sensor, values)
        slow = time.monotonic() - started > _SLOW_S
        self._read_at = mono + (_SLOW_EVERY_S if slow else _EVERY_S)

    def _read_one(self, sensor: Sensor, values: dict[str, float]) -> None:
        try:
            celsius = int(sensor.file.read()) / 1000
        except (OSError, ValueError) as error:  # a sleeping device has no reading (ENODATA, EAGAIN)
            self._notes.append(Note(f"sensor.{sensor.label}", "error", str(error)))
            return
        if _PLAUSIBLE[0] < celsius < _PLAUSIBLE[1]:
            values[f"temp.celsius{{{sensor.label}}}"] = celsius
            if sensor.critical:
                values[f"temp.critical{{{sensor.label}}}"] = celsius / sensor.critical

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Give all descriptors back."""
        for sensor in self._sensors:
            sensor.file.close()
