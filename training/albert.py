"""ALBERT from MiniLM: the same network under another name, and a small one cut from a trained one.

An ALBERT whose layers are not shared (`num_hidden_groups` = layers) computes what BERT computes, so MiniLM's
weights can be the parent of the low tier. `shrink` makes a small one of it: fewer layers that share weights,
fewer words, and embeddings through a narrow projection (Lan et al. 2020), fitted so that the first layer
sees nearly what it saw before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AlbertConfig, AlbertForSequenceClassification, BertConfig

from daemon.errors import ConfigError
from training import tokens
from training.batches import read_split
from training.folder import load_folder, save_folder

_LAYER = "albert.encoder.albert_layer_groups.{}.albert_layers.0."
_PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.dense",
    "attention.output.LayerNorm": "attention.LayerNorm",
    "intermediate.dense": "ffn",
    "output.dense": "ffn_output",
    "output.LayerNorm": "full_layer_layer_norm",
}
_FIT_TEXTS = 4000  # rows that fit the projection; some 50,000 tokens for 128 unknowns each
_RIDGE = 1e-3


def from_minilm(folder: Path, labels: int) -> Any:
    """MiniLM as an ALBERT classifier with a layer group for each layer; its outputs are the same."""
    known = BertConfig.from_pretrained(folder)
    config = AlbertConfig(
        vocab_size=known.vocab_size,
        embedding_size=known.hidden_size,
        hidden_size=known.hidden_size,
        num_hidden_layers=known.num_hidden_layers,
        num_hidden_groups=known.num_hidden_layers,
        num_attention_heads=known.num_attention_heads,
        intermediate_size=known.intermediate_size,
        hidden_act=known.hidden_act,
        max_position_embeddings=known.max_position_embeddings,
        type_vocab_size=known.type_vocab_size,
        layer_norm_eps=known.layer_norm_eps,
        hidden_dropout_prob=known.hidden_dropout_prob,
        attention_probs_dropout_prob=known.attention_probs_dropout_prob,
        pad_token_id=known.pad_token_id,
        num_labels=labels,
    )
    model = AlbertForSequenceClassification(config)
    source = load_file(folder / "model.safetensors")
    found = {f"albert.{name}": value for name, value in source.items() if name.startswith("embeddings.")}
    found.pop("albert.embeddings.position_ids", None)
    for layer in range(known.num_hidden_layers):
        for old, new in _PARTS.items():
            for kind in ("weight", "bias"):
                found[f"{_LAYER.format(layer)}{new}.{kind}"] = source[f"encoder.layer.{layer}.{old}.{kind}"]
    for kind in ("weight", "bias"):
        found[f"albert.pooler.{kind}"] = source[f"pooler.dense.{kind}"]
    found["albert.encoder.embedding_hidden_mapping_in.weight"] = torch.eye(known.hidden_size)
    found["albert.encoder.embedding_hidden_mapping_in.bias"] = torch.zeros(known.hidden_size)
    missing, unknown = model.load_state_dict(found, strict=False)
    left = [name for name in missing if not name.startswith("classifier")]
    if left or unknown:
        raise ConfigError(f"{folder} is not the expected MiniLM: {[*left, *unknown][:3]}")
    return model


def shrink_folder(
    model: Path,
    out: Path,
    *,
    data: Path,
    layers: list[int],
    repeats: int = 1,
    vocabulary: int = 0,
    embedding: int = 0,
) -> dict[str, Any]:
    """Shrink a trained folder's ALBERT by the words of `data` (Parquet rows); parameters before and after.

    What comes out has lost quality until it is taught again (`training.prune`).
    """
    trained, tokenizer, card = load_folder(model)
    texts = [str(row["text"]) for row in read_split(data, card["tier"], "train")]
    small, fewer = shrink(
        trained, tokenizer, texts, layers=layers, repeats=repeats, vocabulary=vocabulary, embedding=embedding
    )
    counts = [sum(one.numel() for one in each.parameters()) for each in (trained, small)]
    save_folder(small, fewer, {**card, "parent": str(model), "parameters": counts[1], "metrics": {}}, out)
    return {
        "parameters_before": counts[0],
        "parameters": counts[1],
        "layers": len(layers) * repeats,
        "vocabulary": small.config.vocab_size,
        "embedding": small.config.embedding_size,
    }


def shrink(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    layers: Sequence[int],
    repeats: int = 1,
    vocabulary: int = 0,
    embedding: int = 0,
) -> tuple[Any, Any]:
    """A smaller ALBERT and its tokenizer: these layers of `model`, each used `repeats` times in a row.

    `vocabulary` pieces that `texts` use most stay (0: all); `embedding` is the width of the word vectors
    (0: as they are). Raises ConfigError for a layer that is not there.
    """
    old = model.config
    if not layers or not all(0 <= layer < old.num_hidden_groups for layer in layers):
        raise ConfigError(f"no layers {list(layers)} in an ALBERT with {old.num_hidden_groups} groups")
    kept = list(range(old.vocab_size))
    fewer = tokenizer
    if vocabulary:
        fewer, kept = tokens.prune_vocabulary(tokenizer, texts, vocabulary)
    config = AlbertConfig(**{**old.to_dict(), "vocab_size": len(kept)})
    config.num_hidden_groups = len(layers)
    config.num_hidden_layers = len(layers) * repeats
    config.embedding_size = embedding or old.embedding_size
    config.pad_token_id = kept.index(old.pad_token_id)
    small = AlbertForSequenceClassification(config)
    taken = model.state_dict()
    state = {name: value for name, value in taken.items() if name.startswith(("albert.pooler", "classifier"))}
    for new, layer in enumerate(layers):
        prefix = _LAYER.format(layer)
        state |= {
            _LAYER.format(new) + n.removeprefix(prefix): v for n, v in taken.items() if n.startswith(prefix)
        }
    state |= _embeddings(model, tokenizer, texts, kept, config.embedding_size)
    small.load_state_dict(state, strict=True)
    return small.eval(), fewer


def _embeddings(
    model: Any, tokenizer: Any, texts: Sequence[str], kept: list[int], width: int
) -> dict[str, Any]:
    """The embeddings' tensors in `width` dimensions: principal axes of the words, and a fitted way back."""
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    table = {name: getattr(model.albert.embeddings, name).weight.detach() for name in names}
    norm, back = model.albert.embeddings.LayerNorm, model.albert.encoder.embedding_hidden_mapping_in
    prefix = "albert.embeddings."
    found = {f"{prefix}{name}.weight": value for name, value in table.items()}
    found[f"{prefix}word_embeddings.weight"] = table["word_embeddings"][kept]
    way_back = "albert.encoder.embedding_hidden_mapping_in."
    if width == model.config.embedding_size:
        found |= {f"{prefix}LayerNorm.{kind}": getattr(norm, kind).detach() for kind in ("weight", "bias")}
        return found | {f"{way_back}{kind}": getattr(back, kind).detach() for kind in ("weight", "bias")}
    ids, places = _seen(tokenizer, texts[:: max(1, len(texts) // _FIT_TEXTS)])
    whole = table["word_embeddings"][ids] + table["position_embeddings"][places]
    whole = whole + table["token_type_embeddings"][0]  # (tokens, old width)
    with torch.no_grad():
        wanted = back(norm(whole))  # (tokens, hidden)
        axes = torch.linalg.svd(torch.cov((whole - whole.mean(0)).T))[0][:, :width]  # (old width, width)
        narrow = torch.nn.functional.layer_norm(whole @ axes, (width,))  # (tokens, width)
        known = torch.cat([narrow, torch.ones(len(narrow), 1)], dim=1)
        gram = known.T @ known + _RIDGE * len(known) * torch.eye(width + 1)
        solved = torch.linalg.solve(gram, known.T @ wanted)  # (width + 1, hidden)
    found = {name: value @ axes for name, value in found.items()}
    found |= {f"{prefix}LayerNorm.weight": torch.ones(width), f"{prefix}LayerNorm.bias": torch.zeros(width)}
    found |= {f"{way_back}weight": solved[:-1].T.contiguous(), f"{way_back}bias": solved[-1].contiguous()}
    return found


def _seen(tokenizer: Any, texts: Sequence[str]) -> tuple[Any, Any]:
    """Ids and places of the tokens of some texts."""
    rows = [one.ids[:64] for one in tokenizer.encode_batch(list(texts))]
    return torch.tensor([i for row in rows for i in row]), torch.tensor(
        [p for row in rows for p in range(len(row))]
    )
