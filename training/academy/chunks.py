"""Blocks become sections and passages: what belongs together stays together, each piece knows its place.

A section is what stands under one heading, up to some two hundred words; a passage is a few sentences, an
item, a table's row with the names of its columns, a piece of code, or what explains a term. Only passages
are cited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from models.terms import language
from training.academy.blocks import Block, Document

SECTION_WORDS = 200  # about 300 tokens: three of them and a question fit a small model
PASSAGE_WORDS = 45
_TITLE_WORDS = 5
_SENTENCE = re.compile(r"(?<=[.!?])[\"”)]?\s+(?=[A-ZÄÖÜ\"„(])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|z\.\s?B|d\.\s?h|bzw|ca|vgl|u\.\s?a|Nr|Abs|No|Fig|Dr|St)\.)$"
)


class Piece(NamedTuple):
    """A passage before it is stored."""

    kind: str
    term: str
    text: str
    page: int
    line: int


class Section(NamedTuple):
    """Pieces under one heading; `heading` is the path of headings, parted by " > "."""

    heading: str
    lang: str
    pieces: list[Piece]

    @property
    def text(self) -> str:
        """The section as it is read, terms and pieces in order."""
        return "\n".join(f"{one.term}: {one.text}" if one.term else one.text for one in self.pieces)


def split_document(document: Document) -> list[Section]:
    """A document's sections in order."""
    whole = language(" ".join(block.text for block in document.blocks[:2000]))
    return [
        Section(heading, language(" ".join(one.text for one in pieces)) or whole or "en", pieces)
        for heading, group in _groups(document.blocks)
        for pieces in _pack(list(_pieces(group)))
    ]


def _groups(blocks: Iterable[Block]) -> Iterator[tuple[str, list[Block]]]:
    """The blocks under each heading, with the path of headings above them."""
    path: dict[int, str] = {}
    group: list[Block] = []
    for block in blocks:
        if block.kind != "heading":
            group.append(block)
            continue
        if group:
            yield " > ".join(path.values()), group
            group = []
        level = max(1, block.level)
        path = {at: text for at, text in path.items() if at < level} | {level: block.text[:120]}
    if group:
        yield " > ".join(path.values()), group


def _pieces(blocks: list[Block]) -> Iterator[Piece]:
    terms: list[str] = []
    columns: list[str] = []
    explained = False
    lead = ""
    for block in blocks:
        if block.kind != "row":
            columns = []
        if block.kind == "term":
            terms = [block.text] if explained or not terms else [*terms, block.text]
            explained = False
            continue
        term = ", ".join(terms)
        explained = True
        if block.kind == "row":
            cells = block.text.split(" | ")
            if block.level == 1:
                columns = cells
                continue
            yield Piece("row", term, _row(columns, cells), block.page, block.line)
        elif block.kind == "code":
            yield Piece("code", term or lead, block.text, block.page, block.line)
        elif block.kind == "item":
            for text in _windows(block.text, 2 * PASSAGE_WORDS):
                yield Piece("item", term or lead, text, block.page, block.line)
            continue
        else:
            for text in _windows(block.text, PASSAGE_WORDS):
                yield Piece("text", term or _short(lead), text, block.page, block.line)
        # What ends with a colon introduces the items or the code after it.
        lead = _last_sentence(block.text)[:160] if block.kind == "text" and block.text.endswith(":") else ""


def _short(lead: str) -> str:
    """What introduces a paragraph if it is short enough to be its title, as "1000-59999:" is."""
    return lead if len(lead.split()) <= _TITLE_WORDS else ""


def _row(columns: list[str], cells: list[str]) -> str:
    if len(columns) == len(cells):
        return " | ".join(
            f"{name}: {cell}" if name else cell for name, cell in zip(columns, cells, strict=True)
        )
    return " | ".join(cells)


def _last_sentence(text: str) -> str:
    return sentences(text)[-1]


def sentences(text: str) -> list[str]:
    """The sentences of a text; one that ends with an abbreviation goes on."""
    found: list[str] = []
    for part in _SENTENCE.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return [one for one in found if one.strip()]


def _windows(text: str, size: int) -> Iterator[str]:
    """Whole sentences packed up to `size` words; a longer sentence is cut at its words."""
    window: list[str] = []
    for sentence in sentences(text):
        words = sentence.split()
        if window and len(window) + len(words) > size:
            yield " ".join(window)
            window = []
        window += words
        while len(window) > 3 * size:
            yield " ".join(window[: 2 * size])
            window = window[2 * size :]
    if window:
        yield " ".join(window)


def _pack(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces up to a section's size; those of one term are not parted if they fit."""
    pack: list[Piece] = []
    count = 0
    for at, piece in enumerate(pieces):
        size = len(piece.text.split())
        run = size
        if piece.term and (at == 0 or pieces[at - 1].term != piece.term):
            run = sum(len(one.text.split()) for one in _run(pieces[at:]))
        if pack and count + min(run, SECTION_WORDS) > SECTION_WORDS:
            yield pack
            pack, count = [], 0
        pack.append(piece)
        count += size
    if pack:
        yield pack


def _run(pieces: list[Piece]) -> Iterator[Piece]:
    for one in pieces:
        if one.term != pieces[0].term:
            return
        yield one
