"""Advice that names the page of the operator's documents: found without any model, checked like the rest."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import fpdf
import msgspec
import pytest

from daemon.advice.check import check_advice
from daemon.advice.runbooks import try_cite
from daemon.messages import Incident
from daemon.settings import Top
from daemon.stages.top import citer
from daemon.tiers.top import TopTier
from models.taxonomy import FaultClass
from training.academy.documents import read_document
from training.academy.library import add_document, opened

FIXTURES = Path(__file__).parent / "fixtures/advice"
PAGES = (
    "1 About this book\nWhom to call about the printers, and where the spare keys hang.",
    "2 File systems\nWhen the file system /mnt/small is full, remove exports older than a week.",
    "3 Heating\nThe heating of the rooms is regulated by the house's owner in the cellar.",
)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runbooks")
    book = fpdf.FPDF()
    book.set_font("helvetica", size=11)
    for text in PAGES:
        book.add_page()
        book.multi_cell(0, 6, text)
    book.output(str(folder / "house.pdf"))
    with opened(folder) as base:
        add_document(base, read_document(folder / "house.pdf", tell=lambda _said: None))
    return folder / "index.sqlite"


@pytest.fixture
def incident():
    return msgspec.json.decode((FIXTURES / "full-file-system.json").read_bytes(), type=Incident)


def test_advice_ends_with_the_page_of_the_runbook_that_fits(incident, index):
    english, german = TopTier(Top(runbooks=str(index)), None, citer(str(index))).advise(incident)
    assert english.text.endswith("\n\nYour runbook on this: house.pdf, page 2.")
    assert german.text.endswith("\n\nIhre Unterlagen dazu: house.pdf, Seite 2.")
    assert english.sources["house.pdf, page 2"] == "runbook"


def test_without_the_setting_advice_names_no_page(incident):
    assert citer("") is None
    assert all("house.pdf" not in one.text for one in TopTier(Top()).advise(incident))


def test_only_the_line_that_was_found_passes_the_check_and_only_at_the_end(incident, index):
    advice = TopTier(Top(languages=["en"]), None, citer(str(index))).advise(incident)[0]
    line = "Your runbook on this: house.pdf, page 2."
    assert check_advice(advice, incident, cited=line) == []
    assert check_advice(advice, incident)
    forged = msgspec.structs.replace(advice, text=advice.text.replace("page 2", "page 77"))
    assert check_advice(forged, incident, cited=line)


def test_an_incident_that_no_document_is_about_gets_no_page(index):
    other = msgspec.json.decode((FIXTURES / "full-file-system.json").read_bytes(), type=Incident)
    about = msgspec.structs.replace(other, culprits=[], evidence=[], fault_class=FaultClass.CLOCK_JUMP)
    assert try_cite(about, "en", str(index)) == (None, "")


@pytest.mark.parametrize("content", [None, b"no database at all, but long enough to be looked at" * 40])
def test_a_missing_or_broken_index_is_noted_and_costs_no_advice(incident, tmp_path, content):
    path = tmp_path / "index.sqlite"
    if content:
        path.write_bytes(content)
    top = TopTier(Top(languages=["en"]), None, citer(str(path)))
    assert top.advise(incident)[0].text
    assert any("runbooks" in note and str(path) in note for note in top.notes)


def test_an_index_that_is_damaged_inside_is_noted_and_costs_no_advice(incident, index, tmp_path):
    path, sound = tmp_path / "index.sqlite", index.read_bytes()
    path.write_bytes(sound[:4096] + bytes(len(sound) - 4096))
    top = TopTier(Top(), None, citer(str(path)))
    english, german = top.advise(incident)
    assert "/mnt/small" in english.text
    assert "/mnt/small" in german.text
    assert top.notes == [f"runbooks: {path}: database disk image is malformed"]
    assert top.cited(english, incident) == english


def test_the_daemon_reads_the_index_and_never_writes_it(incident, index):
    before = index.read_bytes()
    try_cite(incident, "en", str(index))
    assert index.read_bytes() == before
    assert sqlite3.connect(index).execute("PRAGMA user_version").fetchone() == (1,)
