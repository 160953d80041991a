"""What a bundle must be before anything in it is believed; everything else is refused in one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import subprocess

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import bundle as bundles
from models import graph
from models.errors import BundleError, IntegrityError
from tests.fixtures.bundles import classifier_model, config, contents, make_bundle, seal


@pytest.fixture
def low(tmp_path):
    return make_bundle(tmp_path / "low")


def refused(directory, tier="low", **options):
    with pytest.raises(BundleError) as caught:
        bundles.verify(directory, tier, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("tier", ["low", "middle"])
def test_whole_bundle_is_accepted(tmp_path, tier):
    found = bundles.verify(make_bundle(tmp_path / tier, tier, "7"), tier)
    assert found.name.startswith(f"{tier}-7-")
    assert found.manifest.metrics == {"macro_f1": 0.5}
    assert found.config.heads == config(tier)["heads"]
    assert found.size_bytes == sum(path.stat().st_size for path in found.directory.iterdir())


def test_bundle_may_be_reached_through_a_link(low, tmp_path):
    (tmp_path / "current").symlink_to("low")
    assert bundles.verify(tmp_path / "current", "low").directory == low


def test_refusal_is_an_integrity_error_with_exit_code_4():
    assert issubclass(BundleError, IntegrityError)
    assert BundleError("x").exit_code == 4


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.onnx", "tokenizer.json", "config.json", "weights.safetensors", "card.md"]
)
def test_flipped_bits_are_refused_wherever_they_are(low, name):
    path, draw = low / name, random.Random(f"flip {name}")
    whole = path.read_bytes()
    for at in [0, len(whole) - 1, *draw.choices(range(len(whole)), k=30)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        assert name in refused(low) or name == "manifest.json"
    path.write_bytes(whole)
    bundles.verify(low, "low")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json", "weights.safetensors"])
def test_truncated_file_is_refused(low, name):
    whole = (low / name).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (low / name).write_bytes(whole[:size])
        assert name in refused(low)


def test_nothing_is_parsed_before_its_hash_was_compared(low, monkeypatch):
    def parsed(*_):
        pytest.fail("a damaged file was parsed")

    (low / "config.json").write_bytes(b"{" * 100)
    monkeypatch.setattr(bundles, "_read_config", parsed)
    monkeypatch.setattr(bundles, "_check_contents", parsed)
    assert "is damaged" in refused(low)


def test_wrong_tier_is_refused(low):
    assert "of the low tier, not of the middle tier" in refused(low, "middle")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2 is newer"),
        ({"format": 0}, "format 0"),
        ({"features_version": 99}, "version 99 of the features"),
        ({"taxonomy_version": 99}, "version 99 of the taxonomy"),
        ({"version": "../../etc"}, "is no version"),
        ({"version": ".."}, "is no version"),
        ({"files": {}}, "not in the manifest"),
        ({"files": {"../low/model.onnx": "0" * 64}}, "no file that a bundle has"),
    ],
)
def test_manifest_that_this_version_cannot_follow_is_refused(low, change, says):
    seal(low, **({"tier": "low", "version": "1"} | change))
    assert says in refused(low)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b"{" * 5000,
        b'{"format": "1"}',
        b'{"format": 1}',
        b"\xff\xfe",
        b"[" * 100000,
    ],
)
def test_manifest_that_is_none_is_refused(low, raw):
    (low / "manifest.json").write_bytes(raw)
    assert "manifest.json" in refused(low)


def test_edited_manifest_is_refused_and_may_be_sealed_anew(low):
    path = low / "manifest.json"
    path.write_text(path.read_text().replace('"macro_f1": 0.5', '"macro_f1": 0.9'))
    assert "digest" in refused(low)
    path.write_bytes(bundles.render_manifest(bundles.read_manifest(low)))
    assert bundles.verify(low, "low").manifest.metrics == {"macro_f1": 0.9}


def test_manifest_with_an_unknown_entry_is_refused(low):
    path = low / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_this": "rm"}))
    assert "run_this" in refused(low)


def test_oversized_manifest_is_refused(low):
    seal(low, tier="low", version="1", metrics={"x": "y" * bundles.MAX_MANIFEST_BYTES})
    assert "more than" in refused(low)


def test_oversized_file_is_refused_unread(low):
    with (low / "model.onnx").open("r+b") as file:
        file.truncate((1 << 30) + 1)  # sparse
    assert "more than" in refused(low)


# --- code instead of data -----------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def zipped():
    import torch  # noqa: PLC0415

    file = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["weights.pth", "pytorch_model.bin", "model.pkl", "x.joblib", "model.pt"])
def test_pickle_is_refused_by_its_name(low, name):
    (low / name).write_bytes(b"harmless")
    seal(low, tier="low", version="1")
    assert "pickle" in refused(low)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "weights.safetensors", "config.json"])
def test_pickle_under_another_name_is_refused_by_its_content(tmp_path, name, protocol):
    made = make_bundle(tmp_path / "b", files={name: pickle.dumps(Bomb(), protocol)})
    assert name in refused(made)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "card.md"])
def test_torch_archive_under_another_name_is_refused(tmp_path, name):
    archive = b"PK\x03\x04" + bytes(200)  # the beginning of what torch.save writes
    assert "pickle" in refused(make_bundle(tmp_path / "b", files={name: archive}))


def test_torch_still_writes_what_is_refused():
    assert zipped().startswith(b"PK\x03\x04")


def test_safetensors_header_that_begins_like_a_pickle_is_accepted(tmp_path):
    from safetensors.numpy import save  # noqa: PLC0415

    raw = save({"w": np.zeros(4, np.float16)}, {"padding": "x" * 500})
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    head["__metadata__"]["padding"] = ""
    short = json.dumps(head).encode()
    head["__metadata__"]["padding"] = "x" * (0x280 - len(short))
    text = json.dumps(head).encode()
    assert len(text).to_bytes(8, "little")[:2] == b"\x80\x02"
    bundles.verify(
        make_bundle(
            tmp_path / "b", files={"weights.safetensors": (0x280).to_bytes(8, "little") + text + bytes(8)}
        ),
        "low",
    )


def test_weights_that_do_not_fill_their_file_are_refused(tmp_path):
    weights = contents("low")["weights.safetensors"]
    assert "fill" in refused(make_bundle(tmp_path / "b", files={"weights.safetensors": weights + b"code"}))


# --- what is not in the directory ---------------------------------------------------------------------------


def test_symbolic_link_in_a_bundle_is_refused(low, tmp_path):
    outside = tmp_path / "elsewhere"
    (low / "card.md").rename(outside)
    (low / "card.md").symlink_to(outside)
    assert "symbolic link" in refused(low)


def test_fifo_in_a_bundle_is_refused_at_once(low):
    (low / "card.md").unlink()
    os.mkfifo(low / "card.md")
    assert "not a regular file" in refused(low)


def test_file_that_the_manifest_does_not_list_is_refused(low):
    (low / "LICENSE").write_text("x")
    assert "not in the manifest" in refused(low)
    (low / "LICENSE").unlink()
    (low / "extra").mkdir()
    assert "no file that a bundle has" in refused(low)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_bundle_without_a_needed_file_is_refused(tmp_path, name):
    assert name in refused(make_bundle(tmp_path / "b", files={name: None}))


def test_listed_file_that_is_gone_is_refused(low):
    (low / "card.md").unlink()
    assert "card.md does not exist" in refused(low)


def test_directory_that_is_not_there_is_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "none")


def test_changed_file_is_noticed_when_it_is_read(low):
    found = bundles.verify(low, "low")
    (low / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="changed after"):
        found.read("model.onnx")


# --- the model against its configuration --------------------------------------------------------------------


def test_weights_outside_the_model_file_are_refused(tmp_path):
    model = classifier_model(15)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    assert "another file" in refused(
        make_bundle(tmp_path / "b", files={"model.onnx": model.SerializeToString()})
    )


def test_weights_outside_are_found_in_a_branch_and_in_a_function(tmp_path):
    outside = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    branch = onnx.helper.make_graph([], "branch", [], [], [outside])
    constant = onnx.NodeProto(op_type="Constant")
    constant.attribute.add(name="value", t=outside, type=onnx.AttributeProto.TENSOR)
    in_branch, in_function = classifier_model(15), classifier_model(15)
    in_branch.graph.node[0].attribute.add(name="then", g=branch, type=onnx.AttributeProto.GRAPH)
    in_function.functions.add(name="f", node=[constant])
    for model in (in_branch, in_function):
        assert graph.read_graph(model.SerializeToString()).external == ["w"]


def test_model_with_fewer_logits_than_heads_is_refused(tmp_path):
    raw = classifier_model(14).SerializeToString()
    assert "logits" in refused(make_bundle(tmp_path / "b", files={"model.onnx": raw}))


def test_model_with_other_inputs_is_refused(tmp_path):
    raw = contents("top")["model.onnx"]
    assert "inputs" in refused(make_bundle(tmp_path / "b", files={"model.onnx": raw}))


def test_configuration_of_another_kind_is_refused(tmp_path):
    raw = json.dumps(config("top")).encode()
    assert "classifier" in refused(make_bundle(tmp_path / "b", files={"config.json": raw}))


def test_runtime_format_of_onnxruntime_is_refused(tmp_path):
    raw = b"\x08\x00\x00\x00ORTM" + bytes(100)
    assert "own format" in refused(make_bundle(tmp_path / "b", files={"model.onnx": raw}))


def test_graph_reader_agrees_with_onnx(tmp_path):
    raw = contents("low")["model.onnx"]
    found, told = graph.read_graph(raw), onnx.load_from_string(raw).graph
    assert set(found.inputs) == {one.name for one in told.input}
    assert found.outputs == {"logits": graph.Port(graph.FLOAT, (-1, 15))}
    assert sum(found.operators.values()) == len(told.node)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2000))
def test_graph_reader_survives_any_bytes(noise, at):
    whole = bytearray(classifier_model(4).SerializeToString()[:2000])
    whole[at : at + len(noise)] = noise
    for raw in (noise, bytes(whole)):
        with contextlib.suppress(BundleError):
            graph.read_graph(raw)


# --- signatures ---------------------------------------------------------------------------------------------


@pytest.fixture
def signers(tmp_path):
    """A key, and the file that allows it to sign."""
    for name in ("key", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True
        )
    allowed = tmp_path / "allowed"
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    allowed.write_text(f'builder@example.org namespaces="hauswart-bundle" {public}\n')
    return tmp_path / "key", tmp_path / "stranger", allowed


def signed(directory, key):
    from models.signature import sign  # noqa: PLC0415

    (directory / "manifest.sig").write_bytes(sign((directory / "manifest.json").read_bytes(), key))


def test_signature_of_an_allowed_signer_is_accepted_and_named(low, signers):
    signed(low, signers[0])
    found = bundles.verify(low, "low", key=signers[2], signature_required=True)
    assert found.signer == "builder@example.org"


def test_missing_signature_is_refused_where_one_is_required(low, signers):
    assert "not signed" in refused(low, key=signers[2], signature_required=True)
    assert bundles.verify(low, "low", key=signers[2]).signer == ""


def test_signature_of_a_stranger_is_refused(low, signers):
    signed(low, signers[1])
    assert "allowed signer" in refused(low, key=signers[2])


def test_signature_of_another_manifest_is_refused(low, tmp_path, signers):
    other = make_bundle(tmp_path / "other", version="2")
    signed(other, signers[0])
    (other / "manifest.sig").rename(low / "manifest.sig")
    assert "not the signature" in refused(low, key=signers[2], signature_required=True)


def test_signature_cannot_be_required_without_saying_who_may_sign(low, signers):
    signed(low, signers[0])
    assert "nobody may sign" in refused(low, signature_required=True)
    assert "does not exist" in refused(low, key=low / "none", signature_required=True)


@pytest.mark.parametrize("raw", [b"", b"-----BEGIN SSH SIGNATURE-----\n", b"\0" * 1000])
def test_signature_that_is_none_is_refused(low, signers, raw):
    (low / "manifest.sig").write_bytes(raw)
    assert "manifest.sig" in refused(low, key=signers[2])
