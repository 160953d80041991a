"""Serves a GGUF file on loopback for as long as it is needed: by llama-server on PATH, or by xllamacpp.

In a process of its own: a file that an engine chokes on must not take its caller along. Run as a program it
is the latter: `python -m training.engine GGUF ADDRESS_FILE CONTEXT`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from daemon.errors import HauswartError

START_S = 600.0  # a large file from a slow disk
ANSWER_S = 600.0


class Engine(NamedTuple):
    """A served file: the server's root, and what serves it."""

    url: str
    name: str

    def post(self, path: str, body: Any) -> Any:
        """One request to llama.cpp's own interface. Raises HauswartError."""
        request = urllib.request.Request(  # noqa: S310  # loopback, started here
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise HauswartError(f"{self.name} does not answer {path}: {error}") from error


def find_engine() -> str:
    """What can serve a GGUF file here; empty where nothing can."""
    if shutil.which("llama-server"):
        return "llama-server"
    return "xllamacpp" if find_spec("xllamacpp") else ""


@contextmanager
def open_engine(file: Path, *, context: int = 2048, threads: int = 0) -> Iterator[Engine]:
    """Serve a file; `threads` 0 is $OMP_NUM_THREADS, or all processors. Raises HauswartError."""
    name = find_engine()
    if not name:
        raise HauswartError(
            "nothing here can serve a GGUF file", hint="install llama.cpp or pip install xllamacpp"
        )
    count = threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    with TemporaryDirectory(prefix="hauswart-engine-") as work:
        said, log = Path(work) / "address", Path(work) / "log"
        command = [sys.executable, "-m", "training.engine", str(file), str(said), str(context), str(count)]
        if name == "llama-server":
            port = _free_port()
            said.write_text(f"http://127.0.0.1:{port}", encoding="utf-8")
            command = [name, "-m", str(file), "--host", "127.0.0.1", "--port", str(port)]
            command += ["-c", str(context), "-t", str(count), "-np", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield Engine(_await(process, said, log, file), name)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], said: Path, log: Path, file: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if said.is_file():
            url = said.read_text(encoding="utf-8")
            try:
                with urllib.request.urlopen(url + "/health", timeout=5):  # noqa: S310  # loopback
                    return url
            except (OSError, urllib.error.URLError):
                pass  # not yet: it is loading
        time.sleep(0.1)
    lines = [one for one in log.read_text(errors="replace").splitlines() if "error" in one.lower()]
    raise HauswartError(f"the engine cannot load {file}: {(lines or ['it says nothing'])[0][:300]}")


def main(file: str, said: str, context: str, threads: str) -> None:
    """Serve until killed; the address is written when the model is loaded."""
    import xllamacpp  # noqa: PLC0415  # only this process needs it

    wanted = xllamacpp.CommonParams()
    wanted.model.path = file
    wanted.n_ctx, wanted.n_parallel, wanted.port = int(context), 1, 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = int(threads)
    wanted.n_threads_http, wanted.hostnames = 2, ["127.0.0.1"]
    wanted.warmup, wanted.cache_ram_mib, wanted.verbosity = False, 0, 0
    server = xllamacpp.Server(wanted)
    part = Path(said).with_suffix(".part")
    part.write_text(server.listening_address, encoding="utf-8")
    part.rename(said)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
