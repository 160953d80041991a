"""Task advice: are the top tier's texts true, its own, and about the right culprit and evidence?

Reads incidents, one JSON object a line (`schema: 1`). Each is explained in English and German by the bundle
and by the catalogue, whole, though the daemon shows only what it cites and only where the catalogue has
general words. A text is the model's own if no text that it learned from, nor any of the catalogue's, is
nearly the same (chrF of 0.8 or more). `own_text` counts texts that are own, name the first culprit and
cite evidence of the incident, among all incidents; `invented` counts shown texts that the fact check refuses;
`fluent` is the share of the model's texts made of sound sentences only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from daemon.advice import brief, catalogue
from daemon.advice.check import check_advice
from daemon.advice.compose import catalogue_advice
from daemon.advice.facts import quotable, reported
from daemon.advice.fill import Scene
from daemon.advice.formats import Lang
from daemon.advice.subjects import display
from daemon.messages import Advice, Incident
from daemon.settings import Top
from daemon.tiers.top import SEEDS, TopTier, Write
from models.briefs import MAX_TOKENS, TEMPERATURE, TOP_K, sentences
from training.chrf import Nearest
from training.intervals import Array, intervals, number
from training.sources.phrasing import well_formed
from training.tables import DataError
from training.tasks import Outcome, Request, Scored

ALIKE = 0.8
LANGUAGES: tuple[Lang, ...] = ("en", "de")
_TIMES = ("opened_at", "updated_at", "closed_at", "evidence_at", "start", "end", "started", "ended")


class Shown(NamedTuple):
    """One text as a person would see it, and what was found of it."""

    origin: str
    invented: bool
    culprit: bool
    evidence: bool
    likeness: float  # to the most alike known text; 1 for the catalogue's own
    fluent: bool = True  # each sentence could have been put together from the written phrases

    @property
    def own(self) -> bool:
        """Whether it counts as the model's own text, rightly about this incident."""
        return self.origin == "model" and self.likeness < ALIKE and self.culprit and self.evidence


def run(request: Request) -> Outcome:
    """Explain every incident by the bundle if there is one, and by the catalogue beside it."""
    incidents = [one for file in request.files for one in read_incidents(file)]
    if not incidents:
        raise DataError("no incident to explain")
    write = None if request.bundle is None else writer(request.bundle)
    groups = number([one.fault_class.value for one in incidents])
    figures: dict[str, float | int | str] = {
        "n": len(incidents),
        "path": "baseline" if write is None else "model",
        "invented": 0,
    }
    scores: list[Scored] = []
    for lang in LANGUAGES:
        known = Nearest(learned_texts(lang, request.train)) if write is not None else None
        shown = [_show(one, lang, write, known) for one in incidents]
        request.tell(f"{lang}: {sum(one.origin == 'model' for one in shown)} of {len(shown)} by the model")
        figures["invented"] = int(figures["invented"]) + sum(one.invented for one in shown)
        figures |= _figures(lang, shown, groups, request)
        plain = [_judge(catalogue_advice(one, lang), one, lang, 1.0) for one in incidents]
        figures |= {f"baseline_culprit_right_{lang}": _share(plain, "culprit")}
        figures |= {f"baseline_evidence_right_{lang}": _share(plain, "evidence")}
        scores += [Scored(row, one.likeness, int(one.own), lang) for row, one in enumerate(shown)]
    return Outcome(figures, scores)


def writer(bundle: Any) -> Write:
    """A bundle as the top tier asks it, in this process."""
    from models.runtime import Generator  # noqa: PLC0415 - loads the runtime only where a bundle speaks

    generator = Generator(bundle)

    def write(prompt: str, seed: int) -> str | None:
        return generator.generate(
            prompt, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=seed
        )

    return write


def learned_texts(lang: Lang, table: Path | None) -> Iterator[str]:
    """What a model of this language learned from: a Parquet file's `completion`, or the source's own rows."""
    if table is not None:
        from training.rows import read_parquet  # noqa: PLC0415 - pyarrow

        found: Iterator[dict[str, Any]] = iter(read_parquet(table))
    else:
        from training.sources import briefs  # noqa: PLC0415 - only where no table was given

        found = chain.from_iterable(briefs.rows(seed=seed, count=count) for seed, count in briefs.RECIPE)
    return (
        str(row["completion"])
        for row in found
        if row["lang"] == lang and row.get("split", "train") == "train"
    )


def _show(incident: Incident, lang: Lang, write: Write | None, known: Nearest | None) -> Shown:
    text, advice = _write(incident, lang, write) if write is not None else ("", None)
    if advice is None or known is None:
        return _judge(TopTier(Top(languages=[lang])).advise(incident)[0], incident, lang, 1.0)
    likeness = max(
        known.highest(" ".join(text.split())),
        Nearest(catalogue_texts(incident, lang)).highest(advice.text),
    )
    fluent = all(well_formed(one, lang, incident.fault_class.value) for one in sentences(text))
    return _judge(advice, incident, lang, likeness)._replace(fluent=fluent)


