"""What widely used programs really say, and which fault that is: lines from their sources and manuals."""

import pytest

from daemon.messages import Line, Stamp
from daemon.settings import Low
from daemon.tiers.lines import LineJudge

# fault, program, text; those of the service manager have its name
SURE = """
service-hung|gunicorn|[2026-11-28 01:00:00 +0000] [815] [CRITICAL] WORKER TIMEOUT (pid:4711)
service-hung|uwsgi|*** HARAKIRI ON WORKER 1 (pid: 815, try: 1) ***
service-hung|php-fpm8.2|[pool www] child 815, script '/x.php' execution timed out (31.2 sec), terminating
service-hung|dbus-daemon|[system] Failed to activate service 'org.freedesktop.hostname1': timed out
service-hung|systemd|worker.service: Processes still around after SIGKILL. Ignoring.
config-error|nginx|nginx: [emerg] invalid number of arguments in "server_name" directive
config-error|nginx|nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)
config-error|apachectl|Invalid command 'SSLEngin', perhaps misspelled or defined by a module
config-error|sshd|/etc/ssh/sshd_config: line 12: Bad configuration option: PermitRotLogin
config-error|sshd|sshd: no hostkeys available -- exiting.
config-error|postgres|FATAL:  configuration file "/etc/postgresql.conf" contains errors
config-error|mariadbd|/usr/sbin/mariadbd: unknown option '--inodb'
config-error|redis-server|*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
config-error|named|loading configuration: failure
config-error|haproxy|[ALERT]    (815) : config : Fatal errors found in configuration.
config-error|postfix|fatal: bad boolean configuration: smtpd_tls_auth_only = yess
config-error|dockerd|unable to configure the Docker daemon with file /etc/docker/daemon.json: x
config-error|squid|FATAL: Bungled /etc/squid/squid.conf line 3: http_access alow all
config-error|python3|KeyError: 'DATABASE_URL'
config-error|java|Error: Unable to access jarfile /srv/app.jar
config-error|systemd|worker.service: Main process exited, code=exited, status=217/USER
config-error|systemd|worker.service: Failed to determine user credentials: No such process
config-error|nginx|bind() to 192.0.2.1:80 failed (99: Cannot assign requested address)
config-error|systemd-modules-load|Failed to find module 'frob'
config-error|logrotate|error: /etc/logrotate.d/app:12 unknown option 'dayly' -- ignoring line
privilege-misuse|su|pam_unix(su:session): session opened for user root(uid=0) by (uid=33)
certificate-expired|java|java.security.cert.CertificateExpiredException: NotAfter: Fri Nov 27
certificate-expired|certbot|Failed to renew certificate www.example: Some challenges have failed.
disk-full|mysqld|posix_fallocate(): Failed to preallocate ./t.ibd. Operating system error number 28.
disk-full|elasticsearch|flood stage disk watermark [95%] exceeded on [x][node-1]
disk-full|dmeventd|WARNING: Thin pool vg0-pool data is now 95.20% full.
disk-full|kernel|BTRFS critical (device sda1: state A): Transaction aborted (error -28)
disk-full|kernel|device-mapper: thin: 253:4: switching pool to out-of-data-space (queue IO) mode
fd-exhaustion|node|Error: ENOSPC: System limit for number of file watchers reached, watch '/srv/app'
fd-exhaustion|rsyslogd|imfile: inotify_add_watch(/var/log/x): No space left on device
fd-exhaustion|systemd|x.path: Failed to add inotify watch descriptor for path /x: No space left on device
fd-exhaustion|systemd|Failed to allocate manager object: Too many open files
fd-exhaustion|haproxy|Proxy web reached process FD limit (maxsock=4096). Please check 'ulimit-n' and restart.
process-storm|cron|(CRON) DEATH (can't fork)
process-storm|java|java.lang.OutOfMemoryError: unable to create new native thread
process-storm|go|runtime: failed to create new OS thread (have 10 already; errno=11)
process-storm|postgres|LOG:  could not fork new process for connection: Resource temporarily unavailable
process-storm|systemd|worker.service: Failed to run 'start' task: Resource temporarily unavailable
dependency-failed|systemd|worker.service: Job worker.service/start failed with result 'dependency'.
dependency-failed|haproxy|backend app has no server available!
name-resolution|nginx|app.example could not be resolved (110: Operation timed out)
name-resolution|node|Error: getaddrinfo ENOTFOUND api.example
name-resolution|go|dial tcp: lookup api.example on 127.0.0.53:53: server misbehaving
crash-loop|supervisord|INFO gave up: worker entered FATAL state, too many start retries too quickly
"""
# True, but it needs company or must go on.
DOUBTFUL = """
config-error|named|/etc/bind/named.conf.local:7: missing ';' before '}'
config-error|unbound|/etc/unbound/unbound.conf:12: error: syntax error
config-error|haproxy|[ALERT] (815) : config : parsing [/etc/haproxy/haproxy.cfg:23] : unknown keyword 'blance'
config-error|sudo|/etc/sudoers:12:25: syntax error
config-error|sshd|PAM adding faulty module: pam_foo.so
service-hung|nginx|*7 upstream timed out (110: Connection timed out) while reading upstream
dependency-failed|go|dial tcp 127.0.0.1:5432: connect: connection refused
dependency-failed|proxymap|warning: connect to mysql server x: Can't connect to MySQL server on 'x' (111)
"""
# Said all day on hosts that are well.
HARMLESS = """
|app|GET /config.ini 404 0.1 ms
|app|user 7 set option unknown in form
|dhclient|connect: Network is unreachable
|nginx|*1 open() "/srv/www/favicon.ico" failed (2: No such file or directory), client: 192.0.2.7
|nginx|[error] 8#8: *1 access forbidden by rule, client: 192.0.2.7, request: "GET /.env HTTP/1.1"
|NetworkManager|<info>  Read config: /etc/NetworkManager/NetworkManager.conf
|su|pam_unix(su:session): session opened for user postgres(uid=105) by (uid=0)
|su|pam_unix(su:session): session opened for user root(uid=0) by alice(uid=1000)
|thermald|Could not load config file /etc/thermald/thermal-conf.xml
|app|environment variable APP_PORT not set, using default 8080
|app|Missing required parameter: id
|app|KeyError: 'NAME'
|certbot|Certificate not yet due for renewal
|mysqld|[Warning] Aborted connection 815 to db: 'app' user: 'app' (Got timeout reading communication packets)
|named|network unreachable resolving './DNSKEY/IN': 2001:500:2::c#53
|cupsd|Unable to open listen socket for address ::1:631 - Cannot assign requested address.
"""


