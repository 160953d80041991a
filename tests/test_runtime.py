"""The runtime on real ONNX models: probabilities by head, text over a cache, and no number that is none."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types

import numpy as np
import onnx
import pytest
from safetensors.numpy import save as save_tensors

from models import bundle as bundles
from models.errors import BundleError, ModelError
from models.runs import form_of, hash_runs
from models.runtime import REPEAT, Classifier, Generator
from tests.fixtures.bundles import (
    HEAD_DIM,
    HEADS_COUNT,
    LAYERS,
    WORDS,
    classifier_model,
    config,
    contents,
    generator_weights,
    make_bundle,
)

END = WORDS.index("<end>")


@pytest.fixture(scope="module", autouse=True)
def _briefs():
    """The top tier's encoder, or as much of it as a check asks for."""
    try:
        importlib.import_module("models.briefs")
    except ModuleNotFoundError:
        sys.modules["models.briefs"] = types.SimpleNamespace(FEATURES_VERSION=1)


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    return bundles.verify(make_bundle(tmp_path_factory.mktemp("low") / "b"), "low")


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    return bundles.verify(make_bundle(tmp_path_factory.mktemp("top") / "b", "top"), "top")


def expected_logits(text, seed=0):
    """What the tiny classifier computes, by numpy."""
    weights = {
        one.name: onnx.numpy_helper.to_array(one) for one in classifier_model(15, seed).graph.initializer
    }
    ids = [WORDS.index(word) if word in WORDS else 1 for word in text.split()][:16]
    return weights["table"][ids].mean(0) @ weights["head"]


def softmax(values):
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def test_classifier_gives_each_head_its_probabilities(low):
    text = "usb device error timeout"
    found = Classifier(low).score([text])[0]
    logits = expected_logits(text)
    assert list(found) == ["severity", "alert", "category"]
    np.testing.assert_allclose(found["severity"], softmax(logits[:4]), rtol=1e-5)
    np.testing.assert_allclose(found["alert"], 1 / (1 + np.exp(-logits[4:5])), rtol=1e-5)
    np.testing.assert_allclose(found["category"], softmax(logits[5:]), rtol=1e-5)


def test_no_answer_depends_on_its_neighbours_or_their_order(low):
    texts = [" ".join(WORDS[3 : 4 + number % 12]) for number in range(100)]
    model = Classifier(low)
    assert model.score(texts) == [model.score([text])[0] for text in texts]


def test_equal_texts_are_computed_once(low, monkeypatch):
    model, runs = Classifier(low), []
    monkeypatch.setattr(model, "_run", lambda ids: runs.append(ids) or [0.0] * 15)
    assert len(model.score(["disk full", "link", "disk full"] * 50)) == 150
    assert len(runs) == 2


@pytest.mark.parametrize("text", ["", " ", "disk " * 100_000, "x" * 1_000_000, "\0\ud7ff\n", "é" * 5000])
def test_any_text_gets_probabilities_quickly(low, text):
    for head in Classifier(low).score([text])[0].values():
        assert all(0.0 <= value <= 1.0 for value in head)


def test_nothing_asked_is_nothing_answered(low):
    assert Classifier(low).score([]) == []


def test_temperature_softens_its_head_only(tmp_path):
    changed = config("low") | {"calibration": {"temperature": {"severity": 4.0}}}
    made = make_bundle(tmp_path / "b", files={"config.json": json.dumps(changed).encode()})
    found = Classifier(bundles.verify(made, "low")).score(["disk full"])[0]
    logits = expected_logits("disk full")
    np.testing.assert_allclose(found["severity"], softmax(logits[:4] / 4), rtol=1e-5)
    np.testing.assert_allclose(found["category"], softmax(logits[5:]), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_a_number_is_an_error(tmp_path, value):
    model = classifier_model(15)
    for tensor in model.graph.initializer:
        if tensor.name == "head":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 15), value, np.float32), "head"))
    made = make_bundle(tmp_path / "b", files={"model.onnx": model.SerializeToString()})
    with pytest.raises(ModelError, match="not a number"):
        Classifier(bundles.verify(made, "low")).score(["disk"])


def test_token_beyond_the_table_is_an_error_and_not_a_crash(tmp_path):
    tokens = json.loads(contents("low")["tokenizer.json"])
    tokens["model"]["vocab"]["disk"] = 5000
    made = make_bundle(tmp_path / "b", files={"tokenizer.json": json.dumps(tokens).encode()})
    with pytest.raises(ModelError, match="model failed"):
        Classifier(bundles.verify(made, "low")).score(["disk"])


