"""What the virtual machine's image and snapshot are kept in."""

import os
import subprocess

import pytest

from tests.lab.cache import LabError, kept


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HAUSWART_LAB_CACHE", str(tmp_path / "lab"))
    return tmp_path / "lab"


def fill(folder):
    (folder / "disk").write_text("made")


def test_what_was_made_is_not_made_again(place):
    first = kept("image", "a", fill)
    assert (first / "disk").read_text() == "made"
    assert kept("image", "a", lambda _: pytest.fail("made twice")) == first == place / "image-a"


def test_failed_build_does_not_count_and_is_cleared_away_by_the_next(place):
    def fail(folder):
        fill(folder)
        raise LabError("no network")

    with pytest.raises(LabError, match="no network"):
        kept("image", "a", fail)
    assert list(place.glob("image-*")) == []
    kept("image", "a", fill)
    assert {path.name for path in place.iterdir()} == {"image-a", "image.lock"}


def test_newest_of_the_others_stays_and_another_kind_is_left_alone(place):
    for age_s, name in ((30, "a"), (20, "b")):
        os.utime(kept("image", name, fill), (1e9 - age_s, 1e9 - age_s))
    kept("snapshot", "x", fill)
    kept("image", "c", fill)
    found = {path.name for path in place.iterdir() if path.is_dir()}
    assert found == {"image-b", "image-c", "snapshot-x"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_nothing_is_removed_through_a_mount_that_a_killed_build_left(place, tmp_path):
    left, mine = place / "image.left" / "root", tmp_path / "mine"
    left.mkdir(parents=True)
    mine.mkdir()
    fill(mine)
    subprocess.run(["mount", "--bind", str(mine), str(left)], check=True)
    try:
        with pytest.raises(LabError, match="unmount it"):
            kept("image", "a", fill)
    finally:
        subprocess.run(["umount", str(left)], check=True)
    assert (mine / "disk").read_text() == "made"
