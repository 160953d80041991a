"""The low tier's log path: what lines mean, who may say it, and what is unusual about their number."""

import random
import time
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.messages import Line, Stamp, Subject
from daemon.settings import Low
from daemon.tiers.gates import KNOWN_PER_SECOND, WEAK_PER_SECOND
from daemon.tiers.lines import KNOWN_MAX, KNOWN_THRIFTY, NOVEL_PER_MINUTE, LineJudge
from daemon.tiers.paces import duration
from daemon.tiers.symptoms import ENDING_S
from models.known import load
from models.taxonomy import FaultClass, Severity, SubjectKind

LEARN_S = 120.0
OOM = "Out of memory: Killed process 815 (worker) total-vm:9kB, anon-rss:8kB, file-rss:0kB"


class Host:
    """A judge with a clock: lines are spoken at the present time."""

    def __init__(self, **low):
        self.judge = LineJudge(Low(learn_s=LEARN_S, **low))
        self.t = 1e9
        self.boot = "b1"

    def at(self):
        return Stamp(self.boot, self.t - 9e8, self.t)

    def hear(self, text, **fields):
        fields = {
            "source": "journal",
            "unit": "app.service",
            "identifier": "app",
            "pid": 42,
            "uid": 990,
        } | fields
        return self.judge.judge(Line(at=self.at(), text=text, **fields), self.t)

    def kernel(self, text, **fields):
        return self.hear(text, unit="", identifier="kernel", pid=0, uid=-1, **fields)

    def manager(self, unit, text, **fields):
        return self.hear(
            text, unit="init.scope", identifier="systemd", pid=1, uid=0, subject_unit=unit, **fields
        )

    def sshd(self, text, pid=7, **fields):
        return self.hear(text, unit="ssh.service", identifier="sshd", pid=pid, uid=0, **fields)

    def wait(self, seconds):
        findings = []
        for _ in range(int(seconds)):
            self.t += 1.0
            findings += self.judge.tick(self.t, self.at())
        return findings

    def learn(self):
        self.hear("nothing to report")
        self.wait(LEARN_S + 1)
        return self


@pytest.fixture
def host():
    return Host()


def rules(findings):
    return [finding.rule for finding in findings]


# --- known messages, and who may say them -------------------------------------------------------------


EXITED = "app.service: Main process exited, code=exited, status=1/FAILURE"


def test_unit_that_ends_of_what_no_catalogue_knows_failed_for_that_reason(host):
    host.hear("the settings file holds an unknown key 'colour' in section main")
    (failed,) = [one for one in host.manager("app.service", EXITED) if one.rule == "known.unit-exited"]
    assert max(failed.hints, key=failed.hints.__getitem__) is FaultClass.CONFIG_ERROR


@pytest.mark.parametrize("text", ["KeyError: 'settings'", "the settings file was read, 3 keys"])
def test_mistake_in_the_program_or_a_calm_line_is_no_other_reason(host, text):
    host.hear(text)
    (failed,) = [one for one in host.manager("app.service", EXITED) if one.rule == "known.unit-exited"]
    assert max(failed.hints, key=failed.hints.__getitem__) is FaultClass.SERVICE_CRASH


def test_grave_words_of_the_kernel_that_no_catalogue_knows_are_told_at_once(host):
    text = "ahci 0000:00:1f.2: controller is dead after reset"
    assert [one for one in host.kernel(text, priority=6) if one.rule == "unit.complaint"] == []
    logged = host.kernel("[error] mod_jk child init 1 -2", priority=3)  # a program's, in a file without names
    assert [one for one in logged if one.rule == "unit.complaint"] == []
    (told,) = [one for one in Host().kernel(text, priority=3) if one.rule == "unit.complaint"]
    assert max(told.hints, key=told.hints.__getitem__) is FaultClass.HARDWARE_ERROR


@pytest.mark.parametrize(
    "head",
    [
        "Traceback (most recent call last): " + "File app.py in main, line of many; " * 20,
        '{"level":"error","steps":[' + '"a","b",' * 24 + '"c"],"error":"',
        "could not go on: " + "x" * 600 + " ",
    ],
)
def test_line_that_begins_as_another_did_is_known_by_its_end(host, head):
    full, other = head + "OSError: [Errno 28] No space left on device", head + "ValueError: none"
    for _ in range(3):
        assert "known.no-space" not in rules(host.hear(other))
    assert "known.no-space" in rules(host.hear(full))
    host.wait(300)
    assert "known.no-space" not in rules(host.hear(other))
    assert "known.no-space" in rules(host.hear(full))


def test_a_failed_unit_is_told_with_its_last_words(host):
    host.learn()
    for n in range(5):
        host.hear(f"cannot open /srv/app/keys: attempt {n}")
    host.hear("another unit's line", unit="other.service")
    failed, *words = host.manager("app.service", EXITED)
    assert failed.rule == "known.unit-exited"
    assert [one.evidence[0].text for one in words] == [
        f"cannot open /srv/app/keys: attempt {n}" for n in (2, 3, 4)
    ]
    assert {one.rule for one in words} == {"unit.last-words"}
    assert all(max(one.hints.values()) <= 0.3 for one in words)
    assert words[-1].evidence[0].speaks_for == {FaultClass.SERVICE_CRASH: 0.6}  # so the advice may quote it


def test_last_words_that_the_journal_delivers_late_are_told_too(host):
    host.learn()
    host.hear("working")
    host.wait(20)
    assert [one.rule for one in host.manager("app.service", EXITED)] == ["known.unit-exited"]
    host.t += 0.2
    (word,) = [one for one in host.hear("bye for now") if one.rule == "unit.last-words"]
    assert word.evidence[0].speaks_for == {}
    host.wait(5)
    assert "unit.last-words" not in rules(host.hear("started again"))


def test_who_only_claims_to_be_the_manager_makes_no_last_words(host):
    host.learn()
    host.hear("working")
    assert "unit.last-words" not in rules(host.hear(EXITED))


def test_oom_kill_of_the_kernel_is_found_at_once(host):
    (finding,) = host.kernel(OOM, priority=3)
    assert finding.rule == "known.oom-kill"
    assert finding.severity is Severity.ERROR
    assert finding.hints == {FaultClass.MEMORY_EXHAUSTION: 0.9}
    assert (finding.subjects[0].kind, finding.subjects[0].name) == (SubjectKind.PROCESS, "worker[815]")
    assert finding.evidence[0].text == OOM
    assert finding.template


@pytest.mark.parametrize(
    "fields",
    [
        {"identifier": "kernel", "unit": "session-1.scope", "uid": 1000},
        {"identifier": "kernel", "unit": "", "pid": 42, "uid": 1000},
        {"identifier": "kernel", "unit": "", "pid": 0, "uid": -1, "trusted": False},
        {"identifier": "kernel", "source": "file:/var/log/kern.log", "unit": "", "pid": 0, "trusted": False},
        {"identifier": "logger", "unit": "session-1.scope", "uid": 1000},
    ],
)
def test_forged_kernel_message_opens_nothing(host, fields):
    findings = host.hear("I/O error, dev sda, sector 8 op 0x0:(READ)", **fields) + host.hear(OOM, **fields)
    assert all(max(finding.hints.values(), default=0.0) <= 0.3 for finding in findings)
    assert not [finding for finding in findings if finding.rule == "known.oom-kill"]


def test_unit_failure_counts_only_from_pid_1(host):
    text = "worker.service: Failed with result 'exit-code'."
    assert host.hear(text, identifier="systemd", uid=0) == []
    (finding,) = host.manager("worker.service", text)
    assert finding.rule == "known.unit-failed"
    assert finding.subjects[0].name == "worker.service"


def test_unit_that_the_text_does_not_name_comes_from_the_trusted_field(host):
    (finding,) = host.manager("worker.service", "Failed to start The worker.")
    assert (finding.subjects[0].kind, finding.subjects[0].name) == (SubjectKind.UNIT, "worker.service")


@pytest.mark.parametrize("child", ["(app)", "systemd-executor"])
def test_program_that_cannot_be_started_is_a_configuration_error_of_its_unit_only(host, child):
    text = "app.service: Failed at step EXEC spawning /usr/local/bin/app: No such file or directory"
    [finding] = host.hear(text, identifier=child, uid=0, priority=3)
    assert (finding.rule, finding.subjects[0].name) == ("known.unit-exec", "app.service")
    assert max(finding.hints, key=finding.hints.get) is FaultClass.CONFIG_ERROR
    assert not host.hear(text.replace("app.service", "other.service"), identifier=child, uid=0)


def test_failed_dependency_is_tied_to_what_failed_just_before(host):
    host.manager("base.service", "base.service: Failed with result 'exit-code'.")
    host.manager("base.service", "Failed to start base.service - The base.")
    [tied] = host.manager("top.service", "Dependency failed for top.service - The top.")
    assert [one.name for one in tied.subjects] == ["top.service", "base.service"]
    host.wait(5)
    [alone] = host.manager("late.service", "Dependency failed for late.service - Too late.")
    assert [one.name for one in alone.subjects] == ["late.service"]


