"""The lab's recordings as a data set: what is packed scores alike, and a hostile file changes nothing."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard

from daemon.errors import ConfigError, SourceError
from tests.fixtures import lab_runs
from tests.lab import commands, dataset
from tests.lab.__main__ import main
from tests.lab.recording import is_current
from tests.lab.scenario import Run, find

NAME = "service-crash/segmentation-fault"
[SCENARIO] = find([NAME])


@pytest.fixture
def runs(tmp_path):
    """A folder with one recording, complete enough to be taken for a current one."""
    folder = lab_runs.recording(tmp_path / "runs")
    run = json.loads((folder / "run.json").read_text())
    versions = {"hauswart": "0.1.0", "commit": "abc", "recorded": "2026-11-27T10:00:00Z"}
    run |= {"digest": SCENARIO.digest, "versions": versions}
    (folder / "run.json").write_text(json.dumps(run))
    return tmp_path / "runs"


def packed(path, **members):
    """A file as `publish` writes it, with any members."""
    with (
        path.open("wb") as raw,
        zstandard.ZstdCompressor().stream_writer(raw) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for name, entry in members.items():
            entry.name = name
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return path


def test_published_recordings_score_as_the_folder_does(runs, tmp_path, capsys):
    out = tmp_path / "set.tar.zst"
    assert main(["publish", "--runs", str(runs), "--out", str(out)]) == 0
    figures = []
    for where in (runs, out):
        capsys.readouterr()
        assert main(["score", "--runs", str(where), "--json", "--no-models", NAME]) == 0
        figures.append(json.loads(capsys.readouterr().out)["all"])
    assert figures[0] == figures[1]
    assert figures[0]["recall"]["value"] == 1.0


def test_a_score_says_which_of_those_asked_for_are_not_in_it(runs, capsys):
    asked = [NAME, next(one.name for one in find(["service-crash/*"]) if one.name != NAME)]
    changed = runs / NAME / "1-1"
    shutil.copytree(runs / NAME / "1-0", changed)
    run = json.loads((changed / "run.json").read_text())
    (changed / "run.json").write_text(json.dumps(run | {"digest": "other"}))
    assert main(["score", "--runs", str(runs), "--json", "--no-models", *asked]) == 0
    found = json.loads(capsys.readouterr().out)["coverage"]
    assert (found["scenarios"], found["scored"]) == (2, 1)
    assert found["left_out"] == {
        "not recorded": asked[1:],
        "its scenario was changed since": [f"{NAME}/1-1"],
    }


def test_data_set_says_what_is_wrong_since_when_and_who_did_it(runs, tmp_path):
    out = tmp_path / "set.tar.zst"
    folder = runs / NAME / "1-0"
    index = dataset.publish([folder], {NAME: SCENARIO}, out)
    kept = dataset.unpack(out, tmp_path / "there")
    label = json.loads((kept.parent / "labels.jsonl").read_text())
    assert label["right_classes"] == sorted(SCENARIO.right_classes)
    assert label["culprits"] == Run(SCENARIO, 1, 0, {"name": "web"}).culprits != []
    assert label["times"]["effect"] == lab_runs.WALL + 29.5
    assert label["side"] == "open"
    assert (index["runs"], index["faults"], index["benign"]) == (1, 1, 0)
    card = (kept.parent / "README.md").read_text()
    assert "| service-crash | 1 | 1 |" in card
    assert dataset.LICENCE in card
    assert (kept / NAME / "1-0/run.json").read_bytes() == (folder / "run.json").read_bytes()
    assert set(label["sha256"]) == {"run.json", "hauswart.toml", "telemetry/20231114T2213.msgpack.zst"}


def test_record_takes_either_side_or_both_and_nothing_recorded_is_no_success(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(commands, "against", lambda scenario, noise: "needs a thing")
    wanted = {}
    for flag in ("", "--frozen", "--both-sides"):
        argv = ["record", "--runs", str(tmp_path), *([flag] if flag else [])]
        code = main(argv)
        said = capsys.readouterr().err.splitlines()
        assert code == bool(said)  # of the frozen there may be none
        assert all(one.endswith("skipped, needs a thing") for one in said)
        wanted[flag] = {one.partition(": ")[0] for one in said}
    assert len(wanted["--both-sides"]) >= len(find([]))
    assert wanted["--both-sides"] == wanted[""] | wanted["--frozen"]
    assert not wanted[""] & wanted["--frozen"]


def test_cases_are_made_of_a_data_set_s_file_as_of_its_folder(runs, tmp_path):
    dataset.publish([runs / NAME / "1-0"], {NAME: SCENARIO}, tmp_path / "set.tar.zst")
    made = []
    for place in (runs, tmp_path / "set.tar.zst"):
        out = tmp_path / f"{len(made)}.jsonl"
        assert main(["cases", "--runs", str(place), "--out", str(out), "--no-models", NAME]) == 0
        made.append(out.read_bytes())
    assert made[0] == made[1] != b""


def test_same_runs_give_the_same_file(runs, tmp_path):
    made = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.tar.zst"
        dataset.publish([runs / NAME / "1-0"], {NAME: SCENARIO}, out)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_recordings_of_this_machine_are_published_only_on_demand(runs, tmp_path, monkeypatch, capsys):
    own = next(one for one in find([]) if one.document.system == "host")
    monkeypatch.setattr("tests.lab.commands.find", lambda _: [own])
    folder = runs / own.name / "1-0"
    folder.parent.mkdir(parents=True)
    (runs / NAME / "1-0").rename(folder)
    run = json.loads((folder / "run.json").read_text())
    run |= {"digest": own.digest, "scenario": own.name, "class": own.fault_class, "system": "host"}
    (folder / "run.json").write_text(json.dumps(run))
    arguments = ["publish", "--runs", str(runs), "--out", str(tmp_path / "set.tar.zst")]
    assert main(arguments) == ConfigError("").exit_code
    assert "no recording to publish" in capsys.readouterr().err
    assert main([*arguments, "--host"]) == 0


@pytest.mark.parametrize("name", ["/etc/passwd", "hauswart-lab/../../escaped", "elsewhere/file", "", "."])
def test_file_that_leaves_its_folder_is_refused(tmp_path, name):
    entry = tarfile.TarInfo()
    entry.size = 3
    path = packed(tmp_path / "bad.tar.zst", **{name: entry})
    with pytest.raises(SourceError, match="has no place in a data set"):
        dataset.unpack(path, tmp_path / "in")
    assert not list(tmp_path.glob("**/escaped"))


def test_links_are_refused(tmp_path):
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
    path = packed(tmp_path / "bad.tar.zst", **{"hauswart-lab/runs": entry})
    with pytest.raises(SourceError, match="has no place"):
        dataset.unpack(path, tmp_path / "in")


def test_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BYTES_MAX", 1000)
    entry = tarfile.TarInfo()
    entry.size = 2000
    path = packed(tmp_path / "bad.tar.zst", **{"hauswart-lab/zeros": entry})
    with pytest.raises(SourceError, match="holds too much"):
        dataset.unpack(path, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("content", [b"", b"no zstd at all", zstandard.compress(b"no tar" * 1000)])
def test_what_is_no_data_set_is_said(tmp_path, content):
    path = tmp_path / "bad.tar.zst"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"no data set|index\.json"):
        dataset.unpack(path, tmp_path / "in")


def test_cut_file_is_said(runs, tmp_path):
    out = tmp_path / "set.tar.zst"
    dataset.publish([runs / NAME / "1-0"], {NAME: SCENARIO}, out)
    out.write_bytes(out.read_bytes()[:-40])
    with pytest.raises(SourceError, match="no data set"):
        dataset.unpack(out, tmp_path / "in")


# --- the recordings that come with the code -----------------------------------------------------------------


RECORDED = Path(dataset.__file__).with_name("recorded")
SETS = {
    "tenth": 40,
    "eleventh": 41,
    "twelfth": 39,
    "thirteenth": 39,
    "fourteenth": 40,
    "fifteenth": 40,
    "sixteenth": 40,
    "sixteenth-noisy": 24,
    "seventeenth": 40,
    "seventeenth-watched": 40,  # once more, with four others beside
}  # runs
# By the figures of the day on which they were mended; a change that costs one of them is a step back.
FOUND = {
    "tenth": {"recall": 0.80, "exactly_one": 0.76, "quiet": 14 / 15},
    "eleventh": {"recall": 0.88, "exactly_one": 0.80, "quiet": 14 / 16},
    "twelfth": {"recall": 20 / 23, "exactly_one": 18 / 23, "quiet": 1.0},
    "thirteenth": {"recall": 17 / 23, "exactly_one": 15 / 23, "quiet": 15 / 16},
    "fourteenth": {"recall": 15 / 24, "exactly_one": 13 / 24, "quiet": 1.0},
    "fifteenth": {"recall": 15 / 24, "exactly_one": 13 / 24, "quiet": 1.0},
    "sixteenth": {"recall": 18 / 24, "exactly_one": 16 / 24, "quiet": 15 / 16},
    "sixteenth-noisy": {"recall": 19 / 24, "exactly_one": 17 / 24},
    "seventeenth": {"recall": 16 / 24, "exactly_one": 15 / 24, "quiet": 1.0},
    "seventeenth-watched": {"recall": 16 / 24, "exactly_one": 14 / 24, "quiet": 1.0},
}
READ = {
    "tenth": ["zones-not-fetched-any-more", "mast-renames-the-harbour", "network-of-a-pod-never-goes"],
    "eleventh": ["kiosk-asks-the-bus", "greylist-stands-after-a-reload"],
    "twelfth": ["port-set-by-hand"],
    "thirteenth": [
        "buyers-names-at-the-proxy",
        "locked-into-folders-they-may-write",
        "school-server-burns-in",
    ],
    "fourteenth": ["guard-of-the-mobile-line", "eight-ports-for-the-whole-mountain", "previews-of-previews"],
    "fifteenth": [
        "filter-that-squid-must-ask",
        "panels-package-on-the-memory-card",
        "legs-queue-behind-their-journeys",
    ],
    "sixteenth-noisy": ["passphrases-of-the-ventilation", "screen-in-the-hall-gives-orders"],
    "sixteenth": [
        "passphrases-of-the-ventilation",
        "compiler-dies-elsewhere-each-time",
        "screen-in-the-hall-gives-orders",
    ],
    "seventeenth": [
        "community-of-the-new-collector",
        "a-new-identity-for-the-copied-disk",
        "module-wants-more-than-its-sandbox",
    ],
    "seventeenth-watched": ["keys-from-tutorials-at-the-name-server", "clock-chip-stands-still"],
}


@pytest.mark.parametrize("name", SETS)
def test_recordings_that_come_with_the_code_are_whole_and_of_the_scenarios_as_they_are(name, tmp_path):
    kept = dataset.unpack(RECORDED / f"{name}.tar.zst", tmp_path)
    rows = [json.loads(line) for line in (kept.parent / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == SETS[name]
    known = {one.name: one for one in find([])}
    for row in rows:
        folder = kept / row["id"]
        assert is_current(known[row["scenario"]], folder), row["id"]
        for file, digest in row["sha256"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file


def scored(capsys, name, *options):
    capsys.readouterr()
    assert main(["score", "--runs", str(RECORDED / f"{name}.tar.zst"), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["all"]


@pytest.mark.parametrize("name", SETS)
def test_rules_and_models_find_in_them_no_less_than_they_did(name, capsys):
    found = scored(capsys, name)
    for figure, least in FOUND[name].items():
        assert found[figure]["value"] >= least, figure
    assert found["replay"]["same_twice"] == SETS[name]
    assert found["advice"]["violations"] == 0


@pytest.mark.parametrize("name", SETS)
def test_what_a_large_model_answered_finds_what_rules_do_not_know(name, capsys, tmp_path):
    shutil.copy(RECORDED / f"{name}.jsonl", tmp_path / "answers.jsonl")
    assert scored(capsys, name, *READ[name])["recall"]["value"] < 1.0
    answers = ("--answers", str(tmp_path / "answers.jsonl"))
    assert scored(capsys, name, *answers, *READ[name])["recall"]["value"] == 1.0
