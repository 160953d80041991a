"""The process that takes the text out of a PDF file: a JSON line a page on standard output.

`python -m training.academy.pdf_pages FILE ENGINE ocr|text`. ENGINE is pdfium, pypdf or auto (pdfium if it is
installed: ten times as fast, and it finds the blanks between words that are only drawn apart).
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

MEMORY_BYTES = 3 << 30
OCR_TIMEOUT_S = 120.0
OCR_DPI = 200
_TEXT_LEAST = 12  # characters; a page with less and a picture is a scan
ENCRYPTED = "is encrypted; take the password off first (qpdf --decrypt)"

Page = tuple[str, bool, Callable[[], bytes]]  # text, whether it holds a picture, the picture as PNG


def main() -> None:
    """Write what there is; a page that fails costs only itself."""
    path, engine, how = sys.argv[1:4]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        count, pages = _open(path, engine)
    except Exception as error:  # noqa: BLE001 - a hostile file fails anywhere
        end = str(error) if str(error) == ENCRYPTED else f"is broken: {str(error) or type(error).__name__}"
        _say(end=end[:300])
        return
    _say(pages=count)
    ocr = _reader() if how == "ocr" else None
    for number, one in enumerate(pages, 1):
        text, note = _text(one, ocr)
        _say(page=number, text=text, note=note)
    _say(end="")


def _say(**said: Any) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def _text(page: Page | Exception, ocr: Callable[[bytes], str] | None) -> tuple[str, str]:
    """A page's text, and what is to be said of it."""
    if isinstance(page, Exception):
        return "", f"broken ({type(page).__name__})"
    text, pictured, draw = page
    if len("".join(text.split())) >= _TEXT_LEAST or not pictured:
        return text, ""
    if ocr is None:
        return text, "scanned, without text; install tesseract-ocr to have it read"
    try:
        seen = ocr(draw())
    except (OSError, subprocess.SubprocessError, ValueError, RuntimeError) as error:
        return text, f"scanned, and tesseract failed ({type(error).__name__})"
    return seen, "scanned, read by tesseract" if seen.strip() else "scanned, and tesseract found no text"


def _open(path: str, engine: str) -> tuple[int, Iterator[Page | Exception]]:
    if engine != "pypdf":
        with contextlib.suppress(ModuleNotFoundError):
            return _pdfium(path)
    return _pypdf(path)


def _pdfium(path: str) -> tuple[int, Iterator[Page | Exception]]:
    import pypdfium2  # noqa: PLC0415 - where it is installed
    import pypdfium2.raw as raw  # noqa: PLC0415, PLR0402

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise ValueError(ENCRYPTED if "password" in str(error).lower() else str(error)) from error

    def pages() -> Iterator[Page | Exception]:
        for number in range(len(document)):
            try:
                page = document[number]
                text = page.get_textpage().get_text_bounded()
                pictured = any(True for _ in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]))

                def draw(page: Any = page) -> bytes:
                    picture = io.BytesIO()
                    page.render(scale=OCR_DPI / 72, grayscale=True).to_pil().save(picture, "PNG")
                    return picture.getvalue()

                yield text, pictured, draw
                page.close()
            except Exception as error:  # noqa: BLE001 - this page's fault only
                yield error

    return len(document), pages()


def _pypdf(path: str) -> tuple[int, Iterator[Page | Exception]]:
    import pypdf  # noqa: PLC0415

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError(ENCRYPTED)

    def pages() -> Iterator[Page | Exception]:
        for number in range(len(reader.pages)):
            try:
                page = reader.pages[number]
                text = page.extract_text()
                images = [] if text.strip() else list(page.images)
                yield text, bool(images), lambda images=images: images[0].data  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - this page's fault only
                yield error

    return len(reader.pages), pages()


def _reader() -> Callable[[bytes], str] | None:
    """What reads pictures, in the languages that are installed of ours."""
    program = shutil.which("tesseract")
    if program is None:
        return None
    listed = subprocess.run(
        [program, "--list-langs"], capture_output=True, text=True, check=False
    ).stdout.split()
    languages = "+".join(one for one in ("deu", "eng") if one in listed)
    argv = [program, "stdin", "stdout", *(["-l", languages] if languages else [])]

    def read(picture: bytes) -> str:
        done = subprocess.run(argv, input=picture, capture_output=True, timeout=OCR_TIMEOUT_S, check=True)
        return done.stdout.decode("utf-8", "replace")

    return read


if __name__ == "__main__":
    main()
