"""How a stage consults its tier's model: questions out when it can take them, answers back as they come.

Knows neither what is asked nor how it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemon.message_ids import MessageId
from daemon.questions import Answer, Question
from daemon.scorer import COMMAND, Scorer
from daemon.settings import Settings
from daemon.stages.life import Life
from daemon.status import ModelTier, scorer_pid_path

SPEECHLESS = frozenset({"off", "absent"})


class Consultation:
    """Keeps questions and answers moving; never blocks, and lets no question wait for a model in vain."""

    def __init__(self, life: Life, scorer: Scorer) -> None:
        self.scorer = scorer
        self._life = life
        self._answers: list[Answer] = []

    @property
    def cheap(self) -> bool:
        """Whether a question now costs no start of a process."""
        return self.scorer.pid > 0 or self.scorer.state in SPEECHLESS

    @property
    def remark(self) -> str:
        """What a status line says of a model that should speak and does not; "" if all is well."""
        state = self.scorer.state
        return f"; its model is {state}, the baseline judges alone" if state in {"absent", "broken"} else ""

    def listen(self) -> None:
        """Take in what the model said, also while nothing can be done with it."""
        self._answers += self.scorer.poll()
        tier = self.scorer.tier
        while self.scorer.notes:
            self._life.tell.warning(self.scorer.notes.popleft(), MessageId.MODEL_FELL_BACK, tier=tier)
        while self.scorer.refusals:
            self._life.tell.warning(self.scorer.refusals.popleft(), MessageId.BUNDLE_REFUSED, tier=tier)

    def consult(self, asked: Callable[[], Sequence[Question]]) -> list[Answer]:
        """Ask what `asked()` wants to know, if that can be taken; the answers since the last time.

        Where there is no model, every question is answered at once, by nothing.
        """
        if self.scorer.room or self.scorer.state in SPEECHLESS:
            questions = asked()
            if not self.scorer.ask(questions):
                self._answers += [Answer(question.id, {}) for question in questions]
        answers, self._answers = self._answers, []
        return answers


def consultation(life: Life, settings: Settings, tier: ModelTier) -> Consultation:
    """The consultation of a running stage."""
    pid_file = scorer_pid_path(life.runtime, tier)
    scorer = Scorer(tier, settings, watch=life.listen, pid_file=pid_file, command=COMMAND)
    return Consultation(life, scorer)
