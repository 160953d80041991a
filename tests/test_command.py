"""The command line as an operator and a script use it: results, exit codes, and faults in one line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command

from daemon.command import history, times
from daemon.command.app import app, main
from daemon.errors import ConfigError
from daemon.messages import (
    Advice,
    Culprit,
    Evidence,
    Incident,
    KeepAdvice,
    Line,
    Process,
    Sample,
    Snapshot,
    Stamp,
)
from daemon.status import StageView
from daemon.store.reader import StoreReader
from daemon.store.segments import SegmentWriter
from daemon.store.writer import StoreWriter
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.fixtures.incidents import make_incident

ROOT = Path(__file__).parent.parent
NOW = time.time()


def incident(name: str = "abc2345", **changes) -> Incident:
    evidence = Evidence(
        id="f1-1",
        kind="metric",
        ref="fs.used{/srv}",
        start=NOW - 60,
        end=NOW - 60,
        text="/srv is 99 % full: 1 MB of 100 MB free.",
        values={"used_ratio": 0.99, "free_bytes": 1e6, "total_bytes": 1e8},
    )
    fields = {
        "culprits": [Culprit(SubjectKind.MOUNT, "/srv", 1.0)],
        "boot_id": "0" * 32,
        "evidence": [evidence],
        "finding_ids": ["f1"],
        "evidence_at": NOW - 61,
    }
    return make_incident(name, NOW - 60, **(fields | changes))


@pytest.fixture
def state(tmp_path: Path, monkeypatch) -> Path:
    """A state directory with one open and one old, closed incident."""
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    old = NOW - 10 * 86400
    closed = incident(
        "zzz2345",
        state="closed",
        fault_class=FaultClass.LINK_DOWN,
        severity=Severity.WARNING,
        culprits=[Culprit(SubjectKind.INTERFACE, "eth0", 1.0)],
        opened_at=old,
        updated_at=old + 60,
        closed_at=old + 60,
        evidence_at=old,
    )
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(), closed], [])
        said = Advice(text="/srv is 99 % full.", lang="en", origin="catalogue", action="du -xh /srv")
        writer.keep(KeepAdvice("abc2345", 1, [said]))
    return tmp_path


def run(state: Path, *argv: str) -> int:
    return main(["--state-dir", str(state), *argv])


def test_incidents_lists_the_last_day_and_all_on_request(state, capsys):
    assert run(state, "incidents") == 0
    assert "abc2345" in (out := capsys.readouterr().out)
    assert "zzz2345" not in out
    assert run(state, "incidents", "--all") == 0
    assert "zzz2345" in capsys.readouterr().out


def test_incidents_json_is_the_fixed_interface(state, capsys):
    assert run(state, "incidents", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert (found["id"], found["fault_class"], found["severity"]) == ("abc2345", "disk-full", "error")
    assert found["culprits"] == [{"kind": "mount", "name": "/srv", "score": 1.0}]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found["opened_at"])
    assert found["closed_at"] is None
    assert found["advice"]["origin"] == "catalogue"
    assert found["evidence"][0]["metric"] == "fs.used{/srv}"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--class", "link-down", "--all"), ["zzz2345"]),
        (("--severity", "error", "--all"), ["abc2345"]),
        (("--open",), ["abc2345"]),
        (("--all", "--limit", "1"), ["abc2345"]),
        (("--all", "--search", "eth0"), ["zzz2345"]),
    ],
)
def test_incidents_filters(state, capsys, options, ids):
    assert run(state, "incidents", "--json", *options) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ids


def test_show_tells_advice_evidence_and_timeline(state, capsys):
    assert run(state, "show", "abc") == 0
    out = capsys.readouterr().out
    for part in ("/srv is 99 % full.", "du -xh /srv", "Evidence", "f1-1", "Timeline"):
        assert part in out


@pytest.mark.parametrize("watched", [False, True])
def test_show_says_until_when_an_open_incident_was_watched(state, capsys, monkeypatch, watched):
    view = StageView(
        "low", 1, alive=True, text="", cpu_ratio=0.0, pss_bytes=0, latency_p95_s=None, updated=NOW
    )
    monkeypatch.setattr(history, "running_stages", lambda _: [view] if watched else [])
    assert run(state, "show", "abc") == 0
    out = capsys.readouterr().out
    assert ("to now (" in out) is watched
    assert ("nothing is watched now" in out) is not watched


def test_show_names_an_unknown_incident(state, capsys):
    assert run(state, "show", "nope") == 1
    assert "nope" in capsys.readouterr().err


def test_show_escapes_markup_from_logs(state, capsys):
    evil = "[bold red]pwned[/] \x1b]0;title\x07"
    with StoreWriter(state / "store.db") as writer:
        text = Evidence(
            id="e-1", kind="line", ref="c", start=NOW, end=NOW, text=evil.replace("\x1b", "\\x1b")
        )
        writer.save([incident("evil234", evidence=[text])], [])
    assert run(state, "show", "evil234") == 0
    assert "[bold red]pwned[/]" in capsys.readouterr().out


def test_status_says_that_the_daemon_is_not_running(state, capsys):
    assert run(state, "status") == 1
    out = capsys.readouterr().out
    assert "not running" in out
    assert "abc2345" in out


@pytest.mark.parametrize(
    ("word", "kept"), [("good", "good"), ("bad", "bad"), ("acknowledge", "acknowledged")]
)
def test_feedback_is_kept_without_a_daemon(state, capsys, word, kept):
    assert run(state, "feedback", "abc", word, "--comment", "seen") == 0
    with StoreReader(state / "store.db") as reader:
        assert [(one.verdict, one.comment) for one in reader.feedback("abc2345")] == [(kept, "seen")]


def test_bad_verdict_quiets_its_like_visibly_until_it_is_undone(state, capsys):
    assert run(state, "feedback", "abc", "bad") == 0
    said = capsys.readouterr().out
    assert "disk-full of /srv is quiet on this host" in said
    undo = said.rpartition("silence remove ")[2].strip(" )\n")
    assert run(state, "silence", "list") == 0
    assert "bad verdict on incident abc2345" in capsys.readouterr().out.replace("\n", " ")
    assert run(state, "silence", "remove", undo) == 0
    with StoreReader(state / "store.db") as reader:
        assert [one.cancelled for one in reader.silences()] == [True]


def test_good_verdict_takes_a_bad_one_back(state, capsys):
    assert run(state, "feedback", "abc", "bad") == 0
    assert run(state, "feedback", "abc", "good") == 0
    assert "ended" in capsys.readouterr().out
    with StoreReader(state / "store.db") as reader:
        assert [one.cancelled for one in reader.silences()] == [True]
        assert [one.verdict for one in reader.feedback("abc2345")] == ["bad", "good"]


def test_edited_feedback_keeps_both_texts(state, monkeypatch):
    monkeypatch.setenv("EDITOR", "sed -i s/full/crammed/")
    monkeypatch.delenv("VISUAL", raising=False)
    assert run(state, "feedback", "abc", "edit") == 0
    with StoreReader(state / "store.db") as reader:
        kept = reader.feedback("abc2345")[0]
    assert (kept.original, kept.improved) == ("/srv is 99 % full.", "/srv is 99 % crammed.")


def test_edit_that_changes_nothing_is_refused(state, monkeypatch, capsys):
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.delenv("VISUAL", raising=False)
    assert run(state, "feedback", "abc", "edit") == 2
    assert "not changed" in capsys.readouterr().err


def test_unknown_verdict_is_refused(state, capsys):
    assert run(state, "feedback", "abc", "meh") == 2
    assert "good, bad, edit" in capsys.readouterr().err


def test_silence_is_added_listed_and_removed(state, capsys):
    assert run(state, "silence", "add", "--class", "disk-full", "--unit", "/srv*", "--for", "2h") == 0
    number = re.search(r"silence (\w+)", capsys.readouterr().out)[1]
    assert run(state, "silence", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["fault_class"] == "disk-full"
    assert run(state, "silence", "remove", number) == 0
    capsys.readouterr()
    assert run(state, "silence", "list", "--json") == 0
    assert capsys.readouterr().out == ""


def test_silence_of_everything_for_ever_is_refused(state, capsys):
    assert run(state, "silence", "add") == 2
    assert "everything" in capsys.readouterr().err


def test_name_that_looks_like_markup_is_listed_as_it_is(state, capsys):
    assert run(state, "silence", "add", "--class", "cpu-saturation", "--unit", "[/x]", "--for", "2h") == 0
    capsys.readouterr()
    assert run(state, "silence", "list") == 0
    assert "[/x]" in capsys.readouterr().out


def test_recurring_silence_is_checked(state, capsys):
    assert run(state, "silence", "add", "--recurring", "someday 2-4") == 2
    assert "someday" in capsys.readouterr().err


def test_purge_erases_what_was_named_and_nothing_else(state):
    assert run(state, "purge", "--class", "link-down", "--yes") == 0
    with StoreReader(state / "store.db") as reader:
        assert [one.id for one in reader.incidents()] == ["abc2345"]


def test_purge_without_a_target_is_refused(state, capsys):
    assert run(state, "purge", "--yes") == 2
    assert "nothing was named" in capsys.readouterr().err


def test_purge_erases_telemetry(state, capsys):
    segment = state / "telemetry"
    record(segment, seconds=5)
    assert run(state, "purge", "--telemetry", "--yes") == 0
    assert not list(segment.glob("*.zst"))
    assert "1 telemetry segments" in capsys.readouterr().out


def test_purge_of_everything_takes_retrainings_candidates_too(state):
    version = state / "candidates/low/20261101T040000"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model")
    version.with_suffix(".json").write_text('{"changed": [{"text": "a line of this host"}]}')
    assert run(state, "purge", "--all", "--before", "30d", "--yes") == 0
    assert (version / "model.onnx").exists()  # that is not all
    assert run(state, "purge", "--all", "--yes") == 0
    assert [*(state / "candidates").rglob("*")] == [state / "candidates/low"]


def record(directory: Path, seconds: int) -> None:
    """Telemetry of a host on which a program is killed for memory."""
    directory.mkdir(exist_ok=True)
    writer = SegmentWriter(directory, 14, 64)
    for second in range(seconds):
        at = Stamp("1" * 32, 1000.0 + second, NOW - 1000 + second)
        batch = [Sample(at, "host", {"cpu.busy": 0.1, "cpu.cores": 2.0, "mem.available": 0.5})]
        if second == 20:
            text = "Out of memory: Killed process 77 (leaky) total-vm:9kB, anon-rss:8kB, file-rss:0kB"
            batch.append(Line(at, "kernel", text, priority=3, identifier="kernel"))
            one = Process(77, 1, "leaky", "", 0, "R", 1.0, 10**9, 3, 1024, 1, 0.0, 5.0)
            batch.append(Snapshot(at, "processes", "jump", [one]))
        writer.write(batch, at)
    writer.close()


def test_replay_of_telemetry_finds_the_same_every_time(state, capsys):
    record(state / "telemetry", seconds=60)
    told = []
    for _ in range(2):
        assert run(state, "replay", "telemetry", "--findings") == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "oom" in told[0]
    assert run(state, "replay", "telemetry", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["fault_class"], one["culprits"][0]["name"]) for one in found] == [
        ("memory-exhaustion", "leaky[77]")
    ]


def test_replay_of_a_log_file_finds_a_brute_force(state, tmp_path, capsys):
    log = tmp_path / "auth.log"
    line = "Nov 20 03:00:{:02} host sshd[{}]: Failed password for root from 203.0.113.5 port 4{:03} ssh2\n"
    log.write_text("".join(line.format(second, 100 + second, second) for second in range(30)))
    assert run(state, "replay", str(log), "--json") == 0
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [(one["fault_class"], one["culprits"][0]["name"]) for one in found] == [
        ("auth-bruteforce", "203.0.113.5")
    ]


def test_replay_names_a_path_that_is_not_there(state, capsys):
    assert run(state, "replay", "/nonexistent.log") == 2
    assert "/nonexistent.log" in capsys.readouterr().err


def test_doctor_names_what_is_missing(state, capsys):
    code = run(state, "doctor", "--json")
    checks = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert checks["state directory"]["state"] == "ok"
    assert checks["daemon"]["state"] == "absent"
    assert code == int(any(one["state"] == "problem" for one in checks.values()))


def test_doctor_reports_a_damaged_store(state, capsys):
    path = state / "store.db"
    raw = bytearray(path.read_bytes())
    raw[100:3000] = bytes(2900)
    path.write_bytes(raw)
    assert run(state, "doctor", "--json") == 1
    checks = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert checks["store"]["state"] == "problem"


def test_config_show_hides_credentials(state, monkeypatch, capsys):
    monkeypatch.setenv("HAUSWART_NOTIFY__TARGETS", '["ntfy://user:secret@host/topic"]')
    monkeypatch.setenv("HAUSWART_NOTIFY__ALERTMANAGER", "http://user:secret@host:9093")
    monkeypatch.setenv("HAUSWART_METRICS__OTLP", "https://user:secret@host:4318/")
    assert run(state, "config", "show") == 0
    said = capsys.readouterr().out
    assert "secret" not in said
    assert "https://***@host:4318/" in said


def test_unknown_key_is_one_line_with_a_hint(state, tmp_path, capsys):
    (tmp_path / "bad.toml").write_text("[collect]\nintervall_s = 1\n")
    assert main(["--config", str(tmp_path / "bad.toml"), "config", "check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"hauswart: {tmp_path}/bad.toml: unknown key 'collect.intervall_s'",
        "  hint: did you mean 'collect.interval_s'?",
    ]


def test_watch_needs_a_terminal(state):
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "--state-dir", str(state), "watch"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_watch_answers_one_key_and_quits(state):
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "daemon", "--state-dir", str(state), "watch"]
    process = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=os.environ | {"TERM": "xterm"}
    )
    os.close(slave)
    screen = read_until(master, b"abc2345")
    os.write(master, b"g")
    screen += read_until(master, b"kept: good")
    os.write(master, b"s")
    screen += read_until(master, b"snoozed")
    os.write(master, b"q")
    assert process.wait(10) == 0
    assert b"/srv" in screen
    with StoreReader(state / "store.db") as reader:
        assert [one.verdict for one in reader.feedback("abc2345")] == ["good"]
        assert [(one.fault_class, one.unit) for one in reader.silences()] == [("disk-full", "/srv")]


def read_until(descriptor: int, wanted: bytes, seconds: float = 15) -> bytes:
    screen, deadline = b"", time.monotonic() + seconds
    while wanted not in screen and time.monotonic() < deadline:
        try:
            screen += os.read(descriptor, 65536)
        except OSError:
            break
    assert wanted in screen
    return screen


@pytest.mark.parametrize("group", ["workshop", "academy"])
def test_missing_training_package_is_named(state, capsys, group, monkeypatch):
    left = [one for one in app.registered_groups if one.name != group]
    monkeypatch.setattr(app, "registered_groups", left)
    assert main([group]) == 3
    assert "hauswart[training]" in capsys.readouterr().err


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in get_command(app).commands if f"hauswart {name}" not in readme]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d12h", 129600), ("2w", 1209600), ("1.5h", 5400)],
)
def test_durations_are_read(text, seconds):
    assert times.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "2h x", "-3h", "1e9d"])
def test_nonsense_is_no_duration(text):
    with pytest.raises(ConfigError):
        times.parse_duration(text)


def test_times_are_read_relative_and_absolute():
    assert times.parse_when("2h", NOW) == NOW - 7200
    assert times.parse_when("2026-11-21T23:00+00:00", NOW) == 1795302000
    assert NOW - 2 * 86400 <= times.parse_when("yesterday", NOW) < NOW
    with pytest.raises(ConfigError):
        times.parse_when("soonish", NOW)


def test_run_takes_the_state_directory_before_and_after_its_name(tmp_path):
    for number, words in enumerate((["--state-dir", "{}", "run"], ["run", "--state-dir", "{}"])):
        state = tmp_path / str(number)
        argv = [word.format(state) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *argv, "--for", "1"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (state / "store.db").exists()
