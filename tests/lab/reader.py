"""Who reads in a replay what no rule knows, and incidents: a served model, answers that are kept, or both.

An answers' file has a JSON object a line: `question`, the SHA-256 of what was shown (not of the instruction
above it, which may be worded better meanwhile), `answer`, and the `seconds` that it took. A server is asked
only what the file lacks, and its answers are added; without a server the questions that are left go into a
file beside it, so that others can answer them. A recording with its answers gives the same figures anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from daemon.errors import ConfigError
from daemon.incidents import reading, review
from daemon.ingest import redact
from models.chat import Chat

TIMEOUT_S = 120.0
MAX_TOKENS = 300
UNANSWERED = ("", 0.0)  # as of a server that says nothing that could be used

Question = reading.Question | review.Question


class Kept(Struct, forbid_unknown_fields=True):
    """An answer to a question: the JSON that was asked for, or the text as a server gave it."""

    question: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    answer: dict[str, Any] | str
    seconds: Annotated[float, Meta(ge=0.0, le=TIMEOUT_S)] = 0.0


class Reader:
    """A server, a file or both; `asked` and `seconds` tell what it cost.

    Raises ConfigError for a file that holds no answers; asking raises ChatError where the server gives none.
    """

    def __init__(self, url: str = "", model: str = "", kept: Path | None = None) -> None:
        self._chat = None
        if url:
            self._chat = Chat(url, what="evidence", redact=redact, model=model, timeout_s=TIMEOUT_S)
        self._file = kept
        self._kept = dict(_answers(kept)) if kept and kept.exists() else {}
        self._used: dict[str, tuple[str, float]] = {}
        self._left: dict[str, Question] = {}

    @property
    def asked(self) -> int:
        """How many different questions were asked."""
        return len(self._used)

    @property
    def left(self) -> int:
        """How many of them are left to others."""
        return len(self._left)

    @property
    def unanswered(self) -> int:
        """How many of them nobody answered, those too to which a server said nothing."""
        return sum(not text.strip() for text, _ in self._used.values())

    @property
    def seconds(self) -> list[float]:
        """How long each answer took."""
        return [seconds for _, seconds in self._used.values()]

    def __call__(self, question: Question) -> tuple[str, float]:
        """The answer, and how long it took; the same to the same question."""
        key = digest(question)
        if key not in self._used:
            self._used[key] = self._kept.get(key) or self._ask(key, question)
        return self._used[key]

    def close(self) -> Path | None:
        """Write down what nobody answered; where that is, None if there is nothing or no file."""
        if self._file is None:
            return None
        path = self._file.with_suffix(".open" + self._file.suffix)
        if not self._left:
            path.unlink(missing_ok=True)
            return None
        rows = (
            {
                "question": key,
                "system": one.messages[0]["content"],
                "user": redact(one.messages[-1]["content"]),
                "schema": one.schema,
            }
            for key, one in self._left.items()
        )
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return path

    def _ask(self, key: str, question: Question) -> tuple[str, float]:
        if self._chat is None:
            self._left[key] = question
            return UNANSWERED
        said = self._chat.ask(
            question.messages, response_format=question.schema, temperature=0.0, max_tokens=MAX_TOKENS
        )
        if self._file:
            row = Kept(key, said.text, min(said.seconds, TIMEOUT_S))
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(row) + b"\n")
        return said.text, said.seconds


def digest(question: Question) -> str:
    """What an answer is kept under."""
    return hashlib.sha256(question.messages[-1]["content"].encode("utf-8", "replace")).hexdigest()


def _answers(path: Path) -> Iterator[tuple[str, tuple[str, float]]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=Kept)
        except msgspec.MsgspecError as error:
            hint = 'a line is {"question": SHA-256, "answer": {...}, "seconds": 0.8}'
            raise ConfigError(f"{path}:{number}: {error}", hint=hint) from error
        text = row.answer if isinstance(row.answer, str) else json.dumps(row.answer, ensure_ascii=False)
        yield row.question, (text, row.seconds)
