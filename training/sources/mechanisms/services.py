"""Mechanisms of services: crashes, loops, hangs, configuration, dependencies, certificates."""

# ruff: noqa: D103, E501 - a mechanism's name says it; log lines are quoted whole; no SQL runs here

from __future__ import annotations

from models.taxonomy import FaultClass as F
from models.taxonomy import Severity
from training.sources.mechanisms.registry import mechanism
from training.sources.symptoms import (
    KERNEL,
    MANAGER,
    Cause,
    Pieces,
    Said,
    Scene,
    cannot_depend,
    culprits,
    fails,
    hangs,
    loops,
    refused,
    says,
    segfault,
    unit,
)

W, E, C = Severity.WARNING, Severity.ERROR, Severity.CRITICAL


# --- crashes ----------------------------------------------------------------------------------------------


@mechanism(F.SERVICE_CRASH, 1.5)
def exits_with_an_error(s: Scene) -> Cause:
    it = s.service()
    return Cause(
        E,
        unit(it),
        [fails(s, it, result="exit-code"), says(s, it, "fatal: unexpected state", "exiting on fatal error")],
        (it,),
    )


@mechanism(F.SERVICE_CRASH)
def faults_once(s: Scene) -> Cause:
    it = s.service()
    return Cause(E, unit(it), [[*segfault(s, it), *fails(s, it, result="core-dump", after_s=0.5)]], (it,))


@mechanism(F.SERVICE_CRASH)
def uncaught(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "Traceback (most recent call last):",
        "panic: runtime error: index out of range [5] with length 3",
        "thread 'main' panicked at src/main.rs:7:5",
        'Exception in thread "main" java.lang.NullPointerException',
        "Uncaught TypeError: Cannot read properties of undefined",
    )
    return Cause(E, unit(it), [[*words, *fails(s, it, result="exit-code", after_s=0.3)]], (it,))


@mechanism(F.SERVICE_CRASH)
def dumps_core(s: Scene) -> Cause:
    it = s.service()
    said: Pieces = [
        Said(0.2, "systemd-coredump", f"Process {it.pid} ({it.program}) of user {it.uid} dumped core.", 2)
    ]
    return Cause(E, unit(it), [[*said, *fails(s, it, result="core-dump")]], (it,))


@mechanism(F.SERVICE_CRASH)
def assertion(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        f"{it.program}: src/pool.c:211: release: Assertion `pool->used > 0' failed.",
        "BUG: double free detected",
    )
    return Cause(E, unit(it), [words, fails(s, it, result="signal")], (it,))


# --- loops ------------------------------------------------------------------------------------------------


@mechanism(F.CRASH_LOOP, 1.5)
def restarted_in_vain(s: Scene) -> Cause:
    it = s.service()
    return Cause(E, unit(it), [loops(s, it, times=s.random.randint(3, 7))], (it,))


@mechanism(F.CRASH_LOOP)
def faults_again(s: Scene) -> Cause:
    it = s.service()
    pieces: Pieces = []
    for n in range(s.random.randint(3, 6)):
        pieces += segfault(s, it, n * s.span(0.8, 1.5))
    return Cause(E, unit(it), [pieces], (it,))


@mechanism(F.CRASH_LOOP)
def container_backs_off(s: Scene) -> Cause:
    it = s.service()
    texts = (f"Back-off restarting failed container {it.program} in pod {it.program}-0",)
    said: Pieces = [Said(n * 2.0, "kubelet", texts[0], 3) for n in range(3)]
    return Cause(E, unit(it), [[*said, *loops(s, it, times=3)]], (it,))


@mechanism(F.CRASH_LOOP)
def panics_at_start(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "panic: assignment to entry in nil map",
        "terminate called after throwing an instance of 'x'",
        times=4,
    )
    return Cause(E, unit(it), [[*words, *loops(s, it, times=5)]], (it,))


# --- hangs ------------------------------------------------------------------------------------------------


@mechanism(F.SERVICE_HUNG)
def watchdog_barks(s: Scene) -> Cause:
    it = s.service()
    said: Pieces = [Said(0.0, MANAGER, f"{it.unit}: Watchdog timeout (limit 30s)!", 4, it.unit)]
    return Cause(E, unit(it), [[*said, *fails(s, it, result="watchdog", after_s=0.5)]], (it,))