def test_missing_device_fails_what_depends_on_it_and_hangs_nowhere(host):
    device = "dev-disk-by\\x2dlabel-DATA.device"
    assert not host.manager(device, f"{device}: Job {device}/start timed out.")
    [found] = host.manager(device, f"Timed out waiting for device {device} - /dev/disk/by-label/DATA.")
    assert (found.rule, found.subjects[0].name) == ("known.device-timeout", "/dev/disk/by-label/DATA")
    [tied] = host.manager("srv.mount", "Dependency failed for srv.mount - /srv.")
    assert [one.name for one in tied.subjects] == ["srv.mount", "/dev/disk/by-label/DATA"]


def test_fault_of_a_program_is_tied_to_the_unit_that_it_ended(host):
    host.kernel("python3[597]: segfault at 0 ip 00007f1c sp 00007ffd error 4 in libc.so.6")
    host.t += 0.1
    [tied] = host.manager("app.service", "app.service: Failed with result 'core-dump'.")
    assert [one.name for one in tied.subjects] == ["app.service", "python3[597]"]
    [other] = host.manager("b.service", "b.service: Failed with result 'signal'.")
    assert [one.name for one in other.subjects] == ["b.service"]


def test_slice_that_repeats_the_kills_of_its_units_is_no_news(host):
    text = "{}: A process of this unit has been killed by the OOM killer."
    assert rules(host.manager("w.service", text.format("w.service"))) == ["known.unit-oom"]
    assert not host.manager("system.slice", text.format("system.slice"))


def test_exit_code_of_a_unit_that_was_told_to_stop_is_no_crash(host):
    exited = "app.service: Main process exited, code=exited, status=143/n/a"
    failed = "app.service: Failed with result 'exit-code'."
    host.manager("app.service", "Stopping app.service - The app...")
    assert not host.manager("app.service", exited) + host.manager("app.service", failed)
    host.manager("app.service", "Stopped app.service - The app.")
    host.manager("app.service", "Started app.service - The app.")
    host.wait(5)
    assert rules(host.manager("app.service", exited) + host.manager("app.service", failed)) == [
        "known.unit-exited",
        "known.unit-failed",
    ]


def test_crash_of_a_unit_that_was_told_to_stop_is_a_crash(host):
    host.manager("app.service", "Stopping app.service - The app...")
    text = "app.service: Main process exited, code=dumped, status=11/SEGV"
    assert rules(host.manager("app.service", text)) == ["known.unit-exited"]


def test_service_accuses_only_itself(host):
    (finding,) = host.hear("cannot write queue: No space left on device", priority=3)
    assert [(one.kind, one.name) for one in finding.subjects] == [(SubjectKind.UNIT, "app.service")]


def test_killed_process_is_tied_to_the_unit_named_a_line_earlier(host):
    host.kernel("oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/system.slice/w.service,task=w,pid=9,uid=0")
    (finding,) = host.kernel("Memory cgroup out of memory: Killed process 9 (w) total-vm:9kB, anon-rss:8kB")
    assert [one.name for one in finding.subjects] == ["w[9]", "w.service"]


def test_repeated_message_is_one_condition_that_ends(host):
    text = "I/O error, dev sda, sector {} op 0x0:(READ) flags 0x0"
    first = host.kernel(text.format(8))
    more = [finding for number in range(50) for finding in host.kernel(text.format(number))]
    assert rules(first) == ["known.block-io-error"]
    assert more == []
    host.t += 31.0
    (again,) = host.kernel(text.format(99))
    assert again.evidence[0].values["errors_count"] == 52.0
    ended = [finding for finding in host.wait(120) if finding.ended]
    assert rules(ended) == ["known.block-io-error"]


def test_link_that_comes_up_ends_what_its_going_down_began(host):
    (down,) = host.kernel("r8169 0000:02:00.0 enp2s0: Link is Down")
    host.t += 300.0
    assert host.judge.tick(host.t, host.at()) == []
    (up,) = host.kernel("r8169 0000:02:00.0 enp2s0: Link is Up - 1Gbps/Full - flow control off")
    assert (up.rule, up.ended, up.subjects[0]) == (down.rule, True, down.subjects[0])


def test_known_message_is_recognised_in_every_line_of_its_template(host):
    """The first line of a form decides which entries are tried, never what a later line means."""
    host.manager("a.service", "a.service: Failed with result 'success-of-sorts'.")
    (finding,) = host.manager("b.service", "b.service: Failed with result 'watchdog'.")
    assert finding.hints == {FaultClass.SERVICE_HUNG: 0.85}


def test_meaning_survives_the_merge_of_templates(host):
    for name in ("anna", "bernd", "clara", "dora", "emil", "frida"):
        host.hear(f"mail of {name} was delivered to the box of the house")
    found = [
        host.hear(f"queue {name} stopped for good: No space left on device", unit=f"{name}.service")
        for name in ("red", "blue", "green", "white", "black", "red2")
    ]
    assert all(rules(findings) == ["known.no-space"] for findings in found)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("dd: error writing '/dev/loop126': No space left on device", False),
        ("dd: error writing '/srv/dev/sda.img': No space left on device", True),
        ("cp: error writing '/dev/shm/x': No space left on device", True),
    ],
)
def test_the_end_of_a_device_that_is_wiped_is_no_full_disk(host, text, full):
    found = host.hear(text, unit="wipe.service", identifier="dd")
    assert ("known.no-space" in rules(found)) == full


def test_own_lines_raise_nothing(host):
    assert host.hear("worker: No space left on device", unit="hauswart-low.service") == []
    host.judge.own(frozenset({42}))
    assert host.hear("worker: No space left on device", pid=42) == []
    assert host.judge.counters["own"] == 2


def test_small_step_of_the_clock_is_no_news(host):
    text = "System clock was stepped by {} seconds"
    assert host.hear(text.format("0.182"), identifier="chronyd", unit="chronyd.service") == []
    (finding,) = host.hear(text.format("-42.5"), identifier="chronyd", unit="chronyd.service")
    assert finding.evidence[0].values["jump_s"] == -42.5


# --- crashes and logins ------------------------------------------------------------------------------


def test_third_crash_within_ten_minutes_is_a_loop(host):
    text = "worker[{}]: segfault at 10 ip 000055d0 sp 00007ffe error 4 in worker[55d0]"
    found = []
    for pid in (11, 12, 13):
        found.append(rules(host.kernel(text.format(pid))))
        host.t += 100.0
    assert found[0] == ["known.segfault"]
    assert "known.crash-loop" in found[2]
    assert "known.crash-loop" not in found[1]


CHECK_FAILED = "check.service: Failed with result 'exit-code'."


def test_check_that_gets_no_answer_in_time_tells_of_what_hangs_and_is_no_loop(host):
    found = []
    for _ in range(5):
        found += host.hear("curl: (28) Operation timed out after 1001 milliseconds", unit="check.service")
        found += host.manager("check.service", CHECK_FAILED)
        host.t += 3.0
    assert "known.crash-loop" not in rules(found)
    failed = next(one for one in found if one.rule == "known.unit-failed")
    assert max(failed.hints, key=failed.hints.__getitem__) is FaultClass.SERVICE_HUNG


def test_another_unit_that_fails_beside_it_has_crashed_and_so_has_one_that_waited_long_ago(host):
    host.hear("curl: (28) Operation timed out after 1001 milliseconds", unit="other.service")
    beside = host.manager("check.service", CHECK_FAILED)
    host.t += 30.0
    later = host.manager("other.service", "other.service: Failed with result 'exit-code'.")
    for failed in (beside[0], later[0]):
        assert max(failed.hints, key=failed.hints.__getitem__) is FaultClass.SERVICE_CRASH


def test_what_ends_while_the_host_goes_down_is_no_fault_and_in_the_next_boot_it_is(host):
    networkd = {"unit": "systemd-networkd.service", "identifier": "systemd-networkd"}
    lost = partial(host.hear, "eth0: Lost carrier", **networkd)
    logind = {"unit": "systemd-logind.service", "identifier": "systemd-logind"}
    host.hear("System is rebooting.", uid=1000, **logind | {"unit": "session-1.scope"})  # anybody's words
    assert "known.network-carrier" in rules(lost())
    host.t += 100.0
    host.wait(61)
    host.hear("System is rebooting.", uid=0, **logind)
    assert rules(lost()) == []
    assert rules(host.manager("app.service", "app.service: Failed with result 'exit-code'.")) == []
    fault = "app[9]: segfault at 10 ip 000055d0 sp 00007ffe error 4 in app"
    assert "known.segfault" in rules(host.kernel(fault))
    host.boot = "b2"
    host.t += 60.0
    assert "known.network-carrier" in rules(lost())


