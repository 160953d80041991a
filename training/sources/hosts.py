"""Simulated hosts: their services, disks, links and users under invented names, and an ordinary second.

Knows nothing about faults. A host is made from a seed and is the same for the same seed.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from daemon.messages import Line, Process, Sample, Snapshot, Stamp

MONO_0 = 4000.0  # long after boot
WALL_0 = 1_700_000_000.0

_STEMS = [
    "nginx",
    "postgresql",
    "mariadb",
    "redis",
    "grafana",
    "prometheus",
    "gitea",
    "forgejo",
    "jellyfin",
    "nextcloud",
    "dovecot",
    "postfix",
    "unbound",
    "haproxy",
    "caddy",
    "traefik",
    "mosquitto",
    "influxdb",
    "vaultwarden",
    "paperless",
    "immich",
    "sonarr",
    "minio",
    "matrix-synapse",
    "keycloak",
    "openldap",
    "cups",
    "samba",
    "nfs-server",
    "php-fpm",
    "gunicorn",
    "celery",
    "rabbitmq",
    "elasticsearch",
    "zabbix-agent",
    "node-red",
    "homeassistant",
    "syncthing",
    "transmission",
    "plex",
    "murmur",
    "znc",
    "radicale",
    "miniflux",
    "freshrss",
    "wiki",
    "shop-api",
    "billing",
    "worker",
    "ingest",
    "scheduler",
    "mailer",
    "renderer",
    "indexer",
    "gateway",
    "auth-proxy",
    "sync-agent",
    "report-builder",
]
_PROGRAMS = {"postgresql": "postgres", "mariadb": "mariadbd", "redis": "redis-server", "gunicorn": "gunicorn"}
_MOUNTS = [
    "/var",
    "/home",
    "/srv",
    "/srv/data",
    "/data",
    "/mnt/media",
    "/var/log",
    "/var/lib/docker",
    "/tmp",  # noqa: S108 - a name
    "/opt",
    "/backup",
    "/nix",
]
_DISKS = ("sda", "sdb", "sdc", "vda", "vdb", "nvme0n1", "nvme1n1", "mmcblk0", "dm-0", "md0")
_LINKS = ("eth0", "eth1", "ens18", "enp3s0", "enp0s31f6", "eno1", "wlp2s0", "br0", "bond0", "wg0")
_USERS = [
    "alice",
    "bob",
    "carol",
    "dave",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "olivia",
    "peggy",
    "rupert",
    "sybil",
]
_CHATTER = (
    "GET /health 200 in {n} ms",
    "connection from {ip} accepted",
    "flushed {n} entries to disk in {n} ms",
    "job {n} finished",
    "cache hit ratio {n} percent",
    "renewed session for user {user}",
    "checkpoint complete: wrote {n} buffers",
    "scheduled task {n} done",
)


class Service(NamedTuple):
    """A unit and the program that it runs."""

    unit: str
    program: str
    pid: int
    uid: int


class Mount(NamedTuple):
    """A mount point on a disk's partition."""

    path: str
    disk: str
    part: str


