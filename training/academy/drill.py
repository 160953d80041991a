"""The reader's training: a lesson's question, the paragraph that answers it, others that are as near.

A group has one that answers and up to four that do not, or none that does: those of questions that a teacher
found near and open, and some whose right one was taken away. Each is judged beside the others and for itself.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from training.academy.curriculum import is_calibration
from training.academy.encoder import ANSWER, QUESTION, Encoder
from training.academy.lessons import Lesson
from training.academy.meaning import Library
from training.academy.paragraphs import Paragraphs
from training.academy.reader import Lower, Reader, make, save
from training.academy.vectors import Table

LEAST = 150  # lessons; of fewer it learns no reading
WRONG = 4  # paragraphs that do not answer, in a group
_NEAR, _SURELY = 8, 2  # of the nearest that do not, from which they are drawn; that are always taken
_TAKEN_AWAY = 0.08  # of the groups lose the one that answers
_GROUPS = 6  # in a step
_WARM = 20  # steps
_ANSWER_LEAST = 3  # characters: a shorter answer stands everywhere
_RATES = {"body": 1e-4, "head": 8e-4, "scale": 6e-3}
_RIGHT_WORTH = 2.0  # beside a wrong one, where each is judged for itself
_SMOOTH = 0.97  # of what is told
_TOLD_EVERY = 20  # steps
Tell = Callable[[str], None]


def teach(
    known: Library, file: Path, sampled: Collection[int], *, groups: int, seed: int, tell: Tell
) -> dict[str, float]:
    """A reader of the lessons about these passages, written to that file; its figures, {} for too few.

    Lessons that calibrate are left out.
    """
    sections = {one.id: one for one in known.passages}
    rows = [
        at
        for at, row in enumerate(known.lessons)
        if row["passage"] in sampled and not is_calibration(sections[row["passage"]].section)
    ]
    if known.asked is None or len(rows) < LEAST:
        file.unlink(missing_ok=True)
        return {}
    places = [known.paragraphs.place(sections[row["passage"]]) for row in known.lessons]
    near = Near(known.lessons, known.asked, known.paragraphs, known.table, places)
    trained, figures = train(known.encoder, near, rows, groups=groups, seed=seed, tell=tell)
    save(trained, file)
    return figures | {"lessons": float(len(rows))}


class Group(NamedTuple):
    """A question with paragraphs; with `right`, the first is the one that answers."""

    question: str
    texts: list[str]
    right: bool


class Near:
    """For each lesson the paragraphs that are near its question and do not answer it."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        asked: Table,
        paragraphs: Paragraphs,
        table: Table,
        places: Sequence[int],
    ) -> None:
        """`places`: each lesson's own paragraph; `asked` and `table` are the lessons' and the paragraphs'."""
        self._lessons, self._asked, self._paragraphs, self._table = lessons, asked, paragraphs, table
        self._places = places
        self._lower = [text.lower() for text in paragraphs.texts]

    def group(self, at: int, source: random.Random) -> Group:
        """The lesson's group."""
        row, own = self._lessons[at], self._places[at]
        answer = row["answer"].lower()
        near = [
            place
            for place in self._table.nearest(self._asked.vectors[at], 2 * _NEAR)
            if place != own and not (len(answer) >= _ANSWER_LEAST and answer in self._lower[place])
        ][:_NEAR]
        wrong = near[:_SURELY] + source.sample(near[_SURELY:], min(WRONG - _SURELY, len(near[_SURELY:])))
        right = bool(answer) and source.random() >= _TAKEN_AWAY
        places = [own, *wrong] if right else wrong
        return Group(row["question"], [self._paragraphs.texts[one] for one in places], right)


def train(
    encoder: Encoder, near: Near, rows: Sequence[int], *, groups: int, seed: int, tell: Tell
) -> tuple[Reader, dict[str, float]]:
    """A reader of `groups` groups, drawn from these lessons in turn; its figures are of the last ones."""
    torch.manual_seed(seed)
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    lower, reader = make(encoder)
    optimizer, peaks = _optimizer(reader)
    steps, started = max(1, groups // _GROUPS), time.monotonic()
    drawn = _turns(rows, source)
    loss_mean = first_mean = float("nan")
    for step in range(steps):
        part = [near.group(next(drawn), source) for _ in range(_GROUPS)]
        share = min(1.0, (step + 1) / _WARM) * max(0.05, 1 - step / steps)
        for one, peak in zip(optimizer.param_groups, peaks, strict=True):
            one["lr"] = peak * share
        loss, first = _loss(lower, reader, [one for one in part if one.texts])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        loss_mean, first_mean = _smooth(loss_mean, float(loss.detach())), _smooth(first_mean, first)
        if step % _TOLD_EVERY == _TOLD_EVERY - 1:
            left_s = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
            tell(
                f"reader: step {step + 1} of {steps}, loss {loss_mean:.2f}, first right {first_mean:.0%},"
                f" about {left_s / 60:.0f} min more"
            )
    figures = {"groups": float(steps * _GROUPS), "loss": round(loss_mean, 3), "first": round(first_mean, 3)}
    return reader.eval(), figures


def _turns(rows: Sequence[int], source: random.Random) -> Iterator[int]:
    while True:
        order = list(rows)
        source.shuffle(order)
        yield from order


def _optimizer(reader: Reader) -> tuple[Any, list[float]]:
    named = dict(reader.named_parameters())
    parts = {
        "body": [one for name, one in named.items() if name.startswith("layers.")],
        "head": [
            one
            for name, one in named.items()
            if not name.startswith("layers.") and name not in {"scale", "base"}
        ],
        "scale": [reader.scale, reader.base],
    }
    groups = [{"params": some, "lr": _RATES[name]} for name, some in parts.items()]
    return torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98)), list(_RATES.values())


def _loss(lower: Lower, reader: Reader, groups: Sequence[Group]) -> tuple[torch.Tensor, float]:
    """The loss of some groups, and how often the right one is put first."""
    questions = [one.question for one in groups for _ in one.texts]
    texts = [text for one in groups for text in one.texts]
    said = reader(lower.block(questions, QUESTION), lower.block(texts, ANSWER))
    loss, first = torch.zeros(()), []
    for one, part in zip(groups, said.split([len(one.texts) for one in groups]), strict=True):
        truth = torch.zeros(len(part))
        if one.right:
            truth[0] = 1.0
            loss = loss + nn.functional.cross_entropy(part[None], torch.tensor([0]))
            first.append(float(part.argmax() == 0))
        weight = torch.tensor(_RIGHT_WORTH)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(part, truth, pos_weight=weight)
    return loss / max(1, len(groups)), sum(first) / len(first) if first else float("nan")


def _smooth(mean: float, new: float) -> float:
    if math.isnan(new):  # nothing to tell of this step
        return mean
    return new if math.isnan(mean) else _SMOOTH * mean + (1 - _SMOOTH) * new
