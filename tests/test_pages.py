"""Reports as an operator attaches them to a ticket: complete, in two languages, safe whatever a log said."""

import re

import pytest

from daemon.command.app import main
from daemon.messages import (
    Advice,
    Event,
    KeepAdvice,
    KeepFeedback,
    Sample,
    Stamp,
)
from daemon.pages.plots import POINTS_MAX, Curve, figure, thinned
from daemon.pages.report import fenced, markdown
from daemon.pages.words import Words, _table
from daemon.store.segments import SegmentWriter
from daemon.store.writer import StoreWriter
from models.taxonomy import Severity
from tests.fixtures.pages import HOSTILE, NOW, Page, incident


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state directory with an open incident, a closed one, advice, feedback and telemetry."""
    monkeypatch.setenv("TZ", "UTC")
    closed = incident(
        "zzz2345", state="closed", severity=Severity.WARNING, opened_at=NOW - 3000, updated_at=NOW - 2900,
        closed_at=NOW - 2900, evidence_at=NOW - 3001,
    )  # fmt: skip
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(), closed], [])
        for lang, text in (("en", "/srv is nearly full."), ("de", "/srv ist fast voll.")):
            cited = {"/srv": "f1-1", "nobody": "gone"}
            writer.keep(KeepAdvice("abc2345", 1, [Advice(text, lang, "catalogue", "du -xh /srv", cited)]))
        writer.keep(KeepFeedback("abc2345", "good", "anna", NOW - 500, comment="indeed"))
    writer = SegmentWriter(tmp_path / "telemetry", 14, 512)
    for second in range(0, 600, 10):
        stamp = Stamp("b", float(second), NOW - 900 + second)
        writer.write([Sample(stamp, "host", {"fs.used{/srv}": 0.5 + second / 1300})], stamp)
    writer.close()
    return tmp_path


def run(state, *argv):
    return main(["--state-dir", str(state), "report", *argv])


def test_report_holds_advice_evidence_context_plot_timeline_and_feedback(state, capsys):
    assert run(state, "--since", "2h") == 0
    page = Page(capsys.readouterr().out)
    for said in (
        "/srv is nearly full.",
        "du -xh /srv",
        "1 MB of 100 MB",
        "a backup ran",
        "indeed",
        "opened as",
    ):
        assert said in page.said, said
    assert [tag for tag, _ in page.tags].count("section") == 2
    assert [tag for tag, _ in page.tags].count("polyline") >= 1


def test_advice_is_told_with_what_it_rests_on(state, capsys):
    run(state, "abc2345")
    text = capsys.readouterr().out
    assert "What it rests on" in text
    assert re.search(r'<th scope="row">/srv</th><td>/srv is 99 % full: 1 MB of 100 MB free.</td>', text)
    assert "nobody" not in text


def test_served_model_that_wrote_an_advice_is_named_and_cannot_write_the_page(state, capsys):
    advice = Advice("/srv is full.", "en", "model", "", {}, "<b>big</b> at 127.0.0.1")
    with StoreWriter(state / "store.db") as writer:
        writer.keep(KeepAdvice("zzz2345", 1, [advice]))
    run(state, "zzz2345")
    text = capsys.readouterr().out
    assert "checked against the evidence: &lt;b&gt;big&lt;/b&gt; at 127.0.0.1" in text
    assert run(state, "zzz2345", "--out", str(state / "one.md")) == 0
    written = (state / "one.md").read_text()
    assert "at 127.0.0.1" in written
    assert "<b>" not in written


def test_report_loads_nothing_and_runs_nothing(state, capsys):
    run(state, "--since", "2h")
    page = Page(capsys.readouterr().out)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "src"]
    assert all(attrs["href"].startswith("#") for tag, attrs in page.tags if tag == "a")
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_german_report_is_german(state, capsys):
    run(state, "--since", "2h", "--lang", "de")
    said = Page(capsys.readouterr().out).said
    assert "/srv ist fast voll." in said
    assert "Belege" in said
    assert "Evidence" not in said
    assert re.search(r"\d\d\.\d\d\.20\d\d", said)


def test_one_incident_is_reported_alone_and_an_unknown_one_is_named(state, capsys):
    assert run(state, "zzz") == 0
    page = Page(capsys.readouterr().out)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["zzz2345"]
    assert run(state, "nothere") == 1
    assert "no incident 'nothere'" in capsys.readouterr().err


def test_what_changed_before_an_incident_is_told_with_it(state, capsys):
    writer = SegmentWriter(state / "telemetry", 14, 512)
    told = [
        (-1500, "context", "update", "start", {"unit": "apt-daily.service"}),
        (-3600, "device", "sdb", "add", {}),
        (-700, "link", "eth<0>", "down", {}),
        (60, "device", "sdc", "add", {}),
    ]
    for after, kind, name, action, attributes in told:
        stamp = Stamp("b", 5000.0 + after, NOW - 600 + after)
        writer.write([Event(stamp, "devices", kind, name, action, attributes)], stamp)
    writer.close()
    assert run(state, "abc2345") == 0
    said = Page(capsys.readouterr().out).said
    assert "activity: update began (apt-daily.service)" in said
    assert "network: eth<0> down" in said
    assert "sdb" not in said  # too long ago
    assert "sdc" not in said  # afterwards
    assert run(state, "abc2345", "--format", "md", "--lang", "de") == 0
    assert "Netz: eth\\<0\\> getrennt" in capsys.readouterr().out


def test_time_without_incidents_says_so_and_a_backward_one_is_refused(state, capsys):
    assert run(state, "--since", "30d", "--until", "20d") == 0
    assert "No incident in this time." in capsys.readouterr().out
    assert run(state, "--since", "1h", "--until", "2h") == 2
    assert "is not before" in capsys.readouterr().err


def test_file_is_written_as_a_whole_for_its_owner_alone(state, tmp_path, capsys):
    out = tmp_path / "week.md"
    assert run(state, "--since", "7d", "--out", str(out)) == 0
    assert out.read_text().startswith("# Report of ")
    assert out.stat().st_mode & 0o077 == 0
    assert run(state, "--out", str(tmp_path / "no/such/week.html")) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("text", HOSTILE)
def test_log_text_never_becomes_markup(tmp_path, text, capsys):
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(text=text)], [])
        writer.keep(KeepAdvice("abc2345", 1, [Advice(text, "en", "model", text)]))
        writer.keep(KeepFeedback("abc2345", "edited", text, NOW, improved=text, comment=text))
    assert run(tmp_path, "--since", "2h") == 0
    page = Page(capsys.readouterr().out)
    assert not {"script", "img", "iframe", "svg", "link"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert "".join(text.split()) in "".join(page.said.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_log_text_never_becomes_markdown(text):
    said = markdown(text)
    assert "\n" not in said
    assert not re.search(r"(?<!\\)[`*_<>\[\]|~&#]", said)
    assert not re.search(r"(?<!\\)://", said)
    block = fenced(text).split("\n")
    assert all(not line.startswith(block[0]) for line in block[1:-1])


def test_every_word_is_there_in_both_languages():
    english, german = Words("en"), Words("de")
    for name, both in _table().items():
        assert set(both) == {"en", "de"}, name
        names = [set(re.findall(r"\{(\w+)\}", text)) for text in both.values()]
        assert names[0] == names[1], name
    assert english("critical") != german("critical")
    assert english("severity") == "Severity"


def test_plot_keeps_every_peak_and_names_itself():
    values = [0.1] * 5000
    values[3333] = 0.97
    times = [NOW + n for n in range(5000)]
    kept = thinned(times, values)
    assert len(kept) <= POINTS_MAX + 2
    assert max(value for _, value in kept) == 0.97
    drawn = figure(Curve("fs.used{<b>}", times, values, (NOW + 3000, NOW + 3500)), Words("de"))
    assert "<b>" not in drawn
    assert "97 %" in drawn


def test_flat_curve_is_drawn():
    assert "polyline" in figure(Curve("cpu.busy", [NOW, NOW + 1], [0.5, 0.5], (NOW, NOW)), Words("en"))


def test_report_of_many_incidents_says_how_many_are_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("daemon.pages.gather.INCIDENTS_MAX", 3)
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(f"abc234{n}") for n in range(2, 8)], [])
    run(tmp_path, "--since", "2h")
    assert "3 more are not shown" in capsys.readouterr().out


def test_damaged_store_is_one_line(tmp_path, capsys):
    (tmp_path / "store.db").write_bytes(b"no store" * 1000)
    assert run(tmp_path) in {1, 4}
    assert capsys.readouterr().err.count("\n") <= 2
