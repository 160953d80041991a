"""The top stage: incidents that lack advice get it; sleeps, and holds next to nothing, in between."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from daemon.bus import LOOK_EVERY_S, RecordsClient, WakeListener, Wire
from daemon.errors import NO_INCIDENT, REFUSED, HauswartError
from daemon.incidents.unexplained import SHOWN_S, noteworthy
from daemon.message_ids import MessageId
from daemon.messages import Advice, Finding, Incident, KeepAdvice, KeepFinding
from daemon.scorer import Scorer
from daemon.settings import Settings
from daemon.stages.consult import Consultation, consultation
from daemon.stages.health import find_crash
from daemon.stages.life import Life, Report
from daemon.stages.process import describe
from daemon.stages.served import Explanations

if TYPE_CHECKING:
    from daemon.served import Explained, Read, Reviewed, Said

KEEP_TIMEOUT_S = 4.0  # less than the time in which a stage has to stop
RETRY_S = 3.0
PAUSE_S = 0.25  # between two looks, so that a burst of revisions is read once
MAX_GIVEN_UP = 256
UNKEPT_MAX, OFFERS = 16, 5  # of what was read, while the middle tier is being started again
ROUNDS = 16  # of the reader's list at one look


class Tier(Protocol):
    """What this stage needs of the top tier."""

    notes: list[str]

    def advise(self, incident: Incident) -> list[Advice]:
        """Advice in each language."""
        ...

    def cited(self, advice: Advice, incident: Incident) -> Advice:
        """The advice with the page of the operator's documents that fits, if one does."""
        ...


