"""`hauswart train pipeline`: recipes, what runs again, what is skipped, and every verb end to end, tiny."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.errors import ConfigError, IntegrityError, LockedError
from models import bundle as bundles
from models.runtime import Classifier, Generator
from training import recipe as recipes
from training.pipeline import _locked, run_recipe
from training.recipe import STEPS, check_options, load_step, read_recipe

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "training" / "recipes").glob("*.toml"))
HEAD = 'format = 1\nname = "tiny"\ntier = "low"\nseed = 3\n'


# --- steps that count how often they run --------------------------------------------------------------------

CALLS: list[str] = []


def write_text(out: Path, text: str, *, times: int = 1, seed: int = 0) -> dict[str, int]:
    """A step that makes a file."""
    CALLS.append("write")
    out.write_text(f"{text}{seed}" * times)
    return {"bytes": out.stat().st_size}


def copy_all(out: Path, files: list[Path], *, share: float = 1.0, run: Path | None = None) -> None:
    """A step that makes a folder of other steps' outputs."""
    CALLS.append("copy")
    out.mkdir(exist_ok=True)
    for at, file in enumerate(files):
        (out / str(at)).write_bytes(file.read_bytes())
    assert isinstance(share, float)


def die(out: Path, *, resume: bool = False) -> dict[str, bool]:
    """A step that dies half-way once, and goes on where it was."""
    CALLS.append("die")
    if not resume:
        out.mkdir()
        (out / "half").write_text("x")
        raise KeyboardInterrupt
    assert (out / "half").exists()
    return {"resumed": True}


@pytest.fixture
def verbs(monkeypatch):
    CALLS.clear()
    found = {"write": write_text, "copy": copy_all, "die": die}
    monkeypatch.setattr(recipes, "STEPS", dict.fromkeys(found, "x:y"))
    monkeypatch.setattr("training.pipeline.load_step", found.__getitem__)


def put(tmp_path, text, head=HEAD):
    path = tmp_path / "tiny.toml"
    path.write_text(head + text)
    return path


TWO = """
[[step]]
name = "a"
verb = "write"
out = "a.txt"
text = "x"
[[step]]
name = "b"
verb = "copy"
files = ["@a"]
share = 1
"""


def test_steps_run_in_order_and_are_skipped_while_nothing_changed(verbs, tmp_path):
    path, said = put(tmp_path, TWO), []
    assert run_recipe(path, tmp_path / "run") == {"a": {"bytes": 2}, "b": None}
    run_recipe(path, tmp_path / "run", tell=said.append)
    assert CALLS == ["write", "copy"]
    assert all("skipped" in one for one in said)
    assert (tmp_path / "run" / "b" / "0").read_text() == "x3"


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"changes": {"a.times": 2}}, ["write", "copy"]),
        ({"changes": {"seed": 4}}, ["write", "copy"]),
        ({"changes": {"b.share": 0.5}}, ["copy"]),
        ({"changes": {"a.text": "x"}}, []),
        ({"start": "b"}, ["copy"]),
        ({"start": "a", "until": "a"}, ["write"]),
    ],
)
def test_what_depends_on_a_change_runs_again_and_nothing_else(verbs, tmp_path, change, again):
    path = put(tmp_path, TWO)
    run_recipe(path, tmp_path / "run")
    CALLS.clear()
    run_recipe(path, tmp_path / "run", **change)
    assert again == CALLS


def test_step_that_makes_the_same_bytes_again_stops_the_change(verbs, tmp_path):
    path = put(tmp_path, TWO)
    run_recipe(path, tmp_path / "run")
    CALLS.clear()
    run_recipe(path, tmp_path / "run", changes={"a.text": "x3", "a.seed": 3, "seed": 3}, until="a")
    assert CALLS == ["write"]


def test_damaged_output_is_made_anew(verbs, tmp_path):
    path = put(tmp_path, TWO)
    run_recipe(path, tmp_path / "run")
    (tmp_path / "run" / "a.txt").write_text("else")
    run_recipe(path, tmp_path / "run")
    assert CALLS == ["write", "copy", "write"]


def test_step_that_died_goes_on_with_its_own_leavings(verbs, tmp_path):
    path = put(tmp_path, '[[step]]\nverb = "die"\n')
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, tmp_path / "run")
    assert run_recipe(path, tmp_path / "run") == {"die": {"resumed": True}}
    assert json.loads((tmp_path / "run" / "pipeline.json").read_text())["die"]["digest"]


