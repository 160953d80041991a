"""The middle stage: findings in, incidents into the store, of which it is the only writer.

Everything is committed before it is acknowledged, and readers are woken after that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from daemon.bus import Arrival, Asked, FlowConsumer, RecordsServer, WakePublisher, Wire
from daemon.clock import now
from daemon.codec import upward_decoder
from daemon.errors import HauswartError, IntegrityError
from daemon.message_ids import MessageId
from daemon.messages import (
    Committed,
    Finding,
    Incident,
    KeepAdvice,
    KeepFeedback,
    KeepFinding,
    KeepPurge,
    KeepReview,
    KeepSilence,
    Refused,
    Tick,
    Upward,
    Wake,
)
from daemon.questions import Answer
from daemon.settings import Settings
from daemon.stages.bulletin import Bulletin
from daemon.stages.consult import Consultation, consultation
from daemon.stages.flows import count_flows, count_latency, tell_unchecked, work_through
from daemon.stages.health import (
    STARTS_WITHIN_S,
    find_crash,
    find_gap,
    find_predecessor,
    find_silence,
    is_starting,
)
from daemon.stages.life import Life, Report
from daemon.stages.needs import Grouper, Keeper
from daemon.stages.process import describe

EDGE = "middle"
SILENT_AFTER_S = 10.0
LAMENT_EVERY_S = 30.0  # while it lasts
LOOK_S = 1.0  # while no time comes from below and something waits for it, this stage keeps it going by itself
UNSETTLED_MAX_S = 5.0  # beyond it, a storm of ever new findings would keep the rest of the host unheard
RETRY_S = 1.0  # between two attempts to commit
COMPLAIN_EVERY_S = 60.0  # of what the store cannot keep
EXPIRE_EVERY_S = 3600.0
COMMIT_FINDINGS = 1000  # in one transaction; what may wait is bounded by the edge's credit
REOPEN_S = 900.0  # incidents closed within this time are told to the tier at start, which may reopen them
MAX_RECENT = 1000


class MiddleStage:
    """Takes frames in, commits what they change, acknowledges, wakes; answers requests to keep records."""

    def __init__(
        self,
        life: Life,
        consumer: FlowConsumer[Upward],
        records: RecordsServer,
        wake: WakePublisher,
        *,
        tier: Grouper,
        store: Keeper,
        model: Consultation,
        told: Sequence[Incident] = (),
    ) -> None:
        self._life, self._consumer, self._records, self._wake = life, consumer, records, wake
        self._tier, self._store, self._model = tier, store, model
        self._unsaved: dict[str, Incident] = {}
        self._unsaved_findings: list[Finding] = []
        self._waiting: Arrival[Upward] | None = None  # the newest frame that is not acknowledged
        self._asked: list[Asked] = []  # findings of other stages, answered like frames are acknowledged
        self._waiting_s = 0.0  # since when there is either
        self._retry_s = self._refused_s = 0.0
        self._expire_s = time.monotonic()
        self._began_s = self._ticked_s = self._excused_s = time.monotonic()
        self._silent, self._lamented_s = False, 0.0
        self._counts: Counter[str] = Counter()
        self._bulletin = Bulletin(life.tell)
        for incident in told:
            self._bulletin.know(incident)
        life.listen(records.socket, wanted=True)
        life.report = self._report

    def run(self) -> None:
        """Serve until stopped."""
        if self._life.died is not None:
            self._life.tell.warning("the last middle tier died without stopping", MessageId.STAGE_DIED)
            self._take([find_crash("middle", self._life.died), Tick(now())])
        elif (died := find_predecessor(self._life.runtime)) is not None:
            self._take([find_crash("supervisor", died), Tick(now())])
        self._life.ready("grouping findings")
        while not self._life.stopping:
            self.step()
        self._life.announce_stop()
        self._model.scorer.close()
        self._receive()
        self._commit()
        self._answer_all()

    def step(self) -> None:
        """One round: wait, group, commit, acknowledge, wake, answer."""
        blocked = self._blocked
        self._life.listen(self._consumer.socket, wanted=not blocked)
        awaited = self._silent or self._awaited
        self._life.wait(RETRY_S if blocked else LOOK_S if awaited else SILENT_AFTER_S / 2)
        self._model.listen()
        if not blocked:
            self._receive()
        self._watch_silence()
        self._keep_time()
        self._commit()
        self._tell_refused()
        if not blocked:
            self._consult()
        self._answer_all()
        if time.monotonic() >= self._expire_s:
            self._expire_s = time.monotonic() + EXPIRE_EVERY_S
            self._expire()

    @property
    def _blocked(self) -> bool:
        """Whether commits fail at present; then nothing more is taken in, and the low tier waits."""
        return self._retry_s > 0.0

    @property
    def _awaited(self) -> bool:
        """Whether somebody waits to hear that what was received is kept."""
        return self._waiting is not None or bool(self._asked)

    def _wait_since_now(self) -> None:
        if not self._awaited:
            self._waiting_s = time.monotonic()

    def _receive(self) -> None:
        for arrival in self._consumer.receive():
            extra = [find_gap("low", arrival.gap)] if arrival.gap else []
            self._take([*arrival.messages, *extra])
            self._wait_since_now()
            self._waiting = arrival
            if arrival.messages:
                count_latency(
                    self._life.latency, arrival.messages[0].at, time.monotonic(), len(arrival.messages)
                )
            if len(self._unsaved_findings) >= COMMIT_FINDINGS:
                self._commit()

    def _take(self, batch: Sequence[Upward]) -> None:
        findings = [message for message in batch if type(message) is Finding]
        if any(type(message) is Tick for message in batch):
            self._ticked_s = time.monotonic()
        self._unsaved_findings += findings
        self._counts["findings"] += len(findings)
        for incident in work_through(self._tier.take, batch, self._complain):
            if incident.revision <= 1 and incident.id not in self._unsaved:
                self._counts["incidents_opened"] += 1
            self._unsaved[incident.id] = incident

    def _consult(self) -> None:
        """Ask the model for a second look at what is committed; what it revises is committed at once."""
        answers = self._model.consult(self._tier.asked)
        revised = work_through(self._revise, [one for one in answers if one.scores], self._complain)
        self._unsaved |= {incident.id: incident for incident in revised}
        if revised:
            self._commit()

    def _revise(self, answers: Sequence[Answer]) -> list[Incident]:
        return [
            incident for one in answers for incident in self._tier.told(one.id, one.scores, one.thresholds)
        ]

    def _commit(self) -> None:
        """Commit what changed, then acknowledge, then wake; on failure keep it and try again."""
        if self._blocked and time.monotonic() < self._retry_s:
            return
        incidents = list(self._unsaved.values())
        if incidents or self._unsaved_findings:
            try:
                self._store.save(incidents, self._unsaved_findings)
            except HauswartError as error:
                self._fail(error)
                return
            self._counts["commits"] += 1
        self._retry_s = 0.0
        self._unsaved, self._unsaved_findings = {}, []
        self._acknowledge()
        for incident in incidents:
            self._wake.publish(Wake("incidents", incident.id))
            self._bulletin.tell(incident)
        for silence in self._tier.learned():
            self._learn(silence)
        if self._life.settings.top.served.reading and (puzzle := self._tier.puzzles()[0]):
            self._wake.publish(Wake("findings", puzzle[-1].id))

    def _tell_refused(self) -> None:
        """Say what the store could not keep, once a minute: whoever causes it must not fill the journal."""
        notes = self._store.notes
        if not notes or time.monotonic() < self._refused_s:
            return
        self._refused_s = time.monotonic() + COMPLAIN_EVERY_S
        self._life.tell.warning(notes[-1] + (f"; {len(notes) - 1} more before it" if len(notes) > 1 else ""))
        notes.clear()

    def _learn(self, silence: KeepSilence) -> None:
        """Keep a habit; where that fails it holds until this stage ends, and is learned again some day."""
        whom = f"{silence.fault_class} of {silence.unit}"
        try:
            self._store.keep(silence)
        except HauswartError as error:
            self._life.tell.warning(f"cannot keep that {whom} is a habit: {error}")
            return
        self._wake.publish(Wake("silences", silence.id))
        self._life.tell.info(f"{whom} is a habit: silent {silence.recurring} (silence {silence.id})")

    def _acknowledge(self) -> None:
        """Acknowledge what is committed; what may still become an incident only gives its credit back."""
        if self._waiting is not None:
            self._consumer.release(self._waiting)
        if not self._tier.unsettled or time.monotonic() - self._waiting_s > UNSETTLED_MAX_S:
            if self._waiting is not None:
                self._consumer.acknowledge(self._waiting)
            for asked in self._asked:
                self._records.reply(asked, Committed(asked.number))
            self._waiting, self._asked = None, []
        self._consumer.answer()

    def _fail(self, error: HauswartError) -> None:
        if isinstance(error, IntegrityError):
            raise error  # the next start saves the sound rows
        if not self._blocked:
            self._life.tell.error(f"cannot commit: {error}; trying again", MessageId.STORE_BLOCKED)
        self._counts["commits_failed"] += 1
        self._retry_s = time.monotonic() + RETRY_S

    def _watch_silence(self) -> None:
        """Say when the low tier falls silent and when it comes back."""
        silent_s = self._silent_s()
        if (silent_s > SILENT_AFTER_S) != self._silent and not self._blocked:
            self._silent = not self._silent
            said, message_id = (
                ("silent", MessageId.STAGE_SILENT) if self._silent else ("heard again", MessageId.STAGE_HEARD)
            )
            self._life.tell.warning(f"the low tier is {said}", message_id)
        elif not self._silent or self._blocked or time.monotonic() - self._lamented_s < LAMENT_EVERY_S:
            return  # else what lasts is told anew, like what the low tier finds
        self._lamented_s = time.monotonic()
        self._take([find_silence("low", silent_s, ended=not self._silent)])

    def _silent_s(self) -> float:
        """For how long nothing came; the time does not count that stages below take to start."""
        now_s = time.monotonic()
        heard_s = max(self._consumer.heard_s or self._began_s, self._began_s)
        if now_s - heard_s <= SILENT_AFTER_S or now_s - heard_s >= STARTS_WITHIN_S or self._silent:
            return now_s - heard_s
        if is_starting(self._life.runtime):
            self._excused_s = now_s
        return now_s - max(heard_s, self._excused_s)

    def _keep_time(self) -> None:
        """Go on without ticks from below.

        A flood may hold back the sample that would bring the next one until what waits here is acknowledged.
        """
        awaited = self._silent or (self._awaited and not self._blocked)
        if awaited and time.monotonic() - self._ticked_s >= LOOK_S:
            self._take([Tick(now())])

    def _answer_all(self) -> None:
        for asked in self._records.receive():
            try:
                self._keep(asked)
            except HauswartError as error:
                self._counts["records_refused"] += 1
                self._records.reply(asked, Refused(asked.number, str(error)[:500]))
            else:
                self._counts["records_kept"] += 1
                if not isinstance(asked.record, KeepFinding | KeepReview):
                    self._records.reply(asked, Committed(asked.number))

    def _keep(self, asked: Asked) -> None:
        record = asked.record
        if isinstance(record, KeepReview):
            self._wait_since_now()
            self._asked.append(asked)
            self._unsaved |= {one.id: one for one in self._tier.reviewed(record)}
            self._commit()
            return
        self._store.keep(record, f"{asked.epoch:x}", asked.number)
        if isinstance(record, KeepFinding):
            self._wait_since_now()
            self._asked.append(asked)
            self._take([record.finding])
            self._commit()
        elif isinstance(record, KeepAdvice):
            self._wake.publish(Wake("advice", record.incident_id))
        elif isinstance(record, KeepFeedback):
            self._wake.publish(Wake("feedback", record.incident_id))
        elif isinstance(record, KeepSilence):
            self._tier.keep(record)
            self._wake.publish(Wake("silences", record.id))
        elif isinstance(record, KeepPurge):
            self._bulletin.forget(self._tier.forget(record))
            self._unsaved = {name: one for name, one in self._unsaved.items() if not record.erases(one)}
            self._unsaved_findings = [] if record.everything else self._unsaved_findings

    def _expire(self) -> None:
        try:
            erased = self._store.expire(time.time(), self._life.settings.middle.incidents_days)
        except HauswartError as error:
            self._life.tell.warning(f"cannot erase what is older than the retention: {error}")
            return
        if any(erased.values()):
            self._life.tell.info(f"erased after the retention: {erased}")

    def _complain(self, error: Exception) -> None:
        self._counts["errors/judge"] += 1
        if self._counts["errors/judge"] in {1, 10, 100, 1000, 10000}:
            self._life.tell.error(f"judge: {describe(error)}")

    def _report(self) -> Report:
        text = self._bulletin.summary + self._model.remark
        if self._blocked:
            text = "the store cannot be written; nothing is acknowledged meanwhile"
        elif self._silent:
            text = "the low tier is silent"
        return Report(
            text=text,
            flows={EDGE: count_flows(self._consumer.tally)},
            drops={EDGE: dict(self._consumer.drops), "records": dict(self._records.drops)},
            counters=dict(self._counts),
            model=self._model.scorer.status(),
        )


def run(settings: Settings) -> None:
    """Be the middle tier until stopped."""
    from daemon.incidents.schedules import remembered  # noqa: PLC0415  # as the tier below
    from daemon.store.reader import StoreReader  # noqa: PLC0415  # only this stage and the top pay for SQLite
    from daemon.store.writer import StoreWriter  # noqa: PLC0415
    from daemon.tiers.middle import MiddleTier  # noqa: PLC0415

    life = Life("middle", settings)
    wire = Wire(life.runtime)
    path: Path = settings.store
    try:
        with StoreWriter(path) as store:
            for note in store.notes:
                life.tell.warning(note, MessageId.STORE_DAMAGED)
            store.notes.clear()
            with StoreReader(path) as reader:
                recent = reader.incidents(since=time.time() - REOPEN_S, limit=MAX_RECENT)
                silences = reader.silences()
                past = remembered(reader.incidents, time.time())
            consumer = FlowConsumer(wire, EDGE, upward_decoder())
            tell_unchecked(life, wire)
            MiddleStage(
                life,
                consumer,
                RecordsServer(wire),
                WakePublisher(wire),
                tier=MiddleTier(settings.middle, recent, silences, past, awaited=settings.top.served.reading),
                store=store,
                model=consultation(life, settings, "middle"),
                told=recent,
            ).run()
    finally:
        wire.close()
    life.end()
