"""Continuing conditions: reported when they begin, worsen, every 30 s while they last, and once when over.

Knows nothing about what a condition means. One instance per judge; every part of the low tier that reports
something that lasts goes through it, so that the tier above always sees the same life cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from daemon.messages import Evidence, Finding, Stamp, Subject
from daemon.tiers.habits import Bursts
from models.digest import blake2b
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity

REPEAT_S = 30.0  # the findings' convention (PROTOCOL.md)
GRACE_S = 2.0  # a sample or two below the threshold do not restart a sustain time,
MISSES = 0.25  # unless they are more than a quarter of those above it
GROWN = 2.0  # times the size that was told last
SPEAKS = 0.3  # a line that hints at less is an oddity; nobody should be shown it as the reason
CONDITIONS_MAX = 1024  # a host has a few at a time; hostile names must not grow this without end
WORDINGS_MAX = 8  # of one condition, where somebody reads them
COMPARED_MAX = 20  # a second, of one condition: a flood mostly repeats itself
RULE_SHARE = 8  # of the latter half one rule has an eighth of all, so that what names strangers leaves room


class Breach(NamedTuple):
    """One condition as it holds now; `label` tells several conditions of one rule apart.

    `sustain_s` and `sustain_n` are how long and in how many readings it must hold before it is reported,
    `clear_s` how long it must be gone before it is over, `once` that it is never repeated. A condition whose
    `size` has doubled is reported at once. `since` is the wall time at which it began, if that was earlier
    than the first breach. `speaks` is for which classes a line may be quoted, where its hints do not say so.
    `words`: it is what a program wrote, and nothing else.
    """

    rule: str
    label: str
    severity: Severity
    score: float
    subjects: Sequence[Subject]
    hints: Mapping[FaultClass, float]
    text: str
    values: Mapping[str, float]
    ref: str = ""
    kind: Literal["line", "metric", "event", "snapshot"] = "metric"
    sustain_s: float = 0.0
    sustain_n: int = 1
    clear_s: float = 10.0
    stale_s: float = 90.0
    once: bool = False
    category: Category | None = None
    size: float = 0.0
    since: float | None = None
    path: Literal["baseline", "model"] = "baseline"
    speaks: Mapping[FaultClass, float] | None = None
    words: bool = False


WEAK = 0.3  # a hint that opens nothing, and supports little


def finding_id(rule: str, subject: str, at: Stamp, salt: str = "") -> str:
    """Twelve hexadecimal digits that a replay of the same observation gives again."""
    text = f"{rule}\0{subject}\0{at.boot}\0{at.mono!r}\0{salt}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


class _Condition:
    __slots__ = (
        "breach",
        "compared",
        "compared_t",
        "held_t",
        "held_wall",
        "misses",
        "readings",
        "reported",
        "reported_t",
        "since_t",
        "since_wall",
        "strong",
        "wordings",
    )

    def __init__(self, breach: Breach, t: float, wall: float) -> None:
        self.breach = breach
        self.strong = not _is_weak(breach)
        self.since_t = self.held_t = t
        self.since_wall = self.held_wall = wall
        self.readings = 0
        self.misses = 0
        self.reported: Severity | None = None
        self.reported_t = t
        self.wordings: set[str] = set()  # masked
        self.compared, self.compared_t = 0, t


def _is_weak(breach: Breach) -> bool:
    return max(breach.hints.values(), default=0.0) <= WEAK


class Conditions:
    """The conditions that hold now, by rule and label.

    `read`: somebody reads what programs write, so that other words of one condition are reported, too.
    """

    def __init__(self, limit: int = CONDITIONS_MAX, *, read: bool = False) -> None:
        self._limit, self._is_read = limit, read
        self._held: dict[tuple[str, str], _Condition] = {}
        self._rules: Counter[str] = Counter()  # how many of them hinted at something, by rule
        self.dropped = 0  # conditions not tracked because of the limit
        self.bursts = Bursts()

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, rule: str, label: str) -> bool:
        """Whether this condition is pending or open."""
        return (rule, label) in self._held

    def opened(self, rule: str, label: str) -> bool:
        """Whether this condition was reported and is not over; thresholds use it for their hysteresis."""
        condition = self._held.get((rule, label))
        return condition is not None and condition.reported is not None

    def held_s(self, rule: str, label: str, t: float) -> float:
        """For how long this condition has held, 0 if it does not."""
        condition = self._held.get((rule, label))
        return t - condition.since_t if condition else 0.0

    def subject(self, rule: str, label: str) -> Subject | None:
        """Whom the last report of this condition blamed first."""
        condition = self._held.get((rule, label))
        return condition.breach.subjects[0] if condition and condition.reported else None

    def hold(self, breach: Breach, at: Stamp, t: float) -> list[Finding]:
        """The condition holds at `t`; the findings that are due now."""
        condition = self._held.get((breach.rule, breach.label))
        if condition is not None:
            return self._hold(condition, breach, at, t)
        if not self._room(breach):
            self.dropped += 1
            return []
        over = self._give_way(at) if len(self._held) >= self._limit else []
        condition = self._held[breach.rule, breach.label] = _Condition(breach, t, at.wall)
        self._rules[breach.rule] += condition.strong
        return self._hold(condition, breach, at, t) + over

    def _hold(self, condition: _Condition, breach: Breach, at: Stamp, t: float) -> list[Finding]:
        condition.held_t, condition.held_wall = t, at.wall
        condition.readings += 1
        if condition.reported is None:
            condition.breach = breach
            if t - condition.since_t < breach.sustain_s or condition.readings < breach.sustain_n:
                return []
            return [self._report(condition, breach, at, t)]
        return self._continue(condition, breach, at, t)

    def _room(self, breach: Breach) -> bool:
        """Whether one more can be held; what hints at nothing has half of it, and gives way to what does.

        Anybody can be new in many ways, or come from many addresses, and must not keep the kernel from being
        heard; so beyond that half one rule has its share.
        """
        if len(self._held) < self._limit // 2:
            return True
        if _is_weak(breach):
            weak = sum(_is_weak(one.breach) for one in self._held.values())
            return weak < self._limit // 2 and len(self._held) < self._limit
        return self._rules[breach.rule] < self._limit // RULE_SHARE

    def _give_way(self, at: Stamp) -> list[Finding]:
        """End one: what hints at nothing, else what was not heard of for longest where there is most."""
        place = next((key for key, one in self._held.items() if _is_weak(one.breach)), None)
        if place is None:
            ((most, _),) = Counter(rule for rule, _ in self._held).most_common(1)
            place = min((key for key in self._held if key[0] == most), key=lambda key: self._held[key].held_t)
        return self.end(*place, at)

    def _forget(self, rule: str, label: str) -> _Condition | None:
        condition = self._held.pop((rule, label), None)
        if condition is not None:
            self._rules[rule] -= condition.strong
        return condition

    def retell(self, breach: Breach, at: Stamp, t: float) -> list[Finding]:
        """Say once more, with what is known now, what was reported; that does not make it last longer."""
        condition = self._held.get((breach.rule, breach.label))
        if condition is None or condition.reported is None:
            return []
        return [self._report(condition, breach, at, t)]

    def clear(self, rule: str, label: str, at: Stamp, t: float) -> list[Finding]:
        """The condition does not hold at `t`; its end if it has been gone for long enough."""
        condition = self._held.get((rule, label))
        if condition is None:
            return []
        gone_s = t - condition.held_t
        if condition.reported is None:
            condition.misses += 1
            if gone_s > GRACE_S or condition.misses > MISSES * condition.readings:
                self._forget(rule, label)
                self._learn(condition, t)
            return []
        if gone_s < condition.breach.clear_s:
            return []
        self._learn(condition, t)
        return self.end(rule, label, at)

    def _learn(self, condition: _Condition, t: float) -> None:
        """How long something of the host as a whole lasted, whether it was reported or not."""
        if not condition.breach.label:
            self.bursts.over(condition.breach.rule, condition.held_t - condition.since_t, t)

    def end(self, rule: str, label: str, at: Stamp) -> list[Finding]:
        """The condition is over, whatever its `clear_s` says."""
        condition = self._forget(rule, label)
        if condition is None or condition.reported is None:
            return []
        return [_finding(condition, condition.breach, at, ended=True)]

    def sweep(self, at: Stamp, t: float) -> list[Finding]:
        """End what nobody has spoken of for its `stale_s`: its metric or its process is gone."""
        stale = [key for key, held in self._held.items() if t - held.held_t > held.breach.stale_s]
        return [finding for rule, label in stale for finding in self.end(rule, label, at)]

    def _report(self, condition: _Condition, breach: Breach, at: Stamp, t: float) -> Finding:
        condition.breach, condition.reported, condition.reported_t = breach, breach.severity, t
        if self._is_read and breach.words and len(condition.wordings) < WORDINGS_MAX:
            condition.wordings.add(mask(breach.text))
        return _finding(condition, breach, at)

    def _continue(self, condition: _Condition, breach: Breach, at: Stamp, t: float) -> list[Finding]:
        assert condition.reported is not None
        worse = breach.severity.rank > condition.reported.rank
        due = t - condition.reported_t >= REPEAT_S and not breach.once
        grown = breach.size >= GROWN * condition.breach.size > 0.0
        before = condition.breach.subjects[0]
        breach = breach._replace(subjects=_stay(before, breach.subjects))
        now = breach.subjects[0]
        moved = (before.kind, before.name) != (now.kind, now.name)
        told = worse or due or grown or (moved and before.name == "")
        if not (told or self._otherwise(condition, breach, t)):
            return []
        over = [_finding(condition, condition.breach, at, ended=True)] if moved else []
        return [*over, self._report(condition, breach, at, t)]

    def _otherwise(self, condition: _Condition, breach: Breach, t: float) -> bool:
        """Whether a program says it in words that were not reported."""
        if not (self._is_read and breach.words) or len(condition.wordings) >= WORDINGS_MAX:
            return False
        if t - condition.compared_t >= 1.0:
            condition.compared, condition.compared_t = 0, t
        condition.compared += 1
        return condition.compared <= COMPARED_MAX and mask(breach.text) not in condition.wordings


def _stay(before: Subject, subjects: Sequence[Subject]) -> list[Subject]:
    """The same subjects, led by the one blamed before while it still bears part of the blame."""
    same = [s for s in subjects if (s.kind, s.name) == (before.kind, before.name) and s.score >= 0.3]
    return [*same, *(s for s in subjects if s not in same)]


def _finding(condition: _Condition, breach: Breach, at: Stamp, *, ended: bool = False) -> Finding:
    subject = breach.subjects[0]
    salt = "\0".join((breach.label, breach.severity, f"{breach.size:g}", "ended" if ended else ""))
    salt += "\0model" if breach.path == "model" else ""  # told at one instant by both, these are two findings
    number = finding_id(breach.rule, f"{subject.kind}\0{subject.name}", at, salt)
    hints = dict(breach.hints)
    evidence = Evidence(
        id=f"{number}-1",
        kind=breach.kind,
        ref=breach.ref[:512],
        start=condition.since_wall if breach.since is None else min(breach.since, condition.held_wall),
        end=condition.held_wall,
        text=breach.text[:2048],
        values=dict(breach.values),
        speaks_for=_spoken(breach) if breach.kind == "line" else {},
    )
    main = max(hints, key=lambda fault: hints[fault]) if hints else FaultClass.UNKNOWN
    return Finding(
        id=number,
        at=at,
        rule=breach.rule,
        category=breach.category or main.category,
        severity=breach.severity,
        score=breach.score,
        subjects=list(breach.subjects)[:32],
        hints=hints,
        evidence=[evidence],
        ended=ended,
        path=breach.path,
        words=breach.words,
    )


def _spoken(breach: Breach) -> dict[FaultClass, float]:
    if breach.speaks is not None:
        return dict(breach.speaks)
    weights = {fault: round(hint * breach.score, 3) for fault, hint in breach.hints.items()}
    return {fault: weight for fault, weight in weights.items() if weight >= SPEAKS}
