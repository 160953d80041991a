"""A situation: conditions that belong together, before and while they are an incident.

Holds the bounded state of one group of findings. What it adds up to is derived in `verdicts`; which
finding belongs to it is decided in `grouping`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from daemon.incidents.context import Weighing, weak
from daemon.incidents.looks import Look, noted
from daemon.incidents.looks import joined as one_look
from daemon.messages import Evidence, Finding, Incident
from daemon.subjects import Key, key, split_pid
from models.digest import blake2b
from models.taxonomy import FaultClass

CONDITIONS_MAX = 48  # a situation with more kinds of trouble than this is not understood better by a 49th
EVIDENCE_PER_CONDITION = 6  # the first ones, the strongest, the latest
IDS_MAX = 256  # the first and the latest are kept
ACTIVE_MAX = 64
SUBJECTS_PER_FINDING = 8
OCCURRENCES_TOLD = 3  # the third makes a loop of crashes; more of them are a matter of counts
_CRASH_APART_S = 0.05  # two crashes of one program without a pid are told apart by their time
_STATISTICS = frozenset({"level", "shift", "forecast", "residual"})

SUBJECTS_MAX = 12  # conditions of one rule; a flood from a thousand addresses is one condition more
MANY: Key = ("many", "")  # in place of the subject of what came after them
RESTORED = "restored"  # the rule of the condition that stands in for all findings before a restart

ConditionKey = tuple[str, Key]


def condition_key(finding: Finding) -> ConditionKey:
    """A condition is its rule and its first subject; pids are left out, so that a program crashes again."""
    return (finding.rule, key(finding.subjects[0]) if finding.subjects else ("host", ""))


def family(rule: str) -> str:
    """Rules that see the same thing: the detectors of one metric, or all statistics of log lines."""
    head, _, tail = rule.rpartition(".")
    return head if tail in _STATISTICS or head == "line" else rule


class Opinion(NamedTuple):
    """What a model said of a situation, as far as it is used; it holds while the baseline says one of `of`.

    None where the model was not sure or agrees.
    """

    of: frozenset[FaultClass]
    fault_class: FaultClass | None
    culprit: Key | None


class Blamed(NamedTuple):
    """A subject's share of the blame, its full name, and whether that name (with its pid) is the only one."""

    score: float
    name: str
    single: bool


