import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.collectors.context import BOOT_S, ContextCollector
from daemon.collectors.jobs import job_of_process, job_of_unit
from daemon.messages import Stamp


class Host:
    """A host made of files: its /proc, /sys and root, looked at every five seconds."""

    def __init__(self, folder):
        self.root, self.proc, self.sys = folder, folder / "proc", folder / "sys"
        self.proc.mkdir()
        (self.sys / "block").mkdir(parents=True)
        self.mono = 1000.0
        self.collector = None

    def start(self, pid, comm, command="", unit="", cgroup=""):
        entry = self.proc / str(pid)
        entry.mkdir(exist_ok=True)
        (entry / "comm").write_text(comm + "\n")
        (entry / "cmdline").write_bytes(command.replace(" ", "\0").encode())
        (entry / "cgroup").write_text(cgroup or f"0::/system.slice/{unit}\n")

    def stop(self, pid):
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()
        (self.proc / str(pid)).rmdir()

    def look(self):
        if self.collector is None:
            self.collector = ContextCollector(self.proc, self.sys, self.root)
            self.collector.open()
        self.mono += 5.0
        found = self.collector.read(Stamp("b" * 32, self.mono, self.mono))
        return [(event.name, event.action, event.attributes) for event in found]

    def kinds(self):
        return [item[:2] for item in self.look()]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_backup_is_seen_from_start_to_end(host):
    host.start(7, "bash")
    assert host.look() == []
    host.start(42, "restic", "restic backup /srv", "restic-job.service")
    name, action, told = host.look()[0]
    assert (name, action) == ("backup", "start")
    assert (told["job"], told["pid"], told["unit"], told["process"]) == (
        "restic",
        "42",
        "restic-job.service",
        "restic[42]",
    )
    assert told["uid"] == str(os.getuid())
    assert host.look() == []
    host.stop(42)
    assert host.look() == [("backup", "end", told)]


def test_a_program_seen_before_its_exec_is_looked_at_again(host):
    host.start(42, "bash")
    assert host.look() == []
    host.start(42, "rsync", "rsync -a /srv /mnt")
    assert host.kinds() == [("backup", "start")]


def test_boot_lasts_some_minutes_of_uptime(host):
    host.mono = 10.0
    assert host.kinds() == [("boot", "start")]
    host.mono = BOOT_S - 10.0
    assert host.look() == []
    assert host.kinds() == [("boot", "end")]


def test_a_service_of_a_timer_is_a_job_while_its_group_exists(host):
    for folder in ("run/systemd/system", "etc/systemd/system", "usr/lib/systemd/system"):
        (host.root / folder).mkdir(parents=True)
    (host.root / "etc/systemd/system/report.timer").write_text(
        "[Timer]\nOnCalendar=daily\nUnit=mail-report.service\n"
    )
    (host.root / "usr/lib/systemd/system/logrotate.timer").write_text("[Timer]\nOnCalendar=daily\n")
    groups = host.sys / "fs/cgroup/system.slice"
    groups.mkdir(parents=True)
    assert host.look() == []
    (groups / "mail-report.service").mkdir()
    (groups / "logrotate.service").mkdir()
    (groups / "nginx.service").mkdir()
    found = {item[0]: item[2]["unit"] for item in host.look()}
    assert found == {"timer": "mail-report.service", "maintenance-job": "logrotate.service"}
    (groups / "mail-report.service").rmdir()
    assert host.kinds() == [("timer", "end")]


def test_a_timer_that_is_made_later_is_known_at_the_next_look(host):
    folder = host.root / "run/systemd/system"
    folder.mkdir(parents=True)
    assert host.look() == []
    (folder / "later.timer").write_text("")
    (host.sys / "fs/cgroup/system.slice/later.service").mkdir(parents=True)
    host.mono += 5.0
    assert host.kinds() == [("timer", "start")]


def test_the_program_in_a_timers_service_names_the_job(host):
    (host.root / "run/systemd/system").mkdir(parents=True)
    (host.root / "run/systemd/system/nightly.timer").write_text("")
    (host.sys / "fs/cgroup/system.slice/nightly.service").mkdir(parents=True)
    host.start(42, "borg", "borg create x", "nightly.service")
    assert [(item[0], item[2]["unit"]) for item in host.look()] == [("backup", "nightly.service")]


