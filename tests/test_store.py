"""The store: what is acknowledged is on the disk, what is damaged is noticed, what is newer is left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.errors import HauswartError, IntegrityError, LockedError, StoreFullError
from daemon.messages import (
    Advice,
    ContextNote,
    Culprit,
    Evidence,
    Finding,
    KeepAdvice,
    KeepDelivery,
    KeepFeedback,
    KeepFinding,
    KeepPurge,
    KeepSilence,
    Stamp,
    Subject,
)
from daemon.store import pages
from daemon.store.documents import incident_document
from daemon.store.purge import purge_copies
from daemon.store.reader import StoreReader
from daemon.store.records import MAX_REVISIONS
from daemon.store.salvage import verify
from daemon.store.writer import StoreWriter
from models.taxonomy import Category, FaultClass, Severity, SubjectKind
from tests.fixtures.incidents import make_incident

T0 = 1_780_000_000.0
REPO = Path(__file__).parent.parent


def evidence(number, text="/var is 100 % full: 0 B of 8.4 MB free", kind="metric", ref="fs.used{/var}"):
    return Evidence(f"e{number}", kind, ref, T0, T0 + 1, text, {"used_ratio": 1.0})


def finding(number=0):
    return Finding(
        id=f"f{number:05d}",
        at=Stamp("b" * 32, 10.0 + number, T0 + number),
        rule="fs.used.level",
        category=Category.STORAGE,
        severity=Severity.ERROR,
        score=0.9,
        subjects=[Subject(SubjectKind.MOUNT, "/var")],
        hints={FaultClass.DISK_FULL: 0.9},
        evidence=[evidence(number)],
    )


def incident(name="aaaa00000001", revision=1, **changes):
    fields = {
        "revision": revision,
        "updated_at": T0 + revision,
        "context": [ContextNote("backup", "restic", T0 - 5, None, "noted", "restic is running")],
        "evidence": [evidence(0)],
        "finding_ids": ["f00000"],
        "evidence_at": T0 - 1,
    }
    return make_incident(name, T0, **(fields | changes))


def advice(lang="en", text="/var is full."):
    return Advice(text, lang, "catalogue", "df -h /var", {"/var": "e0"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def writer(path):
    with StoreWriter(path) as one:
        yield one


@pytest.fixture
def reader(path):
    with StoreReader(path) as one:
        yield one


def fill(writer, count=40):
    for number in range(count):
        name = f"{number:012x}"
        long = f"line {number} " + "x" * (number * 37 % 1900)
        writer.save(
            [incident(name, evidence=[evidence(0), evidence(1, long, "line", f"cursor{number}")])],
            [finding(number)],
        )
        writer.keep(KeepAdvice(name, 1, [advice(), advice("de", "/var ist voll.")]))


def test_saved_incident_is_read_back_unchanged_while_the_writer_runs(writer, reader):
    assert reader.incidents() == []
    saved = incident()
    writer.save([saved], [finding()])
    assert reader.incidents() == [saved]
    assert reader.incident("aaaa") == saved
    assert reader.findings(saved.id) == [finding()]


@pytest.mark.parametrize("existing", [False, True])
def test_nobody_but_owner_and_group_reads_the_store(tmp_path, existing):
    path = tmp_path / "store.db"
    if existing:
        StoreWriter(path).close()
        path.chmod(0o644)
    before = os.umask(0o022)
    try:
        with StoreWriter(path) as store:
            store.save([make_incident()], [])
            files = (path, tmp_path / "store.db-wal", tmp_path / "store.db-shm")
            assert [one.stat().st_mode & 0o777 for one in files] == [0o640] * 3
    finally:
        os.umask(before)


def test_incident_without_a_store_is_nothing(tmp_path):
    with StoreReader(tmp_path / "store.db") as reader:
        assert reader.incident("x") is None
        assert reader.incidents() == reader.silences() == reader.needing_advice(["en"]) == []
        assert reader.verify() == []
    assert list(tmp_path.iterdir()) == []


def test_prefix_that_fits_two_incidents_is_an_error(writer, reader):
    writer.save([incident("ab1"), incident("ab2")], [])
    with pytest.raises(HauswartError, match="ab1, ab2"):
        reader.incident("ab")
    assert reader.incident("ab1").id == "ab1"
    assert reader.incident("%") is None


def test_filters_choose_by_state_time_class_severity_and_words(writer, reader):
    closed = incident("c1", state="closed", opened_at=T0 - 9000, updated_at=T0 - 8000, closed_at=T0 - 8000)
    worse = incident("c2", severity=Severity.CRITICAL, fault_class=FaultClass.DISK_FAILING)
    word = incident("c3", evidence=[evidence(0, "segfault at Zebra")], opened_at=T0 + 50)
    writer.save([closed, worse, word], [])

    def names(**chosen):
        return [one.id for one in reader.incidents(**chosen)]

    assert names() == ["c3", "c2", "c1"]
    assert names(state="closed") == ["c1"]
    assert names(since=T0 - 10) == ["c3", "c2"]
    assert names(until=T0) == ["c1"]
    assert names(fault_class="disk-failing") == names(severity="critical") == ["c2"]
    assert names(search="zebra") == ["c3"]
    assert names(search="0%0") == []
    assert names(limit=1) == ["c3"]


def test_timeline_says_what_changed(writer, reader):
    writer.save([incident()], [])
    writer.save([incident(revision=2, findings_count=2)], [])
    writer.save([incident(revision=3, severity=Severity.CRITICAL)], [])
    writer.save([incident(revision=4, severity=Severity.CRITICAL, state="closed", closed_at=T0 + 9)], [])
    texts = [text for _, text in reader.timeline("aaaa00000001")]
    assert texts == ["opened as disk-full, error", "severity error -> critical", "closed"]
    assert [step.revision for step in reader.revisions("aaaa00000001")] == [1, 2, 3, 4]


def test_older_revision_delivered_again_changes_nothing(writer, reader):
    newest = incident(revision=3, score=0.7)
    writer.save([newest], [])
    writer.save([incident(revision=2)], [])
    assert reader.incident(newest.id) == newest


def test_incident_that_cannot_be_kept_does_not_hold_up_the_others(writer, reader):
    wrong = [
        incident("nan", score=float("nan")),
        incident("long", culprits=[Culprit(SubjectKind.UNIT, "x" * 5000, 0.5)]),
        incident("when", updated_at=float("inf")),
        incident("evidence", evidence=[evidence(0), evidence(1, "\udc80")]),
    ]
    writer.save([*wrong, incident("fine")], [msgspec.structs.replace(finding(), score=7.0), finding(1)])
    assert [one.id for one in reader.incidents()] == ["fine"]
    assert reader.opened_counts() == {("disk-full", "error"): 1}
    assert writer.counters["refused"] == len(writer.notes) == 5


def test_shrunk_evidence_leaves_no_old_rows(writer, reader):
    writer.save([incident(evidence=[evidence(n) for n in range(9)])], [])
    small = incident(revision=2, evidence=[evidence(9)])
    writer.save([small], [])
    assert reader.incident(small.id) == small


def test_position_alone_causes_no_commit_and_is_kept_with_content_or_at_the_end(path):
    with StoreWriter(path) as writer:
        before = writer.counters["commits"]
        size = pages.wal_path(path).stat().st_size
        for number in range(100):
            writer.save([], [], ("middle", number))
        assert writer.counters["commits"] == before
        assert pages.wal_path(path).stat().st_size == size
        assert writer.edge_position("middle") == 99
    with StoreWriter(path) as writer:
        assert writer.edge_position("middle") == 99
        assert writer.edge_position("other") is None
        writer.save([incident()], [], ("middle", 100))
        assert writer.preference("edge/middle") == "100"


def test_needing_advice_until_each_language_has_it_and_again_when_the_culprit_changes(writer, reader):
    first = incident()
    writer.save([first], [])
    assert reader.needing_advice(["en", "de"]) == [first]
    writer.keep(KeepAdvice(first.id, 1, [advice()]))
    assert reader.needing_advice(["en"]) == []
    assert reader.needing_advice(["en", "de"]) == [first]
    writer.keep(KeepAdvice(first.id, 1, [advice("de")]))
    assert reader.needing_advice(["en", "de"]) == []
    fresher = incident(revision=2, evidence=[evidence(0, "now 0 B of 8.4 MB free")], findings_count=2)
    writer.save([fresher], [])
    assert reader.needing_advice(["en", "de"]) == []
    other = incident(revision=3, culprits=[Culprit(SubjectKind.UNIT, "nginx.service", 0.8)])
    writer.save([other], [])
    assert reader.needing_advice(["en", "de"]) == [other]
    writer.keep(KeepAdvice(first.id, 2, [advice(), advice("de")]))
    assert reader.needing_advice(["en", "de"]) == [other]
    assert reader.advice(first.id, "fr") is None


def test_advice_of_before_recommends_nothing_until_there_is_a_newer_one(writer, reader):
    first = incident()
    told = replace(advice("de"), action="systemctl status old.service")
    writer.save([first], [])
    writer.keep(KeepAdvice(first.id, 1, [told]))
    assert reader.advice(first.id, "de") == told
    writer.save([incident(revision=2, culprits=[Culprit(SubjectKind.UNIT, "nginx.service", 0.8)])], [])
    assert reader.advice(first.id, "de") == replace(told, action="")


def test_incident_of_very_many_revisions_is_advised_once_for_each_basis(writer, reader):
    writer.save([incident(revision=MAX_REVISIONS)], [])
    both = [evidence(0), evidence(1, "tasks wait", ref="psi.io.some")]
    other = incident(revision=MAX_REVISIONS + 1, evidence=both, findings_count=2)
    writer.save([other], [])
    assert reader.needing_advice(["en"]) == [other]
    writer.keep(KeepAdvice(other.id, other.revision, [advice()]))
    assert reader.needing_advice(["en"]) == []
    assert reader.advice(other.id, "en") == advice()
    writer.save([incident(revision=MAX_REVISIONS + 2, evidence=both, findings_count=3)], [])
    assert reader.needing_advice(["en"]) == []
    steps = [step.revision for step in reader.revisions(other.id)]
    assert steps == [MAX_REVISIONS, MAX_REVISIONS + 1]  # mere counts are left out


def test_merged_incident_needs_no_advice_and_is_looked_at_for_who_was_told(writer, reader):
    writer.save([incident(state="merged", merged_into="other", closed_at=T0)], [])
    assert reader.needing_advice(["en"]) == []
    assert [one.incident.state for one in reader.needing_notice(0.0)] == ["merged"]
    assert reader.needing_notice(T0 + 1e9) == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (KeepAdvice("nobody", 1, [advice()]), "no incident 'nobody'"),
        (KeepAdvice("aaaa00000001", 7, [advice()]), "no revision 7"),
        (KeepFeedback("nobody", "good", "me", T0), "no incident"),
        (KeepFeedback("aaaa00000001", "edited", "me", T0), "improved text"),
        (KeepFeedback("aaaa00000001", "good", "me", float("nan")), "cannot"),
        (KeepFeedback("aaaa00000001", "good", "\udc80", T0), "cannot"),
        (KeepSilence("s", "no-class", "", T0, None, "", "", "me"), "not a fault class"),
        (KeepSilence("s", "", "", T0, T0 - 1, "", "", "me"), "end after"),
        (KeepSilence("s", "", "", T0, None, "sometimes", "", "me"), "not days and a window"),
        (KeepDelivery("aaaa00000001", 9, "hook", ok=True, at=T0), "no revision 9"),
    ],
)
def test_senseless_record_is_refused_and_leaves_nothing(writer, reader, record, reason):
    writer.save([incident()], [])
    with pytest.raises(HauswartError, match=reason):
        writer.keep(record, "client", 1)
    assert reader.feedback() == reader.silences() == reader.deliveries() == []
    writer.keep(KeepFeedback("aaaa00000001", "good", "me", T0), "client", 1)
    assert len(reader.feedback()) == 1


def test_same_request_is_kept_once(writer, reader):
    writer.save([incident()], [])
    record = KeepFeedback("aaaa00000001", "good", "me", T0, comment="yes")
    for _ in range(3):
        writer.keep(record, "cli-1", 1)
    assert reader.feedback("aaaa00000001") == [record]
    writer.keep(record, "cli-1", 2)
    writer.keep(record)
    assert len(reader.feedback()) == 3


def test_records_of_every_kind_are_kept(writer, reader):
    writer.save([incident()], [])
    silence = KeepSilence("s1", "disk-full", "/var", T0, T0 + 60, "", "maintenance", "me")
    writer.keep(silence)
    writer.keep(KeepSilence("s2", "", "", T0, None, "daily 02:00-04:00", "", "me", cancelled=True))
    assert reader.silences(active_at=T0 + 1) == [silence]
    assert [one.id for one in reader.silences()] == ["s1", "s2"]
    writer.keep(KeepDelivery("aaaa00000001", 1, "hook", ok=False, at=T0, error="exit code 1"))
    writer.keep(KeepDelivery("aaaa00000001", 1, "hook", ok=True, at=T0 + 1))
    writer.keep(KeepDelivery("aaaa00000001", 1, "hook", ok=False, at=T0 + 2))
    assert [(one.ok, one.severity, one.state) for one in reader.deliveries()] == [(True, "error", "open")]
    writer.keep(KeepFinding(finding(7)))
    writer.put_preference("language", "de")
    assert reader.preference("language") == "de"


def test_acknowledged_and_delivered_are_part_of_what_needs_notice(writer, reader):
    writer.save([incident()], [])
    state = reader.needing_notice(T0)[0]
    assert (state.incident.id, state.acknowledged, state.deliveries) == ("aaaa00000001", False, [])
    writer.keep(KeepFeedback("aaaa00000001", "acknowledged", "me", T0))
    writer.keep(KeepDelivery("aaaa00000001", 1, "hook", ok=True, at=T0))
    state = reader.needing_notice(T0)[0]
    assert state.acknowledged
    assert [one.target for one in state.deliveries] == ["hook"]


def test_counts_of_opened_incidents_never_fall(writer, reader):
    writer.save([incident("a"), incident("b")], [])
    writer.save([incident("a", revision=2, state="closed", closed_at=T0)], [])
    assert reader.open_counts() == {("disk-full", "error"): 1}
    assert reader.opened_counts() == {("disk-full", "error"): 2}
    writer.purge()
    assert reader.open_counts() == {}
    assert reader.opened_counts() == {("disk-full", "error"): 2}


def test_second_writer_names_the_process_that_holds_the_store(writer, path):
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        StoreWriter(path)


def test_what_is_acknowledged_survives_sigkill(path):
    script = f"""
        import sys; sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
        from test_store import *
        writer = StoreWriter(Path({str(path)!r}))
        for number in range(100000):
            writer.save([incident(f"{{number:012x}}")], [finding(number)], ("middle", number))
            print(number, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    acknowledged = -1
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= 60:
            child.send_signal(signal.SIGKILL)
            break
    acknowledged = max([acknowledged, *(int(line) for line in child.stdout if line.strip())])
    child.wait()
    with StoreReader(path) as reader:
        assert reader.incident(f"{acknowledged:012x}") is not None
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        assert writer.notes == []
        assert len(reader.incidents(limit=100000)) >= acknowledged + 1
        assert writer.edge_position("middle") >= acknowledged
    assert verify(path).sound


# --- damage ---------------------------------------------------------------------------------------------


def flipped(content, position, bit):
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def detected(path):
    try:
        return not verify(path).sound
    except (HauswartError, sqlite3.Error):
        return True


def test_single_flipped_bits_anywhere_in_the_file_are_detected(path):
    with StoreWriter(path) as writer:
        fill(writer)
    assert verify(path).sound
    content, chance = path.read_bytes(), random.Random(4)
    found = 0
    for _ in range(100):
        path.write_bytes(flipped(content, chance.randrange(len(content)), chance.randrange(8)))
        found += detected(path)
    path.write_bytes(content)
    assert verify(path).sound
    print(f"detected {found} of 100 flips in {len(content)} bytes")
    assert found >= 99


def test_damaged_row_is_not_returned(path):
    with StoreWriter(path) as writer:
        fill(writer)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"line 7 xxx", b"line 9 xxx"))
    with StoreReader(path) as reader:
        assert reader.incident("000000000008") is not None
        with pytest.raises(IntegrityError, match="checksum"):
            reader.incident("000000000007")
        assert len(reader.needing_advice(["fr"], limit=100)) == 39
        assert reader.damaged == 1


