"""Telemetry segments: what was written comes back, a crash costs seconds, damage a minute, disks fill."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import codec
from daemon.messages import Event, Line, Sample, Stamp
from daemon.store.purge import purge_telemetry
from daemon.store.segments import (
    SegmentReader,
    SegmentWriter,
    read_segments,
    read_series,
    segment_paths,
)

REPO = Path(__file__).parent.parent
T0 = 1_780_000_000.0
BOOT = "b" * 32


def at(second, boot=BOOT, wall=None):
    return Stamp(boot, 100.0 + second, T0 + second if wall is None else wall)


def sample(second, **where):
    values = {f"unit.cpu{{unit{n}.service}}": (second * 31 + n) % 97 / 97 for n in range(20)}
    return Sample(at(second, **where), "host", values | {"cpu.busy": second / 1000})


def line(second, text="something happened"):
    return Line(at(second), "journal", text)


def recorded(directory, seconds=200, step=1, **options):
    writer = SegmentWriter(directory, 14, 512, **options)
    for second in range(0, seconds, step):
        writer.write([sample(second)], at(second))
    writer.close()
    return segment_paths(directory)


def times(batches):
    return [int(one.at.mono - 100) for batch in batches for one in batch]


def test_what_was_written_comes_back_in_order(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512)
    batches = [[sample(second), line(second, f"line {second}")] for second in range(130)]
    for second, batch in enumerate(batches):
        writer.write(batch, at(second))
    writer.close()
    paths = segment_paths(tmp_path)
    assert [path.name for path in paths] == ["20260528T2026.msgpack.zst"]
    reader = SegmentReader(paths)
    assert list(reader) == batches
    assert reader.notes == []
    assert reader.bytes_read == reader.bytes_total == paths[0].stat().st_size


def test_segment_is_plain_messagepack_inside_plain_zstd(tmp_path):
    (path,) = recorded(tmp_path, 5)
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        arrays = list(msgpack.Unpacker(stream))
    assert [array[0]["type"] for array in arrays] == ["sample"] * 5


def test_new_segment_begins_each_hour_and_restart_within_a_minute_keeps_the_first(tmp_path):
    recorded(tmp_path, 7300, step=20)
    names = [path.name for path in segment_paths(tmp_path)]
    assert len(names) == 3
    recorded(tmp_path, 5)
    assert [path.name for path in segment_paths(tmp_path)][:2] == [
        "20260528T2026-0001.msgpack.zst",
        "20260528T2026.msgpack.zst",
    ] or len(segment_paths(tmp_path)) == 4
    assert len(times(read_segments(segment_paths(tmp_path)))) == 365 + 5


def test_sigkill_costs_ten_seconds_at_most(tmp_path):
    script = f"""
        import sys, os, signal; sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
        from test_segments import *
        writer = SegmentWriter(Path({str(tmp_path)!r}), 14, 512)
        for second in range(96):
            writer.write([sample(second)], at(second))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    reader = SegmentReader(segment_paths(tmp_path))
    seen = times(reader)
    assert seen == list(range(len(seen)))
    assert len(seen) >= 96 - 10
    assert reader.counters["truncated_frames"] == 1
    assert reader.notes == []


def test_truncated_segment_is_read_to_where_it_ends(tmp_path):
    (path,) = recorded(tmp_path)
    content = path.read_bytes()
    lengths = []
    for size in range(0, len(content), 997):
        path.write_bytes(content[:size])
        seen = times(read_segments([path]))
        assert seen == list(range(len(seen)))
        lengths.append(len(seen))
    assert lengths == sorted(lengths)
    assert lengths[-1] > 180


def test_flipped_bit_costs_one_frame_and_never_a_wrong_value(tmp_path):
    (path,) = recorded(tmp_path)
    content, chance = path.read_bytes(), random.Random(3)
    whole = list(read_segments([path]))
    told = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        reader = SegmentReader([path])
        seen = list(reader)
        assert all(batch in whole for batch in seen)
        assert len(seen) >= len(whole) - 61
        told += bool(reader.notes)
    assert told >= 59


