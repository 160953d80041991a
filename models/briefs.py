"""The top tier's language: what an incident holds becomes a short prompt, and texts speak of it in slots.

A slot such as `<used>` or `<culprit>` stands for a number, a unit or a name; the model never sees nor
writes one. Which slots an incident has, and what is put into them, is the daemon's matter; training and
serving share the vocabulary, the prompt and the rules that a written text must keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from models.taxonomy import FaultClass, Severity

FEATURES_VERSION = 1
MAX_TOKENS = 160  # the longest text of the corpus has 128
# Near-even choices stay open, unlikely words do not come up: at 0.8 every tenth sentence was broken.
TEMPERATURE, TOP_K = 0.5, 8
LETTERS_MAX = 640  # of a text with its slots: five sentences
END = "<end>"
SAY = "<say>"
HOST = "host"  # the kind where nobody is to blame


class Slot(NamedTuple):
    """A number that a text may state: the key of `Evidence.values`, how it is written, where it is meant.

    `families` are beginnings of the evidence's reference, `kinds` of culprit, `classes` of fault: empty means
    any. Outside `least` and `most` it is not offered, since the sentences made for it would not be true.
    """

    key: str
    format: str
    families: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    least: float = -1e18
    most: float = 1e18


_CRASHES = ("service-crash", "crash-loop")
_PROBED = ("name-resolution", "packet-loss")
_UNITS = ("unit", "group")
_DISKS = ("disk.", "psi.io")
_DEVICES = ("device", "virtual-device", "array", "mapped-device")
_LINKS = ("interface", "physical-interface", "virtual-interface")

SLOTS: dict[str, Slot] = {
    "used": Slot("used_ratio", "percent", ("fs.used",), least=0.5),
    "free": Slot("free_bytes", "bytes", ("fs.",), least=0.0),
    "total": Slot("total_bytes", "bytes", ("fs.",), least=1.0),
    "left": Slot("window_s", "duration", ("fs.", "mem."), least=0.01),
    "inodes": Slot("inodes_used_ratio", "percent", least=0.5),
    "avail": Slot("available_ratio", "percent", most=0.3),
    "availb": Slot("available_bytes", "memory", least=0.0),
    "rss": Slot("rss_bytes", "memory", kinds=("process",), least=1.0),
    "umem": Slot("rss_bytes", "memory", ("unit.",), _UNITS, least=1.0),
    "limit": Slot("limit_bytes", "memory", ("unit.",), _UNITS, least=1.0),
    "memwait": Slot("stalled_ratio", "percent", ("unit.memory", "unit.psi_memory"), _UNITS, least=0.001),
    "memstall": Slot("stalled_ratio", "percent", ("psi.memory", "mem."), least=0.001),
    "swap": Slot("used_ratio", "percent", ("mem.major_faults",), least=0.001),
    "pages": Slot("rate_per_s", "rate", ("mem.major_faults",), least=0.1),
    "cores_used": Slot("cpu_cores", "number", kinds=("process", *_UNITS), least=0.05),
    "cores": Slot("cores_count", "int", least=2.0),
    "busy": Slot("busy_ratio", "percent", ("cpu.",), least=0.3),
    "load": Slot("load", "number", ("cpu.",), least=0.5),
    "throttled": Slot("stalled_ratio", "percent", ("unit.throttled",), _UNITS, least=0.001),
    "dbusy": Slot("busy_ratio", "percent", _DISKS, _DEVICES, least=0.3),
    "await": Slot("await_s", "duration", _DISKS, _DEVICES, least=1e-4),
    "iostall": Slot("stalled_ratio", "percent", ("psi.io",), least=0.001),
    "children": Slot("children_count", "int", kinds=("process",), least=2.0),
    "procs": Slot("processes_count", "int", ("proc.",), least=2.0),
    "forks": Slot("forks_per_s", "rate", ("proc.",), least=0.5),
    "utasks": Slot("processes_count", "int", ("unit.tasks",), _UNITS, least=2.0),
    "tlimit": Slot("limit_count", "int", ("unit.tasks",), _UNITS, least=2.0),
    "plimit": Slot("used_ratio", "percent", ("proc.limit",), least=0.3),
    "fds": Slot("fds_count", "int", kinds=("process", *_UNITS), least=2.0),
    "fdlimit": Slot("fd_limit_count", "int", kinds=("process", *_UNITS), least=2.0),
    "fdused": Slot("used_ratio", "percent", ("fd.used",), least=0.3),
    "errors": Slot("errors_count", "int", least=2.0),
    "sector": Slot("sector", "id", kinds=_DEVICES, least=0.0),
    "derrors": Slot("errors_per_s", "rate", ("disk.",), _DEVICES, least=0.01),
    "drops": Slot("drops_per_s", "rate", ("link.",), _LINKS, least=0.01),
    "lerrors": Slot("errors_per_s", "rate", ("link.",), _LINKS, least=0.01),
    "loss": Slot("loss_ratio", "percent", least=0.0001),
    "retrans": Slot("retransmit_ratio", "percent", least=0.001),
    "turned": Slot("drops_per_s", "rate", ("net.listen",), least=0.01),
    "arrive": Slot("rate_per_s", "rate", ("net.syn", "net.tcp_in"), least=0.1),
    "conns": Slot("connections_count", "int", least=2.0),
    "track": Slot("used_ratio", "percent", ("net.conntrack",), least=0.3),
    "celsius": Slot("celsius", "celsius", least=1.0),
    "attempts": Slot("failures_count", "int", classes=("auth-bruteforce", "privilege-misuse"), least=2.0),
    "within": Slot("duration_s", "duration", classes=("auth-bruteforce", "privilege-misuse"), least=0.01),
    "users": Slot("users_count", "int", classes=("auth-bruteforce",), least=2.0),
    "addresses": Slot("addresses_count", "int", classes=("auth-bruteforce",), least=2.0),
    "flaps": Slot("failures_count", "int", kinds=_LINKS, classes=("link-down",), least=2.0),
    "crashes": Slot("failures_count", "int", classes=_CRASHES, least=2.0),
    "restarts": Slot("restarts_count", "int", kinds=("unit", "stage"), classes=_CRASHES, least=2.0),
    "signal": Slot(
        "signal_number", "signal", kinds=("unit", "process", "stage"), classes=_CRASHES, least=1.0, most=64.0
    ),
    "exit": Slot("exit_code", "id", kinds=("unit", "process", "stage"), least=1.0, most=255.0),
    "probes": Slot(
        "failures_count", "int", ("probe.",), classes=("name-resolution", "packet-loss"), least=2.0
    ),
    "silent": Slot("window_s", "duration", kinds=("stage",), classes=("service-hung",), least=0.01),
    "window": Slot("window_s", "duration", least=0.01),
    "jump": Slot("jump_s", "duration", classes=("clock-jump",)),
    "lost": Slot("lost_count", "int", least=2.0),
}
# Told to the model, never written by it.
FLAGS: dict[str, Slot] = {
    "killed": Slot("killed_count", "int", kinds=("process", *_UNITS), least=1.0),
    "accepted": Slot("accepted_count", "int", classes=("auth-bruteforce",), least=1.0),
    "safe": Slot("accepted_count", "int", classes=("auth-bruteforce",), least=0.0, most=0.0),
}
_PARTNERS = {  # what says something only beside one of these
    "window": ("crashes", "flaps", "attempts", "errors"),
    "within": ("attempts",),
    "users": ("within",),
    "addresses": ("window",),
    "cores": ("cores_used", "busy"),
    "await": ("dbusy",),
    "total": ("free",),
    "availb": ("avail",),
    "left": ("used", "avail"),
    "fdlimit": ("fds",),
    "tlimit": ("utasks",),
    "drops": ("loss",),
    "lerrors": ("loss",),
    "swap": ("pages",),
    "free": ("total",),
}
_REQUIRED = {"utasks": "tlimit", "swap": "pages", "pages": "swap", "fds": "fdlimit", "forks": "procs"}

KINDS = (
    *("unit", "group", "process", "device", "virtual-device", "array", "mapped-device", "mount"),
    *(
        "interface",
        "physical-interface",
        "virtual-interface",
        "address",
        "user",
        "sensor",
        "file",
        "stage",
        HOST,
    ),
)
NAMED_CONTEXTS = ("backup", "scrub", "maintenance-job", "timer", "session")
CONTEXTS = tuple(
    f"{kind}-{when}"
    for kind in (*NAMED_CONTEXTS, "boot", "update", "rebuild", "other")
    for when in ("during", "after")
)
EXTRAS = ("quote", "seen", "other")
PLACEHOLDERS = (*SLOTS, *EXTRAS, "culprit", "gap", "name")
LANGUAGES = ("en", "de")


def special_tokens() -> list[str]:
    """Every token of the prompt and every slot; in a vocabulary each is one piece."""
    marks = (
        *LANGUAGES,
        *(f"c:{fault.value}" for fault in FaultClass),
        *(f"k:{kind}" for kind in KINDS),
        *(f"s:{severity.value}" for severity in Severity),
        *(f"x:{context}" for context in CONTEXTS),
        *("own", "about", "closed"),
        *FLAGS,
        *PLACEHOLDERS,
    )
    return [END, SAY, *(f"<{mark}>" for mark in marks)]


class Group(NamedTuple):
    """What one piece of evidence offers; `own` says that it names the culprit."""

    own: bool
    slots: tuple[str, ...]  # of SLOTS and FLAGS


@dataclass(frozen=True)
class Brief:
    """What an incident offers to a text, without any value."""

    lang: str
    fault_class: str
    kind: str  # of the first culprit, one of KINDS
    severity: str
    groups: tuple[Group, ...] = ()
    extras: tuple[str, ...] = ()  # of EXTRAS
    context: str = ""  # one of CONTEXTS
    closed: bool = False

    @property
    def offered(self) -> frozenset[str]:
        """Every slot that a text may use."""
        slots = {*self.extras, *chain.from_iterable(group.slots for group in self.groups)} - FLAGS.keys()
        if self.kind != HOST:
            slots.add("culprit")
        if self.context:
            slots.add("gap")
            if self.context.rpartition("-")[0] in NAMED_CONTEXTS:
                slots.add("name")
        return frozenset(slots)


def encode(brief: Brief) -> str:
    """The prompt: some twenty tokens, in a fixed order."""
    parts = [brief.lang, f"c:{brief.fault_class}", f"k:{brief.kind}", f"s:{brief.severity}"]
    for group in brief.groups:
        parts += ["own" if group.own else "about", *group.slots]
    parts += brief.extras
    if brief.context:
        parts.append(f"x:{brief.context}")
    if brief.closed:
        parts.append("closed")
    return "".join(f"<{part}>" for part in parts) + SAY


def slots_of(
    ref: str, values: Mapping[str, float], kind: str, fault_class: str, *, own: bool
) -> tuple[str, ...]:
    """The slots and flags that a piece of evidence offers to a text about this class and kind of culprit."""
    found: list[str] = []
    for name, slot in chain(SLOTS.items(), FLAGS.items()):
        if slot.kinds and not own:
            continue  # a number about one subject, and not about ours
        if (value := values.get(slot.key)) is not None and _fits(slot, ref, value, kind, fault_class):
            found.append(name)
    if "left" in found and "window" in found:
        found.remove("window")
    for name, partner in _REQUIRED.items():
        if name in found and partner not in found:
            found.remove(name)
    return tuple(name for name in found if name not in _PARTNERS or _has_partner(name, found))


def _has_partner(name: str, found: list[str]) -> bool:
    return any(partner in found for partner in _PARTNERS[name])


def _fits(slot: Slot, ref: str, value: float, kind: str, fault_class: str) -> bool:
    if not slot.least <= value <= slot.most:
        return False
    if slot.families and not ref.startswith(slot.families):
        return False
    return (not slot.kinds or kind in slot.kinds) and (not slot.classes or fault_class in slot.classes)


_SLOT = re.compile(r"<([^<>\s]*)>")
_WORD = re.compile(r"[^\s.,;:!?]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_FORBIDDEN = re.compile(r"[\d`\"“”„‟«»*#{}\[\]\\|@$%°]")
_NUMERIC = frozenset(SLOTS)
_CUES = Path(__file__).with_name("cues.toml")


def slots_in(text: str) -> list[str]:
    """The slots that a text uses, in order."""
    return _SLOT.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a slotted text."""
    return _SENTENCE.split(text.strip())


