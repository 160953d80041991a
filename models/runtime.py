"""Runs a verified bundle on the processor: one thread, nothing kept that is not needed, ids and text only.

A classifier turns texts into probabilities, a generator a prompt into text. numpy, onnxruntime and tokenizers
are imported when the first model is loaded, since resident processes import this package too. Knows nothing
of tiers, of encoding or of what a score means.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from models.bundle import MODEL, RUNS, TOKENIZER, WORDING, Bundle
from models.errors import BundleError, ModelError
from models.runs import Runs
from models.wording import HEAD, Wording

CHARS_PER_TOKEN = 64  # longer text is cut before it costs time; words of the shipped vocabularies are shorter
MAX_NEW_TOKENS = 1024
REPEAT = 12  # tokens that may not come twice in the same order: about a sentence, so a loop and no style
PROBE = "kernel: device error <n> failed"
Table = TypeVar("Table")
_PADS = ("[PAD]", "<pad>", "<|endoftext|>")


class Classifier:
    """Scores texts with a bundle's model; raises BundleError where model and configuration disagree."""

    def __init__(self, bundle: Bundle) -> None:
        self.config = bundle.config
        self._tokenizer = _open_tokenizer(bundle)
        self._tokenizer.enable_truncation(self.config.sequence)
        self._pad = _find_pad(self._tokenizer)
        self._session = _open_session(bundle)
        self._wording = _open_table(bundle, WORDING, Wording)
        self._temperatures: dict[str, float] = self.config.calibration.get("temperature", {})

    def score(self, texts: Sequence[str]) -> list[dict[str, list[float]]]:
        """Probabilities by head, softmax for heads of several classes and sigmoid for those of one.

        Where the bundle weighs words, they have their say in the alert.
        """
        return [self._probabilities(*pair) for pair in zip(texts, self.logits(texts), strict=True)]

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        """The network's raw outputs over all heads, in the texts' order; equal ones are computed once."""
        known: dict[tuple[int, ...], list[float]] = {}
        found = []
        for text in texts:
            ids = self._encode(text)
            if ids not in known:
                known[ids] = self._run(ids)
            found.append(known[ids])
        return found

    def _encode(self, text: str) -> tuple[int, ...]:
        ids = self._tokenizer.encode(text[: self.config.sequence * CHARS_PER_TOKEN]).ids
        return tuple(ids)

    def _run(self, ids: Sequence[int]) -> list[float]:
        """One text at a time: dynamic int8 scales by the whole batch, so an answer would depend on others."""
        import numpy as np  # noqa: PLC0415  # see the module's docstring

        width = max(2, len(ids))  # exported models take two tokens or more
        batch = np.full((1, width), self._pad, np.int64)  # (1, sequence)
        mask = np.zeros((1, width), np.int64)  # (1, sequence)
        batch[0, : len(ids)] = ids
        mask[0, : max(1, len(ids))] = 1
        logits = _call(self._session, ["logits"], {"input_ids": batch, "attention_mask": mask})[0]
        if logits.shape != (1, sum(self.config.heads.values())):
            raise ModelError(f"the model gave logits of shape {logits.shape}")
        found: list[float] = logits[0].tolist()
        if not all(map(math.isfinite, found)):
            raise ModelError("the model gave a score that is not a number")
        return found

    def _probabilities(self, text: str, row: Sequence[float]) -> dict[str, list[float]]:
        found, start = {}, 0
        for head, size in self.config.heads.items():
            temperature = self._temperatures.get(head, 1.0)
            values = [value / temperature for value in row[start : start + size]]
            if head == HEAD and self._wording is not None:
                values = [self._wording.mix(text, row)]
            found[head] = _normalise(values)
            start += size
        return found


class Generator:
    """Writes text with a bundle's model, one token after the other over a key-value cache."""

    def __init__(self, bundle: Bundle) -> None:
        self.config = bundle.config
        self._tokenizer = _open_tokenizer(bundle)
        self._tokenizer.no_truncation()
        self._session = _open_session(bundle)
        self._runs = _open_table(bundle, RUNS, Runs)
        self._cache = [f"{kind}{layer}" for layer in range(self.config.layers) for kind in "kv"]
        self._outputs = ["logits", *(f"p{name}" for name in self._cache)]

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        seed: int = 0,
        stop: str = "<end>",
    ) -> str:
        """The text after the prompt, up to `stop`, which is left out; the same seed writes the same text.

        A temperature of 0 takes the likeliest token each time; `top_k` of 0 draws from all. Of these, tokens
        that would end a run unlike any that the bundle knows are not drawn; where none is left, there is no
        text: "". Raises ModelError where the prompt leaves no room or the model gives no number.
        """
        ids: list[int] = self._tokenizer.encode(prompt[: self.config.sequence * CHARS_PER_TOKEN]).ids
        room = min(max_tokens, MAX_NEW_TOKENS, self.config.sequence - len(ids))
        if room < 1 or not ids:
            raise ModelError(f"a prompt of {len(ids)} tokens leaves no room in {self.config.sequence}")
        end, draw = self._tokenizer.token_to_id(stop), random.Random(seed)  # noqa: S311  # no secret is drawn
        written: list[int] = []
        for scores in self._steps(ids, written):
            chosen = _candidates(scores, _repeating(written), 1 if temperature <= 0.0 else top_k)
            if self._runs is not None and end is not None:
                chosen = chosen[self._runs.known(ids, written, chosen, end)]
                if not len(chosen):
                    return ""
            token = _draw(scores, chosen, temperature, draw)
            if token == end:
                break
            written.append(token)
            if len(written) >= room or (end is None and stop and stop in self._decode(written)):
                break
        return self._decode(written).partition(stop)[0] if stop else self._decode(written)

    def _steps(self, prompt: Sequence[int], written: Sequence[int]) -> Iterator[Any]:
        """The scores of the next token `(vocabulary,) float32`, for as long as somebody appends one."""
        import numpy as np  # noqa: PLC0415  # see the module's docstring

        empty = np.zeros((1, self.config.heads_count, 0, self.config.head_dim), np.float32)
        cache = dict.fromkeys(self._cache, empty)
        fed = np.asarray([prompt], np.int64)  # (1, sequence)
        while True:
            logits, *kept = _call(self._session, self._outputs, {"input_ids": fed, **cache})
            if logits.shape != (1, self.config.vocabulary) or not np.isfinite(logits).all():
                raise ModelError("the model gave a score that is not a number, or not one for each token")
            yield logits[0]
            cache = dict(zip(self._cache, kept, strict=True))
            fed = np.asarray([written[-1:]], np.int64)  # (1, 1)

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


