"""GGUF files of tiny models: llama.cpp reads their tokens, computes as torch does; none is half written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    GPT2Config,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from daemon.command.app import main  # noqa: E402
from daemon.errors import ConfigError, HauswartError, IntegrityError  # noqa: E402
from tests.fixtures import chatter, rows  # noqa: E402
from training import causal, converter, engine, lora, quantizer, verification, vocabulary  # noqa: E402
from training.course import Settings  # noqa: E402
from training.workshop import export as exporting  # noqa: E402
from training.workshop import modelfile  # noqa: E402

needs_engine = pytest.mark.skipif(
    not engine.find_engine(), reason="neither llama-server nor xllamacpp is here"
)
QWEN = vocabulary._QWEN


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with an adapter of a tiny Llama."""
    workdir = tmp_path_factory.mktemp("work")
    base = chatter.save(workdir / "base")
    data = [rows.row(f"what of disk {n}?", "the disk is full", system="Look.") for n in range(8)]
    settings = Settings(max_seq_length=128, learning_rate=1e-2, max_steps=6, bf16=False)
    lora.train_lora(data, [], base, workdir / "output/lora_adapter", settings, sources={"system": "Look."})
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained / "output", tmp_path / "output")
    return tmp_path


def qwen(folder):
    """A tiny Qwen2: biases in attention, its own split, heads not folded."""
    words = chatter.tokenizer()
    split = pre_tokenizers.Split(gguf_regex(QWEN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    torch.manual_seed(1)
    known = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=len(words), intermediate_size=96, tie_word_embeddings=False, **known)
    model = Qwen2ForCausalLM(config).eval()
    for name, one in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(one, std=0.3)
    return _saved(chatter.speaking(model, words, steps=40), words, folder)


def gguf_regex(pattern):
    from tokenizers import Regex  # noqa: PLC0415

    return Regex(pattern)


def mistral(folder):
    """A tiny Mistral with SentencePiece's kind of BPE: bytes for the unknown, a space put before the text."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(vocabulary.SPACE), normalizers.Replace(" ", vocabulary.SPACE)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [chatter.TEXT.replace(" ", vocabulary.SPACE)] * 9
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    )
    plain = json.loads(made.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]  # bytes are pieces, not marks
    made = Tokenizer.from_str(json.dumps(plain))
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(vocabulary.SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=chatter.CHATML_PLAIN,
    )
    words.pad_token = words.eos_token
    torch.manual_seed(2)
    known = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = MistralForCausalLM(
        MistralConfig(vocab_size=len(words), intermediate_size=96, head_dim=16, **known)
    ).eval()
    return _saved(chatter.speaking(model, words, steps=40), words, folder)


def _saved(model, words, folder):
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def families(trained, tmp_path_factory):
    """A folder with a model of each."""
    folder = tmp_path_factory.mktemp("families")
    return {
        "llama": trained / "base",
        "qwen2": qwen(folder / "qwen2"),
        "mistral": mistral(folder / "mistral"),
    }


@needs_engine
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_engine_reads_the_same_tokens_and_computes_what_torch_does(family, families, tmp_path):
    model, words = causal.load_causal(families[family])
    file = converter.convert(families[family], tmp_path / "x.gguf", "f16")
    found = verification.verify(file, model, words, probes=verification.PROBES[1:4], threads=1)
    assert found.steps >= 12
    assert found.agreeing >= 0.98 * found.steps, found
    assert found.difference < 0.02, found


@needs_engine
def test_engine_finds_out_a_file_whose_heads_are_turned_wrongly(families, tmp_path, monkeypatch):
    model, words = causal.load_causal(families["qwen2"])
    monkeypatch.setattr(
        converter,
        "_permuted",
        lambda source, values, *_: values[::-1].copy() if "q_proj" in source else values,
    )
    file = converter.convert(families["qwen2"], tmp_path / "x.gguf", "f16")
    found = verification.verify(file, model, words, probes=verification.PROBES[3:4], threads=1)
    assert found.agreeing < 0.98 * found.steps or found.difference > 0.02


@needs_engine
def test_tokenizer_that_would_be_read_otherwise_is_found_out(families, tmp_path, monkeypatch):
    model, words = causal.load_causal(families["qwen2"])
    read = vocabulary.read_vocabulary
    short = lambda *known: read(*known)._replace(merges=read(*known).merges[:40])  # noqa: E731
    monkeypatch.setattr(vocabulary, "read_vocabulary", short)
    file = converter.convert(families["qwen2"], tmp_path / "x.gguf", "f16")
    with pytest.raises(IntegrityError, match=r"splits .* otherwise than the model"):
        verification.verify(file, model, words, probes=verification.PROBES[3:4], threads=1)


@pytest.mark.parametrize(
    ("kind", "types", "worst"),
    [("f16", {"F16", "F32"}, 1e-3), ("q8_0", {"Q8_0", "F32"}, 0.02), ("q4_0", {"Q4_0", "Q8_0", "F32"}, 0.3)],
)
def test_each_kind_holds_what_its_name_says(kind, types, worst, trained, tmp_path):
    file = converter.convert(trained / "base", tmp_path / "x.gguf", kind)
    assert set(quantizer.types_of(file)) == types
    reader = gguf.GGUFReader(file)
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 2
    assert reader.fields["tokenizer.chat_template"].contents() == chatter.CHATML
    model, _ = causal.load_causal(trained / "base")
    (down,) = [one for one in reader.tensors if one.name == "blk.1.ffn_down.weight"]
    read = torch.tensor(gguf.quants.dequantize(down.data, down.tensor_type))
    weight = model.model.layers[1].mlp.down_proj.weight.detach()
    assert float((read - weight).abs().max() / weight.abs().max()) < worst


def test_other_families_are_refused_with_the_tool_that_knows_them(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="family gpt2") as error:
        converter.convert(tmp_path, tmp_path / "x.gguf", "f16")
    assert "--converter" in error.value.hint
    assert [one.name for one in tmp_path.iterdir()] == ["config.json"]


def test_tokenizer_with_an_unknown_rule_is_refused(trained, tmp_path):
    words = causal.load_tokenizer(trained / "base")
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ConfigError, match="splits texts by a rule"):
        vocabulary.read_vocabulary(words, 500)


@needs_engine
def test_export_merges_writes_and_tries(workdir, capsys):
    arguments = [
        "workshop",
        "export",
        "--workdir",
        str(workdir),
        "--model-name",
        "tiny",
        "--quantization",
        "q8_0",
    ]
    assert main([*arguments, "--json", "--parameter", "temperature=0.3"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["file"].endswith("output/gguf/tiny-q8_0.gguf")
    assert found["verified"]["agreeing"] >= 0.9 * found["verified"]["steps"]
    assert found["verified"]["answer"]
    text = (workdir / "output/gguf/Modelfile").read_text()
    assert text.startswith("FROM ./tiny-q8_0.gguf\nTEMPLATE ")
    assert 'SYSTEM """Look."""' in text
    assert "PARAMETER temperature 0.3" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert (workdir / "output/merged/model.safetensors").is_file()
    before = (workdir / "output/gguf/tiny-q8_0.gguf").stat().st_mtime_ns
    assert main([*arguments, "--no-verify"]) == 0
    assert "is there already, of this adapter" in capsys.readouterr().err
    assert (workdir / "output/gguf/tiny-q8_0.gguf").stat().st_mtime_ns == before


def test_export_can_end_with_the_search_for_parameters(workdir, capsys):
    search = workdir / "search.toml"
    search.write_text(
        'prompt = "what is up"\ntarget = "the disk is full"\ninit_points = 2\nn_iter = 0\nrepeats = 1\n'
        "probe = false\nfixed = { max_tokens = 8 }\n"
    )
    argv = ["workshop", "export", "--workdir", str(workdir), "--quantization", "f16", "--no-verify"]
    assert main([*argv, "--tune", str(search), "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)["tuned"]
    assert set(tuned["params"]) >= {"temperature", "top_p"}
    written = (workdir / "output/gguf/Modelfile").read_text()
    assert f"PARAMETER temperature {tuned['params']['temperature']}" in written
    assert (workdir / "output/gguf/tune-hauswart-f16/search.html").is_file()


def test_merged_model_is_the_adapted_one(workdir):
    exporting.export(workdir / "output/lora_adapter", workdir / "output/gguf", "t", "f16", verify=False)
    merged, words = causal.load_causal(workdir / "output/merged")
    adapted, _ = causal.load_adapted(workdir / "output/lora_adapter")
    ids = torch.tensor([words("what of disk 3?")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)


def test_where_nothing_writes_k_quants_another_kind_is_written_under_its_own_name(workdir, monkeypatch):
    monkeypatch.setattr(quantizer, "find_quantizer", lambda: "")
    said: list[str] = []
    out = workdir / "output/gguf"
    found = exporting.export(workdir / "output/lora_adapter", out, "t", verify=False, tell=said.append)
    assert (found.asked, found.kind) == ("q4_k_m", "q4_0")
    assert found.file.endswith("t-q4_0.gguf")
    assert not list(out.glob("*q4_k_m*"))
    assert "FROM ./t-q4_0.gguf" in (out / "Modelfile").read_text()
    assert "q4_0 is written instead" in said[0]


def test_llama_quantize_on_the_path_is_given_a_file_in_16_bits(workdir, monkeypatch, tmp_path_factory):
    """The program is a stand-in that writes Q8_0: what is asked of it and what becomes of its file."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "llama-quantize"
    script = f'#!/bin/sh\necho "$@" > {folder}/asked\ncp "$1" "$2"\n'
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = exporting.export(workdir / "output/lora_adapter", workdir / "output/gguf", "t", verify=False)
    assert found.file.endswith("t-q4_k_m.gguf")
    source, target, kind = (folder / "asked").read_text().split()
    assert (source.rsplit("/")[-1], target.rsplit("/")[-1], kind) == (
        "t-f16.gguf",
        "t-q4_k_m.gguf.part",
        "q4_k_m",
    )
    assert sorted(one.name for one in (workdir / "output/gguf").iterdir()) == [
        "Modelfile",
        "export.json",
        "t-q4_k_m.gguf",
    ]
    program.write_text("#!/bin/sh\necho no such type >&2\nexit 1\n")
    with pytest.raises(HauswartError, match="llama-quantize cannot write q4_k_m: no such type"):
        quantizer.quantize(workdir / "output/gguf/t-q4_k_m.gguf", workdir / "x.gguf", "q4_k_m")
    assert not list(workdir.glob("x.gguf*"))


def test_without_space_nothing_is_written(workdir, monkeypatch):
    usage = shutil.disk_usage(workdir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 20))
    with pytest.raises(HauswartError, match="GiB free, the export needs"):
        exporting.export(workdir / "output/lora_adapter", workdir / "output/gguf", "t", "f16", verify=False)
    assert not list((workdir / "output").glob("merged*"))
    assert not list((workdir / "output/gguf").iterdir())


