"""The units and their installation, as far as that can be told without starting them.

`test_units_live.py` starts them in a container.
"""

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.errors import ConfigError, LockedError, MissingDependencyError
from daemon.installation import files, install, served
from daemon.installation.host import Host
from daemon.locks import FileLock
from daemon.message_ids import MessageId
from daemon.stages.entry import MODULES
from daemon.tiers.view import own_unit

ROOT = Path(__file__).parents[1]
PROGRAM = Path("/opt/hauswart/bin/hauswart")
TIERS = ("low", "middle", "top")
SERVICES = sorted(path.name for path in files.UNITS.glob("*.service"))
CATALOGUES = ("hauswart.catalog", "hauswart.de.catalog")
# systemd.exec(5): what keeps a stage from others' processes, from the network and from the disk.
EVERYWHERE = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0027",
    "LimitCORE": "0",
}
NO_NETWORK = {"PrivateNetwork": "yes", "IPAddressDeny": "any", "RestrictAddressFamilies": "AF_UNIX"}

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (package systemd)"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files get other owners")


def parsed(name):
    found = configparser.RawConfigParser(strict=False, delimiters=("=",))
    found.optionxform = str
    found.read_string((files.UNITS / name).read_text())
    return {section: dict(found[section]) for section in found.sections()}


