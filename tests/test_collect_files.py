import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.collectors.files import MAX_FILES, FileCollector
from daemon.collectors.headers import UNNAMED, Heads, parse_header
from daemon.collectors.tail import MAX_LINE_BYTES, Tail
from daemon.collectors.textlog import TextLog
from daemon.errors import SourceError
from daemon.messages import MAX_TEXT, Event, Line, Stamp


class Follower:
    """A collector on one pattern whose clock advances a second a read."""

    def __init__(self, pattern, position=""):
        self.collector = FileCollector(str(pattern), position)
        self.mono = 0.0
        self.opened = self.collector.open()

    def read(self, times=1):
        found = []
        for _ in range(times):
            self.mono += 1.0
            found += self.collector.read(Stamp("b" * 32, self.mono, self.mono))
            while self.collector.pending():
                found += self.collector.read(Stamp("b" * 32, self.mono, self.mono))
        return found

    def texts(self, times=1):
        return [item.text for item in self.read(times) if isinstance(item, Line)]


def append(path, text):
    with Path(path).open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("old line\n")
    return path


def test_only_what_is_new_is_read_and_untrusted(log):
    follower = Follower(log)
    append(log, "first\nsecond\npart")
    found = follower.read()
    assert [line.text for line in found] == ["first", "second"]
    assert (found[0].trusted, found[0].source, found[0].priority) == (False, f"file:{log}", 6)
    append(log, "ial\n")
    assert follower.texts() == ["partial"]


def test_rename_and_create_loses_nothing(log):
    follower = Follower(log)
    append(log, "before\n")
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), "still written to the old one\n")
    log.write_text("after\n")
    assert follower.texts(4) == ["before", "still written to the old one", "after"]


def test_copytruncate_is_noticed_and_said(log):
    follower = Follower(log)
    append(log, "x" * 200 + "\n")
    follower.read()
    os.truncate(log, 0)
    append(log, "after\n")
    found = follower.read()
    assert [item.text for item in found if isinstance(item, Line)] == ["after"]
    event = next(item for item in found if isinstance(item, Event))
    assert (event.action, event.attributes["lost"]) == ("gap", "unknown")


def test_truncation_that_outgrew_the_old_size_is_noticed(log):
    follower = Follower(log)
    append(log, "one\n")
    assert follower.texts() == ["one"]
    os.truncate(log, 0)
    append(log, "new beginning\n" * 50)
    assert follower.texts() == ["new beginning"] * 50


def test_a_deleted_file_is_read_to_its_end_and_its_successor_from_the_start(log):
    follower = Follower(log)
    append(log, "last words")
    log.unlink()
    found = follower.read(3)
    assert [item.text for item in found if isinstance(item, Line)] == ["last words"]
    assert any(isinstance(item, Event) and item.action == "error" for item in found)
    assert follower.read(5) == []  # said once
    log.write_text("reborn\n")
    assert follower.texts() == ["reborn"]


def test_a_missing_file_is_named_and_then_read_when_it_appears(tmp_path):
    follower = Follower(tmp_path / "later.log")
    assert follower.opened[0].action == "absent"
    (tmp_path / "later.log").write_text("hello\n")
    assert follower.texts(2) == ["hello"]


def test_position_survives_a_restart(log):
    follower = Follower(log)
    append(log, "one\ntwo\npart")
    follower.read()
    position = follower.collector.position()
    follower.collector.close()
    append(log, "ial\nthree\n")
    assert Follower(log, position).texts() == ["partial", "three"]


def test_closing_and_opening_again_goes_on_in_place(log):
    follower = Follower(log)
    append(log, "one\n")
    assert follower.texts() == ["one"]
    follower.collector.close()
    append(log, "two\n")
    follower.collector.open()
    assert follower.texts() == ["two"]