def test_reboot_that_was_called_off_hides_nothing_for_long(host):
    lost = partial(
        host.hear, "eth0: Lost carrier", unit="systemd-networkd.service", identifier="systemd-networkd"
    )
    host.hear("System is rebooting.", unit="systemd-logind.service", identifier="systemd-logind", uid=0)
    assert rules(lost()) == []
    host.t += ENDING_S + 1.0
    assert "known.network-carrier" in rules(lost())


@pytest.mark.parametrize("journal", [True, False])
def test_file_says_that_the_host_goes_down_only_where_no_journal_would(host, journal):
    fields = {"source": "file:/var/log/syslog", "unit": "", "pid": 0, "uid": -1, "trusted": False}
    if journal:
        host.hear("nothing to report")
    host.hear("System is rebooting.", identifier="systemd-logind", **fields)  # logger -t systemd-logind
    lost = host.hear("eth0: Lost carrier", identifier="systemd-networkd", **fields)
    assert ("known.network-carrier" in rules(lost)) is journal


def test_crashes_far_apart_are_no_loop(host):
    for pid in range(6):
        findings = host.kernel(f"worker[{pid + 10}]: segfault at 10 ip 000055d0 sp 00007ffe error 4")
        assert "known.crash-loop" not in rules(findings)
        host.t += 400.0


def test_unit_that_is_started_without_end_is_told_of_though_it_never_fails(host):
    found, often = [], []
    for _ in range(25):
        found += host.manager("inbox.service", "Finished inbox.service - Takes what has come in.")
        host.t += 0.2
        often += host.manager("poll.service", "Finished poll.service - Looks every second.")
        host.t += 0.8
    assert "unit.starts" not in rules(often)
    for _ in range(25):
        found += host.manager("inbox.service", "Finished inbox.service - Takes what has come in.")
        host.t += 0.3
    (starts,) = [finding for finding in found if finding.rule == "unit.starts"]
    assert starts.subjects[0].name == "inbox.service"
    assert max(starts.hints, key=starts.hints.__getitem__) is FaultClass.PROCESS_STORM


RESTARTED = "w.service: Scheduled restart job, restart counter is at {}."


@pytest.mark.parametrize(
    ("lives_s", "ends", "loops"),
    [
        (7.0, "w.service: Deactivated successfully.", False),  # its work is done, and there is more
        (2.5, "w.service: Deactivated successfully.", False),
        (0.3, "w.service: Deactivated successfully.", True),
        (7.0, "w.service: Failed with result 'timeout'.", True),
    ],
)
def test_unit_that_ends_well_and_is_restarted_is_in_a_loop_only_if_it_hardly_lives(
    host, lives_s, ends, loops
):
    found = []
    for number in range(1, 6):
        host.t += lives_s
        host.manager("w.service", ends)
        found += host.manager("w.service", RESTARTED.format(number))
    assert ("known.crash-loop" in rules(found)) is loops


def test_loop_of_a_unit_that_lacks_its_peer_is_laid_to_the_peer(host):
    found = []
    for _ in range(4):
        host.hear("ssh: connect to host vault port 22: Connection refused")
        found += host.manager("app.service", "app.service: Failed with result 'exit-code'.")
        host.t += 10.0
    (loop,) = [one for one in found if one.rule == "known.crash-loop"]
    assert max(loop.hints, key=loop.hints.__getitem__) is FaultClass.DEPENDENCY_FAILED


def test_restarts_of_a_unit_are_a_loop_with_its_number(host):
    found = []
    for number in range(1, 6):
        found += host.manager("w.service", RESTARTED.format(number))
        host.t += 2.0
    (loop,) = [finding for finding in found if finding.rule == "known.crash-loop"]
    assert loop.evidence[0].values["restarts_count"] == 3.0
    assert loop.hints[FaultClass.CRASH_LOOP] > 0.9


def test_few_failed_logins_are_nothing(host):
    for pid in range(4):
        assert (
            host.sshd(f"Failed password for alice from 192.0.2.7 port {4000 + pid} ssh2", pid=pid + 1) == []
        )


def guess(host, times, address="192.0.2.7", *, pid=1, every=0.05, **fields):
    found = []
    for number in range(times):
        text = f"Failed password for root from {address} port {4000 + number} ssh2"
        found += host.sshd(text, pid=pid + number, **fields)
        host.t += every
    return found


def test_many_failed_logins_from_one_address_are_an_attack(host):
    (finding,) = guess(host, 9)
    assert finding.rule == "known.auth-bruteforce"
    assert finding.severity is Severity.WARNING
    assert finding.evidence[0].values == {"failures_count": 5.0, "window_s": 1.0, "users_count": 1.0}
    assert [(one.kind, one.name) for one in finding.subjects] == [(SubjectKind.ADDRESS, "192.0.2.7")]


def test_an_attack_is_told_again_when_doubled_and_with_its_total_when_quiet(host):
    host.learn()
    began = host.t
    found = guess(host, 24)
    assert [one.evidence[0].values["failures_count"] for one in found] == [5.0, 10.0, 20.0]
    (total,) = host.wait(30)
    values = total.evidence[0].values
    assert values["failures_count"] == 24.0
    assert values["duration_s"] == pytest.approx(23 * 0.05)
    assert (total.evidence[0].start, total.ended) == (began, False)
    assert [one.name for one in total.subjects] == ["192.0.2.7", "root"]
    (ended,) = host.wait(60)
    assert ended.ended
    assert len({one.id for one in (*found, total, ended)}) == 5


def test_an_attack_from_a_file_says_which_file(host):
    found = guess(host, 5, source="file:/var/log/auth.log", trusted=False)
    assert found[0].evidence[0].ref == "file:/var/log/auth.log"
    found = guess(host, 5, address="192.0.2.8", cursor="s=1;i=2")
    assert found[0].evidence[0].ref == "s=1;i=2"


def test_guesses_at_a_web_server_come_from_the_client_that_its_own_log_names(host):
    text = '2026/11/27 16:00:20 [error] 1#1: *11 user "admin": password mismatch, client: 192.0.2.7, server: '
    fields = {"source": "file:/srv/error.log", "trusted": False, "unit": "", "identifier": "", "pid": 0}
    found = [one for _ in range(5) for one in host.hear(text, **fields)]
    assert found[0].subjects[0] == Subject(SubjectKind.ADDRESS, "192.0.2.7")
    assert found[0].hints[FaultClass.AUTH_BRUTEFORCE] > 0.5


@pytest.mark.parametrize(("identifier", "believed"), [("", True), ("nginx", False), ("-", False)])
def test_a_programs_own_file_is_believed_and_a_line_that_anybody_may_log_is_not(host, identifier, believed):
    fields = {"source": "file:/srv/error.log", "trusted": False, "unit": "", "pid": 0}
    (finding,) = host.hear("accept4() failed (24: Too many open files)", identifier=identifier, **fields)
    assert (max(finding.hints.values()) > 0.3) is believed
    if identifier != "nginx":
        assert finding.subjects[0] == Subject(SubjectKind.FILE, "/srv/error.log")


def test_sudo_pads_short_names(host):
    text = (
        "     bob : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/id"
    )
    findings = host.hear(text, unit="session-1.scope", identifier="sudo", uid=0)
    assert rules(findings) == ["known.sudo-wrong-password", "known.privilege-misuse"]
    assert {one.subjects[0] for one in findings} == {Subject(SubjectKind.USER, "bob")}


@pytest.mark.parametrize(
    ("unit", "resolves"),
    [
        ("dnsmasq.service", True),
        ("systemd-resolved.service", True),
        ("unbound.service", True),
        ("bind9.service", True),
        ("web.service", False),
        ("bindings.service", False),
    ],
)
def test_name_server_that_fails_speaks_for_names_that_will_not_resolve(host, unit, resolves):
    (finding,) = host.manager(unit, f"{unit}: Failed with result 'signal'.")
    assert max(finding.hints, key=finding.hints.get) is FaultClass.SERVICE_CRASH
    assert (FaultClass.NAME_RESOLUTION in finding.hints) is resolves


REFUSED = "connect() failed (111: Connection refused) while connecting to upstream"


def refused(host, seconds, text=REFUSED, **fields):
    """The surest finding about refusals that come twice a second for so long."""
    sure = 0.0
    for _ in range(2 * seconds):
        found = host.hear(text, unit="web.service", identifier="nginx", **fields)
        sure = max([sure, *(one.score for one in found if max(one.hints.values()) > 0.3)])
        host.t += 0.5
    return sure


def test_refusals_are_a_fault_only_when_they_go_on_for_seconds(host):
    assert 0.0 < refused(host, 2) < 0.5
    host.wait(20)
    assert refused(host, 2) < 0.5
    assert refused(host, 3) >= 0.6


def test_server_that_strangers_reach_runs_no_build_that_would_excuse_it(host):
    host.hear("BUILD FAILED", unit="web.service", identifier="nginx")
    assert refused(host, 9) >= 0.6
    other = Host()
    other.hear("BUILD FAILED", unit="web.service", identifier="gradle")
    assert refused(other, 9) < 0.5


