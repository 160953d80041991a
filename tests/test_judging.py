"""Advice judged blind: what is written for judges, and what is made of their marks."""

import json
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from daemon.messages import Advice
from models.taxonomy import FaultClass
from tests.fixtures.incidents import make_incident
from tests.lab import judging
from tests.lab.__main__ import main
from tests.lab.scenario import find

KEPT = Path(judging.__file__).with_name("judged")
RUNS = ["disk-full/one", "disk-full/two", "link-down/three"]


def advice(text):
    return {"en": {"text": text, "command": "df -h"}, "de": {"text": f"{text} (de)", "command": "df -h"}}


def write(path, text, runs=RUNS):
    rows = [{"run": run, "truth": "x", "incident": {}, "advice": advice(f"{text} {run}")} for run in runs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def marks(remedy, false=""):
    return {"explains": 1, "remedy": remedy, "look": 1, "command": 0, "false": false}


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "judging"
    assert judging.pair(write(tmp_path / "a", "old"), write(tmp_path / "b", "new"), out, "en") == len(RUNS)
    return out


def judge(folder, **changes):
    """As somebody who always prefers the newer one, and can tell."""
    rows = []
    for line in (folder / judging.PAIRS).read_text().splitlines():
        pair = json.loads(line)
        newer = "A" if pair["A"]["text"].startswith("new") else "B"
        row = {"id": pair["id"], "better": newer} | {side: marks(2 * (side == newer), "") for side in "AB"}
        rows.append(row | changes)
    (folder / "me.judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pairs_do_not_say_which_is_which_and_hold_what_was_done(folder):
    pairs = [json.loads(line) for line in (folder / judging.PAIRS).read_text().splitlines()]
    assert {tuple(sorted(pair)) for pair in pairs} == {("A", "B", "id", "incident", "truth")}
    key = json.loads((folder / judging.KEY).read_text())
    for pair in pairs:
        assert pair[key[pair["id"]]["latter"]]["text"] == f"new {key[pair['id']]['run']}"
        assert pair[key[pair["id"]]["former"]]["text"] == f"old {key[pair['id']]['run']}"
    assert "remedy" in (folder / judging.INSTRUCTION).read_text()


def test_only_faults_that_both_have_are_paired(tmp_path):
    former = write(tmp_path / "a", "old", RUNS[:2])
    assert judging.pair(former, write(tmp_path / "b", "new"), tmp_path / "c", "de") == 2
    assert "(de)" in (tmp_path / "c" / judging.PAIRS).read_text()
    with pytest.raises(ConfigError, match="no fault in common"):
        judging.pair(former, write(tmp_path / "d", "new", RUNS[2:]), tmp_path / "e", "en")


def test_marks_are_told_apart_again(folder, capsys):
    judge(folder)
    found = judging.judged(folder)
    assert found["preferred"] == {"former": 0, "latter": 3, "neither": 0}
    assert (found["latter"]["remedy"]["mean"], found["former"]["remedy"]["mean"]) == (2.0, 0.0)
    assert (found["latter"]["remedy"]["none"], found["former"]["remedy"]["none"]) == (0, 3)
    judge(folder, better="tie", A=marks(-1, "Nonsense."))
    assert judging.judged(folder)["preferred"]["neither"] == 3
    assert main(["judged", str(folder)]) == 0
    assert "3 of 3 pairs judged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "999"}, "none of the pairs"),
        ({"better": "C"}, "A, B or tie"),
        ({"A": marks(3)}, "A.remedy is 3"),
        ({"B": {**marks(0), "look": "1"}}, "B.look is '1'"),
        ({"A": {**marks(0), "false": None}}, "A.false is no text"),
        ({"B": 7}, "B.explains is None"),
    ],
)
def test_a_wrong_judgement_is_named(folder, changes, said):
    judge(folder, **changes)
    with pytest.raises(ConfigError) as error:
        judging.judged(folder)
    assert said in f"{error.value} {error.value.hint}"


def test_a_folder_without_judgement_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="no judgement"):
        judging.judged(folder)
    with pytest.raises(ConfigError, match=r"key\.json"):
        judging.judged(tmp_path)
    (folder / "me.judged.jsonl").write_text("{}\nno\n")
    with pytest.raises(ConfigError, match="line 2"):
        judging.judged(folder)


@pytest.mark.parametrize(
    ("name", "preferred", "remedies"),
    [
        ("twelfth-to-fourteenth", {"former": 5, "latter": 65, "neither": 0}, (36, 6)),
        ("tenth-and-eleventh", {"former": 4, "latter": 45, "neither": 1}, (29, 2)),
        ("rules-alone", {"former": 1, "latter": 82, "neither": 1}, (50, 11)),
    ],
)
def test_judgements_that_come_with_the_code_say_what_is_told_of_them(name, preferred, remedies):
    found = judging.judged(KEPT / name)
    assert found["judged"] == found["of"]
    assert found["preferred"] == preferred
    assert (found["former"]["remedy"]["none"], found["latter"]["remedy"]["none"]) == remedies


def test_of_several_incidents_the_one_of_the_faults_class_is_judged():
    scenario = next(one for one in find([]) if one.fault_class == "disk-full")
    said = [Advice("It is full.", "en", "catalogue", "df -h")]
    other, right = make_incident("a", fault_class=FaultClass.LINK_DOWN), make_incident("b")
    row = judging.advised(scenario, [(other, []), (right, said)])
    assert row["incident"]["class"] == "disk-full"
    assert row["advice"] == {"en": {"text": "It is full.", "command": "df -h"}}
    assert scenario.document.culprits[0].split("{")[0] in row["truth"]
    assert judging.advised(scenario, []) is None