def probe(bundle: Bundle) -> None:
    """Load a bundle and ask it once; raises BundleError or ModelError."""
    if bundle.config.kind == "classifier":
        Classifier(bundle).score([PROBE])
    else:
        Generator(bundle).generate(PROBE, max_tokens=4)


def _candidates(scores: Any, banned: set[int], count: int) -> Any:
    """The `count` likeliest tokens but for the banned ones, likeliest first, (count,) int64; 0 is all."""
    import numpy as np  # noqa: PLC0415  # see the module's docstring

    for token in banned:
        scores[token] = -np.inf
    if not 0 < count < len(scores):
        return np.arange(len(scores))
    if count == 1:
        return scores.argmax(keepdims=True)
    chosen = np.argpartition(scores, -count)[-count:]
    return chosen[np.lexsort((chosen, -scores[chosen]))]  # the partition's own order may differ by machine


def _draw(scores: Any, chosen: Any, temperature: float, draw: random.Random) -> int:
    import numpy as np  # noqa: PLC0415  # see the module's docstring

    if len(chosen) == 1:
        return int(chosen[0])
    weights = np.exp((scores[chosen] - scores[chosen].max()).astype(np.float64) / temperature)
    return int(chosen[np.searchsorted(weights.cumsum(), draw.random() * weights.sum(), side="right")])


def _repeating(written: Sequence[int]) -> set[int]:
    """The tokens that would complete a run of `REPEAT` tokens that was written before."""
    tail = list(written[-(REPEAT - 1) :])
    if len(tail) < REPEAT - 1:
        return set()
    ends = range(len(tail), len(written))
    return {written[end] for end in ends if list(written[end - len(tail) : end]) == tail}


def _normalise(values: Sequence[float]) -> list[float]:
    if len(values) == 1:
        value = max(-500.0, min(500.0, values[0]))
        return [1.0 / (1.0 + math.exp(-value))]
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def _call(session: Any, outputs: Sequence[str], inputs: dict[str, Any]) -> Any:
    try:
        return session.run(list(outputs), inputs)
    except Exception as error:  # onnxruntime's exceptions share no parent but this
        raise ModelError(f"the model failed: {_first_line(error)}") from error


def _open_tokenizer(bundle: Bundle) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread, as promised
    from tokenizers import Tokenizer  # noqa: PLC0415  # see the module's docstring

    try:
        tokenizer = Tokenizer.from_str(bundle.read(TOKENIZER).decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{bundle.directory / TOKENIZER}: {_first_line(error)}") from error
    tokenizer.no_padding()
    return tokenizer


def _open_table(bundle: Bundle, name: str, form: Callable[[bytes], Table]) -> Table | None:
    if name not in bundle.manifest.files:
        return None
    try:
        return form(bundle.read(name))
    except BundleError as error:
        raise BundleError(f"{bundle.directory / name} {error}") from error


def _find_pad(tokenizer: Any) -> int:
    found = (tokenizer.token_to_id(name) for name in _PADS)
    return next((number for number in found if number is not None), 0)


def _open_session(bundle: Bundle) -> Any:
    import onnxruntime  # noqa: PLC0415  # see the module's docstring

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it keeps what the longest text ever took
    options.enable_mem_pattern = False  # plans for shapes that never come again
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # fatal: errors come as exceptions, and standard error is the stage's log
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(
            bundle.read(MODEL), options, providers=["CPUExecutionProvider"]
        )
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no parent but this
        raise BundleError(f"{bundle.directory / MODEL} cannot be loaded: {_first_line(error)}") from error
    _trim()
    return session


def _trim() -> None:
    """Give back what only loading took (glibc's malloc_trim(3); other C libraries do it by themselves)."""
    import ctypes  # noqa: PLC0415  # resident processes do without

    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
