"""What the low tier's model is asked about templates, and what it said of them.

Pure, on observation time. A template is asked about once; who floods the log with new ones gets a bounded
share of a bounded number of questions. Knows nothing of findings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import isfinite
from typing import NamedTuple

import msgspec

from daemon.messages import Line
from daemon.questions import BATCH, Answer, Question
from models.lines import decode, encode
from models.taxonomy import Category, Severity
from models.templates import Template

# At 3 ms a line, eight questions a second are 2.4 % of a core at nice 10, and that only under a flood.
QUESTIONS_PER_SECOND = 8.0
SAVED_MAX = 64.0  # questions that may come at once after a quiet time: a new service, a boot
PENDING_MAX = 256
PAYER_PENDING_MAX = 8  # of one unit, user or file: a flood waits behind itself, not before the others
ASKED_MAX = 4 * BATCH
# Starting the model costs half a second of a core, so what nobody is alarmed by waits for company.
COMPANY = BATCH
PATIENCE_S = 300.0
WORTHY = 0.5  # calibrated: more likely than not that somebody would want to be told
STATE_VERSION = 1
KEPT_MAX = 8192


class Opinion(NamedTuple):
    """What the model of `bundle` makes of a template; `alert` is a calibrated probability."""

    category: Category
    severity: Severity
    alert: float
    bundle: str

    @property
    def worthy(self) -> bool:
        """Whether such a line is rather worth an alert than not."""
        return self.alert >= WORTHY


class Wonder(NamedTuple):
    """A template that nobody has judged, by the line that made it.

    `told` is the score with which it was told as new; None where nothing was to be told (the tier was
    learning), and 0 where it was held back.
    """

    template: Template
    line: Line
    t: float
    told: float | None
    urgent: bool = False  # somebody may be alarmed


_NOBODY: deque[Wonder] = deque(maxlen=0)


class Opinions:
    """Questions that wait, in turn of who pays for them, and those on their way."""

    def __init__(self) -> None:
        self.counters = dict.fromkeys(("wondered", "unasked", "opinions"), 0)
        self.bundle = ""  # whose opinions are new
        self._waiting: dict[str, deque[Wonder]] = {}
        self._count = 0
        self._urgent = 0
        self._asked: dict[int, Wonder] = {}
        self._number = 0
        self._saved, self._saved_t = SAVED_MAX, 0.0

    def wonder(self, payer: str, wonder: Wonder) -> None:
        """Have a template judged when its turn comes; who has too many waiting is left to the baseline.

        What is urgent takes the place of what is not, among the same payer's.
        """
        waiting = self._waiting.get(payer, _NOBODY)
        if self._count >= PENDING_MAX or len(waiting) >= PAYER_PENDING_MAX:
            self.counters["unasked"] += 1
            patient = next((one for one in waiting if not one.urgent), None) if wonder.urgent else None
            if patient is None:
                return
            waiting.remove(patient)
            self._count -= 1
        if payer not in self._waiting:
            waiting = self._waiting[payer] = deque()
        waiting.append(wonder)
        self._count += 1
        self._urgent += wonder.urgent
        self.counters["wondered"] += 1

    def due(self, t: float) -> bool:
        """Whether it is worth starting the model: somebody is alarmed, many wait, or one has waited long."""
        if not self._count:
            return False
        oldest_t = min(waiting[0].t for waiting in self._waiting.values())
        return self._urgent > 0 or self._count >= COMPANY or t - oldest_t >= PATIENCE_S

    def ask(self, t: float) -> list[Question]:
        """The next questions, one of each payer in turn, within the budget of observation time."""
        if not self._count:
            return []
        self._saved = min(SAVED_MAX, self._saved + QUESTIONS_PER_SECOND * max(0.0, t - self._saved_t))
        self._saved_t = t
        questions: list[Question] = []
        while self._count and self._saved >= 1.0 and len(questions) < BATCH and len(self._asked) < ASKED_MAX:
            wonder = self._take()
            if wonder.template.newest().state is None:
                continue  # forgotten meanwhile
            self._saved -= 1.0
            self._number += 1
            self._asked[self._number] = wonder
            line = wonder.line
            questions.append(Question(self._number, encode(line.text, line.identifier)))
        return questions

    def _take(self) -> Wonder:
        payer, waiting = next(iter(self._waiting.items()))
        del self._waiting[payer]
        wonder = waiting.popleft()
        self._count -= 1
        self._urgent -= wonder.urgent
        if waiting:
            self._waiting[payer] = waiting  # behind the others
        return wonder

    def hear(self, answer: Answer) -> tuple[Wonder, Opinion] | None:
        """What an answer says of which template; None for no answer, or one of another shape."""
        wonder = self._asked.pop(answer.id, None)
        if wonder is None or not answer.scores:
            return None
        try:
            verdict = decode(answer.scores, answer.thresholds)
        except (KeyError, IndexError, ValueError):
            return None
        self.bundle = answer.bundle
        self.counters["opinions"] += 1
        return wonder, Opinion(verdict.category, verdict.severity, round(verdict.alert, 3), answer.bundle)


class _Kept(msgspec.Struct):
    version: int
    bundles: list[str]
    opinions: dict[str, tuple[Category, Severity, float, int]]


def save(kept: Iterable[tuple[str, Opinion]]) -> bytes:
    """Opinions by template key, for the saved state."""
    bundles: dict[str, int] = {}
    opinions = {
        key: (one.category, one.severity, one.alert, bundles.setdefault(one.bundle, len(bundles)))
        for key, one in kept
    }
    return msgspec.msgpack.encode(_Kept(STATE_VERSION, list(bundles), opinions))


def load(state: bytes) -> dict[str, Opinion]:
    """Opinions of a saved state; none where it is damaged or of another version: they can be had anew."""
    try:
        kept = msgspec.msgpack.decode(state, type=_Kept)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    if kept.version != STATE_VERSION or len(kept.opinions) > KEPT_MAX:
        return {}
    return {
        key: Opinion(category, severity, alert, kept.bundles[number])
        for key, (category, severity, alert, number) in kept.opinions.items()
        if isfinite(alert) and 0 <= number < len(kept.bundles)
    }