def test_damaged_silence_hides_nothing_and_keeps_nobody_from_telling(path):
    silence = KeepSilence("s1", "disk-full", "/srv-xxx", T0, None, "", "known", "anna")
    with StoreWriter(path) as writer:
        writer.keep(silence)
        writer.keep(msgspec.structs.replace(silence, id="s2", unit="/var"))
    path.write_bytes(path.read_bytes().replace(b"/srv-xxx", b"/srv-xxy"))
    with StoreReader(path) as reader:
        with pytest.raises(IntegrityError, match="checksum"):
            reader.silences(active_at=T0)
        assert [one.id for one in reader.sound_silences(T0)] == ["s2"]
        assert reader.sound_silences(T0 - 1) == []
        assert reader.damaged == 2


def test_damaged_row_is_left_behind_and_the_rest_goes_on(path):
    with StoreWriter(path) as writer:
        fill(writer)
    path.write_bytes(path.read_bytes().replace(b"line 7 xxx", b"line 9 xxx"))
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        assert "kept: 40 incidents" in writer.notes[0]
        assert writer.salvaged.kept["evidence"] == 79
        assert writer.salvaged.moved_to.exists()
        assert writer.salvaged.moved_to.name.startswith("store.db.corrupt-")
        assert len(reader.incidents(limit=1000)) == 40
        assert reader.needing_advice(["en", "de"]) == []
        writer.save([incident()], [])
    assert verify(path).sound