def test_damage_between_frames_is_said(tmp_path):
    (path,) = recorded(tmp_path, 61)
    path.write_bytes(b"junk" + path.read_bytes() + b"more junk")
    notes = []
    assert len(times(read_segments([path], notes.append))) == 61
    assert any("4 bytes that are not telemetry" in note for note in notes)
    assert any("9 bytes" in note for note in notes)


def compressed(content):
    return zstandard.ZstdCompressor(level=19).compress(content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x90" * 30_000_000, id="empty arrays"),
        pytest.param(b"\0" * 200_000_000, id="zeros"),
        pytest.param(b"\xdd\xff\xff\xff\xff" * 1000, id="arrays of four thousand million"),
        pytest.param(b"\x91" * 3_000_000, id="nested arrays"),
        pytest.param(b"\xc6\x7f\xff\xff\xff" + b"x" * 20_000_000, id="a string of two thousand million"),
    ],
)
def test_bomb_is_stopped_with_little_memory(tmp_path, content):
    path = tmp_path / "20260101T0000.msgpack.zst"
    path.write_bytes(compressed(content) + compressed(codec.encode([sample(1)])))
    script = f"""
        import resource, sys; sys.path[:0] = [{str(REPO)!r}]
        from pathlib import Path
        from daemon.store.segments import SegmentReader
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reader = SegmentReader([Path({str(path)!r})])
        count = sum(len(batch) for batch in reader)
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, reader.notes[:1])
    """
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True
    )
    count, grown_kib, notes = done.stdout.split(" ", 2)
    assert int(count) == 1
    assert int(grown_kib) < 120 * 1024
    assert "byte 0" in notes
    assert time.monotonic() - begun < 10


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=2000), pack=st.booleans())
def test_any_bytes_are_read_without_an_error(tmp_path_factory, content, pack):
    path = tmp_path_factory.mktemp("segments") / "20260101T0000.msgpack.zst"
    path.write_bytes(compressed(content) if pack else b"\x28\xb5\x2f\xfd" + content)
    list(SegmentReader([path]))


def test_segments_of_one_boot_are_read_by_monotonic_time_across_a_clock_jump(tmp_path):
    day = 86400.0
    writer = SegmentWriter(tmp_path, 14, 512)
    writer.write([sample(0)], at(0))
    writer.write([sample(4000, wall=T0 + 4000 - day)], at(4000, wall=T0 + 4000 - day))
    writer.close()
    other = SegmentWriter(tmp_path, 14, 512)
    other.write([sample(5, boot="c" * 32, wall=T0 - 9 * day)], at(5, wall=T0 - 9 * day))
    other.close()
    later = SegmentWriter(tmp_path, 14, 512)
    later.write([sample(4100, wall=T0 + 4100 - day)], at(4100, wall=T0 + 4100 - day))
    later.close()
    assert times(read_segments(segment_paths(tmp_path))) == [5, 0, 4000, 4100]


def test_flood_of_lines_is_cut_each_second_and_counted_in_the_stream(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512, lines_per_s=50)
    for second in range(3):
        for part in range(10):
            writer.write([line(second, f"flood {part} {n}") for n in range(100)], at(second))
        writer.write([sample(second)], at(second))
    writer.write([sample(3)], at(3))
    writer.close()
    seen = [one for batch in read_segments(segment_paths(tmp_path)) for one in batch]
    gaps = [int(one.attributes["lost"]) for one in seen if isinstance(one, Event)]
    assert sum(isinstance(one, Line) for one in seen) == 150
    assert sum(isinstance(one, Sample) for one in seen) == 4
    assert gaps == [950, 950, 950]
    assert writer.counters["lines_left_out"] == 2850


def test_lines_of_the_boot_before_hold_back_none_of_this_one(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512, lines_per_s=50)
    writer.write([Line(at(2_600_000, boot="a" * 32), "journal", "last words")], at(0))
    for second in range(200):
        writer.write([line(second, f"tick {second}"), sample(second)], at(second))
    writer.close()
    assert writer.counters["lines_left_out"] == 0


def test_oldest_segments_go_when_the_quota_is_reached(tmp_path):
    noise = random.Random(1)
    writer = SegmentWriter(tmp_path, 14, 1)
    for second in range(4000):
        text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz", k=900))
        writer.write([line(second, text)], at(second))
    writer.close()
    paths = segment_paths(tmp_path)
    assert sum(path.stat().st_size for path in paths) <= 1 << 20
    assert writer.counters["segments_deleted"] > 5
    assert times(read_segments(paths))[-1] == 3999


