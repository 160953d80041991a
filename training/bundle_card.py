"""The card inside a bundle: what the model is for, from what it was made and how good it is, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.bundle import Config, Manifest

PURPOSE = {
    "low": "It judges a log line's template once: severity, whether it is worth an alert, category.",
    "middle": "It judges a situation of several findings: fault class, severity, and who is to blame.",
    "top": "It writes an incident's advice with slots for every number and name, in English and German.",
}
LIMITS = {
    "low": "Log text is hostile: a verdict is weak evidence, and never a reason to act.",
    "middle": "It was trained on simulated hosts; where it is unsure, the baseline's verdict stands.",
    "top": "It decides nothing. What it writes passes the fact check or is not shown.",
}
Row = Mapping[str, Any]


def write_card(manifest: Manifest, config: Config, about: str = "") -> str:
    """Markdown."""
    parts = [
        f"# hauswart, {manifest.tier} tier, version {manifest.version}",
        about or PURPOSE[manifest.tier],
        _facts(manifest, config),
        "## Quality",
        "\n\n".join(_figures(manifest.metrics)) or "No figures were recorded.",
        "## Data",
        _table([one for one in manifest.data if isinstance(one, Mapping)]) or "Not recorded.",
        "## Limits",
        LIMITS[manifest.tier],
    ]
    return "\n\n".join(parts) + "\n"


def _facts(manifest: Manifest, config: Config) -> str:
    heads = ", ".join(f"{name} ({size})" for name, size in config.heads.items())
    shape = heads or f"{config.layers} layers, {config.vocabulary} tokens"
    facts = [
        f"a {config.kind} of the {config.architecture} family, {shape}, at most {config.sequence} tokens",
        f"licence {manifest.licence}",
        f"recipe {manifest.recipe}" if manifest.recipe else "",
        f"made {manifest.created}" if manifest.created else "",
        f"takes {manifest.memory_mib:.1f} MiB beside the runtime" if manifest.memory_mib else "",
    ]
    return "\n".join(f"- {fact}" for fact in facts if fact)


def _figures(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            yield f"{name}: {_said(value)}"
            continue
        plain = {key: one for key, one in value.items() if not isinstance(one, Mapping | list)}
        tables = [
            one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], Mapping)
        ]
        if plain or tables:
            yield f"### {name}"
        if plain:
            yield _table([{"figure": key, "value": one} for key, one in plain.items()])
        for table in tables:
            yield _table([_flat(row) for row in table])


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if not isinstance(value, Mapping):
            found[key] = value
        elif key != "quality_before":  # which is the row above
            found |= {f"{key}.{name}": one for name, one in value.items()}
    return found


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    lines = [
        columns,
        ["---"] * len(columns),
        *([_said(row.get(name, "")) for name in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _said(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
