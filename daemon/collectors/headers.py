"""The head of a line in a log file: when, who, how bad (RFC 3164, RFC 5424 and common variants).

Nothing here is trusted: whoever can write to the file can write any head.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from daemon.messages import UNNAMED

_TIME = (
    rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})?"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
)
_SYSLOG = re.compile(
    rb"(?:<(\d{1,3})>)?(" + _TIME + rb") ([^\s:]{1,255}) ([^\s:\[\]]{1,64})(?:\[(\d{1,9})\])?: ?"
)
_MODERN = re.compile(
    rb"<(\d{1,3})>1 (\S{1,40}) (\S{1,255}) (\S{1,64}) (\S{1,128}) \S{1,64} (?:-|(?:\[(?:[^\]\\]|\\.)*\])+) ?"
    rb"(?:\xef\xbb\xbf)?"
)
# What servers and loggers write after the time: "[error] 151#151:", "[auth_basic:error]", "ERROR:", " WARN ".
_LEVEL = re.compile(
    rb"[\[\s:<|](?:(emerg|panic|PANIC|EMERG(?:ENCY)?|FATAL|fatal|alert|ALERT|crit|CRIT(?:ICAL)?|SEVERE)"
    rb"|(err(?:or)?|ERR(?:OR)?)|(warn(?:ing)?|WARN(?:ING)?))[\]:>|](?:\s|$)|\s(?:(FATAL|CRITICAL|SEVERE)|(ERROR)|(WARN(?:ING)?))\s"
)
_LEVELS = (2, 3, 4, 2, 3, 4)  # of the groups above; nobody's own file makes an emergency of the host
_LEVEL_WITHIN = 96  # bytes; behind that stands what others may have written
_PRIORITY_ONLY = re.compile(rb"<(\d{1,3})>")
_KERNEL_TIME = re.compile(rb"\[ {0,8}\d{1,9}\.\d{6}\] ")
_MAX_PRIORITY = 191  # 23 facilities * 8 + 7
_DEFAULT = 6
# So a line of a system's log begins, whatever tag its writer chose; programs that write their own files give
# the date with a space, or another offset, or no host (a thread's number, a level or a stream in its place).
_LOGGED = re.compile(
    rb"<\d{1,3}>1 \S{1,40} \S{1,255} "
    rb"|(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})?"
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?[+-]\d\d:\d\d) "
    rb"(?!(?:\d+|stdout|stderr|TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|SEVERE|FATAL|CRITICAL) )"
    rb"[\w.:-]{1,255}(?<!:) "
)


class Header(NamedTuple):
    """Who wrote a line, and where its text begins; `when` is the undecoded time, b"" if there is none."""

    text_at: int
    when: bytes = b""
    identifier: str = ""
    pid: int = 0
    priority: int = _DEFAULT


_NONE = Header(0)


class Heads:
    """Reads the heads of one file's lines, and remembers whether the file is a system's log.

    Anybody may have written any line there (logger(1)), also one whose tag nobody can read or without a head.
    """

    def __init__(self, beginning: bytes = b"") -> None:
        """`beginning`: the file's first bytes, if they are known."""
        self._logged = _LOGGED.match(beginning) is not None

    def of(self, line: bytes) -> Header:
        """The head of the next line; only a program's own file has lines without an identifier."""
        header = parse_header(line)
        self._logged = self._logged or _LOGGED.match(line) is not None
        return header._replace(identifier=UNNAMED) if self._logged and not header.identifier else header


def parse_header(line: bytes) -> Header:
    """The head of a syslog line; a line without one is all text."""
    match = _SYSLOG.match(line)
    if match:
        pri, when, _, identifier, pid = match.groups()
        end = match.end()
        if identifier == b"kernel":
            stamp = _KERNEL_TIME.match(line, end)
            end = stamp.end() if stamp else end
        return Header(end, when, _decode(identifier), int(pid or 0), _priority(pri))
    if not line.startswith(b"<"):
        return _of_level(line)
    match = _MODERN.match(line)
    if match:
        pri, when, _, identifier, pid = match.groups()
        number = int(pid) if pid.isdigit() and len(pid) < 10 else 0
        return Header(match.end(), when, _decode(identifier), number, _priority(pri))
    match = _PRIORITY_ONLY.match(line)
    return Header(match.end(), priority=_priority(match[1])) if match else _NONE


def _of_level(line: bytes) -> Header:
    """No syslog head: all of it is text; how bad it is, the program may have said in its own way."""
    match = _LEVEL.search(line, 0, _LEVEL_WITHIN) if line[:1].isdigit() or line[:1] == b"[" else None
    return _NONE if match is None else Header(0, priority=_LEVELS[(match.lastindex or 1) - 1])


@lru_cache(1024)
def _decode(identifier: bytes) -> str:
    text = identifier.decode("utf-8", "backslashreplace")
    return "" if text == "-" or not text.isprintable() else text


def _priority(pri: bytes | None) -> int:
    value = int(pri) if pri else _MAX_PRIORITY + 1
    return value & 7 if value <= _MAX_PRIORITY else _DEFAULT
