"""Which file systems are watched, and what is said of them."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.filesystems import FileSystemReader, choose, parse_mountinfo

FIXTURE = Path(__file__).parent / "fixtures/proc-host/1/mountinfo"


def read(reader, mono):
    values = {}
    reader.read(mono, values)
    return values


def test_real_local_file_systems_are_chosen_once_each():
    chosen, left = choose(parse_mountinfo(FIXTURE.read_bytes()))
    assert {mount.label for mount in chosen} == {
        *("/", "/home", "/run", "/run/user/1000", "/dev/shm", "/mnt/with blank", "/mnt/broken")
    }
    assert left == ["/mnt/nas", "/mnt/phone"]


def test_later_mount_on_the_same_point_hides_the_earlier_one():
    first = b"1 0 8:1 / /data rw - ext4 /dev/sda1 rw\n2 0 8:2 / /data rw - xfs /dev/sda2 rw\n"
    assert [mount.device for mount in parse_mountinfo(first)] == ["8:2"]


def test_shortest_writable_mount_point_stands_for_a_device():
    lines = (
        b"1 0 8:1 / /a ro - ext4 x rw\n2 0 8:1 / /bbbb rw - ext4 x rw\n3 0 8:1 / /ccccccc rw - ext4 x rw\n"
    )
    chosen, _ = choose(parse_mountinfo(lines))
    assert [mount.label for mount in chosen] == ["/bbbb"]


def test_number_of_mounts_is_bounded():
    lines = b"".join(b"1 0 8:%d / /m%d rw - ext4 x rw\n" % (i, i) for i in range(2000))
    assert len(choose(parse_mountinfo(lines))[0]) == 128


@given(st.binary(max_size=400))
def test_mountinfo_parser_survives_any_bytes(data):
    choose(parse_mountinfo(data))
    choose(parse_mountinfo(b"1 0 8:1 / /" + data + b" rw - ext4 x rw"))


def host(tmp_path, options=b"rw"):
    """A proc tree whose only mount is the file system that holds it."""
    number = tmp_path.stat().st_dev
    line = b"1 0 %d:%d / %s rw - zfs pool %s\n" % (
        os.major(number),
        os.minor(number),
        bytes(tmp_path),
        options,
    )
    (tmp_path / "proc/1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/1/mountinfo").write_bytes(line)
    return tmp_path / "proc"


def test_values_of_a_file_system_are_those_of_statvfs(tmp_path):
    reader = FileSystemReader(host(tmp_path))
    assert reader.open() == []
    values = read(reader, 1.0)
    state = os.statvfs(tmp_path)
    used = state.f_blocks - state.f_bfree
    assert values[f"fs.used{{{tmp_path}}}"] == pytest.approx(used / (used + state.f_bavail), abs=0.01)
    assert values[f"fs.readonly{{{tmp_path}}}"] == 0.0


def test_emergency_read_only_is_seen_though_the_mount_says_rw(tmp_path):
    reader = FileSystemReader(host(tmp_path))
    reader.open()
    read(reader, 1.0)
    host(tmp_path, b"rw,emergency_ro")
    assert read(reader, 7.0)[f"fs.readonly{{{tmp_path}}}"] == 1.0


def test_hidden_mount_is_named_and_not_measured_as_another(tmp_path):
    proc = host(tmp_path)
    (proc / "1/mountinfo").write_bytes(b"1 0 250:250 / %s rw - ext4 /dev/x rw\n" % bytes(tmp_path))
    reader = FileSystemReader(proc)
    reader.open()
    assert read(reader, 1.0) == {}
    assert [(note.name, note.action) for note in reader.notes()] == [(f"fs.{tmp_path}", "absent")]


def test_own_mounts_are_read_where_those_of_process_1_are_not(tmp_path):
    proc = host(tmp_path)
    shutil.move(proc / "1", proc / "self")
    reader = FileSystemReader(proc)
    assert [note.name for note in reader.open()] == ["fs.mountinfo"]
    assert read(reader, 1.0)


def command(*argv):
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def mounted(point):
    point.mkdir()
    if not command("mount", "-t", "tmpfs", "-o", "size=1m", "none", point):
        pytest.skip("mounting needs root")
    return point


@pytest.fixture
def small(tmp_path):
    yield mounted(tmp_path / "small")
    command("umount", "-l", tmp_path / "small")


def fill(point):
    with (point / "x").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))


@pytest.mark.lab
def test_new_small_file_system_is_seen_full_at_the_next_reading(tmp_path):
    reader = FileSystemReader(Path("/proc"))
    reader.open()
    mono = time.monotonic()
    read(reader, mono)
    point = mounted(tmp_path / "late")
    try:
        with pytest.raises(OSError, match="No space"):
            fill(point)
        values = read(reader, mono + 1.0)
        assert values[f"fs.used{{{point}}}"] == 1.0
        assert values[f"fs.free_bytes{{{point}}}"] == 0
    finally:
        command("umount", point)
    assert f"fs.used{{{point}}}" not in read(reader, mono + 2.0)


@pytest.mark.lab
def test_remount_read_only_is_seen_at_the_next_reading(small):
    reader = FileSystemReader(Path("/proc"))
    reader.open()
    mono = time.monotonic()
    assert read(reader, mono)[f"fs.readonly{{{small}}}"] == 0.0
    assert command("mount", "-o", "remount,ro", small)
    assert read(reader, mono + 1.0)[f"fs.readonly{{{small}}}"] == 1.0


@pytest.mark.lab
def test_read_only_view_of_a_sandbox_is_not_taken_for_the_host(small):
    """As ProtectSystem=strict shows every mount to the units."""
    proc = host(small.parent)
    number = small.stat().st_dev
    line = b"9 1 %d:%d / %s rw - zfs pool rw\n" % (os.major(number), os.minor(number), bytes(small))
    (proc / "1/mountinfo").write_bytes(line)
    assert command("mount", "-o", "remount,ro", small)
    reader = FileSystemReader(proc)
    reader.open()
    assert read(reader, 1.0)[f"fs.readonly{{{small}}}"] == 0.0
    (proc / "1/mountinfo").write_bytes(line.replace(b"pool rw", b"pool ro"))
    assert read(reader, 7.0)[f"fs.readonly{{{small}}}"] == 1.0


@pytest.mark.lab
def test_ext4_that_stops_writing_after_an_error_is_read_only(tmp_path):
    image, point = tmp_path / "image", tmp_path / "broken"
    image.write_bytes(bytes(8 << 20))
    point.mkdir()
    options = "loop,errors=remount-ro"
    if not command("mkfs.ext4", "-q", image) or not command("mount", "-o", options, image, point):
        pytest.skip("needs root, mkfs.ext4 and a loop device")
    try:
        reader = FileSystemReader(Path("/proc"))
        reader.open()
        mono = time.monotonic()
        assert read(reader, mono)[f"fs.readonly{{{point}}}"] == 0.0
        number = point.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
        trigger = Path("/sys/fs/ext4") / device / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("this kernel cannot trigger an ext4 error")
        trigger.write_text("test")
        assert read(reader, mono + 6.0)[f"fs.readonly{{{point}}}"] == 1.0
    finally:
        command("umount", point)
