"""The peers, from Debian's packages, on loopback only and with their stock collection settings."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

from tests.lab.peers import netdata_settings

EXPORTER_PORT, NETDATA_PORT = 19100, 19999


@contextlib.contextmanager
def node_exporter() -> Iterator[subprocess.Popen | None]:
    """prometheus-node-exporter, scraped once a second as a 1 Hz Prometheus would."""
    binary = shutil.which("prometheus-node-exporter")
    if binary is None:
        yield None
        return
    process = subprocess.Popen(
        [binary, f"--web.listen-address=127.0.0.1:{EXPORTER_PORT}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    over = Event()
    scraper = Thread(target=_scrape, args=(f"http://127.0.0.1:{EXPORTER_PORT}/metrics", over), daemon=True)
    scraper.start()
    try:
        yield process
    finally:
        over.set()
        process.terminate()
        process.wait(10)
        scraper.join(5)


def _scrape(url: str, over: Event) -> None:
    while not over.wait(1.0):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            answer.read()


@contextlib.contextmanager
def netdata(scratch: Path, *, learning: bool) -> Iterator[subprocess.Popen | None]:
    """Netdata with its stock collectors at 1 Hz, its machine learning on or off, no cloud, no registry."""
    binary = shutil.which("netdata")
    if binary is None:
        yield None
        return
    for name in ("cache", "lib", "log"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    config = scratch / "netdata.conf"
    config.write_text(netdata_settings(str(scratch), NETDATA_PORT, learning=learning))
    with (scratch / "netdata.log").open("wb") as log:
        process = subprocess.Popen([binary, "-D", "-c", str(config)], stdout=log, stderr=log)
    time.sleep(3)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
