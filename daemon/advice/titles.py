"""One line that names an incident, for lists and notifications, in English and German."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from daemon.advice.fill import Filled, Scene, sentences
from daemon.advice.formats import Lang
from daemon.advice.subjects import sections
from daemon.messages import Culprit, Incident

_FILE = Path(__file__).with_name("titles.toml")


def title(incident: Incident, lang: str) -> str:
    """The incident in one line without a full stop, e.g. "/mnt/small is 100 % full"."""
    return titled(incident, "de" if lang == "de" else "en").text


def titled(incident: Incident, lang: Lang) -> Filled:
    """The title with the sources of its numbers and names."""
    table = titles()[incident.fault_class.value]
    for culprit, section in _choices(incident, table):
        filled = Scene(incident, lang, culprit).first(sentences(table[section][lang]))
        if filled:
            return filled
    return Filled(incident.fault_class.value.replace("-", " "), {})


@cache
def titles() -> dict[str, Any]:
    """All titles: fault class, kind of culprit, language."""
    return tomllib.loads(_FILE.read_text("utf-8"))


def _choices(incident: Incident, table: dict[str, Any]) -> list[tuple[Culprit | None, str]]:
    named: list[tuple[Culprit | None, str]] = [
        (culprit, section)
        for culprit in incident.culprits
        for section in sections(culprit.kind, culprit.name)
        if section in table
    ]
    return [*named, (None, "any")]
