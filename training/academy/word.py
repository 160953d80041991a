"""Reads DOCX files into blocks; a page ends where the program that saved the file said so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from training.academy.blocks import Block

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def read_word(content: bytes) -> list[Block]:
    """Blocks of a document; without page breaks the place is the paragraph's number."""
    import docx  # noqa: PLC0415 - only for such files

    document = docx.Document(io.BytesIO(content))
    breaks = sum(_breaks(one) for one in document.element.body)
    return list(_blocks(document, paged=breaks > 0))


def _blocks(document: Any, *, paged: bool) -> Iterator[Block]:
    page = 1
    for number, part in enumerate(document.iter_inner_content(), 1):
        breaks = _breaks(part._element)  # noqa: SLF001 - the library gives no other way to page breaks
        if hasattr(part, "rows"):
            for at, row in enumerate(part.rows):
                cells = [" ".join(cell.text.split()) for cell in row.cells]
                yield Block("row", " | ".join(cells), page if paged else 0, number, int(at == 0))
        else:
            before = _breaks(part._element, leading=True)  # noqa: SLF001
            yield _paragraph(part, page + before if paged else 0, number)
        page += breaks


def _paragraph(part: Any, page: int, line: int) -> Block:
    style = (part.style.name or "").lower() if part.style is not None else ""
    text = " ".join(part.text.split())
    if style.startswith(("heading", "title", "überschrift")):
        digits = "".join(filter(str.isdigit, style))
        return Block("heading", text, page, line, int(digits or 1))
    if "list" in style:
        return Block("item", text, page, line)
    if "code" in style or "preformatted" in style or "macro" in style:
        return Block("code", part.text, page, line)
    return Block("text", text, page, line)


def _breaks(element: Any, *, leading: bool = False) -> int:
    """Page breaks inside an element; `leading`: those before its first text."""
    count = 0
    for one in element.iter():
        if leading and one.tag == f"{_W}t" and (one.text or "").strip():
            break
        if one.tag == f"{_W}lastRenderedPageBreak" or (
            one.tag == f"{_W}br" and one.get(f"{_W}type") == "page"
        ):
            count += 1
    return count
