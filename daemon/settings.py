"""What can be configured, with defaults: plain frozen dataclasses that cost a stage nothing to import.

`daemon.config` fills them from the TOML file and `HAUSWART_*` once (through pydantic-settings) and hands the
stages the resolved result as a file; a stage reads it back with `load_resolved`.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from annotated_types import Ge, Le

from daemon.errors import ConfigError

Switch = Literal["auto", "on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
Language = Literal["en", "de"]
Ratio = Annotated[float, Ge(0.0), Le(1.0)]
Seconds = Annotated[float, Ge(0.0)]
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Collect:
    """What is read, and how often."""

    __pydantic_config__ = _STRICT

    interval_s: Annotated[float, Ge(0.1), Le(60.0)] = 1.0
    snapshot_interval_s: Annotated[float, Ge(1.0), Le(600.0)] = 10.0
    journal: Switch = "auto"
    kernel_log: Switch = "auto"  # /dev/kmsg, read where there is no journal (auto) or always (on)
    files: list[str] = field(
        default_factory=lambda: ["/var/log/auth.log", "/var/log/syslog"]
    )  # if no journal
    follow: list[str] = field(default_factory=list)  # log files followed in any case; glob patterns allowed
    devices: Switch = "auto"
    network: Switch = "auto"
    sessions: Switch = "auto"
    dns_probe: str = ""  # a name to resolve every probe_interval_s; "" is off
    gateway_probe: bool = False
    probe_interval_s: Annotated[float, Ge(5.0)] = 30.0
    smart: bool = False  # needs smartctl and its privileges
    pseudonymise: bool = False  # users and addresses become keyed hashes at ingest
    proc: str = "/proc"
    sys: str = "/sys"


@dataclass(frozen=True)
class Low:
    """The low tier: log lines and metric windows."""

    __pydantic_config__ = _STRICT

    learn_s: Seconds = 120.0  # no novelty is reported before a source was watched this long
    templates_max: Annotated[int, Ge(64), Le(200000)] = 20000
    unit_cpu_share: Ratio = 0.25  # of one core, per unit, before the cheap fallback judges its lines
    telemetry_days: Annotated[int, Ge(0)] = 14
    telemetry_mib: Annotated[int, Ge(1)] = 512
    state_interval_s: Annotated[float, Ge(5.0)] = 60.0


@dataclass(frozen=True)
class Middle:
    """The middle tier: situations and incidents."""

    __pydantic_config__ = _STRICT

    open_score: Ratio = 0.5
    settle_s: Seconds = 1.0  # findings this close together are weighed together before an incident opens
    close_after_s: Seconds = 120.0
    merge_window_s: Seconds = 60.0
    incidents_days: Annotated[int, Ge(1)] = 365


@dataclass(frozen=True)
class Served:
    """A served model that may explain incidents better; off without a `url`, and then nothing is asked.

    The first advice never waits for it: its text, once checked, takes the place of the one before. Elsewhere
    than on loopback nothing is sent unless `consent` names it (`models.chat.LEAVES` says what that means).
    """

    __pydantic_config__ = _STRICT

    url: str = ""  # a chat-completions server, e.g. http://127.0.0.1:11434
    model: str = ""  # its name there
    key_file: str = ""  # one line; the unit gives it as the credential hauswart.served
    consent: list[str] = field(default_factory=list)  # "evidence"
    timeout_s: Annotated[float, Ge(0.1), Le(600.0)] = 30.0  # for all attempts at one incident
    attempts: Annotated[int, Ge(1), Le(5)] = (
        2  # after a text that fails the check, told what was wrong with it
    )
    max_tokens: Annotated[int, Ge(16), Le(4096)] = 700  # two texts of 900 characters are some 600
    per_hour: Annotated[int, Ge(1), Le(10000)] = 60  # incidents; who may log may cause them, and a key costs
    # It is also asked what lines mean that no rule knows, and may open incidents by them; and what to make of
    # those that rules opened: notifying of words alone, and of what may be meant, waits for that.
    reads: bool = False
    readings_per_hour: Annotated[int, Ge(1), Le(10000)] = 150  # a quarter at once, a third for looks
    parameters: dict[str, float | int | str | bool] = field(
        default_factory=dict
    )  # of sampling, e.g. temperature; `hauswart workshop tune` finds them

    @property
    def reading(self) -> bool:
        """Whether it reads what no rule knows."""
        return bool(self.url) and self.reads


@dataclass(frozen=True)
class Top:
    """The top tier: advice."""

    __pydantic_config__ = _STRICT

    languages: list[Language] = field(default_factory=lambda: ["en", "de"])
    runbooks: str = ""  # an index.sqlite of `hauswart academy`: advice then names the page that fits
    served: Served = field(default_factory=Served)


@dataclass(frozen=True)
class Models:
    """The models beside each tier's baseline path: "auto" takes what is installed or shipped, or a directory.

    The times bound how long a scorer may take before it is given up. Nobody waits meanwhile, since the
    baseline has spoken, but for the top tier's text: after `top_timeout_s` the catalogue's is taken.
    """

    __pydantic_config__ = _STRICT

    low: str = "auto"  # "auto", "off" or the path of a bundle
    middle: str = "auto"
    top: str = "auto"
    idle_s: Annotated[float, Ge(1.0), Le(86400.0)] = 20.0  # without a question, then the memory is given back
    start_timeout_s: Annotated[float, Ge(0.1)] = 60.0  # 0.3 s of a core; 14 s on two busy ones
    low_timeout_s: Annotated[float, Ge(0.01)] = 30.0
    middle_timeout_s: Annotated[float, Ge(0.01)] = 30.0
    top_timeout_s: Annotated[float, Ge(0.01)] = 5.0
    signature_required: bool = False  # refuse a bundle without a manifest.sig of an allowed signer
    allowed_signers: str = ""  # a file as ssh-keygen(1) describes it


@dataclass(frozen=True)
class Notify:
    """How the operator is told."""

    __pydantic_config__ = _STRICT

    hook: list[str] = field(default_factory=list)  # argv; the incident arrives as JSON on its standard input
    targets: list[str] = field(default_factory=list)  # Apprise URLs
    targets_file: str = ""  # a file with one Apprise URL a line, for credentials
    alertmanager: str = ""  # the address of a Prometheus Alertmanager, e.g. http://127.0.0.1:9093
    floor: Literal["info", "warning", "error", "critical"] = "warning"
    per_hour: Annotated[int, Ge(1)] = 12  # more than this go into a digest
    digest_s: Seconds = 3600.0
    language: Language = "en"


@dataclass(frozen=True)
class Metrics:
    """What hauswart tells of itself and its incidents as numbers: to who asks, and to whom it is sent."""

    __pydantic_config__ = _STRICT

    listen: str = ""  # the Prometheus text endpoint: "" is off, `unix:/path` or `127.0.0.1:port`
    otlp: str = (
        ""  # an OpenTelemetry collector, e.g. http://127.0.0.1:4318: metrics, incidents as log records
    )
    otlp_interval_s: Annotated[float, Ge(5.0)] = 60.0


@dataclass(frozen=True)
class Web:
    """The operator's page: where it listens, and who may look and answer.

    Without `auth` it serves this host's own users alone: loopback or a unix socket.
    """

    __pydantic_config__ = _STRICT

    listen: str = "127.0.0.1:8470"  # or `unix:/path`
    idle_s: Annotated[float, Ge(5.0)] = 300.0  # without a request, then it ends; its socket starts it again
    auth: Literal["off", "password", "header"] = "off"
    password_file: str = ""  # one line; the unit gives it as the credential hauswart.web
    header: str = "X-Remote-User"  # set by a reverse proxy, which must strip what clients send
    operators: list[str] = field(default_factory=list)  # who may answer; empty is everybody let in
    hosts: list[str] = field(default_factory=list)  # further names that it is called by in a browser
    read_only: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything; `state_dir` outlives reboots, `runtime_dir` holds sockets, locks and status files."""

    state_dir: str = "/var/lib/hauswart"
    runtime_dir: str = "/run/hauswart"
    log_level: LogLevel = "info"
    language: Language = "en"
    collect: Collect = field(default_factory=Collect)
    low: Low = field(default_factory=Low)
    middle: Middle = field(default_factory=Middle)
    top: Top = field(default_factory=Top)
    models: Models = field(default_factory=Models)
    notify: Notify = field(default_factory=Notify)
    metrics: Metrics = field(default_factory=Metrics)
    web: Web = field(default_factory=Web)

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(self.state_dir)

    @property
    def runtime(self) -> Path:
        """The runtime directory."""
        return Path(self.runtime_dir)

    def folder(self, owner: str) -> Path:
        """Where one stage keeps what only it may write: a folder of its own if there is one, else the state.

        The units' users have folders (units/hauswart.tmpfiles); a daemon of one user keeps all in one.
        """
        own = self.state / owner
        return own if own.is_dir() else self.state

    @property
    def store(self) -> Path:
        """The store, which the middle tier alone writes."""
        return self.folder("store") / "store.db"


def save_resolved(settings: Settings, path: Path) -> None:
    """Write the resolved settings where the stages find them, for the owner's eyes: targets are secrets."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(asdict(settings)))
    partial.replace(path)


def load_resolved(path: Path) -> Settings:
    """Read the resolved settings; raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"resolved settings {path}: {error}", hint="start the stage through `hauswart run` or its unit"
        ) from error
