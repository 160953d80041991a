"""Hostile and broken input, thrown at the real daemon: it goes on, says what it lost, and believes nothing."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from daemon.bus.frames import Batch, Hello, Request, encode_header
from tests.fixtures.live import Peaks, append, cpu_s, live, logins
from tests.lab.runner import wait_until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
FLOOD_S = 3.0
FLOOD_LINES_PER_S = 100_000


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("h")


@pytest.fixture(scope="module")
def watched(scratch):
    """One daemon for all tests that must leave it unharmed."""
    names = ("auth", "huge", "flood", "random")
    paths = {name: scratch / f"{name}.log" for name in names}
    for path in paths.values():
        path.touch()
    with live(scratch, follow=[str(path) for path in paths.values()], kernel_log="on") as found:
        found.paths = paths
        found.first_pids = found.pids()
        yield found


@pytest.fixture(autouse=True)
def unharmed(request):
    """Whatever a test did to the shared daemon, its processes are the same as before."""
    yield
    if "watched" in request.fixturenames:
        found = request.getfixturevalue("watched")
        assert found.pids() == found.first_pids
        assert found.all_up()


@contextlib.contextmanager
def small_disk(path, mebibytes):
    path.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "hauswart-test", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path):
    """Leave not a byte."""
    with contextlib.suppress(OSError), (path / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


# --- log text -----------------------------------------------------------------------------------------


def test_line_of_64_mib_without_newline_costs_little_memory_and_hides_nothing(watched):
    peaks, path = Peaks(watched), watched.paths["huge"]
    with path.open("ab") as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    time.sleep(3)
    append(path, b"\n" + logins("198.51.100.64").encode())
    assert wait_until(lambda: watched.found("auth-bruteforce", "198.51.100.64"), 15)
    print("MiB grown", peaks.grown())
    assert max(peaks.grown().values()) < 24


def test_escape_sequences_and_broken_text_reach_no_screen(watched):
    bad = b"\x1b[2J\x1b[31mroot\x07 \xe2\x80\xae\xe2\x81\xa6evil \xff\xfe\x00\r \xc2\x9b1m \xed\xa0\x80"
    head = b"Nov 22 03:30:01 host "
    append(watched.paths["auth"], head + b"dhcpcd[71]: No DHCPOFFERS received, " + bad + b" sleeping\n")
    append(watched.paths["auth"], head + b"dhcpcd[71]: eth77: Lost carrier " + bad + b"\n")

    def found():
        return [one for one in watched.incidents() if any("DHCPOFFERS" in e.text for e in one.evidence)]

    assert wait_until(found, 15)
    one = found()[0]
    texts = " ".join(item.text for item in one.evidence)
    assert all(part in texts for part in (r"\x1b[2J", r"\u202e", r"\xff\xfe\x00\r", r"\x9b"))
    shown = watched.command("show", one.id).stdout + watched.command("incidents", "--json").stdout
    assert one.id in shown
    for text in (shown, watched.log.read_text()):
        assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_random_words_stay_cheap(watched):
    chosen = random.Random(3)
    count = 30_000
    content = "".join(
        f"Nov 22 03:30:01 host app[{n}]: {' '.join(f'{chosen.getrandbits(48):x}q' for _ in range(8))}\n"
        for n in range(count)
    )
    before = {stage: cpu_s(pid) for stage, pid in watched.pids().items()}
    peaks, source = Peaks(watched), f"file:{watched.paths['random']}"
    append(watched.paths["random"], content)
    assert wait_until(lambda: (flow := watched.flow("low", "low", source)) and flow.delivered >= count, 30)
    spent = {stage: cpu_s(pid) - before[stage] for stage, pid in watched.pids().items()}
    print("us a line", {stage: round(s / count * 1e6, 1) for stage, s in spent.items()}, peaks.grown())
    assert sum(spent.values()) / count < 200e-6
    assert max(peaks.grown().values()) < 32


@ROOT
@pytest.mark.lab
def test_flood_is_accounted_for_and_does_not_hide_a_full_disk(watched, scratch):
    path, source = watched.paths["flood"], f"file:{watched.paths['flood']}"
    block = "".join(
        f"Nov 22 03:30:01 host nginx[{n}]: request {n} from 10.0.{n % 250}.{n % 199} took {n % 977} ms\n"
        for n in range(FLOOD_LINES_PER_S // 10)
    ).encode()
    assert wait_until(lambda: watched.flow("collector", "low", "host"), 10)
    before = watched.flow("collector", "low", source).offered  # the event that it is followed
    peaks, samples = Peaks(watched), watched.flow("collector", "low", "host").offered
    began, offered, filled_s, seen_s = time.monotonic(), 0, 0.0, 0.0
    with small_disk(scratch / "full", 8) as disk:
        while (now_s := time.monotonic()) < began + FLOOD_S:
            append(path, block)
            offered += FLOOD_LINES_PER_S // 10
            if not filled_s and now_s > began + 1:
                fill(disk)
                filled_s = now_s
            time.sleep(max(0.0, began + offered / FLOOD_LINES_PER_S - time.monotonic()))
        assert wait_until(lambda: watched.found("disk-full", str(disk)), 10)
        seen_s = time.monotonic() - filled_s
        assert wait_until(lambda: watched.flow("collector", "low", source).offered >= offered, 40)
        lasted_s = time.monotonic() - began

        def balanced():
            flow = watched.flow("collector", "low", source)
            return flow.offered == flow.delivered + flow.gap

        assert wait_until(balanced, 10)
    flow = watched.flow("collector", "low", source)
    taken = watched.flow("collector", "low", "host").offered - samples
    print(f"incident after {seen_s:.1f} s, {flow}, {taken} samples in {lasted_s:.0f} s, MiB {peaks.grown()}")
    assert flow.offered == before + offered
    assert flow.gap == 0  # the file itself is the buffer
    assert seen_s < 6
    assert taken > 0.7 * (lasted_s - 6)
    assert max(peaks.grown().values()) < 40
