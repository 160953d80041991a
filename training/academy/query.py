"""`hauswart academy query`: a question, an answer with document and page, or that there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from training.academy import desk, library
from training.academy.answers import Answer, Reads
from training.academy.exchange import Exchange, discuss, open_general, reader
from training.academy.settings import Settings, load
from training.academy.train import Config, Name, say
from training.causal import quieten

QUESTION_MAX = 2000  # characters


def reads_of(settings: Settings) -> Reads | None:
    """The general model as a reader, if the configuration wants it. Raises ConfigError without consent."""
    if not (settings.query.read and settings.general.enabled):
        return None
    return reader(open_general(settings.general, tell=say), say)


def reply(question: str, ask: desk.Ask, settings: Settings) -> tuple[Answer, Exchange | None]:
    """The specialist's answer and, if configured, what came of the exchange with the general model."""
    found = ask(question)
    if not (settings.query.phrase and settings.general.enabled):
        return found, None
    chat = open_general(settings.general, tell=say)
    return found, discuss(question, found, ask, chat, tell=say)


def plain(found: Answer, exchanged: Exchange | None) -> dict[str, Any]:
    """Both as JSON has them."""
    said = found.plain()
    if exchanged is not None:
        said |= {"phrased": exchanged.text, "asked": [one.plain() for one in exchanged.asked]}
        said |= {"refused": exchanged.refused}
    return said


def told(found: Answer, exchanged: Exchange | None) -> str:
    """Both as a person reads them."""
    if not found.found and not (exchanged and exchanged.asked and exchanged.text != found.text):
        near = f"\n  nearest: {found.passage.place}" if found.passage else ""
        return f"{found.text}{near}"
    lines = [exchanged.text if exchanged else found.text]
    cited = [found, *(exchanged.asked if exchanged else ())]
    for one in cited:
        if one.found and one.passage is not None:
            heading = f" ({one.passage.heading})" if one.passage.heading else ""
            lines.append(f"  -- {one.passage.place}{heading}")
    return "\n".join(lines)


def command(
    question: Annotated[
        list[str] | None, typer.Argument(help="Without one: ask as long as there are lines.")
    ] = None,
    *,
    config: Config = None,
    name: Name = "",
    read: Annotated[
        bool, typer.Option("--read", help="Have the general model say which paragraph answers, or none.")
    ] = False,
    phrase: Annotated[
        bool, typer.Option("--phrase", help="Have the general model put it into words.")
    ] = False,
    retrieval_only: Annotated[bool, typer.Option("--retrieval-only", help="Without the specialist.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Answers are the documents' own words; below the threshold it says that they do not answer."""
    quieten()
    settings = load(config)
    if phrase or read:
        from msgspec import structs  # noqa: PLC0415

        wanted = {"phrase": phrase or settings.query.phrase, "read": read or settings.query.read}
        settings = structs.replace(
            settings,
            query=structs.replace(settings.query, **wanted),
            general=structs.replace(settings.general, enabled=True),
        )
    folder = library.folder_of(settings.folder, name or settings.specialist)
    reads = reads_of(settings)
    with desk.opened(folder, settings.query, model=not retrieval_only, tell=say, reads=reads) as ask:
        for one in [" ".join(question)] if question else _lines():
            found, exchanged = reply(one[:QUESTION_MAX], ask, settings)
            typer.echo(
                json.dumps(plain(found, exchanged), ensure_ascii=False) if as_json else told(found, exchanged)
            )


def _lines() -> Iterable[str]:
    """Questions from standard input, one a line; a person is shown where to type."""
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            sys.stderr.write("question (empty line ends)> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line.strip():
            if interactive or not line:
                return
            continue
        yield line.strip()
