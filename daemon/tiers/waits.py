"""Who waits, by what he writes himself: what takes far longer than it used to, as a condition while it does.

It hints too weakly to open an incident. Somebody who reads is shown it, and load that is on purpose is not
explained any more while somebody waits (`daemon.incidents.context`).
"""

from __future__ import annotations

from daemon.messages import MAX_TEXT, Finding, Line
from daemon.tiers.conditions import Breach, Conditions
from daemon.tiers.gates import Few
from daemon.tiers.oddities import subject_of
from daemon.tiers.paces import READ_CHARS, TIMELESS, Pace, Slow
from daemon.tiers.rates import Watch
from daemon.tiers.wording import span
from daemon.tiers.writers import KERNEL, MANAGER, Writer
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity
from models.templates import QUOTED, Template

RULE = "line.slow"
PER_MINUTE, OF_ONE = 20, 5  # of the whole host, of one writer; slips, which come before what goes on,
SLIPS_PER_MINUTE, SLIPS_OF_ONE = 10, 3  # have their own room
MESSAGES_MAX, MESSAGE_CHARS = 1024, 48  # of loggers
_CHARS_PER_WORK, _WORK = 8, 2
_NOBODYS = frozenset({KERNEL, MANAGER})  # they tell of what others take


class Waits:
    """The kinds of lines of one host that name how long something took."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._few = Few(PER_MINUTE, OF_ONE)
        self._slips = Few(SLIPS_PER_MINUTE, SLIPS_OF_ONE)
        self._quoted: dict[tuple[int, str], Pace] = {}  # by template and message, the latest last
        self.work = 0  # that the last line took, about microseconds

    def judge(self, template: Template, writer: Writer, line: Line, t: float) -> list[Finding]:
        """What takes far longer in a line than it used to, or does no more."""
        self.work = 0
        watch: Watch = template.state
        if watch.pace is TIMELESS or writer.role in _NOBODYS:
            return []
        pace = self._pace(template, watch, line.text)
        self.work = _WORK
        if pace is TIMELESS:
            return []
        self.work += min(len(line.text), READ_CHARS) // _CHARS_PER_WORK
        row, slow = pace.row, pace.take(line.text, line.unit, t)
        if slow is not None:
            few = self._slips if slow.times == 1 else self._few
            due = slow.times & (slow.times - 1) == 0  # it has doubled
            if due and not few.take(writer.budget.payer, t):
                return []
            return self._conditions.hold(_breach(template, slow, line), line.at, t)
        return self._conditions.end(RULE, template.key, line.at) if row and not pace.row else []

    def _pace(self, template: Template, watch: Watch, text: str) -> Pace:
        """The pace of a kind of line; of a logger's lines the message tells one operation from another."""
        quoted = QUOTED.search(text) if watch.pace is None else None
        if quoted is None:
            watch.pace = _or_none(watch.pace or Pace())
            return watch.pace
        message = text[quoted.end() : quoted.end() + MESSAGE_CHARS].partition('"')[0]
        name = (template.number, mask(message))
        pace = _or_none(self._quoted.pop(name) if name in self._quoted else Pace())
        if len(self._quoted) >= MESSAGES_MAX:
            del self._quoted[next(iter(self._quoted))]
        self._quoted[name] = pace
        return pace


def _or_none(pace: Pace) -> Pace:
    return TIMELESS if pace.timeless else pace


def _breach(template: Template, slow: Slow, line: Line) -> Breach:
    return Breach(
        rule=RULE,
        label=template.key,
        severity=Severity.INFO,
        score=0.3,
        subjects=[subject_of(line)],
        hints={FaultClass.SERVICE_HUNG: 0.25},
        text=f"takes {span(slow.now_s)}, usually {span(slow.usual_s)}: {line.text}"[:MAX_TEXT],
        values={"duration_s": slow.now_s, "usual_s": slow.usual_s, "lines_count": float(slow.times)},
        ref=line.cursor or line.source,
        kind="event",
        category=Category.UNKNOWN,
        size=float(slow.times),
        words=True,
    )
