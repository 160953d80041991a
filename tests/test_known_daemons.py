"""What widely used programs say of their own trouble: the class that each line speaks for, or none."""

from pathlib import Path

import pytest

from daemon.messages import Line, Stamp
from daemon.settings import Low, Middle
from daemon.tiers.lines import LineJudge


def rows(name):
    """The rows of a file of lines."""
    text = (Path(__file__).parent / "fixtures" / name).read_text()
    return [row.split("\t") for row in text.splitlines() if not row.startswith("# ")]


def judged(judge, t, text, **fields):
    fields = {"source": "journal", "pid": 42, "uid": 0, "priority": 4} | fields
    return [
        one
        for one in judge.judge(Line(at=Stamp("b1", t, 1e9 + t), text=text, **fields), t)
        if one.rule.startswith("known.")
    ]


@pytest.mark.parametrize(("fault", "program", "text"), rows("said.tsv"))
def test_message_of_a_daemon_speaks_for_its_class(fault, program, text):
    found = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    hints = found[0].hints if found else {}
    assert (max(hints, key=hints.get).value if hints else "-") == fault


def test_who_was_gone_before_its_name_was_asked_for_may_say_what_programs_say():
    denied = "mallory: Error executing command as another user: Not authorized [USER=root] [COMMAND=/bin/id]"
    (finding,) = judged(LineJudge(Low()), 1e6, denied, uid=1001)
    assert (finding.subjects[0].kind, finding.subjects[0].name) == ("user", "mallory")


LIMITED = (
    '2026/02/01 10:00:00 [error] 15#15: *7 limiting requests, excess: 20.260 by zone "all", '
    'client: 192.0.2.7, server: , request: "GET / HTTP/1.1"'
)


def test_file_that_gives_no_program_may_say_what_programs_say():
    (finding,) = judged(LineJudge(Low()), 1e6, LIMITED, source="file:/srv/error.log", uid=-1, trusted=False)
    assert finding.subjects[0].name == "192.0.2.7"


@pytest.mark.parametrize(("per_second", "loud"), [(20, True), (1, False)])
def test_refused_requests_are_a_flood_only_in_great_numbers(per_second, loud):
    judge, told = LineJudge(Low()), []
    for number in range(5 * per_second):
        told += judged(judge, 1e6 + number / per_second, LIMITED, unit="web.service", identifier="nginx")
    assert any(one.score >= 0.6 for one in told) is loud


ASKED = '192.0.2.7 - - [01/Feb/2026:10:00:00 +0000] "GET /ENOSPC HTTP/1.1" 200 9 "-" "too many open files"'


def test_what_a_stranger_asks_for_accuses_no_server():
    assert not judged(LineJudge(Low()), 1e6, ASKED, unit="nginx.service", identifier="nginx")
    assert not judged(LineJudge(Low()), 1e6, f"www.example:443 {ASKED}", unit="app.service", identifier="app")


@pytest.mark.parametrize(
    ("fault", "name", "text"),
    [
        ("dependency-failed", "NetworkManager-wait-online.service", "Failed with result 'exit-code'."),
        (
            "config-error",
            "a.socket",
            "Failed to create listening socket (0.0.0.0:22): Address already in use",
        ),
        ("fd-exhaustion", "a.path", "Failed to enter waiting state: No space left on device"),
        ("crash-loop", "a.socket", "Trigger limit hit, refusing further activation."),
        ("crash-loop", "a.socket", "Failed with result 'service-start-limit-hit'."),
        ("connection-flood", "a.socket", "Too many incoming connections (64), dropping connection."),
        ("service-hung", "a.service", "Failed with result 'timeout'."),
        (
            "disk-full",
            "",
            "Refusing reload, not enough space available on /run/systemd. Currently, 4.0K are free",
        ),
        (
            "config-error",
            "",
            "/lib/systemd/system-generators/systemd-fstab-generator failed with exit status 1.",
        ),
        ("service-crash", "", "Caught <SEGV>, dumped core as pid 815."),
    ],
)
def test_message_of_domain_2_the_manager_of_services_speaks_for_its_class(fault, name, text):
    said = f"{name}: {text}" if name else text
    (finding,) = judged(LineJudge(Low()), 1e6, said, unit="init.scope", identifier="systemd", pid=1)
    assert max(finding.hints, key=finding.hints.get).value == fault
    assert not name or finding.subjects[0].name == name