class TopStage:
    """Looks into the store when woken and every LOOK_EVERY_S; has the middle tier keep what it advises.

    Each incident is advised at once; where there is a served model, its text takes that one's place later.
    """

    def __init__(
        self,
        life: Life,
        listener: WakeListener,
        client: RecordsClient,
        *,
        needing: Callable[[], Sequence[Incident]],
        lately: Callable[[float], tuple[list[Finding], dict[str, str]]],
        opened: Callable[[], list[Incident]],
        tier: Callable[[], Tier],
        model: Consultation,
        served: Explanations,
    ) -> None:
        self._life, self._listener, self._client = life, listener, client
        self._needing, self._lately, self._opened, self._make_tier = needing, lately, opened, tier
        self._model, self._served = model, served
        self._tier: Tier | None = None
        self._look_s = self._looked_s = 0.0
        self._given_up: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._unkept: deque[Read | Reviewed] = deque(maxlen=UNKEPT_MAX)
        self._offer_s, self._offered = 0.0, 0  # not before, so often: the first of them
        self._crash = None if life.died is None else KeepFinding(find_crash(life.stage, life.died))
        self._counts: Counter[str] = Counter()
        self._trouble = ""
        life.listen(listener.socket, wanted=True)
        life.report = self._report

    def run(self) -> None:
        """Serve until stopped."""
        if self._crash is not None:
            self._life.tell.warning("the last top tier died without stopping", MessageId.STAGE_DIED)
        self._life.ready("waiting for incidents")
        while not self._life.stopping:
            self.step()
        self._life.announce_stop()
        self._model.scorer.close()
        self._served.close()

    def step(self) -> None:
        """One round: wait, and look if it is time."""
        due_s = min(self._look_s, self._offer_s) if self._unkept else self._look_s
        self._life.wait(min(max(0.0, due_s - time.monotonic()), self._served.wait_s))
        self._model.listen()
        self._keep_all(self._served.step())
        hints = {hint.table for hint in self._listener.drain()}
        if "findings" in hints and self._life.settings.top.served.reading:
            self._have_read()
        if self._served.doubts:
            self._have_reviewed()
        if "incidents" in hints:
            self._note_open()
            self._look_s = min(self._look_s, max(time.monotonic(), self._looked_s + PAUSE_S))
        if time.monotonic() < self._look_s or self._life.stopping:
            return
        self._looked_s = time.monotonic()
        self._look_s = self._looked_s + LOOK_EVERY_S
        try:
            self._report_crash()
            self._advise_all()
            self._trouble = ""
        except HauswartError as error:
            if str(error) != self._trouble:
                self._life.tell.warning(str(error))
            self._trouble = str(error)
            self._counts["failed"] += 1
            self._look_s = time.monotonic() + RETRY_S  # whom it asks is mostly just being started again

    def _report_crash(self) -> None:
        if self._crash is not None:
            self._client.keep(self._crash, KEEP_TIMEOUT_S)
            self._crash = None

    def _advise_all(self) -> None:
        """Raises HauswartError where one of them could not be kept; the others are."""
        late: HauswartError | None = None
        for _ in range(ROUNDS):
            found = [one for one in self._needing() if (one.id, one.revision) not in self._given_up]
            if not found:
                return
            for incident in found:
                self._life.wait(0.0)  # many of them take longer than the watchdog waits
                if self._life.stopping:
                    return
                try:
                    self._advise(incident)
                except HauswartError as error:
                    late = error
                    if REFUSED not in str(error):
                        break  # nobody answers
            if late is not None:
                raise late

    def _advise(self, incident: Incident) -> None:
        """Raises HauswartError where the middle tier does not keep it now: that may pass."""
        try:
            self._tier = self._tier or self._make_tier()
            advice = self._tier.advise(incident)
        except HauswartError as error:
            self._give_up(incident, str(error))
            return
        except Exception as error:  # noqa: BLE001  # one incident's text must not keep the others from advice
            self._give_up(incident, describe(error))
            return
        try:
            self._client.keep(KeepAdvice(incident.id, incident.revision, advice), KEEP_TIMEOUT_S)
        except HauswartError as error:
            if NO_INCIDENT not in str(error):
                raise
            self._give_up(incident, str(error))
            return
        self._tell_advice(incident, advice)
        self._served.want(incident)
        self._counts["advised"] += 1
        self._counts["advised_by_model"] += any(one.origin == "model" for one in advice)
        self._model.listen()
        while self._tier.notes:
            self._life.tell.warning(self._tier.notes.pop(0))

    def _have_read(self) -> None:
        """Have the served model read what was found lately and no rule explains."""
        try:
            findings, told = self._lately(time.time() - SHOWN_S)
        except HauswartError as error:
            self._life.tell.warning(str(error))
            return
        self._served.want_reading(findings, told)

    def _have_reviewed(self) -> None:
        """Have the served model look once more at incidents whose time it is."""
        at = time.time()
        try:
            opened, (findings, _) = self._opened(), self._lately(at - SHOWN_S)
        except HauswartError as error:
            self._life.tell.warning(str(error))
            self._served.rest(RETRY_S)
            return
        self._served.want_reviews(opened, findings, at)

    def _note_open(self) -> None:
        """Have the served model's second looks know what is open."""
        if not self._life.settings.top.served.reading:
            return
        try:
            self._served.note(self._opened())
        except HauswartError as error:
            self._life.tell.warning(str(error))

    def _keep_all(self, found: Sequence[Said]) -> None:
        """Have kept what the served model said; what it read is offered again where that failed."""
        if found:
            from daemon.served import Explained  # noqa: PLC0415  # loaded by whoever said it

            self._unkept += [said for said in found if not isinstance(said, Explained)]
            for said in found:
                if isinstance(said, Explained):
                    self._keep_better(said)
        while self._unkept and time.monotonic() >= self._offer_s:
            self._keep_read(self._unkept[0])

    def _keep_read(self, said: Read | Reviewed) -> None:
        """One that the middle tier has already does no harm a second time."""
        from daemon.served import Read  # noqa: PLC0415  # loaded by whoever said it

        record, told = (KeepFinding(said.finding), said.told) if isinstance(said, Read) else (said.record, {})
        try:
            self._client.keep(record, KEEP_TIMEOUT_S)
        except HauswartError as error:
            self._offered += 1
            self._offer_s = time.monotonic() + RETRY_S
            if self._offered < OFFERS:
                self._life.tell.warning(f"what the served model read is not kept yet: {error}")
                return
            self._life.tell.warning(f"what the served model read is lost: {error}")
            self._counts["read_lost"] += 1
        else:
            self._served.heed(told)
            self._counts["read"] += 1
        self._unkept.popleft()
        self._offered = 0

    def _keep_better(self, better: Explained) -> None:
        """Have a served model's text take the place of what was said; where that fails, that stays."""
        incident, advice = better
        if self._tier is not None:
            advice = [self._tier.cited(one, incident) for one in advice]
        try:
            self._client.keep(KeepAdvice(incident.id, incident.revision, advice), KEEP_TIMEOUT_S)
        except HauswartError as error:
            self._life.tell.warning(f"the served model's text for incident {incident.id} is lost: {error}")
            self._counts["served_lost"] += 1
            return
        self._tell_advice(incident, advice)
        self._counts["advised_by_served"] += 1

    def _tell_advice(self, incident: Incident, advice: Sequence[Advice]) -> None:
        lang = self._life.settings.language
        said = next((one for one in advice if one.lang == lang), None)
        if said is not None:
            fields = {"incident": incident.id, "class": incident.fault_class.value, "origin": said.origin}
            fields |= {"author": said.author} if said.author else {}
            self._life.tell.info(f"advice: {said.text}", MessageId.ADVICE_GIVEN, **fields)

    def _give_up(self, incident: Incident, reason: str) -> None:
        """Leave this revision alone; the next one is tried again."""
        self._life.tell.warning(
            f"no advice for incident {incident.id}: {reason}",
            MessageId.ADVICE_MISSING,
            **{"incident": incident.id, "class": incident.fault_class.value},
        )
        self._counts["given_up"] += 1
        self._given_up[incident.id, incident.revision] = None
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)

    def _report(self) -> Report:
        return Report(
            text=self._trouble or f"waiting for incidents{self._model.remark}",
            drops={"wake": dict(self._listener.drops), "records": dict(self._client.drops)},
            counters=dict(self._counts) | self._served.counters,
            model=self._model.scorer.status(),
        )


