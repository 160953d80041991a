"""The life of an incident from revision to revision, and how findings are kept and grouped underneath."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from daemon.codec import encode
from daemon.growth import doublings
from daemon.incidents import lifecycle
from daemon.incidents.context import Contexts
from daemon.incidents.grouping import affinity, view_of_finding
from daemon.incidents.restoring import restored
from daemon.incidents.situations import (
    CONDITIONS_MAX,
    EVIDENCE_PER_CONDITION,
    IDS_MAX,
    MANY,
    SUBJECTS_MAX,
    Situation,
    family,
    incident_id,
)
from daemon.incidents.verdicts import Verdict, judge
from daemon.messages import Culprit, Evidence, Finding, Incident, Stamp, Subject
from daemon.store.rows import basis
from daemon.subjects import aliases, generic, key
from models.taxonomy import FaultClass, Severity, SubjectKind

BOOT, WALL = "b" * 32, 1_700_000_000.0
F = FaultClass


def at(t: float) -> Stamp:
    return Stamp(BOOT, t, WALL + t)


def find(
    number: int,
    t: float,
    rule: str,
    who: str,
    fault: str = "disk-full",
    *,
    severity: str = "error",
    score: float = 0.8,
    hint: float = 0.9,
    text: str = "",
    ended: bool = False,
) -> Finding:
    subjects = [
        Subject(SubjectKind(one.partition(":")[0]), one.partition(":")[2]) for one in who.split() if one
    ]
    piece = Evidence(f"e{number}", "line", rule, WALL + t, WALL + t, text or f"text {number}")
    hints = {F(fault): hint}
    return Finding(
        f"{number:012x}",
        at(t),
        rule,
        F(fault).category,
        Severity(severity),
        score,
        subjects,
        hints,
        [piece],
        ended=ended,
    )


def situation(*findings: Finding) -> Situation:
    first = findings[0]
    made = Situation(
        incident_id(BOOT, first.id), BOOT, first.at.mono, first.at.wall, first.at.mono, stage=False
    )
    for one in findings:
        made.add(one, one.at.mono)
    return made


def verdict(of: Situation, t: float = 20) -> Verdict:
    return judge(of, Contexts(), t, 60)


def opened(of: Situation, t: float = 20) -> Incident:
    of.incident = lifecycle.opened(of, verdict(of, t), at(t))
    return of.incident


# --- revisions ----------------------------------------------------------------------------------------


def test_an_incident_opens_with_the_evidence_and_times_of_its_findings():
    found = opened(situation(find(1, 10, "a", "mount:/v"), find(2, 11, "b", "mount:/v")))
    assert (found.revision, found.state, found.closed_at) == (1, "open", None)
    assert (found.evidence_at, found.opened_at) == (WALL + 10, WALL + 20)
    assert [one.text for one in found.evidence] == ["text 1", "text 2"]
    assert found.finding_ids == [f"{1:012x}", f"{2:012x}"]
    encode(found)


def test_severity_never_falls_while_it_is_open():
    grouped = situation(find(1, 10, "a", "mount:/v", severity="critical"))
    first = opened(grouped)
    milder = verdict(grouped)._replace(severity=Severity.WARNING)
    assert lifecycle.revised(first, grouped, milder, at(30)).severity == "critical"


def test_closing_and_merging_say_when_and_into_what():
    grouped = situation(find(1, 10, "a", "mount:/v"))
    first = opened(grouped)
    closed = lifecycle.closed(first, grouped, at(50))
    assert (closed.state, closed.closed_at, closed.revision) == ("closed", WALL + 50, 2)
    other = opened(situation(find(2, 5, "a", "mount:/w")))
    gone = lifecycle.merged(first, other, at(51))
    assert (gone.state, gone.merged_into, gone.closed_at) == ("merged", other.id, WALL + 51)


def test_a_wall_clock_that_jumped_back_never_closes_before_it_opened():
    grouped = situation(find(1, 10, "a", "mount:/v"))
    first = opened(grouped)
    back = Stamp(BOOT, 60, WALL - 86400)
    for after in (
        lifecycle.closed(first, grouped, back),
        lifecycle.revised(first, grouped, verdict(grouped), back),
    ):
        assert after.updated_at >= after.opened_at
        assert after.closed_at is None or after.closed_at >= after.opened_at


def test_reopening_counts_and_says_so():
    grouped = situation(find(1, 10, "a", "mount:/v"))
    closed = lifecycle.closed(opened(grouped), grouped, at(50))
    grouped.reopened = 1
    again = lifecycle.reopened(closed, grouped, verdict(grouped), at(60))
    assert (again.state, again.closed_at, again.revision) == ("open", None, 3)
    assert again.evidence[-1].text == "It came back after it had ended."
    assert again.evidence[-1].values == {"reopened_count": 1.0}


def test_only_what_an_operator_cares_about_is_a_difference():
    grouped = situation(find(1, 10, "a", "mount:/v"))
    first = opened(grouped)
    same = verdict(grouped)
    assert not lifecycle.differs(first, grouped, same)
    assert not lifecycle.differs(first, grouped, same._replace(score=0.99, scores={F.DISK_FULL: 0.99}))
    assert lifecycle.differs(first, grouped, same._replace(severity=Severity.CRITICAL))
    assert not lifecycle.differs(first, grouped, same._replace(severity=Severity.WARNING))
    assert lifecycle.differs(first, grouped, same._replace(fault_class=F.DISK_FAILING))
    assert lifecycle.differs(first, grouped, same._replace(culprits=[Culprit(SubjectKind.MOUNT, "/w", 1.0)]))
    assert lifecycle.graver(first, same._replace(fault_class=F.DISK_FAILING))
    assert not lifecycle.graver(first, same._replace(culprits=[]))


# --- what is kept -------------------------------------------------------------------------------------


def test_evidence_of_one_condition_keeps_the_first_the_strongest_and_the_latest():
    findings = [find(n, n, "a", "mount:/v", score=0.9 if n == 40 else 0.5) for n in range(1, 101)]
    kept = [one.text for one in opened(situation(*findings), 100).evidence]
    assert len(kept) == EVIDENCE_PER_CONDITION
    assert {"text 1", "text 40", "text 100"} <= set(kept)


def test_the_same_text_is_kept_once():
    findings = [find(n, n, f"rule{n}", "mount:/v", text="the same line") for n in range(1, 6)]
    assert len(opened(situation(*findings)).evidence) == 1


def test_every_condition_has_a_piece_of_evidence_before_any_has_two():
    many = [find(n, 10, "loud", "mount:/v") for n in range(1, 40)]
    others = [find(100 + n, 11, f"rule{n}", "mount:/v", score=0.5) for n in range(25)]
    texts = {one.text for one in opened(situation(*many, *others)).evidence}
    assert len(texts) == EVIDENCE_PER_CONDITION + 25 < lifecycle.EVIDENCE_MAX
    assert {f"text {100 + n}" for n in range(25)} <= texts


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.booleans()), max_size=400))
def test_a_situation_is_bounded_whatever_comes(stream):
    first = find(10**6, 0, "first", "mount:/v")
    grouped = situation(first)
    for number, (rule, who, ended) in enumerate(stream):
        one = find(number, number, f"rule{rule}", f"process:p{who}[{number}]", ended=ended)
        if ended:
            grouped.end(one, number)
        else:
            grouped.add(one, number)
    assert len(grouped.conditions) <= CONDITIONS_MAX
    assert len(grouped.ids) <= IDS_MAX
    found = opened(grouped, 500)
    assert len(found.evidence) <= lifecycle.EVIDENCE_MAX
    assert len(found.culprits) <= 8
    encode(found)


def test_very_many_subjects_of_one_rule_become_one_condition():
    findings = [find(n, n, "known.login", f"address:192.0.2.{n}", "auth-bruteforce") for n in range(60)]
    grouped = situation(*findings)
    assert len(grouped.conditions) == SUBJECTS_MAX + 1
    assert grouped.conditions["known.login", MANY].count == 60 - SUBJECTS_MAX


def test_a_condition_ends_only_when_it_ended_for_every_pid():
    grouped = situation(find(1, 10, "hog", "process:b[1]"), find(2, 11, "hog", "process:b[2]"))
    grouped.end(find(3, 20, "hog", "process:b[1]", ended=True), 20)
    assert grouped.over_t is None
    grouped.end(find(4, 21, "hog", "process:b[2]", ended=True), 21)
    assert grouped.over_t == 21


def test_a_restored_situation_goes_on_with_the_same_class_and_culprits():
    grouped = situation(
        find(1, 10, "a", "mount:/v process:w[7]"), find(2, 10, "b", "unit:x.service", "service-crash")
    )
    before = opened(grouped)
    after = restored(before, 100)
    again = verdict(after, 101)
    assert again.fault_class is before.fault_class
    assert [one.name for one in again.culprits] == [one.name for one in before.culprits]
    assert not lifecycle.differs(before, after, again)
    assert lifecycle.evidence(after) == before.evidence


def test_ids_hang_on_boot_and_finding_only():
    assert incident_id(BOOT, "abc") == incident_id(BOOT, "abc")
    assert len({incident_id(BOOT, str(n)) for n in range(5000)}) == 5000
    assert incident_id(BOOT, "abc") != incident_id("c" * 32, "abc")


# --- verdicts -----------------------------------------------------------------------------------------


def test_one_family_of_rules_counts_once():
    one = situation(find(1, 10, "cpu.busy.level", "host:", score=0.5))
    three = situation(
        *[find(n, 10, f"cpu.busy.{kind}", "host:", score=0.5) for n, kind in enumerate(["level", "shift"])]
    )
    other = situation(*[find(n, 10, rule, "host:", score=0.5) for n, rule in enumerate(["a", "b"])])
    assert verdict(one).score == verdict(three).score == 0.5
    assert verdict(other).score == 0.75
    assert family("line.novel") == family("line.burst")
    assert family("known.oom-kill") != family("known.segfault")


@pytest.mark.parametrize(
    ("fault", "subjects", "first"),
    [
        ("disk-full", "process:writer[1] unit:w.service mount:/var device:sda1", "/var"),
        ("disk-failing", "mount:/var process:reader[1] device:sda", "sda"),
        ("link-down", "unit:net.service interface:eth0", "eth0"),
        ("auth-bruteforce", "user:root unit:ssh.service address:192.0.2.1", "192.0.2.1"),
        ("service-crash", "process:nginx[1] unit:nginx.service", "nginx.service"),
        ("crash-loop", "host: process:python3[123]", "python3"),
        ("cpu-saturation", "host: unit:user.slice process:burner[5]", "burner[5]"),
        ("privilege-misuse", "process:sudo[1] user:mallory", "mallory"),
        ("memory-exhaustion", "unit:a.service process:leaky[9]", "leaky[9]"),
        ("clock-jump", "host:", ""),
    ],
)
def test_the_most_actionable_kind_comes_first(fault, subjects, first):
    culprits = verdict(situation(find(1, 10, "rule", subjects, fault))).culprits
    assert culprits[0].name == first
    assert culprits[0].score == 1.0
    assert [one.score for one in culprits] == sorted((one.score for one in culprits), reverse=True)


def test_a_unit_that_met_its_own_memory_limit_comes_before_its_process():
    grouped = situation(
        find(1, 10, "known.oom-kill", "process:leaky[9]", "memory-exhaustion"),
        find(2, 10, "unit.oom_kills.level", "unit:a.service", "memory-exhaustion"),
    )
    assert [one.name for one in verdict(grouped).culprits] == ["a.service", "leaky[9]"]


def test_the_scores_keep_the_corrected_distribution():
    grouped = situation(
        find(1, 10, "proc.total.level", "process:s[1]", "process-storm", score=0.8),
        find(2, 10, "cpu.busy.level", "process:s[1]", "cpu-saturation", score=0.9),
    )
    scores = verdict(grouped).scores
    assert scores[F.PROCESS_STORM] > scores[F.CPU_SATURATION] > 0.0


# --- subjects and grouping ----------------------------------------------------------------------------

_P, _U, _D, _I = SubjectKind.PROCESS, SubjectKind.UNIT, SubjectKind.DEVICE, SubjectKind.INTERFACE


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((_P, "python3[12]"), (_P, "python3[13]"), True),
        ((_P, "nginx[12]"), (_U, "nginx.service"), True),
        ((_P, "systemd-resolve[1]"), (_U, "systemd-resolved.service"), True),
        ((_U, "/docker/abc"), (_U, "abc"), True),
        ((_D, "sda1"), (_D, "sda"), True),
        ((_D, "nvme0n1p2"), (_D, "nvme0n1"), True),
        ((_D, "loop1"), (_D, "loop10"), False),
        ((_D, "sda"), (_D, "sdb"), False),
        ((_I, "eth0.10"), (_I, "eth0"), True),
        ((_I, "eth0"), (_I, "eth1"), False),
        ((_U, "session-3.scope"), (_U, "session-3.scope"), False),
        ((SubjectKind.HOST, ""), (SubjectKind.HOST, ""), False),
    ],
)
def test_aliases_tie_what_is_one_thing(one, other, same):
    assert (not aliases(*one).isdisjoint(aliases(*other))) == same


@pytest.mark.parametrize(
    "unit", ["", "/", "user.slice", "user@1000.service", "session-c2.scope", "init.scope"]
)
def test_containers_of_everything_are_generic(unit):
    assert generic(unit)
    assert not generic(unit + "x.service")


@given(st.text(max_size=40), st.sampled_from(SubjectKind))
def test_any_name_has_a_key(name, kind):
    assert key(Subject(kind, name))[0] == kind.value
    aliases(kind, name)


def tied(one: Finding, other: Finding) -> bool:
    views = [view_of_finding(each, each.at.mono) for each in (one, other)]
    assert (affinity(*views, 60) > 0) == (affinity(*reversed(views), 60) > 0)
    return affinity(*views, 60) > 0


@pytest.mark.parametrize(
    ("cause", "effect", "gap", "same"),
    [
        (("disk-failing", "device:sda"), ("io-saturation", "process:db[1]"), 5, True),
        (("disk-failing", "device:sda"), ("io-saturation", "device:sdb"), 5, False),
        (("disk-failing", "device:sda"), ("io-saturation", "process:db[1]"), 90, False),
        (("disk-failing", "device:sda"), ("io-saturation", "process:db[1]"), -8, True),
        (("disk-failing", "device:sda"), ("io-saturation", "process:db[1]"), -20, False),
        (("disk-failing", "device:sda"), ("filesystem-corrupt", "mount:/var"), 5, True),
        (("link-down", "interface:eth0"), ("name-resolution", "unit:fetch.service"), 5, True),
        (("link-down", "interface:eth0"), ("link-down", "interface:eth1"), 0, False),
        (("service-crash", "unit:a.service"), ("service-crash", "unit:b.service"), 0, False),
        (("service-crash", "unit:a.service"), ("service-crash", "host:"), 0, True),
        (("service-crash", "unit:a.service"), ("dependency-failed", "unit:b.service"), 1, True),
        (("service-crash", "unit:a.service"), ("dependency-failed", "unit:b.service"), 90, False),
        (("dependency-failed", "unit:b.service"), ("service-crash", "unit:a.service"), 20, False),
        (("packet-loss", "interface:eth0"), ("dependency-failed", "unit:b.service"), 15, True),
        (("packet-loss", "interface:eth0"), ("service-hung", "unit:b.service"), 15, False),
        (("inode-exhaustion", "mount:/a unit:b.service"), ("cpu-saturation", "unit:b.service"), 1, True),
        (
            ("service-crash", "unit:a.service"),
            ("dependency-failed", "unit:b.service unit:a.service"),
            1,
            True,
        ),
        (("cpu-saturation", "process:a[1]"), ("memory-exhaustion", "process:a[1]"), 1, True),
        (("cpu-saturation", "process:a[1]"), ("memory-exhaustion", "process:b[2]"), 1, False),
        (("auth-bruteforce", "user:root"), ("privilege-misuse", "user:root"), 1, False),
        (("kernel-bug", "host:"), ("service-hung", "unit:a.service"), 3, True),
    ],
)
def test_grouping_follows_subjects_places_and_causes(cause, effect, gap, same):
    one = find(1, 100, "one", cause[1], cause[0])
    other = find(2, 100 + gap, "two", effect[1], effect[0])
    assert tied(one, other) == same


def test_counts_are_a_difference_when_they_double_and_not_before():
    def counted(failures):
        return Evidence(
            id="e", kind="event", ref="", start=1, end=1, text="t", values={"failures_count": failures}
        )

    assert doublings([counted(5), counted(11)]) > doublings([counted(5)])
    assert doublings([counted(24)]) == doublings([counted(20)])
    assert doublings([]) == 0


def test_advice_is_asked_again_when_counts_have_doubled():
    def attacked(failures):
        piece = Evidence(
            id="e", kind="event", ref="", start=1, end=1, text="t", values={"failures_count": failures}
        )
        return structs.replace(opened(situation(find(1, 10, "a", "mount:/v"))), evidence=[piece])

    assert basis(attacked(5.0)) == basis(attacked(6.0))
    assert basis(attacked(5.0)) != basis(attacked(10.0))
