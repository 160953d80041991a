"""The NixOS module with right and wrong values, and against the daemon's settings and the shipped units."""

import json
import os
import re
import shutil
import subprocess

import pytest

from daemon import config
from daemon.command.configure import _as_toml
from daemon.inquiries import CREDENTIAL as SERVED_CREDENTIAL
from daemon.installation.served import reachable
from daemon.notify.channels import CREDENTIAL
from daemon.web.serve import CREDENTIAL as PAGE_CREDENTIAL
from tests.fixtures.nixos import LIBS, ROOT, TIMEOUT_S, host, needs_nix

pytestmark = needs_nix
UNITS = ROOT / "daemon/units"
EVERYTHING = """{
  enable = true;
  bundles.top = ./models/bundles/top;
  bundles.middle = "/var/lib/models/middle";
  limits.CPUQuota = "50%";
  retrain.enable = true;
  retrain.schedule = "Sun 04:00";
  notify.targetsFile = "/run/secrets/targets";
  notify.hook = [ "/bin/tell" "me" ];
  web.enable = true;
  web.listen = "/run/hauswart-web.sock";
  web.passwordFile = "/run/secrets/page";
  served.url = "http://127.0.0.1:11434/v1";
  served.model = "big";
  served.keyFile = "/run/secrets/served";
  readers.kernelLog = true;
  readers.dnsProbe = "example.org";
  readers.gatewayProbe = true;
  readers.follow = [ "/var/log/nginx/error.log" ];
  readers.groups = [ "nginx" "adm" ];
  operators = [ "alice" ];
  settings.language = "de";
  settings.models.allowed_signers = "/etc/hauswart/signers";
}"""


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


# --- the module: right and wrong values ---------------------------------------------------------------------


@pytest.mark.parametrize("lib", LIBS)
def test_one_option_enables_it_and_nothing_else_is_wrong(lib):
    found = host("{ enable = true; }", lib)
    assert found["assertions"] == []
    assert found["units"]["hauswart.target"]["wantedBy"] == ["multi-user.target"]
    assert found["packages"] == {"system": ["hauswart"], "units": ["hauswart"], "tmpfiles": ["hauswart"]}
    assert "hauswart-retrain.timer" not in found["units"]


def test_disabled_it_leaves_no_trace():
    found = host('{ settings.language = "de"; operators = [ "alice" ]; }')
    assert (found["units"], found["users"], found["groups"], found["etc"]) == ({}, {}, {}, {})


@pytest.mark.skipif(len(LIBS) == 1, reason="NIXPKGS_LIB names no copy of nixpkgs' lib")
@pytest.mark.parametrize("options", ["{ enable = true; }", EVERYTHING])
def test_miniature_and_nixpkgs_agree(options):
    def plain(host):
        return re.sub(r"/store/[a-z0-9]{32}-", "/store/", json.dumps(host, sort_keys=True))

    assert plain(host(options, "miniature")) == plain(host(options, "nixpkgs"))


def test_every_option_is_documented():
    def leaves(options, at=""):
        for name, one in options.items():
            if "described" in one:
                yield f"{at}{name}", one["described"]
            else:
                yield from leaves(one, f"{at}{name}.")

    found = dict(leaves(host("{ }", wanted="options")))
    assert {"enable", "package", "settings", "bundles.low", "retrain.schedule"} < set(found)
    assert [name for name, described in found.items() if not described] == []


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
        'served.url = "http://localhost"; served.consent = [ "everything" ];',
        'served.url = "http://localhost"; served.keyFile = "key";',
    ],
)
def test_wrong_value_is_refused(lib, wrong):
    with pytest.raises(ValueError, match=r"services.hauswart|enabel"):
        host(f"{{ enable = true; {wrong} }}".replace("enable = true; enable", "enable"), lib)


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
        ('served.url = "https://api.example.org/v1";', "would send it redacted log lines"),
        ('settings.top.served.url = "http://192.0.2.7";', "192.0.2.7 is not this host"),
        ('retrain.enable = true; bundles.low = "/a";', "could never serve"),
        ('retrain.enable = true; settings.models.low = "off";', "could never serve"),
    ],
)
def test_combination_that_cannot_work_explains_itself(lib, options, says):
    package = "(pkgs.callPackage ./nix/package.nix { })"
    options = options.replace("services.hauswart.package;", f"{package};")
    found = host(f"{{ enable = true; {options} }}", lib)
    assert len(found["assertions"]) == 1
    assert says in " ".join(found["assertions"][0].split())


