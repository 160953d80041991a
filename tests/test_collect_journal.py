"""Journal collector and archive on real `.journal` files and, in the lab, on a real journald of its own."""

import array
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import now
from daemon.collectors.archive import Archive, count_entries, list_boots
from daemon.collectors.entry import line_of, parse_cursor, stamp_of
from daemon.collectors.journal import JournalCollector
from daemon.errors import SourceError
from daemon.messages import MAX_TEXT, Event, Line, Stamp
from daemon.pseudonyms import Pseudonyms

REMOTE = shutil.which("systemd-journal-remote", path="/lib/systemd:/usr/lib/systemd")
JOURNALD = shutil.which("systemd-journald", path="/lib/systemd:/usr/lib/systemd")
AT = Stamp("b" * 32, 1.0, 1_700_000_000.0)
BOOTS = ("1" * 32, "2" * 32)
START_US = 1_700_000_000_000_000


def export(boot, index, message, **fields):
    mono = index * 1000 + 1000
    wall = START_US + (BOOTS.index(boot) * 3_600_000_000) + mono
    head = {
        "__REALTIME_TIMESTAMP": wall,
        "__MONOTONIC_TIMESTAMP": mono,
        "_BOOT_ID": boot,
        "PRIORITY": "6",
        "_TRANSPORT": "syslog",
        "_PID": "77",
        "_UID": "0",
        "_COMM": "sshd",
        "SYSLOG_IDENTIFIER": "sshd",
        "_SYSTEMD_UNIT": "ssh.service",
    } | fields
    body = b"".join(f"{key}={value}\n".encode() for key, value in head.items())
    return body + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n\n"


