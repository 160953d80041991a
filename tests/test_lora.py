"""The LoRA trainer on a tiny model: it learns answers, resumes, gives up memory, prefers, stops."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from transformers import TrainerCallback  # noqa: E402

from daemon.errors import ConfigError, HauswartError  # noqa: E402
from tests.fixtures import chatter, rows  # noqa: E402
from training import causal, course, finetune, loop, lora, memory, preferences  # noqa: E402
from training.course import Run, Settings  # noqa: E402

ROWS = [rows.row(f"what of disk {n}?", "the disk is full") for n in range(16)]
ASKED = [{"role": "user", "content": "what of disk 3?"}]
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


def test_adapter_folder_generates_what_was_learned(trained, base):
    model, tokenizer = causal.load_causal(trained[0])
    assert causal.generate(model, tokenizer, ASKED, max_new_tokens=24) == "the disk is full"
    plain, _ = causal.load_causal(base)
    assert causal.generate(plain, tokenizer, ASKED, max_new_tokens=24) != "the disk is full"


def test_interrupted_training_goes_on_to_the_same_end(base, tmp_path, monkeypatch):
    few = QUICK._replace(epochs=1, evaluations=2)
    whole = lora.train_lora(ROWS, [], base, tmp_path / "whole", few)

    class Killed(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 3:
                raise KeyboardInterrupt

    class Log(loop.LogFile, Killed):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(loop, "LogFile", Log)
        with pytest.raises(KeyboardInterrupt):
            lora.train_lora(ROWS, [], base, tmp_path / "cut", few)
    assert not (tmp_path / "cut" / causal.ADAPTER_CONFIG).exists(), "half a training leaves no adapter"
    with pytest.raises(ConfigError, match="had other settings: rank"):
        lora.train_lora(ROWS, [], base, tmp_path / "cut", few._replace(rank=8), resume=True)
    said: list[str] = []
    gone_on = lora.train_lora(ROWS, [], base, tmp_path / "cut", few, resume=True, tell=said.append)
    assert "going on from checkpoint-2" in said
    assert gone_on["steps"] == whole["steps"] == 4
    assert gone_on["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)


def test_gives_up_batch_then_sequence_then_rank_when_memory_runs_out(base, tmp_path, monkeypatch):
    calibrate, said = course.calibrate, []

    def needy(model, train, run):
        if run.settings.rank > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return calibrate(model, train, run)

    monkeypatch.setattr(course, "calibrate", needy)
    wanted = Settings(bf16=False, max_steps=1, learning_rate=1e-3)
    metrics = lora.train_lora(ROWS, [], base, tmp_path, wanted, tell=said.append)
    expected = ["batch 2 to 1, accumulation 4 to 8", "sequence 4096 to 2048", "rank 16 to 8"]
    assert metrics["given_up"] == expected
    assert [one for one in said if "memory ran out" in one] == [f"memory ran out: {one}" for one in expected]
    kept = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (kept["r"], kept["lora_alpha"]) == (8, 16)


def test_says_so_where_the_least_is_still_too_much(base, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "calibrate", lambda *_: bytearray(1 << 62))
    with pytest.raises(HauswartError, match="memory ran out, with the smallest settings too"):
        lora.train_lora(ROWS, [], base, tmp_path, QUICK._replace(batch_size=1, rank=8))
    assert not (tmp_path / causal.ADAPTER_CONFIG).exists()


def test_other_errors_are_not_taken_for_lack_of_memory(base, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(course, "calibrate", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        lora.train_lora(ROWS, [], base, tmp_path, QUICK)


def test_estimate_of_memory_grows_with_what_takes_it(base):
    shape = memory.shape_of(base)
    assert shape.layers == 2
    assert shape.parameters == sum(one.numel() for one in causal.load_causal(base)[0].parameters())
    known = {"four_bits": False, "sixteen_bits": False, "tokens": 4096, "rank": 16}
    some, more, most = (
        memory.estimate_bytes(shape, **known | {"tokens": count}) for count in (1024, 2048, 4096)
    )
    assert most - more == 2 * (more - some) > 0
    measured = {256: 1.71e9, 1024: 3.23e9}  # SmolLM2-135M, peak of the process
    smollm2 = memory.Shape(134_515_008, 30, 576, 49_152)
    for tokens, peak in measured.items():
        assert memory.estimate_bytes(smollm2, **known | {"tokens": tokens}) == pytest.approx(peak, rel=0.05)
    large = memory.Shape(7_000_000_000, 32, 4096, 32_000)
    whole, small, spared = (
        memory.estimate_bytes(large, **known | {"tokens": 512} | change)
        for change in ({}, {"four_bits": True}, {"checkpointing": True})
    )
    assert small < 0.5 * whole
    assert spared < whole


def test_gradient_checkpointing_learns_the_same(base, tmp_path):
    few = QUICK._replace(max_steps=2)
    both = [
        lora.train_lora(ROWS, [], base, tmp_path / str(on), few._replace(gradient_checkpointing=on))
        for on in (False, True)
    ]
    assert both[0]["train_loss"] == pytest.approx(both[1]["train_loss"], rel=1e-3)


def test_packed_training_makes_fewer_longer_sequences(base, tmp_path):
    metrics = lora.train_lora(ROWS, ROWS[:2], base, tmp_path, QUICK._replace(packing=True, epochs=6))
    assert metrics["sequences"] < 6
    assert metrics["eval_loss"] < metrics["eval_loss_before"]


def test_stops_early_and_keeps_the_best(base, tmp_path):
    wild = QUICK._replace(learning_rate=2.0, epochs=8, patience=1, evaluations=8, lr_scheduler="constant")
    metrics = lora.train_lora(ROWS, ROWS[:4], base, tmp_path, wild)
    assert metrics["steps"] < 32


def pair(better: str, worse: str) -> dict:
    sides = {"chosen": better, "rejected": worse}
    return {"prompt": ASKED} | {
        name: [{"role": "assistant", "content": text}] for name, text in sides.items()
    }


def test_preference_loss_is_that_of_the_paper(base):
    model, tokenizer = causal.load_causal(base)
    (made,) = preferences.encode_pairs(
        [pair("the disk is full", "the unit waits for it")], tokenizer, 128, print
    )
    bare = preferences.Pairs([made], tokenizer.pad_token_id)
    ((chosen, rejected),) = preferences.judge(model, bare, 1, bf16=False)
    for answer, judged in (("the disk is full", chosen), ("the unit waits for it", rejected)):
        text = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(text)["input_ids"])
        ids = torch.tensor([tokenizer(text + answer + "<|im_end|>")["input_ids"]])
        with torch.no_grad():
            logs = torch.log_softmax(model(ids).logits[0, :-1], -1)
        expected = sum(float(logs[n - 1, ids[0, n]]) for n in range(start, ids.shape[1]))
        assert judged == pytest.approx(expected, abs=1e-3)
    loss = preferences.PreferenceLoss(0.1)
    same = preferences.Pairs([made._replace(reference=(chosen, rejected))], 0)
    other = preferences.Pairs([made._replace(reference=(chosen - 3.0, rejected + 1.0))], 0)
    with torch.no_grad():
        assert float(loss.of(model, same.collate(same.pairs))[0]) == pytest.approx(0.6931, abs=1e-4)
        margin = torch.tensor(0.1 * (3.0 + 1.0))
        expected = float(-torch.nn.functional.logsigmoid(margin))
        assert float(loss.of(model, other.collate(other.pairs))[0]) == pytest.approx(expected, abs=1e-4)


def test_preference_tuning_turns_to_the_better_answer(base, tmp_path):
    model, tokenizer = lora.load_adapting(base, QUICK._replace(quantization="none"))
    settings = QUICK._replace(preference_epochs=4, preference_learning_rate=5e-3)
    run = Run(base, tmp_path, settings, bf16=False, report_to=(), tell=lambda _said: None)
    pairs = [pair("the disk is full because the journal grew", "the unit waits for it")] * 12
    found = preferences.prefer(model, tokenizer, pairs, [], run)
    assert found["preference_gained"] == 1.0
    assert found["preference_loss"] < 0.3


def test_unsloth_is_asked_for_the_same_adapter_where_it_is_installed(monkeypatch, tmp_path):
    (tmp_path / "unsloth.py").write_text(
        "calls = []\n"
        "class FastLanguageModel:\n"
        "    @staticmethod\n"
        "    def from_pretrained(base, **known):\n"
        "        calls.append(known); return 'model', 'tokenizer'\n"
        "    @staticmethod\n"
        "    def get_peft_model(model, **known):\n"
        "        calls.append(known); return model\n"
    )
    assert lora.load_by_unsloth("x", Settings(), ["q_proj"]) is None
    monkeypatch.syspath_prepend(tmp_path)
    assert lora.load_by_unsloth("x", Settings(), ["q_proj"]) == ("model", "tokenizer")
    import unsloth  # noqa: PLC0415

    assert unsloth.calls[0] == {"max_seq_length": 4096, "load_in_4bit": True}
    assert unsloth.calls[1]["r"] == unsloth.calls[1]["lora_alpha"] == 16


def test_trainer_of_other_tiers_is_unchanged(tmp_path):
    trainer = finetune.make_trainer(chatter.model(64), [{}], None, loss=None, out=tmp_path, logs=tmp_path)
    assert not trainer.model_accepts_loss_kwargs
    assert str(trainer.args.lr_scheduler_type) in {"cosine", "SchedulerType.COSINE"}
