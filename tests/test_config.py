"""The configuration: sources in order, and faults that name the key, the value and the nearest known key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import config
from daemon.errors import ConfigError
from daemon.settings import Settings, load_resolved, save_resolved


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(config, "DEFAULT_FILE", Path("/nonexistent/hauswart.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hauswart.toml"
    path.write_text(text)
    return path


def test_defaults_hold_without_a_file():
    assert config.load() == Settings()


def test_file_overrides_defaults_and_environment_overrides_file(tmp_path, monkeypatch):
    path = written(tmp_path, "[collect]\ninterval_s = 3\nprobe_interval_s = 60\n")
    monkeypatch.setenv("HAUSWART_COLLECT__INTERVAL_S", "2")
    found = config.load(path)
    assert (found.collect.interval_s, found.collect.probe_interval_s) == (2.0, 60.0)


def test_list_in_the_environment_is_json(monkeypatch):
    monkeypatch.setenv("HAUSWART_NOTIFY__TARGETS", '["json://127.0.0.1"]')
    assert config.load().notify.targets == ["json://127.0.0.1"]


def test_broken_list_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("HAUSWART_NOTIFY__TARGETS", '["json://127.0.0.1"')
    with pytest.raises(ConfigError, match="not a JSON list"):
        config.load()


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[collect]\nintervall_s = 3\n", "collect.intervall_s", "collect.interval_s"),
        ("interval_s = 3\n", "interval_s", "collect.interval_s"),
        ("[notfy]\nfloor = 'error'\n", "notfy", "notify"),
    ],
)
def test_unknown_key_is_refused_and_the_nearest_named(tmp_path, text, key, near):
    with pytest.raises(ConfigError, match=key) as caught:
        config.load(written(tmp_path, text))
    assert near in caught.value.hint


def test_unknown_variable_is_refused_and_the_nearest_named(monkeypatch):
    monkeypatch.setenv("HAUSWART_COLECT__INTERVAL_S", "2")
    with pytest.raises(ConfigError, match="HAUSWART_COLECT__INTERVAL_S") as caught:
        config.load()
    assert "HAUSWART_COLLECT__INTERVAL_S" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "[collect]\ninterval_s = 0\n",
        "[collect]\ninterval_s = 'often'\n",
        "[notify]\nfloor = 'loud'\n",
        "collect = 3\n",
        "[low]\ntemplates_max = -1\n",
    ],
)
def test_value_out_of_range_is_refused_with_its_key(tmp_path, text):
    with pytest.raises(ConfigError, match="setting '"):
        config.load(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "[notify]\nalertmanager = 'hunter2:9093'\n",
        "[metrics]\notlp = 'hunter2:4318'\n",
        "[notify]\ntargets = ['json://h', 'hunter2']\n",
    ],
)
def test_address_that_nothing_can_be_sent_to_is_refused_without_quoting_it(tmp_path, text):
    with pytest.raises(ConfigError, match=r"no http address|target 2 is not") as caught:
        config.load(written(tmp_path, text))
    assert "hunter2" not in str(caught.value)


def test_file_of_targets_need_not_be_readable_to_whoever_reads_the_settings(tmp_path):
    text = "[notify]\ntargets_file = '/nonexistent/targets'\nalertmanager = 'http://127.0.0.1:9093'\n"
    assert config.load(written(tmp_path, text)).notify.targets_file == "/nonexistent/targets"


@pytest.mark.parametrize("raw", [b"[collect\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_file_that_is_not_toml_is_refused(tmp_path, raw):
    path = tmp_path / "hauswart.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=str(path)):
        config.load(path)


def test_named_file_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "none.toml")


def test_state_dir_takes_the_runtime_directory_with_it(tmp_path, monkeypatch):
    assert config.load(state_dir=tmp_path).runtime == tmp_path / "run"
    monkeypatch.setenv("HAUSWART_STATE_DIR", str(tmp_path / "other"))
    assert config.load().runtime == tmp_path / "other" / "run"


def test_stages_read_back_what_was_resolved(tmp_path):
    before = config.load(written(tmp_path, "[notify]\nhook = ['/bin/true']\n"))
    save_resolved(before, tmp_path / "resolved.json")
    assert load_resolved(tmp_path / "resolved.json") == before


def test_resolved_settings_that_are_damaged_are_refused(tmp_path):
    (tmp_path / "resolved.json").write_text('{"collect": {"interval_s": "x"}}')
    with pytest.raises(ConfigError, match="resolved settings"):
        load_resolved(tmp_path / "resolved.json")


@pytest.mark.parametrize("stage", ["collector", "low", "middle", "top"])
def test_resident_stage_imports_nothing_heavy(stage):
    code = (
        f"import sys, daemon.stages.{stage}\n"
        "heavy = {'pydantic', 'typer', 'rich', 'click', 'numpy', 'torch', 'apprise', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