# Log-ins that fail, each with its address; ssh, PAM and web servers have tests of their own.
GUESSES = """
dropbear|Bad password attempt for 'root' from 192.0.2.7:48629
vsftpd|[admin] FAIL LOGIN: Client "192.0.2.7"
proftpd|web1 (192.0.2.7[192.0.2.7]) - USER admin (Login failed): Incorrect password
dovecot|imap-login: Disconnected (auth failed, 1 attempts): user=<bob>, rip=192.0.2.7, lip=192.0.2.1
postfix/smtpd|warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6
exim|dovecot_login authenticator failed for (x) [192.0.2.7]: 535 Incorrect authentication data (set_id=bob)
smbd|Auth: user [W][bob] status [NT_STATUS_WRONG_PASSWORD] remote host [ipv4:192.0.2.7:47]
mysqld|[Warning] [MY-010055] Access denied for user 'root'@'192.0.2.7' (using password: YES)
postgres|postgres@app 192.0.2.7(4711) FATAL:  password authentication failed for user "postgres"
pvedaemon|authentication failure; rhost=::ffff:192.0.2.7 user=root@pam msg=Authentication failure
asterisk|Registration from '"100" <sip:100@x>' failed for '192.0.2.7:5060' - Wrong password
openvpn|192.0.2.7:4711 TLS Auth Error: Auth Username/Password verification failed for peer
app|[ERROR] Username or password is incorrect. Try again. IP: 192.0.2.7. Username: bob@example.
app|[W] Failed authentication attempt for bob from 192.0.2.7:0: user does not exist
"""


# The same of strangers who call themselves, or their hosts, like another address: 192.0.2.50 or 9.2.0.192.
NAMED = """
dropbear|Bad password attempt for '192.0.2.50' from 192.0.2.7:48629
dropbear|Bad password attempt for 'x' from 192.0.2.50:1' from 192.0.2.7:48629
vsftpd|[192.0.2.50] FAIL LOGIN: Client "192.0.2.7"
vsftpd|[x] FAIL LOGIN: Client "192.0.2.50"] FAIL LOGIN: Client "::ffff:192.0.2.7"
proftpd|web1 (9.2.0.192.dyn.isp.example[192.0.2.7]) - USER x[192.0.2.50] (Login failed): Incorrect password
pure-ftpd|(?@192.0.2.7) [WARNING] Authentication failed for user [192.0.2.50]
dovecot|imap-login: Disconnected (auth failed, 1 ): user=<192.0.2.50>, rip=192.0.2.7, lip=192.0.2.1
dovecot|imap-login: Disconnected (auth failed): user=<a>, rip=192.0.2.50, x=<>, rip=192.0.2.7, lip=10.0.0.1
dovecot|auth: pam(192.0.2.50,192.0.2.7,<a>): x: Authentication failure
postfix/smtpd|warning: 9.2.0.192.dyn.isp.example[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6
postfix/smtpd|warning: user-9.x[192.0.2.7]: SASL LOGIN authentication failed: sasl_username=a rhost=192.0.2.50
postfix/smtpd|warning: h-9.2.0.192.x[192.0.2.7]: SASL PLAIN authentication failed: sasl_username=192.0.2.50
exim|x authenticator failed for ([192.0.2.50]) [192.0.2.7]: 535 Incorrect authentication data (set_id=x)
exim|x authenticator failed for h [192.0.2.7]:4: 535 Incorrect authentication data ([192.0.2.50]: 535 )
smbd|user [192.0.2.50] [NT_STATUS_WRONG_PASSWORD] remote host [ipv4:192.0.2.7:4] local host [ipv4:192.0.2.1:4]
mysqld|[Warning] [MY-010055] Access denied for user '192.0.2.50'@'192.0.2.7' (using password: YES)
mysqld|[Warning] [MY-010055] Access denied for user 'x'@'192.0.2.50'@'192.0.2.7' (using password: YES)
postgres|192.0.2.50@app 192.0.2.7(4711) FATAL:  password authentication failed for user "192.0.2.50"
mongod|{"msg":"Authentication failed","attr":{"remote":"192.0.2.7:4","user":"\\",\\"remote\\":\\"192.0.2.50"}}
pvedaemon|authentication failure; rhost=::ffff:192.0.2.7 user=x rhost=192.0.2.50@pam msg=x
asterisk|Registration from '"192.0.2.50" <sip:100@192.0.2.1>' failed for '192.0.2.7:5060' - Wrong password
imapd|badlogin: 9.2.0.192.example [192.0.2.7] plaintext 192.0.2.50 SASL(-13): authentication failure
courier-imapd|LOGIN FAILED, user=192.0.2.50, ip=[::ffff:192.0.2.7]
ejabberd|Failed c2s PLAIN authentication for 192.0.2.50@x from ::ffff:192.0.2.7: Invalid username or password
app|[W] Failed authentication attempt for x from 192.0.2.50 from 192.0.2.7:0: user does not exist
app|Login failed: 'x from 192.0.2.50' (Remote IP: 192.0.2.7)
app|login failed for user from ip="192.0.2.7" name="x from 192.0.2.50"
app|{"msg":"Failed login","ip":"192.0.2.7","user":"x from 192.0.2.50"}
app|level=warn msg="Failed login of x from 192.0.2.50 from 192.0.2.7"
"""


