import os

import pytest

from daemon.collectors.sessions import SessionCollector, UtmpUser
from daemon.errors import SourceError
from daemon.messages import Stamp
from daemon.pseudonyms import Pseudonyms

AT = Stamp("b" * 32, 100.0, 1_700_000_000.0)
SESSION = """# This is private data. Do not parse.
UID=1000
USER=alice
ACTIVE=1
STATE=active
REMOTE=1
TYPE=tty
CLASS=user
TTY=pts/0
REMOTE_HOST=192.0.2.7
SERVICE=sshd
LEADER=4242
REALTIME=1700000000000000
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "systemd/system").mkdir(parents=True)
    (tmp_path / "systemd/sessions").mkdir()
    return tmp_path


def put(run, name, text):
    """Replace a session file as logind does, so that its directory changes."""
    folder = run / "systemd/sessions"
    (folder / f".#{name}").write_text(text)
    (folder / f".#{name}").rename(folder / name)
    stamp = folder.stat().st_mtime_ns + 1_000_000
    os.utime(folder, ns=(stamp, stamp))


def seen(collector):
    return [(event.action, event.name, event.attributes) for event in collector.read(AT)]


def test_sessions_begin_and_end(run):
    collector = SessionCollector(run)
    assert collector.open()[0].attributes["reason"] == "logind's sessions"
    assert seen(collector) == []
    put(run, "7", SESSION)
    (run / "systemd/sessions/7.ref").touch()
    expected = {
        "user": "alice",
        "tty": "pts/0",
        "host": "192.0.2.7",
        "service": "sshd",
        "leader": "4242",
        "since": "1700000000",
    }
    assert seen(collector) == [("start", "7", expected)]
    assert seen(collector) == []
    put(run, "7", SESSION.replace("STATE=active", "STATE=closing"))
    assert seen(collector) == [("end", "7", expected)]


def test_sessions_that_were_there_before_are_marked(run):
    put(run, "7", SESSION)
    collector = SessionCollector(run)
    collector.open()
    assert seen(collector)[0][2]["existing"] == "1"


def test_seat_of_who_sits_at_the_machine_is_told(run):
    put(run, "7", SESSION + "SEAT=seat0\n")
    collector = SessionCollector(run)
    collector.open()
    assert seen(collector)[0][2]["seat"] == "seat0"


@pytest.mark.parametrize("kind", ["greeter", "manager", "background", "lock-screen"])
def test_only_people_have_sessions(run, kind):
    put(run, "7", SESSION.replace("CLASS=user", f"CLASS={kind}"))
    collector = SessionCollector(run)
    collector.open()
    assert seen(collector) == []


def test_a_damaged_session_file_is_survived(run):
    (run / "systemd/sessions/9").write_bytes(b"\xff\xfe=\x00\nLEADER=x\nUSER=\x1b[31m\n===\n" * 2000)
    collector = SessionCollector(run)
    collector.open()
    event = collector.read(AT)[0]
    assert event.attributes["user"] == "\\x1b[31m"


def test_a_vanished_session_folder_is_said_once(run):
    collector = SessionCollector(run)
    collector.open()
    (run / "systemd/sessions").rmdir()
    assert [event.action for event in collector.read(AT)] == ["error"]
    assert collector.read(AT) == []


def test_without_logind_utmp_is_read(tmp_path):
    users = [UtmpUser("bob", "pts/1", "198.51.100.2", 1_700_000_000.0, 77)]
    collector = SessionCollector(tmp_path, read_utmp=lambda: list(users))
    assert "utmp" in collector.open()[0].attributes["reason"]
    assert seen(collector)[0][:2] == ("start", "pts/1:77")
    users.clear()
    assert seen(collector)[0][:2] == ("end", "pts/1:77")


def test_the_real_utmp_can_be_read(tmp_path):
    collector = SessionCollector(tmp_path)
    collector.open()
    collector.read(AT)


def test_with_neither_the_source_is_absent(tmp_path):
    def fail():
        raise OSError("no utmp here")

    with pytest.raises(SourceError, match="no utmp here"):
        SessionCollector(tmp_path, read_utmp=fail).open()


def test_people_can_be_pseudonymised(run):
    put(run, "7", SESSION)
    names = Pseudonyms(b"k" * 32)
    collector = SessionCollector(run, hide_user=names.user, hide_host=names.address)
    collector.open()
    attributes = collector.read(AT)[0].attributes
    assert attributes["user"] == names.user("alice") != "alice"
    assert attributes["host"] == names.address("192.0.2.7")
