"""The Nix files: they parse, the lock is the flake's, the module says what the daemon and its units know.

Nothing is built here: nixpkgs stands in as miniatures (`tests/fixtures/nix`). With NIXPKGS_LIB set to a copy
of nixpkgs' `lib`, the module is evaluated by that too.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from daemon import config
from daemon.command.configure import _as_toml
from daemon.notify.channels import CREDENTIAL

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "daemon/units"
MINIATURES = ROOT / "tests/fixtures/nix"
LIBS = {"miniature": MINIATURES / "lib.nix"}
if "NIXPKGS_LIB" in os.environ:
    LIBS["nixpkgs"] = Path(os.environ["NIXPKGS_LIB"])
SYSTEMS = ["aarch64-linux", "x86_64-linux"]
FILES = sorted(
    path for folder in ("*.nix", "nix/**/*.nix", "tests/fixtures/**/*.nix") for path in ROOT.glob(folder)
)
TIMEOUT_S = 60

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="Nix is not installed (Debian: apt-get install nix-bin)"
)
needs_verify = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)

EVERYTHING = """{
  enable = true;
  bundles.top = ./models/bundles/top;
  bundles.middle = "/var/lib/models/middle";
  limits.CPUQuota = "50%";
  retrain.enable = true;
  retrain.schedule = "Sun 04:00";
  notify.targetsFile = "/run/secrets/targets";
  notify.hook = [ "/bin/tell" "me" ];
  readers.kernelLog = true;
  readers.dnsProbe = "example.org";
  readers.gatewayProbe = true;
  readers.follow = [ "/var/log/nginx/error.log" ];
  readers.groups = [ "nginx" "adm" ];
  operators = [ "alice" ];
  settings.language = "de";
  settings.models.allowed_signers = "/etc/hauswart/signers";
}"""


@pytest.fixture(scope="session")
def nix(tmp_path_factory):
    """Runs a Nix program on a store of its own."""
    scratch = tmp_path_factory.mktemp("nix")
    own = {
        "NIX_STORE_DIR": f"{scratch}/store",
        "NIX_STATE_DIR": f"{scratch}/state",
        "NIX_LOG_DIR": f"{scratch}/log",
        "NIX_CONF_DIR": f"{scratch}/etc",
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "NIX_CONFIG": "experimental-features = nix-command flakes\nbuild-users-group =\nsubstituters =",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIX_")}

    def run(*arguments, cwd=ROOT):
        return subprocess.run(
            arguments, cwd=cwd, env=kept | own, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    return run


@pytest.fixture(scope="session")
def evaluate(nix):
    """What a host with these options of services.hauswart is like; raises ValueError where Nix does."""

    def run(options, lib="miniature", wanted="summary"):
        expression = f"""
            let
              lib = import {LIBS[lib]};
              pkgs = import {MINIATURES}/pkgs.nix {{ inherit lib; }};
              configuration = {{ imports = [ {ROOT}/module.nix ]; services.hauswart = {options}; }};
            in (import {MINIATURES}/host.nix {{ inherit lib pkgs configuration; }}).{wanted}
        """
        done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", expression)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return json.loads(done.stdout)

    return run


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


def shipped(name):
    """A shipped unit: section, key, all its values."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


# --- files, lock and outputs --------------------------------------------------------------------------------


@needs_nix
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_parses(nix, path):
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
def test_lock_is_up_to_date_and_an_outdated_one_is_noticed(nix, project, tmp_path):
    ask = ("nix", "flake", "metadata", "--no-update-lock-file")
    done = nix(*ask, f"path:{project}")
    assert done.returncode == 0, done.stderr
    moved = shutil.copytree(project, tmp_path / "moved")
    flake = (moved / "flake.nix").read_text()
    (moved / "flake.nix").write_text(flake.replace("nixos-26.05", "nixos-25.11"))
    assert nix(*ask, f"path:{moved}").returncode != 0


@needs_nix
def test_every_output_of_the_flake_evaluates_on_both_systems(nix, project):
    every_system = "--all-systems" in nix("nix", "flake", "check", "--help").stdout
    done = nix("nix", "flake", "check", "--no-build", *["--all-systems"] * every_system, *over(project))
    assert done.returncode == 0, done.stderr


