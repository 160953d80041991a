"""Rows that train the top tier's model: incidents of realistic shape as prompts, texts about them to learn.

Incidents are drawn from `advice/scenes.toml`: evidence as the detectors give it, culprits of every kind. The
daemon's own code turns each into a prompt, so that the model is trained on what it will be asked. Whole
combinations of class, kind of culprit and evidence are held out for validation and test.
"""

from __future__ import annotations

import hashlib
import math
import random
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from daemon.advice.brief import Told, tell
from daemon.messages import ContextNote, Culprit, Evidence, Incident
from models.taxonomy import FaultClass, Severity, SubjectKind
from training.sources.phrasing import FOLDER, compose

Row = dict[str, Any]
SOURCE = "advice-phrases"
ORIGIN, VERSION, LICENCE = "written for hauswart", "1", "MIT"
RECIPE = ((20261124, 11000), (20261125, 14000))  # seed and count of the row sets in recipes/top.toml
HELD_OUT = {"test": 0.10, "val": 0.05}
_T = 1_760_000_000.0
_KINDS = (
    *(
        "unit",
        "process",
        "device",
        "mount",
        "physical-interface",
        "virtual-interface",
        "interface",
        "address",
    ),
    *("user", "sensor", "file", "stage", "group", "array", "virtual-device", "mapped-device", "host"),
)
_SUBJECTS = {
    "group": SubjectKind.UNIT,
    "array": SubjectKind.DEVICE,
    "virtual-device": SubjectKind.DEVICE,
    "mapped-device": SubjectKind.DEVICE,
    "physical-interface": SubjectKind.INTERFACE,
    "virtual-interface": SubjectKind.INTERFACE,
}


@cache
def scenes() -> list[dict[str, Any]]:
    """The kinds of evidence, with ranges for their numbers."""
    found: list[dict[str, Any]] = tomllib.loads((FOLDER / "scenes.toml").read_text("utf-8"))["scene"]
    return found


@cache
def _names() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((FOLDER / "names.toml").read_text("utf-8"))
    return found


def rows(
    _data_dir: Path | None = None, seed: int = RECIPE[0][0], *, count: int = RECIPE[0][1]
) -> Iterator[Row]:
    """`count` rows for each language, without values: prompt, completion, lang, group, source, split."""
    for lang in ("en", "de"):
        rng = random.Random(f"{seed} {lang}")  # noqa: S311 - texts, no secrets
        yield from (row(tell(incident(rng), lang), rng) for _ in range(count))


def row(told: Told, rng: random.Random) -> Row:
    """One training row for a brief."""
    group = combination(told)
    return {
        "prompt": told.prompt,
        "completion": compose(told.brief, rng),
        "lang": told.brief.lang,
        "group": group,
        "source": SOURCE,
        "split": split_of(group),
    }


def combination(told: Told) -> str:
    """Class, kind of culprit and evidence: what is held out as a whole."""
    slots = "+".join(slot for group in told.brief.groups for slot in group.slots)
    return f"{told.brief.fault_class}/{told.brief.kind}/{slots or '+'.join(told.brief.extras)}"


