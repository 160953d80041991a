"""`python -m daemon.notify.alertmanager`: posts one notification from standard input to an Alertmanager.

An alert is an incident: it fires when the incident opens or gets worse and is resolved when it closes. Exit
codes are those of `send`; what went wrong is said on standard error, without the address.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from daemon.notify.channels import FAILED, NOT_UNDERSTOOD

PATH = "/api/v2/alerts"
TIMEOUT_S = 20.0
# Without an end, Alertmanager takes an alert for resolved after five minutes (resolve_timeout).
FIRING_FOR = timedelta(days=7)


def alerts(request: dict[str, Any], now: datetime) -> list[dict[str, Any]]:
    """The alerts of a notification: one, or those of a digest."""
    document = request["document"]
    if "digest" in document:
        return [_alert(one, one["fault_class"], "", now) for one in document["digest"]]
    return [_alert(document, str(request.get("title", "")), str(request.get("body", "")), now)]


def _alert(document: dict[str, Any], title: str, body: str, now: datetime) -> dict[str, Any]:
    culprit = (document["culprits"] or [{"kind": "host", "name": ""}])[0]
    end = document["closed_at"] or (now + FIRING_FOR).isoformat().replace("+00:00", "Z")
    labels = {
        "alertname": "Hauswart" + "".join(part.capitalize() for part in document["fault_class"].split("-")),
        "instance": _host(),
        "fault_class": document["fault_class"],
        "culprit_kind": culprit["kind"],
        "culprit": culprit["name"],
        "incident": document["id"],
    }
    # Severity is no label: it may rise, and an alert with other labels is another alert.
    return {
        "startsAt": document["opened_at"],
        "endsAt": end,
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": title, "description": body, "severity": document["severity"]},
    }


def _host() -> str:
    import socket  # noqa: PLC0415 - for a name only

    return socket.gethostname()


def prepared(url: str, content: bytes) -> urllib.request.Request:
    """The POST; a user and password in the address become a header. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("no http address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit(
        (parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path.rstrip("/") + PATH, "", "")
    )
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        login = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
    return urllib.request.Request(bare, content, headers, method="POST")  # noqa: S310 - checked above


def main() -> int:
    """Post; the exit code."""
    try:
        request = json.load(sys.stdin.buffer)
        content = json.dumps(alerts(request, datetime.now(UTC))).encode()
        prepared_request = prepared(request["url"], content)
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"not understood: {error}\n")
        return NOT_UNDERSTOOD
    try:
        with urllib.request.urlopen(prepared_request, timeout=TIMEOUT_S):  # noqa: S310 - checked above
            return 0
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"answered {error.code}\n")
        return NOT_UNDERSTOOD if 400 <= error.code < 500 and error.code != 429 else FAILED
    except (OSError, urllib.error.URLError) as error:
        sys.stderr.write(f"not reached: {getattr(error, 'reason', error)}\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
