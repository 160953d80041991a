"""`hauswart train dataset`: where rows come from, how they are split, and what is kept out of training."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from daemon.messages import Line, Sample, Stamp
from daemon.store.segments import SegmentWriter
from training import hostlines
from training.dataset import find_source, preprocess_data, write_rows
from training.rows import METADATA, read_parquet, read_table, write_parquet
from training.splits import UID_SHARE, cap_uids, split_groups
from training.tables import DataError

ROOT = Path(__file__).parent.parent
WORDS = "disk usb link memory fan port clock queue buffer socket lease route".split()  # noqa: SIM905


def rows(groups=30, each=6, **more):
    return [
        {
            "text": f"{WORDS[n % 12]} {chr(97 + g % 26)}{g}x failed {WORDS[(g + n) % 12]}",
            "group": f"g{g}",
            "source": "s",
        }
        | {"severity": (g + n) % 4}
        | more
        for g in range(groups)
        for n in range(each)
    ]


def write_jsonl(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture
def module(monkeypatch):
    """A source of its own, which counts how often it was asked."""
    made = types.ModuleType("training.sources.made")
    made.FILES = ("a.csv",)
    made.asked = []

    def give(data_dir, seed=0, extra=0):
        made.asked.append((data_dir, seed, extra))
        return rows(10 + extra)

    made.rows = give
    monkeypatch.setitem(sys.modules, "training.sources.made", made)
    monkeypatch.setattr("training.dataset.find_spec", lambda name: made if name.endswith(".made") else None)
    return made


# --- splits -------------------------------------------------------------------------------------------------


def test_groups_are_split_whole_and_the_shares_are_about_as_asked():
    prepared = preprocess_data(rows(100), shares={"test": 0.2, "val": 0.1})
    by_group = {}
    for row in prepared.rows:
        by_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_group.values())
    assert prepared.statistics["splits"]["test"]["rows"] == pytest.approx(120, abs=12)
    assert prepared.statistics["splits"]["val"]["rows"] == pytest.approx(60, abs=12)


def test_split_depends_on_the_seed_alone():
    first, again, other = (
        [row["split"] for row in preprocess_data(rows(), seed=seed).rows] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_group_that_is_nearly_everything_trains():
    found = [{"text": f"a {n}", "group": "big", "source": "s"} for n in range(90)] + rows(10, 1)
    split_groups(found, {"test": 0.3}, 0)
    assert {row["split"] for row in found if row["group"] == "big"} == {"train"}
    assert any(row["split"] == "test" for row in found)


def test_split_that_a_source_chose_stands_and_a_torn_group_is_refused():
    found = [row | {"split": "test" if row["group"] == "g3" else "train"} for row in rows(5)]
    assert {r["group"] for r in preprocess_data(found).rows if r["split"] == "test"} == {"g3"}
    found[0]["split"], found[1]["split"] = "train", "test"
    with pytest.raises(DataError, match="g0"):
        preprocess_data(found)


def test_duplicates_and_texts_that_are_held_out_do_not_train():
    found = [row | {"split": "train"} for row in rows(4)]
    held = found[0] | {"split": "test", "group": "other"}
    prepared = preprocess_data([*found, dict(found[1]), held])
    assert prepared.statistics["dropped"] == {"duplicates": 1, "held out elsewhere": 1}
    assert held["text"] not in {row["text"] for row in prepared.rows if row["split"] == "train"}
    assert held["text"] in {row["text"] for row in prepared.rows if row["split"] == "test"}


def test_unicode_is_normalised_before_rows_are_compared():
    found = [
        {"text": text, "group": "g", "source": "s"} for text in ("caf\u00e9 failed", "cafe\u0301 failed")
    ]
    assert preprocess_data(found).statistics["dropped"] == {"duplicates": 1}


def test_no_unprivileged_user_supplies_more_than_a_twentieth():
    found = rows(100, 4) + [
        {"text": f"evil {n}", "group": f"g{n % 100}", "source": "s", "uid": 1000 + n % 2} for n in range(2000)
    ]
    found += [{"text": f"daemon {n}", "group": "d", "source": "s", "uid": 33} for n in range(30)]
    prepared = preprocess_data(found)
    for split in prepared.statistics["splits"].values():
        assert all(share <= UID_SHARE for uid, share in split["uid_shares"].items() if int(uid) >= 1000)
    assert {"uid 1000", "uid 1001"} <= prepared.statistics["dropped"].keys()
    assert sum(row.get("uid") == 33 for row in prepared.rows) == 30


def test_writers_nobody_vouches_for_count_as_one_user():
    found = [row | {"split": "train"} for row in rows(20)]
    strangers = [
        {"text": f"x {n}", "group": "g", "source": "s", "split": "train", "uid": -1} for n in range(500)
    ]
    kept, lost = cap_uids([*found, *strangers], "text", 0)
    assert sum(row.get("uid") == -1 for row in kept) == int(UID_SHARE * len(kept))
    assert lost == {"unknown writers": 500 - (len(kept) - 120)}


def test_only_loud_users_leave_nothing():
    found = [
        {"text": f"x {n}", "group": "g", "source": "s", "split": "train", "uid": 1000} for n in range(50)
    ]
    assert cap_uids(found, "text", 0) == ([], {"uid 1000": 50})


# --- files --------------------------------------------------------------------------------------------------


def test_data_set_says_how_it_was_made_and_reads_back(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = write_jsonl(tmp_path / "t.jsonl", rows())
    statistics = write_rows(out=tmp_path / "rows.parquet", tables=[table], seed=5)
    found = read_parquet(tmp_path / "rows.parquet")
    assert len(found) == statistics["rows"] == 180
    assert found[0].keys() == {"text", "group", "source", "split", "severity"}
    said = json.loads(parquet.read_schema(tmp_path / "rows.parquet").metadata[METADATA])
    assert said["seed"] == 5
    assert said["splits"] == statistics["splits"]


def test_missing_labels_are_null_and_other_columns_keep_their_type(tmp_path):
    given = [
        {"text": "a", "group": "g", "source": "s", "split": "train", "alert": 1, "soft": [0.5, 1.0]},
        {"text": "b", "group": "g", "source": "s", "split": "train", "severity": 2},
    ]
    write_parquet(tmp_path / "r.parquet", given, {})
    found = read_parquet(tmp_path / "r.parquet")
    assert [row["severity"] for row in found] == [None, 2]
    assert found[0]["alert"] == 1.0
    assert found[0]["soft"] == [0.5, 1.0]


def test_raw_lines_of_a_table_become_the_models_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("line,group,alert,severity\nJun 14 15:16:01 h sshd[9]: Failed password for bob,ssh,1,\n")
    found = read_table(path)
    assert found[0]["text"].startswith("sshd | failed password")
    assert found[0]["alert"] == 1.0
    assert "severity" not in found[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text"\n', "line 2"),
        ("t.jsonl", "[1]\n", "no JSON object"),
        ("t.csv", "text,group,severity\na,b,loud\n", "column severity: 'loud'"),
        ("t.csv", "text,severity\na,1\n", "no column 'group'"),
        ("t.parquet", "PAR0", "no Parquet"),
        ("t.jsonl", '{"text": "a", "source": "s"}\n', "lacks text, group or source"),
    ],
)
def test_wrong_table_is_told(name, content, said, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        write_rows(out=tmp_path / "out.parquet", tables=[tmp_path / name])
    assert said in str(caught.value)


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(DataError, match="empty"):
        write_rows(out=tmp_path / "out.parquet")


# --- sources ------------------------------------------------------------------------------------------------


def test_finished_part_is_taken_up_after_a_run_that_was_cut_short(module, tmp_path):
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"text": "no group", "source": "s"}])
    arguments = {"out": tmp_path / "o.parquet", "modules": ["made"], "data_dir": tmp_path}
    with pytest.raises(DataError):
        write_rows(**arguments, tables=[bad])
    write_rows(**arguments)
    assert len(module.asked) == 1
    assert not list(tmp_path.glob("*.parts"))
    write_rows(**arguments, seed=2)
    assert module.asked[1][1] == 2


def test_options_of_a_source_are_checked_by_name(module, tmp_path):
    arguments = {"out": tmp_path / "o.parquet", "modules": ["made"], "data_dir": tmp_path}
    assert write_rows(**arguments, options={"made": {"extra": 5}})["rows"] == 90
    with pytest.raises(ConfigError) as caught:
        write_rows(**arguments, options={"made": {"extr": 5}})
    assert "extra" in caught.value.hint


def test_source_that_reads_an_unnamed_or_unfit_file_is_refused(module):
    assert find_source("made", [{"path": "a.csv", "mark": "ship"}]) is module
    with pytest.raises(ConfigError, match="not among"):
        find_source("made", [])
    with pytest.raises(ConfigError, match="evaluate-only"):
        find_source("made", [{"path": "a.csv", "mark": "evaluate-only"}])


def test_unknown_source_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        find_source("situation", None)
    assert "situations" in caught.value.hint
    with pytest.raises(ConfigError):
        find_source("../../etc", None)


# --- this host's lines --------------------------------------------------------------------------------------


def line(number, text, **more):
    return Line(at=Stamp("b" * 32, float(number), 1e9 + number), source="journal", text=text, **more)


def test_kept_telemetry_gives_rows_in_time_order_with_writer_and_chosen_level(tmp_path):
    writer = SegmentWriter(tmp_path, 14, 512)
    writer.write(
        [
            line(1, "disk failed", priority=3, unit="a.service", identifier="a", uid=0),
            line(2, "said by hand", unit="b.service", identifier="b", uid=1000),
            line(3, "disk failed", priority=3, unit="a.service", identifier="a", uid=0),
            line(4, "forged", priority=0, unit="c.service", trusted=False, uid=0),
            Sample(at=Stamp("b" * 32, 5.0, 1e9 + 5), source="host", values={"cpu.busy": 0.5}),
        ],
        Stamp("b" * 32, 6.0, 1e9 + 6),
    )
    writer.close()
    found = hostlines.Collected("service")
    hostlines.from_telemetry(tmp_path, found, print)
    assert found.lines == 4
    seen = [(row["group"], row["severity"], row["uid"]) for row in found.rows]
    assert seen == [("a.service", 0, 0), ("b.service", None, 1000), ("c.service", None, -1)]
    assert [row["at"] for row in found.rows] == sorted(row["at"] for row in found.rows)


def test_damaged_segment_is_told_and_the_rest_goes_on(tmp_path):
    (tmp_path / "20260101T0000.msgpack.zst").write_bytes(b"garbage" * 50)
    said = []
    hostlines.from_telemetry(tmp_path, hostlines.Collected("service"), said.append)
    assert said


def entry(text, **more):
    fields = {"MESSAGE": text, "PRIORITY": "6", "_UID": "0", "__REALTIME_TIMESTAMP": "1700000000000000"}
    return json.dumps(fields | more)


@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """A journalctl of our own that prints what the test wrote, and notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "journalctl"
    script.write_text(f'#!/bin/sh\necho "$@" >{folder}/called\ncat {folder}/out\nexit $(cat {folder}/code)\n')
    script.chmod(0o755)
    (folder / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_journal_gives_rows_and_only_chosen_priorities_label_them(journalctl):
    entries = [
        entry("oops", PRIORITY="3", _TRANSPORT="kernel"),
        entry("printed", PRIORITY="3", _TRANSPORT="stdout", _SYSTEMD_UNIT="a.service", SYSLOG_IDENTIFIER="a"),
        entry("sent warning", PRIORITY="4", _TRANSPORT="syslog", _UID="1000", SYSLOG_IDENTIFIER="b"),
        entry([112, 119, 100, 61, 104, 117, 110, 116, 101, 114, 50], _TRANSPORT="syslog"),
        '{"MESSAGE": null}',
        "no json",
    ]
    (journalctl / "out").write_text("\n".join(entries) + "\n")
    found, said = hostlines.Collected("service"), []
    hostlines.from_journal(found, said.append, ["--since=-1d"])
    assert [(row["severity"], row["uid"]) for row in found.rows] == [(0, 0), (None, 0), (1, 1000), (None, 0)]
    assert "hunter2" not in found.rows[3]["text"]
    assert "2 entries" in said[0]
    assert "--since=-1d" in (journalctl / "called").read_text()


def test_failing_journalctl_is_an_error(journalctl):
    (journalctl / "out").write_text("")
    (journalctl / "code").write_text("3")
    with pytest.raises(Exception, match="journalctl failed"):
        hostlines.from_journal(hostlines.Collected("service"), print)


def test_real_journalctl_reads_an_archive(tmp_path):
    remote = shutil.which(
        "systemd-journal-remote", path=f"{os.environ['PATH']}:/lib/systemd:/usr/lib/systemd"
    )
    if not remote or not shutil.which("journalctl"):
        pytest.skip("needs journalctl and systemd-journal-remote")
    export = b"".join(
        b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\nMESSAGE=unit %d failed\n"
        b"PRIORITY=3\n_TRANSPORT=syslog\n_UID=0\n_SYSTEMD_UNIT=u%d.service\n\n"
        % (1700000000000000 + n, n, b"a" * 32, n, n)
        for n in range(5)
    )
    target = tmp_path / "a.journal"
    subprocess.run([remote, "-o", target, "-"], input=export, check=True, capture_output=True)
    found = hostlines.Collected("service")
    hostlines.from_journal(found, print, [f"--file={target}"])
    assert [row["group"] for row in found.rows] == [f"u{n}.service" for n in range(5)]
    assert {row["severity"] for row in found.rows} == {0}


def test_plain_log_is_cut_redacted_and_grouped_by_program(tmp_path):
    log = tmp_path / "messages"
    log.write_bytes(
        b"Jun 14 15:16:01 h sshd[9]: password=hunter2 refused\nJun 14 15:16:02 h cron[8]: ran\n"
        + b"x" * 300_000
        + b"\n"
    )
    found = hostlines.Collected("service")
    hostlines.from_log(log, found)
    assert found.lines == 3
    assert [row["group"] for row in found.rows][:2] == ["sshd", "cron"]
    assert "hunter2" not in found.rows[0]["text"]
    assert {row["uid"] for row in found.rows} == {None}


def test_lines_may_be_split_by_template(tmp_path):
    log = tmp_path / "messages"
    log.write_text(
        "".join(f"Jun 14 15:16:01 h p[9]: disk sd{n} failed\n" for n in range(5)) + "all is well\n"
    )
    found = hostlines.Collected("template")
    hostlines.from_log(log, found)
    assert len({row["group"] for row in found.rows}) == 2


def test_command_writes_a_data_set_and_says_what_is_in_it(tmp_path):
    table = write_jsonl(tmp_path / "t.jsonl", rows())
    argv = [sys.executable, "-m", "training", "dataset", "--table", table, "--out", tmp_path / "o.parquet"]
    shown = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "180 rows" in shown.stdout
    assert "severity 3" in shown.stdout
    plain = subprocess.run([*map(str, argv), "--json"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(plain.stdout)["rows"] == 180
