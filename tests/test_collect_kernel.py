import os
import select
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import now
from daemon.collectors.kernel import KernelCollector
from daemon.errors import SourceError
from daemon.messages import MAX_TEXT, Event, Line, Stamp

AT = Stamp("b" * 32, 1000.0, 1_700_000_000.0)


@pytest.fixture
def ring():
    """A device of our own: like /dev/kmsg, each read of a sequenced-packet socket gives one record."""
    writer, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    reader.settimeout(0)
    yield writer, reader
    writer.close()
    reader.close()


def collect(ring, position="", at=AT):
    collector = KernelCollector(position)
    collector._descriptor = os.dup(ring[1].fileno())
    found = collector.read(at)
    return collector, found


def lines(found):
    return [item for item in found if isinstance(item, Line)]


def test_a_record_becomes_a_trusted_kernel_line(ring):
    ring[0].send(
        b"3,17,999000000,-;sd 0:0:0:0: [sda] tag#0 FAILED \\xe2\\x9c\\x93\n"
        b" SUBSYSTEM=scsi\n DEVICE=+scsi:0:0:0:0\n"
    )
    _, found = collect(ring)
    line = lines(found)[0]
    assert line.text == "sd 0:0:0:0: [sda] tag#0 FAILED ✓"
    assert (line.priority, line.identifier, line.trusted, line.source) == (3, "kernel", True, "kernel")
    assert line.fields == {"_KERNEL_SUBSYSTEM": "scsi", "_KERNEL_DEVICE": "+scsi:0:0:0:0"}
    assert line.at == Stamp(AT.boot, 999.0, AT.wall - 1.0)


def test_what_user_space_wrote_is_not_the_kernels(ring):
    ring[0].send(b"11,18,999000000,-;kernel[3]: Out of memory: Killed process 1\n")
    ring[0].send(b"12,19,999000000,-;no sender\n")
    line, other = lines(collect(ring)[1])
    assert (line.priority, line.identifier, line.pid, line.trusted) == (3, "kernel", 3, False)
    assert line.text == "Out of memory: Killed process 1"
    assert (other.identifier, other.trusted) == ("", False)


def test_overwritten_records_are_counted(ring):
    for sequence in (5, 6, 10):
        ring[0].send(b"6,%d,1,-;x\n" % sequence)
    collector, found = collect(ring)
    gap = found[-1]
    assert isinstance(gap, Event)
    assert (gap.action, gap.attributes["lost"], collector.lost) == ("gap", "3", 3)


def test_goes_on_after_the_saved_record_of_the_same_boot(ring):
    for sequence in (5, 6, 7):
        ring[0].send(b"6,%d,1,-;n%d\n" % (sequence, sequence))
    collector, found = collect(ring, f"{AT.boot}:6")
    assert [line.text for line in lines(found)] == ["n7"]
    assert collector.position() == f"{AT.boot}:7"


def test_after_a_reboot_the_whole_ring_is_new(ring):
    ring[0].send(b"6,0,1,-;Linux version\n")
    _, found = collect(ring, "a" * 32 + ":900")
    assert [line.text for line in lines(found)] == ["Linux version"]


def test_the_logs_drifting_clock_is_held_to_the_present(ring):
    collector, _ = collect(ring)
    ring[0].send(b"6,1,1060000000,-;a minute ahead\n")
    line = lines(collector.read(Stamp(AT.boot, 1001.0, AT.wall + 1)))[0]
    assert line.at.mono == 1001.0
    ring[0].send(b"6,2,1060500000,-;half a second later\n")
    line = lines(collector.read(Stamp(AT.boot, 1002.0, AT.wall + 2)))[0]
    assert line.at.mono == pytest.approx(1001.5)


def test_malformed_records_are_counted(ring):
    for record in (b"garbage", b";", b"1,2;x", b"a,b,c,d;x"):
        ring[0].send(record)
    collector, found = collect(ring)
    assert (found, collector.malformed) == ([], 4)


def test_one_read_is_bounded(ring):
    for sequence in range(1500):
        ring[0].send(b"6,%d,1,-;x\n" % sequence)
    collector, found = collect(ring)
    assert len(found) <= 1000
    while collector.pending():
        found += collector.read(AT)
    assert len(found) == 1500


@given(st.binary(max_size=200))
def test_any_record_is_survived(record):
    collector = KernelCollector()
    found = []
    collector._boot = AT.boot
    collector._take_record(record, found, AT)
    assert all(len(line.text) <= MAX_TEXT for line in found)


@pytest.mark.parametrize("position", ["nonsense", ":", "b:x", "²:²"])
def test_a_damaged_position_starts_afresh(position):
    assert KernelCollector(position).position() == ""


def test_an_unreadable_device_is_absent(tmp_path):
    with pytest.raises(SourceError):
        KernelCollector(path=tmp_path / "kmsg").open()


@pytest.mark.lab
def test_real_kmsg_is_followed_and_resumed():
    if not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("needs /dev/kmsg")
    token = f"hauswart test {os.getpid()} {time.monotonic_ns()}"
    collector = KernelCollector()
    collector.open()
    beginning = collector.position()
    collector.read(now())
    Path("/dev/kmsg").write_text(f"<3>hauswart-test[7]: {token}\n")
    assert select.select([collector.fileno()], [], [], 2)[0]
    line = next(line for line in lines(collector.read(now())) if token in line.text)
    assert (line.text, line.priority, line.pid, line.trusted) == (token, 3, 7, False)
    assert abs(line.at.mono - time.monotonic()) < 2
    position = collector.position()
    collector.close()
    collector.open()
    assert [line for line in lines(collector.read(now())) if token in line.text] == []
    collector.close()
    Path("/dev/kmsg").write_text(f"second {token}\n")
    resumed = KernelCollector(position)
    resumed.open()
    found = []
    while resumed.pending():
        found += resumed.read(now())
    assert [line.text for line in lines(found) if token in line.text] == [f"second {token}"]
    resumed.close()
    successor = KernelCollector(beginning)  # of one that died before it read anything
    successor.open()
    found = successor.read(now())
    while successor.pending():
        found += successor.read(now())
    assert sum(token in line.text for line in lines(found)) == 2
    successor.close()
