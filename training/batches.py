"""Rows as a model takes them: token ids, labels with the missing ones marked, padded batches.

Knows the columns of the verbs' Parquet files and the tokenizers library; nothing of models or losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from daemon.errors import ConfigError

NONE = -100  # the label that counts for nothing; torch's own choice
END = "<end>"
_NEEDED = {"low": ("text",), "middle": ("text",), "top": ("prompt", "completion")}

Row = Mapping[str, Any]


def read_split(path: Path, tier: str, split: str) -> list[dict[str, Any]]:
    """The rows of one split in the file's order; raises ConfigError for what is no such file."""
    import pyarrow as pa  # noqa: PLC0415  # heavy
    from pyarrow import compute, parquet  # noqa: PLC0415

    try:
        whole = parquet.read_table(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", hint="make it: hauswart train dataset") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    missing = sorted({"split", *_NEEDED[tier]} - set(whole.column_names))
    if missing:
        raise ConfigError(
            f"{path} has no column {', '.join(missing)}", hint=f"the tier is {tier}; is it right?"
        )
    rows: list[dict[str, Any]] = whole.filter(compute.equal(whole["split"], split)).to_pylist()
    return rows


def whole_text(row: Row) -> str:
    """All that a model reads of a row: what a vocabulary is learned from."""
    return str(row["text"]) if "text" in row else f"{row['prompt']}{row['completion']}"


class LabelRows:
    """A classifier's data set; `soft` (rows, all heads) are a teacher's logits, NaN where there are none."""

    def __init__(self, rows: Sequence[Row], tokenizer: Any, heads: Mapping[str, int], length: int) -> None:
        self.texts = [str(row["text"]) for row in rows]
        tokenizer.enable_truncation(length)
        self._ids = [one.ids for one in tokenizer.encode_batch(self.texts)]
        tokenizer.no_truncation()
        self.heads = dict(heads)
        self._pad = tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0
        self.labels = torch.tensor([_labels(row, heads) for row in rows]).reshape(-1, len(heads))
        self.weight = torch.tensor([_or(row.get("weight"), 1.0) for row in rows])
        self.soft = _soft(rows, sum(heads.values()))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, number: int) -> dict[str, Any]:
        item = {"input_ids": self._ids[number], "labels": self.labels[number], "weight": self.weight[number]}
        return item if self.soft is None else item | {"soft": self.soft[number]}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: ids and mask (batch, longest) int64, labels (batch, heads), weight (batch,), soft."""
        batch = padded([item["input_ids"] for item in items], self._pad)
        rest = items[0].keys() - {"input_ids"}
        return batch | {name: torch.stack([item[name] for item in items]) for name in rest}


class TextRows:
    """The generator's data set: prompt and completion in a sequence, of which the completion is learned."""

    soft = None  # a generator's teacher answers while it runs; its logits would fill the disk

    def __init__(self, rows: Sequence[Row], tokenizer: Any, _heads: Mapping[str, int], length: int) -> None:
        self.texts = [whole_text(row) for row in rows]
        end = tokenizer.token_to_id(END)
        prompts = tokenizer.encode_batch([str(row["prompt"]) for row in rows], add_special_tokens=False)
        answers = tokenizer.encode_batch([str(row["completion"]) for row in rows], add_special_tokens=False)
        self._items = [
            _item(prompt.ids, _ended(answer.ids, end), length)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        self._pad = tokenizer.token_to_id("[PAD]") or 0

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._items[number]

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: ids, mask and labels, each (batch, longest) int64."""
        labels = padded([item["labels"] for item in items], NONE)["input_ids"]
        return padded([item["input_ids"] for item in items], self._pad) | {"labels": labels}


def padded(ids: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """`input_ids` and `attention_mask`, (batch, longest) int64."""
    width = max(map(len, ids), default=0)
    rows = [[*one, *[pad] * (width - len(one))] for one in ids]
    mask = [[1] * len(one) + [0] * (width - len(one)) for one in ids]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def _labels(row: Row, heads: Mapping[str, int]) -> list[float]:
    found = []
    for name, size in heads.items():
        value = row.get(name)
        if value is not None and not (0 <= value <= 1 if size == 1 else 0 <= value < size):
            allowed = "0 to 1" if size == 1 else f"0 to {size - 1}"
            raise ConfigError(f"a row's {name} is {value}, allowed is {allowed}: {str(row['text'])[:60]!r}")
        found.append(float(_or(value, NONE)))
    return found


def _soft(rows: Sequence[Row], width: int) -> Any:
    if not any(row.get("soft") is not None for row in rows):
        return None
    wrong = next((row for row in rows if row.get("soft") is not None and len(row["soft"]) != width), None)
    if wrong is not None:
        raise ConfigError(f"a row's soft has {len(wrong['soft'])} values, the heads have {width}")
    nothing = [float("nan")] * width
    return torch.tensor([_or(row.get("soft"), nothing) for row in rows])  # (rows, all heads)


def _item(prompt: list[int], answer: list[int], length: int) -> dict[str, Any]:
    """The completion is what is cut where both are too long for the context: half a prompt asks nothing."""
    ids = [*prompt, *answer][:length]
    labels = [*[NONE] * len(prompt), *answer][:length]
    return {"input_ids": ids, "labels": labels}


def _ended(answer: list[int], end: int | None) -> list[int]:
    return answer if end is None or answer[-1:] == [end] else [*answer, end]


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
