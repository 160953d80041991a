"""`hauswart train report`: one page that asks for nothing, with what a run's files say."""

import json
import re
from html.parser import HTMLParser
from typing import ClassVar

import pytest

from daemon.errors import ConfigError
from training import charts
from training.report import shrink_rows, write_report

pytest.importorskip("matplotlib")

CURVES = {
    "classes": ["err", "<b>ok</b>"],
    "confusion": [[8, 2], [1, 9]],
    "calibration": {"stated": [0.2, 0.8], "observed": [0.3, 0.7], "count": [5, 5], "error": 0.1},
    "precision_recall": {"precision": [1.0, 0.8], "recall": [0.5, 1.0]},
    "positive": "err",
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "results").mkdir(parents=True)
    (folder / "parent").mkdir()

    def put(name, value):
        (folder / name).write_text(json.dumps(value))

    done = {"seconds": 12.3, "digest": "ab" * 32, "finished": "2026-01-01T00:00:00Z"}
    put(
        "pipeline.json",
        {
            "rows": done | {"verb": "dataset", "out": "rows.parquet"},
            "parent": done | {"verb": "finetune", "out": "parent"},
            "small": done | {"verb": "quantize", "out": "small"},
            "quality": done | {"verb": "evaluate", "out": "quality.json"},
            "broken": {"begun": "x"},
        },
    )
    split = {
        "rows": 10,
        "groups": 3,
        "sources": {"<script>alert(1)</script>": 10},
        "uid_shares": {"1000": 0.04},
    }
    put("results/rows.json", {"rows": 10, "splits": {"train": split}, "dropped": {"uid 1000": 7}})
    put(
        "parent/history.json",
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}],
    )
    rows = [
        {
            "step": "parent",
            "layers_touched": 0,
            "bytes": 4_000_000,
            "latency_ms": 5.0,
            "quality": {"macro_f1": 0.53},
        },
        {
            "step": "int8",
            "layers_touched": 13,
            "bytes": 1_000_000,
            "latency_ms": 2.0,
            "quality": {"macro_f1": 0.52},
            "quality_before": {"macro_f1": 0.53},
        },
    ]
    put("results/small.json", {"table": rows})
    figures = {"task": "log-severity", "n": 20, "macro_f1": 0.61, "macro_f1_low": 0.55, "macro_f1_high": 0.66}
    put("quality.json", {"figures": figures | {"baseline_macro_f1": 0.29}, "curves": CURVES})
    put("results/quality.json", figures)
    return folder


def page(run, tmp_path):
    write_report(run, tmp_path / "r.html")
    return (tmp_path / "r.html").read_text()


def test_page_asks_for_nothing_and_runs_nothing(run, tmp_path):
    text = page(run, tmp_path)
    assert "<script" not in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", text)
    assert not re.search(r"url\((?!#)|@import|<link|<img|<iframe", text)
    assert "default-src 'none'" in text


def test_names_from_the_data_cannot_become_markup(run, tmp_path):
    text = page(run, tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>ok" not in text


def test_page_shows_every_section_with_its_figures(run, tmp_path):
    text = page(run, tmp_path)
    for name in ("What was run", "Data", "Loss", "Quality", "What shrinking really did"):
        assert f"<h2>{name}</h2>" in text
    for figure in ("0.55 to 0.66", "0.29", "uid 1000: 7", "size against quality", "before_macro_f1"):
        assert figure in text
    assert text.count("<svg") == 5


def test_page_is_well_formed(run, tmp_path):
    class Checker(HTMLParser):
        open: ClassVar[list[str]] = []

        def handle_starttag(self, tag, _attrs):
            if tag not in {"meta", "path", "use", "line", "rect", "image"}:
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in {"path", "use", "line", "rect", "image"}:
                assert self.open.pop() == tag

    checker = Checker()
    checker.feed(page(run, tmp_path))
    assert checker.open == []


def test_same_run_gives_the_same_page(run, tmp_path):
    assert page(run, tmp_path) == page(run, tmp_path)


def test_ids_of_different_charts_do_not_meet(run, tmp_path):
    drawings = re.findall(r"<svg.*?</svg>", page(run, tmp_path), re.DOTALL)
    ids = [set(re.findall(r' id="(p[0-9a-f]{10})"', one)) for one in drawings]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run's folder"):
        write_report(tmp_path, tmp_path / "r.html")


def test_damaged_file_is_named(run, tmp_path):
    (run / "quality.json").write_text("{")
    with pytest.raises(ConfigError, match=r"quality\.json is damaged"):
        write_report(run, tmp_path / "r.html")


def test_figures_before_a_step_do_not_hide_those_after_it():
    row = {
        "step": "x",
        "quality": {"macro_f1": 0.5},
        "quality_before": {"macro_f1": 0.6},
        "names": ["a", "b"],
    }
    assert shrink_rows({"table": [row]}) == [
        {"step": "x", "macro_f1": 0.5, "before_macro_f1": 0.6, "names": 2}
    ]
    assert shrink_rows({"table": "nonsense"}) == []


def test_large_confusion_is_drawn_without_names():
    names = [f"class{n}" for n in range(33)]
    drawing = charts.confusion([[1] * 33] * 33, names)
    assert "class7" not in drawing
    assert drawing.startswith("<svg")