@pytest.mark.parametrize("start", [0, 16, 100])
def test_overwritten_beginning_costs_few_incidents(path, start):
    with StoreWriter(path) as writer:
        fill(writer)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 400)
    with StoreWriter(path) as writer:
        assert writer.salvaged.kept["incidents"] == 40, writer.notes
    assert verify(path).sound


def test_lost_pages_cost_only_their_rows(path):
    with StoreWriter(path) as writer:
        fill(writer, 120)
    size, chance = path.stat().st_size, random.Random(1)
    with path.open("r+b") as file:
        for page in chance.sample(range(30, size // 4096), 6):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        assert writer.salvaged.kept["incidents"] >= 80, writer.notes
        assert len(reader.incidents(limit=1000)) == writer.salvaged.kept["incidents"]


@pytest.mark.parametrize("content", [b"not a database at all, just text\n" * 40, b"\0" * 8192, b"S"])
def test_garbage_is_moved_aside_untouched(path, content):
    path.write_bytes(content)
    with StoreWriter(path) as writer:
        assert writer.salvaged.moved_to.read_bytes() == content
        assert "kept: nothing" in writer.notes[0]
        writer.save([incident()], [])


def test_damaged_unused_bytes_are_told_but_cost_nothing(path):
    with StoreWriter(path) as writer:
        fill(writer)
    content = bytearray(path.read_bytes())
    unused = content.index(bytes(200), 8192) + 100
    content[unused] ^= 1
    path.write_bytes(content)
    with StoreWriter(path) as writer:
        assert writer.salvaged is None
        assert f"pages [{unused // 4096 + 1}]" in writer.notes[0]


@pytest.mark.parametrize("position", [18, 19, 21, 60, 75])
def test_damaged_header_costs_no_row(path, position):
    with StoreWriter(path) as writer:
        fill(writer)
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
    with StoreWriter(path) as writer:
        assert "pages [1]" in writer.notes[0] or writer.salvaged.kept["incidents"] == 40
        writer.save([incident()], [])
    with StoreReader(path) as reader:
        assert len(reader.incidents(limit=100)) == 41


def test_store_that_somebody_holds_is_not_taken_for_damaged(path, monkeypatch):
    with StoreWriter(path) as writer:
        fill(writer, 3)
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE held (x)")
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: real(*args, **(options | {"timeout": 0.1}))
    )
    with pytest.raises(HauswartError, match="locked"):
        StoreWriter(path)
    other.rollback()
    other.close()
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        assert writer.salvaged is None
        assert len(reader.incidents()) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_unreadable_directory_is_said_and_nothing_is_moved(path):
    with StoreWriter(path) as writer:
        fill(writer, 3)
    before = sorted(path.parent.iterdir())
    script = f"""
        import os, sys; sys.path[:0] = [{str(REPO)!r}]
        from pathlib import Path
        from daemon.errors import HauswartError
        from daemon.store.reader import StoreReader
        from daemon.store.writer import StoreWriter
        os.setuid(65534)
        for act in (lambda: StoreWriter(Path({str(path)!r})), StoreReader(Path({str(path)!r})).incidents):
            try:
                act()
            except HauswartError as error:
                print(type(error).__name__, error.hint != "")
    """
    path.parent.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True
    )
    assert done.stdout == "HauswartError True\n" * 2, done.stderr
    assert sorted(path.parent.iterdir()) == before