@needs_nix
def test_flake_offers_what_the_readme_says(nix, project):
    done = nix(
        "nix",
        "eval",
        "--json",
        "--no-write-lock-file",
        "--override-input",
        "nixpkgs",
        f"path:{MINIATURES}",
        "--apply",
        "checks: builtins.mapAttrs (_: builtins.attrNames) checks",
        f"path:{project}#checks",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == SYSTEMS
    tests = {f"vm-{path.stem}" for path in (ROOT / "nix/tests").glob("*.nix")}
    assert tests == {"vm-boot", "vm-incident", "vm-retrain", "vm-rollback"}
    for names in found.values():
        assert tests < set(names)


@needs_nix
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "nix/tests").glob("*.nix")))
def test_script_of_a_vm_test_is_python(nix, name):
    expression = f"""
        let
          lib = import {MINIATURES}/lib.nix;
          pkgs = (import {MINIATURES}/pkgs.nix {{ inherit lib; }}).extend (import {ROOT}/nix/overlay.nix);
        in (import {ROOT}/nix/tests/{name}.nix {{ inherit lib pkgs; }}).testScript
    """
    done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", expression)
    assert done.returncode == 0, done.stderr
    tree = ast.parse(json.loads(done.stdout))
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
    assert asked - known == {"hauswart"}
    assert known - asked == {"setuptools"}


@needs_nix
@pytest.mark.parametrize(("name", "extra"), [("hauswart", []), ("hauswart-training", ["training"])])
def test_package_depends_on_what_pyproject_says(nix, name, extra):
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*about["dependencies"], *(one for key in extra for one in about["optional-dependencies"][key])]
    done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", package(name))
    assert json.loads(done.stdout) == requirements(asked), done.stderr


@needs_nix
def test_package_of_the_daemon_refuses_what_is_older_than_its_bounds(nix):
    done = nix(
        "nix-instantiate", "--eval", "--strict", "--json", "-E", package("hauswart", 'msgspec = "0.19.0";')
    )
    assert done.returncode != 0
    assert "too old in this nixpkgs: msgspec 0.19.0 (needed: 0.20)" in done.stderr


@needs_nix
def test_training_warns_of_what_is_older_than_its_bounds(nix):
    old = package("hauswart-training", 'torch = "2.9";')
    done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", old)
    assert done.returncode == 0
    assert "torch 2.9 (needed:" in done.stderr


def package(name, versions=""):
    """An expression for the names of what a package requires."""
    return f"""
        let
          lib = import {MINIATURES}/lib.nix;
          pkgs = import {MINIATURES}/pkgs.nix {{ inherit lib; versions = {{ {versions} }}; }};
        in map (one: one.name) (pkgs.extend (import {ROOT}/nix/overlay.nix)).{name}.requirements
    """


# --- the module: right and wrong values ---------------------------------------------------------------------


@needs_nix
@pytest.mark.parametrize("lib", LIBS)
def test_one_option_enables_it_and_nothing_else_is_wrong(evaluate, lib):
    host = evaluate("{ enable = true; }", lib)
    assert host["assertions"] == []
    assert host["units"]["hauswart.target"]["wantedBy"] == ["multi-user.target"]
    assert host["packages"] == {"system": ["hauswart"], "units": ["hauswart"], "tmpfiles": ["hauswart"]}
    assert "hauswart-retrain.timer" not in host["units"]


@needs_nix
def test_disabled_it_leaves_no_trace(evaluate):
    host = evaluate('{ settings.language = "de"; operators = [ "alice" ]; }')
    assert (host["units"], host["users"], host["groups"], host["etc"]) == ({}, {}, {}, {})


@needs_nix
@pytest.mark.skipif(len(LIBS) == 1, reason="NIXPKGS_LIB names no copy of nixpkgs' lib")
@pytest.mark.parametrize("options", ["{ enable = true; }", EVERYTHING])
def test_miniature_and_nixpkgs_agree(evaluate, options):
    def plain(host):
        return re.sub(r"/store/[a-z0-9]{32}-", "/store/", json.dumps(host, sort_keys=True))

    assert plain(evaluate(options, "miniature")) == plain(evaluate(options, "nixpkgs"))


@needs_nix
def test_every_option_is_documented(evaluate):
    def leaves(options, at=""):
        for name, one in options.items():
            if "described" in one:
                yield f"{at}{name}", one["described"]
            else:
                yield from leaves(one, f"{at}{name}.")

    found = dict(leaves(evaluate("{ }", wanted="options")))
    assert {"enable", "package", "settings", "bundles.low", "retrain.schedule"} < set(found)
    assert [name for name, described in found.items() if not described] == []


