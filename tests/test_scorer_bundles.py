"""The real scorer process on real, tiny bundles: it says what the runtime says, humbly, or why it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import scorer as scorers
from daemon.questions import Question
from daemon.scorer import Scorer, find_bundle
from daemon.settings import Models, Settings
from daemon.stages.scorer import DATA_BYTES, NICE, OOM_SCORE_ADJ
from models import shelf
from models.bundle import verify
from models.runtime import Classifier
from models.shelf import Trust
from tests.fixtures.bundles import make_bundle

TEXTS = ["app | disk full", "kernel | usb device timeout", "sshd | session started user root", "ok"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A scorer on the state directory; nothing ships unless the test puts it there."""
    shipped = tmp_path / "shipped"
    for module in (scorers, shelf):
        monkeypatch.setattr(module, "SHIPPED", shipped)
    made = []

    def scorer(tier="low", pinned="auto"):
        made.append(Scorer(tier, Settings(str(tmp_path), models=Models(**{tier: str(pinned)}))))
        return made[-1]

    yield scorer
    for one in made:
        one.close()


def ask(scorer, texts=TEXTS):
    return scorer.ask_now([Question(number, text) for number, text in enumerate(texts)])


def test_process_says_what_the_runtime_says_whatever_is_asked_beside_it(make, tmp_path):
    bundle = make_bundle(tmp_path / "b")
    scorer = make(pinned=bundle)
    here = Classifier(verify(bundle, "low"))
    together = ask(scorer)
    for number, text in enumerate(TEXTS):
        assert together[number].scores == here.score([text])[0] == ask(scorer, [text])[0].scores
    assert together[0].bundle == verify(bundle, "low").name


def test_text_is_the_same_for_the_same_seed(make, tmp_path):
    scorer = make("top", make_bundle(tmp_path / "b", "top"))
    options = {"max_tokens": 20, "temperature": 1.0}
    texts = [scorer.write("disk full", seed=seed, **options) for seed in (1, 1, 2)]
    assert texts[0]
    assert texts[0] == texts[1] != texts[2]


def test_tier_gets_no_answer_from_a_model_of_another_kind(make, tmp_path):
    scorer = make("top", make_bundle(tmp_path / "b", "top"))
    assert ask(scorer)[0].scores == {}
    assert "does not answer such questions" in scorer.notes[0]


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_changed_byte_leaves_the_baseline_and_names_the_file(make, tmp_path, name):
    path = make_bundle(tmp_path / "b") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    scorer = make(pinned=path.parent)
    assert ask(scorer)[0].scores == {}
    assert scorer.state == "broken"
    assert name in scorer.notes[0]


def test_damaged_installed_bundle_gives_way_to_the_one_before_and_says_so(make, tmp_path):
    shelf.install(make_bundle(tmp_path / "1", version="1"), "low", tmp_path, Trust())
    shelf.install(make_bundle(tmp_path / "2", version="2", seed=2), "low", tmp_path, Trust())
    (tmp_path / "bundles/low/current/model.onnx").write_bytes(b"nothing")
    scorer = make()
    assert ask(scorer)[0].bundle.startswith("low-1-")
    assert "model.onnx" in scorer.refusals[0]


def test_installed_bundle_serves_as_soon_as_it_is_looked_for(make, tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "LOOK_S", 0.0)
    scorer = make()
    assert ask(scorer)[0].scores == {}
    shelf.install(make_bundle(tmp_path / "1", version="1"), "low", tmp_path, Trust())
    assert ask(scorer)[0].bundle.startswith("low-1-")
    shelf.install(make_bundle(tmp_path / "2", version="2", seed=2), "low", tmp_path, Trust())
    assert ask(scorer)[0].bundle.startswith("low-2-")
    shelf.rollback("low", tmp_path, Trust())
    assert ask(scorer)[0].bundle.startswith("low-1-")


def test_quick_look_looks_where_the_shelf_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(shelf, "SHIPPED", tmp_path / "shipped")
    places = [place for _, place in shelf.places("middle", tmp_path)]
    for place in reversed(places):
        place.mkdir(parents=True)
        (place / "manifest.json").write_text("{}")
        assert find_bundle("middle", "auto", tmp_path)[0] == (place / "manifest.json").stat().st_ino


def test_process_gives_way_to_everything_else(make, tmp_path):
    scorer = make(pinned=make_bundle(tmp_path / "b"))
    ask(scorer)
    proc = Path(f"/proc/{scorer.pid}")
    assert os.getpriority(os.PRIO_PROCESS, scorer.pid) >= NICE["low"]
    assert (proc / "oom_score_adj").read_text() == f"{OOM_SCORE_ADJ}\n"
    assert (proc / "comm").read_text() == "hauswart-score\n"
    limits = (proc / "limits").read_text()
    assert f"Max data size             {DATA_BYTES}" in limits
    assert len(list((proc / "task").iterdir())) == 1
    imported = (proc / "maps").read_text()
    assert "onnxruntime" in imported
    assert "zmq" not in imported


@pytest.fixture
def replay(tmp_path):
    """`hauswart replay` of a log file with odd lines, as bytes of its findings."""
    shelf.install(make_bundle(tmp_path / "1", version="1"), "low", tmp_path / "s", Trust())
    log = tmp_path / "app.log"
    words = [
        "disk",
        "full",
        "failed",
        "error",
        "link",
        "down",
        "out",
        "memory",
        "killed",
        "warning",
        "usb",
        "timeout",
    ]
    lines = [
        f"Nov 21 10:{second // 60:02}:{second % 60:02} host app[7]: {words[second % 12]} {words[second % 7]} "
        f"{words[second % 5]} {'x' * (second % 11 + 1)}yz"
        for second in range(0, 900, 13)
    ]
    log.write_text("\n".join(lines) + "\n")

    def run(*arguments):
        command = [sys.executable, "-m", "daemon", "--state-dir", str(tmp_path / "s"), "replay", str(log)]
        return subprocess.run([*command, "--findings", *arguments], capture_output=True, check=True)

    return run


def test_replay_says_the_same_bytes_every_time_and_can_leave_the_models_out(replay):
    once, again, without = replay(), replay(), replay("--no-models")
    assert once.stdout == again.stdout
    assert b'"path":"model"' in once.stdout
    assert b'"path":"model"' not in without.stdout