def test_cluster_that_is_not_there_at_a_boot_is_no_fault_before_it_stays_away():
    judge, told = LineJudge(Low()), []
    for number in range(32):  # eight lines each six seconds
        text = f"[{'quorum' if number % 2 else 'dcdb'}] crit: cpg_initialize failed: 2"
        told.append(judged(judge, 1e6 + number // 8 * 6.0, text, unit="x.service", identifier="pmxcfs"))
    loud = [bool(one) and one[0].score >= Middle().open_score for one in told]
    assert not any(loud[:16])
    assert any(loud)


@pytest.mark.parametrize(
    ("form", "program"),
    [
        ('time="2026-02-01T10:00:00Z" level=error msg="{}"', "dockerd"),
        ('E0201 10:00:00.000000     815 kubelet.go:2184] "{}"', "kubelet"),
    ],
)
def test_message_in_quotes_is_known_though_its_form_was_seen_before(form, program):
    judge = LineJudge(Low())
    unit = {"unit": "d.service", "identifier": program}
    for number, usual in enumerate(("No such container: a", "fine again")):
        assert not judged(judge, 1e6 + number, form.format(usual), **unit)
    (finding,) = judged(judge, 1e6 + 5, form.format("mkdir /srv/tmp: no space left on device"), **unit)
    assert finding.rule == "known.no-space"


def test_entries_are_tried_in_their_order_whichever_was_met_first():
    judge = LineJudge(Low())
    unit = {"unit": "d.service", "identifier": "dockerd"}
    judged(judge, 1e6, 'level=error msg="heartbeat failed" error="context deadline exceeded"', **unit)
    text = 'level=error msg="Container failed to exit within 10s of kill" error="context deadline exceeded"'
    (finding,) = judged(judge, 1e6 + 5, text, **unit)
    assert finding.rule == "known.container-stays"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("dovecot", "imap-login: Disconnected (auth failed): user=<imap: Panic: file x.c: line 1>, rip=::1"),
        ("haproxy", '192.0.2.7:4 www web/s1 "GET /[ALERT] (1) : Current worker (1) exited with code 139 "'),
        ("nginx", '[error] 7#7: *1 x, request: "GET /] 7#7: *1 recv() failed (104: x) while reading"'),
    ],
)
def test_what_a_stranger_writes_into_a_line_is_not_what_the_server_says(program, text):
    assert not judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)


WEAK = "heap overflow, no space left on device, out of memory, segmentation fault"


@pytest.mark.parametrize(
    "text",
    [
        f"CVE-2026-21026 5.9 MEDIUM D-Link DIR-823: {WEAK}",
        f"CVE-2026-0286 HIGH openssl 3.0.11-1: {WEAK}",
        f"CVE-2026-46218 libcurl4 (remotely exploitable, high urgency): {WEAK}",
    ],
)
def test_a_weakness_in_a_list_is_no_trouble_of_the_host(text):
    assert not judged(LineJudge(Low()), 1e6, text, unit="scan.service", identifier="scan")


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (
            "postgres",
            'PANIC:  could not write to file "base/CVE-2026-10001 9.8 HIGH": No space left on device',
        ),
        ("app", "[Errno 28] No space left on device: '/srv/CVE-2026-10001 9.8 HIGH'"),
        ("rsync", 'rsync: write failed on "/srv/CVE-2026-10001": No space left on device (28)'),
        ("app", "CVE-2026-10001.txt: cannot write: No space left on device"),
        ("copy", "copy CVE-2026-10001 high: write failed: No space left on device"),
        ("mirror", "ERROR mirror CVE-2026-10001 2.1 MB of 4.0 MB: No space left on device"),
    ],
)
def test_a_name_that_looks_like_a_weakness_hides_no_trouble(program, text):
    found = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    assert "disk-full" in {fault.value for one in found for fault in one.hints}


