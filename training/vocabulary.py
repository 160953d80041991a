"""A tokenizer as a GGUF file holds one: pieces, their kinds, what joins them, the marks, the chat template.

Two kinds are known: byte-level BPE (GPT-2's; SmolLM2, Qwen2.5, Llama 3) and SentencePiece's BPE (Llama 2,
TinyLlama, Mistral). llama.cpp splits text before BPE by rules of its own, which have names; a tokenizer that
splits otherwise is refused, since its file would read texts wrongly and say nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from daemon.errors import ConfigError

# llama.cpp's kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # SentencePiece's sign of a space
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_QWEN: "qwen2", _QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|"): "llama-bpe"}


class Vocabulary(NamedTuple):
    """What goes into the file: `kind` is gpt2 or llama, `split` llama.cpp's name of the rule before BPE."""

    kind: str
    split: str
    pieces: list[str]
    kinds: list[int]
    merges: list[str]  # of gpt2
    scores: list[float]  # of llama
    adds_space: bool


def read_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """Of transformers' tokenizer, filled up to the `size` of the model's. Raises ConfigError."""
    known = json.loads(tokenizer.backend_tokenizer.to_str())
    model = known["model"]
    if model.get("type") != "BPE":
        raise ConfigError(f"a tokenizer of the kind {model.get('type')} cannot be written", hint=_hint())
    pieces: dict[int, str] = {number: piece for piece, number in model["vocab"].items()}
    kinds = dict.fromkeys(pieces, NORMAL)
    for added in known["added_tokens"]:
        pieces[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(pieces) >= size:
        raise ConfigError(f"the tokenizer has {max(pieces) + 1} pieces, the model {size}")
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    split = _split(known["pre_tokenizer"])
    sentencepiece = bool(model.get("byte_fallback"))
    if not sentencepiece and split is None:
        raise ConfigError("the tokenizer splits texts by a rule that is not known here", hint=_hint())
    if sentencepiece:
        unknown = model.get("unk_token")
        kinds |= {number: BYTE for number, piece in pieces.items() if _BYTE.fullmatch(piece)}
        kinds |= {number: UNKNOWN for number, piece in pieces.items() if piece == unknown}
    listed = [pieces.get(number, f"[PAD{number}]") for number in range(size)]
    return Vocabulary(
        kind="llama" if sentencepiece else "gpt2",
        split="default" if sentencepiece else str(split),
        pieces=listed,
        kinds=[kinds.get(number, UNUSED) for number in range(size)],
        merges=merges,
        scores=_scores(listed, merges) if sentencepiece else [],
        adds_space=sentencepiece and _adds_space(known),
    )


def write_vocabulary(writer: Any, tokenizer: Any, size: int) -> None:
    """Into a gguf.GGUFWriter. Raises ConfigError."""
    found = read_vocabulary(tokenizer, size)
    writer.add_tokenizer_model(found.kind)
    writer.add_tokenizer_pre(found.split)
    writer.add_token_list(found.pieces)
    writer.add_token_types(found.kinds)
    if found.kind == "gpt2":
        writer.add_token_merges(found.merges)
    else:
        writer.add_token_scores(found.scores)
    writer.add_add_space_prefix(found.adds_space)
    marks = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    for name, number in marks.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(len(ids) > 1 and ids[0] == tokenizer.bos_token_id))
    writer.add_add_eos_token(bool(len(ids) > 1 and ids[-1] == tokenizer.eos_token_id))
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _split(rule: Any) -> str | None:
    """llama.cpp's name of what happens before byte-level BPE; None for an unknown rule."""
    parts = rule.get("pretokenizers", [rule]) if isinstance(rule, dict) else []
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    before = parts[:-1]
    if not before:
        return "gpt-2" if parts[-1].get("use_regex", True) else None
    if len(before) > 1:
        return None
    if before[0].get("type") == "Digits" and before[0].get("individual_digits"):
        return "smollm"
    if before[0].get("type") == "Split" and not parts[-1].get("use_regex", True):
        return _SPLITS.get(before[0].get("pattern", {}).get("Regex", ""))
    return None


def _scores(pieces: list[str], merges: list[str]) -> list[float]:
    """SentencePiece joins the best-scored piece first, BPE the earliest merge: so the earlier, the better."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(piece, len(merges))) for piece in pieces]


def _adds_space(known: Any) -> bool:
    """Whether a text is read as if it began with a space."""
    normalizer, rule = known.get("normalizer") or {}, known.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Prepend" and step.get("prepend") == SPACE for step in steps):
        return True
    return rule.get("type") == "Metaspace" and rule.get("prepend_scheme", "never") != "never"


def _hint() -> str:
    return "llama.cpp's convert_hf_to_gguf.py knows more families: give it with --converter PATH"
