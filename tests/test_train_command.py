"""`hauswart train`: the group of verbs, what it costs when nobody asks, and what is said of what it lacks."""

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import typer

from daemon.command.app import app as root
from daemon.command.app import main
from training.app import MODULES, VERBS, app

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _group():
    """The group as a checkout without an installation of its own has it."""
    if all(group.name != "train" for group in root.registered_groups):
        root.add_typer(app, name="train")


def there(verb):
    return (ROOT / "training" / f"{MODULES.get(verb, verb.replace('-', '_'))}.py").exists()


def test_entry_point_names_the_group():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    value = declared["hauswart.commands"]["train"]
    assert isinstance(EntryPoint("train", value, "hauswart.commands").load(), typer.Typer)
    installed = [one.value for one in entry_points(group="hauswart.commands", name="train")]
    if not installed:
        pytest.skip("installed before the group was declared: make setup-test")
    assert set(installed) == {value}


def test_help_names_every_verb_and_imports_none():
    code = (
        "import sys\n"
        "from daemon.command.app import app, main\n"
        "import training.app\n"
        "app.registered_groups = [g for g in app.registered_groups if g.name != 'train']\n"
        "app.add_typer(training.app.app, name='train')\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('torch', 'transformers', 'numpy', 'training.evaluate') if m in sys.modules]\n"
        "print('heavy:', heavy)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in run.stdout
    assert all(f" {verb} " in run.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if there(verb)])
def test_each_verb_has_help_and_a_command(verb, capsys):
    assert main(["train", verb, "--help"]) == 0
    assert "Usage: hauswart train" in capsys.readouterr().out


def test_unknown_verb_is_a_usage_error_and_not_a_missing_package(capsys):
    assert main(["train", "evalute"]) == 2
    assert "evalute" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["torch", "pyarrow"])
def test_host_without_the_training_packages_is_told_how_to_get_them(package, tmp_path):
    block = f"import sys, runpy; sys.modules[{package!r}] = None; "
    code = block + "runpy.run_module('training', run_name='__main__', alter_sys=True)"
    (tmp_path / "rows.csv").write_text("text,group\na b c,g\n")
    arguments = ["dataset", "--table", tmp_path / "rows.csv", "--out", tmp_path / "rows.parquet"]
    if package == "torch":
        arguments = ["finetune", tmp_path / "rows.parquet", "--tier", "low", "--base", "shape:albert-1x16"]
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 3, run.stderr
    assert package in run.stderr
    assert "hauswart[training]" in run.stderr


def test_defect_of_our_own_modules_is_not_called_a_missing_package(monkeypatch):
    monkeypatch.setattr("training.verbs.import_module", lambda _name: import_module("training.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        main(["train", "report", "x"])


def test_verbs_run_without_the_command_being_installed():
    run = subprocess.run(
        [sys.executable, "-m", "training", "pipeline", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "hauswart train" in run.stdout