ENOSPC, EMFILE = "No space left on device", "x: Too many open files"
FAILED = '7#7: *1 open() "/var/www/{}" failed ({}), client: 198.51.100.9, server: x, request: "GET /{}"'
NGINX = f"2026/02/01 10:00:00 [error] {FAILED}"
NOT_FOUND = "2: No such file or directory"
BREAKS = f'x" failed (28: {ENOSPC}), client: 198.51.100.9, server: x, request: "x'


@pytest.mark.parametrize(
    ("program", "text"),
    [
        *(
            (program, form.format(said))
            for said in ("ENOSPC", "x ENOSPC", ENOSPC, EMFILE, "x' too many open files 'x")
            for program, form in (
                ("sshd", "Invalid user {} from 198.51.100.9 port 4"),
                ("sshd", "input_userauth_request: invalid user {} [preauth]"),
                ("sshd", "Connection closed by invalid user {} 198.51.100.9 port 4 [preauth]"),
                ("sshd", "Received disconnect from 198.51.100.9 port 4:11: {} [preauth]"),
                ("nginx", NGINX.format("{0}", NOT_FOUND, "{0}")),
                ("web", NGINX.format("{0}", NOT_FOUND, "{0}")),
                ("nginx", NGINX.format("x", NOT_FOUND, 'x", referrer: "{}')),
                ("apache2", "[core:info] [client 198.51.100.9:4] AH00128: File does not exist: /srv/{}"),
                ("dovecot", "imap-login: Login: user=<{}>, method=PLAIN, rip=198.51.100.9"),
                ("named", "client @0x7f 198.51.100.9#4 (x): query (cache) '{}/A/IN' denied"),
                (
                    "haproxy",
                    '192.0.2.7:4 [01/Feb/2026:10:00:00.123] w b/s 0/0/1/1/2 200 9 - - ---- "GET /{}"',
                ),
            )
        ),
        ("nginx", NGINX.format(BREAKS, NOT_FOUND, "x")),
        ("nginx", NGINX.format("x", NOT_FOUND, BREAKS)),
        (
            "nginx",
            f'7#7: *1 "/srv/a" failed (28: {ENOSPC})/index.html" is not found ({NOT_FOUND}), client: x',
        ),
        ("postfix/smtpd", "connect from enospc.isp.example[198.51.100.9]"),
        ("postfix/smtp", f"0815: status=bounced (host mx[192.0.2.7] said: 552 {ENOSPC} (in reply to x))"),
        ("sshd", "Received disconnect from 192.0.2.7 port 4:11: Failed login from 192.0.2.50 [preauth]"),
        ("nginx", NGINX.format("Failed login from 192.0.2.50", NOT_FOUND, "x")),
    ],
)
def test_what_strangers_say_to_a_server_is_no_trouble_of_the_host(program, text):
    judge, told = LineJudge(Low()), []
    for number in range(12):
        unit = program.partition("/")[0]
        fields = {"unit": f"{unit}.service", "identifier": program, "pid": 42, "uid": 0, "priority": 3}
        at = Stamp("b1", 1e6 + number, 1e9 + number)
        told += judge.judge(Line(at=at, source="journal", text=text, **fields), at.mono)
    assert {"disk-full", "fd-exhaustion"}.isdisjoint(fault.value for one in told for fault in one.hints)
    assert all(subject.name != "192.0.2.50" for one in told for subject in one.subjects)


