"""Control groups: which unit they are, and what they used."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.cgroups import Groups, Layout, parse_places, unit_of, unit_of_path
from daemon.collectors.units import MAX_GROUPS, UnitReader

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def sys(tmp_path):
    return Path(shutil.copytree(FIXTURES / "sys-host", tmp_path / "sys"))


@pytest.fixture
def hybrid(tmp_path):
    return Path(shutil.copytree(FIXTURES / "sys-hybrid", tmp_path / "sys"))


def read(reader, mono):
    values = {}
    reader.read(mono, values)
    return values


def of(values, unit):
    return {name.partition("{")[0]: value for name, value in values.items() if name.endswith(f"{{{unit}}}")}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/", ""),
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/system.slice/docker-0123.scope/init.scope", "docker-0123.scope"),
        ("/machine.slice/machine-web.scope/payload/system.slice/nginx.service", "machine-web.scope"),
        ("/docker/0123", "/docker/0123"),
        ("/lxc.payload.web/system.slice/nginx.service", "/lxc.payload.web/system.slice/nginx.service"),
        ("/system.slice", "system.slice"),
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/../../system.slice/cron.service", "cron.service"),
    ],
)
def test_unit_of_a_path_is_the_first_unit_below_the_slices(path, unit):
    assert unit_of_path(path) == unit


def test_place_prefers_the_hierarchy_that_systemd_names():
    assert parse_places(b"0::/system.slice/a.service\n") == "/system.slice/a.service"
    assert parse_places(b"4:memory:/\n1:name=systemd:/system.slice/b.service\n0::/\n").endswith("b.service")
    assert parse_places(b"9:name=systemd:/\n4:memory:/jobs/one\n0::/\n") == "/jobs/one"
    assert parse_places(b"0::/\n") == "/"


def test_unit_of_a_process_on_a_recorded_tree():
    assert unit_of(FIXTURES / "proc-host", 900) == "nginx.service"
    assert unit_of(FIXTURES / "proc-host", 424242) == ""


@given(st.binary(max_size=300))
def test_hostile_group_names_become_printable(data):
    assert unit_of_path(parse_places(b"0::/" + data)).isprintable()


def test_units_and_uncovered_leaves_are_found_once(sys):
    found = Groups(Layout(sys)).find()
    assert sorted(found.values()) == ["/lab/worker", "init.scope", "nginx.service", "user@1000.service"]


def test_values_of_a_unit_on_v2(sys):
    reader = UnitReader(sys)
    assert reader.open() == []
    first = of(read(reader, 1.0), "nginx.service")
    assert first == {
        "unit.memory_bytes": 100 << 20,
        "unit.memory": 0.5,
        "unit.tasks": 6,
        "unit.tasks_limit": 0.1,
    }
    group = sys / "fs/cgroup/system.slice/nginx.service"
    (group / "cpu.stat").write_text("usage_usec 8000000\nnr_periods 120\nnr_throttled 15\nthrottled_usec 9\n")
    (group / "memory.events").write_text("oom 2\noom_kill 2\noom_group_kill 0\n")
    (group / "io.stat").write_text("8:0 rbytes=3000 wbytes=500\n252:0 rbytes=1000 wbytes=0\n")
    (group / "io.pressure").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=502000\n")
    second = of(read(reader, 3.0), "nginx.service")
    assert second["unit.cpu"] == pytest.approx(1.5)
    assert second["unit.throttled"] == pytest.approx(0.25)
    assert second["unit.oom_kills"] == 1.0
    assert second["unit.io_bytes"] == 1000
    assert second["unit.psi_io"] == pytest.approx(0.25)
    reader.close()


def test_refused_forks_of_a_unit_are_counted(sys):
    """The kernel logs only the first refusal of a group; its counter goes on."""
    reader = UnitReader(sys)
    reader.open()
    group = sys / "fs/cgroup/system.slice/nginx.service"
    (group / "pids.events").write_text("max 7\n")
    assert "unit.forks_refused" not in of(read(reader, 1.0), "nginx.service")
    (group / "pids.events").write_text("max 27\n")
    (group / "cpu.stat").write_text("usage_usec 8000000\n")
    assert of(read(reader, 3.0), "nginx.service")["unit.forks_refused"] == pytest.approx(10.0)
    reader.close()


def test_group_that_stood_still_is_left_out_and_its_next_rate_is_undiluted(sys):
    reader = UnitReader(sys)
    reader.open()
    for mono in (1.0, 2.0):
        read(reader, mono)
    assert of(read(reader, 3.0), "nginx.service") == {}
    for mono in range(4, 12):
        read(reader, float(mono))
    (sys / "fs/cgroup/system.slice/nginx.service/cpu.stat").write_text("usage_usec 6000000\n")
    assert of(read(reader, 12.0), "nginx.service")["unit.cpu"] == pytest.approx(1.0)


def test_values_of_a_unit_on_v1_with_a_hybrid_tree(hybrid):
    reader = UnitReader(hybrid)
    reader.open()
    read(reader, 1.0)
    root = hybrid / "fs/cgroup"
    (root / "cpuacct/system.slice/cron.service/cpuacct.usage").write_text("3000000000\n")
    (root / "memory/system.slice/cron.service/memory.oom_control").write_text("oom_kill 4\n")
    (root / "blkio/system.slice/cron.service/blkio.throttle.io_service_bytes").write_text(
        "Total 1\nTotal 350\n"
    )
    values = of(read(reader, 3.0), "cron.service")
    assert values["unit.cpu"] == pytest.approx(1.0)
    assert values["unit.memory"] == 0.25
    assert values["unit.oom_kills"] == 1.0
    assert values["unit.io_bytes"] == 100
    assert values["unit.tasks"] == 3
    assert "unit.tasks_limit" not in values


def test_group_of_the_memory_controller_alone_is_accounted(hybrid):
    reader = UnitReader(hybrid)
    reader.open()
    values = of(read(reader, 1.0), "/jobs/one")
    assert values == {"unit.memory_bytes": 2 << 20}  # its limit is "none"


def test_vanished_group_is_forgotten_without_a_word(hybrid):
    reader = UnitReader(hybrid)
    reader.open()
    read(reader, 1.0)
    for path in (hybrid / "fs/cgroup").glob("*/system.slice/cron.service"):
        shutil.rmtree(path)
    reader._search_at = 0.0
    assert of(read(reader, 2.0), "cron.service") == {}
    assert len(reader._known) == 1


def test_number_of_groups_is_bounded_and_said(hybrid):
    jobs = hybrid / "fs/cgroup/memory/jobs"
    for index in range(MAX_GROUPS + 50):
        (jobs / f"j{index}").mkdir()
        (jobs / f"j{index}/memory.usage_in_bytes").write_text("4096\n")
    reader = UnitReader(hybrid)
    reader.open()
    read(reader, 1.0)
    assert len(reader._known) == MAX_GROUPS
    assert [note.action for note in reader.notes()] == ["gap"]
    reader.close()


def test_search_ends_at_a_bound_however_many_groups_lie_side_by_side(sys, monkeypatch):
    monkeypatch.setattr("daemon.collectors.cgroups._MAX_MET", 50)
    groups = Groups(Layout(sys))
    groups.find()
    assert not groups.cut
    for index in range(200):
        (sys / f"fs/cgroup/crowd.slice/c{index}.service").mkdir(parents=True)
    assert 0 < len(groups.find()) <= 50
    assert groups.cut
    groups.find()
    assert len(groups.met) == 50


def test_group_that_is_only_new_to_us_brings_no_life_of_counters(sys):
    inner = sys / "fs/cgroup/docker"
    (inner / "abc").mkdir(parents=True)
    for name, text in (("cpu.stat", "usage_usec 9000000000\n"), ("memory.events", "oom 3\noom_kill 3\n")):
        (inner / name).write_text(text)
        (inner / "abc" / name).write_text(text.replace("9", "1").replace("3", "0"))
    reader = UnitReader(sys)
    reader.open()
    read(reader, 1.0)
    shutil.rmtree(inner / "abc")
    reader._search_at = 0.0
    found = of(read(reader, 2.0), "/docker") | of(read(reader, 3.0), "/docker")
    assert found.get("unit.oom_kills", 0.0) == 0.0
    assert found.get("unit.cpu", 0.0) == 0.0
    reader.close()


def test_missing_controllers_are_named(tmp_path):
    root = tmp_path / "fs/cgroup"
    root.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu\n")
    (root / "cgroup.procs").touch()
    assert {note.name for note in UnitReader(tmp_path).open()} == {"units.memory", "units.pids"}
    assert [note.name for note in UnitReader(tmp_path / "none").open()] == ["units"]


@pytest.mark.lab
def test_kill_in_a_fresh_group_is_seen_with_its_group():
    layout = Layout(Path("/sys"))
    root = layout.v1.get("memory") or layout.unified
    limit = "memory.limit_in_bytes" if "memory" in layout.v1 else "memory.max"
    reader = UnitReader(Path("/sys"))
    reader.open()
    mono = time.monotonic()
    read(reader, mono)
    group = root / "hauswart-test-kill"
    try:
        group.mkdir()
        (group / limit).write_text(str(16 << 20))
    except OSError:
        pytest.skip("needs root and the memory controller")
    try:
        code = f"open('{group}/cgroup.procs','w').write('0')\na=[]\nwhile 1: a.append(b'x'*(1<<20))"
        python = shutil.which("python3")
        assert subprocess.run([python, "-c", code], check=False).returncode == -9
        values = of(read(reader, mono + 1.0), "/hauswart-test-kill")
        assert values["unit.oom_kills"] >= 1.0
    finally:
        reader.close()
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)
