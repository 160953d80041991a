"""The folder of a trained model: what finetune and prune write and what every later verb reads.

`config.json` and `model.safetensors` as transformers writes them, `tokenizer.json`, and `hauswart.json`, the
card: tier, heads, sequence, seed, recipe, data, metrics and the parent's folder. Never a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError

CARD = "hauswart.json"
TOKENIZER = "tokenizer.json"
TIERS = ("low", "middle", "top")
_CARD_BYTES_MAX = 4 << 20


def make_card(
    tier: str, heads: Mapping[str, int] | None = None, *, sequence: int, **known: Any
) -> dict[str, Any]:
    """A card with every key that readers expect."""
    return {
        "tier": tier,
        "heads": dict(heads or {}),
        "sequence": sequence,
        "seed": 0,
        "recipe": "",
        "data": [],
        "metrics": {},
        "parent": "",
    } | known


def save_folder(model: Any, tokenizer: Any, card: Mapping[str, Any], directory: Path) -> Path:
    """Write model (transformers), tokenizer (tokenizers.Tokenizer) and card; the folder."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save(str(directory / TOKENIZER))
    write_card(card, directory)
    return directory


def write_card(card: Mapping[str, Any], directory: Path) -> None:
    """Write only the card; the heads keep their order, which is that of the logits."""
    text = json.dumps(card, indent=1, default=str) + "\n"  # the heads keep their order
    (directory / CARD).write_text(text, encoding="utf-8")


def read_card(directory: Path) -> dict[str, Any]:
    """The card; raises ConfigError for what is none."""
    path = directory / CARD
    try:
        if path.stat().st_size > _CARD_BYTES_MAX:
            raise ConfigError(
                f"{path} has {path.stat().st_size} bytes, a card has less than {_CARD_BYTES_MAX}"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{directory} is no trained model: it has no {CARD}", hint="make one: hauswart train finetune"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    missing = {"tier", "heads", "sequence"} - set(found if isinstance(found, dict) else ())
    if missing or found["tier"] not in TIERS:
        raise ConfigError(f"{path} is no card: {', '.join(sorted(missing)) or found['tier']!r} is wrong")
    return make_card(**found)


def load_folder(directory: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Model in evaluation mode, tokenizer and card; raises ConfigError."""
    from tokenizers import Tokenizer  # noqa: PLC0415  # seconds, and only where a model is used

    card = read_card(directory)
    try:
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"{directory / TOKENIZER} cannot be read: {error}") from error
    return open_model(directory, generator=card["tier"] == "top").eval(), tokenizer, card


def open_model(name: str | Path, *, generator: bool, **changes: Any) -> Any:
    """A transformers model from a folder or by name: safetensors only, no remote code; raises ConfigError."""
    from transformers import (  # noqa: PLC0415  # five seconds
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    kind = AutoModelForCausalLM if generator else AutoModelForSequenceClassification
    if isinstance(name, Path) and not (name / "config.json").is_file():
        raise ConfigError(f"{name} holds no model (no config.json)")
    try:
        return kind.from_pretrained(
            str(name), use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True, **changes
        )
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot load the model {str(name)!r}: {said}",
            hint="offline, give a local folder, or set HF_HOME to a cache that holds it as safetensors",
        ) from error
