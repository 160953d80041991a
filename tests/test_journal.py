"""What the journal hears: fields and message ids where it listens, plain lines elsewhere."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from daemon import journal
from daemon.journal import Journal
from daemon.message_ids import MessageId
from daemon.messages import Culprit, Incident
from daemon.stages.bulletin import MAX_TOLD, Bulletin
from daemon.stages.log import StageLog
from models.taxonomy import FaultClass, Severity, SubjectKind


class Journald:
    """The receiving end of journald's native protocol."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(2.0)

    def entry(self):
        text = self.socket.recv(1 << 16).decode()
        assert text.endswith("\n")
        return dict(line.split("=", 1) for line in text.splitlines())

    def silent(self):
        self.socket.settimeout(0.0)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def journald(tmp_path, monkeypatch):
    """A journald to which standard error goes, as far as the environment says."""
    found = Journald(tmp_path / "journal")
    monkeypatch.setattr(journal, "SOCKET", found.path)
    monkeypatch.setattr(journal.Journal.__init__, "__defaults__", (found.path,))
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    yield found
    found.socket.close()


def incident(**changes):
    made = Incident(
        id="20260101-1",
        revision=1,
        state="open",
        fault_class=FaultClass.CRASH_LOOP,
        severity=Severity.ERROR,
        score=0.9,
        culprits=[Culprit(SubjectKind.UNIT, "web.service", 0.9)],
        opened_at=1.0,
        updated_at=1.0,
        closed_at=None,
        boot_id="b",
        context=[],
        evidence=[],
        finding_ids=[],
        findings_count=1,
        evidence_at=1.0,
    )
    return msgspec.structs.replace(made, **changes)


def test_line_with_fields_goes_to_journald_and_not_to_standard_error(journald, capsys):
    StageLog("low").warning("it fell back", MessageId.MODEL_FELL_BACK, tier="low")
    assert journald.entry() == {
        "MESSAGE": "it fell back",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "hauswart-low",
        "MESSAGE_ID": MessageId.MODEL_FELL_BACK.value,
        "HAUSWART_STAGE": "low",
        "HAUSWART_TIER": "low",
    }
    assert capsys.readouterr().err == ""


def test_nobody_can_forge_a_field_through_a_text_or_a_name(journald):
    StageLog("low").info("a\nMESSAGE_ID=1\nPRIORITY=0", MessageId.STAGE_READY, source="x\n_UID=0")
    entry = journald.entry()
    assert entry["MESSAGE"] == "a\\nMESSAGE_ID=1\\nPRIORITY=0"
    assert entry["HAUSWART_SOURCE"] == "x\\n_UID=0"
    assert entry["PRIORITY"] == "6"
    assert entry["MESSAGE_ID"] == MessageId.STAGE_READY.value
    assert "_UID" not in entry


def test_standard_error_is_used_where_it_is_not_the_journals(journald, monkeypatch, capsys):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    StageLog("low").error("x", MessageId.STAGE_FAILED)
    assert capsys.readouterr().err == "<3>low: x\n"
    assert journald.silent()


def test_standard_error_is_used_where_journald_is_gone(journald, capsys):
    tell = StageLog("low")
    Path(journald.path).unlink()
    tell.error("x", MessageId.STAGE_FAILED)
    assert capsys.readouterr().err == "<3>low: x\n"


def test_full_journald_is_not_waited_for(journald):
    sender = Journal("hauswart-low", journald.path)
    began = time.monotonic()
    while sender.send("x" * 1000, 6, None, {}):
        pass
    assert time.monotonic() - began < 2.0


def test_bulletin_tells_each_news_of_an_incident_once_with_its_id(journald):
    bulletin = Bulletin(StageLog("middle"))
    bulletin.tell(incident())
    entry = journald.entry()
    assert entry["MESSAGE"] == "incident 20260101-1 opened: crash-loop of web.service, error"
    assert entry["MESSAGE_ID"] == MessageId.INCIDENT_OPENED.value
    assert (entry["HAUSWART_INCIDENT"], entry["HAUSWART_CLASS"]) == ("20260101-1", "crash-loop")
    assert (entry["HAUSWART_CULPRIT"], entry["PRIORITY"]) == ("web.service", "3")
    assert bulletin.summary == "grouping; 1 open incident"
    bulletin.tell(incident(revision=2, findings_count=9))
    assert journald.silent()
    journald.socket.settimeout(2.0)
    bulletin.tell(incident(revision=3, severity=Severity.CRITICAL))
    entry = journald.entry()
    assert (entry["MESSAGE_ID"], entry["PRIORITY"]) == (MessageId.INCIDENT_UPDATED.value, "2")
    bulletin.tell(incident(revision=4, state="closed"))
    entry = journald.entry()
    assert (entry["MESSAGE_ID"], entry["PRIORITY"]) == (MessageId.INCIDENT_CLOSED.value, "6")
    assert bulletin.summary == "grouping; no open incidents"
    bulletin.tell(incident(revision=5))
    assert "opened again" in journald.entry()["MESSAGE"]
    bulletin.tell(incident(revision=6, state="merged", merged_into="20260101-0"))
    entry = journald.entry()
    assert entry["MESSAGE_ID"] == MessageId.INCIDENT_MERGED.value
    assert "merged into 20260101-0" in entry["MESSAGE"]


def test_bulletin_does_not_repeat_what_the_process_before_told(journald):
    bulletin = Bulletin(StageLog("middle"))
    bulletin.know(incident())
    bulletin.tell(incident(revision=2))
    assert journald.silent()


def test_bulletin_forgets_the_oldest():
    bulletin = Bulletin(SimpleNamespace(say=lambda *_, **__: None))
    for number in range(MAX_TOLD + 10):
        bulletin.tell(incident(id=str(number)))
    assert len(bulletin._told) == MAX_TOLD


def test_real_standard_error_decides_whether_the_journal_listens(tmp_path):
    """A pipe of the journal's is known by its device and inode, as systemd.exec(5) says."""
    code = "from daemon.journal import Journal; print(Journal('x').listens)"
    with (tmp_path / "log").open("w") as log:
        status = os.fstat(log.fileno())
        for stream, expected in ((f"{status.st_dev}:{status.st_ino}", "True"), ("1:2", "False")):
            found = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"JOURNAL_STREAM": stream},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=True,
            )
            assert found.stdout.strip() == expected