@needs_nix
@pytest.mark.parametrize("lib", LIBS)
@pytest.mark.parametrize(
    "wrong",
    [
        'enable = "yes";',
        "enabel = true;",
        "readers.kernel = true;",
        'bundles.low = "relative/path";',
        "bundles.highest = null;",
        'limits.CPUQuota = "one core";',
        'limits.MemoryMax = "512 MB";',
        'retrain.enable = true; retrain.schedule = "daily\\nExecStart=/bin/sh";',
        'notify.hook = "/bin/tell";',
        'notify.targetsFile = "targets";',
        "operators = [ 1 ];",
        "settings.collect.interval_s = x: x;",
        'bundles.low = "/a"; settings.models.low = "/b";',
    ],
)
def test_wrong_value_is_refused(evaluate, lib, wrong):
    with pytest.raises(ValueError, match=r"services.hauswart|enabel"):
        evaluate(f"{{ enable = true; {wrong} }}".replace("enable = true; enable", "enable"), lib)


@needs_nix
@pytest.mark.parametrize("lib", LIBS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ('settings.notify.targets = [ "ntfy://secret" ];', "services.hauswart.notify.targetsFile"),
        ('settings.state_dir = "/srv";', "mount it there"),
        ("settings.collect.smart = true;", "services.smartd"),
        (
            "retrain.enable = true; retrain.package = services.hauswart.package;",
            "Take hauswart-training",
        ),
        ('retrain.enable = true; bundles.low = "/a";', "could never serve"),
        ('retrain.enable = true; settings.models.low = "off";', "could never serve"),
    ],
)
def test_combination_that_cannot_work_explains_itself(evaluate, lib, options, says):
    package = "(pkgs.callPackage ./nix/package.nix { })"
    options = options.replace("services.hauswart.package;", f"{package};")
    host = evaluate(f"{{ enable = true; {options} }}", lib)
    assert len(host["assertions"]) == 1
    assert says in " ".join(host["assertions"][0].split())


# --- the module against the daemon and its units ------------------------------------------------------------


