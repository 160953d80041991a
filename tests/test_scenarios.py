"""Scenarios: what a file may hold, what is said of a wrong one, who is frozen; some are played for real."""

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import structs

from daemon.errors import ConfigError
from models.taxonomy import FaultClass
from tests.lab import commands, split
from tests.lab.ambient import of_process
from tests.lab.recording import is_current, record, settings_text
from tests.lab.runner import USUAL
from tests.lab.scenario import Run, find, load, names, runs
from tests.lab.systems import Restored
from tests.lab.verdict import judge

ROOT = Path(__file__).parents[1]
GOOD = """
about = "a file system fills"
system = "container"
culprits = ["mount:/srv/{name}"]
severity = ["warning"]
[parameters]
name = ["one", "two"]
size = [1, 2, 3]
[inject]
run = "echo ${name} {name} {size} { name; }"
[effect]
run = "true"
"""


@pytest.fixture
def write(tmp_path):
    """Writes a scenario's file and reads it."""

    def written(text=GOOD, fault_class="disk-full", name="it-fills"):
        path = tmp_path / fault_class / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load(path)

    return written


def test_scenario_says_what_it_is(write):
    found = write(GOOD.replace('severity = ["warning"]', 'severity = ["error"]\nalso = ["inode-exhaustion"]'))
    assert found.name == "disk-full/it-fills"
    assert found.right_classes == {"disk-full", "inode-exhaustion"}
    assert not found.benign


@pytest.mark.parametrize(
    ("old", "new", "said", "hint"),
    [
        ("about =", "abuot =", "abuot", "did you mean 'about'?"),
        ("[effect]\nrun", "[effect]\nwithin_s = 'long'\nrun", "$.effect.within_s", "known keys"),
        ('"container"', '"jail"', "jail", "known keys"),
        ('["warning"]', '["loud"]', "loud", "known keys"),
        ('"mount:/srv/{name}"', '"/srv/{name}"', "'/srv/{name}' is not kind:name", "kinds: unit"),
        ('"mount:/srv/{name}"', '"place:/srv"', "'place:/srv' is not kind:name", "mount"),
        ('"mount:/srv/{name}"', '"mount:/srv/{nam}"', "'mount:/srv/{nam}' names no parameter", "'name'"),
        ("size = [1, 2, 3]", "length = [1, 2, 3]", "parameters.length is used nowhere", "{length}"),
        ("size = [1, 2, 3]", "size = []", "parameters.size is empty", "at least one"),
        ('severity = ["warning"]', "", "severity is missing", "a fault has"),
        ('[effect]\nrun = "true"', "", "effect is missing", "a fault has"),
        (
            'severity = ["warning"]',
            'severity = ["error"]\nalso = ["disk-full"]',
            "also: 'disk-full'",
            "leave",
        ),
        ('severity = ["warning"]', 'severity = ["error"]\nalso = ["backup"]', "also: 'backup'", "leave"),
        ('severity = ["warning"]', 'severity = ["error"]\nnoise = ["bulid"]', "noise 'bulid'", "'build'"),
        ("[inject]", '[files]\n"../x" = ""\n[inject]', "'../x' leaves its folder", "without .."),
        ('"container"', '"host"\nfiles = {"/etc/x" = ""}', "'/etc/x' would stay", "container"),
        ("[inject]", "[inject", "is not TOML", "scripts go between"),
    ],
)
def test_wrong_scenario_is_refused_with_file_value_and_remedy(write, old, new, said, hint):
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        write(GOOD.replace(old, new))
    assert "it-fills.toml" in str(refused.value)
    assert said in str(refused.value)
    assert hint in refused.value.hint


def test_folder_must_be_a_fault_class(write):
    with pytest.raises(ConfigError, match="'disk-fool' is no fault class") as refused:
        write(fault_class="disk-fool")
    assert "disk-full" in refused.value.hint
    with pytest.raises(ConfigError, match="no fault class"):
        write(fault_class="backup")


def test_benign_scenario_has_no_label(write):
    bare = 'about = "nothing"\nsystem = "container"\n[inject]\nrun = ":"\n'
    assert write(bare, "benign").right_classes == frozenset()
    with pytest.raises(ConfigError, match="severity in a benign scenario"):
        write('severity = ["error"]\n' + bare, "benign")


def test_each_run_takes_another_combination_in_an_order_of_the_seed(write):
    found = write()
    six = [tuple(sorted(one.values.items())) for one in runs(found, seed=1, repeat=6)]
    every = itertools.product(["one", "two"], [1, 2, 3])
    assert set(six) == {(("name", name), ("size", size)) for name, size in every}
    assert runs(found, 1, 6) == runs(found, 1, 6)
    assert any(runs(found, 1, 6)[0].values != runs(found, seed, 6)[0].values for seed in range(2, 9))


def test_parameters_are_put_in_place_and_other_braces_left_alone(write):
    run = Run(write(), 1, 0, {"name": "box", "size": 3})
    assert run.fill(run.scenario.document.inject.run) == "echo $box box 3 { name; }"
    assert run.culprits == ["mount:/srv/box"]


def test_correcting_a_label_keeps_recordings_and_changing_what_is_done_does_not(write):
    before = write().digest
    assert write(GOOD.replace('"warning"', '"error"')).digest == before
    assert write(GOOD.replace('run = "true"', 'run = "false"')).digest != before


