"""What answering costs, here and at a provider's, and from which volume on here is cheaper."""

from __future__ import annotations

import math
from typing import NamedTuple

from training.workshop.planning.catalogue import MILLION, Api, Assumptions
from training.workshop.planning.fitting import Fit, Training
from training.workshop.planning.machine import Machine

HOURS_MONTH = 730.0
SECONDS_HOUR = 3600.0


class Scenario(NamedTuple):
    """What is wanted. Tokens are those of a month."""

    tokens_in: float
    tokens_out: float
    concurrency: int = 1
    context: int = 4096
    months: int = 24
    sensitive: bool = False  # texts that may not leave the house
    terms: bool = False  # a domain's own words: fine-tuning is needed
    interactive: bool = False  # somebody waits for the answer
    hardware_cost: float = 0.0  # still to be bought; 0: it is there
    least_mmlu: float = 50.0  # how good a model has to be
    rank: int = 16  # of the adapter


class Cost(NamedTuple):
    """Once, and each month; `per_token` is the part of a month that grows with each token."""

    once: float
    month: float
    per_token: float

    def total(self, months: int) -> float:
        """Over the whole time."""
        return self.once + months * self.month


def busy_hours(fit: Fit, scenario: Scenario) -> float:
    """Hours of work in a month; infinite where it computes nothing."""
    if not (fit.prompt_tokens_s and fit.answer_tokens_s):
        return math.inf
    seconds = scenario.tokens_in / fit.prompt_tokens_s + scenario.tokens_out / fit.answer_tokens_s
    return seconds / SECONDS_HOUR


def training_hours(trained: Training, given: Assumptions) -> float:
    """Hours of one fine-tuning; infinite where none fits."""
    if not (trained.method and trained.tokens_s):
        return math.inf
    return given.training_tokens * given.epochs / trained.tokens_s / SECONDS_HOUR


def local(
    fit: Fit, trained: Training | None, machine: Machine, scenario: Scenario, given: Assumptions
) -> Cost:
    """Hardware still to be bought, set-up and training once; electricity and upkeep each month."""
    energy = machine.watts / 1000 * given.electricity_per_kwh  # an hour of work
    once = scenario.hardware_cost + given.setup_hours_local * given.hourly_rate
    if trained is not None and trained.method:
        once += training_hours(trained, given) * energy
    electricity = busy_hours(fit, scenario) * energy
    volume = scenario.tokens_in + scenario.tokens_out
    return Cost(
        once,
        electricity + given.upkeep_hours_local * given.hourly_rate,
        electricity / volume if volume else 0.0,
    )


def api(one: Api, scenario: Scenario, given: Assumptions) -> Cost:
    """Tokens at their price; a fine-tuned model's where the terms need one and the provider sells it."""
    tuned = scenario.terms and one.tunable
    price_in = (one.tuned_input if tuned else None) or one.input
    price_out = (one.tuned_output if tuned else None) or one.output
    once = given.setup_hours_api * given.hourly_rate
    if tuned:
        once += (one.training or 0.0) * given.training_tokens * given.epochs / MILLION
    used = (scenario.tokens_in * price_in + scenario.tokens_out * price_out) / MILLION
    volume = scenario.tokens_in + scenario.tokens_out
    return Cost(once, used + given.upkeep_hours_api * given.hourly_rate, used / volume if volume else 0.0)


def break_even_tokens(here: Cost, there: Cost, scenario: Scenario) -> float:
    """Tokens of a month, in the scenario's mix, from which on here costs less; or infinity."""
    volume = scenario.tokens_in + scenario.tokens_out
    saved = there.per_token - here.per_token
    if saved <= 0:
        return math.inf
    fixed = (here.once - there.once) / scenario.months
    fixed += (here.month - here.per_token * volume) - (there.month - there.per_token * volume)
    return max(0.0, fixed / saved)


def break_even_months(here: Cost, there: Cost) -> float:
    """After how many months the scenario's own volume has paid for what here costs once; or infinity."""
    if here.once <= there.once and here.month <= there.month:
        return 0.0
    saved = there.month - here.month
    return (here.once - there.once) / saved if saved > 0 else math.inf
