"""A served model in the stage's eyes: incidents in, checked texts out, and nobody ever waits for it.

The requests are made by a process of their own (`daemon.stages.explainer`), which exists while there is
something to ask: http, TLS and a name server that hangs are its business, not the stage's. What it says of
each request becomes an audit line. A server that is down, slow or wrong costs nothing but its own texts.
"""

from __future__ import annotations

import math
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from daemon.advice import served
from daemon.advice.formats import Lang
from daemon.allowance import HOUR_S, Allowance, shared
from daemon.child import Child, Watch
from daemon.clock import now
from daemon.errors import HauswartError
from daemon.incidents import reading, review
from daemon.inquiries import MAX_FRAME_BYTES, Ask, Connect, Told, Unsaid, decode_answer, encode
from daemon.messages import Advice, Finding, Incident, KeepReview
from daemon.settings import Served

COMMAND = (sys.executable, "-P", "-m", "daemon", "explain")
QUEUE_MAX = 16  # incidents that wait; the oldest gives way
IDLE_S = 20.0  # without a question, then its process ends
GRACE_S = 1.0  # beyond the time that the process was given
BACKOFF_S, BACKOFF_MAX_S = 5.0, 600.0
KEPT = 16


class Read(NamedTuple):
    """What nobody's rules knew and the model says is wrong."""

    finding: Finding
    told: Mapping[str, str]  # what it rests on, as of `daemon.incidents.reading`


class Reviewed(NamedTuple):
    """What the model says is the cause of an incident, other than rules do."""

    record: KeepReview


class Explained(NamedTuple):
    """Better texts for this revision of an incident, of those languages that passed."""

    incident: Incident
    advice: list[Advice]


Question = served.Question | reading.Question | review.Question
Said = Explained | Read | Reviewed


@dataclass
class _Asked:
    question: Question
    until_s: float
    left: int  # attempts
    number: int = 0
    sent_s: float = 0.0
    kept: dict[str, Advice] = field(default_factory=dict)  # by language, as soon as one passes


