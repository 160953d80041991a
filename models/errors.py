"""The root of the one tree of errors, and what models raise; the daemon's own errors grow in `daemon.errors`.

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


class BundleError(IntegrityError):
    """A bundle is not what its manifest says, or not one that this version may load."""


class NoBundleError(HauswartError):
    """No bundle serves a tier; its baseline does."""


class ModelError(HauswartError):
    """A model that was loaded gives no usable answer, e.g. a score that is not a number."""


class ChatError(HauswartError):
    """A served model gave no answer.

    `kind`: unreachable, slow, busy, failed (its own fault), key, refused (ours), broken, empty. `retry` says
    whether asking again can help, `retry_after_s` when, if the server said so.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        retry: bool = False,
        retry_after_s: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind, self.retry, self.retry_after_s = kind, retry, retry_after_s


class LockedError(HauswartError):
    """Another process holds the lock."""

    exit_code = 5