def hear(program, text):
    fields = {"unit": f"{program}.service", "identifier": program, "pid": 42, "uid": 990}
    if program == "systemd":
        fields = {"unit": "init.scope", "identifier": program, "pid": 1, "uid": 0}
    elif program == "kernel":
        fields = {"unit": "", "identifier": program, "pid": 0, "uid": -1}
    return LineJudge(Low()).judge(Line(Stamp("b", 1.0, 1e9), "journal", text, **fields), 1.0)


def sure(findings):
    """How sure one finding alone is that something is wrong, as the tier above counts it."""
    return max(
        (one.score * min(1.0, max(one.hints.values(), default=0) / 0.5) for one in findings), default=0
    )


def each(table):
    return pytest.mark.parametrize("row", [row for row in table.split("\n") if row])


@each(SURE)
def test_program_that_says_what_is_wrong_is_understood(row):
    fault, program, text = row.split("|", 2)
    findings = hear(program, text)
    assert sure(findings) >= 0.5
    best = max(findings, key=lambda one: max(one.hints.values()))
    assert max(best.hints, key=best.hints.get) == fault


@each(DOUBTFUL)
def test_what_may_pass_says_its_class_and_opens_nothing(row):
    fault, program, text = row.split("|", 2)
    (finding,) = hear(program, text)
    assert max(finding.hints, key=finding.hints.get) == fault
    assert 0.0 < sure([finding]) < 0.5


@each(HARMLESS)
def test_what_healthy_hosts_say_opens_nothing(row):
    _, program, text = row.split("|", 2)
    assert sure(hear(program, text)) < 0.5


@each(GUESSES + NAMED)
def test_guesses_at_any_server_blame_the_address_they_come_from(row):
    program, text = row.split("|", 1)
    judge, found = LineJudge(Low()), []
    for second in range(6):
        at = Stamp("b", float(second), 1e9 + second)
        fields = {"unit": f"{program}.service", "identifier": program, "pid": 42 + second, "uid": 990}
        found += judge.judge(Line(at, "journal", text, **fields), float(second))
    attack = next(one for one in found if one.rule == "known.auth-bruteforce")
    assert (attack.subjects[0].kind, attack.subjects[0].name) == ("address", "192.0.2.7")


@pytest.mark.parametrize(
    "row",
    [
        "mysqld|[Warning] [MY-010055] Access denied for user '192.0.2.50'@'h.example' (using password: YES)",
        'postgres|FATAL:  password authentication failed for user "192.0.2.50"',
        'postgres|FATAL:  password authentication failed for user "x from 192.0.2.50"',
        "smbd|[x remote host [ipv4:192.0.2.50:1]] [NT_STATUS_LOGON_FAILURE] remote host [ipv4:192.0.2.7:1]",
        "freeradius|Login incorrect: [192.0.2.50/secret] (from client nas port 0)",
        "xrdp-sesman|pam_unix(xrdp-sesman:auth): authentication failure; ruser= rhost=  user=192.0.2.50",
    ],
)
def test_name_that_was_tried_is_no_address_of_who_tried_it(row):
    program, text = row.split("|", 1)
    found = [one for _ in range(9) for one in hear(program, text)]
    assert all(subject.name != "192.0.2.50" for one in found for subject in one.subjects)
