"""Which collectors these settings ask for: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from daemon.collectors.context import ContextCollector
from daemon.collectors.devices import DeviceCollector
from daemon.collectors.files import FileCollector
from daemon.collectors.host import HostCollector, readers_of
from daemon.collectors.journal import JournalCollector
from daemon.collectors.jumps import Jumps
from daemon.collectors.kernel import KernelCollector
from daemon.collectors.links import LinkCollector
from daemon.collectors.listeners import full_queues
from daemon.collectors.probes import DnsProbe, GatewayProbe, Probe, ProbeCollector
from daemon.collectors.sessions import SessionCollector
from daemon.collectors.snapshots import ProcessCollector
from daemon.collectors.source import Collector
from daemon.errors import SourceError
from daemon.ingest import Clean, clean
from daemon.settings import Collect, Settings


def build(settings: Settings, positions: Mapping[str, str]) -> list[Collector]:
    """The collectors in the order in which they are read."""
    collect, jumps = settings.collect, Jumps()
    proc, sys = Path(collect.proc), Path(collect.sys)
    hide, user, address = _hiders(settings)
    probes = _probes(collect, proc)
    host = HostCollector(readers_of(proc, sys, smart=collect.smart), jumps, collect.interval_s)
    return [
        host,
        ProcessCollector(proc, jumps, collect.snapshot_interval_s, address, partial(full_queues, sys)),
        *([LinkCollector()] if collect.network != "off" else []),
        *([DeviceCollector(proc, sys, clean_text=hide)] if collect.devices != "off" else []),
        *(
            [SessionCollector(clean_text=hide, hide_user=user, hide_host=address)]
            if collect.sessions != "off"
            else []
        ),
        ContextCollector(proc, sys, clean_text=hide),
        *([ProbeCollector(probes, collect.probe_interval_s)] if probes else []),
        *_logs(collect, positions, hide),
    ]


def _logs(collect: Collect, positions: Mapping[str, str], hide: Clean) -> list[Collector]:
    """The journal; where there is none, the kernel's log and the usual files; and what is followed anyway."""
    journal = JournalCollector(positions.get("journal", ""), clean_text=hide)
    is_there = collect.journal != "off" and _opens(journal)
    kernel = collect.kernel_log == "on" or (collect.kernel_log == "auto" and not is_there)
    patterns = dict.fromkeys([*([] if is_there else collect.files), *collect.follow])
    files = [FileCollector(pattern, positions.get(f"file:{pattern}", ""), hide) for pattern in patterns]
    return [
        *([journal] if collect.journal != "off" else []),  # an absent one is named by the stage
        *([KernelCollector(positions.get("kernel", ""), clean_text=hide)] if kernel else []),
        *files,
    ]


def _probes(collect: Collect, proc: Path) -> list[Probe]:
    dns: list[Probe] = [DnsProbe(collect.dns_probe, Path("/etc/resolv.conf"))] if collect.dns_probe else []
    return [*dns, *([GatewayProbe(proc)] if collect.gateway_probe else [])]


def _hiders(settings: Settings) -> tuple[Clean, Callable[[str], str], Callable[[str], str]]:
    """How text, users and addresses are cleaned: plainly, or with stand-ins for people."""
    if not settings.collect.pseudonymise:
        return clean, str, str
    from daemon.pseudonyms import open_pseudonyms  # noqa: PLC0415  # only where it is wanted

    pseudonyms = open_pseudonyms(settings.folder("collector"))
    return pseudonyms.clean, pseudonyms.user, pseudonyms.address


def _opens(collector: Collector) -> bool:
    try:
        collector.open()
    except SourceError:
        return False
    collector.close()
    return True
