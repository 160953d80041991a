"""The reader: whether a paragraph answers a question, by an encoder's upper layers over both together.

The encoder is parted: its lower layers see question and paragraph apart, so that a paragraph is read once;
the upper ones, which are trained (`training.academy.drill`), see both. What comes of it: what each token of
the question finds nearest in the paragraph, weighed by how telling the token is (ColBERT, Khattab and Zaharia
2020), and a small head on both together.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from daemon.errors import ConfigError
from training.academy.encoder import ANSWER, QUESTION, Encoder
from training.finetune import has_bf16

UPPER = 4  # layers that see both
_TOKENS = {QUESTION: 40, ANSWER: 160}
_BATCH = 32
_KEPT = 6_000  # texts whose lower states are remembered, some 90 kB each
# An untrained one says what the encoder's own nearness says, which lies between .7 and .95.
_SCALE, _BASE = 20.0, -17.5


class _Padded(NamedTuple):
    """Texts of different lengths as one block: (texts, tokens, width), (texts, tokens)."""

    states: Tensor
    there: Tensor
    telling: Tensor  # there, and neither mark nor prefix


class _Lowest(NamedTuple):
    """One text: (tokens, width), (tokens,)."""

    states: Tensor
    telling: Tensor


class Lower:
    """The lower layers, which stay as they are; what they said of a text is remembered."""

    def __init__(self, encoder: Encoder) -> None:
        layers = getattr(getattr(encoder.model, "encoder", None), "layer", None)
        if layers is None or len(layers) <= 1:
            raise ConfigError(
                f"the judge {encoder.name!r} has no layers that a reader could have",
                hint="train.judge: an encoder of the BERT family",
            )
        self.upper = layers[max(1, len(layers) - UPPER) :]
        self._layers = layers[: max(1, len(layers) - UPPER)]
        self._model, self._tokenizer = encoder.model, encoder.tokenizer
        self._skipped = {kind: len(encoder.tokenizer.tokenize(kind)) for kind in (QUESTION, ANSWER)}
        self._kept: dict[tuple[str, str], _Lowest] = {}

    def read(self, texts: Sequence[str], kind: str) -> list[_Lowest]:
        """What is said of each text below."""
        new = sorted({text for text in texts if (kind, text) not in self._kept}, key=len)
        if len(self._kept) + len(new) > _KEPT:
            self._kept.clear()
            new = sorted(set(texts), key=len)
        for start in range(0, len(new), _BATCH):
            self._add(new[start : start + _BATCH], kind)
        return [self._kept[kind, text] for text in texts]

    def _add(self, texts: Sequence[str], kind: str) -> None:
        batch = self._tokenizer(
            [f"{kind} {text}" for text in texts],
            padding=True,
            truncation=True,
            max_length=_TOKENS[kind],
            return_tensors="pt",
            return_token_type_ids=False,
            return_special_tokens_mask=True,
        )
        marks, there = batch["special_tokens_mask"].bool(), batch["attention_mask"].bool()
        with torch.inference_mode():
            states = _through(self._layers, self._model.embeddings(input_ids=batch["input_ids"]), there)
        own = there & ~marks
        own &= own.cumsum(1) > self._skipped[kind]
        for text, found, telling, size in zip(texts, states, own, there.sum(1).tolist(), strict=True):
            self._kept[kind, text] = _Lowest(found[:size].to(torch.bfloat16).clone(), telling[:size].clone())

    def block(self, texts: Sequence[str], kind: str) -> _Padded:
        """The texts' states below as one block."""
        found = self.read(texts, kind)
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        return _Padded(
            pad([one.states.float() for one in found]),
            pad([torch.ones(len(one.states), dtype=torch.bool) for one in found]),
            pad([one.telling for one in found]),
        )


class Reader(nn.Module):
    """The upper layers, and what is made of them."""

    def __init__(self, upper: nn.ModuleList, width: int) -> None:
        super().__init__()
        self.layers = copy.deepcopy(upper).float()
        self.part = nn.Parameter(torch.zeros(2, width))  # which of the two a token is of
        self.telling = nn.Linear(width, 1)
        self.inner, self.outer = nn.Linear(2 * width, width), nn.Linear(width, 1)
        self.scale, self.base = nn.Parameter(torch.tensor(_SCALE)), nn.Parameter(torch.tensor(_BASE))
        for one in (self.telling.weight, self.telling.bias, self.outer.bias):
            nn.init.zeros_(one)
        nn.init.normal_(self.outer.weight, std=0.02)

    def forward(self, asked: _Padded, texts: _Padded) -> Tensor:
        """The log odds that each text answers the question in its row: (rows,)."""
        states = torch.cat([asked.states + self.part[0], texts.states + self.part[1]], 1)
        states = _through(self.layers, states, torch.cat([asked.there, texts.there], 1)).float()
        questions, answers = states.split([asked.states.shape[1], texts.states.shape[1]], 1)
        near = normalize(questions, dim=-1) @ normalize(answers, dim=-1).transpose(1, 2)
        nearest = near.masked_fill(~texts.telling[:, None], -9.0).amax(2)  # (rows, tokens of the question)
        weights = self.telling(questions)[..., 0].float().masked_fill(~asked.telling, -1e4).softmax(1)
        there = texts.there[..., None].float()
        mean = (answers * there).sum(1) / there.sum(1)
        more = self.outer(gelu(self.inner(torch.cat([questions[:, 0], mean], -1))))[:, 0]
        return self.scale * (weights * nearest).sum(1) + self.base + more


def _through(layers: Any, states: Tensor, there: Tensor) -> Tensor:
    mask = there.bool()[:, None, None, :]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16()):
        for layer in layers:
            said = layer(states, mask)
            states = said[0] if isinstance(said, tuple) else said
    return states


def make(encoder: Encoder) -> tuple[Lower, Reader]:
    """An untrained reader of that encoder. Raises ConfigError for one that has no layers to take."""
    lower = Lower(encoder)
    return lower, Reader(lower.upper, encoder.width)


def save(reader: Reader, file: Path, *, key: str = "", figures: Mapping[str, float] | None = None) -> None:
    """Its weights in half precision, what it was trained on and with what result; never half written."""
    fresh = file.with_name(f"{file.name}.new")
    weights = {name: one.half().contiguous() for name, one in reader.state_dict().items()}
    save_file(weights, fresh, {"key": key, "figures": json.dumps(figures or {})})
    fresh.replace(file)


def figures_of(file: Path, key: str) -> dict[str, float]:
    """The figures of the reader in that file if it was trained on this, else {}."""
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    return dict(json.loads(told["figures"])) if told.get("key") == key else {}


def load(encoder: Encoder, file: Path) -> tuple[Lower, Reader]:
    """The reader whose weights lie there. Raises ConfigError for weights of another encoder or none."""
    lower, reader = make(encoder)
    try:
        reader.load_state_dict({name: one.float() for name, one in load_file(file).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"{file} holds no reader for the judge {encoder.name!r}: {error}",
            hint="hauswart academy train --resume",
        ) from error
    return lower, reader.eval()


def opinions(lower: Lower, reader: Reader, question: str, texts: Sequence[str]) -> list[float]:
    """How much likelier each text answers than that it does not: log odds."""
    if not texts:
        return []
    different = list(dict.fromkeys(texts))
    with torch.inference_mode():
        asked = lower.block([question] * len(different), QUESTION)
        said = reader(asked, lower.block(different, ANSWER)).tolist()
    known = dict(zip(different, said, strict=True))
    return [known[text] for text in texts]
