"""What this machine has, and how fast it moves and multiplies numbers, by a short measurement."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil

from training.workshop.planning.catalogue import Catalogue

GIB = float(1 << 30)
_NVIDIA_TIMEOUT_S = 10
_ARRAY_BYTES = 128 << 20  # four times the largest cache that is common
_SQUARE = 1024
_ROUNDS = 3


class Machine(NamedTuple):
    """Cores, memory and disk in GiB, the largest accelerator; speeds in GB/s and GFLOP/s."""

    cores: int
    ram_gib: float
    free_ram_gib: float
    disk_gib: float
    gpu: str  # "" where there is none
    gpu_gib: float
    bandwidth_gb_s: float
    gflops: float
    watts: float  # at work, more than idle
    measured: str  # how the speeds are known: "measured", "listed" or "given"


def read_machine(catalogue: Catalogue, folder: Path, *, gpu: str = "", gpu_gib: float = 0.0) -> Machine:
    """This machine, unmeasured; a card that is given takes the place of what is in it."""
    memory = psutil.virtual_memory()
    if gpu_gib:
        name, size = gpu or "gpu", gpu_gib
    else:
        name, size = find_gpu()
    row = catalogue.accelerator(name) if name else None
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        ram_gib=memory.total / GIB,
        free_ram_gib=memory.available / GIB,
        disk_gib=shutil.disk_usage(_existing(folder)).free / GIB,
        gpu=name,
        gpu_gib=size,
        bandwidth_gb_s=row.bandwidth if row else 0.0,
        gflops=row.tflops * 1000 if row else 0.0,
        watts=row.watts if row else catalogue.assumptions.watts_processor,
        measured="listed" if row else "",
    )


def find_gpu(run: Callable[[], str] | None = None) -> tuple[str, float]:
    """The largest card's name and memory in GiB, as nvidia-smi (else torch, if loaded) says; ("", 0)."""
    try:
        said = (run or _nvidia_smi)()
    except (OSError, subprocess.SubprocessError):
        return "", 0.0
    found = []
    for line in said.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name.strip() and mebibytes.strip().isdecimal():
            found.append((int(mebibytes) / 1024, name.strip()[:100]))
    size, name = max(found, default=(0.0, ""))
    return name, size


def _nvidia_smi() -> str:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=_NVIDIA_TIMEOUT_S, errors="replace"
    )
    return done.stdout


def measure(machine: Machine) -> Machine:
    """The processor's speeds, measured in some seconds; a listed accelerator stays as it is."""
    if machine.gpu:
        return machine
    return machine._replace(
        bandwidth_gb_s=bandwidth_gb_s(machine.cores), gflops=gflops(), measured="measured"
    )


def bandwidth_gb_s(cores: int) -> float:
    """What all cores read from memory in a second, the best of some rounds."""
    import numpy as np  # noqa: PLC0415  # the command's help does without

    part = _ARRAY_BYTES // 4 // cores
    arrays = [np.ones(part, np.float32) for _ in range(cores)]

    def read(array: np.ndarray) -> float:
        return float(array.max())  # vectorised, and nothing is written

    with ThreadPoolExecutor(cores) as pool:
        best_s = min(_timed(lambda: list(pool.map(read, arrays))) for _ in range(_ROUNDS + 1))
    return 4 * part * cores / best_s / 1e9


def gflops() -> float:
    """What a multiplication of two square matrices of 32 bits reaches, with the library's own threads."""
    import numpy as np  # noqa: PLC0415

    square = np.ones((_SQUARE, _SQUARE), np.float32)
    best_s = min(_timed(lambda: square @ square) for _ in range(_ROUNDS))
    return float(2 * _SQUARE**3 / best_s / 1e9)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())
