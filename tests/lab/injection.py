"""Plays a scenario in a system: files, set-up, noise, the fault, the probe for its effect, the undoing.

Every script lies in the system as a file and runs there by itself, so nothing here has to keep up with it.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.scenario import Run, Step, Workload, load_noise
from tests.lab.systems import System

_MARK = "LAB-END-OF-FILE"
STEP_S = 120.0  # the longest that a set-up or a tear-down may take


@dataclass(frozen=True)
class Instant:
    """Unix time, and seconds since the boot."""

    wall: float
    mono: float

    @classmethod
    def parse(cls, text: str) -> Instant:
        """From the output of `_STAMP`."""
        wall, mono = text.split()[:2]
        return cls(float(wall), float(mono))


_STAMP = "date +%s.%N; cut -d ' ' -f 1 /proc/uptime"


class Injection:
    """One run of a scenario; call its methods in the order in which they stand here."""

    def __init__(self, system: System, work: str, run: Run, noise: list[str]) -> None:
        self._system, self._work, self._run = system, work, run
        self._document = run.scenario.document
        names = dict.fromkeys((*self._document.noise, *noise))
        self._noise = {name: load_noise(name) for name in names}

    def prepare(self) -> None:
        """Bring the files and the scripts, and run the set-up."""
        document = self._document
        files = {self._run.fill(path): self._run.fill(text) for path, text in document.files.items()}
        for workload in self._noise.values():
            files |= workload.files
        for path, text in files.items():
            self._put(path, text)
        steps = {"set-up": document.set_up, "inject": document.inject, "effect": document.effect}
        for name, step in {**steps, "tear-down": document.tear_down}.items():
            if step is not None:
                self._put(f".{name}", self._run.fill(step.run))
        if any(path.startswith("/etc/systemd") for path in files):
            self._system.run("systemctl daemon-reload")
        self._monitor(document.set_up)
        if document.set_up is not None:
            self._system.run(self._script("sh -e", "set-up"), timeout_s=STEP_S)
        for name, workload in self._noise.items():
            self._begin_noise(name, workload)

    def start(self) -> Instant:
        """Begin the injection, which goes on by itself; when that was."""
        pulled = self.now() if self._document.inject.monitor else None
        self._monitor(self._document.inject)
        began = Instant.parse(self._system.run(f"{_STAMP}; {self._background('inject')}"))
        return pulled or began

    def probe(self) -> bool:
        """Whether the effect exists now."""
        said = self._system.run(f"{self._script('sh', 'effect')} >/dev/null 2>&1 && echo yes", check=False)
        return said.strip() == "yes"

    def await_effect(self) -> Instant | None:
        """When the effect exists, by the system's own clocks; None if it does not come."""
        effect = self._document.effect
        assert effect is not None
        script = (  # by the uptime, which nobody sets; a probe may take long where all is emulated
            "up() { read -r up _ </proc/uptime; echo ${up%.*}; }; "
            f"end=$(($(up) + {math.ceil(effect.within_s)})); "
            f"until {self._script('sh', 'effect')} >/dev/null 2>&1; do "
            f"[ $(up) -ge $end ] && exit 0; sleep 0.1; done; {_STAMP}"
        )
        said = self._system.run(script, check=False, timeout_s=effect.within_s * 4 + 30)
        return Instant.parse(said) if said.strip() else None

    def now(self) -> Instant:
        """What the system's clocks say."""
        return Instant.parse(self._system.run(_STAMP))

    def said(self) -> str:
        """The end of what the injection printed."""
        return self._system.run(f"tail -c 2000 {self._work}/.inject.log", check=False)

    def undo(self) -> None:
        """End what was begun, whatever has become of it."""
        for name in ("inject", *(f"noise-{one}" for one in self._noise)):
            pid = f"{self._work}/.{name}.pid"
            self._system.run(f"[ ! -f {pid} ] || kill -KILL -$(cat {pid})", check=False)
        self._monitor(self._document.tear_down)
        if self._document.tear_down is not None:
            self._system.run(self._script("sh", "tear-down"), check=False, timeout_s=STEP_S)

    def _monitor(self, step: Step | None) -> None:
        for command in step.monitor if step else ():
            self._system.monitor(self._run.fill(command))

    def _begin_noise(self, name: str, workload: Workload) -> None:
        self._put(f".noise-{name}", workload.run)
        self._system.run(self._background(f"noise-{name}"))

    def _script(self, shell: str, name: str) -> str:
        return f"env LAB={self._work} {shell} {self._work}/.{name}"

    def _background(self, name: str) -> str:
        """Start a script in a session of its own; its number is that of its process group."""
        own = f"{self._work}/.{name}"
        begin = f"echo $$ >{own}.pid; cd {self._work}; exec env LAB={self._work} sh {own}"
        return f"setsid sh -c {shlex.quote(begin)} >{own}.log 2>&1 </dev/null &"

    def _put(self, path: str, text: str) -> None:
        assert _MARK not in text
        target = path if path.startswith("/") else f"{self._work}/{path}"
        mode = "755" if text.startswith("#!") else "644"
        self._system.run(
            f"mkdir -p {shlex.quote(str(Path(target).parent))} && cat >{shlex.quote(target)} <<'{_MARK}'\n"
            f"{text}\n{_MARK}\nchmod {mode} {shlex.quote(target)}"
        )


@contextlib.contextmanager
def undone(injection: Injection) -> Iterator[Injection]:
    """Undo it in any case."""
    try:
        yield injection
    finally:
        injection.undo()
