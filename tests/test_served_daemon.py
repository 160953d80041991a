"""The real daemon with a served model: when its text comes, who is said to have written it, the audit."""

import json
import threading
import time

import pytest

from tests.fixtures.chat import Reply, serve
from tests.fixtures.live import append, live, logins
from tests.lab.runner import wait_until

pytestmark = pytest.mark.slow


def answer(en, de, action):
    texts = {lang: {"text": text, "evidence": ["E1"]} for lang, text in (("en", en), ("de", de))}
    return json.dumps({**texts, "action": action})


def cautious(gate):
    """A model that writes what it was told, in both languages, as soon as the gate opens."""

    def script(body):
        gate.wait(20)
        told = json.loads(
            body["messages"][1]["content"].partition("<incident>")[2].rpartition("</incident>")[0]
        )
        en = f"Somebody tries passwords on this host, and the cause is {told['cause']['en']} as it seems."
        de = f"Auf diesem Rechner probiert jemand Passwörter durch, und zwar ist es {told['cause']['de']}."
        return Reply(answer(en, de, next(iter(told["actions"]))))

    return script


def spoken(advice):
    """Whether this is what the model wrote."""
    said = (advice.origin, advice.lang, bool(advice.author)) == ("model", "de", True)
    return said and "probiert jemand Passwörter durch" in advice.text


def shown(found, incident_id, form):
    """Whether the operator is told who wrote the advice."""
    return "scripted at 127.0.0.1:" in found.command("show", incident_id, form).stdout


def test_first_advice_waits_for_nobody_and_the_served_text_takes_its_place(tmp_path):
    gate, log = threading.Event(), tmp_path / "auth.log"
    log.touch()
    with serve(cautious(gate)) as server:
        environment = {"HAUSWART_TOP__SERVED__URL": server.url, "HAUSWART_LOG_LEVEL": "warning"}
        with live(tmp_path, more_environment=environment, follow=[str(log)]) as found:
            append(log, logins("203.0.113.9"))
            assert wait_until(found.incidents, 20)
            (incident,) = found.incidents()
            assert wait_until(lambda: found.advice(incident.id) is not None, 20)
            assert wait_until(lambda: server.asked, 20)
            assert found.advice(incident.id).author == ""
            gate.set()
            # The incident may grow meanwhile: its next revision, too, is explained by our own model first.
            assert wait_until(lambda: spoken(found.advice(incident.id, "de")), 20)
            for form in ("--json", "--lang=en"):
                assert wait_until(lambda form=form: shown(found, incident.id, form), 20), form
        said = (tmp_path / "daemon.log").read_text()
    assert f"about incident {incident.id}: " in said  # the audit, whatever the level
    assert "bytes of redacted evidence, outcome 200" in said
    assert "203.0.113.9" not in "".join(line for line in said.splitlines() if "asked" in line)
    counters = found.stages()["top"]["counters"]
    assert counters["advised_by_served"] == counters["served/spoke"] >= 1


def reads_at(url):
    """The environment of a daemon that has a served model read."""
    return {
        "HAUSWART_TOP__SERVED__URL": url,
        "HAUSWART_TOP__SERVED__READS": "true",
        "HAUSWART_LOG_LEVEL": "warning",
    }


def reading(body):
    """A model that takes eight refused clients of a broker for guesses, and explains nothing."""
    said = body["messages"][1]["content"]
    if "<found>" not in said:
        return Reply("{}")
    found = json.loads(said.partition("<found>")[2].rpartition("</found>")[0])
    refused = [one["id"] for one in found if "turned away" in one.get("line", "") and one["times"] >= 8]
    if not refused:
        return Reply('{"fault": "none"}')
    address = {"kind": "address", "name": "203.0.113.77", "severity": "warning", "evidence": refused}
    return Reply(json.dumps({"fault": "auth-bruteforce", **address}))


