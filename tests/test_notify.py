"""Notifications: who is told what and when, and that it arrives."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from urllib.request import urlopen

import msgspec
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from daemon.errors import ConfigError
from daemon.messages import Advice, Culprit, Evidence, KeepSilence
from daemon.notify.alertmanager import alerts
from daemon.notify.channels import BACKOFF_S, TIMEOUT_S, Channel, Letter, Outcome, Post, channels_of, letter
from daemon.notify.otlp import content_of
from daemon.notify.planner import ADVICE_WAIT_S, LOOK_WAIT_S, Planner, State, moments
from daemon.notify.wording import compose, compose_digest
from daemon.prometheus import Family
from daemon.settings import Metrics, Notify, Settings
from daemon.stages.notify import NotifyStage
from daemon.store.documents import incident_document
from daemon.store.rows import Delivery
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.fixtures.incidents import make_incident

REPO = Path(__file__).parent.parent
T0 = 1_780_000_000.0


def incident(name="i1", revision=1, **changes):
    full = Evidence("e0", "metric", "fs.used{/var}", T0, T0, "/var is 100 % full", {"used_ratio": 1.0})
    fields = {"revision": revision, "updated_at": T0 + revision, "evidence": [full], "evidence_at": T0 - 1}
    return make_incident(name, T0, **(fields | changes))


def closed(name="i1", revision=2, at=T0 + 50, **changes):
    return incident(name, revision, **({"state": "closed", "closed_at": at, "updated_at": at} | changes))


def delivery(target="hook", state="open", severity="error", name="i1", *, ok=True):
    return Delivery(name, 1, target, ok, T0, "", state, severity)


class Desk:
    """A planner with a clock that the test moves."""

    def __init__(self, channels=("hook",), firing=(), **settings):
        self.planner = Planner(Notify(**settings), channels, firing)
        self.mono, self.silences = 1000.0, []

    def plan(self, *states, advised=("i1",), after=0.0):
        self.mono += after
        found = [
            one if isinstance(one, State) else State(one, acknowledged=False, deliveries=[]) for one in states
        ]
        return self.planner.plan(found, self.silences, advised, mono=self.mono, wall=T0 + self.mono - 1000.0)

    def reasons(self, *states, **options):
        return [(one.incident.id, one.reason) for one in self.plan(*states, **options).notices]


def test_incident_is_told_once_when_it_opens_again_when_worse_and_when_over():
    desk = Desk()
    assert desk.reasons(incident()) == [("i1", "opened")]
    assert desk.reasons(incident(revision=2), after=30) == []
    worse = incident(revision=3, severity=Severity.CRITICAL)
    assert desk.reasons(worse, after=30) == [("i1", "worse")]
    assert desk.reasons(worse, incident(revision=4), after=30) == []
    assert desk.reasons(closed(revision=5), after=30) == [("i1", "closed")]
    assert desk.reasons(closed(revision=5), after=30) == []


def test_an_incident_whose_words_are_still_to_be_read_waits_for_that_and_not_for_ever():
    unread = incident(severity=Severity.WARNING, meant=Severity.ERROR, waits=True)
    desk = Desk()
    plan = desk.plan(unread)
    assert (plan.notices, plan.look_in_s) == ([], LOOK_WAIT_S)
    assert desk.reasons(incident(revision=2), after=3.0) == [("i1", "opened")]

    nothing = incident(revision=2, severity=Severity.INFO, meant=Severity.ERROR)
    desk = Desk()
    assert desk.reasons(unread) == desk.reasons(nothing, after=3.0) == desk.reasons(nothing, after=60.0) == []
    ended = msgspec.structs.replace(nothing, state="closed", closed_at=T0 + 70.0)
    assert desk.reasons(ended, after=10.0) == []

    desk = Desk()  # nobody is left who could say that it was not read
    assert desk.reasons(unread) == desk.reasons(unread, after=LOOK_WAIT_S - 1.0) == []
    assert desk.reasons(unread, after=1.0) == [("i1", "opened")]

    desk = Desk()  # over before anybody read it
    assert desk.reasons(unread) == []
    assert desk.reasons(closed(at=T0 + 12.0), after=12.0) == [("i1", "closed")]


def test_whoever_was_told_of_it_hears_of_its_end_though_it_was_read_as_nothing_since():
    for channel, acknowledged, told in (("hook", False, True), ("hook", True, False)):
        desk = Desk((channel,))
        assert desk.reasons(incident()) == [("i1", "opened")]
        assert desk.reasons(incident(revision=2, severity=Severity.INFO), after=9.0) == []
        over = closed(revision=3, severity=Severity.INFO)
        state = State(over, acknowledged=acknowledged, deliveries=[])
        assert desk.reasons(state, after=9.0) == ([("i1", "closed")] if told else [])
    assert Desk().reasons(closed(severity=Severity.INFO, at=T0 + 1.0)) == []


def test_deliveries_of_an_earlier_process_count():
    told = [delivery()]
    assert Desk().reasons(State(incident(), acknowledged=False, deliveries=told)) == []
    worse = incident(severity=Severity.CRITICAL)
    assert Desk().reasons(State(worse, acknowledged=False, deliveries=told)) == [("i1", "worse")]
    assert Desk().reasons(State(closed(), acknowledged=False, deliveries=told)) == [("i1", "closed")]
    ended = [*told, delivery(state="closed")]
    assert Desk().reasons(State(closed(), acknowledged=False, deliveries=ended)) == []
    failed = [delivery(ok=False)]
    assert Desk().reasons(State(incident(), acknowledged=False, deliveries=failed)) == []


def test_incident_that_comes_back_after_its_end_was_told_is_told_anew():
    desk = Desk(("hook", "alertmanager"), firing=("alertmanager",))
    grave = incident(severity=Severity.CRITICAL)
    assert desk.reasons(grave) == [("i1", "opened")]
    assert desk.reasons(closed(revision=2), after=30) == [("i1", "closed")]
    back = incident(revision=3, severity=Severity.WARNING)
    assert desk.reasons(back, after=30) == [("i1", "opened")]
    assert desk.reasons(incident(revision=4, severity=Severity.WARNING), after=30) == []
    assert desk.reasons(incident(revision=5), after=30) == [("i1", "worse")]
    assert desk.reasons(closed(revision=6), after=30) == [("i1", "closed")]
    assert desk.reasons(closed(revision=6), after=30) == []


def test_incident_that_came_back_is_told_anew_by_the_next_process():
    told = [delivery(severity="critical"), msgspec.structs.replace(delivery(state="closed"), revision=2)]
    back = State(incident(revision=3), acknowledged=False, deliveries=told)
    assert Desk().reasons(back) == [("i1", "opened")]
    told.append(msgspec.structs.replace(delivery(severity="warning"), revision=3))
    assert Desk().reasons(back._replace(incident=incident(revision=4))) == [("i1", "worse")]
    assert Desk().reasons(back._replace(incident=closed(revision=4))) == [("i1", "closed")]


def test_channel_that_was_not_told_yet_is_told_alone():
    desk = Desk(("hook", "json-1a2b"))
    plan = desk.plan(State(incident(), acknowledged=False, deliveries=[delivery()]))
    assert [one.channels for one in plan.notices] == [("json-1a2b",)]


@pytest.mark.parametrize(
    "state",
    [
        State(incident(severity=Severity.INFO), acknowledged=False, deliveries=[]),
        State(incident(), acknowledged=True, deliveries=[]),
        State(incident(severity=Severity.CRITICAL), acknowledged=True, deliveries=[delivery()]),
        State(incident(quieted="s1"), acknowledged=False, deliveries=[]),
        State(incident(state="merged", merged_into="i0"), acknowledged=False, deliveries=[]),
        State(closed(at=T0 - 5000), acknowledged=False, deliveries=[]),
    ],
)
def test_nobody_is_told_of_what_is_minor_known_quieted_merged_or_long_over(state):
    assert Desk().reasons(state) == []


def test_silence_holds_back_until_it_ends():
    desk = Desk()
    desk.silences = [KeepSilence("s", "", "/var", T0, T0 + 60, "", "", "me")]
    assert desk.reasons(incident()) == []
    assert desk.reasons(incident(), after=61) == [("i1", "opened")]


def test_notice_waits_five_seconds_for_advice():
    desk = Desk()
    plan = desk.plan(incident(), advised=())
    assert plan.notices == []
    assert plan.look_in_s == pytest.approx(ADVICE_WAIT_S)
    assert desk.reasons(incident(), advised=(), after=4.9) == []
    assert desk.reasons(incident(), advised=(), after=0.2) == [("i1", "opened")]
    assert Desk().reasons(incident(), advised=("i1",)) == [("i1", "opened")]


def test_what_is_beyond_the_hourly_limit_comes_as_one_digest():
    desk = Desk(per_hour=3, digest_s=600.0)
    many = [incident(f"i{number}") for number in range(8)]
    names = [one.id for one in many]
    plan = desk.plan(*many, advised=names)
    assert [one.incident.id for one in plan.notices] == ["i0", "i1", "i2"]
    assert plan.digest == []
    assert plan.look_in_s == pytest.approx(600.0)
    over = [closed("i3"), *many[:3], *many[4:]]
    assert desk.plan(*over, advised=names, after=599).digest == []
    plan = desk.plan(*over, advised=names, after=2)
    assert sorted(one.incident.id for one in plan.digest) == ["i3", "i4", "i5", "i6", "i7"]
    assert desk.plan(*over, advised=names, after=3600).digest == []
    assert desk.reasons(incident("new"), advised=("new",)) == [("new", "opened")]


def test_what_waits_for_the_digest_is_told_though_it_was_over_long_before():
    desk = Desk(per_hour=1, digest_s=3600.0)
    assert desk.reasons(incident("first"), incident("i1"), advised=("first", "i1")) == [("first", "opened")]
    over = closed("i1", at=T0 + 60)
    assert desk.plan(over, incident("first"), after=1800).digest == []
    assert [one.incident.id for one in desk.plan(over, incident("first"), after=1801).digest] == ["i1"]


@pytest.mark.parametrize(
    "ended",
    [
        State(closed(), acknowledged=True, deliveries=[delivery("alertmanager")]),
        State(closed(quieted="s1"), acknowledged=False, deliveries=[delivery("alertmanager")]),
        State(closed(state="merged"), acknowledged=False, deliveries=[delivery("alertmanager")]),
        State(
            closed(severity=Severity.INFO),
            acknowledged=False,
            deliveries=[delivery("alertmanager")],
        ),
    ],
)
def test_what_fires_is_resolved_whatever_became_of_the_incident(ended):
    desk = Desk(("hook", "alertmanager"), firing=("alertmanager",))
    (notice,) = desk.plan(ended).notices
    assert (notice.reason, notice.channels) == ("closed", ("alertmanager",))
    assert desk.plan(ended, after=30).notices == []
    untold = ended._replace(deliveries=[])
    assert Desk(("alertmanager",), firing=("alertmanager",)).plan(untold).notices == []


def test_limit_counts_what_an_earlier_process_sent():
    desk = Desk(per_hour=2)
    desk.planner.remember([10.0, 20.0, 4000.0], desk.mono)
    assert desk.reasons(incident()) == []
    assert desk.plan(incident()).look_in_s is not None


def test_notice_through_several_channels_counts_once_after_a_restart():
    def sent(target, at, name="i1", **changes):
        return msgspec.structs.replace(delivery(target, name=name, **changes), at=T0 + at)

    told = [sent(target, at + late) for at in (0.0, 60.0) for late, target in enumerate(("hook", "a", "b"))]
    digest = [sent("hook", 90.0, name) for name in ("i2", "i3", "i4")]
    lost = [sent("c", at, ok=False) for at in range(9)]
    assert moments([*told, *digest, *lost]) == [T0, T0 + 60.0, T0 + 90.0]
    assert moments(lost) == []


# --- text ----------------------------------------------------------------------------------------------


def planned(one):
    return Desk().plan(one, advised=(one.id,)).notices[0]


def test_text_is_the_advice_in_either_language_or_the_bare_facts():
    advice = Advice("/var ist voll.", "de", "catalogue", "df -h /var", {"/var": "e0"})
    message = compose(planned(incident()), advice, "de", "alpha")
    assert message.title.startswith("alpha: ")
    assert message.title.endswith("[Fehler, neu]")
    assert "/var ist voll." in message.body
    assert "empfohlen: df -h /var" in message.body
    bare = compose(planned(incident()), None, "en", "alpha")
    assert bare.title.endswith("[error, new]")
    assert "disk-full" in bare.body
    assert "culprit: /var" in bare.body
    assert "- /var is 100 % full" in bare.body


@pytest.mark.parametrize("fault", list(FaultClass))
def test_every_class_has_a_text_without_advice(fault):
    one = planned(incident(fault_class=fault, culprits=[], evidence=[]))
    for lang in ("en", "de"):
        assert fault.value in compose(one, None, lang, "h").body


def test_text_is_bounded():
    long = incident(
        evidence=[msgspec.structs.replace(incident().evidence[0], text="x" * 4000)] * 9,
        culprits=[Culprit(SubjectKind.UNIT, "u" * 500, 0.5)] * 9,
    )
    message = compose(planned(long), None, "en", "h")
    assert len(message.title) <= 250
    assert len(message.body) <= 4000
    digest = compose_digest([planned(incident())] * 100, "de", "h")
    assert digest.title == "h: 100 Vorfälle"
    assert "60 weitere" in digest.body


# --- channels --------------------------------------------------------------------------------------------


def test_channel_names_never_show_a_target(tmp_path):
    secrets = tmp_path / "targets"
    secrets.write_text("# mail\n\nmailto://me:hunter2@example.org\n")
    found = channels_of(
        Notify(hook=["/bin/true", "hunter3"], targets=["json://tok:hunter4@h/x"], targets_file=str(secrets))
    )
    assert [one.name.split("-")[0] for one in found] == ["hook", "json", "mailto"]
    assert "hunter" not in repr(found)
    assert len({one.name for one in channels_of(Notify(targets=["json://a", "json://b"]))}) == 2


@pytest.mark.parametrize("target", ["hunter2", "://hunter2", "a b://hunter2"])
def test_malformed_target_is_refused_without_quoting_it(target):
    with pytest.raises(ConfigError, match="target 1") as caught:
        channels_of(Notify(targets=[target]))
    assert "hunter2" not in str(caught.value)


def test_missing_targets_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        channels_of(Notify(targets_file=str(tmp_path / "none")))


class Office:
    """A post with real children and a clock that the test may move ahead."""

    def __init__(self):
        self.outcomes, self.said, self.ahead = [], [], 0.0
        self.post = Post(lambda one, outcome: self.outcomes.append((one, outcome)), self.said.append)

    def now(self):
        return time.monotonic() + self.ahead

    def work(self, until=lambda office: office.outcomes, limit_s=20.0):
        begun = time.monotonic()
        while not until(self) and time.monotonic() - begun < limit_s:
            self.post.step(self.now())
            time.sleep(0.02)
        return self.outcomes


def hook(tmp_path, script):
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return Channel("hook", (str(path), "an argument; not a shell $(touch pwned)"))


def hook_letter(channel, name="i1", document=None):
    return letter(
        channel,
        [(name, 1)],
        document or {"schema": 1, "id": name},
        title="t",
        body="b\0c",
        severity="error",
        facts={"reason": "opened", "incident": name},
    )


def test_hook_gets_the_incident_on_its_input_and_the_facts_in_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HAUSWART_NOTIFY__TARGETS", "json://secret")
    channel = hook(tmp_path, f'cat > {tmp_path}/stdin; env > {tmp_path}/env; echo "$1" > {tmp_path}/argument')
    office = Office()
    office.post.add(hook_letter(channel, document={"schema": 1, "text": "ü" * 200_000}), office.now())
    ((_, outcome),) = office.work()
    assert outcome.ok
    assert json.loads((tmp_path / "stdin").read_text()) == {"schema": 1, "text": "ü" * 200_000}
    environment = (tmp_path / "env").read_text()
    assert "HAUSWART_INCIDENT=i1\n" in environment
    assert "HAUSWART_REASON=opened\n" in environment
    assert "HAUSWART_TEXT=bc\n" in environment
    assert "secret" not in environment
    assert (tmp_path / "argument").read_text() == "an argument; not a shell $(touch pwned)\n"


def test_failing_hook_is_tried_again_with_growing_pauses_and_then_given_up(tmp_path):
    channel = hook(tmp_path, f"echo x >> {tmp_path}/tries; exit 3")
    office = Office()
    office.post.add(hook_letter(channel), office.now())
    for tries, pause_s in enumerate(BACKOFF_S, 1):
        office.work(lambda one, tries=tries: len(one.said) == tries)
        assert office.post.step(office.now()) > pause_s - 1
        office.ahead += pause_s
    ((_, outcome),) = office.work()
    assert (outcome.ok, outcome.error) == (False, "exit code 3")
    assert (tmp_path / "tries").read_text() == "x\n" * (len(BACKOFF_S) + 1)


def test_hanging_hook_is_killed_with_all_it_started(tmp_path):
    channel = hook(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    office = Office()
    office.post.add(hook_letter(channel), office.now())
    office.work(lambda _: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    pid = int((tmp_path / "pid").read_text())
    office.ahead += TIMEOUT_S + 1
    office.work(lambda one: one.said)
    assert "took more than 30 s" in office.said[0]
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split(") ")[1][0] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the hook's child still runs")


def test_flood_of_output_is_cut(tmp_path):
    office = Office()
    office.post.add(
        hook_letter(hook(tmp_path, "yes | head -c 3000000 >&2; yes | head -c 3000000")), office.now()
    )
    ((_, outcome),) = office.work()
    assert outcome.ok
    assert len(outcome.output) <= 2048


def test_missing_hook_is_an_error_and_no_crash():
    office = Office()
    office.post.add(hook_letter(Channel("hook", ("/no/such/program",))), office.now())
    office.work(lambda one: one.said, 2)
    assert "No such file" in office.said[0]


def test_newer_letter_replaces_the_one_that_waits_for_its_next_try(tmp_path):
    channel = hook(tmp_path, f"cat >> {tmp_path}/seen; test -e {tmp_path}/works")
    office = Office()
    office.post.add(hook_letter(channel, document={"n": 1}), office.now())
    office.work(lambda one: one.said)
    (tmp_path / "works").touch()
    office.post.add(hook_letter(channel, document={"n": 2}), office.now())
    office.work()
    office.ahead += 3600
    office.work(limit_s=0.5, until=lambda _: False)
    assert (tmp_path / "seen").read_text() == '{"n":1}{"n":2}'
    assert len(office.outcomes) == 1


def test_older_letter_that_failed_is_not_told_after_a_newer_one(tmp_path):
    channel = hook(tmp_path, f"sleep 0.3; cat >> {tmp_path}/seen; grep -q 2 {tmp_path}/seen")
    office = Office()
    office.post.add(hook_letter(channel, document={"n": 1}), office.now())
    office.post.step(office.now())
    office.post.add(hook_letter(channel, document={"n": 2}), office.now())
    office.work()
    office.ahead += 3600
    office.work(limit_s=0.5, until=lambda _: False)
    assert (tmp_path / "seen").read_text() == '{"n":1}{"n":2}'


def test_digest_that_failed_is_tried_again_though_there_is_newer_news_of_one_of_it(tmp_path):
    channel = hook(tmp_path, f"cat >> {tmp_path}/seen; test -e {tmp_path}/works")
    digest = hook_letter(channel, document={"n": "digest"})._replace(about=(("i1", 1), ("i2", 1)))
    office = Office()
    office.post.add(digest, office.now())
    office.post.step(office.now())
    office.post.add(hook_letter(channel, document={"n": "i1 closed"}), office.now())
    office.work(lambda one: one.said)
    (tmp_path / "works").touch()
    office.ahead += 3600
    office.work(lambda one: len(one.outcomes) == 2)
    assert (tmp_path / "seen").read_text().count("digest") == 2
    assert all(outcome.ok for _, outcome in office.outcomes)


def test_digest_that_is_tried_again_says_nothing_old_of_what_there_is_newer_news_of(tmp_path):
    seen = tmp_path / "seen"
    channel = hook(tmp_path, f"cat >> {seen}; echo >> {seen}; test $(wc -l < {seen}) -gt 1")
    office = Office()
    stage = SimpleNamespace(
        _channels={"hook": channel}, _post=office.post, _settings=Notify(), _host="h", _counts=Counter()
    )
    stage._digest = lambda *what: NotifyStage._digest(stage, *what)
    notices = Desk().plan(incident("i1"), incident("i2"), incident("i3"), advised=("i1", "i2", "i3")).notices
    NotifyStage._send_digest(stage, notices)
    office.post.step(office.now())
    office.post.add(hook_letter(channel, "i1"), office.now())  # while the digest is on its way
    office.work()
    office.post.add(hook_letter(channel, "i2"), office.now())  # while it waits for its next try
    office.work(lambda one: len(one.outcomes) == 2)
    office.ahead += 3600
    office.work(lambda one: len(one.outcomes) == 3)
    first, *_, last = map(json.loads, seen.read_text().splitlines())
    assert [one["id"] for one in first["digest"]] == ["i1", "i2", "i3"]
    assert [one["id"] for one in last["digest"]] == ["i3"]
    assert [one.about for one, _ in office.outcomes] == [(("i1", 1),), (("i2", 1),), (("i3", 1),)]


class Inbox(HTTPServer):
    """A real HTTP server on loopback that keeps what it is sent."""

    def __init__(self, status=200, location=""):
        self.letters, self.paths, self.logins = [], [], []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                inbox.paths.append(f"GET {self.path}")
                self.send_response(200)
                self.end_headers()

            def do_POST(self):
                inbox.paths.append(self.path)
                inbox.logins.append(self.headers["Authorization"])
                inbox.letters.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"json://user:hunter2@127.0.0.1:{self.server_port}/x"


@pytest.fixture
def office(monkeypatch):
    monkeypatch.chdir(REPO)
    return Office()


def test_apprise_target_gets_title_and_text_over_http(office):
    inbox = Inbox()
    (channel,) = channels_of(Notify(targets=[inbox.url]))
    office.post.add(hook_letter(channel), office.now())
    ((_, outcome),) = office.work()
    inbox.shutdown()
    assert outcome.ok, outcome
    assert (inbox.letters[0]["title"], inbox.letters[0]["type"]) == ("t", "failure")


def test_failure_of_a_target_says_why_without_its_credentials(office):
    inbox = Inbox(500)
    (channel,) = channels_of(Notify(targets=[inbox.url]))
    office.post.add(hook_letter(channel), office.now())
    office.work(lambda one: one.said)
    inbox.shutdown()
    assert "HTTP status 500" in office.said[0]
    assert "hunter2" not in office.said[0]
    (unknown,) = channels_of(Notify(targets=["nosuch://hunter2"]))
    office.post.add(hook_letter(unknown), office.now())
    ((_, outcome),) = office.work()
    assert outcome == (False, True, "Apprise does not understand the target", outcome.output)


def test_redirect_of_a_target_is_no_delivery_unless_its_operator_says_so(office):
    elsewhere = Inbox()
    inbox = Inbox(302, f"http://localhost:{elsewhere.server_port}/login")
    (channel,) = channels_of(Notify(targets=[inbox.url]))
    office.post.add(hook_letter(channel), office.now())
    ((_, refused),) = office.work()
    assert (refused.ok, refused.final) == (False, True)  # not tried again: it may have been taken
    assert "HTTP status 302" in refused.error
    assert elsewhere.paths == []
    (channel,) = channels_of(Notify(targets=[f"{inbox.url}?redirect=yes"]))
    office.post.add(hook_letter(channel), office.now())
    (_, (_, outcome)) = office.work(lambda one: len(one.outcomes) == 2)
    inbox.shutdown(), elsewhere.shutdown()
    assert outcome.ok
    assert elsewhere.paths == ["GET /login"]


def test_text_beyond_the_limit_of_a_service_is_cut_unless_its_operator_says_otherwise(office):
    inbox = Inbox()
    target = f"mmost://127.0.0.1:{inbox.server_port}/{'k' * 26}"  # takes 4000 characters
    for number, url in enumerate((target, f"{target}?overflow=split"), 1):
        (channel,) = channels_of(Notify(targets=[url]))
        long = letter(channel, [("i1", 1)], {}, title="t" * 250, body="x" * 4000, severity="error", facts={})
        office.post.add(long, office.now())
        office.work(lambda one, number=number: one.said or len(one.outcomes) == number)
    inbox.shutdown()
    assert [outcome.ok for _, outcome in office.outcomes] == [True, True], office.said
    cut, *pieces = [one["text"] for one in inbox.letters]
    assert "t" * 250 in cut
    assert len(cut) <= 4000
    assert sum(one.count("x") for one in pieces) == 4000


def alert_letter(url, **changes):
    (channel,) = channels_of(Notify(alertmanager=url))
    document = incident_document(incident(**changes), None)
    return letter(channel, [("i1", 1)], document, title="t", body="b", severity="error", facts={})


def test_alertmanager_gets_one_alert_an_incident_that_ends_when_it_is_over(office):
    inbox = Inbox()
    url = f"http://user:hunter2@127.0.0.1:{inbox.server_port}/am/"
    office.post.add(alert_letter(url), office.now())
    office.work()
    office.post.add(alert_letter(url, state="closed", closed_at=T0 + 50), office.now())
    office.work(lambda one: len(one.outcomes) == 2)
    inbox.shutdown()
    assert all(outcome.ok for _, outcome in office.outcomes)
    assert inbox.paths == ["/am/api/v2/alerts"] * 2
    (firing,), (resolved,) = inbox.letters
    assert firing["labels"] == resolved["labels"]  # else it would never be resolved
    assert firing["labels"]["alertname"].startswith("Hauswart")
    assert firing["annotations"] == {"summary": "t", "description": "b", "severity": "error"}
    assert datetime.fromisoformat(firing["endsAt"]) > datetime.now(UTC) + timedelta(days=6)
    assert datetime.fromisoformat(resolved["endsAt"]).timestamp() == T0 + 50


def test_redirect_is_no_delivery_and_gives_the_password_to_nobody(office):
    elsewhere = Inbox()
    inbox = Inbox(302, f"http://localhost:{elsewhere.server_port}/login")
    office.post.add(alert_letter(f"http://user:hunter2@127.0.0.1:{inbox.server_port}"), office.now())
    ((_, outcome),) = office.work()
    inbox.shutdown(), elsewhere.shutdown()
    assert (outcome.ok, outcome.final) == (False, True)
    assert elsewhere.paths == []


def test_password_with_letters_that_an_address_cannot_hold_is_sent_as_it_is(office):
    inbox = Inbox()
    office.post.add(alert_letter(f"http://user:p%40ss@127.0.0.1:{inbox.server_port}"), office.now())
    office.work()
    inbox.shutdown()
    assert base64.b64decode(inbox.logins[0].removeprefix("Basic ")) == b"user:p@ss"


@pytest.mark.parametrize(("status", "final"), [(500, False), (429, False), (400, True)])
def test_alertmanager_that_refuses_is_asked_again_only_if_that_may_help(office, status, final):
    inbox = Inbox(status)
    office.post.add(alert_letter(f"http://user:hunter2@127.0.0.1:{inbox.server_port}"), office.now())
    office.work(lambda one: one.said or one.outcomes)
    inbox.shutdown()
    said = office.outcomes[0][1].error if final else office.said[0]
    assert f"answered {status}" in said
    assert "hunter2" not in said


def test_answer_that_is_no_http_is_said_in_a_line_that_quotes_nothing_of_it(office):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            peer, _ = listening.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"-ERR \x1b[2J hunter2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        office.post.add(alert_letter(f"http://127.0.0.1:{listening.getsockname()[1]}"), office.now())
        office.work(lambda one: one.said or one.outcomes)
    assert office.said == ["notification through alertmanager: no valid HTTP: BadStatusLine; again in 5 s"]


def test_digest_is_an_alert_for_each_of_its_incidents():
    documents = [incident_document(incident(name), None) for name in ("i1", "i2")]
    found = alerts({"document": {"digest": documents}, "title": "2 incidents"}, datetime.now(UTC))
    assert [one["labels"]["incident"] for one in found] == ["i1", "i2"]


def test_alertmanager_must_be_http():
    with pytest.raises(ConfigError, match="no http address"):
        channels_of(Notify(alertmanager="127.0.0.1:9093"))


@pytest.mark.skipif(not which("prometheus-alertmanager"), reason="needs prometheus-alertmanager")
def test_real_alertmanager_fires_and_resolves(office, tmp_path):
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    server = subprocess.Popen(
        ["prometheus-alertmanager", f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/am",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def active():
        with urlopen(f"{url}/api/v2/alerts?active=true") as answer:
            return json.load(answer)

    try:
        wait_for(lambda: reached(url))
        now = time.time()
        office.post.add(alert_letter(url, opened_at=now - 9), office.now())
        office.work()
        assert [one["labels"]["fault_class"] for one in active()] == [incident().fault_class.value]
        over = {"state": "closed", "opened_at": now - 9, "closed_at": now - 1}
        office.post.add(alert_letter(url, **over), office.now())
        office.work(lambda one: len(one.outcomes) == 2)
        assert active() == []
    finally:
        server.terminate()
        server.wait(10)


def reached(url):
    try:
        with urlopen(f"{url}/-/ready"):
            return True
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_incident_is_a_log_record_of_opentelemetrys_schema(office):
    inbox = Inbox()
    channel = next(iter(channels_of(Notify(), f"http://127.0.0.1:{inbox.server_port}")))
    document = incident_document(incident(), None) | {"notice": {"reason": "worse"}}
    one = letter(channel, [("i1", 1)], document, title="t", body="b", severity="error", facts={})
    office.post.add(one, office.now())
    office.work()
    inbox.shutdown()
    assert inbox.paths == ["/v1/logs"]
    request = ParseDict(inbox.letters[0], ExportLogsServiceRequest())
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert record.body.string_value == "t\nb"
    assert (record.severity_number, record.event_name) == (17, "hauswart.incident.worse")
    assert record.time_unix_nano == int((T0 + 1) * 1e9)
    facts = {one.key: one.value.string_value for one in record.attributes}
    assert facts["hauswart.incident"] == "i1"
    service = {one.key: one.value.string_value for one in request.resource_logs[0].resource.attributes}
    assert service["service.name"] == "hauswart"


def test_families_are_metrics_of_opentelemetrys_schema():
    families = [
        Family("a_total", "counter", "Counted.", [({"stage": "low"}, 7.0)]),
        Family("b_ratio", "gauge", "Measured.", [({}, 0.5), ({"x": "y"}, float("nan")), ({}, None)]),
        Family("none", "gauge", "Nothing to tell.", []),
    ]
    path, body = content_of({"families": json.loads(msgspec.json.encode(families[:1] + families[2:]))}, T0)
    assert path == "/v1/metrics"
    request = ParseDict(json.loads(json.dumps(body)), ExportMetricsServiceRequest())
    (counted,) = request.resource_metrics[0].scope_metrics[0].metrics
    assert (counted.name, counted.sum.is_monotonic) == ("a_total", True)
    assert counted.sum.data_points[0].as_double == 7.0
    _, body = content_of({"families": [list(families[1])]}, T0)
    gauge = ParseDict(body, ExportMetricsServiceRequest()).resource_metrics[0].scope_metrics[0].metrics[0]
    assert [one.as_double for one in gauge.gauge.data_points] == [0.5]


def test_resident_modules_do_not_import_apprise():
    imports = "import sys, daemon.stages.notify, daemon.notify.wording"
    script = imports + "; print({'apprise', 'asyncio'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=REPO
    )
    assert done.stdout == "set()\n"


# --- the stage -------------------------------------------------------------------------------------------


MIDDLE = """
import sys, time
from pathlib import Path
from daemon.bus import RecordsServer, WakePublisher, Wire
from daemon.errors import HauswartError
from daemon.messages import Committed, Refused, Wake
from daemon.store.writer import StoreWriter
sys.path.insert(0, {tests!r})
from test_notify import incident, closed
from daemon.messages import Advice, KeepAdvice, KeepFinding
wire = Wire(Path({runtime!r}))
records, wake = RecordsServer(wire), WakePublisher(wire)
with StoreWriter(Path({state!r}) / "store.db") as store:
    store.save([incident()], [])
    store.keep(KeepAdvice("i1", 1, [Advice("It is full.", "en", "catalogue")]))
    begun, over = time.monotonic(), False
    while time.monotonic() - begun < 20:
        if not over and (Path({state!r}) / "close").exists():
            store.save([closed(at=time.time())], [])
            over = True
        wake.publish(Wake("incidents", "i1"))
        for asked in records.receive():
            store.keep(asked.record, str(asked.epoch), asked.number)
            if isinstance(asked.record, KeepFinding) and asked.record.finding.rule == "stage.crashed":
                (Path({state!r}) / "crash").touch()
            records.reply(asked, Committed(asked.number))
        time.sleep(0.05)
        if (Path({state!r}) / "stop").exists():
            break
