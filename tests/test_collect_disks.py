"""Block devices, arrays, sensors and SMART, on a recorded tree."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.arrays import ArrayReader
from daemon.collectors.disks import DiskReader
from daemon.collectors.sensors import SensorReader
from daemon.collectors.smart import Health, SmartReader, parse_report
from tests.fixtures.trees import FIXTURES, replace


def read(reader, mono):
    values = {}
    reader.read(mono, values)
    return values


def test_disk_rates_over_the_interval(proc, sys):
    reader = DiskReader(proc, sys)
    assert reader.open() == []
    assert read(reader, 1.0) == {}
    # 20 more reads of 2048 sectors, 100 ms of waiting, 500 ms busy
    replace(proc / "diskstats", "sda 38014 13331 3282194 14274", "sda 38034 13331 3284242 14374")
    replace(proc / "diskstats", "4693 0 6248", "4693 0 6748")
    replace(sys / "block/sda/device/ioerr_cnt", "0x1", "0x5")
    values = read(reader, 3.0)
    assert values == {
        "disk.busy{sda}": 0.25,
        "disk.read_bytes{sda}": 2048 * 512 / 2,
        "disk.write_bytes{sda}": 0.0,
        "disk.await_s{sda}": pytest.approx(0.005),
        "disk.io_errors{sda}": 2.0,
    }


def test_refused_commands_while_a_new_disk_is_probed_are_no_errors_and_later_ones_are(proc, sys):
    reader = DiskReader(proc, sys)
    there = (proc / "diskstats").read_text()
    others = [line for line in there.splitlines(keepends=True) if " sda " not in line]
    (proc / "diskstats").write_text("".join(others))
    read(reader, 1.0)
    counted = sys / "block/sda/device/ioerr_cnt"
    for second in range(2, 15):
        (proc / "diskstats").write_text(there.replace("sda 38014", f"sda {38014 + second}"))
        counted.write_text(f"{min(second, 4):#x}\n")
        assert read(reader, float(second)).get("disk.io_errors{sda}", 0.0) == 0.0
    (proc / "diskstats").write_text(there.replace("sda 38014", "sda 38100"))
    counted.write_text("0x7\n")
    assert read(reader, 15.0)["disk.io_errors{sda}"] == 3.0


def test_idle_disk_says_so_once_and_an_unused_loop_never(proc, sys):
    reader = DiskReader(proc, sys)
    read(reader, 1.0)
    assert {name.partition("{")[2] for name in read(reader, 2.0)} == {"sda}"}
    assert read(reader, 3.0) == {}


def test_virtual_device_appears_while_it_works(proc, sys):
    reader = DiskReader(proc, sys)
    read(reader, 1.0)
    replace(proc / "diskstats", "dm-0 10 0 80 4 0 0 0 0 0 8", "dm-0 12 0 96 204 0 0 0 0 0 1008")
    values = read(reader, 2.0)
    assert values["disk.busy{dm-0}"] == 1.0
    assert values["disk.await_s{dm-0}"] == pytest.approx(0.1)
    assert read(reader, 3.0)["disk.busy{dm-0}"] == 0.0
    assert not any("dm-0" in name for mono in range(4, 40) for name in read(reader, float(mono)))


def test_replaced_device_gives_no_negative_rate(proc, sys):
    reader = DiskReader(proc, sys)
    read(reader, 1.0)
    replace(proc / "diskstats", "sda 38014", "sda 14")
    assert not any(name.startswith("disk.busy") for name in read(reader, 2.0))


def test_malformed_line_is_a_note_and_the_others_go_on(proc, sys):
    reader = DiskReader(proc, sys)
    read(reader, 1.0)
    replace(proc / "diskstats", "sda 38014 13331", "sda x y")
    replace(proc / "diskstats", "dm-0 10", "dm-0 11")
    assert "disk.busy{dm-0}" in read(reader, 2.0)
    assert [note.name for note in reader.notes()] == ["disk.sda"]


def test_arrays_that_lost_redundancy_are_told(proc, sys):
    reader = ArrayReader(proc, sys)
    reader.open()
    assert read(reader, 1.0) == {
        "array.degraded{md0}": 1.0,
        "array.sync{md0}": 1.0,
        "array.degraded{md1}": 0.0,
        "array.sync{md1}": 0.0,
        "array.degraded{sdb1}": 0.0,
        "array.sync{sdb1}": 0.0,
        "array.degraded{tank}": 1.0,
    }
    assert read(reader, 2.0) == {}  # not due


def test_btrfs_errors_count_from_when_we_began(proc, sys):
    reader = ArrayReader(proc, sys)
    read(reader, 1.0)
    volume = next(sys.glob("fs/btrfs/0f*"))
    replace(volume / "devinfo/1/error_stats", "corruption_errs 0", "corruption_errs 2")
    replace(volume / "exclusive_operation", "none", "balance")
    values = read(reader, 7.0)
    assert (values["array.degraded{sdb1}"], values["array.sync{sdb1}"]) == (1.0, 1.0)


def test_btrfs_errors_that_were_set_to_zero_count_from_there(proc, sys):
    reader = ArrayReader(proc, sys)
    volume = next(sys.glob("fs/btrfs/0f*"))
    counters = volume / "devinfo/1/error_stats"
    replace(counters, "corruption_errs 0", "corruption_errs 90")
    found = [read(reader, 1.0)]
    for mono, was, is_now in ((7.0, 90, 0), (13.0, 0, 5), (19.0, 5, 5)):
        replace(counters, f"corruption_errs {was}", f"corruption_errs {is_now}")
        found.append(read(reader, mono))
    counters.unlink()  # what cannot be read is no zero
    found.append(read(reader, 25.0))
    assert [values["array.degraded{sdb1}"] for values in found] == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_temperatures_with_their_critical_point(sys):
    reader = SensorReader(sys)
    assert reader.open() == []
    assert read(reader, 1.0) == {
        "temp.celsius{coretemp/Package id 0}": 61.0,
        "temp.critical{coretemp/Package id 0}": 0.61,
        "temp.celsius{nvme/temp1}": 40.5,
        "temp.celsius{nvme/temp1#2}": 41.5,
    }
    reader.close()


def test_thermal_zones_stand_in_for_hwmon():
    reader = SensorReader(FIXTURES / "sys-zones")
    reader.open()
    assert read(reader, 1.0) == {
        "temp.celsius{acpitz/thermal_zone0}": 45.0,
        "temp.critical{acpitz/thermal_zone0}": 0.5,
    }


def test_host_without_sensors_is_told_once(tmp_path):
    reader = SensorReader(tmp_path)
    assert [note.action for note in reader.open()] == ["absent"]
    assert read(reader, 1.0) == {}
    assert reader.notes() == []


REPORT = """{"smart_status": {"passed": false}, "ata_smart_attributes": {"table":
 [{"id": 5, "name": "Reallocated_Sector_Ct", "raw": {"value": 12, "string": "12"}}]}}"""


def test_smart_report_is_read():
    assert parse_report(REPORT.encode()) == Health(failing=True, reallocated=12)
    assert parse_report(b'{"scsi_grown_defect_list": 3}') == Health(failing=None, reallocated=3)
    assert parse_report(b'{"smartctl": {"exit_status": 2}}') is None


@given(st.binary(max_size=200))
def test_smart_parser_survives_any_bytes(data):
    parse_report(data)
    parse_report(b"[" * 100_000 + data)


def program(tmp_path, text):
    path = tmp_path / "smartctl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def until(reader, mono, wanted):
    """Read on for at most three real seconds."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        mono += 0.25
        values = read(reader, mono)
        if wanted(values):
            return values
        time.sleep(0.02)
    pytest.fail("nothing came")


def test_smart_is_asked_without_waiting_and_repeated(tmp_path, sys):
    reader = SmartReader(sys, program(tmp_path, f"sleep 0.2; cat <<'END'\n{REPORT}\nEND\nexit 8"))
    assert reader.open() == []
    began = time.monotonic()
    read(reader, 1.0)
    assert time.monotonic() - began < 0.15
    values = until(reader, 1.0, bool)
    assert values == {"disk.smart_failing{sda}": 1.0, "disk.smart_reallocated{sda}": 12}
    assert until(reader, 1000.0, bool) == values
    reader.close()


def test_smart_program_that_hangs_is_killed(tmp_path, sys):
    reader = SmartReader(sys, program(tmp_path, "exec sleep 60"))
    reader.open()
    read(reader, 1.0)
    read(reader, 32.0)
    assert reader.notes()[0].name == "smart.sda"
    until(reader, 33.0, lambda _: reader._child is None)  # nobody waits for its end


def test_missing_smart_program_is_named(sys):
    reader = SmartReader(sys, "no-such-program")
    assert [note.action for note in reader.open()] == ["absent"]
    assert read(reader, 1.0) == {}
