"""Quiet days of a host on which nothing goes wrong, in hours: recorded in a machine whose clock skips.

What goes on in it is what goes on on any small server: a page that is asked for, jobs by the clock, a nightly
backup, rotated logs, an operator who logs in now and then.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.lab.machine import Machine, skipping

STEP_S = 60.0  # of the recorder's own time between two looks
ANSWER_S = 900.0  # where an hour passes in minutes, a request's own seconds do, too
_TELEMETRY = "/var/lib/hauswart/telemetry"
_CRONTAB = b"""SHELL=/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
17 * * * * root logrotate /etc/logrotate.conf; find /var/tmp -mtime +3 -delete
*/10 * * * * root curl -s -o /dev/null http://127.0.0.1:8000/
30 2 * * * root tar -C /usr -cf - share lib/python3 bin | gzip -1 > /var/tmp/nightly.tgz
"""
_PAGE = "systemd-run --unit=pages --working-directory=/usr/share python3 -m http.server 8000"


def record(folder: Path, hours: float, watch: Callable[[float], None], wait: Callable[[float], None]) -> None:
    """Fill `folder/telemetry` with so many hours; raises LabError. What was recorded when it broke off stays.

    `watch` is told how many hours there are; `wait` sleeps.
    """
    scratch = Path(tempfile.mkdtemp(prefix="hwlab-"))
    try:
        with skipping(scratch / "machine") as machine:
            machine.push(_CRONTAB, "/etc/cron.d/day")
            machine.run(f"chmod 644 /etc/cron.d/day && {_PAGE}", timeout_s=ANSWER_S)
            began = _up_s(machine)
            (folder / "telemetry").mkdir(parents=True, exist_ok=True)
            while (passed := (_up_s(machine) - began) / 3600.0) < hours:
                watch(passed)
                wait(STEP_S)
                _bring(machine, folder / "telemetry")
            watch(hours)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _up_s(machine: Machine) -> float:
    return float(machine.run("cat /proc/uptime", timeout_s=ANSWER_S).split()[0])


def _bring(machine: Machine, folder: Path) -> None:
    """Copy the segments that are new or have grown."""
    listed = machine.run(f"cd {_TELEMETRY} && stat -c '%s %n' *", timeout_s=ANSWER_S)
    for line in listed.splitlines():
        size, name = line.split()
        kept = folder / Path(name).name
        if not kept.exists() or kept.stat().st_size != int(size):
            kept.write_bytes(machine.pull(f"{_TELEMETRY}/{name}"))