@dataclass(slots=True)
class Condition:
    """One rule's findings about one subject."""

    finding: Finding  # the strongest so far
    first_t: float
    last_t: float
    weak: bool
    count: int = 0
    happened: int = 0  # distinct occurrences: other pid or other time
    ended_t: float | None = None
    active: set[str] = field(default_factory=set)  # full names (with pid) for which it has not ended
    evidence: list[Evidence] = field(default_factory=list)
    strongest: str = ""  # id of the strongest evidence
    last_pid: int = 0
    last_began: float = 0.0
    subjects: dict[Key, Blamed] = field(default_factory=dict)
    weighing: Weighing | None = None  # the least excusing one so far
    words: bool = True  # nothing of it but what a program wrote
    risen_wall: float = 0.0  # since when it is as bad as that
    risen_t: float = 0.0

    def add(self, finding: Finding, t: float) -> bool:
        """Take one more finding; True if the condition became stronger, or came back."""
        name = finding.subjects[0].name if finding.subjects else ""
        back = self.ended_t is not None
        again = self._happen(split_pid(name)[1], began_at(finding))
        self.count, self.last_t, self.ended_t = self.count + 1, max(t, self.last_t), None
        if len(self.active) < ACTIVE_MAX:
            self.active.add(name)
        stronger = self.count > 1 and _strength(finding) > _strength(self.finding)
        if self.count == 1 or (stronger and finding.severity.rank > self.finding.severity.rank):
            self.risen_wall, self.risen_t = finding.at.wall, t
        if stronger or self.count == 1:
            self.finding, self.weak = finding, weak(finding)
        self.words = self.words and (finding.words or weak(finding))
        for subject in finding.subjects[:SUBJECTS_PER_FINDING]:
            self._blame(key(subject), Blamed(subject.score, subject.name, single=True))
        for one in finding.evidence[:2]:
            self._keep(one, strongest=stronger or self.count == 1)
        return stronger or back or again

    def end(self, finding: Finding, t: float) -> None:
        """The condition is over for the finding's first subject."""
        self.active.discard(finding.subjects[0].name if finding.subjects else "")
        if not self.active:
            self.ended_t = t

    def _happen(self, pid: int, began: float) -> bool:
        """Tell one more occurrence from one more report of the same one; True while each of them is news."""
        same = pid == self.last_pid if pid and self.last_pid else began - self.last_began < _CRASH_APART_S
        self.last_pid, self.last_began = pid, began
        if same and self.count > 0:
            return False
        self.happened += 1
        return self.happened <= OCCURRENCES_TOLD

    def _blame(self, who: Key, blamed: Blamed) -> None:
        known = self.subjects.get(who)
        if known is not None:
            single = known.single and blamed.single and known.name == blamed.name
            blamed = Blamed(max(known.score, blamed.score), known.name, single)
        if known is not None or len(self.subjects) < ACTIVE_MAX:
            self.subjects[who] = blamed

    def _keep(self, evidence: Evidence, *, strongest: bool) -> None:
        if any(one.text == evidence.text for one in self.evidence):
            return
        if strongest or not self.strongest:
            self.strongest = evidence.id
        if len(self.evidence) >= EVIDENCE_PER_CONDITION:
            later = range(EVIDENCE_PER_CONDITION // 2, len(self.evidence))
            del self.evidence[next((i for i in later if self.evidence[i].id != self.strongest), later.start)]
        self.evidence.append(evidence)


def _strength(finding: Finding) -> tuple[int, float, float]:
    return (finding.severity.rank, finding.score, max(finding.hints.values(), default=0.0))


@dataclass(slots=True)
class Situation:
    """Conditions with one cause, and the incident they became (None while they are not one)."""

    id: str
    boot: str
    first_t: float
    first_wall: float
    last_t: float
    stage: bool  # about hauswart itself
    conditions: dict[ConditionKey, Condition] = field(default_factory=dict)
    incident: Incident | None = None
    ids: dict[str, None] = field(default_factory=dict)
    count: int = 0
    strong_t: float | None = None  # first strong finding
    closed_t: float | None = None
    reopened: int = 0
    back: Evidence | None = None  # says that it came back
    restored_t: float | None = None
    told_t: float = 0.0  # when the last revision was made
    told_s: float = 0.0  # how long to wait before mere counts are told again
    told_rules: int = 0  # how many kinds of evidence were told
    over_t: float | None = None  # since when none of its strong conditions holds
    ripe: bool = False  # believed, only not for long enough yet
    idle: bool = False  # not believed, and only new evidence can change that
    stale: bool = True  # the derived verdict has to be made again
    opinion: Opinion | None = None  # what a model said of it
    review: Opinion | None = None  # what somebody said who read it, which goes before that
    reviewed: Evidence | None = None  # says so
    looked: Look | None = None  # what came of that look
    doubt_t: float | None = None  # until when it is doubted, if it is
    held_until: float = 0.0  # until when it waits for its first look
    curious: bool = False  # it was told anew, and a model may know better
    asked: str = ""  # what a model was asked last

    @property
    def open(self) -> bool:
        """Whether it is an open incident."""
        return self.incident is not None and self.incident.state == "open"

    def add(self, finding: Finding, t: float) -> bool:
        """Take a finding; True if it says something new (not just that it goes on)."""
        self._count(finding.id)
        where = self._slot(finding)
        condition = self.conditions.get(where)
        fresh = condition is None
        if condition is None:
            self._make_room()
            condition = self.conditions[where] = Condition(finding, t, t, weak(finding))
        news = condition.add(finding, t) or fresh
        if not condition.weak:
            self.last_t = max(self.last_t, t)
            self.strong_t = t if self.strong_t is None else self.strong_t
            self.over_t = None
            self._supersede()
        self.first_t, self.first_wall = min(self.first_t, t), min(self.first_wall, began_at(finding))
        before = self.looked
        if before is not None and not weak(finding):
            self.looked = noted(before, finding, finding.evidence[:2], t)
        grows = before is not None and bool(before.sizes) and not finding.words  # it may be twice as much
        self.stale = self.stale or news or grows or self.looked != before
        return news

    def end(self, finding: Finding, t: float) -> bool:
        """Take an `ended` finding; True if it ended a condition of this situation."""
        condition = self.conditions.get(self._slot(finding))
        if condition is None or condition.ended_t is not None:
            return False
        self._count(finding.id)
        condition.end(finding, t)
        self.find_over()
        return True

    def end_restored(self, finding: Finding, t: float) -> None:
        """An `ended` finding about a subject known from before a restart ends what stood in for it."""
        condition = self._stand_in()
        if condition is not None and finding.subjects and key(finding.subjects[0]) in condition.subjects:
            condition.ended_t = t
            self.find_over()

    def absorb(self, other: Situation) -> None:
        """Take over everything another situation knows."""
        for where, theirs in other.conditions.items():
            mine = self.conditions.get(where)
            self.conditions[where] = theirs if mine is None else joined(mine, theirs)
        while len(self.conditions) > CONDITIONS_MAX:
            self._make_room()
        for one in other.ids:
            self._remember(one)
        self.count += other.count
        self.stage = self.stage or other.stage
        if self.review is None:
            self.review, self.reviewed = other.review, other.reviewed or self.reviewed
        self.looked = one_look(self.looked, other.looked)
        for condition in self.strong():
            if self.looked is not None:
                self.looked = noted(self.looked, condition.finding, condition.evidence, condition.first_t)
        self.first_t = min(self.first_t, other.first_t)
        self.first_wall = min(self.first_wall, other.first_wall)
        self.last_t = max(self.last_t, other.last_t)
        starts = [t for t in (self.strong_t, other.strong_t) if t is not None]
        self.strong_t = min(starts, default=None)
        self.find_over()
        self.stale = True

    def strong(self) -> Iterator[Condition]:
        """The conditions that could make an incident."""
        return (one for one in self.conditions.values() if not one.weak)

    def speak(self, names: Collection[str], fault: FaultClass, hint: float) -> None:
        """Somebody who read it says that these pieces of evidence speak for a class."""
        for condition in self.conditions.values():
            condition.evidence = [
                replace(one, speaks_for=one.speaks_for | {fault: hint}) if one.id in names else one
                for one in condition.evidence
            ]

    @property
    def rules(self) -> int:
        """How many kinds of strong evidence it has."""
        return len({one.finding.rule for one in self.strong()})

    def close(self, t: float) -> None:
        """Nothing of it holds any more; what comes back begins anew."""
        self.closed_t = self.over_t = t
        for condition in self.conditions.values():
            condition.ended_t = t if condition.ended_t is None else condition.ended_t
            condition.active.clear()

    def find_over(self) -> None:
        """Work out since when none of its strong conditions holds, if so."""
        ends = [one.ended_t for one in self.strong()]
        self.over_t = None if None in ends else max((end for end in ends if end is not None), default=None)

    def _slot(self, finding: Finding) -> ConditionKey:
        """Where a finding is kept: with its subject, or with all others once a rule names very many."""
        where = condition_key(finding)
        if where in self.conditions:
            return where
        many = (finding.rule, MANY)
        if many in self.conditions:
            return many
        return many if sum(rule == finding.rule for rule, _ in self.conditions) >= SUBJECTS_MAX else where

    def _stand_in(self) -> Condition | None:
        if self.restored_t is None:
            return None
        found = (one for (rule, _), one in self.conditions.items() if rule == RESTORED)
        return next(found, None)

    def _supersede(self) -> None:
        condition = self._stand_in()
        if condition is not None and condition.ended_t is None:
            condition.ended_t = condition.last_t

    def _count(self, finding_id: str) -> None:
        self.count += 1
        self._remember(finding_id)

    def _remember(self, finding_id: str) -> None:
        self.ids[finding_id] = None
        if len(self.ids) > IDS_MAX:
            names = list(self.ids)
            half = IDS_MAX // 2
            self.ids = dict.fromkeys(names[:half] + names[-half // 2 :])

    def _make_room(self) -> None:
        if len(self.conditions) >= CONDITIONS_MAX:
            conditions = self.conditions
            del conditions[min(conditions, key=lambda one: _worth(conditions[one]))]


def _worth(condition: Condition) -> tuple[bool, bool, int, float, float]:
    finding = condition.finding
    return (
        not condition.weak,
        condition.ended_t is None,
        finding.severity.rank,
        finding.score,
        -condition.first_t,
    )


def joined(one: Condition, other: Condition) -> Condition:
    """Two records of one condition as one."""
    first, later = (one, other) if one.first_t <= other.first_t else (other, one)
    strongest = max(first, later, key=lambda each: _strength(each.finding))
    both = Condition(strongest.finding, first.first_t, max(first.last_t, later.last_t), strongest.weak)
    both.count, both.happened = first.count + later.count, first.happened + later.happened
    both.active = set(sorted(first.active | later.active)[:ACTIVE_MAX])
    ends = [each.ended_t for each in (first, later)]
    both.ended_t = None if None in ends else max(end for end in ends if end is not None)
    both.strongest, both.last_pid, both.last_began = strongest.strongest, later.last_pid, later.last_began
    both.words = first.words and later.words
    both.risen_wall, both.risen_t = strongest.risen_wall, strongest.risen_t
    for each in (first, later):
        for who, blamed in each.subjects.items():
            both._blame(who, blamed)  # noqa: SLF001 - the same class, built field by field
        for evidence in each.evidence:
            both._keep(evidence, strongest=False)  # noqa: SLF001
    return both


def began_at(finding: Finding) -> float:
    """Unix seconds of the first observation behind a finding."""
    return min((one.start for one in finding.evidence), default=finding.at.wall)


def incident_id(boot: str, finding_id: str) -> str:
    """Seven letters and digits that a person can type, the same for the same first finding."""
    digest = blake2b(f"{boot}\0{finding_id}".encode("utf-8", "replace"), digest_size=5).digest()
    number, letters = int.from_bytes(digest, "big"), []
    for _ in range(7):
        number, rest = divmod(number, 32)
        letters.append(_LETTERS[rest])
    return "".join(letters)


_LETTERS = "abcdefghjkmnpqrstuvwxyz023456789"  # without i, l, o and 1, which are mistaken for each other