def test_two_pipelines_do_not_share_a_folder(verbs, tmp_path):
    path = put(tmp_path, TWO)
    run_recipe(path, tmp_path / "run")
    with _locked(tmp_path / "run"), pytest.raises(LockedError):
        run_recipe(path, tmp_path / "run")


def test_report_step_runs_again_when_a_step_before_it_did(verbs, tmp_path):
    path = put(tmp_path, TWO.replace('files = ["@a"]', "files = []"))
    run_recipe(path, tmp_path / "run")
    CALLS.clear()
    run_recipe(path, tmp_path / "run", changes={"a.times": 2})
    assert CALLS == ["write", "copy"]


# --- recipes that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('[[step]]\nverb = "writ"\n', "no verb 'writ'", "write"),
        ('[[step]]\nverb = "write"\nout = "a"\ntxt = "x"\n', "no key 'txt'", "text"),
        ('[[step]]\nverb = "write"\n', "'text' is needed", ""),
        ('[[step]]\nverb = "copy"\nfiles = ["@b"]\n', "no step 'b' before", ""),
        ('[[step]]\nverb = "write"\nout = "../a"\ntext = "x"\n', "cannot be a file's name", ""),
        ('[[step]]\nverb = "write"\ntext = "x"\n[[step]]\nverb = "write"\ntext = "x"\n', "two steps", ""),
        ("[[sourc]]\n", "no key 'sourc'", "source"),
        ('[[source]]\npth = "x"\n', "no key 'source.pth'", "path"),
        (
            '[[source]]\npath="/etc/passwd"\norigin="x"\nversion="1"\nlicence="x"\nsha256="00"\n[[step]]\nverb="die"',
            "needs a relative path",
            "",
        ),
        ("", "has no step", ""),
        ("[[step]\n", "tiny.toml", ""),
    ],
)
def test_wrong_recipe_is_told_before_anything_runs(verbs, tmp_path, text, said, hint):
    with pytest.raises(ConfigError) as caught:
        run_recipe(put(tmp_path, text), tmp_path / "run")
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert CALLS == []


def test_recipe_of_a_newer_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="format 9"):
        read_recipe(put(tmp_path, TWO, HEAD.replace("1", "9", 1)))


