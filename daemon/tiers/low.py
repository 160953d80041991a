"""The low tier: one stream of observations in, findings, events and ticks out.

Composes the judges of lines, metrics, events and the clock, all on one observation time. Pure: the same
observations give the same findings, however they were cut into batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from daemon.clock import Timeline
from daemon.messages import Event, Finding, Line, Observation, Sample, Stamp, Tick, Upward
from daemon.questions import Answer, Question
from daemon.settings import Low
from daemon.tiers.clocks import Clocks
from daemon.tiers.events import EventJudge
from daemon.tiers.lines import LineJudge
from daemon.tiers.windows import MetricJudge

STATE_VERSION = 1
STATE_BYTES_MAX = 32 << 20
TICK_S = 1.0
EVENTS_PER_SECOND = 64  # forwarded: a udev storm must not drown the tier above


class LowTier:
    """Judges one host's observations; `notes` says what became of a saved state."""

    def __init__(self, settings: Low, state: bytes | None = None, *, unread: bool = False) -> None:
        """`unread`: lines that nothing here understands are findings, too, for somebody who reads them."""
        self.notes: list[str] = []
        self._time = Timeline()
        self._clocks = Clocks()
        self._metrics = MetricJudge(settings)
        self._lines = LineJudge(settings, self._metrics.values, unread=unread)
        self._events = EventJudge(settings)
        self._ticked_t = 0.0
        self._told: Stamp | None = None  # the last tick that went up
        self._at = Stamp("", 0.0, 0.0)  # of the latest observation
        self._second, self._forwarded = 0, Counter[bool]()
        self._counts = {"events": 0, "events_dropped": 0, "findings": 0}
        if state is not None:
            self._restore(state)

    @property
    def counters(self) -> dict[str, int]:
        """What was seen, found and left out so far, over all judges."""
        total: Counter[str] = Counter(self._counts)
        for judge in (self._lines, self._metrics, self._events):
            total.update(judge.counters)
        return dict(total)

    def own(self, pids: Iterable[int]) -> None:
        """Tell which processes are hauswart's own, where no unit says so."""
        known = frozenset(pids)
        self._lines.own(known)
        self._metrics.own(known)

    def observe(self, batch: Sequence[Observation]) -> list[Upward]:
        """Judge observations in their order."""
        upward: list[Upward] = []
        for observation in batch:
            at = self._at = observation.at
            t = self._time.at(at, live=isinstance(observation, Sample))
            if t - self._ticked_t >= TICK_S:
                self._tick(t, at, upward)
            if isinstance(observation, Line):
                upward += self._judge_line(observation, t)
            elif isinstance(observation, Sample):
                self._judge_sample(observation, t, upward)
            elif isinstance(observation, Event):
                self._judge_event(observation, t, upward)
            else:
                upward += self._metrics.note(observation, t)
        self._counts["findings"] += sum(isinstance(one, Finding) for one in upward)
        return upward

    def tick(self, at: Stamp) -> list[Upward]:
        """Observation time has come to `at` without an observation: in a replay, where the log pauses."""
        upward: list[Upward] = []
        self._at = at
        self._tick(self._time.at(at), at, upward)
        self._counts["findings"] += len(upward)
        return [*upward, Tick(at)]

    def asked(self, *, eager: bool) -> list[Question]:
        """What the model should be asked now; unless `eager`, only if that is worth starting it."""
        return self._lines.asked(self._time.latest, eager=eager)

    def told(self, answers: Sequence[Answer]) -> list[Upward]:
        """What the model answered, empty scores for no answer; the findings that it raises."""
        findings = self._lines.told(answers, self._at, self._time.latest)
        self._counts["findings"] += len(findings)
        return [*findings]

    def _tick(self, t: float, at: Stamp, upward: list[Upward]) -> None:
        """Let what lasts be repeated and what is over end, also where no samples come."""
        self._ticked_t = t
        upward += self._lines.tick(t, at)
        upward += self._events.tick(t, at)

    def _judge_line(self, line: Line, t: float) -> Sequence[Upward]:
        if line.identifier == "kernel" and line.trusted:
            self._clocks.hear(line, t)
        findings = self._lines.judge(line, t)
        sessions = self._lines.events
        return [*findings, *sessions] if sessions else findings

    def _judge_sample(self, sample: Sample, t: float, upward: list[Upward]) -> None:
        upward += self._clocks.judge(self._time.drift(sample.at), sample.at, t)
        upward += self._metrics.judge(sample, t)
        if self._told != sample.at:
            self._told = sample.at
            upward.append(Tick(sample.at))

    def _judge_event(self, event: Event, t: float, upward: list[Upward]) -> None:
        self._counts["events"] += 1
        upward += self._events.judge(event, t)
        if int(t) != self._second:
            self._second, self._forwarded = int(t), Counter()
        explains = event.kind in {"context", "session"}  # no storm of devices may hide that a job has ended
        self._forwarded[explains] += 1
        if self._forwarded[explains] <= EVENTS_PER_SECOND:
            upward.append(event)
        else:
            self._counts["events_dropped"] += 1

    # --- learned state ------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """What was learned, bounded and versioned."""
        return msgspec.msgpack.encode(
            _State(
                STATE_VERSION,
                self._lines.snapshot(),
                self._metrics.snapshot(),
                self._lines.snapshot_opinions(),
            )
        )

    def _restore(self, state: bytes) -> None:
        if len(state) > STATE_BYTES_MAX:
            self.notes.append(f"the saved state of the low tier has {len(state)} bytes, starting afresh")
            return
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.notes.append(f"the saved state of the low tier cannot be read, starting afresh: {error}")
            return
        if saved.version != STATE_VERSION:
            self.notes.append(f"the saved state has version {saved.version}, starting afresh")
            return
        for name, restored in (
            ("lines", self._lines.restore(saved.lines)),
            ("metrics", self._metrics.restore(saved.metrics)),
        ):
            if not restored:
                self.notes.append(f"the saved state of {name} cannot be used, starting afresh")
        self._lines.restore_opinions(saved.opinions)


class _State(msgspec.Struct):
    version: int
    lines: bytes
    metrics: bytes
    opinions: bytes = b""  # later than version 1's other parts; a daemon that knows none leaves it out
