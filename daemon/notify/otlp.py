"""`python -m daemon.notify.otlp`: hands incidents as log records, or metrics, to an OpenTelemetry collector.

OTLP over HTTP in its JSON encoding (opentelemetry.io/docs/specs/otlp). Reads one request from standard input;
exit codes and errors are those of the other senders.
"""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from daemon.notify.http import post

SEVERITIES = {"info": 9, "warning": 13, "error": 17, "critical": 21}  # SeverityNumber
CUMULATIVE = 2


def content_of(request: Mapping[str, Any], wall: float) -> tuple[str, dict[str, Any]]:
    """Path and body of a request with `families` (metrics) or a `document` (an incident, or a digest)."""
    if "families" in request:
        return "/v1/metrics", metrics(request["families"], wall)
    document = request["document"]
    documents = document.get("digest") or [document]
    reason = document.get("notice", {}).get("reason", "opened")
    return "/v1/logs", logs(
        documents, str(request.get("title", "")), str(request.get("body", "")), reason, wall
    )


def metrics(families: list[list[Any]], wall: float) -> dict[str, Any]:
    """Families as `daemon.prometheus` has them: name, kind, text, samples of labels and value."""
    told = [_metric(*family, wall=wall) for family in families if family[3]]
    return {"resourceMetrics": [{**_resource(), "scopeMetrics": [{"scope": _scope(), "metrics": told}]}]}


def _metric(name: str, kind: str, text: str, samples: list[Any], *, wall: float) -> dict[str, Any]:
    at = _nanoseconds(wall)
    points = [
        {"attributes": _attributes(labels), "timeUnixNano": at, "asDouble": float(value)}
        for labels, value in samples
        if value is not None and math.isfinite(value)  # JSON has no words for the others
    ]
    counter = {"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": True}
    described = {"name": name, "description": text}
    return described | ({"sum": counter} if kind == "counter" else {"gauge": {"dataPoints": points}})


def logs(
    documents: list[Mapping[str, Any]], title: str, body: str, reason: str, wall: float
) -> dict[str, Any]:
    """A log record for each incident."""
    records = [_record(one, title, body, reason, wall) for one in documents]
    return {"resourceLogs": [{**_resource(), "scopeLogs": [{"scope": _scope(), "logRecords": records}]}]}


def _record(document: Mapping[str, Any], title: str, body: str, reason: str, wall: float) -> dict[str, Any]:
    at = document["closed_at"] if document["state"] == "closed" else document["updated_at"]
    culprit = (document["culprits"] or [{"kind": "host", "name": ""}])[0]
    facts = {
        "hauswart.incident": document["id"],
        "hauswart.state": document["state"],
        "hauswart.fault_class": document["fault_class"],
        "hauswart.culprit.kind": culprit["kind"],
        "hauswart.culprit.name": culprit["name"],
    }
    return {
        "timeUnixNano": _nanoseconds(datetime.fromisoformat(at).timestamp()),
        "observedTimeUnixNano": _nanoseconds(wall),
        "severityNumber": SEVERITIES[document["severity"]],
        "severityText": document["severity"],
        "eventName": f"hauswart.incident.{reason}",
        "body": {"stringValue": "\n".join(part for part in (title, body) if part)},
        "attributes": _attributes(facts),
    }


def _resource() -> dict[str, Any]:
    told = {
        "service.name": "hauswart",
        "service.version": version("hauswart"),
        "host.name": socket.gethostname(),
    }
    return {"resource": {"attributes": _attributes(told)}}


def _scope() -> dict[str, str]:
    return {"name": "hauswart", "version": version("hauswart")}


def _attributes(facts: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": str(value)}} for name, value in facts.items()]


def _nanoseconds(wall: float) -> str:
    return str(int(wall * 1e9))  # 64-bit numbers are strings in protobuf's JSON


if __name__ == "__main__":
    sys.exit(post(lambda request: content_of(request, time.time())))
