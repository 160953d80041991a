"""The host sampler and its readers of counters, on a recorded tree."""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.host import HostCollector, readers_of
from daemon.collectors.jumps import Jumps
from daemon.collectors.kernel_files import KernelFile, Note, Rates, number_after, printable
from daemon.collectors.network import (
    InterfaceReader,
    ProtocolReader,
    ProtocolTable,
    parse_counters,
    parse_interfaces,
)
from daemon.collectors.queues import QueueReader, parse_queue
from daemon.collectors.system import SystemReader, parse_pressure, parse_processor
from daemon.messages import Event, Sample
from models.metrics import METRICS, split
from tests.fixtures.trees import at, replace


def read(reader, mono):
    values = {}
    reader.read(mono, values)
    return values


def test_first_sample_has_states_but_no_rates(proc):
    reader = SystemReader(proc)
    assert reader.open() == []
    values = read(reader, 10.0)
    assert values["mem.available"] == 0.25
    assert values["mem.swap_used"] == 0.75
    assert values["mem.total"] == 8000000 * 1024
    assert values["fd.used"] == 0.1
    assert values["load.1"] == 0.5
    assert values["cpu.cores"] == 2
    assert values["proc.limit"] == pytest.approx(103 / 1030)
    assert (values["proc.running"], values["proc.blocked"]) == (2, 1)
    assert not {"cpu.busy", "proc.forks", "psi.io.some", "mem.oom_kills"} & values.keys()


def test_rates_are_per_second_of_the_interval(proc):
    reader = SystemReader(proc)
    reader.open()
    read(reader, 10.0)
    replace(proc / "stat", "cpu  5590 10 2574 227114 456 0 41 118", "cpu  5690 10 2624 227144 476 0 41 118")
    replace(proc / "stat", "processes 6269", "processes 6469")
    replace(proc / "pressure/io", "total=4157617", "total=5157617")
    replace(proc / "pressure/memory", "total=540", "total=9999999")
    replace(proc / "vmstat", "oom_kill 1", "oom_kill 3")
    values = read(reader, 12.0)
    assert values["cpu.busy"] == pytest.approx(0.75)
    assert values["cpu.system"] == pytest.approx(0.25)
    assert values["cpu.iowait"] == pytest.approx(0.1)
    assert values["proc.forks"] == 100
    assert values["psi.io.some"] == pytest.approx(0.5)
    assert values["psi.memory.full"] == 1.0
    assert values["mem.oom_kills"] == 1.0
    assert values["mem.major_faults"] == 0.0


def test_process_count_follows_the_link_count_of_proc(proc):
    reader = SystemReader(proc)
    reader.open()
    before = read(reader, 1.0)["proc.total"]
    links = proc.stat().st_nlink
    (proc / "5555").mkdir()
    if proc.stat().st_nlink == links:
        pytest.skip("this file system does not count subdirectories in st_nlink")
    assert before == 9
    assert read(reader, 2.0)["proc.total"] == 10


def test_container_counts_its_own_processes_and_forks(proc):
    (proc / "self/ns").mkdir(parents=True, exist_ok=True)
    (proc / "self/ns/pid").write_text("")  # any inode but that of the first namespace
    reader = SystemReader(proc)
    reader.open()
    before = read(reader, 1.0)["proc.total"]
    (proc / "5555").mkdir()
    last_pid = (proc / "loadavg").read_text().split()[-1]
    replace(proc / "loadavg", last_pid, str(int(last_pid) + 40))
    replace(proc / "stat", "processes 6269", "processes 9999")  # the host's
    values = read(reader, 3.0)
    assert values["proc.total"] == before + 1
    assert values["proc.forks"] == 20


def test_missing_pressure_is_named_and_the_rest_goes_on(proc):
    shutil.rmtree(proc / "pressure")
    reader = SystemReader(proc)
    assert {note.name for note in reader.open()} == {"psi.cpu", "psi.memory", "psi.io"}
    assert "mem.available" in read(reader, 1.0)


def test_unknown_kernel_fields_give_no_value_instead_of_zero(proc):
    replace(proc / "meminfo", "MemAvailable", "MemAvailXXXX")
    replace(proc / "meminfo", "SwapTotal:       1000000", "SwapTotal:             0")
    reader = SystemReader(proc)
    reader.open()
    assert not {"mem.available", "mem.total", "mem.swap_used"} & read(reader, 1.0).keys()


