"""Which programs, units and locks speak for something done on purpose; pure tables and look-ups.

Names of processes are what the kernel keeps of them: 15 characters (TASK_COMM_LEN).
"""

from __future__ import annotations

import re

COMM_LENGTH = 15

_BACKUP = (
    *("rsync", "borg", "borgmatic", "restic", "duplicity", "btrbk", "rclone", "kopia", "bup", "rdiff-backup"),
    *("rsnapshot", "tarsnap", "attic", "duplicacy", "rustic", "vzdump", "snapraid", "burp"),
    *("pg_dump", "pg_dumpall", "pg_basebackup", "mysqldump", "mariadb-dump", "mariabackup", "xtrabackup"),
)
_UPDATE = (
    *("apt", "apt-get", "aptitude", "dpkg", "unattended-upgrade", "dnf", "dnf5", "yum", "microdnf", "rpm"),
    *("zypper", "pacman", "emerge", "apk", "xbps-install", "flatpak", "eopkg", "rpm-ostree", "bootc"),
    *("update-initramfs", "dracut", "mkinitcpio", "depmod", "fwupdmgr", "nix-channel"),
)
_REBUILD = ("nixos-rebuild", "nixos-rebuild-ng", "switch-to-configuration", "nixos-install", "colmena", "nh")
_SCRUB = ("xfs_scrub", "e2scrub", "e2scrub_all", "mdcheck")
_MAINTENANCE = (
    *("logrotate", "updatedb", "updatedb.plocate", "updatedb.mlocate", "mandb", "fstrim", "aide", "aideinit"),
    *(
        "clamscan",
        "freshclam",
        "rkhunter",
        "chkrootkit",
        "nix-collect-garbage",
        "vacuumdb",
        "certbot",
        "e4defrag",
    ),
    *(
        "debsums",
        "popularity-contest",
        "localedef",
        "mlocate",
        "tmpwatch",
        "prelink",
        "smartctl",
        "fsck.ext4",
    ),
)

_COMMS = {
    comm[:COMM_LENGTH]: name
    for name, comms in (
        ("backup", _BACKUP),
        ("update", _UPDATE),
        ("rebuild", _REBUILD),
        ("scrub", _SCRUB),
        ("maintenance-job", _MAINTENANCE),
    )
    for comm in comms
}
# Programs that are a job only with one of these words in their command line.
_ONLY_WITH = {
    "btrfs": (("scrub", "scrub"), ("balance", "maintenance-job"), ("send", "backup")),
    "zfs": (("send", "backup"),),
}
_ONLY_WITH["nix-store"] = (
    ("--gc", "maintenance-job"),
    ("--optimise", "maintenance-job"),
    ("--verify", "scrub"),
)
_ONLY_WITH["nix"] = (("store gc", "maintenance-job"), ("optimise", "maintenance-job"))
# Words that make the same program a server that runs for ever, and no job.
_SERVERS = ("--daemon", "--wait-for-signal", " serve", " mount", "rcd", " daemon", "--listen")

NAMES_TO_READ = frozenset(_COMMS) | frozenset(_ONLY_WITH)

_UNITS = tuple(
    (name, re.compile("|".join(words.split())))
    for name, words in (  # the first that fits; what only sounds like a backup or a scrub comes first
        (
            "maintenance-job",
            "dpkg-db-backup e2scrub_reap nix-gc nix-optimise fstrim logrotate man-db updatedb",
        ),
        ("maintenance-job", "mlocate tmpfiles exim4-base popularity certbot acme lynis sysstat"),
        ("scrub", "scrub mdcheck raid-check snapraid"),
        ("rebuild", "nixos-upgrade nixos-rebuild auto-upgrade"),
        (
            "update",
            "apt-daily apt-news unattended-upgrades dnf- packagekit fwupd-refresh pacman flatpak snapd",
        ),
        (
            "backup",
            "backup borg restic btrbk duplicity rsnapshot sanoid syncoid kopia rclone duplicati snapper",
        ),
    )
)


def job_of_process(comm: str, command: str) -> str:
    """The context that a process speaks for, "" if none."""
    name = _COMMS.get(comm, "")
    for word, special in _ONLY_WITH.get(comm, ()):
        if word in command:
            name = special
            break
    return "" if name and any(word in command for word in _SERVERS) else name


def job_of_unit(unit: str) -> str:
    """The context that a unit started by its timer speaks for; "timer" if its name tells no more."""
    for name, pattern in _UNITS:
        if pattern.search(unit):
            return name
    return "timer"


# Lock files that a package manager holds while it changes the host (found in /proc/locks by inode).
LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/lib/rpm/.rpm.lock",
    "usr/lib/sysimage/rpm/.rpm.lock",
    "lib/apk/db/lock",
)
# Files that exist only while one does.
MARKS = ("var/lib/pacman/db.lck", "run/zypp.pid", "run/nixos/switch-to-configuration.lock")
