"""What widely used daemons say of their own trouble: the class that each line speaks for, or none."""

import pytest

from daemon.messages import Line, Stamp
from daemon.settings import Low, Middle
from daemon.tiers.lines import LineJudge

SAID = {
    "connection-flood": [
        ("uwsgi", '*** uWSGI listen queue of socket "127.0.0.1:3031" (fd: 3) full !!! (101/100) ***'),
        ("apache2", "[mpm_event:error] [pid 7:tid 7] AH00288: scoreboard is full, not at MaxRequestWorkers"),
        (
            "dovecot",
            "service(imap-login): process_limit (100) reached, client connections are being dropped",
        ),
        ("nginx", "2026/02/01 10:00:00 [alert] 7#7: 1024 worker_connections are not enough"),
        ("java", "java.net.NoRouteToHostException: Cannot assign requested address"),
        ("python3", "OSError: [Errno 99] Cannot assign requested address"),
    ],
    "name-resolution": [
        ("sh", "curl: (28) Resolving timed out after 20000 milliseconds"),
        ("named", "zone example.org/IN: expired"),
        ("dnsmasq", "Maximum number of concurrent DNS queries reached (max: 150)"),
    ],
    "link-down": [
        ("openvpn", "2026-02-01 10:00:00 Inactivity timeout (--ping-restart), restarting"),
        ("openvpn", "TLS Error: TLS key negotiation failed to occur within 60 seconds (check your network)"),
        ("charon", "11[IKE] giving up after 5 retransmits"),
        ("pppd", "No response to 4 echo-requests"),
        ("wpa_supplicant", "wlan0: WPA: 4-Way Handshake failed - pre-shared key may be incorrect"),
        ("bird", "office: Error: Hold timer expired"),
        ("keepalived", "(VI_1) Entering FAULT STATE"),
        ("ifup", 'Cannot find device "eth7"'),
        ("ifup", "ifup: failed to bring up eth7"),
    ],
    "dependency-failed": [
        (
            "corosync",
            "[QUORUM] This node is within the non-primary component and will NOT provide any service",
        ),
        ("redis-server", "7:S 01 Feb 2026 10:00:00.000 # Connection with master lost."),
        ("postgres", "FATAL:  could not connect to the primary server: connection refused"),
        ("app", "ERROR:  canceling statement due to lock timeout"),
        ("app", "sqlite3.OperationalError: database is locked"),
        ("postgres", "FATAL:  could not send end-of-streaming message to primary: no COPY in progress"),
        ("systemd-networkd-wait-online", "Timeout occurred while waiting for network connectivity."),
        ("rsyslogd", "action 'action-1-builtin:omfwd' suspended (module 'builtin:omfwd'), next retry is x"),
    ],
    "service-hung": [
        ("postgres", "ERROR:  canceling statement due to lock timeout"),
    ],
    "io-saturation": [("redis-server", "Asynchronous AOF fsync is taking too long (disk is busy?).")],
    "filesystem-corrupt": [
        ("postgres", "WARNING:  page verification failed, calculated checksum 7 but expected 9"),
        ("redis-server", "# Bad file format reading the append only file: make a backup of your AOF file"),
    ],
    "memory-exhaustion": [
        ("rabbitmq-server", "memory resource limit alarm set on node rabbit@web."),
        ("java", 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space'),
        ("sh", 'sending SIGTERM to process 7 uid 0 "java": badness 900, VmRSS 900 MiB'),
    ],
    "disk-full": [
        ("rabbitmq-server", "disk resource limit alarm set on node rabbit@web. Free bytes:49000000."),
        ("etcd", "mvcc: database space exceeded"),
        ("dmeventd", "WARNING: Snapshot vg0-home is now 95.01% full."),
    ],
    "fd-exhaustion": [
        ("squid", "WARNING! Your cache is running out of filedescriptors"),
        ("node", "Error: ENOSPC: System limit for number of file watchers reached, watch '/srv/app'"),
    ],
    "privilege-misuse": [("usermod", "add 'postgres' to group 'wheel'")],
    "crash-loop": [
        ("uwsgi", "worker respawning too fast !!! i have to sleep a bit (2 seconds)..."),
        ("php-fpm", "WARNING: failed processes threshold (10 in 60 sec) is reached, initiating reload"),
        ("supervisord", "2026-02-01 10:00:00,000 WARN exited: web (terminated by SIGSEGV; not expected)"),
        ("pm2", "PM2 App [api:0] exited with code [1] via signal [SIGINT]"),
    ],
    "service-crash": [
        (
            "gunicorn",
            "[2026-02-01 10:00:00 +0000] [7] [WARNING] Worker with pid 9 was terminated due to signal 11",
        ),
        ("gunicorn", "[ERROR] Reason: Worker failed to boot."),
        ("libvirtd", "internal error: qemu unexpectedly closed the monitor"),
    ],
    "config-error": [
        ("gunicorn", "[ERROR] Connection in use: ('0.0.0.0', 8000)"),
        ("named", "zone example.org/IN: loading from master file db.example failed: syntax error"),
        ("postgres", "2026-02-01 10:00:00 UTC [7] web@shop ERROR:  permission denied for table orders"),
        ("nsd", "zone example.org file example.zone read with 2 errors"),
        (
            "dockerd",
            "driver failed programming external connectivity: Bind for 0.0.0.0:80: port is already allocated",
        ),
    ],
    "": [  # what is said on any healthy host
        ("gunicorn", "[7] [WARNING] Worker with pid 9 was terminated due to signal 15"),
        ("openvpn", "10.0.0.7:1194 TLS Error: TLS key negotiation failed to occur within 60 seconds"),
        ("openvpn", "read UDPv4 [ECONNREFUSED]: Connection refused (fd=4,code=111)"),
        ("keepalived", "(VI_1) Entering MASTER STATE"),
        ("rsync", "rsync error: some files vanished before they could be transferred (code 24)"),
        ("app", "the deadlock detector has been started"),
        ("node", "  code: 'ENOSPC',"),
        ("supervisord", "2026-02-01 10:00:00,000 INFO exited: report (exit status 0; expected)"),
        ("usermod", "add 'alice' to group 'audio'"),
        ("redis-server", "Connecting to MASTER 192.0.2.7:6379"),
    ],
}


def judged(judge, t, text, **fields):
    fields = {"source": "journal", "pid": 42, "uid": 0, "priority": 4} | fields
    return [
        one
        for one in judge.judge(Line(at=Stamp("b1", t, 1e9 + t), text=text, **fields), t)
        if one.rule.startswith("known.")
    ]


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in SAID for one in SAID[fault]]
)
def test_message_of_a_daemon_speaks_for_its_class(fault, program, text):
    found = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    hints = found[0].hints if found else {}
    assert (max(hints, key=hints.get).value if hints else "") == fault


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


