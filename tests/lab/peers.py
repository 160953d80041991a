"""Other watchers beside hauswart in the same run, and what they raised: the same fault, the same clock.

Each is started in the run's system as its package ships it, listens on loopback or a socket only, tells
nobody outside, and is asked when the run is over. What is missing is named, never passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError
from tests.lab import answers
from tests.lab.answers import Alert
from tests.lab.rules import read_rules
from tests.lab.systems import CommandError, System

NETDATA_PORT, PROMETHEUS_PORT, EXPORTER_PORT = 29999, 29090, 29100
# Both sample configurations, Prometheus' own and Debian's, scrape and evaluate at this interval.
INTERVAL_S = 15.0
# Netdata's health begins about ten seconds after its start and most of its checks are made once a minute;
# a rate in Prometheus needs two scrapes; monit has had its first cycle.
WARM_S = 60.0
UP_S = 60.0
MOST = 1000  # alerts kept of a peer in a run
_PATH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"
_LOOPBACK = "http://127.0.0.1"

# What the sample in Debian's monitrc checks of the system, and of a file system, here the root: all that
# alerts or stops (an alert, too), but for owner, mode and a number of inodes that suit the sample's disk.
_MONITRC = """set daemon 120
set log {folder}/log
set pidfile {folder}/monit.pid
set idfile {folder}/id
set statefile {folder}/state
check system $HOST
    if loadavg (1min) per core > 2 for 5 cycles then alert
    if loadavg (5min) per core > 1.5 for 10 cycles then alert
    if cpu usage > 95% for 10 cycles then alert
    if memory usage > 75% then alert
    if swap usage > 25% then alert
check filesystem rootfs with path /
    if space usage > 80% for 5 times within 15 cycles then alert
    if space usage > 99% then alert
    if inode usage > 99% then alert
    if read rate > 1 MB/s for 5 cycles then alert
    if read rate > 500 operations/s for 5 cycles then alert
    if write rate > 1 MB/s for 5 cycles then alert
    if write rate > 500 operations/s for 5 cycles then alert
    if service time > 10 milliseconds for 3 times within 5 cycles then alert
"""
_PROMETHEUS = f"""global:
  scrape_interval: {INTERVAL_S:.0f}s
  evaluation_interval: {INTERVAL_S:.0f}s
