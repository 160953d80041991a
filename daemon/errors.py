"""The one tree of errors that this project raises, each with an exit code and a remedy.

Code raises; only entry points turn an error into one line plus a hint and an exit code.
"""

from __future__ import annotations


class HauswartError(Exception):
    """Something failed that the operator should read about: what, where, which value, and a remedy."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(HauswartError):
    """The configuration or the command line cannot be used."""

    exit_code = 2


class MissingDependencyError(HauswartError):
    """A package or program that this command needs is not installed."""

    exit_code = 3


class IntegrityError(HauswartError):
    """Stored bytes are not what was written: a checksum, a schema or a hash disagrees."""

    exit_code = 4


class StoreFullError(HauswartError):
    """No space is left to keep something; nothing was acknowledged, and it works again when space is back."""


class LockedError(HauswartError):
    """Another daemon holds the lock."""

    exit_code = 5


class FrameError(HauswartError):
    """A frame on the bus is malformed, oversized, of an unknown version or out of order."""


class SourceError(HauswartError):
    """A telemetry source cannot be read; the collector names it once and goes on without it."""