def citing(text: str, brief: Brief) -> str:
    """The sentences of a text that cite what is known, without those that only claim or advise."""
    advises, found = _cues("advises")[brief.lang], []
    for sentence in sentences(text):
        if advises.match(sentence):
            break
        if set(slots_in(sentence)) - {"culprit"}:
            found.append(sentence)
    return " ".join(found)


def fault_of(text: str, brief: Brief) -> str:
    """Why this slotted text may not be shown for this brief; empty when nothing speaks against it.

    Values come from the evidence alone, so that what remains to be seen to is that only offered slots are
    used, nothing is stated outside them, no sentence ties a number to somebody whom it is not about, and none
    calls it something that it is not.
    """
    if unknown := next((slot for slot in slots_in(text) if slot not in brief.offered), None):
        return f"<{unknown}> is not offered"
    parts = sentences(text)
    reasons = (
        _form_fault(text, parts),
        _duty_fault(text, brief),
        *(_sentence_fault(part, brief) for part in parts),
    )
    return next(filter(None, reasons), "")


def _form_fault(text: str, parts: list[str]) -> str:
    bare = _SLOT.sub("", text)
    if found := _FORBIDDEN.search(bare):
        return f"{found[0]!r} outside a slot"
    if "<" in bare or ">" in bare or "\n" in bare.strip() or len(text) > LETTERS_MAX:
        return "broken or too long"
    if not text.rstrip().endswith("."):
        return "does not end"
    if not 2 <= len(parts) <= 6 or len(set(parts)) < len(parts):
        return "too few sentences, too many, or one twice"
    return "says something twice in one sentence" if any(map(_repeats, parts)) else ""


