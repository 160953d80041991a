"""What `hauswart doctor` looks at: each check says what is there, what is missing and the remedy."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon.errors import HauswartError
from daemon.settings import Served, Settings
from daemon.store.reader import StoreReader

ASK_S = 3.0  # for a list of models
FREE_MIN_BYTES = 256 << 20  # below this the store and the telemetry soon stop


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report; `problem` keeps hauswart from its work, `absent` only narrows it."""

    name: str
    state: Literal["ok", "absent", "problem"]
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """All checks in the order that an operator would ask."""
    yield _directory("state directory", settings.state)
    yield _directory("runtime directory", settings.runtime)
    yield _space(settings.state)
    yield _store(settings)
    yield from _stages(settings)
    yield _journal(Path("/run/log/journal"), Path("/var/log/journal"))
    yield _readable(
        "kernel log", Path("/dev/kmsg"), "kernel messages come through the journal only", "run as root"
    )
    yield _readable(
        "pressure (PSI)",
        Path(settings.collect.proc, "pressure/cpu"),
        "saturation is judged by load",
        "boot with psi=1",
    )
    yield _groups(Path(settings.collect.sys, "fs/cgroup"))
    yield _udev(Path("/run/udev/control"))
    yield _netlink()
    yield _sensors(Path(settings.collect.sys, "class"))
    yield from _followed(settings)
    yield _clock(Path("/run/systemd/timesync/synchronized"))
    if settings.top.served.url:
        yield from _served(settings.top.served, Path("/etc/systemd/system"))
    if settings.collect.smart:
        yield _program("smartctl", "disks are judged by the kernel's messages only", "install smartmontools")


def _directory(name: str, path: Path) -> Check:
    probe = path
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    if os.access(probe, os.W_OK | os.X_OK):
        return Check(name, "ok", f"{path} is writable" if probe == path else f"{path} can be made")
    return Check(name, "problem", f"{path} is not writable", "run as root, or use --state-dir")


def _space(path: Path) -> Check:
    probe = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(probe).free
    text = f"{free / 1e9:.1f} GB free below {probe}"
    return Check(
        "disk space",
        "ok" if free > FREE_MIN_BYTES else "problem",
        text,
        "" if free > FREE_MIN_BYTES else "free space",
    )


def _store(settings: Settings) -> Check:
    path = settings.store
    if not path.exists():
        return Check("store", "ok", "not made yet")
    try:
        with StoreReader(path) as reader:
            damaged = reader.verify()
    except HauswartError as error:
        return Check("store", "problem", str(error), error.hint)
    if damaged:
        return Check(
            "store",
            "problem",
            f"{len(damaged)} damaged rows, first: {damaged[0]}",
            "restart the daemon: it salvages the rest",
        )
    return Check("store", "ok", f"{path.stat().st_size / 1e6:.1f} MB, all checksums right")


def _stages(settings: Settings) -> Iterator[Check]:
    from daemon.status import running_stages  # noqa: PLC0415  # keeps the table above short

    alive = running_stages(settings.runtime)
    if not alive:
        yield Check("daemon", "absent", "not running", "hauswart run")
    for stage in alive:
        state: Literal["ok", "problem"] = "ok" if stage.alive else "problem"
        yield Check(f"stage {stage.stage}", state, stage.text, "" if stage.alive else "see its log")


def _journal(*directories: Path) -> Check:
    files = [file for directory in directories for file in directory.glob("*/*.journal")]
    readable = [file for file in files if os.access(file, os.R_OK)]
    if readable:
        return Check("journal", "ok", f"{len(readable)} files readable")
    if files:
        return Check(
            "journal", "problem", f"{len(files)} files, none readable", "join the group systemd-journal"
        )
    return Check("journal", "absent", "no journal files; the kernel log and log files are read instead")


def _readable(name: str, path: Path, without: str, remedy: str) -> Check:
    if os.access(path, os.R_OK):
        return Check(name, "ok", f"{path} is readable")
    reason = "is not readable" if path.exists() else "does not exist"
    return Check(name, "absent", f"{path} {reason}: {without}", remedy)


def _groups(root: Path) -> Check:
    if (root / "cgroup.controllers").exists():
        return Check("control groups", "ok", "cgroup v2")
    if (root / "memory").is_dir():
        return Check("control groups", "ok", "cgroup v1: no pressure per unit")
    return Check("control groups", "absent", "no accounting per unit", "boot with cgroup v2")


def _udev(control: Path) -> Check:
    if control.exists():
        return Check("devices", "ok", "udev is running")
    return Check(
        "devices",
        "absent",
        "udev is not running: devices are read from the kernel, without models and serials",
    )


def _netlink() -> Check:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).close()
    except OSError as error:
        return Check(
            "links", "absent", f"no netlink socket ({error.strerror}): links are polled", "allow AF_NETLINK"
        )
    return Check("links", "ok", "netlink answers")


def _sensors(root: Path) -> Check:
    found = len(list(root.glob("hwmon/*"))) + len(list(root.glob("thermal/thermal_zone*")))
    return (
        Check("sensors", "ok", f"{found} found")
        if found
        else Check("sensors", "absent", "none on this machine")
    )


def _followed(settings: Settings) -> Iterator[Check]:
    for name in settings.collect.follow:
        for path in sorted(glob.glob(name)) or [name]:  # noqa: PTH207 - Path.glob takes no absolute pattern
            yield _readable(
                f"log {path}", Path(path), "followed as soon as it appears", "check the path and its group"
            )


def _clock(mark: Path) -> Check:
    if mark.exists():
        return Check("clock", "ok", "synchronised by systemd-timesyncd")
    return Check("clock", "absent", "synchronisation unknown; jumps are noticed all the same")


def _served(settings: Served, units: Path) -> Iterator[Check]:
    """Asks the served model's server for its list of models; no evidence is sent."""
    from daemon.ingest import redact  # noqa: PLC0415  # http and ssl only where a server is configured
    from daemon.inquiries import key_of  # noqa: PLC0415
    from models.chat import Chat  # noqa: PLC0415

    try:
        key = key_of(settings)
        chat = Chat(
            settings.url, what="evidence", redact=redact, key=key, consent=settings.consent, timeout_s=ASK_S
        )
        names = chat.models()
    except HauswartError as error:
        yield Check("served model", "absent", f"{error}: the tier's own texts stay", error.hint)
    else:
        known = not settings.model or settings.model in names
        text = f"{chat.url} serves {', '.join(names[:5]) or 'no model'}"
        remedy = "" if known else f"top.served.model is {settings.model!r}"
        yield Check("served model", "ok" if known else "absent", text, remedy)
    unit = units / "hauswart-top.service"
    changes = (units / f"{unit.name}.d").glob("*.conf")
    if unit.exists() and not any("PrivateNetwork=" in one.read_text(encoding="utf-8") for one in changes):
        remedy = "hauswart host install"
        yield Check("served model", "problem", "the top tier's unit may open no address", remedy)


def _program(name: str, without: str, remedy: str) -> Check:
    found = shutil.which(name)
    return Check(name, "ok", found) if found else Check(name, "absent", f"not installed: {without}", remedy)