def test_refusals_far_apart_never_add_up(host):
    for _ in range(20):
        assert refused(host, 1) < 0.5
        host.wait(15)


def test_while_a_service_is_restarted_on_purpose_its_clients_are_refused(host):
    for text in ("Stopping app.service...", "Stopped app.service.", "Started app.service."):
        host.manager("app.service", text)
    assert refused(host, 9) < 0.5
    assert refused(host, 9) >= 0.6


@pytest.mark.parametrize(
    "said",
    [
        ("app.service: Failed with result 'signal'.",),
        ("Stopping app.service...", "Stopped app.service."),
    ],
)
def test_who_is_not_reached_any_more_is_named_if_the_manager_says_that_it_went(host, said):
    for text in said:
        host.manager("app.service", text)
    found = []
    for _ in range(8):
        found += host.hear(REFUSED, unit="web.service", identifier="nginx")
        host.t += 1.0
    sure = next(one for one in found if one.score >= 0.6 and one.rule == "known.upstream-unreachable")
    assert [(one.name, one.score) for one in sure.subjects] == [("web.service", 1.0), ("app.service", 0.5)]


def test_refusals_of_a_users_own_program_or_by_mail_servers_of_others_stay_weak(host):
    assert refused(host, 9, uid=1000, source="journal") >= 0.6  # a service, whoever it runs as
    found = [host.hear(REFUSED, unit="session-3.scope", uid=1000) for _ in range(9)]
    assert max(one.score for batch in found for one in batch) < 0.5
    assert refused(Host(), 9, "connect to mx.example[192.0.2.7]:25: Connection refused") == 0.0
    deferred = "0815ABCDEF: to=<x@example>, status=deferred (connect to mx.example: Connection refused)"
    assert refused(Host(), 9, deferred) == 0.0


def denied(host, text, identifier="su", uid=1001):
    found = host.hear(text, unit="session-3.scope", identifier=identifier, uid=uid)
    return [one for one in found if one.rule == "known.privilege-misuse"]


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("su", "FAILED SU (to root) bob on pts/0"),
        ("sudo", "bob : 1 incorrect password attempt ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/id"),
        ("doas", "failed auth for bob"),
        ("pkexec", "bob: Error executing command as another user: Not authorized [USER=root]"),
        ("crontab", "(bob) AUTH (crontab command not allowed)"),
        ("postgres", '2026-02-01 10:00:00 UTC [7] bob@shop ERROR:  must be superuser to read "pg_authid"'),
    ],
)
def test_third_denial_of_a_person_within_ten_minutes_is_no_slip(host, identifier, text):
    for _ in range(2):
        assert denied(host, text, identifier) == []
        host.wait(20)
    (finding,) = denied(host, text, identifier)
    assert finding.subjects[0] == Subject(SubjectKind.USER, "bob")
    assert finding.hints[FaultClass.PRIVILEGE_MISUSE] > 0.5
    assert denied(Host(), text.replace("bob", "root"), identifier) == []


def test_denials_that_are_far_apart_are_slips(host):
    for _ in range(6):
        assert denied(host, "FAILED SU (to root) bob on pts/0") == []
        host.wait(310)


def test_service_account_that_asks_for_rights_is_told_of_at_once(host):
    assert denied(host, "FAILED SU (to root) tomcat9 on none", uid=989)
    asks = "www-data : a password is required ; PWD=/var/www ; USER=root ; COMMAND=list"
    assert denied(host, asks, "sudo", uid=0)
    assert denied(host, asks.replace("www-data", "bob"), "sudo", uid=0) == []


def test_who_tells_of_a_denial_as_a_service_is_not_who_asked(host):
    said = "Operator of unix-session:3 FAILED to authenticate to gain authorization for action org.example.do"
    slip = f"{said} for system-bus-name::1.92 [gnome-software] (owned by unix-user:alice)"
    assert denied(host, slip, "polkitd", uid=998) == []


def crash(host, pid):
    """What a kernel, an audit log and whoever keeps the dump say of one crash."""
    found = host.kernel(f"foo[{pid}]: segfault at 0 ip 0000555 sp 00007ff error 4 in foo[555+1000]")
    host.t += 0.3
    dump = f"Process {pid} (foo) of user 1000 dumped core."
    unit = f"systemd-coredump@1-{pid}-0.service"
    return found + host.hear(dump, unit=unit, identifier="systemd-coredump", pid=9, uid=0)


def test_one_crash_that_several_tell_of_is_no_loop_and_three_are(host):
    for pid in (4711, 4712):
        found = crash(host, pid)
        assert "known.crash-loop" not in rules(found)
        assert all("coredump" not in one.subjects[0].name for one in found)
        host.wait(20)
    assert "known.crash-loop" in rules(crash(host, 4713))


def test_dump_is_of_the_unit_whose_program_it_was(host):
    dump = {"unit": "systemd-coredump@1-5-0.service", "identifier": "systemd-coredump", "uid": 0}
    said = "Process 4711 (foo) of user 990 dumped core."
    (finding,) = host.hear(said, **dump, fields={"COREDUMP_UNIT": "shop.service"})
    assert {one.name for one in finding.subjects} == {"foo[4711]", "shop.service"}
    (alone,) = Host().hear(said, **dump)
    assert [one.name for one in alone.subjects] == ["foo[4711]"]


def test_flood_of_what_is_new_hides_no_fault():
    host = Host()
    host.learn()
    words = "abcdefghijklmnopqrstuvwxyz"
    for number in range(6000):
        host.t += 1 / 60
        text = " ".join(words[(number * k) % 26] * 4 for k in range(1, 7)) + f" {words[number % 26]}{number}x"
        host.hear(text, unit="user@1000.service", identifier=f"t{number}", uid=1000, priority=3)
    (finding,) = [
        one
        for one in host.kernel("Out of memory: Killed process 4711 (mysqld) total-vm:9kB, anon-rss:9kB")
        if one.rule.startswith("known.")
    ]
    assert finding.hints[FaultClass.MEMORY_EXHAUSTION] > 0.5


def test_second_account_with_the_number_of_root_is_misuse(host):
    text = "new user: name=mallory, UID={}, GID=0, home=/root, shell=/bin/bash, from=/dev/pts/0"
    (finding,) = host.hear(text.format(0), identifier="useradd", unit="session-3.scope", uid=0)
    assert finding.hints[FaultClass.PRIVILEGE_MISUSE] > 0.5
    (usual,) = host.hear(text.format(1007), identifier="useradd", unit="session-3.scope", uid=0)
    assert max(usual.hints.values()) <= 0.3


def test_an_exit_that_the_unit_allows_is_no_failure(host):
    exited = "app.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED"
    (finding,) = host.manager("app.service", exited)
    assert max(finding.hints.values()) <= 0.3
    failed = host.manager("app.service", "app.service: Failed with result 'exit-code'.")
    assert failed[0].hints == {FaultClass.SERVICE_CRASH: 0.75}


def test_a_new_kernel_line_about_a_file_system_names_its_device(host):
    host.learn()
    host.kernel("some line of the kernel")
    host.wait(LEARN_S + 1)
    (finding,) = host.kernel("EXT4-fs (sdb1): This should not happen!! Data will be lost", priority=2)
    assert finding.subjects[0] == Subject(SubjectKind.DEVICE, "sdb1")


def test_attempts_of_one_read_are_distinct_findings(host):
    found = guess(host, 12, every=0.0)
    assert len(found) == len({one.id for one in found}) == 2


def test_pam_of_old_and_of_today_and_host_names_count(host):
    old = "authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost={}  user=root"
    found = []
    for number in range(5):
        found += host.hear(
            old.format("host-7.example.net"),
            source="file:/var/log/messages",
            trusted=False,
            identifier="sshd(pam_unix)",
            pid=number + 1,
        )
    assert [(one.kind, one.name) for one in found[0].subjects] == [
        (SubjectKind.ADDRESS, "host-7.example.net")
    ]
    found = []
    for number in range(5):
        found += host.sshd(f"pam_unix(sshd:auth): {old.format('192.0.2.9')}", pid=100 + number)
    assert found[0].subjects[0].name == "192.0.2.9"


def test_host_name_from_pam_and_address_from_sshd_are_one(host):
    found = []
    for number in range(5):
        found += host.sshd(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= "
            "rhost=h7.example.net  user=root",
            pid=number + 1,
        )
        found += host.sshd(f"Failed password for root from 192.0.2.7 port {number} ssh2", pid=number + 1)
    (finding,) = found
    assert finding.subjects[0].name == "192.0.2.7"
    assert finding.evidence[0].values["failures_count"] == 5.0


def test_repeated_lines_and_sums_of_pam_count_as_often_as_they_say(host):
    found = host.sshd("Failed password for root from 192.0.2.7 port 9 ssh2", pid=3)
    found += host.sshd(
        "message repeated 5 times: [ Failed password for root from 192.0.2.7 port 9 ssh2]", pid=3
    )
    found += host.sshd(
        "PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
        pid=3,
    )
    (finding,) = found
    assert finding.evidence[0].values["failures_count"] == 6.0


