"""Adapters on tiny models: they learn, nothing else moves, what is saved is a plain model."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
import bitsandbytes as bnb  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from daemon.errors import ConfigError  # noqa: E402
from training import adapters, tokens  # noqa: E402
from training.finetune import train_folder  # noqa: E402
from training.folder import load_folder, make_card, save_folder  # noqa: E402

SENTENCE = "the table is full because the disk is slow and the unit waits for it"


def tiny(family: str):
    torch.manual_seed(3)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_layer=2, n_embd=64, n_head=2, n_positions=64))
    if family == "distilbert":
        shape = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "num_labels": 4}
        return DistilBertForSequenceClassification(DistilBertConfig(vocab_size=300, **shape))
    wide = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    if family == "bert":
        return BertForSequenceClassification(BertConfig(vocab_size=300, num_labels=4, **wide))
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **wide))


def learn(model, steps: int = 25, ids=None) -> tuple[float, float]:
    """First and last loss on one fixed batch."""
    ids = torch.randint(0, 300, (4, 12), generator=torch.Generator().manual_seed(1)) if ids is None else ids
    generates = "ForCausalLM" in str(type(model)) or "LMHead" in str(type(model))
    labels = ids if generates else torch.tensor([0, 1, 2, 3])
    rates = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(rates, 1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses[0], losses[-1]


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "distilbert", "bert"])
def test_adapter_learns_and_the_folded_model_computes_the_same(family, method):
    model = adapters.attach(tiny(family), method, rank=4)
    share = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert share < 0.5 * sum(p.numel() for p in tiny(family).parameters())
    first, last = learn(model)
    assert last < first - 0.2
    ids = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model(input_ids=ids).logits.clone()
        plain = adapters.merge(model, method)
        after = plain(input_ids=ids).logits
    assert type(plain) is type(tiny(family))
    assert {type(one).__name__ for one in plain.modules()}.isdisjoint({"Linear4bit"})
    assert plain.state_dict().keys() == tiny(family).state_dict().keys()
    assert torch.allclose(before, after, atol=1e-4)


def test_base_stays_as_it_was_under_its_adapter():
    model = tiny("llama")
    before = copy.deepcopy(model.state_dict())
    wrapped = adapters.attach(model, "lora", rank=4)
    learn(wrapped, steps=3)
    kept = {
        name.replace(".base_layer", ""): value for name, value in wrapped.get_base_model().named_parameters()
    }
    assert all(torch.equal(kept[name], value) for name, value in before.items() if name in kept)


def test_four_bits_hold_every_linear_layer_but_the_heads():
    model = adapters.to_four_bits(tiny("gpt2"))
    small = [one for one in model.modules() if isinstance(one, bnb.nn.Linear4bit)]
    assert len(small) == 2 * 4  # layers x (c_attn, c_proj, c_fc, c_proj): Conv1D is not missed
    assert all(one.weight.quant_state is not None for one in small)
    assert type(model.lm_head) is torch.nn.Linear


def test_four_bits_pass_the_same_gradients_after_an_evaluation():
    model = adapters.attach(tiny("llama"), "qlora", rank=4)
    learn(model, steps=2)

    def gradients():
        model.train()
        model.zero_grad()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        return [one.grad.clone() for one in model.parameters() if one.grad is not None]

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.ones(1, 4, dtype=torch.long))
    after = gradients()
    assert before
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_base_stored_in_16_bits_learns_in_32(method):
    model = adapters.attach(tiny("llama").to(torch.bfloat16), method, rank=4)
    assert {one.dtype for one in model.parameters() if one.is_floating_point()} == {torch.float32}
    first, last = learn(model, steps=5)
    assert last < first


def test_presets_are_those_that_are_documented():
    one = adapters.attach(tiny("llama"), "lora", "lab2").peft_config["default"]
    assert (one.r, one.lora_alpha, one.lora_dropout, one.bias) == (8, 16, 0.05, "none")
    assert one.target_modules == {"q_proj", "k_proj", "v_proj", "o_proj"}
    other = adapters.attach(tiny("llama"), "lora").peft_config["default"]
    assert (other.r, other.lora_alpha, other.lora_dropout) == (16, 16, 0.0)


def test_unknown_adapter_is_named():
    with pytest.raises(ConfigError, match="dora"):
        adapters.attach(tiny("llama"), "dora")
    with pytest.raises(ConfigError, match="lab9"):
        adapters.attach(tiny("llama"), "lora", "lab9")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_generator_is_tuned_through_an_adapter_and_learns_new_marks(tmp_path, method):
    base, tokenizer = tiny("gpt2"), tokens.train_bpe([SENTENCE] * 9, 300)
    learn(base, steps=30, ids=torch.tensor([tokenizer.encode(f" {SENTENCE}").ids]))
    save_folder(base, tokenizer, make_card("top", sequence=64), tmp_path / "base")
    rows = [
        {
            "prompt": f"<en> {word}",
            "completion": f" {SENTENCE}<end>",
            "split": "val" if n % 6 == 0 else "train",
        }
        for n, word in enumerate(SENTENCE.split() * 4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    metrics = train_folder(
        tmp_path / "rows.parquet",
        str(tmp_path / "base"),
        tmp_path / "model",
        tier="top",
        epochs=6,
        learning_rate=2e-2,
        method=method,
        preset="lab2",
        specials=["<en>", "<end>"],
        sequence=64,
        bf16=False,
    )
    model, tokenizer, card = load_folder(tmp_path / "model")
    assert metrics["eval_loss"] < 1.0
    assert len(tokenizer.encode("<end>").ids) == 1
    assert card["method"] == method
    assert (tmp_path / "model" / "adapter" / "adapter_model.safetensors").is_file()
    ids = torch.tensor([tokenizer.encode(rows[0]["prompt"] + rows[0]["completion"]).ids])
    with torch.no_grad():
        assert float(model(input_ids=ids, labels=ids).loss) < 2.5
