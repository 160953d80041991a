"""What a teacher foresaw, and the reader: lessons that ask the same, what is learnt of them, what is kept."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from daemon.errors import ConfigError
from models.passages import Index
from tests.fixtures import encoders
from training.academy import asked, drill, e5, encoder, library, meaning, reader
from training.academy.asked import Asked
from training.academy.blocks import Block, Document
from training.academy.decision import BY_LESSONS, BY_MEANING
from training.academy.encoder import ANSWER
from training.academy.lessons import lesson
from training.academy.vectors import Table

COLOURS = ("red", "green", "blue", "white", "black", "brown")
PLACES = ("cellar", "attic", "garden", "garage", "kitchen", "hall")


def quiet(_said):
    """Nobody is told."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A specialist's folder with 36 sections, six lessons of each, and an encoder."""
    folder = tmp_path_factory.mktemp("read")
    blocks = [
        block
        for place in PLACES
        for colour in COLOURS
        for block in (
            Block("heading", f"{place} {colour}", 1, 0, 1),
            Block("item", f"The {colour} lamp of the {place} means trouble.", 1, 0),
        )
    ]
    with library.opened(folder) as base:
        library.add_document(base, Document(folder / "lamps.pdf", "pdf", "0" * 64, 1, blocks, []))
    with Index(folder / library.INDEX) as index:
        passages = index.passages()
    ways = (
        "what is a {} in the {}",
        "{} light, {}?",
        "I see {} in the {}",
        "{} {} why",
        "{} at {}",
        "{} - {}",
    )
    rows = [
        lesson(one, "pair", way.format(*reversed(one.heading.split())), "trouble", "teacher")
        for one in passages
        for way in ways
    ]
    rows.append(lesson(passages[0], "missing", "who sells lamps", "", "teacher"))
    rows.append(lesson(passages[0], "statement", "State a fact about: lamps", "They shine.", "teacher"))
    rows.append(lesson(passages[0], "which", "which lamp", "red", "extracted"))
    library.write_lines(folder / library.LESSONS, rows)
    return folder, encoder.load(encoders.save(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def known(world):
    folder, judge = world
    with Index(folder / library.INDEX) as index:
        return meaning.Library(folder, index, judge, 90, quiet)


def test_only_what_a_teacher_asks_as_people_do_is_foreseen(known):
    assert len(known.lessons) == 36 * 6 + 1
    assert {row["kind"] for row in known.lessons} == {"pair", "missing"}


def test_a_lesson_that_asks_the_same_leads_to_its_passage_however_far_its_words_are(known):
    judge = meaning.Meaning(known)
    row = known.lessons[100]
    assert row["passage"] in judge.near(row["question"])
    said = judge.glance(row["question"], known.passages)
    best = max(range(len(said)), key=lambda at: said[at]["asked"])
    assert known.passages[best].id == row["passage"]
    assert said[best]["asked"] == pytest.approx(1.0, abs=1e-2)
    assert said[best]["asked"] == said[best]["asked_around"]


def test_a_judge_is_kept_from_lessons_that_are_asked_of_it(known):
    row = known.lessons[100]
    told = meaning.Meaning(known, without={row["question"]}).glance(row["question"], known.passages)
    assert max(one["asked"] for one in told) < 0.999


def test_nearness_to_what_is_open_in_a_section_is_an_opinion_of_its_own(known):
    told = meaning.Meaning(known).glance("who sells lamps", known.passages)
    assert told[0]["open"] == pytest.approx(1.0, abs=1e-2)
    assert all(one["open"] < 0.999 for one in told[1:])  # there is no other one
    assert told[0]["asked"] < 0.999


def test_without_any_lesson_nothing_is_asked(known):
    none = Asked([], Table(np.zeros((0, encoders.WIDTH), np.float32)), known.encoder)
    red = known.encoder.question("red")
    assert none.near(red, 3) == []
    nothing = {"asked": 0.0, "asked_around": 0.0, "open": 0.0}
    assert none.opinions("red", red, known.passages[:1], known.paragraphs) == [nothing]
    assert meaning.Meaning(known).glance("", known.passages[:1])  # nor is there a word


def test_a_text_is_read_alike_alone_and_beside_longer_ones(world):
    lower, made = reader.make(world[1])
    with torch.no_grad():
        made.outer.weight.mul_(50)
    texts = ["red", "the lamp of the cellar is red and shines at night because of trouble with the pump"]
    both = reader.opinions(lower, made, "why is it red", texts)
    assert both[0] == pytest.approx(reader.opinions(lower, made, "why is it red", texts[:1])[0], abs=0.05)
    assert reader.opinions(lower, made, "why", []) == []
    assert np.isfinite(reader.opinions(lower, made, "", ["", "x"])).all()


def test_marks_and_prefix_tell_nothing(world, tmp_path):
    packed, _ = encoders.pack(np.random.default_rng(1))
    (tmp_path / "file.bin").write_bytes(packed)
    marked = encoder.Encoder("marked", *e5.load(tmp_path / "file.bin"))
    for one in (world[1], marked):
        own, long = reader.Lower(one).read(["red lamp", "a much longer text about lamps"], ANSWER)
        assert int(own.telling.sum()) == len(one.texts(["red lamp"])[0].tokens)
        assert len(own.states) < len(long.states)
    assert not own.telling[0]
    assert not own.telling[-1]


def test_a_reader_is_kept_in_half_precision_and_read_as_it_was(world, tmp_path):
    lower, made = reader.make(world[1])
    reader.save(made, tmp_path / "reader.safetensors")
    _, again = reader.load(world[1], tmp_path / "reader.safetensors")
    texts = ["the red lamp", "oil"]
    assert reader.opinions(lower, again, "red?", texts) == pytest.approx(
        reader.opinions(lower, made.eval(), "red?", texts), abs=0.05
    )


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x00" * 64])
def test_weights_that_are_none_are_a_named_error(world, tmp_path, content):
    file = tmp_path / "reader.safetensors"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no reader") as caught:
        reader.load(world[1], file)
    assert "train --resume" in str(caught.value.hint)


def test_a_judge_without_layers_of_that_kind_is_named(world):
    class Flat:
        config = world[1].model.config

        def eval(self):
            return self

    with pytest.raises(ConfigError, match="'flat' has no layers"):
        reader.make(encoder.Encoder("flat", Flat(), world[1].tokenizer))


def test_a_group_has_near_paragraphs_that_do_not_answer(known):
    lessons = [row | {"answer": row["answer"] and "the green lamp of the"} for row in known.lessons]
    changed = copy.copy(known)
    changed.lessons = lessons
    near = drill.Near(changed, known.asked)
    places = [
        known.paragraphs.place(one) for row in lessons for one in known.paragraphs.passages([row["passage"]])
    ]
    groups = [near.group(at, random.Random(at)) for at in range(len(lessons))]
    for at, one in enumerate(groups[:-1]):
        own = known.paragraphs.texts[places[at]]
        assert (one.texts[0] == own) == one.right
        assert not any("the green lamp of the" in text.lower() for text in one.texts[one.right :])
        assert own not in one.texts[one.right :]
        assert 1 <= len(one.texts) <= 1 + drill.WRONG
    assert 0.8 < sum(one.right for one in groups[:-1]) / len(groups[:-1]) < 1.0
    assert not groups[-1].right  # nothing answers it


def test_a_group_of_what_was_told_has_one_that_asks_the_same_first(known):
    answers = [f"{row['passage']} means {row['passage'] % 3} trouble" for row in known.lessons]
    changed = copy.copy(known)
    changed.lessons = [
        row | {"answer": row["answer"] and answer} for row, answer in zip(known.lessons, answers, strict=True)
    ]
    near = drill.Near(changed, known.asked)
    for at, row in enumerate(changed.lessons[:-1]):
        one = near.told(at, random.Random(at))
        own = [asked.as_text(other) for other in changed.lessons if other["passage"] == row["passage"]]
        assert (one.texts[0] in own) == one.right
        assert asked.as_text(row) not in one.texts
        assert not set(own) & set(one.texts[one.right :])
        assert 2 <= len(one.texts) <= 1 + drill.WRONG_TOLD
    assert not near.told(len(changed.lessons) - 1, random.Random(0)).right


def test_a_reader_learns_from_lessons_to_put_the_right_paragraph_first(known, tmp_path):
    file, told = tmp_path / "reader.safetensors", []
    figures = drill.teach(known, file, groups=600, seed=0, tell=told.append)
    assert figures["lessons"] >= 150
    assert figures["first"] > 0.6  # one of five by chance
    assert told[0].startswith("reader: step 20 of 100, loss ")
    start, judge = meaning.open_judge(file.parent, known)
    assert start == BY_MEANING  # the file is not where a specialist keeps it
    (tmp_path / library.ADAPTER).mkdir()
    file.rename(tmp_path / library.ADAPTER / library.READER)
    start, judge = meaning.open_judge(tmp_path, known)
    assert start == BY_LESSONS
    assert set(judge.opine("red in the attic?", known.passages[:2])[0]) == {"opinion", "reads"}


def test_a_course_that_was_broken_off_goes_on_and_ends_as_if_it_had_not_been(known, tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "_KEPT_EVERY", 2)
    monkeypatch.setattr(drill, "_TOLD_EVERY", 3)

    def run(file, tell):
        return drill.teach(known, file, groups=36, seed=1, tell=tell)

    def stop(_said):
        raise KeyboardInterrupt

    whole, broken = tmp_path / "whole.safetensors", tmp_path / "other" / "broken.safetensors"
    broken.parent.mkdir()
    figures = run(whole, quiet)
    with pytest.raises(KeyboardInterrupt):
        run(broken, stop)
    told = []
    again = run(broken, told.append)
    assert told[0].startswith("reader: step 3 of 6")
    assert again == pytest.approx(figures, abs=1e-3)
    assert run(broken, told.append) == again
    assert told[-1] == "the reader is of these lessons already"
    assert [path.name for path in broken.parent.iterdir()] == [broken.name]


@pytest.mark.parametrize(("least", "groups"), [(10_000, 60), (150, 0)])
def test_of_too_few_lessons_or_none_wanted_no_reader_is_made_and_an_older_one_goes(
    known, tmp_path, monkeypatch, least, groups
):
    monkeypatch.setattr(drill, "LEAST", least)
    file = tmp_path / "reader.safetensors"
    file.write_bytes(b"older")
    assert drill.teach(known, file, groups=groups, seed=0, tell=quiet) == {}
    assert not file.exists()


def test_what_was_kept_of_another_kind_does_not_hinder(known, tmp_path):
    torch.save([1, 2], tmp_path / "reader.part")
    assert drill.teach(known, tmp_path / "reader.safetensors", groups=6, seed=0, tell=quiet)["groups"] == 6.0
