"""The words around an incident in English and German, and times as a page shows them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from daemon.advice.formats import Lang, write
from daemon.messages import Event
from daemon.store.rows import Change, Revision
from models.metrics import METRICS, split

_FILE = Path(__file__).with_name("words.toml")
TOLD = (
    "unit",
    "generation",
    "user",
    "package",
    "model",
    "state",
)  # attributes of an event that a person asks for
_FORMATS = {"ratio": "percent", "bytes": "memory", "bytes/s": "memory", "s": "duration", "1/s": "rate"}


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text("utf-8"))


class Words:
    """One language's words; `words("since")` is the word, with its numbers and names put in place."""

    def __init__(self, lang: str) -> None:
        self.lang: Lang = "de" if lang == "de" else "en"

    def __call__(self, name: str, **values: object) -> str:
        """A word of the table; raises KeyError for one that is not there."""
        return str(_table()[name][self.lang]).format(**values)

    def has(self, name: str) -> bool:
        """Whether there is such a word."""
        return name in _table()

    def metric(self, name: str) -> str:
        """A metric's name for people, else as it is."""
        known = f"metric_{name.replace('.', '_')}"
        return self(known) if self.has(known) else name

    def share(self, ratio: float) -> str:
        """A part of one in percent."""
        return write(max(0.0, ratio), "percent", self.lang)

    def memory(self, size: float) -> str:
        """Bytes as a person reads them."""
        return write(size, "memory", self.lang)

    def clock(self, at: float | None, *, date: bool = True) -> str:
        """Local time to the second, with its date."""
        if at is None:
            return ""
        moment = datetime.fromtimestamp(min(max(at, 0.0), 253402300799.0), UTC).astimezone()
        day = f"{moment:%d.%m.%Y}" if self.lang == "de" else f"{moment:%Y-%m-%d}"
        return f"{day} {moment:%H:%M:%S}" if date else f"{moment:%H:%M:%S}"

    def lasted(self, seconds: float) -> str:
        """A duration."""
        return write(max(0.0, seconds), "duration", self.lang)

    def value(self, name: str, value: float) -> str:
        """A metric's value with its unit."""
        known = METRICS.get(split(name)[0])
        unit = known.unit if known else ""
        text = write(value, _FORMATS.get(unit, "number"), self.lang)
        return f"{text}/s" if unit == "bytes/s" else text

    def event(self, event: Event) -> str:
        """A change on the host in one line."""
        kind = self(f"event_{event.kind}") if self.has(f"event_{event.kind}") else event.kind
        action = self(f"action_{event.action}") if self.has(f"action_{event.action}") else event.action
        named = [
            event.attributes[name] for name in TOLD if event.attributes.get(name, event.name) != event.name
        ]
        return f"{kind}: {event.name} {action}" + (f" ({', '.join(named)})" if named else "")

    def steps(self, revisions: list[Revision]) -> Iterator[tuple[float, str]]:
        """When something changed and what; steps that only added findings are left out."""
        for one in revisions:
            changes = [self._change(change) for change in one.changes if change.field != "findings_count"]
            opened = any(change.field == "state" and not change.before for change in one.changes)
            if one.revision <= 1 or opened:
                yield one.at, self("step_opened", what=one.fault_class, severity=self(one.severity))
            elif changes:
                yield one.at, ", ".join(changes)

    def _change(self, change: Change) -> str:
        if change.field == "state":
            return self(f"state_{change.after}")
        before, after = change.before or "-", change.after or "-"
        if change.field == "severity":
            before, after = (self(one) if one in _table() else one for one in (before, after))
        named = f"change_{change.field}"
        return f"{self(named) if named in _table() else change.field}: {before} → {after}"