class Host:
    """One host's inventory and its ordinary readings."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)  # noqa: S311 - nothing secret
        self.cores = random.choice((1, 2, 2, 4, 4, 8, 16))
        self.memory_bytes = random.choice((1, 2, 4, 8, 16, 32)) * float(1 << 30)
        self.psi = random.random() < 0.85
        self.services = [self._service(stem) for stem in random.sample(_STEMS, 14)]
        disks = random.sample(_DISKS, 3)
        self.mounts = [Mount("/", disks[0], f"{disks[0]}1")]
        self.mounts += [self._mount(path, random.choice(disks)) for path in random.sample(_MOUNTS, 3)]
        self.disks = disks
        self.links = random.sample(_LINKS, 2)
        self.users = random.sample(_USERS, 4)
        self.boot = f"{random.getrandbits(128):032x}"
        self._busy = random.uniform(0.02, 0.3)
        self._steady: dict[str, float] = {}

    def _service(self, stem: str) -> Service:
        program = _PROGRAMS.get(stem, stem)[:15]
        return Service(
            f"{stem}.service",
            program,
            self.random.randrange(300, 30000),
            self.random.choice((0, 33, 105, 998)),
        )

    def _mount(self, path: str, disk: str) -> Mount:
        joint = "p" if disk[-1].isdigit() else ""
        return Mount(path, disk, f"{disk}{joint}{self.random.randrange(1, 5)}")

    # --- choices, by the episode's own randomness ---------------------------------------------------------

    def address(self, random: Random) -> str:
        """Somebody's address, from the ranges for documentation (RFC 5737) and private ones."""
        net = random.choice(("192.0.2", "198.51.100", "203.0.113", "10.0.3", "192.168.1"))
        return f"{net}.{random.randrange(2, 255)}"

    def process(self, service: Service, *, cpu: float = 0.01, io: float = 0.0, **other: float) -> Process:
        """A service's main process as a snapshot shows it."""
        return Process(
            service.pid,
            int(other.get("ppid", 1)),
            service.program,
            service.unit,
            service.uid,
            "S",
            cpu,
            int(other.get("rss", 80e6)),
            int(other.get("fds", 20)),
            int(other.get("limit", 1024)),
            int(other.get("threads", 4)),
            io,
            other.get("age", 86400.0),
        )

    # --- an ordinary second -------------------------------------------------------------------------------

    def stamp(self, t: float, jump_s: float = 0.0) -> Stamp:
        """Observation time `t` of this host; `jump_s` moves its wall clock."""
        return Stamp(self.boot, MONO_0 + t, WALL_0 + t + jump_s)

    def quiet(self, random: Random) -> dict[str, float]:
        """The readings of an ordinary second."""
        spike = random.random() < 0.02
        busy = min(0.9, abs(random.gauss(self._busy, 0.03)) + (0.3 if spike else 0.0))
        values = {
            "cpu.cores": float(self.cores),
            "cpu.busy": busy,
            "cpu.iowait": abs(random.gauss(0.0, 0.005)),
            "load.1": busy * self.cores,
            "proc.total": round(random.gauss(180, 2)),
            "proc.running": 1.0,
            "proc.blocked": 0.0,
            "proc.forks": abs(random.gauss(2, 2)),
            "proc.limit": 0.01,
            "mem.total": self.memory_bytes,
            "mem.available": random.gauss(0.6, 0.003),
            "mem.swap_used": 0.02,
            "mem.major_faults": 0.0,
            "mem.oom_kills": 0.0,
            "fd.used": 0.01,
            "sock.tcp_established": round(abs(random.gauss(20, 2))),
            "net.tcp_retransmits": 1.0 if random.random() < 0.02 else 0.0,
            "net.tcp_out_segments": abs(random.gauss(80, 20)),
            "net.listen_drops": 0.0,
            "net.syn_received": abs(random.gauss(1.0, 0.5)),
            "net.conntrack": 0.02,
            "temp.critical{cpu}": random.gauss(0.5, 0.01),
        }
        if self.psi:
            values |= {"psi.cpu.some": abs(random.gauss(0.01, 0.01)), "psi.memory.some": 0.0}
            values |= {
                "psi.memory.full": 0.0,
                "psi.io.some": abs(random.gauss(0.0, 0.005)),
                "psi.io.full": 0.0,
            }
        return values | self._places(random)

    def _places(self, random: Random) -> dict[str, float]:
        values: dict[str, float] = {}
        for mount in self.mounts:
            used = self._steady.setdefault(mount.path, self.random.uniform(0.2, 0.86))
            size = self._steady.setdefault(f"size{mount.path}", self.random.choice((4e9, 2e10, 1e11, 5e11)))
            values[f"fs.used{{{mount.path}}}"] = used
            values[f"fs.free_bytes{{{mount.path}}}"] = (1.0 - used) * size
            values[f"fs.inodes_used{{{mount.path}}}"] = 0.2
            values[f"fs.readonly{{{mount.path}}}"] = 0.0
        for disk in self.disks:
            values[f"disk.busy{{{disk}}}"] = abs(random.gauss(0.02, 0.01))
            values[f"disk.await_s{{{disk}}}"] = abs(random.gauss(0.001, 0.0005))
        for link in self.links:
            values[f"link.carrier{{{link}}}"] = 1.0
            values[f"link.rx_packets{{{link}}}"] = abs(random.gauss(100, 20))
            values[f"link.tx_bytes{{{link}}}"] = abs(random.gauss(5e4, 1e4))
            values[f"link.errors{{{link}}}"] = values[f"link.drops{{{link}}}"] = 0.0
        for service in self.services[:6]:
            values[f"unit.cpu{{{service.unit}}}"] = abs(random.gauss(0.02, 0.01))
            values[f"unit.memory{{{service.unit}}}"] = 0.3
        return values

    def sample(self, t: float, values: dict[str, float], jump_s: float = 0.0) -> Sample:
        """One second's sample."""
        values.setdefault("mem.available_bytes", values["mem.available"] * values["mem.total"])
        return Sample(self.stamp(t, jump_s), "host", values)

    def snapshot(
        self, t: float, extra: list[Process], counts: dict[str, float], jump_s: float = 0.0
    ) -> Snapshot:
        """The processes of a second, `extra` ones in place of those of the same pid."""
        pids = {one.pid for one in extra}
        usual = [self.process(one) for one in self.services if one.pid not in pids]
        told = {"total": 180.0, "name{sshd}": 3.0} | counts
        return Snapshot(self.stamp(t, jump_s), "processes", "interval", [*extra, *usual], told)

    def chatter(self, t: float, random: Random) -> Line:
        """A line that some service utters all day."""
        service = random.choice(self.services)
        words = random.choice(_CHATTER).format(
            n=random.randrange(1, 999), ip=self.address(random), user=random.choice(self.users)
        )
        return Line(
            self.stamp(t), "journal", words, 6, service.unit, "", service.program, service.pid, service.uid
        )