"""
STAGE = """
import sys
from pathlib import Path
from daemon.stages.entry import run_stage
sys.exit(run_stage("notify", Path({!r})))
"""


def wait_for(condition, limit_s=15.0):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit_s, "waited too long"
        time.sleep(0.05)


def test_stage_tells_hook_and_metrics_and_does_not_repeat_itself_after_sigkill(tmp_path):
    from daemon.settings import save_resolved  # noqa: PLC0415
    from daemon.store.reader import StoreReader  # noqa: PLC0415

    collector = Inbox()
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    runtime.mkdir(mode=0o700)
    channel = hook(tmp_path, f'echo "$HAUSWART_REASON $HAUSWART_INCIDENT" >> {tmp_path}/told')
    settings = Settings(
        state_dir=str(state),
        runtime_dir=str(runtime),
        notify=Notify(hook=list(channel.argv)),
        metrics=Metrics(
            listen=f"unix:{runtime}/metrics",
            otlp=f"http://127.0.0.1:{collector.server_port}",
            otlp_interval_s=5.0,
        ),
    )
    save_resolved(settings, runtime / "resolved.json")
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    middle = subprocess.Popen(
        [
            sys.executable,
            "-c",
            MIDDLE.format(tests=str(REPO / "tests"), runtime=str(runtime), state=str(state)),
        ],
        env=environment,
    )
    argv = [sys.executable, "-c", STAGE.format(str(runtime / "resolved.json"))]
    stage = subprocess.Popen(argv, env=environment)
    try:
        with StoreReader(state / "store.db") as reader:
            wait_for(lambda: [one for one in reader.deliveries() if one.ok])
            assert (tmp_path / "told").read_text() == "opened i1\n"
            scraped = subprocess.run(
                [sys.executable, "-c", SCRAPE.format(str(runtime / "metrics"))],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            assert 'hauswart_incidents_open{fault_class="disk-full",severity="error"} 1' in scraped.stdout
            assert 'hauswart_stage_up{stage="notify"} 1' in scraped.stdout
            wait_for(lambda: {"/v1/logs", "/v1/metrics"} <= set(collector.paths))
            wait_for(lambda: collector.paths.count("/v1/metrics") > 1)  # again after the interval
            stage.kill()
            stage.wait()
            stage = subprocess.Popen(argv, env=environment)
            wait_for((state / "crash").exists)
            (state / "close").touch()
            wait_for(lambda: [one for one in reader.deliveries() if one.state == "closed"])
        stage.terminate()
        assert stage.wait(10) == 0
        assert (tmp_path / "told").read_text() == "opened i1\nclosed i1\n"
        told = [
            one for one, path in zip(collector.letters, collector.paths, strict=True) if path == "/v1/logs"
        ]
        records = [one["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] for one in told]
        assert [one["eventName"].rpartition(".")[2] for one in records] == ["opened", "closed"]
    finally:
        collector.shutdown()
        (state / "stop").touch()
        stage.kill()
        stage.wait()
        middle.wait(10)


def test_collector_that_is_away_is_told_of_once_and_again_when_it_is_back():
    said = []
    tell = SimpleNamespace(
        error=lambda text, _id: said.append(("error", text)), info=lambda text: said.append(("info", text))
    )
    stage = SimpleNamespace(_counts=Counter(), _taken=True, _life=SimpleNamespace(tell=tell))
    stage._pushed = lambda *what: NotifyStage._pushed(stage, *what)
    metrics = Letter(Channel("otlp-metrics", ()), (), b"{}", {})
    lost = Outcome(ok=False, final=True, error="connection refused", output="")
    for outcome in (lost, lost, Outcome(ok=True, final=True, error="", output="")):
        NotifyStage._delivered(stage, metrics, outcome)
    assert said == [
        ("error", "otlp-metrics: connection refused"),
        ("info", "otlp-metrics: the collector takes metrics again"),
    ]
    assert stage._counts == {"unpushed": 2, "pushed": 1}


def test_metrics_that_nobody_takes_are_given_up_at_once_since_newer_ones_follow(tmp_path):
    said, done = [], []
    channel = hook(tmp_path, "exit 1")
    post = Post(lambda one, outcome: done.append((one.channel.name, outcome.ok)), said.append)
    metrics = replace(channel, name="otlp-metrics")
    for number in range(3):
        post.add(Letter(metrics, (), b"{}", {"PATH": os.environ["PATH"]}), 60.0 * number)
        wait_for(lambda number=number: post.step(60.0 * number) is None)
    assert done == [("otlp-metrics", False)] * 3
    assert said == []


SCRAPE = """
import socket
peer = socket.socket(socket.AF_UNIX)
peer.connect({!r})
peer.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
while piece := peer.recv(65536):
    print(piece.decode(), end="")
"""
