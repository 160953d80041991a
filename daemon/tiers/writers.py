"""Who wrote a line and what such a writer may say: the kernel, pid 1, a unit's program, or a claim in a file.

Key only on what cannot be forged: a kernel line counts when the kernel's own transport brought it, a
manager's when pid 1 sent it. Holds a budget of work for each writer, in observation time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.messages import Line
from models.known import Message
from models.masking import mask
from models.taxonomy import Category

KERNEL, MANAGER = "kernel", "pid1"
WRITERS_MAX = 2048
_BOTH = frozenset({"systemd", "init"})


@dataclass(slots=True)
class Budget:
    """Work that one unit may cause in one second of observation time."""

    second: int = 0
    spent: int = 0


@dataclass(slots=True)
class Writer:
    """One writer of lines: its name for the template miner, who it is, when it was first heard."""

    name: str
    role: str  # "kernel", "pid1" or ""
    unit: str
    identifier: str
    trusted: bool
    first_t: float
    budget: Budget = field(default_factory=Budget)
    novel_t: float = 0.0  # when this minute of novelties began
    novel_count: int = 0

    def may_say(self, message: Message) -> bool:
        """Whether such a message from this writer is to be believed."""
        if message.writer:
            return message.writer == self.role
        if self.role == KERNEL:
            return False
        if not message.writers:
            return self.role != MANAGER
        names = message.writers
        stem = self.unit.removesuffix(".service").partition("@")[0]
        own = self.identifier in names or stem in names or stem.removesuffix("d") in names
        return own or (self.role == MANAGER and not names.isdisjoint(_BOTH))


class Writers:
    """All writers heard lately, found by what a line says about its sender; bounded."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, bool, str], Writer] = {}
        self._budgets: dict[str, Budget] = {}

    def of(self, line: Line, t: float) -> Writer:
        """The writer of a line."""
        role = _role(line)
        key = (line.unit, line.identifier, line.trusted, role or line.source)
        writer = self._found.get(key)
        if writer is None:
            if len(self._found) >= WRITERS_MAX:
                self._forget()
            writer = self._found[key] = self._create(line, role, t)
        return writer

    def _create(self, line: Line, role: str, t: float) -> Writer:
        unit = line.unit if line.trusted else ""
        name = (
            role or f"{mask(unit)}/{mask(line.identifier)}"
        )  # session-3.scope and session-4.scope are alike
        name = name if line.trusted else f"~{line.source}{name}"
        payer = unit or (role if line.trusted else line.source) or f"uid {line.uid}"
        budget = self._budgets.setdefault(payer, Budget())
        return Writer(name[:256], role, line.unit, line.identifier, line.trusted, t, budget)

    def _forget(self) -> None:
        """Drop the older half; they are made anew, with a fresh learning time, when they speak again."""
        for key in list(self._found)[: WRITERS_MAX // 2]:
            del self._found[key]
        kept = {id(writer.budget) for writer in self._found.values()}
        self._budgets = {name: budget for name, budget in self._budgets.items() if id(budget) in kept}


def _role(line: Line) -> str:
    if not line.trusted:
        return ""
    if line.source == KERNEL or (line.identifier == KERNEL and not line.pid and not line.unit):
        return KERNEL
    return MANAGER if line.pid == 1 and line.uid in (0, -1) else ""


def privileged(line: Line) -> bool:
    """Whether root wrote it, or the file that it comes from leaves that open."""
    return not line.trusted or line.uid in (0, -1) or line.unit.startswith("ssh")


def believed(message: Message, line: Line) -> bool:
    """Whether such a line speaks for the host; a user's own program or a claim in a file does not."""
    if message.writer:
        return True
    if not line.trusted:
        return bool(message.writers)
    service = line.unit.endswith((".service", ".socket")) and not line.unit.startswith("user@")
    return line.uid in (0, -1) or service or message.category is Category.SECURITY
