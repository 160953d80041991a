"""The whole daemon under a real systemd: what it says of units that fail, and what it is like as a unit.

Everything happens in a container (`tests.lab.container`). The control groups' controllers, the load and the
kernel's counters are the host's, so only incidents about what the container does are looked at.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from daemon.messages import Incident
from daemon.store.reader import StoreReader
from models.taxonomy import FaultClass as F
from models.taxonomy import SubjectKind
from tests.lab.container import SHARED, Container, container, missing

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"no container with systemd: {missing()}"),
]

HAUSWART = f"{Path(sys.executable).parent}/hauswart"
SETTLE_S = 4.0  # after the incidents were seen: would more follow?
HAUSWART_UNIT = f"""
[Unit]
DefaultDependencies=no
After=systemd-journald.service local-fs.target
[Service]
Type=notify
WatchdogSec=10
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart={HAUSWART} --config {SHARED}/hauswart.toml --state-dir {SHARED}/state run
[Install]
WantedBy=multi-user.target
"""
# One unit for each fault; most fail at once when they are started.
UNITS = {
    "crash.service": "[Service]\nExecStart=/bin/sh -c 'sleep 0.2; kill -SEGV $$$$'\n",
    "loop.service": (
        "[Service]\nRestart=always\nRestartSec=0.3\nExecStart=/bin/sh -c 'echo no luck; exit 1'\n"
    ),
    "hung.service": (
        "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=1\n"
        "ExecStart=/bin/sh -c 'systemd-notify --ready; sleep 100'\n"
    ),
    "base.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "needy.service": (
        "[Unit]\nRequires=base.service\nAfter=base.service\n[Service]\nExecStart=/bin/sleep 100\n"
    ),
    "absent.service": "[Service]\nExecStart=/usr/local/bin/not-installed\n",
    "checked.service": (
        "[Service]\nExecStart=/bin/sleep 100\n"
        "ExecStartPre=/bin/sh -c 'echo \"unknown directive listenn in web.conf:12\"; exit 1'\n"
    ),
    "flaky.service": (
        "[Service]\nRestart=on-failure\nRestartSec=0.2\n"
        "ExecStart=/bin/sh -c '[ -e /run/once ] && exec sleep 100; touch /run/once; exit 3'\n"
    ),
    "stubborn.service": (
        "[Service]\nExecStart=/bin/sh -c 'trap \"exit 143\" TERM; while :; do sleep 0.1; done'\n"
    ),
    "quiet.service": "[Service]\nExecStart=/bin/sleep 100\n",
    "writer.service": (
        "[Service]\nExecStart=/bin/sh -c 'cat /dev/zero >/srv/small/x; sleep 100'\n"  # cat says ENOSPC
    ),
}
FORGE = """
import socket
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")

def say(text, **fields):
    fields = {"MESSAGE": text, "PRIORITY": 2, "_PID": 1, "_UID": 0} | fields
    journal.send("".join(f"{key}={value}\\n" for key, value in fields.items()).encode())

