"""What the user sees of a search: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_ROWS = 15  # of the table: the last ones, and always the best
_ANSWER = 60
_LINE_ANSWER = 300


class Screen:
    """A context in which steps are shown; on a terminal as one table, else a line for each and its answer."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: deque[Mapping[str, Any]] = deque(maxlen=_ROWS)
        self._best: Mapping[str, Any] | None = None
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, said: str) -> None:
        """A line above the table."""
        self._console.print(Text(f"hauswart: {cleaned(said)}"), soft_wrap=True)

    def step(self, one: Mapping[str, Any], total: int) -> None:
        """Show one step."""
        if self._best is None or one["target"] > self._best["target"]:
            self._best = one
        self._steps.append(one)
        if self._live:
            self._live.update(self._table(total), refresh=True)
            return
        head = f"step {one['trial']} of {total}: similarity {one['target']:.4f}, {_params(one['params'])}"
        self._console.print(Text(head), soft_wrap=True)
        self._console.print(Text(f"  {_answer(one, _LINE_ANSWER)}"), soft_wrap=True)

    def _table(self, total: int) -> Table:
        best = self._best
        shown = [one for one in self._steps if one is not best]
        table = Table(title=f"step {self._steps[-1]['trial']} of {total}; * the best so far")
        table.add_column("step", justify="right")
        table.add_column("similarity", justify="right")
        for name in self._steps[-1]["params"]:
            table.add_column(Text(name), justify="right")
        table.add_column("answer", no_wrap=True, max_width=_ANSWER, overflow="ellipsis")
        for one in ([best] if best else []) + shown:
            values = [Text(_said(value)) for value in one["params"].values()]
            mark = f"{one['trial']}{'*' if one is best else ''}"
            table.add_row(mark, f"{one['target']:.4f}", *values, Text(_answer(one, _ANSWER)))
        return table


def cleaned(text: str) -> str:
    """A foreign text as one line without what a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def _answer(one: Mapping[str, Any], most: int) -> str:
    """The first answer of a step; how many more there are."""
    answers = one["answers"]
    text = " ".join(cleaned(answers[0]["answer"][: most * 2]).split())
    shown = text if len(text) <= most else text[: most - 1] + "\u2026"
    more = f" (and {len(answers) - 1} more answers)" if len(answers) > 1 else ""
    return f"{answers[0]['score']:.4f} {shown!r}{more}"


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_said(value)}" for name, value in params.items())


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else cleaned(str(value))
