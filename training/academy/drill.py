"""The reader's training: a lesson's question, the paragraph that answers it, others that are as near.

A group has one that answers and up to four that do not, or none that does: those of questions that a teacher
found near and open, and some whose right one was taken away. Each is judged beside the others and for itself.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from training.academy.asked import as_text
from training.academy.curriculum import is_calibration
from training.academy.encoder import ANSWER, QUESTION, Encoder
from training.academy.meaning import Library
from training.academy.reader import Lower, Reader, figures_of, make, save
from training.academy.vectors import Table

LEAST = 150  # lessons; of fewer it learns no reading
WRONG = 4  # paragraphs that do not answer, in a group
_NEAR, _SURELY = 8, 2  # of the nearest that do not, from which they are drawn; that are always taken
WRONG_TOLD = 6  # lessons that ask something else
_SAME = 0.8  # of the words of the shorter of two answers
_WORD = re.compile(r"\w+")
_TAKEN_AWAY = 0.08  # of the groups lose the one that answers
_GROUPS = 6  # in a step, of each kind
_LONG = 300  # characters
_WARM = 20  # steps
_ANSWER_LEAST = 3  # characters: a shorter answer stands everywhere
_RATES = {"body": 1e-4, "head": 8e-4, "scale": 6e-3}
_RIGHT_WORTH = 2.0  # beside a wrong one, where each is judged for itself
_SMOOTH = 0.97  # of what is told
_TOLD_EVERY, _KEPT_EVERY = 20, 100  # steps
_PART = "reader.part"  # beside the file, while it is not finished
Tell = Callable[[str], None]


def teach(known: Library, file: Path, *, groups: int, seed: int, tell: Tell) -> dict[str, float]:
    """A reader of the teacher's lessons, written to that file; its figures.

    {} for none, of too few lessons or no `groups`; then an older one goes. Lessons that calibrate are left
    out. One that is of these lessons already is kept; one that was broken off goes on.
    """
    about = {one.id: one for one in known.passages}
    rows = [at for at, row in enumerate(known.lessons) if not is_calibration(about[row["passage"]].section)]
    if known.asked is None or not groups or len(rows) < LEAST:
        file.unlink(missing_ok=True)
        return {}
    lessons = [(row["question"], row["answer"], row["passage"]) for row in known.lessons]
    whole = repr((known.encoder.name, lessons, rows, groups, seed))
    key = hashlib.sha256(whole.encode()).hexdigest()
    if kept := figures_of(file, key):
        tell("the reader is of these lessons already")
        return kept
    course = Course(known.encoder, Near(known, known.asked), rows, groups=groups, seed=seed)
    part = file.with_name(_PART)
    course.resume(part, key)
    figures = course.run(part, key, tell) | {"lessons": float(len(rows))}
    save(course.reader, file, key=key, figures=figures)
    part.unlink(missing_ok=True)
    return figures


class Group(NamedTuple):
    """A question with paragraphs; with `right`, the first is the one that answers."""

    question: str
    texts: list[str]
    right: bool


class Near:
    """For each lesson the paragraphs, and the lessons, that are near its question and do not answer it."""

    def __init__(self, known: Library, asked: Table) -> None:
        """`asked`: the table of the library's lessons."""
        self._lessons, self._asked = known.lessons, asked
        self._paragraphs, self._table = known.paragraphs, known.table
        about = {one.id: one for one in known.passages}
        self._places = [known.paragraphs.place(about[row["passage"]]) for row in known.lessons]
        self._section = [about[row["passage"]].section for row in known.lessons]
        self._sections: dict[int, list[int]] = {}  # the lessons of each that have an answer
        for at, row in enumerate(known.lessons):
            if row["answer"]:
                self._sections.setdefault(self._section[at], []).append(at)
        self._lower = [text.lower() for text in known.paragraphs.texts]
        self._words = [frozenset(_WORD.findall(row["answer"].lower())) for row in known.lessons]

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

    def told(self, at: int, source: random.Random) -> Group:
        """The lesson's question with other lessons and their answers; the first asks the same if one does."""
        row = self._lessons[at]
        twins = [
            one for one in self._sections.get(self._section[at], ()) if one != at and self._same(at, one)
        ]
        near = [
            one
            for one in self._asked.nearest(self._asked.vectors[at], 3 * _NEAR)
            if one != at and self._lessons[one]["answer"] and not self._same(at, one)
        ][: 2 * _NEAR]
        wrong = near[:_SURELY] + source.sample(near[_SURELY:], min(WRONG_TOLD - _SURELY, len(near[_SURELY:])))
        right = bool(row["answer"] and twins) and source.random() >= _TAKEN_AWAY
        lessons = [source.choice(twins), *wrong] if right else wrong
        return Group(row["question"], [as_text(self._lessons[one]) for one in lessons], right)

    def _same(self, one: int, other: int) -> bool:
        """Whether two lessons have the same answer, in more or fewer words."""
        words, others = self._words[one], self._words[other]
        return len(words & others) >= _SAME * max(1, min(len(words), len(others)))


