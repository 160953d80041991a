"""A plan in words, in English and German: its recommendation, its reasons, the table of local against API."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from training.workshop.planning.reasons import reasons_of
from training.workshop.planning.verdict import Plan

WORDS = Path(__file__).with_name("words.toml")
Lang = Literal["en", "de"]
LANGUAGES: tuple[Lang, ...] = ("en", "de")


@cache
def words() -> dict[str, dict[str, str]]:
    """By language."""
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


def reasons(plan: Plan, lang: Lang) -> list[str]:
    """Why, one sentence each."""
    currency, months = plan.catalogue.currency, plan.scenario.months
    return [say(name, fills, lang, currency, months) for name, fills in reasons_of(plan)]


def say(name: str, fills: dict[str, Any], lang: Lang, currency: str, months: int) -> str:
    """One sentence."""
    text = words()[lang][name]
    shown = {key: _shown(key, value, lang) for key, value in fills.items()}
    return text.format(currency=currency, months=months, **shown)


def _shown(key: str, value: Any, lang: Lang) -> str:
    if isinstance(value, str):
        return {"qlora": "QLoRA", "lora": "LoRA"}.get(value, value)
    if math.isinf(value):
        return words()[lang]["never"]
    if key in {"tokens", "volume"}:
        return short(value)
    if key in {"memory", "room", "speed", "gib"} or (key in {"here", "there"} and value < 100):
        return decimal(value, 1, lang)
    if key == "hours":
        return decimal(value, 1 if value < 100 else 0, lang)
    return decimal(value, 0, lang)


def decimal(value: float, digits: int, lang: Lang) -> str:
    """A number as the language writes it."""
    text = f"{value:,.{digits}f}"
    return text.translate(str.maketrans(",.", ".,")) if lang == "de" else text


def short(value: float) -> str:
    """A count of tokens, as `--tokens-in` takes it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def headline(plan: Plan, lang: Lang) -> str:
    """The recommendation in one sentence."""
    if plan.choice == "neither":
        return words()[lang]["choice_neither"]
    if plan.choice == "api":
        return words()[lang]["choice_api"].format(model=plan.service.api.name)
    assert plan.local is not None
    tuned = ""
    if plan.scenario.terms:
        tuned = words()[lang]["choice_tuned"].format(method=_shown("", plan.local.training.method, lang))
    found = plan.local.fit
    return words()[lang]["choice_local"].format(
        model=found.model.name, quantization=found.quantization.name, tuned=tuned
    )


def table(plan: Plan, lang: Lang) -> list[tuple[str, str, str]]:
    """Criterion, local, API: performance, cost, data protection, upkeep."""
    spoken, given = words()[lang], plan.catalogue.assumptions
    usable = plan.local if plan.local is not None and not plan.local.why_not else None

    def filled(name: str, **fills: Any) -> str:
        return say(name, fills, lang, plan.catalogue.currency, plan.scenario.months)

    one = plan.service.api
    return [
        (
            spoken["performance"],
            filled(
                "local_performance",
                model=usable.fit.model.name,
                bits=decimal(usable.fit.quantization.bits, 1, lang),
                speed=usable.fit.answer_tokens_s,
                context=usable.fit.model.context,
                mmlu=_quality(usable.fit.model.mmlu, lang),
            )
            if usable
            else spoken["local_performance_none"],
            filled(
                "api_performance",
                model=one.name,
                context=one.context,
                speed=one.tokens_s,
                mmlu=_quality(one.mmlu, lang),
            ),
        ),
        (
            spoken["cost"],
            filled("local_cost", once=usable.cost.once, month=usable.cost.month)
            if usable
            else spoken["local_cost_none"],
            filled("api_cost", once=plan.service.cost.once, month=plan.service.cost.month),
        ),
        (spoken["privacy"], spoken["local_privacy"], spoken["api_privacy"]),
        (
            spoken["upkeep"],
            filled("local_upkeep", hours=given.upkeep_hours_local),
            filled("api_upkeep", hours=given.upkeep_hours_api),
        ),
    ]


def _quality(mmlu: float, lang: Lang) -> str:
    return decimal(mmlu, 1, lang) if mmlu else words()[lang]["unknown"]