def test_who_only_connects_has_not_tried_to_log_in(host):
    for number in range(30):
        text = f"Connection closed by 192.0.2.7 port {4000 + number} [preauth]"
        assert host.sshd(text, pid=number + 1) == []


def test_one_attempt_counts_once_however_much_is_said_about_it(host):
    found = []
    for pid in range(4):
        found += host.sshd(f"Invalid user bob from 192.0.2.7 port {4000 + pid}", pid=pid + 1)
        found += host.sshd(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= "
            "rhost=192.0.2.7",
            pid=pid + 1,
        )
        found += host.sshd(
            f"Failed password for invalid user bob from 192.0.2.7 port {4000 + pid} ssh2", pid=pid + 1
        )
        found += host.sshd(
            f"Connection closed by invalid user bob 192.0.2.7 port {4000 + pid} [preauth]", pid=pid + 1
        )
    assert found == []


PAM = "authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.{0}"


def directory_down(host, number, verdict):
    """A login by way of two PAM modules, of which the second asks a directory."""
    said = [
        f"pam_unix(sshd:auth): {PAM}  user=ann",
        f"pam_sss(sshd:auth): {PAM} user=ann",
        f"pam_sss(sshd:auth): received for user ann: {verdict}",
    ]
    found = [one for text in said for one in host.sshd(text.format(number), pid=number)]
    found += host.wait(2)
    return found + host.sshd(f"Failed password for ann from 192.0.2.{number} port 4000 ssh2", pid=number)


def test_password_that_nobody_could_check_was_no_guess(host):
    down = [one for n in range(1, 30) for one in directory_down(host, n, "4 (System error)")]
    assert "known.auth-bruteforce" not in rules(down)
    wrong = [one for n in range(30, 60) for one in directory_down(host, n, "7 (Authentication failure)")]
    assert "known.auth-bruteforce" in rules(wrong)


@pytest.mark.parametrize(
    "tried", ["x: 4 (System error)", "pam_sss(sshd:auth): received for user x: 4 (System error)"]
)
def test_name_that_looks_like_a_directory_that_is_down_hides_no_guess(host, tried):
    found = []
    for pid in range(1, 9):
        found += host.sshd(f"pam_sss(sshd:auth): {PAM} user={tried}".format(7), pid=pid)
        found += host.sshd(f"Failed password for invalid user {tried} from 192.0.2.7 port 4000 ssh2", pid=pid)
    assert "known.auth-bruteforce" in rules(found)


def test_key_that_nobody_could_look_up_was_no_guess_but_passwords_after_it_are(host):
    def login(number, last):
        found = host.sshd(f"AuthorizedKeysCommand /etc/ssh/fetch-keys ann {last}", pid=number)
        text = f"Connection closed by authenticating user ann 192.0.2.7 port {number} [preauth]"
        return found + host.sshd(text, pid=number) + host.wait(2)

    down = [one for n in range(1, 30) for one in login(n, "failed, status 7")]
    assert "known.auth-bruteforce" not in rules(down)
    assert "known.auth-bruteforce" in rules([one for n in range(30, 60) for one in login(n, "is slow today")])
    again = type(host)()
    found = []
    for pid in range(100, 110):
        found += again.sshd("AuthorizedKeysCommand /etc/ssh/fetch-keys ann failed, status 1", pid=pid)
        found += again.sshd("Failed password for ann from 192.0.2.9 port 4000 ssh2", pid=pid)
    assert "known.auth-bruteforce" in rules(found)


def test_module_that_refuses_before_the_next_one_accepts_has_seen_no_guess(host):
    def login(number):
        found = host.sshd(f"pam_unix(sshd:auth): {PAM}  user=ann".format(number), pid=number)
        text = f"Accepted password for ann from 192.0.2.{number} port 4000 ssh2"
        return found + host.sshd(text, pid=number)

    assert "known.auth-bruteforce" not in rules([one for n in range(1, 60) for one in login(n)])
    assert "known.auth-bruteforce" not in rules([one for _ in range(20) for one in login(7)])
    guessed = [
        one
        for pid in range(100, 106)
        for one in host.sshd("Failed password for ann from 192.0.2.7 port 4000 ssh2", pid=pid)
    ]
    assert "then a login as ann was accepted" in [*guessed, *login(7)][-1].evidence[0].text


def test_database_that_cannot_ask_its_directory_is_not_guessed_at(host):
    found = []
    for pid in range(1, 12):
        said = {"identifier": "postgres", "unit": "db.service", "uid": 101, "pid": pid}
        found += host.hear(
            'LOG:  LDAP login failed for user "uid=icu" on server "10.0.0.1": Can\'t contact LDAP server',
            **said,
        )
        found += host.hear('FATAL:  LDAP authentication failed for user "icu"', **said)
    assert "known.auth-bruteforce" not in rules(found)


def test_an_agent_that_offers_all_its_keys_has_tried_once_and_heaps_of_keys_are_an_attack(host):
    def offer(pid, keys):
        text = f"Failed publickey for deniz from 192.0.2.7 port {4000 + pid} ssh2: ED25519 SHA256:k"
        found = [one for n in range(keys) for one in host.sshd(f"{text}{n}", pid=pid)]
        text = f"maximum authentication attempts exceeded for deniz from 192.0.2.7 port {4000 + pid} ssh2"
        return found + host.sshd(f"error: {text} [preauth]", pid=pid)

    assert "known.auth-bruteforce" not in rules(offer(1, 6) + host.wait(3) + offer(2, 6))
    more = [one for pid in range(3, 6) for one in offer(pid, 6)]
    assert "known.auth-bruteforce" in rules(more)


def test_guesses_of_a_local_user_blame_that_user_and_not_whom_he_tries(host):
    pam = "pam_unix(su:auth): authentication failure; logname= uid=1001 euid=0 tty=/dev/pts/0 "
    pam += "ruser=bob rhost=  user=root"
    findings = []
    for pid in range(5):
        fields = {"unit": "session-3.scope", "identifier": "su", "uid": 1001, "pid": 100 + pid}
        findings += host.hear(pam, **fields) + host.hear("FAILED SU (to root) bob on pts/0", **fields)
        host.wait(2)
    attack = next(one for one in findings if one.rule == "known.auth-bruteforce")
    denied = next(one for one in findings if one.rule == "known.su-failed")
    assert attack.subjects[0] == denied.subjects[0]
    assert attack.subjects[0].name == "bob"
    assert attack.evidence[0].text == "5 failed logins on this host by bob within 8 s, tried as root"
    assert denied.score < 0.5  # once is a mistyped password


def test_slow_failures_are_no_attack(host):
    for number in range(30):
        assert host.sshd(f"Failed password for root from 192.0.2.7 port {number} ssh2", pid=number + 1) == []
        host.t += 20.0


def test_many_addresses_together_are_an_attack(host):
    found = []
    for number in range(25):
        found += host.sshd(f"Failed password for root from 192.0.2.{number} port 4000 ssh2", pid=number + 1)
    assert rules(found) == ["known.auth-bruteforce"]
    assert found[0].evidence[0].values["failures_count"] == 20.0
    # None of them is the culprit; whom all of them are after is known.
    assert [one.name for one in found[0].subjects] == ["root", "ssh.service"]


def test_many_addresses_that_try_many_users_name_the_service_alone(host):
    found = []
    for number in range(25):
        text = f"Failed password for user{number} from 192.0.2.{number} port 4000 ssh2"
        found += host.sshd(text, pid=number + 1)
    assert [one.name for one in found[0].subjects] == ["ssh.service"]


def test_addresses_that_are_told_on_their_own_are_no_distributed_attack(host):
    found = [one for number in range(3) for one in guess(host, 12, f"192.0.2.{number}", pid=1 + 50 * number)]
    assert all(one.subjects[0].kind is SubjectKind.ADDRESS for one in found)


def test_login_after_guessing_is_worse(host):
    for number in range(6):
        host.sshd(f"Failed password for root from 192.0.2.7 port {number} ssh2", pid=number + 1)
    (finding,) = host.sshd("Accepted password for root from 192.0.2.7 port 9 ssh2", pid=99)
    assert finding.severity is Severity.ERROR
    assert finding.evidence[0].values["accepted_count"] == 1.0
    assert "then a login as root was accepted" in finding.evidence[0].text


def test_login_minutes_after_guessing_is_worse(host):
    guess(host, 24)
    host.wait(240)
    (finding,) = host.sshd("Accepted password for root from 192.0.2.7 port 9 ssh2", pid=99)
    assert finding.severity is Severity.ERROR


def test_login_without_guessing_is_nothing(host):
    assert host.sshd("Accepted publickey for alice from 192.0.2.8 port 9 ssh2: ED25519 SHA256:x") == []


def test_tried_name_that_is_no_name_is_not_repeated_as_one(host):
    found = []
    for number in range(6):
        found += host.sshd(f"Invalid user $(reboot) now from 192.0.2.7 port {number}", pid=number + 1)
    assert "reboot" not in found[0].evidence[0].text
    assert all("reboot" not in subject.name for subject in found[0].subjects)


