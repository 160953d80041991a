"""Reads PDF files into blocks: a process of its own takes the text, so that a hostile file costs only that.

The process hands over page by page; what it had when its time or memory was up is kept, and the first page
that is missing is named. Pictures without text are read by tesseract where it is there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from training.academy.blocks import MAX_CHARACTERS, Block, Tell
from training.academy.markup import join_lines

SHOWN_EVERY_S = 2.0
_RUNNING_MAX = 100  # characters of one
_EDGE_LINES = 2  # that may be a running head or foot
_HEADING = re.compile(
    r"^(?:(?:Chapter|Kapitel|Appendix|Anhang)\s+\w+\b.{0,80}|(?:[A-Z]\.|\d{1,2}\.)?(?:\d{1,2}\.){0,4}\d{1,2}\.?\s+[A-ZÄÖÜ\"„][^.;:]{2,80})$"
)
_ITEM = re.compile(r"^(?:[\u2022\u2013\u25aa\u25e6\u2023*]|\d{1,2}[.)]|\(?[a-z]\))\s+\S")
_CODE = re.compile(r"^(?:[$#%] \S|[>|]\s|\S+ = \S+$|<[^>]+>$)")
_FOOT = re.compile(r"^(?:\d+\s+(?:Chapter|Kapitel)\b.*|(?:Chapter |Kapitel |\d+(?:\.\d+)*\.?\s).*\s\d+)$")
_ROWS_LEAST = 4
_HEAD_WORDS = 6  # that the names of a table's columns have at most
_LEADERS = re.compile(r"(?:\. ?){4,}\d+$")  # of a table of contents


class PdfError(Exception):
    """Nothing of the file could be read; the message goes on after the name of the file."""


def read_pdf(
    content: bytes, *, tell: Tell, engine: str, ocr: bool, timeout_s: float
) -> tuple[list[Block], int, list[str]]:
    """Blocks, the number of pages, and a line for each page that is missing. Raises PdfError."""
    pages: dict[int, list[str]] = {}
    notes: dict[str, list[int]] = {}
    total, ended = 0, "ended without a word"
    for said in _ask(content, tell, engine, timeout_s, ocr=ocr):
        total = said.get("pages", total)
        if "page" in said:
            pages[said["page"]] = said["text"].replace("\r", "").replace("\ufffe", "").split("\n")
            if said.get("note"):
                notes.setdefault(said["note"], []).append(said["page"])
        ended = said.get("end", ended)
    if not total:
        raise PdfError(ended)
    problems = [f"{_ranges(numbers)}: {note}" for note, numbers in notes.items()]
    if ended:
        missing = [number for number in range(1, total + 1) if number not in pages]
        problems.append(f"{_ranges(missing)} of {total} are missing: {ended}" if missing else ended)
    return list(_blocks(pages)), total, problems


def _ask(content: bytes, tell: Tell, engine: str, timeout_s: float, *, ocr: bool) -> Iterator[dict[str, Any]]:
    """What the reading process says, line by line; its end, too, is something said."""
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(content)
        file.flush()
        argv = [
            sys.executable,
            "-m",
            "training.academy.pdf_pages",
            file.name,
            engine,
            "ocr" if ocr else "text",
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            late = threading.Event()
            watch = threading.Timer(timeout_s, _stop, (process, late))
            watch.start()
            shown = time.monotonic()
            left = MAX_CHARACTERS
            try:
                for line in process.stdout:
                    said = json.loads(line)
                    yield said
                    left -= len(line)
                    if time.monotonic() > shown + SHOWN_EVERY_S and "page" in said:
                        shown = time.monotonic()
                        tell(f"page {said['page']}")
                    if left < 0:
                        break
            finally:
                watch.cancel()
                process.kill()
            code = process.wait()
        if late.is_set():
            yield {"end": f"reading took more than {timeout_s:g} s"}
        elif left < 0:
            yield {"end": f"its text is longer than {MAX_CHARACTERS} characters"}
        elif code:
            yield {"end": f"reading it ended with code {code}, so it is broken or needs too much memory"}


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as "pages 1-3, 7"."""
    parts: list[list[int]] = []
    for one in sorted(numbers):
        if parts and one == parts[-1][1] + 1:
            parts[-1][1] = one
        else:
            parts.append([one, one])
    said = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
    return f"{'page' if len(numbers) == 1 else 'pages'} {said}"


