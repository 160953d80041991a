"""Reads scenarios: what goes wrong, in which way, and what must be said about it.

A scenario is one file, `scenarios/CLASS/MECHANISM.toml` (CLASS is a fault class or `benign`); its fields are
those of `Document`. Each combination of its parameters is a run, in an order that the seed decides. `{name}`
of a parameter is replaced everywhere; other braces are left alone.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
import random
import re
import shutil
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import msgspec

from daemon.errors import ConfigError
from models.taxonomy import FaultClass, Severity, SubjectKind

SCENARIOS = Path(__file__).with_name("scenarios")
NOISE = Path(__file__).with_name("noise")
BENIGN = "benign"
CLASSES = (BENIGN, *(one.value for one in FaultClass if not one.benign and one != FaultClass.UNKNOWN))
Kind = Literal["host", "container", "machine"]
Value = int | float | str
_KEBAB = {"set_up": "set-up", "tear_down": "tear-down"}
_LABEL = ("about", "culprits", "severity", "also")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_FIELD = re.compile(r"unknown field `([^`]+)`")
_PID = re.compile(r"\[\d+\]$")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A shell script; `$LAB` is a folder of the run's own in the system.

    `monitor` holds commands for the virtual machine's own monitor, before the script: pull a disk or a cable.
    """

    run: str
    monitor: list[str] = []


class Effect(Step, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asked ten times a second; with the first exit code 0 the fault's effect exists."""

    within_s: float = 30.0


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename=_KEBAB):
    """What a scenario's file may hold."""

    about: str
    system: Kind
    inject: Step
    effect: Effect | None = None
    culprits: list[str] = []  # "kind:name"; any of them in the first place is right
    severity: list[Severity] = []  # any of them is right
    also: list[FaultClass] = []  # classes that are right besides the folder's
    window_s: float = 30.0  # how long after the effect an incident counts
    warm_s: float = 12.0  # how long the daemon watches before the injection
    needs: list[str] = []  # programs; without them the scenario is skipped
    noise: list[str] = []  # workloads of `noise/` beside it
    parameters: dict[str, list[Value]] = {}
    files: dict[str, str] = {}  # path to text; a relative path lies below $LAB
    settings: dict[str, dict[str, Any]] = {}  # hauswart.toml's own sections
    set_up: Step | None = None
    tear_down: Step | None = None


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a noise's file may hold; `run` goes on until its process group is killed."""

    about: str
    run: str
    needs: list[str] = []
    files: dict[str, str] = {}


@dataclass(frozen=True)
class Scenario:
    """A checked scenario."""

    fault_class: str
    mechanism: str
    document: Document

    @property
    def digest(self) -> str:
        """Changes with what is done, not with what should be said of it: labels may be corrected later."""
        done = {
            name: value for name, value in msgspec.to_builtins(self.document).items() if name not in _LABEL
        }
        return hashlib.sha256(msgspec.json.encode(done, order="deterministic")).hexdigest()[:16]

    @property
    def name(self) -> str:
        """CLASS/MECHANISM."""
        return f"{self.fault_class}/{self.mechanism}"

    @property
    def benign(self) -> bool:
        """Whether nothing is wrong here."""
        return self.fault_class == BENIGN

    @property
    def right_classes(self) -> frozenset[str]:
        """The fault classes that an incident about it may have."""
        return frozenset() if self.benign else frozenset({self.fault_class, *self.document.also})


@dataclass(frozen=True)
class Run:
    """One combination of a scenario's parameters."""

    scenario: Scenario
    seed: int
    number: int
    values: dict[str, Value]

    @property
    def id(self) -> str:
        """Where it is recorded, below the recordings' folder."""
        return f"{self.scenario.name}/{self.seed}-{self.number}"

    @property
    def culprits(self) -> list[str]:
        """Who may be blamed, with the parameters in place."""
        return [self.fill(one) for one in self.scenario.document.culprits]

    def fill(self, text: str) -> str:
        """The text with this run's parameters in place of their names."""
        return _PLACE.sub(lambda found: str(self.values.get(found[1], found[0])), text)


def load(path: Path) -> Scenario:
    """Read and check a scenario; raises ConfigError with file, key, value and remedy."""
    text = _read(path)
    document = _convert(path, text, Document)
    found = Scenario(path.parent.name, path.stem, document)
    _check_names(path, found)
    _check_label(path, found)
    _check_parameters(path, document)
    _check_files(path, document)
    if document.system != "machine" and any(one.monitor for one in _steps(document)):
        raise ConfigError(f"{path}: monitor without a virtual machine", hint='system = "machine"')
    for name in document.noise:
        load_noise(name, asked_by=str(path))
    return found


def load_noise(name: str, *, asked_by: str = "--noise") -> Workload:
    """A named workload; raises ConfigError."""
    known = sorted(one.stem for one in NOISE.glob("*.toml"))
    if name not in known:
        raise ConfigError(f"{asked_by}: unknown noise {name!r}", hint=_nearest(name, known))
    path = NOISE / f"{name}.toml"
    return _convert(path, _read(path), Workload)


def names(label: str, said: str) -> bool:
    """Whether a label, kind:name, names who was blamed; the number of a process is nobody's business."""
    return label == said or (label.startswith("process:") and label == _PID.sub("", said))


