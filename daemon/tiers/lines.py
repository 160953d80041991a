"""The log path of the low tier: each template is judged once, then its novelty, rate and silence are watched.

Pure: no I/O, no clock but the observations' own time. Known messages come from the catalogue and count only
from the writer that may utter them; everything statistical hints weakly and cannot open an incident alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import isfinite

import msgspec

from daemon.messages import Event, Finding, Line, Stamp
from daemon.questions import Answer, Question
from daemon.settings import Low
from daemon.tiers import oddities, opinions
from daemon.tiers.complaints import Complaints, Meaning
from daemon.tiers.conditions import Conditions
from daemon.tiers.gates import Gate, Unread
from daemon.tiers.last_words import LATE_S, LastWords, failure
from daemon.tiers.meanings import Meanings
from daemon.tiers.oddities import NOVEL_PER_MINUTE
from daemon.tiers.opinions import Opinions, Wonder
from daemon.tiers.paces import TIMELESS
from daemon.tiers.places import Places
from daemon.tiers.rates import MISSED, Watch
from daemon.tiers.waits import Waits
from daemon.tiers.writers import MANAGER, Writer, Writers
from models.alertness import word_weight
from models.complaints import UNSAID
from models.known import load
from models.templates import Form, Miner, Template

STATE_VERSION = 1
STATE_TEMPLATES = 8192
HEARTBEATS_MAX = 256
FALLBACK = "\0"  # a form that no line has: the fallback's template of each writer
WORK_PER_SECOND = 1_000_000  # a unit of work is about a microsecond
# Of reading a kind of line for what it complains about, see models.complaints; of one whose level says no.
COMPLAINT_WORK, LEVEL_WORK = 100, 15
KNOWN_MAX, KNOWN_THRIFTY = 16, 4  # meanings tried on the lines of one form
THRIFTY_CHARS = 200  # at both ends of a line: what is known stands there
ALL_UNITS = 2.0  # all units together may spend twice a single one's share
RAISED = 0.1  # of a score: what a model adds less than is not told anew


class LineJudge:
    """Judges lines of one host in the order of observation time."""

    def __init__(
        self, settings: Low, values: Mapping[str, float] | None = None, *, unread: bool = False
    ) -> None:
        self._settings = settings
        self._unread = Unread() if unread else None
        self._catalogue = load()
        self._conditions = Conditions(read=unread)
        self._writers = Writers()
        places = Places({} if values is None else values)
        self._meanings = Meanings(self._conditions, places, self._writers, read=unread)
        self._complaints = Complaints(self._meanings.symptoms)
        self._miner = Miner(settings.templates_max, on_merge=_share)
        self._beats: dict[int, Template] = {}
        self._own_pids: frozenset[int] = frozenset()
        self._boot = ""
        self._began_t = -1.0
        self._ticked_t = 0.0
        self._share = int(settings.unit_cpu_share * WORK_PER_SECOND)
        self._second, self._spent = 0, 0
        self._gate = Gate()
        self._waits = Waits(self._conditions)
        self._opinions = Opinions()
        self._counts = dict.fromkeys(("lines", "own", "fallback", "novel", "known", "capped"), 0)

    @property
    def counters(self) -> dict[str, int]:
        """What was seen, left out and asked so far."""
        return self._counts | self._opinions.counters

    @property
    def events(self) -> list[Event]:
        """Sessions that lines spoke of since the last call."""
        events = self._meanings.events
        if events:
            self._meanings.events = []
        return events

    def own(self, pids: frozenset[int]) -> None:
        """Tell which processes are hauswart's own, where no unit says so."""
        self._own_pids = pids

    def judge(self, line: Line, t: float) -> list[Finding]:
        """Findings of one line."""
        self._counts["lines"] += 1
        if line.trusted and (line.unit.startswith("hauswart") or line.pid in self._own_pids):
            self._counts["own"] += 1
            return []
        if line.at.boot != self._boot:
            self._begin_boot(line.at.boot, t)
        writer = self._writers.of(line, t)
        before = self._miner.work
        template, thrifty = self._template(line, writer, t)
        findings = self._weigh(template, writer, line, t, thrifty=thrifty)
        if writer.words is not None:
            writer.words.hear(line, t)
            if writer.words.failed_t + LATE_S >= t:
                findings += self._last_words(writer.words, line, t)
        elif findings and writer.role == MANAGER:
            findings += self._tell_failure(findings[0], line, t)
        self._charge(writer, self._miner.work - before)
        return self._pass(findings, t, template) if findings else findings

    def _weigh(
        self, template: Template, writer: Writer, line: Line, t: float, *, thrifty: bool
    ) -> list[Finding]:
        """What a line means, and whether it is new, too many or back."""
        watch: Watch | None = template.state
        novel = watch is None
        if watch is None:
            watch = self._admit(template, line, t)
        form = self._miner.form
        meaning: Meaning | None = form.state
        if meaning is None or self._miner.cut:
            meaning = self._learn_meaning(form, writer, line.text, thrifty=thrifty)
        if meaning.known:
            self._miner.work += 3 * len(meaning.known)
            known, findings = self._meanings.judge(meaning.known, line, t)
            if known:
                self._counts["known"] += 1
                watch.arrive(t)
                return findings
        findings = self._novel(template, watch, writer, line, t) if novel else []
        if meaning.complains and not (thrifty and meaning.complaint is None):
            findings += self._complain(watch, meaning, writer, line, t)
        if not thrifty:
            findings += self._to_read(template, meaning, writer, line, t)
        burst = watch.arrive(t)
        if burst or watch.silent:
            findings += self._rate(template, watch, writer, line, t)
        if watch.beating and template.number not in self._beats and len(self._beats) < HEARTBEATS_MAX:
            self._beats[template.number] = template
        return findings

    def _to_read(
        self, template: Template, meaning: Meaning, writer: Writer, line: Line, t: float
    ) -> list[Finding]:
        """What is in a line beside its kind, for who reads it: all of it, and how long something took."""
        findings = self._waits.judge(template, writer, line, t)
        self._miner.work += self._waits.work
        if self._unread:
            said = meaning.complaint
            complains = said is not None and said.fault is not None
            if self._unread.wants(template, writer.budget.payer, t, complains=complains):
                findings += self._conditions.hold(oddities.unread(template, line), line.at, t)
        return findings

    def _tell_failure(self, finding: Finding, line: Line, t: float) -> list[Finding]:
        """What the unit said before it failed."""
        words = self._writers.words(finding.subjects[0].name) if failure(finding) else None
        if words is None:
            return []
        words.fail(finding, t)
        return self._last_words(words, line, t)

    def _last_words(self, words: LastWords, line: Line, t: float) -> list[Finding]:
        return [one for said in words.breaches(t) for one in self._conditions.hold(said, line.at, t)]

    def tick(self, t: float, at: Stamp) -> list[Finding]:
        """Observation time has come to `t`: silences, ends of conditions, what was held back."""
        if t - self._ticked_t < 1.0:
            return []
        self._ticked_t = t
        findings = self._meanings.tick(t, at) + self._conditions.sweep(at, t)
        if t - self._began_t >= self._settings.learn_s:
            findings += self._silences(t, at)
        held_back = self._gate.held_back(t)
        if held_back:
            findings += self._conditions.hold(oddities.overflow(held_back), at, t)
        return findings

    # --- templates --------------------------------------------------------------------------------------

    def _template(self, line: Line, writer: Writer, t: float) -> tuple[Template, bool]:
        """The line's template, or once its share of this second is spent (True) the writer's fallback.

        Unless the line looks like one seen lately: then all that was found out about that one still counts.
        """
        budget, second = writer.budget, int(t)
        if second != self._second:
            self._second, self._spent = second, 0
        if second != budget.second:
            budget.second, budget.spent = second, 0
        if budget.spent < self._share and self._spent < ALL_UNITS * self._share:
            return self._miner.add(line.text, writer.name), False
        found = self._miner.find(line.text, writer.name)
        if found is not None:
            return found, True
        self._counts["fallback"] += 1
        fallback = self._miner.add(FALLBACK, writer.name)
        if fallback.state is None:
            fallback.state = Watch(t, 0.0, 7)
        self._miner.form.state = None  # the catalogue still sees every line
        return fallback, True

    def _charge(self, writer: Writer, work: int) -> None:
        writer.budget.spent += work
        self._spent += work

    def _admit(self, template: Template, line: Line, t: float) -> Watch:
        watch = template.state = Watch(t, round(word_weight(line.text[:512]), 3), line.priority)
        self._miner.work += 8
        return watch

    def _learn_meaning(self, form: Form, writer: Writer, text: str, *, thrifty: bool) -> Meaning:
        if thrifty and len(text) > THRIFTY_CHARS:
            text = f"{text[:THRIFTY_CHARS]} {text[-THRIFTY_CHARS:]}"
        self._miner.work += 4 + len(text) // 32
        allowed = [one for one in self._catalogue.candidates(text) if writer.may_say(one)]
        meaning: Meaning = form.state or Meaning()
        form.state = meaning
        meaning.known = tuple(allowed[: KNOWN_THRIFTY if thrifty else KNOWN_MAX])
        return meaning

    def _begin_boot(self, boot: str, t: float) -> None:
        self._boot = boot
        if self._began_t < 0.0:
            self._began_t = t
        for template in self._miner:
            if template.state is not None:
                template.state.forget_windows(t)
        self._beats.clear()

    # --- statistics -------------------------------------------------------------------------------------

    def _novel(self, template: Template, watch: Watch, writer: Writer, line: Line, t: float) -> list[Finding]:
        grave = line.priority <= 3
        learning = t - self._began_t < self._settings.learn_s and line.priority > 2
        if learning or (t - writer.first_t < self._settings.learn_s and not grave):
            self._wonder(template, watch, writer, line, t, told=None)
            return []
        self._counts["novel"] += 1
        if t - writer.novel_t > 60.0:
            writer.novel_t, writer.novel_count = t, 0
        writer.novel_count += 1
        if writer.novel_count > NOVEL_PER_MINUTE:
            self._wonder(template, watch, writer, line, t, told=0.0)
            if writer.novel_count > NOVEL_PER_MINUTE + 1:
                return []
            return self._conditions.hold(oddities.many_novel(writer, line), line.at, t)
        breach = oddities.novel(template, watch, line)
        self._wonder(template, watch, writer, line, t, told=breach.score)
        return self._conditions.hold(breach, line.at, t)

    def _complain(
        self, watch: Watch, meaning: Meaning, writer: Writer, line: Line, t: float
    ) -> list[Finding]:
        """A trouble that the writer goes on complaining of."""
        asked = meaning.complaint is None
        breach = self._complaints.judge(watch, meaning, writer, line, t)
        levelled = meaning.complaint is not None and meaning.complaint.priority > UNSAID
        self._miner.work += (LEVEL_WORK if levelled else COMPLAINT_WORK) if asked else 2
        if meaning.complaint and meaning.complaint.fault:
            sure = meaning.reading.sure if meaning.reading else 1.0
            self._meanings.explain(meaning.complaint.fault, sure, line, t)
        return self._conditions.hold(self._meanings.accuse(breach, t), line.at, t) if breach else []

    def _rate(self, template: Template, watch: Watch, writer: Writer, line: Line, t: float) -> list[Finding]:
        findings: list[Finding] = []
        if watch.silent:
            watch.silent = False
            findings += self._conditions.end("line.silence", template.key, line.at)
        if watch.now >= watch.limit and t - self._began_t >= self._settings.learn_s:
            if watch.opinion is None or watch.opinion.bundle != self._opinions.bundle:
                self._wonder(template, watch, writer, line, t, told=None)
            findings += self._conditions.hold(oddities.burst(template, watch, line), line.at, t)
        return findings

    # --- the model ----------------------------------------------------------------------------------------

    def _wonder(
        self, template: Template, watch: Watch, writer: Writer, line: Line, t: float, *, told: float | None
    ) -> None:
        urgent = told is not None and (line.priority <= 4 or watch.worthy)
        self._miner.work += 1
        self._opinions.wonder(writer.budget.payer, Wonder(template, line, t, told, urgent))

    def asked(self, t: float, *, eager: bool) -> list[Question]:
        """Questions for the model, within their budget; unless `eager`, only if it is worth starting it."""
        return self._opinions.ask(t) if eager or self._opinions.due(t) else []

    def told(self, answers: Sequence[Answer], at: Stamp, t: float) -> list[Finding]:
        """Remember what the model said; the findings that it raises above what was told without it."""
        findings: list[Finding] = []
        for answer in answers:
            heard = self._opinions.hear(answer)
            template = heard[0].template.newest() if heard else None
            if heard is None or template is None or template.state is None:
                continue
            wonder, template.state.opinion = heard
            findings += self._pass(self._raise(template, wonder, at, t), t, template)
        return findings

    def _raise(self, template: Template, wonder: Wonder, at: Stamp, t: float) -> list[Finding]:
        """Tell once more, and better, what was told as new; or what was lost among too much that was new."""
        watch: Watch = template.state
        if wonder.told is None:
            return []
        breach = oddities.novel(template, watch, wonder.line)
        if not wonder.told:
            return self._conditions.hold(breach, at, t) if watch.worthy else []
        if breach.score < wonder.told + RAISED:
            return []
        return self._conditions.retell(breach, at, t)

    def _silences(self, t: float, at: Stamp) -> list[Finding]:
        findings: list[Finding] = []
        for number, template in list(self._beats.items()):
            watch: Watch | None = template.state
            if watch is None or not watch.beating or t - watch.last_t > 100.0 * watch.gap_s:
                del self._beats[number]
                continue
            late = t - watch.last_t > MISSED * watch.gap_s + 1.0
            if late and watch.last_t - watch.first_t >= self._settings.learn_s:
                watch.silent = True
                findings += self._conditions.hold(oddities.silence(template, watch, t), at, t)
        return findings

    def _pass(self, findings: list[Finding], t: float, template: Template) -> list[Finding]:
        passed = [finding for finding in findings if self._gate.open(finding, t, template.origin)]
        self._counts["capped"] += len(findings) - len(passed)
        return [msgspec.structs.replace(finding, template=template.key) for finding in passed]

    # --- learned state ----------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The templates and their usual rates, the most used first, bounded."""
        kept = sorted(self._miner, key=lambda template: (-template.count, template.number))
        saved = [
            (template.origin, list(template.words), template.count, template.key, template.state.state())
            for template in kept[:STATE_TEMPLATES]
            if template.state is not None and template.words != (FALLBACK,)
        ]
        return msgspec.msgpack.encode([STATE_VERSION, self._began_t, saved])

    def snapshot_opinions(self) -> bytes:
        """What the model said of the templates, apart from the rest, so that older daemons can read that."""
        kept = ((template.key, template.state.opinion) for template in self._miner if template.state)
        said = ((key, opinion) for key, opinion in kept if opinion is not None)
        return opinions.save(islice(said, opinions.KEPT_MAX))

    def restore_opinions(self, state: bytes) -> None:
        """Take up what the model said, after `restore`."""
        kept = opinions.load(state)
        for template in self._miner if kept else ():
            if template.state is not None:
                template.state.opinion = kept.get(template.key)

    def restore(self, state: bytes) -> bool:
        """Take up a saved state; False (and a fresh start) if it is damaged or of another version."""
        try:
            version, began_t, saved = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        if version != STATE_VERSION or not isfinite(began_t):
            return False
        for origin, words, count, key, watch in saved[: min(STATE_TEMPLATES, self._settings.templates_max)]:
            if words and all(map(isfinite, watch)):
                template = self._miner.restore(origin[:256], tuple(words[:64]), max(0, count), key[:64])
                template.state = Watch.resume(watch, began_t)
        self._began_t = began_t
        return True


_Saved = tuple[str, list[str | None], int, str, tuple[float, float, float, float, float, float, float]]
_State = tuple[int, float, list[_Saved]]


def _share(heir: Template, other: Template) -> None:
    """What the model said of lines of a merged template, it said of its heir's; they are as slow, too."""
    ours, theirs = heir.state, other.state
    if ours is not None and theirs is not None:
        ours.opinion = ours.opinion or theirs.opinion
        ours.pace = theirs.pace if ours.pace in {None, TIMELESS} else ours.pace