def test_operator_that_nobody_knows_is_refused_when_it_is_loaded(tmp_path):
    model = classifier_model(15)
    model.graph.node[0].op_type = "Frobnicate"
    made = make_bundle(tmp_path / "b", files={"model.onnx": model.SerializeToString()})
    with pytest.raises(BundleError, match="cannot be loaded"):
        Classifier(bundles.verify(made, "low"))


def test_tokenizer_that_is_none_is_refused_when_it_is_loaded(tmp_path):
    made = make_bundle(tmp_path / "b", files={"tokenizer.json": b'{"version": "1.0"}'})
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        Classifier(bundles.verify(made, "low"))


# --- the generator ------------------------------------------------------------------------------------------


def greedy(prompt, count):
    """What the tiny generator writes, by numpy and without a cache."""
    weights = generator_weights()
    ids = [WORDS.index(word) for word in prompt.split()]
    written = []
    for _ in range(count):
        context = 0
        for layer in range(LAYERS):
            keys, values = (
                weights[f"{kind}t{layer}"][ids].reshape(-1, HEADS_COUNT, HEAD_DIM) for kind in "kv"
            )
            shares = np.stack([softmax(keys[:, head] @ keys[-1, head]) for head in range(HEADS_COUNT)], 1)
            context = context + (shares[..., None] * values).sum(0).reshape(-1)
        scores = context @ weights["head"]
        for token in {ids_after(written, end) for end in range(REPEAT - 1, len(written))} - {None}:
            scores[token] = -np.inf
        ids.append(int(scores.argmax()))
        written.append(ids[-1])
        if WORDS[written[-1]] == "<end>":
            return written[:-1]
    return written


def ids_after(written, end):
    tail = written[-(REPEAT - 1) :]
    return written[end] if len(tail) == REPEAT - 1 and written[end - len(tail) : end] == tail else None


@pytest.mark.parametrize("prompt", ["en disk full", "de link down user root", "memory"])
def test_generator_over_its_cache_writes_what_the_model_says_without_one(top, prompt):
    wanted = " ".join(WORDS[token] for token in greedy(prompt, 30))
    assert Generator(top).generate(prompt, max_tokens=30) == wanted