@given(st.binary(max_size=300))
def test_line_parsers_survive_any_bytes(data):
    parse_processor(data)
    parse_pressure(data)
    parse_counters(data)
    parse_interfaces(data)
    number_after(data, b"total=")
    ProtocolTable(frozenset({"Tcp.OutSegs"})).parse(data)
    assert printable(data).isprintable()


def test_rates_skip_resets_and_first_readings():
    rates = Rates()
    assert rates.of("x", 100, 1.0) is None
    assert rates.of("x", 150, 2.0) == 50
    assert rates.of("x", 10, 3.0) is None
    assert rates.of("x", 30, 5.0) == 10
    assert rates.of("x", 30, 5.0) is None


def test_file_longer_than_a_page_is_read_to_its_end(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"x" * 200_000)
    file = KernelFile(path)
    assert len(file.read()) == 200_000
    path.write_bytes(b"short")
    assert file.read() == b"short"
    assert len(KernelFile(path, limit=3).read()) == 3
    file.close()


# --- network --------------------------------------------------------------------------------------------


def test_protocol_counters_become_rates_and_gauges(proc):
    reader = ProtocolReader(proc)
    assert reader.open() == []
    values = read(reader, 1.0)
    assert values == {
        "sock.tcp_established": 5,
        "sock.tcp_orphan": 1,
        "sock.tcp_time_wait": 3,
        "net.conntrack": 0.25,
    }
    replace(proc / "net/snmp", "24 2 7 0 5 3356 1718 9", "24 42 7 0 900 3356 1818 29")
    values = read(reader, 3.0)
    assert values["net.tcp_retransmits"] == 10
    assert values["net.tcp_out_segments"] == 50
    assert values["net.syn_received"] == 20
    assert values["sock.tcp_established"] == 900


def test_packets_that_nobody_takes_or_answers_become_rates(proc):
    reader = ProtocolReader(proc)
    reader.open()
    for mono in range(1, 4):
        read(reader, float(mono))
    replace(proc / "net/snmp", "5038 3027 0 0 0 0 0 0", "5038 3027 0 4 0 9 0 6")
    replace(proc / "net/snmp", "Icmp: 1 0 0 1", "Icmp: 1 0 0 3")
    replace(proc / "net/snmp", "Udp: 78 0 0", "Udp: 78 2 0")
    replace(proc / "net/snmp", "1718 9 0 38 0", "1718 9 5 38 5")
    values = read(reader, 4.0)
    assert (values["net.no_routes"], values["net.reassembly_fails"], values["net.tcp_damaged"]) == (4, 6, 5)
    assert (values["net.icmp_unreachable"], values["net.udp_no_ports"]) == (2, 2)
    assert "net.tcp_timeouts" in read(reader, 5.0)


def test_repeated_calls_are_told_from_repeated_data(proc):
    reader = ProtocolReader(proc)
    reader.open()
    for mono in range(1, 4):
        read(reader, float(mono))
    header, counts, *rest = (proc / "net/netstat").read_text().split("\n")
    fields = counts.split(" ")
    fields[header.split(" ").index("TCPSynRetrans")] = "30"  # from none
    (proc / "net/netstat").write_text("\n".join([header, " ".join(fields), *rest]))
    replace(proc / "net/snmp", "1718 9 0 38 0", "1718 49 0 38 0")
    values = read(reader, 4.0) | read(reader, 5.0)
    assert values["net.tcp_data_retransmits"] == 5.0  # (40 - 30) within two seconds


def test_listen_drops_come_at_every_other_sample(proc):
    reader = ProtocolReader(proc)
    reader.open()
    seen = [read(reader, float(mono)) for mono in range(1, 4)]
    assert ["net.listen_drops" in values for values in seen] == [False, False, True]


def test_backlog_drops_of_all_processors_become_a_rate(proc):
    reader = ProtocolReader(proc)
    reader.open()
    seen = [read(reader, 1.0), read(reader, 2.0)]
    replace(proc / "net/softnet_stat", "00000010", "000000d8")
    replace(proc / "net/softnet_stat", "00579cd7 00000000", "00579cd7 00000038")
    seen += [read(reader, 3.0), read(reader, 4.0)]
    assert [values.get("net.backlog_drops") for values in seen] == [None, None, 128.0, None]


