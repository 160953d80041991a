"""`hauswart feedback` and `hauswart silence`: what the operator says back."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.table import Table
from rich.text import Text

from daemon import answers
from daemon.answers import new_silence
from daemon.command import times
from daemon.command.session import Session, console, operator, print_json, session_of
from daemon.errors import ConfigError, HauswartError
from daemon.messages import Incident, KeepFeedback, KeepSilence
from daemon.silences import parse_recurring
from models.taxonomy import FaultClass


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("feedback", help="Say whether an incident and its advice were right: good, bad or edit.")(
        feedback
    )
    group = typer.Typer(help="Keep quiet about something: by class, culprit, time.", no_args_is_help=True)
    group.command("add", help="Add a silence.")(silence_add)
    group.command("list", help="List the silences in force.")(silence_list)
    group.command("remove", help="End a silence.")(silence_remove)
    app.add_typer(group, name="silence")


def feedback(
    context: typer.Context,
    incident_id: Annotated[str, typer.Argument(metavar="ID")],
    verdict: Annotated[str, typer.Argument(help="good, bad, edit or acknowledge")],
    *,
    text: Annotated[str, typer.Option(help="With edit: the improved advice; without it $EDITOR opens.")] = "",
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    lang: Annotated[str | None, typer.Option(help="en or de")] = None,
) -> None:
    """Kept when the command returns; later training reads it."""
    session = session_of(context)
    with session.reader() as reader:
        incident = reader.incident(incident_id)
        if incident is None:
            raise HauswartError(f"no incident {incident_id!r}", hint="see `hauswart incidents --all`")
        chosen = lang or session.settings.language
        advice = reader.advice(incident.id, chosen)
    given = give_feedback(
        incident, advice.text if advice else "", verdict, lang=chosen, text=text, comment=comment
    )
    sys.stdout.write(keep_verdict(session, incident, given) + "\n")


def keep_verdict(session: Session, incident: Incident, given: KeepFeedback) -> str:
    """Keep a verdict and what follows from it at once; what was done, in words."""
    followed = answers.keep_verdict(session.settings, incident, given)
    said = f"kept: {given.verdict} for incident {incident.id}"
    if (made := followed.made) is not None:
        whom = f"{made.fault_class}" + (f" of {made.unit}" if made.unit else "")
        said += f"; {whom} is quiet on this host from now on (undo: hauswart silence remove {made.id})"
    for silence in followed.ended:
        said += f"; silence {silence.id} ended"
    return said


def give_feedback(
    incident: Incident, original: str, verdict: str, *, lang: str, text: str = "", comment: str = ""
) -> KeepFeedback:
    """The record of a verdict; an edit without text opens the operator's editor. Raises ConfigError."""
    spoken = {"good": "good", "bad": "bad", "edit": "edited", "edited": "edited"}
    spoken |= {"acknowledge": "acknowledged", "acknowledged": "acknowledged", "ack": "acknowledged"}
    if verdict not in spoken:
        raise ConfigError(f"unknown verdict {verdict!r}", hint="good, bad, edit or acknowledge")
    improved = ""
    if spoken[verdict] == "edited":
        improved = text or edit(original)
        if not improved.strip() or improved.strip() == original.strip():
            raise ConfigError("the advice was not changed", hint="nothing was kept")
    return KeepFeedback(
        incident_id=incident.id,
        verdict=spoken[verdict],  # type: ignore[arg-type]  # one of the four literals above
        user=operator(),
        at=time.time(),
        lang=lang,
        original=original if improved else "",
        improved=improved,
        comment=comment,
    )


def edit(text: str) -> str:
    """The text as the operator's editor leaves it; raises HauswartError."""
    with tempfile.NamedTemporaryFile("w+", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
        try:
            subprocess.run([*editor, file.name], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise HauswartError(f"editor {editor[0]!r}: {error}", hint="set EDITOR, or use --text") from error
        return Path(file.name).read_text(encoding="utf-8")


def silence_add(
    context: typer.Context,
    *,
    fault_class: Annotated[FaultClass | None, typer.Option("--class", help="Only this fault class.")] = None,
    unit: Annotated[str, typer.Option(help="Only culprits like this; * and ? match.")] = "",
    last: Annotated[str, typer.Option("--for", help="How long: 2h, 1d ...")] = "",
    recurring: Annotated[str, typer.Option(help="'Mon,Tue 02:00-04:00' or 'daily 02:00-04:00'")] = "",
    reason: Annotated[str, typer.Option()] = "",
) -> None:
    """Without --for and --recurring it holds until it is removed."""
    if fault_class is None and not unit and not last and not recurring:
        raise ConfigError(
            "this would silence everything for ever", hint="give --class, --unit, --for or --recurring"
        )
    if recurring:
        parse_recurring(recurring)
    now = time.time()
    kept = new_silence(
        user=operator(),
        fault_class=fault_class or "",
        unit=unit,
        start=now,
        end=now + times.parse_duration(last) if last else None,
        recurring=recurring,
        reason=reason,
    )
    session_of(context).keep(kept)
    sys.stdout.write(f"silence {kept.id}: {describe(kept, now)}\n")


def silence_list(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object each.")] = False,
) -> None:
    """What is silenced now or will be again."""
    now = time.time()
    with session_of(context).reader() as reader:
        found = [one for one in reader.silences() if not one.cancelled and (one.end is None or one.end > now)]
    if as_json:
        for one in found:
            print_json(one)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("id", "what", "by", "reason"):
        table.add_column(heading)
    for one in found:
        table.add_row(*(Text(cell) for cell in (one.id, describe(one, now), one.user, one.reason)))
    console().print(table if found else "No silence.")


def silence_remove(context: typer.Context, silence_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """The silence stays in the store, marked as ended."""
    session = session_of(context)
    silence = find_silence(session, silence_id)
    session.keep(replace(silence, user=operator(), cancelled=True))
    sys.stdout.write(f"silence {silence.id} ended\n")


def find_silence(session: Session, silence_id: str) -> KeepSilence:
    """The silence whose id begins so; raises HauswartError."""
    with session.reader() as reader:
        found = [one for one in reader.silences() if one.id.startswith(silence_id) and not one.cancelled]
    if len(found) != 1:
        raise HauswartError(
            f"{len(found)} silences begin with {silence_id!r}", hint="see `hauswart silence list`"
        )
    return found[0]


def describe(silence: KeepSilence, now: float) -> str:
    """What a silence covers, in words."""
    what = silence.fault_class or "every class"
    whom = f" of {silence.unit}" if silence.unit else ""
    until = f", for {times.ago(silence.end - now)} more" if silence.end is not None else ""
    return f"{what}{whom}{', ' + silence.recurring if silence.recurring else until or ', until removed'}"
