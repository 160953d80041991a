"""The top tier with a model beside the catalogue: what it may say, and who speaks when it may not."""

from pathlib import Path

import msgspec
import pytest

from daemon.advice.check import check_advice
from daemon.messages import Incident
from daemon.settings import Top
from daemon.stages.top import writer
from daemon.store.documents import incident_document
from daemon.tiers.top import SEEDS, TopTier
from models.briefs import MAX_TOKENS
from training.tasks import Request, find
from training.tasks.advice import read_incidents

FIXTURES = Path(__file__).parent / "fixtures/advice"
GOOD = "<culprit> fills up. It is <used> full, <free> of <total> are left."


@pytest.fixture
def incident():
    return msgspec.json.decode((FIXTURES / "full-file-system.json").read_bytes(), type=Incident)


@pytest.fixture(autouse=True)
def _general(monkeypatch):
    """As where the catalogue has but general words; for a full file system it has better ones."""
    monkeypatch.setattr("daemon.tiers.top.lacks_citation", lambda _incident: True)


class Script:
    """A model that gives these texts, one after the other, and remembers what it was asked."""

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def __call__(self, prompt, seed):
        self.asked.append((prompt, seed))
        return self.texts[len(self.asked) - 1]


def advise(incident, script, lang="en"):
    top = TopTier(Top(languages=[lang]), script)
    return top, top.advise(incident)[0]


def test_text_of_the_model_is_shown_with_the_catalogue_s_action(incident):
    top, advice = advise(incident, Script(GOOD))
    assert advice.origin == "model"
    assert "100 % full" in advice.text
    assert advice.action.startswith("du -xah")
    assert check_advice(advice, incident) == []
    assert top.counters["model"] == 1
    assert top.notes == []


def test_refused_text_is_tried_again_with_another_seed(incident):
    script = Script("<culprit> has 12 errors. Mend it.", "<culprit> is <celsius> hot. Cool it.", GOOD)
    top, advice = advise(incident, script)
    assert advice.origin == "model"
    assert [seed for _, seed in script.asked] == [0, 1, 2]
    assert top.counters["model_refused"] == 2


def test_catalogue_speaks_when_every_text_is_refused(incident):
    script = Script(*["It is broken, run `reboot`."] * SEEDS)
    top, advice = advise(incident, script)
    assert advice.origin == "catalogue"
    assert len(script.asked) == SEEDS
    assert top.counters["model"] == 0


def test_catalogue_speaks_at_once_when_the_model_is_silent(incident):
    script = Script(None)
    top, advice = advise(incident, script)
    assert advice.origin == "catalogue"
    assert len(script.asked) == 1
    assert "no text" in top.notes[0]


def test_fact_check_guards_the_filled_text_too(incident, monkeypatch):
    monkeypatch.setattr("daemon.advice.brief.fault_of", lambda _text, _brief: "")
    top, advice = advise(incident, Script("<culprit> is bad. It lost 3 TB of <used>.", *[GOOD] * 2))
    assert "3 TB" not in advice.text
    assert top.counters["refused"] == 1
    assert "3 TB" in top.notes[0]


def test_each_language_asks_in_its_own_prompt(incident):
    german = "<culprit> läuft voll. Belegt sind <used>, frei sind <free> von <total>."
    script = Script(german, GOOD)
    TopTier(Top(languages=["de", "en"]), script).advise(incident)
    assert [prompt[:4] for prompt, _ in script.asked] == ["<de>", "<en>"]


def test_stage_asks_its_scorer_with_bounds():
    class Scorer:
        def write(self, prompt, **options):
            self.heard = (prompt, options)
            return "text"

    scorer = Scorer()
    assert writer(scorer)("<en><say>", 2) == "text"
    assert scorer.heard[0] == "<en><say>"
    assert scorer.heard[1]["max_tokens"] == MAX_TOKENS
    assert scorer.heard[1]["seed"] == 2


# --- the task advice ----------------------------------------------------------------------------------------


def test_task_reads_documents_and_scores_the_catalogue(incident, tmp_path):
    path = tmp_path / "incidents.jsonl"
    path.write_bytes(msgspec.json.encode(incident_document(incident, None)) + b"\n")
    read = next(read_incidents(path))
    assert read.evidence[0].ref == "fs.used{/mnt/small}"
    assert read.evidence_at == incident.evidence_at
    outcome = find("advice")(Request("advice", (path,)))
    assert outcome.figures["n"] == 1
    assert outcome.figures["path"] == "baseline"
    assert outcome.figures["invented"] == 0
    assert outcome.figures["own_text_en"] == 0.0
    assert outcome.figures["baseline_culprit_right_de"] == 1.0


def test_task_counts_own_texts_of_a_bundle(incident, tmp_path, monkeypatch):
    monkeypatch.setattr("training.tasks.advice.writer", lambda _bundle: lambda _prompt, _seed: GOOD)
    monkeypatch.setattr("training.tasks.advice.learned_texts", lambda _lang, _table: iter(["Another text."]))
    path = tmp_path / "incidents.jsonl"
    path.write_bytes(msgspec.json.encode(incident_document(incident, None)) + b"\n")
    figures = find("advice")(Request("advice", (path,), bundle=object())).figures
    assert figures["own_text_en"] == 1.0
    assert figures["chrf_median_en"] < 0.8
