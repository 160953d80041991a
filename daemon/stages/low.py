"""The low stage: observations in, findings up; acknowledges what the middle tier committed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from daemon.bus import Arrival, FlowConsumer, FlowProducer, Wire
from daemon.clock import now
from daemon.codec import observation_decoder
from daemon.message_ids import MessageId
from daemon.messages import Event, Finding, Observation, Stamp, Tick, Upward
from daemon.questions import Answer, Question
from daemon.settings import Settings
from daemon.stages.consult import Consultation, consultation
from daemon.stages.flows import count_flows, count_latency, tell_unchecked, work_through
from daemon.stages.health import find_crash, gap_event
from daemon.stages.life import Life, Report
from daemon.stages.process import describe
from daemon.status import read_pids

EDGE_IN, EDGE_OUT = "low", "middle"
MAX_STATE_BYTES = 64 << 20  # of learned state, of which the tier's own bounds allow a fraction
DRAIN_S = 3.0
COMPLAIN_EVERY_S = 60.0
OWN_EVERY_S = 10.0  # reading nine pids costs 0.1 ms
GOING_MAX = 32  # half of what the middle tier keeps, so that it has lost none of them while it lives
_TELLING = ("unit", "job", "lock", "generation")  # what tells jobs of one name apart, whoever does them


class Tier(Protocol):
    """What this stage needs of the low tier."""

    notes: list[str]

    @property
    def counters(self) -> Mapping[str, int]:
        """What was seen and found."""
        ...

    def own(self, pids: Iterable[int]) -> None:
        """Which processes are hauswart's."""
        ...

    def observe(self, batch: Sequence[Observation]) -> list[Upward]:
        """Judge observations."""
        ...

    def asked(self, *, eager: bool) -> list[Question]:
        """What a model is to be asked."""
        ...

    def told(self, answers: Sequence[Answer]) -> list[Upward]:
        """What it answered."""
        ...

    def snapshot(self) -> bytes:
        """What was learned."""
        ...


class Telemetry(Protocol):
    """What this stage needs of the segment writer."""

    notes: list[str]
    counters: dict[str, int]

    def write(self, batch: Sequence[Observation], now: Stamp) -> None:
        """Keep a batch."""
        ...

    def tick(self, now: Stamp) -> None:
        """Put on disk what is due."""
        ...

    def close(self) -> None:
        """Finish the segment."""
        ...