def test_change_of_no_step_is_refused(verbs, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_recipe(put(tmp_path, TWO), tmp_path / "run", changes={"aa.text": "y"})
    assert "a" in caught.value.hint


def test_other_data_than_the_recipe_names_is_refused(verbs, tmp_path):
    (tmp_path / "d.csv").write_text("data")
    digest = hashlib.sha256(b"data").hexdigest()
    source = f'[[source]]\npath="d.csv"\norigin="x"\nversion="1"\nlicence="MIT"\nsha256="{digest}"\n'
    path = put(tmp_path, source + TWO)
    run_recipe(path, tmp_path / "run", data_dir=tmp_path)
    (tmp_path / "d.csv").write_text("other")
    with pytest.raises(IntegrityError, match=r"d\.csv"):
        run_recipe(path, tmp_path / "run", data_dir=tmp_path)
    (tmp_path / "d.csv").unlink()
    with pytest.raises(ConfigError, match="missing"):
        run_recipe(path, tmp_path / "run", data_dir=tmp_path)
    with pytest.raises(ConfigError, match="reads data"):
        run_recipe(path, tmp_path / "run")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_fits_the_verbs_and_names_its_sources(path):
    pytest.importorskip("torch")
    recipe = read_recipe(path)
    for step in recipe.steps:
        check_options(recipe, step, load_step(step.verb))
    assert all(source.mark == "ship" and source.licence and source.version for source in recipe.sources)


# --- every verb, end to end ---------------------------------------------------------------------------------

WORDS = "disk usb link memory fan port clock queue buffer socket lease route".split()  # noqa: SIM905


def labelled(tier):
    """Rows that can be learnt: the label stands in the text."""
    chance = random.Random(7)
    for n in range(240):
        words = " ".join(chance.choices(WORDS, k=5))
        row = {"group": f"g{n % 40}", "source": "made"}
        kind = n % 3
        if tier == "low":
            loud = ("failed badly", "is slow", "ready")[kind]
            yield row | {
                "text": f"{words} {loud}",
                "severity": kind,
                "alert": float(kind == 0),
                "category": kind,
            }
        elif tier == "middle":
            text = f"[C0] unit [C1] disk {words} {('full', 'crash', 'link down')[kind]}"
            yield row | {"text": text, "fault_class": kind, "severity": kind, "culprit": n % 2}
        else:
            said = ("the disk is full", "the service crashed", "the link is down")[kind]
            yield row | {
                "prompt": f"en {words} {WORDS[kind]} <say>",
                "completion": f" {said} <end>",
                "lang": "en",
            }


TINY = {"low": "shape:albert-2x32", "middle": "shape:distilbert-2x32", "top": "shape:gpt2-2x64"}
TIER_RECIPE = """format = 1
name = "tiny-{tier}"
tier = "{tier}"
seed = 1
[[step]]
name = "rows"
verb = "dataset"
out = "rows.parquet"
tables = ["{table}"]
[[step]]
name = "parent"
verb = "finetune"
data = "@rows"
base = "{base}"
vocabulary = 300
specials = ["<say>", "<end>"]
sequence = 32
max_steps = 40
evaluations = 1
batch = 16
learning_rate = 5e-3
[[step]]
name = "student"
verb = "prune"
model = "@parent"
data = "@rows"
layers = 1
max_steps = 20
measured = false
[[step]]
name = "small"
verb = "quantize"
model = "@student"
[[step]]
name = "before"
verb = "evaluate"
out = "before.json"
data = "@rows"
model = "@parent"
{decided}[[step]]
name = "bundle"
verb = "bundle"
model = "@student"
onnx = "@small"
version = "tiny"
{decisions}[[step]]
name = "after"
verb = "evaluate"
out = "after.json"
data = "@rows"
bundle = "@bundle"
[[step]]
name = "report"
verb = "report"
out = "report.html"
"""

DECIDED = """[[step]]
name = "decided"
verb = "calibrate"
out = "decided.json"
model = "@student"
onnx = "@small"
data = "@rows"
"""


@pytest.mark.timeout(600)  # ten seconds each on an idle core; trainings beside it may take both
@pytest.mark.parametrize("tier", ["low", "middle", "top"])
def test_tiny_recipe_of_each_tier_makes_a_bundle_that_serves(tier, tmp_path):
    pytest.importorskip("torch")
    table = tmp_path / "made.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in labelled(tier)))
    path = tmp_path / "r.toml"
    decided, decisions = (DECIDED, 'decisions = "@decided"\n')
    if tier == "top":
        decided, decisions = "", 'texts = ["@rows"]\n'
    known = {"tier": tier, "table": table, "base": TINY[tier], "decided": decided, "decisions": decisions}
    path.write_text(TIER_RECIPE.format(**known))
    results = run_recipe(path, tmp_path / "run")
    made = bundles.verify(tmp_path / "run" / "bundle", tier)
    assert results["after"]["bundle"] == made.name
    if tier == "top":
        words = {word for row in labelled("top") for word in row["completion"].split()}
        assert set(Generator(made).generate("en disk <say>", max_tokens=8, top_k=0).split()) <= words
        assert bundles.RUNS in made.manifest.files
        assert results["after"]["perplexity"] < 100
    else:
        assert Classifier(made).score(["disk failed badly"])
        assert results["before"]["macro_f1"] >= 0.1
        assert made.config.thresholds == results["decided"]["thresholds"] != {}
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(f"<h2>{name}</h2>" in page for name in ("What was run", "Data", "Loss", "Quality"))
    said = []
    run_recipe(path, tmp_path / "run", tell=said.append)
    assert all("skipped" in one for one in said)


def test_command_runs_a_recipe_and_changes_it(tmp_path):
    table = tmp_path / "made.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in labelled("low")))
    path = put(tmp_path, f'[[step]]\nverb = "dataset"\nout = "rows.parquet"\ntables = ["{table}"]\n')
    argv = [sys.executable, "-m", "training", "pipeline", path, "--out", tmp_path / "run", "--json"]
    argv += ["--set", "dataset.test_share=0.5", "--seed", "9"]
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 80 < json.loads(done.stdout)["dataset"]["splits"]["test"]["rows"] < 160


def test_every_step_is_a_verb_or_documented():
    assert {
        "dataset",
        "finetune",
        "prune",
        "quantize",
        "export",
        "evaluate",
        "bundle",
        "report",
    } <= STEPS.keys()
