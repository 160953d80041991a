"""`hauswart train export-feedback`: the operator's verdicts as data that other trainers read.

`feedback.jsonl` is ChatML: what an incident showed and the advice that was called good, or its better text.
`preferences.jsonl` holds a chosen and a rejected text for each edited one. For the low tier, the lines of an
incident carry its verdict: alert-worthy after a good one, not so after a bad one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from daemon.command.session import session_of
from daemon.messages import Incident, KeepFeedback
from daemon.store.reader import StoreReader
from models.lines import encode

Row = dict[str, Any]

CHATML, PREFERENCES = "feedback.jsonl", "preferences.jsonl"
SYSTEM = {
    "en": "You look after a Linux host. Explain the incident from its evidence and say what helps.",
    "de": "Du betreust einen Linux-Rechner. Erkläre den Vorfall aus seinen Belegen und sage, was hilft.",
}
EVIDENCE_SHOWN = 12
# One verdict judges all lines of its incident, a label judges one line: it weighs as much as a few of those.
VERDICT_WEIGHT = 4.0


class Verdict(NamedTuple):
    """The operator's last word on an incident, and every improved text."""

    incident: Incident
    last: KeepFeedback
    edits: list[KeepFeedback]
    advice: Mapping[str, str]  # by language


def read_verdicts(store: Path, since: float = 0.0) -> list[Verdict]:
    """Verdicts by incident, oldest first; those whose incident was erased are left out."""
    found: dict[str, list[KeepFeedback]] = {}
    with StoreReader(store) as reader:
        for one in reader.feedback(since=since):
            if one.verdict != "acknowledged":
                found.setdefault(one.incident_id, []).append(one)
        verdicts = []
        for incident_id, spoken in found.items():
            incident = reader.incident(incident_id)
            if incident is None:
                continue
            texts = {lang: told.text for lang in SYSTEM if (told := reader.advice(incident_id, lang))}
            edits = [one for one in spoken if one.verdict == "edited"]
            verdicts.append(Verdict(incident, spoken[-1], edits, texts))
    return verdicts


def line_rows(verdicts: Iterable[Verdict]) -> Iterator[Row]:
    """Rows for the low tier: the lines that a judged incident was made of, with its verdict."""
    for one in verdicts:
        if one.last.verdict == "edited":  # of its text, not of whether it was one
            continue
        wrong = one.last.verdict == "bad"
        for evidence in one.incident.evidence:
            if evidence.kind == "line" and evidence.text.strip():
                yield {
                    "text": encode(evidence.text),
                    "group": f"incident {one.incident.id}",
                    "source": "feedback",
                    "alert": 0.0 if wrong else 1.0,
                    "weight": VERDICT_WEIGHT,
                    "split": "train",
                }


def chats(verdicts: Iterable[Verdict]) -> Iterator[Row]:
    """ChatML for each text that was called good or was improved."""
    for one in verdicts:
        improved = {edit.lang or "en": edit.improved for edit in one.edits}
        good = one.advice if one.last.verdict == "good" else {}
        for lang, text in ({**good, **improved}).items():
            if lang in SYSTEM and text.strip():
                messages = [*_asked(one.incident, lang), {"role": "assistant", "content": text}]
                kept = {"incident": one.incident.id, "lang": lang, "verdict": one.last.verdict}
                yield {"messages": messages, **kept}


def preferences(verdicts: Iterable[Verdict]) -> Iterator[Row]:
    """A pair for each edited text: the operator's is chosen, ours is rejected."""
    for one in verdicts:
        for edit in one.edits:
            lang = edit.lang if edit.lang in SYSTEM else "en"
            if edit.original.strip():
                yield {
                    "prompt": _asked(one.incident, lang),
                    "chosen": [{"role": "assistant", "content": edit.improved}],
                    "rejected": [{"role": "assistant", "content": edit.original}],
                    "incident": one.incident.id,
                    "lang": lang,
                }


def export_feedback(store: Path, out: Path, since: float = 0.0) -> dict[str, int]:
    """Write both files into the folder `out`; how many entries each has. Raises OSError."""
    verdicts = read_verdicts(store, since)
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, rows in ((CHATML, chats(verdicts)), (PREFERENCES, preferences(verdicts))):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        part = out / f"{name}.part"
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(out / name)
        counts[name] = len(lines)
    return counts | {"verdicts": len(verdicts)}


def _asked(incident: Incident, lang: str) -> list[dict[str, str]]:
    """What a writer is given of an incident."""
    culprits = ", ".join(f"{one.kind.value} {one.name}".strip() for one in incident.culprits[:3])
    facts = [f"class: {incident.fault_class.value}", f"severity: {incident.severity.value}"]
    facts += [f"culprits: {culprits}"] if culprits else []
    facts += [f"context: {note.text}" for note in incident.context]
    facts += [f"evidence: {one.text}" for one in incident.evidence[:EVIDENCE_SHOWN]]
    return [{"role": "system", "content": SYSTEM[lang]}, {"role": "user", "content": "\n".join(facts)}]


def command(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("feedback"),
    since: Annotated[float, typer.Option(help="Only verdicts after this time (Unix seconds).")] = 0.0,
    store: Annotated[
        Path | None, typer.Option(help="Another store than this host's (STATE_DIR/store.db).")
    ] = None,
) -> None:
    """Good and edited advice as ChatML, edited ones as preference pairs too."""
    counts = export_feedback(store or session_of(context).store_path, out, since)
    sys.stdout.write(json.dumps(counts | {"out": str(out)}) + "\n")
