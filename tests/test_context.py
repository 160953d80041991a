"""Contexts: which windows there are, and how they weigh on findings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.incidents.context import AFTERMATH_S, Contexts, describe
from daemon.messages import Event, Evidence, Finding, Stamp, Subject
from models.taxonomy import FaultClass, Severity, SubjectKind

WALL = 1_700_000_000.0


def at(t: float) -> Stamp:
    return Stamp("b" * 32, t, WALL + t)


def event(t: float, name: str, action: str = "start", **attributes: str) -> Event:
    kind = "session" if action == "sudo" else "context"
    return Event(at(t), "journal", kind, name, action, attributes)


def find(rule: str, fault: str, who: str = "host:", severity: str = "error", hint: float = 0.8) -> Finding:
    kind, _, name = who.partition(":")
    piece = Evidence("e", "metric", rule, WALL, WALL, rule)
    subject = Subject(SubjectKind(kind), name)
    hints = {FaultClass(fault): hint}
    return Finding(
        "f", at(0), rule, FaultClass(fault).category, Severity(severity), 0.8, [subject], hints, [piece]
    )


def contexts(*events: Event) -> Contexts:
    found = Contexts()
    for one in events:
        found.note(one, one.at.mono)
    return found


def weigh(found: Contexts, finding: Finding, t: float, since: float | None = None) -> str:
    """The strongest effect, or "" where no context has anything to do with it."""
    weighing = found.weigh(finding, t if since is None else since, t)
    effects = {effect for _, effect in weighing.notes}
    assert weighing.explained == ("explained" in effects)
    return next((one for one in ("explained", "lowered", "noted") if one in effects), "")


BACKUP = event(10, "backup", unit="borg.service")
REBUILD = (event(10, "rebuild", generation="142"), event(20, "rebuild", "end", generation="142"))


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (find("psi.io.level", "io-saturation", "unit:borg.service"), "explained"),
        (find("psi.io.level", "io-saturation"), "explained"),
        (find("disk.await_s.shift", "io-saturation", hint=0.3), "explained"),
        (find("psi.io.level", "io-saturation", "unit:db.service"), "noted"),
        (find("mem.available.level", "memory-exhaustion", "unit:borg.service"), "lowered"),
        (find("known.oom-kill", "memory-exhaustion", "unit:borg.service"), "noted"),
        (find("fs.used.level", "disk-full", "mount:/backup"), "noted"),
        (find("known.unit-failed", "service-crash", "unit:borg.service"), "noted"),
        (find("known.unit-failed", "service-crash", "unit:db.service"), ""),
        (find("known.block-io-error", "disk-failing", "device:sda"), ""),
        (find("known.auth-bruteforce", "auth-bruteforce", "address:192.0.2.1"), ""),
    ],
)
def test_a_backup_explains_its_own_load_and_nothing_grave(finding, expected):
    assert weigh(contexts(BACKUP), finding, 30) == expected


def test_what_somebody_reads_as_wrong_is_not_explained_by_a_job():
    said = find("read.io-saturation", "io-saturation", "unit:borg.service")
    assert weigh(contexts(BACKUP), said, 30) == "lowered"


def slow(who: str, seconds: float = 4.0, lines: int = 2) -> Finding:
    values = {"duration_s": seconds, "usual_s": 0.1, "lines_count": float(lines)}
    found = find("line.slow", "service-hung", who, "info", 0.25)
    return replace(found, evidence=[replace(found.evidence[0], values=values)])


LOAD = find("psi.io.level", "io-saturation", "unit:borg.service")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "explained"),
        ([(slow("unit:shop.service"), 25)], "lowered"),
        ([(slow("unit:shop.service"), 55)], "lowered"),  # it goes on, and is told every 30 s
        ([(slow("unit:shop.service"), 28)], "explained"),  # before it began
        ([(slow("unit:shop.service", 180), 205)], "lowered"),
        ([(slow("unit:shop.service", 4), 205)], "explained"),
        ([(slow("unit:shop.service"), 40), (slow("unit:shop.service"), 62)], "lowered"),
        ([(slow("unit:shop.service", lines=1), 35)], "explained"),  # a slip
        ([(slow("unit:borg.service"), 35)], "explained"),
        ([(slow("unit:session-3.scope"), 35)], "explained"),
        ([(slow("process:shop"), 35)], "explained"),
        ([(slow("unit:user@1000.service"), 35)], "explained"),
    ],
)
def test_a_job_that_a_service_waits_for_is_lowered(words, expected):
    found = contexts(BACKUP)
    for one, t in words:
        found.suffers(one, t)
    since = 25 if words and words[0][1] == 25 else 29
    assert weigh(found, LOAD, 33, since) == expected


def test_jobs_that_slow_each_other_and_a_clock_that_jumps_at_boot_stay_explained():
    jobs = contexts(BACKUP, event(11, "scrub", unit="scrub.service"))
    for who in ("borg", "scrub"):
        jobs.suffers(slow(f"unit:{who}.service"), 30)
    assert weigh(jobs, LOAD, 30) == "explained"
    boot = contexts(event(10, "boot"))
    boot.suffers(slow("unit:shop.service"), 30)
    assert weigh(boot, find("clock.level", "clock-jump"), 30) == "explained"


def test_who_waits_is_remembered_within_bounds():
    found = contexts(BACKUP)
    for number in range(1000):
        found.suffers(slow(f"unit:shop{number}.service"), 30)
    assert weigh(found, LOAD, 33, 29) == "lowered"
    assert len(found._slow) <= 64
    found.expire(10_000)
    assert not found._slow


def test_who_has_waited_does_not_wait_for_ever():
    found = contexts(BACKUP)
    found.suffers(slow("unit:shop.service"), 40)
    assert weigh(found, LOAD, 60, 30) == "lowered"
    assert weigh(found, LOAD, 14400, 30) == "explained"


GRAVE = ("disk-failing", "filesystem-corrupt", "auth-bruteforce", "kernel-bug", "hardware-error")


@pytest.mark.parametrize("fault", [*GRAVE, "disk-full"])
@pytest.mark.parametrize("rule", ["x.level", "x.shift", "known.x"])
def test_no_context_weakens_what_is_grave(fault, rule):
    found = contexts(BACKUP, event(10, "boot"), event(10, "rebuild"), event(10, "alice", "sudo"))
    for who in ("host:", "unit:borg.service", "device:sda"):
        finding = find(rule, fault, who)
        weighing = found.weigh(finding, 30, 30)
        assert weighing.factor == 1.0
        assert weighing.severity(finding) == "error"


def test_a_load_that_outlasts_its_job_is_noted_only():
    found = contexts(BACKUP, event(100, "backup", "end", unit="borg.service"))
    load = find("psi.io.level", "io-saturation", "unit:borg.service")
    assert weigh(found, load, 120, since=12) == "explained"
    assert weigh(found, load, 140, since=12) == "noted"
    assert weigh(found, load, 140) == ""


def test_a_job_is_no_excuse_for_ever():
    found = contexts(event(10, "timer", unit="runaway.service"))
    load = find("proc.hog.level", "cpu-saturation", "unit:runaway.service")
    assert weigh(found, load, 600) == "explained"
    found.expire(4000)
    assert weigh(found, load, 4000) == ""


def test_a_job_that_is_told_a_moment_late_still_counts():
    load = find("psi.io.level", "io-saturation", "unit:borg.service")
    assert weigh(contexts(BACKUP), load, 12, since=8.5) == "explained"
    assert weigh(contexts(BACKUP), load, 12, since=5) == ""


@pytest.mark.parametrize(
    ("finding", "t", "expected"),
    [
        (find("cpu.busy.shift", "cpu-saturation", hint=0.3), 15, "explained"),
        (find("line.novel", "service-crash", hint=0.2), 15, "explained"),
        (find("link.down", "link-down", "interface:eth0"), 15, "lowered"),
        (find("known.unit-exited", "service-crash", "unit:a.service", "warning"), 15, "lowered"),
        (find("known.unit-failed", "service-crash", "unit:a.service"), 15, "noted"),
        (find("known.unit-failed", "service-crash", "unit:a.service"), 300, "noted"),
        (find("known.unit-failed", "service-crash", "unit:a.service"), 700, ""),
        (find("known.login", "auth-bruteforce", "address:192.0.2.1"), 300, ""),
    ],
)
def test_a_rebuild_lowers_restarts_and_is_noted_afterwards(finding, t, expected):
    assert weigh(contexts(*REBUILD), finding, t) == expected


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (find("line.novel", "unknown", hint=0.2), "explained"),
        (find("clock.jump", "clock-jump"), "explained"),
        (find("known.unit-failed", "service-crash", "unit:a.service"), "lowered"),
        (find("known.oom-kill", "memory-exhaustion", "unit:a.service"), "noted"),
    ],
)
def test_a_boot_is_a_noisy_time(finding, expected):
    assert weigh(contexts(event(5, "boot")), finding, 60) == expected


def test_a_boot_that_never_ends_is_over_after_five_minutes():
    finding = find("known.unit-failed", "service-crash", "unit:a.service")
    assert weigh(contexts(event(5, "boot")), finding, 250) == "lowered"
    assert weigh(contexts(event(5, "boot")), finding, 400) == "noted"


def test_what_an_operator_takes_down_by_sudo_is_lowered():
    found = contexts(event(10, "alice", "sudo"))
    assert weigh(found, find("link.admin-down", "link-down", "interface:eth0"), 60) == "lowered"
    assert weigh(found, find("link.down", "link-down", "interface:eth0"), 60) == "noted"
    assert weigh(found, find("link.down", "link-down", "interface:eth0"), 10 + AFTERMATH_S + 1) == ""


def test_a_lowered_finding_loses_a_step_but_stays_above_info():
    found = contexts(event(5, "boot"))
    for before, after in (("critical", "error"), ("error", "warning"), ("warning", "warning")):
        finding = find("known.unit-failed", "service-crash", "unit:a.service", before)
        assert found.weigh(finding, 60, 60).severity(finding) == after


def test_nothing_weighs_on_a_stage_of_our_own():
    assert weigh(contexts(event(5, "boot")), find("stage.crashed", "service-crash", "stage:low"), 60) == ""


@pytest.mark.parametrize(
    ("opening", "ending", "began", "text"),
    [
        (event(10, "backup", unit="borg.service"), None, 22, "began 12 s after backup borg started"),
        (event(10, "rebuild", generation="142"), None, 22, "began 12 s after generation 142"),
        (event(10, "update", package="openssl"), None, 22, "began 12 s after a package update (openssl)"),
        (event(10, "boot"), None, 55, "began 45 s after boot"),
        (event(10, "boot"), event(40, "boot", "end"), 55, "began 15 s after the boot was finished"),
        (event(10, "alice", "sudo"), None, 310, "began 5 min after alice used sudo"),
        (
            event(10, "scrub", unit="zfs-scrub.service"),
            event(40, "scrub", "end", unit="zfs-scrub.service"),
            50,
            "began 10 s after scrub zfs-scrub ended",
        ),
    ],
)
def test_a_note_says_after_what_it_began(opening, ending, began, text):
    found = contexts(opening, *([ending] if ending else []))
    note = describe(found.windows[-1], "noted", WALL + began)
    assert note.text == text
    assert note.started == WALL + 10


def test_the_same_event_twice_changes_nothing():
    found = contexts(BACKUP)
    before = list(found.windows)
    assert not found.note(BACKUP, 10)
    assert found.windows == before


def running(t: float, seconds: object, name: str = "backup", **attributes: str) -> Event:
    return event(t, name, "running", **(attributes or {"unit": "borg.service"}), running_s=str(seconds))


LOAD = find("psi.io.level", "io-saturation", "unit:borg.service")


def test_what_is_running_is_known_by_its_true_beginning_to_whoever_heard_no_start():
    found = Contexts()
    assert found.note(running(7210, 7200), 7210)
    (window,) = found.windows
    assert (window.began_t, window.began, window.ended_t) == (10, WALL + 10, None)
    assert weigh(found, LOAD, 7211) == "explained"
    assert found.note(event(7300, "backup", "end", unit="borg.service"), 7300)
    assert weigh(found, LOAD, 7340) == ""


def test_what_is_known_to_run_is_not_taken_in_again():
    found = contexts(BACKUP)
    before = list(found.windows)
    assert not any(found.note(running(t, t - 10 + slack), t) for t in (20, 80, 4000) for slack in (0, 1))
    assert found.windows == before
    found.note(event(4010, "backup", "end", unit="borg.service"), 4010)
    assert not found.note(running(4011, 4001), 4011)  # another job's end may have been taken for its own
    assert found.note(running(4400, 100), 4400)  # the next one, of which the start was lost
    assert len(found.windows) == 2


def test_what_runs_for_too_long_is_no_excuse_however_often_it_is_said():
    found = contexts(event(10, "timer", unit="runaway.service"))
    load = find("proc.hog.level", "cpu-saturation", "unit:runaway.service")
    found.expire(4000)
    for seconds in (3990, 3991):
        assert not found.note(running(4000, seconds, "timer", unit="runaway.service"), 4000)
    assert weigh(found, load, 4000) == ""


@pytest.mark.parametrize("seconds", ["", "-5", "1.5", "nan", "1e9", "9" * 10, "9" * 5000, "x", "²"])
def test_a_running_job_without_a_sound_age_is_ignored(seconds):
    found = contexts(BACKUP)
    before = list(found.windows)
    for unit in ("borg.service", "other.service"):
        assert not found.note(running(50, seconds, unit=unit), 50)
    assert found.windows == before


def test_what_is_over_gives_way_to_what_goes_on():
    scrub = event(0, "scrub", "start", unit="scrub.service")
    timers = [
        event(n, "timer", action, unit=f"t{n}.timer") for n in range(1, 200) for action in ("start", "end")
    ]
    kept = contexts(scrub, *timers).windows
    assert any(one.kind == "scrub" for one in kept)


def test_an_end_without_a_start_is_ignored():
    assert contexts(event(10, "backup", "end", unit="borg.service")).windows == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["backup", "boot", "rebuild", "timer", "nonsense"]),
            st.sampled_from(["start", "end", "sudo", "odd"]),
            st.text(max_size=8),
        ),
        max_size=300,
    )
)
def test_any_stream_of_events_keeps_the_windows_bounded(stream):
    found = Contexts()
    finding = find("psi.io.level", "io-saturation", "unit:a.service")
    for t, (name, action, unit) in enumerate(stream):
        found.note(event(t, name, action, unit=unit), t)
        found.expire(t)
        weighing = found.weigh(finding, t, t)
        assert len(found.windows) <= 64
        assert len(weighing.notes) <= 8
