"""Reads telemetry segments and recordings back, whatever has become of them.

A file is hostile until it is decoded: frames, batches and memory are bounded, what is damaged is left out,
counted and said, and the rest goes on. `daemon.store.telemetry` writes them.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import msgpack
import zstandard

from daemon import codec
from daemon.errors import FrameError, SourceError
from daemon.messages import Event, Observation, Sample
from daemon.store.telemetry import FRAME_RAW_BYTES, SegmentWriter, segment_name, segment_paths, total_bytes

MAX_FRAME_RAW_BYTES = 8 * FRAME_RAW_BYTES
MAX_WINDOW_BYTES = 8 << 20  # what the zstd program uses up to level 19
MAX_NOTES = 100
MAX_PLOT_VALUES = 100_000
MAX_EVENTS = 1000
STEP_BYTES = 512  # 512 bytes of zstd unfold to 16 MiB at the very worst (4 bytes a block of 128 KiB)
__all__ = [
    "SegmentReader",
    "SegmentWriter",
    "overlapping",
    "read_events",
    "read_segments",
    "read_series",
    "segment_paths",
    "total_bytes",
]

_MAGIC = b"\x28\xb5\x2f\xfd"


class SegmentReader:
    """Iterates over the batches of many segments in time order.

    `bytes_read` of `bytes_total` serves a progress bar; `notes` says what was damaged, `counters` how often.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.notes: list[str] = []
        self.counters = {"batches": 0, "damaged_frames": 0, "truncated_frames": 0, "skipped_bytes": 0}
        self.bytes_read = 0
        self._paths = list(paths)
        self.bytes_total = total_bytes(self._paths)
        self._decoder = codec.observation_decoder()
        self._quiet = False

    def __iter__(self) -> Iterator[list[Observation]]:
        for path in self._in_time_order():
            yield from self._read_file(path)

    def _in_time_order(self) -> list[Path]:
        """Boots by when they began, segments of one boot by monotonic time: a wall clock may have jumped."""
        if len(self._paths) < 2:
            return self._paths
        firsts = {path: self._first_stamp(path) for path in self._paths}
        began: dict[str, float] = {}
        for boot, mono, wall in firsts.values():
            began[boot] = min(began.get(boot, wall - mono), wall - mono)
        return sorted(self._paths, key=lambda path: (began[firsts[path][0]], *firsts[path][:2], path.name))

    def _first_stamp(self, path: Path) -> tuple[str, float, float]:
        probe = SegmentReader([path])
        probe._quiet = True
        for batch in probe:
            at = batch[0].at
            return at.boot, at.mono, at.wall
        return "", 0.0, 0.0

    def _read_file(self, path: Path) -> Iterator[list[Observation]]:
        try:
            file = path.open("rb")
        except OSError as error:
            self._say(f"{path.name}: {error.strerror}")
            return
        with file:
            size = file.seek(0, 2)
            if size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    yield from self._read_frames(path.name, content)
        self.bytes_read += size

    def _read_frames(self, name: str, content: mmap.mmap) -> Iterator[list[Observation]]:
        start = 0
        base = self.bytes_read
        while (found := content.find(_MAGIC, start)) >= 0:
            if found > start:
                self._skip(name, found - start)
            end, whole, damage = _measure(content, found)
            if damage:
                self.counters["damaged_frames"] += 1
                self._say(f"{name}: damaged at byte {found} ({damage})")
            elif not whole:
                self.counters["truncated_frames"] += 1
            if not damage:
                yield from self._read_frame(name, content, found, end)
            start = end if whole and not damage else content.find(_MAGIC, found + 4)
            self.bytes_read = base + (found if start < 0 else start)
            if start < 0:
                break
        else:
            if start < len(content):
                self._skip(name, len(content) - start)
        self.bytes_read = base

    def _skip(self, name: str, size: int) -> None:
        self.counters["skipped_bytes"] += size
        self._say(f"{name}: {size} bytes that are not telemetry")

    def _read_frame(self, name: str, content: mmap.mmap, start: int, end: int) -> Iterator[list[Observation]]:
        """Batches of a frame that was measured; a batch that does not decode ends it."""
        stream = _decompressor().decompressobj()
        cutter = _Cutter()
        for at in range(start, end, STEP_BYTES):
            try:
                payloads = cutter.feed(stream.decompress(content[at : min(at + STEP_BYTES, end)]))
                batches = [self._decoder.decode(payload) for payload in payloads]
            except (FrameError, zstandard.ZstdError) as error:
                self.counters["damaged_frames"] += 1
                self._say(f"{name}: the frame at byte {start} is not telemetry ({error})")
                return
            self.counters["batches"] += len(batches)
            yield from batches
        if cutter.unfinished and stream.eof:
            self.counters["damaged_frames"] += 1
            self._say(f"{name}: the frame at byte {start} ends within a batch")

    def _say(self, text: str) -> None:
        if not self._quiet and len(self.notes) < MAX_NOTES:
            self.notes.append(text)