@mechanism(F.SERVICE_HUNG)
def will_not_stop(s: Scene) -> Cause:
    it = s.service()
    said: Pieces = [
        Said(0.0, MANAGER, f"{it.unit}: State 'stop-sigterm' timed out. Killing.", 4, it.unit),
        Said(
            0.1,
            MANAGER,
            f"{it.unit}: Killing process {it.pid} ({it.program}) with signal SIGKILL.",
            5,
            it.unit,
        ),
        Said(0.3, MANAGER, f"{it.unit}: Failed with result 'timeout'.", 4, it.unit),
    ]
    return Cause(E, unit(it), [said], (it,))


@mechanism(F.SERVICE_HUNG)
def deadlock(s: Scene) -> Cause:
    it, client = s.service(), s.service()
    words = says(
        s,
        it,
        "deadlock detected: all workers wait for each other",
        "request queue is stuck, no progress for 60 s",
        times=2,
    )
    more = says(
        s,
        client,
        "upstream timed out (110: Connection timed out) while reading response header from upstream",
        times=3,
    )
    return Cause(E, unit(it), [[*words, *hangs(s, it)], more], (it, client))


@mechanism(F.SERVICE_HUNG)
def start_takes_too_long(s: Scene) -> Cause:
    it = s.service()
    said: Pieces = [
        Said(0.0, MANAGER, f"{it.unit}: start operation timed out. Terminating.", 4, it.unit),
        Said(0.2, MANAGER, f"{it.unit}: Failed with result 'timeout'.", 4, it.unit),
        Said(0.3, MANAGER, f"Failed to start {it.unit} - The {it.program}.", 3, it.unit),
    ]
    return Cause(E, unit(it), [said], (it,))


@mechanism(F.SERVICE_HUNG)
def task_waits_for_a_lock(s: Scene) -> Cause:
    it = s.service()
    said: Pieces = [
        Said(0.0, KERNEL, f"INFO: task {it.program}:{it.pid} blocked for more than 120 seconds.", 3)
    ]
    more: Pieces = [Said(2.0, MANAGER, f"{it.unit}: Watchdog timeout (limit 1min)!", 4, it.unit)]
    return Cause(E, unit(it), [said, more], (it,))


# --- configuration ----------------------------------------------------------------------------------------


@mechanism(F.CONFIG_ERROR, 1.5)
def unknown_directive(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        f'[emerg] unknown directive "lisen" in /etc/{it.program}/{it.program}.conf:{s.random.randrange(99)}',
        f"error parsing configuration file /etc/{it.program}.yaml: line {s.random.randrange(99)}: mapping values",
        f"/etc/{it.program}/main.cf, line 12: syntax error",
        times=2,
    )
    return Cause(E, (*unit(it),), [words, fails(s, it, result="exit-code")], (it,))


@mechanism(F.CONFIG_ERROR)
def port_taken(s: Scene) -> Cause:
    it = s.service()
    port = s.random.choice((80, 443, 8080, 5432))
    words = says(
        s,
        it,
        f"bind() to 0.0.0.0:{port} failed (98: Address already in use)",
        f"listen tcp :{port}: bind: address already in use",
        times=3,
    )
    return Cause(E, unit(it), [words, fails(s, it, result="exit-code")], (it,))


@mechanism(F.CONFIG_ERROR)
def program_missing(s: Scene) -> Cause:
    it = s.service()
    text = f"{it.unit}: Failed at step EXEC spawning /usr/local/bin/{it.program}: No such file or directory"
    said: Pieces = [Said(0.0, MANAGER, text, 3, it.unit)]
    return Cause(E, unit(it), [[*said, *fails(s, it, result="exit-code", after_s=0.1)]], (it,))


@mechanism(F.CONFIG_ERROR)
def library_missing(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        f"{it.program}: error while loading shared libraries: libfoo.so.3: cannot open shared object file: "
        "No such file or directory",
        "ModuleNotFoundError: No module named 'yaml'",
        times=2,
    )
    return Cause(E, unit(it), [words, fails(s, it, result="exit-code")], (it,))


