"""Times as an operator writes and reads them: `2h`, `yesterday`, `2026-11-21 23:00`; "3 min ago"."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from daemon.errors import ConfigError

_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|min|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h`, `1d12h`; raises ConfigError."""
    found = _DURATION.findall(text)
    if not found or _DURATION.sub("", text).strip():
        raise ConfigError(f"{text!r} is not a duration", hint="examples: 90s, 15m, 2h, 1d12h, 2w")
    return sum(float(number) * _UNIT_S[unit] for number, unit in found)


def parse_when(text: str, now: float) -> float:
    """Unix seconds of a time in the past, local where no zone is given; raises ConfigError."""
    midnight = (
        datetime.fromtimestamp(now, UTC).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    )
    named = {
        "now": now,
        "today": midnight.timestamp(),
        "yesterday": (midnight - timedelta(days=1)).timestamp(),
    }
    if text in named:
        return named[text]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        pass
    try:
        return now - parse_duration(text.removesuffix(" ago"))
    except ConfigError as error:
        hint = "examples: 2h, yesterday, 2026-11-21, 2026-11-21T23:00"
        raise ConfigError(f"{text!r} is not a time", hint=hint) from error


def clock(at: float, now: float) -> str:
    """Local time, with the date when it is not today's."""
    moment, today = (
        datetime.fromtimestamp(at, UTC).astimezone(),
        datetime.fromtimestamp(now, UTC).astimezone(),
    )
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M}"


def ago(seconds: float) -> str:
    """A duration in one unit, rounded as a person would: "40 s", "12 min", "5 h", "3 d"."""
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def rfc3339(at: float) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
