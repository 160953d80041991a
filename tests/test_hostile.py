"""Hostile and broken input, thrown at the real daemon: it goes on, says what it lost, believes nothing."""

import array
import contextlib
import fcntl
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import zmq

from daemon.bus.frames import Batch, Hello, Request, encode_header
from daemon.messages import Event, Sample, Stamp
from daemon.replay import Replay
from daemon.settings import Settings
from daemon.store import pages, rows
from daemon.store.reader import StoreReader
from daemon.store.segments import SegmentReader, segment_paths
from tests.fixtures.live import Peaks, append, cpu_s, fill, launch, live, logins, small_disk
from tests.lab.runner import HAUSWART, wait_until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
FLOOD_S = 2.0
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
            if not filled_s and now_s > began + 0.5:
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


def attack_flow(watched, edge):
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


def attack_requests(watched):
    with peer(watched, "records") as attacker:
        for number, bomb in enumerate(BOMBS):
            attacker.send_multipart([bomb])
            attacker.send_multipart([encode_header(Request(1, "records", EPOCH, number)), bomb])
        for parts in noise(100, 2):
            attacker.send_multipart(parts)


# A process of its own: libzmq's subscriber frees a long subscription recursively and dies of it.
LONG = """
import os, sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(f"ipc://{sys.argv[1]}/run/wake/socket")
socket.set(zmq.SUBSCRIBE, b"x" * 4_000_000)
time.sleep(0.5)
os._exit(0)
"""


def attack_wake(watched):
    with peer(watched, "wake", zmq.SUB) as attacker:
        for parts in noise(200, 3):
            attacker.set(zmq.SUBSCRIBE, parts[0][:500])
    subprocess.run([sys.executable, "-c", LONG, str(watched.state_dir)], check=True)
    with peer(watched, "wake") as attacker, contextlib.suppress(zmq.Again):
        for parts in noise(20, 4):
            attacker.send_multipart(parts, zmq.NOBLOCK)


EDGES = {"low": "low", "middle": "middle", "records": "middle"}


@pytest.fixture(scope="module")
def attacked(watched):
    """What was dropped on each edge before, and how much memory everything grew by since."""
    before = {edge: drops(watched, stage, edge) for edge, stage in EDGES.items()}
    peaks = Peaks(watched)
    attack_flow(watched, "low")
    attack_flow(watched, "middle")
    attack_requests(watched)
    attack_wake(watched)
    for edge in (*EDGES, "wake"):
        scream(watched, edge)
    return before, peaks


@pytest.mark.parametrize(("edge", "stage"), EDGES.items())
def test_bombs_and_noise_on_a_socket_are_dropped_and_counted(watched, attacked, edge, stage):
    before, peaks = attacked
    sent = 2 * len(BOMBS) + 60  # of a hundred random frames some are empty and mean nothing
    assert wait_until(lambda: drops(watched, stage, edge) - before[edge] >= sent, 12)
    assert max(peaks.grown().values()) < 32


def test_after_bombs_and_noise_the_true_peers_are_heard(watched, attacked):
    append(watched.paths["auth"], logins("198.51.100.99"))
    assert wait_until(lambda: watched.found("auth-bruteforce", "198.51.100.99"), 15)
    one = watched.found("auth-bruteforce", "198.51.100.99")[0]
    assert wait_until(lambda: watched.advice(one.id), 10)  # the top tier was woken and answered
    kept = watched.command("silence", "add", "--unit", "nothing-*", "--for", "1h")
    assert kept.returncode == 0, kept.stderr


# --- the state directory ------------------------------------------------------------------------------


def found_again(state):
    with StoreReader(state / "store.db") as reader:
        return {one.id: one.revision for one in reader.incidents()}


