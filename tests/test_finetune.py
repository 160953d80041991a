"""Fine-tuning on tiny seeded data: heads, missing labels, teachers, adapters, checkpoints, processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from daemon.errors import ConfigError  # noqa: E402
from tests.fixtures.tiny import LOW_TRAINING  # noqa: E402
from training import distil  # noqa: E402
from training.batches import NONE, LabelRows, read_split  # noqa: E402
from training.finetune import finetune_model, train_folder  # noqa: E402
from training.folder import load_folder, read_card, write_card  # noqa: E402
from training.losses import Loss, class_weights  # noqa: E402

WORDS = {0: "disk failed error", 3: "debug trace enter", 1: "slow retry late", 2: "device ready found"}


def low_rows(count: int = 240, seed: int = 1) -> list[dict]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        severity = draw.randrange(4)
        text = " ".join([*draw.sample(WORDS[severity].split(), 2), f"unit{draw.randrange(20)}"])
        split = "val" if number % 6 == 0 else "train"
        alert = float(severity == 0) if number % 2 else None
        rows.append({"text": text, "severity": severity, "alert": alert, "category": None, "split": split})
    return rows


def top_rows(count: int = 120) -> list[dict]:
    return [
        {
            "prompt": f"<en> {word} :",
            "completion": f" {word} is full <end>",
            "split": "val" if n % 6 == 0 else "train",
        }
        for n, word in zip(range(count), ["disk", "memory", "table"] * count, strict=False)
    ]


def write(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A tiny low-tier model that learned its rows."""
    home = tmp_path_factory.mktemp("low")
    data = write(home / "rows.parquet", low_rows())
    train_folder(
        data,
        "shape:bert-1x64",
        home / "model",
        epochs=15,
        vocabulary=200,
        evaluations=2,
        **LOW_TRAINING,
    )
    return home


def test_classifier_learns_the_heads_that_have_labels(trained):
    model, tokenizer, card = load_folder(trained / "model")
    rows = LabelRows(low_rows(60, seed=9), tokenizer, card["heads"], card["sequence"])
    batch = rows.collate([rows[number] for number in range(60)])
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert (logits[:, :4].argmax(1) == batch["labels"][:, 0]).float().mean() > 0.95
    assert ((logits[:, 4] > 0) == (batch["labels"][:, 0] == 0)).float().mean() > 0.95


def test_folder_holds_safetensors_and_a_card_and_no_pickle(trained):
    card = read_card(trained / "model")
    assert (card["tier"], card["heads"]["severity"], card["metrics"]["train_rows"]) == ("low", 4, 200)
    assert (trained / "model" / "model.safetensors").is_file()
    assert not [*(trained / "model").glob("*.bin"), *(trained / "model").glob("*.pth")]
    losses = [
        one["loss"] for one in json.loads((trained / "model" / "history.json").read_text()) if "loss" in one
    ]
    assert losses[-1] < losses[0] / 2


def test_missing_labels_do_not_count():
    loss = Loss({"severity": 4, "alert": 1}, {})
    logits = torch.tensor([[5.0, 0, 0, 0, 3.0], [0, 5.0, 0, 0, -3.0]])
    known = torch.tensor([[0.0, 1.0], [NONE, NONE]])
    wrong = torch.tensor([[0.0, 1.0], [3.0, 1.0]])
    weights = torch.ones(2)
    assert loss._hard(logits, known, weights) < 0.1 < loss._hard(logits, wrong, weights)


def test_balance_moves_towards_the_rare_class():
    rows = [{"severity": 0}] * 90 + [{"severity": 1}] * 10
    weights = class_weights(rows, {"severity": 2, "alert": 1}, 1.0)["severity"]
    assert weights[1] / weights[0] == pytest.approx(9.0)
    assert class_weights(rows, {"severity": 2}, 0.0) == {}


def test_student_follows_its_teacher_where_rows_have_no_label(trained, tmp_path):
    rows = [row | {"severity": None, "alert": None} for row in low_rows(300, seed=3)]
    train_folder(
        write(tmp_path / "bare.parquet", rows),
        "shape:bert-1x64",
        tmp_path / "student",
        epochs=15,
        vocabulary=200,
        distil_from=trained / "model",
        soft_weight=1.0,
        **LOW_TRAINING,
    )
    texts = [row["text"] for row in low_rows(60, seed=9)]
    ours, theirs = (
        distil.answers(model, tokenizer, card["sequence"], texts)[:, :4].argmax(1)
        for model, tokenizer, card in map(load_folder, (tmp_path / "student", trained / "model"))
    )
    assert (ours == theirs).float().mean() > 0.9


def test_teachers_that_cannot_teach_are_refused(trained, tmp_path):
    shape, tall = "shape:gpt2-1x64", {"tier": "top", "max_steps": 2, "bf16": False, "specials": []}
    data = write(tmp_path / "rows.parquet", top_rows(30))
    with pytest.raises(ConfigError, match="of the low tier"):
        train_folder(data, shape, tmp_path / "a", distil_from=trained / "model", vocabulary=280, **tall)
    train_folder(data, shape, tmp_path / "large", vocabulary=290, **tall)
    with pytest.raises(ConfigError, match="vocabulary"):
        train_folder(data, shape, tmp_path / "a", distil_from=tmp_path / "large", vocabulary=280, **tall)
    metrics = train_folder(
        data, str(tmp_path / "large"), tmp_path / "a", distil_from=tmp_path / "large", **tall
    )
    assert metrics["steps"] == 2


