"""Rows that teach which words speak for an alert: lines that somebody judged, each with a weight.

What the network learns from (`training.sources.lines`) is mostly graded by a machine; here stands only who
judged: rule authors by their level, this project by its own lines, logcheck and alert rules faintly. Held-out
services and subsystems are the same as there. Knows nothing of how words are weighed.
"""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from models.lines import encode
from training.sources import lines
from training.sources.lines import Row

FILES = (lines.KERNEL, lines.WAZUH, lines.FAIL2BAN, lines.LOGCHECK, lines.ALERT_RULES)
SPOKEN = (lines.SPOKEN, *sorted(lines.SPOKEN.with_suffix("").glob("*.toml")))
# Weights that cross-validation over services chose; halving or doubling them changed less than a point.
SPOKEN_WEIGHT = 4.5  # of a line, of the same without its program, and of its parts together
PARTS_MOST = 3  # as many of a line's parts count in full; more share that
EVENT_WEIGHT = 3.0  # of a rule author's line
EVENTS_MOST = 30  # lines of a service count in full; more share that, or one service would decide
APART = "; "  # between the parts of a line that says several things of one kind
BARE = " bare"  # ends the source of a line that is given again without its program


def rows(data: Path, seed: int = 0) -> Iterator[Row]:
    """All rows, each with its split; equal texts with one label in one split become one, heavier row."""
    merged: dict[tuple[str, float, str], Row] = {}
    for row in chain(_held_out(data, seed), spoken(), _weak(data, seed)):
        key = (row["text"], row["alert"], row["split"])
        if key in merged:
            merged[key]["weight"] += row["weight"]
        elif len(row["text"]) >= 3:
            merged[key] = row
    yield from merged.values()


def spoken() -> Iterator[Row]:
    """Lines written for this project: whole, without their program, and where they list things each part."""
    for path in SPOKEN:
        judged = tomllib.loads(path.read_text(encoding="utf-8"))
        for alert, said in ((1.0, judged["alert"]), (0.0, judged["quiet"])):
            for line in said:
                whole = encode(f"Jan 12 10:11:12 host {line}")
                labels = {"group": "spoken", "source": "spoken", "alert": alert, "split": "train"}
                for text in (whole, bare(whole)):
                    yield labels | {"text": text, "weight": SPOKEN_WEIGHT}
                parts = bare(whole).split(APART)
                share = min(1.0, PARTS_MOST / len(parts))
                if len(parts) > 1:
                    yield from (labels | {"text": part, "weight": SPOKEN_WEIGHT * share} for part in parts)


def events(data: Path) -> Iterator[Row]:
    """Lines of rule tests with the author's judgement.

    A filter of fail2ban fires at one refused login, which is below a SIEM's level of alert. So of its lines
    only those teach at which it must not fire; the others weigh nothing and are there to be asked.
    """
    found = list(lines.table(data / lines.WAZUH))
    sizes = Counter(row["service"] for row in found)
    for row in found:
        weight = EVENT_WEIGHT * min(1.0, EVENTS_MOST / sizes[row["service"]])
        yield from _twice(row, "wazuh", float(int(row["level"]) >= lines.ALERT_LEVEL), weight)
    for row in lines.table(data / lines.FAIL2BAN):
        fires = row["match"] == "True"
        yield from _twice(row, "fail2ban", float(fires), 0.0 if fires else EVENT_WEIGHT)


def bare(text: str) -> str:
    """An encoded line without its program: a new service has a new name."""
    head, bar, rest = text.partition(" | ")
    return rest if bar and len(head) <= 32 else text


def _twice(row: dict[str, str], source: str, alert: float, weight: float) -> Iterator[Row]:
    whole = encode(row["line"])
    labels = {"group": lines.family(row["service"]), "alert": alert, "weight": weight / 2.0}
    yield labels | {"text": whole, "source": source}
    yield labels | {"text": bare(whole), "source": source + BARE}


def _held_out(data: Path, seed: int) -> Iterator[Row]:
    """A SIEM's lines, and of the kernel's strings those that the grader takes, by the splits of `lines`."""
    strings = list(lines.kernel(data, random.Random(f"{seed} kernel")))  # noqa: S311
    chance = random.Random(seed)  # noqa: S311
    splits = lines.held_out(strings, chain(lines.wazuh(data, chance), lines.fail2ban(data, chance)), seed)
    yield from (row | {"split": splits.get(row["group"], "train")} for row in events(data))
    for row in strings:
        known = row["severity"] != lines.WARNING and row["group"] not in splits
        if known and chance.random() < lines.GRAVE_SHARE:
            yield {
                "text": row["text"],
                "group": row["group"],
                "source": "printk",
                "alert": float(row["severity"] == 0),
                "weight": lines.WEAK,
                "split": "train",
            }


def _weak(data: Path, seed: int) -> Iterator[Row]:
    """Judgements by rules, not by line, and the catalogue's own messages."""
    for source in (lines.logcheck, lines.alert_rules, lines.known):
        for row in source(data, random.Random(f"{seed} {source.__name__}")):  # noqa: S311
            if row["alert"] is not None:
                kept = {name: row[name] for name in ("text", "group", "source", "alert", "weight")}
                yield kept | {"split": "train"}
