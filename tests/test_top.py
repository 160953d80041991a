"""The top tier: checked advice in each language, and what it does when the catalogue cannot help."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from daemon.advice import catalogue, compose
from daemon.advice.check import check_advice
from daemon.advice.compose import first_true, minimal_advice
from daemon.messages import Advice, Incident
from daemon.settings import Top
from daemon.tiers.top import TopTier
from models.taxonomy import FaultClass

FIXTURES = Path(__file__).parent / "fixtures/advice"


@pytest.fixture
def incident():
    return msgspec.json.decode((FIXTURES / "full-file-system.json").read_bytes(), type=Incident)


def test_one_advice_per_language_in_the_order_of_the_settings(incident):
    assert [advice.lang for advice in TopTier(Top(languages=["de", "en"])).advise(incident)] == ["de", "en"]
    assert [advice.lang for advice in TopTier(Top(languages=["en"])).advise(incident)] == ["en"]


def test_advice_is_checked_from_the_catalogue_with_one_action(incident):
    top = TopTier(Top())
    for advice in top.advise(incident):
        assert advice.origin == "catalogue"
        assert advice.action == "du -xah --max-depth=1 /mnt/small | sort -h | tail -n 20"
        assert check_advice(advice, incident) == []
    assert {name: count for name, count in top.counters.items() if count} == {"advices": 2}
    assert top.notes == []


def test_advice_is_deterministic_and_encodes(incident):
    first, second = TopTier(Top()).advise(incident), TopTier(Top()).advise(incident)
    assert msgspec.msgpack.encode(first) == msgspec.msgpack.encode(second)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(first), type=list[Advice]) == first


@pytest.mark.parametrize("fault", list(FaultClass))
def test_an_incident_without_culprit_and_evidence_is_explained(fault, incident):
    bare = msgspec.structs.replace(incident, fault_class=fault, culprits=[], evidence=[], context=[])
    top = TopTier(Top())
    for advice in top.advise(bare):
        assert advice.text
        assert advice.action
    assert top.counters["refused"] == 0


def test_text_that_fails_the_check_gives_way_to_the_minimal_one(incident, monkeypatch):
    lie = Advice("/mnt/small is 50 % full.", "en", "catalogue")
    monkeypatch.setattr("daemon.tiers.top.catalogue_advice", lambda incident, lang: lie)
    top = TopTier(Top(languages=["en"]))
    assert top.advise(incident) == [minimal_advice("en")]
    assert top.counters["refused"] == top.counters["minimal"] == 1
    assert "50 %" in top.notes[0]


def test_where_the_catalogue_knows_what_is_said_no_model_is_asked(incident, monkeypatch):
    asked = []

    def write(prompt, seed):
        asked.append(prompt)
        return "<culprit> fills up. It is <used> full, <free> of <total> are left. See why."

    monkeypatch.setattr("daemon.tiers.top.lacks_citation", lambda incident: True)
    top = TopTier(Top(languages=["en"]), write)
    assert "It is 100 % full, 0 B of 8.4 MB are left." in top.advise(incident)[0].text
    assert len(asked) == 1
    monkeypatch.setattr("daemon.tiers.top.lacks_citation", lambda incident: False)
    assert top.advise(incident) == [compose.catalogue_advice(incident, "en")]
    assert len(asked) == 1


def test_broken_catalogue_is_named_and_survived(incident, monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    catalogue.load.cache_clear()
    top = TopTier(Top())
    advices = top.advise(incident)
    catalogue.load.cache_clear()
    assert [advice.text for advice in advices] == [minimal_advice("en").text, minimal_advice("de").text]
    assert top.counters["broken_catalogue"] == 2
    assert "disk-full.toml" in top.notes[0]
    assert len(top.notes) == 1


def test_minimal_advice_passes_the_check_for_every_class(incident):
    for fault in FaultClass:
        about = msgspec.structs.replace(incident, fault_class=fault, culprits=[], evidence=[], context=[])
        for lang in catalogue.LANGUAGES:
            assert check_advice(minimal_advice(lang), about) == []


def test_a_false_model_text_falls_back_to_the_catalogue(incident):
    false = Advice("/mnt/small has 3 GB free, run `rm -rf /mnt/small`.", "en", "model", action="reboot")
    true = compose.catalogue_advice(incident, "en")
    chosen, refused = first_true([false, true], incident)
    assert chosen == true
    assert {violation.part for violation in refused} == {"3 GB", "rm -rf /mnt/small", "reboot"}


def test_a_true_model_text_is_preferred(incident):
    true = Advice("/mnt/small has 8.4 MB, nothing is left.", "en", "model", action="df -i /mnt/small")
    assert first_true([true, compose.catalogue_advice(incident, "en")], incident) == (true, [])


def test_notes_stay_bounded(incident, monkeypatch):
    def lie(incident, lang):
        return Advice(f"{incident.id} has 77 errors.", lang, "catalogue")

    monkeypatch.setattr("daemon.tiers.top.catalogue_advice", lie)
    top = TopTier(Top(languages=["en"]))
    for number in range(500):
        top.advise(msgspec.structs.replace(incident, id=f"i{number}"))
    assert len(top.notes) == 64


def test_importing_the_tier_loads_nothing_heavy():
    heavy = "numpy pydantic pydantic_settings typer rich apprise zmq psutil asyncio logging tomllib"
    code = f"import sys, daemon.advice.titles; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert _run(code) == "['tomllib']"
    code = f"import sys, daemon.tiers.top; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert _run(code) == "['tomllib']"
    code = "import sys, daemon.tiers.top; print([m for m in sys.modules if m.startswith('daemon.tiers.')])"
    assert _run(code) == "['daemon.tiers.top']"


def _run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
