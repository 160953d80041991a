"""Reports: a time or one incident as one self-contained HTML page, or as Markdown for a ticket."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from daemon.pages.gather import Period
from daemon.pages.plots import figure
from daemon.pages.words import Words

TEMPLATES = Path(__file__).with_name("templates")
_SPECIAL = frozenset("\\`*_[]<>|~&#")


def page(found: Period, words: Words, *, host: str, at: float) -> str:
    """The HTML page; it loads nothing and holds no script."""
    return _environment().get_template("report.html").render(_values(found, words, host, at))


def text(found: Period, words: Words, *, host: str, at: float) -> str:
    """The same in Markdown, without plots."""
    return _plain().get_template("report.md").render(_values(found, words, host, at))


def markdown(said: str) -> str:
    """Text from elsewhere as one line of Markdown that stays text: no markup, no HTML, no link."""
    flat = " ".join(str(said).split())
    marked = "".join(f"\\{one}" if one in _SPECIAL else one for one in flat)
    return marked.replace("://", "\\://").replace("www.", "www\\.").replace("@", "\\@")


def fenced(said: str) -> str:
    """Text as a block of code, behind a fence that it cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", said)), default=0))
    return f"{fence}\n{said}\n{fence}"


def _values(found: Period, words: Words, host: str, at: float) -> dict[str, Any]:
    style = (TEMPLATES / "style.css").read_text("utf-8")
    return {
        "period": found, "w": words, "host": host, "at": at, "version": version("hauswart"),
        "style": style,
        "level": 3, "plot": lambda curve: figure(curve, words),
    }  # fmt: skip


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


@cache
def _plain() -> Environment:
    # Markdown: what comes from outside goes through the two filters.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown, "fenced": fenced}
    return environment
