"""A stage of its own that is told to read its configuration again, as `systemctl reload` does."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.command.app import main
from daemon.locks import FileLock, find_holder, give_to_owner
from daemon.status import read_status
from tests.lab.runner import wait_until

pytestmark = pytest.mark.slow


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path, self.heard = str(path), []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(0.0)

    def hears(self, text):
        try:
            while True:
                self.heard += self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return any(text in one for one in self.heard)


class Stage:
    """The top stage as a unit starts it: the one that needs no other."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.config = folder / "hauswart.toml"
        self.config.write_text('language = "en"\n')
        self.manager = Manager(folder / "notify")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HAUSWART_")}
        root = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [*self.command(), "stage", "top"],
            env=environment | {"NOTIFY_SOCKET": self.manager.path, "PYTHONPATH": root},
        )

    def command(self):
        base = [sys.executable, "-P", "-m", "daemon"]
        return [*base, "--config", str(self.config), "--state-dir", str(self.state)]

    def status(self):
        return read_status(self.state / "run", "top")

    def reload(self):
        return main([*self.command()[4:], "stage", "top", "--reload"])


@pytest.fixture
def stage(tmp_path):
    found = Stage(tmp_path)
    yield found
    found.process.terminate()
    found.process.wait(15)
    found.manager.socket.close()


def test_reload_takes_up_the_configuration_in_the_same_process_and_refuses_a_wrong_one(stage, capsys):
    assert wait_until(lambda: stage.manager.hears("READY=1"), 15)
    before = stage.status()
    stage.config.write_text('language = "klingon"\n')
    assert stage.reload() == 2
    assert "language" in capsys.readouterr().err
    stage.config.write_text('language = "de"\n')
    stage.manager.heard.clear()
    assert stage.reload() == 0
    assert wait_until(lambda: stage.manager.hears("READY=1"), 15)
    assert stage.manager.hears("RELOADING=1")
    assert stage.manager.hears("MONOTONIC_USEC=")
    assert not stage.manager.hears("STOPPING=1")
    after = stage.status()
    assert (after.pid, after.state) == (before.pid, "running")
    assert after.started > before.started
    resolved = stage.state / "run/status/settings-top.json"
    assert '"language":"de"' in resolved.read_text()
    assert resolved.stat().st_mode & 0o777 == 0o600
    stage.process.send_signal(signal.SIGTERM)
    assert stage.process.wait(15) == 0
    assert stage.manager.hears("STOPPING=1")


def test_stage_that_does_not_run_cannot_reload(tmp_path, capsys):
    assert main(["--state-dir", str(tmp_path), "stage", "top", "--reload"]) == 1
    assert "does not run" in capsys.readouterr().err


def test_holder_of_a_lock_is_known_only_while_it_holds(tmp_path):
    path = tmp_path / "lock"
    assert find_holder(path) is None
    with FileLock(path, "it"):
        assert find_holder(path) == os.getpid()
    assert path.read_text().strip() == str(os.getpid())
    assert find_holder(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files get other owners")
def test_what_root_makes_in_a_stages_folder_belongs_to_the_stages_user(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with FileLock(folder / "store.db.lock", "the store"):
        assert (folder / "store.db.lock").stat().st_uid == 65534
    (tmp_path / "own").touch()
    give_to_owner(tmp_path / "own")
    assert (tmp_path / "own").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is root that is refused")
def test_root_is_kept_from_the_units_directories(tmp_path, capsys):
    status = tmp_path / "run/status"
    status.mkdir(parents=True)
    status.chmod(0o1770)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "daemon", "--state-dir", str(tmp_path), "stage", "top"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "systemctl start hauswart.target" in done.stderr
