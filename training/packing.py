"""Conversations as tokens: what the assistant says is learned, the rest is read; short ones share a sequence.

The tokenizer's own chat template renders. What of it the assistant says comes from the template's generation
marks where it has them, else from how the text grows with each answer. An answer is never cut: what is too
long loses its oldest turns, then the middle of its question, and is left out where its answer alone fills it.

Packed rows do not see each other: each begins at position 0 again, without an attention mask, from which
transformers builds a mask of blocks. `isolates` asks the model itself whether that holds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from daemon.errors import ConfigError
from training.chatml import Message, Row

IGNORED = -100  # torch's cross entropy leaves out such labels
CUT = "\n[...]\n"
Tell = Callable[[str], None]


class Encoded(NamedTuple):
    """A conversation's tokens, and for each the token to learn, IGNORED where it is only read."""

    ids: list[int]
    labels: list[int]


class Fit(NamedTuple):
    """Rows as tokens, and what it took to make them fit."""

    rows: list[Encoded]
    shortened: int  # lost their oldest turns
    cut: int  # lost the middle of their question
    left_out: list[int]  # numbers of those whose answer alone is too long


def encode(messages: Sequence[Message], tokenizer: Any) -> Encoded:
    """The whole conversation. Raises ConfigError for a tokenizer or a template that cannot be used."""
    check_tokenizer(tokenizer)
    _check_specials(messages, tokenizer)
    if _has_marks(tokenizer.chat_template):
        made = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, learned = list(made["input_ids"]), [bool(one) for one in made["assistant_masks"]]
    else:
        ids, learned = _by_growth(messages, tokenizer)
    if not any(learned):
        raise ConfigError("the chat template renders no answer to learn from")
    return Encoded(ids, [token if one else IGNORED for token, one in zip(ids, learned, strict=True)])


def check_tokenizer(tokenizer: Any) -> None:
    """Raises ConfigError where it has no chat template or cannot say where its tokens lie."""
    if not isinstance(tokenizer.chat_template, str):
        raise ConfigError(
            "the base has no chat template", hint="take an instruct or chat model, or give its tokenizer one"
        )
    if not tokenizer.is_fast:
        raise ConfigError(f"{type(tokenizer).__name__} does not say where its tokens lie in the text")


def _has_marks(template: str) -> bool:
    return "{% generation" in template or "{%- generation" in template


def _check_specials(messages: Sequence[Message], tokenizer: Any) -> None:
    for one in messages:
        found = [mark for mark in tokenizer.all_special_tokens if mark in one["content"]]
        if found:
            raise ConfigError(f"a text of the {one['role']} holds the special token {found[0]}")


def render(tokenizer: Any, messages: Sequence[Message], *, asks: bool = False) -> str:
    """The text that the template makes; `asks` ends it where the assistant begins. Raises ConfigError."""
    from jinja2 import TemplateError  # noqa: PLC0415  # only where a template is used

    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)
    except TemplateError as error:
        raise ConfigError(f"the base's chat template cannot render this conversation: {error}") from error
    return str(text)


def _by_growth(messages: Sequence[Message], tokenizer: Any) -> tuple[list[int], list[bool]]:
    whole = render(tokenizer, messages)
    spans = _spans(messages, tokenizer, whole)
    made = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(made["input_ids"])
    learned = [False] * len(ids)
    for begin, end in spans:
        inside = [n for n, (left, right) in enumerate(made["offset_mapping"]) if begin <= left < right <= end]
        ends = [n for n in inside if ids[n] in tokenizer.all_special_ids]
        for number in inside:
            # The answer and the mark that ends it; what the template puts behind that nobody has to say.
            learned[number] = not ends or number <= ends[-1]
    return ids, learned


def _spans(messages: Sequence[Message], tokenizer: Any, whole: str) -> list[tuple[int, int]]:
    """Where in the text the answers lie; of a template that changes earlier turns, the last one alone."""
    spans = []
    for number, one in enumerate(messages):
        if one["role"] != "assistant":
            continue
        until = whole if number + 1 == len(messages) else render(tokenizer, messages[: number + 1])
        before = next(
            (
                text
                for asks in (True, False)
                if until.startswith(text := render(tokenizer, messages[:number], asks=asks))
            ),
            None,
        )
        if before is not None and whole.startswith(until):
            spans.append((len(before), len(until)))
        elif until is whole:
            raise ConfigError(
                "the base's chat template does not render an answer behind its question",
                hint="mark the answers in the template: {% generation %} ... {% endgeneration %}",
            )
    return spans


