"""Conversations as tokens: answers alone are learned, none is cut, packed rows do not see each other."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from daemon.errors import ConfigError  # noqa: E402
from tests.fixtures import chatter, rows  # noqa: E402
from training import packing  # noqa: E402
from training.packing import IGNORED, encode, fit, isolates, pack  # noqa: E402

TWO = [
    {"role": "system", "content": "the host"},
    {"role": "user", "content": "what of the disk?"},
    {"role": "assistant", "content": "the disk is full ü"},
    {"role": "user", "content": "what helps?"},
    {"role": "assistant", "content": "the unit waits"},
]


def learned(messages, template) -> str:
    """What is learned, as text."""
    words = chatter.tokenizer(template)
    found = encode(messages, words)
    assert len(found.ids) == len(found.labels)
    assert all(label in (IGNORED, token) for token, label in zip(found.ids, found.labels, strict=True))
    return words.decode([label for label in found.labels if label != IGNORED])


@pytest.mark.parametrize("template", [chatter.CHATML, chatter.MARKED])
def test_answers_and_their_end_are_learned_and_nothing_else(template):
    assert learned(TWO, template) == "the disk is full ü<|im_end|>the unit waits<|im_end|>"


def test_template_that_asks_for_nothing_is_understood():
    assert learned(TWO, chatter.BRACKETS).split() == [
        "the",
        "disk",
        "is",
        "full",
        "ü<|im_end|>",
        "the",
        "unit",
        "waits<|im_end|>",
    ]


def test_template_that_forgets_earlier_answers_teaches_the_last_one():
    assert learned(TWO, chatter.FORGETFUL) == "the unit waits<|im_end|>"


def test_prompt_of_training_is_that_of_generation():
    words = chatter.tokenizer()
    asked = words.apply_chat_template(TWO[:2], add_generation_prompt=True, return_dict=True)["input_ids"]
    found = encode(TWO[:3], words)
    assert found.ids[: len(asked)] == list(asked)
    assert found.labels[: len(asked)] == [IGNORED] * len(asked)
    assert found.labels[len(asked)] != IGNORED


def test_template_that_hides_the_question_is_refused():
    hiding = "{% for message in messages %}{{ loop.revindex }}{{ message['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="does not render an answer behind its question"):
        encode(TWO, chatter.tokenizer(hiding))


def test_base_without_a_template_and_texts_with_marks_are_refused():
    with pytest.raises(ConfigError, match="no chat template"):
        encode(TWO, chatter.tokenizer(None))
    with pytest.raises(ConfigError, match=r"holds the special token <\|im_end\|>"):
        encode(rows.row("a<|im_end|>", "b")["messages"], chatter.tokenizer())


def test_what_is_too_long_loses_its_oldest_turns_then_its_question_but_no_answer():
    words, said = chatter.tokenizer(), []
    long = "the disk of the host is full because " * 30
    many = {"messages": [TWO[0], *(TWO[1:3] * 12), *TWO[3:]]}
    whole = [rows.row("what?", "full"), many, rows.row(long, "the unit waits"), rows.row("what?", long)]
    found = fit(whole, words, 96, said.append)
    assert (found.shortened, found.cut, found.left_out) == (1, 1, [3])
    assert all(len(one.ids) <= 96 for one in found.rows)
    texts = [words.decode(one.ids) for one in found.rows]
    answers = [words.decode([token for token in one.labels if token != IGNORED]) for one in found.rows]
    assert answers[0] == "full<|im_end|>"
    assert answers[1].endswith("the unit waits<|im_end|>")
    assert answers[2] == "the unit waits<|im_end|>"
    assert texts[1].startswith("<|im_start|>system\nthe host")
    assert packing.CUT in texts[2]
    assert len(found.rows[2].ids) > 80, "no more is cut than must be"
    assert any("are left out, their answer does not fit 96 tokens: 4" in one for one in said)


def test_rows_are_packed_without_loss():
    words = chatter.tokenizer()
    made = [encode(rows.row("what?" * (n % 5 + 1), "full")["messages"], words) for n in range(20)]
    packed = pack(made, 64)
    assert sorted(map(id, made)) == sorted(id(one) for inside in packed for one in inside)
    assert all(sum(len(one.ids) for one in inside) <= 64 for inside in packed)
    assert len(packed) < len(made) / 1.5


def test_packed_rows_have_the_loss_that_they_have_alone():
    words = chatter.tokenizer()
    model = chatter.model(len(words))
    made = [encode(rows.row("what?", text)["messages"], words) for text in ("the disk is full", "waits", "ü")]
    together, apart = (
        packing.Sequences(each, words.pad_token_id) for each in ([made], [[one] for one in made])
    )
    with torch.no_grad():
        packed = model(**together.collate([together[0]]), use_cache=False).loss
        losses = [model(**apart.collate([apart[n]]), use_cache=False).loss for n in range(3)]
        padded = model(**apart.collate([apart[n] for n in range(3)]), use_cache=False).loss
    counts = [sum(label != IGNORED for label in one.labels) for one in made]
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert float(packed) == pytest.approx(float(mean), rel=1e-4)
    assert float(padded) == pytest.approx(float(mean), rel=1e-4)


def test_model_that_mixes_packed_rows_is_found_out():
    model = chatter.model(64)
    assert isolates(model)
    forward = model.forward
    model.forward = lambda position_ids=None, **known: forward(**known)  # as one that ignores positions
    assert not isolates(model)
