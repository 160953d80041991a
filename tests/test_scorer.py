"""The scorer process: what it answers, and that a missing, broken, slow or killed one costs only answers."""

import io
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import daemon
from daemon.command.render import model_table
from daemon.errors import FrameError
from daemon.questions import (
    BATCH,
    MAX_FRAME_BYTES,
    Classify,
    FromScorer,
    Open,
    Question,
    Ready,
    Scored,
    ToScorer,
    decode_answer,
    decode_request,
    encode_frame,
)
from daemon.scorer import BACKOFF_MAX_S, BACKOFF_S, OPEN_MAX, Scorer, find_bundle
from daemon.settings import Models, Settings
from daemon.status import Latency, ModelStatus, StageView, read_pids

SCRIPT = str(Path(__file__).parent / "fixtures/scored.py")


class Tools:
    """Makes scorers on a bundle that looks like one, and ends them."""

    def __init__(self, path):
        self.path, self.made = path, []
        self.pinned = path / "bundle"
        self.pinned.mkdir()
        (self.pinned / "manifest.json").write_text("{}")

    def make(self, tier="low", watch=None, pid_file=None, **options):
        settings = Settings(str(self.path), models=replace(Models(**{tier: str(self.pinned)}), **options))
        command = (sys.executable, SCRIPT)
        self.made.append(Scorer(tier, settings, watch=watch, pid_file=pid_file, command=command))
        return self.made[-1]


@pytest.fixture
def tools(tmp_path):
    found = Tools(tmp_path)
    yield found
    for scorer in found.made:
        scorer.close()


def ask(*texts):
    return [Question(number, text) for number, text in enumerate(texts)]


def poll_until(scorer, condition, within_s=15.0):
    """Poll like a stage does; all answers."""
    answers, end = [], time.monotonic() + within_s
    while not condition(answers) and time.monotonic() < end:
        answers += scorer.poll()
        time.sleep(0.01)
    assert condition(answers)
    return answers


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_nothing_is_started_before_something_is_asked(tools):
    scorer = tools.make()
    assert scorer.poll() == []
    assert (scorer.state, scorer.pid) == ("asleep", 0)


def test_questions_are_answered_with_scores_bundle_and_thresholds(tools):
    scorer = tools.make()
    assert scorer.ask(ask("four", "sixsix"))
    assert scorer.state == "starting"
    answers = poll_until(scorer, lambda found: len(found) == 2)
    assert [one.scores["alert"] for one in answers] == [[0.04], [0.06]]
    assert answers[0].bundle == scorer.bundle == f"low test {scorer.pid}"
    assert answers[0].thresholds == {"alert": 0.5}
    assert scorer.counters == {"asked": 2, "answered": 2, "failed": 0, "fallback": 0, "started": 1}


def test_one_process_answers_many_questions_in_batches(tools):
    answers = tools.make().ask_now(ask(*("x" * (n % 90) for n in range(3 * BATCH + 5))))
    assert [one.id for one in answers] == list(range(3 * BATCH + 5))
    assert all(one.scores for one in answers)
    assert tools.made[0].counters["started"] == 1


def test_asking_does_not_wait_for_the_process_to_come_up(tools, monkeypatch):
    monkeypatch.setenv("HAUSWART_TEST_SCORER", "slow")
    began = time.monotonic()
    scorer = tools.make()
    assert scorer.ask(ask("x"))
    assert scorer.poll() == []
    assert time.monotonic() - began < 0.5


def test_process_that_is_asked_nothing_ends_by_itself_and_comes_again(tools):
    scorer = tools.make(idle_s=0.2)
    scorer.ask_now(ask("x"))
    first = scorer.pid
    poll_until(scorer, lambda _: scorer.state == "asleep")
    poll_until(scorer, lambda _: gone(first))
    (again,) = scorer.ask_now(ask("xx"))
    assert again.scores["alert"] == [0.02]
    assert scorer.counters["started"] == 2
    assert not scorer.notes