@pytest.mark.parametrize("name", ["x" * 300, "root from 203.0.113.1 port 22 ssh2", r"\x1b[2J" * 60])
def test_tried_name_neither_hides_the_attack_nor_accuses_another_address(host, name):
    found = []
    for number in range(6):
        text = f"Failed password for invalid user {name} from 192.0.2.7 port {number} ssh2"
        found += host.sshd(text, pid=number + 1)
    assert found[0].subjects[0].name == "192.0.2.7"


CLOSED = "Connection closed by invalid user {} 198.51.100.9 port 4 [preauth]"
PAM_MORE = "PAM 99 more authentication failures; rhost=192.0.2.50"
GONE = "Received disconnect from 198.51.100.9 port 4:11: {} [preauth]"
LEFT = "Disconnecting authenticating user root 198.51.100.9 port 4: {} [preauth]"
CHANGED = "Change of username or service not allowed:"
HOSTBASED = 'Failed hostbased for root from 198.51.100.9 port 4 ssh2: RSA SHA256:ab, client host "{}"'
CERTIFIED = (
    "Failed publickey for root from 198.51.100.9 port 4 ssh2: RSA-CERT SHA256:ab ID {} (serial 0) CA RSA a"
)


@pytest.mark.parametrize(
    "said",
    [
        CLOSED.format(f"x {PAM_MORE}"),
        CLOSED.format("a 192.0.2.50"),
        CLOSED.format("a 192.0.2.50 port 7 [preauth]"),
        GONE.format(PAM_MORE),
        GONE.format("maximum authentication attempts exceeded for root from 192.0.2.50 port 7 ssh2"),
        GONE.format("Disconnected from invalid user root 192.0.2.50 port 7"),
        GONE.format('user "x": password mismatch, client: 192.0.2.50,'),
        LEFT.format(f"{CHANGED} (x,) -> (y 192.0.2.50 port 7: Too many authentication failures [preauth],)"),
        "error: PAM: Authentication failure for illegal user x for y from 192.0.2.50 from 198.51.100.9",
        CERTIFIED.format("x from 192.0.2.50 port 7 ssh2"),
        HOSTBASED.format("x from 192.0.2.50 port 7 ssh2: a b"),
        f"pam_sss(sshd:auth): {PAM} user=x rhost=192.0.2.50".replace("192.0.2.{0}", "198.51.100.9"),
    ],
)
def test_who_connects_can_not_have_another_address_accused(host, said):
    found = []
    for pid in range(30):
        found += host.sshd("Connection from 192.0.2.50 port 9 on 192.0.2.1 port 22", pid=pid)
        found += (
            host.sshd("Failed password for ann from 192.0.2.50 port 9 ssh2", pid=pid) if pid == 29 else []
        )
        found += host.sshd(said, pid=pid + 100)
    found += host.sshd(said, pid=29)
    found += host.sshd("Accepted password for ann from 192.0.2.50 port 9 ssh2", pid=200) + host.wait(30)
    assert all("192.0.2.50" not in subject.name for one in found for subject in one.subjects)
    assert all("ann was accepted" not in one.evidence[0].text for one in found)


@pytest.mark.parametrize(
    "said",
    [
        CLOSED.format("x y"),
        CLOSED.format("a 192.0.2.50").replace(" port 4", ""),
        LEFT.format("Too many authentication failures"),
        "error: PAM: Authentication failure for illegal user x y from 198.51.100.9",
        "PAM 2 more authentication failures; logname= uid=0 tty=ssh ruser= rhost=198.51.100.9  user=root",
        "error: maximum authentication attempts exceeded for root from 198.51.100.9 port 4 ssh2 [preauth]",
        "Failed publickey for root from 198.51.100.9 port 4 ssh2: ED25519 SHA256:a+/9",
        CERTIFIED.format("ann"),
    ],
)
def test_what_is_said_of_a_failed_login_counts_for_its_address(host, said):
    found = [one for pid in range(9) for one in host.sshd(said, pid=pid + 1)]
    attack = next(one for one in found if one.rule == "known.auth-bruteforce")
    assert attack.subjects[0] == Subject(SubjectKind.ADDRESS, "198.51.100.9")


def test_ftp_user_called_like_a_host_accuses_none(host):
    said = (
        "pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={0} rhost={1}{2}"
    )
    fields = {"identifier": "vsftpd", "unit": "vsftpd.service", "uid": 0}
    name = "x rhost=192.0.2.50"
    found = []
    for pid in range(9):
        found += host.hear(said.format(name, "198.51.100.9", f"  user={name}"), pid=pid + 1, **fields)
    assert all("192.0.2.50" not in subject.name for one in found for subject in one.subjects)
    for pid in range(9):
        found += host.hear(said.format("bob", "198.51.100.9", ""), pid=pid + 50, **fields)
    assert "198.51.100.9" in {subject.name for one in found for subject in one.subjects}


@pytest.mark.parametrize(
    "command",
    [
        "/bin/cat /etc/shadow authentication failure; logname= uid=0 rhost=",
        "/bin/echo auth could not identify password for [root]",
        "/bin/echo pam_unix(sudo:session): session opened for user root",
    ],
)
@pytest.mark.parametrize("folder", ["/home/bob", "/home/bob/" + "x" * 400])
def test_command_line_acquits_nobody_who_may_not_give_it(host, command, folder):
    text = f"bob : user NOT in sudoers ; TTY=pts/0 ; PWD={folder} ; USER=root ; COMMAND={command}"
    (finding,) = host.hear(text, identifier="sudo", unit="session-1.scope", uid=0)
    assert finding.rule == "known.sudo-not-allowed"
    assert host.judge.events == []


def test_program_that_asks_for_rights_names_nobody_else(host):
    said = "Operator of unix-session:3 FAILED to authenticate to gain authorization for action org.example.do"
    said += " for unix-process:7:8 [x (owned by unix-user:alice)" + "x" * 400 + "] (owned by unix-user:bob)"
    found = [one for _ in range(3) for one in denied(host, said, "polkitd", uid=998)]
    assert {one.subjects[0].name for one in found} == {"bob"}


def test_statement_of_a_client_accuses_no_user_of_the_database(host):
    text = "2026-02-01 10:00:00 UTC [7] app@shop LOG:  statement: SELECT 'bob@shop ERROR:  must be superuser'"
    assert [one for _ in range(4) for one in denied(host, text, "postgres")] == []


def test_sshd_that_is_not_root_counts_for_nothing(host):
    for number in range(9):
        text = f"Failed password for root from 192.0.2.7 port {number} ssh2"
        assert host.hear(text, identifier="sshd", unit="session-1.scope", uid=1000) == []


def test_sudo_and_sessions_become_events(host):
    text = "alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/systemctl restart w"
    assert host.hear(text, identifier="sudo", unit="session-1.scope", uid=0) == []
    host.sshd("pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)")
    host.sshd("pam_unix(sshd:session): session closed for user alice")
    events = host.judge.events
    assert [(one.kind, one.name, one.action) for one in events] == [
        ("session", "alice", "sudo"),
        ("session", "alice", "start"),
        ("session", "alice", "end"),
    ]
    assert events[0].attributes["command"] == "/usr/bin/systemctl restart w"
    assert host.judge.events == []


# --- novelty, bursts, silence -----------------------------------------------------------------------


def test_nothing_is_novel_while_learning(host):
    assert host.hear("the frobnicator failed to frobnicate", priority=3) == []


def test_new_kind_of_line_is_a_weak_finding_once(host):
    host.learn()
    (finding,) = host.hear("the frobnicator failed to frobnicate", priority=3)
    assert finding.rule == "line.novel"
    assert 0.2 <= finding.score <= 0.4
    assert max(finding.hints.values(), default=0.0) <= 0.3
    assert host.hear("the frobnicator failed to frobnicate", priority=3) == []


def test_alert_priority_raises_the_novelty(host):
    host.learn()
    (finding,) = host.hear("the frobnicator failed to frobnicate", priority=1)
    assert finding.severity is Severity.CRITICAL
    assert finding.score >= 0.5
    assert max(finding.hints.values()) == 0.5


def test_alert_priority_of_a_users_own_program_raises_nothing(host):
    host.learn()
    fields = {"unit": "session-3.scope", "identifier": "python3", "uid": 1000, "priority": 1}
    for finding in host.hear("checksum of the superblock is corrupt", **fields):
        assert max(finding.hints.values(), default=0.0) <= 0.3


def test_new_release_of_a_service_is_one_finding_not_many(host):
    host.learn()
    texts = [
        f"{a} {b} is {c}"
        for a in ("red", "blue", "green")
        for b in ("cat", "dog")
        for c in ("up", "off", "out")
    ]
    found = [finding for text in texts for finding in host.hear(text)]
    assert len(found) == NOVEL_PER_MINUTE + 1