class ServedModel:
    """Answers one question at a time; `notes` holds each trouble once, `audits` every request."""

    def __init__(
        self,
        settings: Served,
        languages: Sequence[Lang],
        *,
        watch: Watch | None = None,
        pid_file: Path | None = None,
        command: Sequence[str] = COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        names = (
            *("asked", "spoke", "refused", "failed", "late", "skipped", "requests"),
            *("readings", "found", "reviews", "reviewed"),
        )
        self.counters = dict.fromkeys(names, 0)
        self.notes: deque[str] = deque(maxlen=KEPT)
        self.audits: deque[tuple[str, Told]] = deque()  # with the incident's id; "" for a reading
        self._settings, self._languages, self._clock = settings, list(languages), clock
        self._child = Child(command, watch=watch, pid_file=pid_file)
        self._waiting: OrderedDict[str, Incident] = OrderedDict()
        self._asked: _Asked | None = None
        # Questions are made when it is their turn: what earlier answers said of it is known then.
        self._unread: Callable[[], reading.Question | None] | None = None
        self._unsure: Callable[[], review.Question] | None = None
        self._recent: deque[float] = deque()  # when incidents were asked about, within the hour
        self._readings, self._looks = shared(settings.readings_per_hour)
        self._said: set[str] = set()
        self._retry_s, self._failures, self._number = -math.inf, 0, 0
        self._off = False
        self._idle_s = 0.0  # since when

    @property
    def busy(self) -> bool:
        """Whether something is asked, or waits to be and may."""
        now_s = self._clock()
        return self._asked is not None or self._turn_s(now_s) <= now_s

    def _turn_s(self, now_s: float) -> float:
        """When the first of what waits may be asked."""
        times_s = [now_s] if self._waiting else []
        times_s += [self._readings.at_s(now_s)] if self._unread is not None else []
        times_s += [self._looks.at_s(now_s)] if self._unsure is not None else []
        return max(self._retry_s, min(times_s, default=math.inf))

    @property
    def look_at_s(self) -> float:
        """When a look at an incident may be wanted, 0 for now.

        One at a time: what waits would be about what was long ago.
        """
        now_s = self._clock()
        at_s = math.inf if self._unsure is not None else self._looks.at_s(now_s)
        return at_s if at_s > now_s else 0.0

    @property
    def _free(self) -> bool:
        return self._asked is None and self._clock() >= self._retry_s

    @property
    def pid(self) -> int:
        """The process that asks, 0 where there is none."""
        return self._child.pid

    @property
    def wait_s(self) -> float:
        """How long until `step` has something to do by itself."""
        now_s = self._clock()
        if self._asked is not None:
            return max(0.0, self._asked.until_s + GRACE_S - now_s)
        idle_s = self._idle_s + IDLE_S if self._child.running else math.inf
        return max(0.0, min(self._turn_s(now_s), idle_s) - now_s)

    def want(self, incident: Incident) -> None:
        """Have this revision explained when it is its turn; a newer one takes the place of an older."""
        if self._off or incident.quieted or incident.state == "merged":
            return
        self._waiting[incident.id] = incident
        self._waiting.move_to_end(incident.id)
        while len(self._waiting) > QUEUE_MAX:
            self._waiting.popitem(last=False)
            self.counters["skipped"] += 1

    def want_reading(self, question: Callable[[], reading.Question | None]) -> None:
        """Have this read next, in place of what waits to be: it has what was new then, too.

        The question is made when its turn comes; None if there is nothing to be asked any more.
        """
        if not self._off:
            self._unread = question

    def want_review(self, question: Callable[[], review.Question]) -> None:
        """Have an incident looked at once more, in place of what waits to be (`look_at_s`)."""
        if not self._off:
            self._unsure = question

    def step(self) -> list[Said]:
        """Hear what was answered, end what takes too long, ask the next. Never blocks."""
        self._child.reap()
        found: list[Said] = []
        while (data := self._child.receive(MAX_FRAME_BYTES)) is not None:
            found += self._hear(data)
        now_s = self._clock()
        if self._asked is not None and now_s > self._asked.until_s + GRACE_S:
            self._lose("late", f"gave no answer in {self._settings.timeout_s:g} s, and was ended")
        if not found:  # else what was said is heeded first
            self._ask_next()
        if self.busy:
            self._idle_s = self._clock()
        elif self._child.running and self._clock() - self._idle_s >= IDLE_S:
            self._child.end()
        return found

    def close(self) -> None:
        """End what is on its way."""
        self._forget()
        if self._asked is not None:
            self._lose("failed", "")
        self._child.end()
        self._child.reap(0)

    # --- asking ---------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._waiting.clear()
        self._unread = self._unsure = None

    def _ask_next(self) -> None:
        """What may open an incident comes first, then what may be wrong with one, then a better text.

        While a server that failed is left alone, all of them wait.
        """
        if self._free and self._unread is not None and self._allowed(self._readings, "what is new waits"):
            unread, self._unread = self._unread, None
            self._ask_to_read(unread, "readings", self._readings)
        if self._free and self._unsure is not None and self._allowed(self._looks, "looks at incidents wait"):
            unsure, self._unsure = self._unsure, None
            self._ask_to_read(unsure, "reviews", self._looks)
        while self._free and self._waiting:
            _, incident = self._waiting.popitem()  # the latest is what the operator looks at
            if not self._may_explain():
                self.counters["skipped"] += 1
                continue
            try:
                question = served.question(incident, self._languages)
            except HauswartError as error:  # a broken catalogue, which the tier names, too
                self._note(f"cannot be asked: {error}")
                question = None
            if question is None:
                continue
            self.counters["asked"] += 1
            until_s = self._clock() + self._settings.timeout_s
            self._put(_Asked(question, until_s, self._settings.attempts))

    def _allowed(self, allowance: Allowance, waits: str) -> bool:
        now_s = self._clock()
        wait_s = allowance.at_s(now_s) - now_s
        if allowance.full(now_s):
            self._said.discard(waits)
        elif wait_s > 0.0:
            self._note(f"was asked very much at once: {waits} {wait_s:.0f} s", once=waits)
        return wait_s <= 0.0

    def _ask_to_read(self, wanted: Callable[[], Question | None], counter: str, allowance: Allowance) -> None:
        question = wanted()
        if question is None:
            self.counters["skipped"] += 1
            return
        now_s = self._clock()
        allowance.take(now_s)
        self.counters[counter] += 1
        self._put(_Asked(question, now_s + self._settings.timeout_s, 1))

    def _may_explain(self) -> bool:
        now_s, limit = self._clock(), self._settings.per_hour
        while self._recent and now_s - self._recent[0] > HOUR_S:
            self._recent.popleft()
        if len(self._recent) >= limit:
            self._note(f"was asked about {limit} incidents within the hour, and is spared")
            return False
        self._recent.append(now_s)
        return True

    def _put(self, asked: _Asked) -> None:
        self._number += 1
        asked.number, asked.sent_s = self._number, self._clock()
        asked.left -= 1
        left_s = max(0.05, asked.until_s - asked.sent_s)
        frame = encode(Ask(asked.number, asked.question.messages, asked.question.schema, left_s))
        self._asked = asked
        try:
            if not self._child.running:
                self._child.start()
                self._child.send(encode(Connect(self._settings)))
            sent = len(frame) <= MAX_FRAME_BYTES and self._child.send(frame)
        except OSError as error:
            self._lose("failed", f"cannot be asked: {error.strerror}")
            return
        if not sent:
            self._lose("failed", "cannot be asked: the question does not fit")

    # --- answers --------------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> list[Said]:
        if not data:
            ended = self._child.tell_end()
            if self._asked is None:
                self._child.end()
            else:
                self._lose("failed", f"cannot be asked: its process ended{ended}")
            return []
        try:
            frame = decode_answer(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._lose("failed", "cannot be asked: its process talks nonsense")
            return []
        asked = self._asked
        if asked is None or frame.id != asked.number:
            return []  # nothing else is on its way
        self.counters["requests"] += len(frame.requests)
        self.audits += [(_about(asked.question), one) for one in frame.requests]
        if isinstance(frame, Unsaid):
            self._fail(frame)
            return []
        self._failures, self._retry_s = 0, -math.inf
        model = self._settings.model or frame.model or "a model"
        place = frame.requests[-1].host if frame.requests else self._settings.url
        author = f"{model} at {place}"
        return self._take(asked, frame.text, author)

    def _take(self, asked: _Asked, text: str, author: str) -> list[Said]:
        question = asked.question
        if isinstance(question, reading.Question):
            return self._take_reading(question, text)
        if isinstance(question, review.Question):
            return self._take_review(question, text, author)
        return self._judge(asked, question, text, author)

    def _take_reading(self, question: reading.Question, text: str) -> list[Said]:
        self._asked = None
        found = reading.read(text, question, now())
        if found.fault:
            self.counters["refused"] += 1
            self._note(f"what it read was refused: {found.fault[:300]}", once="misread")
        if found.finding is None:
            return []
        self.counters["found"] += 1
        return [Read(found.finding, found.told)]

    def _take_review(self, question: review.Question, text: str, author: str) -> list[Said]:
        self._asked = None
        found = review.read(text, question, now().wall, author)
        if found.fault:
            self.counters["refused"] += 1
            self._note(f"its review was refused: {found.fault[:300]}", once="misread")
        if found.record is None:
            return []
        self.counters["reviewed"] += 1
        return [Reviewed(found.record)]

    def _judge(self, asked: _Asked, question: served.Question, text: str, author: str) -> list[Said]:
        incident = question.incident
        said = served.read(text, question, author)
        for one in said.advice:
            asked.kept.setdefault(one.lang, one)
        whole = len(asked.kept) == len(question.languages)
        newer = incident.id in self._waiting
        if not whole and asked.left > 0 and not newer and self._clock() < asked.until_s:
            asked.question = served.again(question, text, said)
            self._put(asked)
            return []
        self._asked = None
        if not whole:
            self.counters["refused"] += 1
            self._note(f"its text was refused: {'; '.join(said.faults)[:300]}", once="refused")
        else:
            self._said.clear()
        if not asked.kept or newer:
            return []
        self.counters["spoke"] += 1
        return [Explained(incident, list(asked.kept.values()))]

    def _fail(self, frame: Unsaid) -> None:
        late = frame.kind == "slow"
        self._asked = None
        self.counters["late" if late else "failed"] += 1
        self._note(frame.reason, once="trouble")
        if frame.kind == "config":
            self._off = True  # it does not come right by itself
            self._forget()
            return
        self._back_off(frame.retry_after_s or 0.0)

    def _lose(self, counter: str, reason: str) -> None:
        """The process is gone or has to go; what it may have sent is audited as lost."""
        asked, self._asked = self._asked, None
        self._child.end()
        if asked is not None:
            self.counters[counter] += 1
            seconds = round(self._clock() - asked.sent_s, 3)
            lost = Told(self._settings.url, "evidence", self._settings.model, 0, "", "lost", seconds)
            self.audits.append((_about(asked.question), lost))
        if reason:
            self._note(reason, once="trouble")
            self._back_off(0.0)

    def _back_off(self, asked_s: float) -> None:
        wait_s = min(BACKOFF_MAX_S, max(asked_s, BACKOFF_S * 2.0**self._failures))
        self._failures = min(self._failures + 1, 16)
        self._retry_s = self._clock() + wait_s

    def _note(self, reason: str, *, once: str = "") -> None:
        """Said once, until it works again."""
        key = once or reason
        if key not in self._said:
            self._said.add(key)
            self.notes.append(f"the served model: {reason}; what spoke before it stays")


def _about(question: Question) -> str:
    return "" if isinstance(question, reading.Question) else question.incident.id