class Course:
    """A reader that is being trained; what is drawn depends on seed and step alone, so that it may go on."""

    def __init__(self, encoder: Encoder, near: Near, rows: Sequence[int], *, groups: int, seed: int) -> None:
        torch.manual_seed(seed)
        self._near, self._rows, self._seed = near, rows, seed
        self._lower, self.reader = make(encoder)
        self._optimizer, self._peaks = _optimizer(self.reader)
        self._steps, self._step = max(1, groups // _GROUPS), 0
        self._means = {"loss": float("nan"), "first": float("nan")}

    def run(self, part: Path, key: str, tell: Tell) -> dict[str, float]:
        """The steps that are left, kept in `part` now and then; figures of the last ones."""
        started, first = time.monotonic(), self._step
        drawn = _turns(self._rows, self._seed, self._step * _GROUPS)
        while self._step < self._steps:
            self._learn([next(drawn) for _ in range(_GROUPS)])
            self._step += 1
            if self._step % _TOLD_EVERY == 0:
                left_s = (time.monotonic() - started) / (self._step - first) * (self._steps - self._step)
                tell(
                    f"reader: step {self._step} of {self._steps}, loss {self._means['loss']:.2f},"
                    f" first right {self._means['first']:.0%}, about {left_s / 60:.0f} min more"
                )
            if self._step % _KEPT_EVERY == 0:
                self._keep(part, key)
        self.reader.eval()
        return {"groups": float(self._steps * _GROUPS)} | {
            name: round(value, 3) for name, value in self._means.items()
        }

    def resume(self, part: Path, key: str) -> None:
        """Go on where a run of the same lessons was broken off, if there is one."""
        try:
            kept = torch.load(part, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return
        if isinstance(kept, dict) and kept.get("key") == key:
            self.reader.load_state_dict(kept["reader"])
            self._optimizer.load_state_dict(kept["optimizer"])
            self._step, self._means = kept["step"], kept["means"]

    def _keep(self, part: Path, key: str) -> None:
        part.parent.mkdir(parents=True, exist_ok=True)
        fresh = part.with_name(f"{part.name}.new")
        whole = {"key": key, "step": self._step, "means": self._means}
        whole |= {"reader": self.reader.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save(whole, fresh)
        fresh.replace(part)

    def _learn(self, rows: Sequence[int]) -> None:
        source = random.Random(f"{self._seed} {self._step}")  # noqa: S311 - a sample, not a secret
        drawn = [draw(at, source) for draw in (self._near.group, self._near.told) for at in rows]
        groups = [group for group in drawn if group.texts]
        share = min(1.0, (self._step + 1) / _WARM) * max(0.05, 1 - self._step / self._steps)
        for one, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            one["lr"] = peak * share
        loss, first = _loss(self._lower, self.reader, groups)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self._optimizer.step()
        for name, value in (("loss", float(loss.detach())), ("first", first)):
            self._means[name] = _smooth(self._means[name], value)


def _turns(rows: Sequence[int], seed: int, skipped: int) -> Iterator[int]:
    """The rows over and over, each time in another order, without the first `skipped`."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    while True:
        order = list(rows)
        source.shuffle(order)
        yield from order[skipped:]
        skipped = max(0, skipped - len(order))


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
    """The loss of some groups, and how often the right one is put first; texts of a length go together."""
    long = [one for one in groups if max(map(len, one.texts)) > _LONG]
    short = [one for one in groups if max(map(len, one.texts)) <= _LONG]
    loss, first = torch.zeros(()), []
    for some in filter(None, (long, short)):
        questions = [one.question for one in some for _ in one.texts]
        texts = [text for one in some for text in one.texts]
        said = reader(lower.block(questions, QUESTION), lower.block(texts, ANSWER))
        for one, part in zip(some, said.split([len(one.texts) for one in some]), strict=True):
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