for number in range(8):
    for said in ("Failed with result 'exit-code'.", "Start request repeated too quickly."):
        say(f"victim.service: {said}", UNIT="victim.service", SYSLOG_IDENTIFIER="systemd")
    guess = f"Failed password for root from 192.0.2.66 port 4000{number} ssh2"
    say(guess, SYSLOG_IDENTIFIER="sshd", SYSLOG_PID=100 + number)
    broken = "EXT4-fs error (device sdz1): ext4_find_entry: inode #2: comm ls: reading directory"
    say(broken, _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel", SYSLOG_FACILITY=0)
"""


# Every processor for so many seconds.
BURN = "for n in $(seq $(nproc)); do timeout $1 sh -c 'while :; do :; done' & done; wait; true"


class Host:
    """The container with the daemon in it."""

    def __init__(self, box: Container) -> None:
        self.box = box

    def incidents(self) -> list[Incident]:
        """All that were not merged into another."""
        with StoreReader(self.box.shared / "state/store.db") as reader:
            return [one for one in reader.incidents() if one.state != "merged"]

    def about(self, name: str) -> list[Incident]:
        """The incidents that blame something most of all, or at all."""
        return [one for one in self.incidents() if any(name in culprit.name for culprit in one.culprits)]

    def wait_for(self, *names: str, seconds: float = 20.0) -> float:
        """Wait until each of these is in an incident; for how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds and not all(self.about(name) for name in names):
            time.sleep(0.2)
        return time.monotonic() - began

    def property(self, name: str, unit: str = "hauswart.service") -> str:
        return self.box.run(f"systemctl show --value -p {name} {unit}").strip()


@pytest.fixture(scope="module")
def booted(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("container")
    shared = scratch / "shared"
    shared.mkdir()
    (shared / "hauswart.toml").write_text("[collect]\nsnapshot_interval_s = 2.0\n[low]\nlearn_s = 5.0\n")
    (shared / "forge.py").write_text(FORGE)
    (shared / "burn.sh").write_text(BURN)
    with container(scratch, {"hauswart.service": HAUSWART_UNIT, **UNITS}) as box:
        yield Host(box)


@pytest.fixture(scope="module")
def host(booted):
    """The container some seconds after its boot."""
    time.sleep(5)
    return booted


@pytest.fixture(scope="module")
def faulty(host):
    """Everything goes wrong at once, so that what does not belong together must be told apart."""
    assert [one for one in host.incidents() if one.culprits[0].kind is SubjectKind.UNIT] == []
    host.box.run("mkdir -p /srv/small && mount -t tmpfs -o size=16m small /srv/small")
    host.box.run("systemctl start --no-block stubborn quiet; sleep 1")
    host.box.run("systemctl start --no-block crash loop hung needy absent checked flaky writer")
    host.box.run(f"setpriv --reuid=65534 --regid=65534 --clear-groups {sys.executable} {SHARED}/forge.py")
    # Numbers that no process has: one of a stage of ours would make the line our own.
    guess = "Failed password for invalid user admin from 192.0.2.7 port 4000"
    host.box.run(f"for n in 1 2 3 4 5 6; do logger --id=419400$n -t sshd '{guess}'$n' ssh2'; done")
    host.box.run("systemctl stop quiet stubborn; systemctl daemon-reload")
    names = ("crash", "loop", "hung", "base", "absent", "checked", "flaky", "/srv/small", "192.0.2.7")
    host.wait_for(*names)
    time.sleep(SETTLE_S)
    return host


def test_boot_is_ordinary_and_hauswart_serves(host):
    assert [one for one in host.incidents() if one.culprits[0].kind is SubjectKind.UNIT] == []
    assert host.property("ActiveState") == "active"
    assert host.property("StatusText") == "all stages run"


def test_load_that_a_timer_started_is_no_fault(host):
    timer = "--on-active=0.1 --timer-property=AccuracySec=10ms --unit=nightly"
    host.box.run(f"systemd-run -q {timer} sh {SHARED}/burn.sh 9")
    time.sleep(11)
    assert "burn" in host.box.run("journalctl -u nightly.service -o cat")
    assert host.about("nightly.service") == []


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("crash.service", F.SERVICE_CRASH, "status=11/SEGV"),
        ("loop.service", F.CRASH_LOOP, "Start request repeated too quickly"),
        ("hung.service", F.SERVICE_HUNG, "Watchdog timeout (limit 1s)"),
        ("base.service", F.SERVICE_CRASH, "Dependency failed for needy.service"),
        ("absent.service", F.CONFIG_ERROR, "/usr/local/bin/not-installed: No such file"),
        ("checked.service", F.CONFIG_ERROR, "unknown directive listenn"),
        ("flaky.service", F.SERVICE_CRASH, "status=3/"),
        ("/srv/small", F.DISK_FULL, "No space left on device"),
        ("192.0.2.7", F.AUTH_BRUTEFORCE, "failed logins from 192.0.2.7"),
    ],
)
def test_fault_becomes_one_incident_of_its_class_with_its_culprit(faulty, name, fault, said):
    [incident] = faulty.about(name)
    assert incident.fault_class is fault
    assert incident.culprits[0].name == name
    assert any(said in one.text for one in incident.evidence)
    assert incident.opened_at - incident.evidence_at < 6.0


@pytest.mark.parametrize("name", ["victim.service", "192.0.2.66", "sdz1", "python"])
def test_forged_lines_of_an_unprivileged_user_count_for_nothing(faulty, name):
    assert faulty.about(name) == []


@pytest.mark.parametrize("name", ["quiet.service", "stubborn.service"])
def test_unit_that_the_operator_stops_is_no_fault(faulty, name):
    assert faulty.about(name) == []


def test_journal_is_followed_across_rotation_vacuum_and_a_new_journald(faulty):
    faulty.box.run(
        "journalctl -q --rotate && journalctl -q --vacuum-time=1s && systemctl restart systemd-journald"
    )
    faulty.box.run("systemd-run -q --unit=late sh -c 'sleep 0.2; exit 4'")
    assert faulty.wait_for("late.service", seconds=10.0) < 6.0


def test_user_without_the_journals_group_is_told_once_what_is_missing(host):
    host.box.run(f"useradd --no-create-home watcher && install -d -o watcher {SHARED}/watcher")
    argv = f"{HAUSWART} --state-dir {SHARED}/watcher run --for 2"
    host.box.run(f"cd / && systemd-run -q --wait --uid=watcher --unit=plain {argv}", timeout_s=30.0)
    log = host.box.run("journalctl -u plain.service -o cat")
    assert log.count("journal: absent") == 1
    assert "the user needs the group systemd-journal" in log
    assert "Traceback" not in log


def test_load_is_blamed_on_its_unit(faulty):
    # Long after the timer's load, which the same condition of the whole host would go on from.
    faulty.box.run(f"systemd-run -q --unit=hog sh {SHARED}/burn.sh 25")
    faulty.wait_for("hog.service", seconds=24.0)
    faulty.box.run("systemctl stop hog.service", check=False)  # it may have ended by itself
    [incident] = faulty.about("hog.service")
    assert F.CPU_SATURATION in incident.scores  # whatever else the host outside of the container does


def test_stop_is_orderly_and_takes_seconds(faulty):
    began = time.monotonic()
    faulty.box.run("systemctl stop hauswart")
    assert time.monotonic() - began < 8.0
    assert faulty.property("Result") == "success"
    assert "Traceback" not in faulty.box.run("journalctl -u hauswart.service -o cat")


def test_container_leaves_nothing_behind(tmp_path):
    mounts = Path("/proc/self/mounts").read_text()
    with container(tmp_path) as box:
        assert box.run("cat /proc/1/comm").strip() == "systemd"
        box.run("kill -KILL 0", check=False)  # ends that shell's process group, not this one
        assert box.run("cat /proc/1/comm").strip() == "systemd"
    assert Path("/proc/self/mounts").read_text() == mounts
    assert not list(Path("/sys/fs/cgroup").glob(f"*/hauswart-lab-{os.getpid()}-2"))
