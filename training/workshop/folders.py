"""Where the workshop's files lie, below one working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SEED, FEEDBACK, PROCESSED = Path("data/seed"), Path("data/feedback"), Path("data/processed")
ADAPTER, MERGED, FILES = Path("output/lora_adapter"), Path("output/merged"), Path("output/gguf")
TRAIN, VAL = PROCESSED / "train.jsonl", PROCESSED / "val.jsonl"
TRAIN_PAIRS, VAL_PAIRS = PROCESSED / "train_pairs.jsonl", PROCESSED / "val_pairs.jsonl"

Workdir = Annotated[Path, typer.Option("--workdir", help="The folder that holds data/ and output/.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML or TOML, as training_config.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def make_folders(workdir: Path) -> None:
    """The six folders."""
    for one in (SEED, FEEDBACK, PROCESSED, ADAPTER, MERGED, FILES):
        (workdir / one).mkdir(parents=True, exist_ok=True)
