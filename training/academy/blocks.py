"""What a reader makes of a document: blocks in order, each with its place. Knows nothing of formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["heading", "text", "item", "row", "code", "term"]
Tell = Callable[[str], None]
MAX_CHARACTERS = 64 << 20  # of one document's text: about 20,000 pages


class Block(NamedTuple):
    """A piece that stays whole; `page` 0: the format has none, `line` is then the place.

    A row is one line of a table with its cells parted by " | "; the first of a table has level 1. A heading's
    `level` counts from 1. A term is what the text below it explains, such as an option.
    """

    kind: Kind
    text: str
    page: int = 0
    line: int = 0
    level: int = 0


class Document(NamedTuple):
    """A document that was read; `problems` are lines about what of it could not be, or looked odd."""

    path: Path
    format: str
    sha256: str
    pages: int
    blocks: list[Block]
    problems: list[str]

    @property
    def name(self) -> str:
        """What answers cite it by."""
        return self.path.name.removesuffix(".gz")
