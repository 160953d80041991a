"""Hauswart beside other watchers in the same runs: who says anything, when, of what, and how often wrongly.

The same rules for all. An alert is a peer's alert, or an incident that hauswart notifies somebody of, first
raised from the injection on; warnings count, what stood before (also if it got worse since) or was never more
than info does not. Hauswart is there twice: as it comes, and with `notify.floor = "error"`, where only what
is worse than a warning counts, from when it is that. What is said of load while others keep the machine busy
is nobody's merit or fault (`verdict.py`), except in a run that is about load. Times are what each says
itself: hauswart's when it notifies, on the observations' time in the replay, the others' when their check was
made.

| figure | what it is |
| --- | --- |
| recall | share of faults with any alert in the window, whatever it says |
| delay | seconds from the effect to the first of them |
| alerts | how many there are in the window of a fault, hauswart's merged incidents included |
| right class | share of faults with an alert of a right class; peers name none |
| culprit | share of faults with one that names a right culprit: hauswart in the first place, peers in any |
| stood before | share of runs in which an alert stood (hauswart's: came) before anything was done |
| false alarms | alerts in benign runs, to the end of the watching, hauswart's merged incidents included |

A peer names a culprit if its name stands in the alert's text to the letter, as a whole word or path, a device
also below /dev. The host has no name that a peer could write: it is nobody's right culprit here, and faults
of which only the host is one are left out of that column.

The window is the scenario's own, and where the runs lingered long enough also 120 and 300 seconds: the stock
checks of others are made for minutes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.lab.answers import INFO, Alert
from tests.lab.said import AMBIENT_CORES, LOAD, Said
from tests.lab.scenario import names
from tests.lab.score import mean, poisson_upper, share, times
from tests.lab.verdict import Verdict

HAUSWART = "hauswart"
ERRORS_ONLY = "hauswart, errors only"
_OURS = (HAUSWART, ERRORS_ONLY)
OWN_WINDOW = "own"
WINDOWS_S = (120.0, 300.0)
_SLACK_S = 1.0  # the clock is read after the waiting
_ABOUT_LOAD = re.compile(
    r"cpu|load|iowait|context.switch|disk.(backlog|utilization|io\b)|(read|write).latency|service.time",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Raised:
    """One alert of anybody."""

    at_s: float
    right_class: bool
    culprit: bool
    merged: bool = False  # one more that was raised; what it says counts for nothing


def compare(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The figures of everybody over the runs that others watched, too; as JSON."""
    runs = [one for one in verdicts if one.accompanied]
    found = {name: _figures(name, runs) for name in _OURS} if runs else {}
    for name in sorted({name for one in runs for name in one.peers}):
        theirs = [one for one in runs if name in one.peers]
        found[name] = _figures(name, theirs)
        if len(theirs) != len(runs):
            found[name]["hauswart_on_same_runs"] = _figures(HAUSWART, theirs)
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    for one in runs:
        for name, reason in one.left_out.items():
            left_out[name][reason] += 1
    dropped: dict[str, dict[str, int]] = defaultdict(dict)
    for one in runs:
        for name, peer in one.peers.items():
            if peer.dropped:
                dropped[name][one.id] = peer.dropped
    reasons = {name: dict(counts) for name, counts in left_out.items()}
    return {"watchers": found, "left_out": reasons, "dropped": dict(dropped)}


def raised(verdict: Verdict, who: str, until_s: float) -> list[Raised]:
    """What counts of what somebody said, in the order of time."""
    began = verdict.span_s[0]
    if who in _OURS:
        told = [
            (at, n, one)
            for n, one in enumerate((*verdict.told, *verdict.later))
            if one.before_s is None
            and (at := one.told_s if who == HAUSWART else one.loud_s) is not None
            and (n < len(verdict.told) or at > verdict.span_s[1])  # what is told later may have opened before
        ]
        counted = sorted(each for each in told if began <= each[0] <= until_s)
        return [_of_hauswart(verdict, one, at) for at, _, one in counted]
    alerts = [one for one in verdict.peers[who].alerts if one.severity != INFO]
    fresh = [one for one in alerts if began < one.at + one.grain_s and one.at <= until_s]
    return [
        Raised(max(began, one.at), right_class=False, culprit=names_culprit(verdict, one.text))
        for one in fresh
        if not _of_others(verdict, one)
    ]