def test_question_that_meets_a_farewell_is_asked_again(tools):
    scorer = tools.make(idle_s=0.2)
    scorer.ask_now(ask("x"))
    time.sleep(0.6)  # it said goodbye, and nobody has read that yet
    assert scorer.ask(ask("xx"))
    (answer,) = poll_until(scorer, bool)
    assert answer.scores["alert"] == [0.02]
    assert scorer.counters["failed"] == 0


def test_killed_process_costs_its_answers_and_is_left_alone_for_a_while(tools):
    scorer = tools.make()
    scorer.ask_now(ask("x"))
    assert scorer.pid > 1
    os.kill(scorer.pid, signal.SIGKILL)
    scorer.ask(ask("y", "z"))
    answers = poll_until(scorer, lambda found: len(found) == 2)
    assert [one.scores for one in answers] == [{}, {}]
    assert scorer.state == "broken"
    assert "SIGKILL" in scorer.notes[0]
    assert not scorer.ask(ask("later"))
    assert scorer.counters["fallback"] == 3


def test_broken_process_is_tried_again_and_waited_for_longer_each_time(tools, monkeypatch):
    monkeypatch.setattr("daemon.scorer.BACKOFF_S", 0.1)
    scorer = tools.make()
    for _ in range(3):
        poll_until(scorer, lambda _: scorer.room)
        assert scorer.ask_now(ask("die"))[0].scores == {}
    assert scorer._retry_s - time.monotonic() > 0.2
    poll_until(scorer, lambda _: scorer.room)
    assert scorer.ask_now(ask("fine"))[0].scores
    assert scorer._failures == 0


def test_process_that_does_not_answer_in_time_is_killed(tools):
    scorer = tools.make(low_timeout_s=0.3)
    scorer.ask_now(ask("x"))
    pid = scorer.pid
    (answer,) = scorer.ask_now(ask("hang"))
    assert answer.scores == {}
    poll_until(scorer, lambda _: gone(pid))
    assert "within 0.3 s" in scorer.notes[0]


def test_process_that_does_not_come_up_is_given_up(tools, monkeypatch):
    monkeypatch.setenv("HAUSWART_TEST_SCORER", "slow")
    scorer = tools.make(start_timeout_s=0.3)
    assert scorer.ask_now(ask("x"))[0].scores == {}
    assert "did not start within 0.3 s" in scorer.notes[0]


def test_bundle_that_cannot_be_used_is_said_once_with_its_reason(tools, monkeypatch):
    monkeypatch.setenv("HAUSWART_TEST_SCORER", "broken")
    scorer = tools.make()
    for _ in range(3):
        assert scorer.ask_now(ask("x"))[0].scores == {}
        scorer._retry_s = 0.0
    assert list(scorer.notes) == ["the model of the low tier: model.onnx: hash differs"]


@pytest.mark.parametrize("bad", ["nan", "garbage"])
def test_answers_that_are_no_probabilities_are_refused(tools, bad):
    scorer = tools.make()
    assert scorer.ask_now(ask(bad))[0].scores == {}
    assert scorer.state == "broken"


@pytest.mark.parametrize("bad", ["raise", "too few"])
def test_question_that_fails_harms_no_other(tools, bad):
    scorer = tools.make()
    scorer.ask(ask(bad, "x"))
    scorer.ask([Question(9, "fine")])
    answers = {one.id: one.scores for one in poll_until(scorer, lambda found: len(found) == 3)}
    assert answers[0] == answers[1] == {}
    assert answers[9]["alert"] == [0.04]
    assert (scorer.state, scorer.counters["started"]) == ("ready", 1)


def test_question_too_long_for_a_frame_is_left_to_the_baseline(tools):
    scorer = tools.make()
    assert not scorer.ask(ask(*["x" * 16000] * BATCH))
    assert scorer.ask_now(ask("x"))[0].scores


