"""The lab's recordings as cases: labelled by the scenario, never of the frozen side, rows without names."""

import json
from random import Random

import msgspec
import pytest

from daemon.errors import ConfigError
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.fixtures import lab_runs
from tests.lab import split
from tests.lab.__main__ import main
from tests.lab.cases import HARMLESS, degraded, held_out
from tests.lab.scenario import find
from training.rows import read_table
from training.sources.cases import Case
from training.sources.degraded import as_seen, early, hushed, thinned
from training.sources.situations import cases as simulated
from training.tasks import Request
from training.tasks.incidents import read_cases, run

NAME = "service-crash/segmentation-fault"


def recorded(folder, name=NAME, **other):
    """A recording of one crash, under any scenario's name."""
    scenario = find([name])[0]
    made = lab_runs.recording(folder / "made", **other)
    found = folder / "runs" / name / "1-0"
    found.parent.mkdir(parents=True)
    made.rename(found)
    document = json.loads((found / "run.json").read_text())
    document |= {"digest": scenario.digest, "scenario": name, "class": scenario.fault_class}
    (found / "run.json").write_text(json.dumps(document))
    return folder / "runs"


def written(tmp_path, runs, *more, out="cases.jsonl"):
    arguments = ["cases", "--runs", str(runs), "--out", str(tmp_path / out), "--no-models", *more]
    return main(arguments), tmp_path / out


@pytest.fixture
def runs(tmp_path):
    return recorded(tmp_path)


def test_an_incident_is_a_case_with_the_scenario_s_answer(runs, tmp_path):
    code, out = written(tmp_path, runs)
    [case] = read_cases([out])
    assert code == 0
    assert (case.group, case.fault_class, case.source) == (NAME, FaultClass.SERVICE_CRASH, "lab")
    assert (SubjectKind.UNIT, "web.service") in case.culprits
    assert case.severity in find([NAME])[0].document.severity
    assert any("web.service" in piece.text for one in case.findings for piece in one.evidence)


def test_evaluate_scores_what_is_written(runs, tmp_path):
    _, out = written(tmp_path, runs)
    figures = run(Request("incidents", (out,), None, rounds=5)).figures
    assert (figures["n"], figures["accuracy"], figures["culprit_top1"]) == (1, 1.0, 1.0)


def test_each_mechanism_is_held_out_once_and_learnt_from_otherwise(runs, tmp_path):
    some = [case for case in simulated(seed=5, episodes=20) if not case.fault_class.benign][:12]
    groups = sorted({one.group for one in some})
    for number, name in enumerate(groups, 1):
        found = held_out(some, number, len(groups))
        assert {one.group for one in found if one.split == "test"} == {name}
        assert {one.split for one in found if one.group != name} == {"train"}
    with pytest.raises(ConfigError, match="there are"):
        held_out(some, 1, len(groups) + 1)
    code, out = written(tmp_path, runs, "--hold-out", "1/1", out="rows.parquet")
    assert code == 0
    assert {one["split"] for one in read_table(out)} == {"test"}
    for wrong in ("2/3", "4/3", "x"):
        assert written(tmp_path, runs, "--hold-out", wrong)[0] == 2


def test_a_control_group_is_blamed_with_and_without_its_path(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.lab.cases.Run.culprits", property(lambda _: ["host:", "unit:/system/web.service"])
    )
    _, out = written(tmp_path, runs)
    [case] = read_cases([out])
    assert case.culprits == [(SubjectKind.UNIT, "/system/web.service"), (SubjectKind.UNIT, "web.service")]


def test_what_opens_in_a_harmless_doing_is_labelled_harmless(tmp_path):
    _, out = written(tmp_path, recorded(tmp_path, "benign/quiet"))
    [case] = read_cases([out])
    assert (case.fault_class, case.culprits) == (HARMLESS, [])
    assert case.fault_class.benign


def test_an_incident_from_before_the_fault_is_no_case(tmp_path):
    runs = recorded(tmp_path)
    path = runs / NAME / "1-0/run.json"
    document = json.loads(path.read_text())
    document["times"]["began"]["wall"] += 20.0
    document["times"]["effect"]["wall"] += 20.0
    path.write_text(json.dumps(document))
    _, out = written(tmp_path, runs)
    assert out.read_bytes() == b""