def values(name, key):
    """All lines of a key: what a parser of ini files would give only the last of."""
    return re.findall(rf"^{key}=(.*)$", (files.UNITS / name).read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The units as they are installed, for a program that exists."""
    folder = tmp_path_factory.mktemp("units")
    for one in files.files_of(Path("/bin/true")):
        if one.path.parent.name == "system":
            (folder / one.path.name).write_bytes(one.content)
    return folder


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@needs_analyze
def test_systemd_finds_nothing_to_complain_of(rendered):
    done = analyze("verify", *sorted(rendered.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("collector", 1.5),
        ("low", 0.5),
        ("middle", 0.5),
        ("top", 0.5),
        ("notify", 1.5),
        ("retrain", 0.5),
        ("switch", 0.5),
        ("web", 0.5),
    ],
)
def test_exposure_is_no_more_than_promised(rendered, unit, most):
    path = rendered / f"hauswart-{unit}.service"
    done = analyze("security", "--offline=true", f"--threshold={round(most * 10)}", path)
    assert done.returncode == 0, done.stdout[-300:]
    exposure = float(re.search(r"exposure level .*?: ([0-9.]+)", done.stdout).group(1))
    assert 0.0 < exposure <= most


SERVED = (
    ("http://127.0.0.1:11434", "localhost"),
    ("http://localhost/v1", "localhost"),
    ("http://[::1]:8080", "localhost"),
    ("http://192.0.2.7:8000/v1", "192.0.2.7"),
    ("https://api.example.org/v1", "any"),
)


@needs_analyze
@pytest.mark.parametrize(("url", "reach"), SERVED)
def test_served_model_opens_the_top_tier_for_its_address_only(rendered, tmp_path, url, reach):
    text = served.contents(url)
    assert text.endswith(f"IPAddressAllow={reach}\n")
    unit = tmp_path / "hauswart-top.service"
    unit.write_text((rendered / unit.name).read_text() + text)
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    worse = exposed(unit) - exposed(rendered / unit.name)
    network = {"PrivateNetwork=", "RestrictAddressFamilies=~AF_(INET|INET6)", "IPAddressDeny="}
    assert worse <= network
    assert analyze("security", "--offline=true", "--threshold=15", unit).returncode == 0


def exposed(unit):
    """What systemd-analyze marks as open."""
    done = analyze("security", "--offline=true", unit)
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("✗")}


def test_each_stage_has_a_unit_that_starts_it():
    for stage in MODULES:
        service = parsed(f"hauswart-{stage}.service")["Service"]
        assert service["ExecStart"] == f"@hauswart@ --config /{files.CONFIG} stage {stage}"
        assert service["Type"] == "notify"
        assert service["Slice"] == "hauswart.slice"
        assert service["Restart"] == "on-failure"
        assert "WatchdogSec" in service
    wanted = parsed(files.TARGET)["Unit"]["Wants"].split()
    assert sorted(wanted) == sorted(f"hauswart-{stage}.service" for stage in MODULES)


def test_nothing_but_the_program_is_substituted():
    for path in files.UNITS.iterdir():
        marks = set(re.findall(r"@[a-z]\w*@", path.read_text()))
        assert marks <= ({files.PROGRAM} if path.suffix == ".service" else set())


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name):
    service = parsed(name)["Service"]
    assert EVERYWHERE.items() <= service.items()
    assert service["ProtectHome"] in {"yes", "read-only"}
    assert values(name, "SystemCallFilter")[:2] == ["@system-service", "~@privileged @resources"]


@pytest.mark.parametrize("name", [one for one in SERVICES if "collector" not in one and "notify" not in one])
def test_what_needs_no_network_has_none_and_sees_no_other_process(name):
    service = parsed(name)["Service"]
    assert NO_NETWORK.items() <= service.items()
    assert service["ProtectProc"] == "invisible"
    assert "ProcSubset" not in service  # it hides the boot id, by which a stage knows times of this boot


@pytest.mark.parametrize("name", [one for one in SERVICES if "retrain" not in one and "notify" not in one])
def test_memory_is_never_writable_and_executable_where_nothing_compiles(name):
    assert parsed(name)["Service"]["MemoryDenyWriteExecute"] == "yes"


def test_collector_opens_no_address():
    service = parsed("hauswart-collector.service")["Service"]
    assert service["RestrictAddressFamilies"] == "AF_UNIX AF_NETLINK"
    assert service["IPAddressDeny"] == "any"


def test_each_state_directory_is_written_by_one_unit_only():
    writers = {}
    for name in SERVICES:
        for path in values(name, "ReadWritePaths"):
            writers.setdefault(path, []).append(name)
    shared = "/run/hauswart/status"
    assert {path for path, names in writers.items() if len(names) > 1} == {shared}
    assert writers["/var/lib/hauswart/store"] == ["hauswart-middle.service"]
    assert writers["/var/lib/hauswart/candidates"] == ["hauswart-retrain.service"]
    assert writers["/var/lib/hauswart/bundles"] == ["hauswart-switch.service"]


def test_each_unit_has_a_user_of_its_own_and_all_share_one_group():
    users = [parsed(name)["Service"]["User"] for name in SERVICES]
    assert sorted(users) == sorted(files.users())
    assert len(set(users)) == len(SERVICES)
    assert {parsed(name)["Service"]["Group"] for name in SERVICES} == {"hauswart"}


def test_directories_belong_to_whom_the_units_let_write():
    owners = {}
    for line in (files.UNITS / "hauswart.tmpfiles").read_text().splitlines():
        if line.startswith("d "):
            _, path, mode, owner, group, _ = line.split()
            owners[path] = (mode, owner)
            assert group == "hauswart"
            assert int(mode, 8) & 0o007 == 0
    for name in SERVICES:
        user = parsed(name)["Service"]["User"]
        for path in values(name, "ReadWritePaths"):
            expected = ("1770", "root") if path == "/run/hauswart/status" else (owners[path][0], user)
            assert owners[path] == expected


def test_limits_are_the_designs():
    limits = parsed("hauswart.slice")["Slice"]
    assert (limits["CPUWeight"], limits["CPUQuota"]) == ("20", "100%")
    assert (limits["MemoryHigh"], limits["MemoryMax"]) == ("256M", "512M")


def test_training_waits_for_everything_else_and_does_not_share_the_watchs_limits():
    service = parsed("hauswart-retrain.service")["Service"]
    assert (service["Nice"], service["CPUSchedulingPolicy"], service["IOSchedulingClass"]) == (
        "19",
        "idle",
        "idle",
    )
    assert not service["Slice"].startswith("hauswart-")  # that would be below hauswart.slice
    assert "--no-promote" in service["ExecStart"]
    assert parsed("hauswart-retrain.service")["Unit"]["OnSuccess"] == "hauswart-switch.service"


def test_hauswart_does_not_judge_its_own_units():
    assert all(own_unit(name) for name in SERVICES)
    assert all(own_unit(f"hauswart.slice/{name}") for name in SERVICES)
    assert not own_unit("nginx.service")


@pytest.mark.parametrize("name", CATALOGUES)
def test_catalogue_explains_each_message_and_no_other(name):
    text = (files.UNITS / name).read_text()
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})$", text, re.MULTILINE)) == sorted(MessageId)
    for entry in re.split(r"^-- .*$", text, flags=re.MULTILINE)[1:]:
        head, _, body = entry.strip().partition("\n\n")
        assert re.fullmatch(r"Subject: .+\nDefined-By: hauswart", head)
        assert len(body) > 40
        assert set(re.findall(r"@(\w+)@", entry)) <= {
            f"HAUSWART_{field}"
            for field in (
                *("INCIDENT", "CLASS", "SEVERITY", "CULPRIT", "ORIGIN", "STAGE", "TIER"),
                *("BUNDLE", "CHAMPION", "SOURCE", "HOST", "BYTES", "SHA256", "OUTCOME"),
            )
        }


def test_every_message_id_is_used_and_no_other_is_made_up():
    code = "".join(
        path.read_text()
        for folder in ("daemon", "training")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "message_ids.py"
    )
    used = set(re.findall(r"MessageId\.([A-Z_]+)", code))
    assert used == set(MessageId.__members__)
    assert len(set(MessageId)) == len(MessageId.__members__)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="needs journalctl (package systemd)")
def test_journalctl_takes_the_catalogues(tmp_path):
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    for name in CATALOGUES:
        shutil.copy(files.UNITS / name, folder)
    done = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "var/lib/systemd/catalog/database").stat().st_size > 8000


# --- install and uninstall ----------------------------------------------------------------------------------


class Image:
    """An image's root, and what is said while it is changed."""

    def __init__(self, root):
        self.root, self.said = root, []

    def install(self, *, dry=False, program=PROGRAM):
        host = Host(self.root, dry, self.said.append)
        install.install(host, program, start=True)
        return host.changed

    def uninstall(self, *, purge=False, dry=False):
        host = Host(self.root, dry, self.said.append)
        install.uninstall(host, purge=purge)
        return host.changed

    def tree(self):
        """What is there: content, mode and owner of everything."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            content = str(path.readlink()) if path.is_symlink() else content
            found[str(path.relative_to(self.root))] = (content, status.st_mode, status.st_uid, status.st_gid)
        return found


@pytest.fixture
def image(tmp_path):
    if missing := [
        one for one in ("systemd-sysusers", "systemd-tmpfiles", "journalctl") if not shutil.which(one)
    ]:
        pytest.skip(f"needs {', '.join(missing)} (package systemd)")
    (tmp_path / "etc").mkdir()
    return Image(tmp_path)


@needs_root
def test_install_puts_everything_in_place_and_twice_is_once(image):
    assert image.install() > 20
    tree = image.tree()
    unit = tree["etc/systemd/system/hauswart-low.service"][0].decode()
    assert f"ExecStart={PROGRAM} --config" in unit
    assert files.PROGRAM not in unit
    assert "etc/systemd/system/multi-user.target.wants/hauswart.target" in tree
    assert tree["usr/local/bin/hauswart"][0] == str(PROGRAM)
    assert b"complete_bash" in tree["usr/local/share/bash-completion/completions/hauswart"][0]
    ids = dict(line.split(":")[::2][:2] for line in (image.root / "etc/passwd").read_text().splitlines())
    store, status = (image.root / path for path in ("var/lib/hauswart/store", "run/hauswart/status"))
    assert str(store.stat().st_uid) == ids["hauswart-middle"]
    assert store.stat().st_mode & 0o7777 == 0o750
    assert status.stat().st_mode & 0o7777 == 0o1770
    config = image.root / files.CONFIG
    assert config.stat().st_gid == store.stat().st_gid
    assert config.stat().st_mode & 0o777 == 0o640
    assert image.install() == 0
    assert image.tree() == tree


@needs_root
def test_served_model_s_drop_in_comes_and_goes_with_the_setting(image):
    image.install()
    drop_in, config = image.root / served.DROP_IN, image.root / files.CONFIG
    assert not drop_in.exists()
    config.write_text('[top.served]\nurl = "http://127.0.0.1:11434"\n')
    assert image.install() > 0
    assert drop_in.read_text() == served.contents("http://127.0.0.1:11434")
    assert image.install() == 0
    config.write_text("")
    image.install()
    assert not drop_in.exists()
    config.write_text('[top.served]\nurl = "nonsense"\n')
    with pytest.raises(ConfigError, match="no http address"):
        image.install()


@needs_root
def test_dry_run_says_it_all_and_does_nothing(image):
    before = image.tree()
    assert image.install(dry=True) > 20
    assert image.tree() == before
    assert any(one.startswith("run systemd-sysusers") for one in image.said)
    image.install()
    installed = image.tree()
    assert image.uninstall(dry=True) > 20
    assert image.tree() == installed


@needs_root
def test_uninstall_takes_away_what_was_installed_and_only_that(image):
    own = image.root / "etc/systemd/system/hauswart-low.service.d/limits.conf"
    own.parent.mkdir(parents=True)
    own.write_text("[Service]\nNice=5\n")
    image.install()
    (image.root / "var/lib/hauswart/store/store.db").write_text("incidents")
    (image.root / files.CONFIG).write_text('language = "de"\n')
    image.uninstall()
    left = {path for path, (_, mode, *_) in image.tree().items() if not mode & 0o040000}
    assert {one for one in left if "hauswart" in one} == {
        "etc/systemd/system/hauswart-low.service.d/limits.conf",
        "etc/hauswart/hauswart.toml",
        "var/lib/hauswart/store/store.db",
    }
    assert any("it was edited" in one for one in image.said)
    assert image.uninstall() == 0


@needs_root
def test_purge_leaves_nothing(image):
    image.install()
    image.uninstall(purge=True)
    left = [path for path in image.tree() if "hauswart" in path]
    assert left == []
    assert "hauswart" not in (image.root / "etc/passwd").read_text()
    assert "hauswart" not in (image.root / "etc/group").read_text()


@needs_root
def test_upgrade_replaces_units_keeps_edits_beside_and_drops_what_is_no_more(image):
    image.install(program=Path("/old/hauswart"))
    system = image.root / "etc/systemd/system"
    edited = system / "hauswart-top.service"
    edited.write_text(edited.read_text() + "# mine\n")
    receipt = image.root / files.RECEIPT
    known = json.loads(receipt.read_text())
    gone = system / "hauswart-former.service"
    gone.write_text("[Service]\n")
    known["files"]["etc/systemd/system/hauswart-former.service"] = "0" * 64
    receipt.write_text(json.dumps(known))
    image.install()
    assert f"ExecStart={PROGRAM} " in edited.read_text()
    assert "# mine" in (system / "hauswart-top.service.edited").read_text()
    assert not gone.exists()


@needs_root
def test_state_of_a_daemon_of_one_user_moves_to_the_stages_folders(image):
    state = image.root / files.STATE
    state.mkdir(parents=True)
    for name in ("store.db", "positions.json", "low.state"):
        (state / name).write_text(name)
    (state / "telemetry").mkdir()
    (state / "telemetry/20260101T0000.msgpack.zst").write_text("x")
    image.install()
    ids = {line.split(":")[0]: int(line.split(":")[2]) for line in (image.root / "etc/passwd").open()}
    for path, user in {
        "store/store.db": "hauswart-middle",
        "collector/positions.json": "hauswart-collect",
        "low/low.state": "hauswart-low",
        "telemetry/20260101T0000.msgpack.zst": "hauswart-low",
    }.items():
        assert (state / path).stat().st_uid == ids[user]
    assert not (state / "store.db").exists()


@needs_root
def test_state_in_use_is_not_moved(image):
    (image.root / files.STATE).mkdir(parents=True)
    with FileLock(image.root / files.STATE / "lock", "the state"), pytest.raises(LockedError):
        image.install()


def test_nixos_is_sent_to_its_module(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/NIXOS").touch()
    with pytest.raises(ConfigError, match="module"):
        install.check_host(Host(tmp_path, dry=True, say=print))


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="this host runs systemd")
def test_host_without_systemd_is_told_so():
    with pytest.raises(MissingDependencyError, match="does not run systemd"):
        install.check_host(Host(Path("/"), dry=True, say=print))


def test_program_that_the_units_could_not_run_is_refused(tmp_path):
    program = tmp_path / "hauswart"
    program.touch(mode=0o755)
    with pytest.raises(ConfigError, match=r"lies in /tmp|closed to other users"):
        install.check_program(program)
    with pytest.raises(ConfigError, match="cannot be run"):
        install.check_program(tmp_path / "nothing")


def test_path_with_a_blank_is_quoted_as_systemd_wants_it():
    [unit] = [
        one.content.decode()
        for one in files.files_of(Path("/opt/my dir/100%/hauswart"))
        if one.path.name == "hauswart-low.service"
    ]
    assert 'ExecStart="/opt/my dir/100%%/hauswart" --config' in unit
