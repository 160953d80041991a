"""`python -m daemon.notify.alertmanager`: posts one notification from standard input to an Alertmanager.

An alert is an incident: it fires when the incident opens or gets worse and is resolved when it closes.
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.notify.http import post

PATH = "/api/v2/alerts"
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
        "instance": socket.gethostname(),
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


if __name__ == "__main__":
    sys.exit(post(lambda request: (PATH, alerts(request, datetime.now(UTC)))))
