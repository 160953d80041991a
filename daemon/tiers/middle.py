"""The middle tier: findings of one situation become exactly one incident.

Pure judgement on observation time: no I/O, no clock, no randomness. Weak findings wait until a strong one
needs them; strong ones form situations; a situation that is believed for `settle_s` opens as an incident.
The baseline never waits for a model: `asked` says what a model might know better, `told` takes its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.clock import Timeline
from daemon.incidents import lifecycle
from daemon.incidents.closing import REOPEN_S, Closed
from daemon.incidents.context import SLOW, Contexts, weak
from daemon.incidents.doubts import doubtful, look, recall, tempered, unheard
from daemon.incidents.gathering import Gathering, Label
from daemon.incidents.grouping import blinds
from daemon.incidents.opinions import HINT, Asking, hides, of_review
from daemon.incidents.quiet import Quiet
from daemon.incidents.restoring import restored
from daemon.incidents.situations import Opinion, Situation
from daemon.incidents.unexplained import UNREAD, Unexplained
from daemon.incidents.verdicts import Verdict, judge
from daemon.messages import Event, Finding, Incident, KeepPurge, KeepReview, KeepSilence, Stamp, Tick, Upward
from daemon.questions import Question
from daemon.settings import Middle
from daemon.subjects import split_pid
from models.taxonomy import Severity

OPEN_MAX = 64  # a host with more incidents than this at a time has one that is not understood
SEEN_MAX = 16384  # ids of findings, so that a delivery repeated after a crash is not counted twice
REVISION_S = 2.0  # between revisions that are not urgent
UNHEARD_S = 30.0  # after a hole in observation time like this, what holds is given time to be told again
QUESTIONS_MAX = 8  # at a time; the rest is asked with the next tick

_COUNTED = ("findings", "weak", "repeated", "dropped", "refused", "evicted", "opened", "merged", "closed")


class MiddleTier:
    """Groups findings into incidents; `take` gives every incident that changed, newest revision only.

    `open_incidents` may also hold incidents closed in the last minutes: they are reopened if they come back.
    `past` are those of the last weeks, from which habits are learned, `silences` also those taken back.
    `awaited`: somebody reads incidents and says by `reviewed` what they are.
    """

    def __init__(
        self,
        settings: Middle,
        open_incidents: Sequence[Incident] = (),
        silences: Sequence[KeepSilence] = (),
        past: Sequence[Incident] = (),
        *,
        awaited: bool = False,
    ) -> None:
        self.counters = dict.fromkeys(_COUNTED, 0)
        self._settings, self._awaited = settings, awaited
        self._time = Timeline()
        self._at = Stamp("", 0.0, 0.0)
        self._t = 0.0
        self._heard_t = 0.0  # since when the watch has had no hole
        self._contexts = Contexts()
        self._gathering = Gathering(settings.merge_window_s)
        self._closed = Closed()
        self._seen: dict[str, None] = {}
        self._quiet = Quiet(silences, past)
        self._blind = False  # a stage below is silent: no news is no good news
        self._unexplained = Unexplained()
        self.asking = Asking()  # what the model was asked, and how often its answer mattered
        self._changed: dict[str, Incident] = {}
        self._stored: list[Incident] = [one for one in open_incidents if one.state != "merged"]

    @property
    def unsettled(self) -> bool:
        """Whether findings are held that will become or change an incident: acknowledge them only then."""
        soon = self._t - 2.0 * self._settings.settle_s  # a long wait for a recovery holds nothing up
        return any(
            one.stale if one.open else one.ripe and (one.strong_t or 0.0) > soon
            for one in self._gathering.situations.values()
        )

    def take(self, batch: Sequence[Upward]) -> list[Incident]:
        """Judge a batch in observation order; what that, or a call that failed, changed: newest only."""
        for item in batch:
            self._reach(item.at, live=isinstance(item, Tick))
            if isinstance(item, Finding):
                self._find(item)
            elif isinstance(item, Event):
                self._contexts.note(item, self._t)
            else:
                self._tick()
        return self._give()

    def _give(self) -> list[Incident]:
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def forget(self, purge: KeepPurge) -> list[str]:
        """The operator has erased incidents: what still goes on begins anew; the ids of those forgotten."""
        self._closed.forget(purge.erases)
        self._changed = {name: one for name, one in self._changed.items() if not purge.erases(one)}
        self._stored = [one for one in self._stored if not purge.erases(one)]
        if purge.everything:
            self._quiet.forget()
        return self._gathering.forget(purge.erases)

    def learned(self) -> list[KeepSilence]:
        """Silences that follow from habits, in force from now on; to be kept, each is given once."""
        return self._quiet.learned()

    def keep(self, silence: KeepSilence) -> None:
        """A silence was made, changed or cancelled; open incidents are looked at with the next tick."""
        self._quiet.keep(silence)

    # --- the model's part ---------------------------------------------------------------------------------

    def asked(self) -> list[Question]:
        """What a model is to be asked: open incidents that changed and of which the baseline is unsure."""
        questions: list[Question] = []
        for situation in self._gathering.situations.values():
            if situation.curious and situation.open and len(questions) < QUESTIONS_MAX:
                situation.curious = False
                question = self.asking.ask(situation, self._weigh(situation))
                questions += [question] if question else []
        return questions

    def told(
        self, number: int, scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]
    ) -> list[Incident]:
        """Take the answer to a question, with the model's thresholds; the incident that it revises."""
        name, opinion = self.asking.read(number, scores, thresholds)
        situation = self._gathering.situations.get(name)
        if situation is not None and situation.open and situation.opinion != opinion:
            situation.opinion = opinion
            self._reconsider(situation)
        return self._give()

    def _reconsider(self, situation: Situation, *, news: bool = False) -> None:
        """Tell the incident anew in the light of another opinion, if it differs or there is news of it."""
        situation = self._unite(situation)
        assert situation.incident is not None
        verdict = self._judge(situation)
        if news or lifecycle.differs(situation.incident, situation, verdict):
            self._tell(situation, lifecycle.revised(situation.incident, situation, verdict, self._at))
            situation.curious = False

    def reviewed(self, said: KeepReview) -> list[Incident]:
        """Take what somebody who read an incident says of it; the incidents that it changes.

        Nothing where that is another one by now, or where what is about security would be told otherwise.
        That it is harmless counts only where nothing but words, or what may be meant, speaks for it.
        """
        situation = self._gathering.situations.get(said.incident_id)
        other = self._gathering.situations.get(said.same_as) if said.same_as != said.incident_id else None
        both = [one for one in (situation, other) if one is not None and one.open]
        told = [one.incident.fault_class for one in both if one.incident]
        wanted = 2 if said.same_as else 1
        if len(both) == wanted and told[0] is said.baseline and not hides(said.fault_class, told):
            self._review(both, said)
        return self._give()

    def _review(self, both: Sequence[Situation], said: KeepReview) -> None:
        survivor = both[0]
        if len(both) > 1:
            survivor, loser = self._gathering.join(*both)
            self._tell_merged(loser, survivor)
        rules = self._weigh(survivor)
        if said.harmless and not doubtful(rules, survivor):
            return
        if said.agrees and survivor.looked is not None and survivor.looked.harmless:
            survivor.reviewed = None  # it said otherwise
        then = said.asked_at or self._at.wall
        survivor.looked = look(survivor, self._t, harmless=said.harmless, shown=said.shown, until_wall=then)
        if not said.agrees:
            survivor.reviewed = lifecycle.review(rules.fault_class, said, self._at)
            survivor.review = None if said.harmless else of_review(rules, said)
        if survivor.review is not None:
            survivor.speak(said.evidence, said.fault_class, HINT)
        self._reconsider(survivor, news=said.harmless)

    def puzzles(self) -> tuple[list[Finding], dict[str, str]]:
        """What was found in the last minute, if there is something new in it that no incident explains.

        And the classes of the open incidents that have some of it, by the findings' ids.
        """
        return self._unexplained.due(self._t, self._gathering.situations.values())

    def lately(self) -> list[Finding]:
        """What was found in the last minute."""
        return self._unexplained.lately(self._t)

    # --- what comes in ------------------------------------------------------------------------------------

    def _reach(self, at: Stamp, *, live: bool) -> None:
        before, self._at, self._t = self._t, at, self._time.at(at, live=live)
        if self._t - before > UNHEARD_S or self._blind:
            self._heard_t = self._t
        if self._stored:
            stored, self._stored = self._stored, []
            for incident in stored:
                self._restore(incident)

    def _find(self, finding: Finding) -> None:
        if finding.id in self._seen:
            self.counters["repeated"] += 1
            return
        self._see(finding.id)
        self.counters["findings"] += 1
        self._blind = blinds(finding, self._blind)
        self._unexplained.note(finding, self._t)
        if finding.rule == UNREAD:  # nothing to group by
            self.counters["weak"] += 1
        elif finding.ended:
            self._gathering.end(finding, self._t)
        elif weak(finding) or self._quiet.hushes(finding, self._at.wall):
            self.counters["weak"] += 1
            if finding.rule == SLOW:
                self._contexts.suffers(finding, self._t)
            self._gathering.support(finding, self._t)
        else:
            situation = self._gathering.put(finding, self._t)
            self.counters["dropped"] = self._gathering.dropped
            if situation is not None:
                self._step(situation)

    def _tick(self) -> None:
        self._contexts.expire(self._t)
        self._gathering.expire(self._t)
        for number in list(self._gathering.situations):
            situation = self._gathering.situations.get(number)
            if situation is not None:
                self._step(situation)
        self._closed.expire(self._t)
        if self._quiet.due(self._t):
            self._look_at_silences()

    # --- the life of a situation --------------------------------------------------------------------------

    def _step(self, situation: Situation) -> None:
        if situation.open:
            self._go_on(situation)
        else:
            self._consider(situation)

    def _consider(self, situation: Situation) -> None:
        """Open a situation that is believed for long enough; forget one that nothing followed."""
        if self._t - situation.last_t > self._settings.merge_window_s and not situation.ripe:
            self._gathering.remove(situation)
            return
        if situation.idle and not situation.stale:
            return
        verdict = self._judge(situation)
        situation.ripe = (
            verdict.score >= self._settings.open_score
            and verdict.severity.rank >= Severity.WARNING.rank
            and not verdict.benign
        )
        situation.idle, situation.stale = not (situation.ripe or verdict.excused), False
        if situation.ripe and lifecycle.settled(situation, verdict, self._t, self._settings.settle_s):
            self._open(self._unite(situation))

    def _open(self, situation: Situation) -> None:
        if situation.open:  # it was united with an incident
            self._go_on(situation)
            return
        verdict = self._judge(situation)
        if not self._room(verdict):
            self.counters["refused"] += 1
            self._gathering.remove(situation)
            return
        former = self._closed.take(situation, verdict, self._gathering.view(situation).tied)
        if former is not None:
            self._reopen(former, situation)
            return
        self.counters["opened"] += 1
        self._tell(situation, lifecycle.opened(situation, verdict, self._at))

    def _room(self, verdict: Verdict) -> bool:
        """Whether one more may open; a graver one than the least of very many closes that one early."""
        opened = [one.incident for one in self._gathering.situations.values() if one.open and one.incident]
        if len(opened) < OPEN_MAX:
            return True
        least = min(opened, key=lifecycle.gravity)
        if ((verdict.meant or verdict.severity).rank, verdict.score) <= lifecycle.gravity(least)[:2]:
            return False
        self.counters["evicted"] += 1
        self._close(self._gathering.situations[least.id])
        return True

    def _go_on(self, situation: Situation) -> None:
        """Revise an open incident if there is news or enough has been counted; close it when it is over."""
        counted = lifecycle.counted(situation, self._t)
        doubted = situation.doubt_t is not None and self._t >= situation.doubt_t
        if situation.stale or counted or doubted:
            situation = self._unite(situation)
            self._revise(situation, counted=counted)
        if lifecycle.over(situation, self._t, self._heard_t, self._settings.close_after_s):
            self._close(situation)

    def _revise(self, situation: Situation, *, counted: bool) -> None:
        assert situation.incident is not None
        verdict = self._judge(situation)
        cared = (
            lifecycle.differs(situation.incident, situation, verdict)
            or situation.rules > situation.told_rules
        )
        rested = self._t - situation.told_t >= REVISION_S
        if lifecycle.graver(situation.incident, verdict) or counted or (cared and rested):
            self._tell(situation, lifecycle.revised(situation.incident, situation, verdict, self._at))
        else:
            situation.stale = cared  # told with a later tick

    def _close(self, situation: Situation) -> None:
        assert situation.incident is not None
        self.counters["closed"] += 1
        ended = lifecycle.closed(situation.incident, situation, self._at, unheard(situation))
        self._tell(situation, ended)
        self._quiet.close(situation.incident)
        self._gathering.remove(situation)
        self._closed.add(situation, self._t)

    def _reopen(self, former: Situation, situation: Situation) -> None:
        assert former.incident is not None
        self._gathering.remove(situation)
        former.absorb(situation)
        self._gathering.restore(former, former.incident.fault_class)
        survivor = self._unite(former)
        if survivor is not former:
            self._go_on(survivor)
            return
        former.closed_t, former.reopened, former.told_s = None, former.reopened + 1, 0.0
        verdict = self._judge(former)
        self._tell(former, lifecycle.reopened(former.incident, former, verdict, self._at))

    # --- verdicts and what is told ------------------------------------------------------------------------

    def _judge(self, situation: Situation) -> Verdict:
        verdict = self._weigh(situation, situation.review or situation.opinion)
        self._gathering.set_top(situation, verdict.fault_class)
        return tempered(verdict, situation, self._t, awaited=self._awaited)

    def _weigh(self, situation: Situation, opinion: Opinion | None = None) -> Verdict:
        window_s = self._settings.merge_window_s
        waits = situation.ripe and not situation.open  # judged by what it was before a hole in the time
        t = min(self._t, situation.last_t + window_s) if waits else self._t
        return judge(situation, self._contexts, t, window_s, opinion)

    def _unite(self, situation: Situation) -> Situation:
        """Merge the situation with those that turned out to be the same; the one that is left."""
        survivor, *absorbed = self._gathering.unite(situation, self._label)
        for loser in absorbed:
            self._tell_merged(loser, survivor)
        return survivor

    def _tell_merged(self, loser: Situation, survivor: Situation) -> None:
        if loser.incident is not None and survivor.incident is not None and loser.open:
            self.counters["merged"] += 1
            self._changed[loser.id] = lifecycle.merged(loser.incident, survivor.incident, self._at)

    def _label(self, situation: Situation) -> Label:
        verdict = self._judge(situation)
        first = verdict.culprits[0]
        return (verdict.fault_class, first.kind, split_pid(first.name)[0])

    def _tell(self, situation: Situation, incident: Incident) -> None:
        incident = lifecycle.with_silence(incident, self._quiet.over(incident, self._at.wall))
        situation.incident, situation.told_t, situation.stale = incident, self._t, False
        situation.told_rules, situation.curious = situation.rules, True
        self._changed[incident.id] = incident

    def _look_at_silences(self) -> None:
        for situation in self._gathering.situations.values():
            incident = situation.incident
            if incident is None or not situation.open:
                continue
            silence = self._quiet.over(incident, self._at.wall)
            if silence != incident.quieted:
                told = lifecycle.quieted(incident, silence, self._at)
                situation.incident = self._changed[incident.id] = told

    def _restore(self, incident: Incident) -> None:
        for finding_id in incident.finding_ids:
            self._see(finding_id)
        situation = restored(incident, self._t)
        recall(situation, self._t, self._at.wall)
        if incident.state == "open":
            self._gathering.restore(situation, incident.fault_class)
        elif incident.closed_at is not None and self._at.wall - incident.closed_at <= REOPEN_S:
            self._closed.add(situation, self._t)

    def _see(self, finding_id: str) -> None:
        self._seen[finding_id] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
