"""The units in a virtual machine with a kernel of its own: limits that hold, faults no container can have.

Each test has a machine as it was when the snapshot was taken: `hauswart host install` is done and every stage
has been at work for a while. Run by `make test-vm`; `tests.lab.machine` says how the machine is made.
"""

import json
import time

import pytest

from daemon.message_ids import MessageId
from daemon.settings import Settings
from tests.lab import days, quiet
from tests.lab.machine import STAGES, machine, missing, skipping

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1500)]

NOTICED_S = 60.0  # patience for an incident; it takes a few seconds, but every instruction is emulated
# What the lab itself does is no fault. Where processors are short it takes all that an emulated machine has,
# for long enough to be reported, rightly.
LAB = "lab-guest.service"
LOOK_S = 2.0  # between two looks, which must cost little: a guest that is kept busy says so
STARTS_S = 240.0  # patience for a stage; starting Python and its packages takes the better part of a minute
SETTLE_S = 15.0  # after it was seen: would a second one follow?
GREEDY = "import time\nkept = []\nwhile True:\n    kept.append(b'x' * (4 << 20))\n    time.sleep(0.05)\n"
# An application with a clock of its own, which makes reports at the same time each night; no timer tells.
REPORTS = """import multiprocessing, time
at = time.monotonic() + {first_s}
while True:
    time.sleep(max(0.0, at - time.monotonic()))
    print("reports of the day", flush=True)
    end = time.monotonic() + {lasts_s}
    def work():
        while time.monotonic() < end:
            pass
    jobs = [multiprocessing.Process(target=work) for _ in range(3)]
    [one.start() for one in jobs]
    [one.join() for one in jobs]
    at += 86400
"""
DAY_S = 86400
# The guest's own clock, which no jump of the date moves.
UPTIME = "cut -d' ' -f1 /proc/uptime"


class Guest:
    """The machine, and what the hauswart in it has to say."""

    def __init__(self, box):
        self.box, self.run = box, box.run
        self.before = {one["HAUSWART_INCIDENT"] for one in self.said(MessageId.INCIDENT_OPENED)}
        self.count, self.times = 0, []

    def show(self, unit, name):
        return self.run(f"systemctl show --value -p {name} {unit}").strip()

    def mark(self, command="true"):
        """Do something; the guest's uptime when it was done."""
        return float(self.run(f"{{ {command}; }} >/dev/null 2>&1; {UPTIME}", timeout_s=120.0))

    def wait(self, condition, seconds=NOTICED_S):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(LOOK_S)
        return True

    def opened(self):
        """The guest's uptime at which each incident was opened since the restore, from the journal.

        Reading it costs the guest much more than the status file, which says whether there is news.
        """
        status = json.loads(self.run("cat /run/hauswart/status/middle.json"))
        count = status.get("counters", {}).get("incidents_opened", 0)
        if count != self.count:
            found = self.said(MessageId.INCIDENT_OPENED)
            new = [one for one in found if one["HAUSWART_INCIDENT"] not in self.before]
            new = [one for one in new if one.get("HAUSWART_CULPRIT") != LAB]
            self.count, self.times = count, [int(one["__MONOTONIC_TIMESTAMP"]) / 1e6 for one in new]
        return self.times

    def said(self, message):
        lines = self.run(f"journalctl -q -b -o json MESSAGE_ID={message}").splitlines()
        return [json.loads(line) for line in lines]

    def incidents(self):
        lines = self.run("hauswart incidents --all --json").splitlines()
        found = [one for one in map(json.loads, lines) if one["state"] != "merged"]
        new = [one for one in found if one["id"] not in self.before]
        return [one for one in new if one["culprits"][0]["name"] != LAB]

    def serving(self):
        """The stages that run and have said so in their status files, as this very process."""
        files = " ".join(f"/run/hauswart/status/{stage}.json" for stage in STAGES)
        told = (
            json.loads(line)
            for line in self.run(f"for one in {files}; do cat $one; echo; done").splitlines()
            if line
        )
        running = {one["stage"]: one["pid"] for one in told if one["state"] == "running"}
        return {stage for stage, pid in self.ask_units("MainPID").items() if running.get(stage) == int(pid)}

    def restarts(self):
        return {stage: int(times) for stage, times in self.ask_units("NRestarts").items()}

    def ask_units(self, name):
        units = " ".join(f"hauswart-{stage}" for stage in STAGES)
        return dict(zip(STAGES, self.run(f"systemctl show --value -p {name} {units}").split(), strict=True))

    def attach(self, name, device, mebibytes=64):
        """Plug in a disk; returns its node once udev has made it."""
        image = self.box.folder / f"{name}.img"
        image.touch()
        with image.open("r+b") as file:
            file.truncate(mebibytes << 20)
        before = set(self.disks())
        self.box.monitor(f"drive_add 0 if=none,id={name},file={image},format=raw")
        self.box.monitor(f"device_add {device},drive={name},id={name}-device,serial=LAB-{name}")
        assert self.wait(lambda: set(self.disks()) - before, 30.0), self.run("dmesg | tail")
        self.run("udevadm settle")
        [node] = set(self.disks()) - before
        return node

    def detach(self, name):
        self.box.monitor(f"device_del {name}-device")

    def disks(self):
        return self.run("ls /sys/block").split()

    def log(self):
        return self.run(
            f"journalctl -q -b --no-pager -o short-monotonic -n 60; "
            f"journalctl -q -b --no-pager -o short-monotonic MESSAGE_ID={MessageId.INCIDENT_OPENED}",
            check=False,
        )


