"""One journal entry, as the raw reader gives it, to one Line; knows the fields' trust, not where entries lie.

systemd.journal-fields(7): only fields that begin with an underscore were set by journald itself. Everything
else was said by the sender and counts here only if the sender was root (uid 0) or, for `UNIT=`, pid 1; or a
child of systemd's that was gone before journald could look: it says what it could not start, and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from daemon.ingest import Clean, clean
from daemon.messages import MAX_NAME, Line, Stamp

Entry = Mapping[str, Any]  # bytes, or a list of bytes where a field occurs more than once

MAX_FIELD = 256  # characters of a kept field

_PRIORITIES = {str(level).encode(): level for level in range(8)}
_DEFAULT_PRIORITY = 6
_KERNEL_FACILITY = (b"0", None)
# What says more than the text. Those with an underscore come from journald, the rest count if root sent them.
_KEPT_TRUSTED = frozenset({"_KERNEL_DEVICE", "_KERNEL_SUBSYSTEM", "_UDEV_SYSNAME", "_AUDIT_TYPE_NAME"})
_KEPT_OF_ROOT = frozenset(
    {
        *(
            "EXIT_CODE",
            "EXIT_STATUS",
            "JOB_RESULT",
            "JOB_TYPE",
            "UNIT_RESULT",
            "N_RESTARTS",
            "ERRNO",
            "OPERATION",
        ),
        *("COREDUMP_COMM", "COREDUMP_EXE", "COREDUMP_PID", "COREDUMP_SIGNAL", "COREDUMP_SIGNAL_NAME"),
        *("COREDUMP_UNIT", "SESSION_ID", "USER_ID", "LEADER", "DEVICE", "WHERE", "SLEEP"),
    }
)
_KEPT = _KEPT_TRUSTED | _KEPT_OF_ROOT


class Cursor(NamedTuple):
    """What a journal cursor says about its entry; times in microseconds."""

    sequence_id: str
    sequence: int
    boot: str
    mono_us: int
    wall_us: int


def parse_cursor(text: str) -> Cursor:
    """The parts of `s=..;i=..;b=..;m=..;t=..;x=..` (sd_journal_get_cursor(3)); raises ValueError."""
    if len(text) > MAX_NAME:
        raise ValueError("cursor too long")
    try:
        sequence_id, sequence, boot, mono, wall, *_ = text.split(";")
    except ValueError:
        raise ValueError(f"not a journal cursor: {text[:80]!r}") from None
    return Cursor(sequence_id[2:], _hex(sequence), boot[2:], _hex(mono), _hex(wall))


def _hex(part: str) -> int:
    return int(part[2:], 16)  # noqa: FURB166 - the prefix is "i=", not "0x"


def stamp_of(cursor: Cursor) -> Stamp:
    """When journald received the entry; the sender's own `_SOURCE_*` times are not asked."""
    return Stamp(cursor.boot, cursor.mono_us / 1e6, cursor.wall_us / 1e6)


def line_of(entry: Entry, at: Stamp, cursor: str = "", clean_text: Clean = clean) -> Line:
    """The Line of one entry."""
    text, cut = clean_text(_first(entry.get("MESSAGE", b"")))
    uid = _number(entry.get("_UID"), -1)
    kernel = entry.get("_TRANSPORT") == b"kernel"
    trusted = not kernel or entry.get("SYSLOG_FACILITY") in _KERNEL_FACILITY  # others wrote to /dev/kmsg
    pid = _number(entry.get("_PID"), 0)
    kept = {} if _KEPT.isdisjoint(entry) else _kept_fields(entry, root=uid == 0, clean_text=clean_text)
    return Line(
        at=at,
        source="journal",
        text=text,
        priority=_PRIORITIES.get(_first(entry.get("PRIORITY", b"6")), _DEFAULT_PRIORITY),
        unit=_name(entry.get("_SYSTEMD_UNIT") or (_left_unit(entry) if uid == 0 and pid > 1 else None)),
        subject_unit=_subject_unit(entry) if pid == 1 and uid == 0 else "",
        identifier="kernel" if kernel and trusted else _identifier(entry, root=uid == 0 or kernel),
        pid=pid,
        uid=uid,
        trusted=trusted,
        truncated=cut,
        cursor=cursor,
        message_id=_name(entry.get("MESSAGE_ID")) if uid == 0 else "",
        fields=kept,
    )


def _first(value: Any) -> bytes:
    """The first value of a field that may occur more than once."""
    if isinstance(value, list):
        return bytes(value[0]) if value else b""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "backslashreplace")


def _name(value: Any) -> str:
    if value is None:
        return ""
    return _decode_name(value[:MAX_NAME] if isinstance(value, bytes) else _first(value)[:MAX_NAME])


@lru_cache(1024)  # units and identifiers repeat: 0.1 us instead of 0.6 us
def _decode_name(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    return text if text.isprintable() and len(text) <= MAX_NAME else clean(text)[0][:MAX_NAME]


def _number(value: Any, missing: int) -> int:
    if value is None:
        return missing
    try:
        number = int(value if isinstance(value, bytes) else _first(value))
    except ValueError:
        return missing
    return number if 0 <= number < 1 << 32 else missing


def _identifier(entry: Entry, *, root: bool) -> str:
    """Root's senders name themselves, but not the kernel; of others the kernel's word on the process counts.

    A process may be gone before journald asks for its name, which any process may have chosen, too.
    """
    name = entry.get("SYSLOG_IDENTIFIER") if root or "_COMM" not in entry else None
    return _name(name if name and name != b"kernel" else entry.get("_COMM"))


def _left_unit(entry: Entry) -> Any:
    """The unit that a child of the service manager named, of whom journald knows no more than the number.

    It is called `(program)` until it becomes that, from systemd 254 on `systemd-executor`.
    """
    name = _first(entry.get("SYSLOG_IDENTIFIER", b""))
    child = name.startswith(b"(") or name == b"systemd-executor"
    return entry.get("UNIT") if child and "_COMM" not in entry else None


def _subject_unit(entry: Entry) -> str:
    return _name(entry.get("UNIT") or entry.get("OBJECT_SYSTEMD_UNIT"))


def _kept_fields(entry: Entry, *, root: bool, clean_text: Clean) -> dict[str, str]:
    wanted = _KEPT if root else _KEPT_TRUSTED
    return {key: clean_text(_first(entry[key]))[0][:MAX_FIELD] for key in sorted(wanted & entry.keys())}
