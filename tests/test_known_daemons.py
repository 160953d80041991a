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


NO_ROOM = (
    "[error] 7#7: *1 connect() to unix:/run/x.sock failed (11: Resource temporarily unavailable) "
    "while connecting to upstream"
)
NO_FILTER = (
    "3F2A1B0C9D: to=<al@example.org>, relay=none, delay=3, delays=0/0/3/0, dsn=4.4.1, "
    "status=deferred (connect to example.org[private/dovecot-lmtp]: No such file or directory)"
)
MORE_3 = {
    "config-error": [
        ("postfix/smtpd", "fatal: open database /etc/postfix/virtual.db: No such file or directory"),
        ("postfix", "fatal: parameter inet_interfaces: no local interface found for 192.0.2.5"),
        ("postfix/smtp", "3F2A1B0C9D: SASL authentication failed; server mx.example[192.0.2.25] said: 535"),
        ("dovecot", "imap-login: Error: Failed to initialize SSL server context: Can't load certificate"),
        ("opendkim", "can't load key from /etc/opendkim/keys/mail.private: Permission denied"),
        ("dhcpd", "Not configured to listen on any interfaces!"),
        ("openvpn", "AUTH: Received control message: AUTH_FAILED"),
        ("wg-quick", "Line unrecognized: `Foo=bar'"),
        ("pppd", "PAP authentication failed"),
        ("hostapd", "1 errors found in configuration file '/etc/hostapd/hostapd.conf'"),
        ("nginx", "[crit] 7#7: *1 connect() to unix:/run/x.sock failed (13: Permission denied) while x"),
        ("apache2", "[ssl:emerg] [pid 7] AH02572: Failed to configure at least one certificate and key"),
        ("haproxy", "[ALERT]    (7) : config : parsing [/etc/haproxy/haproxy.cfg:1] : unknown keyword 'foo'"),
        ("php-fpm8.2", "ERROR: [pool www] cannot get uid for user 'foo'"),
        ("sshd", 'fatal: bad ownership or modes for chroot directory component "/srv/sftp/"'),
        ("sshd", "Authentication refused: bad ownership or modes for directory /home/al"),
        ("nft", "/etc/nftables.conf:12:5-9: Error: syntax error, unexpected string"),
        ("chronyd", "Fatal error : adjtimex(0x8001) failed : Operation not permitted"),
        ("fail2ban.actions", "Failed to execute ban jail 'sshd' action 'iptables-multiport' info 'x'"),
    ],
    "dependency-failed": [
        ("postfix/smtpd", "warning: SASL: Connect to private/auth failed: No such file or directory"),
        ("postfix/trivial-rewrite", "warning: domains: proxy:mysql:/etc/postfix/x.cf: table lookup problem"),
        ("dovecot", "auth: Error: ldap(ldap://127.0.0.1): bind failed: Can't contact LDAP server"),
        ("postfix/lmtp", NO_FILTER),
        ("Keepalived_vrrp", "Script `chk_nginx` now returning 1"),
        ("freeradius", "Marking home server 192.0.2.9 port 1812 as zombie (it has not responded in 30 s)."),
        ("nginx", "[error] 7#7: *1 recv() failed (104: x) while reading response header from upstream"),
        ("winbindd", "  ads_connect for domain X failed: No logon servers are currently available"),
    ],
    "connection-flood": [
        ("dhcpd", "DHCPDISCOVER from aa:bb:cc:dd:ee:ff via eth0: network 192.0.2.0/24: no free leases"),
        ("dnsmasq-dhcp", "DHCPDISCOVER(eth0) aa:bb:cc:dd:ee:ff no address available"),
        ("nginx", NO_ROOM),
    ],
    "link-down": [
        ("ospfd", "AdjChg: Nbr 10.0.0.1(default) on eth1:10.0.0.2: Full -> Deleted (InactivityTimer)"),
        ("dhcpcd", "eth0: DHCP lease expired"),
        ("systemd-networkd", "eth0: Could not bring up interface: Invalid argument"),
        ("hostapd", "nl80211 driver initialization failed."),
    ],
    "name-resolution": [
        ("squid", "ERROR: idnsSendQuery: Can't send query, no DNS nameservers known!"),
        ("pihole-FTL", "WARNING in dnsmasq core: Maximum number of concurrent DNS queries reached (max: 9)"),
        ("named", "timed out resolving 'www.example.net/A/IN': 192.0.2.53#53"),
    ],
    "certificate-expired": [
        ("openvpn", "192.0.2.7:40022 VERIFY ERROR: depth=0, error=CRL has expired: CN=laptop, serial=7"),
        ("lego", "2026/02/01 10:00:00 Could not renew the certificate: acme: error: 403"),
    ],
    "clock-jump": [
        ("sssd", "Failed to initialize credentials using keytab [MEMORY:/x]: Clock skew too great."),
        ("dovecot", "master: Fatal: Time just moved backwards by 1000 seconds."),
    ],
    "service-crash": [
        ("dovecot", "imap(al)<7><abc>: Panic: file mail-index-map.c: line 547: assertion failed: (x > 0)"),
        ("named", "resolver.c:4988: INSIST(!(fctx->attributes & 0x0001)) failed, back trace"),
        ("haproxy", "[ALERT]    (7) : Current worker (8) exited with code 139 (Segmentation fault)"),
        ("smbd", "  PANIC (pid 7): Signal 11: Segmentation fault in 4.17.12-Debian"),
    ],
}


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in MORE_3 for one in MORE_3[fault]]
)
def test_message_of_domain_3_speaks_for_its_class(fault, program, text):
    test_message_of_a_daemon_speaks_for_its_class(fault, program, text)


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


