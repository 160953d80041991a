"""The low tier as a whole: one stream in, findings, events and ticks out, the same for the same recording."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.codec import encode, upward_decoder
from daemon.messages import Event, Finding, Line, Sample, Snapshot, Stamp, Subject, Tick
from daemon.settings import Low
from daemon.tiers.conditions import COMPARED_MAX, CONDITIONS_MAX, WORDINGS_MAX, Breach, Conditions
from daemon.tiers.low import EVENTS_PER_SECOND, LowTier
from models.taxonomy import FaultClass, Severity, SubjectKind

QUIET = {"cpu.busy": 0.05, "cpu.cores": 4.0, "load.1": 0.2, "mem.available": 0.8}


def stamp(second, jump_s=0.0, boot="b1"):
    return Stamp(boot, 1000.0 + second, 1.7e9 + second + jump_s)


def sample(second, jump_s=0.0, boot="b1", **values):
    return Sample(stamp(second, jump_s, boot), "host", QUIET | values)


def kernel(second, text):
    return Line(stamp(second), "kernel", text, identifier="kernel", uid=0)


def findings(upward, rule=""):
    return [one for one in upward if isinstance(one, Finding) and one.rule.startswith(rule)]


@pytest.fixture
def tier():
    return LowTier(Low())


def test_every_sample_time_gives_one_tick(tier):
    batch = [sample(1), Sample(stamp(1), "units", {}), sample(2)]
    assert [one.at for one in tier.observe(batch) if isinstance(one, Tick)] == [stamp(1), stamp(2)]


def test_line_and_metric_judges_speak_through_one_stream(tier):
    for second in range(30):
        tier.observe([sample(second)])
    upward = tier.observe([kernel(30, "Out of memory: Killed process 9 (w) total-vm:1kB, anon-rss:1kB")])
    for second in range(31, 60):
        upward += tier.observe([sample(second, **{"mem.available": 0.01, "psi.memory.full": 0.6})])
    assert findings(upward, "known.oom-kill")
    assert findings(upward, "mem.") or findings(upward, "psi.")


def test_context_and_session_events_go_up_unchanged(tier):
    events = [
        Event(stamp(1), "contexts", "context", "backup", "start", {"unit": "backup.service"}),
        Event(stamp(2), "journal", "reader", "journal", "present"),
        Event(stamp(3), "low", "stage", "low", "start"),
    ]
    upward = tier.observe(events)
    assert [one for one in upward if isinstance(one, Event)] == events


def test_session_that_a_line_tells_of_goes_up_as_an_event(tier):
    line = Line(
        stamp(1), "journal", "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
        unit="ssh.service", identifier="sshd", pid=5, uid=0,
    )  # fmt: skip
    (event,) = [one for one in tier.observe([line]) if isinstance(one, Event)]
    assert (event.kind, event.name, event.action) == ("session", "alice", "start")


def test_event_storm_is_capped_and_counted(tier):
    storm = [Event(stamp(1), "udev", "device", f"sd{n}", "change") for n in range(500)]
    assert len([one for one in tier.observe(storm) if isinstance(one, Event)]) == EVENTS_PER_SECOND
    assert tier.counters["events_dropped"] == 500 - EVENTS_PER_SECOND


def test_conditions_end_though_no_sample_comes(tier):
    tier.observe([kernel(1, "I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0")])
    upward = tier.observe([kernel(second, "nothing special") for second in range(2, 120)])
    assert [one.ended for one in findings(upward, "known.block-io-error")] == [True]


# --- clock -------------------------------------------------------------------------------------------------


def run_clock(tier, jump_s, lines=()):
    upward = []
    for second in range(10):
        upward += tier.observe([sample(second)])
    upward += tier.observe(lines)
    for second in range(10, 20):
        upward += tier.observe([sample(second, jump_s)])
    return findings(upward, "clock.jump")


@pytest.mark.parametrize("jump_s", [42.0, -42.0, 7200.0])
def test_jump_of_the_wall_clock_is_found_once(tier, jump_s):
    (found,) = run_clock(tier, jump_s)
    assert found.evidence[0].values["jump_s"] == pytest.approx(jump_s, abs=0.01)
    assert found.hints == {FaultClass.CLOCK_JUMP: 0.9}
    assert found.severity is (Severity.ERROR if abs(jump_s) > 3600 else Severity.WARNING)


@pytest.mark.parametrize("jump_s", [0.2, 4.0, -4.0])
def test_small_correction_is_no_jump(tier, jump_s):
    assert run_clock(tier, jump_s) == []


def test_slewing_is_no_jump(tier):
    upward = []
    for second in range(600):
        upward += tier.observe([sample(second, 0.05 * second)])
    assert findings(upward, "clock.jump") == []


def test_waking_from_sleep_is_not_blamed_on_the_clock(tier):
    (found,) = run_clock(tier, 8 * 3600.0, [kernel(9.5, "PM: suspend entry (deep)")])
    assert found.severity is Severity.INFO
    assert max(found.hints.values()) <= 0.3


def test_new_boot_is_no_jump(tier):
    upward = tier.observe([sample(1), sample(2), sample(3, 5000.0, boot="b2"), sample(4, 5000.0, boot="b2")])
    assert findings(upward, "clock.jump") == []


# --- own, state, determinism -------------------------------------------------------------------------------


def test_own_units_raise_nothing_but_stage_health(tier):
    text = "boom: No space left on device"
    upward = tier.observe([Line(stamp(1), "journal", text, 3, unit="hauswart-low.service", uid=0)])
    upward += tier.observe([Event(stamp(2), "low", "stage", "low", "crashed", {"pid": "9"})])
    assert [one.subjects[0].kind for one in findings(upward)] == ["stage"]


def test_state_is_taken_up_again():
    first = LowTier(Low(learn_s=10.0))
    for second in range(400):
        line = Line(
            stamp(second), "journal", f"ping {second}", unit="a.service", identifier="a", pid=3, uid=9
        )
        first.observe([sample(second), line])
    state = first.snapshot()
    again = LowTier(Low(learn_s=10.0), state)
    assert again.notes == []
    upward = again.observe(
        [Line(stamp(500), "journal", "ping 7", 1, unit="a.service", identifier="a", pid=3, uid=9)]
    )
    assert findings(upward) == []
    assert len(again.snapshot()) > 0.5 * len(state)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_foreign_state_means_a_fresh_start_that_is_told(noise):
    tier = LowTier(Low(), noise)
    assert tier.notes
    assert tier.observe([sample(1)])


def test_truncated_state_means_a_fresh_start(tier):
    tier.observe([sample(1), kernel(1, "something")])
    state = tier.snapshot()
    for cut in range(0, len(state), 7):
        assert LowTier(Low(), state[:cut]).notes


def recording(seed):
    rng = random.Random(seed)
    texts = [
        "I/O error, dev sda, sector {} op 0x0:(READ)",
        "worker[{}]: segfault at 0 ip 0 sp 0",
        "quiet {}",
        "load {} is high",
    ]
    second = 0.0
    for _ in range(600):
        second += rng.choice([0.0, 0.1, 1.0])
        pick = rng.random()
        if pick < 0.5:
            yield kernel(second, rng.choice(texts).format(rng.randint(1, 99)))
        elif pick < 0.9:
            yield sample(second, 30.0 if second > 100 else 0.0, **{"cpu.busy": rng.random()})
        elif pick < 0.95:
            yield Event(stamp(second), "links", "link", "eth0", rng.choice(["up", "down"]))
        else:
            yield Snapshot(stamp(second), "host", "interval", [])


def test_findings_do_not_depend_on_how_batches_are_cut():
    observations = list(recording(3))
    whole = LowTier(Low()).observe(observations)
    piecewise = LowTier(Low())
    parts = [
        one for number in range(0, 600, 7) for one in piecewise.observe(observations[number : number + 7])
    ]
    assert whole == parts
    assert len(findings(whole)) > 3


def test_what_goes_up_fits_the_protocol(tier):
    upward = tier.observe(list(recording(4)))
    assert upward_decoder().decode(encode(upward)) == upward


def test_ids_are_unique(tier):
    found = findings(tier.observe(list(recording(5))))
    assert len({one.id for one in found}) == len(found)


def old_boot_line(second):
    return Line(Stamp("b0", 90000.0 + second, 1.7e9 + 86400.0 + second), "journal", "Stopped target")


def test_log_of_the_boot_before_read_late_moves_no_clock(tier):
    upward = tier.observe([sample(1), old_boot_line(1), old_boot_line(5000)])
    upward += tier.observe([kernel(0.5, "Linux version 6"), sample(2), old_boot_line(6000), sample(3)])
    assert findings(upward, "clock.jump") == []
    assert tier._time.at(stamp(10)) == stamp(10).wall


def test_boot_with_a_clock_behind_goes_on_in_observation_time(tier):
    tier.observe([sample(600)])
    tier.observe([Sample(Stamp("b2", 5.0, 1.6e9), "host", QUIET)])
    assert tier._time.at(Stamp("b2", 15.0, 1.6e9 + 10.0)) == stamp(610).wall


def test_two_conditions_of_one_rule_and_subject_that_end_together_are_told_apart():
    conditions = Conditions()
    at = Stamp("b", 1.0, 1e9)
    subjects = [Subject(SubjectKind.PROCESS, "app")]
    for label in ("one", "two"):
        breach = Breach("x.level", label, Severity.ERROR, 0.7, subjects, {}, "text", {}, stale_s=5.0)
        conditions.hold(breach, at, 1.0)
    ended = conditions.sweep(Stamp("b", 20.0, 1e9 + 19), 20.0)
    assert len({finding.id for finding in ended}) == 2


def breach(rule, label, hint=0.7):
    subjects = [Subject(SubjectKind.ADDRESS, label)]
    return Breach(
        rule, label, Severity.WARNING, 0.7, subjects, {FaultClass.CONNECTION_FLOOD: hint}, "text", {}
    )


def test_other_words_of_one_condition_are_reported_at_once_where_somebody_reads_them():
    def said(text, t, **more):
        one = breach("known.no-space", "app")._replace(text=text, words=True, **more)
        return [found.evidence[0].text for found in conditions.hold(one, Stamp("b", t, 1e9 + t), t)]

    for read in (True, False):
        conditions = Conditions(read=read)
        assert said("test 1: no space: PASS", 1.0) == ["test 1: no space: PASS"]
        assert said("test 2: no space: PASS", 2.0) == []
        assert said("cannot write: no space", 3.0) == (["cannot write: no space"] if read else [])
        assert said("cannot write: no space", 4.0) == []
    conditions = Conditions(read=True)
    assert said("no space for a", 1.0)
    other = [said(f"no space for {'abcdefghijklmnop'[n]}{'xyz' * n}", 2.0 + n) for n in range(1, 16)]
    assert [bool(one) for one in other] == [True] * (WORDINGS_MAX - 1) + [False] * (16 - WORDINGS_MAX)
    conditions = Conditions(read=True)
    assert said("no space for 1", 1.0)
    assert not any(said(f"no space for {n}", 1.5) for n in range(COMPARED_MAX + 5))
    assert said("no space for anybody", 1.6) == []  # of a flood not everything is compared
    assert said("no space for anybody", 2.6)
    measured = breach("fs.level", "/srv")
    assert conditions.hold(measured, Stamp("b", 1.0, 1e9), 1.0)
    assert conditions.hold(measured._replace(text="more"), Stamp("b", 2.0, 1e9), 2.0) == []


def test_one_rule_that_names_strangers_leaves_room_for_all_others():
    conditions, at = Conditions(), Stamp("b", 1.0, 1e9)
    told = [conditions.hold(breach("x.flood", f"s{n}"), at, 1.0) for n in range(5000)]
    assert sum(map(len, told)) == len(conditions) == CONDITIONS_MAX // 2
    assert conditions.dropped == 5000 - CONDITIONS_MAX // 2
    for rule in ("y.kill", "y.unit", "y.disk"):
        assert all(conditions.hold(breach(rule, f"u{n}"), at, 2.0) for n in range(100))


def test_full_of_conditions_the_longest_unheard_of_the_most_frequent_rule_ends_for_a_new_one():
    conditions, at = Conditions(limit=64), Stamp("b", 1.0, 1e9)
    for n in range(32):
        conditions.hold(breach("x.flood", f"s{n}"), at, 1.0 + n)
    conditions.hold(breach("x.flood", "s0"), at, 40.0)
    for n in range(32):
        conditions.hold(breach(f"x.many{n // 8}", f"m{n}"), at, 50.0)
    begun, over = conditions.hold(breach("y.kill", "worker"), at, 60.0)
    assert (begun.rule, begun.ended) == ("y.kill", False)
    assert (over.rule, over.subjects[0].name, over.ended) == ("x.flood", "s1", True)
    assert len(conditions) == 64


def test_what_hints_at_nothing_gives_way_first_and_what_ends_makes_room_again():
    conditions, at = Conditions(limit=64), Stamp("b", 1.0, 1e9)
    for n in range(40):
        conditions.hold(breach("x.odd", f"o{n}", hint=0.1), at, 1.0)
    for n in range(32):
        conditions.hold(breach(f"x.many{n // 8}", f"m{n}"), at, 2.0)
    (_, over) = conditions.hold(breach("y.kill", "worker"), at, 3.0)
    assert (over.rule, over.subjects[0].name) == ("x.odd", "o0")
    assert conditions.hold(breach("x.many0", "late"), at, 3.0) == []
    assert conditions.hold(breach("x.odd", "no oddity"), at, 3.0)  # the odd ones of its rule do not count
    conditions.end("x.many0", "m0", at)
    assert conditions.hold(breach("x.many0", "late"), at, 3.0)


def test_the_tiers_do_without_openssl():
    code = "import sys, daemon.tiers.low, daemon.tiers.middle, daemon.tiers.top, daemon.store.rows\n"
    code += "sys.exit('_hashlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
