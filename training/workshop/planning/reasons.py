"""Why a plan says what it says: each reason as the name of its words (words.toml) and what fills them."""

from __future__ import annotations

import math
from typing import Any

from training.workshop.planning import costs
from training.workshop.planning.fitting import room_bytes
from training.workshop.planning.machine import GIB
from training.workshop.planning.verdict import Candidate, Plan, candidate, merit

Reason = tuple[str, dict[str, Any]]


def reasons_of(plan: Plan) -> list[Reason]:
    """Each as the name of its words and what fills them."""
    if plan.choice == "local":
        return _for_local(plan)
    found: list[Reason] = [("reason_sensitive_api", {})] if plan.scenario.sensitive else []
    found += _against_local(plan)
    if plan.choice == "api":
        found += _for_api(plan)
    else:
        found += _needed(plan)
    return found


def _for_local(plan: Plan) -> list[Reason]:
    local, service, scenario = plan.local, plan.service, plan.scenario
    assert local is not None
    here, there = local.cost.total(scenario.months), service.cost.total(scenario.months)
    money = {"here": here, "there": there, "api": service.api.name}
    found: list[Reason] = []
    found += [("reason_sensitive_local", {})] if scenario.sensitive else []
    found.append(("reason_cheaper_local" if here <= there else "reason_dearer_local", money))
    found.append(_even(plan))
    found.append(
        ("reason_buy", {"price": scenario.hardware_cost}) if scenario.hardware_cost else ("reason_paid", {})
    )
    if scenario.terms:
        hours = costs.training_hours(local.training, plan.catalogue.assumptions)
        fills = {"method": local.training.method, "memory": local.training.memory_gib, "hours": hours}
        found.append(("reason_terms_local", fills))
        dumb = next((one.api.name for one in plan.services if not one.api.tunable), "")
        found += [("reason_terms_api_none", {"api": dumb})] if dumb else []
    found.append(("reason_fits", _fills(local)))
    found.append(("reason_speed", {"hours": local.busy_hours}))
    if not scenario.interactive and service.api.tokens_s > local.fit.answer_tokens_s:
        speeds = {"here": local.fit.answer_tokens_s, "there": service.api.tokens_s}
        found.append(("reason_offline", speeds))
    if service.api.mmlu > local.fit.model.mmlu:
        found.append(("reason_quality", {"here": local.fit.model.mmlu, "there": service.api.mmlu}))
    return found


def _for_api(plan: Plan) -> list[Reason]:
    found: list[Reason] = []
    if plan.local is not None and not plan.local.why_not:
        months = plan.scenario.months
        here, there = plan.local.cost.total(months), plan.service.cost.total(months)
        found += [("reason_cheaper_api", {"here": here, "there": there}), _even(plan)]
    if plan.scenario.terms:
        found.append(("reason_terms_api", {}))
    return found


def _even(plan: Plan) -> Reason:
    tokens = plan.break_even_tokens
    if math.isinf(tokens):
        return "reason_even_never", {}
    return "reason_even", {"tokens": tokens, "volume": plan.scenario.tokens_in + plan.scenario.tokens_out}


def _against_local(plan: Plan) -> list[Reason]:
    """Why no local model counts, if none does."""
    nearest = plan.local
    if nearest is not None and not nearest.why_not:
        return []
    if nearest is None or nearest.why_not not in {"slow", "slow-wait", "training"}:
        if any(one.why_not == "disk" for one in plan.candidates):
            return [("reason_no_disk", {"gib": plan.machine.disk_gib})]
        return [
            ("reason_no_fit", {"least": plan.scenario.least_mmlu, "room": room_bytes(plan.machine) / GIB})
        ]
    if nearest.why_not == "training":
        return [("reason_no_training", {})]
    if nearest.why_not == "slow":
        return [("reason_too_slow", {"model": nearest.fit.model.name, "hours": nearest.busy_hours})]
    fills = {"model": nearest.fit.model.name, "speed": nearest.fit.answer_tokens_s}
    return [("reason_too_slow_wait", fills)]


def _needed(plan: Plan) -> list[Reason]:
    """The cheapest listed card with which a local model would count."""
    for row in sorted((one for one in plan.catalogue.gpu if one.name != "gpu"), key=lambda one: one.price):
        card = plan.machine._replace(
            gpu=row.name,
            gpu_gib=row.memory,
            bandwidth_gb_s=row.bandwidth,
            gflops=row.tflops * 1000,
            watts=row.watts,
        )
        found = [candidate(model, card, plan.scenario, plan.catalogue) for model in plan.catalogue.model]
        best = max((one for one in found if not one.why_not), key=merit, default=None)
        if best is not None:
            fills = {"gib": row.memory, "gpu": row.name, "price": row.price, **_fills(best)}
            return [("reason_need", fills)]
    return []


def _fills(one: Candidate) -> dict[str, Any]:
    return {
        "model": one.fit.model.name,
        "quantization": one.fit.quantization.name,
        "memory": one.fit.memory_gib,
        "room": one.fit.room_gib,
    }
