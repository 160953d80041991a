"""A specialist at work: the base with its adapter, asked in the forms that it was trained in.

`judge` costs one pass over passage and question: how much likelier "yes" is than "no" after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.passages import Passage
from training.academy import forms
from training.chatml import Message

BATCH = 6


class Specialist:
    """A causal model with its tokenizer, asked greedily."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        tokenizer.padding_side = "left"
        self._yes, self._no = (self._tokens(word)[0] for word in (forms.YES, forms.NO))

    def opine(self, question: str, passages: Sequence[Passage]) -> list[dict[str, float]]:
        """For each passage, how much likelier it says that it answers than that it does not: log odds."""
        found: list[float] = []
        for start in range(0, len(passages), BATCH):
            found += self._judge(question, passages[start : start + BATCH])
        return [{"opinion": one} for one in found]

    def _judge(self, question: str, passages: Sequence[Passage]) -> list[float]:
        import torch  # noqa: PLC0415 - seconds

        texts = [self._prompt(forms.judging(question, one)) for one in passages]
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            last = self.model(**batch, logits_to_keep=1).logits[:, -1].float()  # (batch, vocabulary)
        return [float(one) for one in last[:, self._yes] - last[:, self._no]]

    def say(self, messages: Sequence[Sequence[Message]], tokens: int) -> list[str]:
        """What it answers, greedily, several at a time."""
        import torch  # noqa: PLC0415 - seconds

        texts = [self._prompt(one) for one in messages]
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            made = self.model.generate(
                **batch, max_new_tokens=tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        cut = batch["input_ids"].shape[1]
        return [one.strip() for one in self.tokenizer.batch_decode(made[:, cut:], skip_special_tokens=True)]

    def weigh(self, asked: Sequence[Message], options: Sequence[str]) -> list[float]:
        """The mean log probability of each option as the answer."""
        import torch  # noqa: PLC0415 - seconds

        prompt = self._tokens(self._prompt(asked))
        answers = [self._tokens(one) for one in options]
        width = max(map(len, answers))
        pad = self.tokenizer.pad_token_id
        rows = torch.tensor([one + [pad] * (width - len(one)) for one in answers])  # (options, width)
        with torch.inference_mode():
            asked_once = self.model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
            cache = asked_once.past_key_values
            cache.batch_repeat_interleave(len(answers))
            after = self.model(input_ids=rows, cache=cache).logits
            first = asked_once.logits.expand(len(answers), -1, -1)
            logits = torch.cat([first, after[:, :-1]], 1).float()  # (options, width, vocabulary)
        words = logits.log_softmax(-1).gather(2, rows[..., None])[..., 0]  # (options, width)
        return [float(words[at, : len(one)].mean()) for at, one in enumerate(answers)]

    def _prompt(self, messages: Sequence[Message]) -> str:
        return str(
            self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        )

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def _quiet() -> None:
    """Loading takes seconds; bars of a hundred steps would bury what is told."""
    from transformers.utils import logging  # noqa: PLC0415 - seconds

    logging.disable_progress_bar()


def load(adapter: Any) -> Specialist:
    """The specialist whose adapter lies there, its base unchanged beside it. Raises ConfigError."""
    from peft import PeftModel  # noqa: PLC0415 - seconds

    from training.causal import base_of, load_causal, load_tokenizer  # noqa: PLC0415

    _quiet()
    # In bfloat16 the odds of yes come in steps of a quarter.
    model, tokenizer = load_causal(base_of(adapter), dtype="float32")
    if (adapter / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(adapter)
    return Specialist(PeftModel.from_pretrained(model, str(adapter)), tokenizer)


def load_base(base: str, *, dtype: str = "") -> Specialist:
    """The base without any adapter. Raises ConfigError."""
    from training.causal import load_causal  # noqa: PLC0415 - seconds
    from training.finetune import has_bf16  # noqa: PLC0415

    _quiet()
    return Specialist(*load_causal(base, dtype=dtype or ("bfloat16" if has_bf16() else "float32")))