def test_questions_beyond_what_is_on_its_way_are_refused(tools, monkeypatch):
    monkeypatch.setenv("HAUSWART_TEST_SCORER", "slow")
    scorer = tools.make()
    assert [scorer.ask(ask("x")) for _ in range(OPEN_MAX + 2)] == [True] * OPEN_MAX + [False] * 2


def test_tier_that_is_switched_off_starts_nothing(tools):
    scorer = tools.make()
    off = Scorer("low", Settings(models=Models(low="off")))
    assert (off.state, off.ask(ask("x")), off.pid) == ("off", False, 0)
    assert off.write("x", max_tokens=9) is None
    assert scorer.state == "asleep"


def test_tier_without_a_bundle_starts_nothing_and_takes_one_that_comes(tools, monkeypatch):
    monkeypatch.setattr("daemon.scorer.LOOK_S", 0.0)
    (tools.pinned / "manifest.json").unlink()
    scorer = tools.make()
    assert not scorer.ask(ask("x"))
    assert not scorer.ask(ask("x"))
    assert (scorer.state, scorer.pid, len(scorer.notes)) == ("absent", 0, 1)
    (tools.pinned / "manifest.json").write_text("{}")
    assert scorer.ask_now(ask("x"))[0].scores


def test_switched_bundle_is_taken_up_by_a_new_process(tools, monkeypatch):
    monkeypatch.setattr("daemon.scorer.LOOK_S", 0.0)
    scorer = tools.make()
    first = scorer.ask_now(ask("x"))[0].bundle
    assert scorer.ask_now(ask("x"))[0].bundle == first
    other = tools.path / "other.json"
    other.write_text("{}")
    other.replace(tools.pinned / "manifest.json")
    assert scorer.ask_now(ask("x"))[0].bundle != first


def test_installed_bundle_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.scorer.SHIPPED", tmp_path / "shipped")
    assert find_bundle("low", "auto", tmp_path) is None
    for place in ("shipped/low", "bundles/low/current"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").write_text("{}")
        inode = (tmp_path / place / "manifest.json").stat().st_ino
        assert find_bundle("low", "auto", tmp_path)[0] == inode


def test_text_is_written_and_a_slow_writer_given_up(tools):
    scorer = tools.make("top", top_timeout_s=5.0)
    assert scorer.write("disk", max_tokens=9, seed=3) == "disk 3"
    scorer._request_s = 0.3
    began = time.monotonic()
    assert scorer.write("hang", max_tokens=9) is None
    assert time.monotonic() - began < 2.0


def test_who_asks_again_does_not_wait_again_for_a_slow_writer(tools, monkeypatch):
    monkeypatch.setenv("HAUSWART_TEST_SCORER", "slow")
    scorer = tools.make("top", top_timeout_s=0.3)
    assert scorer.write("disk", max_tokens=9) is None
    assert scorer.state == "starting"  # it may yet come up
    began = time.monotonic()
    assert scorer.write("disk", max_tokens=9) is None
    assert time.monotonic() - began < 0.2
    assert scorer.counters["asked"] == 1
    assert scorer.counters["fallback"] == 2


def test_descriptor_is_watched_while_there_is_a_process(tools):
    watched, poller = [], select.poll()

    def watch(source, /, *, wanted):
        (poller.register if wanted else poller.unregister)(source)
        watched.append(wanted)

    scorer = tools.make(watch=watch)
    scorer.ask(ask("x"))
    assert poller.poll(15000)
    poll_until(scorer, bool)
    scorer.close()
    assert watched == [True, False]


def test_process_is_known_as_ours_while_it_lives(tools):
    (tools.path / "status").mkdir()
    pid_file = tools.path / "status/score-low.pid"
    pid_file.write_text("4194000\n")  # of a stage that was killed
    scorer = tools.make(pid_file=pid_file)
    assert read_pids(tools.path) == frozenset()
    scorer.ask_now(ask("x"))
    assert read_pids(tools.path) == {scorer.pid}
    scorer.close()
    assert read_pids(tools.path) == frozenset()


def test_process_ends_with_its_stage(tools, tmp_path):
    code = (
        "import sys, os, time; sys.path.insert(0, sys.argv[1]); import test_scorer as t\n"
        "from pathlib import Path\n"
        "tools = t.Tools(Path(sys.argv[2])); scorer = tools.make(); scorer.ask_now(t.ask('x'))\n"
        "print(scorer.pid, flush=True); time.sleep(60)\n"
    )
    (tmp_path / "other").mkdir()
    stage = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "other")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = int(stage.stdout.readline())
    stage.kill()
    stage.communicate()
    end = time.monotonic() + 10.0
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(pid)


