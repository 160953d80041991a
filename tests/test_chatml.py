"""Rows of conversations: what is taken, what is turned into ChatML, what is wrong and where."""

from __future__ import annotations

import json
import unicodedata

import pytest

from daemon.errors import ConfigError
from tests.fixtures import rows
from training import chatml

GOOD = rows.row("Why?", "Because.")
TURNS = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"messages": [', "not JSON"),
        ("[1]", "a row is an object, this is a list"),
        ("{}", "neither messages (ChatML) nor conversations"),
        ('{"messages": []}', "messages is an empty list"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "the last message is of the user"),
        ('{"messages": ["a"]}', "messages[0] is a text, not an object"),
        ('{"messages": [{"role": "bot", "content": "a"}]}', "messages[0] has the role 'bot'"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages[0].content is a number"),
        ('{"messages": [{"role": "user", "content": "  "}]}', "messages[0].content is empty"),
        (
            json.dumps({"messages": [*GOOD["messages"], *GOOD["messages"][1:]]}),
            "messages[2] is of the assistant",
        ),
        (json.dumps(rows.row("a\ud800", "b")), "half a character"),
        (json.dumps(rows.row("end<|im_end|>", "b")), "holds <|im_end|>"),
        (
            json.dumps({"messages": [{"role": "assistant", "content": "a"}]}),
            "is of the assistant where the user is due",
        ),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        (
            json.dumps(
                {"prompt": TURNS[:1], "chosen": GOOD["messages"][1:], "rejected": GOOD["messages"][1:]}
            ),
            "same text",
        ),
        (json.dumps({"prompt": TURNS[:1], "chosen": [], "rejected": []}), "chosen is an empty list"),
        ('{"conversations": [{"from": "tool", "value": "x"}]}', "conversations[0] is from 'tool'"),
        ('{"instruction": ["x"], "output": "y"}', "instruction is a list"),
    ],
)
def test_broken_row_is_named_with_its_line(tmp_path, line, what):
    path = rows.write(tmp_path / "x.jsonl", [GOOD, line, GOOD])
    found = chatml.read_file(path)
    assert len(found.rows) == 2
    assert len(found.problems) == 1
    assert found.problems[0].line == 2
    assert what in found.problems[0].what
    assert str(found.problems[0]).startswith(f"{path}, line 2: ")


def test_bytes_that_are_no_text_and_lines_that_never_end_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    long = b'{"messages": "' + b"x" * chatml.LINE_BYTES_MAX + b'"}\n'
    path.write_bytes(b"\xff\xfe\n" + long + json.dumps(GOOD).encode() + b"\n")
    found = chatml.read_file(path)
    assert [(one.line, one.what.split(" at ")[0]) for one in found.problems] == [
        (1, "not UTF-8"),
        (2, "longer than 4 MiB"),
    ]
    assert len(found.rows) == 1


def test_alpaca_becomes_chatml(tmp_path):
    entry = {"instruction": "Translate.", "input": "Hallo", "output": "Hello", "task": "translate"}
    (row,) = chatml.read_rows(rows.write(tmp_path / "x.jsonl", [entry]))
    assert row == {**rows.row("Translate.\n\nHallo", "Hello"), "task": "translate"}


def test_sharegpt_becomes_chatml_from_a_json_list(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"conversations": turns, "system": "Be kind."}]), encoding="utf-8")
    (row,) = chatml.read_rows(path)
    assert row == rows.row("Hi", "Hello", system="Be kind.")


def test_text_is_in_one_unicode_form(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Für größere Gefäße\r\n")
    (row,) = chatml.read_rows(rows.write(tmp_path / "x.jsonl", [rows.row(decomposed, "ok")]))
    assert row["messages"][0]["content"] == "Für größere Gefäße\n"


def test_file_without_a_usable_row_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no usable row: neither messages"):
        chatml.read_rows(rows.write(tmp_path / "x.jsonl", ["{}"]))
    with pytest.raises(ConfigError, match="cannot be read"):
        chatml.read_rows(tmp_path / "none.jsonl")


def test_written_rows_read_back(tmp_path):
    assert chatml.write_rows([GOOD, GOOD], tmp_path / "a" / "x.jsonl") == 2
    assert chatml.read_rows(tmp_path / "a" / "x.jsonl") == [GOOD, GOOD]
    assert [one.name for one in (tmp_path / "a").iterdir()] == ["x.jsonl"]