def test_generator_learns_only_what_follows_its_prompt(tmp_path):
    metrics = train_folder(
        write(tmp_path / "rows.parquet", top_rows()),
        "shape:gpt2-1x64",
        tmp_path / "model",
        tier="top",
        epochs=8,
        batch=8,
        learning_rate=3e-3,
        vocabulary=300,
        specials=["<en>", "<end>"],
        bf16=False,
    )
    assert metrics["eval_loss"] < 0.3
    _, tokenizer, _ = load_folder(tmp_path / "model")
    assert len(tokenizer.encode("<end>").ids) == 1


def test_run_that_was_cut_short_goes_on_from_its_checkpoint(tmp_path):
    data = write(tmp_path / "rows.parquet", low_rows())
    told: list[str] = []
    known = {
        "tier": "low",
        "batch": 16,
        "vocabulary": 200,
        "evaluations": 4,
        "bf16": False,
        "tell": told.append,
    }
    train_folder(data, "shape:bert-1x64", tmp_path / "model", max_steps=8, **known)
    saved = tmp_path / "model" / "checkpoints"
    assert max(one.name for one in saved.iterdir()) == "checkpoint-8"
    metrics = train_folder(data, "shape:bert-1x64", tmp_path / "model", max_steps=16, resume=True, **known)
    assert metrics["steps"] == 16
    assert any("clamped" in one for one in told)


def test_training_stops_early_when_unseen_rows_get_no_better(tmp_path):
    draw = random.Random(2)
    rows = [row | {"severity": draw.randrange(4), "alert": None} for row in low_rows(120)]
    metrics = train_folder(
        write(tmp_path / "rows.parquet", rows),
        "shape:bert-1x64",
        tmp_path / "model",
        tier="low",
        epochs=30,
        learning_rate=5e-3,
        vocabulary=200,
        evaluations=30,
        evaluation_rows=10,
        patience=2,
        bf16=False,
    )
    assert metrics["steps"] < 375 / 2  # 100 rows, batches of 8, 30 epochs
    assert metrics["val_rows"] == 10


def test_accumulated_batches_make_one_step(tmp_path):
    metrics = train_folder(
        write(tmp_path / "rows.parquet", low_rows(96)),
        "shape:bert-1x64",
        tmp_path / "model",
        tier="low",
        epochs=1,
        batch=8,
        accumulation=5,
        vocabulary=200,
        bf16=False,
    )
    assert metrics["steps"] == 2  # 80 rows


def test_same_seed_gives_the_same_weights(tmp_path):
    data = write(tmp_path / "rows.parquet", low_rows(60))
    for name in ("one", "two"):
        train_folder(
            data,
            "shape:bert-1x64",
            tmp_path / name,
            tier="low",
            max_steps=3,
            vocabulary=200,
            seed=5,
            bf16=False,
        )
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_guides_function_returns_the_model_it_trained(trained, tmp_path):
    model, tokenizer, card = load_folder(trained / "model")
    rows = LabelRows(low_rows(24), tokenizer, card["heads"], 8)
    items = [
        {
            "input_ids": (rows[n]["input_ids"] + [0] * 8)[:8],
            "attention_mask": [1] * 8,
            "labels": int(rows[n]["labels"][0]),
        }
        for n in range(24)
    ]
    before = model.classifier.weight.detach().clone()
    returned = finetune_model(model, items, items[:8], output_dir=str(tmp_path), epochs=1)
    assert returned is model
    assert not torch.equal(before, returned.classifier.weight)


def test_two_processes_train_one_model(tmp_path):
    data = write(tmp_path / "rows.parquet", low_rows(60))
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    argv += ["-m", "training", "finetune", str(data), "--tier", "low", "--base", "shape:bert-1x64"]
    argv += ["--out", str(tmp_path / "model"), "--max-steps", "3", "--vocabulary", "200", "--no-bf16"]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["steps"] == 3  # said once, by the first of them
    assert load_folder(tmp_path / "model")[2]["metrics"]["steps"] == 3


def test_wrong_data_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no column split, text"):
        read_split(write(tmp_path / "odd.parquet", [{"a": 1}]), "low", "train")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_split(tmp_path / "text.parquet", "low", "train")
    rows = [{"text": "a", "severity": 9, "split": "train"}]
    with pytest.raises(ConfigError, match="severity is 9"):
        train_folder(write(tmp_path / "r.parquet", rows), "shape:bert-1x64", tmp_path / "m", tier="low")


def test_folder_without_a_card_is_no_model(tmp_path):
    with pytest.raises(ConfigError, match="is no trained model"):
        load_folder(tmp_path)
    write_card({"tier": "attic", "heads": {}, "sequence": 8}, tmp_path)
    with pytest.raises(ConfigError, match="attic"):
        load_folder(tmp_path)
