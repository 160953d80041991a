"""Processes and connections: one pass, its bounds, and when a snapshot is sent."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.codec import encode, observation_decoder
from daemon.collectors import processes
from daemon.collectors.jumps import Jumps
from daemon.collectors.processes import Scanner, Seen, Stat, candidates, parse_command, parse_stat
from daemon.collectors.snapshots import ProcessCollector, choose
from daemon.collectors.sockets import Connections, parse_address, scan
from daemon.messages import Snapshot
from tests.fixtures.trees import FIXTURES, at, replace


def take(collector, mono):
    """Read until the pass is over."""
    found = collector.read(at(mono))
    while collector.pending():
        found += collector.read(at(mono))
    return found


def one(collector, mono):
    (snapshot,) = [o for o in take(collector, mono) if isinstance(o, Snapshot)]
    return snapshot


def scanned(scanner, pids, mono):
    seen = []
    for _ in scanner.scan(pids, 2000.0, mono, seen):
        pass
    return {s.pid: s for s in seen}


def test_name_with_parentheses_and_blanks_does_not_shift_the_fields():
    stat = parse_stat((FIXTURES / "proc-host/950/stat").read_bytes())
    assert (stat.name, stat.state, stat.ppid) == (b"weird) (name", b"Z", 900)


@given(st.binary(max_size=300))
def test_process_parsers_survive_any_bytes(data):
    parse_stat(data)
    parse_stat(b"1 (x) S " + data)
    assert parse_command(data).isprintable()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (b"/usr/bin/python3\0/opt/app/serve.py\0--password=hunter2\0", "/usr/bin/python3 /opt/app/serve.py"),
        (b"python3\0-m\0http.server\0--bind\0x\0", "python3 -m http.server"),
        (b"java\0-jar\0/opt/x.jar\0", "java -jar /opt/x.jar"),
        (b"mysql\0-phunter2\0db\0", "mysql"),
        (b"sshpass\0-p\0hunter2\0", "sshpass"),
        (b"login\0hunter2\0", "login"),
        (b"curl\0https://user:hunter2@example.org/\0", "curl"),
        (b"nginx: worker process\0", "nginx: worker"),
        (b"", ""),
    ],
)
def test_command_never_carries_arguments_that_may_be_secret(arguments, command):
    assert parse_command(arguments) == command


def test_first_pass_has_the_mean_since_the_start_and_the_next_the_rate(proc):
    scanner = Scanner(proc)
    first = scanned(scanner, [900, 960], 100.0)
    assert first[960].cpu == pytest.approx(200 / 1000)  # 20000 ticks in the 1000 s it has lived
    replace(proc / "960/stat", " 20000 0 0 0 20", " 20150 0 0 0 20")
    replace(proc / "960/io", "read_bytes: 3932160", "read_bytes: 4932160")
    second = scanned(scanner, [900, 960], 102.0)
    assert second[960].cpu == pytest.approx(0.75)
    assert second[960].io_rate == 500_000
    assert second[900].cpu == 0.0


def test_reused_process_id_starts_over(proc):
    scanner = Scanner(proc)
    scanned(scanner, [960], 100.0)
    replace(proc / "960/stat", " 20000 0 0 0 20 0 4 0 100000", " 50 0 0 0 20 0 4 0 199900")
    assert scanned(scanner, [960], 102.0)[960].cpu == pytest.approx(0.5)


def test_storm_is_scanned_up_to_a_bound_newest_first(proc, monkeypatch):
    monkeypatch.setattr(processes, "MAX_SCANNED", 20)
    for pid in range(30000, 30100):
        (proc / str(pid)).mkdir()
    replace(proc / "loadavg", "6269", "30049")  # ids have started over: 30050 and above are the oldest
    pids, unscanned = candidates(proc, known=[960, 1, 77777])
    assert len(pids) == 20
    assert set(pids[:2]) == {960, 1}
    assert pids[2:15] == list(range(30049, 30036, -1))
    assert unscanned == 100 + 9 - 20


def test_in_a_storm_the_old_ones_are_looked_at_in_turn(proc, monkeypatch):
    monkeypatch.setattr(processes, "MAX_SCANNED", 20)
    for pid in range(30000, 30100):
        (proc / str(pid)).mkdir()
    looked = set()
    for turn in range(20):
        pids, _ = candidates(proc, [960, 1], turn)
        assert len(set(pids)) == 20
        looked |= set(pids)
    assert looked == {int(path.name) for path in proc.iterdir() if path.name.isdigit()}


def test_snapshot_of_a_recorded_host(proc):
    snapshot = one(ProcessCollector(proc, Jumps()), 100.0)
    assert snapshot.reason == "interval"
    assert snapshot.counts["children{900/nginx}"] == 5
    assert snapshot.counts["name{nginx}"] == 5
    assert snapshot.counts["zombies"] == 1
    assert not any("kthreadd" in name for name in snapshot.counts)
    serve = next(process for process in snapshot.processes if process.pid == 960)
    assert (serve.name, serve.unit, serve.fd_limit) == ("python3", "user@1000.service", 1024)
    assert (serve.threads, serve.rss_bytes) == (4, 90000 * os.sysconf("SC_PAGE_SIZE"))
    assert 900 in {process.pid for process in snapshot.processes}  # the parent of many
    assert observation_decoder().decode(encode([snapshot])) == [snapshot]


def test_snapshots_come_at_the_interval_and_at_once_on_a_jump(proc):
    jumps = Jumps()
    collector = ProcessCollector(proc, jumps, snapshot_interval_s=10.0)
    for mono in range(80, 101):
        jumps.note({"proc.total": 100.0}, float(mono))
    assert one(collector, 100.0).reason == "interval"
    jumps.note({"proc.total": 900.0}, 101.0)
    assert take(collector, 101.0) == []  # not within two seconds
    assert one(collector, 102.0).reason == "jump"
    assert take(collector, 103.0) == []
    assert take(collector, 111.0) == []
    assert one(collector, 112.0).reason == "interval"


def test_noisy_host_gets_few_snapshots_but_an_urgent_jump_always(proc):
    jumps = Jumps()
    collector = ProcessCollector(proc, jumps, snapshot_interval_s=600.0)
    taken = 0
    for mono in range(100, 200):
        jumps._jumped.add("cpu.busy")
        taken += bool(take(collector, float(mono)))
    assert 6 <= taken <= 14
    jumps._jumped.add("mem.oom_kills")
    assert take(collector, 202.0)


def test_connections_are_looked_at_only_when_there_are_many(proc):
    jumps = Jumps()
    jumps.note({"sock.tcp_established": 5.0}, 1.0)
    counts = one(ProcessCollector(proc, jumps), 100.0).counts
    assert counts["socket{tcp/ESTABLISHED}"] == 5
    assert not any(name.startswith("peer") for name in counts)
    jumps.note({"sock.tcp_established": 900.0}, 2.0)
    counts = one(ProcessCollector(proc, jumps, address=lambda text: f"<{text}>"), 100.0).counts
    assert counts["socket{tcp/SYN_RECV}"] == 1
    assert counts["peer{<192.0.2.7>}"] == 4
    assert counts["port{tcp/80}"] == 7


def test_addresses_of_both_families():
    assert parse_address(b"070200C0") == "192.0.2.7"
    assert parse_address(b"0000000000000000FFFF0000070200C0") == "192.0.2.7"
    assert parse_address(b"B80D0120000000000000000001000000") == "2001:db8::1"
    assert parse_address(b"zz0200C0") == ""
    assert parse_address(b"07") == ""


@given(st.binary(max_size=200))
def test_connection_parser_survives_any_bytes(data):
    connections = Connections()
    connections.add([data, b"0: " + data + b" 070200C0:1 01 x", b"0: " + data + b" x:y 03 z"])
    connections.counts()


def test_endless_connection_table_is_cut_and_said(tmp_path):
    (tmp_path / "net").mkdir()
    line = b"   1: 020200C0:0050 %08X:9C40 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 100 0 0 10 0\n"
    (tmp_path / "net/tcp").write_bytes(b"".join(line % index for index in range(60_000)))
    connections = Connections()
    steps = sum(1 for _ in scan(tmp_path, connections))
    counts = connections.counts()
    assert counts["unscanned_sockets"] == 1
    assert 20_000 < counts["socket{tcp/ESTABLISHED}"] < 60_000
    assert steps > 10


# --- the real /proc -------------------------------------------------------------------------------------


def test_real_connection_shows_up():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        many = 150  # only the busiest ports are told, and others connect, too
        server.listen(many)
        clients = [socket.create_connection(server.getsockname()) for _ in range(many)]
        connections = Connections()
        for _ in scan(Path("/proc"), connections):
            pass
        for client in clients:
            client.close()
        assert connections.counts()[f"port{{tcp/{server.getsockname()[1]}}}"] >= many


def test_busy_process_leads_the_second_snapshot():
    hog = subprocess.Popen([sys.executable, "-c", "while 1: pass"])
    try:
        collector = ProcessCollector(Path("/proc"), Jumps(), snapshot_interval_s=1.0)
        one(collector, time.monotonic())
        time.sleep(0.95)
        snapshot = one(collector, time.monotonic())
        process = next(p for p in snapshot.processes if p.pid == hog.pid)
        assert process.cpu > 0.2
        assert process.name.startswith("python")
        assert process.ppid == os.getpid()
        assert process.age_s < 30
    finally:
        hog.kill()
        hog.wait()


def test_open_descriptors_are_counted():
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    me = scanned(Scanner(Path("/proc")), [os.getpid()], 1.0)[os.getpid()]
    assert abs(me.fds - sum(1 for _ in Path("/proc/self/fd").iterdir())) <= 2
    listing = Scanner(Path("/proc"))
    listing._fds_in_size = False  # as on a kernel before 6.2
    assert abs(scanned(listing, [os.getpid()], 1.0)[os.getpid()].fds - me.fds) <= 2
    for descriptor in descriptors:
        os.close(descriptor)


def test_burst_of_children_names_their_parent():
    parent = subprocess.Popen(
        ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait"], process_group=0
    )
    try:
        time.sleep(0.3)
        counts = one(ProcessCollector(Path("/proc"), Jumps()), time.monotonic()).counts
        assert counts[f"children{{{parent.pid}/sh}}"] == 8
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def test_many_threads_and_what_is_stuck_are_in_the_snapshot_though_they_use_nothing():
    def one(pid, state, threads):
        stat = Stat(b"idle", state, 1, 0, 0, threads, pid, 0)
        return Seen(pid, stat, 0, -1, 0.0, 0.0, 10.0)

    seen = [one(1, b"S", 1), one(2, b"S", 900), one(3, b"T", 1), one(4, b"D", 1), one(5, b"S", 8)]
    seen.append(one(6, b"t", 1))
    assert {process.pid for process in choose(seen, [])} == {2, 3, 4, 6}
