"""The files of a plan: an adapter's configuration as peft reads it, and the workshop's for that model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError, HauswartError
from training.adapters import PRESETS, USUAL
from training.workshop.planning.fitting import Training

ADAPTER, CONFIG = "adapter_config.json", "training_config.yaml"


def adapter_config(preset: str, base: str, rank: int = 0) -> dict[str, Any]:
    """What `LoraConfig.from_pretrained` reads; rank 0 is the preset's. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}", hint=f"one of {', '.join(PRESETS)}")
    known = PRESETS[preset]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank or known.rank,
        "lora_alpha": known.alpha,
        "lora_dropout": known.dropout,
        "target_modules": list(USUAL),
        "bias": "none",
        "inference_mode": False,
    }


def training_config(preset: str, trained: Training, epochs: float) -> str:
    """The workshop's configuration: the keys of its reference, with what fits this machine."""
    known = PRESETS[preset]
    return f"""\
# Written by `hauswart workshop plan` for this machine; `hauswart workshop train --config` reads it.
model:
  base_model: {trained.model.hub}
  quantization: {trained.quantization}
  max_seq_length: {trained.length}
lora:
  rank: {min(known.rank, trained.rank)}
  alpha: {known.alpha}
  dropout: {known.dropout:g}
training:
  epochs: {epochs:g}
  batch_size: {trained.batch_size}
  gradient_accumulation_steps: {trained.accumulation}
  gradient_checkpointing: true
  learning_rate: 0.0002
  lr_scheduler: cosine
data:
  train_split: 0.9
  max_samples: 0
"""


def write(folder: Path, preset: str, trained: Training, epochs: float) -> list[Path]:
    """Write both files, each whole or not at all. Raises HauswartError."""
    rank = min(PRESETS[preset].rank, trained.rank)
    config = json.dumps(adapter_config(preset, trained.model.hub, rank), indent=2) + "\n"
    written = []
    for name, content in ((ADAPTER, config), (CONFIG, training_config(preset, trained, epochs))):
        path = folder / name
        partial = path.with_name(f".{name}.partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise HauswartError(f"{path} cannot be written: {error.strerror}") from error
        written.append(path)
    return written