def test_new_unit_is_heard_out_before_it_is_judged(host):
    host.learn()
    assert host.hear("starting up the new thing", unit="new.service", identifier="new") == []


def test_burst_of_one_kind_is_found_against_its_own_past(host):
    found = []
    for number in range(300):
        host.t += 1.0
        found += host.hear(f"slow query took {number} s", priority=4)
        found += host.judge.tick(host.t, host.at())
    assert found == []
    for number in range(200):
        host.t += 0.02
        found += host.hear(f"slow query took {number} s", priority=4)
    (finding,) = found
    assert finding.rule == "line.burst"
    assert finding.evidence[0].values["rate_per_s"] >= 3.0
    assert "line.burst" in rules([one for one in host.wait(60) if one.ended])


def slow(host, seconds, count=1, text="order {} of 3 loaves saved in {}", **writer):
    """What is told of lines a second apart that name so long: how many in a row, 0 when it is over."""
    found = []
    for _ in range(count):
        host.t += 1.0
        found += host.hear(text.format(int(host.t), seconds), **writer)
        found += host.judge.tick(host.t, host.at())
    told = [one for one in found if one.rule == "line.slow"]
    return [0 if one.ended else int(one.evidence[0].values["lines_count"]) for one in told]


def test_what_takes_far_longer_than_it_used_to_is_told_while_it_does(host):
    assert slow(host, "0.03 s", 5) == []
    host.t += 1.0
    (first,) = [one for one in host.hear("order 9 of 3 loaves saved in 4.1 s") if one.rule == "line.slow"]
    assert first.evidence[0].text == "takes 4.1 s, usually 30 ms: order 9 of 3 loaves saved in 4.1 s"
    assert (first.words, max(first.hints.values()) < 0.3) == (True, True)
    assert slow(host, "4100 ms") == [2]
    assert slow(host, "4.3 s", 6) == [4, 8]
    assert slow(host, "0.03 s") == [0]
    assert slow(host, "0.03 s", 9) + slow(host, "8 s", 2) == []  # nearly as long before
    assert slow(host, "0.03 s", 3) + slow(host, "20 s") == [1]


def test_what_stays_slow_is_how_it_is_now(host):
    slow(host, "0.03 s", 6)
    assert slow(host, "4 s", 200)[-1:] == [0]
    assert slow(host, "4 s", 100) == []


def test_each_tenth_line_that_is_slow_is_no_news(host):
    slow(host, "20 ms", 9)
    assert slow(host, "3 s") == [1]
    assert [one for _ in range(30) for one in (*slow(host, "20 ms", 9), *slow(host, "3 s"))] == [0]


def test_what_was_slow_is_learnt_anew_after_a_restart(host):
    slow(host, "0.03 s", 6)
    after = type(host)()
    assert after.judge.restore(host.judge.snapshot())
    assert slow(after, "0.03 s", 5) == []
    assert slow(after, "9 s") == [1]


@pytest.mark.parametrize(
    ("usual", "now"),
    [
        ("0.5 s", "2.4 s"),  # not five times as long
        ("1 ms", "1900 ms"),  # nobody waits for that
        ("3 kB", "9000 kB"),
        ("day 1 s-bahn", "day 90 s-bahn"),
        ("10.0.0.1 s", "10.0.0.99 s"),
        ("1 ms, next in 1 s", "1 ms, next in 3600 s"),
        ("1min 5.1s", "1min 45.1s"),
        ('3 ms "Mozilla 1 s"', '3 ms "Mozilla 900 s"'),  # what a stranger wrote
        ('3 ms ua="1 s"', '3 ms ua="900 s"'),
        ("3 ms, connected for 90 s", "3 ms, connected for 3600 s"),
        ("3 ms, 2 s ago", "3 ms, 900 s ago"),
        ('took_ms=3 ua="took_s=1"', 'took_ms=3 ua="took_s=900"'),
    ],
)
def test_what_is_no_duration_or_no_longer_one_is_not_slow(host, usual, now):
    assert slow(host, usual, 9) + slow(host, now, 9) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("done after 1h 2min 3.5s", 3723.5),
        ("took 4.100234031677246 s", 4.100234031677246),
        ("GET /export 1m3.2s", 63.2),
        ("12 minutes", 720.0),
        ("1,250 ms", 1.25),
        ("elapsed:4.1s", 4.1),
        ("812.4µs", 0.0008124),
        ("write=0.3 s, sync=2 s", 2.0),
        ("at 12:03:04.5 s", None),
        ("41 s: SELECT age, next FROM users LEFT JOIN old", 41.0),
        ("GET /next/7 of the last page: 200 in 41 s", 41.0),
        ("saved duration_ms=4100 rows=3", 4.1),
        ('{"msg":"saved","elapsedMs":4100,"idle_time_ms":90000}', 4.1),
        ('{"msg": "saved", "http.latency_s": 0.25}', 0.25),
        ("level=info total_time_us=812400", 0.8124),
        ("saved timeout_ms=4100 retry_wait_s=60 uptime_s=900", None),
        ("seen start_time_s=1764492000 time_ms=1764492000123 cpu_time_s=7", None),
        ('GET "/?duration_ms=9000" "\\"took_s\\":9" 200', None),
        ("request done duration_ms: 4100", 4.1),
        ("at time_us=1700000000 keepalive_time_s=7200 poll_wait_ms=30000", None),
        ("version_time_x=4 duration_ms=4100b took_s=1.2.3", None),
    ],
)
def test_durations_are_read_as_programs_write_them(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.lists(
        st.sampled_from(
            [*'0123456789.,: hmsnu-=/x٣²\0"', "min", "µs", " ago", "msg=", "in ", "took_ms=", '"wait_s":']
        ),
        max_size=60,
    )
)
def test_durations_of_any_text_are_numbers(pieces):
    seconds = duration("".join(pieces))
    assert seconds is None or 0.0 <= seconds < 1e16


def test_a_wait_that_doubles_each_time_is_no_surprise(host):
    assert [one for n in range(9) for one in slow(host, f"{2**n} s")] == []


def test_a_row_is_of_one_service_though_its_instances_write_alike(host):
    def said(number, seconds):
        return slow(host, seconds, unit=f"app@{number}.service", identifier="app")

    assert said(1, "30 ms") + said(2, "30 ms") == []
    for number in (1, 2):
        slow(host, "30 ms", 6, unit=f"app@{number}.service", identifier="app")
    assert [said(1, "9 s"), said(2, "30 ms"), said(1, "9 s")] == [[1], [], [2]]
    assert [said(2, "9 s"), said(2, "9 s")] == [[], []]
    host.wait(200)
    assert [said(2, "30 ms"), said(2, "60 s")] == [[], [1]]


def test_what_is_slow_each_night_is_known_the_next_night(host):
    assert slow(host, "12 ms", 9) == []
    told = []
    for _ in range(3):
        told += slow(host, "12 s", 3)
        host.t += 86400.0
        told += slow(host, "12 ms", 100)
    assert told == [1, 2, 0]


def test_a_row_that_nobody_goes_on_with_is_over(host):
    slow(host, "12 ms", 9)
    assert slow(host, "12 s") == [1]
    host.wait(86400)
    assert slow(host, "30 s") == [1]


def test_what_goes_on_has_room_beside_what_may_be_slips(host):
    for seconds in (*["30 ms"] * 6, "9 s"):
        for number in range(15):
            unit = {"unit": f"{'abcdefghijklmno'[number]}.service", "identifier": "abcdefghijklmno"[number]}
            host.t += 0.1
            host.hear(f"order {number} of 3 loaves saved in {seconds}", **unit)
    again = [slow(host, "9 s", unit=f"{one}.service", identifier=one) for one in "abcdefghijklmno"]
    assert again == [[2]] * 15


def test_of_a_loggers_lines_each_message_has_its_own_pace(host):
    assert slow(host, "30ms", 9, 'level=info n={} msg="request done" took={}') == []
    assert slow(host, "40s", 9, 'level=info n={} msg="archive written" took={}') == []
    assert slow(host, "40s", 1, 'level=info n={} msg="request done" took={}') == [1]
    assert slow(host, "30ms", 9, 'level=info msg="order {} saved" took={}') == []
    assert slow(host, "40s", 1, 'level=info msg="order {} saved" took={}') == [1]


def test_the_manager_tells_of_what_others_take(host):
    manager = {"unit": "init.scope", "identifier": "systemd", "pid": 1, "uid": 0}
    text = "fstrim.service: Run {} consumed {} CPU time."
    assert slow(host, "300ms", 9, text, **manager) + slow(host, "48.2s", 2, text, **manager) == []


def test_who_is_slow_in_very_many_ways_keeps_nobody_from_being_heard(host):
    names = [f"{a}{b} step" for a in "abcdefgh" for b in "klmnopq"]
    told = []
    for seconds in (*["30 ms"] * 6, "30 s"):
        for name in names:
            host.t += 0.01
            told += host.hear(f"{name} took {seconds}", unit="evil.service", identifier="evil")
        slow(host, seconds, unit="shop.service", identifier="shop") if seconds != "30 s" else None
    assert len([one for one in told if one.rule == "line.slow"]) <= 10
    assert slow(host, "30 s", unit="shop.service", identifier="shop") == [1]


