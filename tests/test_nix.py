"""The Nix files parse, the lock is the flake's, outputs evaluate, the package is what pyproject.toml says.

Nothing is built here: nixpkgs stands in as miniatures (`tests/fixtures/nix`).
"""

import ast
import json
import re
import shutil
import subprocess
import tomllib

import pytest

from tests.fixtures.nixos import MINIATURES, ROOT, needs_nix, nix, value_of

SYSTEMS = ["aarch64-linux", "x86_64-linux"]
FILES = sorted(
    path for folder in ("*.nix", "nix/**/*.nix", "tests/fixtures/**/*.nix") for path in ROOT.glob(folder)
)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy of what the flake reads, without the rest of the checkout."""
    copy = tmp_path_factory.mktemp("flake") / "project"
    copy.mkdir()
    for name in ("flake.nix", "flake.lock", "module.nix", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "nix", copy / "nix")
    shutil.copytree(ROOT / "models/bundles/low", copy / "models/bundles/low")
    return copy


def over(project):
    """How the flake is asked with the miniatures in the place of nixpkgs."""
    return ["--no-write-lock-file", "--override-input", "nixpkgs", f"path:{MINIATURES}", f"path:{project}"]


# --- files, lock and outputs --------------------------------------------------------------------------------


@needs_nix
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_parses(path):
    done = nix("nix-instantiate", "--parse", str(path))
    assert done.returncode == 0, done.stderr


def test_lock_pins_the_branch_that_the_flake_names():
    lock = json.loads((ROOT / "flake.lock").read_text())
    nixpkgs = lock["nodes"]["nixpkgs"]
    url = re.search(r'nixpkgs\.url = "github:(.*)/(.*)/(.*)"', (ROOT / "flake.nix").read_text())
    owner, repo, ref = url.groups()
    assert nixpkgs["original"] == {"owner": owner, "repo": repo, "ref": ref, "type": "github"}
    assert re.fullmatch(r"[0-9a-f]{40}", nixpkgs["locked"]["rev"])
    assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", nixpkgs["locked"]["narHash"])


@needs_nix
def test_lock_is_up_to_date_and_an_outdated_one_is_noticed(project, tmp_path):
    ask = ("nix", "flake", "metadata", "--offline", "--no-update-lock-file")
    done = nix(*ask, f"path:{project}")
    assert done.returncode == 0, done.stderr
    moved = shutil.copytree(project, tmp_path / "moved")
    flake = (moved / "flake.nix").read_text()
    (moved / "flake.nix").write_text(flake.replace("nixos-26.05", "nixos-25.11"))
    assert nix(*ask, f"path:{moved}").returncode != 0


@needs_nix
def test_every_output_of_the_flake_evaluates_on_both_systems(project):
    every_system = "--all-systems" in nix("nix", "flake", "check", "--help").stdout
    done = nix("nix", "flake", "check", "--no-build", *["--all-systems"] * every_system, *over(project))
    assert done.returncode == 0, done.stderr


@needs_nix
def test_flake_offers_what_the_readme_says(project):
    names = "checks: builtins.mapAttrs (_: builtins.attrNames) checks"
    *how, where = over(project)
    done = nix("nix", "eval", "--json", *how, "--apply", names, f"{where}#checks")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == SYSTEMS
    tests = {f"vm-{path.stem}" for path in (ROOT / "nix/tests").glob("*.nix")}
    assert tests == {"vm-boot", "vm-incident", "vm-retrain", "vm-rollback"}
    for names in found.values():
        assert tests < set(names)


@needs_nix
def test_bundle_made_of_a_directory_is_verified_while_it_is_built(project):
    *how, where = over(project)
    make = """flake: (flake.makeBundle {
        pkgs.stdenv.hostPlatform.system = "x86_64-linux"; tier = "low"; src = "/somewhere";
    }).script"""
    done = nix("nix", "eval", "--json", *how, "--apply", make, f"{where}#lib")
    assert done.returncode == 0, done.stderr
    copied, checked = json.loads(done.stdout).splitlines()
    assert copied == "cp --recursive --no-preserve=mode /somewhere $out"
    assert re.search(r"/bin/hauswart models verify --tier low \$out$", checked)


@needs_nix
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "nix/tests").glob("*.nix")))
def test_script_of_a_vm_test_is_python(name):
    expression = f"""
        let
          lib = import {MINIATURES}/lib.nix;
          pkgs = (import {MINIATURES}/pkgs.nix {{ inherit lib; }}).extend (import {ROOT}/nix/overlay.nix);
        in (import {ROOT}/nix/tests/{name}.nix {{ inherit lib pkgs; }}).testScript
    """
    tree = ast.parse(value_of(expression))
    assert sum(isinstance(node, ast.With) for node in ast.walk(tree)) >= 2


# --- the package --------------------------------------------------------------------------------------------


def requirements(text):
    """Names in the order of a list of requirements."""
    return [re.match(r"[A-Za-z0-9-]+", one)[0] for one in text]


def test_python_packages_have_names_that_nixpkgs_knows():
    known = set((MINIATURES / "python-attributes.txt").read_text().split())
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = about["optional-dependencies"]
    asked = {*requirements(about["dependencies"]), *requirements(extras["training"] + extras["dev"])}
    assert asked - known == {"hauswart", "xllamacpp"}  # the shell has llama-cpp instead
    assert known - asked == {"setuptools"}


@needs_nix
@pytest.mark.parametrize(("name", "extra"), [("hauswart", []), ("hauswart-training", ["training"])])
def test_package_depends_on_what_pyproject_says(name, extra):
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*about["dependencies"], *(one for key in extra for one in about["optional-dependencies"][key])]
    assert value_of(package(name)) == requirements(asked)


# What nixpkgs' builder gives an install phase.
BUILDER = r"""
set -euo pipefail
runHook() { :; }
substituteInPlace() {
    local files=()
    while [ "$1" != --replace-quiet ]; do files+=("$1"); shift; done
    sed -i "s|$2|$3|g" "${files[@]}"
}
"""


@needs_nix
def test_package_has_the_units_with_its_own_program(tmp_path):
    done = nix("nix-instantiate", "--eval", "--json", "-E", package("hauswart", wanted="installPhase"))
    phase = BUILDER + json.loads(done.stdout)
    subprocess.run(
        ["bash", "-c", phase], cwd=ROOT, env={"out": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
    )
    units = {path.name: path.read_text() for path in (tmp_path / "lib/systemd/system").iterdir()}
    shipped = {path.name for path in (ROOT / "daemon/units").iterdir()}
    others = {path.name for path in (tmp_path / "lib/systemd/catalog").iterdir()}
    assert set(units) | others == shipped - {"hauswart.sysusers", "hauswart.tmpfiles"}
    assert f"ExecStart={tmp_path}/bin/hauswart --config" in units["hauswart-low.service"]
    assert [name for name, text in units.items() if "@hauswart@" in text] == []
    assert (tmp_path / "lib/tmpfiles.d/hauswart.conf").is_file()
    assert (tmp_path / "bin/hauswart").readlink().name == "hauswart"


@needs_nix
def test_package_of_the_daemon_refuses_what_is_older_than_its_bounds():
    with pytest.raises(ValueError, match=r"too old in this nixpkgs: msgspec 0\.19\.0 \(needed: 0\.20\)"):
        value_of(package("hauswart", 'msgspec = "0.19.0";'))


@needs_nix
def test_training_warns_of_what_is_older_than_its_bounds():
    old = package("hauswart-training", 'torch = "2.9";')
    done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", old)
    assert done.returncode == 0
    assert "torch 2.9 (needed:" in done.stderr


def package(name, versions="", wanted="requirements"):
    """An expression for the names of what a package requires, or another attribute of it."""
    return f"""
        let
          lib = import {MINIATURES}/lib.nix;
          pkgs = import {MINIATURES}/pkgs.nix {{ inherit lib; versions = {{ {versions} }}; }};
          names = map (one: one.name or one);
          found = (pkgs.extend (import {ROOT}/nix/overlay.nix)).{name}.{wanted};
        in if builtins.isList found then names found else found
    """