def test_what_no_rule_knows_is_read_and_becomes_an_incident(tmp_path):
    log = tmp_path / "turnstile.log"
    log.touch()
    with serve(reading) as server:
        with live(tmp_path, more_environment=reads_at(server.url), follow=[str(log)]) as found:
            append(log, "".join(f"badge {n} of 203.0.113.77 turned away\n" for n in range(8)))
            assert wait_until(found.incidents, 30)
            (incident,) = found.incidents()
            assert wait_until(lambda: found.stages()["top"]["counters"].get("read"), 20)
        said = (tmp_path / "daemon.log").read_text()
    assert incident.fault_class.value == "auth-bruteforce"
    assert incident.culprits[0].name == "203.0.113.77"
    assert any("turned away" in one.text for one in incident.evidence)
    assert "what no rule knows: " in said
    assert "turned away" not in said


def reviewing(body):
    """A model that takes a full disk for one without inodes, whenever it is shown an incident again."""
    if not body["messages"][0]["content"].startswith("You look once more"):
        return Reply('{"fault": "none"}')
    said = body["messages"][1]["content"].partition("<found>")[2].rpartition("</found>")[0]
    evidence = [one["id"] for one in json.loads(said)["incident"]["evidence"]]
    return Reply(json.dumps({"fault": "inode-exhaustion", "evidence": evidence[:1]}))


def hooked(tmp_path):
    """The setting of a hook that keeps each notice as a line, and what reads those of an incident."""
    program, kept = tmp_path / "hook.sh", tmp_path / "notices.jsonl"
    program.write_text(f"#!/bin/sh\ncat >>{kept}; echo >>{kept}\n")
    program.chmod(0o755)

    def notices(incident_id):
        lines = kept.read_text().splitlines() if kept.exists() else []
        return [one for line in lines if line.strip() and (one := json.loads(line))["id"] == incident_id]

    return {"HAUSWART_NOTIFY__HOOK": json.dumps([str(program)])}, notices


def test_an_incident_is_looked_at_once_more_and_says_who_read_it(tmp_path):
    log = tmp_path / "uploads.log"
    log.touch()
    hook, notices = hooked(tmp_path)
    with serve(reviewing) as server:
        with live(tmp_path, more_environment=reads_at(server.url) | hook, follow=[str(log)]) as found:
            append(log, "upload of report.pdf failed: No space left on device\n" * 3)
            assert wait_until(lambda: found.found("disk-full", ""), 20)
            (before,) = found.incidents()
            assert "it is being read" in found.command("show", before.id).stdout
            assert notices(before.id) == []
            assert wait_until(lambda: found.found("inode-exhaustion", ""), 20)
            assert wait_until(lambda: notices(before.id), 10)
            assert [one["fault_class"] for one in notices(before.id)] == ["inode-exhaustion"]
            (incident,) = found.incidents()
            assert "class disk-full -> inode-exhaustion" in found.command("show", incident.id).stdout
            assert wait_until(lambda: found.stages()["top"]["counters"].get("read"), 20)
        said = (tmp_path / "daemon.log").read_text()
    assert incident.id == before.id
    assert (incident.path, before.severity, incident.severity) == ("model", "warning", "error")
    assert incident.evidence[-1].text.endswith(
        " read this as inode-exhaustion; by the rules alone it is disk-full."
    )
    assert incident.evidence[-1].text.startswith("scripted at 127.0.0.1:")
    assert f"about incident {incident.id}: " in said
    assert "No space left" not in said


def test_words_that_mean_nothing_wake_nobody_and_say_who_read_them(tmp_path):
    log = tmp_path / "checks.log"
    log.touch()
    hook, notices = hooked(tmp_path)
    with (
        serve(lambda _: Reply('{"fault": "none"}')) as server,
        live(tmp_path, more_environment=reads_at(server.url) | hook, follow=[str(log)]) as found,
    ):
        append(log, "check 12: a full store answers No space left on device, as it must: PASS\n" * 3)
        assert wait_until(lambda: found.found("disk-full", ""), 20)
        assert wait_until(lambda: "read this as harmless" in found.incidents()[0].evidence[-1].text, 20)
        (incident,) = found.incidents()
        head = found.command("show", incident.id).stdout.partition("\n\n")[0]
        time.sleep(8.0)  # longer than a notification takes
        assert notices(incident.id) == []
    assert head.endswith(" read this as harmless; by the rules alone it is disk-full.")
    assert (incident.severity, incident.state) == ("info", "open")
