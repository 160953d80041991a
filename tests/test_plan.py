"""The planner: what fits, what it costs, what to take, and the files that it writes."""

import json
import re
import string

import pytest
import yaml

from daemon.command.app import main
from daemon.errors import ConfigError
from tests.fixtures.chat import Reply, completion, serve
from tests.fixtures.planning import CARD, PLAIN, named
from training.adapters import attach
from training.workshop import settings
from training.workshop.plan import tokens
from training.workshop.planning import catalogue, wording, written
from training.workshop.planning.costs import Scenario
from training.workshop.planning.verdict import make_plan

SOURCE = Scenario(200e6, 40e6, sensitive=True, terms=True, rank=8)  # articles of science, many of them


@pytest.fixture(scope="module")
def known():
    return catalogue.load()


# --- the recommendation -------------------------------------------------------------------------------------


def test_scenario_of_the_source_gets_a_local_model_with_lora(known):
    """24 GB, 7 billion parameters (German: Milliarden) at 4 bits, sensitive articles, much to read."""
    plan = make_plan(known, CARD, SOURCE)
    assert plan.choice == "local"
    assert 7e9 < plan.local.fit.model.parameters < 9e9
    assert plan.local.fit.quantization.name == "Q4_K_M"
    assert plan.local.training.method == "qlora"
    for name in ("Mistral-7B-v0.1", "Meta-Llama-3-8B"):
        found = next(one for one in plan.candidates if one.fit.model.name == name)
        assert (found.fit.fits, found.why_not, found.training.method) == (True, "", "qlora")
        assert found.fit.memory_gib < 7
    turbo = plan.services[0]
    assert turbo.why_not == "training"
    assert turbo.cost.total(24) > 10 * plan.local.cost.total(24)
    said = " ".join(wording.reasons(plan, "de"))
    for part in ("vertraulich", "Feintuning", "Adapter lässt sich teilen", "ist da und bezahlt", "Token"):
        assert part in said


def test_little_volume_that_is_not_sensitive_goes_to_the_api(known):
    plan = make_plan(known, CARD, Scenario(1e6, 1e5))
    assert plan.choice == "api"
    assert plan.break_even_tokens > 1.1e6


def test_much_volume_makes_the_local_model_the_cheaper_one(known):
    plan = make_plan(known, CARD, Scenario(900e6, 90e6))
    assert plan.choice == "local"
    assert plan.local.cost.total(24) < plan.service.cost.total(24)


def test_sensitive_texts_and_a_machine_that_cannot_get_neither_and_are_told_what_would_do(known):
    plan = make_plan(known, PLAIN, SOURCE)
    assert plan.choice == "neither"
    names = [name for name, _ in wording.reasons_of(plan)]
    assert names[0] == "reason_sensitive_api"
    assert "reason_need" in names
    assert "RTX" in " ".join(wording.reasons(plan, "en"))


def test_machine_without_room_says_so(known):
    tiny = PLAIN._replace(ram_gib=2.0)
    plan = make_plan(known, tiny, Scenario(1e6, 1e5))
    assert plan.choice == "api"
    assert wording.reasons_of(plan)[0][0] == "reason_no_fit"


def test_base_model_that_is_not_tuned_answers_nobody(known):
    found = {one.fit.model.name: one.why_not for one in make_plan(known, CARD, Scenario(1e6, 1e5)).candidates}
    assert found["Mistral-7B-v0.1"] == "base"
    assert found["Qwen2.5-7B-Instruct"] == ""


def test_who_waits_gets_no_slow_model(known):
    slow = PLAIN._replace(gflops=1e6)
    patient = make_plan(known, slow, Scenario(1e5, 1e5))
    waiting = make_plan(known, slow, Scenario(1e5, 1e5, interactive=True))
    assert named(patient.candidates, "Qwen2.5").why_not == ""
    assert named(waiting.candidates, "Qwen2.5").why_not == "slow-wait"


# --- adapters and files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """A model of Mistral's kind, two layers deep."""
    from transformers import MistralConfig, MistralForCausalLM  # noqa: PLC0415 - seconds

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
    return lambda: MistralForCausalLM(MistralConfig(**shape, num_attention_heads=4, num_key_value_heads=2))