@needs_nix
def test_settings_of_all_options_are_settings_of_the_daemon(evaluate, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    host = evaluate(EVERYTHING)
    file = tmp_path / "hauswart.toml"
    file.write_text(_as_toml(host["settings"]))
    found = config.load(file)
    assert (found.collect.kernel_log, found.collect.dns_probe) == ("on", "example.org")
    assert found.collect.gateway_probe
    assert found.collect.follow == ["/var/log/nginx/error.log"]
    assert found.notify.hook == ["/bin/tell", "me"]
    assert found.models.top.endswith("-hauswart-bundle-top")
    assert (found.models.low, found.models.middle) == ("auto", "/var/lib/models/middle")
    assert found.language == "de"


@needs_nix
def test_settings_are_checked_while_the_system_is_built_unless_told_otherwise(evaluate):
    script = evaluate("{ enable = true; }")["etc"]["hauswart/hauswart.toml"]
    assert re.search(r"/bin/hauswart config check \S+-hauswart\.toml\n", script)
    unchecked = evaluate("{ enable = true; checkConfig = false; }")
    assert unchecked["etc"]["hauswart/hauswart.toml"] == "hauswart.toml"


@needs_nix
def test_users_are_those_of_the_other_systems(evaluate):
    host = evaluate('{ enable = true; operators = [ "alice" ]; }')
    lines = [line.split(None, 3) for line in (UNITS / "hauswart.sysusers").read_text().splitlines()]
    users = {line[1]: line[2] for line in lines if line[:1] == ["u"]}
    groups = {line[1] for line in lines if line[:1] == ["g"]}
    assert set(host["users"]) == set(users)
    assert groups == set(host["groups"]) == {"hauswart"}
    assert host["groups"]["hauswart"]["members"] == ["alice"]
    for name, numbers in users.items():
        assert host["users"][name]["isSystemUser"]
        assert host["users"][name]["group"] == numbers.partition(":")[2]


@needs_nix
def test_limits_and_schedule_default_to_the_shipped_ones(evaluate):
    host = evaluate("{ enable = true; retrain.enable = true; }")
    for name, limits in (("hauswart.slice", "watch"), ("hauswart_retrain.slice", "retrain")):
        slice_ = shipped(name)["Slice"]
        assert host["limits"][limits] == {key: slice_[key][0] for key in host["limits"][limits]}
        assert host["units"][name]["Slice"] == host["limits"][limits]
    timer = shipped("hauswart-retrain.timer")
    assert host["units"]["hauswart-retrain.timer"]["Timer"]["OnCalendar"] == [
        "",
        *timer["Timer"]["OnCalendar"],
    ]
    assert host["units"]["hauswart-retrain.timer"]["wantedBy"] == timer["Install"]["WantedBy"]
    assert host["units"]["hauswart.target"]["wantedBy"] == shipped("hauswart.target")["Install"]["WantedBy"]


@needs_nix
def test_what_it_changes_are_drop_ins_of_shipped_units(evaluate):
    units = evaluate(EVERYTHING)["units"]
    own = {name for name, unit in units.items() if unit["overrideStrategy"] != "asDropin"}
    assert own == {"hauswart-catalog.service"}
    assert [name for name in units if name not in own and not (UNITS / name).exists()] == []


@needs_nix
def test_retraining_runs_the_shipped_command_from_the_package_that_can(evaluate):
    reset, command = evaluate(EVERYTHING)["units"]["hauswart-retrain.service"]["Service"]["ExecStart"]
    (expected,) = shipped("hauswart-retrain.service")["Service"]["ExecStart"]
    assert reset == ""
    assert re.sub(r"^\S+-hauswart-training/bin/hauswart", "@hauswart@", command) == expected


@needs_nix
def test_targets_reach_the_notifying_stage_as_the_credential_that_it_reads(evaluate):
    host = evaluate(EVERYTHING)
    assert host["units"]["hauswart-notify.service"]["Service"]["LoadCredential"] == [
        "",
        f"{CREDENTIAL}:/run/secrets/targets",
    ]
    assert shipped("hauswart-notify.service")["Service"]["LoadCredential"] == [CREDENTIAL]
    assert "/run/secrets/targets" not in json.dumps(host["settings"])


@needs_nix
def test_only_changed_settings_reload_each_stage(evaluate):
    units = evaluate("{ enable = true; }")["units"]
    wanted = " ".join(shipped("hauswart.target")["Unit"]["Wants"]).split()
    stages = [name for name in wanted if name.endswith(".service")]
    assert len(stages) == 5
    for name in stages:
        assert units[name]["reloads"] == ["hauswart-checked.toml"]
        assert "ExecReload" in shipped(name)["Service"]


@needs_nix
def test_collector_gets_no_more_than_its_readers_need(evaluate):
    def collector(options):
        host = evaluate(f"{{ enable = true; {options} }}")
        return host["units"]["hauswart-collector.service"]["Service"]

    assert collector("") == {}
    assert collector("readers.gatewayProbe = true;") == {
        "RestrictAddressFamilies": "AF_INET AF_INET6",
        "IPAddressAllow": "any",
    }
    kernel = collector("readers.kernelLog = true;")
    assert kernel["AmbientCapabilities"] == kernel["CapabilityBoundingSet"] == "CAP_SYSLOG"
    assert "IPAddressAllow" not in kernel


@needs_nix
@needs_verify
def test_systemd_understands_the_units_with_all_drop_ins(evaluate, tmp_path):
    """systemd-analyze says what it does not know on standard error and calls it a success."""
    for path in UNITS.glob("*.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("@hauswart@", "/bin/true"))
    for name, unit in evaluate(EVERYTHING)["units"].items():
        text = re.sub(r"[^\s=]+/bin/(mkdir|ln|journalctl|hauswart)", "/bin/true", rendered(unit))
        dropped = unit["overrideStrategy"] == "asDropin"
        target = tmp_path / (f"{name}.d/overrides.conf" if dropped else name)
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    units = [
        str(path)
        for path in tmp_path.glob("*.*")
        if path.suffix in {".service", ".slice", ".timer", ".target"}
    ]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "hauswart" in line]
    assert complaints == []
    assert done.returncode == 0, done.stderr


def rendered(unit):
    """A unit's text as NixOS writes it."""
    lines = []
    for section in ("Unit", "Service", "Slice", "Timer"):
        lines += [f"[{section}]"] if unit[section] else []
        for key, value in unit[section].items():
            for one in value if isinstance(value, list) else [value]:
                lines.append(f"{key}={str(one).lower() if isinstance(one, bool) else one}")
    return "\n".join(lines) + "\n"
