"""The middle tier on sequences of findings as the low tier sends them."""

from __future__ import annotations

import random
import resource
import time
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.incidents.closing import CLOSED_MAX
from daemon.incidents.gathering import SITUATIONS_MAX, WHERE_MAX
from daemon.incidents.situations import CONDITIONS_MAX
from daemon.messages import (
    Event,
    Evidence,
    Finding,
    Incident,
    KeepPurge,
    KeepSilence,
    Stamp,
    Subject,
    Tick,
)
from daemon.settings import Middle
from daemon.silences import after_verdict
from daemon.stages.health import find_gap
from daemon.tiers.middle import OPEN_MAX, SEEN_MAX, MiddleTier
from models.taxonomy import FaultClass, Severity, SubjectKind

BOOT = "b" * 32
WALL = 1_700_000_000.0
_numbers = count(1)


def at(t: float) -> Stamp:
    return Stamp(BOOT, t, WALL + t)


def find(
    t: float,
    rule: str,
    who: str | list[str],
    hints: dict[str, float],
    severity: str = "error",
    *,
    score: float = 0.8,
    text: str = "",
    ended: bool = False,
    number: str = "",
    kind: str = "metric",
    **values: float,
) -> Finding:
    """A finding; `who` are subjects like `process:nginx[12]` or `mount:/var=0.5`, most to blame first."""
    subjects = []
    for one in [who] if isinstance(who, str) else who:
        named, _, share = one.partition("=")
        sort, _, name = named.partition(":")
        subjects.append(Subject(SubjectKind(sort), name, float(share or 1)))
    number = number or f"{next(_numbers):012x}"
    piece = Evidence(f"{number}-1", kind, rule, WALL + t, WALL + t, text or f"{rule} said {number}", values)
    weights = {FaultClass(fault): weight for fault, weight in hints.items()}
    category = max(weights, key=lambda fault: weights[fault]).category if weights else "unknown"
    return Finding(
        number, at(t), rule, category, Severity(severity), score, subjects, weights, [piece], ended=ended
    )


def ticks(start: float, end: float) -> list[Tick]:
    """One a second, as the low tier sends them with each sample."""
    return [Tick(at(start + second)) for second in range(int(end - start) + 1)]


def context(t: float, name: str, action: str = "start", **attributes: str) -> Event:
    return Event(at(t), "journal", "context", name, action, attributes)


class Host:
    """Drives a tier and keeps the newest revision of every incident, as the store does."""

    def __init__(
        self, known: list[Incident] | None = None, silences: list[KeepSilence] | None = None
    ) -> None:
        self.tier = MiddleTier(Middle(), known or [], silences or [])
        self.kept: dict[str, Incident] = {one.id: one for one in known or []}
        self.revisions = 0

    def send(self, *batch) -> list[Incident]:
        changed = self.tier.take(batch)
        for one in changed:
            known = self.kept.get(one.id)
            assert known is None or one.revision > known.revision
            self.kept[one.id] = one
        self.revisions += len(changed)
        return changed

    def play(self, *findings: Finding | Event, until: float) -> Host:
        """Send everything in order of time, one batch a second, with ticks between."""
        waiting = sorted(findings, key=lambda one: one.at.mono)
        for tick in ticks(0 if not waiting else int(waiting[0].at.mono), until):
            batch = [one for one in waiting if one.at.mono <= tick.at.mono]
            waiting = waiting[len(batch) :]
            self.send(*batch, tick)
        return self

    @property
    def incidents(self) -> list[Incident]:
        return [one for one in self.kept.values() if one.state != "merged"]

    @property
    def only(self) -> Incident:
        assert len(self.incidents) == 1, [(one.fault_class, one.culprits[:1]) for one in self.incidents]
        return self.incidents[0]


CPU, MEMORY, STORM, IO = "cpu-saturation", "memory-exhaustion", "process-storm", "io-saturation"
HUNG = "service-hung"
CRASH, LOOP, FULL, FAILING = "service-crash", "crash-loop", "disk-full", "disk-failing"
DOWN, BRUTE, CORRUPT = "link-down", "auth-bruteforce", "filesystem-corrupt"


# --- the eight scenarios ------------------------------------------------------------------------------


def oom(t: float = 10) -> list[Finding]:
    unit, leaky = "unit:/hwlab-memory", "process:leaky[815]"
    return [
        find(t, "known.oom-constraint", [unit, leaky], {MEMORY: 0.9}, score=0.85, kind="line"),
        find(t + 0.1, "known.oom-kill-unit", leaky, {MEMORY: 0.85}, score=0.85, kind="line"),
        find(t + 0.6, "unit.oom_kills.level", "unit:hwlab-memory", {MEMORY: 0.9}),
        find(t + 0.6, "mem.oom_kills.level", "unit:hwlab-memory", {MEMORY: 0.9}),
        find(t + 0.6, "psi.memory.level", "process:postgres[99]", {MEMORY: 0.9}, score=0.7),
    ]


def full(t: float = 10, mount: str = "/mnt/small") -> list[Finding]:
    return [
        find(
            t,
            "fs.used.level",
            [f"mount:{mount}", "process:writer[20]=0.5"],
            {FULL: 0.9},
            "critical",
            score=0.95,
        ),
        find(t + 1, "known.no-space", ["unit:app.service", "process:app[21]"], {FULL: 0.7}, score=0.6),
        find(t + 1.2, "known.no-space", "process:other[22]", {FULL: 0.7}, score=0.6, kind="line"),
    ]