def test_an_array_check_is_a_scrub_and_a_recovery_is_not(host):
    action = host.sys / "block/md0/md/sync_action"
    action.parent.mkdir(parents=True)
    action.write_text("recover\n")
    assert host.look() == []
    action.write_text("check\n")
    assert host.kinds() == [("scrub", "start")]
    action.write_text("idle\n")
    assert host.kinds() == [("scrub", "end")]


def test_a_generation_switch_begins_and_ends(host):
    profiles = host.root / "nix/var/nix/profiles"
    profiles.mkdir(parents=True)
    (host.root / "run").mkdir()
    for number in (41, 42):
        (host.root / f"store-{number}").mkdir()
        (profiles / f"system-{number}-link").symlink_to(host.root / f"store-{number}")
    (profiles / "system").symlink_to("system-41-link")
    (host.root / "run/current-system").symlink_to(host.root / "store-41")
    assert host.look() == []
    (profiles / "system").unlink()
    (profiles / "system").symlink_to("system-42-link")
    assert host.look() == [("rebuild", "start", {"generation": "42"})]
    assert host.look() == []
    (host.root / "run/current-system").unlink()
    (host.root / "run/current-system").symlink_to(host.root / "store-42")
    found = host.look() + host.look() + host.look()
    assert found == [("rebuild", "end", {"generation": "42"})]


def test_a_held_package_lock_is_an_update(host):
    lock = host.root / "var/lib/dpkg/lock-frontend"
    lock.parent.mkdir(parents=True)
    lock.touch()
    (host.proc / "locks").symlink_to("/proc/locks")
    assert host.look() == []
    holder = (
        "import fcntl, sys\n"
        f"file = open({str(lock)!r}, 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        if str(lock.stat().st_ino) not in Path("/proc/locks").read_text():
            process.stdin.close()
            pytest.skip("/proc/locks shows other inodes than stat here")
        name, action, told = host.look()[0]
        process.stdin.close()
    assert (name, action, told["lock"]) == ("update", "start", "/var/lib/dpkg/lock-frontend")
    assert host.kinds() == [("update", "end")]


@pytest.mark.parametrize(
    ("comm", "command", "name"),
    [
        ("rsync", "rsync -a a b", "backup"),
        ("rsync", "rsync --daemon --no-detach", ""),
        ("restic", "restic mount /mnt", ""),
        ("unattended-upgr", "/usr/bin/python3 unattended-upgrade-shutdown --wait-for-signal", ""),
        ("unattended-upgr", "/usr/bin/python3 /usr/bin/unattended-upgrade", "update"),
        ("switch-to-confi", "perl switch-to-configuration switch", "rebuild"),
        ("btrfs", "btrfs scrub start -B /", "scrub"),
        ("btrfs", "btrfs filesystem show", ""),
        ("nix-collect-gar", "nix-collect-garbage -d", "maintenance-job"),
        ("python3", "restic backup", ""),
    ],
)
def test_programs_speak_for_jobs(comm, command, name):
    assert job_of_process(comm, command) == name


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("restic-backups-home.service", "backup"),
        ("dpkg-db-backup.service", "maintenance-job"),
        ("apt-daily-upgrade.service", "update"),
        ("btrfs-scrub@-.service", "scrub"),
        ("nixos-upgrade.service", "rebuild"),
        ("report.service", "timer"),
    ],
)
def test_units_speak_for_jobs(unit, name):
    assert job_of_unit(unit) == name


def test_hostile_names_are_escaped_and_floods_bounded(host):
    for pid in range(1000, 3000):
        host.start(pid, "x\x1b[31m")
    host.start(3001, "restic", "restic \x1b]0;evil\x07 backup", "evil\x1b.service")
    found = []
    for _ in range(8):
        found += host.look()
    assert found[0][2]["unit"] == "evil\\x1b.service"


def test_an_unreadable_proc_is_said_once(host):
    host.proc.rmdir()
    assert host.kinds() == [("context", "error")]
    assert host.kinds() == []


def test_a_look_at_this_machine_is_cheap():
    collector = ContextCollector()
    collector.open()
    stamps = [Stamp("b" * 32, 1000.0 + 5 * index, 1.0) for index in range(22)]
    collector.read(stamps[0])
    collector.read(stamps[1])
    started = time.process_time()
    for stamp in stamps[2:]:
        collector.read(stamp)
    cost_s = (time.process_time() - started) / 20
    print(f"{cost_s * 1e6:.0f} us a look")
    assert cost_s < 0.01  # the budget is 1.5 ms each five seconds; a busy machine gets room
