"""What was said shortly before decides what a vague complaint, or the end of a unit, is due to.

Pure, on observation time, bounded. The catalogue says what a message means by itself; here it is seen in the
light of what the kernel, the manager or the same program told a moment ago.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Any, NamedTuple

from daemon.messages import Line, Subject
from daemon.subjects import stacked
from daemon.tiers.conditions import Breach
from models.known import Message
from models.taxonomy import FaultClass, SubjectKind

BELOW_S = 10.0  # the kernel repeats what it refuses; whoever asks is refused at once
WAITED_S = 10.0  # between what a program says of its waiting and the manager's line about its end
SAID_S = 2.0  # between the last word of a program that ends, or of its peer, and the line about the end
LEFT_S = 60.0  # a service that ended is started anew, and fails anew, within RestartSec=
UNITS_MAX = 256
WAITS = 0.65  # a hint at another one that hangs, see `daemon.incidents.grouping`
LEFT_OVER = 0.15  # of a hint at what is explained otherwise
BESIDE = 0.4  # a hint at what comes of it
TIE = 0.35  # of the blame: enough to tie two units together (grouping.TIED)

_F = FaultClass
_BELOW = frozenset({_F.DISK_FULL, _F.FILESYSTEM_CORRUPT, _F.DEVICE_LOST})
# Of these a program ends, and says so before it does; but for its settings none is its own fault.
_OUTSIDE = frozenset(
    {
        *(_F.DEPENDENCY_FAILED, _F.NAME_RESOLUTION, _F.CERTIFICATE_EXPIRED),
        *(_F.DISK_FULL, _F.INODE_EXHAUSTION, _F.FD_EXHAUSTION, _F.MEMORY_EXHAUSTION),
        *(_F.FILESYSTEM_CORRUPT, _F.DISK_FAILING, _F.DEVICE_LOST),
    }
)
_ENDING = _OUTSIDE | {_F.CONFIG_ERROR}
_REFUSED = {"io-error": _BELOW, "buffer-io-error": frozenset({_F.DISK_FULL, _F.DEVICE_LOST})}


class _Told(NamedTuple):
    fault: FaultClass
    subject: Subject
    t: float
    sure: float = 1.0


class Reasons:
    """The last words that explain others, by unit."""

    def __init__(self) -> None:
        self._below: _Told | None = None  # what the kernel said last of storage or a device
        self._said: OrderedDict[str, _Told] = OrderedDict()  # why a unit's program may soon end
        self._left: OrderedDict[str, float] = OrderedDict()  # units of which a process lives on
        self._hung: OrderedDict[str, float] = OrderedDict()  # units whose master gave up a worker
        self._crashed: _Told | None = None
        self._bereft: _Told | None = None

    def of_words(self, message: Message, subjects: list[Subject], line: Line, t: float) -> Message:
        """The message of the kernel or of a program, with the class that fits what was told before."""
        if message.slug == "worker-hung":
            _keep(self._hung, line.unit, t)
        elif message.slug == "worker-crashed" and t - self._hung.get(line.unit, -inf) <= WAITED_S:
            return _instead(message, _F.SERVICE_HUNG)._replace(repeat="")  # its master has ended it
        if message.writer == "kernel":
            self._hear_kernel(message, subjects[0], t)
        elif line.trusted and line.unit:
            self._hear_program(message, subjects, line.unit, t)
        if message.slug == "address-in-use" and t - self._left.get(line.unit, -inf) <= LEFT_S:
            return _instead(message, _F.SERVICE_CRASH)  # its own process of before holds it
        return self._of_below(message, subjects, t)

    def complains(self, fault: FaultClass, unit: str, t: float, *, sure: float) -> None:
        """What a program complains of in words of its own; what is surer stays."""
        before = self._said.get(unit)
        if fault in _ENDING and not (before and t - before.t <= SAID_S and before.sure > sure):
            _keep(self._said, unit, _Told(fault, Subject(SubjectKind.UNIT, unit), t, sure))

    def of_end(self, message: Message, subjects: list[Subject], t: float) -> Message:
        """The manager's message, with the class that the unit's program gave as its reason."""
        unit = subjects[0].name
        if message.slug == "unit-left-over":
            _keep(self._left, unit, t)
        if _F.SERVICE_CRASH not in message.hints:
            return message
        said = self._said.get(unit)
        if said is None or t - said.t > (WAITED_S if said.fault is _F.SERVICE_HUNG else SAID_S):
            self._crash(message, subjects, t)
            return message
        hints = dict(message.hints)
        del hints[_F.SERVICE_CRASH]
        hints[said.fault] = max(hints.get(said.fault, 0.0), message.hints[_F.SERVICE_CRASH])
        if said.fault is _F.SERVICE_HUNG:  # whom it waited for hangs
            return message._replace(hints=hints | {_F.DEPENDENCY_FAILED: WAITS}, repeat="")
        return message._replace(hints=hints)

    def _hear_kernel(self, message: Message, subject: Subject, t: float) -> None:
        if message.slug in _REFUSED or _BELOW.isdisjoint(message.hints):
            return
        fault = _top(message)
        if fault in _BELOW:
            self._below = _Told(fault, subject, t)

    def _hear_program(self, message: Message, subjects: list[Subject], unit: str, t: float) -> None:
        if message.repeat == "no-answer":
            _keep(self._said, unit, _Told(_F.SERVICE_HUNG, subjects[0], t))
        elif message.slug == "config-doubtful":  # many go on without; who ends right after did not
            _keep(self._said, unit, _Told(_F.CONFIG_ERROR, subjects[0], t))
        elif _top(message) is _F.DEPENDENCY_FAILED and (
            message.persists or message.slug == "network-awaited"
        ):
            lost = _Told(_F.DEPENDENCY_FAILED, Subject(SubjectKind.UNIT, unit), t)
            _keep(self._said, unit, lost)
            self._bereft = lost
            _tie(subjects, self._crashed, t)
        elif message.repeat == "crash":
            self._crash(message, subjects, t)

    def _crash(self, message: Message, subjects: list[Subject], t: float) -> None:
        """Tie what crashes to whoever complains at that moment that its peer is gone."""
        if message.score >= 0.5 and subjects[0].kind is SubjectKind.UNIT:
            self._crashed = _Told(_F.SERVICE_CRASH, subjects[0], t)
            _tie(subjects, self._bereft, t)

    def _of_below(self, message: Message, subjects: list[Subject], t: float) -> Message:
        """An error of storage, with the class of what was told of what lies below."""
        below = self._below
        if below is None or message.slug not in _REFUSED or t - below.t > BELOW_S:
            return message
        if below.fault not in _REFUSED[message.slug]:
            return message
        if message.writer == "kernel" and not stacked(subjects[0].name):
            return message  # a disk's own error
        if below.subject.kind is not SubjectKind.HOST and below.subject not in subjects:
            subjects.append(Subject(below.subject.kind, below.subject.name, 0.6))
        return _instead(message, below.fault)


def due_to(message: Message, loop: Breach | None) -> Breach | None:
    """The loop of a unit that fails again and again, with the reason outside of it for its end."""
    reason = _top(message)
    if loop is None or reason not in _OUTSIDE:
        return loop
    return loop._replace(hints={reason: max(loop.hints.values()), _F.CRASH_LOOP: BESIDE})


def _top(message: Message) -> FaultClass:
    return max(message.hints, key=lambda fault: message.hints[fault], default=_F.UNKNOWN)


def _instead(message: Message, fault: FaultClass) -> Message:
    """The message with another class in the place of the one that it speaks for most."""
    top = _top(message)
    left = {one: min(hint, LEFT_OVER) for one, hint in message.hints.items()}
    return message._replace(hints=left | {fault: message.hints[top]})


def _tie(subjects: list[Subject], other: _Told | None, t: float) -> None:
    if other is None or t - other.t > SAID_S:
        return
    if all(one.name != other.subject.name for one in subjects):
        subjects.append(Subject(other.subject.kind, other.subject.name, TIE))


def _keep(known: OrderedDict[str, Any], unit: str, value: _Told | float) -> None:
    known[unit] = value
    known.move_to_end(unit)
    if len(known) > UNITS_MAX:
        known.popitem(last=False)
