"""Conversations as training data: ChatML rows (`messages`), read strictly; Alpaca and ShareGPT become it.

A row is one JSON object a line: `messages`, each with a role and its content, and whatever else describes it
(`task`, `lang`, ...). A preference pair has `prompt`, `chosen` and `rejected`, each a list of messages. What
is wrong with a row is said with file and line; nothing is mended but Unicode's form.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError

Message = dict[str, str]
Row = dict[str, Any]

ROLES = ("system", "user", "assistant")
LINE_BYTES_MAX = 4 << 20
# Marks with which chat templates begin and end turns. In a text they would be read as such.
MARKS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|system|>", "<|user|>", "<|assistant|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
    "<<SYS>>", "<s>", "</s>",
)  # fmt: skip
# ShareGPT's names for who speaks.
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
_SPEAKERS |= {"assistant": "assistant", "model": "assistant", "system": "system"}


class Problem(NamedTuple):
    """A row that cannot be used."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.what}"


class Found(NamedTuple):
    """What a file holds: rows, preference pairs, and what is wrong."""

    rows: list[Row]
    pairs: list[Row]
    problems: list[Problem]


def read_file(path: Path) -> Found:
    """Every row of a JSONL file (or of one JSON list), in ChatML. Raises ConfigError if unreadable."""
    found = Found([], [], [])
    for line, content in _entries(path):
        try:
            row = normalise(to_chatml(_decode(content)))
            (check_pair if "chosen" in row else check)(row)
        except ValueError as error:
            found.problems.append(Problem(path, line, str(error)))
        else:
            (found.pairs if "chosen" in row else found.rows).append(row)
    return found


def read_rows(path: Path, tell: Callable[[str], None] = lambda _said: None) -> list[Row]:
    """The usable rows of a file; what is wrong with the others is told. Raises ConfigError where none is."""
    found = read_file(path)
    for problem in found.problems:
        tell(f"left out: {problem}")
    if not found.rows:
        raise ConfigError(
            f"{path} has no usable row" + (f": {found.problems[0].what}" if found.problems else ""),
            hint='{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}',
        )
    return found.rows


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write one JSON object a line, whole or not at all; how many."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(path)
    return len(lines)


def to_chatml(row: Any) -> Row:
    """A ChatML, Alpaca or ShareGPT entry, or a preference pair, as ours. Raises ValueError."""
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, this is {_kind(row)}")  # noqa: TRY004  # one kind of error
    if "messages" in row or "chosen" in row:
        return dict(row)
    if isinstance(row.get("conversations"), list):
        rest = {name: value for name, value in row.items() if name not in {"conversations", "system"}}
        return {"messages": _of_sharegpt(row), **rest}
    if "instruction" in row and ("output" in row or "response" in row):
        return _of_alpaca(row)
    raise ValueError(
        "neither messages (ChatML) nor conversations (ShareGPT) nor instruction and output (Alpaca), but "
        + (", ".join(sorted(map(str, row))[:6]) or "nothing")
    )


def _of_sharegpt(row: Row) -> list[Message]:
    system = row.get("system")
    messages = [{"role": "system", "content": system}] if system else []
    for number, turn in enumerate(row["conversations"]):
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            raise ValueError(f"conversations[{number}] has no from and value")
        if turn["from"] not in _SPEAKERS:
            raise ValueError(f"conversations[{number}] is from {turn['from']!r}, not human or gpt")
        messages.append({"role": _SPEAKERS[turn["from"]], "content": turn["value"]})
    return messages


def _of_alpaca(row: Row) -> Row:
    known = ("instruction", "input", "output", "response", "system")
    texts = {name: row.get(name) or "" for name in known}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name} is {_kind(text)}, not a text")  # noqa: TRY004
    asked = "\n\n".join(one for one in (texts["instruction"], texts["input"]) if one.strip())
    messages = [{"role": "system", "content": texts["system"]}] if texts["system"].strip() else []
    messages += [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": texts["output"] or texts["response"]},
    ]
    return {"messages": messages, **{name: value for name, value in row.items() if name not in known}}


def normalise(row: Row) -> Row:
    """The row with its messages' Unicode in form NFC and lines that end with a line feed alone."""
    lists = [name for name in ("messages", "prompt", "chosen", "rejected") if isinstance(row.get(name), list)]
    return row | {name: [_normalised(one) for one in row[name]] for name in lists}


def _normalised(message: Any) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        return message
    text = message["content"].replace("\r\n", "\n").replace("\r", "\n")
    return message | {"content": unicodedata.normalize("NFC", text)}


def check(row: Row) -> None:
    """Raises ValueError for a row that no template could render as asked and answered."""
    messages = check_messages(row.get("messages"), "messages")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"the last message is of the {messages[-1]['role']}, not of the assistant")
    _check_turns(messages)


def check_pair(row: Row) -> None:
    """Raises ValueError for a pair that prefers nothing."""
    prompt = check_messages(row.get("prompt"), "prompt")
    answers = [check_messages(row.get(name), name) for name in ("chosen", "rejected")]
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise ValueError(f"{name} is not one message of the assistant")
        _check_turns([*prompt, *answer])
    if answers[0][0]["content"].strip() == answers[1][0]["content"].strip():
        raise ValueError("chosen and rejected are the same text")


def check_messages(messages: Any, where: str) -> list[Message]:
    """The messages, each of a known role with a text. Raises ValueError."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where} is {_kind(messages)}, not a list with messages")
    for number, one in enumerate(messages):
        if not isinstance(one, dict):
            raise ValueError(f"{where}[{number}] is {_kind(one)}, not an object")  # noqa: TRY004
        if one.get("role") not in ROLES:
            raise ValueError(
                f"{where}[{number}] has the role {one.get('role')!r}, not one of {', '.join(ROLES)}"
            )
        _check_text(one.get("content"), f"{where}[{number}].content")
    return messages


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{where} is {_kind(text)}, not a text")  # noqa: TRY004
    if not text.strip():
        raise ValueError(f"{where} is empty")
    if any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError(f"{where} holds a NUL or half a character")
    mark = next((one for one in MARKS if one in text), None)
    if mark:
        raise ValueError(f"{where} holds {mark}, with which chat templates mark turns")


def _check_turns(messages: list[Message]) -> None:
    roles = [one["role"] for one in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    for number, role in enumerate(turns):
        due = ("user", "assistant")[number % 2]
        if role != due:
            place = number + len(roles) - len(turns)
            raise ValueError(f"messages[{place}] is of the {role} where the {due} is due")


def _entries(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not empty (None: too long), or of a JSON list's entries."""
    try:
        with path.open("rb") as file:
            if file.read(1) == b"[":
                yield from (
                    (number, json.dumps(one).encode()) for number, one in enumerate(_list_of(path), 1)
                )
                return
            file.seek(0)
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                long = len(line) > LINE_BYTES_MAX
                while long and line and not line.endswith(b"\n"):
                    line = file.readline(LINE_BYTES_MAX)
                if long or line.strip():
                    yield number, None if long else line
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _list_of(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} begins like a JSON list and is none: {error}") from error


def _decode(line: bytes | None) -> Any:
    if line is None:
        raise ValueError(f"longer than {LINE_BYTES_MAX >> 20} MiB")
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return "an empty list" if value == [] else names.get(type(value), "a number")
