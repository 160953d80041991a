"""A tier's model in a process of its own, started when something is asked and gone when nothing is.

The stage that asks stays lean: numpy and onnxruntime live in the child, for as long as there is something to
judge. A child that is missing, broken, slow or killed costs answers, never observations: what it does not
answer, the baseline has. Knows nothing of what is judged. The child's side is `daemon.stages.scorer`.
"""

from __future__ import annotations

import math
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import models
from daemon.child import Child, Watch
from daemon.errors import FrameError
from daemon.questions import (
    BATCH,
    MAX_FRAME_BYTES,
    Answer,
    Broken,
    Bye,
    Classify,
    Failed,
    FromScorer,
    Open,
    Question,
    Ready,
    Request,
    Scored,
    Write,
    Written,
    decode_answer,
    encode_frame,
)
from daemon.settings import Settings
from daemon.status import LatencyWindow, ModelStatus, ModelTier, read_pss_bytes

State = Literal["off", "absent", "asleep", "starting", "ready", "broken"]

OPEN_MAX = 4  # requests on their way; a stage that asks faster than this is answered has to wait
BACKOFF_S, BACKOFF_MAX_S = 5.0, 600.0  # after the first failure, and at most
LOOK_S = 5.0  # between two looks for another bundle: a stat(2) or two
KEPT_NOTES = 16
COMMAND = (sys.executable, "-P", "-m", "daemon", "score")
SHIPPED = Path(models.__file__).parent / "bundles"


@dataclass
class _Asked:
    frame: bytes
    ids: tuple[int, ...]  # the questions that a classifier answers; for a text there is none
    count: int
    asked_s: float
    sent_s: float = 0.0


