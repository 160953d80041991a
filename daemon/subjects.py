"""Which subjects are the same thing under two names: a process and its pid, a disk and its partition.

Pure functions on `Subject`; nothing here knows what findings mean. Ties that only a collector can see (the
two ends of a veth, the device under a mount) come as subjects of one finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from daemon.messages import Subject
from models.taxonomy import SubjectKind

Key = tuple[str, str]  # (kind, name without pid); kinds beyond SubjectKind: "pid", "program"

_PID = re.compile(r"^(?P<name>.*)\[(?P<pid>\d{1,10})\]$", re.DOTALL)
_PARTITION = re.compile(
    r"^(?:(?P<disk>(?:sd|vd|hd|xvd)[a-z]+)\d+|(?P<numbered>(?:nvme\d+n|mmcblk|loop|md|nbd)\d+)p\d+)$"
)
_NAMESPACE = re.compile(r"^(?P<controller>nvme\d+)n\d+(?:p\d+)?$")
# Block devices that the kernel makes of others: device mapper, md, DRBD, bcache. Their faults are mostly
# those of what lies below, told once more.
_STACKED = re.compile(r"^(?:dm-\d+|md\w+|drbd\d+|bcache\d+)$")
# Units and control groups that hold whatever a user starts: sharing one says nothing.
_GENERIC = re.compile(r"^(?:|.*\.slice|session-?\w*\.scope|user@\d+\.service|init\.scope)$")
_COMM_SIZE = 15  # the kernel cuts a process name to TASK_COMM_LEN - 1 bytes


@lru_cache(4096)
def split_pid(name: str) -> tuple[str, int]:
    """Name and pid of a process subject `NAME[PID]`; the pid is 0 where none is given."""
    match = _PID.match(name)
    return (match["name"], int(match["pid"])) if match else (name, 0)


def label_of(subject: Subject) -> str:
    """What a condition is about; a program that dies again under another pid is the same condition."""
    name = split_pid(subject.name)[0] if subject.kind is SubjectKind.PROCESS else subject.name
    return f"{subject.kind}:{name}"


def generic(unit: str) -> bool:
    """Whether a unit is a mere container of sessions or of everything, so that it ties nothing together."""
    return bool(_GENERIC.match(unit_name(unit)))


@lru_cache(4096)
def stacked(device: str) -> bool:
    """Whether a block device lies on other block devices."""
    return bool(_STACKED.match(device))


def unit_name(unit: str) -> str:
    """The last part of a control group's path: lines give the whole path where metrics give the unit."""
    return unit.rstrip("/").rpartition("/")[2]


def key(subject: Subject) -> Key:
    """The subject without its pid: the same program under another pid is the same subject."""
    if subject.kind is SubjectKind.PROCESS:
        return (subject.kind.value, split_pid(subject.name)[0])
    if subject.kind is SubjectKind.UNIT:
        return (subject.kind.value, unit_name(subject.name))
    return (subject.kind.value, subject.name)


@lru_cache(4096)
def aliases(kind: SubjectKind, name: str) -> frozenset[Key]:
    """Everything that a subject is also known as, so that related subjects share an alias."""
    if kind is SubjectKind.HOST:
        return frozenset()
    if kind is SubjectKind.PROCESS:
        return _process_aliases(name)
    if kind is SubjectKind.UNIT:
        return _unit_aliases(name)
    found = {(kind.value, name)}
    if kind is SubjectKind.DEVICE and (match := _PARTITION.match(name)):
        found.add((kind.value, match["disk"] or match["numbered"]))
    if kind is SubjectKind.DEVICE and (match := _NAMESPACE.match(name)):
        found.add((kind.value, match["controller"]))
    if kind is SubjectKind.INTERFACE:
        found.add(
            (kind.value, name.partition("@")[0].partition(".")[0])
        )  # eth0.10 and eth0.10@eth0 ride on eth0
    return frozenset(found)


def _process_aliases(name: str) -> frozenset[Key]:
    program, pid = split_pid(name)
    found = {(SubjectKind.PROCESS.value, program), ("program", program[:_COMM_SIZE])}
    if pid > 1:  # pid 1 has a part in everything
        found.add(("pid", str(pid)))
    return frozenset(found)


def _unit_aliases(name: str) -> frozenset[Key]:
    if generic(name):
        return frozenset()
    last = unit_name(name)
    stem = last.removesuffix(".service").partition("@")[0]
    return frozenset({(SubjectKind.UNIT.value, last), ("program", stem[:_COMM_SIZE])})


def expand(subjects: Iterable[Subject], floor: float) -> frozenset[Key]:
    """All aliases of the subjects that bear at least this share of the blame."""
    found: set[Key] = set()
    for subject in subjects:
        if subject.score >= floor:
            found |= aliases(subject.kind, subject.name)
    return frozenset(found)