@pytest.fixture(scope="module")
def table(request):
    """What was found is told at the end: the delays are worth a look, but depend on who else is at work."""
    rows = []
    yield rows
    plugins = request.config.pluginmanager
    writer = plugins.getplugin("terminalreporter")
    with plugins.getplugin("capturemanager").global_and_fixture_disabled():
        writer.ensure_newline()
        for fault, incident, delay_s in rows:
            culprit = incident["culprits"][0]["name"]
            writer.write_line(f"{fault:<28}{incident['fault_class']:<22}{culprit:<28}{delay_s:6.1f} s")


@pytest.fixture(autouse=True)
def _asked_for(request):
    if "vm" not in request.config.getoption("markexpr"):
        pytest.skip("a virtual machine takes minutes: make test-vm")
    if reason := missing():
        pytest.exit(f"no virtual machine: {reason}", 3)


@pytest.fixture
def guest(tmp_path):
    with machine(tmp_path) as box:
        yield Guest(box)


@pytest.fixture
def sees(guest, table, request):
    """Asserts that exactly one incident follows a fault whose effect was there at `effect_s` of uptime."""

    def check(effect_s, classes, *names, died=()):
        assert guest.wait(guest.opened), guest.log()
        time.sleep(SETTLE_S)
        found = guest.incidents()
        assert [one["fault_class"] in classes for one in found] == [True], (found, guest.log())
        [incident] = found
        assert any(name in incident["culprits"][0]["name"] for name in names), (incident, guest.log())
        fault = request.node.name.removeprefix("test_")
        table.append((fault[:27], incident, min(guest.opened()) - effect_s))
        assert {stage for stage, times in guest.restarts().items() if times} == set(died)
        return incident

    return check


# --- the units ------------------------------------------------------------------------------------------


def test_limits_of_the_slice_are_the_kernels_own(guest):
    assert guest.serving() == set(STAGES)
    group = "/sys/fs/cgroup/hauswart.slice"
    assert int(guest.run(f"cat {group}/memory.max")) == 512 << 20
    assert int(guest.run(f"cat {group}/memory.high")) == 256 << 20
    assert guest.run(f"cat {group}/cpu.max").split() == ["100000", "100000"]
    assert int(guest.run(f"cat {group}/memory.current")) < 256 << 20
    for stage in STAGES:
        assert (
            guest.run(f"cat /proc/{guest.show(f'hauswart-{stage}', 'MainPID')}/cgroup")
            .strip()
            .endswith(f"hauswart.slice/hauswart-{stage}.service")
        )


def test_quiet_machine_has_no_incident_and_its_clock_did_not_jump_at_the_restore(guest):
    offset = guest.run(f"echo $(date +%s.%N) $({UPTIME})").split()
    time.sleep(60.0)
    assert guest.incidents() == [], guest.log()
    assert guest.before == set()  # nor was one in the minutes of installation and start
    after = guest.run(f"echo $(date +%s.%N) $({UPTIME})").split()
    boot, later = (float(wall) - float(up) for wall, up in (offset, after))
    assert abs(later - boot) < 0.5
    assert abs(boot - float(guest.run("sed -n 's/^btime //p' /proc/stat"))) < 2.0
    assert guest.serving() == set(STAGES)
    assert not any(guest.restarts().values())


# --- memory ---------------------------------------------------------------------------------------------


def start_greedy(guest, *properties, unit="greedy"):
    guest.box.push(GREEDY.encode(), "/root/greedy.py")
    options = " ".join(f"-p {one}" for one in ("Type=exec", *properties))
    command = f"systemd-run --quiet --wait --unit={unit} {options} python3 /root/greedy.py"
    guest.run(command, check=False, timeout_s=STARTS_S)
    at = guest.run(f"journalctl -q -b -o json -u {unit} -g 'oom-kill' | head -1")
    return int(json.loads(at)["__MONOTONIC_TIMESTAMP"]) / 1e6


