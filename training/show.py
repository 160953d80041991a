"""Shows on the terminal what shrinking did, and as JSON the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 150  # columns where nobody looks: files and pipes


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool, **figures: float) -> None:
    """The rows of `training.measure.row`, one line each, and figures below them."""
    if as_json:
        sys.stdout.write(json.dumps({"table": rows} | figures, ensure_ascii=False) + "\n")
        return
    table = Table(title="What was cut, and what it did")
    table.add_column("step", no_wrap=True)
    table.add_column("what", overflow="fold")
    for name in ("layers", "parameters", "zeros", "bytes", "ms (5-95 %)", "MiB", "quality"):
        table.add_column(name, justify="right", overflow="fold")
    for one in rows:
        table.add_row(*cells(one))
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(table)
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {value:g}")


def cells(one: Mapping[str, Any]) -> list[str]:
    """A row's cells; what was not measured stays empty."""
    touched = f"{one['layers_touched']}/{one['layers']}" if one["layers"] else ""
    spread = ""
    if "latency_ms" in one:
        spread = f"{one['latency_ms']:.3f} ({one['latency_low_ms']:.3f}-{one['latency_high_ms']:.3f})"
    return [
        one["step"],
        one["detail"],
        touched,
        f"{one['parameters']:,}" if "parameters" in one else "",
        f"{one['sparsity']:.0%}" if "sparsity" in one else "",
        f"{one['bytes']:,}" if "bytes" in one else "",
        spread,
        f"{one['memory_mib']:.1f}" if "memory_mib" in one else "",
        _quality(one.get("quality") or {}),
    ]


def _quality(figures: Mapping[str, float]) -> str:
    for name in ("perplexity", "macro_f1"):
        if name in figures:
            return f"{name.replace('_', ' ')} {figures[name]:.4g}"
    return ""
