"""One stage's log: single escaped lines on standard error, with a priority prefix under the journal."""

from __future__ import annotations

import os
import sys

from daemon.errors import HauswartError

LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # sd-daemon(3) prefixes
MAX_CHARACTERS = 2000


class StageLog:
    """Writes `LEVEL stage: text`, or `<N>stage: text` under the journal."""

    def __init__(self, stage: str, level: str = "info") -> None:
        self.stage = stage
        self._threshold = LEVELS[level]
        self._journal = "JOURNAL_STREAM" in os.environ
        self.unwritten = 0

    def debug(self, text: str) -> None:
        """For whoever works on hauswart."""
        self._write("debug", text)

    def info(self, text: str) -> None:
        """Something the operator may want to read."""
        self._write("info", text)

    def warning(self, text: str) -> None:
        """Something is missing or lost, and the stage goes on."""
        self._write("warning", text)

    def error(self, text: str) -> None:
        """Something failed."""
        self._write("error", text)

    def failure(self, error: HauswartError) -> None:
        """What ends this process, with its remedy."""
        self._write("error", f"{error} ({error.hint})" if error.hint else str(error))

    def _write(self, level: str, text: str) -> None:
        if LEVELS[level] > self._threshold:
            return
        start = f"<{LEVELS[level]}>" if self._journal else f"{level.upper()} "
        try:
            sys.stderr.write(f"{start}{self.stage}: {escape(text)}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads the log any more; the status file still speaks
            self.unwritten += 1


def escape(text: str) -> str:
    """One printable line, at most MAX_CHARACTERS long before escaping."""
    cut = text[:MAX_CHARACTERS]
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
