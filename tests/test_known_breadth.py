"""Messages of many drivers, file systems, runtimes and servers: the class that each speaks for, or none."""

import pytest

from daemon.messages import Line, Stamp
from daemon.settings import Low
from daemon.tiers.lines import LineJudge

KERNEL = {
    "memory-exhaustion": [
        "XFS: worker(815) possible memory allocation deadlock size 65536 in kmem_alloc",
        "Out of memory and no killable processes...",
        "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
        "SLUB: Unable to allocate memory on node -1, gfp=0xcc0(GFP_KERNEL)",
    ],
    "disk-failing": [
        "timeout error, dev nvme0n1, sector 123 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "BTRFS error (device sda1): bdev /dev/sdb1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
        'XFS (sda1): metadata I/O error in "xfs_buf_ioend+0x12/0x40" at daddr 0x10 len 8 error 5',
        "megaraid_sas 0000:03:00.0: 9 (7s/0x0002/WARN) - Unexpected sense: PD 08(e0x20/s3), Sense: 3/11/00",
        "mpt3sas_cm0: fault_state(0x2623)!",
        "md/raid:md0: not enough operational devices (2/3 failed)",
        "block drbd0: disk( UpToDate -> Failed )",
        "drbd store/0 drbd1: disk( UpToDate -> Failed )",
        "bcache: bch_cached_dev_error() stop bcache0: too many IO errors on backing device sdb",
        "BTRFS warning (device sda1): devid 2 uuid 0815-4711 is missing",
        "zio pool=tank vdev=/dev/sdb1 error=5 type=1 offset=815 size=4096 flags=180880",
        "EXT4-fs (sda1): This should not happen!! Data will be lost",
        "device-mapper: cache: 253:3: aborting current metadata transaction",
        "ata1.00: error: { UNC }",
        "ata1: COMRESET failed (errno=-16)",
        "sd 0:0:0:0: [sda] tag#0 Add. Sense: Unrecovered read error - auto reallocate failed",
        "sd 0:0:0:0: [sda] tag#0 timing out command, waited 180s",
        "nvme0n1: Read(0x2) @ LBA 2048, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) MORE DNR ",
        "md/raid1:md0: sdb1: rescheduling sector 81920",
        "md: super_written gets error=-5",
        "mmcblk0: recovery failed!",
        "megaraid_sas 0000:03:00.0: 5123 (700000000s/0x0002/FATAL) - VD 00/0 is now DEGRADED",
        "WARNING: Pool 'tank' has encountered an uncorrectable I/O failure and has been suspended.",
    ],
    "device-lost": [
        "recoverable transport error, dev sdc, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1",
        "nvme 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible",
        "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up",
        "ata1.00: disabled",
        "nvme nvme0: Disabling device after reset failure: -19",
        "device offline error, dev sdb, sector 1234 op 0x1:(WRITE)",
        "session1: session recovery timed out after 120 secs",
        "block nbd0: Connection timed out",
        "pcieport 0000:00:1d.0: pciehp: Slot(9): Card not present",
        "igb 0000:01:00.0 eth0: PCIe link lost, device now detached",
    ],
    "filesystem-corrupt": [
        "FAT-fs (sdb1): Filesystem has been set read-only",
        "block drbd0: Split-Brain detected but unresolved, dropping connection!",
        "device-mapper: block manager: btree_node validator check failed for block 12",
        "EXT4-fs (sda1): group descriptors corrupted!",
        "JBD2: recovery failed",
        "XFS (dm-1): log mount/recovery failed: error -117",
        "BTRFS: error (device sda1) in btrfs_commit_transaction:2276: errno=-5 IO failure (x)",
        "device-mapper: verity: 253:0: data block 5 is corrupted",
    ],
    "disk-full": [
        "BTRFS: error (device sda1) in btrfs_run_delayed_refs:2215: errno=-28 No space left",
        "device-mapper: snapshots: Invalidating snapshot: Unable to allocate exception.",
    ],
    "hardware-error": [
        "Kernel panic - not syncing: Fatal machine check on current CPU",
        "{1}[Hardware Error]: event severity: fatal",
        "mce: [Hardware Error]: Machine check events logged",
        "pcieport 0000:00:1c.0: AER: device recovery failed",
        "pcieport 0000:00:1c.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer",
        "usb usb1-port3: unable to enumerate USB device",
        "amdgpu 0000:0b:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=123, emitted seq=125",
        "amdgpu 0000:0b:00.0: amdgpu: device lost from bus!",
        "NVRM: Xid (PCI:0000:01:00): 48, pid=815, name=worker, An uncorrectable double bit error",
        "igb 0000:01:00.0 eth0: The network adapter was stopped because it overheated",
        "ixgbe 0000:03:00.0 eth2: initiating reset due to tx timeout",
        "hwmon hwmon1: Undervoltage detected!",
        "ath10k_pci 0000:03:00.0: firmware crashed! (guid n/a)",
        "NMI: PCI system error (SERR) for reason b1 on CPU 0.",
        "pcieport 0000:00:1c.0: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0",
        "Memory failure: 0x12345: Sending SIGBUS to worker:815 due to hardware memory corruption",
        "usb usb1-port1: over-current condition",
    ],
    "link-down": [
        "atlantic 0000:06:00.0 enp6s0: atlantic: link change old 1000 new 0",
        "tg3 0000:03:00.0 eth0: Link is down",
        "bond0: now running without any active interface!",
        "bond0: link status definitely down for interface eth1, disabling it",
    ],
    "inode-exhaustion": [
        "EXT4-fs warning (device sda1): ext4_dx_add_entry:2461: Directory (ino: 815) index full, reach max",
    ],
    "packet-loss": ["Route cache is full: consider increasing sysctl net.ipv6.route.max_size."],
    "config-error": [
        "iwlwifi 0000:00:14.3: no suitable firmware found!",
        "NVRM: API mismatch: the client has the version 535.183.01, but this kernel module has",
    ],
    "cpu-saturation": ["sched: RT throttling activated"],
    "service-crash": [
        "NVRM: Xid (PCI:0000:01:00): 31, pid=815, name=worker, Ch 00000008, intr 00000000. MMU Fault",
        'audit: type=1701 audit(1.0:31): uid=0 pid=815 comm="worker" exe="/usr/bin/worker" sig=6 res=1',
    ],
    "dependency-failed": [
        "nvme nvme1: Failed reconnect attempt 5",
        "CIFS: VFS: \\\\nas has not responded in 180 seconds. Reconnecting...",
        "drbd store node2: conn( Connected -> NetworkFailure ) peer( Secondary -> Unknown )",
        "CIFS: VFS: Error connecting to socket. Aborting operation.",
        "lockd: server files.example not responding, still trying",
    ],
    "": [  # what is said on any healthy host
        "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
        "ata2: SATA link down (SStatus 0 SControl 300)",
        "ata1.00: error: { ABRT }",
        "EXT4-fs (sda1): recovery complete",
        "EXT4-fs (sdb): VFS: Can't find ext4 filesystem",
        "sd 6:0:0:0: [sdc] Synchronizing SCSI cache",
        "sd 6:0:0:0: [sdc] Synchronize Cache(10) failed: Result: hostbyte=DID_ERROR driverbyte=DRIVER_OK",
        "bond0: (slave eth1): link status definitely up, 1000 Mbps full duplex",
        "BTRFS info (device sda1): using crc32c (crc32c-intel) checksum algorithm",
        "workqueue: vmstat_update hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
        "FAT-fs (sdb1): Volume was not properly unmounted. Some data may be corrupt. Please run fsck.",
        "block nbd0: shutting down sockets",
        "i915 0000:00:02.0: [drm] *ERROR* CPU pipe A FIFO underrun",
        "cfg80211: failed to load regulatory.db",
        "pcieport 0000:00:1c.0: pciehp: Slot(9): Powering off due to button press",
    ],
}
PROGRAMS = {
    "memory-exhaustion": [
        (
            "systemd-oomd",
            "Killed /system.slice/app.service due to memory pressure for /user.slice being 60.05%",
        ),
        ("earlyoom", 'sending SIGTERM to process 3456 uid 1000 "chrome": badness 1000, VmRSS 2048 MiB'),
        ("redis-server", "Can't save in background: fork: Cannot allocate memory"),
        ("app", "memory allocation of 1073741824 bytes failed"),
    ],
    "connection-flood": [
        ("sshd", "drop connection #10 from [203.0.113.7]:40222 on [192.0.2.1]:22 past MaxStartups"),
        ("postgres", "FATAL:  remaining connection slots are reserved for superusers"),
        ("php-fpm8.2", "WARNING: [pool www] server reached pm.max_children setting (5), consider raising it"),
        ("haproxy", "Proxy web reached the configured maximum connection limit."),
    ],
    "service-crash": [
        ("gunicorn", "Worker (pid:815) was sent SIGKILL! Perhaps out of memory?"),
        ("php-fpm8.2", "WARNING: [pool www] child 815 exited on signal 11 (SIGSEGV - core dumped) after 3 s"),
        ("mariadbd", "[ERROR] mysqld got signal 6 ;"),
        ("app", "free(): invalid pointer"),
        ("app", 'Exception in thread "main" java.lang.NullPointerException'),
    ],
    "filesystem-corrupt": [
        ("mount", "mount: /srv: wrong fs type, bad option, bad superblock on /dev/loop7, missing codepage"),
        ("systemd-fsck", "/dev/sda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY."),
    ],
    "link-down": [
        (
            "NetworkManager",
            "device (eth0): state change: activated -> unavailable (reason 'carrier-changed')",
        ),
        ("systemd-networkd", "eth0: DHCPv4 lease lost"),
    ],
    "hardware-error": [("upsmon", "UPS ups@localhost on battery")],
    "": [
        ("app", "UPS ups@localhost on battery"),  # only who watches it may say so
        ("app", "Killed /system.slice/other.service due to memory pressure"),
        ("postgres", "LOG:  checkpoint complete: wrote 3 buffers"),
        ("NetworkManager", "device (eth0): state change: secondaries -> activated (reason 'none')"),
        ("app", "freeing the invalid cache"),
        ("gunicorn", "[ERROR] Worker (pid:815) was sent SIGTERM!"),  # at each stop
    ],
}


