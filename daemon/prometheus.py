"""The Prometheus endpoint: text exposition over a tiny HTTP server, on a unix socket or loopback only.

The server lives on a stage's poll loop, never blocks, and answers nothing but `GET /metrics`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from daemon.listening import listen_on
from daemon.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_REQUEST_BYTES = 8192
MAX_CONNECTIONS = 16
TIMEOUT_S = 5.0
BUDGET_CPU, BUDGET_MEMORY, BUDGET_LATENCY = 0.01, 70.0 * (1 << 20), 5.0
STALE_S = 60.0  # a stage whose status is older is not up
_READ, _WRITE = 1, 2  # zmq.POLLIN and zmq.POLLOUT

_ALONE = {"off", "absent", "broken"}  # states of a model that leave the tier to its baseline

Labels = Mapping[str, str]


class Family(NamedTuple):
    """One metric family with its samples."""

    name: str
    kind: str  # "gauge" or "counter"
    text: str
    samples: Sequence[tuple[Labels, float]]


class Poller(Protocol):
    """What the server needs of the stage's poll loop."""

    def register(self, socket: int, flags: int) -> object:
        """Watch a descriptor."""
        ...

    def unregister(self, socket: int) -> object:
        """Watch it no longer."""
        ...


# --- exposition ----------------------------------------------------------------------------------------