def fit(rows: Sequence[Row], tokenizer: Any, length: int, tell: Tell = lambda _said: None) -> Fit:
    """Each row within `length` tokens, answers whole; what was lost is told. Raises ConfigError."""
    made, left_out, shortened, cut = [], [], 0, 0
    for number, row in enumerate(rows):
        messages, found = row["messages"], encode(row["messages"], tokenizer)
        if len(found.ids) > length:
            fewer = _without_oldest(messages, tokenizer, length)
            shortened += len(fewer) < len(messages)
            messages, found = fewer, encode(fewer, tokenizer)
        if len(found.ids) > length:
            kept = _with_shorter_question(messages, tokenizer, length)
            if kept is None:
                left_out.append(number)
                continue
            found, cut = kept, cut + 1
        made.append(found)
    if shortened:
        tell(f"{shortened} of {len(rows)} conversations lost their oldest turns: {length} tokens at most")
    if cut:
        tell(f"{cut} of {len(rows)} conversations lost the middle of their question: {length} tokens at most")
    if left_out:
        shown = ", ".join(str(one + 1) for one in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        tell(
            f"{len(left_out)} of {len(rows)} are left out, their answer does not fit {length} tokens: {shown}"
        )
    return Fit(made, shortened, cut, left_out)


def _without_oldest(messages: Sequence[Message], tokenizer: Any, length: int) -> list[Message]:
    """As many of the last exchanges as fit, one at least."""
    system = [one for one in messages[:1] if one["role"] == "system"]
    turns = list(messages[len(system) :])
    while len(turns) > 2 and len(encode([*system, *turns], tokenizer).ids) > length:
        turns = turns[2:]
    return [*system, *turns]


def _with_shorter_question(messages: Sequence[Message], tokenizer: Any, length: int) -> Encoded | None:
    """The last question without as much of its middle as is needed; None where that is not enough."""
    *before, asked, answer = messages
    text, best = asked["content"], None
    low, high = 0, len(text) - 1  # characters that stay
    while low <= high:
        middle = (low + high) // 2
        head = (middle + 1) // 2
        shorter = text[:head] + CUT + text[len(text) - (middle - head) :]
        found = encode([*before, asked | {"content": shorter}, answer], tokenizer)
        if len(found.ids) <= length:
            best, low = found, middle + 1
        else:
            high = middle - 1
    return best


def pack(rows: Iterable[Encoded], length: int) -> list[list[Encoded]]:
    """Rows together, the longest first and each where it fits first, so that few sequences are half empty."""
    bins: list[tuple[int, list[Encoded]]] = []
    for row in sorted(rows, key=lambda one: -len(one.ids)):
        size = len(row.ids)
        place = next((n for n, (used, _) in enumerate(bins) if used + size <= length), None)
        if place is None:
            bins.append((size, [row]))
        else:
            used, inside = bins[place]
            bins[place] = (used + size, [*inside, row])
    return [inside for _, inside in bins]


class Sequences:
    """A data set for the trainer: each entry one sequence of one or more rows."""

    def __init__(self, packed: Sequence[Sequence[Encoded]], pad: int) -> None:
        self._packed, self._pad = packed, pad

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        inside = self._packed[index]
        return {
            "input_ids": [token for row in inside for token in row.ids],
            # A row's first token follows nothing that it has seen.
            "labels": [label for row in inside for label in [IGNORED, *row.labels[1:]]],
            "position_ids": [place for row in inside for place in range(len(row.ids))],
        }

    def packed(self, length: int) -> Sequences:
        """The same rows, several a sequence."""
        return Sequences(pack((row for inside in self._packed for row in inside), length), self._pad)

    def collate(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Any]:
        """One batch, (batch, length) each; padding is a block of its own, from which nothing is learned."""
        import torch  # noqa: PLC0415  # seconds

        size = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": [self._pad] * size, "labels": [IGNORED] * size, "position_ids": range(size)}
        return {
            name: torch.tensor([[*row[name], *filler[: size - len(row[name])]] for row in rows])
            for name, filler in fill.items()
        }


def isolates(model: Any) -> bool:
    """Whether rows in one sequence stay apart in this model: their logits are those that they have alone."""
    import torch  # noqa: PLC0415  # seconds

    vocabulary, device = int(model.config.vocab_size), next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 12), generator=draw).to(device)
    positions = torch.tensor([[*range(5), *range(7)]], device=device)
    was, _ = model.training, model.eval()
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat(
            [model(input_ids=part, use_cache=False).logits for part in (ids[:, :5], ids[:, 5:])], 1
        )
    model.train(was)
    return bool(torch.allclose(together, alone, atol=2e-2, rtol=1e-2))
