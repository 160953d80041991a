"""The disk image that the lab's virtual machine starts from: Debian 12, systemd, a full kernel, no hauswart.

Built once and kept in the cache, under a name made of what it was built from. The guest's own Python installs
the packages that hauswart runs on; hauswart itself comes later (`tests.lab.machine`), since it changes often.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import PROJECT, digest, kept, run

GUEST = Path(__file__).with_name("guest.py")
SUITE = "bookworm"
PYTHON = (3, 11)  # what the suite has; the packages are made with this Python and installed by the guest's
KERNEL = "linux-image-amd64"  # the cloud kernel lacks dm-flakey, scsi_debug and USB
PACKAGES = (
    KERNEL,
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "iproute2", "initramfs-tools", "zstd"),
    *("e2fsprogs", "dmsetup", "stress-ng", "curl", "python3", "python3-venv"),
    *("nftables", "util-linux-extra", "cron", "logrotate"),  # hwclock is in the extra ones
)
SIZE = "4G"  # of the file system; the file has holes
VENV = "/opt/hauswart"
_NEEDED = ("mmdebstrap", "mke2fs", "apt-cache", "chroot", "unshare", "setpriv")
# What is started like this has mounts of its own, and ends with this process however that ends.
_APART = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)

# Nobody logs in at a console; jobs by the calendar would start after a restore or not, as the date falls.
_MASKED = (
    *("getty.target", "getty@tty1.service", "serial-getty@ttyS0.service", "e2scrub_reap.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    "fstrim.timer",
)
_FILES = {
    "etc/hostname": "hauswart-lab\n",
    "etc/fstab": "",
    "etc/machine-id": "uninitialized\n",
    "etc/systemd/network/wired.network": "[Match]\nName=eth*\n[Network]\nDHCP=yes\n",
    "etc/systemd/system/lab-guest.service": """[Unit]
Description=runs what the lab asks for
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/lab-guest.py
Restart=always
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
""",
}
# Only what the root file system needs: unpacking more takes a while where every instruction is emulated.
_INITRAMFS = {
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=zstd\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n",
}


@dataclass(frozen=True)
class Image:
    """A root file system (raw), and the kernel and initial disk that start it; none is ever written to."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def build(self) -> str:
        """Another one for each build: what lies above a disk fits only the one that it was made on."""
        return (self.folder / "build").read_text()

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"


def obstacle() -> str:
    """Why no image can be built here, or ""."""
    if os.geteuid() != 0:
        return "root"
    absent = [name for name in _NEEDED if shutil.which(name, path=_path()) is None]
    if sys.version_info[:2] != PYTHON:  # whoever runs this makes the packages
        absent.append(f"Python {PYTHON[0]}.{PYTHON[1]}, the guest's")
    return ", ".join(absent)


def image() -> Image:
    """The image, built if it is not there; raises LabError. Takes minutes the first time."""
    return Image(kept("image", _key(), _build))


def requirements() -> list[str]:
    """What hauswart needs at run time."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]


def _key() -> str:
    shown = run("apt-cache", "show", "--no-all-versions", KERNEL)
    version = next((line for line in shown.splitlines() if line.startswith("Version:")), "")
    wanted = [*PACKAGES, *requirements(), version]
    return digest("\n".join(wanted).encode(), Path(__file__).read_bytes(), GUEST.read_bytes())


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _build(folder: Path) -> None:
    root, given = folder / "root", folder / "given"
    for path, text in _INITRAMFS.items():
        (given / path).parent.mkdir(parents=True, exist_ok=True)
        (given / path).write_text(text)
    leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    run(
        *_APART,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *leave_out,
        f'--essential-hook=cp -r {shlex.quote(str(given))}/etc "$1/"',
        SUITE,
        str(root),
        env={**os.environ, "PATH": _path()},
    )
    _install_packages(root, folder / "wheels")
    _configure(root)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(next((root / "boot").glob(f"{name}-*")), folder / name)
    run(
        *("mke2fs", "-q", "-t", "ext4", "-m", "1", "-d", str(root), str(folder / "disk.raw"), SIZE),
        env={"PATH": _path()},
    )
    (folder / "build").write_text(uuid.uuid4().hex)
    for spent in (root, given, folder / "wheels"):
        shutil.rmtree(spent)


def _install_packages(root: Path, wheels: Path) -> None:
    """The README's way, but what hauswart needs is fetched here: the guest has no network."""
    wheels.mkdir()
    constraints = ("--constraint", str(PROJECT / "constraints.txt"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    run(*pip, *constraints, "--wheel-dir", str(wheels), *requirements())
    shutil.copytree(wheels, root / "wheels")
    _run_in(root, "python3", "-m", "venv", VENV)
    offline = ("--quiet", "--no-index", "--find-links", "/wheels")
    _run_in(root, f"{VENV}/bin/pip", "install", *offline, *requirements())
    shutil.rmtree(root / "wheels")


def _run_in(root: Path, *argv: str) -> None:
    environment = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    run("chroot", str(root), *argv, env=environment)


def _configure(root: Path) -> None:
    for path, text in _FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    shutil.copyfile(GUEST, root / "usr/local/lib/lab-guest.py")
    _run_in(root, "systemctl", "--quiet", "mask", *_MASKED)
    _run_in(root, "systemctl", "--quiet", "enable", "lab-guest.service", "systemd-networkd.service")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
