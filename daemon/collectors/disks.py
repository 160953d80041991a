"""Rates of block devices from `/proc/diskstats` and the kernel's error counters; arrays are in `arrays`."""

from __future__ import annotations

from pathlib import Path

from daemon.collectors.kernel_files import REPEAT_S, KernelFile, Note, Rates, printable, reason_of

MAX_DEVICES = 1024  # partitions included
# While a disk is new the kernel asks for pages that it may not have, and counts each refusal as an error;
# what it could not read or write it logs besides. A USB stick took half a second in an emulated machine.
PROBED_S = 10.0
_SECTOR_BYTES = 512  # diskstats counts in these whatever the device's own size is
_PARTITION, _PHYSICAL, _VIRTUAL = range(3)


class Counters:
    """The counters of one line of diskstats (Documentation/admin-guide/iostats.rst)."""

    __slots__ = ("busy_ms", "done", "read_bytes", "waited_ms", "write_bytes")

    def __init__(self, text: bytes) -> None:
        reads, _, read, read_ms, writes, _, written, write_ms, _, busy_ms = map(int, text.split()[:10])
        self.done = reads + writes
        self.read_bytes, self.write_bytes = read * _SECTOR_BYTES, written * _SECTOR_BYTES
        self.waited_ms = read_ms + write_ms
        self.busy_ms = busy_ms


class _Disk:
    """One device's last counters; an idle one repeats its zeros only now and then."""

    __slots__ = (
        *("errors", "kind", "label", "last", "mono", "probed_at", "rates", "repeat_at", "text", "working"),
    )

    def __init__(self, name: str, block: Path, probed_at: float) -> None:
        directory = block / name.replace("/", "!")
        self.label = name
        self.kind = _kind_of(directory, name)
        self.errors = _error_file(directory) if self.kind == _PHYSICAL else None
        self.rates = Rates()
        self.probed_at = probed_at
        self.text = b""
        self.last: Counters | None = None
        self.mono = 0.0
        self.repeat_at = 0.0
        self.working = False

    def read(self, text: bytes, mono: float, values: dict[str, float]) -> None:
        """Add the rates since the last call; raises ValueError on malformed counters."""
        if text == self.text:
            virtual_rest = self.kind == _VIRTUAL and not self.working  # left out until it works again
            if mono < self.repeat_at or virtual_rest:
                self.mono = mono
                return
            self.repeat_at = mono + REPEAT_S
            self.working = False
        else:
            self.working = self.last is not None
            self.repeat_at = 0.0
        now, last, elapsed = Counters(text), self.last, mono - self.mono
        self.text, self.last, self.mono = text, now, mono
        if last is not None and elapsed > 0:
            self._rate(now, last, elapsed, values)
        if self.errors:
            self._read_errors(self.errors, mono, values)

    def _read_errors(self, file: KernelFile, mono: float, values: dict[str, float]) -> None:
        try:
            count = int(file.read().strip(), 0)
        except OSError:  # the device went away; udev and the next diskstats say so
            return
        if mono < self.probed_at:
            self.rates = Rates()
        self.rates.put(values, f"disk.io_errors{{{self.label}}}", count, mono)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.errors:
            self.errors.close()

    def _rate(self, now: Counters, last: Counters, elapsed: float, values: dict[str, float]) -> None:
        done, busy_ms = now.done - last.done, now.busy_ms - last.busy_ms
        read, written = now.read_bytes - last.read_bytes, now.write_bytes - last.write_bytes
        if min(done, busy_ms, read, written) < 0:
            return  # counters wrap, and a device may have been replaced under its name
        label = f"{{{self.label}}}"
        values["disk.busy" + label] = min(1.0, busy_ms / 1000 / elapsed)
        values["disk.read_bytes" + label] = read / elapsed
        values["disk.write_bytes" + label] = written / elapsed
        if done and now.waited_ms >= last.waited_ms:
            values["disk.await_s" + label] = (now.waited_ms - last.waited_ms) / 1000 / done


def _error_file(directory: Path) -> KernelFile | None:
    """Failed commands of a SCSI device (drivers/scsi/scsi_sysfs.c), a hexadecimal count."""
    path = directory / "device/ioerr_cnt"
    return KernelFile(path, single=True) if path.exists() else None


def _kind_of(directory: Path, name: str) -> int:
    if not directory.is_dir():
        return _PARTITION
    removable = name.startswith(("sr", "fd"))  # mostly empty drives
    return _PHYSICAL if (directory / "device").exists() and not removable else _VIRTUAL


class DiskReader:
    """The family disk: physical devices always, loop, device-mapper, md and the like while they work."""

    def __init__(self, proc: Path, sys: Path) -> None:
        self._block = sys / "block"
        self._file = KernelFile(proc / "diskstats")
        self._known: dict[bytes, _Disk] = {}
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Find out whether block devices are counted here."""
        try:
            self._file.read()
        except OSError as error:
            return [Note("disk", "absent", reason_of(error))]
        return []

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Add this instant's values."""
        known: dict[bytes, _Disk] = {}
        probed_at = mono + PROBED_S if self._known else mono
        for line in self._file.read().split(b"\n"):
            fields = line.split(None, 3)
            if len(fields) < 4:
                continue
            name = fields[2]
            disk = known[name] = self._known.get(name) or _Disk(printable(name), self._block, probed_at)
            if disk.kind == _PARTITION:
                continue
            try:
                disk.read(fields[3], mono, values)
            except ValueError as error:
                self._notes.append(Note(f"disk.{disk.label}", "error", f"malformed counters: {error}"))
            if len(known) >= MAX_DEVICES:
                break
        for name in self._known.keys() - known.keys():
            self._known[name].close()
        self._known = known

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Give all descriptors back."""
        self._file.close()
        for disk in self._known.values():
            disk.close()