MORE_2 = {
    "config-error": [
        ("dockerd", "failed to start daemon: error initializing graphdriver: driver not supported: overlay2"),
        (
            "dockerd",
            'error="OCI runtime create failed: runc: exec: \\"/app\\": stat /app: no such file or directory"',
        ),
        (
            "dockerd",
            'msg="Health check for container 1 error: exec: \\"curl\\": executable file not found in $PATH"',
        ),
        ("podman", "Error: rootlessport listen tcp 0.0.0.0:80: bind: permission denied"),
        ("podman", "Error: initializing source docker://x/y:1: requested access to the resource is denied"),
        ("containerd", 'level=fatal msg="failed to load TOML: /etc/containerd/config.toml: (3, 5): bad"'),
        (
            "kubelet",
            'err="failed to run Kubelet: running with swap on is not supported, please disable swap!"',
        ),
        (
            "libvirtd",
            'internal error: process exited while connecting to monitor: qemu: Failed to get "write" lock',
        ),
        ("qemu-system-x86_64", "Could not access KVM kernel module: No such file or directory"),
        ("gitlab-runner", "ERROR: Checking for jobs... forbidden  runner=abc status=403 Forbidden"),
        ("jenkins", "Running with Java 11, which is older than the minimum required version (Java 17)."),
        ("systemd-cryptsetup", "Device /dev/disk/by-uuid/x is not a valid LUKS device."),
        ("systemd-remount-fs", "/usr/bin/mount for / exited with exit status 32."),
    ],
    "dependency-failed": [
        ("kubelet", '"Skipping pod synchronization" err="container runtime is down"'),
        (
            "dockerd",
            'msg="Not continuing with pull after error: toomanyrequests: You have reached your limit"',
        ),
        (
            "containerd",
            'failed to resolve reference "docker.io/library/x:1": docker.io/library/x:1: not found',
        ),
        ("pvestatd", "unable to activate storage 'nas' - directory '/mnt/pve/nas' does not exist"),
        ("pvescheduler", "ERROR: Backup of VM 101 failed - vma_queue_write: write error - Broken pipe"),
        ("pmxcfs", "[status] notice: node lost quorum"),
    ],
    "name-resolution": [
        (
            "containerd",
            'failed to resolve reference "docker.io/x:1": dial tcp: lookup docker.io: no such host',
        ),
    ],
    "disk-full": [
        ("dockerd", "failed to start daemon: mkdir /var/lib/docker/tmp: no space left on device"),
        (
            "pvescheduler",
            "ERROR: Backup of VM 100 failed - job failed with err -28 - No space left on device",
        ),
        ("jenkins", "Making Built-In Node offline temporarily due to the lack of disk space"),
        (
            "kubelet",
            '"Image garbage collection failed" err="Failed to garbage collect required amount of images"',
        ),
    ],
    "memory-exhaustion": [
        (
            "libvirtd",
            "qemu unexpectedly closed the monitor: cannot set up guest memory: Cannot allocate memory",
        ),
    ],
    "fd-exhaustion": [
        ("k3s", "Error while processing event: inotify_add_watch /sys/fs/cgroup/x: no space left on device"),
    ],
    "service-crash": [
        ("qemu-kvm", "KVM: entry failed, hardware error 0x80000021"),
        ("incusd", 'level=error msg="Failed to auto start instance" err="x" instance=web project=default'),
    ],
    "service-hung": [
        ("dockerd", 'msg="Container failed to exit within 10s of kill" error="context deadline exceeded"'),
        ("podman", "container health_status 08 (image=x, name=web, health_status=unhealthy, health_log=)"),
        (
            "pvestatd",
            "VM 1 qmp command failed - unable to connect to VM 1 qmp socket - timeout after 51 retries",
        ),
        ("k3s", '"Skipping pod synchronization" err="PLEG is not healthy: pleg was last seen active 4m ago"'),
        ("(udev-worker)", "sdb: Spawned process 'ata_id /dev/sdb' [8] timed out after 2min 59s, killing"),
        ("udevadm", "Timed out for waiting the udev queue being empty."),
    ],
    "crash-loop": [
        (
            "nomad",
            'client: not restarting task: task=web reason="Exceeded allowed attempts 3 in interval 30m0s"',
        ),
        ("k3s", "CrashLoopBackOff: back-off 5m0s restarting failed container=web"),
    ],
}


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in MORE_2 for one in MORE_2[fault]]
)
def test_message_of_domain_2_guests_and_their_managers_speaks_for_its_class(fault, program, text):
    found = judged(LineJudge(Low()), 1e6, text, unit=f"{program}.service", identifier=program)
    hints = found[0].hints if found else {}
    assert (max(hints, key=hints.get).value if hints else "") == fault


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


