"""How fast a served model really is, against what was expected of it here."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from daemon.errors import ConfigError
from training.endpoint import Endpoint, open_chat
from training.workshop.planning.catalogue import Catalogue
from training.workshop.planning.fitting import Calibration, Effort, fit
from training.workshop.planning.machine import Machine

ROUNDS = 3
_ANSWER, _WORDS = 64, 400
_TEXT = "the disk of the host is full and a service that writes its log there does not start "


def calibrate(
    endpoint: Endpoint, served: str, known: Catalogue, here: Machine, tell: Callable[[str], None]
) -> Calibration:
    """Ask with a short and a long prompt; the factors by which this server differs. Raises ConfigError."""
    name, _, bits = served.partition(":")
    model = next((one for one in known.model if one.name == name), None)
    quantization = next((one for one in known.quantization if one.name == bits), None)
    if model is None or quantization is None:
        names = (", ".join(one.name for one in rows) for rows in (known.model, known.quantization))
        hint = "; ".join(names)
        raise ConfigError(f"--served {served!r} is no NAME:QUANTIZATION of the list", hint=hint)
    chat = open_chat(endpoint, "prompts", tell=tell)
    answer_s, prompt_s = [], []
    for number in range(ROUNDS):
        tell(f"asking the served model, {number + 1} of {ROUNDS}")
        # A number in front keeps the server from reusing the prompt of the round before.
        long = f"{number} " + _TEXT * (_WORDS // len(_TEXT.split()))
        first = chat.ask(
            [{"role": "user", "content": f"{number} Count."}], max_tokens=_ANSWER, temperature=0.0
        )
        second = chat.ask([{"role": "user", "content": long}], max_tokens=1, temperature=0.0)
        if not (first.answer_tokens and second.prompt_tokens):
            raise ConfigError("the server does not count tokens", hint="leave --url out")
        answer_s.append(first.answer_tokens / first.seconds)
        prompt_s.append(second.prompt_tokens / second.seconds)
    expected = fit(model, quantization, here, Effort(1024, 1))
    tell(
        f"{name}: {median(answer_s):.1f} tokens/s written (expected {expected.answer_tokens_s:.1f}),"
        f" {median(prompt_s):.1f} read (expected {expected.prompt_tokens_s:.1f})"
    )
    return Calibration(
        median(answer_s) / expected.answer_tokens_s, median(prompt_s) / expected.prompt_tokens_s
    )
