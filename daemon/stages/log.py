"""One stage's log: single escaped lines on standard error, or with fields in the journal under systemd."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from daemon.errors import HauswartError
from daemon.journal import Journal
from daemon.message_ids import MessageId

LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3) prefixes
MAX_CHARACTERS = 2000


class StageLog:
    """Writes `LEVEL stage: text`, `<N>stage: text` to a pipe of the journal's, or fields to journald itself.

    A `message_id` becomes MESSAGE_ID, `fields` become `HAUSWART_NAME=`; elsewhere they are left out.
    """

    def __init__(self, stage: str, level: str = "info") -> None:
        self.stage = stage
        self._threshold = LEVELS[level]
        self._prefixed = "JOURNAL_STREAM" in os.environ
        journal = Journal(f"hauswart-{stage}" if stage != "hauswart" else stage)
        self._journal = journal if journal.listens else None
        self.unwritten = 0

    def debug(self, text: str) -> None:
        """For whoever works on hauswart."""
        self.say("debug", text)

    def info(self, text: str, message_id: MessageId | None = None, **fields: str) -> None:
        """Something the operator may want to read."""
        self.say("info", text, message_id, **fields)

    def warning(self, text: str, message_id: MessageId | None = None, **fields: str) -> None:
        """Something is missing or lost, and the stage goes on."""
        self.say("warning", text, message_id, **fields)

    def error(self, text: str, message_id: MessageId | None = None, **fields: str) -> None:
        """Something failed."""
        self.say("error", text, message_id, **fields)

    def failure(self, error: HauswartError) -> None:
        """What ends this process, with its remedy."""
        self.error(f"{error} ({error.hint})" if error.hint else str(error), MessageId.STAGE_FAILED)

    def audit(self, text: str, message_id: MessageId, **fields: str) -> None:
        """What left this process: written whatever the configured level."""
        self._write("info", text, message_id, fields)

    def say(self, level: str, text: str, message_id: MessageId | None = None, **fields: str) -> None:
        """Write a line of this level (a key of LEVELS); what is below the configured one is left out."""
        if LEVELS[level] > self._threshold:
            return
        self._write(level, text, message_id, fields)

    def _write(self, level: str, text: str, message_id: MessageId | None, fields: Mapping[str, str]) -> None:
        line = escape(text)
        named = {name: escape(value) for name, value in fields.items()} | {"stage": self.stage}
        if self._journal is not None and self._journal.send(line, LEVELS[level], message_id, named):
            return
        start = f"<{LEVELS[level]}>" if self._prefixed else f"{level.upper()} "
        try:
            sys.stderr.write(f"{start}{self.stage}: {line}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads the log any more; the status file still speaks
            self.unwritten += 1


def escape(text: str) -> str:
    """One printable line, at most MAX_CHARACTERS long before escaping."""
    cut = text[:MAX_CHARACTERS]
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
