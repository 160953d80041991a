"""Which candidate may serve: judged by the switch itself, whatever the trainer says of it."""

import pytest

from daemon.errors import BundleError
from daemon.settings import Models, Settings
from models.bundle import read_manifest
from models.shelf import Trust, candidates, install, rollback
from tests.fixtures.bundles import make_bundle
from training import contest, promote
from training.promote import Promotion

TRUST = Trust()
# The tiny models are random; what the champion says of these lines is what is right.
TEXTS = ["disk full failed error", "session started user root", "link down", "usb device timeout ok"]


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A host whose low tier is served by an installed bundle that knows the golden set."""
    from models.bundle import verify  # noqa: PLC0415
    from models.lines import encode  # noqa: PLC0415
    from models.runtime import Classifier  # noqa: PLC0415

    install(make_bundle(tmp_path / "first", "low", "20260101T000000"), "low", tmp_path, TRUST)
    champion = Classifier(verify(tmp_path / "first", "low"))
    said = contest.judge_with(champion, {})([encode(text) for text in TEXTS])
    golden = [
        contest.Golden(text, one.alert >= contest.ALERT, one.severity_class)
        for text, one in zip(TEXTS, said, strict=True)
    ]
    monkeypatch.setattr(contest, "read_golden", lambda: golden)
    return tmp_path


def run(state):
    settings = Settings(state_dir=str(state), models=Models())
    return promote.promote(settings, store=settings.store)


def serving(state):
    return read_manifest(state / "bundles/low/current").version


def candidate(state, version, **changes):
    return make_bundle(candidates("low", state) / version, "low", version, **changes)


def test_candidate_that_is_worse_at_nothing_serves_and_is_the_same_to_the_last_byte(state):
    made = candidate(state, "20260102T000000")
    outcome = run(state)
    assert outcome.promoted
    assert serving(state) == "20260102T000000"
    assert (state / "bundles/low/current/manifest.json").read_bytes() == (made / "manifest.json").read_bytes()
    assert "serves now" in promote.tell(outcome, Settings())


def test_candidate_that_is_worse_stays_one_whatever_its_trainer_says(state):
    made = candidate(state, "20260102T000000", seed=7)
    made.with_name("20260102T000000.json").write_text('{"won": true, "promoted": true}')
    outcome = run(state)
    assert not outcome.promoted
    assert outcome.reasons[0].startswith("golden set")
    assert serving(state) == "20260101T000000"
    assert outcome.reasons[0] in promote.tell(outcome, Settings())


def test_damaged_candidate_is_refused_and_the_champion_goes_on(state):
    made = candidate(state, "20260102T000000")
    (made / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        run(state)
    assert serving(state) == "20260101T000000"


def test_newest_candidate_is_judged_and_a_second_time_there_is_nothing_new(state):
    candidate(state, "20260102T000000", seed=7)
    candidate(state, "20260103T000000")
    (candidates("low", state) / ".work").mkdir()
    assert run(state).candidate.startswith("low-20260103T000000")
    assert run(state) == Promotion("", run(state).champion, promoted=False, reasons=[])


def test_operators_rollback_is_not_undone_by_the_next_night(state):
    candidate(state, "20260102T000000")
    assert run(state).promoted
    rollback("low", state, TRUST)
    assert not run(state).promoted
    assert serving(state) == "20260101T000000"


def test_host_without_candidates_has_nothing_to_promote(state):
    outcome = run(state)
    assert outcome.candidate == ""
    assert "no new candidate" in promote.tell(outcome, Settings())
