"""The host sampler: one sample a second of everything that counters and states of this host tell.

It composes the readers; each knows its own families, one that fails is named once and left out.
"""

from __future__ import annotations

from pathlib import Path

from daemon.clock import now as read_clock
from daemon.collectors.arrays import ArrayReader
from daemon.collectors.disks import DiskReader
from daemon.collectors.filesystems import FileSystemReader
from daemon.collectors.jumps import Jumps
from daemon.collectors.kernel_files import Note, Parts, Reader, event_of, reason_of
from daemon.collectors.network import InterfaceReader, ProtocolReader
from daemon.collectors.queues import QueueReader
from daemon.collectors.sensors import SensorReader
from daemon.collectors.system import SystemReader
from daemon.collectors.units import UnitReader
from daemon.messages import MAX_VALUES, Event, Observation, Sample, Stamp

_MAX_TOLD = 1024


def readers_of(proc: Path, sys: Path, *, smart: bool = False) -> dict[str, Reader]:
    """All readers of a host by name."""
    readers: dict[str, Reader] = {
        "system": SystemReader(proc),
        "protocols": ProtocolReader(proc),
        "interfaces": InterfaceReader(proc, sys),
        "queues": QueueReader(sys),
        "filesystems": FileSystemReader(proc),
        "disks": DiskReader(proc, sys),
        "arrays": ArrayReader(proc, sys),
        "units": UnitReader(sys),
        "sensors": SensorReader(sys),
    }
    if smart:
        from daemon.collectors.smart import SmartReader  # noqa: PLC0415 - 1 MB that most hosts can spare

        readers["smart"] = SmartReader(sys)
    return readers


class HostCollector:
    """Gives one Sample a reading, and reader events for what is lacking, each once."""

    name = "host"

    def __init__(
        self, readers: dict[str, Reader], jumps: Jumps | None = None, interval_s: float = 1.0
    ) -> None:
        self.interval_s: float | None = interval_s
        self._readers = readers
        self._jumps = jumps
        self._told: set[Note] = set()
        self._parts = Parts({})

    def open(self) -> list[Event]:
        """Open all readers; what is lacking comes back as events."""
        notes: list[Note] = []
        for name, reader in list(self._readers.items()):
            try:
                notes += reader.open()
            except OSError as error:
                notes.append(Note(name, "absent", reason_of(error)))
                del self._readers[name]
        self._parts = Parts({name: reader.read for name, reader in self._readers.items()})
        return self._events(notes, read_clock())

    def fileno(self) -> int | None:
        """Driven by time alone."""
        return None

    def read(self, now: Stamp) -> list[Observation]:
        """One Sample, after the events that came up."""
        values: dict[str, float] = {}
        self._parts.read(now.mono, values)
        notes = self._parts.notes()
        for reader in self._readers.values():
            notes += reader.notes()
        if self._jumps:
            self._jumps.note(values, now.mono)
        if len(values) > MAX_VALUES:
            notes.append(
                Note("host", "gap", f"more than {MAX_VALUES} values in a sample; the rest is left out")
            )
            values = dict(list(values.items())[:MAX_VALUES])
        return [*self._events(notes, now), Sample(now, self.name, values)]

    def _events(self, notes: list[Note], now: Stamp) -> list[Event]:
        fresh = []
        for note in notes:
            if note not in self._told:
                if len(self._told) >= _MAX_TOLD:
                    self._told.clear()
                self._told.add(note)
                fresh.append(event_of(note, self.name, now))
        return fresh

    def pending(self) -> bool:
        """Never: a sample is whole."""
        return False

    def position(self) -> str:
        """Nothing to go on from."""
        return ""

    def close(self) -> None:
        """Close all readers."""
        for reader in self._readers.values():
            reader.close()
