"""Which fault class explains which: the causal graph, and how it corrects a distribution over classes.

Pure tables and functions on the taxonomy, so that training and serving see the same graph. It knows nothing
about findings or incidents.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from typing import NamedTuple

from models.taxonomy import Category, FaultClass, SubjectKind


class Reach(IntEnum):
    """How far a cause is believed to reach without being told so."""

    SHARED = 1  # only what names the same subject
    NAMELESS = 2  # also what names nobody at all
    BEREFT = 3  # also a program that waits in vain for another one: for which one it cannot know
    APART = 4  # also what names no other place of the same kind (another mount, another device, ...)
    HOST = 5  # anything on the host


class Effect(NamedTuple):
    """One edge of the graph: how much of the effect the cause explains (0..1), and how far it reaches."""

    weight: float
    reach: Reach


_F = FaultClass
_SHARED, _NAMELESS, _BEREFT = Reach.SHARED, Reach.NAMELESS, Reach.BEREFT
_APART, _HOST = Reach.APART, Reach.HOST

# Weights say how much of the effect is expected once the cause is known: 0.9 nearly always follows from it,
# 0.6 often, 0.3 may. They are judgement, not measurement; the middle model has to beat them.
EXPLAINS: dict[FaultClass, dict[FaultClass, Effect]] = {
    _F.PROCESS_STORM: {
        _F.CPU_SATURATION: Effect(0.9, _APART),  # unless another process is blamed for most of it
        _F.MEMORY_EXHAUSTION: Effect(0.8, _APART),
        _F.FD_EXHAUSTION: Effect(0.8, _APART),
        _F.IO_SATURATION: Effect(0.4, _SHARED),
        _F.SERVICE_HUNG: Effect(0.5, _SHARED),
        _F.SERVICE_CRASH: Effect(0.5, _SHARED),
    },
    _F.MEMORY_EXHAUSTION: {
        _F.IO_SATURATION: Effect(0.7, _APART),
        _F.CPU_SATURATION: Effect(0.5, _NAMELESS),  # reclaim, and collectors of garbage
        _F.SERVICE_CRASH: Effect(0.9, _SHARED),
        _F.CRASH_LOOP: Effect(0.7, _SHARED),
        _F.SERVICE_HUNG: Effect(0.6, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _SHARED),
        _F.NAME_RESOLUTION: Effect(0.3, _SHARED),
    },
    _F.FD_EXHAUSTION: {
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.CRASH_LOOP: Effect(0.5, _SHARED),
        _F.SERVICE_HUNG: Effect(0.6, _SHARED),
        _F.NAME_RESOLUTION: Effect(0.3, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _SHARED),
        _F.CPU_SATURATION: Effect(0.4, _NAMELESS),  # what cannot be accepted stays readable (accept(2))
    },
    _F.CPU_SATURATION: {
        _F.SERVICE_HUNG: Effect(0.3, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.3, _SHARED),
    },
    _F.IO_SATURATION: {
        _F.SERVICE_HUNG: Effect(0.5, _APART),
        _F.CPU_SATURATION: Effect(0.3, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.3, _SHARED),
    },
    _F.DISK_FULL: {
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.CRASH_LOOP: Effect(0.7, _SHARED),
        _F.CONFIG_ERROR: Effect(0.6, _SHARED),
        _F.SERVICE_HUNG: Effect(0.4, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _SHARED),
        _F.IO_SATURATION: Effect(0.3, _SHARED),
        _F.CPU_SATURATION: Effect(0.3, _SHARED),  # who fills it works hard
    },
    _F.INODE_EXHAUSTION: {
        _F.DISK_FULL: Effect(0.6, _APART),  # ENOSPC says "no space" although only inodes ran out
        _F.SERVICE_CRASH: Effect(0.7, _SHARED),
        _F.CRASH_LOOP: Effect(0.6, _SHARED),
        _F.CONFIG_ERROR: Effect(0.5, _SHARED),
        _F.SERVICE_HUNG: Effect(0.3, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _SHARED),
        _F.IO_SATURATION: Effect(0.3, _SHARED),
        _F.CPU_SATURATION: Effect(0.3, _SHARED),
    },
    _F.DISK_FAILING: {
        _F.IO_SATURATION: Effect(0.9, _APART),
        _F.FILESYSTEM_CORRUPT: Effect(0.8, _APART),
        _F.SERVICE_HUNG: Effect(0.6, _APART),
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.5, _SHARED),
    },
    _F.FILESYSTEM_CORRUPT: {
        _F.DISK_FULL: Effect(0.6, _APART),  # whose free blocks are not trusted any more has none
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.6, _SHARED),
        _F.SERVICE_HUNG: Effect(0.3, _SHARED),
    },
    _F.DEVICE_LOST: {
        _F.DISK_FAILING: Effect(0.6, _APART),
        _F.FILESYSTEM_CORRUPT: Effect(0.6, _APART),
        _F.IO_SATURATION: Effect(0.6, _APART),
        _F.LINK_DOWN: Effect(0.8, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _SHARED),
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.CRASH_LOOP: Effect(0.6, _SHARED),
        _F.SERVICE_HUNG: Effect(0.4, _SHARED),
    },
    _F.HARDWARE_ERROR: {
        _F.CPU_SATURATION: Effect(0.4, _SHARED),
        _F.DISK_FAILING: Effect(0.4, _SHARED),
        _F.DEVICE_LOST: Effect(0.4, _SHARED),
        _F.LINK_DOWN: Effect(0.4, _SHARED),
        _F.KERNEL_BUG: Effect(0.5, _APART),
        _F.SERVICE_CRASH: Effect(0.3, _SHARED),
    },
    _F.KERNEL_BUG: {
        _F.SERVICE_HUNG: Effect(0.7, _HOST),
        _F.SERVICE_CRASH: Effect(0.4, _SHARED),
        _F.CPU_SATURATION: Effect(0.5, _SHARED),
        _F.PACKET_LOSS: Effect(0.3, _SHARED),
        _F.LINK_DOWN: Effect(0.4, _SHARED),
        _F.DEVICE_LOST: Effect(0.4, _SHARED),
    },
    _F.LINK_DOWN: {
        _F.PACKET_LOSS: Effect(0.9, _APART),
        _F.NAME_RESOLUTION: Effect(0.9, _HOST),
        _F.DEPENDENCY_FAILED: Effect(0.6, _HOST),
        _F.SERVICE_HUNG: Effect(0.5, _BEREFT),  # who waits for an answer from beyond it
        _F.SERVICE_CRASH: Effect(0.4, _SHARED),
    },
    _F.PACKET_LOSS: {
        _F.NAME_RESOLUTION: Effect(0.6, _HOST),
        _F.DEPENDENCY_FAILED: Effect(0.4, _BEREFT),
        _F.SERVICE_HUNG: Effect(0.4, _BEREFT),
    },
    _F.NAME_RESOLUTION: {
        _F.DEPENDENCY_FAILED: Effect(0.6, _HOST),
        _F.SERVICE_HUNG: Effect(0.5, _BEREFT),
        _F.SERVICE_CRASH: Effect(0.7, _SHARED),
        _F.CRASH_LOOP: Effect(0.6, _SHARED),
    },
    _F.CONNECTION_FLOOD: {
        _F.PACKET_LOSS: Effect(0.5, _APART),
        _F.FD_EXHAUSTION: Effect(0.6, _SHARED),
        _F.CPU_SATURATION: Effect(0.4, _NAMELESS),
        _F.SERVICE_HUNG: Effect(0.4, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.4, _BEREFT),  # whom it turns away
        _F.MEMORY_EXHAUSTION: Effect(0.4, _SHARED),
    },
    _F.AUTH_BRUTEFORCE: {
        _F.CONNECTION_FLOOD: Effect(0.6, _APART),
        _F.CPU_SATURATION: Effect(0.2, _NAMELESS),
        _F.SERVICE_HUNG: Effect(0.3, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.3, _SHARED),
    },
    _F.CONFIG_ERROR: {
        _F.SERVICE_CRASH: Effect(0.9, _SHARED),
        _F.CRASH_LOOP: Effect(0.8, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.7, _SHARED),
        _F.SERVICE_HUNG: Effect(0.3, _SHARED),
        _F.NAME_RESOLUTION: Effect(0.6, _SHARED),  # of a name server
    },
    _F.CERTIFICATE_EXPIRED: {
        _F.SERVICE_CRASH: Effect(0.8, _SHARED),
        _F.CRASH_LOOP: Effect(0.7, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.5, _BEREFT),
        _F.SERVICE_HUNG: Effect(0.3, _BEREFT),
    },
    _F.CLOCK_JUMP: {
        _F.CERTIFICATE_EXPIRED: Effect(0.8, _HOST),
        _F.SERVICE_HUNG: Effect(0.5, _HOST),
        _F.DEPENDENCY_FAILED: Effect(0.4, _BEREFT),
        _F.SERVICE_CRASH: Effect(0.3, _SHARED),
    },
    _F.CRASH_LOOP: {
        _F.SERVICE_CRASH: Effect(1.0, _SHARED),
        _F.CPU_SATURATION: Effect(0.4, _NAMELESS),
        _F.SERVICE_HUNG: Effect(0.4, _SHARED),
        _F.DEPENDENCY_FAILED: Effect(0.7, _BEREFT),
    },
    _F.SERVICE_CRASH: {_F.DEPENDENCY_FAILED: Effect(0.7, _BEREFT)},
    _F.SERVICE_HUNG: {
        _F.DEPENDENCY_FAILED: Effect(0.6, _APART),  # whoever waits for it says so first
    },
}

# How far one class reaches to more of itself: two hogs saturate the same processors, but two
# full mounts are two faults. Classes not named here need a shared subject.
SELF_REACH: dict[FaultClass, Reach] = {
    _F.CPU_SATURATION: _HOST,
    _F.PROCESS_STORM: _HOST,
    _F.AUTH_BRUTEFORCE: _HOST,
    _F.CONNECTION_FLOOD: _HOST,
    _F.NAME_RESOLUTION: _HOST,
    _F.CERTIFICATE_EXPIRED: _HOST,  # whoever shows it and whoever is shown it both complain
    _F.CLOCK_JUMP: _HOST,
    _F.KERNEL_BUG: _HOST,
    _F.MEMORY_EXHAUSTION: _APART,
    _F.IO_SATURATION: _APART,
    _F.FD_EXHAUSTION: _APART,
    _F.DISK_FULL: _APART,
    _F.INODE_EXHAUSTION: _APART,
    _F.DISK_FAILING: _APART,
    _F.FILESYSTEM_CORRUPT: _APART,
    _F.DEVICE_LOST: _APART,
    _F.HARDWARE_ERROR: _APART,
    _F.LINK_DOWN: _APART,
    _F.PACKET_LOSS: _APART,
}

# Of these a whole host is slow, so that its watcher's stages fall silent. A full or failing disk is none of
# them: a stage that suffers from its own says so itself.
STARVING = frozenset(
    {_F.CPU_SATURATION, _F.MEMORY_EXHAUSTION, _F.PROCESS_STORM, _F.IO_SATURATION, _F.KERNEL_BUG}
)

# Of these the kernel tells in many lines at once, not all of which anybody knows.
AT_LENGTH = frozenset(
    fault for fault in FaultClass if fault.category in {Category.STORAGE, Category.HARDWARE, Category.KERNEL}
) | {FaultClass.MEMORY_EXHAUSTION}

_K = SubjectKind
# The kinds of subject that say where a fault of this class is; two different ones are two faults.
PLACES: dict[FaultClass, frozenset[SubjectKind]] = {
    _F.PROCESS_STORM: frozenset({_K.PROCESS}),
    _F.MEMORY_EXHAUSTION: frozenset({_K.UNIT}),
    _F.FD_EXHAUSTION: frozenset({_K.UNIT, _K.PROCESS}),
    _F.IO_SATURATION: frozenset({_K.DEVICE, _K.MOUNT}),
    _F.DISK_FULL: frozenset({_K.MOUNT, _K.DEVICE}),
    _F.INODE_EXHAUSTION: frozenset({_K.MOUNT, _K.DEVICE}),
    _F.DISK_FAILING: frozenset({_K.DEVICE, _K.MOUNT}),
    _F.FILESYSTEM_CORRUPT: frozenset({_K.DEVICE, _K.MOUNT}),
    _F.DEVICE_LOST: frozenset({_K.DEVICE, _K.MOUNT}),
    _F.HARDWARE_ERROR: frozenset({_K.DEVICE, _K.SENSOR}),
    _F.LINK_DOWN: frozenset({_K.INTERFACE}),
    _F.PACKET_LOSS: frozenset({_K.INTERFACE}),
    _F.AUTH_BRUTEFORCE: frozenset({_K.ADDRESS}),
    _F.CONNECTION_FLOOD: frozenset({_K.ADDRESS}),
}
_NOWHERE: frozenset[SubjectKind] = frozenset()

# Inside these categories two classes about one subject are taken for one situation (a runaway process eats
# processor and memory alike). Security is left out: a success after a brute force is news of its own.
_KIN = frozenset({Category.RESOURCE, Category.STORAGE, Category.NETWORK, Category.SERVICE})

# Anything that is understood explains what nobody understood about the same subject.
_UNDERSTOOD = Effect(0.9, Reach.SHARED)

PRESENT = 0.3  # a class below this share is not believed to be present, so it explains nothing


@cache
def effect(cause: FaultClass, of: FaultClass) -> Effect | None:
    """The edge from a cause to a class it explains, or None."""
    if of is FaultClass.UNKNOWN and cause is not of and not cause.benign:
        return _UNDERSTOOD
    return EXPLAINS.get(cause, {}).get(of)


@cache
def places(one: FaultClass, other: FaultClass) -> frozenset[SubjectKind]:
    """The kinds of subject by which two classes are told apart."""
    return PLACES.get(one, _NOWHERE) | PLACES.get(other, _NOWHERE)


@cache
def kin(one: FaultClass, other: FaultClass) -> bool:
    """Whether two classes about the same subject are taken for one situation."""
    return one.category is other.category and one.category in _KIN


@cache
def far(fault: FaultClass) -> frozenset[FaultClass]:
    """The classes that may belong to the same situation although no subject is shared."""
    edges = ((one, edge) for one in FaultClass for edge in (effect(fault, one), effect(one, fault)))
    reached = {one for one, edge in edges if edge is not None and edge.reach is not Reach.SHARED}
    return frozenset(
        reached | ({fault} if SELF_REACH.get(fault, Reach.SHARED) is not Reach.SHARED else set())
    )


def rootless(fault: FaultClass) -> bool:
    """Whether the class is never the mere effect of another one, so that waiting teaches nothing."""
    return fault in _ROOTS


def correct(scores: Mapping[FaultClass, float]) -> dict[FaultClass, float]:
    """Scores after every class was lowered by what its present causes explain of it."""
    present = [cause for cause, score in scores.items() if score >= PRESENT]
    return {fault: score * _unexplained(fault, present, scores) for fault, score in scores.items()}


def _unexplained(fault: FaultClass, present: list[FaultClass], scores: Mapping[FaultClass, float]) -> float:
    left = 1.0
    for cause in present:
        edge = effect(cause, fault)
        if edge is not None:
            left *= 1.0 - edge.weight * scores[cause]
    return left


_ROOTS = (
    frozenset(FaultClass) - {of for effects in EXPLAINS.values() for of in effects} - {FaultClass.UNKNOWN}
)