class Scorer:
    """Asks one tier's model; every question that was taken is answered, by empty scores where it failed.

    `watch` is told which descriptor to wait for, so that `poll` is called when there is something to hear.
    `notes` holds what the operator should read, each trouble once; `refusals` that an older bundle serves.
    """

    def __init__(
        self,
        tier: ModelTier,
        settings: Settings,
        *,
        watch: Watch | None = None,
        pid_file: Path | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        options = settings.models
        self.tier: ModelTier = tier
        self.notes: deque[str] = deque(maxlen=KEPT_NOTES)
        self.refusals: deque[str] = deque(maxlen=KEPT_NOTES)
        self.bundle = ""
        self.counters = dict.fromkeys(("asked", "answered", "failed", "fallback", "started"), 0)
        self.state: State = "asleep"
        self._pinned: str = getattr(options, tier)
        self._request_s: float = getattr(options, f"{tier}_timeout_s")
        self._start_s = options.start_timeout_s
        self._options, self._state_dir = options, settings.state.absolute()
        self._child = Child((*command, tier), watch=watch, pid_file=pid_file)
        self._thresholds: Mapping[str, float] = {}
        self._began_s = self._retry_s = self._looked_s = -math.inf
        self._mark: tuple[int, int] | None = None
        self._failures = 0
        self._late = False  # a text was waited for in vain while it started
        self._said: set[str] = set()
        self._open: OrderedDict[int, _Asked] = OrderedDict()
        self._texts: dict[int, str] = {}
        self._number = 0
        self._pss_bytes = 0
        self._latency = LatencyWindow()
        if self._pinned == "off":
            self.state = "off"

    @property
    def pid(self) -> int:
        """The child's process, 0 where there is none."""
        return self._child.pid

    @property
    def room(self) -> bool:
        """Whether a question would be taken now."""
        return len(self._open) < OPEN_MAX and self._available(time.monotonic())

    # --- asking -------------------------------------------------------------------------------------------

    def ask(self, questions: Sequence[Question]) -> bool:
        """Ask up to BATCH questions at once; False, and nothing is asked, if the baseline has to speak."""
        assert len(questions) <= BATCH
        if not questions:
            return True
        if not self.room:
            self.counters["fallback"] += len(questions)
            return False
        texts = [question.text for question in questions]
        return self._put(Classify(self._next(), texts), tuple(question.id for question in questions))

    def poll(self) -> list[Answer]:
        """What was answered since; also notices a child that ended or takes too long. Never blocks."""
        answers: list[Answer] = []
        self._child.reap()
        while (frame := self._receive()) is not None:
            self._take(frame, answers)
        self._watch_time(time.monotonic())
        answers += self._give_up()
        self._flush()
        return answers

    def ask_now(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask and wait, in batches; one answer for each question, empty where the baseline has to speak."""
        answers: list[Answer] = []
        for start in range(0, len(questions), BATCH):
            batch = questions[start : start + BATCH]
            answers += self.poll()
            if not self.ask(batch):
                answers += [Answer(question.id, {}) for question in batch]
            while self._open:
                self._child.wait_readable(1.0)
                answers += self.poll()
        return answers

    def write(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0, top_k: int = 0, seed: int = 0
    ) -> str | None:
        """What the model writes after the prompt, None where it does not within the tier's time-out.

        Who asks again while a process is late to come up is not made to wait for it again.
        """
        self.poll()
        if (self._late and self.state == "starting") or not self.room:
            self.counters["fallback"] += 1
            return None
        number, until_s = self._next(), time.monotonic() + self._request_s
        if not self._put(Write(number, prompt, max_tokens, temperature, top_k, seed), ()):
            return None
        while number in self._open and (left_s := until_s - time.monotonic()) > 0.0:
            self._child.wait_readable(min(left_s, 1.0))
            self.poll()
        if (asked := self._open.pop(number, None)) is not None:
            self._forsake(asked)
            self._late = self.state == "starting"
            if asked.sent_s and time.monotonic() - asked.sent_s > self._request_s / 2:
                self._fail(f"no text within {self._request_s:g} s")
            else:  # it only just came up, or is about to; the next text will be its own
                self._note(f"no text within {self._request_s:g} s of its start")
        return self._texts.pop(number, None)

    def close(self) -> None:
        """End the child."""
        self._child.end()
        self._child.reap(0)
        if self.state in {"starting", "ready"}:
            self.state = "asleep"

    def status(self) -> ModelStatus:
        """For the stage's status file."""
        if self.pid:
            self._pss_bytes = max(self._pss_bytes, read_pss_bytes(self.pid))
        return ModelStatus(
            state=self.state,
            bundle=self.bundle,
            pid=self.pid,
            pss_bytes=self._pss_bytes,
            cpu_s=round(self._child.cpu_s, 3),
            latency=self._latency.summary(),
            counters=dict(self.counters),
        )

    # --- requests on their way ----------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _put(self, request: Request, ids: tuple[int, ...]) -> bool:
        """Have a request sent; False where no frame can hold it."""
        count = len(ids) or 1
        self.counters["asked"] += count
        try:
            frame = encode_frame(request)
        except FrameError as error:
            self._note(str(error))
            self.counters["failed"] += count
            self.counters["fallback"] += count
            return False
        self._open[request.id] = _Asked(frame, ids, count, time.monotonic())
        if not self._child.running:
            self._start()
        self._flush()
        return True

    def _flush(self) -> None:
        """Send what was not sent, as far as the child takes it."""
        if self.state != "ready":
            return
        for asked in self._open.values():
            if not asked.sent_s:
                if not self._child.send(asked.frame):
                    return
                asked.sent_s = time.monotonic()

    def _receive(self) -> FromScorer | None:
        data = self._child.receive(MAX_FRAME_BYTES)
        if data is None:
            return None
        if not data:
            self._fail(f"ended unexpectedly{self._child.tell_end()}")
            return None
        try:
            return decode_answer(data)
        except FrameError as error:
            self._fail(str(error))
            return None

    def _take(self, frame: FromScorer, answers: list[Answer]) -> None:
        if isinstance(frame, Ready):
            self.state, self.bundle, self._thresholds = "ready", frame.bundle, frame.thresholds
            for reason in frame.refused:
                self._note(f"{reason}; {frame.bundle} serves instead", refused=True)
            self._flush()
        elif isinstance(frame, Broken):
            self._fail(frame.reason)
        elif isinstance(frame, Bye):
            self._sleep_or_restart()
        elif (asked := self._open.pop(frame.id, None)) is not None:
            answers += self._answer(asked, frame)

    def _answer(self, asked: _Asked, frame: Scored | Written | Failed) -> list[Answer]:
        self._latency.add(time.monotonic() - asked.asked_s)
        if isinstance(frame, Scored) and 0 < len(frame.rows) == len(asked.ids):
            self._succeed(len(asked.ids))
            pairs = zip(asked.ids, frame.rows, strict=True)
            return [Answer(number, scores, self.bundle, self._thresholds) for number, scores in pairs]
        if isinstance(frame, Written) and not asked.ids:
            self._succeed(1)
            self._texts = {frame.id: frame.text}  # one is waited for at a time
            return []
        self._note(frame.reason if isinstance(frame, Failed) else "it gave the wrong number of answers")
        return self._forsake(asked)

    def _succeed(self, count: int) -> None:
        self.counters["answered"] += count
        self._failures = 0
        self._said.clear()

    def _forsake(self, asked: _Asked) -> list[Answer]:
        self.counters["failed"] += asked.count
        self.counters["fallback"] += asked.count
        return [Answer(number, {}) for number in asked.ids]

    def _give_up(self) -> list[Answer]:
        """Answer for a child that is gone."""
        if self._child.running or not self._open:
            return []
        gone = list(self._open.values())
        self._open.clear()
        return [answer for asked in gone for answer in self._forsake(asked)]

    # --- the child ----------------------------------------------------------------------------------------

    def _available(self, now_s: float) -> bool:
        """Whether there is, or could be, a child to ask; looks for another bundle now and then."""
        if self.state == "off":
            return False
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        return self.state in {"asleep", "starting", "ready"} or (
            self.state == "broken" and now_s >= self._retry_s
        )

    def _look(self) -> None:
        """Notice that a bundle came, went or was switched."""
        if self._open:
            return
        mark = find_bundle(self.tier, self._pinned, self._state_dir)
        if mark != self._mark:
            self._mark, self._failures = mark, 0
            self._child.end()
            self.state = "asleep"
        if mark is None:
            self.state = "absent"
            self._note("there is no bundle; the baseline speaks alone")

    def _start(self) -> None:
        try:
            self._child.start()
        except OSError as error:
            self._fail(f"cannot start: {error.strerror}")
            return
        self.state, self._began_s, self._late = "starting", time.monotonic(), False
        self.counters["started"] += 1
        options = self._options
        first = Open(
            tier=self.tier,
            pinned=self._pinned,
            state_dir=str(self._state_dir),
            idle_s=options.idle_s,
            signature_required=options.signature_required,
            allowed_signers=options.allowed_signers,
        )
        self._child.send(encode_frame(first))

    def _watch_time(self, now_s: float) -> None:
        """Give a child up that does not come up, or does not come to an answer."""
        if not self._child.running:
            return
        first = next(iter(self._open.values()), None)
        if self.state == "starting":
            if now_s - self._began_s > self._start_s:
                self._fail(f"did not start within {self._start_s:g} s")
        elif first is not None and first.sent_s and now_s - first.sent_s > self._request_s:
            self._fail(f"did not answer within {self._request_s:g} s")

    def _sleep_or_restart(self) -> None:
        """The child ended for want of questions; one that came meanwhile wakes another."""
        self._child.end()
        self.state = "asleep"
        for asked in self._open.values():
            asked.sent_s = 0.0
        if self._open:
            self._start()

    def _fail(self, reason: str) -> None:
        """Give the child up and leave it alone for a while, longer each time."""
        self._note(reason)
        self._child.end()
        self.state = "broken"
        wait_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._retry_s = time.monotonic() + wait_s

    def _note(self, reason: str, *, refused: bool = False) -> None:
        if reason not in self._said and len(self._said) < KEPT_NOTES:
            self._said.add(reason)
            kept = self.refusals if refused else self.notes
            kept.append(f"the model of the {self.tier} tier: {reason}")


def find_bundle(tier: ModelTier, pinned: str, state: Path) -> tuple[int, int] | None:
    """Which manifest a scorer would look at, as inode and time of change; None where there is none.

    A cheap look that verifies nothing: it tells whether starting a process can be worth while, and when the
    bundle was switched under a running one.
    """
    shelf = state / "bundles" / tier  # the places of `models.shelf`, without its imports
    usual = [shelf / "current", shelf / "previous", SHIPPED / tier]
    places = usual if pinned == "auto" else [Path(pinned)]
    for place in places:
        try:
            found = (place / "manifest.json").stat()
        except OSError:
            continue
        return found.st_ino, found.st_mtime_ns
    return None
