"""Which bundle serves each tier under the settings in force, described for a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon.errors import BundleError, NoBundleError
from daemon.settings import Models, Settings
from models import shelf
from models.bundle import Bundle
from models.shelf import Choice, Trust

# Of the manifest's figures, those that say most in a line, in this order.
QUALITIES = ("macro_f1", "auc_pr", "culprit_top1", "own_text", "perplexity", "accuracy")


def trust_of(models: Models) -> Trust:
    """Who may sign, by the settings."""
    return Trust(Path(models.allowed_signers) if models.allowed_signers else None, models.signature_required)


def look(settings: Settings, tier: str) -> Choice:
    """The bundle that serves a tier; raises NoBundleError and BundleError."""
    models = settings.models
    return shelf.look(tier, getattr(models, tier), settings.state, trust_of(models))


def serving(settings: Settings, tier: str) -> dict[str, Any]:
    """What serves a tier, why, what was refused, and what lies beside it."""
    state = settings.state
    row: dict[str, Any] = {"tier": tier, "serving": None, "why": "", "refused": []}
    try:
        choice = look(settings, tier)
        row |= {"serving": described(choice.bundle), "why": choice.source, "refused": list(choice.refused)}
    except NoBundleError:
        row["why"] = "off" if getattr(settings.models, tier) == "off" else "none"
    except BundleError as error:
        row |= {"why": "refused", "refused": [str(error)]}
    row["installed"] = [path.name for path in shelf.installed(tier, state)]
    row["candidates"] = sorted(path.name for path in shelf.candidates(tier, state).glob("[!.]*"))
    return row


def described(bundle: Bundle) -> dict[str, Any]:
    """A bundle with its most telling figures."""
    manifest = bundle.manifest
    return {
        "name": bundle.name,
        "tier": manifest.tier,
        "version": manifest.version,
        "directory": str(bundle.directory),
        "bytes": bundle.size_bytes,
        "memory_mib": manifest.memory_mib,
        "architecture": bundle.config.architecture,
        "licence": manifest.licence,
        "signer": bundle.signer,
        "quality": qualities(manifest.metrics),
        "created": manifest.created,
        "recipe": manifest.recipe,
    }


def qualities(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures that say most, of what ships: a table's last row, else the last part that has them.

    What training said comes first, so that what was measured on the packed model overrides it.
    """
    ordered = sorted(metrics, key=lambda name: name != "training")
    parts = [metrics, *(metrics[name] for name in ordered if isinstance(metrics[name], dict))]
    tables = [part["table"] for part in parts if isinstance(part.get("table"), list) and part["table"]]
    shipped = [rows[-1].get("quality") for rows in tables if isinstance(rows[-1], dict)]
    parts += [quality for quality in shipped if isinstance(quality, dict)]
    found = {}
    for name in QUALITIES:
        values = [part[name] for part in parts if isinstance(part.get(name), int | float)]
        if values:
            found[name] = float(values[-1])
    return found
