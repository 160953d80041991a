"""Runs recorded observations through the same tiers as the daemon, in one process, as fast as the machine.

No clock of the machine is asked: observation time comes from the recording, so the same recording gives the
same findings every time. Models are asked through callables and waited for; the daemon goes on meanwhile and
takes their answers as they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from daemon.allowance import shared
from daemon.incidents import reading, review
from daemon.incidents.unexplained import PAST_S
from daemon.messages import Finding, Incident, KeepReview, Observation, Sample, Stamp, Tick, Upward
from daemon.questions import Answer, Question
from daemon.settings import Settings
from daemon.status import ModelTier
from daemon.tiers.low import LowTier
from daemon.tiers.middle import MiddleTier
from models.taxonomy import FaultClass, Severity

Ask = Callable[[Sequence[Question]], list[Answer]]
Read = Callable[
    [reading.Question | review.Question], tuple[str, float]
]  # an answer, and the seconds that it took

BATCH = 512
READER = "a served model"
# Seconds into a pause of a log at which time is told to pass: what was found settles, attacks fall quiet,
# what lasted is over, incidents close. Recordings with samples have hardly any pauses.
PAUSE_S = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 45, 62, 75, 95, 125, 200, 320, 620, 950)
AFTERMATH_S = 45  # of the pause after the last observation: long enough to settle, too short to be over


class Heard(NamedTuple):
    """Somebody hears of an incident: in Unix seconds, and how bad it is.

    Nobody does of one that is silenced, of severity info (as the usual floor is), or still to be read.
    """

    at: float
    severity: Severity


def worsened(told: Iterable[Heard]) -> list[Heard]:
    """What of all that was told of an incident is news: its first time, and each time that it is worse."""
    kept: list[Heard] = []
    for one in sorted(told, key=lambda one: one.at):
        if not kept or one.severity.rank > kept[-1].severity.rank:
            kept.append(one)
    return kept


class Replay:
    """The low and the middle tier in a row; `incidents` holds the newest revision of each.

    `ask` answers the questions of the tiers that it names; the others are left to their baselines. `read`
    answers what a served model is asked about what no rule knows, and says after how many seconds.
    """

    def __init__(
        self, settings: Settings, ask: Mapping[ModelTier, Ask] | None = None, read: Read | None = None
    ) -> None:
        self._read = read
        self._answers: list[tuple[float, reading.Reading]] = []  # by when they come
        # On the monotonic clock of a boot: it answers one question at a time, and so many an hour.
        self._asked_in, self._busy_until = "", 0.0
        self._per_hour = settings.top.served.readings_per_hour
        self._readings, self._looks = shared(self._per_hour)
        self._unread: tuple[list[Finding], dict[str, str], float] | None = None  # what waits, since when
        self._patience_s = settings.top.served.timeout_s
        self._told: dict[str, str] = {}  # what answers spoke of: findings' ids to classes
        self._reviews = review.Reviews()
        self._reviewed: list[tuple[float, KeepReview]] = []  # by when they come
        self._ask = dict(ask or {})
        self.low = LowTier(settings.low, unread=read is not None)
        self.middle = MiddleTier(settings.middle, awaited=read is not None)
        self.incidents: dict[str, Incident] = {}
        self.heard: dict[str, list[Heard]] = {}  # when somebody hears of each
        self.named: dict[str, list[tuple[float, FaultClass]]] = {}  # what each was called, since Unix seconds
        self.counts: Counter[str] = Counter()
        self._last: Stamp | None = None
        self._boot = ""  # of the latest sample; lines of another are what was read late of an earlier boot

    def feed(self, batch: Sequence[Observation]) -> list[Finding]:
        """Judge a batch in the order of its time; the findings that it gave."""
        findings: list[Finding] = []
        for second in _by_second(batch):
            findings += self._pause(second[0].at)
            upward = self.low.observe(second)
            upward += self._consult_low()
            found = [one for one in upward if isinstance(one, Finding)]
            sampled = [one.at.boot for one in second if isinstance(one, Sample)]
            self._boot = sampled[-1] if sampled else self._boot
            if not sampled and self._boot in {"", second[-1].at.boot}:
                upward.append(Tick(second[-1].at))
            self._take(upward)
            findings += found
            self._last = second[-1].at
            self.counts.update(type(one).__name__.lower() for one in second)
        self.counts["findings"] += len(findings)
        return findings

    def finish(self) -> None:
        """Let the last findings settle."""
        if self._last is not None:
            boot, mono, wall = self._last.boot, self._last.mono, self._last.wall
            end_s = AFTERMATH_S + 0.5
            self.counts["findings"] += len(self._pause(Stamp(boot, mono + end_s, wall + end_s)))

    def _pause(self, until: Stamp) -> list[Finding]:
        """Let time pass to `until` where the recording has nothing; what was found on the way."""
        last, findings = self._last, []
        if last is None or last.boot != until.boot:
            return []
        for step in PAUSE_S:
            if last.mono + step >= until.mono:
                break
            upward = self.low.tick(Stamp(last.boot, last.mono + step, last.wall + step))
            upward += self._consult_low()
            findings += [one for one in upward if isinstance(one, Finding)]
            self._take(upward)
        return findings

    def _consult_low(self) -> list[Upward]:
        """What the low tier's model raises of what was seen until now."""
        ask = self._ask.get("low")
        raised: list[Upward] = []
        while ask is not None and (questions := self.low.asked(eager=True)):
            raised += self.low.told(ask(questions))
        return raised

    def _take(self, upward: Sequence[Upward]) -> None:
        changed = self.middle.take(upward)
        if self._read is not None and upward:
            changed += self._puzzle(self._read, upward[-1].at)
        ask = self._ask.get("middle")
        if ask is not None and (questions := self.middle.asked()):
            for answer in ask(questions):
                if answer.scores:
                    changed += self.middle.told(answer.id, answer.scores, answer.thresholds)
        self._keep(changed)
        if self._read is not None and upward:
            self._keep(self._look_again(self._read, upward[-1].at))

    def _keep(self, changed: Sequence[Incident]) -> None:
        for incident in changed:
            self.incidents[incident.id] = incident
            self._reviews.note(incident)
            called = self.named.setdefault(incident.id, [])
            if not called or called[-1][1] is not incident.fault_class:
                called.append((incident.updated_at, incident.fault_class))
            heard = self.heard.get(incident.id, [])
            if incident.state != "merged" and not incident.quieted and _is_news(incident):
                heard = [*heard, Heard(incident.updated_at, incident.severity)]
            for one in {incident.id, incident.merged_into or incident.id} if heard else ():
                self.heard[one] = worsened([*self.heard.get(one, []), *heard])

    def _puzzle(self, read: Read, now: Stamp) -> list[Incident]:
        """Ask what no rule knows; the incidents that answers open or change by now."""
        changed = self._heed(now)
        self._begin_boot(now)
        if now.mono < self._busy_until:
            return changed
        findings, told = self.middle.puzzles()
        self._unread = (findings, told, now.mono) if findings else self._unread
        if self._unread is not None and self._readings.at_s(now.mono) <= now.mono:
            (findings, told, since), self._unread = self._unread, None
            if now.mono - since > PAST_S:
                return changed
            asked = reading.question(findings, self._told | told, now.wall)
            self._readings.take(now.mono)
            answer, at = self._ask_reader(read, asked, now)
            found = reading.read(answer, asked, at)
            self._answers += [(at.wall, found)] if found.finding else []
        return changed + self._heed(now)

    def _heed(self, now: Stamp) -> list[Incident]:
        """Take the readings that have come by now."""
        due = [one for at, one in self._answers if at <= now.wall]
        self._answers = [(at, one) for at, one in self._answers if at > now.wall]
        for one in due:
            self._told |= one.told
        self.counts["read"] += len(due)
        return self.middle.take([one.finding for one in due if one.finding]) if due else []

    def _look_again(self, read: Read, now: Stamp) -> list[Incident]:
        """Ask about incidents whose time it is; those that answers change by now."""
        while self._may_look(now) and (due := self._reviews.due(now.wall)) is not None:
            asked = review.question(*due, self.middle.lately(), now.wall)
            self._looks.take(now.mono)
            answer, at = self._ask_reader(read, asked, now)
            said = review.read(answer, asked, at.wall, READER).record
            self._reviewed += [(at.wall, said)] if said else []
        answers = [one for at, one in self._reviewed if at <= now.wall]
        self._reviewed = [(at, one) for at, one in self._reviewed if at > now.wall]
        self.counts["reviewed"] += len(answers)
        return [incident for one in answers for incident in self.middle.reviewed(one)]

    def _may_look(self, now: Stamp) -> bool:
        """Whether an incident may be asked about now."""
        return now.mono >= max(self._busy_until, self._looks.at_s(now.mono))

    def _begin_boot(self, now: Stamp) -> None:
        """Another boot has a clock of its own."""
        if now.boot != self._asked_in:
            self._asked_in, self._busy_until, self._unread = now.boot, 0.0, None
            self._readings, self._looks = shared(self._per_hour)

    def _ask_reader(
        self, read: Read, asked: reading.Question | review.Question, now: Stamp
    ) -> tuple[str, Stamp]:
        """The answer and when it comes, "" for one that nobody waits for; meanwhile nothing else is asked."""
        answer, seconds = read(asked)
        waited_s = min(seconds, self._patience_s)
        self._busy_until = now.mono + waited_s
        at = Stamp(now.boot, now.mono + waited_s, now.wall + waited_s)
        return answer if seconds <= self._patience_s else "", at


def _is_news(incident: Incident) -> bool:
    return not incident.waits and incident.severity is not Severity.INFO


def _by_second(batch: Sequence[Observation]) -> Iterator[list[Observation]]:
    """Cut where a second ends, since the middle tier's time moves with ticks."""
    group: list[Observation] = []
    for one in batch:
        if group and (int(one.at.mono) != int(group[0].at.mono) or one.at.boot != group[0].at.boot):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def batched(observations: Iterable[Observation]) -> Iterator[list[Observation]]:
    """Batches of a stream of single observations."""
    batch: list[Observation] = []
    for one in observations:
        batch.append(one)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def within(
    batches: Iterable[list[Observation]], since: float | None, until: float | None
) -> Iterator[list[Observation]]:
    """Only what was observed between two Unix times."""
    for batch in batches:
        kept = [
            one
            for one in batch
            if (since is None or one.at.wall >= since) and (until is None or one.at.wall <= until)
        ]
        if kept:
            yield kept
