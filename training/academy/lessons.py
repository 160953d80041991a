"""What a specialist is taught, as rows that a person may read and edit before training.

A row: `question`, `answer` ("": the documents do not say), `lang`, `kind`, `source` (extracted, teacher,
edited), and the `passage` it is from with `document` and `place`. `make_lessons` writes them from the facts
that passages state; a teacher's rows (`training.academy.teacher`) have the same form.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from models.passages import Passage
from training.academy.facts import ask, ask_missing, find_facts, find_procedures
from training.similarity import near_duplicates

Lesson = dict[str, Any]
WAYS = 2  # a fact is asked in
MISSING_SHARE = 0.15
_COMPARED = 4000  # rows that are compared with each other at a time


def make_lessons(passages: Sequence[Passage], seed: int) -> list[Lesson]:
    """Lessons of the passages' own facts, and questions that they do not answer."""
    source = random.Random(seed)  # noqa: S311 - a sample, not a secret
    rows: list[Lesson] = []
    for passage in passages:
        for fact in find_facts(passage, source):
            if fact.asked:
                rows += [
                    lesson(passage, fact.kind, one, fact.answer)
                    for one in ask(fact, passage.lang, source, WAYS)
                ]
        if source.random() < 2 * MISSING_SHARE and (question := ask_missing(passage, source)):
            rows.append(lesson(passage, "missing", question, ""))
    for passage, fact in find_procedures(passages):
        rows += [
            lesson(passage, fact.kind, one, fact.answer) for one in ask(fact, passage.lang, source, WAYS)
        ]
    return rows


def lesson(passage: Passage, kind: str, question: str, answer: str, source: str = "extracted") -> Lesson:
    """One row."""
    return {
        "question": question,
        "answer": answer,
        "lang": passage.lang,
        "kind": kind,
        "source": source,
        "passage": passage.id,
        "document": passage.document,
        "place": passage.page or passage.line,
    }


def drop_repeats(rows: Iterable[Lesson]) -> list[Lesson]:
    """Rows whose question no earlier one has; enough for what phrasings made, and fast."""
    return list({row["question"].lower(): row for row in reversed(list(rows))}.values())[::-1]


def drop_duplicates(rows: Sequence[Lesson]) -> tuple[list[Lesson], int]:
    """Rows whose question and answer no earlier one nearly repeats, and how many went: for a teacher's."""
    kept: list[Lesson] = []
    for start in range(0, len(rows), _COMPARED):
        part = rows[start : start + _COMPARED]
        twins = near_duplicates([f"{row['question']} {row['answer']}" for row in part])
        kept += [row for number, row in enumerate(part) if number not in twins]
    return kept, len(rows) - len(kept)


def check_lessons(rows: Iterable[Lesson], known: set[int]) -> tuple[list[Lesson], list[str]]:
    """The rows that can be taught, and what is wrong with the others: people edit this file."""
    kept, problems = [], []
    for number, row in enumerate(rows, 1):
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not question.strip() or not isinstance(answer, str):
            problems.append(f"row {number}: needs a question and an answer as text")
        elif row.get("passage") not in known:
            problems.append(f"row {number}: passage {row.get('passage')!r} is not in the index")
        else:
            kept.append(row)
    return kept, problems
