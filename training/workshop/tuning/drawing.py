"""A search as a page and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from training import charts, page
from training.workshop.tuning.files import write_whole

_BEST = 10  # steps in the table


def draw(
    out: Path, steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any], *, init_points: int
) -> list[Path]:
    """Write `search.html` and `search.png` into a folder. Raises ConfigError."""
    targets = [float(one["target"]) for one in steps]
    best = next(place for place, one in enumerate(steps) if one["trial"] == result["step"])
    names = list(steps[0]["params"])
    chosen = {name: [one["params"][name] for one in steps] for name in names}
    drawn = [("search", charts.search(targets, chance=init_points, reference=result["defaults"]))]
    drawn += [(name, charts.choice(name, values, targets, best)) for name, values in chosen.items()]
    sections = [
        ("Search", page.figures(drawn)),
        ("Result", _result(result)),
        ("Best steps", _table(steps, names)),
        ("Parameters that the server heeds", _heeds(result)),
    ]
    html, png = out / "search.html", out / "search.png"
    write_whole(
        html, page.whole("hauswart: parameters of a served model", [one for one in sections if one[1]])
    )
    picture = charts.search_png(targets, chosen, chance=init_points, best=best, reference=result["defaults"])
    png.write_bytes(picture)
    return [html, png]


def _result(result: Mapping[str, Any]) -> str:
    rows = [
        (name, result[name]) for name in ("target", "defaults", "engine", "similarity", "steps", "requests")
    ]
    rows += [(f"held out: {name}", value) for name, value in result["held_out"].items()]
    said = json.dumps(result["params"], ensure_ascii=False)
    return f"<p><code>{escape(said)}</code></p>" + page.table(("", ""), rows)


def _table(steps: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    ranked = sorted(steps, key=lambda one: -one["target"])[:_BEST]
    rows = [
        (
            one["trial"],
            one["target"],
            *(one["params"][name] for name in names),
            one["answers"][0]["answer"][:300],
        )
        for one in ranked
    ]
    return page.table(("step", "target", *names, "first answer"), rows)


def _heeds(result: Mapping[str, Any]) -> str:
    rows = [(one["name"], one["verdict"], one["said"]) for one in result["probe"]]
    return page.table(("parameter", "verdict", "seen by"), rows)