@ROOT
@pytest.mark.lab
@pytest.mark.slow
def test_full_disk_under_the_state_is_said_and_costs_nothing_acknowledged(tmp_path):
    log = tmp_path / "auth.log"
    log.touch()
    with small_disk(tmp_path / "state", 6) as state, live(tmp_path, follow=[str(log)]) as found:
        append(log, logins("198.51.100.40"))
        assert wait_until(lambda: found.found("auth-bruteforce", "198.51.100.40"), 15)
        kept, pids = found_again(state), found.pids()
        fill(state)
        append(log, logins("203.0.113.41"))
        assert wait_until(lambda: found.says("cannot commit"), 15), found.log.read_text()
        refused = found.command("feedback", next(iter(kept)), "good", "--comment", "lost")
        assert refused.returncode == 1
        assert "space" in refused.stderr
        time.sleep(4)  # status files and positions are due meanwhile
        assert found_again(state) == kept
        (state / "filler").unlink()
        assert wait_until(lambda: found.found("auth-bruteforce", "203.0.113.41"), 15), found.log.read_text()
        assert found.command("feedback", next(iter(kept)), "good", "--comment", "kept").returncode == 0
        assert found.pids() == pids
        assert wait_until(found.all_up, 10)
        with StoreReader(state / "store.db") as reader:
            assert [one.comment for one in reader.feedback()] == ["kept"]
            assert reader.verify() == []


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A state directory that a daemon left behind, and its incidents."""
    scratch = tmp_path_factory.mktemp("l")
    log = scratch / "auth.log"
    log.touch()
    with live(scratch, follow=[str(log)]) as found:
        append(log, logins("198.51.100.50"))
        assert wait_until(lambda: found.found("auth-bruteforce", "198.51.100.50"), 15)
    return scratch / "state"


@pytest.fixture
def state(lived, tmp_path):
    return shutil.copytree(lived, tmp_path / "state", ignore=shutil.ignore_patterns("run"))


def test_damaged_store_is_moved_aside_and_what_is_sound_goes_on(state, tmp_path):
    known = found_again(state)
    content = bytearray((state / "store.db").read_bytes())
    at = content.index(b"address already") if b"address already" in content else len(content) // 2
    content[at] ^= 0x40
    content[-3000:] = bytes(3000)
    (state / "store.db").write_bytes(content)
    with live(tmp_path) as found:
        assert found.says("the store was damaged")
        assert found.all_up()
        with StoreReader(state / "store.db") as reader:
            assert reader.verify() == []
    (aside,) = [path for path in state.glob("store.db.corrupt-*") if not path.name.endswith("-wal")]
    assert aside.read_bytes() == content
    assert found_again(state).keys() <= known.keys()


def test_store_damaged_under_the_running_daemon_is_saved_and_it_goes_on(state, tmp_path):
    log = tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)]) as found:
        time.sleep(1)
        with (state / "store.db").open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(4096)
            file.write(os.urandom(size - 4096))
        append(log, logins("203.0.113.51"))
        assert wait_until(lambda: found.says("the store was damaged"), 20), found.log.read_text()
        append(log, logins("203.0.113.52"))
        assert wait_until(lambda: found.found("auth-bruteforce", "203.0.113.52"), 20), found.log.read_text()


def test_truncated_store_is_moved_aside(state, tmp_path):
    os.truncate(state / "store.db", 10_000)
    with live(tmp_path) as found:
        assert found.says("the store was damaged")
        assert found.all_up()
    assert list(state.glob("store.db.corrupt-*"))


def raise_version(path, key):
    with sqlite3.connect(path) as connection:
        found = {row[0]: row[1] for row in connection.execute(rows.META.select)}
        number = str(int(found[key]) + 1)
        connection.execute(rows.META.insert, rows.sealed(rows.META, key, number))
        connection.execute("CREATE TABLE later (id TEXT)")
        connection.execute("INSERT INTO later VALUES ('kept')")
    connection.close()
    pages.sums_path(path).unlink(missing_ok=True)


def test_store_of_a_newer_minor_version_works_and_keeps_its_additions(state, tmp_path):
    raise_version(state / "store.db", "minor")
    known, log = found_again(state), tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)]) as found:
        append(log, logins("203.0.113.53"))
        assert wait_until(lambda: found.found("auth-bruteforce", "203.0.113.53"), 15), found.log.read_text()
        assert sum(found_again(state).values()) > sum(known.values())
    with contextlib.closing(sqlite3.connect(state / "store.db")) as connection:
        assert connection.execute("SELECT id FROM later").fetchall() == [("kept",)]


def test_store_of_a_newer_major_version_is_refused_untouched_with_exit_code_4(state, tmp_path):
    raise_version(state / "store.db", "major")
    before = (state / "store.db").read_bytes()
    refused = launch(tmp_path)
    assert refused.process.wait(20) == 4
    assert "this hauswart knows" in refused.log.read_text()
    assert (state / "store.db").read_bytes() == before


# --- the clock ----------------------------------------------------------------------------------------

SHIFTED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long shift(void) {
  char text[32] = {0};
  int file = open(getenv("TEST_CLOCK_SHIFT"), O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  if (read(file, text, 31) < 0) text[0] = 0;
  close(file);
  return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *at) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, at);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += shift();
  return result;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""
DAY_S = 86400


@pytest.fixture
def clock(tmp_path):
    """The environment of a daemon whose wall clock can be set, and how to set it."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler to give the daemon a wall clock of its own")
    source, library, shift = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "shift"
    source.write_text(SHIFTED)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shift.write_text("0")
    return {"LD_PRELOAD": str(library), "TEST_CLOCK_SHIFT": str(shift)}, shift.write_text


