"""One fault is one incident: what climbs from below, what nobody understands, strains that name nobody."""

from __future__ import annotations

import pytest

from models.taxonomy import Severity
from tests.test_middle import CPU, CRASH, FAILING, MEMORY, Host, find

BUG, HARDWARE, STORM, FULL = "kernel-bug", "hardware-error", "process-storm", "disk-full"
FLOOD, LOOP, UNKNOWN = "connection-flood", "crash-loop", "unknown"
HUNG, REFUSED, DOWN = "service-hung", "dependency-failed", "link-down"


def nobody_understands(t):
    return find(t, "line.novel", "host:", {UNKNOWN: 0.5}, "critical", score=0.6, kind="line")


@pytest.mark.parametrize("later", [0.1, -0.1])
def test_line_that_nobody_understands_is_part_of_what_the_kernel_tells_of_at_that_moment(later):
    host = Host().play(
        find(10, "known.nmi-unknown", "host:", {HARDWARE: 0.6}, "warning", score=0.85, kind="line"),
        nobody_understands(10 + later),
        until=30,
    )
    assert host.only.fault_class == HARDWARE
    assert host.only.severity is Severity.WARNING  # how bad it is says what is understood
    assert len(host.only.evidence) == 2


def test_line_that_nobody_understands_is_told_when_only_a_service_has_trouble():
    host = Host().play(
        find(10, "known.unit-failed", "unit:web.service", {CRASH: 0.75}, score=0.65, kind="line"),
        nobody_understands(10.1),
        until=30,
    )
    assert {one.fault_class.value for one in host.incidents} == {CRASH, UNKNOWN}


def test_line_that_nobody_understands_long_after_is_an_incident_of_its_own():
    host = Host().play(
        find(10, "known.oops", "host:", {BUG: 0.9}, score=0.85, kind="line"),
        nobody_understands(20),
        until=40,
    )
    assert {one.fault_class.value for one in host.incidents} == {BUG, UNKNOWN}


def test_error_that_climbs_a_stack_of_block_devices_is_one_incident():
    host = Host().play(
        find(10, "known.buffer-io-error", "device:dm-3", {FAILING: 0.8}, score=0.75, kind="line"),
        find(11, "known.md-degraded", "device:md0", {FAILING: 0.9}, score=0.9, kind="line"),
        until=30,
    )
    assert host.only.fault_class == FAILING


@pytest.mark.parametrize(("other", "t"), [("device:sdb", 11), ("device:md0", 25)])
def test_disks_that_lie_on_no_other_or_fail_later_are_two_incidents(other, t):
    host = Host().play(
        find(10, "known.buffer-io-error", "device:dm-3", {FAILING: 0.8}, score=0.75, kind="line"),
        find(t, "known.block-io-error", other, {FAILING: 0.9}, score=0.9, kind="line"),
        until=45,
    )
    assert len(host.incidents) == 2


def test_strain_that_names_nobody_is_amended_once_its_cause_is_found():
    host = Host().play(
        find(10, "cpu.busy.level", "host:", {CPU: 0.8}, "warning", score=0.65),
        find(25, "proc.total.level", "unit:poll.service", {STORM: 0.9}, score=0.85),
        until=45,
    )
    assert host.only.fault_class == STORM
    assert host.only.culprits[0].name == "poll.service"


@pytest.mark.parametrize(
    ("cause", "score"), [(MEMORY, 0.6), (LOOP, 0.85), (FLOOD, 0.65), ("fd-exhaustion", 0.65)]
)
def test_busy_processors_that_name_nobody_belong_to_what_is_named_and_makes_them_busy(cause, score):
    host = Host().play(
        find(10, "known.something", "unit:app.service", {cause: 0.75}, score=score, kind="line"),
        find(20, "cpu.busy.level", "host:", {CPU: 0.8}, score=0.75),
        until=45,
    )
    assert (host.only.fault_class, host.only.culprits[0].name) == (cause, "app.service")


def test_busy_processors_that_name_somebody_else_are_an_incident_of_their_own():
    host = Host().play(
        find(10, "known.crash-loop", "unit:app.service", {LOOP: 0.95}, score=0.85, kind="line"),
        find(20, "cpu.busy.level", "unit:other.service", {CPU: 0.8}, score=0.75),
        until=45,
    )
    assert {one.fault_class.value for one in host.incidents} == {LOOP, CPU}


def test_two_faults_that_have_nothing_in_common_stay_two_though_they_begin_together():
    host = Host().play(
        find(10, "fs.used.level", "mount:/srv", {FULL: 0.9}, score=0.8),
        find(10, "known.buffer-io-error", "device:sdb", {FAILING: 0.8}, score=0.75, kind="line"),
        find(11, "known.unit-failed", "unit:web.service", {CRASH: 0.75}, score=0.65, kind="line"),
        until=30,
    )
    assert {one.fault_class.value for one in host.incidents} == {FULL, FAILING, CRASH}


def complains(t, unit, hints, rule="known.no-answer"):
    return find(t, rule, f"unit:{unit}", hints, "warning", score=0.65, kind="line")


@pytest.mark.parametrize("hints", [{REFUSED: 0.6}, {HUNG: 0.7, REFUSED: 0.65}])
def test_programs_that_wait_in_vain_at_the_same_time_wait_for_one_thing(hints):
    host = Host().play(
        complains(10, "orders.service", {REFUSED: 0.6}),
        complains(14, "reports.service", hints),
        until=40,
    )
    assert len(host.incidents) == 1


def test_programs_that_wait_in_vain_at_other_times_are_two_incidents():
    host = Host().play(
        complains(10, "orders.service", {REFUSED: 0.6}),
        complains(45, "reports.service", {REFUSED: 0.6}),
        until=70,
    )
    assert len(host.incidents) == 2


def test_what_the_manager_could_not_start_is_not_what_a_program_waits_for():
    """A device that never came at boot is not hidden by whoever complains of something else."""
    host = Host().play(
        complains(10, "orders.service", {REFUSED: 0.6}),
        complains(11, "srv-data.mount", {REFUSED: 0.85}, "known.unit-dependency"),
        until=40,
    )
    assert len(host.incidents) == 2


def test_who_notices_a_few_seconds_before_a_link_is_given_up_belongs_to_it():
    host = Host().play(
        complains(10, "poll.service", {HUNG: 0.7, REFUSED: 0.65}),
        find(15, "known.tunnel-lost", "unit:vpn.service", {DOWN: 0.85}, score=0.75, kind="line"),
        until=40,
    )
    assert host.only.fault_class == DOWN
    assert host.only.culprits[0].name == "vpn.service"
