"""Culprits in texts and commands: how a name is shown, which entry it asks for, which argument it makes.

Names come from the kernel, from units and from other people's processes, so they are hostile: shown they are
escaped, in commands they must match the form of their kind.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable

from daemon.advice.formats import Lang
from daemon.advice.tokens import recognisable
from daemon.messages import Incident
from models import metrics
from models.taxonomy import SubjectKind

SHOWN_NAME = 80  # characters of a name in a text
SHOWN_LINE = 160  # characters of a quoted log line
_QUOTES: dict[Lang, tuple[str, str]] = {"en": ("“", "”"), "de": ("„", "“")}
_UNSAFE = str.maketrans(dict.fromkeys("“”„‟«»`‘’‚‹›", "'"))  # noqa: RUF001 - they could end a quotation

_UNIT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9:_.\\@-]{0,250}"
    r"\.(?:service|socket|device|mount|automount|swap|target|path|timer|slice|scope)"  # systemd.unit(5)
)
_DEVICE = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ 16 with its NUL
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")  # useradd(8)
_PID = re.compile(r"\[([1-9]\d{0,6})\]")  # pid_max is at most 4,194,304
_VIRTUAL_INTERFACE = re.compile(
    r"(?:veth|docker|br-|br\d|virbr|vnet|vmbr|tap|tun|wg|lxc|lxd|cni|flannel|cali|podman|vb-|ve-|dummy|ifb|zt|cilium|tailscale)"
)
_PHYSICAL_INTERFACE = re.compile(
    r"(?:eth\d|en[opsx]\w|wl[opsx]\w|wlan\d|ww[px]|ib[ps]|em\d|usb\d)"
)  # systemd.net-naming-scheme(7)
_VIRTUAL_DEVICE = re.compile(r"(?:loop|zram|ram|nbd)\d+(?:p\d+)?")
_ARRAY = re.compile(r"md[\d_]\w*")
_MAPPED = re.compile(r"dm-\d+")


def escape(text: str, limit: int) -> str:
    """`text` on one line without control characters or quotation marks, cut to `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    shown = shown.translate(_UNSAFE)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quote(text: str, lang: Lang, limit: int = SHOWN_LINE) -> str:
    """`text` escaped, cut and in the quotation marks of `lang`."""
    opening, closing = _QUOTES[lang]
    return opening + escape(text, limit) + closing


def display(name: str, lang: Lang) -> str:
    """`name` as it stands in a text: in quotation marks unless it is recognisable as a name."""
    if len(name) <= SHOWN_NAME and recognisable(name):
        return name
    return quote(name, lang, SHOWN_NAME)


def quoted_parts(text: str, lang: Lang) -> list[tuple[int, int]]:
    """Offsets of what stands inside quotation marks, marks included."""
    opening, closing = _QUOTES[lang]
    return [match.span() for match in re.finditer(f"{opening}[^{opening}{closing}]*{closing}", text)]


def sections(kind: SubjectKind, name: str) -> tuple[str, ...]:
    """The catalogue sections that speak about this culprit, the most specific one first."""
    if kind is SubjectKind.HOST or not name:
        return ()
    if kind is SubjectKind.INTERFACE:
        for pattern, section in _INTERFACE_SECTIONS:
            if pattern.match(name):
                return (section, "interface")
    if kind is SubjectKind.UNIT and _UNIT.fullmatch(name) is None:
        return ("group",)  # a bare control group has no unit to ask systemd about
    if kind is SubjectKind.DEVICE:
        for pattern, section in _DEVICE_SECTIONS:
            if pattern.fullmatch(name.removeprefix("/dev/")):
                return (section, "device")
    return (kind.value,)


_INTERFACE_SECTIONS = (
    (_VIRTUAL_INTERFACE, "virtual-interface"),
    (_PHYSICAL_INTERFACE, "physical-interface"),
)
_DEVICE_SECTIONS = (
    (_VIRTUAL_DEVICE, "virtual-device"),
    (_ARRAY, "array"),
    (_MAPPED, "mapped-device"),
)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda name: shlex.quote(name) if pattern.fullmatch(name) else None


def _path(name: str) -> str | None:
    safe = name.startswith("/") and name.isprintable() and len(name) <= 512 and "`" not in name
    return shlex.quote(name) if safe else None


def _address(name: str) -> str | None:
    try:
        return None if "%" in name else str(ipaddress.ip_address(name))  # a zone may hold anything
    except ValueError:
        return None


def _pid(name: str) -> str | None:
    match = _PID.fullmatch(name[name.rfind("[") :]) if "[" in name else None
    return match[1] if match else None


_ARGUMENTS: dict[SubjectKind, tuple[str, Callable[[str], str | None]]] = {
    SubjectKind.UNIT: ("unit", _matching(_UNIT)),
    SubjectKind.PROCESS: ("pid", _pid),
    SubjectKind.DEVICE: ("device", lambda name: _matching(_DEVICE)(name.removeprefix("/dev/"))),
    SubjectKind.MOUNT: ("mount", _path),
    SubjectKind.INTERFACE: ("interface", _matching(_INTERFACE)),
    SubjectKind.ADDRESS: ("address", _address),
    SubjectKind.USER: ("user", _matching(_USER)),
    SubjectKind.FILE: ("file", _path),
}
ARGUMENT_NAMES = frozenset(name for name, _ in _ARGUMENTS.values())


def argument(kind: SubjectKind, name: str) -> tuple[str, str] | None:
    """Placeholder name and shell-quoted value that this culprit may give to a command; None when refused."""
    if kind not in _ARGUMENTS:
        return None
    placeholder, convert = _ARGUMENTS[kind]
    value = convert(name)
    return None if value is None else (placeholder, value)


def named(incident: Incident) -> list[tuple[SubjectKind, str]]:
    """Who it is about, in the order of blame: the culprits, then what the metrics are labelled with.

    Only names that a collector made; nothing of a log text.
    """
    found = [(culprit.kind, culprit.name) for culprit in incident.culprits if culprit.name]
    for evidence in incident.evidence:
        if evidence.kind != "metric":
            continue
        family, label = metrics.split(evidence.ref)
        metric = metrics.METRICS.get(family)
        if metric and label and (metric.subject, label) not in found:
            found.append((metric.subject, label))
    return found
