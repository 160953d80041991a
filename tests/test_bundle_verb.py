"""Packing a trained model: what comes out loads, says the same as the model, and is the same every time."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from daemon.command.app import app as root  # noqa: E402
from daemon.command.app import main  # noqa: E402
from daemon.errors import BundleError, ConfigError  # noqa: E402
from models import bundle as bundles  # noqa: E402
from models.runtime import Classifier, Generator  # noqa: E402
from tests.fixtures import tiny  # noqa: E402
from training import bundle as verb  # noqa: E402
from training.app import app as train  # noqa: E402
from training.export import to_onnx  # noqa: E402
from training.folder import load_folder, make_card, save_folder  # noqa: E402
from training.quantize import quantize_onnx  # noqa: E402
from training.rows import write_parquet  # noqa: E402

HEADS = {"severity": 4, "alert": 1, "category": 1}  # an order that sorting would change
SOURCES = [{"path": "a.csv", "origin": "somebody", "version": "1", "licence": "MIT", "mark": "ship"}]
BASE = {"origin": "weights of somebody else", "licence": "MIT", "mark": "ship"}
METRICS = {"quality": {"macro_f1": 0.55, "eval_runtime": 3.1, "curves": {"x": [1] * 1000}}}
BEFORE = {"quality_before": {"macro_f1": 0.6}}
TABLE = {"table": [{"step": "parent", "bytes": 9}, {"step": "int8", "bytes": 3, "memory_mib": 7.5, **BEFORE}]}


def words():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(tiny.VOCABULARY - 4))]
    found = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "[UNK]"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    return found


def folder(directory, tier):
    """A trained model's folder with float and int8 ONNX files."""
    model = (
        tiny.generator() if tier == "top" else tiny.classifier("albert" if tier == "low" else "distilbert")
    )
    heads = {} if tier == "top" else HEADS
    card = make_card(tier, heads, sequence=32, data=SOURCES, recipe="tiny", parent="/somewhere/parent")
    save_folder(model, words(), card, directory)
    to_onnx(model, directory / "model.onnx")
    quantize_onnx(directory / "model.onnx", directory / "model.int8.onnx")
    return directory


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("low") / "model", "low")


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("top") / "model", "top")