def test_service_killed_at_its_memory_limit(guest, sees):
    at = start_greedy(guest, "MemoryMax=64M", "MemorySwapMax=0")
    assert guest.show("greedy", "Result") == "oom-kill"
    sees(at, {"memory-exhaustion"}, "greedy.service")


def test_host_out_of_memory(guest, sees):
    at = start_greedy(guest)
    sees(at, {"memory-exhaustion"}, "greedy.service")


def test_process_too_big_for_hauswarts_own_slice(guest, sees):
    """The kernel picks the biggest of the slice; the stages live on. MemoryHigh= would slow it down first."""
    guest.run("systemctl set-property --runtime hauswart.slice MemoryHigh=infinity")
    at = start_greedy(guest, "Slice=hauswart.slice", "MemorySwapMax=0")
    sees(at, {"memory-exhaustion"}, "greedy.service")
    assert guest.serving() == set(STAGES)


def test_stage_killed_at_its_memory_limit_comes_back(guest, sees):
    group = "/sys/fs/cgroup/hauswart.slice/hauswart-low.service/memory.max"
    before = guest.show("hauswart-low", "MainPID")
    at = guest.mark(f"echo 4M >{group}; while kill -0 {before}; do sleep 0.1; done; echo max >{group}")
    assert guest.wait(lambda: guest.serving() == set(STAGES), STARTS_S), guest.log()
    assert guest.show("hauswart-low", "MainPID") != before
    sees(at, {"memory-exhaustion", "service-crash"}, "low", died={"low"})


def test_stage_killed_comes_back(guest, sees):
    before = guest.show("hauswart-top", "MainPID")
    at = guest.mark(f"kill -KILL {before}")
    assert guest.wait(lambda: guest.show("hauswart-top", "MainPID") not in {"0", before})
    assert guest.wait(lambda: guest.serving() == set(STAGES), STARTS_S), guest.log()
    sees(at, {"service-crash"}, "top", died={"top"})


# --- storage --------------------------------------------------------------------------------------------


def test_disk_with_unreadable_sectors(guest, sees):
    disk = guest.attach("worn", "virtio-blk-pci")
    sectors = int(guest.run(f"blockdev --getsz /dev/{disk}"))
    table = f"0 4096 linear /dev/{disk} 0\\n4096 8 error\\n4104 {sectors - 4104} linear /dev/{disk} 4104\\n"
    guest.run(f"printf '{table}' | dmsetup create worn && udevadm settle")
    at = guest.mark("dd if=/dev/mapper/worn of=/dev/null bs=4k count=1024")
    sees(at, {"disk-failing"}, "dm-0", "worn", disk)


def test_disk_that_reports_medium_errors(guest, sees):
    before = set(guest.disks())
    guest.run("modprobe scsi_debug dev_size_mb=16 opts=2 medium_error_start=4660 medium_error_count=8")
    assert guest.wait(lambda: set(guest.disks()) - before)
    [disk] = set(guest.disks()) - before
    guest.run("udevadm settle")
    at = guest.mark(f"dd if=/dev/{disk} of=/dev/null bs=4k")
    sees(at, {"disk-failing"}, disk)


def test_file_system_whose_disk_stops_writing(guest, sees):
    disk = guest.attach("flaky", "virtio-blk-pci")
    sectors = guest.run(f"blockdev --getsz /dev/{disk}").strip()
    guest.run(
        f"modprobe dm-flakey; echo 0 {sectors} linear /dev/{disk} 0 | dmsetup create flaky && "
        "mkfs.ext4 -q /dev/mapper/flaky && mkdir /mnt/flaky && "
        "mount -o errors=remount-ro /dev/mapper/flaky /mnt/flaky && echo there >/mnt/flaky/one && sync"
    )
    at = guest.mark(
        f"dmsetup suspend --noflush --nolockfs flaky; "
        f"echo 0 {sectors} flakey /dev/{disk} 0 0 600 1 error_writes | dmsetup load flaky; "
        "dmsetup resume flaky; echo gone >/mnt/flaky/two; sync"
    )
    sees(at, {"filesystem-corrupt", "disk-failing"}, "dm-0", "flaky", disk)


def test_full_file_system(guest, sees):
    disk = guest.attach("small", "virtio-blk-pci")
    guest.run(f"mkfs.ext4 -q -m 0 /dev/{disk} && mkdir /mnt/small && mount /dev/{disk} /mnt/small")
    time.sleep(5.0)
    at = guest.mark("systemd-run --quiet --wait --unit=filler dd if=/dev/zero of=/mnt/small/log bs=64k")
    sees(at, {"disk-full"}, "/mnt/small")


