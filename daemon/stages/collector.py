"""The collector stage: one poll loop over all collectors, into the edge `low`; decides nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from daemon.bus import FlowProducer, Wire
from daemon.clock import now
from daemon.collectors.source import Collector
from daemon.message_ids import MessageId
from daemon.messages import Event, Line, Observation, Sample
from daemon.settings import Settings
from daemon.stages.flows import count_flows
from daemon.stages.health import crash_event
from daemon.stages.life import Life, Report
from daemon.stages.positions import Positions
from daemon.stages.readers import Readers
from daemon.stages.sources import build

EDGE = "low"
FLUSH_S = 1.0  # what nothing hurries waits for the next whole second, when the samples are taken anyway
URGENT_PAUSE_S = 0.05  # between two flushes that something hurried
URGENT_LINES = 256
URGENT_KERNEL_PRIORITY = 4  # warning
URGENT_PRIORITY = 3  # error
DRAIN_S = 2.0  # for the last acknowledgements when stopping
SAVE_EVERY_S = 5.0
IDLE_S = 3600.0


class CollectorStage:
    """Reads what is due or readable, offers it to the low tier and remembers positions once acknowledged."""

    def __init__(
        self, life: Life, producer: FlowProducer, collectors: Sequence[Collector], positions: Positions
    ) -> None:
        self._life, self._producer, self._positions = life, producer, positions
        self._readers = Readers(collectors, life.tell)
        self._urgent = False
        self._flush_due_s = math.inf
        self._flushed_s = self._save_due_s = 0.0
        self._unsaved = 0
        self._descriptors: set[int] = set()
        life.report = self._report

    def run(self) -> None:
        """Serve until stopped."""
        self._offer(self._readers.open())
        self._keep_beginnings()
        if self._life.died is not None:
            self._life.tell.warning("the last collector died without stopping", MessageId.STAGE_DIED)
            self._offer([crash_event("collector", self._life.died)])
        self._life.ready(f"reading {', '.join(reader.name for reader in self._readers.all) or 'nothing'}")
        while not self._life.stopping:
            self.step()
        self._stop()

    def _keep_beginnings(self) -> None:
        """Save where each reader begins, so that a successor goes on there even if this one dies at once."""
        for reader in self._readers.all:
            if reader.is_open:
                self._positions.note(0, reader.name, reader.collector.position())
        self._positions.settle(0)
        self._save()

    def step(self) -> None:
        """One round: wait, read, send."""
        self._listen()
        ready = self._life.wait(self._timeout_s())
        at = now()
        for reader in self._readers.due(ready, at, room=self._producer.room):
            if reader.gives_lines and not self._producer.room:
                continue  # the readers before it in this round filled the queue
            self._offer(self._readers.read(reader, at))
            if reader.is_open:
                self._positions.note(self._producer.outbox.ticket, reader.name, reader.collector.position())
        self._send(at.mono)

    def _offer(self, observations: Sequence[Observation]) -> None:
        if not observations:
            return
        self._producer.offer(observations)
        self._urgent = self._urgent or any(map(_hurries, observations))
        if any(type(one) is Sample for one in observations):
            self._flush_due_s = 0.0  # this is the tick that all else waits for
        elif self._flush_due_s == math.inf:
            self._flush_due_s = math.floor(time.monotonic() / FLUSH_S + 1) * FLUSH_S

    def _send(self, now_s: float) -> None:
        many = self._producer.outbox.lines >= URGENT_LINES
        urgent = self._urgent and now_s - self._flushed_s >= URGENT_PAUSE_S
        if many or urgent or now_s >= self._flush_due_s:
            self._producer.flush()
            self._urgent, self._flushed_s, self._flush_due_s = False, now_s, math.inf
        else:
            self._producer.pump()
        self._positions.settle(self._acknowledged())
        if now_s >= self._save_due_s:
            self._save_due_s = now_s + SAVE_EVERY_S
            self._save()

    def _acknowledged(self) -> int:
        return self._producer.outbox.ticket if self._producer.drained else self._producer.acknowledged

    def _timeout_s(self) -> float:
        now_s = time.monotonic()
        due_s = min(self._readers.next_due_s(now_s, room=self._producer.room), self._flush_due_s)
        if self._urgent:
            due_s = min(due_s, self._flushed_s + URGENT_PAUSE_S)
        return max(0.0, min(due_s - now_s, IDLE_S))

    def _listen(self) -> None:
        """Wake for the readers' descriptors, and for the low tier only while something waits for it."""
        wanted: set[int] = set()

        def note(descriptor: int, wake: bool) -> None:  # noqa: FBT001  # called with what `wake` says
            if wake:
                wanted.add(descriptor)

        self._readers.listen(note, time.monotonic(), room=self._producer.room)
        for descriptor in self._descriptors - wanted:
            self._life.listen(descriptor, wanted=False)
        for descriptor in wanted - self._descriptors:
            self._life.listen(descriptor, wanted=True)
        self._descriptors = wanted
        self._life.listen(self._producer.socket, wanted=self._producer.waiting)

    def _save(self) -> None:
        try:
            self._positions.save()
        except OSError as error:
            self._unsaved += 1
            if self._unsaved == 1:
                self._life.tell.warning(f"cannot save the positions: {error}; lines may be read twice")

    def _stop(self) -> None:
        """Send what is left, wait shortly for its acknowledgement, and keep the positions."""
        self._life.announce_stop()
        self._readers.close()
        self._producer.flush()
        until_s = time.monotonic() + DRAIN_S
        while not self._producer.drained and (left_s := until_s - time.monotonic()) > 0:
            self._producer.socket.poll(math.ceil(min(left_s, 0.1) * 1000))
            self._producer.flush()
            self._producer.ask()
        self._positions.settle(self._acknowledged())
        self._save()

    def _report(self) -> Report:
        producer = self._producer
        lost = sum(producer.outbox.gap.values())
        return Report(
            text=f"{len(self._readers.all)} readers" + (f", {lost} observations lost" if lost else ""),
            flows={EDGE: count_flows(producer.tally)},
            drops={EDGE: dict(producer.drops)},
            counters={f"failures/{name}": n for name, n in self._readers.failures.items()}
            | {"positions_unsaved": self._unsaved},
            queue_peak=producer.outbox.peak,
        )


def _hurries(observation: Observation) -> bool:
    if type(observation) is Line:
        kernel = observation.source == "kernel"
        return observation.priority <= (URGENT_KERNEL_PRIORITY if kernel else URGENT_PRIORITY)
    return type(observation) is Event


def run(settings: Settings) -> None:
    """Be the collector until stopped."""
    life = Life("collector", settings)
    wire = Wire(life.runtime)
    positions = Positions(settings.folder("collector") / "positions.json")
    stage = CollectorStage(life, FlowProducer(wire, EDGE), build(settings, positions.known), positions)
    try:
        stage.run()
    finally:
        wire.close()
    life.end()