class _Store:
    """Incidents that need advice; the store is opened only when its files changed since the last look."""

    def __init__(self, path: Path, languages: Sequence[str]) -> None:
        self._path, self._languages = path, languages
        self._seen: tuple[tuple[int, int], ...] | None = None

    def needing_advice(self) -> list[Incident]:
        """The next few, the worst first."""
        mark = tuple(_mark(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal"))
        if mark == self._seen:
            return []
        from daemon.store.reader import StoreReader  # noqa: PLC0415  # SQLite only once there is a store to read

        with StoreReader(self._path) as reader:
            found = reader.needing_advice(self._languages)
        if not found:
            self._seen = mark
        return found

    def lately(self, since: float) -> tuple[list[Finding], dict[str, str]]:
        """What was found since a time, and the classes of the open incidents that have some of it."""
        from daemon.store.reader import StoreReader  # noqa: PLC0415

        with StoreReader(self._path) as reader:
            findings, told = reader.found(since)
        return [one for one in findings if noteworthy(one)], told

    def opened(self) -> list[Incident]:
        """The incidents that are open, the oldest first."""
        from daemon.store.reader import StoreReader  # noqa: PLC0415

        with StoreReader(self._path) as reader:
            return reader.incidents(state="open")[::-1]


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def writer(scorer: Scorer) -> Callable[[str, int], str | None]:
    """What the tier asks its model by: a prompt and a seed to a text."""
    from models.briefs import MAX_TOKENS, TEMPERATURE, TOP_K  # noqa: PLC0415  # only with the first incident

    def write(prompt: str, seed: int) -> str | None:
        return scorer.write(prompt, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=seed)

    return write


def citer(path: str) -> Callable[[Incident, Any], tuple[Any, str]] | None:
    """What the tier asks for a page of the operator's documents by, if there is an index of them."""
    if not path:
        return None
    from daemon.advice.runbooks import try_cite  # noqa: PLC0415  # SQLite only where there is such an index

    return lambda incident, lang: try_cite(incident, lang, path)


def run(settings: Settings) -> None:
    """Be the top tier until stopped."""

    def make_tier() -> Tier:
        from daemon.tiers.top import TopTier  # noqa: PLC0415  # the catalogue is read with the first incident

        write = None if model.scorer.state == "off" else writer(model.scorer)
        return TopTier(settings.top, write, citer(settings.top.runbooks))

    life = Life("top", settings)
    model = consultation(life, settings, "top")
    wire = Wire(life.runtime)
    store = _Store(settings.store, settings.top.languages)
    try:
        TopStage(
            life,
            WakeListener(wire),
            RecordsClient(life.runtime, wire),
            needing=store.needing_advice,
            lately=store.lately,
            opened=store.opened,
            tier=make_tier,
            model=model,
            served=Explanations(life, settings),
        ).run()
    finally:
        wire.close()
    life.end()
