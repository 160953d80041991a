"""Reads documents of any format into blocks: by their content, since names lie.

Nothing stops the rest: what cannot be read is a line in `problems`, with file, reason and remedy. Directories
are walked in the order of names; hidden files are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.errors import ConfigError, HauswartError
from training.academy import markup, pdf, roff, word
from training.academy.blocks import MAX_CHARACTERS, Block, Document, Tell
from training.academy.sniffing import EXPECTED, sniff

MAX_BYTES = 512 << 20  # of one file, and of what a compressed one holds


class UnreadableError(HauswartError):
    """A file that holds no text that could be read; the message says why."""


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that are meant; raises ConfigError for a path that is not there."""
    for path in paths:
        if path.is_dir():
            inside = (one for one in sorted(path.rglob("*")) if one.is_file())
            yield from (one for one in inside if not one.relative_to(path).as_posix().startswith("."))
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"{path} is neither a file nor a directory")


def read_documents(
    paths: Iterable[Path], *, tell: Tell, engine: str = "auto", ocr: bool = True, timeout_s: float = 600.0
) -> tuple[list[Document], list[str]]:
    """The documents that hold text, and a line for each file or page that was not read as it should be."""
    found: dict[str, Document] = {}
    problems: list[str] = []
    for path in find_files(paths):
        try:
            one = read_document(path, tell=tell, engine=engine, ocr=ocr, timeout_s=timeout_s)
        except UnreadableError as error:
            problems.append(f"{path}: {error}")
            continue
        problems += [f"{path}: {line}" for line in one.problems]
        if one.sha256 in found:
            problems.append(f"{path}: the same as {found[one.sha256].path}; read once")
        elif not one.blocks:
            problems.append(f"{path}: holds no text; nothing was taken from it")
        else:
            found[one.sha256] = one
    return list(found.values()), problems


def read_document(
    path: Path, *, tell: Tell, engine: str = "auto", ocr: bool = True, timeout_s: float = 600.0
) -> Document:
    """One document. Raises UnreadableError; what of it is missing stands in its `problems`."""
    content = _unpack(_content(path))
    if not content.strip():
        raise UnreadableError("is empty")
    found = sniff(content)
    problems = _misnamed(path, found)
    pages = 0
    if found == "pdf":
        blocks, pages, more = _pdf(content, tell, engine, timeout_s, ocr=ocr)
    elif found == "docx":
        blocks, more = _word(content)
    elif found in {"html", "markdown", "text", "man"}:
        text, more = _text(content)
        blocks = list(_READERS[found](text))
    else:
        raise UnreadableError(f"holds {found}, which is no format that is read")
    kept, cut = _bounded(blocks)
    more += [f"only the first {MAX_CHARACTERS} characters were taken"] if cut else []
    digest = hashlib.sha256(content).hexdigest()
    return Document(
        path, found, digest, pages or max((one.page for one in kept), default=0), kept, problems + more
    )


_READERS = {
    "html": markup.read_html,
    "markdown": markup.read_markdown,
    "text": markup.read_text,
    "man": roff.read_man,
}


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableError(f"has {size >> 20} MiB; more than {MAX_BYTES >> 20} are not read")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error


def _unpack(content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            inside = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(f"is a broken gzip file: {error}") from error
    if len(inside) > MAX_BYTES:
        raise UnreadableError(f"unpacks to more than {MAX_BYTES >> 20} MiB")
    return inside


def _misnamed(path: Path, found: str) -> list[str]:
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    expected = EXPECTED.get(ending)
    if expected is None or found in expected:
        return []
    return [f"is called {ending} but holds {found}; read as what it holds"]


def _pdf(
    content: bytes, tell: Tell, engine: str, timeout_s: float, *, ocr: bool
) -> tuple[list[Block], int, list[str]]:
    try:
        return pdf.read_pdf(content, tell=tell, engine=engine, ocr=ocr, timeout_s=timeout_s)
    except pdf.PdfError as error:
        raise UnreadableError(str(error)) from error


def _word(content: bytes) -> tuple[list[Block], list[str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size <= MAX_BYTES:
            return word.read_word(content), []
    except Exception as error:  # a broken package fails in any layer of the library
        raise UnreadableError(f"is a broken DOCX file: {type(error).__name__}: {error}") from error
    raise UnreadableError(f"unpacks to more than {MAX_BYTES >> 20} MiB")


def _text(content: bytes) -> tuple[str, list[str]]:
    """Unicode if it is, else Latin-1 as old texts are, which is said."""
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return content.decode("utf-16", "replace"), []
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        return content.decode("cp1252", "replace"), [
            f"is not UTF-8 (byte {error.start}); read as Windows-1252"
        ]


def _bounded(blocks: list[Block]) -> tuple[list[Block], bool]:
    left, kept = MAX_CHARACTERS, []
    for one in blocks:
        if one.text.strip():
            kept.append(one)
            left -= len(one.text)
        if left < 0:
            return kept, True
    return kept, False
