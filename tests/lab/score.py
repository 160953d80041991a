"""Figures over many runs, each with the interval that another choice of mechanisms would give.

The unit is the mechanism: its runs are averaged first, so that many parameters do not count for much.
Intervals are 95 % bootstrap intervals over mechanisms; where there are fewer than two, there is none. Where
all agree, choosing among them again tells nothing: a share of none or all has the exact limits of a binomial
share (Clopper and Pearson 1934) instead, precision those of as many mechanisms as said anything, any other
figure none.
What hauswart said live about itself (a stage fell silent, dropped something or died) is an incident like any
other, and never a right one. An incident that became part of another one counts among all opened (precision)
and as a false alarm, and is never a right one either; the other one is as loud from then on, and counts, too.

| figure | what it is |
| --- | --- |
| recall | share of faults with an incident of a right class, opened and notified of until the window's end |
| own class | the same, if only the class that its scenario stands in is right, none that `also` accepts |
| noticed | recall, if a right culprit in the first place is enough |
| class accuracy | recalled, of those that were noticed |
| precision | right incidents, of all opened (notified of or not) in the window, benign runs included |
| culprit in 1, in 3 | a right culprit in the first, in the first three places, of the recalled |
| severity | a right severity, of the recalled |
| exactly one | the right incident is left and no other, of all faults; one that became part of it is none |
| noticed once | exactly one, if a right culprit in the first place is enough |
| told | seconds from the effect until notifying begins: words may have to be read first |
| delay | seconds from the effect, by the lab's own probe, to the right incident, on the observations' time |
| named | seconds from the effect until the right incident has a right class for good |
| incidents | how many were opened in a fault's window, those too that became part of another one |
| quiet | share of benign runs with nothing above warning |
| false alarms a day | incidents above warning in benign runs, for a day's length |
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tests.lab.verdict import CULPRITS, Verdict

SAMPLES = 2000
DAY_S = 86400.0
TAIL = 0.025  # on each side of a 95 % interval


@dataclass(frozen=True)
class Figure:
    """A value with its interval, and of how many mechanisms and runs it was made."""

    value: float | None
    low: float | None
    high: float | None
    mechanisms: int
    runs: int


@dataclass(frozen=True)
class Coverage:
    """What the figures were to be of, and why some of it is not in them."""

    scenarios: Sequence[str] | None = None  # names of those that were asked for, where that is known
    left_out: Mapping[str, str] = field(default_factory=dict)  # recorded runs that cannot be scored, and why
    asked: int | None = None  # questions to whoever reads meanwhile; None if nobody does
    unanswered: int = 0  # of them; the replay went on as if nothing were wrong

    def document(self, scored: Sequence[Verdict], every: Sequence[Verdict]) -> dict[str, Any]:
        """As JSON: `scored` are the runs that the figures are of, `every` all that were replayed."""
        there = {one.scenario for one in scored}
        known = there | {run.rpartition("/")[0] for run in self.left_out}
        beside = {one.scenario for one in every} - known
        reasons = {
            "not recorded": sorted(set(self.scenarios or ()) - known - beside),
            "recorded only beside others": sorted(beside),
        }
        for run, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(run)
        return {
            "scenarios": None if self.scenarios is None else len(self.scenarios),
            "scored": len(there),
            "left_out": {reason: found for reason, found in reasons.items() if found},
            "lossy": {one.id: lost for one in every if (lost := _more_than_none(one.losses))},
            "damaged": {one.id: one.damage for one in every if one.damage},
            "asked": self.asked,
            "unanswered": None if self.asked is None else self.unanswered,
        }


def _more_than_none(losses: Mapping[str, float]) -> dict[str, float]:
    return {name: count for name, count in losses.items() if count}


def figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All figures over these runs, as JSON; what nothing was measured for is None."""
    faults = [one for one in verdicts if not one.benign]
    benign = [one for one in verdicts if one.benign]
    recalled = [one for one in faults if one.right]
    noticed = [one for one in faults if one.noticed]
    found = {
        "recall": share(faults, lambda one: one.right is not None),
        "own_class": share(faults, lambda one: one.called_its_own),
        "noticed": share(faults, lambda one: one.noticed),
        "class_accuracy": share(noticed, lambda one: one.right is not None),
        "precision": precision(verdicts),
        "culprit_1": share(recalled, lambda one: _blames(one, 1)),
        "culprit_3": share(recalled, lambda one: _blames(one, CULPRITS)),
        "severity": share(recalled, lambda one: one.severity_right),
        "exactly_one": share(faults, lambda one: one.exactly_one),
        "noticed_once": share(faults, lambda one: one.noticed_once),
        "quiet": share(benign, lambda one: not any(said.loud for said in one.told)),
    }
    rights = [(one.scenario, one.right) for one in recalled if one.right]
    delays = [(scenario, one.opened_s) for scenario, one in rights]
    named = [(one.scenario, one.named_s) for one in recalled if one.named_s is not None]
    told = [(scenario, one.told_s) for scenario, one in rights if one.told_s is not None]
    return {
        **{name: asdict(figure) for name, figure in found.items()},
        "incidents": asdict(mean(faults, lambda one: len(one.during) + one.merged)),
        "delay_s": times(delays),
        "named_s": times(named),
        "told_s": times(told),
        "false_alarms": _false_alarms(benign),
        "advice": {
            "checked": sum(one.advice_checked for one in verdicts),
            "violations": sum(len(one.advice_violations) for one in verdicts),
        },
        "replay": {
            "runs": len(verdicts),
            "same_twice": _if_known(one.same_twice for one in verdicts),
            "same_as_live": sum(one.same_as_live for one in verdicts),
        },
    }