EVERYDAY = [
    ("dockerd", 6, 'level=info msg="Container failed to exit within 10s of signal 15 - using the force"'),
    ("systemd-networkd", 6, "veth3f2a1b0: Lost carrier"),
    ("systemd-networkd", 6, "docker0: Lost carrier"),
    ("libvirtd", 3, "End of file while reading data: Input/output error"),
    ("agetty", 3, "/dev/ttyS0: failed to get terminal attributes: Input/output error"),
    ("systemd-sysctl", 4, "Couldn't write '1' to 'kernel/sysrq', ignoring: Read-only file system"),
    ("sshd", 2, "fatal: Timeout before authentication for 192.0.2.7 port 40022"),
    ("sshd", 2, "fatal: userauth_pubkey: parse packet: incomplete message [preauth]"),
    ("smartd", 2, "Device: /dev/nvme0, number of Error Log entries increased from 12 to 13"),
    ("kernel", 3, "I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2"),
    ("kernel", 3, "Buffer I/O error on dev sr0, logical block 0, async page read"),
    ("kernel", 6, "mmc0: card aaaa removed"),
    ("kernel", 4, "EXT4-fs (sda1): warning: maximal mount count reached, running e2fsck is recommended"),
    ("kernel", 4, "BTRFS warning (device sda1): failed to trim 1 block group(s), last error -512"),
    ("chronyd", 4, "Forward time jump detected!"),
    ("postgres", 6, '[815] ERROR:  syntax error at or near "FORM" at character 10'),
    ("postgres", 6, 'FATAL:  invalid value for parameter "TimeZone": "Asia/Calcutta"'),
    ("zed", 5, "eid=20 class=statechange pool='tank' vdev=sdb1 vdev_state=ONLINE"),
    ("dovecot", 6, "imap-login: Maximum number of connections from user+IP exceeded (limit=10): user=<al>"),
    ("postfix/smtpd", 4, "hostname x does not resolve to address 192.0.2.9: Name or service not known"),
    ("named", 6, "SERVFAIL unexpected RCODE resolving '4.3.2.1.in-addr.arpa/PTR/IN': 192.0.2.3#53"),
    ("systemd", 4, "session-123.scope: Failed with result 'resources'."),
    ("systemd", 3, "Failed to start session-123.scope - Session 123 of User bob."),
    ("udisksd", 4, "failed to load module mdraid: libbd_mdraid.so.2: cannot open shared object file"),
    ("app", 4, "object 'x.so' from LD_PRELOAD cannot be preloaded (cannot open shared object file)"),
    ("containerd", 6, 'level=warning msg="cleaning up after shim disconnected" id=0815 namespace=moby'),
    ("dockerd", 6, 'msg="OCI runtime exec failed: exec: sh: executable file not found in $PATH: unknown"'),
    ("conmon", 3, "conmon 08 <error>: Unable to send container stderr message to parent Broken pipe"),
    ("libvirtd", 3, "internal error: End of file from qemu monitor"),
    ("kubelet", 6, '"Skipping pod synchronization" err="PLEG is not healthy: pleg has yet to be successful"'),
    ("pmxcfs", 2, "[quorum] crit: quorum_initialize failed: 2"),
    ("pvescheduler", 3, "ERROR: Backup of VM 100 failed - interrupted by signal"),
    ("dbus-daemon", 4, "[system] Failed to activate service 'org.bluez': timed out (25000ms)"),
    ("systemd-networkd", 6, "wg0: Lost carrier"),
    ("systemd-networkd", 6, "ve-web: Lost carrier"),
    ("NetworkManager", 6, "device (br-0815): state change: activated -> unavailable (reason 'x')"),
    ("systemd", 4, "session-3.scope: Stopping timed out. Killing."),
    ("systemd", 4, "session-3.scope: Failed with result 'timeout'."),
    ("systemd", 3, "/lib/systemd/system-generators/systemd-gpt-auto-generator failed with exit status 1."),
]  # fmt: skip


@pytest.mark.parametrize(("program", "priority", "text"), EVERYDAY)
def test_what_healthy_hosts_say_every_week_wakes_nobody(program, priority, text):
    judge = LineJudge(Low())
    for _ in range(6):  # pollers say it again and again
        source = "kernel" if program == "kernel" else "journal"
        pid = {"kernel": 0, "systemd": 1}.get(program, 42)
        line = {"source": source, "pid": pid, "unit": f"{program}.service" if pid > 1 else ""}
        found = judged(judge, 1e6, text, identifier=program, priority=priority, **line)
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