def exposition(families: Sequence[Family]) -> str:
    """Text format 0.0.4; https://prometheus.io/docs/instrumenting/exposition_formats/."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {_help(family.text)}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", "�")


def _number(value: float) -> str:
    if value != value:  # noqa: PLR0124 (NaN differs from itself)
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def families_of(
    statuses: Sequence[Status],
    open_counts: Mapping[tuple[str, str], int],
    opened_counts: Mapping[tuple[str, str], int],
    *,
    wall: float,
) -> list[Family]:
    """Everything the endpoint tells."""

    def incidents(counts: Mapping[tuple[str, str], int]) -> list[tuple[Labels, float]]:
        return [
            ({"fault_class": fault, "severity": severity}, float(count))
            for (fault, severity), count in sorted(counts.items())
        ]

    return [
        Family(
            "hauswart_incidents_open", "gauge", "Open incidents by current class.", incidents(open_counts)
        ),
        Family(
            "hauswart_incidents_total",
            "counter",
            "Incidents ever opened, by class and severity at opening.",
            incidents(opened_counts),
        ),
        *_stage_families(statuses, wall),
        *_flow_families(statuses),
        *_model_families(statuses),
        *_budget_families(),
    ]


def _stage_families(statuses: Sequence[Status], wall: float) -> list[Family]:
    def each(value: Callable[[Status], float]) -> list[tuple[Labels, float]]:
        return [({"stage": one.stage}, value(one)) for one in statuses]

    def up(one: Status) -> float:
        return float(one.state == "running" and wall - one.updated < STALE_S)

    latency: list[tuple[Labels, float]] = []
    for one in statuses:
        if one.latency is not None:
            latency += [
                ({"stage": one.stage, "quantile": "0.5"}, one.latency.p50_s),
                ({"stage": one.stage, "quantile": "0.95"}, one.latency.p95_s),
            ]
    return [
        Family("hauswart_stage_up", "gauge", "Whether the stage runs and reports.", each(up)),
        Family(
            "hauswart_stage_cpu_seconds_total", "counter", "CPU time of the stage.", each(lambda s: s.cpu_s)
        ),
        Family(
            "hauswart_stage_cpu_ratio",
            "gauge",
            "Share of one core that the stage used lately.",
            each(lambda s: s.cpu_ratio),
        ),
        Family(
            "hauswart_stage_memory_bytes",
            "gauge",
            "Memory of the stage, its share of what is shared included (PSS).",
            each(lambda s: float(s.pss_bytes)),
        ),
        Family(
            "hauswart_stage_latency_seconds",
            "gauge",
            "From observation to done, over the last minutes.",
            latency,
        ),
    ]


def _flow_families(statuses: Sequence[Status]) -> list[Family]:
    flows = [
        ({"stage": one.stage, "edge": edge, "source": source}, flow)
        for one in statuses
        for edge, sources in sorted(one.flows.items())
        for source, flow in sorted(sources.items())
    ]
    drops: list[tuple[Labels, float]] = [
        ({"stage": one.stage, "edge": edge, "reason": reason}, float(count))
        for one in statuses
        for edge, reasons in sorted(one.drops.items())
        for reason, count in sorted(reasons.items())
    ]
    return [
        Family(
            "hauswart_observations_offered_total",
            "counter",
            "Messages offered to an edge.",
            [(labels, float(flow.offered)) for labels, flow in flows],
        ),
        Family(
            "hauswart_observations_delivered_total",
            "counter",
            "Messages delivered over an edge.",
            [(labels, float(flow.delivered)) for labels, flow in flows],
        ),
        Family(
            "hauswart_observations_gap_total",
            "counter",
            "Messages lost on an edge, and counted.",
            [(labels, float(flow.gap)) for labels, flow in flows],
        ),
        Family("hauswart_frames_dropped_total", "counter", "Frames dropped by reason.", drops),
    ]


def _model_families(statuses: Sequence[Status]) -> list[Family]:
    models = [({"tier": one.stage}, one.model) for one in statuses if one.model is not None]
    latency: list[tuple[Labels, float]] = []
    for labels, model in models:
        if model.latency is not None:
            latency += [
                ({**labels, "quantile": "0.5"}, model.latency.p50_s),
                ({**labels, "quantile": "0.95"}, model.latency.p95_s),
            ]
    questions: list[tuple[Labels, float]] = [
        ({**labels, "result": result}, float(model.counters.get(result, 0)))
        for labels, model in models
        for result in ("answered", "failed", "fallback")
    ]
    return [
        Family(
            "hauswart_model_up",
            "gauge",
            "Whether a tier has a model that can be asked; without one its baseline speaks alone.",
            [(labels, float(model.state not in _ALONE)) for labels, model in models],
        ),
        Family(
            "hauswart_model_questions_total",
            "counter",
            "Questions to a tier's model by what became of them; fallback: the baseline spoke alone.",
            questions,
        ),
        Family(
            "hauswart_model_latency_seconds",
            "gauge",
            "From question to answer, a start of the model included, over the last minutes.",
            latency,
        ),
        Family(
            "hauswart_model_memory_bytes",
            "gauge",
            "The most memory (PSS) that a tier's model was seen to take.",
            [(labels, float(model.pss_bytes)) for labels, model in models],
        ),
    ]


def _budget_families() -> list[Family]:
    """What all stages together may cost on a quiet host, so that a rule can compare."""
    return [
        Family("hauswart_budget_cpu_ratio", "gauge", "Share of a core on a quiet host.", [({}, BUDGET_CPU)]),
        Family("hauswart_budget_memory_bytes", "gauge", "Memory on a quiet host.", [({}, BUDGET_MEMORY)]),
        Family(
            "hauswart_budget_latency_seconds",
            "gauge",
            "From observation to done, p95.",
            [({}, BUDGET_LATENCY)],
        ),
    ]


# --- server ----------------------------------------------------------------------------------------------


@dataclass
class _Connection:
    peer: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    unsent: memoryview | None = None


class MetricsServer:
    """Serves what `render` gives; call `handle` for ready descriptors and `expire` about every second."""

    def __init__(self, listen: str, render: Callable[[], str], poller: Poller) -> None:
        self.counters = {"requests": 0, "refused": 0, "timeouts": 0}
        self._render, self._poller = render, poller
        self._server = listen_on(listen, key="metrics.listen")
        self._path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
        self._connections: dict[int, _Connection] = {}
        poller.register(self._server.fileno(), _READ)

    @property
    def port(self) -> int:
        """The port that is served, 0 for a unix socket."""
        return 0 if self._path else int(self._server.getsockname()[1])

    @property
    def busy(self) -> bool:
        """Whether somebody is connected, so that `expire` is wanted."""
        return bool(self._connections)

    def handle(self, descriptor: int, mono: float) -> None:
        """Serve a descriptor that the poll loop found ready; others than ours are ignored."""
        if descriptor == self._server.fileno():
            self._accept(mono)
        elif descriptor in self._connections:
            try:
                self._serve(descriptor)
            except OSError:  # the other side is gone; that is its affair
                self._drop(descriptor)

    def expire(self, mono: float) -> None:
        """Close connections that are too slow."""
        for descriptor in [key for key, one in self._connections.items() if mono >= one.deadline]:
            self.counters["timeouts"] += 1
            self._drop(descriptor)

    def close(self) -> None:
        """Stop serving."""
        for descriptor in list(self._connections):
            self._drop(descriptor)
        self._poller.unregister(self._server.fileno())
        self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _accept(self, mono: float) -> None:
        with contextlib.suppress(
            OSError
        ):  # gone before it was accepted, or no descriptor left: it asks again
            peer, _ = self._server.accept()
            if len(self._connections) >= MAX_CONNECTIONS:
                self.counters["refused"] += 1
                peer.close()
                return
            peer.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            self._connections[peer.fileno()] = _Connection(peer, mono + TIMEOUT_S)
            self._poller.register(peer.fileno(), _READ)

    def _serve(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        if connection.unsent is None:
            piece = connection.peer.recv(MAX_REQUEST_BYTES)
            connection.received += piece
            answer = self._answer(bytes(connection.received), ended=not piece)
            if answer is None:
                return
            connection.unsent = memoryview(answer)
            self._poller.register(descriptor, _WRITE)
        with contextlib.suppress(BlockingIOError):
            connection.unsent = connection.unsent[connection.peer.send(connection.unsent) :]
        if not connection.unsent:
            with contextlib.suppress(OSError):
                connection.peer.shutdown(socket.SHUT_WR)
            self._drop(descriptor)

    def _answer(self, received: bytes, *, ended: bool) -> bytes | None:
        """The response once the request is complete, None while it is not."""
        self_contained = b"\r\n\r\n" in received or b"\n\n" in received
        if len(received) > MAX_REQUEST_BYTES:
            return self._refusal("431 Request Header Fields Too Large")
        if not self_contained:
            return self._refusal("400 Bad Request") if ended else None
        words = received.split(b"\n", 1)[0].split()
        if len(words) != 3 or words[2] not in {b"HTTP/1.0", b"HTTP/1.1"}:
            return self._refusal("400 Bad Request")
        if words[0] != b"GET":
            return self._refusal("405 Method Not Allowed", "Allow: GET\r\n")
        if words[1].split(b"?")[0] != b"/metrics":
            return self._refusal("404 Not Found")
        self.counters["requests"] += 1
        return _response("200 OK", self._render(), f"Content-Type: {CONTENT_TYPE}\r\n")

    def _refusal(self, status: str, extra: str = "") -> bytes:
        self.counters["refused"] += 1
        return _response(status, status + "\n", f"Content-Type: text/plain\r\n{extra}")

    def _drop(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)
        self._poller.unregister(descriptor)
        connection.peer.close()


def _response(status: str, body: str, headers: str) -> bytes:
    content = body.encode(errors="replace")
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content