def make_journal(folder, entries):
    if REMOTE is None:
        pytest.skip("systemd-journal-remote is not installed")
    folder.mkdir(exist_ok=True)
    source = folder.with_suffix(".export")
    source.write_bytes(b"".join(entries))
    subprocess.run([REMOTE, "-o", str(folder / "x.journal"), str(source)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    entries = [export(boot, index, f"{boot[0]}-{index}".encode()) for boot in BOOTS for index in range(50)]
    return make_journal(tmp_path_factory.mktemp("journal") / "x", entries)


def lines(found):
    return [item for item in found if isinstance(item, Line)]


def gaps(found):
    return [item.attributes for item in found if isinstance(item, Event) and item.action == "gap"]


# --- entries ------------------------------------------------------------------------------------------


def entry(**fields):
    return {key: value if isinstance(value, list) else value.encode() for key, value in fields.items()}


def test_only_trusted_fields_name_the_sender():
    line = line_of(
        entry(
            MESSAGE="m",
            _UID="1000",
            _COMM="logger",
            SYSLOG_IDENTIFIER="sshd",
            UNIT="ssh.service",
            MESSAGE_ID="f",
        ),
        AT,
    )
    assert (line.identifier, line.subject_unit, line.message_id, line.uid) == ("logger", "", "", 1000)


def test_a_process_that_is_gone_is_called_what_it_said():
    gone = {"MESSAGE": "m", "_UID": "1000", "_PID": "815", "SYSLOG_IDENTIFIER": "pkexec"}
    assert line_of(entry(**gone), AT).identifier == "pkexec"
    assert line_of(entry(**gone | {"SYSLOG_IDENTIFIER": "kernel"}), AT).identifier == ""


@pytest.mark.parametrize(
    ("changed", "unit"),
    [
        ({}, "absent.service"),
        ({"_UID": "1000"}, ""),  # anybody may say so
        ({"_PID": "1"}, ""),  # speaks about it
        ({"_COMM": "logger"}, ""),  # journald looked, and found it in no unit
        ({"_SYSTEMD_UNIT": "real.service"}, "real.service"),
        ({"SYSLOG_IDENTIFIER": "systemd-executor"}, "absent.service"),
        ({"SYSLOG_IDENTIFIER": "root"}, ""),
    ],
)
def test_a_child_of_the_service_manager_that_is_gone_is_of_the_unit_that_it_said(changed, unit):
    gone = {"MESSAGE": "no such program", "_UID": "0", "_PID": "815", "UNIT": "absent.service"}
    gone["SYSLOG_IDENTIFIER"] = "(nstalled)"
    assert line_of(entry(**gone | changed), AT).unit == unit


def test_nobody_but_the_kernel_is_called_kernel():
    fields = {"MESSAGE": "m", "_UID": "0", "_COMM": "logger", "SYSLOG_IDENTIFIER": "kernel"}
    assert line_of(entry(**fields), AT).identifier == "logger"
    assert line_of(entry(_TRANSPORT="kernel", SYSLOG_FACILITY="1", **fields), AT).identifier == "logger"


def test_unit_counts_only_when_pid_1_wrote_the_line():
    fields = {
        "MESSAGE": "m",
        "_UID": "0",
        "UNIT": "nginx.service",
        "EXIT_STATUS": "1",
        "JOB_RESULT": "failed",
    }
    assert line_of(entry(_PID="1", **fields), AT).subject_unit == "nginx.service"
    assert line_of(entry(_PID="17", **fields), AT).subject_unit == ""
    assert line_of(entry(_PID="1", **fields), AT).fields == {"EXIT_STATUS": "1", "JOB_RESULT": "failed"}


def test_fields_of_others_than_root_are_not_kept():
    assert line_of(entry(MESSAGE="m", _UID="1000", EXIT_STATUS="1", COREDUMP_COMM="x"), AT).fields == {}


def test_kernel_lines_are_the_kernels_only_with_its_facility():
    kernel = line_of(entry(MESSAGE="m", _TRANSPORT="kernel", SYSLOG_FACILITY="0", _KERNEL_DEVICE="b8:0"), AT)
    assert (kernel.identifier, kernel.trusted, kernel.fields) == ("kernel", True, {"_KERNEL_DEVICE": "b8:0"})
    forged = line_of(
        entry(MESSAGE="m", _TRANSPORT="kernel", SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="kernel"), AT
    )
    assert not forged.trusted


@given(
    st.dictionaries(
        st.sampled_from(
            ["MESSAGE", "PRIORITY", "_PID", "_UID", "_COMM", "SYSLOG_IDENTIFIER", "UNIT", "MESSAGE_ID"]
        ),
        st.one_of(st.binary(max_size=900), st.lists(st.binary(max_size=9), max_size=3)),
    )
)
def test_any_field_content_becomes_a_line(fields):
    line = line_of(fields, AT)
    assert 0 <= line.priority <= 7
    assert len(line.identifier) <= 512
    assert line.identifier.isprintable()


@pytest.mark.parametrize("text", ["", "s=1", "s=1;i=x;b=1;m=1;t=1;x=1", "a;b;c;d;e;f", "s=" + "0" * 1000])
def test_a_damaged_cursor_is_refused(text):
    with pytest.raises(ValueError, match=r"cursor|base 16"):
        parse_cursor(text)


def test_stamp_is_the_receive_time():
    cursor = parse_cursor("s=a;i=1f;b=cc;m=f4240;t=5f5e100;x=0")
    assert stamp_of(cursor) == Stamp("cc", 1.0, 100.0)
    assert cursor.sequence == 31


# --- stored journals ----------------------------------------------------------------------------------


def test_boots_are_listed_with_their_sizes(stored):
    boots = list_boots(stored)
    assert [(boot.id, boot.entries) for boot in boots] == [(BOOTS[0], 50), (BOOTS[1], 50)]
    assert boots[0].last < boots[1].first


def test_an_archive_gives_every_line_of_one_boot_or_all(stored):
    whole = Archive(stored)
    assert [line.text for line in whole] == [f"{boot[0]}-{index}" for boot in BOOTS for index in range(50)]
    assert (whole.total, whole.done, count_entries(stored)) == (100, 100, 100)
    one = Archive(stored, BOOTS[1])
    texts = [line.text for line in one]
    assert texts[0] == "2-0"
    assert (one.total, one.done) == (50, 50)


def test_an_archive_without_journal_is_named(tmp_path):
    with pytest.raises(SourceError):
        list(Archive(tmp_path / "missing"))


def test_a_damaged_archive_says_how_much_is_missing(stored, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(stored, copy)
    file = copy / "x.journal"
    raw = bytearray(file.read_bytes())
    at = raw.index(b"MESSAGE=2-20") - 200
    raw[at : at + (64 << 10)] = bytes(64 << 10)
    file.write_bytes(raw)
    found = list(Archive(copy))
    missing = 100 - len(lines(found))
    assert missing > 0
    assert gaps(found)[0]["lost"] == str(missing)


def test_collector_goes_on_after_the_saved_cursor(stored):
    cursor = next(line.cursor for line in Archive(stored) if line.text == "1-47")
    collector = JournalCollector(cursor, stored)
    assert collector.open()[0].action == "present"
    found = collector.read(now())
    assert [line.text for line in lines(found)][:4] == ["1-48", "1-49", "2-0", "2-1"]
    assert gaps(found) == []
    assert collector.position() == lines(found)[-1].cursor
    collector.close()
    collector.open()
    assert collector.read(now()) == []
    collector.close()


def test_collector_without_cursor_begins_at_the_end(stored):
    collector = JournalCollector(path=stored)
    collector.open()
    assert collector.read(now()) == []
    assert parse_cursor(collector.position()).sequence == 100
    collector.close()


def test_entries_vacuumed_after_the_cursor_are_counted(stored, tmp_path):
    folder = tmp_path / "x"
    cursor = next(line.cursor for line in Archive(stored) if line.text == "1-0")
    tail = make_journal(folder, [export(BOOTS[0], index, f"1-{index}".encode()) for index in range(50)])
    gone = next(line.cursor for line in Archive(tail) if line.text == "1-9")
    shifted = ";".join([cursor.split(";")[0], "i=fff", *gone.split(";")[2:]])
    collector = JournalCollector(shifted, tail)
    collector.open()
    found = collector.read(now())
    assert len(lines(found)) >= 40
    assert gaps(found)[0]["lost"] == "unknown"  # another sequence: nobody can say how many
    collector.close()


def test_the_first_entry_that_vacuuming_left_is_read(stored):
    first = next(iter(Archive(stored))).cursor.split(";")
    gone = ";".join([first[0], "i=0", first[2], "m=1", f"t={START_US:x}", "x=0"])
    collector = JournalCollector(gone, stored)
    collector.open()
    found = collector.read(now())
    assert [line.text for line in lines(found)][:2] == ["1-0", "1-1"]
    assert gaps(found) == []
    collector.close()


def test_a_foreign_cursor_is_said_and_the_end_is_followed(stored):
    collector = JournalCollector("nonsense", stored)
    collector.open()
    assert gaps(collector.read(now()))[0]["lost"] == "unknown"
    collector.close()


def test_a_missing_journald_makes_the_source_absent(tmp_path):
    with pytest.raises(SourceError, match="journald"):
        JournalCollector(run=tmp_path).open()


def test_an_empty_directory_makes_the_source_absent(tmp_path):
    with pytest.raises(SourceError, match="no readable"):
        JournalCollector(path=tmp_path).open()


def test_one_read_is_bounded(tmp_path):
    folder = make_journal(tmp_path / "x", [export(BOOTS[0], i, b"x %d" % i) for i in range(2500)])
    collector = JournalCollector(next(iter(Archive(folder))).cursor, folder)
    collector.open()
    total = 0
    while True:
        found = collector.read(now())
        assert len(found) <= 1000
        total += len(found)
        if not collector.pending():
            break
    assert total == 2499
    collector.close()


def test_pseudonyms_reach_the_lines(stored):
    names = Pseudonyms(b"k" * 32)
    line = line_of(entry(MESSAGE="from 192.0.2.7", _UID="0"), AT, "", names.clean)
    assert line.text == f"from {names.address('192.0.2.7')}"


# --- the lab: a journald of our own, in private namespaces ------------------------------------------------

ALONE = f"""
mount -t tmpfs t /run -o mode=755; mkdir -p /run/systemd/journal /run/log/journal /run/systemd/system
mount -t tmpfs t /var/log; mount --bind /dev/null /dev/kmsg
[ -s /etc/machine-id ] || {{ echo {BOOTS[0]} > /run/mid; mount --bind /run/mid /etc/machine-id; }}
{JOURNALD} & echo $! > /run/journald.pid
for i in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.02; done
"$@"; rc=$?; kill $(cat /run/journald.pid); exit $rc
"""


def beside_journald(case):
    if os.geteuid() != 0 or JOURNALD is None:
        pytest.skip("needs root and systemd-journald")
    unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [*unshare, "bash", "-c", ALONE, "_", sys.executable, __file__, case],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr[:100]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.lab
def test_live_tail_survives_rotation_vacuum_and_restart():
    result = beside_journald("rotation")
    assert result["live"] == ["hello"]
    assert result["rotated"] == 50
    assert result["others"] == 100  # written by another user, in between
    assert result["lost"] > 0
    assert result["read"] + result["lost"] == result["offered"]
    assert result["restarted"] == [f"again {i}" for i in range(5)]


@pytest.mark.lab
def test_huge_fields_do_not_stay_in_memory():
    result = beside_journald("huge")
    assert result["lengths"] == [MAX_TEXT, MAX_TEXT]
    assert result["invalid"] == "a\\xff\\xfeb"
    print("peak MiB", result["peak_mib"], "after MiB", result["after_mib"])
    assert result["peak_mib"] < 64 * 3  # one copy of the field besides the file's pages
    assert result["after_mib"] < 48


def send(sock, **fields):
    sock.send("".join(f"{key}={value}\n" for key, value in fields.items()).encode())


def connect():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect("/run/systemd/journal/socket")
    return sock


def drain(collector, enough, timeout_s=5.0):
    found, end = [], time.monotonic() + timeout_s
    while time.monotonic() < end and not enough(found):
        found += collector.read(now())
        if not collector.pending():
            select.select([collector.fileno()], [], [], 0.1)
    return found


def texts(found):
    return [line.text for line in lines(found)]


def journald_pid():
    return int(Path("/run/journald.pid").read_text())


def rotation():
    sock = connect()
    send(sock, MESSAGE="before")
    time.sleep(0.2)
    collector = JournalCollector()
    collector.open()
    send(sock, MESSAGE="hello")
    result = {"live": [t for t in texts(drain(collector, lambda f: "hello" in texts(f))) if t == "hello"]}
    os.kill(journald_pid(), signal.SIGUSR2)
    for index in range(50):
        send(sock, MESSAGE=f"rotated {index}")
    found = drain(collector, lambda f: "rotated 49" in texts(f))
    result["rotated"] = sum(text.startswith("rotated") for text in texts(found))
    if os.fork() == 0:
        os.setgid(1000)
        os.setuid(1000)
        other = connect()
        for index in range(100):
            send(other, MESSAGE=f"other {index}", SYSLOG_IDENTIFIER="sshd")
        os._exit(0)
    for index in range(100):
        send(sock, MESSAGE=f"mine {index}")
    os.wait()
    found = drain(collector, lambda f: len(lines(f)) >= 200)
    result["others"] = sum(
        line.text.startswith("other") and line.identifier != "sshd" for line in lines(found)
    )
    result |= vacuumed(collector, sock)
    os.kill(journald_pid(), signal.SIGKILL)
    time.sleep(0.1)
    Path("/run/journald.pid").write_text(str(subprocess.Popen([JOURNALD]).pid))
    time.sleep(0.5)
    sock = connect()
    for index in range(5):
        send(sock, MESSAGE=f"again {index}")
    found = drain(collector, lambda f: "again 4" in texts(f))
    result["restarted"] = [text for text in texts(found) if text.startswith("again")]
    return result


def vacuumed(collector, sock):
    first = parse_cursor(collector.position()).sequence
    before = collector.lost
    for _ in range(4):
        for index in range(2000):
            send(sock, MESSAGE=f"{index} " + os.urandom(300).hex())
        time.sleep(0.2)
        os.kill(journald_pid(), signal.SIGUSR2)
        time.sleep(0.2)
    subprocess.run(["journalctl", "--vacuum-files=1"], check=True, capture_output=True)
    subprocess.run(["journalctl", "--vacuum-size=1K"], check=True, capture_output=True)
    send(sock, MESSAGE="after the vacuum")
    found = drain(collector, lambda f: "after the vacuum" in texts(f))
    last = parse_cursor(collector.position()).sequence
    return {"read": len(lines(found)), "lost": collector.lost - before, "offered": last - first}


def send_huge(sock, chunks):
    descriptor = os.memfd_create("field", os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(b"MESSAGE\n" + (len(chunks) << 20).to_bytes(8, "little"))
        for chunk in chunks:
            file.write(chunk)
        file.write(b"\nPRIORITY=5\n")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0xF)
    sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
    os.close(descriptor)


def rss_mib(key):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) >> 10


def huge():
    sock = connect()
    send(sock, MESSAGE="before")
    time.sleep(0.2)
    collector = JournalCollector()
    collector.open()
    result = {"lengths": []}
    for chunk in (b"y" * (1 << 20), os.urandom(1 << 20).replace(b"\n", b"n")):
        send_huge(sock, [chunk] * 64)
        found = drain(collector, lambda f: any(line.truncated for line in lines(f)), 20)
        result["lengths"] += [len(line.text) for line in lines(found) if line.truncated]
    message = b"a\xff\xfeb"
    sock.send(b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n")
    found = drain(collector, lambda f: any(text.startswith("a\\x") for text in texts(f)))
    result["invalid"] = texts(found)[-1]
    return result | {
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "after_mib": rss_mib("RssAnon"),
    }


if __name__ == "__main__":
    print(json.dumps({"rotation": rotation, "huge": huge}[sys.argv[1]]()))