@pytest.mark.parametrize(
    ("fault", "program", "text"),
    [
        ("disk-full", "nginx", NGINX.format("x", f"28: {ENOSPC}", "x")),
        ("disk-full", "nginx", NGINX.format("%d", f"28: {ENOSPC}", "ENOSPC")),
        ("disk-full", "nginx", f'[crit] 7#7: *1 pwrite() "/var/x" failed (28: {ENOSPC}) while reading x'),
        ("fd-exhaustion", "nginx", "[alert] 7#7: accept4() failed (24: Too many open files)"),
        ("disk-full", "nginx", f'7#7: *1 FastCGI sent in stderr: "PHP message: {ENOSPC}" while reading "x"'),
        ("disk-full", "apache2", f"[core:error] (28){ENOSPC}: [client 192.0.2.7:4] AH00036: access to /x"),
        (
            "disk-full",
            "apache2",
            f"[proxy_fcgi:error] [client 192.0.2.7:5] AH01071: Got error 'PHP message: write: {ENOSPC}'",
        ),
        ("fd-exhaustion", "sshd", "error: accept: Too many open files"),
        ("disk-full", "postfix/local", f"0815: to=<al@x>, status=deferred (cannot append to x: {ENOSPC})"),
        ("disk-full", "dovecot", f"imap(al)<7><abc>: Error: write(/srv/mail/x) failed: {ENOSPC}"),
        ("disk-full", "named", f"general: error: open: 'x.jnl': {ENOSPC}"),
        ("dependency-failed", "dovecot", "auth: Error: pgsql: connect to host=db user=a: Connection refused"),
    ],
)
def test_trouble_that_a_server_has_itself_is_told(fault, program, text):
    unit = f"{program.partition('/')[0]}.service"
    (finding,) = judged(LineJudge(Low()), 1e6, text, unit=unit, identifier=program)
    assert max(finding.hints, key=finding.hints.get) == fault


def test_error_that_the_hardware_corrected_is_a_warning_and_one_that_it_did_not_an_error():
    head = {"source": "kernel", "identifier": "kernel", "pid": 0}
    for text, severity in (
        ("{1}[Hardware Error]: event severity: corrected", "warning"),
        ("mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 9: 8c000042000800c0", "warning"),
        (
            "[Hardware Error]: CPU:2 (17:71:0) MC17_STATUS[-|CE|MiscV|AddrV|-|-]: 0x9c20400000",
            "warning",
        ),
        ("mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: bea0000000000108", "error"),
        ("[Hardware Error]: CPU:2 (17:71:0) MC17_STATUS[-|UE|MiscV|AddrV|PCC]: 0xbc20000000", "error"),
        ("{1}[Hardware Error]: event severity: recoverable", "error"),
    ):
        (finding,) = judged(LineJudge(Low()), 1e6, text, **head)
        assert finding.severity.value == severity, text


@pytest.mark.parametrize(
    ("program", "text", "device"),
    [
        ("smartd", "Device: /dev/nvme0, Critical Warning (0x04): Reliability", "nvme0"),
        ("smartd", "Device: /dev/sdb [SAT], unable to open ATA device", "sdb"),
        ("multipathd", "checker failed path sdb in map mpatha", "sdb"),
        ("multipathd", "checker failed path 8:16 in map mpatha", "multipathd.service"),
    ],
)
def test_disk_that_a_daemon_speaks_of_is_named_as_the_kernel_names_it(program, text, device):
    (finding,) = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    assert finding.subjects[0].name == device


def test_corrected_errors_of_a_bus_are_told_only_where_they_are_many():
    judge, told = LineJudge(Low()), []
    text = "pcieport 0000:00:1c.0: AER: Correctable error message received from 0000:02:00.0"
    for number in range(100):
        told += judged(judge, 1e6 + 0.1 * number, text, source="kernel", identifier="kernel", pid=0)
        assert number > 18 or all(one.score < 0.5 for one in told)
    assert any(one.score >= 0.5 for one in told)