def test_missing_connection_tracking_is_named(proc):
    shutil.rmtree(proc / "sys/net")
    reader = ProtocolReader(proc)
    assert [note.name for note in reader.open()] == ["net.conntrack"]
    assert "net.conntrack" not in read(reader, 1.0)


def test_interface_rates_and_idle_interfaces_left_out(proc):
    reader = InterfaceReader(proc, Path("/nonexistent"))
    read(reader, 1.0)
    replace(proc / "net/dev", "eth0: 1000000    3381    1    2", "eth0: 1003000    3391    2    6")
    values = read(reader, 2.0)
    assert values["link.rx_bytes{eth0}"] == 3000
    assert values["link.rx_packets{eth0}"] == 10
    assert values["link.errors{eth0}"] == 1
    assert values["link.drops{eth0}"] == 4
    assert not any("{lo}" in name for name in values)
    assert read(reader, 3.0)["link.rx_bytes{eth0}"] == 0.0  # says once that it went idle
    assert read(reader, 4.0) == {}
    assert read(reader, 13.5)["link.rx_bytes{eth0}"] == 0.0  # and repeats it now and then
    replace(proc / "net/dev", "eth0: 1003000", "eth0: 1009000")
    assert read(reader, 14.5)["link.rx_bytes{eth0}"] == 6000  # not spread over the idle time


def test_interface_that_was_taken_down_has_no_carrier_value(proc, tmp_path):
    for name, text in {"eth0": "0\n", "wlan0": None}.items():
        (tmp_path / "class/net" / name).mkdir(parents=True)
        if text is not None:  # the kernel refuses to read it of an interface that is down
            (tmp_path / "class/net" / name / "carrier").write_text(text)
    values = read(InterfaceReader(proc, tmp_path), 1.0)
    assert values["link.carrier{eth0}"] == 0.0
    assert "link.carrier{wlan0}" not in values


def test_thousands_of_interfaces_are_bounded_and_said(proc):
    with (proc / "net/dev").open("a") as file:
        file.writelines(f"v{i}: {' 1' * 16}\n" for i in range(3000))
    reader = InterfaceReader(proc, Path("/nonexistent"))
    read(reader, 1.0)
    replace(proc / "net/dev", " 1 1 1", " 2 2 2")
    assert len({split(name)[1] for name in read(reader, 2.0)}) <= 64
    assert [note.action for note in reader.notes()] == ["gap"]


QUEUE = """
ip link add hwqueue0 type veth peer name hwqueue1
tc qdisc add dev hwqueue0 root tbf rate 8kbit burst 2k limit 2k
ip link set hwqueue0 up
ip link set hwqueue1 up
ip addr add 198.18.77.1/30 dev hwqueue0
ip neigh add 198.18.77.2 lladdr 02:00:00:00:00:01 dev hwqueue0
"""


