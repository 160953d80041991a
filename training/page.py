"""One HTML page that asks for nothing from anywhere: its frame, tables and charts. Every cell is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#24292f;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #d0d7de}h3{font-size:1rem}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;border-bottom:1px solid #eaeef2;text-align:right}
th:first-child,td:first-child{text-align:left}
.charts{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{font-size:.85rem;color:#57606a}
svg{max-width:100%;height:auto}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def whole(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """The page; each section is a heading and its HTML."""
    name = escape(title)
    body = "\n".join(f"<h2>{escape(head)}</h2>\n{text}" for head, text in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style></head>\n<body><h1>{name}</h1>\n{body}\n</body></html>\n"
    )


def table(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table's HTML, nothing where there are no rows."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_said(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>" if body else ""


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) and abs(value) > 9999 else str(value)


def figures(drawn: Iterable[tuple[str, str]]) -> str:
    """Named charts side by side, each an `<svg>` element of `training.charts`."""
    parts = [f"<figure>{svg}<figcaption>{escape(name)}</figcaption></figure>" for name, svg in drawn]
    return f'<div class="charts">{"".join(parts)}</div>' if parts else ""
