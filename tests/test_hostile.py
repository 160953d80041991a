"""Hostile and broken input, thrown at the real daemon: it goes on, says what it lost, believes nothing."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from daemon.bus.frames import Batch, Hello, Request, encode_header
from tests.fixtures.live import Peaks, append, cpu_s, fill, live, logins, small_disk
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


# --- forged lines -------------------------------------------------------------------------------------


@ROOT
@pytest.mark.lab
def test_kernel_lines_that_a_user_forged_open_nothing(watched):
    name = f"forged{os.getpid()}"
    forged = (
        f"Out of memory: Killed process 4321 ({name}) total-vm:1000kB, anon-rss:900kB, file-rss:0kB",
        f"{name}[4321]: segfault at 0 ip 00007f12 sp 00007ffd error 4 in {name}[400000+1000]",
        f"EXT4-fs error (device {name}): ext4_lookup:1855: inode #2: comm ls: deleted inode referenced",
    )
    for text in forged:
        with Path("/dev/kmsg").open("wb", buffering=0) as log:  # each write is a record
            log.write(f"<3>{text}\n".encode())
        append(watched.paths["auth"], f"Nov 22 03:30:01 host kernel: {text}\n")
    append(watched.paths["auth"], logins("198.51.100.70"))
    assert wait_until(lambda: watched.found("auth-bruteforce", "198.51.100.70"), 15)  # all were read
    told = [one for one in watched.incidents() if any(name in item.text for item in one.evidence)]
    assert told == []


# --- sockets ------------------------------------------------------------------------------------------

EPOCH = 77
NESTED = b"\x91" * 100_000
CLAIMS = [kind + b"\xff\xff\xff\xff" for kind in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9")]
BOMBS = [NESTED, b"\x81\xa1v" * 40_000, b"\xdd\x00\x10\x00\x00" + b"\xc0" * (1 << 20), b"\xc1", b"", *CLAIMS]


@contextlib.contextmanager
def peer(watched, edge, kind=zmq.DEALER):
    """A ZeroMQ peer of one of the daemon's sockets."""
    context = zmq.Context()
    found = context.socket(kind)
    found.set(zmq.LINGER, 1000)
    found.connect(f"ipc://{watched.state_dir}/run/{edge}/socket")
    try:
        yield found
    finally:
        found.close()
        context.term()


def noise(count, seed):
    chosen = random.Random(seed)
    for _ in range(count):
        yield [chosen.randbytes(chosen.choice((0, 1, 20, 500, 5000))) for _ in range(chosen.randint(1, 4))]


def scream(watched, edge):
    """Bytes that are not even ZeroMQ's own protocol."""
    for content in (
        bytes(65536),
        b"\xff" * 65536,
        random.Random(5).randbytes(65536),
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(OSError):
            raw.connect(str(watched.state_dir / "run" / edge / "socket"))
            raw.sendall(content)


def drops(watched, stage, edge):
    return sum(watched.status(stage).drops.get(edge, {}).values())


@pytest.mark.parametrize(("edge", "stage"), [("low", "low"), ("middle", "middle")])
def test_bombs_and_noise_on_a_flow_edge_are_dropped_and_counted(watched, edge, stage):
    before = drops(watched, stage, edge)
    peaks = Peaks(watched)
    with peer(watched, edge) as attacker:
        for bomb in BOMBS:
            attacker.send_multipart([bomb])
            attacker.send_multipart([bomb, bomb])
        for parts in noise(100, 1):
            attacker.send_multipart(parts)
        # now as one who knows the protocol, and takes the producer's place
        attacker.send(encode_header(Hello(1, edge, EPOCH, 1)))
        for number, bomb in enumerate(BOMBS, 1):
            attacker.send_multipart([encode_header(Batch(1, edge, EPOCH, number, {"evil": (3, 0)})), bomb])
        attacker.send(encode_header(Hello(1, edge, 2**53 - 1, 2**53 - 1)))
        attacker.send_multipart([b"", bytes(6 << 20)])  # beyond what the transport takes: it hangs up
    scream(watched, edge)
    assert wait_until(
        lambda: drops(watched, stage, edge) - before >= 2 * len(BOMBS) + 60, 12
    )  # some are empty
    assert max(peaks.grown().values()) < 32
    address = f"198.51.100.{80 + len(edge)}"
    append(watched.paths["auth"], logins(address))  # the true producer is heard again
    assert wait_until(lambda: watched.found("auth-bruteforce", address), 15)


def test_bombs_and_noise_on_the_request_edge_are_dropped_and_requests_still_answered(watched):
    before = drops(watched, "middle", "records")
    with peer(watched, "records") as attacker:
        for number, bomb in enumerate(BOMBS):
            attacker.send_multipart([bomb])
            attacker.send_multipart([encode_header(Request(1, "records", EPOCH, number)), bomb])
        for parts in noise(100, 2):
            attacker.send_multipart(parts)
    scream(watched, "records")
    assert wait_until(
        lambda: drops(watched, "middle", "records") - before >= 2 * len(BOMBS) + 60, 12
    )  # some are empty
    kept = watched.command("silence", "add", "--unit", "nothing-*", "--for", "1h")
    assert kept.returncode == 0, kept.stderr


# A process of its own: libzmq's subscriber frees a long subscription recursively and dies of it.
LONG = """
import os, sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(f"ipc://{sys.argv[1]}/run/wake/socket")
socket.set(zmq.SUBSCRIBE, b"x" * 4_000_000)
time.sleep(0.5)
os._exit(0)
"""


def test_noise_on_the_wake_edge_stops_nothing(watched):
    with peer(watched, "wake", zmq.SUB) as attacker:
        for parts in noise(200, 3):
            attacker.set(zmq.SUBSCRIBE, parts[0][:500])
    subprocess.run([sys.executable, "-c", LONG, str(watched.state_dir)], check=True)
    with peer(watched, "wake") as attacker, contextlib.suppress(zmq.Again):
        for parts in noise(20, 4):
            attacker.send_multipart(parts, zmq.NOBLOCK)
    scream(watched, "wake")
    append(watched.paths["auth"], logins("198.51.100.99"))
    assert wait_until(lambda: watched.found("auth-bruteforce", "198.51.100.99"), 15)
    one = watched.found("auth-bruteforce", "198.51.100.99")[0]
    assert wait_until(lambda: watched.advice(one.id), 10)  # the top tier was woken