def test_conversion_that_breaks_off_leaves_no_file_and_goes_on_from_the_merged_model(workdir, monkeypatch):
    adapter, out = workdir / "output/lora_adapter", workdir / "output/gguf"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
        with pytest.raises(OSError, match="No space left"):
            exporting.export(adapter, out, "t", "f16", verify=False)
    assert not list(out.glob("t-*"))
    said: list[str] = []
    exporting.export(adapter, out, "t", "f16", verify=False, tell=said.append)
    assert any("merged is there already" in one for one in said)
    assert (out / "t-f16.gguf").is_file()


def test_another_adapter_is_exported_anew(workdir):
    adapter, out = workdir / "output/lora_adapter", workdir / "output/gguf"
    exporting.export(adapter, out, "t", "f16", verify=False)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 64}))
    said: list[str] = []
    exporting.export(adapter, out, "t", "f16", verify=False, tell=said.append)
    assert not any("is there already" in one for one in said)


def test_converter_of_ones_own_is_run_with_the_merged_model(trained, workdir, tmp_path_factory):
    script = tmp_path_factory.mktemp("tool") / "convert_hf_to_gguf.py"
    made = converter.convert(trained / "base", script.with_name("made.gguf"), "f16")
    script.write_text(
        "import sys, shutil\n"
        "assert sys.argv[1].endswith('merged') and sys.argv[-2:] == ['--outtype', 'f16'], sys.argv\n"
        f"shutil.copy({str(made)!r}, sys.argv[sys.argv.index('--outfile') + 1])\n"
    )
    out = workdir / "output/gguf"
    found = exporting.export(
        workdir / "output/lora_adapter", out, "t", "f16", verify=False, converter_script=script
    )
    assert quantizer.types_of(out / "t-f16.gguf") == found.types
    script.write_text("raise SystemExit('unknown architecture')")
    with pytest.raises(HauswartError, match="unknown architecture"):
        exporting.export(
            workdir / "output/lora_adapter", out, "u", "f16", verify=False, converter_script=script
        )
    assert not list(out.glob("u-*"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--quantization", "q9"], 2, "no quantization 'q9'"),
        (["--model-name", "../x"], 2, "is no model's name"),
        (["--adapter-dir", "/nonexistent"], 2, "holds no adapter"),
        (["--quantization", "f16", "--parameter", "temperature"], 2, "is no parameter"),
        (["--quantization", "f16", "--base", "/nonexistent"], 2, "/nonexistent"),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments, code, said, workdir, capsys):
    assert main(["workshop", "export", "--workdir", str(workdir), "--no-verify", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@needs_engine
def test_file_that_is_none_is_refused_by_the_engine(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(HauswartError, match="cannot load"), engine.open_engine(tmp_path / "x.gguf"):
        pass


def test_modelfile_quotes_and_leaves_an_unknown_template_out():
    text = modelfile.write("x.gguf", "{{ unknown }}", system='say """no"""')
    assert "TEMPLATE" not in text
    assert "stop" not in text
    assert "SYSTEM \"\"\"say '''no'''\"\"\"" in text
    for name, mark in (("llama3", "<|start_header_id|>"), ("zephyr", "<|user|>"), ("mistral", "[INST]")):
        assert modelfile.dialect_of(f"..{mark}..") is modelfile.DIALECTS[name]


@pytest.mark.skipif(shutil.which("ollama") is None, reason="ollama is not installed")
def test_ollama_takes_the_model_and_answers(workdir):
    exporting.export(
        workdir / "output/lora_adapter", workdir / "output/gguf", "hauswart-test", "q8_0", verify=False
    )
    assert exporting.create_in_ollama("hauswart-test", workdir / "output/gguf", print)


def test_without_ollama_that_is_said(workdir, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(HauswartError, match="ollama is not installed"):
        exporting.create_in_ollama("x", workdir, print)
