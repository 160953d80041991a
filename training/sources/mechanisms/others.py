"""Mechanisms of security, time and the kernel, what nobody understands, and what is done on purpose."""

# ruff: noqa: D103, E501 - a mechanism's name says it; log lines are quoted whole; no SQL runs here

from __future__ import annotations

from msgspec.structs import replace

from models.taxonomy import FaultClass as F
from models.taxonomy import Severity
from training.sources.mechanisms.registry import mechanism
from training.sources.mechanisms.resources import stranger
from training.sources.mechanisms.storage import kernel
from training.sources.symptoms import (
    KERNEL,
    Cause,
    Happened,
    Jumped,
    Pieces,
    Said,
    Scene,
    Shown,
    busy_disk,
    busy_processor,
    culprits,
    fails,
    ramp,
    says,
    step,
    unit,
)

INFO, W, E, C = Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL


# --- security ---------------------------------------------------------------------------------------------


def attempts(s: Scene, program: str, text: str, times: int, peers: list[str]) -> Pieces:
    """Failed logins, one after another."""
    gap = s.span(0.05, 0.6)
    return [
        Said(
            n * gap,
            program,
            text.format(
                user=s.of("root", "admin", "oracle", "git"), ip=s.random.choice(peers), port=40000 + n
            ),
            6,
        )
        for n in range(times)
    ]


@mechanism(F.AUTH_BRUTEFORCE, 1.5)
def passwords_by_ssh(s: Scene) -> Cause:
    peer = s.address()
    text = s.of(
        "Failed password for invalid user {user} from {ip} port {port} ssh2",
        "Failed password for {user} from {ip} port {port} ssh2",
    )
    return Cause(
        W, culprits(("address", peer)), [attempts(s, "sshd", text, s.random.randint(12, 60), [peer])]
    )


@mechanism(F.AUTH_BRUTEFORCE)
def many_addresses(s: Scene) -> Cause:
    peers = [s.address() for _ in range(12)]
    text = "Failed password for invalid user {user} from {ip} port {port} ssh2"
    return Cause(W, culprits(*(("address", peer) for peer in peers)), [attempts(s, "sshd", text, 60, peers)])


@mechanism(F.AUTH_BRUTEFORCE)
def mailboxes(s: Scene) -> Cause:
    peer = s.address()
    text = "imap-login: Disconnected: Connection closed (auth failed, 3 attempts in 6 secs): user=<{user}>, method=PLAIN, rip={ip}"
    return Cause(W, culprits(("address", peer)), [attempts(s, "dovecot", text, 20, [peer])])


@mechanism(F.AUTH_BRUTEFORCE)
def banned(s: Scene) -> Cause:
    peer = s.address()
    ban: Pieces = [Said(3.0, "fail2ban", f"[sshd] Ban {peer}", 5)]
    text = "Invalid user {user} from {ip} port {port}"
    return Cause(W, culprits(("address", peer)), [attempts(s, "sshd", text, 25, [peer]), ban])


@mechanism(F.PRIVILEGE_MISUSE)
def not_a_sudoer(s: Scene) -> Cause:
    user = s.user()
    text = f"{user} : user NOT in sudoers ; TTY=pts/0 ; PWD=/home/{user} ; USER=root ; COMMAND=/usr/bin/cat /etc/shadow"
    return Cause(W, culprits(("user", user)), [[Said(0.0, "sudo", text, 1)]])


@mechanism(F.PRIVILEGE_MISUSE)
def wrong_sudo_password(s: Scene) -> Cause:
    user = s.user()
    text = f"{user} : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/home/{user} ; USER=root ; COMMAND=/usr/bin/id"
    fails_too: Pieces = [
        Said(
            n * 1.0,
            "sudo",
            f"pam_unix(sudo:auth): authentication failure; logname={user} uid=1000 euid=0 tty=/dev/pts/0 ruser={user} rhost=  user={user}",
            5,
        )
        for n in range(3)
    ]
    return Cause(W, culprits(("user", user)), [[Said(3.0, "sudo", text, 1)], fails_too])


@mechanism(F.PRIVILEGE_MISUSE)
def becomes_root_by_su(s: Scene) -> Cause:
    user = s.user()
    lines: Pieces = [Said(n * 2.0, "su", f"FAILED SU (to root) {user} on pts/0", 5) for n in range(3)]
    made: Pieces = [
        Said(
            8.0,
            "useradd",
            f"new user: name=x, UID=0, GID=0, home=/home/{user}, shell=/bin/bash, from=/dev/pts/0",
            6,
        )
    ]
    return Cause(
        W,
        culprits(("user", user), ("user", "root"), ("user", "x")),
        [
            [
                *lines,
                Said(
                    7.0,
                    "sudo",
                    f"{user} : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
                    1,
                ),
            ],
            made,
        ],
    )