def storm(t: float = 10) -> list[Finding]:
    return [
        find(t, "cpu.busy.level", "process:spawner[30]", {CPU: 0.8}, "warning", score=0.7),
        find(t + 1, "psi.cpu.level", "host:", {CPU: 0.3}, "warning", score=0.4),
        find(t + 3, "proc.total.level", "process:spawner[30]", {STORM: 0.9}, score=0.85),
        find(t + 5, "mem.available.level", "process:spawner[31]", {MEMORY: 0.9}, score=0.75),
    ]


def hog(t: float = 10) -> list[Finding]:
    return [
        find(t, "cpu.busy.level", "process:burner[40]", {CPU: 0.8}, "warning", score=0.7),
        find(t + 1, "proc.hog.level", "process:burner[40]", {CPU: 0.7}, "warning", score=0.6),
        find(t + 1, "proc.hog.level", "process:burner[41]", {CPU: 0.7}, "warning", score=0.6),
        find(t + 4, "load.1.shift", "host:", {CPU: 0.2}, "info", score=0.3),
    ]


def crashes(t: float = 10) -> list[Finding]:
    found = []
    for number in range(3):
        who = f"process:crasher[{50 + number}]"
        when = t + 0.8 * number
        found.append(
            find(when, "known.segfault", who, {CRASH: 0.8}, score=0.7, kind="line", text=f"segfault {who}")
        )
        found.append(find(when + 0.1, "known.coredump", who, {CRASH: 0.85}, score=0.75, kind="line"))
    return found


def logins(t: float = 10) -> list[Finding]:
    return [
        find(t, "known.login-failed.rate", "address:203.0.113.9", {BRUTE: 0.9}, "warning", score=0.7),
        find(t + 1, "known.login-attempts-exceeded", ["address:203.0.113.9", "user:root"], {BRUTE: 0.6}),
    ]


def link(t: float = 10) -> list[Finding]:
    return [
        find(
            t + 1,
            "link.down",
            ["interface:hwlab0", "interface:hwlab1=0.5"],
            {DOWN: 0.9},
            "warning",
            score=0.6,
        ),
        find(t + 4, "link.carrier.level", "interface:hwlab1", {DOWN: 0.8}, "warning", score=0.6),
        find(t + 4, "link.carrier.level", "interface:hwlab0", {DOWN: 0.8}, "warning", score=0.6),
        find(t + 6, "known.name-resolution", "unit:fetch.service", {"name-resolution": 0.75}, "warning"),
    ]


def disk(t: float = 10) -> list[Finding]:
    return [
        find(t, "known.block-io-error", "device:loop0", {FAILING: 0.85}, score=0.75, kind="line"),
        find(t + 0.1, "known.ext4-error", "device:loop0", {CORRUPT: 0.9, FAILING: 0.3}, score=0.85),
        find(t + 0.5, "disk.io_errors.level", "device:loop0", {FAILING: 0.9}),
        find(t + 2, "fs.readonly.level", "mount:/mnt/disk", {CORRUPT: 0.8}, score=0.8),
        find(t + 3, "psi.io.level", "device:loop0=0.5", {IO: 0.8}, "warning", score=0.6),
    ]


SCENARIOS = {
    "memory-limit": (oom, MEMORY, ("hwlab-memory", "leaky")),
    "full-file-system": (full, FULL, ("/mnt/small",)),
    "fork-storm": (storm, STORM, ("spawner",)),
    "cpu-hog": (hog, CPU, ("burner",)),
    "three-crashes": (crashes, LOOP, ("crasher",)),
    "failed-logins": (logins, BRUTE, ("203.0.113.9",)),
    "link-down": (link, DOWN, ("hwlab0", "hwlab1")),
    "truncated-disk": (disk, FAILING, ("loop0",)),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_fault_gives_one_incident_of_its_class_and_culprit(name):
    make, fault, culprits = SCENARIOS[name]
    incident = Host().play(*make(), until=40).only
    assert incident.fault_class == fault
    assert any(right in incident.culprits[0].name for right in culprits)
    assert incident.state == "open"
    assert incident.evidence_at == pytest.approx(WALL + 10, abs=1.1)
    assert incident.path == "baseline"


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_incident_opens_within_two_and_a_half_seconds_of_its_evidence(name):
    incident = Host().play(*SCENARIOS[name][0](), until=40).only
    assert incident.opened_at - incident.evidence_at <= 2.5


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_findings_within_a_few_seconds_does_not_matter(name, seed):
    make, fault, culprits = SCENARIOS[name]
    findings = make(10)
    times = [one.at.mono for one in findings]
    random.Random(seed).shuffle(findings)
    moved = [replace(one, at=at(t)) for one, t in zip(findings, times, strict=True)]
    incident = Host().play(*moved, until=40).only
    assert incident.fault_class == fault
    assert any(right in incident.culprits[0].name for right in culprits)


def test_scenarios_one_after_another_stay_eight_incidents():
    findings = [one for n, (make, _, _) in enumerate(SCENARIOS.values()) for one in make(10 + 20 * n)]
    over = find(62, "proc.total.level", "process:spawner[30]", {STORM: 0.9}, score=0.85, ended=True)
    host = Host().play(*findings, over, until=190)
    found = {(one.fault_class.value, one.culprits[0].name.partition("[")[0]) for one in host.incidents}
    assert len(host.incidents) == len(SCENARIOS)
    assert {fault for fault, _ in found} == {fault for _, fault, _ in SCENARIOS.values()}


def test_a_quiet_host_gives_no_incident():
    host = Host()
    odd = [
        find(60.0 * minute, f"{family}.shift", "host:", {CPU: 0.3, IO: 0.2}, "info", score=0.4)
        for minute in range(60)
        for family in ("cpu.busy", "load.1", "psi.cpu", "disk.await_s", "mem.major_faults")
    ]
    assert host.play(*odd, until=3700).incidents == []


# --- grouping -----------------------------------------------------------------------------------------


def test_independent_simultaneous_faults_stay_two():
    host = Host().play(*full(10, "/data"), *logins(10.5), until=40)
    assert {one.fault_class for one in host.incidents} == {FULL, BRUTE}


def test_two_full_mounts_are_two_incidents():
    host = Host().play(
        find(10, "fs.used.level", "mount:/data", {FULL: 0.9}, "critical", score=0.95),
        find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, "critical", score=0.95),
        until=40,
    )
    assert sorted(one.culprits[0].name for one in host.incidents) == ["/data", "/var"]


