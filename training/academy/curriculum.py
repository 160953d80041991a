"""Lessons become conversations: what is trained on, and what is kept to calibrate the decision by.

The split is by section, so that no calibration question is about a section that was trained on. Passages that
do not answer are the ones that retrieval finds instead: those it will have to be told from.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from models.passages import Hit, Index, Passage
from training.academy import forms
from training.academy.facts import absent
from training.academy.lessons import Lesson
from training.academy.settings import Training
from training.chatml import Message

Row = dict[str, Any]
CALIBRATION_SHARE = 0.2
DISTRACTORS = 2
ANSWER_WORDS = 40
_FOUND = 6  # passages looked at for one that does not answer


class Curriculum(NamedTuple):
    """Conversations to train on and to watch, and the lessons that calibrate."""

    train: list[Row]
    watch: list[Row]
    calibration: list[Lesson]


def make_curriculum(
    lessons: Sequence[Lesson], index: Index, settings: Training, replay: Sequence[Row]
) -> Curriculum:
    """Draw the conversations that the settings ask for."""
    source = random.Random(settings.seed)  # noqa: S311 - a sample, not a secret
    passages = {one.id: one for one in index.passages({row["passage"] for row in lessons})}
    taught = [row for row in lessons if not is_calibration(passages[row["passage"]].section)]
    kept = [row for row in lessons if is_calibration(passages[row["passage"]].section)]
    source.shuffle(taught)
    source.shuffle(kept)
    rows: list[Row] = []
    counts = {
        "judge": int(settings.rows * settings.judging),
        "answer": int(settings.rows * settings.answering),
        "closed": int(settings.rows * settings.closed_book),
    }
    for row in _balanced(taught):
        if not counts["judge"]:
            break
        pair = _judged(row, passages[row["passage"]], index, source)[: counts["judge"]]
        rows += pair
        counts["judge"] -= len(pair)
    rows += [
        _answered(row, passages[row["passage"]], index, source)
        for row in _balanced(taught)[: counts["answer"]]
    ]
    answered = [row for row in _balanced(taught) if row["kind"] not in {"topic", "missing"}]
    rows += [
        _row(forms.closed(row["question"]), _short(row["answer"])) for row in answered[-counts["closed"] :]
    ]
    rows += replay
    source.shuffle(rows)
    watched = max(2, len(rows) // 40)
    return Curriculum(rows[watched:], rows[:watched], kept)


def is_calibration(section: int) -> bool:
    """Whether a section's lessons are kept from training."""
    return hashlib.sha256(str(section).encode()).digest()[0] < 256 * CALIBRATION_SHARE


def _balanced(rows: Iterable[Lesson]) -> list[Lesson]:
    """The kinds in turn, so that no kind that a document is full of crowds out the rest."""
    kinds: dict[str, list[Lesson]] = {}
    for row in rows:
        kinds.setdefault(f"{row['lang']} {row['kind']}", []).append(row)
    found: list[Lesson] = []
    place = 0
    while len(found) < sum(map(len, kinds.values())):
        found += [kind[place] for kind in kinds.values() if place < len(kind)]
        place += 1
    return found


def _judged(row: Lesson, passage: Passage, index: Index, source: random.Random) -> list[Row]:
    """The right passage with yes, another that retrieval finds with no."""
    others = distractors(row, passage, index.search(row["question"], _FOUND))
    pairs = [_row(forms.judging(row["question"], one), forms.NO) for one in others[:1] if one]
    if row["answer"]:
        pairs.append(_row(forms.judging(row["question"], passage), forms.YES))
    source.shuffle(pairs)
    return pairs


def _answered(row: Lesson, passage: Passage, index: Index, source: random.Random) -> Row:
    listed = distractors(row, passage, index.search(row["question"], _FOUND))[:DISTRACTORS]
    if not row["answer"]:
        return _row(
            forms.answering(row["question"], [*listed, passage][: DISTRACTORS + 1]), absent(row["lang"])
        )
    place = source.randint(0, len(listed))
    listed.insert(place, passage)
    return _row(forms.answering(row["question"], listed), f"[{place + 1}] {_short(row['answer'])}")


def distractors(row: Lesson, passage: Passage, hits: Sequence[Hit]) -> list[Passage]:
    """What retrieval found that does not hold the answer either."""
    answer = row["answer"].lower()
    return [
        hit.passage
        for hit in hits
        if hit.passage.id != passage.id
        and not (answer and answer in f"{hit.passage.term}: {hit.passage.text}".lower())
        and not (passage.term and hit.passage.term == passage.term and hit.passage.section == passage.section)
    ]


def _short(text: str) -> str:
    return forms.clean(" ".join(text.split()[:ANSWER_WORDS]))


def _row(asked: list[Message], said: str) -> Row:
    return {"messages": [*asked, {"role": "assistant", "content": said}]}