class _Cutter:
    """Cuts a stream of MessagePack arrays into one payload each, without building their content."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=MAX_FRAME_RAW_BYTES + (1 << 20))
        self._buffer = bytearray()
        self._offset = 0

    def feed(self, content: bytes) -> list[bytes]:
        """Payloads completed by this content; raises FrameError for what is not MessagePack or too long."""
        self._buffer += content
        payloads: list[bytes] = []
        begin = 0
        try:
            self._unpacker.feed(content)
            while True:
                self._unpacker.skip()
                end = self._unpacker.tell() - self._offset
                if end - begin < 2:
                    raise FrameError("a batch without content")
                payloads.append(bytes(memoryview(self._buffer)[begin:end]))
                begin = end
        except msgpack.OutOfData:
            del self._buffer[:begin]
            self._offset += begin
        except (ValueError, msgpack.UnpackException) as error:
            raise FrameError(f"malformed MessagePack: {error}") from error
        if len(self._buffer) > codec.MAX_BATCH_BYTES:
            raise FrameError(f"a batch exceeds {codec.MAX_BATCH_BYTES} bytes")
        return payloads

    @property
    def unfinished(self) -> bool:
        """Whether a batch has begun and not ended."""
        return bool(self._buffer)


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)


def _measure(content: mmap.mmap, start: int) -> tuple[int, bool, str]:
    """Where the frame at `start` ends, whether it is whole, and what is wrong with it ("" if nothing)."""
    stream = _decompressor().decompressobj()
    raw = 0
    for at in range(start, len(content), STEP_BYTES):
        piece = content[at : at + STEP_BYTES]
        try:
            raw += len(stream.decompress(piece))
        except zstandard.ZstdError as error:
            return at, False, str(error)
        if raw > MAX_FRAME_RAW_BYTES:
            return at, False, f"unfolds to more than {MAX_FRAME_RAW_BYTES} bytes"
        if stream.eof:
            return at + len(piece) - len(stream.unused_data), True, ""
    return len(content), False, ""


def read_segments(
    paths: Sequence[Path], tell: Callable[[str], None] | None = None
) -> Iterator[list[Observation]]:
    """Batches of the segments in time order; at the end `tell` hears what was left out."""
    reader = SegmentReader(paths)
    yield from reader
    if tell is not None:
        for note in reader.notes:
            tell(note)


Course = tuple[list[float], list[float]]  # Unix seconds, values


def read_series(directory: Path, names: Sequence[str], start: float, end: float) -> dict[str, Course]:
    """The courses of metrics between two times (Unix seconds) from the segments that may hold them."""
    found = {name: (array("d"), array("d")) for name in names}
    for batch in SegmentReader(overlapping(directory, start, end)):
        for one in batch:
            if not isinstance(one, Sample) or not start <= one.at.wall <= end:
                continue
            for name, (times, values) in found.items():
                value = one.values.get(name)
                if value is not None and len(values) < MAX_PLOT_VALUES:
                    times.append(one.at.wall)
                    values.append(value)
    return {name: (list(times), list(values)) for name, (times, values) in found.items()}


def read_events(directory: Path, kinds: Collection[str], start: float, end: float) -> list[Event]:
    """The events of these kinds between two times (Unix seconds), at most MAX_EVENTS of them."""
    found: list[Event] = []
    for batch in SegmentReader(overlapping(directory, start, end)):
        found += [
            one
            for one in batch
            if isinstance(one, Event) and one.kind in kinds and start <= one.at.wall <= end
        ]
        if len(found) > MAX_EVENTS:
            break
    return found[:MAX_EVENTS]


def overlapping(directory: Path, start: float, end: float) -> list[Path]:
    """Segments last written after `start` whose name (the time of their first batch) is not after `end`."""
    latest = segment_name(end)
    try:
        paths = segment_paths(directory)
        return [path for path in paths if path.stat().st_mtime >= start and path.name[:13] <= latest]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(f"telemetry {directory}: {error.strerror}") from error