def split_of(group: str) -> Literal["train", "val", "test"]:
    """The same for a combination in every run and in both languages."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") / 2**32
    if place < HELD_OUT["test"]:
        return "test"
    return "val" if place < HELD_OUT["test"] + HELD_OUT["val"] else "train"


def incident(rng: random.Random, number: int = 0) -> Incident:
    """An incident of a random class as the middle tier might open it."""
    fault = rng.choice(list(FaultClass))
    scene = rng.choice(_fitting(fault.value))
    kind = rng.choice(_KINDS if "*" in scene["kinds"] else scene["kinds"])
    culprits = [] if kind == "host" and rng.random() < 0.5 else [_culprit(kind, rng)]
    name = culprits[0].name if culprits else ""
    evidence = [_evidence(scene, name, fault, rng, 1)]
    more = [one for one in _fitting(fault.value) if kind in one["kinds"] or "host" in one["kinds"]]
    places = range(2, 2 + (rng.random() < 0.5) + (rng.random() < 0.2))
    evidence += [_evidence(rng.choice(more), name, fault, rng, place) for place in places if more]
    if kind != "host" and rng.random() < 0.35:
        culprits.append(_culprit(rng.choice(("unit", "process", "mount", "device")), rng))
    closed = rng.random() < 0.12
    return Incident(
        id=f"i{number}",
        revision=1,
        state="closed" if closed else "open",
        fault_class=fault,
        severity=_severity(fault, rng),
        score=0.8,
        culprits=culprits,
        opened_at=_T + 2.0,
        updated_at=_T + 30.0,
        closed_at=_T + 600.0 if closed else None,
        boot_id="b" * 32,
        context=[_note(rng)] if rng.random() < 0.3 else [],
        evidence=evidence,
        finding_ids=["f"],
        findings_count=1,
        evidence_at=_T,
    )


def _fitting(fault: str) -> list[dict[str, Any]]:
    """The scenes of a class; those of every class are among them once for each two of its own."""
    own = [scene for scene in scenes() if fault in scene["classes"]]
    general = [scene for scene in scenes() if "*" in scene["classes"]]
    return own * (1 + len(general) // max(1, len(own))) + general


def _severity(fault: FaultClass, rng: random.Random) -> Severity:
    if fault.benign:
        return rng.choice((Severity.INFO, Severity.INFO, Severity.WARNING))
    return rng.choice((Severity.WARNING, Severity.WARNING, Severity.ERROR, Severity.CRITICAL, Severity.INFO))


def _culprit(kind: str, rng: random.Random) -> Culprit:
    subject = _SUBJECTS.get(kind) or SubjectKind(kind)
    return Culprit(subject, _name(kind, rng), 0.9)


def _name(kind: str, rng: random.Random) -> str:
    """A name of this kind that the catalogue's own rules recognise."""
    number, letter = rng.randrange(1, 30000), rng.choice("abcdefgh")
    return {
        "unit": f"{rng.choice(_names()['services'])}{rng.choice(('', '', '-' + letter))}.service",
        "group": f"machine.slice/{rng.choice(_names()['services'])}-{number}",
        "process": f"{rng.choice(_names()['programs'])}[{number}]",
        "device": rng.choice(
            (f"sd{letter}", f"nvme{number % 4}n1", f"vd{letter}", f"sd{letter}{number % 8 + 1}")
        ),
        "virtual-device": f"loop{number % 20}",
        "array": f"md{number % 128}",
        "mapped-device": f"dm-{number % 12}",
        "mount": rng.choice(_names()["mounts"]),
        "interface": f"net{number % 9}",
        "physical-interface": rng.choice((f"eth{number % 4}", f"enp{number % 9}s0", f"wlp{number % 9}s0")),
        "virtual-interface": f"veth{number:x}",
        "address": rng.choice(
            (f"203.0.113.{number % 254 + 1}", f"198.51.100.{number % 254 + 1}", f"2001:db8::{number:x}")
        ),
        "user": rng.choice(_names()["users"]),
        "sensor": f"coretemp/temp{number % 9 + 1}",
        "file": rng.choice(
            (
                f"/etc/{rng.choice(_names()['services'])}.conf",
                f"/etc/ssl/{rng.choice(_names()['services'])}.pem",
            )
        ),
        "stage": rng.choice(_names()["stages"]),
        "host": "",
    }[kind]


def _evidence(
    scene: dict[str, Any], name: str, fault: FaultClass, rng: random.Random, place: int
) -> Evidence:
    values = {key: _value(key, low, high, rng) for key, (low, high) in scene["values"].items()}
    if "total_bytes" in values and "free_bytes" in values and "used_ratio" in values:
        values["free_bytes"] = values["total_bytes"] * (1.0 - values["used_ratio"])
    known = {"name": name or "the host", "base": name.partition("[")[0] or "kernel", "pid": 4242.0, **values}
    kind = scene.get("kind", "metric")
    speaks = {fault: 0.6} if kind == "line" else {}
    return Evidence(
        f"e{place}",
        kind,
        scene["ref"].replace("NAME", name),
        _T - 5.0,
        _T + place,
        str(scene["text"]).format(**known),
        values,
        speaks,
    )


def _value(key: str, low: float, high: float, rng: random.Random) -> float:
    """A number in the range, spread evenly over orders of magnitude where there are several."""
    if low > 0 and high / low > 50:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    whole = key.endswith(("_count", "_bytes", "_number", "_code")) or key == "sector"
    return float(round(value)) if whole else value


def _note(rng: random.Random) -> ContextNote:
    kind = rng.choice(
        ("boot", "backup", "update", "rebuild", "scrub", "maintenance-job", "timer", "session", "other")
    )
    started = _T - rng.choice((8.0, 45.0, 300.0, 4000.0)) * rng.uniform(0.5, 1.5)
    ended = None if rng.random() < 0.6 else started + 0.5 * (_T - started)
    name = {
        "session": rng.choice(_names()["users"]),
        "boot": "boot",
        "update": "update",
        "rebuild": "rebuild",
    }.get(kind, rng.choice(_names()["jobs"]))
    return ContextNote(kind, name, started, ended, "noted", f"{kind} {name}")