def test_packed_classifier_says_what_the_model_says(low, tmp_path):
    verb.make_bundle(low, tmp_path / "b", onnx=low / "model.onnx")
    found = bundles.verify(tmp_path / "b", "low")
    assert list(found.config.heads) == list(HEADS)
    assert (found.config.architecture, found.config.sequence) == ("albert", 32)
    ids = torch.tensor([[2, 10, 11, 3]])
    with torch.no_grad():
        wanted = load_folder(low)[0](input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()
    np.testing.assert_allclose(Classifier(found).logits(["w6 w7"])[0], wanted, atol=1e-4)


def test_packed_generator_writes_what_the_model_writes(top, tmp_path):
    verb.make_bundle(top, tmp_path / "b", onnx=top / "model.onnx")
    found = bundles.verify(tmp_path / "b", "top")
    assert (found.config.layers, found.config.heads_count, found.config.head_dim) == (2, 4, 8)
    assert found.config.vocabulary == tiny.VOCABULARY
    model, tokenizer, _ = load_folder(top)
    ids = torch.tensor([tokenizer.encode("w6 w7").ids])
    with torch.no_grad():
        wanted = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert Generator(found).generate("w6 w7", max_tokens=8, stop="") == tokenizer.decode(
        wanted[0, 4:].tolist(), skip_special_tokens=False
    )


def test_int8_file_is_taken_by_default_and_recorded(low, tmp_path):
    verb.make_bundle(low, tmp_path / "b")
    assert (tmp_path / "b/model.onnx").read_bytes() == (low / "model.int8.onnx").read_bytes()


def test_same_input_gives_the_same_bytes(low, tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    made = [verb.make_bundle(low, tmp_path / name, metrics=METRICS) for name in ("a", "b")]
    assert made[0] == made[1]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_manifest_tells_data_figures_and_what_was_decided(low, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    (tmp_path / "decided.json").write_text('{"thresholds": {"alert": 0.4}, "calibration": {"x": [1]}}')
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    figures = METRICS | {"shrinking": str(tmp_path / "table.json")}
    verb.make_bundle(
        low, tmp_path / "b", version="2026.1", metrics=figures, decisions=tmp_path / "decided.json",
        thresholds={"warning": 0.2}, origins=[BASE],
    )  # fmt: skip
    found = bundles.verify(tmp_path / "b", "low")
    assert found.manifest.data == [*SOURCES, BASE]
    assert found.manifest.metrics == {"quality": {"macro_f1": 0.55}, "shrinking": TABLE}
    assert (found.manifest.memory_mib, found.manifest.created) == (7.5, "1970-01-02T00:00:00Z")
    assert (found.manifest.recipe, found.manifest.parent) == ("tiny", "parent")
    assert found.config.thresholds == {"alert": 0.4, "warning": 0.2}
    card = (tmp_path / "b/card.md").read_text()
    assert "somebody" in card
    assert "macro_f1 | 0.55" in card
    assert "| int8 | 3 | 7.5 |\n" in card  # what was before stands in the row above


def test_data_that_was_lent_for_evaluation_may_not_train_a_bundle(low, tmp_path):
    lent = tmp_path / "lent"
    shutil.copytree(low, lent)
    card = json.loads((lent / "hauswart.json").read_text())
    card["data"][0]["mark"] = "evaluate-only"
    (lent / "hauswart.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match="may not train"):
        verb.make_bundle(lent, tmp_path / "b")


def test_tables_without_texts_are_refused(top, tmp_path):
    write_parquet(tmp_path / "rows.parquet", [{"text": "disk full", "severity": 0}], {})
    with pytest.raises(ConfigError, match="completion"):
        verb.make_bundle(top, tmp_path / "b", onnx=top / "model.onnx", texts=[str(tmp_path / "rows.parquet")])


@pytest.mark.parametrize("tier", ["low", "top"])
def test_unpacked_bundle_is_the_model_in_half_precision(tier, request, tmp_path):
    source = request.getfixturevalue(tier)
    verb.make_bundle(source, tmp_path / "b")
    model, tokenizer, card = load_folder(verb.unpack(tmp_path / "b", tmp_path / "again"))
    before, _, said = load_folder(source)
    assert list(card["heads"].items()) == list(said["heads"].items())
    assert tokenizer.to_str() == words().to_str()
    assert card["parent"].startswith(f"{tier}-1-")
    for (name, one), other in zip(before.state_dict().items(), model.state_dict().values(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_bundle_without_weights_cannot_be_unpacked(low, tmp_path):
    verb.make_bundle(low, tmp_path / "b", weights=False)
    with pytest.raises(BundleError, match="nothing to go on"):
        verb.unpack(tmp_path / "b", tmp_path / "again")


def test_weight_that_half_precision_cannot_hold_is_refused(low, tmp_path):
    model, tokenizer, card = load_folder(low)
    next(model.parameters()).data[0, 0] = 1e6
    save_folder(model, tokenizer, card, tmp_path / "huge")
    shutil.copyfile(low / "model.onnx", tmp_path / "huge/model.onnx")
    with pytest.raises(BundleError, match="half precision"):
        verb.make_bundle(tmp_path / "huge", tmp_path / "b")


def test_model_that_does_not_fit_its_card_is_not_packed(low, tmp_path):
    model, tokenizer, card = load_folder(low)
    save_folder(model, tokenizer, card | {"heads": {"severity": 4}}, tmp_path / "other")
    shutil.copyfile(low / "model.onnx", tmp_path / "other/model.onnx")
    with pytest.raises(BundleError, match="logits"):
        verb.make_bundle(tmp_path / "other", tmp_path / "b")


def test_directory_with_other_things_in_it_is_left_alone(low, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_text("x")
    with pytest.raises(ConfigError, match="other things"):
        verb.make_bundle(low, tmp_path / "photos")
    assert (tmp_path / "photos/1.jpg").exists()


def test_command_packs_seals_signs_and_unpacks(low, tmp_path, capsys, monkeypatch):
    groups = [group for group in root.registered_groups if group.name != "train"]
    monkeypatch.setattr(root, "registered_groups", groups)  # whether or not this checkout is installed
    root.add_typer(train, name="train")

    made, key = tmp_path / "b", tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text("me " + (tmp_path / "key.pub").read_text())
    assert main(["train", "bundle", str(low), "--out", str(made), "--version", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"].startswith("low-9-")
    (made / "card.md").write_text("# mine\n")
    with pytest.raises(BundleError):
        bundles.verify(made, "low")
    assert main(["train", "bundle", str(made), "--seal", "--sign", str(key)]) == 0
    assert bundles.verify(made, "low", key=allowed, signature_required=True).signer == "me"
    assert main(["train", "bundle", str(made), "--unpack", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/hauswart.json").exists()
    assert main(["train", "bundle", str(low)]) == 2
