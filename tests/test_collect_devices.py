"""Device collector on recorded trees and, in the lab, on a real loop device with and without a real udevd."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.clock import now
from daemon.collectors.devices import MAX_EVENTS, RENEW_S, DeviceCollector

UDEVD = shutil.which("systemd-udevd", path="/lib/systemd:/usr/lib/systemd")


@pytest.fixture
def tree(tmp_path):
    proc, sys_ = tmp_path / "proc", tmp_path / "sys"
    (proc / "1").mkdir(parents=True)
    (proc / "1/mountinfo").write_text(
        "22 1 8:2 / / rw - ext4 /dev/sda2 rw\n"
        "23 22 8:18 / /srv/photos rw shared:1 - xfs /dev/sdb1 rw\n"
        "24 22 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw\n"
        "broken line\n"
    )
    (proc / "swaps").write_text("Filename Type Size Used Priority\n/dev/sdc1 partition 1 0 -2\n")
    (proc / "mdstat").write_text(
        "Personalities : [raid1]\nmd0 : active raid1 sde1[1] sdd1[0]\n      1 blocks [2/2]\n"
    )
    for name, size in (("sda", "100"), ("sdb", "2048"), ("dm-0", "x")):
        (sys_ / "class/block" / name / "device").mkdir(parents=True)
        (sys_ / "class/block" / name / "size").write_text(size + "\n")
    (sys_ / "class/block/sdb/device/model").write_text("Old\x1bDisk   \n")
    (sys_ / "class/block/sda/holders/dm-0").mkdir(parents=True)
    return DeviceCollector(proc, sys_, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("sdb", {"in_use": "mounted", "mount": "/srv/photos", "mounts_count": "1"}),
        ("sdb1", {"in_use": "mounted", "mount": "/srv/photos", "mounts_count": "1"}),
        ("nvme0n1", {"in_use": "mounted", "mount": "/data", "mounts_count": "1"}),
        ("nvme0n2", {}),
        ("sdc", {"in_use": "swap"}),
        ("sdd", {"in_use": "md", "array": "md0"}),
        ("sdz", {}),
        ("sd", {}),
    ],
)
def test_use_of_a_device_is_told(tree, name, use):
    assert tree._use(name) == use


def removal_of(tree, name):
    removed = SimpleNamespace(
        sys_name=name,
        subsystem="block",
        device_type="disk",
        device_path=f"/devices/x/block/{name}",
        properties={},
    )
    return tree._describe(removed, "remove")


def test_device_that_was_unmounted_before_it_goes_was_not_in_use(tree):
    tree._remember("sdb", tree._use("sdb") | {"model": "Old Disk"}, "change")
    (tree._proc / "1/mountinfo").write_text("22 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
    tree.read(now())
    assert removal_of(tree, "sdb").keys() & {"in_use", "mount", "mounts_count"} == set()
    assert tree.interval_s == RENEW_S


def test_device_that_is_unmounted_because_it_went_was_in_use(tree):
    tree._remember("sdb", tree._use("sdb"), "change")
    tree.read(now())
    (tree._proc / "1/mountinfo").write_text("")
    assert removal_of(tree, "sdb")["mount"] == "/srv/photos"


def test_what_a_usb_device_is_for_is_told(tree):
    removed = SimpleNamespace(
        sys_name="3-1",
        subsystem="usb",
        device_type="usb_device",
        device_path="/devices/pci/usb3/3-1",
        properties={"ID_USB_INTERFACES": ":030000:"},
    )
    assert tree._describe(removed, "remove")["interfaces"] == ":030000:"


def test_a_device_under_another_is_held(tree):
    (tree._proc / "1/mountinfo").write_text("")
    assert tree._use("sda") == {"in_use": "held", "holder": "dm-0"}


def test_present_devices_are_remembered_escaped(tree):
    tree._remember_present()
    assert tree._known["sdb"] == {
        "subsystem": "block",
        "model": "Old\\x1bDisk",
        "size_bytes": str(2048 * 512),
    }
    assert "size_bytes" not in tree._known["dm-0"]


# --- the lab --------------------------------------------------------------------------------------------


def in_namespace(udevd):
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or (udevd and UDEVD is None):
        pytest.skip("needs root, loop devices and systemd-udevd")
    start = (
        f"{UDEVD} & for i in $(seq 100); do [ -S /run/udev/control ] && break; sleep 0.02; done; "
        if udevd
        else ""
    )
    script = f'mount -t tmpfs t /run -o mode=755; mkdir -p /run/udev; {start}"$@"'
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*unshare, "bash", "-c", script, "_", sys.executable, __file__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    if "unshare failed" in done.stderr or "losetup" in done.stderr:
        pytest.skip(f"not possible here: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.lab
@pytest.mark.parametrize("udevd", [False, True])
def test_a_mounted_disk_that_goes_says_where_it_was_mounted(udevd):
    result = in_namespace(udevd)
    assert result["origin"] == ("udev" if udevd else "kernel")
    assert result["removed"]["in_use"] == "mounted"
    assert result["removed"]["size_bytes"] == str(8 << 20)
    assert result["removed"]["mount"].endswith("/mount")
    assert result["largest_read"] <= MAX_EVENTS + 1
    assert result["flood"] > 0
    assert result["errors"] == 0
    assert result["cpu_s"] < 5


def drain(collector, seconds):
    reads, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        reads.append(collector.read(now()))
        if not collector.pending():
            select.select([collector.fileno()], [], [], 0.1)
    return reads


def inside():
    scratch = Path(tempfile.mkdtemp())
    image = scratch / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    (scratch / "mount").mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    collector = DeviceCollector()
    origin = collector.open()[0].attributes["origin"]
    made = subprocess.run(["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True)
    loop = made.stdout.strip()
    try:
        subprocess.run(["mount", loop, str(scratch / "mount")], check=True)
        drain(collector, 0.5)
        knob = Path("/sys/block") / Path(loop).name / "uevent"
        knob.write_text("remove")
        events = [event for read in drain(collector, 0.5) for event in read]
        removed = next(event for event in events if event.action == "remove")
        with knob.open("w") as file:
            for _ in range(5000):
                file.write("change")
                file.flush()
                file.seek(0)
        started = time.process_time()
        reads = drain(collector, 1.0)
    finally:
        subprocess.run(["umount", loop], check=False)
        subprocess.run(["losetup", "-d", loop], check=True)
        shutil.rmtree(scratch)
    return {
        "origin": origin,
        "removed": removed.attributes,
        "largest_read": max(map(len, reads)),
        "flood": sum(int(event.attributes.get("times", 1)) for read in reads for event in read),
        "errors": sum(event.action == "error" for read in reads for event in read),
        "cpu_s": time.process_time() - started,
    }


if __name__ == "__main__":
    print(json.dumps(inside()))
