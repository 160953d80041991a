"""Writes telemetry segments: what was observed, compressed, bounded in size and age.

`YYYYMMDDTHHMM.msgpack.zst` (UTC) is a zstd stream of the bus's own batches, one MessagePack array after the
other, so that `zstdcat` and any MessagePack reader can read it. A frame ends every minute with its checksum
(what is damaged costs a minute), a block every ten seconds (a crash costs ten seconds).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import zstandard

from daemon import codec
from daemon.messages import Event, Line, Observation, Stamp

SUFFIX = ".msgpack.zst"
SEGMENT_BYTES = 16 << 20
SEGMENT_S = 3600.0
FRAME_S = 60.0
FRAME_RAW_BYTES = 8 << 20  # a frame ends early rather than hold more; readers refuse eight times that
FLUSH_S = 10.0
RETRY_S = 30.0
LINES_PER_S = 200  # 20 MB a day at most from a flood of ordinary lines, beside the samples' 32 MB
DAY_S = 86400.0

# 150 metrics at 1 Hz, 10 s blocks: level 1 gives 39 MB/day, 3 gives 32, 6 gives 30 for four times the CPU
# time and twice the memory; a larger window gains nothing. Level 3 costs 0.02 s of CPU an hour.
_LEVEL, _WINDOW_LOG = 3, 17
_TABLE_LOG = 14  # a minute of samples needs no larger tables: the same size at half the memory
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def segment_paths(directory: Path) -> list[Path]:
    """All segments of a directory, by the time in their names."""
    found = [path for path in directory.glob(f"*{SUFFIX}") if path.is_file()]
    return sorted(found, key=lambda path: path.name.removesuffix(SUFFIX))


def segment_name(wall: float) -> str:
    """The name of a segment that begins at a time, without its suffix."""
    return time.strftime("%Y%m%dT%H%M", time.gmtime(min(max(wall, 0.0), 253402300799.0)))  # year 9999


def total_bytes(paths: Sequence[Path]) -> int:
    """Compressed size of the segments, e.g. for a progress bar."""
    return sum(path.stat().st_size for path in paths)


class SegmentWriter:
    """Appends batches to the current segment and keeps the directory within its quota.

    Never raises for a full or failing disk: it stops, says so once in `notes`, counts what is left out, and
    tries again every 30 s. `days` 0 keeps nothing at all.
    """

    def __init__(self, directory: Path, days: int, mib: int, lines_per_s: int = LINES_PER_S) -> None:
        self.directory = directory
        self.notes: list[str] = []
        self.counters = {
            "observations": 0,
            "bytes": 0,
            "lines_left_out": 0,
            "observations_lost": 0,
            "segments": 0,
            "segments_deleted": 0,
        }
        self._days, self._quota = days, mib << 20
        self._segment_bytes = min(SEGMENT_BYTES, max(1 << 16, self._quota // 8))
        self._cap = LineCap(lines_per_s)
        self._compressor = _compressor()
        self._stream: zstandard.ZstdCompressionObj | None = None
        self._file = -1
        self._path = directory
        self._written = self._raw = 0
        self._opened = self._framed = self._flushed = 0.0
        self._retry_at = float("-inf")
        self._lost = 0
        self._unflushed = 0  # observations that no write has taken yet

    def write(self, batch: Sequence[Observation], now: Stamp) -> None:
        """Append a batch; lines beyond the cap of their second are left out and counted in the stream."""
        if not self._days:
            return
        kept = self._cap.admit(batch, now)
        self.counters["lines_left_out"] = self._cap.left_out
        if kept:
            self._unflushed += len(kept)
            self._guarded(lambda: self._append(kept, now), now)

    def tick(self, now: Stamp) -> None:
        """Flush what is due; call it every second or so when there is nothing to write."""
        if self._file >= 0:
            self._guarded(lambda: self._flush_if_due(now), now)

    def close(self) -> None:
        """End the frame and the segment."""
        if self._file >= 0:
            with suppress(OSError):  # the tail of a full disk is lost; readers take what is there
                self._end_segment()
        self._abandon()

    def _guarded(self, action: Callable[[], None], now: Stamp) -> None:
        if now.mono < self._retry_at:
            self._lose()
            return
        try:
            action()
        except OSError as error:
            self._lose()
            if self._retry_at == float("-inf"):
                reason = "no space left" if error.errno in _NO_SPACE else str(error.strerror)
                self.notes.append(f"telemetry stopped: {reason} in {self.directory}")
            self._retry_at = now.mono + RETRY_S
            self._abandon()

    def _lose(self) -> None:
        """Count what was not flushed, though some of it may have come as far as the disk."""
        self._lost += self._unflushed
        self.counters["observations_lost"] += self._unflushed
        self._unflushed = 0

    def _append(self, batch: Sequence[Observation], now: Stamp) -> None:
        if self._file >= 0 and not os.fstat(self._file).st_nlink:
            self._abandon()  # purged under our hands
        if self._file < 0:
            self._begin_segment(now)
            if self._retry_at != float("-inf"):
                self._resume(now)
        self._feed(codec.encode(batch), now)
        self.counters["observations"] += len(batch)
        self._flush_if_due(now)

    def _resume(self, now: Stamp) -> None:
        """Say what was left out; on the disk at once, for only that shows whether it takes anything again."""
        gap = {"reason": "no space", "lost": str(self._lost)}
        stream = self._feed(codec.encode([Event(now, "telemetry", "reader", "telemetry", "gap", gap)]), now)
        self._put(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        self.notes.append(f"telemetry goes on; {self._lost} observations were left out")
        self._lost, self._retry_at = 0, float("-inf")

    def _feed(self, payload: bytes, now: Stamp) -> zstandard.ZstdCompressionObj:
        if self._stream is None:
            self._stream = self._compressor.compressobj()
            self._framed, self._raw = now.mono, 0
        self._raw += len(payload)
        self._put(self._stream.compress(payload))
        return self._stream

    def _flush_if_due(self, now: Stamp) -> None:
        if self._stream is None:
            return
        if self._written >= self._segment_bytes or now.mono - self._opened >= SEGMENT_S:
            self._end_segment()
        elif now.mono - self._framed >= FRAME_S or self._raw >= FRAME_RAW_BYTES:
            self._end_frame()
            self._flushed = now.mono
        elif now.mono - self._flushed >= FLUSH_S:
            self._put(self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
            self._flushed = now.mono
            self._unflushed = 0

    def _end_frame(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._put(stream.flush())
            self._unflushed = 0

    def _end_segment(self) -> None:
        self._end_frame()
        os.fdatasync(self._file)
        os.close(self._file)
        self._file = -1

    def _abandon(self) -> None:
        self._stream = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self._written:  # a full disk is tried again and again: no empty file each time
                with suppress(OSError):
                    self._path.unlink()

    def _put(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            count = os.write(self._file, view)
            self._written += count
            self.counters["bytes"] += count
            view = view[count:]

    def _begin_segment(self, now: Stamp) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.enforce_quota(now.wall)
        name = segment_name(now.wall)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        for number in range(10000):
            self._path = self.directory / f"{name}{f'-{number:04d}' if number else ''}{SUFFIX}"
            with suppress(FileExistsError):
                self._file = os.open(self._path, flags, 0o640)
                break
        else:
            raise OSError(errno.EEXIST, "ten thousand segments in one minute")
        self._written, self._opened, self._flushed = 0, now.mono, now.mono
        self.counters["segments"] += 1

    def enforce_quota(self, wall: float) -> None:
        """Delete the oldest segments that are too old or too many bytes, leaving room for the next one.

        The clock is believed two days past the newest segment at most: a jump ahead must not erase all.
        """
        known = [(path, path.stat()) for path in segment_paths(self.directory)]
        newest = max((status.st_mtime for _, status in known), default=wall)
        horizon = min(wall, newest + 2 * DAY_S) - self._days * DAY_S
        size = sum(status.st_size for _, status in known)
        for path, status in known:
            if status.st_mtime >= horizon and size <= self._quota - self._segment_bytes:
                continue
            path.unlink(missing_ok=True)
            size -= status.st_size
            self.counters["segments_deleted"] += 1


class LineCap:
    """Lets so many lines of each second pass and reports the others as one gap event."""

    def __init__(self, lines_per_s: int) -> None:
        self.left_out = 0
        self._limit = lines_per_s
        self._boot, self._second = "", -1
        self._count = 0
        self._since = 0

    def admit(self, batch: Sequence[Observation], now: Stamp) -> list[Observation]:
        """What of the batch may be kept, after the gap of an earlier second if there is one."""
        kept: list[Observation] = []
        for one in batch:
            second = int(one.at.mono)
            if second > self._second or one.at.boot != self._boot:  # a boot's last lines come after the next
                if self._since:
                    kept.append(self._gap(now))
                self._boot, self._second, self._count = one.at.boot, second, 0
            if isinstance(one, Line):
                self._count += 1
                if self._count > self._limit:
                    self.left_out += 1
                    self._since += 1
                    continue
            kept.append(one)
        return kept

    def _gap(self, now: Stamp) -> Event:
        attributes = {"reason": "too many lines", "lost": str(self._since)}
        self._since = 0
        return Event(now, "telemetry", "reader", "telemetry", "gap", attributes)


def _compressor() -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=_WINDOW_LOG, hash_log=_TABLE_LOG, chain_log=_TABLE_LOG, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters)