def test_clock_that_jumps_a_day_either_way_is_one_incident_and_expires_nothing(tmp_path, clock):
    environment, set_shift = clock
    log = tmp_path / "auth.log"
    log.touch()
    with live(tmp_path, follow=[str(log)], more_environment=environment) as found:
        append(log, logins("198.51.100.60"))
        assert wait_until(lambda: found.found("auth-bruteforce", "198.51.100.60"), 15)
        one = found.found("auth-bruteforce", "198.51.100.60")[0]
        for shift_s in (DAY_S, -DAY_S):
            set_shift(str(shift_s))
            assert wait_until(lambda: found.found("clock-jump", ""), 10), found.log.read_text()
            time.sleep(1.5)
            assert len(found.found("clock-jump", "")) == 1
            kept = found.found("auth-bruteforce", "198.51.100.60")
            assert [(kept_one.id, kept_one.state) for kept_one in kept] == [(one.id, "open")]
        append(log, logins("203.0.113.61"))  # windows are not bent
        assert wait_until(lambda: found.found("auth-bruteforce", "203.0.113.61"), 15)
        assert found.all_up()
    assert segment_paths(found.state_dir / "telemetry")


def full(second, jump_s, used):
    values = {"fs.used{/mnt/small}": used, "fs.free_bytes{/mnt/small}": 8e6 * (1 - used)}
    return Sample(Stamp("b" * 32, 1000.0 + second, 1_700_000_000.0 + second + jump_s), "host", values)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_incident_that_was_open_before_the_clock_jumped_closes_when_it_is_over(jump_s):
    run = Replay(Settings())
    for second in range(60):
        run.feed([full(second, 0, 0.3 if second < 20 else 1.0)])
    (before,) = run.incidents.values()
    assert (before.fault_class, before.state) == ("disk-full", "open")
    for second in range(60, 120):
        run.feed([full(second, jump_s, 1.0)])
    assert run.incidents[before.id].state == "open"
    for second in range(120, 400):
        run.feed([full(second, jump_s, 0.3)])
    assert sorted(one.fault_class for one in run.incidents.values()) == ["clock-jump", "disk-full"]
    assert {one.state for one in run.incidents.values()} == {"closed"}


# --- without rights -----------------------------------------------------------------------------------

# In mount namespaces of its own, so that an interpreter under a closed home directory can be executed.
AS_NOBODY = """
mkdir "$1/python" && mount --bind "$2" "$1/python" || exit 1
[ "$3" = / ] || mount -t tmpfs -o mode=755 none "$3" || exit 1
mkdir -p "$2" && mount --bind "$1/python" "$2" || exit 1
shift 3
exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
"""


