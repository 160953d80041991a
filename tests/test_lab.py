"""Real faults on this machine, one after another, under the real daemon: one right incident each, in time."""

from __future__ import annotations

import json
import time

import pytest

from daemon.messages import Incident
from tests.lab.commands import against
from tests.lab.runner import Daemon, chosen, daemon, inject

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]

FAULTS = chosen([])


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    if all(against(run.scenario, []) for run in FAULTS):
        pytest.skip(against(FAULTS[0].scenario, []))
    with daemon(tmp_path_factory.mktemp("lab")) as started:
        time.sleep(8)
        yield started


@pytest.mark.parametrize("run", FAULTS, ids=lambda run: run.scenario.name)
def test_fault_gives_one_incident_of_the_right_class_and_culprit(watched: Daemon, run):
    if reason := against(run.scenario, []):
        pytest.skip(reason)
    score = inject(watched, run, watched.state_dir.parent)
    assert [one.fault_class for one in score.incidents] == [
        score.first.fault_class if score.first else run.scenario.fault_class
    ]
    assert score.culprit_right, score.incidents[0].culprits
    assert score.delay_s is not None
    assert score.delay_s < 20
    assert_advised(watched, score.incidents[0])


def assert_advised(watched: Daemon, incident: Incident) -> None:
    """The advice names the culprit or cites evidence, in both languages, and the command line shows it."""
    for lang in ("en", "de"):
        advice = watched.advice(incident.id, lang)
        assert advice is not None
        assert advice.sources
        # facts.source_of: an evidence, the verdict's culprit, the incident itself or a context.
        held = {one.id for one in incident.evidence} | {"", "culprit", "incident"}
        assert {one for one in advice.sources.values() if not one.startswith("context:")} <= held
    done = watched.command("show", incident.id, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["advice"]["text"]


def test_status_tells_of_all_stages_and_what_they_cost(watched: Daemon):
    done = watched.command("status", "--json")
    found = json.loads(done.stdout)
    assert {one["stage"] for one in found["stages"]} >= {"supervisor", "collector", "low", "middle", "top"}
    assert all(one["alive"] for one in found["stages"])


def test_replay_of_what_was_recorded_gives_the_same_findings_every_time(watched: Daemon):
    told = [watched.command("replay", "telemetry", "--findings") for _ in range(2)]
    assert told[0].returncode == 0, told[0].stderr
    assert told[0].stdout.count("\n") > 0
    assert told[0].stdout == told[1].stdout
