"""A served model that reads in a replay what no rule knows, and incidents: asked once for each question."""

from __future__ import annotations

from daemon.incidents import reading, review
from daemon.ingest import redact
from models.chat import Chat

TIMEOUT_S = 120.0
MAX_TOKENS = 300


class Reader:
    """One server; `asked` and `seconds` tell what it cost. Raises ChatError where it gives no answer."""

    def __init__(self, url: str, model: str) -> None:
        self._chat = Chat(url, what="evidence", redact=redact, model=model, timeout_s=TIMEOUT_S)
        self._known: dict[str, tuple[str, float]] = {}

    @property
    def asked(self) -> int:
        """How many different questions were asked."""
        return len(self._known)

    @property
    def seconds(self) -> list[float]:
        """How long each took."""
        return [seconds for _, seconds in self._known.values()]

    def __call__(self, question: reading.Question | review.Question) -> tuple[str, float]:
        """The answer, and how long it took; the same to the same question."""
        key = question.messages[-1]["content"]
        if key not in self._known:
            said = self._chat.ask(
                question.messages, response_format=question.schema, temperature=0.0, max_tokens=MAX_TOKENS
            )
            self._known[key] = said.text, said.seconds
        return self._known[key]
