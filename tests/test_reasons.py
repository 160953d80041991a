"""What was told a moment before decides what a vague complaint, or the end of a unit, is due to."""

import pytest

from models.taxonomy import FaultClass, SubjectKind
from tests.test_lines import Host

F = FaultClass
FAILED = "app.service: Failed with result 'exit-code'."
EIO = "read failed: Input/output error"
THIN = "device-mapper: thin: 253:4: switching pool to out-of-data-space (queue IO) mode"


@pytest.fixture
def host():
    return Host()


def only(findings, rule):
    (found,) = [one for one in findings if one.rule == rule]
    return found


def top(finding):
    return max(finding.hints, key=finding.hints.get)


def names(finding):
    return [one.name for one in finding.subjects]


@pytest.mark.parametrize(
    ("told", "fault", "device"),
    [
        ("usb 1-1.2: USB disconnect, device number 5", F.DEVICE_LOST, "1-1.2"),
        (
            "XFS (loop6): Metadata corruption detected at xfs_agf",
            F.FILESYSTEM_CORRUPT,
            "loop6",
        ),
        (THIN, F.DISK_FULL, "dm-4"),
    ],
)
def test_refused_read_is_due_to_what_the_kernel_has_just_told_of(host, told, fault, device):
    host.kernel(told)
    host.wait(2)
    found = only(host.hear(EIO), "known.io-error")
    assert top(found) is fault
    assert device in names(found)


def test_refused_read_long_after_or_without_any_word_of_the_kernel_is_the_disks(host):
    assert top(only(host.hear(EIO), "known.io-error")) is F.DISK_FAILING
    host.kernel("usb 1-1.2: USB disconnect, device number 5")
    host.wait(70)
    assert top(only(host.hear(EIO, unit="other.service"), "known.io-error")) is F.DISK_FAILING


@pytest.mark.parametrize(("device", "fault"), [("dm-5", F.DISK_FULL), ("sdb1", F.DISK_FAILING)])
def test_volume_without_store_fails_for_want_of_space_and_a_disk_by_itself(host, device, fault):
    host.kernel(THIN)
    host.wait(1)
    error = host.kernel(f"Buffer I/O error on dev {device}, logical block 256, async page read")
    assert top(only(error, "known.buffer-io-error")) is fault


def test_device_mapper_names_its_device_by_number_or_by_name(host):
    assert names(only(host.kernel(THIN), "known.storage-full")) == ["dm-4"]
    rotten = host.kernel("device-mapper: integrity: dm-0: Checksum failed at sector 0x5002")
    assert names(only(rotten, "known.block-corrupted")) == ["dm-0"]


def test_unit_that_ends_right_after_it_missed_its_settings_has_a_wrong_setting(host):
    host.hear('Error: Could not open file "/etc/app/site.rules": No such file or directory')
    assert top(only(host.manager("app.service", FAILED), "known.unit-failed")) is F.CONFIG_ERROR


def test_unit_that_ends_later_has_crashed(host):
    host.hear('Error: Could not open file "/etc/app/site.rules": No such file or directory')
    host.wait(4)
    assert top(only(host.manager("app.service", FAILED), "known.unit-failed")) is F.SERVICE_CRASH


def test_port_that_a_left_over_process_holds_is_no_wrong_setting(host):
    host.manager(
        "app.service",
        "app.service: Found left-over process 815 (app) in control group while starting unit. Ignoring.",
    )
    in_use = "bind() to 0.0.0.0:80 failed (98: Address already in use)"
    assert top(only(host.hear(in_use), "known.address-in-use")) is F.SERVICE_CRASH
    assert top(only(host.hear(in_use, unit="other.service"), "known.address-in-use")) is F.CONFIG_ERROR


def test_client_that_loses_its_server_is_tied_to_what_crashes_at_that_moment(host):
    host.hear("server closed the connection unexpectedly", unit="report.service")
    crash = host.hear(
        "server process (PID 196) was terminated by signal 9: Killed",
        unit="db.service",
        identifier="postgres",
    )
    assert names(only(crash, "known.worker-crashed")) == ["db.service", "report.service"]
    ended = host.manager("report.service", "report.service: Failed with result 'exit-code'.")
    assert top(only(ended, "known.unit-failed")) is F.DEPENDENCY_FAILED


def test_server_that_crashed_first_is_tied_to_the_client_that_complains(host):
    host.manager("db.service", "db.service: Failed with result 'signal'.")
    lost = host.hear("server closed the connection unexpectedly", unit="report.service")
    assert (SubjectKind.UNIT, "db.service") in [
        (one.kind, one.name) for one in only(lost, "known.upstream-unreachable").subjects
    ]


def test_crash_long_after_a_complaint_is_tied_to_nobody(host):
    host.hear("server closed the connection unexpectedly", unit="report.service")
    host.wait(4)
    crash = host.manager("db.service", "db.service: Failed with result 'signal'.")
    assert names(only(crash, "known.unit-failed")) == ["db.service"]


def test_reason_in_a_programs_last_line_says_more_than_that_it_broke(host):
    found = host.hear('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space')
    assert top(only(found, "known.out-of-memory")) is F.MEMORY_EXHAUSTION
    broke = host.hear('Exception in thread "main" java.lang.IllegalStateException', unit="other.service")
    assert top(only(broke, "known.program-broke")) is F.SERVICE_CRASH


KILLED = "[2026-02-01 10:00:01 +0000] [7] [WARNING] Worker with pid 9 was terminated due to signal 9"


def test_worker_that_its_master_ends_for_being_hung_is_no_crash(host):
    said = {"identifier": "gunicorn"}
    for _ in range(3):
        host.hear("[2026-02-01 10:00:00 +0000] [7] [CRITICAL] WORKER TIMEOUT (pid:9)", **said)
        host.wait(1)
        found = host.hear(KILLED, **said)
        assert all(one.rule != "known.crash-loop" and F.SERVICE_CRASH is not top(one) for one in found)
        host.wait(3)
    host.wait(60)
    assert top(only(host.hear(KILLED.replace("signal 9", "signal 11"), **said), "known.worker-crashed")) is (
        F.SERVICE_CRASH
    )


def test_end_of_who_waited_for_the_network_in_vain_is_no_crash(host):
    said = {"unit": "app.service", "identifier": "systemd-networkd-wait-online"}
    host.hear("Timeout occurred while waiting for network connectivity.", **said)
    found = host.manager("app.service", FAILED)
    assert top(only(found, "known.unit-failed")) is F.DEPENDENCY_FAILED


def test_program_that_is_not_there_is_a_wrong_setting_though_its_own_line_lost_its_sender(host):
    found = host.manager("app.service", "app.service: Main process exited, code=exited, status=203/EXEC")
    assert top(found[0]) is F.CONFIG_ERROR
