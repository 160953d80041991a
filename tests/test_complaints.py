"""What services complain of in words that no catalogue holds, and when that is believed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.messages import Line, Stamp
from daemon.settings import Low
from daemon.tiers.complaints import CHRONIC_HOURS, RULE
from daemon.tiers.lines import LineJudge
from models.complaints import complaint, status
from models.taxonomy import FaultClass

COMPLAINTS = {
    "service-hung": [
        "nothing from the exporter for 10 s",
        "job 815 is stuck in state running",
        "no heartbeat from node web-3 since 40 s",
        "Read timeout on queue invoices",
        "context deadline exceeded while syncing",
    ],
    "dependency-failed": [
        'level=error msg="failed to connect to ledger"',
        "cannot reach the licence server",
        "no healthy broker available",
        "Service notification failed: cannot connect to smtp server: Connection refused",
        "app: Note: connection refused by upstream",
        "lost connection to the hub",
        "10.0.0.5:5432 connection refused",
        "replica db-2 is unavailable",
    ],
    "connection-flood": ["connection pool exhausted", "Too many client sessions", "WARN rate limit exceeded"],
    "name-resolution": ["unable to resolve ledger.example", "DNS lookup of hub failed"],
    "certificate-expired": ["the certificate of hub.example has expired"],
    "filesystem-corrupt": ["segment 815: checksum mismatch", "index is corrupt, rebuilding"],
    "disk-full": ["not enough disk space for the spool", "quota of /srv exceeded"],
    "memory-exhaustion": ["cannot allocate 65536 bytes", "insufficient memory for the cache"],
    "fd-exhaustion": ["out of file descriptors"],
    "service-crash": ["worker 3 died", "plugin metrics exited unexpectedly"],
    "": [
        "listening on port 8080",
        "request timeout: 30 s",
        "reconnected to the hub after a lost connection",
        "INFO could not connect to peer, will try another one",
        "Connection reset by peer while reading from client",
        "0 errors, 0 failures",
        "Server app/two is going DOWN for maintenance. 2 active and 0 backup servers left.",
        "test_connection_refused_is_reported ... ok",
        "203.0.113.38:59988 Connection reset, restarting [0]",
        "ok - write /etc/passwd.new: [Errno 30] connection refused",
        "not ok 12 - cannot connect to server",
        "Connect to /lost+found? yes",
        "gpg: Note: This certificate has expired!",
        "rejected_connections:0",
        "HOST ALERT: shop;DOWN;HARD;3;CRITICAL - host unreachable (10.8.1.11)",
        "SERVICE ALERT: shop;web;CRITICAL;HARD;3;connect to host shop port 80: Connection refused",
        "name lookup failed for 192.0.2.1: Temporary failure in name resolution",
        "[rejected: 0]",
        "error",
        "",
    ],
}


@pytest.mark.parametrize(
    ("fault", "text"), [(fault, text) for fault in COMPLAINTS for text in COMPLAINTS[fault]]
)
def test_complaint_is_of_its_topic(fault, text):
    found = complaint(text).fault
    assert (found.value if found else "") == fault


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("2026/02/01 10:00:00 [error] 7#7: no route", 3),
        ("ERROR:root:no route", 3),
        ('time="x" level=fatal msg="no route"', 2),
        ('{"level":"warn","msg":"no route"}', 4),
        ("E0201 10:00:00.000000 1 main.go:7] no route", 3),
        ("LOG:  no route", 6),
        ("level=info no route", 7),
    ],
)
def test_line_says_itself_how_grave_it_is(text, priority):
    assert complaint(text).priority == priority


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('192.0.2.7 - - [01/Feb/2026 10:00:00] "GET / HTTP/1.0" 503 -', 503),
        ("127.0.0.1:5 [01/Feb/2026:10:00:00.0] www app/<NOSRV> 0/-1/-1/-1/0 503 217 - - SC--", 503),
        ("took 503 ms", 0),
    ],
)
def test_status_of_an_access_log_is_read(text, answer):
    assert status(text) == answer


@given(st.text(max_size=600))
def test_any_text_is_read(text):
    complaint(text)
    status(text)


@pytest.mark.parametrize("seed", ["no ", "connection ", "a timeout ", '" 5', " 1/1/1/1/1", "failed to ", "["])
def test_reading_is_linear_on_hostile_text(seed):
    began = time.process_time()
    complaint(seed * 2000)
    status(seed * 2000)
    assert time.process_time() - began < 0.1


class Host:
    """A judge with a clock, heard for long enough to know its usual lines."""

    def __init__(self):
        self.judge = LineJudge(Low(learn_s=0.0))
        self.t = 1e6

    def hear(self, *texts, every_s=2.0, **fields):
        """Complaints that were told of lines which come one after the other."""
        told = []
        for text in texts:
            self.t += every_s
            line = {"source": "journal", "unit": "app.service", "identifier": "app", "pid": 42, "uid": 990}
            at = Stamp("b1", self.t, 1e9 + self.t)
            told += self.judge.judge(Line(at=at, text=text, **line | fields), self.t)
        return [one for one in told if one.rule == RULE]


def test_service_that_goes_on_complaining_has_a_trouble():
    (finding, *_) = Host().hear(*["nothing from the exporter for 10 s"] * 5)
    assert finding.subjects[0].name == "app.service"
    assert max(finding.hints, key=finding.hints.get) is FaultClass.SERVICE_HUNG


def test_complaints_in_other_words_about_the_same_add_up():
    said = ["lost connection to the hub", "cannot reach the hub", "replica hub-2 is unavailable"] * 2
    assert Host().hear(*said, every_s=1.5)


@pytest.mark.parametrize(
    "frame",
    ['level=warning msg="{}"', 'W0201 10:00:00.000000 7 main.go:7] "{}" pod="shop/app"'],
)
def test_message_in_quotes_is_read_whatever_was_said_in_them_before(frame):
    calm, bad = frame.format("flag --old was renamed"), frame.format("cannot reach the hub")
    host = Host()
    assert not host.hear(*[calm] * 8)
    assert host.hear(*[bad, calm] * 6, every_s=1.0)
    host.t += 600.0
    assert not host.hear(*[calm] * 8)


def test_word_that_varies_may_be_the_complaint():
    ready = [f"replica of ledger is {state}" for state in ("ready", "idle", "warm", "cold", "full")]
    host = Host()
    assert not host.hear(*ready * 2)
    assert host.hear(*["replica of ledger is unavailable"] * 8)
    host = Host()
    host.hear("replica of ledger is unavailable", *ready)
    host.t += 600.0
    assert not host.hear(*ready * 2)


def test_access_log_of_several_forms_counts_all_their_answers():
    host = Host()
    names = ("a.test", "b.test", "c.test", "d.test", "e.test", "f.test")
    host.hear(*[f"{name} " + answer(200) for name in names] * 10)
    assert host.hear(*[f"{name} " + answer(503) for name in names] * 6)


def test_errors_are_believed_sooner():
    assert not Host().hear(*["cannot reach the hub"] * 3, every_s=1.1)
    assert Host().hear(*["[error] cannot reach the hub"] * 3, every_s=1.1)


def test_single_complaints_are_nothing():
    assert not Host().hear(*["cannot reach the hub"] * 5, every_s=60.0)
    assert not Host().hear(*["cannot reach the hub"] * 5, every_s=0.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"unit": "session-1.scope", "uid": 1000},
        {"unit": "user@1000.service", "uid": 1000},
        {"unit": "ssh.service", "identifier": "sshd", "uid": 0},
        {"unit": "postfix@-.service", "identifier": "postfix/bounce", "uid": 0},
        {"source": "file:/var/log/syslog", "unit": "", "trusted": False},
    ],
)
def test_users_programs_and_who_serves_strangers_are_not_heard(fields):
    assert not Host().hear(*["cannot reach the hub"] * 8, **fields)


def test_file_of_one_program_is_heard():
    fields = {"source": "file:/srv/app.log", "unit": "", "identifier": "", "trusted": False}
    (finding, *_) = Host().hear(*["cannot reach the hub"] * 8, **fields)
    assert (finding.subjects[0].kind, finding.subjects[0].name) == ("file", "/srv/app.log")


def test_what_is_complained_of_all_day_is_usual():
    host = Host()
    for _ in range(CHRONIC_HOURS):
        assert host.hear(*["cannot reach the hub"] * 6)
        host.t += 3600.0
    assert not host.hear(*["cannot reach the hub"] * 6)


def test_what_is_complained_of_without_a_pause_is_no_habit_however_long():
    host = Host()
    for _ in range(CHRONIC_HOURS + 2):
        assert host.hear(*["cannot reach the hub"] * 720, every_s=5.0)
    host.t += 600.0
    assert host.hear(*["cannot reach the hub"] * 6)


def test_builds_speak_of_somebodys_code():
    host = Host()
    host.hear("make: Entering directory '/srv/build/app'")
    assert not host.hear(*["cannot reach the hub"] * 8)
    host.t += 3600.0
    assert host.hear(*["cannot reach the hub"] * 8)


PYTEST = "=" * 29 + " test session starts " + "=" * 29


@pytest.mark.parametrize("said", ["BUILD FAILED", "BUILD SUCCESS", "test session starts", PYTEST])
@pytest.mark.parametrize(
    "form",
    [
        "Invalid user x {} from 198.51.100.9 port 4",
        "input_userauth_request: invalid user x {} [preauth]",
        '[error] 7#7: *1 open() "/srv/{}" failed (2: No such file or directory), client: 198.51.100.9',
        "no such page: /{}",
    ],
)
def test_stranger_who_names_a_build_silences_no_server(form, said):
    host = Host()
    host.hear(form.format(said))
    assert host.hear(*["cannot reach the hub"] * 8)


@pytest.mark.parametrize(
    "said", ["BUILD FAILED in 3s", "[INFO] BUILD SUCCESS", PYTEST, "make: *** [all] Error 2"]
)
def test_build_silences_its_own_file_and_no_other(said):
    fields = {"unit": "", "identifier": "", "trusted": False}
    host = Host()
    host.hear(said, source="file:/srv/ci.log", **fields)
    assert not host.hear(*["cannot reach the hub"] * 8, source="file:/srv/ci.log", **fields)
    assert host.hear(*["cannot reach the hub"] * 8, source="file:/srv/app.log", **fields)


def answer(number):
    return f'192.0.2.7 - - [01/Feb/2026 10:00:00] "GET /{number} HTTP/1.0" {number} 217'


def test_server_of_which_most_answers_fail_has_a_trouble():
    host = Host()
    assert not host.hear(*[answer(200)] * 20)
    (finding, *_) = host.hear(*[answer(503)] * 8)
    assert max(finding.hints, key=finding.hints.get) is FaultClass.DEPENDENCY_FAILED


def test_some_failed_answers_of_many_are_nothing():
    assert not Host().hear(*[answer(200), answer(200), answer(503)] * 20)