def test_status_tells_counts_latency_and_memory(tools):
    scorer = tools.make()
    scorer.ask_now(ask("x"))
    status = scorer.status()
    assert (status.state, status.pid, status.latency.count) == ("ready", scorer.pid, 1)
    assert status.pss_bytes > 1 << 20
    scorer.close()
    assert scorer.status().cpu_s > 0.0


def test_scorer_started_by_hand_says_who_starts_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "score", "low"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "started by its stage" in done.stderr


def test_frames_are_bounded_and_checked():
    with pytest.raises(FrameError):
        encode_frame(Classify(1, ["x" * 16000] * BATCH))
    for data in (b"", b"\xc1", encode_frame(Ready("b")), b"x" * (MAX_FRAME_BYTES + 1)):
        with pytest.raises(FrameError):
            decode_request(data)
    with pytest.raises(FrameError):
        decode_answer(encode_frame(Scored(1, [{"alert": [1.5]}])))
    opened = Open("low", "auto", "/s", 20.0)
    assert decode_request(encode_frame(opened)) == opened


def test_asking_side_imports_neither_numpy_nor_subprocess():
    code = (
        "import sys, daemon.scorer; print(sorted({'numpy', 'onnxruntime', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("frame", [*ToScorer.__args__, *FromScorer.__args__])
def test_protocol_names_every_frame_and_field(frame):
    text = (Path(daemon.__file__).parent / "PROTOCOL.md").read_text().partition("## Scorers")[2]
    row = next(one for one in text.splitlines() if f"| `{frame.__struct_config__.tag}` |" in one)
    assert all(f"`{name}`" in row for name in frame.__struct_fields__)


def test_protocol_names_the_limits():
    text = (Path(daemon.__file__).parent / "PROTOCOL.md").read_text().partition("## Scorers")[2]
    for limit in (f"{MAX_FRAME_BYTES} bytes", f"1 to {BATCH}", f"most {OPEN_MAX} requests"):
        assert limit in text
    assert (BACKOFF_S, BACKOFF_MAX_S) == (5.0, 600.0)


def view(model):
    return StageView(
        "low",
        7,
        alive=True,
        text="",
        cpu_ratio=0.0,
        pss_bytes=0,
        latency_p95_s=None,
        updated=0.0,
        model=model,
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("ready", "model (ready)"),
        ("asleep", "model (asleep)"),
        ("off", "baseline (switched off)"),
        ("absent", "baseline (no bundle)"),
        ("broken", "baseline (the model failed)"),
    ],
)
def test_status_shows_which_path_speaks(state, said):
    counters = {"asked": 7, "answered": 5, "failed": 2, "fallback": 3}
    model = ModelStatus(state, "low-1-[red]", latency=Latency(5, 0.004, 0.5, 0.6), counters=counters)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(model_table([view(None), view(model)]))
    row = console.export_text().splitlines()[1]
    for text in (said, " 1-[red]", "5 of 7", " 3 ", "4 ms", "500 ms"):
        assert text in row


def test_status_without_models_shows_none():
    assert model_table([view(None)]) is None
