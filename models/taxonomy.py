"""Fault classes, categories, severities and culprit kinds (taxonomy, version 1).

The words here are the words on the wire, in the store, in Nix options and on the screen.
"""

from __future__ import annotations

from enum import StrEnum

TAXONOMY_VERSION = 1


class Severity(StrEnum):
    """How bad it is; kernel levels 0-2 are critical, 3 error, 4 warning, 5-7 info."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 3 for critical, so that severities can be compared."""
        return _SEVERITY_ORDER.index(self)

    @classmethod
    def of_priority(cls, priority: int) -> Severity:
        """Severity of a syslog priority 0 (emergency) to 7 (debug)."""
        return cls.CRITICAL if priority <= 2 else _PRIORITY.get(priority, cls.INFO)


_SEVERITY_ORDER = (Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL)
_PRIORITY = {3: Severity.ERROR, 4: Severity.WARNING}


class Category(StrEnum):
    """What a finding is about."""

    RESOURCE = "resource"
    STORAGE = "storage"
    HARDWARE = "hardware"
    NETWORK = "network"
    SERVICE = "service"
    SECURITY = "security"
    TIME = "time"
    KERNEL = "kernel"
    BENIGN = "benign"
    UNKNOWN = "unknown"


class FaultClass(StrEnum):
    """What is wrong with the host; the benign classes say what it was doing on purpose."""

    CPU_SATURATION = "cpu-saturation"
    MEMORY_EXHAUSTION = "memory-exhaustion"
    DISK_FULL = "disk-full"
    INODE_EXHAUSTION = "inode-exhaustion"
    FD_EXHAUSTION = "fd-exhaustion"
    PROCESS_STORM = "process-storm"
    IO_SATURATION = "io-saturation"
    DISK_FAILING = "disk-failing"
    FILESYSTEM_CORRUPT = "filesystem-corrupt"
    HARDWARE_ERROR = "hardware-error"
    DEVICE_LOST = "device-lost"
    LINK_DOWN = "link-down"
    PACKET_LOSS = "packet-loss"
    NAME_RESOLUTION = "name-resolution"
    CONNECTION_FLOOD = "connection-flood"
    SERVICE_CRASH = "service-crash"
    CRASH_LOOP = "crash-loop"
    SERVICE_HUNG = "service-hung"
    CONFIG_ERROR = "config-error"
    DEPENDENCY_FAILED = "dependency-failed"
    AUTH_BRUTEFORCE = "auth-bruteforce"
    PRIVILEGE_MISUSE = "privilege-misuse"
    CLOCK_JUMP = "clock-jump"
    KERNEL_BUG = "kernel-bug"
    CERTIFICATE_EXPIRED = "certificate-expired"
    BOOT = "boot"
    BACKUP = "backup"
    UPDATE = "update"
    REBUILD = "rebuild"
    SCRUB = "scrub"
    MAINTENANCE_JOB = "maintenance-job"
    HEAVY_BUT_NORMAL_LOAD = "heavy-but-normal-load"
    UNKNOWN = "unknown"

    @property
    def benign(self) -> bool:
        """Whether the class names something done on purpose."""
        return self in BENIGN_CLASSES

    @property
    def category(self) -> Category:
        """The category that findings of this class carry."""
        return _CATEGORY_OF[self]


BENIGN_CLASSES = frozenset(
    {
        FaultClass.BOOT,
        FaultClass.BACKUP,
        FaultClass.UPDATE,
        FaultClass.REBUILD,
        FaultClass.SCRUB,
        FaultClass.MAINTENANCE_JOB,
        FaultClass.HEAVY_BUT_NORMAL_LOAD,
    }
)

_MEMBERS: dict[Category, tuple[FaultClass, ...]] = {
    Category.RESOURCE: (
        FaultClass.CPU_SATURATION,
        FaultClass.MEMORY_EXHAUSTION,
        FaultClass.FD_EXHAUSTION,
        FaultClass.PROCESS_STORM,
        FaultClass.IO_SATURATION,
    ),
    Category.STORAGE: (
        FaultClass.DISK_FULL,
        FaultClass.INODE_EXHAUSTION,
        FaultClass.DISK_FAILING,
        FaultClass.FILESYSTEM_CORRUPT,
    ),
    Category.HARDWARE: (FaultClass.HARDWARE_ERROR, FaultClass.DEVICE_LOST),
    Category.NETWORK: (
        FaultClass.LINK_DOWN,
        FaultClass.PACKET_LOSS,
        FaultClass.NAME_RESOLUTION,
        FaultClass.CONNECTION_FLOOD,
    ),
    Category.SERVICE: (
        FaultClass.SERVICE_CRASH,
        FaultClass.CRASH_LOOP,
        FaultClass.SERVICE_HUNG,
        FaultClass.CONFIG_ERROR,
        FaultClass.DEPENDENCY_FAILED,
        FaultClass.CERTIFICATE_EXPIRED,
    ),
    Category.SECURITY: (FaultClass.AUTH_BRUTEFORCE, FaultClass.PRIVILEGE_MISUSE),
    Category.TIME: (FaultClass.CLOCK_JUMP,),
    Category.KERNEL: (FaultClass.KERNEL_BUG,),
    Category.BENIGN: tuple(sorted(BENIGN_CLASSES)),
    Category.UNKNOWN: (FaultClass.UNKNOWN,),
}
_CATEGORY_OF = {fault: category for category, faults in _MEMBERS.items() for fault in faults}


class SubjectKind(StrEnum):
    """What a finding or a culprit points at."""

    UNIT = "unit"
    PROCESS = "process"
    DEVICE = "device"
    MOUNT = "mount"
    INTERFACE = "interface"
    ADDRESS = "address"
    USER = "user"
    SENSOR = "sensor"
    FILE = "file"
    STAGE = "stage"
    HOST = "host"
