"""What belongs to one incident and which class it has: causes, symptoms, and hauswart's own suffering."""

from __future__ import annotations

import pytest

from models.taxonomy import Severity, SubjectKind
from tests.test_middle import CORRUPT, CPU, CRASH, FAILING, MEMORY, Host, find

HUNG, EXPIRED, REFUSED = "service-hung", "certificate-expired", "dependency-failed"


def test_what_each_might_also_be_is_not_made_sure_by_their_number():
    """A file system that finds itself damaged says so in four ways; no disk has refused anything."""
    disk = "device:sdx"
    host = Host().play(
        find(10, "known.ext4-error", disk, {CORRUPT: 0.9, FAILING: 0.3}, score=0.85, kind="line"),
        find(
            10, "known.jbd2-abort", disk, {CORRUPT: 0.85, FAILING: 0.5}, "critical", score=0.85, kind="line"
        ),
        find(10, "known.remount-read-only", disk, {CORRUPT: 0.9, FAILING: 0.4}, score=0.9, kind="line"),
        find(14, "fs.readonly.level", "mount:/srv", {CORRUPT: 0.7, FAILING: 0.3}, score=0.75),
        until=30,
    )
    assert host.only.fault_class == CORRUPT


def test_damage_after_errors_of_the_disk_is_the_disks():
    disk = "device:sdx"
    host = Host().play(
        find(10, "known.block-io-error", disk, {FAILING: 0.85}, score=0.75, kind="line"),
        find(
            10, "known.jbd2-abort", disk, {CORRUPT: 0.85, FAILING: 0.5}, "critical", score=0.85, kind="line"
        ),
        find(10, "known.remount-read-only", disk, {CORRUPT: 0.9, FAILING: 0.4}, score=0.9, kind="line"),
        until=30,
    )
    assert host.only.fault_class == FAILING


def test_expired_certificate_that_client_and_server_complain_of_is_one_incident_of_the_client():
    client, server = "unit:sync.service", "unit:tls.service"
    host = Host().play(
        find(10, "known.uncaught-exception", client, {CRASH: 0.6}, "warning", score=0.5, kind="line"),
        find(10, "known.certificate-expired", server, {EXPIRED: 0.9}, score=0.6, kind="line"),
        find(10, "known.certificate-expired", client, {EXPIRED: 0.9}, score=0.6, kind="line"),
        find(10.1, "known.unit-failed", client, {CRASH: 0.75}, score=0.65, kind="line"),
        until=30,
    )
    assert host.only.fault_class == EXPIRED
    assert host.only.culprits[0].name == "sync.service"


def test_stages_that_starve_belong_to_the_hosts_incident_and_change_nothing_of_it():
    greedy = ["process:greedy[456]", "unit:greedy.service=0.8"]
    host = Host().play(
        find(10, "mem.available.level", greedy, {MEMORY: 0.9}, score=0.75),
        find(12, "known.unit-watchdog", "stage:top", {HUNG: 0.9}, "critical", score=0.95, kind="line"),
        find(13, "stage.crashed", "stage:collector", {CRASH: 0.9}, "critical", score=0.95, kind="event"),
        until=40,
    )
    assert (host.only.fault_class, host.only.severity) == (MEMORY, Severity.ERROR)
    assert host.only.culprits[0].name == "greedy[456]"
    assert all(one.kind is not SubjectKind.STAGE for one in host.only.culprits)
    assert any("watchdog" in piece.text for piece in host.only.evidence)


def test_stage_that_starved_first_is_taken_into_the_hosts_incident():
    host = Host().play(
        find(8, "stage.silent", "stage:low", {HUNG: 0.7}, score=0.9, kind="event"),
        find(12, "cpu.busy.level", "process:greedy[4]", {CPU: 0.8}, score=0.75),
        until=40,
    )
    assert host.only.fault_class == CPU
    assert host.only.culprits[0].name == "greedy[4]"


