"""The served model beside the top stage: made with the first incident, each request told to the journal."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from daemon.incidents.unexplained import PAST_S
from daemon.message_ids import MessageId
from daemon.messages import Finding, Incident
from daemon.settings import Settings
from daemon.stages.life import Life
from daemon.stages.process import describe
from daemon.status import explainer_pid_path

if TYPE_CHECKING:
    from daemon.incidents import reading
    from daemon.incidents.review import Question, Reviews
    from daemon.inquiries import Told
    from daemon.served import Said, ServedModel


TOLD_MAX = 256


class Explanations:
    """Nothing at all where no server is configured; `step` never blocks."""

    def __init__(self, life: Life, settings: Settings) -> None:
        self._life, self._settings = life, settings
        self._model: ServedModel | None = None
        # Findings that readings spoke of, and their classes.
        self._told: OrderedDict[str, str] = OrderedDict()
        self._reviews: Reviews | None = None
        self._rest_until_s = -math.inf
        if settings.top.served.reading:
            from daemon.incidents.review import SETTLE_S, Reviews  # noqa: PLC0415  # only where it is on

            # What opened right before this stage began nobody may have looked at.
            self._reviews = Reviews(time.time() - SETTLE_S)

    @property
    def wait_s(self) -> float:
        """How long until there is something to do by itself."""
        due_at = self._reviews.due_at() if self._reviews else None
        due_s = math.inf if due_at is None else max(0.0, due_at - time.time())
        due_s = max(due_s, self._look_at_s - time.monotonic())
        return due_s if self._model is None else min(due_s, self._model.wait_s)

    @property
    def _look_at_s(self) -> float:
        """When it may be asked to look at an incident, on the monotonic clock."""
        return max(self._rest_until_s, 0.0 if self._model is None else self._model.look_at_s)

    @property
    def counters(self) -> dict[str, int]:
        """What became of the questions, for the status."""
        if self._model is None:
            return {}
        return {f"served/{name}": count for name, count in self._model.counters.items()}

    def want(self, incident: Incident) -> None:
        """Have a better text for this revision, when it is its turn."""
        if model := self._served():
            model.want(incident)

    def note(self, opened: Sequence[Incident]) -> None:
        """Those that are open now: each may be looked at once more."""
        if self._reviews is not None:
            self._reviews.keep_only(opened, time.time())

    def rest(self, seconds: float) -> None:
        """Look at nothing for so long: the store cannot be read."""
        self._rest_until_s = time.monotonic() + seconds

    @property
    def doubts(self) -> bool:
        """Whether an incident is to be looked at once more now."""
        if time.monotonic() < self._look_at_s:
            return False
        due_at = self._reviews.due_at() if self._reviews else None
        return due_at is not None and due_at <= time.time()

    def want_reviews(self, opened: Sequence[Incident], lately: Sequence[Finding], at: float) -> None:
        """Have one looked at whose time it is; `opened`: all that were open at a time, in Unix seconds.

        The others are asked for when it may look again: as they are then.
        """
        model, reviews = self._served(), self._reviews
        if model is None or reviews is None:
            return
        reviews.keep_only(opened, time.time())
        if (due := reviews.due(time.time())) is not None:
            model.want_review(partial(_review, *due, lately, at))

    def want_reading(self, findings: Sequence[Finding], told: Mapping[str, str]) -> None:
        """Have read what no rule knows; `told`: the classes of the incidents that have some of it."""
        if findings and self._settings.top.served.reading and (model := self._served()):
            model.want_reading(partial(self._reading, findings, told, time.time()))

    def _reading(
        self, findings: Sequence[Finding], told: Mapping[str, str], at: float
    ) -> reading.Question | None:
        """The question when its turn has come; None where it waited for so long that it is about the past."""
        from daemon.incidents.reading import question  # noqa: PLC0415  # only where it is on

        if time.time() - at > PAST_S:
            return None
        return question(findings, {**self._told, **told}, time.time())

    def heed(self, told: Mapping[str, str]) -> None:
        """What was read is kept: an incident tells of these findings from now on, by their ids its class."""
        self._told |= told
        while len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)

    def _served(self) -> ServedModel | None:
        top = self._settings.top
        if top.served.url and self._model is None:
            from daemon.served import ServedModel  # noqa: PLC0415  # only where it is on

            pid_file = explainer_pid_path(self._life.runtime)
            self._model = ServedModel(top.served, top.languages, watch=self._life.listen, pid_file=pid_file)
        return self._model

    def step(self) -> list[Said]:
        """The texts that came since; says what was asked and what went wrong."""
        if self._model is None:
            return []
        try:
            found = self._model.step()
        except Exception as error:  # noqa: BLE001  # its answer is other people's; the stage goes on
            self._life.tell.warning(
                f"the served model: {describe(error)}", MessageId.MODEL_FELL_BACK, tier="top"
            )
            found = []
        while self._model.audits:
            self._audit(*self._model.audits.popleft())
        while self._model.notes:
            self._life.tell.warning(self._model.notes.popleft(), MessageId.MODEL_FELL_BACK, tier="top")
        return found

    def close(self) -> None:
        """End what is on its way, and say what that was."""
        if self._model is not None:
            self._model.close()
            self.step()

    def _audit(self, incident_id: str, told: Told) -> None:
        """Where, how much and with what outcome; never what."""
        about = f"about incident {incident_id}" if incident_id else "what no rule knows"
        self._life.tell.audit(
            f"asked {told.host} {about}: {told.sent_bytes} bytes of redacted"
            f" {told.what}, outcome {told.outcome}, {told.seconds:g} s",
            MessageId.SERVED_ASKED,
            incident=incident_id,
            host=told.host,
            what=told.what,
            model=told.model,
            bytes=str(told.sent_bytes),
            sha256=told.sha256,
            outcome=told.outcome,
            seconds=f"{told.seconds:g}",
        )


def _review(incident: Incident, others: Sequence[Incident], lately: Sequence[Finding], at: float) -> Question:
    from daemon.incidents.review import question  # noqa: PLC0415  # only where it is on

    return question(incident, others, lately, at)  # of what came since it says nothing
