"""How answers are scored, by which questions, and the words and lessons that they are made of."""

from __future__ import annotations

from models.passages import Passage
from models.terms import language, stem, terms
from training.academy import library, scoring
from training.academy.lessons import check_lessons


def test_scores_want_whole_words_and_the_right_place():
    row = {"accepted": ["5"], "document": "a", "places": [3]}
    assert scoring.is_right("it is 5 s", row)
    assert not scoring.is_right("it is 15 s", row)
    paged, plain = (Passage(1, 1, "a", "", "", "", page, 3, "en", "item") for page in (3, 0))
    assert scoring.is_cited(paged, row)
    assert not scoring.is_cited(paged._replace(page=4), row)
    assert not scoring.is_cited(paged._replace(document="b"), row)
    assert scoring.is_cited(plain._replace(line=5), row)
    assert not scoring.is_cited(plain._replace(line=6), row)
    assert scoring.rate([True, True, False, True]).value == 0.75


def test_shipped_questions_are_well_formed_and_two_hundred_are_general():
    from training.academy.report import GENERAL, QUESTIONS  # noqa: PLC0415

    general = library.read_lines(GENERAL)
    assert len(general) == len({row["question"] for row in general}) == 200
    assert all(len(set(row["options"])) == 4 for row in general)
    for name in ("development", "test"):
        assert scoring.read_questions(QUESTIONS / f"{name}.jsonl")


def test_edited_lessons_are_checked_row_by_row():
    rows = [
        {"question": "q?", "answer": "a", "passage": 1},
        {"question": "", "answer": "a"},
        {"question": "q", "answer": "a", "passage": 9},
    ]
    kept, problems = check_lessons(rows, {1})
    assert kept == rows[:1]
    assert [one.split(":")[0] for one in problems] == ["row 2", "row 3"]


def test_words_are_compared_by_stem_and_names_by_their_parts():
    assert terms("RestartSec", "en") == ["restartsec", "restart", "sec"]
    assert stem("restarting", "en") == stem("restarted", "en") == stem("restarts", "en")
    assert stem("dateien", "de") == stem("datei", "de")
    assert (language("Das ist der Hund und die Katze"), language("This is the dog and the cat")) == (
        "de",
        "en",
    )
