"""Who wrote a line and what such a writer may say: the kernel, pid 1, a unit's program, or a claim in a file.

Key only on what cannot be forged: a kernel line counts when the kernel's own transport brought it, a
manager's when pid 1 sent it. Holds a budget of work for each writer, in observation time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from daemon.messages import UNNAMED, Line
from daemon.tiers.last_words import LastWords
from models.known import Message
from models.masking import mask
from models.taxonomy import Category

KERNEL, MANAGER, CHILD = "kernel", "pid1", "child"
WRITERS_MAX = 2048
_BOTH = frozenset({"systemd", "init"})
# They keep what others leave behind, each time in a unit of its own.
_REPORTERS = frozenset({"systemd-coredump", "systemd-coredum", "abrt-server", "abrt-hook-ccpp", "apport"})

# Strangers make these say and complain of much all day; what they repeat is not their own.
OPEN_TO_ALL = frozenset(
    {
        *("sshd", "sshd-session", "sshd-auth", "smtpd", "smtp", "postscreen", "qmgr", "cleanup", "exim"),
        *("exim4", "named", "sudo", "su", "cron", "crond", "CRON", "fail2ban", "fail2ban-server"),
        *("kernel", "systemd", "systemd-logind", "nginx", "apache2", "httpd"),
        *(
            "postfix",
            "dovecot",
            "unbound",
            "charon",
            "pluto",
            "asterisk",
            "freeswitch",
            "kamailio",
            "opensips",
        ),
    }
)
# The error logs of nginx and Apache, in a file or under the name of a container.
_WEB_ERROR = re.compile(
    r"\d{4}/\d\d/\d\d [\d:]{8} \[\w{1,8}\] \d{1,10}#\d{1,10}: "
    r"|\[\w{3} \w{3} [^\]]{1,32}\] \[[\w-]{0,32}:\w{1,8}\] "
)


@dataclass(slots=True)
class Budget:
    """Work that one unit, user or file may cause in one second of observation time."""

    payer: str = ""
    second: int = 0
    spent: int = 0


@dataclass(slots=True)
class Writer:
    """One writer of lines: its name for the template miner, who it is, when it was first heard."""

    name: str
    role: str  # "kernel", "pid1", "child" (of the manager, before it becomes the unit's program) or ""
    unit: str
    identifier: str
    trusted: bool
    first_t: float
    budget: Budget = field(default_factory=Budget)
    novel_t: float = 0.0  # when this minute of novelties began
    novel_count: int = 0
    words: LastWords | None = None  # of the unit, if it is one that the manager tells of
    nameless: bool = False  # a file of one program, or who was gone before journald asked for the name

    def may_say(self, message: Message) -> bool:
        """Whether such a message from this writer is to be believed."""
        if message.writer:
            return message.writer == (MANAGER if self.role == CHILD else self.role)
        if self.role == KERNEL:
            return False
        if not message.writers:
            # Nobody builds in a server that repeats what strangers say: they could silence it.
            return self.role != MANAGER and not (message.repeat == "builds" and _is_open(self.identifier))
        if self.nameless:
            return not message.privileged  # whose it is does not stand in it; the words must do
        names = message.writers
        stem = self.unit.removesuffix(".service").partition("@")[0]
        said = self.identifier.partition("(")[0]  # PAM of old signs as `sshd(pam_unix)`
        plain = said.rstrip("0123456789.-")  # php-fpm8.2, python3.11
        own = said in names or plain in names or stem in names or stem.removesuffix("d") in names
        return own or (self.role == MANAGER and not names.isdisjoint(_BOTH))


class Writers:
    """All writers heard lately, found by what a line says about its sender; bounded."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, bool, str], Writer] = {}
        self._budgets: dict[str, Budget] = {}
        self._words: dict[str, LastWords] = {}
        self._journal = False

    def surest(self, line: Line) -> bool:
        """Whether no source of this host is surer of a line: where the journal speaks, no file is."""
        return line.trusted or not self._journal

    def words(self, unit: str) -> LastWords | None:
        """What a unit's programs said last, if they were heard."""
        return self._words.get(unit)

    def of(self, line: Line, t: float) -> Writer:
        """The writer of a line."""
        role = role_of(line)
        key = (line.unit, line.identifier, line.trusted, role or line.source)
        writer = self._found.get(key)
        if writer is None:
            if len(self._found) >= WRITERS_MAX:
                self._forget()
            writer = self._found[key] = self._create(line, role, t)
        return writer

    def _create(self, line: Line, role: str, t: float) -> Writer:
        self._journal = self._journal or line.source == "journal"
        unit = line.unit if line.trusted else ""
        name = role if role in {KERNEL, MANAGER} else ""
        name = (
            name or f"{mask(unit)}/{mask(line.identifier)}"
        )  # session-3.scope and session-4.scope are alike
        name = name if line.trusted else f"~{line.source}{name}"
        payer = unit or (role if line.trusted else line.source) or f"uid {line.uid}"
        budget = self._budgets.setdefault(payer, Budget(payer))
        words = None
        if not role and unit.endswith(".service"):
            words = self._words.setdefault(unit, LastWords(unit))
        return Writer(
            name[:256],
            role,
            line.unit,
            line.identifier,
            line.trusted,
            t,
            budget,
            words=words,
            nameless=not (role or unit or line.identifier),
        )

    def _forget(self) -> None:
        """Drop the older half; they are made anew, with a fresh learning time, when they speak again."""
        for key in list(self._found)[: WRITERS_MAX // 2]:
            del self._found[key]
        kept = {id(writer.budget) for writer in self._found.values()}
        self._budgets = {name: budget for name, budget in self._budgets.items() if id(budget) in kept}
        heard = {writer.unit for writer in self._found.values()}
        self._words = {unit: words for unit, words in self._words.items() if unit in heard}


def role_of(line: Line) -> str:
    """Who wrote a line, as far as that cannot be forged."""
    if not line.trusted:
        return ""
    if line.source == KERNEL or (line.identifier == KERNEL and not line.pid and not line.unit):
        return KERNEL
    if line.pid == 1 and line.uid in (0, -1):
        return MANAGER
    # The process that is to become a unit's program is called `(program)` until then (systemd's exec_child).
    # A program may call itself so, too: such a line speaks for its own unit only, or it was root and is gone.
    # From systemd 254 on it is `systemd-executor`.
    child = line.identifier.startswith("(") or line.identifier == "systemd-executor"
    return CHILD if line.unit and child else ""


def privileged(line: Line) -> bool:
    """Whether root wrote it, or the file that it comes from leaves that open."""
    return not line.trusted or line.uid in (0, -1) or line.unit.startswith("ssh")


def believed(message: Message, line: Line) -> bool:
    """Whether such a line speaks for the host; a user's own program or a claim in a file does not."""
    if message.writer:
        return True
    if not line.trusted:
        return bool(message.writers or own_file(line))
    return of_system(line) or message.category is Category.SECURITY


def retells(line: Line) -> bool:
    """Whether a server wrote it that repeats what strangers give it: names, requests, parting words."""
    return _is_open(line.identifier) or _WEB_ERROR.match(line.text) is not None


def _is_open(identifier: str) -> bool:
    return not OPEN_TO_ALL.isdisjoint(identifier.partition("(")[0].split("/"))


def own_file(line: Line) -> str:
    """The path of a followed file that one program writes for itself, or "".

    A line of a system's log may be anybody's (logger(1)) and has an identifier, if only "-"; one of a file
    without syslog's heads was put there by whoever may open the file, as a service's own output in the
    journal is the service's.
    """
    return line.source[5:] if line.source.startswith("file:") and not line.identifier else ""


def nameless_file(line: Line) -> str:
    """The path of the followed file of a line whose writer gives no name, or ""."""
    nameless = line.identifier in {"", UNNAMED}
    return line.source[5:] if nameless and line.source.startswith("file:") else ""


def of_system(line: Line) -> bool:
    """Whether the kernel, root or a service of the system wrote it, and no user's own program."""
    service = line.unit.endswith((".service", ".socket")) and not line.unit.startswith("user@")
    return line.trusted and (line.uid in (0, -1) or service)


def unit_meant(line: Line) -> str:
    """The unit that a line is about: its writer's, or of whom a reporter of crashes says that it was."""
    if line.identifier not in _REPORTERS and not line.unit.startswith("systemd-coredump@"):
        return line.unit
    return line.fields.get("COREDUMP_UNIT", "") if line.uid == 0 else ""
