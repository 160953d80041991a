"""A plan as a person reads it, within 80 columns, and as one flat JSON object."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from training.workshop.planning import costs, wording
from training.workshop.planning.catalogue import Assumptions
from training.workshop.planning.verdict import Candidate, Plan, Service
from training.workshop.planning.wording import Lang, decimal, reasons

WIDTH = 80
HEADINGS = {
    "en": {
        "machine": "This machine",
        "fits": "What fits",
        "costs": "What it costs",
        "table": "Local or API",
        "verdict": "Recommendation",
        "model": "model",
        "bits": "bits",
        "most": "at most",
        "memory": "GiB of {room}",
        "speed": "tokens/s",
        "train": "tuning",
        "remark": "",
        "once": "once",
        "month": "a month",
        "total": "in all",
        "cores": "cores",
        "free": "free on disk",
        "none": "no accelerator",
    },
    "de": {
        "machine": "Diese Maschine",
        "fits": "Was passt",
        "costs": "Was es kostet",
        "table": "Lokal oder API",
        "verdict": "Empfehlung",
        "model": "Modell",
        "bits": "Bits",
        "most": "höchstens",
        "memory": "GiB von {room}",
        "speed": "Token/s",
        "train": "Tuning",
        "remark": "",
        "once": "einmalig",
        "month": "im Monat",
        "total": "insgesamt",
        "cores": "Kerne",
        "free": "frei auf der Platte",
        "none": "keine Beschleunigerkarte",
    },
}
REMARKS = {
    "en": {
        "": "",
        "memory": "too large",
        "disk": "disk too small",
        "context": "context too short",
        "quality": "too weak",
        "base": "needs fine-tuning",
        "training": "no fine-tuning",
        "slow": "too slow",
        "slow-wait": "too slow",
        "sensitive": "texts leave",
    },
    "de": {
        "": "",
        "memory": "zu groß",
        "disk": "Platte zu klein",
        "context": "Kontext zu kurz",
        "quality": "zu schwach",
        "base": "braucht Feintuning",
        "training": "kein Feintuning",
        "slow": "zu langsam",
        "slow-wait": "zu langsam",
        "sensitive": "Texte gehen weg",
    },
}


def show(plan: Plan, lang: Lang, console: Console) -> None:
    """Print all of it."""
    heads = HEADINGS[lang]
    for heading, part in (
        ("machine", Text(_machine(plan, lang))),
        ("fits", _fits(plan, lang)),
        ("costs", _costs(plan, lang)),
        ("table", _comparison(plan, lang)),
        ("verdict", _recommendation(plan, lang)),
    ):
        console.print(Group(Text(heads[heading], style="bold"), Padding(part, (0, 0, 1, 2))))


def _machine(plan: Plan, lang: Lang) -> str:
    one, heads = plan.machine, HEADINGS[lang]
    card = f"{one.gpu}, {decimal(one.gpu_gib, 0, lang)} GiB" if one.gpu else heads["none"]
    speed = f"{decimal(one.bandwidth_gb_s, 1, lang)} GB/s, {decimal(one.gflops, 0, lang)} GFLOP/s"
    return (
        f"{one.cores} {heads['cores']}, {decimal(one.ram_gib, 1, lang)} GiB, {card};"
        f" {decimal(one.disk_gib, 0, lang)} GiB {heads['free']}; {speed} ({one.measured})"
    )


def _fits(plan: Plan, lang: Lang) -> RenderableType:
    heads = HEADINGS[lang]
    room = decimal(plan.candidates[0].fit.room_gib, 1, lang)
    memory = heads["memory"].format(room=room)
    table = _table(heads["model"], heads["bits"], heads["most"], memory, heads["speed"], heads["train"], "")
    for one in plan.candidates:
        found = one.fit
        style = "" if not one.why_not else "dim"
        speed = decimal(found.answer_tokens_s, 1 if found.answer_tokens_s < 100 else 0, lang)
        table.add_row(
            found.model.name,
            found.quantization.name,
            one.fits_at[0] if one.fits_at else "-",
            decimal(found.memory_gib, 1, lang),
            speed if found.fits else "-",
            {"qlora": "QLoRA", "lora": "LoRA"}.get(one.training.method, "-"),
            REMARKS[lang][one.why_not],
            style=style,
        )
    return table


def _costs(plan: Plan, lang: Lang) -> RenderableType:
    heads, currency = HEADINGS[lang], plan.catalogue.currency
    months = plan.scenario.months
    table = _table(
        "", f"{currency} {heads['once']}", heads["month"], f"{heads['total']} ({months})", heads["remark"]
    )
    rows: list[Candidate | Service] = [one for one in plan.candidates if not one.why_not]
    rows += plan.services
    for one in rows:
        name = one.fit.model.name if isinstance(one, Candidate) else one.api.name
        cells = (one.cost.once, one.cost.month, one.cost.total(months))
        table.add_row(name, *(decimal(cell, 0, lang) for cell in cells), REMARKS[lang][one.why_not])
    return table


def _comparison(plan: Plan, lang: Lang) -> RenderableType:
    spoken = wording.words()[lang]
    table = Table(show_edge=False, pad_edge=False, show_lines=True, header_style="dim")
    for heading, ratio in (("", 2), (spoken["local"], 5), (spoken["api"], 5)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for row in wording.table(plan, lang):
        table.add_row(*row)
    return table


def _recommendation(plan: Plan, lang: Lang) -> RenderableType:
    lines: list[RenderableType] = [Text(wording.headline(plan, lang), style="bold")]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for reason in reasons(plan, lang):
        table.add_row("-", reason)
    return Group(*lines, table)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        right = 0 < number < len(headings) - 1 and heading not in {"bits", "Bits", "at most", "höchstens"}
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


# --- JSON ---------------------------------------------------------------------------------------------------


def document(plan: Plan) -> dict[str, Any]:
    """One flat object; rows of lists are flat, too. What is infinite or does not exist is null."""
    machine, scenario, service = plan.machine, plan.scenario, plan.service
    given = plan.catalogue.assumptions
    local = plan.local if plan.local is not None and not plan.local.why_not else None
    months = scenario.months
    return {
        "schema": 1,
        "models_date": plan.catalogue.date,
        "currency": plan.catalogue.currency,
        **{key: _number(value) for key, value in machine._asdict().items()},
        **{key: _number(value) for key, value in scenario._asdict().items()},
        **{f"assumed_{key}": value for key, value in msgspec.structs.asdict(given).items()},
        "choice": plan.choice,
        "model": local.fit.model.name if local else None,
        "quantization": local.fit.quantization.name if local else None,
        "method": (local.training.method or None) if local and scenario.terms else None,
        "memory_gib": _number(local.fit.memory_gib) if local else None,
        "room_gib": _number(local.fit.room_gib) if local else None,
        "answer_tokens_s": _number(local.fit.answer_tokens_s) if local else None,
        "busy_hours_month": _number(local.busy_hours) if local else None,
        "local_once": _number(local.cost.once) if local else None,
        "local_month": _number(local.cost.month) if local else None,
        "local_total": _number(local.cost.total(months)) if local else None,
        "api": service.api.name,
        "api_once": _number(service.cost.once),
        "api_month": _number(service.cost.month),
        "api_total": _number(service.cost.total(months)),
        "break_even_tokens_month": _number(plan.break_even_tokens) if local else None,
        "break_even_months": _number(costs.break_even_months(local.cost, service.cost)) if local else None,
        "headline_en": wording.headline(plan, "en"),
        "headline_de": wording.headline(plan, "de"),
        "reasons_en": reasons(plan, "en"),
        "reasons_de": reasons(plan, "de"),
        "candidates": [_candidate(one, given) for one in plan.candidates],
        "apis": [_service(one, months) for one in plan.services],
        "table_en": [_row(row) for row in wording.table(plan, "en")],
        "table_de": [_row(row) for row in wording.table(plan, "de")],
    }


def _row(row: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("criterion", "local", "api"), row, strict=True))


def _candidate(one: Candidate, given: Assumptions) -> dict[str, Any]:
    return {
        "model": one.fit.model.name,
        "hub": one.fit.model.hub,
        "quantization": one.fit.quantization.name,
        "fits": one.fit.fits,
        "fits_at": list(one.fits_at),
        "why_not": one.why_not or None,
        "memory_gib": _number(one.fit.memory_gib),
        "download_gib": _number(one.fit.download_gib),
        "answer_tokens_s": _number(one.fit.answer_tokens_s),
        "prompt_tokens_s": _number(one.fit.prompt_tokens_s),
        "busy_hours_month": _number(one.busy_hours),
        "training_method": one.training.method or None,
        "training_memory_gib": _number(one.training.memory_gib) if one.training.method else None,
        "training_tokens_s": _number(one.training.tokens_s) if one.training.method else None,
        "training_hours": _number(costs.training_hours(one.training, given)),
        "date": one.fit.model.date,
        "source": one.fit.model.source,
    }


def _service(one: Service, months: int) -> dict[str, Any]:
    return {
        "api": one.api.name,
        "why_not": one.why_not or None,
        "once": _number(one.cost.once),
        "month": _number(one.cost.month),
        "total": _number(one.cost.total(months)),
        "date": one.api.date,
        "source": one.api.source,
    }


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isinf(value) or math.isnan(value) else round(value, 3)
