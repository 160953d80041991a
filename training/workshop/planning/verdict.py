"""What to take, and why: privacy first, then whether it works here at all, then what it costs.

1. Sensitive texts go to no provider.
2. A local model counts if it fits, is good enough, keeps up with the volume and, where the domain has words
   of its own, can be fine-tuned here. A base model that is not tuned answers no questions and does not count.
3. Of the local ones that count the best by MMLU is taken, of the services the cheapest that is good enough.
4. Where both would do, the cheaper one over the scenario's months.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from training.workshop.planning import costs
from training.workshop.planning.catalogue import Api, Catalogue, Model
from training.workshop.planning.costs import Cost, Scenario
from training.workshop.planning.fitting import (
    Calibration,
    Effort,
    Fit,
    Training,
    choose,
    fit,
    training,
)
from training.workshop.planning.machine import Machine

LEAST_ANSWER_TOKENS_S = 8.0  # of one conversation: what a person reads is some 5 words a second


class Candidate(NamedTuple):
    """One model at its best quantization here; `why_not` is empty where it counts."""

    fit: Fit
    training: Training
    cost: Cost
    busy_hours: float
    why_not: str
    fits_at: tuple[str, ...]  # every quantization that would fit


class Service(NamedTuple):
    """One API with its cost; `why_not` is empty where it would do."""

    api: Api
    cost: Cost
    why_not: str


class Plan(NamedTuple):
    """Everything that a screen or a file shows."""

    catalogue: Catalogue
    machine: Machine
    scenario: Scenario
    candidates: list[Candidate]
    services: list[Service]
    choice: Literal["local", "api", "neither"]
    local: Candidate | None  # the best that counts, else the nearest
    service: Service

    @property
    def break_even_tokens(self) -> float:
        """Of a month; infinite where there is none."""
        if self.local is None:
            return math.inf
        return costs.break_even_tokens(self.local.cost, self.service.cost, self.scenario)


def make_plan(
    catalogue: Catalogue, machine: Machine, scenario: Scenario, calibration: Calibration | None = None
) -> Plan:
    """Weigh everything for this machine and scenario."""
    candidates = [candidate(one, machine, scenario, catalogue, calibration) for one in catalogue.model]
    services = [_service(one, scenario, catalogue) for one in catalogue.api]
    local = max((one for one in candidates if not one.why_not), key=merit, default=None)
    nearest = local or max((one for one in candidates if one.fit.fits), key=merit, default=None)
    usable = [one for one in services if one.why_not in {"", "sensitive"}] or services
    service = min(usable, key=lambda one: one.cost.total(scenario.months))
    here, there = (
        local.cost.total(scenario.months) if local else math.inf,
        service.cost.total(scenario.months),
    )
    choice: Literal["local", "api", "neither"] = "neither" if service.why_not else "api"
    if local is not None and (service.why_not or here <= there):
        choice = "local"
    return Plan(catalogue, machine, scenario, candidates, services, choice, nearest, service)


def merit(one: Candidate) -> tuple[bool, float, float, float]:
    """Of two candidates the one to take is the larger."""
    good = one.why_not in {"", "slow", "slow-wait", "training"}
    return good, one.fit.model.mmlu, one.fit.answer_tokens_s, -one.fit.model.parameters


def candidate(
    model: Model,
    machine: Machine,
    scenario: Scenario,
    catalogue: Catalogue,
    calibration: Calibration | None = None,
) -> Candidate:
    """A model at the quantization to take here, and whether it counts."""
    effort = Effort(scenario.context, scenario.concurrency)
    fits = [fit(model, one, machine, effort, calibration) for one in catalogue.quantization]
    found, fits_at = choose(fits), tuple(one.quantization.name for one in fits if one.fits)
    trained = training(model, machine, scenario.rank)
    tuned = trained if scenario.terms else None
    cost = costs.local(found, tuned, machine, scenario, catalogue.assumptions)
    hours, lack = costs.busy_hours(found, scenario), _lack(found, trained, scenario)
    return Candidate(found, trained, cost, hours, lack, fits_at)


def _lack(found: Fit, trained: Training, scenario: Scenario) -> str:
    """Why a model does not count, the first reason; "" if it does."""
    model = found.model
    speed = found.answer_tokens_s / scenario.concurrency
    lacks = {
        found.why_not: bool(found.why_not),
        "quality": model.mmlu < scenario.least_mmlu,
        "base": not (model.chat or scenario.terms),
        "training": scenario.terms and not trained.method,
        "slow": costs.busy_hours(found, scenario) > costs.HOURS_MONTH,
        "slow-wait": scenario.interactive and speed < LEAST_ANSWER_TOKENS_S,
    }
    return next((why for why, holds in lacks.items() if holds), "")


def _service(one: Api, scenario: Scenario, catalogue: Catalogue) -> Service:
    lacks = {
        "quality": one.mmlu < scenario.least_mmlu,
        "context": one.context < scenario.context,
        "training": scenario.terms and not one.tunable,
        "sensitive": scenario.sensitive,
    }
    why_not = next((why for why, holds in lacks.items() if holds), "")
    return Service(one, costs.api(one, scenario, catalogue.assumptions), why_not)
