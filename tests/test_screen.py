"""The screen of `hauswart watch` in 80 columns and 24 lines: its views, its keys, and hostile text."""

import asyncio
import time

import pytest
from textual.widgets import DataTable, Input, Static

from daemon.command import screen as watching
from daemon.command.screen import KEYS, NOW, ONE, PAST, Watch
from daemon.command.session import Session
from daemon.messages import Advice, KeepAdvice
from daemon.store.reader import StoreReader
from daemon.store.writer import StoreWriter
from models.taxonomy import FaultClass, Severity
from tests.fixtures.pages import HOSTILE, incident

AT = time.time()
SIZE = (80, 24)


@pytest.fixture
def state(tmp_path):
    """Two open incidents and a closed one."""
    grave = incident("hgd6k2n", fault_class=FaultClass.CRASH_LOOP, severity=Severity.CRITICAL)
    over = incident("zzz2345", state="closed", opened_at=AT - 9000, updated_at=AT - 8900, closed_at=AT - 8900)
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(), grave, over], [])
        writer.keep(
            KeepAdvice("abc2345", 1, [Advice("/srv is nearly full.", "en", "catalogue", "du -xh /srv")])
        )
    return tmp_path


def play(state, *keys):
    """Press keys, then look: what `see` gives for the running app."""

    async def run(see):
        app = Watch(Session(None, state))
        async with app.run_test(size=SIZE) as pilot:
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
            return see(app)

    return lambda see: asyncio.run(run(see))


def names(app, table):
    return [str(key.value) for key in app.query_one(f"#{table}", DataTable).rows]


def screen(app):
    """The text of the screen, line by line."""
    return "\n".join(
        "".join(piece.text for piece in strip).rstrip() for strip in app.screen._compositor.render_strips()
    )


def test_gravest_open_incident_comes_first_and_closed_ones_are_history(state):
    assert play(state)(lambda app: names(app, NOW)) == ["hgd6k2n", "abc2345"]
    assert set(play(state, "h")(lambda app: names(app, "past"))) == {"hgd6k2n", "abc2345", "zzz2345"}


def test_incident_is_opened_and_left_again(state):
    def seen(app):
        return app.view, screen(app)

    view, text = play(state, "j", "enter")(seen)
    assert view == ONE
    assert "/srv is nearly full." in text
    assert "$ du -xh /srv" in text
    assert play(state, "j", "enter", "escape")(lambda app: app.view) == NOW
    assert play(state, "h", "enter", "escape")(lambda app: app.view) == PAST


def test_plots_that_take_long_to_read_are_not_read_at_each_look(state, monkeypatch):
    read = []

    def slow(_session, incident):
        read.append(incident.id)
        time.sleep(0.5)
        return {"cpu.busy": [0.1, 0.9]}

    def look(app):
        for _ in range(5):
            app.look()
        seen = screen(app)
        app._plots = ("hgd6k2n", 0.0, {})
        app.look()
        return seen

    monkeypatch.setattr(watching, "metric_plots", slow)
    assert "0.1 to 0.9" in play(state, "enter")(look)
    assert read == ["hgd6k2n", "hgd6k2n"]


def test_history_is_searched(state):
    keys = ("slash", *"crash", "enter")
    assert play(state, *keys)(lambda app: names(app, "past")) == ["hgd6k2n"]
    assert play(state, *keys)(lambda app: app.query_one("#search", Input).value) == "crash"


@pytest.mark.parametrize(("key", "verdict"), [("g", "good"), ("b", "bad"), ("a", "acknowledged")])
def test_one_key_answers(state, key, verdict):
    said = play(state, "j", key)(lambda app: str(app.query_one("#said", Static).render()))
    assert "kept" in said
    with StoreReader(state / "store.db") as reader:
        assert [one.verdict for one in reader.feedback("abc2345")] == [verdict]


def test_keys_in_the_search_are_letters_and_no_answers(state):
    play(state, "slash", *"bag", "enter")(lambda app: None)
    with StoreReader(state / "store.db") as reader:
        assert reader.feedback() == []


def test_damaged_store_is_said(tmp_path):
    (tmp_path / "store.db").write_bytes(b"no store" * 5000)
    assert "store" in play(tmp_path)(lambda app: str(app.query_one("#said", Static).render()))


def test_a_last_look_while_it_is_closed_harms_nothing(state):
    async def run():
        app = Watch(Session(None, state))
        async with app.run_test(size=SIZE) as pilot:
            await app.query("#keys, #head").remove()
            app.look()
            await pilot.pause()

    asyncio.run(run())


def test_nobody_watches_is_said(state):
    assert "nobody watches" in play(state)(screen)


@pytest.mark.parametrize("text", [*HOSTILE, "[red]markup[/red]", "[@click=app.quit]x[/]"])
def test_log_text_is_shown_as_it_is(tmp_path, text):
    with StoreWriter(tmp_path / "store.db") as writer:
        writer.save([incident(text=text)], [])
    shown = play(tmp_path, "enter")(screen)
    assert text.split()[0][:12] in shown


def test_every_line_of_keys_fits_eighty_columns():
    assert all(len(text) <= SIZE[0] - 2 for text in KEYS.values())


def test_empty_store_has_no_incident_to_answer(tmp_path):
    assert play(tmp_path, "g", "s", "enter", "h", "n")(lambda app: app.view) == NOW