# --- time -------------------------------------------------------------------------------------------------


@mechanism(F.CLOCK_JUMP)
def wall_clock_steps(s: Scene) -> Cause:
    by = s.random.choice((-7200.0, -400.0, 90.0, 3600.0, 86400.0))
    return Cause(W, (), [[Jumped(0.0, by)]])


@mechanism(F.CLOCK_JUMP)
def time_service_steps(s: Scene) -> Cause:
    by = s.span(20, 4000)
    said: Pieces = [Said(0.0, "chronyd", f"System clock was stepped by {by:.6f} seconds", 4)]
    return Cause(
        W,
        (),
        [
            [*said, Jumped(0.1, by)],
            says(s, s.service(), "token used before issued", "timestamp is in the future", priority=4),
        ],
    )


@mechanism(F.CLOCK_JUMP)
def clock_drifts(s: Scene) -> Cause:
    said = kernel(
        s,
        "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large",
        priority=4,
    )
    lost: Pieces = [
        Said(2.0, "chronyd", "Can't synchronise: no selectable sources", 4),
        Jumped(3.0, s.span(30, 900)),
    ]
    return Cause(W, culprits(("process", "chronyd")), [[*said, *lost]])


# --- kernel -----------------------------------------------------------------------------------------------


@mechanism(F.KERNEL_BUG)
def page_fault(s: Scene) -> Cause:
    it = s.service()
    lines = kernel(
        s, f"BUG: unable to handle page fault for address: ffff{s.random.getrandbits(44):x}", priority=1
    )
    lines += [Said(0.1, KERNEL, "Oops: 0002 [#1] SMP NOPTI", 4)]
    return Cause(C, unit(it), [lines], (it,))


@mechanism(F.KERNEL_BUG)
def processor_stuck(s: Scene) -> Cause:
    it = s.service()
    text = f"watchdog: BUG: soft lockup - CPU#{s.random.randrange(8)} stuck for 26s! [{it.program}:{it.pid}]"
    return Cause(C, unit(it), [kernel(s, text, times=2, priority=0), busy_processor(s)], (it,))


@mechanism(F.KERNEL_BUG)
def callbacks_stall(s: Scene) -> Cause:
    lines = kernel(
        s,
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        times=2,
    )
    return Cause(C, (), [lines])


@mechanism(F.KERNEL_BUG)
def kernel_warns(s: Scene) -> Cause:
    lines = kernel(
        s, f"WARNING: CPU: 1 PID: {s.pid()} at net/core/dev.c:5000 frobnicate+0x12/0x40", times=2, priority=4
    )
    return Cause(W, (), [lines])


@mechanism(F.KERNEL_BUG)
def use_after_free(s: Scene) -> Cause:
    lines = kernel(
        s, "BUG: KASAN: slab-use-after-free in frobnicate+0x12/0x40", "refcount_t: underflow; use-after-free."
    )
    return Cause(
        E,
        (),
        [lines, kernel(s, "general protection fault, probably for non-canonical address: 0000 [#1] SMP")],
    )


# --- not understood ---------------------------------------------------------------------------------------


@mechanism(F.UNKNOWN, 0.7)
def alert_of_an_appliance(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "flux regulator left its envelope, quorum of probes disagrees",
        "ALERT lane 7 desynchronised from the carousel",
        "zone controller lost parity with its shadow",
        times=2,
        priority=1,
    )
    return Cause(E, unit(it), [words], (it,))


@mechanism(F.UNKNOWN, 0.7)
def firmware_speaks(s: Scene) -> Cause:
    lines = kernel(
        s,
        "frob 0000:03:00.0: unexpected event 0x7f in state 3",
        "quux: sequencer returned code 91, reprogramming",
        times=2,
        priority=1,
    )
    return Cause(E, (), [lines])


# --- on purpose -------------------------------------------------------------------------------------------


def context(name: str, service: str, action: str = "start", after_s: float = 0.0) -> Pieces:
    """The host's own word that it does something on purpose."""
    return [Happened(after_s, "context", name, action, (("unit", service),))]