rule_files: [rules.yml]
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ["127.0.0.1:{EXPORTER_PORT}"]
"""


@dataclass(frozen=True)
class Peer:
    """How it is started and asked; scripts run in its folder, `{folder}` in a file stands for that."""

    name: str
    programs: tuple[str, ...]
    version: str
    ask: str
    read: Callable[[str], list[Alert]]
    files: dict[str, str] = field(default_factory=dict)
    start: str = ""  # in a session of its own; "" if nothing has to run
    ready: str = "true"
    lacks: str = ""  # what was not given and it cannot do without


def netdata_settings(folder: str, port: int, *, learning: bool) -> str:
    """`netdata.conf`: stock but for where it lies and listens; no cloud, no registry, nobody notified."""
    return (
        f"[global]\nrun as user = root\n"
        f"[directories]\ncache = {folder}/cache\nlib = {folder}/lib\nlog = {folder}/log\n"
        f"[web]\nbind to = 127.0.0.1:{port}\n[ml]\nenabled = {'yes' if learning else 'no'}\n"
        "[cloud]\nenabled = no\n[registry]\nenabled = no\n"
        "[health]\nscript to execute on alarm = /bin/true\n"
    )


def _netdata() -> Peer:
    at = f"{_LOOPBACK}:{NETDATA_PORT}/api/v1"
    return Peer(
        "netdata",
        ("netdata", "curl"),
        "netdata -v",
        f"curl -sf '{at}/alarm_log'",
        answers.netdata,
        {"netdata.conf": netdata_settings("{folder}", NETDATA_PORT, learning=False)},
        "mkdir -p cache lib log; export DO_NOT_TRACK=1; exec netdata -D -c $PWD/netdata.conf",
        f"curl -sf {at}/info",
    )


def _prometheus(rules: Path | None) -> Peer:
    at = f"{_LOOPBACK}:{PROMETHEUS_PORT}"
    query = """--data-urlencode 'query=ALERTS{alertstate="firing"}[1d]'"""
    files, given = {"prometheus.yml": _PROMETHEUS}, ""
    if rules:
        files["rules.yml"] = read_rules(rules)
        given = f", rules sha256 {hashlib.sha256(rules.read_bytes()).hexdigest()[:16]}"  # which they were
    return Peer(
        "prometheus",
        ("prometheus", "prometheus-node-exporter", "curl"),
        f'echo "$(prometheus --version 2>&1 | head -n 1){given}"',
        f"date +%s.%N; curl -sfG {at}/api/v1/query {query}",
        lambda answer: answers.prometheus(answer, INTERVAL_S),
        files,
        f"prometheus-node-exporter --web.listen-address=127.0.0.1:{EXPORTER_PORT} & exec prometheus "
        "--config.file=prometheus.yml --storage.tsdb.path=$PWD/data "
        f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
        f"curl -sf {at}/-/ready",
        "" if rules else "needs --prometheus-rules FILE",
    )


def _monit() -> Peer:
    start = "chmod 600 monitrc; exec monit -I -c $PWD/monitrc"
    version = "monit -V | head -n 1"
    return Peer(
        "monit",
        ("monit",),
        version,
        "cat log",
        answers.monit,
        {"monitrc": _MONITRC},
        start,
        "grep -q started log",
    )


def _journal() -> Peer:
    fields = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,UNIT"
    return Peer(
        "journal",
        ("journalctl",),
        "journalctl --version | head -n 1",
        f"journalctl -q --no-pager -p 3 -o json --output-fields={fields} --since @$(cat began)",
        answers.journal,
        ready="journalctl -q -n 1 | grep -q .",
    )


NAMES = ("netdata", "prometheus", "monit", "journal")


def chosen(names: str | None, rules: Path | None) -> list[Peer]:
    """The peers of a list with commas, or `all`; raises ConfigError."""
    if names is None:
        return []
    known = {one.name: one for one in (_netdata(), _prometheus(rules), _monit(), _journal())}
    wanted = list(NAMES) if names == "all" else names.split(",")
    for name in wanted:
        if name not in known:
            hint = f"known: {', '.join(NAMES)}, or all; write --peers=NAMES after the scenarios"
            raise ConfigError(f"--peers: there is no peer {name!r}", hint=hint)
    return [known[name] for name in NAMES if name in wanted]


class Company:
    """The peers of one run; `start` them, `ask` them, and leave the context to end them."""

    def __init__(self, system: System, work: str, peers: Sequence[Peer], warm_s: float = WARM_S) -> None:
        self._system, self._work, self._warm_s = system, work, warm_s
        self._peers = list(peers)
        self.left_out: dict[str, str] = {}

    def start(self) -> None:
        """Start what is there and wait until each is up and has data; raises CommandError."""
        for peer in self._peers:
            if reason := peer.lacks or self._missing(peer):
                self.left_out[peer.name] = reason
            else:
                self._begin(peer)
        self._peers = [one for one in self._peers if one.name not in self.left_out]
        for peer in list(self._peers):
            self._await(peer)
        if any(one.start for one in self._peers):
            time.sleep(self._warm_s)

    def ask(self) -> dict[str, dict[str, Any]]:
        """What `run.json` holds of each; those that are not there say why."""
        said: dict[str, dict[str, Any]] = {name: {"left_out": why} for name, why in self.left_out.items()}
        for peer in self._peers:
            alerts = peer.read(self._in(peer, f"{peer.ask} 2>/dev/null"))
            said[peer.name] = {
                "version": self._in(peer, peer.version).strip(),
                "warm_s": self._warm_s,
                "alerts": [asdict(one) for one in alerts[:MOST]],
                "alerts_dropped": max(0, len(alerts) - MOST),
                **self._cost(peer),
            }
        return said

    def end(self) -> None:
        """End every process of theirs."""
        for peer in self._peers:
            session = f"$(cat {self._folder(peer)}/.session)"
            script = (
                f"[ -f {self._folder(peer)}/.session ] || exit 0; pkill -TERM -s {session}; "
                f"for n in $(seq 50); do pgrep -s {session} >/dev/null || exit 0; sleep 0.1; done; "
                f"pkill -KILL -s {session}"
            )
            self._system.run(script, check=False)

    def _missing(self, peer: Peer) -> str:
        wanted = [*peer.programs, *(("setsid", "ps", "pkill") if peer.start else ())]
        script = "; ".join(f"command -v {one} >/dev/null || echo {one}" for one in wanted)
        absent = self._system.run(f"{_PATH}; {script}", check=False).split()
        return f"needs {', '.join(absent)}" if absent else ""

    def _begin(self, peer: Peer) -> None:
        folder = self._folder(peer)
        self._system.run(f"mkdir -p {folder}; date +%s >{folder}/began")
        for name, text in {**peer.files, ".start": f"{_PATH}\n{peer.start}\n"}.items():
            self._system.push(text.replace("{folder}", folder).encode(), f"{folder}/{name}")
        if peer.start:
            begin = "echo $$ >.session; exec sh .start"
            self._in(peer, f"setsid sh -c {shlex.quote(begin)} >.out 2>&1 </dev/null &")

    def _await(self, peer: Peer) -> None:
        until = time.monotonic() + (UP_S if peer.start else 0)
        while "up" not in self._in(peer, f"{{ {peer.ready}; }} >/dev/null 2>&1 && echo up", check=False):
            if not peer.start:
                self.left_out[peer.name] = f"there is no {peer.name} here"
                self._peers.remove(peer)
                return
            if time.monotonic() > until:
                said = self._in(peer, "tail -c 500 .out", check=False)
                raise CommandError(f"{peer.name} is not up after {UP_S:.0f} s: {said}")
            time.sleep(0.3)

    def _cost(self, peer: Peer) -> dict[str, float]:
        """Processor seconds since its start, and memory now, of its session."""
        if not peer.start:
            return {}
        script = (
            "for p in $(ps -o pid= -s $(cat .session)); do "
            "sed 's/.*) //' /proc/$p/stat | cut -d ' ' -f 12-15; "
            "awk '/^Pss:/ {print $2}' /proc/$p/smaps_rollup; done; "
            "getconf CLK_TCK"
        )
        rows = [line.split() for line in self._in(peer, f"{{ {script}; }} 2>/dev/null").splitlines()]
        ticks = sum(int(one) for row in rows if len(row) == 4 for one in row)
        single = [int(row[0]) for row in rows if len(row) == 1]
        return {"cpu_s": ticks / single[-1], "pss_bytes": sum(single[:-1]) * 1024}

    def _folder(self, peer: Peer) -> str:
        return f"{self._work}/.peers/{peer.name}"

    def _in(self, peer: Peer, script: str, *, check: bool = True) -> str:
        return self._system.run(f"cd {self._folder(peer)}; {_PATH}; {script}", check=check)


@contextlib.contextmanager
def beside(system: System, work: str, peers: Sequence[Peer], warm_s: float = WARM_S) -> Iterator[Company]:
    """The peers of one run, ended in any case."""
    company = Company(system, work, peers, warm_s)
    try:
        yield company
    finally:
        company.end()