def test_process_is_named_without_its_number():
    assert names("process:dd", "process:dd[17]")
    assert names("mount:/srv", "mount:/srv")
    assert not names("process:dd", "process:ddd")
    assert not names("mount:/srv", "mount:/srv[17]")


def test_every_scenario_of_the_lab_is_sound_and_on_one_side():
    sides, found = split.load_sides(), find([])
    assert {one.name for one in found if not split.is_frozen(one.name, sides)} >= set(USUAL)
    listed = {f"{name}/{one}" for name, both in sides.items() for side in both.values() for one in side}
    assert listed == {one.name for one in found}
    assert len(listed) == sum(len(side) for both in sides.values() for side in both.values())
    assert split.extend(sides, [one.name for one in found]) == sides


def test_a_third_of_new_mechanisms_is_frozen_by_hash_and_nobody_changes_sides():
    first = split.extend({}, [f"disk-full/m{n}" for n in range(6)])
    by_hash = sorted((f"m{n}" for n in range(6)), key=lambda one: split.hashed(f"disk-full/{one}"))
    assert first["disk-full"]["frozen"] == sorted(by_hash[:2])
    second = split.extend(first, [f"disk-full/m{n}" for n in range(9)])
    assert set(second["disk-full"]["frozen"]) > set(by_hash[:2])
    assert len(second["disk-full"]["frozen"]) == 3
    assert set(second["disk-full"]["open"]) >= set(by_hash[2:])


def test_mechanism_whose_score_is_known_is_open_and_newer_ones_are_frozen_instead():
    first = split.extend({}, [f"disk-full/m{n}" for n in range(6)])
    spent = split.unfreeze(first)
    assert spent["disk-full"]["scored"] == first["disk-full"]["frozen"]
    assert not any(split.is_frozen(f"disk-full/m{n}", spent) for n in range(6))
    later = split.extend(spent, [f"disk-full/m{n}" for n in range(8)])
    assert later["disk-full"]["frozen"] == ["m6", "m7"]
    assert later["disk-full"]["scored"] == spent["disk-full"]["scored"]


def test_scenario_without_a_side_is_not_scored_by_accident():
    with pytest.raises(ConfigError, match="disk-full/unheard-of"):
        split.is_frozen("disk-full/unheard-of", split.load_sides())


def test_daemon_of_a_virtual_machine_begins_anew_only_for_settings_of_the_scenarios_own(tmp_path):
    asked, config = [], tmp_path / "hauswart.toml"
    guest = SimpleNamespace(push=lambda _, path: asked.append(path))
    config.write_text(settings_text(run_of("clock-jump/stepped-ahead"), "/lab"))
    Restored(guest, "/lab", "/state", "/status", "/store").start(config)
    assert asked == []
    config.write_text(settings_text(run_of("service-hung/watchdog"), "/lab"))
    with pytest.raises(AttributeError, match="run"):  # the next that it asks of the guest
        Restored(guest, "/lab", "/state", "/status", "/store").start(config)
    assert asked == ["/etc/hauswart/hauswart.toml"]


def run_of(name):
    return runs(find([name])[0], seed=1, repeat=1)[0]


def test_what_a_process_used_is_told_by_the_kernel():
    before = of_process(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert of_process(os.getpid()) - before == pytest.approx(0.2, abs=0.1)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as refused:
        find(["disk-full/log-grow"])
    assert "disk-full/log-grows" in refused.value.hint


def test_every_fault_class_that_no_machine_needs_has_three_mechanisms():
    wanted = {one.value for one in FaultClass if not one.benign} - {"unknown"}
    counts = {name: len([one for one in find([]) if one.fault_class == name]) for name in wanted}
    assert {name for name, count in counts.items() if count < 3} <= MACHINE_ONLY


def test_nothing_that_judges_names_a_scenario():
    kinds = {".py", ".toml", ".tsv", ".txt", ".json", ".html"}
    files = [one for top in ("daemon", "models") for one in (ROOT / top).rglob("*") if one.suffix in kinds]
    text = "\n".join(one.read_text(encoding="utf-8", errors="replace") for one in files)
    mechanisms = [one.name.partition("/")[2] for one in find([])]
    telling = [one for one in mechanisms if one.count("-") >= 2]  # two words may well be a term of the field
    assert len(telling) > len(mechanisms) / 2
    assert [one for one in telling if one in text] == []


# Their faults need a kernel of their own.
MACHINE_ONLY = {"hardware-error", "device-lost", "clock-jump", "kernel-bug"}


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["config-error/user-missing", "disk-full/tmpfs-fills"])
def test_scenario_is_recorded_beside_the_real_daemon_and_judged_by_replay(name, tmp_path):
    [scenario] = find([name])
    if reason := commands.against(scenario, []):
        pytest.skip(reason)
    shorter = replace(scenario, document=structs.replace(scenario.document, warm_s=11.0, window_s=6.0))
    run = runs(shorter, seed=3, repeat=1)[0]
    folder = tmp_path / run.id
    told = record(run, folder, [])
    assert is_current(shorter, folder)
    assert not is_current(scenario, folder)
    assert told["times"]["began"]["wall"] <= told["times"]["effect"]["wall"] < told["times"]["ended"]["wall"]
    verdict = judge(folder, scenario, ({}, None))
    assert verdict.right is not None
    assert verdict.blames(verdict.right, 1)
    assert verdict.same_twice
    assert verdict.advice_violations == []
    assert {one.fault_class for one in verdict.live} >= {verdict.right.fault_class}