def closed_above(path):
    """The outermost directory on the way that nobody may not enter, or the root."""
    return next((one for one in reversed(path.parents) if not one.stat().st_mode & 1), Path("/"))


@pytest.fixture
def nobodys():
    """A directory of nobody's and how to start a command as nobody, or why that cannot be done here."""
    if os.geteuid() != 0 or not (shutil.which("setpriv") and shutil.which("unshare")):
        pytest.skip("needs root, setpriv and unshare to become nobody")
    base, path = Path(sys.base_prefix).resolve(), Path(tempfile.mkdtemp(prefix="hauswart-"))
    os.chown(path, 65534, 65534)
    script = ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh"]
    begin = [*script, str(path), str(base), str(closed_above(base))]
    tried = subprocess.run([*begin, HAUSWART, "--help"], capture_output=True, text=True, check=False, cwd="/")
    if tried.returncode:
        pytest.skip(f"nobody cannot run the installed command: {tried.stderr.strip()[-200:]}")
    (path / "python").rmdir()
    yield path, begin
    shutil.rmtree(path)


@pytest.mark.lab
def test_what_cannot_be_read_is_named_once_and_the_rest_goes_on(nobodys):
    nobodys, begin = nobodys
    closed, log = nobodys / "closed", nobodys / "auth.log"
    closed.mkdir(mode=0o700)  # root's
    (closed / "secret.log").touch()
    locked = nobodys / "locked.log"
    locked.touch(mode=0o600)
    log.touch(mode=0o644)
    follow = [str(closed / "secret.log"), str(closed / "*.log"), str(locked), str(log)]
    with live(nobodys, before=begin, follow=follow, kernel_log="on", journal="on") as found:
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in found.pids().values()} == {65534}
        time.sleep(2)  # two rounds of every reader
        append(log, logins("198.51.100.75"))
        assert wait_until(lambda: found.found("auth-bruteforce", "198.51.100.75"), 15)
        said = found.log.read_text()
        named = [line for line in said.splitlines() if "closed" in line and "reading" not in line]
        assert len(named) == 2, said  # the path and the pattern
        assert all("Permission denied" in line or "cannot be read" in line for line in named), said
        assert wait_until(lambda: found.flow("collector", "low", "host").offered > 3, 10)
    events = [one for batch in SegmentReader(segment_paths(nobodys / "state/telemetry")) for one in batch]
    refused = [one for one in events if isinstance(one, Event) and "locked.log" in one.attributes["reason"]]
    assert len(refused) == 1
    samples = [one for one in events if isinstance(one, Sample) and one.source == "host"]
    assert any("cpu.busy" in one.values for one in samples)
    assert sum(said.count(text) for text in ("Traceback", "crashed")) == 0


# --- the journal --------------------------------------------------------------------------------------

JOURNALD = shutil.which("systemd-journald", path="/lib/systemd:/usr/lib/systemd")
UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"  # systemd's message id of a failed unit
BELOW = b"\nNov 22 03:30:01 host sshd[1]: Accepted password for root from 203.0.113.66 port 1 ssh2"
TOO_MANY = b"accept4() failed (24: Too many open files) \x1b[2J\xe2\x80\xae\xff" + BELOW


def send_journal(**fields):
    """One entry as sd_journal_sendv(3) sends it: in a sealed file where it is too large for a datagram."""
    content = b"".join(
        name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
        for name, value in fields.items()
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("/run/systemd/journal/socket")
        if len(content) < 100_000:
            sock.send(content)
            return
        descriptor = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0xF)
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        os.close(descriptor)


def failure_of(unit):
    text = f"{unit}: Failed with result 'exit-code'.".encode()
    return {"MESSAGE": text, "UNIT": unit.encode(), "MESSAGE_ID": UNIT_FAILED.encode(), "PRIORITY": b"4"}


