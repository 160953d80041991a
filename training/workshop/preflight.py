"""What this machine can do, before a training starts: memory, disk, time, and what has to be given up.

The floors are those of the default base, 7 billion parameters at 4 bits; a smaller base needs less, and what
it needs is estimated from its own shape.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from daemon.errors import HauswartError
from training import memory
from training.chatml import Row
from training.course import Settings
from training.memory import GIB, Shape

GPU_GIB, GPU_GOOD_GIB = 8, 12
RAM_GIB, RAM_GOOD_GIB = 16, 32
DISK_GIB = 30
_CHARACTERS_A_TOKEN = 2.5  # few, so that rows are rather thought too long
_HEADROOM = 0.9  # of what is free; the rest is the system's
Tell = Callable[[str], None]


class Machine(NamedTuple):
    """What there is, in GiB; `gpu` is empty where there is none."""

    cores: int
    ram_gib: float
    free_ram_gib: float
    gpu: str
    gpu_gib: float
    disk_gib: float


def look(workdir: Path) -> Machine:
    """This machine as it is now."""
    import torch  # noqa: PLC0415  # seconds

    found = psutil.virtual_memory()
    gpu, gpu_bytes = "", 0
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        gpu, gpu_bytes = about.name, about.total_memory
    disk = shutil.disk_usage(workdir).free
    cores = len(os.sched_getaffinity(0))
    return Machine(cores, found.total / GIB, found.available / GIB, gpu, gpu_bytes / GIB, disk / GIB)


def judge(machine: Machine) -> list[str]:
    """The machine against the floors, in words."""
    lines = [f"{machine.cores} cores"]
    if machine.gpu:
        lines.append(f"GPU {machine.gpu}: " + _measured(machine.gpu_gib, GPU_GIB, GPU_GOOD_GIB))
    else:
        lines.append(f"no GPU (NVIDIA with {GPU_GIB} GiB, better {GPU_GOOD_GIB}): training on the processor")
    lines.append("memory " + _measured(machine.ram_gib, RAM_GIB, RAM_GOOD_GIB))
    lines.append("free disk " + _measured(machine.disk_gib, DISK_GIB, DISK_GIB))
    return lines


def _measured(found: float, floor: float, good: float) -> str:
    verdict = "enough" if found >= good else "the least" if found >= floor else "too little"
    wanted = f"{floor} GiB, better {good}" if good > floor else f"{floor} GiB"
    return f"{found:.0f} GiB, {verdict} for the default base ({wanted})"


def longest_of(rows: Sequence[Row], length: int) -> int:
    """About how many tokens the longest row has, at most `length`."""
    characters = max((sum(len(one["content"]) for one in row["messages"]) for row in rows), default=0)
    return min(length, int(characters / _CHARACTERS_A_TOKEN) + 64)


def fit_memory(shape: Shape, settings: Settings, rows: Sequence[Row], available: int, tell: Tell) -> Settings:
    """Settings that fit the memory, each thing that is given up told. Raises HauswartError where none do."""
    while True:
        needed = needed_bytes(shape, settings, rows)
        if needed <= available * _HEADROOM:
            tell(f"needs about {needed / GIB:.1f} GiB of memory, {available / GIB:.1f} are free")
            return settings
        why = f"{needed / GIB:.1f} GiB are needed, {available / GIB:.1f} are free"
        less = memory.lessen(settings)
        if less is None:
            raise HauswartError(
                f"the base does not fit: {why}, with the smallest settings",
                hint="a smaller base (model.base_model: smollm2), or a machine with more memory",
            )
        settings = less[0]
        tell(f"{why}: {less[1]}")


def needed_bytes(shape: Shape, settings: Settings, rows: Sequence[Row]) -> int:
    """Memory for a step, from the shape and the longest row."""
    import torch  # noqa: PLC0415  # seconds

    length = settings.max_seq_length if settings.packing else longest_of(rows, settings.max_seq_length)
    return memory.estimate_bytes(
        shape,
        four_bits=settings.quantization == "4bit",
        sixteen_bits=torch.cuda.is_available(),
        tokens=settings.batch_size * length,
        rank=settings.rank,
        checkpointing=settings.gradient_checkpointing,
    )


def guess_seconds(shape: Shape, settings: Settings, rows: Sequence[Row]) -> float:
    """About how long the steps take, from a quarter of a second of this machine's own arithmetic.

    Forward and backward are 6 operations a weight and token, of which frozen weights save a third.
    """
    tokens = sum(longest_of([row], settings.max_seq_length) - 64 for row in rows) + 32 * len(rows)
    return tokens * settings.epochs * 4 * shape.parameters / (0.5 * _operations_a_second())


def _operations_a_second() -> float:
    import torch  # noqa: PLC0415  # seconds

    from training.finetune import has_bf16  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    kind = torch.bfloat16 if has_bf16() else torch.float32
    one: Any = torch.ones(size, size, dtype=kind, device=device)
    count, began = 0, time.monotonic()
    while count < 2 or time.monotonic() - began < 0.25:
        (one @ one)[0, 0].item()
        count += 1
    return 2.0 * size**3 * count / (time.monotonic() - began)