def test_frozen_recordings_are_never_learned_from(tmp_path, monkeypatch):
    name = next(one.name for one in find([]) if not one.benign)
    sides = split.load_sides()
    fault_class, _, mechanism = name.partition("/")
    frozen = {"frozen": [mechanism], "open": [], "scored": []}
    monkeypatch.setattr(split, "load_sides", lambda: sides | {fault_class: frozen})
    code, out = written(tmp_path, recorded(tmp_path, name))
    assert code == ConfigError("").exit_code
    assert not out.exists()
    with pytest.raises(SystemExit):
        written(tmp_path, tmp_path / "runs", "--frozen")


def test_rows_hold_no_names_and_are_split_by_mechanism_later(runs, tmp_path):
    _, out = written(tmp_path, runs, out="rows.parquet")
    [row] = read_table(out)
    assert row["group"] == NAME
    assert "split" not in row
    assert "alpha" in row["text"]
    assert "web" not in row["text"]


def test_a_host_without_a_reader_has_no_findings_of_it(runs, tmp_path):
    _, out = written(tmp_path, runs, "--without", "lines")
    assert out.read_bytes() == b""
    _, out = written(tmp_path, runs, "--without", "samples")
    [case] = read_cases([out])
    assert case.source == "lab-without-samples"


@pytest.mark.parametrize(
    ("out", "more", "said"),
    [
        ("cases.csv", [], ".jsonl or .parquet"),
        ("nowhere/cases.jsonl", [], "does not exist"),
        ("cases.jsonl", ["--degraded", "-1"], "no number of copies"),
    ],
)
def test_what_cannot_be_written_is_said_before_recordings_are_looked_for(tmp_path, capsys, out, more, said):
    code, _ = written(tmp_path, tmp_path / "nowhere", *more, out=out)
    assert code == ConfigError("").exit_code
    assert said in capsys.readouterr().err


# --- seeing less ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some() -> list[Case]:
    return [case for case in simulated(seed=5, episodes=8) if len(case.findings) > 2]


def test_less_is_seen_and_the_case_stays_one(some):
    for degrade in (thinned, early):
        less = [one for case in some if (one := degrade(case, Random(1))) is not None]
        assert sum(len(one.findings) for one in less) < sum(len(one.findings) for one in some)
        assert all(any(max(f.hints.values(), default=0) > 0.3 for f in one.findings) for one in less)
    for case in some:
        less = hushed(case, Random(1))
        assert less is None or len(less.findings) == len(case.findings)


def test_copies_of_which_less_is_seen_say_something_new(some):
    made = list(degraded(some, copies=3))
    assert {one.source.rpartition("-")[2] for one in made} == {"thinned", "early", "hushed"}
    for case in some:
        seen = [
            one.findings for one in [case, *made] if one.id == case.id or one.id.startswith(f"{case.id}.")
        ]
        assert len({msgspec.json.encode(one) for one in seen}) == len(seen)
    assert made == list(degraded(some, copies=3))


def test_early_is_within_a_second_of_the_first_strong_finding(some):
    for case in some:
        less = early(case, Random(1))
        strong = [one.at.mono for one in case.findings if max(one.hints.values(), default=0.0) > 0.3]
        if less is not None:
            assert less.at.mono <= min(strong) + 1.0
            assert all(one.at.mono <= less.at.mono for one in [*less.findings, *less.events])


def test_nobody_is_to_blame_whom_no_finding_names_any_more(some):
    case = next(one for one in some if one.culprits)
    stranger = [*case.culprits, (SubjectKind.UNIT, "elsewhere.service")]
    assert as_seen(msgspec.structs.replace(case, culprits=stranger)).culprits == case.culprits


def test_a_loop_of_which_one_crash_is_left_is_a_crash(some):
    case = next(one for one in some if one.fault_class is FaultClass.SERVICE_CRASH)
    looped = as_seen(msgspec.structs.replace(case, fault_class=FaultClass.CRASH_LOOP))
    assert (looped.fault_class, looped.also) == (FaultClass.SERVICE_CRASH, [FaultClass.CRASH_LOOP])


def test_classes_and_severities_that_are_right_too_count(runs, tmp_path):
    _, out = written(tmp_path, runs)
    [case] = read_cases([out])
    other = msgspec.structs.replace(case, fault_class=FaultClass.DISK_FULL, severity=Severity.INFO, grades=[])
    both = msgspec.structs.replace(other, also=[case.fault_class], grades=list(Severity))
    for one, right in ((other, 0.0), (both, 1.0)):
        out.write_bytes(msgspec.json.encode(one))
        figures = run(Request("incidents", (out,), None, rounds=5)).figures
        assert (figures["accuracy"], figures["severity_accuracy"]) == (right, right)