_KEYCLOAK = 'WARN  [org.keycloak.events] (executor-1) type="LOGIN_ERROR", realmId="x"'
_AUTHELIA = "Unsuccessful 1FA authentication attempt by user"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("jellyfin", 'Authentication request for "admin" has been denied (IP: 192.0.2.7).'),
        ("jellyfin", "Authentication request for admin has been denied (IP: 192.0.2.7)."),
        ("keycloak", f'{_KEYCLOAK}, clientId="admin", ipAddress="192.0.2.7", error="user_not_found"'),
        ("paperless", "[paperless.auth] Login failed for user `admin` from IP `192.0.2.7`."),
        ("authelia", f"level=error msg=\"{_AUTHELIA} 'admin'\" method=POST remote_ip=192.0.2.7"),
        ("immich", "Failed login attempt for user admin from ip address 192.0.2.7"),
        ("phpmyadmin", "user denied: admin (mysql-denied) from 192.0.2.7"),
    ],
)  # fmt: skip
def test_who_guesses_passwords_of_an_application_is_named_and_nobody_else(program, text):
    judge, told = LineJudge(Low()), []
    for number in range(40):
        told += judge.judge(said := _said(program, text, 1e6 + number), said.at.mono)
    named = {one.name for finding in told for one in finding.subjects if one.kind == "address"}
    assert named == {"192.0.2.7"}
    judge, name = LineJudge(Low()), text.replace("192.0.2.7", "198.51.100.9").replace('"', '\\"')
    for number in range(40):
        said = _said(program, text.replace("admin", name), 1e6 + number)
        for finding in judge.judge(said, said.at.mono):
            assert all(one.name != "198.51.100.9" for one in finding.subjects)


def _said(program, text, t):
    said = {"unit": f"{program}.service", "identifier": program, "pid": 42, "uid": 990}
    return Line(at=Stamp("b1", t, 1e9 + t), source="journal", text=text, **said)


@pytest.mark.parametrize(("program", "priority", "text"), rows("everyday.tsv"))
def test_what_healthy_hosts_say_every_week_wakes_nobody(program, priority, text):
    judge = LineJudge(Low())
    for _ in range(6):  # pollers say it again and again
        source = "kernel" if program == "kernel" else "journal"
        pid = {"kernel": 0, "systemd": 1}.get(program, 42)
        line = {"source": source, "pid": pid, "unit": f"{program}.service" if pid > 1 else ""}
        found = judged(judge, 1e6, text, identifier=program, priority=int(priority), **line)
        believed = [one.score * min(1.0, max(one.hints.values(), default=0.0) / 0.5) for one in found]
        assert max(believed, default=0.0) < Middle().open_score


@pytest.mark.parametrize(
    ("program", "fault", "text"),
    [
        ("dockerd", "service-hung", "Container 01 failed to exit within 10s of kill - trying direct SIGKILL"),
        ("systemd-networkd", "link-down", "br0: Lost carrier"),
        ("mysqld", "filesystem-corrupt", "InnoDB: Database page corruption on disk or a failed read of file"),
        ("postgres", "filesystem-corrupt", "ERROR:  invalid page in block 17 of relation base/16384/16397"),
        ("postgres", "config-error", 'LOG:  syntax error in file "postgresql.conf" line 3, near token "x"'),
        ("zed", "disk-failing", "eid=31 class=statechange pool='tank' vdev=sdb1 vdev_state=FAULTED"),
    ],
)
def test_their_neighbours_that_are_faults_are_told(program, fault, text):
    (finding,) = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    assert max(finding.hints, key=finding.hints.get).value == fault


def test_a_device_that_lost_its_link_is_named_though_its_manager_says_carrier_first():
    said = "device (eth0): carrier: link disconnected"
    unit = {"unit": "NetworkManager.service", "identifier": "NetworkManager"}
    (finding,) = judged(LineJudge(Low()), 1e6, said, **unit)
    assert finding.subjects[0].name == "eth0"