def _repeats(sentence: str) -> bool:
    """Whether four words in a row come twice."""
    words = _WORD.findall(sentence)
    runs = list(zip(*(words[start:] for start in range(4)), strict=False))
    return len(set(runs)) < len(runs)


def _duty_fault(text: str, brief: Brief) -> str:
    used = set(slots_in(text))
    if "culprit" in brief.offered and "culprit" not in used:
        return "does not name the culprit"
    citable = (_NUMERIC | {"quote", "seen"}) & brief.offered
    return "cites no evidence" if citable and not citable & used else ""


def _sentence_fault(sentence: str, brief: Brief) -> str:
    used = set(slots_in(sentence))
    numbers = used & _NUMERIC
    sources = [group for group in brief.groups if numbers & set(group.slots)]
    if len(sources) > 1:
        return "mixes two pieces of evidence"
    if "culprit" in used and any(not group.own for group in sources):
        return "ties the culprit to a number that is not about it"
    if not _complete(numbers):
        return "states half of a statement"
    bare, cues = _SLOT.sub("…", sentence).strip(), _cues(brief.lang)
    miscalled = next((name for name in sorted(numbers) if not cues[name].search(bare)), "")
    return f"calls <{miscalled}> something else" if miscalled else ""


@cache
def _cues(table_of: str) -> dict[str, re.Pattern[str]]:
    """By what words each number may be spoken of, or ("advises") how a sentence of each language advises."""
    import tomllib  # noqa: PLC0415 - only where a text is judged

    table = tomllib.loads(_CUES.read_text("utf-8"))[table_of]
    return {name: re.compile(cue, re.IGNORECASE) for name, cue in table.items()}


def _complete(numbers: Iterable[str]) -> bool:
    """Whether each number that says nothing alone stands beside one of its partners."""
    stated = set(numbers)
    return all(stated & set(_PARTNERS[name]) for name in stated if name in _PARTNERS)
