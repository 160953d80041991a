"""The catalogue of known messages: every entry finds its own example, survives masking, and is linear."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alertness import line_score, speaks_for, word_weight
from models.known import Catalogue, load, own_words, read, unit_of_cgroup
from models.masking import mask
from models.taxonomy import Category, FaultClass, Severity, SubjectKind

MESSAGES = load().messages
each = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.slug)


def test_slugs_are_unique_and_ends_name_entries():
    slugs = [message.slug for message in MESSAGES]
    assert len(slugs) == len(set(slugs))
    assert {message.ends for message in MESSAGES if message.ends} <= set(slugs)


@each
def test_example_is_found_and_read(message):
    assert message in load().candidates(message.example)
    assert read(message, message.example) is not None


@each
def test_first_entry_for_an_example_is_its_own(message):
    rivals = [
        other
        for other in load().candidates(message.example)
        if other.writer == message.writer and (not other.writers or other.writers & message.writers)
    ]
    matching = [other for other in rivals if read(other, message.example)]
    assert matching[0] is message


@each
def test_words_of_an_entry_survive_masking(message):
    """A template is judged by its words once, so they must not lie in what the template leaves out."""
    assert message in load().candidates(mask(message.example))


@each
def test_pattern_is_linear_on_hostile_text(message):
    pattern = message.pattern
    seeds = [
        message.example,
        message.example[: len(message.example) // 2],
        "a",
        "0 ",
        "a: ",
        "[a",
        "(a) ",
        "a.b-",
    ]
    for seed in seeds:
        text = (seed * (4096 // len(seed) + 1))[:4096]
        began = time.process_time()
        pattern.search(text)
        assert time.process_time() - began < 0.1, seed


@each
def test_hints_and_severity_agree_with_the_score(message):
    assert 0.0 <= message.score <= 1.0
    if message.score >= 0.5:
        assert max(message.hints.values()) > 0.3, "what opens an incident must say of which class"


def test_what_any_program_may_write_is_a_warning_unless_it_calls_it_an_error():
    anybody, one, kernel = (load().by_slug[slug] for slug in ("no-space", "firewall-flood", "oom-kill"))
    assert not anybody.writer
    assert not anybody.writers
    plain = "check 12: a full store answers No space left on device"
    assert anybody.said(6, plain) is Severity.WARNING
    for priority, text in ((3, plain), (6, f"ERROR: {plain}"), (6, f"level=error msg={plain!r}")):
        assert anybody.said(priority, text) is anybody.severity is Severity.ERROR
    assert anybody.said(6, f"WARNING: {plain}") is Severity.WARNING
    for mark in (
        "[2026: ERROR/MainProcess]",
        "[Server thread/FATAL]:",
        "E:",
        "[E 2026-11-29]",
        "(EE)",
        "<3>",
    ):
        assert anybody.said(6, f"{mark} {plain}") is Severity.ERROR, mark
    assert anybody.said(6, f'{{"msg":"{plain * 4}","level":"error"}}') is Severity.ERROR
    assert anybody.said(6, f"a level of error: {plain}") is Severity.WARNING
    assert one.said(6, one.example) is one.severity
    assert kernel.said(6, kernel.example) is kernel.severity
    guess = next(m for m in load().messages if m.category is Category.SECURITY and not m.writers)
    assert guess.said(6, guess.example) is guess.severity


def kinds(slug):
    message = load().by_slug[slug]
    reading = read(message, message.example)
    return dict(reading.subjects), reading.values


def test_oom_kill_names_process_and_unit():
    subjects, values = kinds("oom-constraint")
    assert subjects == {SubjectKind.UNIT: "worker.service", SubjectKind.PROCESS: "worker[815]"}
    subjects, values = kinds("oom-kill")
    assert subjects == {SubjectKind.PROCESS: "worker[4711]"}
    assert values == {"rss_bytes": 40960 * 1024.0, "pid": 4711.0, "killed_count": 1.0}
    subjects, _ = kinds("oom-invoked")
    assert subjects == {}  # who asked for memory at that moment need not be to blame


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("blk_update_request: I/O error, dev sdc, sector 64 op 0x1:(WRITE) flags 0x800", "sdc"),
        ("I/O error, dev loop0, sector 128 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2", "loop0"),
    ],
)
def test_block_error_names_device_and_sector(text, device):
    reading = read(load().by_slug["block-io-error"], text)
    assert reading.subjects == ((SubjectKind.DEVICE, device),)
    assert reading.values["sector"] in {64.0, 128.0}


@pytest.mark.parametrize(
    ("text", "slug", "subject"),
    [
        (
            "EXT4-fs (loop0): Remounting filesystem read-only",
            "remount-read-only",
            (SubjectKind.DEVICE, "loop0"),
        ),
        ("Aborting journal on device loop0-8.", "jbd2-abort", (SubjectKind.DEVICE, "loop0")),
        ("Aborting journal on device dm-0-8.", "jbd2-abort", (SubjectKind.DEVICE, "dm-0")),
        (
            "JBD2: I/O error when updating journal superblock for vdc-8.",
            "jbd2-abort",
            (SubjectKind.DEVICE, "vdc"),
        ),
        (
            "JBD2: Detected IO errors while flushing file data on dm-0-8",
            "jbd2-abort",
            (SubjectKind.DEVICE, "dm-0"),
        ),
        ("igb 0000:01:00.0 enp1s0: igb: enp1s0 NIC Link is Down", "", None),
        ("r8169 0000:02:00.0 enp2s0: Link is Down", "link-down", (SubjectKind.INTERFACE, "enp2s0")),
        ("br0: port 1(veth1) entered disabled state", "", None),
        (
            "e1000e 0000:00:19.0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 6036 ms",
            "tx-timeout",
            (SubjectKind.INTERFACE, "eth0"),
        ),
        (
            "python3[99]: segfault at 0 ip 00007f1c sp 00007ffd error 4",
            "segfault",
            (SubjectKind.PROCESS, "python3[99]"),
        ),
        (
            "TCP: request_sock_TCP: Possible SYN flooding on port [::]:8080. Sending cookies.",
            "syn-flood",
            None,
        ),
    ],
)
def test_kernel_variants(text, slug, subject):
    found = [one for one in load().candidates(text) if one.writer == "kernel" and read(one, text)]
    assert [one.slug for one in found][:1] == ([slug] if slug else [])
    if subject:
        assert read(found[0], text).subjects[0] == subject


@pytest.mark.parametrize(
    "text",
    [
        "sector size is 512 bytes",
        "Started Daily apt download activities.",
        "EXT4-fs (sda1): mounted filesystem with ordered data mode. Quota mode: none.",
        "usb 1-1: new high-speed USB device number 5 using xhci_hcd",
        "GET /index.html 200 in 3 ms",
        "error_log set to /var/log/x",
        "Killed all the old sessions in the process table",
    ],
)
def test_ordinary_lines_mean_nothing(text):
    assert [one.slug for one in load().candidates(text) if read(one, text) and one.score >= 0.3] == []


@pytest.mark.parametrize(
    "text",
    [
        "[ALERT]    (7) : config : parsing [/etc/haproxy.cfg:12] : unknown keyword 'x' in 'frontend' section",
        "doveconf: Fatal: Error in configuration file /etc/dovecot/dovecot.conf line 12: Unknown setting: x",
        "ERROR: [/etc/php/8.2/fpm/pool.d/www.conf:12] unknown entry 'x'",
        "Options error: Unrecognized option or missing or extra parameter(s) in server.conf:3: x (2.6.3)",
        "unable to configure the Docker daemon with file /etc/docker/daemon.json: invalid character '}'",
        'level=error msg="Error loading config (--config.file=x.yml)" file=x.yml err="parsing YAML file"',
        "Fatal error : Invalid directive at line 3 in file /etc/chrony/chrony.conf",
        'LOG:  invalid value for parameter "max_connections": "many"',
        "loading configuration: failure",
        "Invalid command 'Lisen', perhaps misspelled or defined by a module not included in the server",
        'nginx: [emerg] "server" directive is not allowed here in /etc/nginx/nginx.conf:3',
        'Error: Unknown configuration variable "x".',
        "dnsmasq: bad option at line 3 of /etc/dnsmasq.conf",
        "exporter: error: unrecognized arguments: --colour",
        "flag provided but not defined: -colour",
        "Error: unknown flag: --colour",
        "/usr/bin/worker: unrecognized option '--colour'",
    ],
)
def test_programs_that_refuse_their_settings_speak_of_a_configuration(text):
    found = [one for one in load().candidates(text) if not one.writer and read(one, text)]
    assert max(found[0].hints, key=found[0].hints.get) is FaultClass.CONFIG_ERROR


@pytest.mark.parametrize(
    "text",
    [
        "/etc/ssh/sshd_config line 18: Deprecated option UsePrivilegeSeparation",
        "reading configuration file /etc/app.conf",
        "configuration loaded, 3 options set, no errors",
        "reloading config",
        "invalid choice of words",
    ],
)
def test_what_is_said_of_settings_that_are_in_force_means_nothing(text):
    assert [one.slug for one in load().candidates(text) if read(one, text)] == []


def test_no_space_of_inotify_is_no_full_disk():
    text = "Failed to add watch: inotify_add_watch(7, /srv): No space left on device"
    found = [one for one in load().candidates(text) if read(one, text)]
    assert FaultClass.DISK_FULL not in found[0].hints


def test_cgroup_becomes_its_unit():
    assert unit_of_cgroup("/system.slice/a.service/payload") == "a.service"
    assert unit_of_cgroup("/user.slice/user-1000.slice/session-3.scope") == "session-3.scope"
    assert unit_of_cgroup("/lab/box") == "/lab/box"
    assert unit_of_cgroup("/system.slice") == "system.slice"
    assert unit_of_cgroup("/") == ""


@given(st.text(max_size=400))
def test_any_text_is_looked_up_and_scored(text):
    for message in load().candidates(text):
        read(message, text)
    assert 0.0 <= line_score(text) <= 1.0


@given(st.sampled_from(MESSAGES), st.text(max_size=40), st.integers(0, 200))
def test_damaged_example_is_read_without_error(message, noise, cut):
    text = message.example[:cut] + noise + message.example[cut:]
    reading = read(message, text)
    if reading:
        assert all(name for _, name in reading.subjects)


@given(st.text("ab0.-_=:,() #\"'<>[]", max_size=200))
def test_words_of_a_server_stand_where_they_stood(text):
    own = own_words(text)
    assert len(own) == len(text)
    assert all(mine in {said, "_"} for mine, said in zip(own, text, strict=True))


@pytest.mark.parametrize(
    "seed", ['"', '" failed (', "'a ", "user=<", "<", "#1 (", "a[", "a [1] ", "CMD (", "["]
)
def test_words_of_a_server_are_found_in_linear_time(seed):
    began = time.process_time()
    own_words((seed * 4096)[:4096])
    assert time.process_time() - began < 0.1


def test_lookup_does_not_depend_on_how_many_entries_there_are():
    text = "the quick brown fox jumps over the lazy dog and nothing is wrong with that at all"
    assert Catalogue(MESSAGES).candidates(text) == ()


def test_trouble_ranks_above_routine():
    trouble = ["authentication failure for root", "disk failure imminent", "segfault at 0", "access denied"]
    routine = [
        "session started",
        "listening on port 80",
        "3 files synced successfully",
        "reading configuration",
    ]
    assert min(map(line_score, trouble)) > max(map(line_score, routine))


def test_words_of_success_lower_the_weight():
    assert word_weight("login failed") > word_weight("login failed 0 times, completed")


def test_topic_words_hint_faintly():
    hints = speaks_for("lookup in dns gave nothing")
    assert hints == {FaultClass.NAME_RESOLUTION: 0.2}
    assert not any(re.search(r"\d", fault) for fault in hints)


def test_syslog_header_does_not_hide_a_known_message():
    text = "Failed password for root from 192.0.2.7 port 4000 ssh2"
    assert line_score(f"Feb  3 04:05:06 host sshd[77]: {text}") == pytest.approx(line_score(text), abs=0.1)


@pytest.mark.parametrize(
    ("text", "slugs"),
    [
        ("payments: java.lang.OutOfMemoryError: Metaspace", {"out-of-memory"}),
        ("gc: no full collection, no OutOfMemoryError, heap 17 % used", set()),
        ("preview: [pl] Out of memory: killed process %d", set()),
        ("self-test: simulated No space left on device: PASS", set()),
        ("ok - write /etc/passwd.new: [Errno 30] Read-only file system", set()),
        ("ok 12 - an error is told: No space left on device", set()),
        ("write of report%20of%20may.pdf failed: No space left on device", {"no-space"}),
        ("fetch http://mirror.example/: Temporary failure in name resolution", {"name-resolution"}),
        ('Applying: watchdog: fix spurious "out of memory" at start', set()),
        ("13937c5 card: fix No space left on device with a corrupted record", set()),
        ("1770000000 backup: write failed: No space left on device", {"no-space"}),
        ("ioctl(SIOCGIFINDEX) failed: No such device", set()),
        ("read() error 19 (No such device)", {"device-vanished"}),
        ("write: No such device or address", set()),
        ("broken http://blog0.invalid/post: Temporary failure in name resolution", set()),
    ],
)
def test_what_a_program_only_quotes_or_denies_is_not_said(text, slugs):
    found = {one.slug for one in load().candidates(text) if read(one, text) is not None}
    assert found == slugs


@pytest.mark.parametrize(
    "text",
    [
        "Failed password for invalid user {} from 203.0.113.9 port 4711 ssh2",
        "pam_unix(sshd:auth): authentication failure; uid=0 tty=ssh ruser= rhost=203.0.113.9  user={}",
        '[error] 15#15: limiting requests, excess: 20.2 by zone "a", client: 192.0.2.7, request: "GET /{}"',
    ],
)
@pytest.mark.parametrize("name", ["%s", "simulated", "%1$s", "a.invalid"])
def test_a_stranger_cannot_hide_behind_a_name_that_looks_like_a_blank(text, name):
    plain, hiding = text.format("admin"), text.format(name)
    found = {one.slug for one in load().candidates(plain) if read(one, plain) is not None}
    assert found
    assert found == {one.slug for one in load().candidates(hiding) if read(one, hiding) is not None}