def test_two_units_at_their_own_memory_limits_are_two_incidents():
    host = Host().play(
        find(10, "unit.memory.level", "unit:a.service", {MEMORY: 0.9}),
        find(11, "unit.memory.level", "unit:b.service", {MEMORY: 0.9}),
        until=40,
    )
    assert len(host.incidents) == 2


def test_a_crash_elsewhere_is_not_explained_by_a_full_disk():
    host = Host().play(
        *full(10), find(12, "known.segfault", "process:nginx[70]", {CRASH: 0.8}, score=0.7), until=40
    )
    assert {one.fault_class for one in host.incidents} == {FULL, CRASH}


def test_the_crash_of_a_writer_belongs_to_the_full_disk():
    crash = find(14, "known.unit-failed", "unit:app.service", {CRASH: 0.75}, score=0.65)
    incident = Host().play(*full(10), crash, until=40).only
    assert incident.fault_class == FULL
    assert incident.culprits[0].name == "/mnt/small"
    assert "app.service" in {one.name for one in incident.culprits}


def test_the_unit_that_the_oom_killer_hit_does_not_get_a_second_incident():
    crash = find(11, "known.unit-failed", "unit:hwlab-memory", {CRASH: 0.75}, score=0.65)
    assert Host().play(*oom(10), crash, until=40).only.fault_class == MEMORY


def test_a_cause_seen_after_its_effect_reclasses_the_open_incident():
    host = Host().play(find(10, "psi.io.level", "device:sda", {IO: 0.8}, "error", score=0.7), until=14)
    first = host.only
    assert first.fault_class == IO
    host.play(find(15, "known.medium-error", "device:sda", {FAILING: 0.95}, score=0.85), until=20)
    assert host.only.id == first.id
    assert host.only.fault_class == FAILING
    assert host.only.revision > first.revision


def test_what_ended_long_ago_draws_nothing_into_an_incident_that_lasts():
    """A program that was busy an hour ago fills a disk, while another one still keeps the processor busy."""
    hog = [find(t, "cpu.level", "process:spin[7]", {CPU: 0.9}) for t in range(10, 4000, 30)]
    busy = find(20, "proc.cpu.level", "process:build[8]", {CPU: 0.8})
    ended = find(60, "proc.cpu.level", "process:build[8]", {CPU: 0.8}, ended=True)
    writer = find(3600, "io.proc.level", "process:build[9]", {IO: 0.8})
    full = find(3605, "fs.full.level", ["mount:/var", "process:build[9]=0.6"], {FULL: 0.9})
    host = Host().play(*hog, busy, ended, writer, full, until=3700)
    assert sorted((one.fault_class, one.culprits[0].name) for one in host.incidents) == [
        (CPU, "spin[7]"),
        (FULL, "/var"),
    ]


def test_file_system_without_trusted_free_blocks_is_corrupt_and_not_full_besides():
    host = Host().play(
        find(10, "known.ext4-error", "device:loop3", {CORRUPT: 0.9}),
        find(12, "fs.used.level", "mount:/srv/data", {FULL: 0.9}),
        until=60,
    )
    assert host.only.fault_class == CORRUPT


def test_two_open_incidents_that_turn_out_one_are_merged():
    host = Host().play(
        find(10, "known.unit-failed", "unit:app.service", {CRASH: 0.75}, score=0.65),
        find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, "critical", score=0.95),
        until=14,
    )
    assert len(host.incidents) == 2
    told = find(15, "known.no-space", ["unit:app.service", "mount:/var"], {FULL: 0.7}, score=0.6)
    host.play(told, until=20)
    assert host.only.fault_class == FULL
    gone = next(one for one in host.kept.values() if one.state == "merged")
    assert gone.merged_into == host.only.id
    assert gone.closed_at is not None


def test_a_cpu_hog_beside_a_fork_storm_is_an_incident_of_its_own():
    host = Host().play(*storm(10), *hog(14), until=40)
    assert {one.fault_class for one in host.incidents} == {STORM, CPU}


def test_saturation_that_somebody_else_caused_before_is_no_effect_of_a_storm():
    """The unit's storm names no process, so nothing but the order tells that the hog was there before."""
    burner = find(100, "cpu.busy.level", "process:miner[5]", {CPU: 0.8}, "warning", score=0.65)
    refused = find(105, "known.fork-rejected", "unit:/jobs/worker", {STORM: 0.9})
    host = Host().play(burner, refused, until=110)
    assert {one.fault_class for one in host.incidents} == {STORM, CPU}
    late = replace(burner, at=at(106))
    assert Host().play(refused, late, until=115).only.fault_class == STORM


def test_who_waits_in_vain_and_who_hangs_are_one_incident():
    waits = {HUNG: 0.75, "dependency-failed": 0.65}
    waiter = find(10, "known.unit-failed", "unit:check.service", waits, score=0.65)
    stopped = find(17, "process.stopped.level", "unit:web.service", {HUNG: 0.8}, "warning", score=0.6)
    assert Host().play(waiter, stopped, until=30).only.fault_class == HUNG
    other = find(10, "known.unit-timeout", "unit:other.service", {HUNG: 0.85}, score=0.7)
    assert len(Host().play(other, stopped, until=30).incidents) == 2


