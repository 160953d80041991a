"""The text of a notification in English or German, from advice or, without it, from class and culprits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from daemon.advice.titles import title
from daemon.messages import Advice, Incident
from daemon.notify.planner import Notice

MAX_BODY = 4000  # characters; ntfy takes 4096 bytes, Telegram 4096 characters
MAX_EVIDENCE = 5
MAX_DIGEST = 40

_WORDS = {
    "en": {
        "opened": "new",
        "worse": "worse",
        "closed": "over",
        "since": "since",
        "culprit": "culprit",
        "action": "recommended",
        "evidence": "Evidence:",
        "digest": "incidents",
        "more": "more",
        "info": "info",
        "warning": "warning",
        "error": "error",
        "critical": "critical",
    },
    "de": {
        "opened": "neu",
        "worse": "schlimmer",
        "closed": "vorbei",
        "since": "seit",
        "culprit": "Verursacher",
        "action": "empfohlen",
        "evidence": "Belege:",
        "digest": "Vorfälle",
        "more": "weitere",
        "info": "Hinweis",
        "warning": "Warnung",
        "error": "Fehler",
        "critical": "kritisch",
    },
}


class Message(NamedTuple):
    """What a channel is given."""

    title: str
    body: str


def compose(notice: Notice, advice: Advice | None, lang: str, host: str) -> Message:
    """One notice as a message."""
    words, incident = _WORDS[lang], notice.incident
    head = f"{host}: {title(incident, lang)} [{words[incident.severity]}, {words[notice.reason]}]"
    parts = []
    if advice is not None:
        parts.append(advice.text)
        if advice.action:
            parts.append(f"{words['action']}: {advice.action}")
    facts = [incident.fault_class.value, f"{words['since']} {_clock(incident.opened_at)}", incident.id]
    culprits = ", ".join(culprit.name for culprit in incident.culprits[:3] if culprit.name)
    facts += [f"{words['culprit']}: {culprits}"] if culprits else []
    parts.append("; ".join(facts))
    if advice is None and incident.evidence:
        lines = [f"- {item.text}" for item in incident.evidence[:MAX_EVIDENCE]]
        parts.append("\n".join([words["evidence"], *lines]))
    return Message(head[:250], "\n\n".join(parts)[:MAX_BODY])


def compose_digest(notices: Sequence[Notice], lang: str, host: str) -> Message:
    """Many notices as one message, the worst first."""
    words = _WORDS[lang]
    ordered = sorted(notices, key=lambda one: (-one.incident.severity.rank, one.incident.opened_at))
    lines = [f"- {_summary(one, words, lang)}" for one in ordered[:MAX_DIGEST]]
    if len(ordered) > MAX_DIGEST:
        lines.append(f"- {len(ordered) - MAX_DIGEST} {words['more']}")
    return Message(f"{host}: {len(notices)} {words['digest']}", "\n".join(lines)[:MAX_BODY])


def _summary(notice: Notice, words: dict[str, str], lang: str) -> str:
    incident = notice.incident
    return f"[{words[incident.severity]}, {words[notice.reason]}] {title(incident, lang)} ({incident.id})"


def worst(incidents: Sequence[Incident]) -> str:
    """The highest severity among incidents."""
    return max((one.severity for one in incidents), key=lambda severity: severity.rank).value


def _clock(at: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "?"
