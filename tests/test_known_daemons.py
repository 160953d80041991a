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


# Daemons of disks, arrays, clusters, batteries and boards.
MORE_4 = {
    "disk-failing": [
        ("smartd", "Device: /dev/nvme0, Critical Warning (0x04): Reliability"),
        ("smartd", "Device: /dev/sda [SAT], Failed SMART usage Attribute: 5 Reallocated_Sector_Ct."),
        ("multipathd", "checker failed path 8:16 in map mpatha"),
        ("multipathd", "mpatha: sdb - tur checker reports path is down"),
        ("dmeventd", "Device #1 of raid1 array, vg0-home, has failed."),
        ("dmeventd", "Primary mirror device vg0-home_mimage_0 has failed (D)."),
        (
            "ceph-mon",
            "cluster [ERR] Health check failed: Possible data damage: 1 pg inconsistent (PG_DAMAGED)",
        ),
        ("conmon", "log_channel(cluster) log [ERR] : 2.1f deep-scrub 1 errors"),
    ],
    "device-lost": [
        ("smartd", "Device: /dev/sdb [SAT], unable to open ATA device"),
        ("mdadm", "DeviceDisappeared event detected on md device /dev/md0"),
        ("multipathd", "mpatha: remaining active paths: 0"),
        ("lvm", "WARNING: VG vg0 is missing PV 0815-4711 (last written to /dev/sdb1)."),
        ("zpool", "cannot import 'tank': one or more devices is currently unavailable"),
        ("apcupsd", "Communications with UPS lost."),
    ],
    "hardware-error": [
        ("smartd", "Device: /dev/nvme0, Critical Warning (0x02): Temperature"),
        ("apcupsd", "Battery power exhausted."),
        ("apcupsd", "UPS battery must be replaced."),
        ("upsmon", "UPS ups@localhost battery is low"),
        ("upsmon", "Executing automatic power-fail shutdown"),
        ("ipmievd", "Power Supply sensor PS1 Status Failure detected Asserted"),
        ("ipmievd", "Fan sensor FAN1 Lower Critical going low  Asserted (Reading 300 < Threshold 500 RPM)"),
        ("rasdaemon", "mc_event: 2026-02-01 10:00:00 +0000 1 Corrected error: memory read error on DIMM_A1"),
        ("mcelog", "Corrected memory errors on page 12345000 exceed threshold 10 in 24h: 10 in 24h"),
        ("sensord", "Sensor alarm: Chip nct6775-isa-0290: CPU Fan: 0 RPM (min = 300 RPM) [ALARM]"),
    ],
    "disk-full": [("ceph-mon", "cluster [WRN] Health check failed: 1 nearfull osd(s) (OSD_NEARFULL)")],
    "dependency-failed": [
        ("ceph-mon", "cluster [WRN] Health check failed: 1 osds down (OSD_DOWN)"),
        ("glusterd", "0-management: Server quorum lost for volume gv0. Stopping local bricks."),
    ],
    "io-saturation": [("ceph-mon", "cluster [WRN] Health check failed: 12 slow ops (SLOW_OPS)")],
    "clock-jump": [
        ("ceph-mon", "cluster [WRN] Health check failed: clock skew detected on mon.b (MON_CLOCK_SKEW)")
    ],
    "service-crash": [
        ("ceph-mon", "cluster [WRN] Health check failed: 1 daemons have recently crashed (RECENT_CRASH)")
    ],
    "config-error": [("fancontrol", "Device path of hwmon2 has changed")],
    "": [
        ("ceph-mon", "cluster [INF] Health check cleared: OSD_DOWN (was: 1 osds down)"),
        ("ceph-mon", "cluster [WRN] Health check failed: noout flag(s) set (OSDMAP_FLAGS)"),
        ("multipathd", "mpatha: remaining active paths: 4"),
        ("ipmievd", "Power Supply sensor PS1 Status Presence detected Asserted"),
        ("mdadm", "DeviceDisappeared event detected on md device /dev/md0, component device  Wrong-Level"),
    ],
}


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in MORE_4 for one in MORE_4[fault]]
)
def test_message_of_domain_4_storage_and_hardware_speaks_for_its_class(fault, program, text):
    test_message_of_a_daemon_speaks_for_its_class(fault, program, text)


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
    ("kernel", 6, "ata3: link is slow to respond, please be patient (ready=0)"),
    ("kernel", 3, "ata7.00: qc timeout (cmd 0xa0)"),
    ("kernel", 4, "EXT4-fs (sda1): warning: mounting unchecked fs, running e2fsck is recommended"),
    ("kernel", 3, "usb 1-3: device descriptor read/64, error -71"),
    ("kernel", 3, "pcieport 0000:00:1c.0: PCIe Bus Error: severity=Correctable, type=Physical Layer"),
    ("kernel", 4, "pcieport 0000:00:1c.0: AER: Corrected error message received from 0000:02:00.0"),
    ("kernel", 3, "critical target error, dev sdb, sector 0 op 0x3:(DISCARD) flags 0x800 phys_seg 1"),
    ("kernel", 3, "XFS (sdb1): Invalid superblock magic number"),
    ("kernel", 3, "NVRM: Xid (PCI:0000:01:00): 45, pid=815, name=worker, Ch 00000008"),
    ("irqbalance", 4, "Cannot change IRQ 27 affinity: Input/output error"),
    ("smartd", 6, "Device: /dev/sda [SAT], Temperature 46 Celsius reached limit of 45 Celsius (Min/Max 25)"),
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
