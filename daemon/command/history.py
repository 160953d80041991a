"""`hauswart status`, `incidents` and `show`: what is and what was."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from daemon.command import render, times
from daemon.command.session import Session, console, print_json, session_of
from daemon.errors import HauswartError
from daemon.messages import Advice, Incident
from daemon.status import running_stages
from daemon.store.documents import incident_document
from daemon.store.reader import StoreReader
from daemon.store.segments import read_series
from models.taxonomy import FaultClass, Severity

PLOT_MARGIN_S = 300.0
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Lang = Annotated[str | None, typer.Option("--lang", help="en or de; default from the settings.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("status", help="The host in one glance: stages, open incidents, what hauswart itself costs.")(
        status
    )
    app.command("incidents", help="List incidents: the open ones and those of the last day.")(incidents)
    app.command("show", help="One incident: advice, evidence, context, plots, timeline.")(show)


def status(context: typer.Context, *, as_json: Json = False) -> None:
    """Exit code 1 if a stage is down or an incident of error or worse is open."""
    session, now = session_of(context), time.time()
    stages = running_stages(session.settings.runtime)
    with session.reader() as reader:
        found = reader.incidents(state="open")
    if as_json:
        print_json({"stages": stages, "open": [incident_document(one, None) for one in found]})
    else:
        out = console()
        out.print(render.stage_table(stages) if stages else Text("The daemon is not running.", style="red"))
        out.print()
        if (models := render.model_table(stages)) is not None:
            out.print(models)
            out.print()
        if found:
            out.print(render.incident_table(found, session.settings.language, now))
        else:
            out.print("No open incident.")
    down = not stages or any(not one.alive for one in stages)
    if down or any(one.severity.rank >= Severity.ERROR.rank for one in found):
        raise typer.Exit(1)


def incidents(
    context: typer.Context,
    *,
    since: Annotated[str, typer.Option(help="2h, yesterday, 2026-11-21T23:00")] = "1d",
    everything: Annotated[bool, typer.Option("--all", "-a", help="However old.")] = False,
    only_open: Annotated[bool, typer.Option("--open", help="Only what is open.")] = False,
    fault_class: Annotated[FaultClass | None, typer.Option("--class")] = None,
    severity: Annotated[Severity | None, typer.Option(help="This severity and worse.")] = None,
    search: Annotated[str, typer.Option(help="A word in the evidence or a culprit.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 100,
    as_json: Json = False,
    lang: Lang = None,
) -> None:
    """Newest first; with --json one incident a line."""
    session, now = session_of(context), time.time()
    with session.reader() as reader:
        found = reader.incidents(
            state="open" if only_open else None,
            since=None if everything or only_open else times.parse_when(since, now),
            fault_class=fault_class,
            severity=severity,
            search=search,
            limit=limit,
        )
        if as_json:
            for one in found:
                print_json(incident_document(one, _advice(reader, one, lang or session.settings.language)))
            return
    out = console()
    if found:
        out.print(render.incident_table(found, lang or session.settings.language, now))
    else:
        out.print(
            "No open incident."
            if only_open
            else f"No incident since {since}."
            if not everything
            else "No incident."
        )


def show(
    context: typer.Context,
    incident_id: Annotated[
        str, typer.Argument(metavar="ID", help="An incident's id, or the beginning of it.")
    ],
    *,
    as_json: Json = False,
    lang: Lang = None,
) -> None:
    """Everything about one incident."""
    session = session_of(context)
    chosen = lang or session.settings.language
    with session.reader() as reader:
        found = reader.incident(incident_id)
        if found is None:
            raise HauswartError(f"no incident {incident_id!r}", hint="see `hauswart incidents --all`")
        advice = _advice(reader, found, chosen)
        if as_json:
            print_json(incident_document(found, advice))
            return
        timeline = reader.timeline(found.id)
    plots, watched = metric_plots(session, found), bool(running_stages(session.settings.runtime))
    view = render.incident_view(found, advice, timeline, plots, lang=chosen, now=time.time(), watched=watched)
    console().print(view)


def metric_plots(session: Session, incident: Incident) -> dict[str, list[float]]:
    """The values of the incident's metrics around it, from the telemetry that is still kept."""
    names = [one.ref for one in incident.evidence if one.kind == "metric"][:6]
    if not names:
        return {}
    end = (incident.closed_at or incident.updated_at) + PLOT_MARGIN_S
    found = read_series(session.settings.state / "telemetry", names, incident.opened_at - PLOT_MARGIN_S, end)
    return {name: values for name, (_, values) in found.items() if len(values) > 1}


def _advice(reader: StoreReader, incident: Incident, lang: str) -> Advice | None:
    return reader.advice(incident.id, lang)