def test_newer_major_version_is_refused_untouched(path):
    with StoreWriter(path) as writer:
        writer.save([incident()], [])
    connection = sqlite3.connect(path)
    from daemon.store.rows import META, sealed  # noqa: PLC0415

    connection.execute(META.insert, sealed(META, "major", "2"))
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = {item.name: item.read_bytes() for item in path.parent.iterdir() if "lock" not in item.name}
    with pytest.raises(IntegrityError, match=r"schema 2\.0") as caught:
        StoreWriter(path)
    assert caught.value.hint
    with pytest.raises(IntegrityError), StoreReader(path) as reader:
        reader.incidents()
    assert before == {
        item.name: item.read_bytes() for item in path.parent.iterdir() if "lock" not in item.name
    }


def test_foreign_database_is_refused_untouched(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="not a store"):
        StoreWriter(path)
    assert path.read_bytes() == before


def test_newer_minor_version_keeps_its_additions(path):
    from daemon.store.rows import META, sealed  # noqa: PLC0415

    with StoreWriter(path) as writer:
        writer.save([incident()], [finding()])
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE incidents ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
    connection.execute("UPDATE incidents SET mood = 'worried'")
    connection.execute("CREATE TABLE moods (name TEXT)")
    connection.execute(META.insert, sealed(META, "minor", "7"))
    connection.commit()
    connection.close()
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        assert writer.salvaged is None
        writer.save([incident(revision=2, severity=Severity.CRITICAL), incident("new")], [finding(1)])
        assert reader.incident("aaaa").severity is Severity.CRITICAL
        writer.keep(KeepAdvice("new", 1, [advice()]))
    connection = sqlite3.connect(path)
    assert dict(connection.execute("SELECT id, mood FROM incidents")) == {
        "aaaa00000001": "worried",
        "new": "calm",
    }
    assert connection.execute("SELECT value FROM meta WHERE key = 'minor'").fetchone() == ("7",)
    connection.close()