_KEYCLOAK = 'type="LOGIN_ERROR", realmId="x"'
_AUTHELIA = "Unsuccessful 1FA authentication attempt by user"
MORE_5 = {
    "service-crash": [
        ("java", "Z ERROR 1 --- [  main] o.s.boot.SpringApplication        : Application run failed"),
        ("celery", "raised error: WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 0.')"),
        ("celery", "ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:12 exited with 'signal 11 (SIGSEGV)'"),
        ("api", "http: panic serving 192.0.2.7:4123: runtime error: index out of range [3] with length 3"),
        ("beam.smp", "Crash dump is being written to: erl_crash.dump...done"),
        ("game", "[Server thread/ERROR]: This crash report has been saved to: /srv/game/crash-reports/x.txt"),
        ("gnome-session-binary", "Unrecoverable failure in required component org.gnome.Shell.desktop"),
        ("app", "ERROR:../src/x.c:12:func: assertion failed: (x > 0)"),
        ("app", "app: src/x.c:12: main: Assertion `n > 0' failed."),
    ],
    "service-hung": [
        ("game", "[Server Watchdog/FATAL]: A single server tick took 60.00 seconds (should be max 0.05)"),
        ("php-fpm", "PHP Fatal error:  Maximum execution time of 30 seconds exceeded in x.php on line 3"),
        ("sssd", "Child [815] ('a.example':'%BE_a.example') was terminated by own WATCHDOG. Consult logs"),
    ],
    "crash-loop": [("sssd", "Exiting the SSSD. Could not restart critical service [nss].")],
    "config-error": [
        ("java", "APPLICATION FAILED TO START"),
        ("hass", "ERROR (MainThread) [homeassistant.setup] Setup failed for 'mqtt': Integration failed to x"),
        ("hass", "ERROR (MainThread) [homeassistant.config] Invalid config for 'sensor' at x.yaml, line 12"),
        ("game", "[Server thread/WARN]: **** FAILED TO BIND TO PORT!"),
        ("restic", "Fatal: wrong password or no key found"),
        ("borg", "passphrase supplied in BORG_PASSPHRASE, by BORG_PASSCOMMAND or via X is incorrect."),
        ("apt.systemd.daily", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to"),
        ("dpkg", "dpkg: error processing package mariadb-server (--configure):"),
        ("cron", "(*system*backup) INSECURE MODE (group/other writable) (/etc/cron.d/backup)"),
        ("cron", "Error: bad minute; while reading /etc/cron.d/backup"),
        ("sshd", "fatal: Cannot bind any address."),
    ],
    "connection-flood": [
        ("java", "x: HikariPool-1 - Connection is not available, request timed out after 30000ms."),
        ("puma", "ConnectionTimeoutError (waited 5.001 seconds); all pooled connections were in use):"),
        ("gunicorn", "django.db.utils.OperationalError: FATAL:  sorry, too many clients already"),
    ],
    "dependency-failed": [
        ("java", "com.mysql.cj.jdbc.exceptions.CommunicationsException: Communications link failure"),
        ("pvestatd", "storage 'nas' is not online"),
        ("syncthing", 'WARNING: Error on folder "docs" (x): folder path missing'),
        ("pvescheduler", "ERROR: Backup of VM 100 failed - backup write data failed: command error: x"),
        ("borgmatic", "ssh://backup@nas/./repo: Error running actions for repository"),
        ("rclone", "Failed to sync with 3 errors: last error was: couldn't list directory"),
        ("syncoid", "CRITICAL ERROR:  zfs send  'tank/a'@'b' | ssh nas zfs receive failed: 256"),
        ("restic", "unable to create lock in backend: repository is already locked by PID 9 on web by root"),
    ],
    "device-lost": [
        ("zigbee2mqtt", "Error: Failed to connect to the adapter (Error: SRSP - SYS - ping after 6000ms)"),
        ("zigbee2mqtt", "Error: No such file or directory, cannot open /dev/ttyUSB0"),
        ("hass", "could not open port /dev/ttyACM0: [Errno 2] No such file or directory: '/dev/ttyACM0'"),
        ("cupsd", "[Job 12] Printer stopped due to backend errors; please consult the error_log file"),
    ],
    "disk-failing": [("minio", "Error: Read failed. Insufficient number of drives online")],
    "disk-full": [
        ("apt-get", "E: You don't have enough free space in /var/cache/apt/archives/."),
        ("syncthing", "insufficient space on disk for database (/srv/index): current 0.90 % < required 1 %"),
        ("sanoid", "cannot create snapshot 'tank/home@autosnap': out of space"),
        ("bareos-dir", "JobId 5: Job x is waiting. Cannot find any appendable volumes."),
        ("pvescheduler", "ERROR: Backup of VM 100 failed - write error: No space left on device"),
    ],
    "filesystem-corrupt": [
        ("hass", "sqlite3.DatabaseError: database disk image is malformed"),
        ("restic", "Fatal: repository contains errors"),
        ("proxmox-backup-proxy", "TASK ERROR: verification failed - please check the log for details"),
    ],
    "memory-exhaustion": [("beam.smp", "eheap_alloc: Cannot allocate 131826 bytes of memory (of type x).")],
    "certificate-expired": [
        ("apt-get", "W: GPG error: The following signatures were invalid: EXPKEYSIG 0123456789ABCDEF Repo"),
        ("api", "http: TLS handshake error from 192.0.2.7:4: remote error: tls: expired certificate"),
    ],
    "clock-jump": [
        ("apt-get", "E: Release file for http://d.example/x is not valid yet (invalid for another 2h 3min)"),
    ],
    "cpu-saturation": [("game", "Can't keep up! Is the server overloaded? Running 2345ms or 46 ticks")],
    "": [  # what nobody has to look at
        ("gnome-shell", "g_object_unref: assertion 'G_IS_OBJECT (object)' failed"),
        ("bluetoothd", "gatt-time-server: Input/output error (5)"),
        ("bluetoothd", "avdtp_connect_cb() connect to 00:11:22:33:44:55: Host is down (112)"),
        ("dbus-daemon", "[system] Failed to activate service 'org.bluez': timed out (x=25000ms)"),
        ("gdm-password]", "gkr-pam: unable to locate daemon control file"),
        ("sshd", "error: ssh_dispatch_run_fatal: Connection from 192.0.2.7 port 4: Connection corrupted"),
        ("sshd", "fatal: mm_answer_moduli: bad parameters: 0 0 0"),
        ("synapse", "synapse.http.matrixfederationclient - 655 - WARNING - x: ConnectionRefusedError"),
        ("sidekiq", "OpenSSL::SSL::SSLError: (certificate has expired) on https://gone.example/inbox"),
        ("sidekiq", "HTTP::ConnectionError: failed to connect: x on https://g.example/a/inbox"),
        ("rclone", "ERROR : a.txt: Failed to copy: googleapi: Error 403: User Rate Limit Exceeded"),
        ("code", "[8:0201/100000.000:ERROR:bus.cc(407)] Failed to connect to the bus: Could not"),
        ("api", "http: TLS handshake error from 192.0.2.7:51234: read tcp 192.0.2.1:443: i/o timeout"),
        ("game", "[10:00:00] [Server thread/INFO]: alice lost connection: Timed out"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "program", "text"), [(fault, *one) for fault in MORE_5 for one in MORE_5[fault]]
)
def test_message_of_an_application_speaks_for_its_class(fault, program, text):
    test_message_of_a_daemon_speaks_for_its_class(fault, program, text)


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
    ("postfix/smtp", 6, "certificate verification failed for x[192.0.2.2]:25: certificate has expired"),
    ("postfix/smtp", 6, "3F2A1B0C9D: host x[192.0.2.2] said: 452 4.3.1 Insufficient system storage"),
    ("postfix/smtpd", 4, "warning: Connection rate limit exceeded: 31 from x[192.0.2.7] for service smtp"),
    ("exim", 6, "1abcde-000123-AB H=mx.example.net [192.0.2.25]: Connection refused"),
    ("named", 6, "connection refused resolving 'ns1.example.net/A/IN': 192.0.2.53#53"),
    ("unbound", 5, "notice: sendto failed: Network is unreachable"),
    ("openvpn", 6, "192.0.2.7:40022 VERIFY ERROR: depth=0, error=certificate has expired: CN=al, serial=7"),
    ("minio", 6, "http: TLS handshake error from 192.0.2.7:4: remote error: tls: expired certificate"),
    ("NetworkManager", 4, "<warn>  [1700000000.1] dhcp6 (eth0): request timed out"),
    ("NetworkManager", 6, "device (veth1): state change: activated -> unavailable (reason 'carrier')"),
    ("systemd-networkd", 6, "eth0: DHCPv6 lease lost"),
    ("systemd-networkd", 6, "tap101i0: Lost carrier"),
    ("php-fpm8.2", 4, "[pool www] child 815 exited on signal 15 (SIGTERM) after 12.3 seconds from start"),
    ("sshd", 3, "error: bind [127.0.0.1]:8080: Address already in use"),
    ("apache2", 3, "[client 192.0.2.7:4] AH02039: Certificate Verification: Error (10): certificate expired"),
    ("wpa_supplicant", 6, "wlan0: CTRL-EVENT-SSID-TEMP-DISABLED id=0 auth_failures=1 reason=CONN_FAILED"),
    ("squid", 3, "ERROR: negotiating TLS on FD 12: certificate verify failed (1/-1/0)"),
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
