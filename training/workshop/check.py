"""`hauswart workshop serve-check`: what a chat-completions server can do, what it heeds, how fast it is.

The sampling parameters are tried as the search for them does (see `training.workshop.tuning.probe`), the
others where they must show. What a small sample cannot tell is called unclear.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from daemon.errors import ChatError
from models.chat import DEFAULT_URL, TIMEOUT_S
from training import endpoint
from training.endpoint import Endpoint, Patient, Tell
from training.workshop import folders
from training.workshop.tuning.cases import Case
from training.workshop.tuning.probe import probe, takes_seed
from training.workshop.tuning.space import read_space

HEEDED, IGNORED, REFUSED, UNCLEAR = "heeded", "ignored", "refused", "unclear"
ASKED = "Write three short sentences about a server room at night."
TOKENS = 24
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


class Found(NamedTuple):
    """What came out for one parameter, and by what."""

    verdict: str
    why: str


def check(patient: Patient, tell: Tell = lambda _said: None) -> dict[str, Any]:
    """Every parameter's verdict, the models and the speed. Raises ChatError."""
    fixed = {"max_tokens": TOKENS}
    cases = [Case(prompt=ASKED), Case(prompt="Name three colours of the sea.")]
    began = time.monotonic()
    first = patient.ask(cases[0].messages(), **fixed, temperature=0)
    seconds = time.monotonic() - began
    seeded, _ = takes_seed(patient, cases[0], fixed)
    tell("trying the sampling parameters")
    probed = probe(patient, read_space(), cases, fixed, takes_seed=seeded)
    found = {one.name: Found(one.verdict, one.said) for one in probed.heeds}
    for name, test in PROBES.items():
        try:
            found[name] = test(patient, first.text)
        except ChatError as error:
            if error.kind not in {"refused", "failed"}:
                raise
            found[name] = Found(REFUSED, str(error)[:160])
        tell(f"{name}: {found[name].verdict}, {found[name].why}")
    tokens = first.answer_tokens
    return {
        "url": patient.chat.url,
        "models": _models(patient, tell),
        "parameters": {name: one._asdict() for name, one in found.items()},
        "tokens_per_second": round(tokens / seconds, 1) if tokens and seconds else None,
        "seconds_per_answer": round(seconds, 2),
        "answer_tokens": tokens,
        "requests": patient.requests,
    }


def _models(patient: Patient, tell: Tell) -> list[str]:
    try:
        return patient.chat.models()
    except ChatError as error:
        tell(str(error))
        return []


def _text(patient: Patient, asked: str = ASKED, **parameters: Any) -> str:
    """The answer, which may be empty."""
    messages = [{"role": "user", "content": asked}]
    try:
        return patient.ask(messages, **{"max_tokens": TOKENS, "temperature": 0, **parameters}).text
    except ChatError as error:
        if error.kind == "empty":
            return ""
        raise


def _seed(patient: Patient, _greedy: str) -> Found:
    hot: dict[str, Any] = {"temperature": 1.5}
    same = {_text(patient, seed=7, **hot) for _ in range(2)}
    other = {_text(patient, seed=seed, **hot) for seed in (8, 9)}
    if len(same) > 1:
        return Found(IGNORED, "seed 7 gives two different answers")
    if other - same:
        return Found(HEEDED, "seed 7 gives one answer twice, 8 and 9 give others")
    return Found(UNCLEAR, "all seeds give one answer")


def _stop(patient: Patient, greedy: str) -> Found:
    words = greedy.split()
    if len(words) < 4 or _text(patient) != greedy:
        return Found(UNCLEAR, "the answer is too short, or another each time")
    stopped = _text(patient, stop=[words[2]])
    if words[2] not in stopped and len(stopped) < len(greedy):
        return Found(HEEDED, f"ends before {words[2]!r}")
    return Found(IGNORED, f"goes on beyond {words[2]!r}")


def _max_tokens(patient: Patient, greedy: str) -> Found:
    short = _text(patient, max_tokens=4)
    if len(short) < len(greedy):
        return Found(HEEDED, f"with 4 {len(short)} characters, with {TOKENS} {len(greedy)}")
    return Found(IGNORED, "with 4 as long an answer")


def _schema(patient: Patient, _greedy: str) -> Found:
    form = {"type": "json_schema", "json_schema": {"name": "probe", "strict": True, "schema": SCHEMA}}
    text = _text(patient, "Tell me about the sea.", max_tokens=48, response_format=form)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return Found(IGNORED, "the answer is no JSON")
    fits = isinstance(answer, dict) and set(answer) == {"colour", "count"}
    fits = fits and answer["colour"] in ("red", "green") and isinstance(answer["count"], int)
    return Found(HEEDED if fits else IGNORED, f"the answer {'fits' if fits else 'does not fit'} the schema")


def _logprobs(patient: Patient, _greedy: str) -> Found:
    messages = [{"role": "user", "content": ASKED}]
    whole = patient.chat.complete(messages, max_tokens=2, temperature=0, logprobs=True, top_logprobs=2)
    choices = whole.get("choices") if isinstance(whole, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    there = isinstance(first, dict) and bool(first.get("logprobs"))
    return Found(HEEDED if there else IGNORED, f"the answer has {'them' if there else 'none'}")


PROBES: Mapping[str, Callable[[Patient, str], Found]] = {
    "seed": _seed,
    "stop": _stop,
    "max_tokens": _max_tokens,
    "response_format": _schema,
    "logprobs": _logprobs,
}


def command(
    *,
    url: endpoint.Url = DEFAULT_URL,
    model: endpoint.ModelName = "",
    key_file: endpoint.KeyFile = None,
    header: endpoint.Headers = None,
    consent: endpoint.Consents = None,
    timeout: endpoint.Timeout = TIMEOUT_S,
    as_json: folders.AsJson = False,
) -> None:
    """Asks some dozens of short questions of its own; nothing of yours is sent."""

    def tell(said: str) -> None:
        print(f"hauswart: {said}", file=sys.stderr, flush=True)  # noqa: T201

    place = Endpoint(url, model, key_file, endpoint.parse_headers(header or []), consent or [], timeout)
    found = check(endpoint.open_chat(place, "prompts", tell=tell), tell)
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        return
    speed = f"{found['tokens_per_second']} tokens/s, " if found["tokens_per_second"] else ""
    lines = [f"{found['url']}: {', '.join(found['models'][:8]) or 'names no models'}"]
    lines += [f"  {name:<18} {one['verdict']:<8} {one['why']}" for name, one in found["parameters"].items()]
    lines.append(f"  {speed}{found['seconds_per_answer']} s for {found['answer_tokens'] or TOKENS} tokens")
    sys.stdout.write("\n".join(lines) + "\n")