# --- space, age, erasing ----------------------------------------------------------------------------------


def test_full_disk_acknowledges_nothing_and_heals(path):
    script = f"""
        import resource, sys; sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
        from test_store import *
        path = Path({str(path)!r})
        writer = StoreWriter(path)
        limit = pages.wal_path(path).stat().st_size + 300_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        kept, refused = [], 0
        for number in range(60):
            try:
                writer.save([incident(f"{{number:012x}}")], [finding(number)])
                kept.append(f"{{number:012x}}")
            except StoreFullError as error:
                refused += 1
        assert refused and kept, (refused, len(kept))
        with StoreReader(path) as reader:
            assert sorted(one.id for one in reader.incidents(limit=1000)) == kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        writer.save([incident("after")], [])
        with StoreReader(path) as reader:
            assert len(reader.incidents(limit=1000)) == len(kept) + 1
        writer.close()
        print(len(kept), refused)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert verify(path).sound


@pytest.mark.lab
def test_store_on_a_full_file_system_heals_when_space_is_back(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", mount], check=False).returncode
    ):
        pytest.skip("cannot mount a tmpfs here")
    try:
        with StoreWriter(mount / "store.db") as writer, StoreReader(mount / "store.db") as reader:
            ballast = mount / "ballast"
            kept = []
            for number in range(20):
                writer.save([incident(f"{number:012x}")], [finding(number)])
            space = os.statvfs(mount)
            ballast.write_bytes(bytes((space.f_bavail * space.f_bsize) - 65536))
            with pytest.raises(StoreFullError):  # noqa: PT012 (how many fit is the file system's business)
                for number in range(20, 10000):
                    kept.append(number)
                    writer.save([incident(f"{number:012x}")], [finding(number)])
            kept = [*range(20), *kept[:-1]]
            assert len(reader.incidents(limit=100000)) == len(kept)
            with pytest.raises(StoreFullError):  # noqa: PT012 (what the last one took leaves more or less room)
                for number in range(10):
                    said = KeepFeedback(f"{number:012x}", "good", "x" * 500, T0, comment="y" * 4000)
                    writer.keep(replace(said, original="z" * 16000))
            fitted = len(reader.feedback())
            ballast.unlink()
            writer.keep(KeepFeedback(f"{0:012x}", "good", "me", T0))
            assert len(reader.feedback()) == fitted + 1
        assert verify(mount / "store.db").sound
    finally:
        subprocess.run(["umount", mount], check=True)


def test_retention_erases_old_closed_incidents_only(writer, reader):
    day = 86400.0
    old = incident("old", state="closed", updated_at=T0 - 400 * day, closed_at=T0 - 400 * day)
    writer.save(
        [old, incident("kept", state="closed", closed_at=T0), incident("o", updated_at=1.0)], [finding()]
    )
    counts = writer.expire(T0, 365)
    assert counts["incidents"] == 1
    assert {one.id for one in reader.incidents()} == {"kept", "o"}
    assert verify(writer.path).usable


def test_clock_that_jumps_years_ahead_erases_nothing(writer, reader):
    writer.save([incident("kept", state="closed", closed_at=T0)], [])
    writer.expire(T0, 365)
    assert writer.expire(T0 + 50 * 365 * 86400.0, 365) == {}
    assert len(reader.incidents()) == 1


def test_purge_by_class_and_age_counts_what_it_erased(writer, reader):
    writer.save(
        [
            incident("a", fault_class=FaultClass.LINK_DOWN, finding_ids=["f00001"]),
            incident("b", updated_at=T0 - 100, finding_ids=["f00002"]),
            incident("c", finding_ids=["f00003"]),
        ],
        [finding(1), finding(2), finding(3)],
    )
    assert (reader.count(), reader.count(fault_class="link-down"), reader.count(before=T0 - 50)) == (3, 1, 1)
    assert writer.purge(fault_class="link-down")["incidents"] == 1
    assert writer.purge(before=T0 - 50)["findings"] == 1
    assert [one.id for one in reader.incidents()] == ["c"]
    writer.keep(KeepPurge("me", T0))
    assert reader.incidents() == []


def test_purge_is_kept_though_the_file_cannot_shrink(writer, reader, monkeypatch):
    writer.save([incident()], [])

    def full():
        raise StoreFullError("the disk is full")

    monkeypatch.setattr(writer, "compact", full)
    writer.keep(KeepPurge("me", T0 + 1e6))
    assert reader.incidents() == []
    assert writer.notes == ["the store keeps its size after the purge: the disk is full"]


def test_purged_text_is_nowhere_in_the_files(path):
    with StoreWriter(path) as writer:
        fill(writer)
        writer.save([incident(evidence=[evidence(0, "sesame-open " * 300)])], [])
        writer.checkpoint()
        assert b"sesame-open" in path.read_bytes()
        writer.purge()
        for item in path.parent.iterdir():
            assert b"sesame-open" not in item.read_bytes(), item


def test_purging_copies_of_a_damaged_store_leaves_the_store(path):
    path.write_bytes(b"not a database, but long enough " * 40)
    with StoreWriter(path) as writer:
        assert purge_copies(path).files == 1
        assert not writer.salvaged.moved_to.exists()
    assert path.exists()


def test_reader_follows_a_store_that_is_replaced(path, tmp_path):
    with StoreWriter(path) as writer:
        writer.save([incident("first")], [])
    with StoreReader(path) as reader:
        assert reader.incident("first")
        other = tmp_path / "other.db"
        with StoreWriter(other) as writer:
            writer.save([incident("second")], [])
        shutil.move(other, path)
        assert reader.incident("first") is None
        assert reader.incident("second")


def test_document_has_the_shape_that_scripts_rely_on():
    saved = incident(evidence=[evidence(0), evidence(1, "oops", "line", "s=1;i=2")])
    document = msgspec.json.decode(msgspec.json.encode(incident_document(saved, advice())))
    assert document["schema"] == 1
    assert document["opened_at"] == "2026-05-28T20:26:40.000Z"
    assert document["closed_at"] is None
    assert document["culprits"] == [{"kind": "mount", "name": "/var", "score": 0.9}]
    assert document["evidence"][0]["metric"] == "fs.used{/var}"
    assert document["evidence"][1]["cursor"] == "s=1;i=2"
    assert document["advice"]["origin"] == "catalogue"
    assert document["waits"] is False
    unread = incident(severity=Severity.WARNING, meant=Severity.ERROR, waits=True)
    assert incident_document(unread, None)["waits"] is True
    assert incident_document(msgspec.structs.replace(saved, opened_at=float("nan")), None)["advice"] is None


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=200)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts, name=texts, comment=texts)
def test_any_text_comes_back_as_it_was(tmp_path_factory, text, name, comment):
    path = tmp_path_factory.mktemp("store") / "store.db"
    with StoreWriter(path) as writer, StoreReader(path) as reader:
        saved = incident(evidence=[evidence(0, text)], culprits=[Culprit(SubjectKind.UNIT, name, 0.5)])
        writer.save([saved], [])
        kept = KeepFeedback(saved.id, "good", "me", T0, comment=comment)
        writer.keep(kept)
        assert reader.incident(saved.id) == saved
        assert reader.feedback() == [kept]
        reader.incidents(search=text)


def test_another_process_that_opens_the_store_does_not_orphan_the_writers_log(tmp_path):
    path = tmp_path / "store.db"
    meddle = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA user_version'); c.close()"
    )
    with StoreWriter(path) as writer:
        writer.put_preference("before", "1")
        writer.checkpoint()
        writer.put_preference("between", "2")
        subprocess.run([sys.executable, "-c", meddle, str(path)], check=True)
        writer.put_preference("after", "3")
        with StoreReader(path) as reader:
            assert [reader.preference(key) for key in ("before", "between", "after")] == ["1", "2", "3"]
