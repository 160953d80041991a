"""A short-lived process that hands one notification to one Apprise target: `python -m daemon.notify.send`.

Reads {url, title, body, severity} as JSON from standard input. Apprise costs tens of megabytes: no resident
stage imports it. What it says on standard error never contains the URL, which may hold credentials.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import msgspec

from daemon.notify.channels import FAILED, NOT_INSTALLED, NOT_UNDERSTOOD

SENT = 0
MAX_INPUT_BYTES = 1 << 20
_TYPES = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}
_STATUS = re.compile(r"error=(\d{3})\b")


class _StatusCatcher(logging.Handler):
    """Keeps the HTTP status from what Apprise logs, and nothing else of it."""

    status = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = _STATUS.search(record.getMessage())
        self.status = found[1] if found else self.status


def send(request: dict[str, Any]) -> tuple[int, str]:
    """Exit code and what to say."""
    try:
        import apprise  # noqa: PLC0415  # the process says so if it is missing
    except ImportError:
        return NOT_INSTALLED, "Apprise is not installed"
    catcher = _StatusCatcher()
    logger = logging.getLogger("apprise")
    logger.addHandler(catcher)
    logger.propagate = False
    # A service refuses a text beyond its limit as a whole, at each try (Discord's is 2000 characters).
    apprise.NotifyBase.overflow_mode = apprise.OverflowMode.TRUNCATE  # unless the target says `?overflow=`
    asset = apprise.AppriseAsset(app_id="hauswart", async_mode=False)
    asset.http_redirects = False  # as in daemon.notify.http; a target's own `?redirect=yes` is its operator's
    sender = apprise.Apprise(asset=asset)
    if not sender.add(request["url"]):
        return NOT_UNDERSTOOD, "Apprise does not understand the target"
    kind = _TYPES.get(request["severity"], "info")
    if sender.notify(body=request["body"], title=request["title"], notify_type=kind, body_format="text"):
        return SENT, ""
    if catcher.status.startswith("3"):  # as in daemon.notify.http: it may have taken it, so not again
        return NOT_UNDERSTOOD, f"HTTP status {catcher.status}: a redirect; `?redirect=yes` follows it"
    return FAILED, f"HTTP status {catcher.status}" if catcher.status else "not reached or not accepted"


def main() -> int:
    """Send what standard input says."""
    try:
        code, text = send(msgspec.json.decode(sys.stdin.buffer.read(MAX_INPUT_BYTES)))
    except (msgspec.MsgspecError, KeyError, TypeError):
        code, text = NOT_UNDERSTOOD, "malformed request"
    except Exception as error:  # noqa: BLE001  # a plugin's message could carry the URL, its type cannot
        code, text = FAILED, type(error).__name__
    sys.stderr.write(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