@mechanism(F.BACKUP)
def backup_outlasts(s: Scene) -> Cause:
    process = replace(stranger(s, s.of("restic", "borg", "rsync"), io=2e8, cpu=0.6), unit="backup.service")
    pieces = [*context("backup", "backup.service"), *busy_disk(s, s.host.disks[0]), Shown(process)]
    return Cause(
        INFO,
        culprits(("unit", "backup.service"), ("process", process.name)),
        [[*pieces, *context("backup", "backup.service", "end", 8.0)]],
    )


@mechanism(F.BACKUP)
def snapshot_of_a_database(s: Scene) -> Cause:
    process = replace(stranger(s, s.of("pg_dump", "mysqldump"), io=1.5e8, cpu=0.95), unit="dump.service")
    pieces = [*busy_disk(s, s.host.disks[0]), Shown(process)]
    return Cause(
        INFO,
        culprits(("unit", "dump.service"), ("process", process.name)),
        [[*context("backup", "nightly.service"), *pieces]],
    )


@mechanism(F.UPDATE)
def restarts_of_an_update(s: Scene) -> Cause:
    it = s.service()
    pieces = [
        *context("update", ""),
        *fails(s, it, result="exit-code", after_s=2.0),
        *context("update", "", "end", 6.0),
    ]
    return Cause(INFO, unit(it), [[*pieces, step("proc.forks", 150.0)]], (it,))


@mechanism(F.UPDATE)
def load_of_an_update(s: Scene) -> Cause:
    process = stranger(s, s.of("dpkg", "unattended-upgr", "apt-get"), cpu=s.host.cores * 0.95, io=9e7)
    return Cause(
        INFO,
        culprits(("process", process.name)),
        [
            [
                *context("update", ""),
                *busy_processor(s),
                *busy_disk(s, s.host.disks[0]),
                Shown(process),
                *context("update", "", "end", 10.0),
            ]
        ],
    )


@mechanism(F.REBUILD)
def switch_of_generation(s: Scene) -> Cause:
    it = s.service()
    process = stranger(s, s.of("nix", "nix-daemon", "nix-build"), cpu=s.host.cores * 0.9)
    pieces = [
        *context("rebuild", ""),
        *busy_processor(s),
        Shown(process),
        *fails(s, it, after_s=4.0),
        *context("rebuild", "", "end", 6.0),
    ]
    return Cause(INFO, (*unit(it), *culprits(("process", process.name))), [pieces], (it,))


@mechanism(F.SCRUB)
def array_check(s: Scene) -> Cause:
    pieces = [
        *context("scrub", "md0"),
        *busy_disk(s, s.host.disks[0]),
        step("array.sync{md0}", 1.0),
        *context("scrub", "md0", "end", 9.0),
    ]
    return Cause(INFO, culprits(("device", s.host.disks[0])), [pieces])


@mechanism(F.MAINTENANCE_JOB)
def nightly_jobs(s: Scene) -> Cause:
    process = replace(
        stranger(s, s.of("updatedb", "mandb", "fstrim", "logrotate"), cpu=0.9, io=1.6e8),
        unit="nightly.service",
    )
    pieces = [
        *context("maintenance-job", "nightly.service"),
        *busy_disk(s, s.host.disks[0]),
        Shown(process),
        *context("maintenance-job", "nightly.service", "end", 7.0),
    ]
    return Cause(INFO, culprits(("unit", "nightly.service"), ("process", process.name)), [pieces])


@mechanism(F.HEAVY_BUT_NORMAL_LOAD)
def compilation(s: Scene) -> Cause:
    process = stranger(s, s.of("cc1plus", "rustc", "clang", "ld", "javac"), cpu=s.host.cores * 0.96)
    return Cause(
        INFO,
        culprits(("process", process.name)),
        [[*busy_processor(s), Shown(process), step("proc.forks", 180.0)]],
    )


@mechanism(F.HEAVY_BUT_NORMAL_LOAD)
def transcoding(s: Scene) -> Cause:
    process = stranger(s, s.of("ffmpeg", "xz", "zstd"), cpu=s.host.cores * 0.93, io=4e7)
    return Cause(INFO, culprits(("process", process.name)), [[*busy_processor(s), Shown(process)]])


@mechanism(F.BOOT)
def late_services(s: Scene) -> Cause:
    it = s.service()
    pieces = [
        Happened(0.0, "context", "boot", "start"),
        *fails(s, it, result="exit-code", after_s=1.0),
        ramp("proc.total", 60.0, 180.0, 8.0),
    ]
    return Cause(INFO, unit(it), [pieces], (it,))