def test_position_follows_a_file_that_was_rotated_meanwhile(log):
    follower = Follower(log)
    append(log, "one\n")
    follower.read()
    position = follower.collector.position()
    append(log, "two\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("three\n")
    assert Follower(log, position).texts(4) == ["two", "three"]


def test_position_of_a_vanished_file_is_a_gap(log):
    follower = Follower(log)
    append(log, "one\n")
    follower.read()
    position = follower.collector.position()
    log.unlink()
    log.write_text("a wholly different file\n")
    found = Follower(log, position).read()
    assert [item.text for item in found if isinstance(item, Line)] == ["a wholly different file"]
    assert any(isinstance(item, Event) and item.action == "gap" for item in found)


@pytest.mark.parametrize("position", ["nonsense", "[]", '{"a": 1}', '{"/x": [1, 2, "?"]}'])
def test_a_damaged_position_begins_at_the_end(log, position):
    follower = Follower(log, position)
    append(log, "new\n")
    assert follower.texts() == ["new"]


def test_position_never_runs_ahead_of_what_was_given_out(log):
    collector = FileCollector(str(log))
    collector.open()
    append(log, "".join(f"line {i}\n" for i in range(5000)))
    first = collector.read(Stamp("b" * 32, 1.0, 1.0))
    assert 0 < len(first) <= 1100
    rest = Follower(log, collector.position()).texts()
    assert [line.text for line in first] + rest == [f"line {i}" for i in range(5000)]


def test_a_huge_line_is_cut_and_the_rest_skipped(log):
    follower = Follower(log)
    append(log, b"y" * (5 << 20) + b"\nnext\n")
    found = [item for item in follower.read() if isinstance(item, Line)]
    assert [line.text for line in found] == ["y" * MAX_TEXT, "next"]
    assert found[0].truncated
    tail = next(iter(follower.collector._tails.values()))
    assert tail.skipped_bytes == (5 << 20) - MAX_LINE_BYTES
    assert tail.saved.offset == log.stat().st_size


def test_nul_holes_and_binary_are_survived(log):
    follower = Follower(log)
    with log.open("r+b") as file:
        file.truncate(1 << 30)
    append(log, b"after the hole\n\x00\xff\xfe binary\n")
    assert follower.texts() == ["after the hole", "\\xff\\xfe binary"]


def test_a_hole_up_to_the_end_is_passed_over_at_once(log):
    follower = Follower(log)
    os.truncate(log, 1 << 40)
    assert follower.collector.read(Stamp("b" * 32, 1.0, 1.0)) == []
    assert not follower.collector.pending()
    append(log, "after the hole\n")
    assert follower.texts(2) == ["after the hole"]


def test_a_file_that_cannot_be_read_does_not_blind_its_neighbours(tmp_path):
    (tmp_path / "a.log").symlink_to("/proc/self/mem")  # a regular file whose every read is an error
    (tmp_path / "b.log").write_text("old\n")
    follower = Follower(tmp_path / "*.log")
    append(tmp_path / "b.log", "one\n")
    found = follower.read(5)
    assert [item.text for item in found if isinstance(item, Line)] == ["one"]
    assert [item.attributes["reason"] for item in found if isinstance(item, Event)] == [
        f"{tmp_path / 'a.log'}: Input/output error"
    ]


def test_a_pattern_finds_new_files_but_not_rotated_ones(tmp_path):
    (tmp_path / "a.log").write_text("old\n")
    follower = Follower(tmp_path / "*")
    append(tmp_path / "a.log", "one\n")
    assert follower.texts() == ["one"]
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    (tmp_path / "a.log").write_text("two\n")
    (tmp_path / "b.log").write_text("three\n")
    (tmp_path / "c.log.gz").write_bytes(b"\x1f\x8b")
    assert sorted(follower.texts(25)) == ["three", "two"]


def test_a_name_that_nobody_can_write_down_is_left_alone(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.log")).write_text("old\n")
    (tmp_path / "b.log").write_text("old\n")
    follower = Follower(tmp_path / "*.log")
    append(tmp_path / "b.log", "one\n")
    assert follower.texts() == ["one"]
    json.loads(follower.collector.position() or "{}")


def test_too_many_files_are_named_once(tmp_path):
    for index in range(MAX_FILES + 5):
        (tmp_path / f"{index}.log").write_text("x\n")
    follower = Follower(tmp_path / "*.log")
    events = [item for item in follower.read(30) if isinstance(item, Event)]
    assert len(events) == 1
    assert str(MAX_FILES) in events[0].attributes["reason"]


def test_a_missing_directory_makes_the_source_absent(tmp_path):
    with pytest.raises(SourceError):
        FileCollector(str(tmp_path / "none" / "x.log")).open()


def test_a_fifo_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.log")
    follower = Follower(tmp_path / "x.log")
    event = follower.read()[0]
    assert "regular" in event.attributes["reason"]


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_chunks_of_any_bytes_come_out_whole(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("tail") / "x"
    path.write_bytes(b"")
    tail = Tail(path)
    tail.poll()
    out = []
    for chunk in chunks:
        append(path, chunk)
        tail.poll()
        while tail.more:
            out += tail.take(3)
    whole = b"".join(chunks)
    assert [line.strip(b"\0") for line in out if line.strip(b"\0")] == [
        line.strip(b"\0") for line in whole.split(b"\n")[:-1] if line.strip(b"\0")
    ]
    tail.close()


# --- heads of lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "identifier", "pid", "priority", "text"),
    [
        ("Jun  9 06:06:20 combo sshd(pam_unix)[19939]: failure", "sshd(pam_unix)", 19939, 6, "failure"),
        ("<34>Oct 11 22:14:15 host su: 'su root' failed", "su", 0, 2, "'su root' failed"),
        ("2026-01-02T03:04:05.678901+01:00 h nginx[7]: up", "nginx", 7, 6, "up"),
        ("Jan  2 03:04:05 h kernel: [   12.345678] EXT4-fs error", "kernel", 0, 6, "EXT4-fs error"),
        ("<165>1 2003-10-11T22:14:15.003Z h app 77 ID47 [a@1 b='c\\]'] \ufefftext", "app", 77, 5, "text"),
        ("<165>1 2003-10-11T22:14:15.003Z h app - - - text", "app", 0, 5, "text"),
        ("<13>bare", "", 0, 5, "bare"),
        ("<999>bare", "", 0, 6, "bare"),
        ("no head at all: really", "", 0, 6, "no head at all: really"),
        *(
            (text, "", 0, priority, text)
            for text, priority in (
                ("2026/11/27 16:00:20 [error] 151#151: *11 no", 3),
                ("2026/11/27 16:00:20 [crit] 146#146: accept4() failed", 2),
                ("[Fri Nov 27 16:00:20.1 2026] [core:warn] [pid 7] AH00111: no", 4),
                ("2026-11-27 16:00:20.123 UTC [151] ERROR:  no relation", 3),
                ("2026-11-27 16:00:20,123 WARNING slow answer", 4),
                ("2026-11-27 16:00:20 0 [Note] no error", 6),
                ("an ERROR without a time", 6),
            )
        ),
    ],
)  # fmt: skip
def test_heads_of_syslog_lines_are_read(line, identifier, pid, priority, text):
    raw = line.encode()
    header = parse_header(raw)
    assert (header.identifier, header.pid, header.priority) == (identifier, pid, priority)
    assert raw[header.text_at :].decode() == text


@given(st.binary(max_size=500))
def test_any_line_has_a_head(raw):
    header = parse_header(raw)
    assert 0 <= header.text_at <= len(raw)
    assert 0 <= header.priority <= 7
    assert Heads().of(raw)._replace(identifier="") == header._replace(identifier="")


FULL = "No space left on device"
CRASH = f"panic: {FULL}"


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 29 13:00:00 host a b: {FULL}",  # logger -t "a b"
        f"Nov 29 13:00:00 host : {FULL}",
        f"Nov 29 13:00:00 host [x]: {FULL}",
        f"Nov 29 13:00:00 host {'a' * 65}: {FULL}",
        f"Nov 29 13:00:00 host a\u200b: {FULL}",
        f"Nov 29 13:00:00 2001:db8::7 app: {FULL}",
        f"<13>Nov 29 13:00:00 host a b: {FULL}",
        f"2026-11-29T13:00:00.123456+00:00 host a b: {FULL}",
        f"<13>1 2026-11-29T13:00:00Z host - - - - {FULL}",
        f"<13>1 2026-11-29T13:00:00Z host {'a' * 65} - - - {FULL}",
    ],
)
def test_line_in_a_systems_log_is_somebodys_whatever_tag_he_chose(line, log):
    follower = Follower(log)
    append(log, f"{CRASH}\n{line}\n{CRASH}\n")
    own, anybodys, after = follower.read()
    assert own.identifier == ""
    assert anybodys.identifier == UNNAMED
    assert FULL in anybodys.text
    assert after.identifier == UNNAMED  # such a line may be the second one of what somebody wrote