def test_same_seed_writes_the_same_and_another_seed_something_else(top):
    model = Generator(top)
    texts = [
        model.generate("en disk full", max_tokens=20, temperature=2.0, seed=seed) for seed in (1, 1, 2, 3)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_top_k_of_one_is_greedy(top):
    model = Generator(top)
    hot = model.generate("en disk full", max_tokens=20, temperature=5.0, top_k=1, seed=9)
    assert hot == model.generate("en disk full", max_tokens=20)


def test_writing_ends_at_the_stop_token_and_leaves_it_out(top):
    model = Generator(top)
    text = model.generate("en disk full", max_tokens=40, stop="")
    stop = text.split()[5]
    assert (
        model.generate("en disk full", max_tokens=40, stop=stop).split()
        == text.split()[: text.split().index(stop)]
    )


def test_tokens_are_bounded_by_the_question_and_by_the_sequence(top):
    model = Generator(top)
    assert len(model.generate("disk", max_tokens=5, temperature=1.0, stop="").split()) == 5
    assert len(model.generate("disk", max_tokens=10_000, temperature=1.0, stop="").split()) == 63


@pytest.mark.parametrize("prompt", ["", "disk " * 64, "disk " * 100_000])
def test_prompt_that_leaves_no_room_is_an_error(top, prompt):
    with pytest.raises(ModelError, match="no room"):
        Generator(top).generate(prompt, max_tokens=5)


def test_no_run_of_tokens_is_written_twice(top):
    words = Generator(top).generate("en", max_tokens=60, stop="").split()
    runs = [tuple(words[at : at + REPEAT]) for at in range(len(words) - REPEAT + 1)]
    assert len(runs) > 30
    assert len(set(runs)) == len(runs)


def runs_file(*texts, prompt="en disk", **changes):
    """A bundle's runs of these texts, as the verb packs them."""
    ids = [WORDS.index(word) for word in prompt.split()]
    hashes = {
        one for text in texts for one in hash_runs(ids, [WORDS.index(w) for w in text.split()], END).tolist()
    }
    return save_tensors({"runs": np.array(sorted(hashes), np.uint32)}, form_of() | changes)


def with_runs(path, raw):
    return Generator(bundles.verify(make_bundle(path / "b", "top", files={"runs.safetensors": raw}), "top"))


TEXTS = ("disk full failed the disk of user root is full", "memory full failed the disk of user root is out")


def test_generator_joins_only_runs_that_its_texts_have(tmp_path):
    model = with_runs(tmp_path, runs_file(*TEXTS))
    for seed in range(8):  # however hot: it may cross from one text to the other where they agree
        text = model.generate("en disk full", max_tokens=30, temperature=50.0, seed=seed)
        halves = [text.partition(" failed the disk of user root is ")[::2] for text in (text, *TEXTS)]
        assert halves[0][0] in {"disk full", "memory full"}
        assert halves[0][1] in {"full", "out"}


def test_generator_gives_no_text_for_a_prompt_whose_runs_nobody_wrote(tmp_path):
    model = with_runs(tmp_path, runs_file(*TEXTS))
    assert model.generate("de disk full", max_tokens=30, temperature=1.0) == ""
    assert with_runs(tmp_path / "none", runs_file()).generate("en disk", max_tokens=9) == ""


def test_generator_gives_no_text_where_its_likeliest_words_end_no_run(tmp_path, top):
    begun = Generator(top).generate("en disk full", max_tokens=1, stop="").split()
    other = next(word for word in WORDS[3:] if word not in begun)
    model = with_runs(tmp_path, runs_file(f"{other} full failed"))
    assert model.generate("en disk full", max_tokens=30, temperature=1.0, top_k=1) == ""
    assert model.generate("en disk full", max_tokens=30, temperature=1.0, top_k=0).startswith(other)


def swapped(raw):
    """The same file with its first two hashes the other way round."""
    start = 8 + int.from_bytes(raw[:8], "little")
    return raw[:start] + raw[start + 4 : start + 8] + raw[start : start + 4] + raw[start + 8 :]


@pytest.mark.parametrize(
    "raw",
    [
        runs_file(*TEXTS, length="4"),
        runs_file(*TEXTS, keys="1"),
        swapped(runs_file(*TEXTS)),
        save_tensors({"runs": np.arange(4, dtype=np.int64)}, form_of()),
        save_tensors({"runs": np.arange(4, dtype=np.uint32)}),
        save_tensors({"other": np.arange(4, dtype=np.uint32)}, form_of()),
    ],
    ids=["length", "keys", "unsorted", "int64", "without a form", "without runs"],
)
def test_runs_of_another_kind_are_refused_when_they_are_loaded(tmp_path, raw):
    with pytest.raises(BundleError, match=r"runs\.safetensors holds no runs"):
        with_runs(tmp_path, raw)


def test_generator_that_gives_no_number_is_an_error(tmp_path):
    model = onnx.load_from_string(contents("top")["model.onnx"])
    for tensor in model.graph.initializer:
        if tensor.name == "head":
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.full((8, len(WORDS)), np.nan, np.float32), "head")
            )
    made = make_bundle(tmp_path / "b", "top", files={"model.onnx": model.SerializeToString()})
    with pytest.raises(ModelError, match="not a number"):
        Generator(bundles.verify(made, "top")).generate("disk", max_tokens=3)


def test_runtime_imports_nothing_heavy_until_a_model_is_loaded():
    code = (
        "import sys, models.runtime\n"
        "print(sorted({'numpy', 'onnxruntime', 'tokenizers', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["models", "daemon.scorer", "daemon.stages.scorer", "training"])
def test_onnxruntime_sends_and_keeps_no_telemetry(tmp_path, first):
    """It opens an upload queue in the home directory and starts a thread for it, unless it is told not to."""
    code = (
        f"import {first}, onnxruntime\nfrom pathlib import Path\n"
        "open_files = [str(path.resolve()) for path in Path('/proc/self/fd').iterdir()]\n"
        "print(*(name for name in open_files if 'onnx' in name))"
    )
    plain = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    home = plain | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home)
    assert done.stdout.strip() == ""
    assert list(tmp_path.rglob("*")) == []


def test_loading_starts_no_threads_and_leaves_torch_alone(low):
    code = (
        "import sys\nfrom pathlib import Path\nfrom models import bundle\n"
        "from models.runtime import Classifier\n"
        f"Classifier(bundle.verify(Path({str(low.directory)!r}), 'low')).score(['disk full'] * 40)\n"
        "print(len(list(Path('/proc/self/task').iterdir())), 'torch' in sys.modules)"
    )
    lean = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as the scorer is started; numpy has a pool of its own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=lean)
    threads, torch = done.stdout.split()
    assert (int(threads), torch) == (1, "False")