@pytest.fixture
def small_queue():
    """A veth pair whose queue takes two packets."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("needs root, ip and tc")
    try:
        if subprocess.run(["sh", "-ec", QUEUE], check=False, capture_output=True).returncode:
            pytest.skip("no veth, or no queues by tc(8)")
        yield "hwqueue0"
    finally:
        subprocess.run(["ip", "link", "del", "hwqueue0"], check=False, capture_output=True)


def test_drops_of_a_queue_are_told_with_their_interface(small_queue):
    reader = QueueReader(Path("/sys"))
    assert reader.open() == []
    assert not any(small_queue in name for name in read(reader, 10.0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(40):
            with contextlib.suppress(OSError):  # ENOBUFS: the queue refuses it
                sock.sendto(bytes(1000), ("198.18.77.2", 9))
    assert read(reader, 10.9) == {}  # every other second will do
    values = read(reader, 12.0)
    assert values[f"link.queue_drops{{{small_queue}}}"] >= 10
    assert values[f"link.queue_loss{{{small_queue}}}"] > 0.8
    assert read(reader, 14.0)[f"link.queue_drops{{{small_queue}}}"] < 5  # it says that it is over
    reader.close()


@given(st.binary(max_size=200))
def test_parser_of_queues_survives_any_bytes(data):
    parse_queue(data)
    parse_queue(struct.pack("=BxxxiIII", 0, 2, 0, 0xFFFFFFFF, 0) + data)


# --- all together ---------------------------------------------------------------------------------------


def test_one_sample_holds_only_names_of_the_vocabulary(proc, sys):
    host = HostCollector(readers_of(proc, sys))
    host.open()
    host.read(at(1.0))
    replace(proc / "diskstats", "sda 38014", "sda 38114")
    samples = [o for o in host.read(at(2.0)) if isinstance(o, Sample)]
    assert len(samples) == 1
    families = {split(name)[0] for name in samples[0].values}
    assert families <= METRICS.keys()
    assert families >= {"cpu.cores", "psi.cpu.some", "disk.busy", "unit.cpu", "net.conntrack", "link.errors"}
    host.close()


def test_what_is_lacking_is_named_once_and_the_rest_goes_on(proc, tmp_path):
    for name in ("pressure", "diskstats", "sys/fs"):
        path = proc / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    host = HostCollector(readers_of(proc, tmp_path / "nothing"))
    opened = host.open()
    assert all(isinstance(event, Event) and event.kind == "reader" for event in opened)
    assert {"psi.cpu", "disk", "sensors", "units"} <= {
        event.name for event in opened if event.action == "absent"
    }
    later = [o for mono in range(1, 100) for o in host.read(at(float(mono)))]
    names = [(o.name, o.attributes["reason"]) for o in later if isinstance(o, Event)]
    assert len(names) == len(set(names))
    assert all(o.attributes["reason"] for o in later if isinstance(o, Event))
    samples = [o for o in later if isinstance(o, Sample)]
    assert len(samples) == 99
    assert "mem.available" in samples[-1].values


def test_unreadable_directory_is_an_event_and_no_end(proc, sys):
    class Locked:
        def open(self):
            raise PermissionError(13, "Permission denied", "/locked")

    class Breaking:
        def open(self):
            return []

        def read(self, mono, values):
            raise OSError(5, "Input/output error", "/broken")

        def notes(self):
            return [Note("more", "gap", "said twice")] * 2

    host = HostCollector({"locked": Locked(), "broken": Breaking()})
    assert [(e.name, e.action) for e in host.open()] == [("locked", "absent")]
    first = host.read(at(1.0))
    assert [(e.name, e.action) for e in first[:-1]] == [("broken", "error"), ("more", "gap")]
    assert len(host.read(at(2.0))) == 1


def test_smart_is_asked_only_when_wanted(proc, sys):
    assert "smart" not in readers_of(proc, sys)
    assert "smart" in readers_of(proc, sys, smart=True)


# --- jumps ----------------------------------------------------------------------------------------------


def calm(jumps, seconds=30, **values):
    for mono in range(1, seconds + 1):
        jumps.note(values, float(mono))
    return jumps


def test_steady_values_ask_for_no_snapshot():
    jumps = calm(
        Jumps(), **{"cpu.busy": 0.95, "proc.forks": 800.0, "mem.available": 0.05, "proc.total": 9000}
    )
    assert not jumps.waiting


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("proc.forks", 5.0, 200.0),
        ("proc.total", 300.0, 500.0),
        ("cpu.busy", 0.1, 0.6),
        ("psi.memory.some", 0.0, 0.2),
        ("mem.oom_kills", 0.0, 1.0),
        ("mem.available", 0.8, 0.7),
        ("sock.tcp_established", 10.0, 400.0),
    ],
)
def test_jump_is_taken_once(name, before, after):
    jumps = calm(Jumps(), **{name: before})
    jumps.note({name: after}, 31.0)
    assert jumps.waiting
    jumped, sockets = jumps.take()
    assert jumped == {name}
    assert sockets == name.startswith("sock")
    assert not jumps.waiting


def test_what_zfs_gives_back_is_available(proc):
    plain = read(SystemReader(proc), 1.0)
    kept = proc / "spl/kstat/zfs/arcstats"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(
        "9 1 0x01 147 39984 0 0\nname type data\nc_min 4 268435456\nc_max 4 9\nsize 4 1342177280\nx 4 1\n"
    )
    reader = SystemReader(proc)
    reader.open()
    found = read(reader, 1.0)
    assert found["mem.available_bytes"] - plain["mem.available_bytes"] == 1 << 30
    kept.write_text("damaged")
    assert read(reader, 2.0)["mem.available_bytes"] == plain["mem.available_bytes"]
    reader.close()