def test_file_that_begins_as_a_systems_log_is_one_from_the_first_line_that_is_read(log, tmp_path):
    log.write_text(f"Nov 29 13:00:00 host app[7]: a message that is long enough for more than {FULL}\n")
    follower = Follower(log)
    append(log, f"{CRASH}\n")
    assert [line.identifier for line in follower.read()] == [UNNAMED]
    lines = f"{CRASH}\nNov 29 13:00:00 host app[7]: x\n{CRASH}\n"
    assert [one.line.identifier for one in stored(tmp_path, lines, 1704200000.0)] == ["", "app", UNNAMED]


@pytest.mark.parametrize(
    "line",
    [
        "2026/11/27 16:00:20 [error] 151#151: *11 no",
        "[Fri Nov 27 16:00:20.1 2026] [core:warn] [pid 7] AH00111: no",
        "Fri Nov 27 16:00:20 2026 us=12 TLS Error: no",
        "2026-11-27 16:00:20.123 UTC [151] ERROR:  no relation",
        "2026-11-27 16:00:20 0 [ERROR] InnoDB: no",
        "2026-11-27T16:00:20.123456Z 0 [ERROR] [MY-010123] [Server] no",
        "2026-11-27T16:00:20.123+0000 I NETWORK  [conn1] no",
        "2026-11-27T16:00:20.123456+01:00 0 [ERROR] [MY-012639] [InnoDB] no",
        "2026-11-27T16:00:20.123+01:00 ERROR 1 --- [           main] o.s.boot.SpringApplication : no",
        "2026-11-27T16:00:20.123456789+01:00 stderr F panic: no",
        "Nov 27 16:00:20.000 [notice] Tor says no",
        "Nov 27 16:00:20 imap-login: Info: no",
        "12:M 27 Nov 2026 16:00:20.123 # no",
        "Nov 27 16:00:20",
    ],
)
def test_file_that_a_program_writes_itself_stays_its_own(line, log):
    follower = Follower(log)
    append(log, f"{line}\n{CRASH}\n")
    assert [one.identifier for one in follower.read()] == ["", ""]


