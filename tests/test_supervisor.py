"""The supervisor with real stage processes: restart, limits, orderly stop, and dying together."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.settings import Metrics, Notify, Settings, save_resolved
from daemon.status import STAGES, Status, read_status, running_stages
from daemon.supervisor import FORK_RETRY_S, Supervisor, _Child, _wait_for, choose_stages, summarise

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "fixtures/staged.py"


class Run:
    """One supervisor on its own directories."""

    def __init__(self, path, *arguments, **environment):
        self.state, self.runtime = path / "s", path / "r"
        self.runtime.mkdir(exist_ok=True)
        resolved = self.runtime / "settings.json"
        save_resolved(Settings(str(self.state), str(self.runtime)), resolved)
        self.log = path / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "supervise", str(resolved), *arguments],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def pid(self, stage):
        status = read_status(self.runtime, stage)
        return status.pid if status is not None and status.state == "running" else 0

    def wait(self, condition, within_s=10.0):
        end = time.monotonic() + within_s
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        assert condition(), self.log.read_text()

    def wait_for_stages(self):
        self.wait(lambda: all(self.pid(stage) for stage in STAGES if stage != "notify"))


@pytest.fixture(autouse=True)
def _interruptible():
    """A shell's background job ignores Ctrl-C, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def begin(tmp_path):
    runs = []

    def start(*arguments, **environment):
        runs.append(Run(tmp_path, *arguments, **environment))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
        run.process.communicate(timeout=30)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_run_for_some_seconds_ends_by_itself_with_a_summary(begin):
    run = begin("2.5", HAUSWART_TEST_LINES="120")
    out, _ = run.process.communicate(timeout=30)
    assert run.process.returncode == 0
    found = re.fullmatch(
        r"hauswart ran (\d+) s: (\d+) observations, (\d+) lines, (\d+) findings, "
        r"0 incidents opened, 0 lost\n",
        out,
    )
    assert found, out
    seconds, observations, lines, findings = map(int, found.groups())
    assert 2 <= seconds <= 6
    assert lines == findings == 120
    assert observations > 120
    assert running_stages(run.runtime) == []
    assert "watching this host with middle, low, collector, top" in run.log.read_text()


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")]
)
def test_killed_stage_is_started_again_and_said(begin, number, name):
    run = begin()
    run.wait_for_stages()
    first = run.pid("low")
    os.kill(first, number)
    run.wait(lambda: run.pid("low") not in {0, first})
    assert f"the stage low was killed by {name}; starting it again in 0.1 s" in run.log.read_text()


def test_stage_that_keeps_dying_is_left_alone_for_longer():
    child = _Child("low")
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._restarts = 0
    said = []
    supervisor._life = type("Life", (), {})()
    supervisor._life.tell = type("Tell", (), {"warning": said.append, "error": said.append})()
    waits = []
    for _ in range(5):
        supervisor._note_death(child, 1)
        waits.append(round(child.start_s - time.monotonic(), 1))
    assert waits == [0.1, 0.2, 0.4, 0.8, 60.0]
    assert "after 5 deaths within 60 s" in said[-1]


def test_stage_that_another_daemon_holds_is_awaited_and_then_ends_this_one():
    child, said = _Child("low"), []
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._restarts, supervisor._locked_out = 0, ""
    supervisor._life = type("Life", (), {})()
    supervisor._life.tell = type("Tell", (), {"warning": said.append, "error": said.append})()
    for _ in range(8):
        supervisor._note_death(child, 5)
        assert child.start_s - time.monotonic() <= 2.0
    assert supervisor._locked_out == ""  # a killed daemon's stage may still be stopping
    child.locked_s -= 20
    supervisor._note_death(child, 5)
    assert supervisor._locked_out == "low"


def test_host_without_room_for_a_process_delays_a_stage_and_ends_nobody(monkeypatch):
    child, said = _Child("low"), []
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._life = type("Life", (), {})()
    supervisor._life.tell = type("Tell", (), {"error": said.append})()

    def full():
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", full)
    supervisor._spawn(child)
    assert child.pid == 0
    assert 0.0 < child.start_s - time.monotonic() <= FORK_RETRY_S
    assert said == ["cannot start the stage low: Resource temporarily unavailable; trying again in 5 s"]
    monkeypatch.setattr("os.fork", lambda: 4711)
    supervisor._spawn(child)
    assert child.pid == 4711