def test_segments_beyond_their_age_go_but_not_because_the_clock_jumped(tmp_path):
    paths = recorded(tmp_path, 7400, step=60)
    day = 86400.0
    for number, path in enumerate(paths):
        os.utime(path, (T0 - (20 - 9 * number) * day,) * 2)
    writer = SegmentWriter(tmp_path, 5, 512)
    writer.enforce_quota(T0)
    assert segment_paths(tmp_path) == paths[2:]
    writer.enforce_quota(T0 + 9999 * day)
    assert segment_paths(tmp_path) == paths[2:]


def test_no_days_means_no_telemetry(tmp_path):
    writer = SegmentWriter(tmp_path / "telemetry", 0, 512)
    writer.write([sample(0)], at(0))
    writer.close()
    assert not (tmp_path / "telemetry").exists()


def test_segment_purged_while_it_is_written_is_followed_by_a_new_one(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512)
    writer.write([sample(0)], at(0))
    segment_paths(tmp_path)[0].unlink()
    writer.write([sample(1)], at(1))
    writer.close()
    assert times(read_segments(segment_paths(tmp_path))) == [1]


def test_purge_erases_by_age_or_all_and_says_how_much(tmp_path):
    paths = recorded(tmp_path, 7400, step=60)
    sizes = [path.stat().st_size for path in paths]
    for number, path in enumerate(paths):
        os.utime(path, (T0 + number, T0 + number))
    assert purge_telemetry(tmp_path, T0 + 1) == (1, sizes[0])
    assert purge_telemetry(tmp_path) == (2, sum(sizes[1:]))
    assert purge_telemetry(tmp_path / "none") == (0, 0)


def test_full_disk_is_said_once_and_telemetry_goes_on_afterwards(tmp_path):
    noise = random.Random(1)
    writer = SegmentWriter(tmp_path, 14, 512)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        for second in range(100):
            text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz", k=2000))
            writer.write([line(second / 10, text)], at(second / 10))
        assert len(writer.notes) == 1
        assert "no space left" in writer.notes[0]
        lost = writer.counters["observations_lost"]
        assert lost > 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.write([sample(200)], at(200))
    writer.close()
    assert writer.notes[1] == f"telemetry goes on; {lost} observations were left out"
    seen = [one for batch in read_segments(segment_paths(tmp_path)) for one in batch]
    assert [one.attributes["lost"] for one in seen if isinstance(one, Event)] == [str(lost)]
    assert seen[-1] == sample(200)


def test_disk_that_stays_full_is_said_once_and_every_observation_is_counted(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        for second in range(120):
            writer.write([sample(second)], at(second))
            writer.tick(at(second))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(writer.notes) == 1
    assert writer.counters["observations_lost"] == 120
    assert segment_paths(tmp_path) == []
    writer.write([sample(200)], at(200))
    writer.close()
    assert writer.notes[1:] == ["telemetry goes on; 120 observations were left out"]
    assert times(read_segments(segment_paths(tmp_path))) == [200, 200]  # what was left out, and the sample


def test_directory_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "telemetry").write_text("in the way")
    writer = SegmentWriter(tmp_path / "telemetry", 14, 512)
    writer.write([sample(0)], at(0))
    writer.write([sample(1)], at(1))
    writer.tick(at(2))
    writer.close()
    assert len(writer.notes) == 1
    assert writer.counters["observations_lost"] == 2


def test_values_around_an_incident_come_from_the_segments_that_overlap(tmp_path):
    recorded(tmp_path, 300)
    found = read_series(tmp_path, ["cpu.busy", "no.such"], T0 + 10, T0 + 12)
    assert found == {"cpu.busy": ([T0 + 10, T0 + 11, T0 + 12], [0.01, 0.011, 0.012]), "no.such": ([], [])}
    assert read_series(tmp_path / "absent", ["cpu.busy"], 0, 1) == {"cpu.busy": ([], [])}


def test_missing_segment_is_said(tmp_path):
    (path,) = recorded(tmp_path, 3)
    reader = SegmentReader([path])
    path.unlink()
    assert list(reader) == []
    assert "No such file" in reader.notes[0]