def spoken(**line):
    """The class that the first known message of a line speaks for."""
    line = {"at": Stamp("b1", 1e8, 1e9), "uid": 0, "priority": 4} | line
    found = [one for one in LineJudge(Low()).judge(Line(**line), 1e9) if one.rule.startswith("known.")]
    hints = found[0].hints if found else {}
    return max(hints, key=hints.get).value if hints else ""


@pytest.mark.parametrize(("fault", "text"), [(fault, text) for fault in KERNEL for text in KERNEL[fault]])
def test_message_of_the_kernel_speaks_for_its_class(fault, text):
    assert spoken(source="kernel", text=text, identifier="kernel", pid=0) == fault


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in PROGRAMS for one in PROGRAMS[fault]]
)
def test_message_of_a_program_speaks_for_its_class(fault, program, text):
    unit = f"{program}.service"
    assert spoken(source="journal", text=text, unit=unit, identifier=program, pid=42) == fault


def test_unit_that_the_service_managers_killer_hit_lacked_memory():
    text = "app.service: systemd-oomd killed 3 process(es) in this unit."
    manager = {"unit": "init.scope", "identifier": "systemd", "pid": 1, "subject_unit": "app.service"}
    assert spoken(source="journal", text=text, **manager) == "memory-exhaustion"


def test_checker_that_fails_speaks_of_the_file_system_and_not_of_a_crash():
    unit = "systemd-fsck@dev-sda1.service"
    manager = {"unit": "init.scope", "identifier": "systemd", "pid": 1, "subject_unit": unit}
    text = f"{unit}: Failed with result 'exit-code'."
    assert spoken(source="journal", text=text, **manager) == "filesystem-corrupt"