def test_name_server_that_fails_and_names_that_do_not_resolve_are_one_incident():
    names = "name-resolution"
    failed = find(10, "known.unit-failed", "unit:dnsmasq.service", {CRASH: 0.75, names: 0.62}, score=0.65)
    missed = find(14, "probe.dns_ok.level", "host:", {names: 0.9}, score=0.75)
    said = find(13, "known.name-resolution", "unit:fetch.service", {names: 0.75}, "warning", score=0.5)
    host = Host().play(failed, said, missed, until=30)
    assert host.only.fault_class == names
    assert "dnsmasq.service" in {one.name for one in host.only.culprits}
    elsewhere = find(10, "known.unit-failed", "unit:web.service", {CRASH: 0.75}, score=0.65)
    assert len(Host().play(elsewhere, said, missed, until=30).incidents) == 2


def test_a_shared_session_scope_ties_nothing_together():
    scope = "unit:session-3.scope"
    host = Host().play(
        find(10, "proc.hog.level", [scope, "process:burner[1]"], {CPU: 0.7}, "warning", score=0.6),
        find(11, "process.fds.level", [scope, "process:leaky[2]"], {"fd-exhaustion": 0.9}),
        until=30,
    )
    assert len(host.incidents) == 2
    assert {one.culprits[0].name for one in host.incidents} == {"burner[1]", "leaky[2]"}


def test_a_unit_and_its_program_are_one_subject():
    host = Host().play(
        find(10, "known.segfault", "process:nginx[12]", {CRASH: 0.8}, score=0.7),
        find(10.2, "known.unit-failed", "unit:nginx.service", {CRASH: 0.75}, score=0.65),
        until=20,
    )
    assert host.only.culprits[0] == replace(
        host.only.culprits[0], kind=SubjectKind.UNIT, name="nginx.service"
    )


def test_three_crashes_under_changing_pids_blame_the_program():
    incident = Host().play(*crashes(), until=30).only
    assert (incident.culprits[0].kind, incident.culprits[0].name) == (SubjectKind.PROCESS, "crasher")
    texts = " ".join(one.text for one in incident.evidence)
    assert all(f"crasher[{pid}]" in texts for pid in (50, 51, 52))


def test_two_crashes_are_no_loop_and_the_third_escalates_the_same_incident():
    found = crashes()
    host = Host().play(*found[:4], until=13)
    assert host.only.fault_class == CRASH
    first = host.only.id
    host.play(*[replace(one, at=at(20)) for one in found[4:]], until=25)
    assert host.only.fault_class == LOOP
    assert host.only.id == first


def test_one_crash_that_is_reported_again_is_no_loop():
    again = [
        replace(find(10 + 30 * n, "unit.failed", "unit:a.service", {CRASH: 0.8}), at=at(10 + 30 * n))
        for n in range(5)
    ]
    first = again[0].evidence
    host = Host().play(*[replace(one, evidence=first) for one in again], until=140)
    assert host.only.fault_class == CRASH


def test_a_flood_from_many_addresses_is_one_brute_force():
    many = [
        find(
            10 + n / 10,
            "known.login-failed.rate",
            f"address:198.51.100.{n}",
            {BRUTE: 0.9},
            "warning",
            score=0.7,
        )
        for n in range(100)
    ]
    host = Host().play(*many, until=90)
    assert len(host.only.culprits) <= 8
    assert host.only.findings_count == 100
    assert host.revisions < 12


def test_stage_health_is_never_mixed_with_the_host():
    host = Host().play(
        find(10, "known.segfault", "process:low[5]", {CRASH: 0.8}, score=0.7),
        find(10, "stage.crashed", "stage:low", {CRASH: 0.9}, score=0.7),
        context(5, "boot"),
        until=60,
    )
    stage = [one for one in host.incidents if one.culprits[0].kind is SubjectKind.STAGE]
    assert len(stage) == 1
    assert stage[0].culprits[0].name == "low"
    assert stage[0].context == []


@pytest.mark.parametrize("counted", [10.3, 10.6])
def test_stage_killed_for_memory_and_the_hosts_count_of_kills_are_one_incident(counted):
    """The control group is gone with the stage, so that the count names nobody."""
    stage = "stage:low"
    incident = (
        Host()
        .play(
            find(
                10.4, "known.oom-constraint", [stage, "process:hauswart-low[368]"], {MEMORY: 0.9}, score=0.85
            ),
            find(counted, "mem.oom_kills.level", [], {MEMORY: 0.9}),
            find(11, "stage.crashed", stage, {CRASH: 0.9}, score=0.7),
            until=60,
        )
        .only
    )
    assert incident.fault_class == MEMORY
    assert "low" in incident.culprits[0].name


def test_weak_findings_support_but_never_open():
    weak = [find(10 + n, f"unit.m{n}.shift", "unit:x.service", {CPU: 0.3}, score=0.9) for n in range(20)]
    host = Host().play(*weak, until=40)
    assert host.incidents == []
    host.play(find(41, "unit.cpu.level", "unit:x.service", {CPU: 0.6}, "warning", score=0.55), until=45)
    assert host.only.findings_count > 10
    assert host.only.score > 0.55


def test_a_weak_finding_that_fits_nothing_is_forgotten():
    host = Host().play(
        find(10, "temp.celsius.shift", "sensor:cpu", {"hardware-error": 0.3}, "info", score=0.4),
        *full(20),
        until=200,
    )
    assert host.only.findings_count == 3