def _blocks(pages: dict[int, list[str]]) -> Iterator[Block]:
    running = _running(pages)
    for page, lines in sorted(pages.items()):
        kept = [
            line
            for at, line in enumerate(lines)
            if not _LEADERS.search(line.strip())
            and not ((at < _EDGE_LINES or at >= len(lines) - _EDGE_LINES) and _shape(line) in running)
            and not (at in {0, len(lines) - 1} and _FOOT.match(line.strip()))
        ]
        yield from _page(kept, page)


def _running(pages: dict[int, list[str]]) -> set[str]:
    """Lines at the edge of many pages, whatever number they hold; what ends like a sentence is none."""
    seen = Counter(
        shape
        for lines in pages.values()
        for shape in {_shape(line) for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:])}
        if not shape.endswith((".", "!", "?", ":")) and len(shape) < _RUNNING_MAX
    )
    return {shape for shape, count in seen.items() if count >= max(3, len(pages) / 8)}


def _shape(line: str) -> str:
    return re.sub(r"\d+|\b[ivxlc]+\b", "0", line.strip())


def _page(lines: list[str], page: int) -> Iterator[Block]:
    """Paragraphs of a page: one ends where its last line is short and closed, or something else begins."""
    width = sorted(map(len, lines))[int(len(lines) * 0.9)] if lines else 0
    pending: list[str] = []
    kind = "text"
    for raw in lines:
        line = raw.strip()
        new = (
            "heading"
            if _HEADING.match(line)
            else "item"
            if _ITEM.match(line)
            else "code"
            if _CODE.match(line)
            else ""
        )
        if not line or new or (kind == "code" and not new) or (pending and _closed(pending[-1], width)):
            yield from _flush(pending, kind, page, width)
            kind = "text"
        if not line:
            continue
        if new == "heading":
            number = line.split()[0].rstrip(".")
            yield Block("heading", line, page, 0, number.count(".") + 1)
            continue
        if not pending:
            kind = new or "text"
        pending.append(line)
    yield from _flush(pending, kind, page, width)


def _closed(line: str, width: int) -> bool:
    return line.endswith((".", ":", "!", "?")) and len(line) < 0.85 * width


def _tabular(lines: list[str], width: int) -> bool:
    """Whether lines that were put into one paragraph are rows: most are short, and few end a sentence."""
    if len(lines) < _ROWS_LEAST:
        return False
    short = sum(len(line) < 0.8 * width for line in lines)
    closed = sum(line.endswith((".", ",", ":", ";", "-")) for line in lines)
    return short > 0.6 * len(lines) and closed < 0.25 * len(lines)


def _rows(lines: list[str], page: int, width: int) -> Iterator[Block]:
    """Each short line is a row; long ones are the text that stood before or between them."""
    prose: list[str] = []
    rows = 0
    for line in lines:
        if len(line) > 0.8 * width:
            prose.append(line)
            continue
        if prose:
            yield Block("text", join_lines(prose), page)
            prose = []
        rows += 1
        yield Block("row", line, page, 0, int(rows == 1 and len(line.split()) <= _HEAD_WORDS))
    if prose:
        yield Block("text", join_lines(prose), page)


def _flush(pending: list[str], kind: str, page: int, width: int = 0) -> Iterator[Block]:
    if kind == "text" and _tabular(pending, width):
        yield from _rows(pending, page, width)
        pending.clear()
    elif pending:
        text = "\n".join(pending) if kind == "code" else join_lines(pending)
        yield Block("code" if kind == "code" else "item" if kind == "item" else "text", text, page)
        pending.clear()
