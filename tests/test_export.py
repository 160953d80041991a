"""What leaves torch: ONNX that computes the same for every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from daemon.errors import ConfigError
from tests.fixtures.tiny import VOCABULARY, classifier, generator, rows
from training.app import app
from training.export import cache_names, export_folder, to_onnx
from training.folder import make_card, save_folder
from training.quantize import quantize_model


@pytest.fixture(scope="module")
def generator_path(tmp_path_factory):
    """One export for all that ask about it: tracing takes seconds."""
    return to_onnx(generator(wide=64), tmp_path_factory.mktemp("generator") / "model.onnx")


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", ["albert", "bert", "distilbert", "roberta"])
def test_exported_classifier_gives_the_logits_of_torch_at_every_batch_and_length(family, tmp_path):
    model = classifier(family)
    run = session(to_onnx(model, tmp_path / "model.onnx"))
    for count, length in ((1, 4), (3, 17), (2, 64)):
        ids, mask, _ = rows(count, seed=count, length=length)
        with torch.no_grad():
            wanted = model(input_ids=ids, attention_mask=mask).logits.numpy()
        (got,) = run.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("chunks", [(20,), (7, 13), (1,) * 20])
def test_exported_generator_goes_on_from_its_past_however_the_prompt_was_cut(chunks, generator_path):
    model, run = generator(wide=64), session(generator_path)
    ids = torch.randint(0, VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model(ids).logits[0].numpy()
    past = {name: np.zeros((1, 4, 0, 16), np.float32) for name in cache_names(2)}
    done = 0
    for size in chunks:
        logits, *grown = run.run(None, {"input_ids": ids[:, done : done + size].numpy(), **past})
        past, done = dict(zip(past, grown, strict=True)), done + size
        np.testing.assert_allclose(logits[0], wanted[done - 1], atol=1e-4)


def test_generator_names_its_past_as_the_runtime_does(generator_path):
    run = session(generator_path)
    assert [one.name for one in run.get_inputs()] == ["input_ids", "k0", "v0", "k1", "v1"]
    assert [one.name for one in run.get_outputs()] == ["logits", "pk0", "pv0", "pk1", "pv1"]


def test_tied_embedding_is_stored_once(generator_path):
    shapes = [sorted(one.dims) for one in onnx.load(generator_path).graph.initializer]
    assert shapes.count([64, VOCABULARY]) == 1


def test_export_tells_nothing_of_the_machine_it_ran_on(generator_path):
    assert str(Path(torch.__file__).parent).encode() not in generator_path.read_bytes()
    assert __file__.encode() not in generator_path.read_bytes()


def test_export_leaves_the_model_as_it_was(tmp_path):
    model = classifier("distilbert").train()
    attention = model.config._attn_implementation
    to_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert model.config._attn_implementation == attention


def make_folder(family: str, folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    if family == "gpt2":
        return save_folder(generator(), tokenizer, make_card("top", {}, sequence=32), folder)
    card = make_card("low", {"severity": 4, "alert": 1, "category": 1}, sequence=16)
    return save_folder(classifier(family), tokenizer, card, folder)


def test_export_command_writes_the_guides_pth_and_safetensors_that_load_again(tmp_path):
    folder = make_folder("distilbert", tmp_path / "model")
    argv = ["export", str(folder), "--out", str(tmp_path), "--format", "pth", "--format", "safetensors"]
    said = CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False)
    assert set(json.loads(said.stdout)["files"]) == {"low_model.pth", "low_model.safetensors"}
    wanted = classifier("distilbert").state_dict()
    for found in (
        torch.load(tmp_path / "low_model.pth", weights_only=True),
        load_file(tmp_path / "low_model.safetensors"),
    ):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_int8_pth_is_smaller_and_loads_into_a_quantised_model(tmp_path):
    folder = make_folder("gpt2", tmp_path / "model")
    sizes = export_folder(folder, tmp_path, formats=["pth", "pth-int8"])["files"]
    assert sizes["top_model.int8.pth"] < 0.8 * sizes["top_model.pth"]
    again = quantize_model(generator())
    again.load_state_dict(torch.load(tmp_path / "top_model.int8.pth", weights_only=False))


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gguf"):
        export_folder(make_folder("bert", tmp_path / "model"), tmp_path, formats=["gguf"])