def test_stage_that_only_just_begins_can_be_stopped(monkeypatch):
    supervisor, life = Supervisor.__new__(Supervisor), type("Life", (), {})()
    life.stopping, life.forsake = False, lambda: None
    supervisor._life, supervisor._lock, supervisor._resolved = life, life, Path()
    life.release = life.forsake
    readable, writable = os.pipe()

    def begin_slowly(stage, resolved):
        os.write(writable, b".")
        time.sleep(30)

    monkeypatch.setattr("daemon.stages.entry.run_stage", begin_slowly)
    child = _Child("low")
    before = signal.signal(signal.SIGTERM, lambda number, frame: setattr(life, "stopping", True))
    try:
        supervisor._spawn(child)
        os.read(readable, 1)
        os.kill(child.pid, signal.SIGTERM)
        assert _wait_for(child.pid, 5.0)
        child.pid = 0
    finally:
        signal.signal(signal.SIGTERM, before)
        if child.pid:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def test_terminated_supervisor_stops_last_who_keeps_what_the_others_say(begin):
    run = begin()
    run.wait_for_stages()
    run.process.terminate()
    assert run.process.wait(20) == 0
    ended = [read_status(run.runtime, stage) for stage in ("collector", "low", "top", "middle", "supervisor")]
    assert {status.state for status in ended} == {"stopped"}
    assert [status.updated for status in ended] == sorted(status.updated for status in ended)


def test_stages_die_with_a_killed_supervisor(begin):
    run = begin()
    run.wait_for_stages()
    pids = [run.pid(stage) for stage in ("collector", "low", "middle", "top")]
    run.process.kill()
    run.process.wait()
    run.wait(lambda: not any(map(alive, pids)))


def test_second_daemon_names_the_first_and_exits_5(begin, tmp_path):
    run = begin()
    run.wait_for_stages()
    second = Run(tmp_path)
    assert second.process.wait(10) == 5
    second.process.stdout.close()
    assert f"is in use by process {run.process.pid}" in second.log.read_text()


def test_daemon_starts_again_after_it_was_killed(begin):
    run = begin()
    run.wait_for_stages()
    run.process.kill()
    run.process.wait()
    again = begin("3", HAUSWART_TEST_LINES="40")
    out, _ = again.process.communicate(timeout=30)
    assert " 40 lines, " in out


def test_interrupt_from_the_terminal_reaches_only_the_supervisor(begin):
    run = begin()
    run.wait_for_stages()
    os.kill(run.pid("middle"), signal.SIGINT)
    time.sleep(0.3)
    assert alive(run.pid("middle"))
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    assert "died" not in run.log.read_text()


def test_notify_runs_only_where_it_is_wanted():
    assert "notify" not in choose_stages(Settings())
    assert "notify" in choose_stages(Settings(notify=Notify(hook=["true"])))
    for notify in (Notify(targets_file="/etc/targets"), Notify(alertmanager="http://127.0.0.1:9093")):
        assert "notify" in choose_stages(Settings(notify=notify))
    for metrics in (Metrics(listen="127.0.0.1:9"), Metrics(otlp="http://127.0.0.1:4318")):
        assert "notify" in choose_stages(Settings(metrics=metrics))


def test_summary_of_a_run_that_left_no_status_is_all_zero(tmp_path):
    text = summarise(Settings(runtime_dir=str(tmp_path)), 1.0)
    assert text == "hauswart ran 1 s: 0 observations, 0 lines, 0 findings, 0 incidents opened, 0 lost"


def test_lean_processes_import_nothing_heavy():
    """What a resident process may import is a budget: the heavy parts of the command line are not in it."""
    stages = (
        "daemon.stages.low, daemon.stages.middle, daemon.stages.top, daemon.tiers.low, daemon.tiers.middle"
    )
    script = f"import daemon.supervisor, {stages}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "numpy",
        "onnxruntime",
        "tokenizers",
        "subprocess",
        "asyncio",
        "logging",
        "typer",
        "rich",
        "pydantic",
        "requests",
        "apprise",
        "ssl",
        "zstandard",
    }
    assert not heavy & set(loaded.stdout.split())


def test_module_runs_a_stage_without_the_command_line(tmp_path):
    resolved = tmp_path / "settings.json"
    save_resolved(Settings(str(tmp_path), str(tmp_path)), resolved)
    command = [sys.executable, "-X", "importtime", "-m", "daemon", "stage", "top", str(resolved)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as stage:
        end = time.monotonic() + 10
        while not isinstance(read_status(tmp_path, "top"), Status) and time.monotonic() < end:
            time.sleep(0.05)
        stage.terminate()
        imported = stage.stderr.read()
    assert stage.returncode == 0
    assert "daemon.stages.consult" in imported  # which the stage needs before it says that it runs
    assert "typer" not in imported


@pytest.mark.parametrize(
    "arguments", [["supervise"], ["supervise", "a", "--for", "soon"], ["supervise", "a", "b"]]
)
def test_wrong_arguments_are_a_usage_error(arguments):
    failed = subprocess.run([sys.executable, "-m", "daemon", *arguments], capture_output=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.count(b"\n") == 1