# --- opening, revising, closing -----------------------------------------------------------------------


def test_a_finding_below_half_waits_for_a_second_opinion():
    host = Host().play(find(10, "cpu.busy.level", "host:", {CPU: 0.8}, "warning", score=0.4), until=20)
    assert host.incidents == []
    host.play(find(21, "proc.hog.level", "process:burner[1]", {CPU: 0.7}, "warning", score=0.4), until=25)
    assert host.only.culprits[0].name == "burner[1]"


def test_a_sure_finding_of_a_root_class_opens_at_once():
    changed = Host().send(find(10, "known.md", "address:192.0.2.1", {BRUTE: 0.9}, "error", score=0.95))
    assert [one.state for one in changed] == ["open"]


def test_a_continuing_condition_makes_few_revisions():
    host = Host().play(
        *[
            find(10 + 30 * n, "fs.used.level", "mount:/var", {FULL: 0.9}, "critical", score=0.95)
            for n in range(120)
        ],
        until=3600,
    )
    assert host.only.findings_count >= 60
    assert host.revisions <= 8


def test_severity_rises_with_a_revision():
    host = Host().play(
        find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, "warning", score=0.6),
        find(20, "fs.used.level", "mount:/var", {FULL: 0.9}, "critical", score=0.95),
        until=22,
    )
    assert (host.only.severity, host.only.revision) == ("critical", 2)


def test_an_incident_closes_when_all_conditions_ended_and_stayed_so():
    host = Host().play(
        find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9),
        find(40, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9, ended=True),
        until=48,
    )
    assert host.only.state == "open"
    host.send(*ticks(49, 53))
    assert host.only.state == "closed"
    assert host.only.closed_at == pytest.approx(WALL + 50, abs=1.5)


def test_one_of_two_conditions_ended_keeps_it_open():
    host = Host().play(
        find(10, "proc.hog.level", "process:burner[1]", {CPU: 0.7}, "warning", score=0.6),
        find(10, "proc.hog.level", "process:burner[2]", {CPU: 0.7}, "warning", score=0.6),
        find(20, "proc.hog.level", "process:burner[1]", {CPU: 0.7}, "warning", score=0.6, ended=True),
        until=60,
    )
    assert host.only.state == "open"


def test_an_event_without_an_end_closes_after_close_after_s():
    host = Host().play(*oom(10), until=125)
    assert host.only.state == "open"
    host.send(*ticks(126, 140))
    assert host.only.state == "closed"


def test_the_same_trouble_soon_after_closing_reopens_the_incident():
    findings = []
    for start in (10, 80, 150):
        findings.append(find(start, "link.down", "interface:eth0", {DOWN: 0.9}, "error", score=0.8))
        findings.append(
            find(start + 5, "link.down", "interface:eth0", {DOWN: 0.9}, "error", score=0.8, ended=True)
        )
    host = Host().play(*findings, until=152)
    assert host.only.state == "open"
    assert host.only.closed_at is None
    back = [one for one in host.only.evidence if one.ref == "incident.reopened"]
    assert [one.values for one in back] == [{"reopened_count": 2.0}]


def test_the_same_trouble_long_after_closing_is_a_new_incident():
    host = Host().play(*link(10), *link(600), until=620)
    assert len(host.incidents) == 2


def test_other_trouble_soon_after_closing_is_a_new_incident():
    host = Host().play(
        find(10, "link.down", "interface:eth0", {DOWN: 0.9}),
        find(15, "link.down", "interface:eth0", {DOWN: 0.9}, ended=True),
        find(60, "link.down", "interface:eth1", {DOWN: 0.9}),
        until=70,
    )
    assert len(host.incidents) == 2


def test_nothing_closes_while_the_low_tier_is_silent():
    silent = find(30, "stage.silent", "stage:low", {"service-hung": 0.6}, "warning", score=0.6)
    host = Host().play(find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9), silent, until=400)
    assert next(one for one in host.incidents if one.fault_class == FULL).state == "open"
    host.play(find(401, "stage.silent", "stage:low", {"service-hung": 0.6}, ended=True), until=600)
    assert {one.state for one in host.incidents} == {"closed"}


def test_nothing_closes_though_stages_above_tell_of_themselves_meanwhile():
    silent = find(30, "stage.silent", "stage:low", {HUNG: 0.6}, "warning", score=0.6)
    beside = [
        find(60, "stage.crashed", "stage:notify", {CRASH: 0.6}, "warning", score=0.6),
        find(70, "read.disk-failing", "mount:/srv", {FAILING: 0.8}, score=0.7),
    ]
    full_disk = find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9)
    host = Host().play(full_disk, silent, *beside, until=400)
    assert next(one for one in host.incidents if one.fault_class == FULL).state == "open"


def test_ids_are_short_typeable_and_deterministic():
    ids = {
        Host().play(find(10, "x.y", "mount:/v", {FULL: 0.9}, number="abc"), until=13).only.id for _ in "ab"
    }
    assert len(ids) == 1
    assert next(iter(ids)).isalnum()
    assert len(next(iter(ids))) == 7


# --- context ------------------------------------------------------------------------------------------


def test_a_backups_load_opens_nothing_until_it_outlasts_the_backup():
    unit = "borgbackup-job-home.service"
    load = [
        find(12 + 30 * n, "psi.io.level", [f"unit:{unit}", "process:borg[9]=0.9"], {IO: 0.8}, score=0.7)
        for n in range(8)
    ]
    start, end = context(10, "backup", unit=unit), context(100, "backup", "end", unit=unit)
    host = Host().play(start, end, *load[:4], until=130)
    assert host.incidents == []
    host.play(*load[4:], until=260)
    assert host.only.fault_class == IO
    assert [note.effect for note in host.only.context] == ["noted"]
    assert "backup borgbackup-job-home started" in host.only.context[0].text


