"""What unknown lines are about, learnt from labelled messages: the tables and who makes them."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.reading
from daemon.settings import Low
from daemon.tiers.lines import LineJudge
from models.errors import BundleError
from models.lines import encode
from models.reading import FOLDER, KERNEL, PROGRAMS, Table, pack, reading
from models.taxonomy import FaultClass
from training.reading import KERNEL_FILE, MESSAGES, Reader, figures, foretell, messages, write_reading
from training.tables import DataError

F = FaultClass
HEADER = "# what it is\n"


@pytest.mark.parametrize(
    ("text", "kernel", "fault"),
    [
        ("Error: ENOSPC: System limit for number of file watchers reached", False, F.FD_EXHAUSTION),
        ("could not connect to the metadata backend: no route to it", False, F.DEPENDENCY_FAILED),
        (
            "EXT4-fs error (device sda1): ext4_validate_block_bitmap: bad block bitmap checksum",
            True,
            F.FILESYSTEM_CORRUPT,
        ),
        ("listening for requests on all interfaces", False, None),
        ("registered new interface driver", True, None),
    ],
)
def test_shipped_tables_read_lines_that_they_did_not_learn(text, kernel, fault):
    read = reading(text, kernel=kernel)
    assert read.fault is fault
    assert 0.3 <= read.sure <= 1.0


def test_shipped_tables_name_only_fault_classes_and_hold_what_the_recipe_learns_from():
    for name in (KERNEL, PROGRAMS):
        table = Table((FOLDER / f"{name}.safetensors").read_bytes())
        rows = messages(MESSAGES, name)
        assert set(table.names) == {row.name for row in rows} | {"once"}
        assert len(rows) > 5_000


@given(st.text(max_size=2_000), st.booleans())
def test_no_text_breaks_a_reading(text, kernel):
    read = reading(text, kernel=kernel)
    assert 0.0 <= read.sure <= 1.0
    assert 0.0 <= read.once <= 1.0


def test_table_comes_back_as_it_was_packed():
    table = Table(
        pack(["disk-full", "none", "once"], [-1.0, 0.5, 0.0], {"full": 2.0}, {"full": {0: 4.0, 1: -4.0}})
    )
    assert table.scores("nothing known here") == [-1.0, 0.5, 0.0]
    assert table.scores("full") == pytest.approx([3.0, -3.5, 0.0], abs=1e-3)
    assert table.read("full").fault is F.DISK_FULL
    assert table.read("anything else").fault is None


@given(st.binary(max_size=300))
def test_damaged_table_is_refused(content):
    whole = pack(["disk-full", "none", "once"], [-1.0, 0.5, 0.0], {"full": 2.0}, {"full": {0: 4.0, 1: -4.0}})
    for damaged in (content, whole[: len(content)], whole[:40] + content):
        if damaged != whole:
            with pytest.raises(BundleError):
                Table(damaged)


def test_damaged_table_stops_the_tier_at_its_start_and_says_which_file(tmp_path, monkeypatch):
    monkeypatch.setattr(models.reading, "FOLDER", tmp_path)
    models.reading._table.cache_clear()
    try:
        with pytest.raises(BundleError, match=r"kernel\.safetensors"):
            LineJudge(Low())
    finally:
        models.reading._table.cache_clear()


# --- making one -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    said = {
        "disk-full\tonce": "the {} volume has no room left for {}",
        "dependency-failed\tlasting": "the {} upstream refuses what {} asks of it",
        "none\tnone": "the {} client has asked for {} and got it",
    }
    for file in (KERNEL_FILE, "servers.tsv"):
        rows = [
            f"{label}\tp{at}\t{text.format(f'{one} kind', 'it')}"
            for label, text in said.items()
            for at, one in enumerate(["red", "blue", "green", "white", "black", "grey"])
        ]
        (tmp_path / file).write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_reader_reads_programs_that_it_did_not_learn_from(folder):
    rows = messages(folder, PROGRAMS)
    assert len(rows) == 18
    read = foretell(rows, folds=3)
    assert [one.fault.value if one.fault else "none" for one in read] == [row.name for row in rows]
    assert figures(rows, read)[0]["faults"] == 1.0


def test_what_is_written_is_what_was_learnt(folder, tmp_path):
    rows = messages(folder, KERNEL)
    out = tmp_path / "new" / "kernel.safetensors"
    assert write_reading(out, rows)["messages"] == 18
    table = Table(out.read_bytes())
    assert table.read(encode("the pink kind volume has no room left")).fault is F.DISK_FULL
    assert Reader(rows).table() == out.read_bytes()


@pytest.mark.parametrize(
    "line", ["disk-fool\tonce\tp\tno room", "disk-full\tsometimes\tp\tno room", "disk-full\tonce\tp"]
)
def test_wrong_label_is_named_with_its_place(folder, line):
    path = folder / "servers.tsv"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"servers\.tsv:20"):
        messages(folder, PROGRAMS)


def test_folder_without_messages_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no labelled messages"):
        messages(tmp_path, KERNEL)


def test_verb_writes_both_tables_and_says_how_well_they_read(folder, tmp_path):
    def run(*options):
        command = [sys.executable, "-m", "daemon", "train", "reading", str(folder), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run("--out", str(tmp_path / "out"))["kernel"]["messages"] == 18
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{KERNEL}.safetensors",
        f"{PROGRAMS}.safetensors",
    ]
    assert run("--folds", "3")["programs"][0]["faults"] == 1.0