def test_constant_heavy_load_is_no_burst(host):
    found = []
    for number in range(30000):
        host.t += 0.02
        found += host.hear(f"served request {number}")
    assert found == []


def test_heartbeat_that_stops_is_missed_and_then_welcome(host):
    found = []
    for number in range(30):
        host.t += 10.0
        found += host.hear(f"watchdog ping {number}")
        found += host.judge.tick(host.t, host.at())
    assert found == []
    (silence,) = host.wait(70)
    assert silence.rule == "line.silence"
    assert silence.evidence[0].values["period_s"] == pytest.approx(10.0)
    (back,) = host.hear("watchdog ping 99")
    assert (back.rule, back.ended) == ("line.silence", True)


def test_irregular_lines_are_never_missed(host):
    rng = random.Random(4)
    for number in range(60):
        host.t += rng.uniform(1.0, 60.0)
        host.hear(f"visitor {number} came")
    assert host.wait(1000) == []


def test_new_boot_forgets_windows_but_not_templates(host):
    for number in range(30):
        host.t += 10.0
        host.hear(f"watchdog ping {number}")
    host.boot = "b2"
    host.kernel("Linux version 6.18.0")
    assert [one for one in host.wait(300) if one.rule == "line.silence"] == []


# --- hostile writers ----------------------------------------------------------------------------------


def noise(rng, count=8):
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(count))


def test_flood_of_oddities_is_capped_and_counted(host):
    host.learn()
    rng = random.Random(2)
    found = []
    for number in range(2000):
        host.t += 0.001
        found += host.hear(
            noise(rng), priority=3, unit=f"u{'abcdefghij'[number % 10]}{rng.choice('xyz') * 3}.service"
        )
    assert len(found) <= 3 * WEAK_PER_SECOND
    assert host.judge.counters["capped"] > 0
    told = [one for one in host.wait(30) if one.rule == "line.overflow" and not one.ended]
    assert told[0].evidence[0].values["lost_count"] > 0


def test_flood_of_known_messages_is_capped(host):
    found = []
    for number in range(1000):
        found += host.kernel(
            f"worker{'abcdefghij'[number % 10] * (number % 13 + 1)}[{number}]: segfault at 0 ip 0 sp 0"
        )
        found += host.kernel(f"I/O error, dev sd{number % 997}x{number}, sector 1 op 0x0:(READ)")
    assert len(found) <= KNOWN_PER_SECOND


def test_kernel_and_manager_are_heard_over_a_service_under_attack(host):
    web = {"identifier": "nginx", "unit": "nginx.service", "uid": 0}
    flood = (
        'limiting requests, excess: 20.260 by zone "all", client: 198.51.{}.{}, server: , request: "GET /"'
    )
    found = [one for n in range(200) for one in host.hear(flood.format(n // 100, n % 100), **web)]
    assert len([one for one in found if one.rule == "known.requests-limited"]) == KNOWN_PER_SECOND
    assert rules(host.kernel(OOM, priority=3)) == ["known.oom-kill"]
    assert "known.unit-exited" in rules(host.manager("app.service", EXITED))


def test_calm_messages_in_quotes_are_cheap(host):
    rng = random.Random(2)
    for _ in range(3000):
        host.hear(f'level=info msg="{noise(rng)}"')
    assert host.judge.counters["fallback"] == 0


def test_budget_of_one_unit_falls_back_and_leaves_the_others_alone(host):
    rng = random.Random(2)
    judge = host.judge
    for _ in range(15000):
        host.hear(noise(rng), unit="loud.service", identifier="loud")
    spent = judge.counters["fallback"]
    assert spent > 1000
    host.hear("a line of the quiet unit", unit="quiet.service", identifier="quiet")
    assert judge.counters["fallback"] == spent
    assert rules(host.hear("queue: No space left on device", unit="loud.service", identifier="loud")) == [
        "known.no-space"
    ]
    host.t += 1.0
    host.hear(noise(rng), unit="loud.service", identifier="loud")
    assert judge.counters["fallback"] <= spent + 1


def test_messages_in_quotes_are_not_tried_as_what_others_were(host):
    bad = 'level=error msg="queue: No space left on device"'
    assert "known.no-space" in rules(host.hear(bad))
    others = [one.example.replace('"', "") for one in load().messages if not one.writer]
    for number, text in enumerate(others):
        host.t += number
        host.hear(f'level=error msg="{text}"')
    before = host.judge._miner.work
    host.t += 300.0
    assert "known.no-space" in rules(host.hear(bad))
    assert host.judge._miner.work - before < 10 + 3 * KNOWN_MAX


def test_line_seen_lately_costs_a_spent_writer_little_and_goes_on_counting():
    host = Host(unit_cpu_share=0.0001)
    many = " ".join(one.example for one in load().messages if not one.writer)
    long, complaint = "x " * 300 + many, "cannot reach the hub"
    host.hear(long)
    host.t += 1.0
    host.hear(complaint)
    found, rng = [], random.Random(2)
    for _ in range(8):
        host.t += 3.0
        host.hear(noise(rng, 30))  # that is all for this second
        before = host.judge._miner.work
        host.hear(long)
        assert host.judge._miner.work - before < 30 + 3 * KNOWN_THRIFTY
        found += host.hear(complaint)
    assert "unit.complaint" in rules(found)


def test_fallback_depends_on_observation_time_only():
    def run():
        rng = random.Random(2)
        host = Host()
        for _ in range(9000):
            host.t += 0.00005
            host.hear(noise(rng, 12))
            time.process_time()
        return host.judge.counters

    assert run() == run()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=80), st.text(max_size=12), st.integers(0, 7), st.booleans()), max_size=40
    )
)
def test_any_lines_are_judged_and_findings_are_valid(lines):
    host = Host()
    for text, name, priority, trusted in lines:
        host.t += 1.0
        for finding in host.hear(text, identifier=name, unit=name, priority=priority, trusted=trusted):
            assert finding.subjects
            assert 0.0 <= finding.score <= 1.0


# --- learned state ------------------------------------------------------------------------------------


def test_restored_judge_knows_its_templates(host):
    for name in ("anna", "bernd", "clara", "dora", "emil", "frida"):
        host.hear(f"quota of {name} was exceeded today")
    host.learn()
    again = Host()
    again.t = host.t + 10.0
    assert again.judge.restore(host.judge.snapshot())
    again.t += 1.0
    assert again.hear("quota of gustav was exceeded today", priority=1) == []
    assert again.hear("nothing to report", priority=1) == []
    assert rules(again.hear("something else altogether", priority=1)) == ["line.novel"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_state_is_refused_or_harmless(noise_bytes, cut):
    host = Host()
    host.hear("nothing to report")
    state = host.judge.snapshot()
    fresh = Host()
    fresh.judge.restore(state[:cut] + noise_bytes + state[cut + 3 :])
    assert fresh.hear("quota exceeded") == []


def test_state_is_bounded():
    host = Host(templates_max=256)
    rng = random.Random(1)
    for number in range(2000):
        host.t += 1.0
        host.hear(noise(rng, 30), unit=f"u{number % 5}.service")
    assert len(host.judge.snapshot()) < 256 * 600


def test_failure_of_one_of_hauswarts_units_is_about_the_stages_health(host):
    host.learn()
    [finding] = host.manager("hauswart-top.service", "hauswart-top.service: Failed with result 'watchdog'.")
    assert [(one.kind, one.name) for one in finding.subjects] == [(SubjectKind.STAGE, "top")]
    [other] = host.manager("web.service", "web.service: Failed with result 'watchdog'.")
    assert other.subjects[0].kind is SubjectKind.UNIT


def test_failed_binds_without_address_or_name_are_the_directorys(host):
    found = []
    for number in range(30):
        host.t += 0.5
        text = f"conn={1000 + number} op=0 RESULT tag=97 err=49 qtime=0.000011 etime=0.000055 text="
        found += host.hear(text, identifier="slapd", unit="slapd.service", priority=7, uid=0)
    (rule, subject), *_ = [(one.rule, one.subjects[0]) for one in found]
    assert rule == "known.auth-bruteforce"
    assert (subject.kind, subject.name) == (SubjectKind.UNIT, "slapd.service")


def test_client_that_calls_itself_a_limit_reaches_none(host):
    told = "1: New client connected from 203.0.113.9:5012 as denied: max_connections exceeded (p2, c1, k60)."
    said = "1: Client connection from 203.0.113.9 denied: max_connections exceeded."
    who = {"identifier": "mosquitto", "unit": "mosquitto.service", "priority": 5}
    assert [one.rule for one in host.hear(told, **who) if one.rule.startswith("known.")] == []
    assert "known.server-at-limit" in [one.rule for one in host.hear(said, **who)]