@pytest.mark.parametrize(
    ("severity", "score", "lines", "told"),
    [("error", 0.7, 2, ["warning"]), ("error", 0.7, 1, []), ("warning", 0.6, 2, [])],
)
def test_a_backups_load_is_a_warning_while_a_service_waits_by_its_own_words(severity, score, lines, told):
    load = find(12, "psi.io.level", "unit:borg.service", {"io-saturation": 0.8}, severity, score=score)
    waits = {"lines_count": float(lines), "duration_s": 4.0, "usual_s": 0.03}
    slow = find(16, "line.slow", "unit:shop.service", {"service-hung": 0.25}, "info", score=0.3, **waits)
    host = Host().play(context(10, "backup", unit="borg.service"), load, slow, until=30)
    assert [one.severity.value for one in host.kept.values()] == told
    assert all(one.context[0].effect == "lowered" for one in host.kept.values())


def test_an_oom_kill_during_a_backup_is_told():
    host = Host().play(context(5, "backup", unit="hwlab-memory"), *oom(10), until=30)
    assert host.only.severity == "error"


def test_an_incident_after_a_rebuild_says_which_generation():
    host = Host().play(
        context(10, "rebuild", generation="142"),
        context(20, "rebuild", "end", generation="142"),
        find(90, "known.unit-failed", "unit:app.service", {CRASH: 0.75}, score=0.65),
        until=100,
    )
    assert [(note.effect, note.kind) for note in host.only.context] == [("noted", "rebuild")]
    assert "after generation 142" in host.only.context[0].text


def test_an_update_is_told_once_however_many_programs_made_it():
    update = [
        context(5 + n, "update", job=job) for n, job in enumerate(("apt-get", "dpkg", "apt-get", "dpkg"))
    ]
    ends = [context(12, "update", "end", job="dpkg"), context(13, "update", "end", job="apt-get")]
    backup = context(14, "backup", unit="borg.service")
    failed = find(90, "known.unit-failed", "unit:app.service", {CRASH: 0.75}, score=0.65)
    told = Host().play(*update, *ends, backup, failed, until=100).only.context
    assert [(note.kind, note.effect) for note in told if note.kind == "update"] == [("update", "noted")]


def test_a_service_that_recovers_during_boot_is_no_incident():
    start = context(5, "boot")
    failed = find(10, "unit.failed.level", "unit:app.service", {CRASH: 0.75}, "error", score=0.65)
    over = replace(failed, id="ended", at=at(25), ended=True)
    assert Host().play(start, failed, over, until=70).incidents == []
    told = Host().play(start, replace(failed, score=0.9), until=60).only
    assert (told.severity, told.context[0].effect) == ("warning", "lowered")


def test_an_operators_sudo_is_noted():
    sudo = Event(at(10), "journal", "session", "alice", "sudo", {})
    host = Host().play(sudo, find(70, "link.down", "interface:eth0", {DOWN: 0.9}), until=80)
    assert host.only.context[0].text == "began 60 s after alice used sudo"
    assert host.only.severity == "error"


# --- silences -----------------------------------------------------------------------------------------


def silence(**fields) -> KeepSilence:
    known = {"id": "s1", "fault_class": FULL, "unit": "", "start": WALL, "end": None, "recurring": ""}
    return KeepSilence(**{**known, "reason": "known", "user": "alice", **fields})


def test_a_silenced_incident_is_kept_and_says_by_what():
    host = Host(silences=[silence(unit="/mnt/*")]).play(*full(10), *logins(10), until=20)
    assert {one.fault_class: one.quieted for one in host.incidents} == {FULL: "s1", BRUTE: ""}


def test_a_silence_made_later_quiets_and_its_end_unquiets():
    host = Host().play(*full(10), until=20)
    assert host.only.quieted == ""
    host.tier.keep(silence(end=WALL + 40))
    host.send(*ticks(21, 22))
    assert host.only.quieted == "s1"
    host.send(*ticks(41, 60))
    assert host.only.quieted == ""
    host.tier.keep(silence())
    host.send(*ticks(61, 62))
    host.tier.keep(silence(cancelled=True))
    host.send(*ticks(63, 64))
    assert host.only.quieted == ""


# --- restart, repetition, determinism, bounds ---------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_restart_in_the_middle_makes_no_second_incident(name):
    make, fault, culprits = SCENARIOS[name]
    findings = make(10)
    first = Host().play(*findings, until=20)
    again = [
        replace(one, id=f"{one.id}+", at=at(one.at.mono + 30)) for one in findings if "level" in one.rule
    ]
    second = Host(known=list(first.kept.values()))
    second.play(*findings, *again, until=300)
    assert second.only.id == first.only.id
    assert second.only.fault_class == fault
    assert any(right in second.only.culprits[0].name for right in culprits)
    assert second.only.findings_count == len(findings) + len(again)


def test_after_a_restart_an_end_closes_what_was_open():
    first = Host().play(find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9), until=20)
    second = Host(known=list(first.kept.values()))
    second.play(find(30, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9, ended=True), until=60)
    assert second.only.state == "open"  # other conditions of it may still be told again
    second.send(*ticks(61, 70))
    assert second.only.state == "closed"


def test_after_a_restart_a_recently_closed_incident_reopens():
    down = find(10, "link.down", "interface:eth0", {DOWN: 0.9})
    over = find(15, "link.down", "interface:eth0", {DOWN: 0.9}, ended=True)
    first = Host().play(down, over, until=40)
    second = Host(known=list(first.kept.values()))
    second.play(find(60, "link.down", "interface:eth0", {DOWN: 0.9}), until=70)
    assert (second.only.id, second.only.state) == (first.only.id, "open")