@mechanism(F.CONFIG_ERROR)
def may_not_read(s: Scene) -> Cause:
    it = s.service()
    path = f"/etc/{it.program}/secret.key"
    words = says(s, it, f"open {path}: Permission denied", f"cannot read {path}: permission denied", times=2)
    return Cause(
        E,
        (*unit(it), *culprits(("file", path))),
        [[*words, *fails(s, it, result="exit-code", after_s=0.2)]],
        (it,),
    )


@mechanism(F.CONFIG_ERROR)
def secret_is_wrong(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        'password authentication failed for user "app", check the configuration',
        "invalid value for option max_connections in configuration file",
        "configuration error: missing required key 'database.url'",
        times=2,
    )
    return Cause(E, unit(it), [words, fails(s, it, result="exit-code")], (it,))


# --- dependencies -----------------------------------------------------------------------------------------


@mechanism(F.DEPENDENCY_FAILED)
def file_server_gone(s: Scene) -> Cause:
    it = s.service()
    server = s.of("files.example", "nas.internal", "10.0.3.9")
    said: Pieces = [
        Said(n * 2.0, KERNEL, f"nfs: server {server} not responding, still trying", 4) for n in range(2)
    ]
    return Cause(
        E, (*culprits(("address", server), ("host", server)), *unit(it)), [said, hangs(s, it)], (it,)
    )


@mechanism(F.DEPENDENCY_FAILED)
def backend_elsewhere(s: Scene) -> Cause:
    it, other = s.service(), s.service()
    return Cause(W, unit(it), [refused(s, it), refused(s, it), refused(s, other)], (it, other))


@mechanism(F.DEPENDENCY_FAILED)
def device_does_not_come(s: Scene) -> Cause:
    it = s.service()
    device = f"/dev/disk/by-uuid/{s.random.getrandbits(16):04x}-4711"
    said: Pieces = [Said(0.0, MANAGER, f"Timed out waiting for device {device}.", 3)]
    who = culprits(("device", device), ("device", device.rpartition("/")[2]), ("file", device))
    return Cause(E, (*who, *unit(it)), [said, cannot_depend(it)], (it,))


@mechanism(F.DEPENDENCY_FAILED)
def mount_fails(s: Scene) -> Cause:
    it, m = s.service(), s.mount()
    said: Pieces = [Said(0.0, MANAGER, f"Failed to mount {m.path}.", 3)]
    who = culprits(("mount", m.path))
    return Cause(E, (*who, *unit(it)), [[*said, *cannot_depend(it)], cannot_depend(it)], (it,))


@mechanism(F.DEPENDENCY_FAILED)
def database_unreachable(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        'connection to server at "db.internal" (10.0.3.7), port 5432 failed: Connection refused',
        "redis.exceptions.ConnectionError: Error 111 connecting to cache:6379. Connection refused.",
        "dial tcp 10.0.3.7:5432: connect: connection refused",
        times=4,
    )
    return Cause(E, unit(it), [[*words, *fails(s, it, result="exit-code", after_s=1.0)]], (it,))


# --- certificates -----------------------------------------------------------------------------------------


@mechanism(F.CERTIFICATE_EXPIRED)
def own_certificate(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "TLS handshake failed: x509: certificate has expired or is not yet valid",
        "certificate has expired",
        times=3,
    )
    return Cause(E, unit(it), [words], (it,))


@mechanism(F.CERTIFICATE_EXPIRED)
def certificate_of_another(s: Scene) -> Cause:
    it, other = s.service(), s.service()
    words = says(
        s,
        it,
        "SSL certificate problem: certificate has expired",
        "SSL_do_handshake() failed: certificate verify failed (certificate has expired)",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1007)",
        times=2,
    )
    return Cause(
        E,
        (*unit(it), *unit(other)),
        [[*words, *refused(s, it)], says(s, other, "certificate has expired: notAfter=Nov 12")],
        (it, other),
    )


@mechanism(F.CERTIFICATE_EXPIRED)
def renewal_failed(s: Scene) -> Cause:
    it = s.service()
    words = says(
        s,
        it,
        "peer certificate is expired, rejecting the connection",
        "error: certificate expired, renewal failed",
        times=2,
    )
    return Cause(
        E,
        unit(it),
        [
            words,
            says(
                s, it, "x509: certificate has expired or is not yet valid: current time is after 2026-11-01"
            ),
        ],
        (it,),
    )
