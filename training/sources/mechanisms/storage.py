"""Mechanisms of file systems, disks, devices and hardware."""

# ruff: noqa: D103, E501 - a mechanism's name says it; log lines are quoted whole; no SQL runs here

from __future__ import annotations

from models.taxonomy import FaultClass as F
from models.taxonomy import Severity
from training.sources.hosts import Mount
from training.sources.mechanisms.registry import mechanism
from training.sources.symptoms import (
    KERNEL,
    Cause,
    Course,
    Happened,
    Pieces,
    Said,
    Scene,
    Shown,
    Who,
    busy_disk,
    culprits,
    full_mount,
    no_space,
    ramp,
    says,
    step,
    unit,
)

W, E, C = Severity.WARNING, Severity.ERROR, Severity.CRITICAL


def kernel(s: Scene, *texts: str, times: int = 1, priority: int = 3) -> Pieces:
    """The kernel says one of these, some times."""
    gap = s.span(0.2, 2.0)
    return [Said(n * gap, KERNEL, s.of(*texts), priority) for n in range(times)]


def disk(mount: Mount) -> tuple[Who, ...]:
    """A disk as a culprit, under any of its names."""
    return culprits(("device", mount.disk), ("device", mount.part), ("mount", mount.path))


# --- full -------------------------------------------------------------------------------------------------