def test_after_a_restart_one_crash_in_many_words_is_no_loop():
    crash = [
        find(t, rule, "unit:app.service", {CRASH: 0.8}, kind="line", text=text)
        for t, rule, text in (
            (10, "known.program-broke", "fatal error: index out of range"),
            (13, "known.unit-main-exited", "Main process exited, code=dumped"),
            (16, "known.coredump", "Process 7 (app) dumped core."),
        )
    ]
    first = Host().play(*crash, until=30)
    assert first.only.fault_class == CRASH
    second = Host(known=list(first.kept.values()))
    second.play(find(40, "unit.failed", "unit:app.service", {CRASH: 0.7}, "critical"), until=60)
    assert {one.fault_class for one in second.incidents} == {CRASH}


def test_what_a_purge_erased_is_not_written_again_and_what_goes_on_begins_anew():
    host = Host().play(*full(10), find(12, "link.down", "interface:eth0", {DOWN: 0.9}), until=20)
    old = {one.fault_class: one.id for one in host.incidents}
    assert host.tier.forget(KeepPurge("op", WALL + 20, fault_class=FULL)) == [old[FULL]]
    host.kept.clear()
    host.send(*ticks(21, 60))
    assert {one.id for one in host.incidents} <= {old[DOWN]}
    again = find(61, "fs.used.level", "mount:/mnt/small", {FULL: 0.9}, score=0.9)
    host.play(again, until=70)
    assert [one.id != old[FULL] for one in host.incidents if one.fault_class == FULL] == [True]
    over = find(80, "link.down", "interface:eth0", {DOWN: 0.9}, ended=True)
    host.play(over, until=100)
    host.tier.forget(KeepPurge("op", WALL + 100))
    host.kept.clear()
    host.play(find(110, "link.down", "interface:eth0", {DOWN: 0.9}), until=120)
    assert all(one.id != old[DOWN] and one.revision < 3 for one in host.incidents)


def test_a_purge_right_after_a_start_reaches_what_the_store_gave():
    first = Host().play(*full(10), until=20)
    second = Host(known=list(first.kept.values()))
    second.tier.forget(KeepPurge("op", WALL + 21))
    second.kept.clear()
    assert second.play(until=400).incidents == []


def test_a_purge_of_everything_erases_silences_and_habits():
    silence = KeepSilence("s1", FULL, "", WALL, None, "", "known", "alice")
    host = Host(silences=[silence])
    assert host.play(*full(10), until=20).only.quieted == "s1"
    host.tier.forget(KeepPurge("op", WALL + 20))
    host.kept.clear()
    assert host.play(*full(30), until=40).only.quieted == ""


def test_a_stage_that_loses_messages_again_and_again_is_one_incident():
    gaps = [replace(find_gap("low", {"journal": number + 1}), at=at(10 + number)) for number in range(9)]
    assert Host().play(*gaps, until=40).only.culprits[0].name == "low"


def test_what_a_call_changed_before_it_failed_is_told_by_the_next():
    host = Host()
    with pytest.raises(AttributeError):
        host.tier.take([*full(10), *ticks(10, 14), None])
    assert [one.fault_class for one in host.send()] == [FULL]


def test_what_is_believed_when_time_stands_still_opens_after_it():
    host = Host()
    host.send(find(10, "fs.used.level", "mount:/var", {FULL: 0.9}, score=0.9))
    assert host.incidents == []
    host.send(*ticks(130, 133))
    assert host.only.fault_class == FULL


def test_what_is_about_to_open_is_unsettled():
    tier = MiddleTier(Middle())
    tier.take([find(10, "proc.hog.level", "process:burner[1]", {CPU: 0.7}, "warning", score=0.6)])
    assert tier.unsettled
    tier.take(ticks(11, 12))
    assert not tier.unsettled


KINDS = (
    "process:p{}[{}]",
    "unit:u{}.service",
    "mount:/m{}",
    "device:sd{}",
    "interface:eth{}",
    "host:",
    "address:{}",
)
upward = st.builds(
    lambda t, fault, kind, name, hint, score, severity, ended: find(
        t,
        f"rule.{fault.value[:4]}",
        kind.format(name, t % 3),
        {fault.value: hint},
        severity,
        score=score,
        ended=ended,
    ),
    st.integers(0, 300),
    st.sampled_from(FaultClass),
    st.sampled_from(KINDS),
    st.integers(0, 2),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["info", "warning", "error", "critical"]),
    st.booleans(),
)
contexts = st.builds(
    lambda t, name, action: context(t, name, action, unit="u1.service"),
    st.integers(0, 300),
    st.sampled_from(["boot", "backup", "rebuild", "timer", "update", "scrub"]),
    st.sampled_from(["start", "end"]),
)
batches = st.lists(upward | contexts | st.integers(0, 400).map(lambda t: Tick(at(t))), max_size=60)


def ordered(batch: list) -> list:
    return sorted(batch, key=lambda one: one.at.mono)


def open_labels(kept: dict[str, Incident]) -> list[tuple]:
    return [
        (one.fault_class, one.culprits[0].kind, one.culprits[0].name.partition("[")[0])
        for one in kept.values()
        if one.state == "open" and one.culprits[0].kind is not SubjectKind.STAGE
    ]


@given(batches)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_two_open_incidents_share_class_and_first_culprit(batch):
    host = Host()
    for item in ordered(batch):
        host.send(item)
        labels = open_labels(host.kept)
        assert len(labels) == len(set(labels))
        assert all(one.culprits and one.severity != "info" for one in host.kept.values())


