"""Which file system a line is about, and what that has run out of."""

import pytest

from daemon.messages import Finding, Line, Sample, Stamp
from daemon.settings import Low
from daemon.tiers.low import LowTier
from daemon.tiers.places import Places
from models.taxonomy import FaultClass, SubjectKind

VALUES = {
    "fs.used{/}": 0.4,
    "fs.used{/srv}": 0.2,
    "fs.used{/srv/cache}": 0.1,
    "fs.inodes_used{/srv/cache}": 1.0,
    "fs.used{/var}": 0.999,
    "fs.inodes_used{/var}": 0.1,
}


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("OSError: [Errno 28] No space left on device: '/srv/cache/1973'", "/srv/cache"),
        ('pwrite() "/srv/cachet/x" failed (28: No space left on device)', "/srv"),
        ("tar: /var/lib/x: Cannot write: No space left on device", "/var"),
        ("write /home/x: no space left on device", ""),  # may lie on what is not measured
        ("no space left on device", ""),
    ],
)
def test_path_lies_on_the_deepest_mount_above_it(text, mount):
    assert Places(VALUES).mount(text, 1.0) == mount


def test_no_space_where_there_is_some_is_what_the_mount_above_has_not():
    """Something was mounted there, and is so no longer: the path lies on what it had been mounted on."""
    values = {"fs.used{/srv}": 0.99, "fs.used{/srv/usb}": 0.1}
    assert Places(values).mount("/srv/usb/picture", 1.0, lacking=True) == "/srv"
    assert Places(values).mount("/srv/usb/picture", 1.0) == "/srv/usb"
    assert Places(values | {"fs.used{/srv}": 0.2}).mount("/srv/usb/picture", 1.0, lacking=True) == "/srv/usb"


def test_a_line_of_nothing_but_slashes_costs_little():
    assert Places(VALUES).mount("/a" * 4000, 1.0) == ""


def test_what_ran_out_is_told_by_the_samples():
    places = Places(VALUES)
    assert places.lacks("/srv/cache") is FaultClass.INODE_EXHAUSTION
    assert places.lacks("/var") is FaultClass.DISK_FULL
    assert places.lacks("/srv") is None


def test_no_space_on_a_file_system_without_inodes_is_about_inodes_and_that_mount():
    tier = LowTier(Low())
    at = Stamp("b1", 1000.0, 1.7e9)
    line = Line(
        at, "journal", "OSError: [Errno 28] No space left on device: '/srv/cache/1973'",
        unit="fetch.service", identifier="python3", pid=5, uid=0,
    )  # fmt: skip
    found = [one for one in tier.observe([Sample(at, "host", VALUES), line]) if isinstance(one, Finding)]
    (finding,) = [one for one in found if one.rule == "known.no-space"]
    assert max(finding.hints, key=finding.hints.get) is FaultClass.INODE_EXHAUSTION
    assert (SubjectKind.MOUNT, "/srv/cache") in [(one.kind, one.name) for one in finding.subjects]


def test_whoever_tells_of_a_clock_that_was_set_is_not_to_blame():
    tier = LowTier(Low())
    line = Line(
        Stamp("b1", 1000.0, 1.7e9), "journal", "Time jumped backwards, rotating.",
        unit="systemd-journald.service", identifier="systemd-journald", pid=5, uid=0,
    )  # fmt: skip
    (finding,) = [one for one in tier.observe([line]) if isinstance(one, Finding)]
    assert finding.rule == "known.clock-stepped"
    assert [one.kind for one in finding.subjects] == [SubjectKind.HOST]
