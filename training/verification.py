"""Whether a GGUF file is the model that it was made of: its tokens, its next tokens, an answer.

An engine serves the file; the same prompts go to torch. Tokens must be the same. Of the probabilities the
largest difference is told, and how many next tokens agree: in F16 all but near ties, in 4 bits fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from daemon.errors import IntegrityError
from training.chatml import Message
from training.engine import Engine, open_engine
from training.packing import render

# Words, numbers, signs, other scripts and spaces: where tokenizers disagree.
PROBES = (
    "Explain: Out of memory: Killed process 1234 (mysqld)",
    "Was bedeutet \u201eKein Platz mehr\u201c auf /var/log bei 99,7 %?",
    "Qu'est-ce que l'erreur n\u00b0 28 ?  Et   apr\u00e8s ?",
    "def f(x):\n\treturn x**2  # caf\u00e9 \u732b \U0001f431\n\n\n1234567890",
    "\u00bfQu\u00e9 hago con la unidad cola.service? It's 3.5GB!!!",
)
GREEDY = 24
SEEN = 20  # most likely next tokens that are compared


class Verified(NamedTuple):
    """What was found: of `steps` next tokens `agreeing` are equal; the largest difference of probability."""

    engine: str
    probes: int
    steps: int
    agreeing: int
    difference: float
    answer: str


def verify(
    file: Path,
    model: Any,
    tokenizer: Any,
    *,
    probes: Sequence[str] = PROBES,
    threads: int = 0,
    tell: Callable[[str], None] = lambda _said: None,
) -> Verified:
    """Compare a file with the model in torch. Raises IntegrityError where texts become other tokens."""
    with open_engine(file, context=1024, threads=threads) as engine:
        tell(f"asking {engine.name} what it makes of {file.name}")
        steps = agreeing = 0
        worst = 0.0
        for probe in probes:
            ids = _same_tokens(engine, tokenizer, [{"role": "user", "content": probe}])
            mine = _greedy(engine, ids)
            theirs = _judged(model, [*ids, *(token for token, _ in mine)], len(ids))
            for (token, seen), logprobs in zip(mine, theirs, strict=False):
                steps += 1
                agreeing += int(logprobs.argmax()) == token
                gaps = [abs(math.exp(mine_) - math.exp(float(logprobs[one]))) for one, mine_ in seen.items()]
                worst = max([worst, *gaps])
        asked = {"messages": [{"role": "user", "content": PROBES[0]}], "temperature": 0, "max_tokens": 48}
        answer = engine.post("/v1/chat/completions", asked)["choices"][0]["message"]["content"]
    if not str(answer).strip():
        raise IntegrityError(f"{file} is served, but answers nothing")
    return Verified(engine.name, len(probes), steps, agreeing, round(worst, 4), str(answer))


def _same_tokens(engine: Engine, tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The prompt's tokens, if both sides have the same ones."""
    text = render(tokenizer, messages, asks=True)
    mine = tokenizer(text, add_special_tokens=False)["input_ids"]
    theirs = engine.post("/tokenize", {"content": text, "add_special": False, "parse_special": True})[
        "tokens"
    ]
    if list(mine) != list(theirs):
        at = next(
            (n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
            min(len(mine), len(theirs)),
        )
        raise IntegrityError(
            f"the file splits {messages[-1]['content']!r} otherwise than the model, from token {at}: "
            f"{mine[at : at + 4]} against {theirs[at : at + 4]}",
            hint="llama.cpp's own converter may know this tokenizer: --converter PATH",
        )
    return list(mine)


def _greedy(engine: Engine, ids: Sequence[int]) -> list[tuple[int, dict[int, float]]]:
    """The likeliest tokens one by one, each with the log-probabilities of the likeliest."""
    body = {
        "prompt": list(ids),
        "n_predict": GREEDY,
        "temperature": 0,
        "n_probs": SEEN,
        "cache_prompt": False,
    }
    found = engine.post("/completion", body).get("completion_probabilities", [])
    return [(one["id"], {top["id"]: top["logprob"] for top in one["top_logprobs"]}) for one in found]


def _judged(model: Any, ids: Sequence[int], begin: int) -> Any:
    """Torch's log-probabilities of each token from `begin` on, (tokens, vocabulary)."""
    import torch  # noqa: PLC0415  # seconds

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0, begin - 1 : -1]
    return torch.log_softmax(logits.float(), -1)