def _stood(verdict: Verdict, who: str) -> bool:
    """Whether somebody had alerted of a host to which nothing had been done; a peer had not taken it back."""
    began = verdict.span_s[0]
    if who in _OURS:
        worse = [one for one in verdict.told if one.before_s is not None]  # since the injection
        if worse and (who == HAUSWART or any(one.loud_s is not None and one.loud_s < began for one in worse)):
            return True
        since = [one.told_s if who == HAUSWART else one.loud_s for one in verdict.before]
        return any(at is not None and at < began for at in since)
    return any(
        one.severity != INFO
        and one.at + one.grain_s <= began
        and (one.cleared_at is None or one.cleared_at > began)
        for one in verdict.peers[who].alerts
    )


def names_culprit(verdict: Verdict, text: str) -> bool:
    """Whether the name of a right culprit stands in a text, as a whole word or path."""
    return any(_stands(label, text) for label in _nameable(verdict))


def _nameable(verdict: Verdict) -> list[str]:
    """The right culprits that have a name: a peer could never win by the host."""
    return [label for label in verdict.right_culprits if label.partition(":")[2]]


def _stands(label: str, text: str) -> bool:
    kind, _, name = label.partition(":")
    folder = "(?:/dev/)?" if kind == "device" else ""
    return re.search(rf"(?<![\w./-]){folder}{re.escape(name)}(?![\w/-]|\.\w)", text) is not None


def _of_hauswart(verdict: Verdict, said: Said, at_s: float) -> Raised:
    named = any(names(label, one) for label in _nameable(verdict) for one in said.culprits[:1])
    return Raised(at_s, verdict.is_right(said), named, said.merged)


def _of_others(verdict: Verdict, alert: Alert) -> bool:
    about_load = bool(LOAD & {verdict.fault_class, *verdict.right_classes})
    busy = verdict.ambient_cores >= AMBIENT_CORES
    return busy and not about_load and _ABOUT_LOAD.search(alert.name) is not None


def _figures(who: str, runs: Sequence[Verdict]) -> dict[str, Any]:
    faults = [one for one in runs if not one.benign]
    windows = {OWN_WINDOW: _window(who, faults, None)}
    for seconds in WINDOWS_S:
        long = [one for one in faults if one.lingered_s >= seconds - _SLACK_S]
        if long:
            windows[f"{seconds:.0f} s"] = _window(who, long, seconds)
    own = [one.peers[who] for one in runs] if who not in _OURS else []
    costs = {
        name: median(values)
        if (values := [v for one in own if (v := getattr(one, name)) is not None])
        else None
        for name in ("cpu_s", "pss_bytes")
    }
    return {
        "names_class": who in _OURS,
        "versions": sorted({one.version for one in own}),
        "runs": len(runs),
        "windows": windows,
        "false_alarms": _false_alarms(who, [one for one in runs if one.benign]),
        "stood_before": asdict(share(runs, lambda one: _stood(one, who))),
        "median_cost": costs,
    }


def _window(who: str, faults: Sequence[Verdict], seconds: float | None) -> dict[str, Any]:
    def told(one: Verdict) -> list[Raised]:
        return raised(one, who, one.span_s[1] if seconds is None else seconds)

    def said(one: Verdict) -> list[Raised]:
        return [each for each in told(one) if not each.merged]

    nameable = [one for one in faults if _nameable(one)]
    each_told = [(one, said(one)) for one in faults]
    first = [(fault.scenario, min(each.at_s for each in one)) for fault, one in each_told if one]
    rights = [(fault.scenario, [each.at_s for each in one if each.right_class]) for fault, one in each_told]
    figures = {
        "recall": share(faults, lambda one: bool(said(one))),
        "alerts": mean(faults, lambda one: len(told(one))),
        "right_class": share(faults, lambda one: any(each.right_class for each in said(one))),
        "culprit": share(nameable, lambda one: any(each.culprit for each in said(one))),
    }
    return {
        **{name: asdict(figure) for name, figure in figures.items()},
        "delay_s": times(first),
        "right_delay_s": times((scenario, min(at_s)) for scenario, at_s in rights if at_s),
    }


def _false_alarms(who: str, benign: Sequence[Verdict]) -> dict[str, Any]:
    """`upper_an_hour` is the 95 % limit that this little time leaves (Poisson)."""
    ends = [max(one.span_s[1], one.lingered_s) for one in benign]
    said = [raised(one, who, end) for one, end in zip(benign, ends, strict=True)]
    hours = sum(end - one.span_s[0] for one, end in zip(benign, ends, strict=True)) / 3600
    count = sum(map(len, said))
    return {
        "runs": len(benign),
        "quiet_runs": sum(not one for one in said),
        "host_hours": round(hours, 3),
        "alerts": count,
        "an_hour": count / hours if hours else None,
        "upper_an_hour": poisson_upper(count) / hours if hours else None,
    }
