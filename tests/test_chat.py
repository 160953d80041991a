"""The one chat client: what may leave the host, what servers get wrong, who asks again and what is told."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ChatError, ConfigError
from daemon.ingest import redact
from models import chat as module
from models.chat import Chat, parse
from tests.fixtures.chat import Reply, completion, serve
from training.endpoint import Endpoint, open_chat, parse_headers

HELLO = [{"role": "user", "content": "hello"}]


def chat(url: str, **more) -> Chat:
    return Chat(url, what="prompts", redact=redact, **more)


def test_answer_comes_with_its_tokens_and_parameters_go_as_they_are():
    with serve([Reply("good day")]) as served:
        answer = chat(served.url, model="small").ask(HELLO, temperature=0.5, top_k=7)
    assert (answer.text, answer.finish, answer.prompt_tokens, answer.answer_tokens) == (
        "good day",
        "stop",
        7,
        2,
    )
    sent = {"messages": HELLO, "stream": False, "temperature": 0.5, "top_k": 7, "model": "small"}
    assert served.asked == [sent]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("http://h:1", "/v1/chat/completions"),
        ("http://h/v1/", "/v1/chat/completions"),
        ("https://h/api/v1/chat/completions", "/api/v1/chat/completions"),
    ],
)
def test_address_may_be_the_root_the_version_or_the_whole(given, path):
    assert parse(given).path == path


@pytest.mark.parametrize(
    "url", ["", "localhost:11434", "ftp://h/", "http://", "http://h:0/", "http://u:p@h/"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="address"):
        chat(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v1",
        "http://10.0.0.1:11434",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://[2001:db8::1]/",
    ],
)
def test_nothing_leaves_the_host_without_a_consent_that_names_it(url):
    with pytest.raises(ConfigError, match="may leave it") as caught:
        chat(url, consent=["evidence"])
    assert "prompts and target answers" in caught.value.hint
    assert chat(url, consent=["prompts"]).address.hostname


def test_unknown_consent_is_an_error_and_not_a_silent_no():
    with pytest.raises(ConfigError, match="no consent everything"):
        chat("http://127.0.0.1", consent=["everything"])


def test_redirect_is_not_followed():
    with serve([Reply("elsewhere")]) as other:
        away = Reply(raw=b"", status=307, headers={"Location": other.url})
        with serve([away]) as served, pytest.raises(ChatError, match="307") as caught:
            chat(served.url).ask(HELLO)
    assert not caught.value.retry
    assert other.asked == []


def test_secrets_are_redacted_before_they_are_sent():
    key = "sk-" + "a1" * 20
    with serve([Reply("fine")]) as served:
        chat(served.url).ask([{"role": "user", "content": f"line one\npassword=hunter2\nkey {key}"}])
    sent = served.asked[0]["messages"][0]["content"]
    assert "hunter2" not in sent
    assert key not in sent
    assert sent.startswith("line one\n")


@pytest.mark.parametrize(
    ("reply", "kind", "retry"),
    [
        (Reply(raw=b'{"choices": [{"mess'), "broken", True),
        (Reply(raw=b"<html>hi</html>", kind="text/html"), "broken", True),
        (Reply(raw=b""), "broken", True),
        (Reply(raw=b"[" * 100_000), "broken", True),
        (Reply(raw=b"{}"), "broken", False),
        (Reply(raw=b'{"choices": []}'), "broken", False),
        (Reply(raw=completion("half"), length=5000), "broken", True),
        (Reply("   "), "empty", True),
        (Reply(raw=b'{"choices": [{"message": {"content": null}}]}'), "empty", True),
        (Reply(raw=b'{"error": {"message": "bad type"}}', status=400), "refused", False),
        (Reply(raw=b"no", status=401), "key", False),
        (Reply(raw=b'{"error": "no such model"}', status=404), "refused", False),
        (Reply(raw=b"slow down", status=429, headers={"Retry-After": "3"}), "busy", True),
        (Reply(raw=b"<h1>oops</h1>", status=500), "failed", True),
        (Reply("x" * (5 << 20)), "broken", False),
    ],
)
def test_each_way_to_fail_has_a_name(reply, kind, retry):
    with serve([reply]) as served, pytest.raises(ChatError) as caught:
        chat(served.url).ask(HELLO)
    assert (caught.value.kind, caught.value.retry) == (kind, retry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reply", [Reply("late", delay_s=2.0), Reply("drip by drip", drip_s=0.1)])
def test_slow_answer_ends_with_the_time(reply):
    with serve([reply]) as served:
        started = time.monotonic()
        with pytest.raises(ChatError) as caught:
            chat(served.url, timeout_s=0.5).ask(HELLO)
        assert time.monotonic() - started < 1.5
    assert (caught.value.kind, caught.value.retry) == ("slow", True)


def test_server_that_is_down_is_told():
    with pytest.raises(ChatError, match="cannot be reached") as caught:
        chat("http://127.0.0.1:9").ask(HELLO)
    assert caught.value.kind == "unreachable"


def test_every_request_is_told_to_the_audit_without_its_text():
    told = []
    with serve([Reply("one"), Reply(raw=b"", status=500)]) as served:
        asking = chat(served.url, model="m", audit=told.append)
        asking.ask(HELLO)
        with pytest.raises(ChatError):
            asking.ask(HELLO)
    assert [(one.outcome, one.what, one.model) for one in told] == [
        ("200", "prompts", "m"),
        ("500", "prompts", "m"),
    ]
    assert told[0].sent_bytes > 0
    assert "hello" not in json.dumps([one._asdict() for one in told])


def test_patient_chat_asks_again_where_that_helps(tmp_path):
    busy = Reply(raw=b"later", status=429, headers={"Retry-After": "0"})
    told: list[str] = []
    with serve(
        [busy, Reply(raw=b"oops", status=503, headers={"Retry-After": "0"}), Reply("at last")]
    ) as served:
        endpoint = Endpoint(served.url, audit_file=tmp_path / "audit.jsonl")
        patient = open_chat(endpoint, "prompts", tell=told.append)
        assert patient.ask(HELLO).text == "at last"
    assert (patient.requests, patient.answer_tokens) == (3, 2)
    assert "answers 429" in told[0]
    audit = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [one["outcome"] for one in audit] == ["429", "503", "200"]


def test_patient_chat_does_not_ask_again_what_was_refused():
    with serve([Reply(raw=b"no", status=400)]) as served, pytest.raises(ChatError):
        open_chat(Endpoint(served.url), "prompts").ask(HELLO)
    assert len(served.asked) == 1


def test_rate_is_kept():
    with serve([Reply("ok")]) as served:
        patient = open_chat(Endpoint(served.url), "prompts", per_minute=300)
        started = time.monotonic()
        for _ in range(4):
            patient.ask(HELLO)
    assert time.monotonic() - started >= 0.6


def test_key_comes_from_its_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HAUSWART_CHAT_KEY", "from-environment")
    (tmp_path / "key").write_text("from-file\n")
    with serve([Reply("ok")]) as served:
        open_chat(Endpoint(served.url), "prompts").ask(HELLO)
        open_chat(Endpoint(served.url, key_file=tmp_path / "key"), "prompts").ask(HELLO)
    assert [one["Authorization"] for one in served.headers] == ["Bearer from-environment", "Bearer from-file"]
    with pytest.raises(ConfigError, match="cannot be read"):
        open_chat(Endpoint(served.url, key_file=tmp_path / "none"), "prompts")


@pytest.mark.parametrize("line", ["", "no colon", ": value"])
def test_wrong_header_is_refused(line):
    with pytest.raises(ConfigError, match="no header"):
        parse_headers([line])


@given(st.binary(max_size=300))
def test_no_answer_breaks_the_client(raw):
    with contextlib.suppress(ChatError):
        module._checked(module._decoded("http://h", "application/json", raw), 0.0)
