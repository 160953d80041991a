"""The one tree of errors that this project raises, each with an exit code and a remedy.

Code raises; only entry points turn an error into one line plus a hint and an exit code. The tree's root lies
in `models.errors`, since the floor raises too.
"""

from __future__ import annotations

from models.errors import (
    BundleError,
    ChatError,
    ConfigError,
    HauswartError,
    IntegrityError,
    LockedError,
    MissingDependencyError,
    ModelError,
    NoBundleError,
)

__all__ = [
    "NO_INCIDENT",
    "REFUSED",
    "BundleError",
    "ChatError",
    "ConfigError",
    "FrameError",
    "HauswartError",
    "IntegrityError",
    "LockedError",
    "MissingDependencyError",
    "ModelError",
    "NoBundleError",
    "SourceError",
    "StoreFullError",
]

REFUSED = "the middle tier refused to keep it"
NO_INCIDENT = "there is no incident"  # so begins what is said of one that was purged, over the bus, too


class StoreFullError(HauswartError):
    """No space is left to keep something; nothing was acknowledged, and it works again when space is back."""


class FrameError(HauswartError):
    """A frame on the bus is malformed, oversized, of an unknown version or out of order."""


class SourceError(HauswartError):
    """A telemetry source cannot be read; the collector names it once and goes on without it."""