@mechanism(F.DISK_FULL, 2.0)
def log_writer(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    growth = [*full_mount(s, m, over_s=s.span(4, 25)), Shown(s.host.process(it, io=s.span(2e7, 3e8)))]
    return Cause(C, culprits(("mount", m.path)), [growth, no_space(s, it, m.path)], (it,), m.path)


@mechanism(F.DISK_FULL)
def full_since_long(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    slow = full_mount(s, m, over_s=2.0, top=s.span(0.985, 0.999))
    return Cause(E, culprits(("mount", m.path)), [no_space(s, it, m.path), slow], (it,), m.path)


@mechanism(F.DISK_FULL)
def quota(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(
        s,
        it,
        f"cannot write spool file {m.path}/spool: Disk quota exceeded",
        f"rename {m.path}/x.tmp: disk quota exceeded",
        times=4,
    )
    return Cause(E, (*culprits(("mount", m.path)), *unit(it)), [words], (it,), m.path)


@mechanism(F.DISK_FULL)
def thin_pool(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    pool = kernel(
        s,
        "device-mapper: thin: 253:4: switching pool to out-of-data-space (queue IO) mode",
        f"critical space allocation error, dev {m.disk}, sector 81920 op 0x1:(WRITE)",
        times=2,
    )
    return Cause(C, disk(m), [pool, no_space(s, it, m.path)], (it,), m.path)


@mechanism(F.DISK_FULL)
def images_pile_up(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(
        s,
        it,
        "failed to register layer: write /usr/lib/x.so: no space left on device",
        "copy failed: error creating overlay mount: no space left on device",
        times=2,
    )
    return Cause(C, culprits(("mount", m.path)), [full_mount(s, m, over_s=12.0), words], (it,), m.path)


@mechanism(F.DISK_FULL)
def metadata_space(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(
        s, it, "ENOSPC: no space left on device, write", "sqlite3: database or disk is full", times=3
    )
    info: Pieces = [
        Said(0.0, KERNEL, f"BTRFS info (device {m.part}): space_info METADATA has 0 free, is full", 6)
    ]
    top = full_mount(s, m, over_s=3.0, top=s.span(0.97, 0.99))
    return Cause(E, culprits(("mount", m.path), ("device", m.part)), [words, top, info], (it,), m.path)


# --- inodes -----------------------------------------------------------------------------------------------


def inodes(s: Scene, m: Mount, over_s: float) -> Pieces:
    """Inodes run out."""
    return [ramp(f"fs.inodes_used{{{m.path}}}", s.span(0.7, 0.9), s.span(0.996, 1.0), over_s)]


@mechanism(F.INODE_EXHAUSTION)
def session_files(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    return Cause(
        C, culprits(("mount", m.path)), [inodes(s, m, s.span(3, 15)), no_space(s, it, m.path)], (it,), m.path
    )


@mechanism(F.INODE_EXHAUSTION)
def mail_spool(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(
        s,
        it,
        f"warning: create file {m.path}/maildrop/8F2: No space left on device",
        "queue file write error",
        times=4,
    )
    return Cause(C, culprits(("mount", m.path)), [words, inodes(s, m, 6.0)], (it,), m.path)


@mechanism(F.INODE_EXHAUSTION)
def thumbnail_cache(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(
        s, it, f"mkdir {m.path}/cache/ab/cd: no space left on device", "cannot create temp file", times=2
    )
    return Cause(E, culprits(("mount", m.path)), [inodes(s, m, 10.0), words], (it,), m.path)


# --- failing disks ----------------------------------------------------------------------------------------


@mechanism(F.DISK_FAILING, 2.0)
def medium_errors(s: Scene) -> Cause:
    m = s.mount()
    sector = s.random.randrange(1000, 9_000_000)
    lines = kernel(
        s,
        f"critical medium error, dev {m.disk}, sector {sector} op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
        f"I/O error, dev {m.disk}, sector {sector} op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        times=3,
    )
    return Cause(
        E, disk(m), [lines, [step(f"disk.io_errors{{{m.disk}}}", 2.0)], busy_disk(s, m.disk)], place=m.disk
    )


@mechanism(F.DISK_FAILING)
def smart_tells(s: Scene) -> Cause:
    m = s.mount()
    text = s.of(
        f"Device: /dev/{m.disk} [SAT], {s.random.randrange(1, 90)} Currently unreadable (pending) sectors",
        f"Device: /dev/{m.disk} [SAT], FAILED SMART self-check. BACK UP DATA NOW!",
    )
    said: Pieces = [Said(0.0, "smartd", text, 2)]
    return Cause(E, disk(m), [said, [step(f"disk.smart_failing{{{m.disk}}}", 1.0)]], place=m.disk)


@mechanism(F.DISK_FAILING)
def mirror_degraded(s: Scene) -> Cause:
    m = s.mount()
    lines = kernel(s, f"md/raid1:md0: Disk failure on {m.part}, disabling device.")
    event: Pieces = [
        Said(0.5, "mdadm", f"Fail event detected on md device /dev/md0, component device /dev/{m.part}", 3)
    ]
    who = (*disk(m), *culprits(("device", "md0")))
    return Cause(E, who, [lines, event, [step("array.degraded{md0}", 1.0)]], place=m.disk)


@mechanism(F.DISK_FAILING)
def controller_times_out(s: Scene) -> Cause:
    m = s.mount()
    name = m.disk if m.disk.startswith("nvme") else "nvme0n1"
    lines = kernel(s, f"nvme {name[:5]}: I/O {s.random.randrange(99)} QID 3 timeout, aborting", times=3)
    down = kernel(s, f"nvme {name[:5]}: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10")
    who = culprits(("device", name), ("device", name[:5]))
    return Cause(E, who, [lines, down, busy_disk(s, s.host.disks[0])], place=name)


@mechanism(F.DISK_FAILING)
def cable_errors(s: Scene) -> Cause:
    m, port = s.mount(), f"ata{s.random.randrange(1, 6)}"
    lines = kernel(s, f"{port}.00: exception Emask 0x10 SAct 0x0 SErr 0x0 action 0x6 frozen", times=2)
    block = kernel(
        s, f"I/O error, dev {m.disk}, sector 2048 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2", times=2
    )
    return Cause(
        E, (*disk(m), *culprits(("device", f"{port}.00"), ("device", port))), [lines, block], place=m.disk
    )


@mechanism(F.DISK_FAILING)
def reads_of_programs_fail(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    words = says(s, it, f'could not read block 12 in file "{m.path}/base/1": Input/output error', times=3)
    lines = kernel(s, f"Buffer I/O error on dev {m.part}, logical block 256, async page read", times=2)
    return Cause(E, disk(m), [lines, words, [step(f"disk.io_errors{{{m.disk}}}", 1.0)]], (it,), m.disk)


# --- damaged file systems ---------------------------------------------------------------------------------


def read_only(m: Mount) -> Pieces:
    """A file system turns read-only."""
    return [Course(f"fs.readonly{{{m.path}}}", ((0.0, 0.0), (0.1, 1.0)))]


@mechanism(F.FILESYSTEM_CORRUPT)
def ext4_damaged(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(
        s,
        f"EXT4-fs error (device {m.part}): ext4_lookup:1855: inode #2: comm {it.program}: deleted inode referenced: 12",
        f"EXT4-fs error (device {m.part}): ext4_find_entry:1455: inode #8: comm ls: reading directory lblock 0",
        times=2,
    )
    words = says(s, it, f"open {m.path}/x failed: Read-only file system", times=2)
    ro = [*kernel(s, f"EXT4-fs ({m.part}): Remounting filesystem read-only", priority=2), *read_only(m)]
    return Cause(C, disk(m), [lines, ro, words], (it,), m.path)


@mechanism(F.FILESYSTEM_CORRUPT)
def xfs_damaged(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(
        s,
        f"XFS ({m.part}): Metadata corruption detected at xfs_agf_read_verify+0x70/0x100, xfs_agf block 0x1",
    )
    down = kernel(s, f"XFS ({m.part}): Please unmount the filesystem and rectify the problem(s)")
    return Cause(C, disk(m), [lines, down], (it,), m.path)


@mechanism(F.FILESYSTEM_CORRUPT)
def checksums_differ(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(
        s,
        f"BTRFS warning (device {m.part}): csum failed root 5 ino 257 off 0 csum 0x8941f998 expected csum 0x98f94189 mirror 1",
        times=3,
    )
    return Cause(
        E,
        disk(m),
        [lines, says(s, it, "page verification failed, calculated checksum 1 but expected 2")],
        (it,),
        m.path,
    )


@mechanism(F.FILESYSTEM_CORRUPT)
def journal_aborted(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(s, f"Aborting journal on device {m.part}-8.", priority=2)
    words = says(
        s, it, f"unlink {m.path}/lock: Read-only file system", "mkdir: Read-only file system", times=3
    )
    return Cause(C, disk(m), [lines, read_only(m), words], (it,), m.path)


# --- hardware ---------------------------------------------------------------------------------------------


@mechanism(F.HARDWARE_ERROR)
def machine_check(s: Scene) -> Cause:
    lines = kernel(
        s, f"mce: [Hardware Error]: CPU {s.random.randrange(8)}: Machine Check: 0 Bank 5: bea0000000000108"
    )
    return Cause(E, (), [lines])


@mechanism(F.HARDWARE_ERROR)
def memory_corrected(s: Scene) -> Cause:
    text = f"EDAC MC0: {s.random.randrange(1, 9)} CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0)"
    return Cause(W, (), [kernel(s, text, times=3, priority=4)])


@mechanism(F.HARDWARE_ERROR)
def too_hot(s: Scene) -> Cause:
    hot: Pieces = [ramp("temp.critical{cpu}", 0.7, s.span(0.97, 1.02), 5.0), step("temp.celsius{cpu}", 98.0)]
    said = kernel(
        s, "CPU1: Core temperature above threshold, cpu clock throttled (total events = 12)", priority=2
    )
    return Cause(C, culprits(("sensor", "cpu"), ("device", "CPU1")), [hot, said])


@mechanism(F.HARDWARE_ERROR)
def bus_errors(s: Scene) -> Cause:
    slot = f"0000:00:1c.{s.random.randrange(8)}"
    text = f"pcieport {slot}: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, (Requester ID)"
    return Cause(W, culprits(("device", slot)), [kernel(s, text, times=3)])


@mechanism(F.HARDWARE_ERROR)
def graphics_hang(s: Scene) -> Cause:
    text = "i915 0000:00:02.0: [drm] GPU HANG: ecode 9:1:85dffffb, in compositor [815]"
    who = culprits(("device", "0000:00:02.0"), ("device", "i915"), ("process", "compositor"))
    return Cause(E, who, [kernel(s, text, times=2)])


# --- devices that go --------------------------------------------------------------------------------------


def removed(name: str, mount: str) -> Pieces:
    """A block device is removed while it is in use."""
    attributes = (("subsystem", "block"), ("devtype", "disk"), ("mounts", mount))
    return [Happened(0.0, "device", f"/devices/x/block/{name}", "remove", attributes)]


@mechanism(F.DEVICE_LOST)
def usb_disk_pulled(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    said = kernel(s, f"usb 1-1.{s.random.randrange(1, 5)}: USB disconnect, device number 5", priority=6)
    errors = kernel(
        s, f"I/O error, dev {m.disk}, sector 2048 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2", times=3
    )
    return Cause(E, disk(m), [removed(m.disk, m.path), said, errors], (it,), m.disk)


@mechanism(F.DEVICE_LOST)
def disk_goes_offline(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(s, f"sd 2:0:0:0: [{m.disk}] rejecting I/O to offline device", times=3)
    return Cause(C, disk(m), [lines, removed(m.disk, m.path)], (it,), m.disk)


@mechanism(F.DEVICE_LOST)
def host_controller_died(s: Scene) -> Cause:
    slot = "0000:00:14.0"
    lines = kernel(
        s,
        f"xhci_hcd {slot}: xHCI host controller not responding, assume dead",
        f"xhci_hcd {slot}: HC died; cleaning up",
    )
    lines += kernel(s, f"xhci_hcd {slot}: HC died; cleaning up")
    return Cause(
        E,
        culprits(("device", slot), ("device", "xhci_hcd")),
        [lines, kernel(s, "usb 1-2: USB disconnect, device number 3", priority=6)],
    )


@mechanism(F.DEVICE_LOST)
def disk_not_found_again(s: Scene) -> Cause:
    m, it = s.mount(), s.service()
    lines = kernel(s, "ata2.00: revalidation failed (errno=-5)", times=2)
    lines += kernel(s, "ata2.00: disable device", "ata2.00: disabled")
    who = (*disk(m), *culprits(("device", "ata2.00"), ("device", "ata2")))
    return Cause(E, who, [lines, removed(m.disk, m.path)], (it,), m.disk)
