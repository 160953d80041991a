"""`hauswart watch`: the open incidents as they come, answered with one key."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from daemon.answers import new_silence
from daemon.command import render
from daemon.command.advise import give_feedback, keep_verdict
from daemon.command.history import metric_plots
from daemon.command.session import Session, operator, session_of
from daemon.errors import ConfigError, HauswartError
from daemon.messages import Advice, Incident
from daemon.status import StageView, running_stages

REFRESH_S = 1.0
SNOOZE_S = 3600.0
KEYS = "j/k move  enter details  g good  b bad  e edit  a acknowledge  s snooze 1 h  c closed too  q quit"
VERDICTS = {"g": "good", "b": "bad", "e": "edit", "a": "acknowledge"}
ARROWS = {"\x1b[A": "k", "\x1b[B": "j"}


@dataclass
class View:
    """What is on the screen."""

    incidents: list[Incident] = field(default_factory=list)
    stages: list[StageView] = field(default_factory=list)
    chosen: int = 0
    detail: bool = False
    with_closed: bool = False
    message: str = ""
    advice: Advice | None = None
    timeline: list[tuple[float, str]] = field(default_factory=list)
    plots: dict[str, list[float]] = field(default_factory=dict)

    @property
    def incident(self) -> Incident | None:
        """The incident under the cursor."""
        return self.incidents[self.chosen] if self.incidents else None


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("watch", help="Watch the open incidents live; answer with one key.")(watch)


def watch(context: typer.Context) -> None:
    """Needs a terminal; `hauswart incidents --json` serves scripts."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("watch needs a terminal", hint="for scripts: hauswart incidents --json")
    session, view = session_of(context), View()
    refresh(session, view)
    screen = Live(draw(view, session), screen=True, auto_refresh=False, console=Console())
    with single_keys(), screen as live:
        while (key := read_key(REFRESH_S)) != "q":
            if key == "e":
                live.stop()
            answer(session, view, key)
            if key == "e":
                live.start(refresh=True)
            refresh(session, view)
            live.update(draw(view, session), refresh=True)


def refresh(session: Session, view: View) -> None:
    """Read the store again and keep the cursor on the same incident."""
    before = view.incident
    view.stages = running_stages(session.settings.runtime)
    with session.reader() as reader:
        view.incidents = reader.incidents(state=None if view.with_closed else "open", limit=50)
        ids = [one.id for one in view.incidents]
        view.chosen = (
            ids.index(before.id) if before and before.id in ids else min(view.chosen, max(0, len(ids) - 1))
        )
        if view.incident and view.detail:
            view.advice = reader.advice(view.incident.id, session.settings.language)
            view.timeline = reader.timeline(view.incident.id)
            view.plots = metric_plots(session, view.incident)


def answer(session: Session, view: View, key: str) -> None:
    """Do what a key asks; a failure becomes the message at the bottom."""
    view.message = "" if key else view.message
    try:
        act(session, view, key)
    except HauswartError as error:
        view.message = f"{error} {error.hint}"


def act(session: Session, view: View, key: str) -> None:
    """Move, open, or keep a verdict or a silence."""
    if key in {"j", "k"}:
        view.chosen = max(0, min(len(view.incidents) - 1, view.chosen + (1 if key == "j" else -1)))
    elif key in {"\r", "\n"}:
        view.detail = not view.detail
    elif key == "c":
        view.with_closed = not view.with_closed
    elif key in VERDICTS and view.incident:
        with session.reader() as reader:
            advice = reader.advice(view.incident.id, session.settings.language)
        text = advice.text if advice else ""
        given = give_feedback(view.incident, text, VERDICTS[key], lang=session.settings.language)
        view.message = keep_verdict(session, view.incident, given)
    elif key == "s" and view.incident:
        snooze(session, view, view.incident)


def snooze(session: Session, view: View, incident: Incident) -> None:
    """No notifications of this class and culprit for an hour."""
    now = time.time()
    unit = incident.culprits[0].name if incident.culprits else ""
    kept = new_silence(
        fault_class=incident.fault_class,
        unit=unit,
        start=now,
        end=now + SNOOZE_S,
        user=operator(),
        reason="snoozed",
    )
    session.keep(kept)
    view.message = f"snoozed for 1 h: {incident.fault_class} of {unit or 'the host'}"


def draw(view: View, session: Session) -> RenderableType:
    """The whole screen."""
    now, lang = time.time(), session.settings.language
    if view.detail and view.incident:
        body: RenderableType = render.incident_view(
            view.incident, view.advice, view.timeline, view.plots, lang=lang, now=now
        )
    elif view.incidents:
        body = render.incident_table(view.incidents, lang, now, view.incident.id if view.incident else "")
    else:
        body = Text("No open incident.", style="green")
    return Group(
        _headline(view), Text(), body, Text(), Text(view.message, style="bold"), Text(KEYS, style="dim")
    )


def _headline(view: View) -> Text:
    down = [one.stage for one in view.stages if not one.alive]
    if not view.stages:
        return Text("hauswart is not running", style="red")
    cost = f"{sum(one.cpu_ratio for one in view.stages):.2%} of a core"
    memory = f"{sum(one.pss_bytes for one in view.stages) / (1 << 20):.0f} MiB"
    said = f"hauswart  {time.strftime('%H:%M:%S')}  {len(view.incidents)} incidents  {cost}, {memory}"
    return Text.assemble(said, (f"  down: {', '.join(down)}", "red") if down else "")


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Keys arrive at once and unechoed; the terminal is put back whatever happens."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key(timeout_s: float) -> str:
    """One key, or "" after the time-out; arrows become j and k."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    if not ready:
        return ""
    key = os.read(sys.stdin.fileno(), 8).decode(errors="replace")
    return ARROWS.get(key, key[:1])
