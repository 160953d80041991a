"""Records one run of a scenario beside the real daemon: its telemetry as it wrote it, and what it said live.

A run's folder holds `telemetry/`, `hauswart.toml` and, written last, `run.json`: a folder without it is a run
that did not come to its end. The daemon is stopped before the fault is undone: the undoing does not count.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from daemon.store.reader import StoreReader
from models.taxonomy import TAXONOMY_VERSION
from tests.lab.ambient import Ambient
from tests.lab.container import PROJECT
from tests.lab.injection import Injection, Instant, undone
from tests.lab.peers import WARM_S, Peer, beside
from tests.lab.scenario import Run, Scenario
from tests.lab.systems import Place, opened

FORMAT = 1
# Novelty is told after so many seconds of learning; two minutes, as shipped, would be most of a run.
LEARN_S = 10.0


@dataclass(frozen=True)
class Watch:
    """Who watches beside hauswart, and how long; the scenario says how long it takes at least."""

    peers: Sequence[Peer] = ()
    peers_warm_s: float = WARM_S
    linger_s: float = 0.0  # go on watching until so many seconds after the effect


ALONE = Watch()


class RecordingError(Exception):
    """The run cannot be used: the fault did not take effect, or the daemon did not run."""


def record(run: Run, folder: Path, noise: list[str], watch: Watch = ALONE) -> dict[str, Any]:
    """Do it and write its folder; gives what `run.json` holds.

    Raises RecordingError, and what the system raises.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder / "hauswart.toml"
    scratch = Path(tempfile.mkdtemp(prefix="hwlab-"))
    try:
        with opened(run.scenario.document.system, scratch) as place:
            config.write_text(settings_text(run, place.work))
            found = _play(run, place, folder, noise, watch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    partial = folder / "run.partial"
    partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    partial.replace(folder / "run.json")
    return found


def settings_text(run: Run, work: str) -> str:
    """The daemon's configuration: as shipped, but for the time of learning and what the scenario asks for.

    In a virtual machine it has learned already, so that nothing need differ there.
    """
    sections = {name: dict(values) for name, values in run.scenario.document.settings.items()}
    if sections or run.scenario.document.system != "machine":
        sections.setdefault("low", {}).setdefault("learn_s", LEARN_S)
    lines = []
    for name, values in sections.items():
        # JSON's strings, numbers, booleans and lists of them are TOML's, too.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return run.fill("\n".join(lines)).replace("$LAB", work) + "\n"


def _play(run: Run, place: Place, folder: Path, noise: list[str], watch: Watch) -> dict[str, Any]:
    document = run.scenario.document
    with (
        undone(Injection(place.system, place.work, run, noise)) as injection,
        beside(place.system, place.work, watch.peers, watch.peers_warm_s) as company,
    ):
        injection.prepare()
        company.start()
        place.start(folder / "hauswart.toml")
        ambient, up = Ambient(place.used), injection.now()
        time.sleep(document.warm_s)
        if document.effect and injection.probe():
            raise RecordingError(f"{run.id}: the effect is there before the injection")
        ambient.mark()
        began = injection.start()
        effect = injection.await_effect() if document.effect else began
        if effect is not None:
            time.sleep(document.window_s)
        instants = {"up": up, "began": began, "effect": effect, "ended": injection.now()}
        if effect is not None and watch.linger_s:
            time.sleep(max(0.0, watch.linger_s - (instants["ended"].wall - effect.wall)))
            instants["lingered"] = injection.now()
        stages, busy, peers = place.stages(), ambient.cores(), company.ask()
        place.stop()
        if effect is None:
            raise RecordingError(f"{run.id}: no effect in time; the injection said: {injection.said()!r}")
        place.fetch(f"{place.state}/telemetry", folder / "telemetry")
        live = _live(place)
    return {
        **_facts(run, noise),
        "times": _times(instants),
        "versions": versions(),
        "ambient_cores": busy,
        "losses": _losses(stages),
        "live": live,
        **({"peers": peers} if watch.peers else {}),
    }


def _facts(run: Run, noise: list[str]) -> dict[str, Any]:
    document = run.scenario.document
    return {
        "format": FORMAT,
        "scenario": run.scenario.name,
        "digest": run.scenario.digest,
        "class": run.scenario.fault_class,
        "parameters": run.values,
        "seed": run.seed,
        "number": run.number,
        "system": document.system,
        "noise": [*document.noise, *noise],
    }


def _times(instants: dict[str, Instant]) -> dict[str, dict[str, float]]:
    return {name: {"wall": one.wall, "mono": one.mono} for name, one in instants.items()}


def _losses(stages: dict[str, dict]) -> dict[str, float]:
    """What the recording lacks of what the daemon judged live, and what the daemon itself lost."""
    counters = stages.get("low", {}).get("counters", {})
    found = {name: counters.get(f"telemetry/{name}", 0) for name in ("lines_left_out", "observations_lost")}
    gaps = [
        flow.get("gap", 0)
        for stage in stages.values()
        for edge in stage.get("flows", {}).values()
        for flow in edge.values()
    ]
    return found | {"gaps": sum(gaps)}


def _live(place: Place) -> list[dict[str, Any]]:
    """The incidents in the daemon's store, with when each was revised and what was advised."""
    with tempfile.TemporaryDirectory(prefix="hwlab-store-") as folder:
        copied = f"{place.work}/.store"
        place.system.run(f"mkdir {copied} && cp {place.store}* {copied}")
        place.fetch(copied, Path(folder))
        with StoreReader(Path(folder, "store.db")) as reader:
            return [_told(reader, one) for one in reader.incidents(limit=1000)]


def _told(reader: StoreReader, incident: Any) -> dict[str, Any]:
    steps = [{"at": one.at, "class": one.fault_class} for one in reader.revisions(incident.id)]
    advice = [reader.advice(incident.id, lang) for lang in ("en", "de")]
    return {
        "incident": msgspec.to_builtins(incident),
        "revisions": steps,
        "advice": [msgspec.to_builtins(one) for one in advice if one is not None],
    }


def versions() -> dict[str, Any]:
    """What it was recorded with."""
    commit = ""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        asked = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "hauswart": version("hauswart"),
        "commit": commit,
        "taxonomy": TAXONOMY_VERSION,
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],  # its build says more of the place than of the run
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def is_current(scenario: Scenario, folder: Path) -> bool:
    """Whether the folder holds a run of the scenario as it is written now."""
    try:
        found = json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return found.get("format") == FORMAT and found.get("digest") == scenario.digest