# --- stored files, for replay -----------------------------------------------------------------------------


def stored(tmp_path, text, changed_at, **options):
    path = tmp_path / "stored.log"
    path.write_text(text)
    os.utime(path, (changed_at, changed_at))
    return TextLog(path, **options)


def local(*parts):
    return datetime(*parts).timestamp()  # noqa: DTZ001 - log files are in local time


def test_years_are_guessed_across_new_year(tmp_path):
    text = "Dec 31 23:59:59 h a: old\nJan  1 00:00:01 h a: new\nFeb 29 12:00:00 h a: leap\n"
    log = stored(tmp_path, text, local(2024, 3, 1))
    assert [item.line.at.wall for item in log] == [
        local(2023, 12, 31, 23, 59, 59),
        local(2024, 1, 1, 0, 0, 1),
        local(2024, 2, 29, 12),
    ]


@pytest.mark.parametrize(
    ("line", "wall"),
    [
        ("2024-01-02T03:04:05.5Z h a: x", 1704164645.5),
        ("2024-01-02 04:04:05,250+0100 INFO x", 1704164645.25),
        ('1.2.3.4 - - [02/Jan/2024:04:04:05 +0100] "GET /"', 1704164645.0),
        ("1704164645.125 something", 1704164645.125),
        ("type=SYSCALL msg=audit(1704164645.125:7): x", 1704164645.125),
        ("240102 030405 7 INFO x", local(2024, 1, 2, 3, 4, 5)),
        ("24/01/02 03:04:05 INFO x", local(2024, 1, 2, 3, 4, 5)),
        ("20240102-03:04:05:6|x", local(2024, 1, 2, 3, 4, 5)),
        ("Tue Jan 02 03:04:05 2024 x", local(2024, 1, 2, 3, 4, 5)),
    ],
)
def test_common_times_are_read(tmp_path, line, wall):
    assert next(iter(stored(tmp_path, line + "\n", 1704200000.0))).line.at.wall == wall


