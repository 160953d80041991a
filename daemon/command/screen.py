"""The screen of `hauswart watch`: three views (now, one incident, history), kept fresh, worked by keys.

Fits 80 columns and 24 lines. Text from logs is shown as it is: it never becomes markup.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.coordinate import Coordinate
from textual.widgets import ContentSwitcher, DataTable, Input, Static

from daemon.advice.titles import title
from daemon.answers import new_snooze
from daemon.command import render, times
from daemon.command.advise import give_feedback, keep_verdict
from daemon.command.history import metric_plots
from daemon.command.session import Session, operator
from daemon.errors import HauswartError
from daemon.messages import Incident
from daemon.status import StageView, running_stages
from models.taxonomy import Severity

REFRESH_S = 1.0
PLOTTING = 20.0  # plots are read again after so many times what that took: hours of telemetry take seconds
SNOOZE_S = 3600.0
SHOWN = 200
NOW, ONE, PAST = "now", "incident", "history"
KEYS = {
    NOW: "enter open  g good  b bad  e edit  a acknowledge  s snooze  h history  q quit",
    ONE: "g good  b bad  e edit  a acknowledge  s snooze 1 h  escape back  q quit",
    PAST: "/ search  enter open  n now  q quit",
}
VERDICTS = {"g": "good", "b": "bad", "e": "edit", "a": "acknowledge"}


class Watch(App[None]):
    """Reads the store every second; what a key asks for is kept by the daemon."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "hauswart"
    CSS = """
    Screen { layout: vertical; }
    #head, #said, #keys { height: 1; padding: 0 1; }
    #keys { color: $text-muted; }
    ContentSwitcher { height: 1fr; }
    DataTable { height: 1fr; }
    #one { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("n", "view('now')", "Now"),
        Binding("h", "view('history')", "History"),
        Binding("escape", "leave", "Back"),
        Binding("j", "move(1)", "Down"),
        Binding("k", "move(-1)", "Up"),
        Binding("slash", "search", "Search"),
        Binding("s", "snooze", "Snooze"),
        *(Binding(key, f"verdict('{verdict}')", verdict) for key, verdict in VERDICTS.items()),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._rows: dict[str, list[Incident]] = {NOW: [], PAST: []}
        self._from = NOW  # the list from which an incident was opened
        self._shown: Incident | None = None
        self._plots: tuple[str, float, dict[str, list[float]]] = ("", 0.0, {})  # whose, until when, which

    # --- the screen ---------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """A headline, the views, what happened last, the keys."""
        yield Static(id="head")
        with ContentSwitcher(initial=NOW):
            yield self._table(NOW)
            with VerticalScroll(id=ONE):
                yield Static(id="one")
            with Vertical(id=PAST):
                yield Input(placeholder="a word in the evidence, a culprit, a class", id="search")
                yield self._table("past")
        yield Static(id="said")
        yield Static(id="keys")

    @staticmethod
    def _table(name: str) -> DataTable[Text]:
        table: DataTable[Text] = DataTable(id=name, cursor_type="row", zebra_stripes=False)
        table.cell_padding = 1
        return table

    def on_mount(self) -> None:
        """Begin to look."""
        for table in self.query(DataTable):
            table.add_columns("id", "since", "severity", "what", "culprit")
        self.query_one(f"#{NOW}", DataTable).focus()
        self.look()
        self.set_interval(REFRESH_S, self.look)

    def look(self) -> None:
        """Read the store again; what cannot be read is said and tried again."""
        if not self.query("#keys"):  # it is being closed, and the timer rang once more
            return
        try:
            self._read()
        except HauswartError as error:
            self.say(f"{error} {error.hint}")
        self.query_one("#keys", Static).update(Text(KEYS[self.view]))

    def _read(self) -> None:
        stages = running_stages(self._session.settings.runtime)
        search = self.query_one("#search", Input).value
        with self._session.reader() as reader:
            self._rows[NOW] = _gravest_first(reader.incidents(state="open", limit=SHOWN))
            if self.view == PAST:
                self._rows[PAST] = reader.incidents(search=search, limit=SHOWN)
            if self.view == ONE and self._shown is not None:
                self._shown = reader.incident(self._shown.id) or self._shown
        self.query_one("#head", Static).update(headline(stages, len(self._rows[NOW])))
        if self.view in self._rows:
            self._fill(self.view)
        elif self._shown is not None:
            self._draw(self._shown)

    def _fill(self, view: str) -> None:
        """Put the rows into their table, the cursor on the same incident as before."""
        table, lang, now = self._table_of(view), self._session.settings.language, time.time()
        wanted = [(one.id, _cells(one, lang, now)) for one in self._rows[view]]
        drawn = [
            (str(key.value), table.get_row(key)) for key in table.rows
        ]  # unchanged rows stay, so that nothing flickers
        if [(name, [str(cell) for cell in cells]) for name, cells in drawn] == [
            (name, [str(cell) for cell in cells]) for name, cells in wanted
        ]:
            return
        at = drawn[table.cursor_row][0] if drawn and table.cursor_row < len(drawn) else ""
        table.clear()
        for name, cells in wanted:
            table.add_row(*cells, key=name)
        names = [name for name, _ in wanted]
        table.cursor_coordinate = Coordinate(names.index(at) if at in names else 0, 0)

    def _draw(self, incident: Incident) -> None:
        lang = self._session.settings.language
        with self._session.reader() as reader:
            advice, timeline = reader.advice(incident.id, lang), reader.timeline(incident.id)
        plots = self._plotted(incident)
        watched = bool(running_stages(self._session.settings.runtime))
        seen = render.incident_view(
            incident, advice, timeline, plots, lang=lang, now=time.time(), watched=watched
        )
        self.query_one("#one", Static).update(seen)

    def _plotted(self, incident: Incident) -> dict[str, list[float]]:
        """The incident's plots, read anew as often as leaves the keys their time."""
        name, until_s, plots = self._plots
        begun_s = time.monotonic()
        if name != incident.id or begun_s >= until_s:
            plots = metric_plots(self._session, incident)
            ended_s = time.monotonic()
            self._plots = (incident.id, ended_s + PLOTTING * (ended_s - begun_s), plots)
        return plots

    @property
    def view(self) -> str:
        """Which view is on the screen."""
        return self.query_one(ContentSwitcher).current or NOW

    def _table_of(self, view: str) -> DataTable[Text]:
        return self.query_one("#past" if view == PAST else f"#{NOW}", DataTable)

    @property
    def incident(self) -> Incident | None:
        """The incident that a key is about."""
        if self.view == ONE:
            return self._shown
        rows, at = self._rows[self.view], self._table_of(self.view).cursor_row
        return rows[at] if at < len(rows) else None

    def say(self, text: str) -> None:
        """One line about what a key did."""
        self.query_one("#said", Static).update(Text(text, style="bold"))

    # --- keys -----------------------------------------------------------------------------------------------

    def action_view(self, view: str) -> None:
        """Show a list."""
        self.query_one(ContentSwitcher).current = view
        self._table_of(view).focus()
        self.look()

    def action_leave(self) -> None:
        """From an incident or the search to the list."""
        self.action_view(self._from if self.view == ONE else self.view)

    def action_move(self, by: int) -> None:
        """Move the cursor, or scroll."""
        if self.view == ONE:
            self.query_one(f"#{ONE}", VerticalScroll).scroll_relative(y=by, animate=False)
        elif by > 0:
            self._table_of(self.view).action_cursor_down()
        else:
            self._table_of(self.view).action_cursor_up()

    def action_search(self) -> None:
        """Look for a word in the history."""
        self.action_view(PAST)
        self.query_one("#search", Input).focus()

    def on_input_submitted(self) -> None:
        """The word is complete."""
        self.action_view(PAST)

    def on_data_table_row_selected(self) -> None:
        """Open the incident under the cursor."""
        self._shown, self._from = self.incident, self.view
        if self._shown is not None:
            self.query_one(ContentSwitcher).current = ONE
            self.query_one(f"#{ONE}", VerticalScroll).focus()
            self.look()

    def action_verdict(self, verdict: str) -> None:
        """Keep a verdict; an edit opens the operator's editor meanwhile."""
        incident, lang = self.incident, self._session.settings.language
        if incident is None:
            return
        try:
            with self._session.reader() as reader:
                advice = reader.advice(incident.id, lang)
            text = advice.text if advice else ""
            if verdict == "edit":
                with self.suspend():
                    given = give_feedback(incident, text, verdict, lang=lang)
            else:
                given = give_feedback(incident, text, verdict, lang=lang)
            self.say(keep_verdict(self._session, incident, given))
        except HauswartError as error:
            self.say(f"{error} {error.hint}")
        self.look()

    def action_snooze(self) -> None:
        """No notifications of this class and culprit for an hour."""
        incident, now = self.incident, time.time()
        if incident is None:
            return
        kept = new_snooze(incident, start=now, end=now + SNOOZE_S, user=operator())
        try:
            self._session.keep(kept)
            self.say(f"snoozed for 1 h: {incident.fault_class} of {kept.unit or 'the host'}")
        except HauswartError as error:
            self.say(f"{error} {error.hint}")


def headline(stages: Sequence[StageView], count: int) -> Text:
    """The host in one line."""
    if not stages:
        return Text("hauswart is not running: nobody watches this host", style="bold red")
    down = [one.stage for one in stages if not one.alive]
    cost = f"{sum(one.cpu_ratio for one in stages):.2%} of a core"
    memory = f"{sum(one.pss_bytes for one in stages) / (1 << 20):.0f} MiB"
    said = "all quiet" if not count and not down else f"{count} open"
    return Text.assemble(
        ("hauswart ", "bold"),
        f"{time.strftime('%H:%M:%S')}  {said}  {cost}, {memory}",
        (f"  down: {', '.join(down)}", "bold red") if down else "",
    )


def _cells(one: Incident, lang: str, now: float) -> list[Text]:
    state = "" if one.state == "open" else "dim"
    return [
        Text(one.id, style=state),
        Text(times.clock(one.opened_at, now), style=state),
        Text(one.severity, style=render.STYLES[one.severity]),
        Text(title(one, lang), style=state),
        Text(one.culprits[0].name if one.culprits else "", style=state),
    ]


def _gravest_first(found: list[Incident]) -> list[Incident]:
    return sorted(found, key=lambda one: (-Severity(one.severity).rank, -one.opened_at))