@given(batches, st.integers(1, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_judgement_does_not_depend_on_how_the_stream_is_cut(batch, size):
    batch = ordered(batch)
    whole, cut = Host(), Host()
    whole.send(*batch)
    for start in range(0, len(batch), size):
        cut.send(*batch[start : start + size])
    assert whole.kept == cut.kept


@given(batches)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_taking_a_batch_twice_changes_nothing(batch):
    host = Host()
    batch = [one for one in ordered(batch) if not isinstance(one, Event)]
    batch += [Tick(batch[-1].at)] if batch else []  # what came after the last tick is told with the next one
    host.send(*batch)
    before = dict(host.kept)
    host.send(*batch)
    assert host.kept == before


def test_memory_is_bounded_under_a_hundred_thousand_random_findings():
    chance = random.Random(1)
    faults = [one.value for one in FaultClass]
    tier = MiddleTier(Middle())

    def wild(second: int, rules: int) -> Finding:
        return find(
            second,
            f"rule{chance.randrange(rules)}",
            chance.choice(KINDS).format(chance.randrange(1000), chance.randrange(30000)),
            {chance.choice(faults): chance.random()},
            chance.choice(["info", "warning", "error"]),
            score=chance.random(),
        )

    def flood(second: int) -> Finding:
        who = f"address:198.51.{chance.randrange(100)}.{chance.randrange(250)}"
        return find(second, f"known.login{chance.randrange(3)}", who, {BRUTE: 0.9}, score=chance.random())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for second in range(40):
        tier.take([*(wild(second, 200) for _ in range(20)), Tick(at(second))])
    for second in range(40, 140):
        tier.take([*(flood(second) for _ in range(1000)), Tick(at(second))])
    gathering = tier._gathering
    assert len(gathering.situations) <= SITUATIONS_MAX
    assert len(gathering._where) <= WHERE_MAX
    assert all(len(one.conditions) <= CONDITIONS_MAX for one in gathering.situations.values())
    assert len(tier._seen) <= SEEN_MAX
    assert len(tier._closed) <= CLOSED_MAX
    assert sum(one.open for one in gathering.situations.values()) <= OPEN_MAX
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


def test_a_grave_incident_opens_even_beside_very_many():
    many = [
        find(10, "known.segfault", f"process:p{n}[{n}]", {CRASH: 0.8}, "warning", score=0.6)
        for n in range(80)
    ]
    host = Host().play(*many, *disk(20), until=40)
    assert len([one for one in host.incidents if one.state == "open"]) == OPEN_MAX
    assert any(one.fault_class == FAILING and one.state == "open" for one in host.incidents)


def test_incidents_that_come_back_stay_within_the_bound():
    def flap(t, numbers, *, ended=False):
        return [
            find(t, "link.down", f"interface:eth{n}", {DOWN: 0.9}, "warning", score=0.6, ended=ended)
            for n in numbers
        ]

    here, there = range(40), range(40, 80)
    host = Host().play(*flap(10, here), *flap(15, here, ended=True), *flap(30, there), until=40)
    host.play(*flap(41, here), until=50)
    assert sum(one.state == "open" for one in host.incidents) <= OPEN_MAX
    host.play(*disk(51), until=60)
    assert any(one.fault_class == FAILING and one.state == "open" for one in host.incidents)


def test_a_quiet_tick_is_cheap_and_a_thousand_findings_take_under_a_second():
    host = Host().play(*full(10), *logins(10), until=20)
    started = time.process_time()
    host.tier.take(ticks(21, 2021))
    assert (time.process_time() - started) / 2000 < 1e-4
    batch = [
        find(2100 + n / 1000, "known.login-failed", f"address:198.51.100.{n % 250}", {BRUTE: 0.9}, score=0.7)
        for n in range(1000)
    ]
    started = time.process_time()
    host.tier.take(batch)
    assert time.process_time() - started < 1.0


# --- what a bad verdict quiets --------------------------------------------------------------------------


def spoken(t: float, who: str = "unit:cron.service") -> Finding:
    return replace(
        find(t, "line.known", who, {"service-crash": 0.9}, text="it fell over", kind="line"), template="t7"
    )


def test_template_of_a_bad_verdict_opens_no_incident_for_its_unit_but_for_others():
    loud = Host().play(spoken(10), until=20)
    assert [one.fault_class for one in loud.incidents] == [FaultClass.SERVICE_CRASH]
    verdict = after_verdict(loud.incidents[0], [spoken(10)], "me", WALL)
    quiet = Host(silences=[verdict]).play(spoken(10), until=20)
    assert quiet.incidents == []
    other = Host(silences=[verdict]).play(spoken(10, "unit:db.service"), until=20)
    assert [one.quieted for one in other.incidents] == [""]


def test_situation_of_a_bad_verdict_is_kept_quiet_until_it_is_taken_back():
    loud = Host().play(*full(10), until=20)
    verdict = after_verdict(loud.incidents[0], [], "me", WALL)
    host = Host(silences=[verdict]).play(*full(10), until=20)
    assert [one.quieted for one in host.incidents] == [verdict.id]
    host.tier.keep(replace(verdict, cancelled=True))
    host.play(until=40)
    assert [one.quieted for one in host.incidents] == [""]


def test_quieted_template_still_supports_what_else_is_wrong():
    verdict = after_verdict(Host().play(spoken(10), until=20).incidents[0], [spoken(10)], "me", WALL)
    crash = find(11, "unit.result", "unit:cron.service", {"service-crash": 0.9})
    host = Host(silences=[verdict]).play(spoken(10), crash, until=20)
    assert any("fell over" in one.text for one in host.incidents[0].evidence)