def sources_config():
    """As the source document has it."""
    from peft import LoraConfig  # noqa: PLC0415 - seconds

    return LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj", "k_proj", "o_proj"],
        lora_dropout=0.05,
        bias="none",
        task_type="CAUSAL_LM",
    )


def test_preset_lab2_attaches_exactly_the_source_s_adapter(tiny):
    from peft import get_peft_model  # noqa: PLC0415 - seconds

    ours, theirs = attach(tiny(), "lora", "lab2"), get_peft_model(tiny(), sources_config())
    assert ours.peft_config["default"].to_dict() == theirs.peft_config["default"].to_dict()
    assert {name for name, one in ours.named_parameters() if one.requires_grad} == {
        name for name, one in theirs.named_parameters() if one.requires_grad
    }


def test_written_adapter_configuration_is_read_by_peft_as_the_source_s(known, tiny, tmp_path):
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - seconds

    plan = make_plan(known, CARD, SOURCE)
    written.write(tmp_path, "lab2", plan.local.training, 3.0)
    read = LoraConfig.from_pretrained(str(tmp_path))
    assert read.base_model_name_or_path == plan.local.fit.model.hub
    expected = sources_config().to_dict() | {"base_model_name_or_path": read.base_model_name_or_path}
    assert read.to_dict() == expected
    get_peft_model(tiny(), read).save_pretrained(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()


def test_workshop_configuration_has_the_reference_s_keys_and_what_fits(known, tmp_path):
    plan = make_plan(known, CARD, SOURCE._replace(rank=16))
    written.write(tmp_path, "scheduler", plan.local.training, 3.0)
    read = settings.load(tmp_path / written.CONFIG)  # as `hauswart workshop train --config` does
    assert (read.base_model, read.training.batch_size) == (plan.local.fit.model.hub, 1)
    assert read.training.gradient_checkpointing
    found = yaml.safe_load((tmp_path / written.CONFIG).read_text())
    assert found == {
        "model": {"base_model": "Qwen/Qwen2.5-7B-Instruct", "quantization": "4bit", "max_seq_length": 4096},
        "lora": {"rank": 16, "alpha": 16, "dropout": 0},
        "training": {
            "epochs": 3,
            "batch_size": 1,
            "gradient_accumulation_steps": 8,
            "gradient_checkpointing": True,
            "learning_rate": 2e-4,
            "lr_scheduler": "cosine",
        },
        "data": {"train_split": 0.9, "max_samples": 0},
    }


# --- words --------------------------------------------------------------------------------------------------


def test_both_languages_say_the_same_things():
    words = wording.words()
    assert words["en"].keys() == words["de"].keys()
    for name, english in words["en"].items():
        holes = [
            {hole for _, hole, _, _ in string.Formatter().parse(text) if hole}
            for text in (english, words["de"][name])
        ]
        assert holes[0] == holes[1], name


def test_table_compares_what_the_source_compares(known):
    plan = make_plan(known, CARD, SOURCE)
    german = wording.table(plan, "de")
    assert [row[0] for row in german] == ["Leistung", "Kosten", "Datenschutz", "Wartung"]
    assert "eigenen Netz" in german[2][1]
    assert "Anbieter" in german[2][2]
    assert len(wording.table(plan, "en")) == 4


# --- the command --------------------------------------------------------------------------------------------

CARD_OPTIONS = ("--gpu-gib", "24", "--gpu", "RTX 3090", "--sensitive", "--terms", "--tokens-in", "200M")


@pytest.fixture
def _offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.usefixtures("_offline")
def test_command_gives_a_flat_object_and_writes_the_files(tmp_path, capsys):
    assert (
        main(["workshop", "plan", *CARD_OPTIONS, "--preset", "lab2", "--out", str(tmp_path), "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert (found["choice"], found["quantization"], found["method"]) == ("local", "Q4_K_M", "qlora")
    rows = {"candidates", "apis", "table_en", "table_de"}
    assert {key for key, value in found.items() if isinstance(value, list | dict)} == rows | {
        "reasons_en",
        "reasons_de",
        "files",
    }
    for row in (row for key in rows for row in found[key]):
        assert all(not isinstance(value, dict) for value in row.values())
    assert {"Mistral-7B-v0.1", "Meta-Llama-3-8B", "Qwen2.5-7B-Instruct", "TinyLlama-1.1B"} < {
        row["model"] for row in found["candidates"]
    }
    assert all(row["date"] and row["source"] for row in (*found["candidates"], *found["apis"]))
    assert json.loads((tmp_path / written.ADAPTER).read_text())["r"] == 8


@pytest.mark.parametrize("lang", ["en", "de"])
def test_screen_fits_eighty_columns_in_both_languages(lang, capsys):
    assert main(["workshop", "plan", *CARD_OPTIONS, "--lang", lang]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert ("Empfehlung" if lang == "de" else "Recommendation") in text
    assert "Mistral-7B-v0.1" in text


def test_edited_list_is_what_counts(tmp_path, capsys):
    text = catalogue.SHIPPED.read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace("input = 10.0", "input = 0.01").replace("input = 0.15", "input = 0.01"))
    assert main(["workshop", "plan", "--gpu-gib", "24", "--models", str(mine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["apis"][0]["month"] < 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tokens-in", "many"], "--tokens-in 'many' is no number of tokens"),
        (["--tokens-out", "-5M"], "out of range"),
        (["--tokens-in", "nan"], "out of range"),
        (["--lang", "fr"], "--lang 'fr'"),
        (["--preset", "lab3"], "--preset 'lab3'"),
        (["--gpu", "RTX 3090"], "without its size"),
        (["--served", "x:y"], "--served without --url"),
        (["--models", "/nonexistent.toml"], "cannot be read"),
        (["--url", "http://127.0.0.1:1", "--served", "nobody:Q4_K_M"], "is no NAME:QUANTIZATION"),
        (["--months", "0"], "Invalid value"),
    ],
)
def test_wrong_option_is_named_with_exit_code_two(options, says, capsys):
    gpu = [] if "--gpu" in options else ["--gpu-gib", "24"]
    assert main(["workshop", "plan", *gpu, *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("input = 10.0", "input = -1.0", "$.api[0].input"),
        ("hidden = 4096", 'hidden = "wide"', "$.model[0].hidden"),
        ("mmlu = 60.1", "mlmu = 60.1", "mlmu"),
        ('name = "Meta-Llama-3-8B"', 'name = "Mistral-7B-v0.1"', "is there twice"),
        ('date = "2026-11-27"', 'date = "lately"', "$.date"),
        ("[[model]]", "[[model", "list of models"),
    ],
)
def test_wrong_row_of_a_list_is_named(old, new, says, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(catalogue.SHIPPED.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=re.escape(says)):
        catalogue.load(path)


def test_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["workshop", "plan", *CARD_OPTIONS, "--out", str(tmp_path / "file/x")]) == 1
    assert "file/x/adapter_config.json cannot be written" in capsys.readouterr().err


def test_full_disk_is_no_lack_of_memory(known):
    plan = make_plan(known, CARD._replace(disk_gib=0.01), SOURCE)
    assert "The disk has 0.0 GiB left" in " ".join(wording.reasons(plan, "en"))


def test_served_model_calibrates_the_expectation(capsys):
    def script(body):
        text = "word " * 64 if body["max_tokens"] > 1 else "a"
        usage = {"prompt_tokens": 500, "completion_tokens": 64}
        return Reply(raw=completion(text, usage=usage), delay_s=0.05)

    options = ["--gpu-gib", "24", "--served", "Mistral-7B-v0.1:Q4_K_M", "--json"]
    with serve(script) as server:
        assert main(["workshop", "plan", *options, "--url", server.url]) == 0
    heard = capsys.readouterr()
    assert len(server.asked) == 6
    assert "expected" in heard.err
    found = json.loads(heard.out)["candidates"][0]
    assert 200 < found["answer_tokens_s"] < 1300


def test_served_model_elsewhere_needs_consent(capsys):
    options = ["--gpu-gib", "24", "--served", "Mistral-7B-v0.1:Q4_K_M", "--url", "https://api.example.org"]
    assert main(["workshop", "plan", *options]) == 2
    assert "nothing says that prompts may leave it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"), [("200k", 2e5), ("1.5M", 1.5e6), ("1G", 1e9), ("7", 7.0), ("0", 0.0)]
)
def test_tokens_are_written_as_people_do(text, value):
    assert tokens("--tokens-in", text) == value
