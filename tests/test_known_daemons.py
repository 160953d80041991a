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


MORE_1 = {
    "connection-flood": [
        ("memcached", "Too many open connections"),
        ("zookeeper", "WARN  [NIOServerCnxnFactory@288] - Too many connections from /10.0.0.7 - max is 60"),
        ("app", "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, timed out"),
        ("app", "HikariPool-1 - Connection is not available, request timed out after 30000ms."),
        ("pgbouncer", "WARNING C-0x55: shop/web@10.0.0.7:4711 pooler error: query_wait_timeout"),
        ("clickhouse-server", "<Error> Code: 252. DB::Exception: Too many parts (9). Merges are processing"),
    ],
    "dependency-failed": [
        ("mosquitto", "1795935600: Error creating bridge: Connection refused."),
        ("mariadbd", "[ERROR] Slave SQL: Could not execute Update_rows_v1 event on table shop.orders"),
        ("mysqld", "[ERROR] [Repl] Replica SQL for channel '': Worker 1 failed executing transaction"),
        ("mariadbd", "[ERROR] Slave I/O: Got fatal error 1236 from master when reading data from binary log"),
        ("mariadbd", "[ERROR] WSREP: It may not be safe to bootstrap the cluster from this node."),
        ("redis-sentinel", "815:X 01 Feb 2026 10:00:00.000 # +odown master shop 192.0.2.7 6379 #quorum 2/2"),
        ("patroni", "INFO: demoting self because DCS is not accessible and I was a leader"),
        ("patroni", "ERROR: Error communicating with DCS"),
        ("redis-server", "# MASTER aborted replication with an error: NOAUTH Authentication required."),
        ("postgres", 'FATAL:  could not start WAL streaming: ERROR:  replication slot "b" does not exist'),
        ("nats-server", "[WRN] JetStream cluster stream '$G > ORDERS' has NO quorum, stalled"),
        ("rabbitmq-server", "mnesia got {inconsistent_database, running_partitioned_network, rabbit@b}"),
        ("slapd", "do_syncrepl: rid=001 rc -1 retrying"),
        ("pgbouncer", "LOG S-0x55: shop/web@10.0.0.8:5432 closing because: connect failed (age=0s)"),
        ("app", "READONLY You can't write against a read only replica."),
    ],
    "service-hung": [
        ("mariadbd", "[ERROR] [FATAL] InnoDB: innodb_fatal_semaphore_wait_threshold was exceeded for x"),
        ("postgres", 'ERROR:  database is not accepting commands to avoid wraparound data loss in "x"'),
        ("postgres", 'WARNING:  database "shop" must be vacuumed within 10985967 transactions'),
    ],
    "io-saturation": [
        ("etcd", '"msg":"apply request took too long","took":"2.143s","expected-duration":"100ms"'),
        ("zookeeper", "fsync-ing the log took 2814ms which will adversely effect operation latency."),
    ],
    "filesystem-corrupt": [
        ("postgres", "PANIC:  could not locate a valid checkpoint record"),
        ("postgres", 'ERROR:  could not read block 7 in file "base/1/2": read only 0 of 8192 bytes'),
        ("postgres", "ERROR:  missing chunk number 0 for toast value 815 in pg_toast_16384"),
        ("mariadbd", "[ERROR] mysqld: Incorrect key file for table './shop/orders.MYI'; try to repair it"),
        ("elasticsearch", "org.apache.lucene.index.CorruptIndexException: checksum failed"),
        ("cassandra", "ERROR org.apache.cassandra.io.sstable.CorruptSSTableException: Corrupted: /srv/x.db"),
        ("clickhouse-server", "<Error> shop.orders: Detaching broken part /var/lib/clickhouse/all_1_1_0"),
        ("slapd", "mdb_db_open: database cannot be opened: MDB_CORRUPTED: Located page was wrong type"),
        ("app", "sqlite3.DatabaseError: database disk image is malformed"),
        ("grafana", "open /var/lib/grafana/x: read-only file system"),
    ],
    "memory-exhaustion": [
        ("elasticsearch", "[WARN ][JvmGc] [a] [gc][815] overhead, spent [830ms] collecting in the last"),
        ("clickhouse-server", "<Error> DB::Exception: (total) memory limit exceeded: would use 14.32 GiB"),
        ("influxd", 'lvl=warn msg="Write failed" error="engine: cache-max-memory-size exceeded: (9/8)"'),
        ("postgres", 'ERROR:  could not resize shared memory segment "/x": No space left on device'),
        ("postgres", "ERROR:  out of shared memory"),
        ("vector", "mmap /srv/index: cannot allocate memory"),
    ],
    "disk-failing": [
        ("prometheus", 'level=error msg="WAL truncation failed" err="read /data/wal: input/output error"'),
        ("mariadbd", "[ERROR] InnoDB: Operating system error number 5 in a file operation."),
    ],
    "disk-full": [
        ("app", "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, x]"),
        ("etcd", '{"level":"warn","msg":"alarm raised","alarm":"NOSPACE","from":"8e9e05c52164694d"}'),
        ("slapd", "mdb_id2entry_put: mdb_put failed: MDB_MAP_FULL: Environment mapsize limit reached"),
        ("ns-slapd", "CRIT - Disk space is critically low on disk (/var), remaining space: 9 Kb."),
        ("nats-server", "[ERR] JetStream out of resources, will be DISABLED"),
        ("mysqld", "[ERROR] [MY-010907] [Server] The table 'orders' is full"),
    ],
    "fd-exhaustion": [("rabbitmq-server", "[warning] <0.815.0> file descriptor limit alarm set.")],
    "clock-jump": [("etcd", '"msg":"prober found high clock drift","clock-drift":"4.1s"')],
    "config-error": [
        ("postgres", 'FATAL:  lock file "postmaster.pid" already exists'),
        ("postgres", "FATAL:  could not load pg_hba.conf"),
        ("postgres", "FATAL:  database files are incompatible with server"),
        ("mysqld", "[ERROR] [MY-012574] [InnoDB] Unable to lock ./ibdata1 error: 11"),
        ("mysqld", "[ERROR] --initialize specified but the data directory has files in it. Aborting."),
        ("mongod", '"msg":"DBException in initAndListen, terminating","attr":{"error":"NonExistentPath"}'),
        ("redis-server", "Can't open the append-only file: Permission denied"),
        ("redis-server", "# Can't handle RDB format version 11"),
        ("prometheus", "panic: Unable to create mmap-ed active query log"),
        ("prometheus", 'err="opening storage failed: lock DB directory: resource temporarily unavailable"'),
        ("mosquitto", '1795935600: Error: Unable to open pwfile "/etc/mosquitto/passwd".'),
        ("elasticsearch", "[ERROR][o.e.b.Elasticsearch] [1] bootstrap checks failed."),
        ("app", "sqlite3.OperationalError: attempt to write a readonly database"),
        ("app", "sqlite3.OperationalError: unable to open database file"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in MORE_1 for one in MORE_1[fault]]
)
def test_message_of_domain_1_speaks_for_its_class(fault, program, text):
    test_message_of_a_daemon_speaks_for_its_class(fault, program, text)


ASKED = '192.0.2.7 - - [01/Feb/2026:10:00:00 +0000] "GET /ENOSPC HTTP/1.1" 200 9 "-" "too many open files"'


def test_what_a_stranger_asks_for_accuses_no_server():
    assert not judged(LineJudge(Low()), 1e6, ASKED, unit="nginx.service", identifier="nginx")
    assert not judged(LineJudge(Low()), 1e6, f"www.example:443 {ASKED}", unit="app.service", identifier="app")


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
    ("postgres", 4, "web@shop STATEMENT:  INSERT INTO told VALUES ('No space left on device')"),
    ("postgres", 6, "web@shop LOG:  duration: 12.345 ms  statement: SELECT 'Too many open files'"),
    ("postgres", 6, "web@shop LOG:  duration: 9.1 ms  execute <unnamed>: SELECT 'Out of memory' = $1"),
    ("postgres", 6, "web@shop DETAIL:  parameters: $1 = 'certificate has expired', $2 = '7'"),
    ("postgres", 4, 'web@shop ERROR:  invalid input syntax for type integer: "Out of memory"'),
    ("loki", 6, 'level=info ts=1 caller=metrics.go:159 org_id=fake query="{app=x} |= `Out of memory`"'),
    ("clickhouse-server", 6, "2026.02.01 10:00:00.123456 [ 8 ] {a} <Debug> executeQuery: SELECT 'ENOSPC'"),
    ("elasticsearch", 6, "[INFO ][JvmGcMonitorService] [a] [gc][8] overhead, spent [300ms] collecting in"),
    ("containerd", 3, "copy failed: read /dev/ptmx: input/output error"),
    ("etcd", 6, '"msg":"apply request took too long","took":"143.1ms","expected-duration":"100ms"'),
    ("mysqld", 4, "[Warning] IP address '192.0.2.7' could not be resolved: Name or service not known"),
    ("mariadbd", 6, "[Note] WSREP: New cluster view: view# -1: non-Primary, number of nodes: 0, my"),
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