# --- the module against the daemon and its units ------------------------------------------------------------


def test_settings_of_all_options_are_settings_of_the_daemon(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    found = host(EVERYTHING)
    file = tmp_path / "hauswart.toml"
    file.write_text(_as_toml(found["settings"]))
    read = config.load(file)
    assert (read.collect.kernel_log, read.collect.dns_probe) == ("on", "example.org")
    assert read.collect.gateway_probe
    assert read.collect.follow == ["/var/log/nginx/error.log"]
    assert read.notify.hook == ["/bin/tell", "me"]
    assert read.models.top.endswith("-hauswart-bundle-top")
    assert (read.models.low, read.models.middle) == ("auto", "/var/lib/models/middle")
    assert (read.top.served.url, read.top.served.model) == ("http://127.0.0.1:11434/v1", "big")
    assert read.language == "de"


def test_settings_are_checked_while_the_system_is_built_unless_told_otherwise():
    script = host("{ enable = true; }")["etc"]["hauswart/hauswart.toml"]
    assert re.search(r"/bin/hauswart config check \S+-hauswart\.toml\n", script)
    unchecked = host("{ enable = true; checkConfig = false; }")
    assert unchecked["etc"]["hauswart/hauswart.toml"] == "hauswart.toml"


def test_users_are_those_of_the_other_systems():
    found = host('{ enable = true; operators = [ "alice" ]; }')
    lines = [line.split(None, 3) for line in (UNITS / "hauswart.sysusers").read_text().splitlines()]
    users = {line[1]: line[2] for line in lines if line[:1] == ["u"]}
    groups = {line[1] for line in lines if line[:1] == ["g"]}
    assert set(found["users"]) == set(users)
    assert groups == set(found["groups"]) == {"hauswart"}
    assert found["groups"]["hauswart"]["members"] == ["alice"]
    for name, numbers in users.items():
        assert found["users"][name]["isSystemUser"]
        assert found["users"][name]["group"] == numbers.partition(":")[2]


def test_limits_and_schedule_default_to_the_shipped_ones():
    found = host("{ enable = true; retrain.enable = true; }")
    for name, limits in (("hauswart.slice", "watch"), ("hauswart_retrain.slice", "retrain")):
        slice_ = shipped(name)["Slice"]
        assert found["limits"][limits] == {key: slice_[key][0] for key in found["limits"][limits]}
        assert found["units"][name]["Slice"] == found["limits"][limits]
    timer = shipped("hauswart-retrain.timer")
    assert found["units"]["hauswart-retrain.timer"]["Timer"]["OnCalendar"] == [
        "",
        *timer["Timer"]["OnCalendar"],
    ]
    assert found["units"]["hauswart-retrain.timer"]["wantedBy"] == timer["Install"]["WantedBy"]
    assert found["units"]["hauswart.target"]["wantedBy"] == shipped("hauswart.target")["Install"]["WantedBy"]


def test_what_it_changes_are_drop_ins_of_shipped_units():
    units = host(EVERYTHING)["units"]
    own = {name for name, unit in units.items() if unit["overrideStrategy"] != "asDropin"}
    assert own == {"hauswart-catalog.service"}
    assert [name for name in units if name not in own and not (UNITS / name).exists()] == []


def test_retraining_runs_the_shipped_command_from_the_package_that_can():
    reset, command = host(EVERYTHING)["units"]["hauswart-retrain.service"]["Service"]["ExecStart"]
    (expected,) = shipped("hauswart-retrain.service")["Service"]["ExecStart"]
    assert reset == ""
    assert re.sub(r"^\S+-hauswart-training/bin/hauswart", "@hauswart@", command) == expected


def test_targets_reach_the_notifying_stage_as_the_credential_that_it_reads():
    found = host(EVERYTHING)
    assert found["units"]["hauswart-notify.service"]["Service"]["LoadCredential"] == [
        "",
        f"{CREDENTIAL}:/run/secrets/targets",
    ]
    assert shipped("hauswart-notify.service")["Service"]["LoadCredential"] == [CREDENTIAL]
    assert "/run/secrets/targets" not in json.dumps(found["settings"])


def test_page_listens_where_it_is_told_and_asks_for_its_password():
    found = host(EVERYTHING)
    socket = found["units"]["hauswart-web.socket"]
    assert socket["Socket"]["ListenStream"] == ["", "/run/hauswart-web.sock"]
    assert socket["wantedBy"] == shipped("hauswart-web.socket")["Install"]["WantedBy"]
    given = found["units"]["hauswart-web.service"]["Service"]["LoadCredential"]
    assert given == ["", f"{PAGE_CREDENTIAL}:/run/secrets/page"]
    assert shipped("hauswart-web.service")["Service"]["LoadCredential"] == [PAGE_CREDENTIAL]
    assert found["settings"]["web"] == {"auth": "password"}
    assert "hauswart-web.socket" not in host("{ enable = true; }")["units"]


def test_top_tier_reaches_the_served_model_and_nothing_else():
    def top(options):
        return host(f"{{ enable = true; {options} }}")["units"]["hauswart-top.service"]["Service"]

    opened = {"PrivateNetwork": False, "RestrictAddressFamilies": "AF_INET AF_INET6"}
    assert top("") == {}
    assert top('served.url = "http://localhost:1";') == opened | {
        "LoadCredential": SERVED_CREDENTIAL,
        "IPAddressAllow": "localhost",
    }
    for url in (
        "http://192.0.2.7",
        "http://[2001:db8::1]:8080/v1",
        "https://api.example.org/v1",
        "http://[::1]",
    ):
        found = top(f'served.url = "{url}"; served.consent = [ "evidence" ];')
        assert found["IPAddressAllow"] == reachable(url)
    key = top('settings.top.served.url = "http://127.0.0.1"; served.keyFile = "/k";')["LoadCredential"]
    assert key == f"{SERVED_CREDENTIAL}:/k"


def test_only_changed_settings_reload_each_stage():
    units = host("{ enable = true; }")["units"]
    wanted = " ".join(shipped("hauswart.target")["Unit"]["Wants"]).split()
    stages = [name for name in wanted if name.endswith(".service")]
    assert len(stages) == 5
    for name in stages:
        assert units[name]["reloads"] == ["hauswart-checked.toml"]
        assert "ExecReload" in shipped(name)["Service"]


def test_changed_settings_restart_the_page_where_there_is_one():
    assert host("{ enable = true; web.enable = true; }")["units"]["hauswart-web.service"]["restarts"] == [
        "hauswart-checked.toml"
    ]
    assert "hauswart-web.service" not in host("{ enable = true; }")["units"]


def test_collector_gets_no_more_than_its_readers_need():
    def collector(options):
        found = host(f"{{ enable = true; {options} }}")
        return found["units"]["hauswart-collector.service"]["Service"]

    assert collector("") == {}
    assert collector("readers.gatewayProbe = true;") == {
        "RestrictAddressFamilies": "AF_INET AF_INET6",
        "IPAddressAllow": "any",
    }
    kernel = collector("readers.kernelLog = true;")
    assert kernel["AmbientCapabilities"] == kernel["CapabilityBoundingSet"] == "CAP_SYSLOG"
    assert "IPAddressAllow" not in kernel


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units_with_all_drop_ins(tmp_path):
    """systemd-analyze says what it does not know on standard error and calls it a success."""
    for path in UNITS.glob("*.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("@hauswart@", "/bin/true"))
    for name, unit in host(EVERYTHING)["units"].items():
        text = re.sub(r"[^\s=]+/bin/(mkdir|ln|journalctl|hauswart)", "/bin/true", rendered(unit))
        dropped = unit["overrideStrategy"] == "asDropin"
        target = tmp_path / (f"{name}.d/overrides.conf" if dropped else name)
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    units = [
        str(path)
        for path in tmp_path.glob("*.*")
        if path.suffix in {".service", ".slice", ".socket", ".timer", ".target"}
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
    for section in ("Unit", "Service", "Slice", "Socket", "Timer"):
        lines += [f"[{section}]"] if unit[section] else []
        for key, value in unit[section].items():
            for one in value if isinstance(value, list) else [value]:
                lines.append(f"{key}={str(one).lower() if isinstance(one, bool) else one}")
    return "\n".join(lines) + "\n"