def find(patterns: list[str], root: Path = SCENARIOS) -> list[Scenario]:
    """All scenarios whose name or mechanism matches any pattern; none given means all. Raises ConfigError."""
    found = [load(path) for path in sorted(root.glob("*/*.toml"))]
    for pattern in patterns:
        if not any(_matches(one, pattern) for one in found):
            known = [one.name for one in found] + [one.mechanism for one in found]
            raise ConfigError(f"no scenario is called {pattern!r}", hint=_nearest(pattern, known))
    return [one for one in found if not patterns or any(_matches(one, pattern) for pattern in patterns)]


def runs(scenario: Scenario, seed: int, repeat: int) -> list[Run]:
    """So many runs; each takes another combination of the parameters while there are any."""
    keys = sorted(scenario.document.parameters)
    choices = list(itertools.product(*(scenario.document.parameters[key] for key in keys)))
    random.Random(f"{seed}/{scenario.name}").shuffle(choices)
    picked = (choices[number % len(choices)] for number in range(repeat))
    return [Run(scenario, seed, n, dict(zip(keys, one, strict=True))) for n, one in enumerate(picked)]


def missing_programs(scenario: Scenario, noise: list[str]) -> str:
    """The programs that it needs and this machine lacks, as a reason to skip; "" if there are none.

    A container has what this machine has; what a virtual machine has is known when it runs.
    """
    if scenario.document.system == "machine":
        return ""
    wanted = [*scenario.document.needs]
    for name in (*scenario.document.noise, *noise):
        wanted += load_noise(name).needs
    absent = sorted({name for name in wanted if shutil.which(name, path=search_path()) is None})
    return f"needs {', '.join(absent)}" if absent else ""


def search_path() -> str:
    """PATH with the administrator's folders, where sshd and mkfs live."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _matches(scenario: Scenario, pattern: str) -> bool:
    return any(fnmatch(name, pattern) for name in (scenario.name, scenario.mechanism, scenario.fault_class))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="scenarios are UTF-8 text") from error


def _convert(path: Path, text: str, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="scripts go between '''") from error
    except msgspec.ValidationError as error:
        known = [_KEBAB.get(name, name) for name in kind.__struct_fields__]
        unknown = _FIELD.search(str(error))
        hint = _nearest(unknown[1], known) if unknown else f"known keys: {', '.join(known)}"
        raise ConfigError(f"{path}: {error}", hint=hint) from error


def _check_names(path: Path, found: Scenario) -> None:
    if found.fault_class not in CLASSES:
        raise ConfigError(
            f"{path}: the folder {found.fault_class!r} is no fault class",
            hint=_nearest(found.fault_class, CLASSES),
        )
    if not _NAME.fullmatch(found.mechanism):
        raise ConfigError(
            f"{path}: {found.mechanism!r} is no name for a mechanism", hint="small letters, digits and dashes"
        )


def _check_label(path: Path, found: Scenario) -> None:
    document = found.document
    wanted = {"effect": document.effect, "culprits": document.culprits, "severity": document.severity}
    for key, value in wanted.items():
        if found.benign and value:
            raise ConfigError(
                f"{path}: {key} in a benign scenario", hint="nothing is wrong there: leave it out"
            )
        if not found.benign and not value:
            raise ConfigError(
                f"{path}: {key} is missing", hint="a fault has an effect, culprits and severities"
            )
    for one in document.culprits:
        kind, _, name = one.partition(":")
        if kind not in set(SubjectKind) or (not name and kind != SubjectKind.HOST):
            kinds = ", ".join(SubjectKind)
            raise ConfigError(f"{path}: culprits: {one!r} is not kind:name", hint=f"kinds: {kinds}")
    for one in document.also:
        if one.value not in CLASSES or one.value == found.fault_class:
            raise ConfigError(f"{path}: also: {one.value!r} is no other fault class", hint="leave it out")


def _check_parameters(path: Path, document: Document) -> None:
    texts = [*document.culprits, *document.files.values(), *document.files]
    texts += [one.run for one in _steps(document)]
    used = {name for text in texts for name in _PLACE.findall(text)}
    for name, values in document.parameters.items():
        if not values:
            raise ConfigError(f"{path}: parameters.{name} is empty", hint="give at least one value")
        if name not in used:
            raise ConfigError(
                f"{path}: parameters.{name} is used nowhere", hint=f"write {{{name}}} or drop it"
            )
    for text in document.culprits:
        for name in _PLACE.findall(text):
            if name not in document.parameters:
                hint = _nearest(name, list(document.parameters))
                raise ConfigError(f"{path}: culprits: {text!r} names no parameter", hint=hint)


def _check_files(path: Path, document: Document) -> None:
    for name in document.files:
        if ".." in Path(name).parts:
            raise ConfigError(f"{path}: files: {name!r} leaves its folder", hint="write the path without ..")
        if document.system == "host" and name.startswith("/"):
            raise ConfigError(
                f"{path}: files: {name!r} would stay on this machine",
                hint="write it below $LAB by a relative path, or take a container",
            )


def _steps(document: Document) -> list[Step]:
    steps = (document.set_up, document.inject, document.effect, document.tear_down)
    return [one for one in steps if one is not None]


def _nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