# --- devices and network --------------------------------------------------------------------------------


def test_usb_stick_pulled_while_mounted(guest, sees):
    disk = guest.attach("stick", "usb-storage,bus=usb.0")
    guest.run(f"mkfs.ext4 -q /dev/{disk} && mkdir /mnt/stick && mount /dev/{disk} /mnt/stick")
    guest.run("echo there >/mnt/stick/one && sync")
    time.sleep(5.0)
    guest.detach("stick")
    assert guest.wait(lambda: disk not in guest.disks(), 30.0)
    sees(guest.mark(), {"device-lost"}, disk, "/mnt/stick", "usb")


def test_disk_that_comes_and_stick_that_goes_when_it_is_unmounted_are_no_incident(guest):
    disk, stick = guest.attach("spare", "virtio-blk-pci"), guest.attach("stick", "usb-storage,bus=usb.0")
    for one in (disk, stick):
        guest.run(f"mkfs.ext4 -q /dev/{one} && mount /dev/{one} /mnt && echo there >/mnt/one")
        guest.run(
            f"udevadm trigger --settle /dev/{one} && umount /mnt"
        )  # udev tells of it while it is mounted
    time.sleep(5.0)
    guest.detach("stick")
    assert guest.wait(lambda: stick not in guest.disks(), 30.0)
    time.sleep(SETTLE_S)
    assert [one for one in guest.incidents() if one["severity"] != "info"] == [], guest.log()


def test_cable_pulled(guest, sees):
    assert guest.run("cat /sys/class/net/eth0/carrier").strip() == "1"
    guest.box.monitor("set_link nic off")
    assert guest.wait(lambda: guest.run("cat /sys/class/net/eth0/carrier").strip() == "0", 10.0)
    sees(guest.mark(), {"link-down"}, "eth0")


# --- time -----------------------------------------------------------------------------------------------


def test_clock_set_a_day_ahead(guest, sees):
    at = guest.mark("date -s '+1 day'")
    [culprit] = sees(at, {"clock-jump"}, "")["culprits"][:1]
    assert culprit["kind"] in {"host", "clock"}, culprit


def test_a_quiet_hour_is_recorded_in_less_than_an_hour(tmp_path):
    seen, began = [], time.monotonic()
    quiet.record(tmp_path, 0.5, seen.append, lambda _: time.sleep(10.0))
    took_s = time.monotonic() - began
    found = days.replayed(tmp_path, Settings(str(tmp_path / "state")), {})
    assert seen[-1] == 0.5
    assert found.watched_s > 0.4 * 3600
    assert found.said == []
    assert took_s < 0.5 * 3600


@pytest.mark.timeout(5400)
def test_a_nightly_job_is_not_notified_after_its_third_night(tmp_path):
    """Four nights of a host on which hauswart runs around the hour of the job: by day it is stopped."""
    first_s, lasts_s, before_s, after_s = 1500, 60, 600, 900
    with skipping(tmp_path / "machine") as box:
        box.push(REPORTS.format(first_s=first_s, lasts_s=lasts_s).encode(), "/root/reports.py")
        box.run("systemd-run --quiet --unit=reports python3 /root/reports.py", timeout_s=quiet.ANSWER_S)
        begun = float(box.run(UPTIME, timeout_s=quiet.ANSWER_S))

        def sleep_until(seconds):
            left = int(begun + seconds - float(box.run(UPTIME, timeout_s=quiet.ANSWER_S)))
            box.run(f"sleep {max(0, left)}", timeout_s=max(0, left) + quiet.ANSWER_S)

        def reported():
            found = [
                json.loads(line)
                for line in box.run("hauswart incidents --all --json", timeout_s=quiet.ANSWER_S).splitlines()
            ]
            found = [one for one in found if "reports" in one["culprits"][0]["name"]]
            return sorted(found, key=lambda one: one["opened_at"])

        for night in range(4):
            sleep_until(night * DAY_S + first_s - before_s)
            box.run("systemctl start hauswart.target", timeout_s=quiet.ANSWER_S)
            sleep_until(night * DAY_S + first_s + lasts_s + after_s)
            box.run("systemctl stop hauswart.target", timeout_s=quiet.ANSWER_S)
            assert len(reported()) == night + 1, reported()
        silenced = box.run("hauswart silence list", timeout_s=quiet.ANSWER_S)
        found = reported()
    assert [bool(one["quieted"]) for one in found] == [False, False, False, True], found
    assert {one["state"] for one in found} == {"closed"}, found
    assert "on 3 days" in silenced, silenced
