"""The Prometheus endpoint: well-formed text, loopback only, and a server that no client can hold up."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest
import yaml
import zmq
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ConfigError, LockedError
from daemon.listening import listen_on
from daemon.prometheus import (
    CONTENT_TYPE,
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    TIMEOUT_S,
    Family,
    MetricsServer,
    exposition,
    families_of,
)
from daemon.status import Flow, Latency, ModelStatus, Status

EXPORTS = Path(__file__).parents[1] / "daemon/exports"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
UNESCAPE = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9.]+(?:e[+-]?\d+)?|NaN|[+-]Inf)")


def parse(text):
    """A strict reading of the exposition format: every family announced once, every sample well-formed."""
    assert text.endswith("\n")
    kinds, samples, described = {}, {}, set()
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in described
            described.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in described
            assert name not in kinds
            kinds[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            assert name in kinds, line
            pairs = re.findall(r'(\w+)="((?:[^"\\\n]|\\.)*)"', labels or "")
            key = tuple((k, re.sub(r"\\.", lambda m: UNESCAPE[m[0]], v)) for k, v in pairs)
            assert (name, key) not in samples, line
            samples[name, key] = float(value)
    assert all(kind in {"gauge", "counter"} for kind in kinds.values())
    assert all(name.endswith("_total") for name, kind in kinds.items() if kind == "counter")
    return samples


def status(**changes):
    fields = {"stage": "low", "pid": 5, "boot": "b", "started": 1.0, "updated": 1000.0, "state": "running"}
    return Status(**(fields | changes))


def test_everything_is_told_in_well_formed_text():
    low = status(
        cpu_s=1.5,
        pss_bytes=9 << 20,
        latency=Latency(4, 0.01, 0.2, 0.3),
        flows={"low": {"journal": Flow(10, 8, 2), 'file:/var/log/a"b\\c\n': Flow(1, 1, 0)}},
        drops={"low": {"malformed": 3}},
    )
    stale = status(stage="top", updated=10.0)
    text = exposition(
        families_of([low, stale], {("disk-full", "error"): 2}, {("disk-full", "error"): 7}, wall=1010.0)
    )
    samples = parse(text)
    full = (("fault_class", "disk-full"), ("severity", "error"))
    assert samples["hauswart_incidents_open", full] == 2
    assert samples["hauswart_incidents_total", full] == 7
    assert samples["hauswart_stage_up", (("stage", "low"),)] == 1
    assert samples["hauswart_stage_up", (("stage", "top"),)] == 0
    assert samples["hauswart_stage_memory_bytes", (("stage", "low"),)] == 9 << 20
    assert samples["hauswart_stage_latency_seconds", (("stage", "low"), ("quantile", "0.95"))] == 0.2
    odd = (("stage", "low"), ("edge", "low"), ("source", 'file:/var/log/a"b\\c\n'))
    assert samples["hauswart_observations_offered_total", odd] == 1
    journal = (("stage", "low"), ("edge", "low"), ("source", "journal"))
    assert samples["hauswart_observations_gap_total", journal] == 2
    dropped = (("stage", "low"), ("edge", "low"), ("reason", "malformed"))
    assert samples["hauswart_frames_dropped_total", dropped] == 3


def everything():
    """All families of a daemon with a model, as samples."""
    flows = {"low": {"journal": Flow(10, 8, 2)}}
    counters, pace = {"answered": 5, "fallback": 1}, Latency(9, 0.002, 0.01, 0.1)
    model = ModelStatus("ready", "low-2", 7, 40 << 20, 1.0, pace, counters)
    latency = Latency(4, 0.01, 0.2, 0.3)
    low = status(cpu_ratio=0.002, flows=flows, latency=latency, drops={"low": {"malformed": 3}}, model=model)
    top = status(stage="top", model=ModelStatus("broken"))
    counts = {("disk-full", "error"): 1}
    return parse(exposition(families_of([low, top], counts, counts, wall=1010.0)))


def test_models_are_told_and_the_budgets_beside_them():
    samples = everything()
    assert samples["hauswart_model_up", (("tier", "low"),)] == 1
    assert samples["hauswart_model_up", (("tier", "top"),)] == 0
    assert samples["hauswart_model_questions_total", (("tier", "low"), ("result", "fallback"))] == 1
    assert samples["hauswart_model_latency_seconds", (("tier", "low"), ("quantile", "0.95"))] == 0.01
    assert samples["hauswart_stage_cpu_ratio", (("stage", "low"),)] == 0.002
    assert samples["hauswart_budget_memory_bytes", ()] == 70 << 20


def expressions():
    """Every expression of the shipped rules and of the dashboard."""
    rules = yaml.safe_load((EXPORTS / "prometheus-rules.yml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((EXPORTS / "grafana-dashboard.json").read_text())
    return found + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_rules_and_dashboard_ask_only_for_what_is_told():
    told = {name for name, _ in everything()}
    labels = {name for _, pairs in everything() for name, _ in pairs} | {"instance"}
    asked = expressions()
    assert len(asked) > 15
    for one in asked:
        assert set(re.findall(r"hauswart_\w+", one)) <= told, one
        for grouped in re.findall(r"by \(([^)]*)\)", one):
            assert {name.strip() for name in grouped.split(",")} <= labels, one


@pytest.mark.skipif(not which("promtool"), reason="needs promtool (package prometheus)")
def test_prometheus_takes_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", EXPORTS / "prometheus-rules.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r")), st.floats()
        ),
        unique_by=lambda pair: pair[0],
    )
)
def test_any_label_and_number_stay_well_formed(pairs):
    text = exposition(
        [Family("a_total", "counter", "x\n\\", [({"l": name}, value) for name, value in pairs])]
    )
    samples = parse(text)
    for name, value in pairs:
        assert (
            repr(samples["a_total", (("l", name),)]) == repr(value)
            or value == samples["a_total", (("l", name),)]
        )


@pytest.mark.parametrize(
    "listen",
    [
        *("0.0.0.0:9469", "192.0.2.7:80", "[::]:9469", ":9469", "example.org:80", "127.0.0.1", "1:80"),
        *("127.0.0.1:x", "127.0.0.1:99999", "9469", "unix:/no/such/directory/socket", "::1:80x"),
        "unix:" + "x" * 200,
    ],
)
def test_anything_but_loopback_or_a_socket_is_a_configuration_error(listen):
    with pytest.raises(ConfigError) as caught:
        listen_on(listen, key="metrics.listen").close()
    assert caught.value.hint


@contextmanager
def serving(listen, render=lambda: "x 1\n", clock=time.monotonic):
    poller = zmq.Poller()
    server = MetricsServer(listen, render, poller)
    stop = threading.Event()

    def loop():
        while not stop.is_set():
            for descriptor, _ in poller.poll(20):
                server.handle(descriptor, clock())
            server.expire(clock())

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()


def ask(port, request, *, half_close=False):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(request)
        if half_close:
            peer.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := peer.recv(65536):
            answer += piece
    return answer


def test_scrape_over_loopback():
    with serving("127.0.0.1:0", lambda: "x 1\n") as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert answer.read() == b"x 1\n"
        assert server.counters["requests"] == 1


def test_scrape_over_a_unix_socket_that_a_dead_process_left(tmp_path):
    path = tmp_path / "metrics"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with serving(f"unix:{path}"):
        assert oct(path.stat().st_mode)[-3:] == "660"
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert peer.recv(100).startswith(b"HTTP/1.1 200 OK")
        with pytest.raises(LockedError):
            listen_on(f"unix:{path}", key="metrics.listen")
    assert not path.exists()


def test_file_in_the_way_of_the_socket_is_not_removed(tmp_path):
    path = tmp_path / "metrics"
    path.write_text("precious")
    with pytest.raises(ConfigError):
        listen_on(f"unix:{path}", key="metrics.listen")
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\0\r\n\r\n", b"400"),
        (b"GET /metrics?x=1 HTTP/1.1\nHost: a\n\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n", b"431"),
    ],
)
def test_request_is_answered_by_the_book(request_bytes, status):
    with serving("127.0.0.1:0") as server:
        assert ask(server.port, request_bytes).split()[1] == status


def test_request_cut_short_is_refused():
    with serving("127.0.0.1:0") as server:
        assert ask(server.port, b"GET /met", half_close=True).split()[1] == b"400"


def test_large_answer_reaches_a_slow_reader():
    body = "x 1\n" * 1_000_000
    with (
        serving("127.0.0.1:0", lambda: body) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer,
    ):
        peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        time.sleep(0.1)
        answer = b""
        while piece := peer.recv(1 << 20):
            answer += piece
    assert len(answer.partition(b"\r\n\r\n")[2]) == len(body)


def test_silent_and_too_many_clients_do_not_keep_others_out():
    ahead = [0.0]
    with serving("127.0.0.1:0", clock=lambda: time.monotonic() + ahead[0]) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MAX_CONNECTIONS + 4)]
        deadline = time.monotonic() + 5
        while server.counters["refused"] < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.counters["refused"] == 4
        ahead[0] = TIMEOUT_S + 1
        assert select.select([idle[0]], [], [], 5)[0]
        assert idle[0].recv(1) == b""
        assert ask(server.port, b"GET /metrics HTTP/1.1\r\n\r\n").split()[1] == b"200"
        assert server.counters["timeouts"] == MAX_CONNECTIONS
        for peer in idle:
            peer.close()


def test_client_that_resets_the_connection_harms_nobody():
    with serving("127.0.0.1:0") as server:
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", server.port))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n"[: _ + 3])
            peer.close()
        assert ask(server.port, b"GET /metrics HTTP/1.1\r\n\r\n").split()[1] == b"200"
    assert MAX_REQUEST_BYTES < 10_000