def _if_known(found: Iterable[bool | None]) -> int | None:
    """How many hold; None if it was not tried."""
    tried = list(found)
    return None if None in tried else sum(map(bool, tried))


def times(found: Iterable[tuple[str, float]]) -> dict[str, float | int | None]:
    """How long it took, of how many, with intervals; what came before its effect came at once.

    Of pairs of a mechanism and seconds.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for mechanism, seconds in found:
        groups[mechanism].append(max(0.0, seconds))

    def part_of(sample: Sequence[Sequence[float]], part: float) -> float | None:
        return percentile(sorted(one for group in sample for one in group), part)

    every = list(groups.values())
    result: dict[str, float | int | None] = {"n": sum(map(len, every))}
    for name, part in (("p50", 0.5), ("p95", 0.95)):
        result[name] = part_of(every, part)
        limits = interval(every, lambda sample, part=part: part_of(sample, part) or 0.0)
        result[f"{name}_low"], result[f"{name}_high"] = limits
    return result


def by_class(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Any]]:
    """The figures of each class."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        groups[one.fault_class].append(one)
    return {name: figures(group) for name, group in sorted(groups.items())}


def share(verdicts: Sequence[Verdict], holds: Callable[[Verdict], bool]) -> Figure:
    """Of how many mechanisms it holds, on average."""
    found = mean(verdicts, holds)
    return _with_limits(found, found.mechanisms)


def mean(verdicts: Sequence[Verdict], count: Callable[[Verdict], float]) -> Figure:
    """How many there are in a run, on average over mechanisms."""
    rates = [sum(map(count, group)) / len(group) for group in _mechanisms(verdicts)]
    low, high = interval(rates, lambda sample: sum(sample) / len(sample))
    return Figure(sum(rates) / len(rates) if rates else None, low, high, len(rates), len(verdicts))


def _with_limits(found: Figure, units: int) -> Figure:
    """A share of so many units; if it is none or all, with the exact limits."""
    if units < 2 or found.value not in {0.0, 1.0}:
        return found
    least = TAIL ** (1 / units)
    low, high = (least, 1.0) if found.value else (0.0, 1.0 - least)
    return replace(found, low=low, high=high)


def precision(verdicts: Sequence[Verdict]) -> Figure:
    """Right incidents of all; a second one of a right class is right, too (`exactly_one` counts it).

    One that became part of another one is only among all: that it was opened for itself was no merit.
    """
    counts = []
    for group in _mechanisms(verdicts):
        right = sum(one.is_right(incident) for one in group for incident in one.during)
        counts.append((right / len(group), sum(len(one.told) for one in group) / len(group)))

    def ratio(sample: Sequence[tuple[float, float]]) -> float:
        total = sum(of for _, of in sample)
        return sum(right for right, _ in sample) / total if total else math.nan

    low, high = interval(counts, ratio)
    value = ratio(counts) if counts else math.nan
    found = Figure(None if math.isnan(value) else value, low, high, len(counts), len(verdicts))
    return _with_limits(found, sum(of > 0.0 for _, of in counts))


def interval(
    values: Sequence[Any], statistic: Callable[[Sequence[Any]], float]
) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval, the same every time; none for fewer than two values, or if all agree."""
    if len(values) < 2:
        return None, None
    choose = random.Random(20261127)
    drawn = (statistic(choose.choices(values, k=len(values))) for _ in range(SAMPLES))
    sampled = sorted(one for one in drawn if not math.isnan(one))
    if not sampled or sampled[0] == sampled[-1]:
        return None, None
    return percentile(sampled, TAIL), percentile(sampled, 1.0 - TAIL)


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The smallest value that at least this part of the values does not exceed; None without values."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


def _blames(verdict: Verdict, places: int) -> bool:
    return verdict.right is not None and verdict.blames(verdict.right, places)


def _mechanisms(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        groups[one.scenario].append(one)
    return list(groups.values())


def _false_alarms(benign: Sequence[Verdict]) -> dict[str, float | None]:
    """What benign runs gave; `upper_a_day` is the 95 % limit that this little time leaves (Poisson)."""
    watched_s = sum(one.span_s[1] - one.span_s[0] for one in benign)
    loud = sum(said.loud for one in benign for said in one.told)
    every = sum(len(one.told) for one in benign)
    told = sum(said.told_s is not None for one in benign for said in one.told)
    days = watched_s / DAY_S
    return {
        "host_hours": round(watched_s / 3600, 3),
        "above_warning": loud,
        "incidents": every,
        "told": told,
        "a_day": loud / days if days else None,
        "upper_a_day": poisson_upper(loud) / days if days else None,
    }


def poisson_upper(count: int) -> float:
    """The mean of which so few events are as improbable as 2.5 %, by halving the interval."""
    low, high = 0.0, 10.0 + 5.0 * count
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) for k in range(count + 1))
        low, high = (middle, high) if below > TAIL else (low, middle)
    return high
