"""What each peer answers when it is asked which alerts it raised, as one list of alerts.

An alert is raised once, however often it is repeated or made worse until it is cleared.
"""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

INFO = "info"  # raised, but nobody is told
_BAD = {"WARNING": "warning", "CRITICAL": "critical"}
_PRIORITIES = ("emergency", "alert", "critical", "error")
_MONIT = re.compile(r"\[(\S+)\] (\w+) +: (.*)")
_TEST = re.compile(r"'([^']+)' (.+?)(?: of)? (?:[\d.]+\S* |test succeeded|check succeeded|matches )")
OURS = "hauswart"
JOURNAL = "journal"
_MESSAGE_MOST = 300  # characters kept of what an entry says; whose it is stands behind it
_PAUSE_S = 60.0  # without the same entry, then it is a new alert; hauswart's `middle.merge_window_s`


@dataclass(frozen=True)
class Alert:
    """`at` and `cleared_at` are Unix time; `grain_s` is how exactly the peer says it."""

    at: float
    name: str
    severity: str
    text: str  # all that it says of what it is about
    cleared_at: float | None = None
    grain_s: float = 0.0


def netdata(answer: str) -> list[Alert]:
    """Of `/api/v1/alarm_log`: from anything to WARNING or CRITICAL, until it is neither."""
    standing: dict[int, Alert] = {}
    over: list[Alert] = []
    for one in sorted(json.loads(answer), key=lambda one: one["unique_id"]):
        severity, alarm = _BAD.get(one["status"]), one["alarm_id"]
        if severity is None:
            if alarm in standing:
                over.append(replace(standing.pop(alarm), cleared_at=float(one["when"])))
        elif alarm not in standing:
            text = html.unescape(f"{one['name']} {one['chart']} {one['family']}: {one['info']}")
            standing[alarm] = Alert(float(one["when"]), one["name"], severity, text, grain_s=1.0)
        elif severity == "critical":
            standing[alarm] = replace(standing[alarm], severity=severity)
    return _ordered([*over, *standing.values()])


def prometheus(answer: str, interval_s: float) -> list[Alert]:
    """Of the query `ALERTS{alertstate="firing"}` over a range, below the time at which it was asked.

    Each unbroken row of evaluations is an alert. Raises ValueError with what Prometheus complains of.
    """
    asked, _, text = answer.partition("\n")
    found = json.loads(text)
    if found["status"] != "success":
        raise ValueError(f"prometheus: {found.get('error', 'no error given')}")
    alerts = []
    for series in found["data"]["result"]:
        labels = series["metric"]
        said = [labels["alertname"]]
        said += [
            value
            for name, value in sorted(labels.items())
            if name not in {"__name__", "alertname", "alertstate", "severity", "instance", "job"}
        ]
        severity = labels.get("severity", "warning")
        for first, last in _rows([float(at) for at, _ in series["values"]], interval_s):
            cleared = last + interval_s if float(asked) - last > 1.5 * interval_s else None
            alerts.append(Alert(first, labels["alertname"], severity, " ".join(said), cleared))
    return _ordered(alerts)


def _rows(times: list[float], interval_s: float) -> list[tuple[float, float]]:
    """First and last of each row without a gap."""
    rows = [(times[0], times[0])]
    for at in times[1:]:
        first, last = rows[-1]
        if at - last > 1.5 * interval_s:
            rows.append((at, at))
        else:
            rows[-1] = (first, at)
    return rows


def monit(answer: str) -> list[Alert]:
    """Of its log: a line of level error is an alert; of level warning, a cycle that counts towards one."""
    standing: dict[tuple[str, str], Alert] = {}
    over: list[Alert] = []
    for line in answer.splitlines():
        if not (parts := _MONIT.match(line)) or not (test := _TEST.match(parts[3])):
            continue
        at, key = datetime.strptime(parts[1], "%Y-%m-%dT%H:%M:%S%z").timestamp(), (test[1], test[2])
        if parts[2] == "error":
            standing.setdefault(key, Alert(at, test[2], "error", parts[3], grain_s=1.0))
        elif parts[2] == INFO and key in standing:
            over.append(replace(standing.pop(key), cleared_at=at))
    return _ordered([*over, *standing.values()])


def journal(answer: str) -> list[Alert]:
    """Of `journalctl -o json`: each entry is an alert, but for repeated ones and those about hauswart."""
    alerts = []
    for line in answer.splitlines():
        if not line.startswith("{"):
            continue
        entry = json.loads(line)
        units = [_text(entry.get(name)) for name in ("UNIT", "_SYSTEMD_UNIT")]
        if any(one.startswith(OURS) for one in units):
            continue
        name = _text(entry.get("SYSLOG_IDENTIFIER")) or units[1] or "?"
        message = _text(entry.get("MESSAGE"))[:_MESSAGE_MOST]
        text = f"{name}: {message} {' '.join(one for one in units if one)}"
        severity = _PRIORITIES[int(entry["PRIORITY"])]
        alerts.append(Alert(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, name, severity, text))
    return without_repeats(alerts)


def without_repeats(alerts: list[Alert]) -> list[Alert]:
    """Entries of a journal, in order; the same words of the same unit count once until there is a pause."""
    last: dict[str, float] = {}
    kept = []
    for one in _ordered(alerts):
        if one.at - last.get(one.text, -math.inf) > _PAUSE_S:
            kept.append(one)
        last[one.text] = one.at
    return kept


def _text(value: Any) -> str:
    """A field; what is no UTF-8 comes as a list of bytes."""
    if isinstance(value, list):
        numbers = [one for one in value if isinstance(one, int)]
        return bytes(numbers).decode(errors="replace") if len(numbers) == len(value) else " ".join(value)
    return value or ""


def _ordered(alerts: list[Alert]) -> list[Alert]:
    return sorted(alerts, key=lambda one: (one.at, one.name, one.text))
