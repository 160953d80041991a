"""Whether an answer is what a test case asks for: JSON, keys and schema, language, length, facts, likeness.

A check that a case does not ask for is not made, so that shares are of the cases they apply to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from training import chatml, language
from training.chatml import Message, Row

CHECKS = ("answered", "json", "keys", "schema", "language", "length", "facts", "similarity")


class Case(NamedTuple):
    """What is asked, and what an answer must be; `required` and `forbidden` as in training.similarity."""

    messages: list[Message]
    task: str = ""
    lang: str = ""
    json: bool = False
    keys: Sequence[str] = ()
    schema: Any = None
    min_chars: int = 0
    max_chars: int = 0
    required: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    reference: str = ""
    domain: str = ""


class Judged(NamedTuple):
    """A case's answer: 0..1 for each check that was made, and what is wrong, in words."""

    scores: dict[str, float]
    faults: list[str]


def read_cases(path: Path, *, name: str = "") -> list[Case]:
    """The cases of a JSONL file: ChatML whose last answer is the reference, or messages alone, or a prompt.

    Raises ConfigError with the file, the line and what is wrong.
    """
    cases = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cases.append(_case(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"{name or path}, line {number}: {error}") from error
    if not cases:
        raise ConfigError(f"{path} holds no case", hint='a line is like {"prompt": "...", "json": true}')
    return cases


def _case(row: Any) -> Case:
    if not isinstance(row, dict):
        raise ValueError("a case is an object")  # noqa: TRY004  # one kind of error
    known = {name: row[name] for name in Case._fields if name in row and name != "messages"}
    if "messages" in row or "conversations" in row or "instruction" in row:
        messages = chatml.check_messages(_messages(row), "messages")
    elif isinstance(row.get("prompt"), str) and row["prompt"].strip():
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        messages = [*system, {"role": "user", "content": row["prompt"]}]
    else:
        raise ValueError("has neither messages nor a prompt")
    if messages[-1]["role"] == "assistant":
        known.setdefault("reference", messages[-1]["content"])
        messages = messages[:-1]
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("asks nothing: no message of the user stands last")
    known.setdefault("lang", str(row.get("language", "")))
    case = Case(messages, **known)
    _check_types(case)
    return case


def _messages(row: Row) -> Any:
    return row["messages"] if "messages" in row else chatml.to_chatml(row)["messages"]


def _check_types(case: Case) -> None:
    for name in ("keys", "required", "forbidden"):
        value = getattr(case, name)
        if isinstance(value, str) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"{name} is not a list of texts")
    for name in ("min_chars", "max_chars"):
        if not isinstance(getattr(case, name), int) or getattr(case, name) < 0:
            raise ValueError(f"{name} is not a whole number from 0")
    for name in ("task", "lang", "reference", "domain"):
        if not isinstance(getattr(case, name), str):
            raise ValueError(f"{name} is not a text")  # noqa: TRY004
    if case.schema is not None:
        from jsonschema import SchemaError  # noqa: PLC0415  # only cases with a schema need it
        from jsonschema.validators import validator_for  # noqa: PLC0415

        try:
            validator_for(case.schema).check_schema(case.schema)
        except SchemaError as error:
            raise ValueError(f"schema is no JSON schema: {error.message}") from error


def judge(case: Case, answer: str) -> Judged:
    """Every check that the case asks for."""
    scores: dict[str, float] = {"answered": float(bool(answer.strip()))}
    faults: list[str] = [] if answer.strip() else ["no answer"]
    if case.json or case.keys or case.schema is not None:
        _judge_json(case, answer, scores, faults)
    if case.lang:
        other = language.differs(answer, case.lang) if answer.strip() else "nothing"
        scores["language"] = float(not other)
        faults += [f"is in {other}, not in {case.lang}"] * bool(other)
    if case.min_chars or case.max_chars:
        size = len(answer.strip())
        fits = case.min_chars <= size and (not case.max_chars or size <= case.max_chars)
        scores["length"] = float(fits)
        faults += [f"has {size} characters, not {case.min_chars} to {case.max_chars or 'any'}"] * (not fits)
    if case.required or case.forbidden or case.reference:
        _judge_content(case, answer, scores, faults)
    return Judged(scores, faults)


def _judge_json(case: Case, answer: str, scores: dict[str, float], faults: list[str]) -> None:
    """The whole answer is JSON, without words or fences around it; then its keys and schema."""
    try:
        found = json.loads(answer)
        scores["json"] = 1.0
    except (ValueError, RecursionError):
        found = None
        scores["json"] = 0.0
        faults.append("is no JSON")
    if case.keys:
        missing = [key for key in case.keys if not isinstance(found, dict) or key not in found]
        scores["keys"] = 1.0 - len(missing) / len(case.keys)
        faults += [f"lacks {', '.join(missing)}"] * bool(missing)
    if case.schema is not None:
        from jsonschema.validators import validator_for  # noqa: PLC0415  # only cases with a schema need it

        fits = validator_for(case.schema)(case.schema)
        errors = list(fits.iter_errors(found)) if scores["json"] else []
        scores["schema"] = float(bool(scores["json"]) and not errors)
        faults += [f"against the schema: {errors[0].message[:120]}"] if errors else []


def _judge_content(case: Case, answer: str, scores: dict[str, float], faults: list[str]) -> None:
    from training.similarity import composite, says  # noqa: PLC0415  # reads its word lists

    if case.required or case.forbidden:
        absent = [one for one in case.required if not says(answer, one)]
        said = [one for one in case.forbidden if says(answer, one)]
        total = len(case.required) + len(case.forbidden)
        scores["facts"] = 1.0 - (len(absent) + len(said)) / total
        faults += [f"does not say {', '.join(absent)}"] * bool(absent)
        faults += [f"says {', '.join(said)}"] * bool(said)
    if case.reference:
        scores["similarity"] = composite(answer, case.reference).score