def test_stage_that_dies_beside_what_takes_nothing_from_it_is_an_incident_of_its_own():
    host = Host().play(
        find(10, "link.down", "interface:eth0", {"link-down": 0.9}, kind="event"),
        find(11, "stage.crashed", "stage:low", {CRASH: 0.9}, kind="event"),
        until=40,
    )
    assert {one.fault_class.value for one in host.incidents} == {"link-down", CRASH}


@pytest.mark.parametrize("of", ["disk-full", "cpu-saturation"])
def test_stage_that_is_killed_while_the_host_is_short_of_something_else_is_an_incident_of_its_own(of):
    host = Host().play(
        find(10, "some.level", "host:host", {of: 0.9}, score=0.75),
        find(11, "stage.crashed", "stage:low", {CRASH: 0.9}, kind="event"),
        find(14, "stage.crashed", "stage:top", {CRASH: 0.9}, kind="event"),
        until=40,
    )
    assert sorted(one.fault_class.value for one in host.incidents) == sorted([of, CRASH, CRASH])


def test_stage_that_is_killed_after_another_fell_silent_is_an_incident_of_its_own():
    host = Host().play(
        find(10, "known.unit-watchdog", "stage:low", {HUNG: 0.9}, score=0.8, kind="line"),
        find(14, "stage.crashed", "stage:top", {CRASH: 0.9}, kind="event"),
        until=40,
    )
    assert {one.culprits[0].name for one in host.incidents} == {"low", "top"}


def test_stages_that_fall_silent_together_are_one_incident():
    host = Host().play(
        find(10, "stage.silent", "stage:low", {HUNG: 0.7}, score=0.8, kind="event"),
        find(12, "known.unit-watchdog", "stage:top", {HUNG: 0.9}, score=0.8, kind="line"),
        until=40,
    )
    assert host.only.culprits[0].kind is SubjectKind.STAGE


def test_trouble_that_never_ended_goes_on_after_a_long_silence():
    """Where nothing could be read for minutes, what held before holds still."""
    greedy = ["process:greedy[456]", "unit:greedy.service=0.8"]
    host = Host().play(find(10, "mem.available.level", greedy, {MEMORY: 0.9}, score=0.75), until=15)
    host.play(find(340, "known.unit-oom", greedy[1], {MEMORY: 0.8, CRASH: 0.3}, kind="line"), until=350)
    assert len(host.incidents) == 1


def test_who_is_refused_by_a_service_that_crashed_belongs_to_its_crash():
    both = ["unit:web.service", "unit:db.service=0.6"]  # the low tier ties the two
    host = Host().play(
        find(10, "known.unit-failed", "unit:db.service", {CRASH: 0.75}, score=0.65, kind="line"),
        find(12, "known.upstream-unreachable", both, {REFUSED: 0.6}, score=0.9, kind="line"),
        until=40,
    )
    assert host.only.fault_class == CRASH
    assert host.only.culprits[0].name == "db.service"


def test_dependency_of_a_unit_that_failed_is_not_laid_to_one_that_hangs():
    host = Host().play(
        find(10, "known.unit-watchdog", "unit:hung.service", {HUNG: 0.9}, kind="line"),
        find(20, "known.unit-failed", "unit:base.service", {CRASH: 0.9}, kind="line"),
        find(
            20.1,
            "known.unit-dependency",
            ["unit:base.service", "unit:needy.service"],
            {CRASH: 0.3, "dependency-failed": 0.8},
            kind="line",
        ),
        until=40,
    )
    assert sorted(one.fault_class.value for one in host.incidents) == sorted([HUNG, CRASH])


def test_two_full_file_systems_are_two_incidents_though_one_program_filled_both():
    host = Host().play(
        find(10, "fs.used.level", ["mount:/srv/a", "process:writer[7]=0.8"], {"disk-full": 0.9}),
        find(12, "fs.used.level", ["mount:/srv/b", "process:writer[7]=0.8"], {"disk-full": 0.9}),
        until=40,
    )
    assert [one.culprits[0].name for one in host.incidents] == ["/srv/a", "/srv/b"]
