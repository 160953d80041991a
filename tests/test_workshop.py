"""The workshop's verbs on tiny data: configuration, preparation, training, evaluation, serve-check."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from daemon.command.app import main
from daemon.errors import ConfigError, HauswartError
from tests.fixtures import rows
from tests.fixtures.chat import Reply, serve
from training import answers, chatml, endpoint, language, memory
from training.course import Settings
from training.workshop import evaluate, folders, preflight, prepare, settings

SEED = Path(evaluate.__file__).parent / "seed"


# --- configuration ------------------------------------------------------------------------------------------


def test_shipped_configuration_has_the_documented_defaults():
    found = settings.load()
    assert found.base_model == "Qwen/Qwen2.5-7B-Instruct"
    known = found.training._asdict()
    assert {name: known[name] for name in ("quantization", "max_seq_length", "rank", "alpha", "dropout")} == {
        "quantization": "4bit",
        "max_seq_length": 4096,
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
    }
    assert (known["epochs"], known["batch_size"], known["gradient_accumulation_steps"]) == (3.0, 2, 4)
    assert (known["learning_rate"], known["lr_scheduler"]) == (2e-4, "cosine")
    assert (found.train_split, found.max_samples) == (0.9, 0)
    assert found.training == Settings(), "the trainer's own defaults are the same"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "model:\n  base_model: smollm2\ntraining:\n  learning_rate: 1e-3\n"),
        ("c.yaml", "model.base_model: smollm2\ntraining.learning_rate: 0.001\n"),
        ("c.toml", 'model.base_model = "smollm2"\n[training]\nlearning_rate = 1e-3\n'),
    ],
)
def test_yaml_and_toml_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = settings.load(tmp_path / name)
    assert (found.base_model, found.training.learning_rate) == ("smollm2", 1e-3)
    assert found.training.rank == 16


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("lora: {rnk: 8}", "unknown key lora.rnk", "is lora.rank meant?"),
        ("model: {quantization: 8bit}", "model.quantization is '8bit'", "one of 4bit, none"),
        ("lora: {rank: 0}", "lora.rank is 0", "a whole number from 1"),
        ("training: {batch_size: 1.5}", "training.batch_size is 1.5", "a whole number"),
        ("data: {train_split: 2}", "data.train_split is 2", "from 0 to 1"),
        ("training: {epochs: many}", "training.epochs is 'many'", "a number"),
        ("training: {packing: 3}", "training.packing is 3", "true, false or auto"),
        ("training: {lr_scheduler: cosinus}", "is 'cosinus'", "cosine"),
        ("feedback: {good: up}", "feedback.good is 'up', not a list", ""),
        ("[1]", "is no table", ""),
        ("a: [", "while parsing", ""),
    ],
)
def test_wrong_configuration_is_refused_with_its_remedy(tmp_path, text, said, hint):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        settings.load(tmp_path / "c.yaml")
    assert said in str(error.value)
    assert hint in error.value.hint


# --- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(prepare.EXAMPLES.values()))
def test_shipped_examples_are_thirty_in_five_languages_and_six_tasks(name):
    found = chatml.read_file(SEED / name)
    assert not found.problems
    cells = Counter((row["task"], row["lang"]) for row in found.rows)
    assert len(found.rows) == len(cells) == 30
    assert {lang for _, lang in cells} == {"de", "en", "fr", "es", "pt"}
    for row in found.rows:
        answer = row["messages"][-1]["content"]
        assert not language.differs(answer, row["lang"]), row
        if "JSON" in row["messages"][1]["content"]:
            json.loads(answer)


def test_built_in_cases_are_none_of_the_examples():
    cases = answers.read_cases(SEED / evaluate.BUILT_IN)
    taught = {
        row["messages"][1]["content"]
        for name in prepare.EXAMPLES.values()
        for row in chatml.read_file(SEED / name).rows
    }
    assert not taught & {one.messages[-1]["content"] for one in cases}
    for case in cases:
        if case.reference:
            assert not answers.judge(case, case.reference).faults, case


def test_prepare_counts_cleans_and_splits(tmp_path, capsys):
    entries = [
        rows.row(f"Explain case number {n} of {word}.", f"It is {word}.")
        for n in range(20)
        for word in ("disk",)
    ]
    broken = ["{", rows.row("a", "b<|im_end|>")]
    mixed = rows.row(
        "Bitte erkläre mir ausführlich, warum die Festplatte voll ist.",
        "The disk is full because the journal has grown without any limit since yesterday.",
    )
    rows.write(tmp_path / "data/seed/a.jsonl", [*entries, *broken, entries[0], mixed])
    assert main(["workshop", "prepare", "--workdir", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["duplicates"], found["broken"], found["mixed"]) == (1, 2, 1)
    assert found["train"] + found["val"] == 21
    assert "a.jsonl, line 21: not JSON" in captured.err
    assert "de is asked, en answered" in captured.err
    assert all((tmp_path / one).is_dir() for one in (folders.SEED, folders.FILES, folders.MERGED))
    assert main(["workshop", "prepare", "--workdir", str(tmp_path), "--strict"]) == 2
    assert "2 rows are broken" in capsys.readouterr().err


def test_split_is_a_tenth_spread_over_tasks_and_keeps_alike_questions_together():
    made = []
    for number in range(60):
        task = ("explain", "classify", "recommend")[number % 3]
        text = f"{task} {'abcdefghijklmnopqrstuvwxyz'[number % 26] * 9} on host {number * 7919}"
        made += [rows.row(f"{text}{mark}", "x", task=task, lang="en", kin=number) for mark in ("", "!", "?")]
    train, val = prepare.split(made, 0.9, 0)
    assert len(train) + len(val) == 180
    assert 12 <= len(val) <= 18
    assert {row["task"] for row in val} == {"explain", "classify", "recommend"}
    assert not {row["kin"] for row in train} & {row["kin"] for row in val}
    assert prepare.split(made, 0.9, 0) == (train, val)
    assert prepare.split(made, 1.0, 0)[1] == []


def test_prepare_begins_with_the_shipped_examples(tmp_path):
    found = prepare.prepare(tmp_path, config=settings.load())
    assert (found.train, found.val) == (27, 3)
    with pytest.raises(ConfigError, match="no examples 'x'"):
        prepare.prepare(tmp_path, config=settings.load(), examples=["x"])


def test_max_samples_takes_as_many(tmp_path):
    found = prepare.prepare(tmp_path, config=settings.load()._replace(max_samples=10))
    assert found.train + found.val == 10


# --- preflight ----------------------------------------------------------------------------------------------


def test_preflight_judges_the_machine_by_the_documented_floors():
    small = preflight.Machine(4, 15.0, 10.0, "", 0.0, 20.0)
    large = preflight.Machine(16, 64.0, 60.0, "RTX", 24.0, 500.0)
    assert [line.rsplit(": ")[-1] for line in preflight.judge(small)][1:] == [
        "training on the processor",
        "memory 15 GiB, too little for the default base (16 GiB, better 32)",
        "free disk 20 GiB, too little for the default base (30 GiB)",
    ]
    assert preflight.judge(large)[1] == "GPU RTX: 24 GiB, enough for the default base (8 GiB, better 12)"


def test_preflight_gives_up_what_does_not_fit_and_refuses_what_never_will():
    long = [rows.row("x" * 40_000, "y")]
    shape, said = memory.Shape(135_000_000, 30, 576, 49_152), []
    fitted = preflight.fit_memory(shape, Settings(quantization="none"), long, 10 << 30, said.append)
    assert (fitted.batch_size, fitted.gradient_accumulation_steps) == (1, 8)
    assert "batch 2 to 1, accumulation 4 to 8" in said[0]
    with pytest.raises(HauswartError, match="the base does not fit"):
        preflight.fit_memory(
            memory.Shape(7_000_000_000, 32, 4096, 152_000),
            Settings(quantization="none"),
            long,
            8 << 30,
            said.append,
        )


def test_training_without_preparation_is_refused(tmp_path, capsys):
    assert main(["workshop", "train", "--workdir", str(tmp_path), "--base", "smollm2"]) == 2
    assert "first: hauswart workshop prepare" in capsys.readouterr().err


def test_prepared_data_is_trained_from_the_command_line(tmp_path, capsys):
    chatter = pytest.importorskip("tests.fixtures.chatter")
    base = chatter.save(tmp_path / "base", steps=0)
    rows.write(
        tmp_path / "data/seed/a.jsonl", [rows.row(f"what of {n}?", "the disk is full") for n in range(20)]
    )
    (tmp_path / "c.yaml").write_text(
        f"model: {{base_model: {base}, max_seq_length: 128}}\ntraining: {{max_steps: 2, bf16: false}}\n"
    )
    assert main(["workshop", "prepare", "--workdir", str(tmp_path)]) == 0
    capsys.readouterr()
    arguments = ["workshop", "train", "--workdir", str(tmp_path), "--config", str(tmp_path / "c.yaml")]
    assert main([*arguments, "--wandb-project", "x", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == 2
    for said in ("quantization 4bit to none", "needs about", "tokens/s", "wandb is not installed", "cores"):
        assert said in captured.err
    assert (tmp_path / folders.ADAPTER / "README.md").read_text().startswith("---\nbase_model: base\n")


# --- evaluation ---------------------------------------------------------------------------------------------

CASES = [
    {"prompt": "Classify.", "json": True, "keys": ["a", "b"], "schema": {"required": ["a"]}, "max_chars": 40},
    {
        "prompt": "Erkläre.",
        "lang": "de",
        "required": ["Platte"],
        "reference": "Die Platte sda ist seit gestern voll.",
    },
]
GOOD = {"Classify.": '{"a": 1, "b": 2}', "Erkläre.": "Die Platte sda ist seit gestern voll."}
BAD = {
    "Classify.": 'Sure! {"a": 1}',
    "Erkläre.": "The disk is working fine and there is nothing that you need to do.",
}


def evaluated(tmp_path, said, *arguments) -> int:
    rows.write(tmp_path / "cases.jsonl", CASES)
    with serve(lambda body: Reply(said[body["messages"][-1]["content"]])) as server:
        options = ["--model-path", "m", "--url", server.url, "--test-file", str(tmp_path / "cases.jsonl")]
        code = main(["workshop", "evaluate", *options, *arguments])
        assert all(one["temperature"] == 0 and one["model"] == "m" for one in server.asked)
    return code


def test_answers_are_judged_and_two_runs_compared(tmp_path, capsys):
    assert evaluated(tmp_path, BAD, "--out", str(tmp_path / "before"), "--json") == 0
    before = json.loads(capsys.readouterr().out)
    means = {name: one["mean"] for name, one in before["checks"].items()}
    assert means.pop("similarity") < 0.3
    assert means == {"answered": 1, "json": 0, "keys": 0, "schema": 0, "language": 0, "length": 1, "facts": 0}
    assert (
        evaluated(tmp_path, GOOD, "--out", str(tmp_path / "after"), "--before", str(tmp_path / "before")) == 0
    )
    text = capsys.readouterr().out
    assert "m: 2 of 2 answers are all that was asked" in text
    assert "json        0.00 -> 1.00  (1 better, 0 worse of 1" in text
    page = (tmp_path / "after" / "report.html").read_text()
    assert "Before (m) and after (m)" in page
    assert "Die Platte sda" in page
    assert "http://" not in page


def test_answers_cannot_write_into_the_report(tmp_path, capsys):
    hostile = {**GOOD, "Erkläre.": "<script>alert(1)</script>"}
    assert evaluated(tmp_path, hostile, "--out", str(tmp_path)) == 0
    assert "<script>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: "),
        ("{}", "neither messages nor a prompt"),
        ('{"prompt": "x", "keys": "a"}', "keys is not a list"),
        ('{"prompt": "x", "schema": {"type": 3}}', "schema is no JSON schema"),
        ('{"prompt": "x", "max_chars": -1}', "max_chars"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "asks nothing"),
    ],
)
def test_broken_case_is_refused_with_its_line(tmp_path, line, said):
    with pytest.raises(ConfigError, match="line 1") as error:
        answers.read_cases(rows.write(tmp_path / "x.jsonl", [line]))
    assert said in str(error.value)


def test_server_that_is_down_and_one_that_fails_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT_S", 0.01)
    options = ["--model-path", "m", "--out", str(tmp_path), "--timeout", "2"]
    assert main(["workshop", "evaluate", *options, "--url", "http://127.0.0.1:9"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert main(["workshop", "evaluate", *options, "--url", "http://example.org/v1"]) == 2
    assert "nothing says that prompts may leave it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with serve([Reply("")]) as server:
        cases = rows.write(tmp_path / "c.jsonl", [CASES[0]])
        more = ["--url", server.url, "--test-file", str(cases)]
        assert main(["workshop", "evaluate", *options, *more]) == 1
    assert "answered none of 1 cases" in capsys.readouterr().err


# --- serve-check --------------------------------------------------------------------------------------------


def test_server_that_ignores_everything_is_found_out(capsys):
    with serve(lambda _body: Reply("one two three four five six seven")) as server:
        assert main(["workshop", "serve-check", "--url", server.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {name: one["verdict"] for name, one in found["parameters"].items()}
    assert set(verdicts) == {
        *("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"),
        *("seed", "stop", "max_tokens", "response_format", "logprobs"),
    }
    assert "heeded" not in verdicts.values()
    assert verdicts["stop"] == verdicts["max_tokens"] == verdicts["response_format"] == "ignored"
    assert found["models"] == ["scripted"]


def test_server_that_refuses_a_parameter_is_told_so(capsys):
    def picky(body):
        if "response_format" in body:
            return Reply(status=400, raw=b'{"error": {"message": "unknown field response_format"}}')
        words = ["one", "two", "three", "four", "five", "six", "seven"]
        ends = [words.index(one) for one in body.get("stop", ()) if one in words]
        return Reply(" ".join(words[: min([body["max_tokens"], *ends])]))

    with serve(picky) as server:
        assert main(["workshop", "serve-check", "--url", server.url]) == 0
    said = capsys.readouterr().out
    assert "response_format    refused" in said
    assert "stop               heeded" in said
    assert "max_tokens         heeded" in said
