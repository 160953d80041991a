"""Advice judged blind: two versions of it for the same faults, by whoever knows what was done to the host.

`score --advice FILE` writes what is advised, `pair` puts two such files beside one another in random order,
and `judged` tells the marks apart again. Who judges is a person or a model; nothing here asks one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError
from daemon.messages import Advice, Incident
from tests.lab.scenario import SCENARIOS, Scenario
from tests.lab.score import interval

PAIRS, KEY, INSTRUCTION, JUDGED = "pairs.jsonl", "key.json", "instruction.md", "*.judged.jsonl"
MARKS = {"explains": (0, 2), "remedy": (-1, 2), "look": (0, 2), "command": (-1, 2)}
EVIDENCE_MAX, CULPRITS_MAX = 10, 3
_SIDES = ("A", "B")
_TEXT = Path(__file__).with_suffix(".md")


def advised(scenario: Scenario, incidents: Sequence[tuple[Incident, list[Advice]]]) -> dict[str, Any] | None:
    """What is advised of a fault: of the incident of its class, else of the first; None if there is none."""
    if not incidents:
        return None
    rightly = (pair for pair in incidents if pair[0].fault_class == scenario.fault_class)
    incident, advice = next(rightly, incidents[0])
    return {
        "run": scenario.name,
        "truth": (SCENARIOS / f"{scenario.name}.toml").read_text(encoding="utf-8"),
        "incident": {
            "class": incident.fault_class.value,
            "severity": incident.severity.value,
            "culprits": [f"{one.kind} {one.name}" for one in incident.culprits[:CULPRITS_MAX]],
            "evidence": [one.text for one in incident.evidence[:EVIDENCE_MAX]],
        },
        "advice": {one.lang: {"text": one.text, "command": one.action} for one in advice},
    }


def pair(former: Path, latter: Path, out: Path, lang: str) -> int:
    """Write what is to be judged into a folder; how many faults both files have. Raises ConfigError."""
    first, second = ({one["run"]: one for one in _rows(path)} for path in (former, latter))
    runs = sorted(first.keys() & second.keys())
    if not runs:
        raise ConfigError(f"{former} and {latter} have no fault in common")
    rng = random.Random(0)
    rows, key = [], {}
    for number, run in enumerate(runs):
        sides = rng.sample(_SIDES, 2)
        texts = dict(zip(sides, (first[run]["advice"][lang], second[run]["advice"][lang]), strict=True))
        name = f"{number:03}"
        key[name] = {"former": sides[0], "latter": sides[1], "run": run}
        rows.append({"id": name} | {part: second[run][part] for part in ("truth", "incident")} | texts)
    rng.shuffle(rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / PAIRS).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (out / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")
    shutil.copyfile(_TEXT, out / INSTRUCTION)
    return len(rows)


def judged(folder: Path) -> dict[str, Any]:
    """The marks of both versions and which one was preferred; raises ConfigError where a line is none."""
    try:
        key = json.loads((folder / KEY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / KEY}: {error}", hint="a folder that `pair` wrote") from error
    rows: dict[str, Any] = {}
    for path in sorted(folder.glob(JUDGED)):
        rows |= {row["id"]: row for row in _rows(path) if _is_judgement(path, row, key)}
    if not rows:
        raise ConfigError(f"{folder} holds no judgement of its pairs", hint=f"write {JUDGED}")
    found: dict[str, Any] = {"judged": len(rows), "of": len(key), "preferred": {}}
    for which in ("former", "latter"):
        marks = [rows[name][key[name][which]] for name in sorted(rows)]
        found[which] = {name: _figure([float(one[name]) for one in marks]) for name in MARKS}
        found[which]["false"] = _figure([float(bool(one["false"])) for one in marks])
        found["preferred"][which] = sum(row["better"] == key[name][which] for name, row in rows.items())
    found["preferred"]["neither"] = len(rows) - sum(found["preferred"].values())
    return found


def text(found: dict[str, Any]) -> str:
    """The same as a table."""
    preferred = ", ".join(f"{which} {times}" for which, times in found["preferred"].items())
    lines = [f"{found['judged']} of {found['of']} pairs judged; preferred: {preferred}"]
    for name in (*MARKS, "false"):
        sides = (f"{which} {_shown(found[which][name])}" for which in ("former", "latter"))
        lines.append(f"{name:9}{'; '.join(sides)}")
    return "\n".join(lines)


def _shown(figure: dict[str, Any]) -> str:
    limits = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"{figure['mean']:.2f}{limits}, none or worse in {figure['none']}"


def _figure(values: list[float]) -> dict[str, Any]:
    low, high = interval(values, lambda drawn: sum(drawn) / len(drawn))
    none = sum(one <= 0.0 for one in values)
    return {"mean": sum(values) / len(values), "low": low, "high": high, "none": none}


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}", hint="one JSON object a line") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number}: no object", hint="one JSON object a line")
        rows.append(row)
    return rows


def _is_judgement(path: Path, row: dict[str, Any], key: dict[str, Any]) -> bool:
    """True; raises ConfigError with what is wrong."""
    name, better = row.get("id"), row.get("better")
    if name not in key:
        raise ConfigError(f"{path}: {name!r} is none of the pairs")
    if better not in {*_SIDES, "tie"}:
        raise ConfigError(f"{path}, {name}: better is {better!r}", hint="A, B or tie")
    for side in _SIDES:
        marks = row.get(side) if isinstance(row.get(side), dict) else {}
        for mark, (least, most) in MARKS.items():
            if not isinstance(marks.get(mark), int) or not least <= marks[mark] <= most:
                raise ConfigError(
                    f"{path}, {name}: {side}.{mark} is {marks.get(mark)!r}", hint=f"{least} to {most}"
                )
        if not isinstance(marks.get("false"), str):
            raise ConfigError(f"{path}, {name}: {side}.false is no text")
    return True