def send_as(uid, **fields):
    """From a process that is not the first one."""
    child = os.fork()
    if child == 0:
        os.setgid(uid)
        os.setuid(uid)
        send_journal(**fields)
        time.sleep(0.2)  # journald looks at the sender in /proc
        os._exit(0)
    os.waitpid(child, 0)


def forge():
    forged = {"_PID": b"1", "_UID": b"0", "_TRANSPORT": b"kernel", "SYSLOG_FACILITY": b"0"}
    send_as(1000, **failure_of("forged-user.service"), **forged)
    send_as(0, **failure_of("forged-root.service"), **forged)
    for uid, name in (
        (0, b"by-root"),
        (1000, b"forged-oom"),
    ):
        text = b"Out of memory: Killed process 4321 (%s) total-vm:1000kB, anon-rss:900kB" % name
        send_as(uid, MESSAGE=text, PRIORITY=b"3", SYSLOG_IDENTIFIER=b"kernel", **forged)


def beside_journald(scratch):
    """As the first process of its namespaces: the daemon, a journald of its own, and their attacker."""
    for mount in ("/run", "/var/log"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", mount], check=True)
    subprocess.run(["mount", "--bind", "/dev/null", "/dev/kmsg"], check=True)
    for directory in ("/run/systemd/journal", "/run/log/journal", "/run/systemd/system"):
        Path(directory).mkdir(parents=True)
    if not Path("/etc/machine-id").read_text().strip():
        Path("/run/machine-id").write_text("1" * 32)
        subprocess.run(["mount", "--bind", "/run/machine-id", "/etc/machine-id"], check=True)
    journald = subprocess.Popen([JOURNALD])
    wait_until(Path("/run/systemd/journal/socket").exists, 5)
    with live(scratch, journal="on") as found:
        time.sleep(1)
        pids, peaks = found.pids(), Peaks(found)
        for chunk in (b"y" * (1 << 20), os.urandom(1 << 20)):
            send_as(0, MESSAGE=chunk * 64, PRIORITY=b"5")
            send_as(1000, MESSAGE=b"m", HUGE=chunk * 64, PRIORITY=b"5")
        forge()
        send_as(0, MESSAGE=TOO_MANY, PRIORITY=b"3", SYSLOG_IDENTIFIER=b"nginx")
        send_journal(**failure_of("genuine.service"))
        wait_until(lambda: found.found("", "genuine.service") and found.found("fd-exhaustion", ""), 20)
        time.sleep(2)
        result = {
            "incidents": [
                [one.fault_class, [who.name for who in one.culprits], [item.text for item in one.evidence]]
                for one in found.incidents()
            ],
            "unharmed": found.pids() == pids,
            "grown": peaks.grown(),
            "log": found.log.read_text(),
        }
    journald.terminate()
    return result


@pytest.mark.lab
@pytest.mark.slow
def test_journal_entries_are_cut_escaped_and_believed_only_from_who_wrote_them(tmp_path):
    if os.geteuid() != 0 or JOURNALD is None:
        pytest.skip("needs root and systemd-journald")
    unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*unshare, sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    told = {culprit for _, culprits, _ in result["incidents"] for culprit in culprits}
    texts = [text for _, _, evidence in result["incidents"] for text in evidence]
    print(result["grown"], told)
    assert "genuine.service" in told, result
    assert not [name for name in told if "kernel" in name or "by-root" in name], result
    assert not [name for name in (*told, *texts) if "forged" in name or name == "203.0.113.66"], result
    escaped = [text for text in texts if "Too many open files" in text]
    assert escaped
    assert all(part in escaped[0] for part in (r"\x1b[2J\u202e\xff\nNov 22",)), escaped
    assert all(text.isprintable() for text in texts)
    assert result["unharmed"], result["log"]
    assert result["grown"]["collector"] < 192  # one copy of a field and the pages of the journal file
    assert max(grown for stage, grown in result["grown"].items() if stage != "collector") < 24


if __name__ == "__main__":
    print(json.dumps(beside_journald(Path(sys.argv[1]))))