class Going:
    """What the host is doing on purpose: contexts that began and did not end, the newest GOING_MAX."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, ...], Event] = {}
        self._at = Stamp("", 0.0, 0.0)  # of the latest tick: a line may be older than what began since

    def note(self, upward: Sequence[Upward]) -> None:
        """Learn from what goes up."""
        for one in upward:
            if type(one) is Tick:
                self._at = one.at
            elif type(one) is Event and one.kind == "context":
                job = (one.name, *(one.attributes.get(name, "") for name in _TELLING))
                self._begun.pop(job, None)
                if one.action == "start":
                    self._begun[job] = one
        while len(self._begun) > GOING_MAX:
            del self._begun[next(iter(self._begun))]

    def told(self, at: Stamp) -> list[Event]:
        """All of it once more, at this time if ticks have come so far, with the age in seconds."""
        at = at if at.boot == self._at.boot and at.mono > self._at.mono else self._at
        return [
            Event(
                at, one.source, one.kind, one.name, "running", {**one.attributes, "running_s": _age(one, at)}
            )
            for one in self._begun.values()
            if one.at.boot == at.boot
        ]


def _age(event: Event, at: Stamp) -> str:
    """Whole seconds, never too few: what is too old to matter must not seem younger."""
    return str(math.ceil(max(0.0, at.mono - event.at.mono)))


class LowStage:
    """Takes frames in, offers what they gave, acknowledges each once all that is acknowledged above."""

    def __init__(
        self,
        life: Life,
        consumer: FlowConsumer[Observation],
        producer: FlowProducer,
        *,
        tier: Tier,
        telemetry: Telemetry,
        model: Consultation,
    ) -> None:
        self._life, self._consumer, self._producer = life, consumer, producer
        self._tier, self._telemetry, self._model = tier, telemetry, model
        self._state_path = life.settings.folder("low") / "low.state"
        self._open: deque[tuple[int, Arrival[Observation]]] = deque()
        self._going = Going()
        self._reminded = 0  # ticket of what was last told of it
        self._state_due_s = time.monotonic() + life.settings.low.state_interval_s
        self._errors: Counter[str] = Counter()
        self._complained: dict[str, float] = {}
        self._peak = 0
        self._own: frozenset[int] = frozenset()
        self._own_due_s = 0.0
        life.report = self._report

    def run(self) -> None:
        """Serve until stopped."""
        if self._life.died is not None:
            self._life.tell.warning("the last low tier died without stopping", MessageId.STAGE_DIED)
            self._producer.offer([find_crash("low", self._life.died)])
        self._life.ready("judging lines and metrics")
        while not self._life.stopping:
            self.step()
        self._stop()

    def step(self) -> None:
        """One round: wait, judge, pass on, acknowledge."""
        room = self._producer.room
        self._life.listen(self._consumer.socket, wanted=room)
        self._life.listen(self._producer.socket, wanted=self._producer.waiting)
        self._life.wait(60.0)
        self._model.listen()
        if room:
            self._judge()
            self._consult()
        self._pass_on()
        self._tell_notes()
        self._name_own()
        if time.monotonic() >= self._state_due_s:
            self._state_due_s = time.monotonic() + self._life.settings.low.state_interval_s
            self._save()

    def _judge(self) -> None:
        """Judge what arrived, decoding one frame at a time, since a frame of lines takes half a megabyte."""
        while arrivals := self._consumer.receive(limit=1):
            self._judge_frame(arrivals[0])
        self._peak = max(self._peak, len(self._open))

    def _judge_frame(self, arrival: Arrival[Observation]) -> None:
        batch = [*arrival.messages, *_name_gaps(arrival.gap)]
        self._telemetry.write(batch, now())
        upward = work_through(self._tier.observe, batch, lambda error: self._complain("judge", error))
        judged = replace(arrival, messages=())  # what waits for its acknowledgement needs no content
        self._open.append((self._offer(upward), judged))
        self._consumer.release(judged)
        if batch:
            count_latency(self._life.latency, batch[0].at, time.monotonic(), len(batch))

    def _consult(self) -> None:
        """Let the model's answers raise what was found, and ask it about what is new."""
        pid = self._model.scorer.pid
        answers = self._model.consult(lambda: self._tier.asked(eager=self._model.cheap))
        if answers:
            upward = work_through(self._tier.told, answers, lambda error: self._complain("model", error))
            self._offer(upward)
        if self._model.scorer.pid != pid:
            self._own_due_s = 0.0

    def _offer(self, upward: Sequence[Upward]) -> int:
        """Send up what was found, after what the host is doing: a middle tier started anew does not know.

        It may have acknowledged the start before it died; what it has not acknowledged comes to it again.
        """
        if any(type(one) is Finding for one in upward):
            self._producer.pump()  # hears acknowledgements
            if self._producer.drained or self._reminded <= self._producer.acknowledged:
                self._reminded = self._producer.offer(self._going.told(upward[0].at))
        self._going.note(upward)
        return self._producer.offer(upward)

    def _pass_on(self) -> None:
        self._producer.flush()
        while self._open and (self._producer.drained or self._open[0][0] <= self._producer.acknowledged):
            self._consumer.acknowledge(self._open.popleft()[1])
        self._consumer.answer()

    def _tell_notes(self) -> None:
        self._telemetry.tick(now())
        for notes in (self._telemetry.notes, self._tier.notes):
            while notes:
                self._life.tell.warning(notes.pop(0))

    def _name_own(self) -> None:
        """Tell the tier which processes are ours; they change when a stage is started again."""
        now_s = time.monotonic()
        if now_s < self._own_due_s:
            return
        self._own_due_s = now_s + OWN_EVERY_S
        pids = read_pids(self._life.runtime)
        if pids != self._own:
            self._own = pids
            self._tier.own(pids)

    def _save(self) -> None:
        try:
            _write_state(self._state_path, self._tier.snapshot())
        except OSError as error:
            self._complain("state", error)

    def _complain(self, what: str, error: Exception) -> None:
        """Count an error, and log it about once a minute for each kind of work."""
        self._errors[what] += 1
        now_s = time.monotonic()
        if now_s - self._complained.get(what, -math.inf) >= COMPLAIN_EVERY_S:
            self._complained[what] = now_s
            self._life.tell.warning(f"{what}: {describe(error)}")

    def _stop(self) -> None:
        """Judge what is there, wait shortly for the middle tier, and keep what was learned."""
        self._life.announce_stop()
        self._model.scorer.close()
        self._judge()
        self._pass_on()
        until_s = time.monotonic() + DRAIN_S
        while self._open and (left_s := until_s - time.monotonic()) > 0:
            self._producer.socket.poll(math.ceil(min(left_s, 0.1) * 1000))
            self._pass_on()
        self._save()
        self._telemetry.close()
        self._tell_notes()

    def _report(self) -> Report:
        errors = {f"errors/{what}": n for what, n in self._errors.items()}
        telemetry = {f"telemetry/{what}": n for what, n in self._telemetry.counters.items()}
        lost = sum(self._consumer.tally.gap.values())
        return Report(
            text="judging" + (f", {lost} observations lost on the way" if lost else "") + self._model.remark,
            flows={EDGE_IN: count_flows(self._consumer.tally), EDGE_OUT: count_flows(self._producer.tally)},
            drops={EDGE_IN: dict(self._consumer.drops), EDGE_OUT: dict(self._producer.drops)},
            counters=dict(self._tier.counters) | errors | telemetry | {"unacknowledged_peak": self._peak},
            queue_peak=self._producer.outbox.peak,
            model=self._model.scorer.status(),
        )


def _name_gaps(gap: dict[str, int]) -> list[Event]:
    return [gap_event("collector", source, lost) for source, lost in gap.items()]


def _write_state(path: Path, state: bytes) -> None:
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(state)
    partial.replace(path)


def _read_state(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_STATE_BYTES)
    except FileNotFoundError:
        return None


def run(settings: Settings) -> None:
    """Be the low tier until stopped."""
    from daemon.store.segments import SegmentWriter  # noqa: PLC0415  # only this stage pays for zstandard
    from daemon.tiers.low import LowTier  # noqa: PLC0415  # and for the judges

    life = Life("low", settings)
    wire = Wire(life.runtime)
    try:
        consumer = FlowConsumer(wire, EDGE_IN, observation_decoder())
        tell_unchecked(life, wire)
        state = _read_state(settings.folder("low") / "low.state")
        tier = LowTier(settings.low, state, unread=settings.top.served.reading)
        telemetry = SegmentWriter(
            settings.state / "telemetry", settings.low.telemetry_days, settings.low.telemetry_mib
        )
        model = consultation(life, settings, "low")
        LowStage(
            life, consumer, FlowProducer(wire, EDGE_OUT), tier=tier, telemetry=telemetry, model=model
        ).run()
    finally:
        wire.close()
    life.end()
