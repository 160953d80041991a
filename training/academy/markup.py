"""Reads HTML, Markdown and plain text into blocks; their place is the line of the source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from markdown_it import MarkdownIt

from training.academy.blocks import Block, Kind

_SILENT = frozenset({"script", "style", "head", "nav", "noscript", "template", "svg", "title"})
_HEADINGS: dict[str, Kind] = {f"h{level}": "heading" for level in range(1, 7)}
_KINDS: dict[str, Kind] = _HEADINGS | {
    "p": "text",
    "div": "text",
    "section": "text",
    "td": "text",
    "blockquote": "text",
    "li": "item",
    "dt": "term",
    "dd": "text",
    "tr": "row",
    "pre": "code",
}
_NUMBERED = re.compile(r"^(?:\d+\.){0,5}\d+\.?\s+[A-ZÄÖÜ][^.!?]{2,70}$")
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\d{1,2}[.)]|[a-z]\))\s+")


class _Html(HTMLParser):
    """Collects the text of block elements; a new one ends the one before, as browsers do it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._text: list[str] = []
        self._kind: Kind = "text"
        self._level = self._line = self._quiet = self._rows = 0
        self._cells = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - the parser's signature
        if tag in _SILENT:
            self._quiet += 1
        elif tag in {"td", "th"} and self._kind == "row":
            if self._cells:
                self._text.append(" | ")
            self._cells = True
        elif tag in _KINDS and not (self._kind in {"row", "item", "code"} and tag in {"p", "div", "pre"}):
            self._end()
            self._kind, self._line, self._cells = _KINDS[tag], self.getpos()[0], False
            self._level = int(tag[1]) if self._kind == "heading" else 0
        elif tag == "br":
            self._text.append("\n" if self._kind == "code" else " ")
        elif tag == "table":
            self._end()
            self._rows = 0

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._quiet = max(0, self._quiet - 1)
        elif _KINDS.get(tag) == self._kind and tag != "td":
            self._end()

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self._line = self._line or self.getpos()[0]
            self._text.append(data)

    def _end(self) -> None:
        joined = "".join(self._text)
        text = joined.strip("\n") if self._kind == "code" else " ".join(joined.split())
        level = self._level
        if self._kind == "row":
            self._rows += 1
            level = int(self._rows == 1)
        if text.strip(" |\n"):
            self.blocks.append(Block(self._kind, text, 0, self._line, level))
        self._text, self._kind, self._level, self._line = [], "text", 0, 0

    def close(self) -> None:
        super().close()
        self._end()


def read_html(text: str) -> list[Block]:
    """Blocks of a web page, without navigation and scripts."""
    parser = _Html()
    parser.feed(text)
    parser.close()
    return parser.blocks


def read_markdown(text: str) -> Iterator[Block]:  # noqa: C901 - a branch a kind of token
    """Blocks of a CommonMark text with tables."""
    kind: Kind = "text"
    lists = rows = level = 0
    cells: list[str] | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type in {"bullet_list_open", "ordered_list_open"}:
            lists += 1
        elif token.type in {"bullet_list_close", "ordered_list_close"}:
            lists -= 1
        elif token.type == "heading_open":
            kind, level = "heading", int(token.tag[1])
        elif token.type == "table_open":
            rows = 0
        elif token.type == "tr_open":
            cells, rows, row_line = [], rows + 1, line
        elif token.type == "tr_close" and cells is not None:
            yield Block("row", " | ".join(cells), 0, row_line, int(rows == 1))
            cells = None
        elif token.type in {"fence", "code_block"}:
            yield Block("code", token.content.rstrip("\n"), 0, line)
        elif token.type == "inline" and cells is not None:
            cells.append(_plain(token))
        elif token.type == "inline":
            yield Block(kind if kind == "heading" or not lists else "item", _plain(token), 0, line, level)
            kind, level = "text", 0


def _plain(token: Any) -> str:
    parts = [
        " " if one.type in {"softbreak", "hardbreak"} else one.content
        for one in token.children or ()
        if one.type != "html_inline"
    ]
    return " ".join("".join(parts).split())


def read_text(text: str, page: int = 0) -> Iterator[Block]:
    """Blocks of plain writing: paragraphs, items, numbered or underlined headings, indented code."""
    lines = text.replace("\r\n", "\n").replace("\f", "\n").split("\n")
    pending: list[str] = []
    start, kind = 0, "text"

    def flush() -> Iterator[Block]:
        if pending:
            yield _paragraph(pending, kind, page, start)
            pending.clear()

    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped:
            yield from flush()
        elif (
            len(pending) == 1
            and len(stripped) > 2
            and set(stripped) <= set("=-~")
            and len(set(stripped)) == 1
        ):
            yield Block("heading", pending.pop().strip(), page, start, 1 if stripped[0] == "=" else 2)
        elif not pending and _NUMBERED.match(stripped):
            yield Block("heading", stripped, page, number, stripped.split()[0].rstrip(".").count(".") + 1)
        elif _ITEM.match(line):
            yield from flush()
            start, kind = number, "item"
            pending.append(line)
        else:
            if not pending:
                start, kind = number, "code" if line.startswith(("    ", "\t")) else "text"
            pending.append(line)
    yield from flush()


def _paragraph(lines: list[str], kind: str, page: int, line: int) -> Block:
    if kind == "code":
        return Block("code", "\n".join(lines), page, line)
    return Block("item" if kind == "item" else "text", join_lines(lines), page, line)


def join_lines(lines: list[str]) -> str:
    """Lines of one paragraph as one text; a word parted at a line's end becomes whole."""
    text = ""
    for line in (one.strip() for one in lines):
        if text.endswith("-") and text[-2:-1].isalpha() and line[:1].islower():
            text = text[:-1] + line
        else:
            text += (" " if text else "") + line
    return " ".join(text.split())
