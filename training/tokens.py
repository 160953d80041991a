"""Vocabularies: learned from a corpus, read from a folder, or cut to what a corpus uses.

Deterministic: the same texts in the same order give the same vocabulary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from daemon.errors import ConfigError

UNKNOWN, START, END = "[UNK]", "[CLS]", "[SEP]"
PAD = "[PAD]"
_LETTERS_MAX = 600  # below the trainer's own limit of 1000, whose choice among rare ones is not repeatable
CLASSIFIER_SPECIALS = (PAD, UNKNOWN, START, END, "[MASK]")


def train_wordpiece(texts: Sequence[str], size: int, specials: Sequence[str] = ()) -> Any:
    """A WordPiece vocabulary for the classifiers, lower case; `specials` stay whole wherever they stand."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [*CLASSIFIER_SPECIALS, *specials]
    # The trainer numbers "##a" in the order of a hash table unless it knows them from the start.
    inner = [f"##{letter}" for letter in _letters(tokenizer, texts)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*marks, *inner], min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = [one for one in plain["added_tokens"] if one["content"] in set(marks)]
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    tokenizer.decoder = decoders.WordPiece()
    return frame(tokenizer)


def _letters(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    counts = Counter(letter for text in texts for letter in tokenizer.normalizer.normalize_str(text))
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_LETTERS_MAX]
    return sorted(letter for letter, _ in ordered if not letter.isspace())


def train_bpe(texts: Iterable[str], size: int, specials: Sequence[str] = ()) -> Any:
    """A byte-level BPE vocabulary for the generator; `specials` (slots, <end>) are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, *specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def add_specials(model: Any, tokenizer: Any, specials: Sequence[str]) -> None:
    """Give a pretrained model the marks that its vocabulary lacks, as single tokens with fresh embeddings."""
    missing = [one for one in specials if tokenizer.token_to_id(one) is None]
    if not missing:
        return
    tokenizer.add_special_tokens(missing)
    if tokenizer.get_vocab_size() > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(tokenizer.get_vocab_size())


def frame(tokenizer: Any) -> Any:
    """Let a classifier's text begin with [CLS] and end with [SEP]."""
    pair = [(name, tokenizer.token_to_id(name)) for name in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", pair=f"{START} $A {END} $B {END}", special_tokens=pair
    )
    return tokenizer


def read(path: Path) -> Any:
    """A tokenizer.json, without the truncation and padding that its author may have set."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def of_pretrained(name: str | Path) -> Any:
    """The tokenizer of a folder or of a named model; raises ConfigError."""
    if isinstance(name, Path) and (name / "tokenizer.json").is_file():
        return read(name / "tokenizer.json")
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds

    try:
        found = AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)
        tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"no tokenizer for {str(name)!r}: {str(error).splitlines()[0]}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def prune_vocabulary(tokenizer: Any, texts: Iterable[str], size: int) -> tuple[Any, list[int]]:
    """A WordPiece tokenizer with the `size` pieces that the texts use most, and their former ids in order.

    Specials, added tokens and single characters stay, so that every text still has a reading. Raises
    ConfigError for another kind of vocabulary.
    """
    plain = json.loads(tokenizer.to_str())
    if plain["model"]["type"] != "WordPiece":
        raise ConfigError(f"only a WordPiece vocabulary can be cut, this is {plain['model']['type']}")
    vocabulary: dict[str, int] = plain["model"]["vocab"]
    used = Counter(one for text in texts for one in tokenizer.encode(text, add_special_tokens=False).ids)
    names = {number: piece for piece, number in vocabulary.items()}
    fixed = {one["id"] for one in plain["added_tokens"]}
    fixed |= {
        number for number, piece in names.items() if len(piece.removeprefix("##")) == 1 and number in used
    }
    fixed |= {n for n, piece in names.items() if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    by_use = [number for number, _ in sorted(used.items(), key=lambda one: (-one[1], one[0]))]
    kept = sorted(dict.fromkeys([*sorted(fixed), *by_use][: max(size, len(fixed))]))
    new = {old: number for number, old in enumerate(kept)}
    plain["model"]["vocab"] = {names[old]: number for old, number in new.items()}
    for one in plain["added_tokens"]:
        one["id"] = new[one["id"]]
    special = (plain.get("post_processor") or {}).get("special_tokens", {})
    for one in special.values():
        one["ids"] = [new[old] for old in one["ids"]]
    return Tokenizer.from_str(json.dumps(plain)), kept


def resize(model: Any, kept: Sequence[int]) -> Any:
    """The model with only these rows of its word embeddings (and of what is tied to them)."""
    import torch  # noqa: PLC0415  # seconds

    with torch.no_grad():
        rows = model.get_input_embeddings().weight[list(kept)].clone()
        model.resize_token_embeddings(len(kept), mean_resizing=False)
        model.get_input_embeddings().weight.copy_(rows)
    pad = model.config.pad_token_id
    if pad is not None:
        model.config.pad_token_id = list(kept).index(pad)
        model.get_input_embeddings().padding_idx = model.config.pad_token_id
    return model
