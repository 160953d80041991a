"""The lab's score: each figure on runs made by hand, the intervals, what counts and what not, the page."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import pytest
from msgspec import structs, to_builtins

from daemon import config as configuration
from daemon.errors import ConfigError
from daemon.messages import Culprit, Event, Incident, Line, Sample, Stamp
from daemon.replay import Heard, Replay, worsened
from daemon.settings import Settings
from daemon.stages.health import find_silence
from daemon.store.segments import SegmentWriter
from models.taxonomy import FaultClass, Severity, SubjectKind
from tests.fixtures import lab_runs
from tests.fixtures.lab_runs import said, verdict
from tests.lab import days, report, tables
from tests.lab.age import aged
from tests.lab.said import heard_since, of_others
from tests.lab.scenario import Run, find
from tests.lab.score import Coverage, by_class, figures, interval, percentile, poisson_upper
from tests.lab.verdict import LONG_S, is_drowned, judge

NO_LIMITS = ("p50_low", "p50_high", "p95_low", "p95_high")


def value(verdicts, name):
    return figures(verdicts)[name]["value"]


def test_right_incident_gives_full_marks():
    found = figures([verdict(said())])
    for name in ("recall", "noticed", "class_accuracy", "precision", "culprit_1", "severity", "exactly_one"):
        assert found[name]["value"] == 1.0, name
    assert found["delay_s"] == {"n": 1, "p50": 1.0, "p95": 1.0} | dict.fromkeys(NO_LIMITS)


def test_a_host_that_was_quiet_for_longer_saw_its_own_quiet_time_over_and_over():
    def seen(t):
        at = Stamp("b", t, 1000.0 + t)
        return [Sample(at, "host", {"load": t}), Event(at, "host", "session", "ann", "login", {})]

    recorded = [seen(float(t)) for t in range(10, 20)]
    found = [one for batch in aged(recorded, {"wall": 1016.5}, 30.0) for one in batch]
    before = found[: -len(recorded) * 2]
    assert [one.at.wall for one in before] == [1000.0 + t for t in range(-18, 10)]  # four turns of 7 s
    assert [one.at.mono for one in before] == [float(t) for t in range(-18, 10)]
    assert [one.values["load"] for one in before] == [float(t) for t in range(10, 17)] * 4
    assert found[len(before) :] == [one for batch in recorded for one in batch]
    assert list(aged(recorded[:3], {"wall": 1012.0}, 30.0)) == recorded[:3]  # nothing to repeat


def test_a_class_that_is_right_too_is_not_its_own():
    also = replace(verdict(said("config-error")), right_classes=["config-error", "disk-full"])
    assert (value([also], "recall"), value([also], "own_class")) == (1.0, 0.0)
    both = replace(also, during=[said("config-error"), said(opened_s=3.0)])
    assert value([both], "own_class") == 1.0


def test_delays_have_intervals_of_other_choices_of_runs():
    found = figures([verdict(said(opened_s=float(one)), scenario=f"disk-full/{one}") for one in range(20)])
    delay = found["delay_s"]
    assert (delay["p50"], delay["p95"], delay["n"]) == (9.0, 18.0, 20)
    assert 3.0 <= delay["p50_low"] < 9.0 < delay["p50_high"] <= 15.0
    assert 14.0 <= delay["p95_low"] <= 18.0 <= delay["p95_high"] == 19.0
    assert f"p50 9.0 s ({delay['p50_low']:.1f} to {delay['p50_high']:.1f})" in tables.times_text(delay)


def test_intervals_of_delays_are_of_mechanisms_and_not_of_their_runs():
    runs = [
        verdict(said(opened_s=float(one)), scenario=f"disk-full/{one}") for one in range(8) for _ in range(10)
    ]
    delay = figures(runs)["delay_s"]
    assert delay["n"] == 80
    assert delay["p50_low"] <= 1.0
    assert delay["p50_high"] >= 5.0


def test_silence_and_wrong_class_are_no_recall():
    assert value([verdict()], "recall") == 0.0
    wrong = [verdict(said("unknown"))]
    assert value(wrong, "recall") == 0.0
    assert value(wrong, "noticed") == 1.0
    assert value(wrong, "class_accuracy") == 0.0
    assert value([verdict(said("unknown", ["host:"]))], "noticed") == 0.0


def test_class_accuracy_leaves_out_what_was_not_noticed():
    assert value([verdict(), verdict(said(), scenario="disk-full/other")], "class_accuracy") == 1.0
    assert value([verdict()], "class_accuracy") is None


def test_culprit_counts_by_place_and_a_process_without_its_number():
    third = [verdict(said(culprits=["host:", "unit:a", "process:dd[7]"]))]
    assert value(third, "culprit_1") == 0.0
    assert value(third, "culprit_3") == 1.0
    fourth = [verdict(said(culprits=["host:", "unit:a", "unit:b", "mount:/srv"]))]
    assert value(fourth, "culprit_3") == 0.0


def test_further_incidents_cost_precision_and_exactly_one():
    found = [verdict(said(), said("cpu-saturation", ["unit:x"]))]
    assert value(found, "precision") == 0.5
    assert value(found, "exactly_one") == 0.0
    twice = [verdict(said(), said())]
    assert value(twice, "precision") == 1.0
    assert value(twice, "exactly_one") == 0.0
    assert value(twice, "noticed_once") == 0.0


def test_one_incident_that_blames_whom_it_should_is_about_the_fault_whatever_it_calls_it():
    blamed = [verdict(said("cpu-saturation", ["mount:/srv"]))]
    assert (value(blamed, "exactly_one"), value(blamed, "noticed_once")) == (0.0, 1.0)
    other = [verdict(said("cpu-saturation", ["unit:x"]))]
    assert value(other, "noticed_once") == 0.0


def test_incident_about_benign_doings_costs_precision_and_only_a_loud_one_is_an_alarm():
    quiet, mild = verdict(scenario="benign/quiet"), verdict(said(severity="warning"), scenario="benign/mild")
    loud = verdict(said(severity="error"), scenario="benign/loud")
    assert value([quiet, mild, loud], "quiet") == pytest.approx(2 / 3)
    assert value([verdict(said()), loud], "precision") == 0.5
    alarms = figures([quiet, mild, loud])["false_alarms"]
    assert alarms["above_warning"] == 1
    assert alarms["incidents"] == 2
    assert alarms["host_hours"] == pytest.approx(3 * 30.5 / 3600, abs=1e-3)
    assert alarms["a_day"] == pytest.approx(86400 / (3 * 30.5))
    assert alarms["upper_a_day"] == pytest.approx(5.572 * 86400 / (3 * 30.5), rel=1e-3)


def test_mechanisms_count_alike_however_many_runs_they_have():
    often = [verdict(id=f"disk-full/often/1-{n}", scenario="disk-full/often") for n in range(9)]
    assert value([*often, verdict(said())], "recall") == 0.5


def test_interval_is_over_mechanisms_and_the_same_every_time():
    runs = [verdict(*([said()] if n % 2 else []), scenario=f"disk-full/m{n}") for n in range(10)]
    found = figures(runs)["recall"]
    assert found["low"] < 0.5 < found["high"]
    assert found == figures(runs)["recall"]
    assert figures(runs[:1])["recall"]["low"] is None
    assert interval([1.0] * 8, lambda sample: sum(sample) / 8) == (None, None)
    narrow = interval([0.0, 1.0] * 50, lambda sample: sum(sample) / 100)
    assert narrow[1] - narrow[0] < found["high"] - found["low"]


def test_limits_are_exact_where_all_mechanisms_agree():
    right = figures([verdict(said(), scenario=f"disk-full/m{n}") for n in range(8)])
    silent = figures([verdict(scenario=f"disk-full/m{n}") for n in range(8)])
    for name in ("recall", "precision", "exactly_one", "culprit_1"):
        low, high = right[name]["low"], right[name]["high"]
        assert (low, high) == (pytest.approx(0.6306, abs=1e-4), 1.0), name  # of a table: 8 of 8
    assert silent["recall"]["low"] == 0.0
    assert silent["recall"]["high"] == pytest.approx(0.3694, abs=1e-4)
    assert silent["precision"]["low"] is silent["precision"]["high"] is None  # nothing was said
    assert right["incidents"]["value"] == 1.0
    assert right["incidents"]["low"] is right["incidents"]["high"] is None  # a count is no share
    half = [verdict(*many, scenario=f"disk-full/m{n}") for n in range(8) for many in ([], [said()])]
    assert figures(half)["recall"]["value"] == 0.5
    assert figures(half)["recall"]["low"] is None


def test_early_incident_has_no_negative_delay():
    assert figures([verdict(said(opened_s=-0.4))])["delay_s"]["p50"] == 0.0


def test_an_incident_is_named_from_when_its_class_is_right_for_good():
    named = ((1.0, "crash-loop"), (4.0, "disk-full"), (5.0, "service-crash"), (7.5, "disk-full"))
    again = replace(said(), named=named)
    found = figures([verdict(again)])
    assert (found["delay_s"]["p50"], found["named_s"]["p50"]) == (1.0, 7.5)
    assert figures([verdict(replace(said(), named=((-3.0, "disk-full"),)))])["named_s"]["p50"] == 1.0
    assert figures([verdict()])["named_s"] == {"n": 0, "p50": None, "p95": None} | dict.fromkeys(NO_LIMITS)


def test_incidents_that_became_part_of_another_one_are_counted_all_the_same():
    found = figures([verdict(said()), verdict(said(), merged=2, scenario="disk-full/other")])
    assert found["exactly_one"]["value"] == 1.0
    assert found["incidents"]["value"] == 2.0


def test_what_became_part_of_another_one_is_no_merit_but_was_heard_of():
    part = replace(said(), merged=True)
    fault = verdict(said(), absorbed=[part])
    assert value([fault], "precision") == 0.5
    assert value([verdict(absorbed=[part])], "recall") == 0.0
    mild = replace(said(severity="warning"), merged=True)
    benign = [
        verdict(scenario="benign/a", absorbed=[replace(mild, loudest="error")]),
        verdict(scenario="benign/b", absorbed=[mild]),
    ]
    found = figures(benign)
    assert (found["false_alarms"]["above_warning"], found["false_alarms"]["incidents"]) == (1, 2)
    assert found["quiet"]["value"] == 0.5
    assert "benign/b/1-0: wanted nothing, got disk-full warning" in tables.text(benign)
    assert "part of another one since" in report.page([fault])
    [timeline] = re.findall("<svg.*?</svg>", report.page([fault]))
    assert timeline.count("<circle") == len(fault.live) + len(fault.told)


def test_percentile_is_a_value_that_was_measured():
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
    assert percentile([], 0.5) is None


def test_poisson_limit_is_that_of_the_tables():
    assert poisson_upper(0) == pytest.approx(3.689, abs=1e-3)
    assert poisson_upper(3) == pytest.approx(8.767, abs=1e-3)
    assert not math.isnan(poisson_upper(1000))


def test_difference_between_live_and_replay_is_counted():
    found = figures([verdict(said(), live=[]), verdict(said())])["replay"]
    assert found == {"runs": 2, "same_twice": 2, "same_as_live": 1}


def test_text_and_page_name_what_was_wrong_and_load_nothing():
    runs = [verdict(said("unknown", ["unit:<b>evil</b>"])), verdict(scenario="benign/quiet")]
    text = tables.text(runs)
    assert "wanted mount:/srv/process:dd, got unknown error unit:<b>evil</b>" in text
    assert "benign/quiet/1-0:" not in text
    page = report.page(runs)
    assert "&lt;b&gt;evil" in page
    assert "<b>evil" not in page
    assert page.count("<svg") == 2
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)


def test_text_page_and_json_name_what_the_figures_are_not_of():
    names = [f"disk-full/{name}" for name in ("log-grows", "gone", "changed", "beside")]
    covered = Coverage(names, {"disk-full/changed/1-0": "its scenario was changed since"})
    beside = verdict(scenario="disk-full/beside", left_out={"monit": "needs monit"})
    runs = [verdict(said(), losses={"gaps": 3, "lines_left_out": 0}, damage=["cut <b>"]), beside]
    found = covered.document(runs[:1], runs)
    assert (found["scenarios"], found["scored"]) == (4, 1)
    assert found["left_out"] == {
        "not recorded": ["disk-full/gone"],
        "recorded only beside others": ["disk-full/beside"],
        "its scenario was changed since": ["disk-full/changed/1-0"],
    }
    assert found["lossy"] == {"disk-full/log-grows/1-0": {"gaps": 3}}
    assert found["damaged"] == {"disk-full/log-grows/1-0": ["cut <b>"]}
    for told in (tables.text(runs, covered), report.page(runs, covered)):
        assert "1 of 4 scored" in told
        assert "1, not recorded: disk-full/gone" in told
        assert "1, its scenario was changed since: disk-full/changed/1-0" in told
        assert "disk-full/log-grows/1-0: gaps 3" in told
    assert "damaged     disk-full/log-grows/1-0: cut <b>" in tables.text(runs, covered)
    assert "cut <b>" not in report.page(runs, covered)
    whole = tables.text([verdict(said(), losses={"gaps": 0})], Coverage(names[:1]))
    assert "1 of 1 scored" in whole
    assert not re.search("^(left out|lost|damaged)", whole, re.MULTILINE)


def test_questions_that_nobody_answered_are_said():
    for told in (tables.text, report.page):
        assert "9 asked, 4 of them nobody answered" in told([verdict()], Coverage(asked=9, unanswered=4))
        assert "nobody answered" not in told([verdict()], Coverage())
    found = Coverage(asked=9, unanswered=4).document([], [])
    assert (found["asked"], found["unanswered"]) == (9, 4)
    assert Coverage().document([], [])["unanswered"] is None


def test_what_was_replayed_but_once_is_not_said_to_be_the_same_twice(recording):
    [scenario] = find(["service-crash/segmentation-fault"])
    once = judge(recording(), scenario, ({}, None), age_s=LONG_S)
    assert once.same_twice is None
    assert figures([once])["replay"]["same_twice"] is None
    assert "not tried twice, 0 as live, of 1" in tables.text([once])
    assert "1 the same twice" in tables.text([verdict(said())])
    assert figures([verdict(same_twice=False), verdict()])["replay"]["same_twice"] == 1


def test_many_that_are_not_recorded_are_all_named_on_the_page_and_some_in_the_text():
    covered = Coverage([f"disk-full/m{n:03}" for n in range(100)])
    assert "99, not recorded: disk-full/m001," in tables.text([verdict(scenario="disk-full/m000")], covered)
    assert "disk-full/m020 and 79 more" in tables.text([verdict(scenario="disk-full/m000")], covered)
    assert "disk-full/m099" in report.page([verdict(scenario="disk-full/m000")], covered)


def test_json_of_a_score_holds_only_json():
    runs = [verdict(said()), verdict(scenario="benign/quiet")]
    told = {"all": figures(runs), "classes": by_class(runs), "runs": [one.document() for one in runs]}
    assert json.loads(json.dumps(told, allow_nan=False)) == json.loads(json.dumps(told))


# --- a recording made by hand, through the daemon's own segments, replay and tiers --------------------------


@pytest.fixture
def recording(tmp_path):
    return partial(lab_runs.recording, tmp_path)


def judged(folder):
    [scenario] = find(["service-crash/segmentation-fault"])
    return judge(folder, scenario, ({}, None))


def test_recording_is_judged_by_replay_against_the_scenarios_label(recording):
    found = judged(recording())
    assert found.right is not None
    assert found.right.fault_class == "service-crash"
    assert found.blames(found.right, 1)
    assert 0.0 < found.right.opened_s < 5.0
    assert found.same_twice
    assert not found.same_as_live  # nothing was told live
    assert found.advice_checked == 2
    assert found.advice_violations == []


def complained(folder, wall, state="open"):
    """The recording as of a daemon that complained live about its own low tier."""
    silent = find_silence("low", 12.0, ended=False)
    incident = Incident(
        id="01J", revision=1, state=state, fault_class=FaultClass.SERVICE_HUNG, severity=Severity.WARNING,
        score=0.6, culprits=[Culprit(SubjectKind.STAGE, "low", 0.6)], opened_at=wall, updated_at=wall,
        closed_at=None if state == "open" else wall, boot_id="boot", context=[], evidence=silent.evidence,
        finding_ids=[silent.id], findings_count=1, evidence_at=wall,
    )  # fmt: skip
    run = json.loads((folder / "run.json").read_text())
    told = {"incident": to_builtins(incident), "revisions": [], "advice": []}
    (folder / "run.json").write_text(json.dumps(run | {"live": [told]}))
    return folder


def test_what_hauswart_said_live_of_itself_counts_though_no_replay_says_it(recording):
    found = judged(complained(recording(), lab_runs.WALL + 40.0))
    assert [one.culprits[0] for one in found.during] == ["unit:web.service", "stage:low"]
    assert value([found], "exactly_one") == 0.0
    assert value([found], "precision") == 0.5
    assert found.right == found.during[0]
    assert not found.same_as_live  # live, it said nothing of the crash
    assert found.same_twice


def test_what_a_replay_merged_is_told_and_as_loud_as_it_was(recording, monkeypatch):
    class Merging(Replay):
        def _keep(self, changed):
            super()._keep(changed)
            part = {"state": "merged", "merged_into": "01J", "severity": Severity.INFO}
            super()._keep([structs.replace(one, **part) for one in changed])

    folder = recording()
    [usual] = judged(folder).during
    monkeypatch.setattr("tests.lab.verdict.Replay", Merging)
    found = judged(folder)
    assert (found.during, found.merged, found.right) == ([], 1, None)
    [part] = found.absorbed
    assert (part.merged, part.severity, part.loudest) == (True, "info", usual.severity)
    assert part.opened_s == usual.opened_s


def test_a_complaint_about_itself_that_became_part_of_another_one_is_counted(recording):
    found = judged(complained(recording(), lab_runs.WALL + 40.0, "merged"))
    assert [one.culprits[0] for one in found.during] == ["unit:web.service"]
    assert [one.culprits[0] for one in found.absorbed] == ["stage:low"]
    assert found.merged == 1


@pytest.mark.parametrize(("second", "where"), [(20.0, "before"), (61.0, None)])
def test_a_complaint_about_itself_counts_from_the_injection_to_the_end(recording, second, where):
    found = judged(complained(recording(), lab_runs.WALL + second))
    assert [one.culprits[0] for one in found.during] == ["unit:web.service"]
    assert [one.culprits[0] for one in found.before] == (["stage:low"] if where else [])


def test_a_complaint_about_itself_is_no_hit_of_a_fault_of_its_class():
    silent = verdict(said("service-hung", ["stage:low"]), scenario="service-hung/waits")
    assert (value([silent], "recall"), value([silent], "noticed")) == (0.0, 0.0)
    assert value([silent], "precision") == 0.0
    assert value([verdict(said("service-hung"), scenario="service-hung/waits")], "recall") == 1.0
    assert verdict(said(), said("unknown", ["stage:low"]), live=[said()]).same_as_live
    assert not verdict(said(), live=[said(), said("unknown", ["stage:low"])]).same_as_live


def test_what_happens_after_the_window_does_not_count(recording):
    assert judged(recording(ended_s=29.0)).during == []


@pytest.mark.parametrize(
    ("system", "fault_class", "cores", "drowned"),
    [("host", "cpu-saturation", 1.4, True), ("host", "cpu-saturation", 0.3, False),
     ("container", "cpu-saturation", 1.4, False), ("host", "disk-full", 1.4, False)],
)  # fmt: skip
def test_fault_of_load_on_a_busy_machine_is_not_scored(recording, system, fault_class, cores, drowned):
    folder = recording(ambient_cores=cores)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"system": system, "class": fault_class}))
    assert is_drowned(folder) == drowned


def test_others_load_is_shown_and_not_scored_where_nobody_inside_is_blamed():
    run = {"system": "container", "ambient_cores": 1.6}
    [scenario] = find(["service-crash/segmentation-fault"])
    label = Run(scenario, 1, 0, {"name": "web"})
    assert of_others(said("cpu-saturation", ["host:"]), run, label)
    assert not of_others(said("cpu-saturation", ["unit:web.service"]), run, label)
    assert not of_others(said("disk-full", ["host:"]), run, label)
    assert not of_others(said("cpu-saturation", ["host:"]), run | {"ambient_cores": 0.4}, label)
    own = said("cpu-saturation", ["unit:lab-guest.service", "process:sh"])
    assert of_others(own, run | {"system": "machine", "ambient_cores": 0.0}, label)


def test_a_disk_of_a_run_beside_it_is_nothing_of_this_one():
    run = {"system": "container", "ambient_cores": 0.1}
    [scenario] = find(["inode-exhaustion/searches-of-a-shop"])
    label = Run(scenario, 1, 0, {"name": "shop", "loop": "loop483"})
    waits = said("io-saturation", ["device:loop485"])
    assert of_others(waits, run, label)
    assert not of_others(said("io-saturation", ["device:loop483"]), run, label)
    assert not of_others(said("disk-failing", ["device:loop485"]), run, label)
    assert not of_others(waits, run | {"system": "machine"}, label)
    files = {"$LAB/x": "losetup -f --show disk.img"}  # what losetup gives a run may have any number
    other = replace(scenario, document=structs.replace(scenario.document, files=files))
    assert not of_others(waits, run, Run(other, 1, 0, {}))


@pytest.mark.parametrize("fault_class", ["io-saturation", "disk-failing"])
def test_a_right_class_on_a_disk_of_another_run_is_no_hit(fault_class):
    run = {"system": "container", "ambient_cores": 0.1}
    [scenario] = find(["inode-exhaustion/searches-of-a-shop"])
    right = replace(scenario, document=structs.replace(scenario.document, also=[fault_class]))
    label = Run(right, 1, 0, {"name": "shop", "loop": "loop483"})
    assert of_others(said(fault_class, ["device:loop485"]), run, label)
    assert not of_others(said(fault_class, ["device:loop483"]), run, label)
    assert not of_others(said(fault_class, ["unit:shop.service"]), run, label)


def test_of_what_nobody_is_told_no_right_incident_comes():
    unread = replace(said(severity="warning"), told_after_s=None)
    found = figures([verdict(unread)])
    assert (found["recall"]["value"], found["exactly_one"]["value"], found["precision"]["value"]) == (0, 0, 0)
    assert found["noticed"]["value"] == 0
    late = figures([verdict(replace(said(opened_s=1.0), told_after_s=3.5))])
    assert (late["delay_s"]["p50"], late["told_s"]["p50"]) == (1.0, 4.5)
    alarms = figures([verdict(unread, said(), scenario="benign/mild")])["false_alarms"]
    assert (alarms["told"], alarms["incidents"]) == (1, 2)
    early = replace(said(opened_s=-20.0), told_after_s=23.0)  # told of after the injection: that is news
    assert (heard_since(-5.0, early).opened_s, heard_since(-5.0, early).before_s) == (3.0, None)


def test_what_was_there_before_counts_once_it_gets_worse():
    early = replace(said(), opened_s=-20.0)
    assert heard_since(-5.0, early) is None
    assert heard_since(-5.0, replace(early, worse_s=(-9.0,))) is None
    anew = heard_since(-5.0, replace(early, worse_s=(-9.0, 3.0, 8.0)))
    assert (anew.opened_s, anew.before_s) == (3.0, -20.0)
    assert heard_since(-5.0, replace(early, opened_s=1.0, worse_s=(3.0,))).opened_s == 1.0


def test_an_incident_is_heard_of_when_it_opens_and_each_time_that_it_is_worse_than_ever():
    told = [(30.0, "error"), (10.0, "warning"), (20.0, "warning"), (40.0, "warning"), (50.0, "critical")]
    heard = worsened(Heard(at, Severity(severity)) for at, severity in told)
    assert [(one.at, one.severity.value) for one in heard] == [
        (10.0, "warning"),
        (30.0, "error"),
        (50.0, "critical"),
    ]


def test_damaged_recording_is_said(recording):
    folder = recording()
    path = next((folder / "telemetry").iterdir())
    path.write_bytes(path.read_bytes()[:40] + b"\x00" * 40 + path.read_bytes()[80:])
    assert judged(folder).damage


# --- quiet days as replay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("set_s", [-7200.0, -300.0, 90_000.0])
def test_delays_count_from_the_effect_though_the_clock_was_set_meanwhile(tmp_path, set_s):
    usual, found = (
        judged(lab_runs.recording(tmp_path / "a")),
        judged(lab_runs.recording(tmp_path / "b", set_s=set_s)),
    )
    crash = next(one for one in found.during if one.fault_class == "service-crash")
    assert crash.opened_s == pytest.approx(usual.during[0].opened_s, abs=0.01)
    assert (found.before, found.span_s, found.watched_s) == ([], usual.span_s, usual.watched_s)


def test_days_count_what_was_said_in_the_time_that_was_watched(recording, tmp_path):
    settings = configuration.load(recording() / "hauswart.toml")
    day = days.replayed(tmp_path / "service-crash/segmentation-fault/1-0", settings, {})
    assert day.watched_s == pytest.approx(59.0)
    assert [(one.fault_class, one.culprits[0]) for one in day.said] == [("service-crash", "unit:web.service")]
    found = days.summary([day, day])
    assert found["incidents"] == 2
    assert found["a_day"] == pytest.approx(2 * 86400 / 118)
    assert "service-crash" in days.text(found)


def test_a_quiet_day_also_says_how_often_each_error_of_the_journal_would_have_alerted(tmp_path):
    writer = SegmentWriter(tmp_path, days=1, mib=8)

    def line(t, text, unit="cron.service", **more):
        return Line(Stamp("b", t, 1e9 + t), "journal", text, unit=unit, **{"priority": 3} | more)

    samples = [Sample(Stamp("b", t, 1e9 + t), "host", {"load": 0.1}) for t in (0.0, 20.0, 40.0)]
    lines = [line(t, "cannot open") for t in (1.0, 39.0)]  # repeated within a minute
    lines += [line(41.0, "x", priority=4), line(42.0, "y", unit="hauswart-low.service")]
    lines.append(line(43.0, "z", unit="init.scope", subject_unit="web.service"))
    lines.append(line(95.0, "w"))  # nobody watched by then
    writer.write(sorted([*samples, *lines], key=lambda one: one.at.mono), lines[-1].at)
    writer.close()
    day = days.replayed(tmp_path, Settings(), {})
    assert day.entries == 2
    assert days.summary([day])["entries_a_day"] == pytest.approx(2 * 86400 / 40)
    assert "4320 a day" in days.text(days.summary([day]))


@pytest.fixture
def day_of(recording, monkeypatch):
    """The recording as a quiet day on which each revision is followed by one with these changes."""
    folder = recording()
    settings = configuration.load(folder / "hauswart.toml")

    def played(*, told=True, **changes):
        class Changed(Replay):
            def _keep(self, changed):
                if told:
                    super()._keep(changed)
                super()._keep([structs.replace(one, **changes) for one in changed] if changes else [])

        monkeypatch.setattr(days, "Replay", Changed)
        return days.replayed(folder, settings, {})

    return played


def test_what_somebody_heard_of_before_a_habit_hushed_it_counts_as_loud_as_it_was(day_of):
    [usual] = day_of().said
    [hushed] = day_of(quieted="s1", severity=Severity.INFO).said
    assert (hushed.severity, hushed.loudest) == ("info", usual.severity)
    assert day_of(quieted="s1", told=False).said == []
    [known] = day_of(severity=Severity.INFO).said
    assert known.loudest == usual.severity


def test_of_what_became_part_of_another_one_somebody_heard_on_a_quiet_day_too(day_of):
    day = day_of(state="merged", merged_into="01J")
    assert [one.merged for one in day.said] == [True]
    assert days.summary([day])["incidents"] == 1
    assert "part of another one since" in days.text(days.summary([day]))


def test_a_folder_without_telemetry_is_no_quiet_day(tmp_path):
    with pytest.raises(ConfigError, match="holds no telemetry"):
        days.replayed(tmp_path, Settings(), {})
