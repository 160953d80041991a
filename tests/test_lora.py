"""The LoRA trainer on a tiny model: it learns answers alone, resumes, gives up memory, prefers, generates."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from tests.fixtures import chatter  # noqa: E402
from training import causal, course, lora  # noqa: E402
from training.course import Settings  # noqa: E402

ROWS = [chatter.row(f"what of disk {n}?", "the disk is full") for n in range(16)]
QUICK = Settings(
    max_seq_length=128, learning_rate=1e-2, epochs=4, gradient_accumulation_steps=1, bf16=False, batch_size=4
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return chatter.save(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("adapter"), []
    metrics = lora.train_lora(ROWS, ROWS[:4], base, out, QUICK, tell=said.append)
    return out, metrics, said


def test_learns_the_answer_and_says_how_long_it_takes(trained, base):
    out, metrics, said = trained
    assert metrics["eval_loss"] < 0.5 * metrics["eval_loss_before"]
    assert metrics["steps"] == 16
    assert any("tokens/s" in one and "about" in one for one in said)
    assert any("4bit to none" in one for one in said)
    log = [json.loads(line) for line in (out / course.LOG).read_text().splitlines()]
    assert [one["step"] for one in log if "loss" in one] == list(range(1, 17))
    card = json.loads((out / course.CARD).read_text())
    assert card["base"] == base
    assert card["settings"]["rank"] == 16


def test_adapter_folder_generates_what_was_learned(trained):
    model, tokenizer = causal.load_causal(trained[0])
    asked = [{"role": "user", "content": "what of disk 3?"}]
    assert causal.generate(model, tokenizer, asked, max_new_tokens=24) == "the disk is full"


def test_same_seed_gives_the_same_adapter(base, tmp_path):
    few = QUICK._replace(max_steps=2)
    losses = [lora.train_lora(ROWS, [], base, tmp_path / n, few)["train_loss"] for n in ("a", "b")]
    assert losses[0] == losses[1]
