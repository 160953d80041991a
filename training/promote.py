"""`hauswart retrain promote`: the newest candidate is verified and judged anew, and serves if it is no worse.

Nothing that the trainer said of its candidate counts: who trains may write candidates and nothing else, who
promotes reads them and may change what serves. Needs no torch.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from daemon.journal import Journal
from daemon.message_ids import MessageId
from daemon.settings import Settings
from models import shelf
from models.bundle import Bundle, read_manifest
from training import contest, retrain

INFO, WARNING = 6, 4  # syslog(3)


class Promotion(NamedTuple):
    """What became of a candidate; no `candidate` where there was nothing new."""

    candidate: str
    champion: str
    promoted: bool
    reasons: list[str]


def promote(settings: Settings, *, store: Path, telemetry: Path | None = None) -> Promotion:
    """Judge the newest candidate and install it if it won; raises HauswartError, BundleError."""
    state, trust = settings.state, retrain.trust_of(settings)
    champion = shelf.look(retrain.TIER, settings.models.low, state, trust).bundle
    newest = _newest(shelf.candidates(retrain.TIER, state))
    if newest is None or _is_known(newest, champion, state):
        return Promotion("", champion.name, promoted=False, reasons=[])
    with tempfile.TemporaryDirectory(prefix="hauswart-") as scratch:
        # A copy that the trainer cannot reach: what is judged is what is installed.
        copy = Path(shutil.copytree(newest, Path(scratch) / newest.name))
        candidate = trust.verify(copy, retrain.TIER)
        texts, judged = _evidence(store, telemetry or state / "telemetry")
        reasons = _judge(champion, candidate, texts, judged)
        if not reasons:
            shelf.install(copy, retrain.TIER, state, trust)
    return Promotion(candidate.name, champion.name, promoted=not reasons, reasons=reasons)


def _newest(shop: Path) -> Path | None:
    """Versions are times, so that the last by name is the last made."""
    found = sorted(path for path in shop.glob("[!.]*") if path.is_dir() and not path.is_symlink())
    return found[-1] if found else None


def _is_known(candidate: Path, champion: Bundle, state: Path) -> bool:
    """Whether it serves, or did and was taken back: an operator's rollback is not undone the next night."""
    version = read_manifest(candidate).version
    known = {path.name for path in shelf.installed(retrain.TIER, state)} | {champion.manifest.version}
    return version in known


def _evidence(store: Path, telemetry: Path) -> tuple[list[str], list[tuple[str, bool]]]:
    judged, host = retrain.gather(store, telemetry, lambda _said: None)
    texts = list(dict.fromkeys(row["text"] for row in host))[: retrain.CANARY_MAX]
    return texts, [(row["text"], row["alert"] >= contest.ALERT) for row in judged]


def _judge(
    champion: Bundle, candidate: Bundle, canary: list[str], feedback: list[tuple[str, bool]]
) -> list[str]:
    from models.runtime import Classifier  # noqa: PLC0415  # numpy and onnxruntime

    result = contest.compare(
        contest.judge_with(Classifier(champion), champion.config.thresholds),
        contest.judge_with(Classifier(candidate), candidate.config.thresholds),
        golden=contest.read_golden(),
        canary=canary,
        feedback=feedback,
    )
    return result.reasons


def tell(made: Promotion, settings: Settings) -> str:
    """The outcome in words; the journal hears of it, too, where this runs as a unit."""
    if not made.candidate:
        return f"no new candidate; {made.champion} goes on serving\n"
    if made.promoted:
        said, message_id, priority = f"{made.candidate} serves now", MessageId.BUNDLE_PROMOTED, INFO
        if settings.models.low != "auto":
            said += f" as soon as [models] low is not set to {settings.models.low}"
    else:
        said = f"{made.candidate} stays a candidate, {made.champion} goes on serving: {made.reasons[0]}"
        message_id, priority = MessageId.CANDIDATE_LOST, WARNING
    journal = Journal("hauswart-switch")
    fields = {"tier": retrain.TIER, "bundle": made.candidate, "champion": made.champion}
    if journal.listens and journal.send(said, priority, message_id, fields):
        return ""
    return said + "\n"
