"""`hauswart report`: a day, a week or one incident, to be mailed or attached to a ticket."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from daemon.command import times
from daemon.command.history import Lang
from daemon.command.session import session_of
from daemon.errors import ConfigError, HauswartError

Form = Literal["html", "md"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("report", help="Write a time or one incident as an HTML page or Markdown.")(report)


def report(
    context: typer.Context,
    incident_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="One incident; without it all of a time.")
    ] = "",
    *,
    since: Annotated[str, typer.Option(help="2h, yesterday, 7d, 2026-11-21T23:00")] = "1d",
    until: Annotated[str, typer.Option(help="The same; default now.")] = "now",
    form: Annotated[Form | None, typer.Option("--format", help="html or md; default by --out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file; default standard output.")] = None,
    lang: Lang = None,
) -> None:
    """One file that loads nothing else: advice, evidence, plots and timeline of each incident."""
    from daemon.pages import gather  # noqa: PLC0415 - no other command pays for templates
    from daemon.pages import report as pages  # noqa: PLC0415
    from daemon.pages.words import Words  # noqa: PLC0415

    session, now = session_of(context), time.time()
    words = Words(lang or session.settings.language)
    telemetry = session.settings.state / "telemetry"
    with session.reader() as reader:
        if incident_id:
            found = reader.incident(incident_id)
            if found is None:
                raise HauswartError(f"no incident {incident_id!r}", hint="see `hauswart incidents --all`")
            one = gather.tell(reader, telemetry, found, words, alone=True)
            period = gather.Period(found.opened_at, found.closed_at or now, [one], 0)
        else:
            start, end = times.parse_when(since, now), times.parse_when(until, now)
            if start >= end:
                raise ConfigError(f"--since {since} is not before --until {until}", hint="see --help")
            period = gather.period(reader, telemetry, start, end, words)
    chosen = form or ("md" if out is not None and out.suffix == ".md" else "html")
    write = pages.page if chosen == "html" else pages.text
    _put(out, write(period, words, host=socket.gethostname(), at=now))


def _put(out: Path | None, text: str) -> None:
    """Write a file as a whole or not at all; it may name users and addresses, so it is its owner's alone."""
    if out is None:
        sys.stdout.write(text)
        return
    try:
        descriptor, name = tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(out)
    except OSError as error:
        raise HauswartError(f"{out}: {error.strerror}", hint="give another --out") from error
    sys.stderr.write(f"{out}\n")
