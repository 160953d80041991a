"""SMART health of disks through `smartctl`, at most hourly, never waited for; off unless the operator asks.

A disk that sleeps is left asleep (`-n standby`).
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

import msgspec

from daemon.collectors.kernel_files import Note, subdirectories

_EVERY_S = 3600.0
_TIMEOUT_S = 30.0
_REPEAT_S = 5.0
_MAX_DISKS = 64
_MAX_OUTPUT = 1 << 20
_REALLOCATED = 5  # attribute Reallocated_Sector_Ct (ATA)


class Health(msgspec.Struct, frozen=True):
    """What one disk says of itself; None where it does not say."""

    failing: bool | None
    reallocated: int | None


class _Status(msgspec.Struct):
    passed: bool | None = None


class _Raw(msgspec.Struct):
    value: int = 0


class _Attribute(msgspec.Struct):
    id: int
    raw: _Raw


class _Table(msgspec.Struct):
    table: list[_Attribute] = []


class _Report(msgspec.Struct):
    smart_status: _Status | None = None
    ata_smart_attributes: _Table | None = None
    scsi_grown_defect_list: int | None = None


def parse_report(data: bytes) -> Health | None:
    """The health in the JSON of `smartctl -j -H -A`, or None if it tells nothing."""
    try:
        report = msgspec.json.decode(data[:_MAX_OUTPUT], type=_Report)
    except (msgspec.MsgspecError, RecursionError):
        return None
    passed = report.smart_status.passed if report.smart_status else None
    table = report.ata_smart_attributes.table if report.ata_smart_attributes else []
    reallocated = next((a.raw.value for a in table if a.id == _REALLOCATED), report.scsi_grown_defect_list)
    if passed is None and reallocated is None:
        return None
    return Health(None if passed is None else not passed, reallocated)


class SmartReader:
    """The metrics disk.smart_failing and disk.smart_reallocated: one disk is asked at a time."""

    def __init__(self, sys: Path, program: str = "smartctl") -> None:
        self._block = sys / "block"
        self._program = program
        self._waiting: deque[str] = deque()
        self._child: tuple[str, subprocess.Popen[bytes], IO[bytes], float] | None = None
        self._health: dict[str, Health] = {}
        self._round_at = 0.0
        self._repeat_at = 0.0
        self._notes: list[Note] = []

    def open(self) -> list[Note]:
        """Find the program."""
        if shutil.which(self._program):
            return []
        self._round_at = float("inf")
        return [Note("smart", "absent", f"{self._program} is not installed")]

    def read(self, mono: float, values: dict[str, float]) -> None:
        """Begin, watch or reap a question, and repeat what is known."""
        if mono >= self._round_at:
            self._round_at = mono + _EVERY_S
            disks = [name for name in subdirectories(self._block) if (self._block / name / "device").exists()]
            self._waiting = deque(name for name in disks[:_MAX_DISKS] if not name.startswith(("sr", "fd")))
            self._health = {name: health for name, health in self._health.items() if name in self._waiting}
        if self._child:
            self._watch(mono)
        elif self._waiting:
            self._ask(self._waiting.popleft(), mono)
        if mono >= self._repeat_at:
            self._repeat_at = mono + _REPEAT_S
            for name, health in self._health.items():
                if health.failing is not None:
                    values[f"disk.smart_failing{{{name}}}"] = float(health.failing)
                if health.reallocated is not None:
                    values[f"disk.smart_reallocated{{{name}}}"] = health.reallocated

    def _ask(self, name: str, mono: float) -> None:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - lives until the child is reaped
        argv = [self._program, "-j", "-H", "-A", "-n", "standby", f"/dev/{name.replace('!', '/')}"]
        try:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL)
        except OSError as error:
            output.close()
            self._notes.append(Note("smart", "error", str(error)))
            return
        self._child = (name, child, output, mono + _TIMEOUT_S)

    def _watch(self, mono: float) -> None:
        assert self._child
        name, child, output, until = self._child
        if child.poll() is None:
            if mono < until:
                return
            if until != math.inf:  # it dies when the disk lets go of it, which may take minutes
                child.kill()
                self._child = (name, child, output, math.inf)
                self._notes.append(Note(f"smart.{name}", "error", f"no answer within {_TIMEOUT_S:.0f} s"))
            return
        self._child = None
        with output:
            data = os.pread(output.fileno(), _MAX_OUTPUT, 0)
        health = parse_report(data)
        if health:
            self._health[name] = health
        else:  # exit bits are health bits too, so only the text counts (smartctl(8), EXIT STATUS)
            self._notes.append(
                Note(f"smart.{name}", "absent", f"no health in the answer (exit {child.returncode})")
            )

    def notes(self) -> list[Note]:
        """What has come up since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """End a question that is still open."""
        if self._child:
            _, child, output, _ = self._child
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.1)
            output.close()
            self._child = None