@pytest.mark.parametrize(
    ("line", "trusted"),
    [
        ("[   12.345678] Out of memory: Killed process 1 (x)", True),
        ("<3>[   12.345678] Out of memory: Killed process 1 (x)", True),
        ("<12>[   12.345678] forged by way of /dev/kmsg", False),
        ("[Tue Jan  2 03:04:05 2024] Out of memory: Killed process 1 (x)", True),
        ("Jan  2 03:04:05 h kernel: [   12.345678] Out of memory: Killed process 1 (x)", True),
        ("Jan  2 03:04:05 h kernel[77]: Out of memory: Killed process 1 (x)", False),
        ("Jan  2 03:04:05 h app: Out of memory: Killed process 1 (x)", False),
        ("[   12.345] not the kernel's form", False),
    ],
)
def test_kernel_lines_count_only_in_a_file_that_the_operator_named(tmp_path, line, trusted):
    text = "Out of memory: Killed process 1 (x)"
    (named,) = stored(tmp_path, line + "\n", 1704200000.0, kernel=True)
    assert named.line.trusted is trusted
    assert not trusted or (named.line.identifier, named.line.text) == ("kernel", text)
    (followed,) = stored(tmp_path, line + "\n", 1704200000.0)
    assert not followed.line.trusted


def test_uptimes_end_at_the_files_last_change(tmp_path):
    log = stored(tmp_path, "[   10.000000] a\n[   12.500000] b\n", 1704200000.0)
    assert [item.line.at.wall for item in log] == [1704199997.5, 1704200000.0]


def test_missing_and_backward_times_take_the_time_before(tmp_path):
    text = "no time\n2024-01-02T03:04:05Z a\n\tat stack\n2024-01-02T03:04:01Z b\n2024-01-02T03:04:09Z c\n"
    monos = [item.line.at.mono for item in stored(tmp_path, text, 1704200000.0)]
    assert monos == sorted(monos)
    assert monos[-1] - monos[1] == pytest.approx(4.0)


def test_a_file_without_times_keeps_its_order(tmp_path):
    monos = [item.line.at.mono for item in stored(tmp_path, "a\nb\nc\n", 1704200000.0)]
    assert len(set(monos)) == 3


def test_progress_ends_at_the_files_size(tmp_path):
    log = stored(tmp_path, "x" * 100_000 + "\nlast\n", 1704200000.0)
    found = list(log)
    assert [len(item.line.text) for item in found] == [MAX_TEXT, 4]
    assert found[0].line.truncated
    assert found[-1].bytes_done == log.total