def _write(incident: Incident, lang: Lang, write: Write) -> tuple[str, Advice | None]:
    """The first whole text that passes every check, as the model wrote it and filled."""
    told = brief.tell(incident, lang)
    for seed in range(SEEDS):
        text = write(told.prompt, seed)
        if text is None:
            break
        advice = brief.fill(text, told, incident)
        if isinstance(advice, Advice) and not check_advice(advice, incident):
            return text, advice
    return "", None


def catalogue_texts(incident: Incident, lang: Lang) -> list[str]:
    """What the catalogue could say about this incident: its whole advice, and each section's sentences."""
    entry = catalogue.load(incident.fault_class)
    scene = Scene(incident, lang, incident.culprits[0] if incident.culprits else None)
    found = [catalogue_advice(incident, lang).text]
    for section in entry.sections.values():
        words = section.words[lang]
        filled = [scene.first(item) for part in (words.means, words.look, words.help) for item in part]
        found.append(" ".join(one.text for one in filled if one))
    return found


def _judge(advice: Advice, incident: Incident, lang: Lang, likeness: float) -> Shown:
    blamed = next((one.name for one in incident.culprits[:1]), "")
    culprit = not blamed or display(blamed, lang) in advice.text
    known = {one.id for one in incident.evidence}
    cited = any(source in known and part in advice.text for part, source in advice.sources.items())
    lines = [line for line, _ in (*quotable(incident), *reported(incident))]
    quoted = any(line[:60] in advice.text for line in lines)
    citable = bool(brief.tell(incident, lang).brief.groups) or any(one.text for one in incident.evidence)
    return Shown(
        advice.origin, bool(check_advice(advice, incident)), culprit, cited or quoted or not citable, likeness
    )


def _figures(lang: Lang, shown: list[Shown], groups: Array, request: Request) -> dict[str, float]:
    by_model = [one for one in shown if one.origin == "model"]
    likeness = [one.likeness for one in by_model] or [1.0]
    own = np.array([one.own for one in shown], np.float64)  # (incidents,)
    drawn: dict[str, Callable[[Array], float]] = {
        f"own_text_{lang}": lambda w: float((own * w).sum() / w.sum())
    }
    found = {
        f"own_text_{lang}": float(own.mean()),
        f"by_model_{lang}": len(by_model) / len(shown),
        f"culprit_right_{lang}": _share(shown, "culprit"),
        f"evidence_right_{lang}": _share(shown, "evidence"),
        f"fluent_{lang}": _share(by_model, "fluent"),
        f"chrf_median_{lang}": float(np.median(likeness)),
        f"chrf_p90_{lang}": float(np.quantile(likeness, 0.9)),
    }
    for name, bounds in intervals(drawn, groups, rounds=request.rounds, seed=request.seed).items():
        found |= {f"{name}_low": bounds.low, f"{name}_high": bounds.high}
    return found


def _share(shown: list[Shown], name: str) -> float:
    return sum(bool(getattr(one, name)) for one in shown) / max(1, len(shown))


# --- reading ------------------------------------------------------------------------------------------------


def read_incidents(path: Path) -> Iterator[Incident]:
    """Incidents of a JSONL file, as `hauswart incidents --json` writes them; raises DataError."""
    with path.open("rb") as file:
        for row, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                yield msgspec.convert(_plain(json.loads(raw)), Incident, strict=False)
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise DataError(f"{path}, line {row}: {error}") from error


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """A document of `schema: 1` as the message that it tells of."""
    fault = found["fault_class"]
    opened = found.get("opened_at") or 0.0
    defaults: dict[str, Any] = {
        "type": "incident",
        "revision": 1,
        "boot_id": "",
        "context": [],
        "finding_ids": [],
    }
    defaults |= {"findings_count": 1, "closed_at": None, "updated_at": opened, "evidence_at": opened}
    kept = {key: value for key, value in found.items() if value is not None or key == "closed_at"}
    whole = (
        defaults | kept | {"evidence": [_evidence(one, fault, opened) for one in found.get("evidence", [])]}
    )
    whole["context"] = [
        _seconds({"effect": "noted", "text": "", "ended": None} | one) for one in whole["context"]
    ]
    return _seconds(whole)


def _evidence(found: dict[str, Any], fault: str, opened: Any) -> dict[str, Any]:
    ref = found.get("ref") or found.get("metric") or found.get("cursor") or ""
    speaks = {fault: 0.6} if found.get("kind") == "line" else {}  # documents do not say which lines speak
    whole = {"start": opened, "end": opened, "speaks_for": speaks} | found | {"ref": ref}
    return _seconds(whole)


def _seconds(found: dict[str, Any]) -> dict[str, Any]:
    return {key: _unix(value) if key in _TIMES else value for key, value in found.items()}


def _unix(value: Any) -> Any:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value
