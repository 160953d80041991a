"""Which format bytes are in, by the bytes alone."""

from __future__ import annotations

import io
import re
import zipfile

# What an ending lets expect; text and markdown are both plain writing.
_PLAIN = frozenset({"text", "markdown"})
EXPECTED = {
    ".pdf": {"pdf"},
    ".docx": {"docx"},
    ".html": {"html"},
    ".htm": {"html"},
    ".md": _PLAIN,
    ".markdown": _PLAIN,
    ".txt": _PLAIN,
    **{f".{section}": {"man"} for section in range(1, 10)},
}
_HEAD = 64 << 10
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_TAGS = re.compile(rb"</?(?:p|div|h[1-6]|ul|li|table|tr|td|pre|br|a)\b[^>]*>", re.IGNORECASE)
_ROFF = re.compile(rb"^\.(?:TH|Dd|SH|Sh)[ \t]", re.MULTILINE)
_MARKDOWN = (
    re.compile(rb"^#{1,6} \S", re.MULTILINE),
    re.compile(rb"^(?:```|~~~)", re.MULTILINE),
    re.compile(rb"^\|.*\|\s*$", re.MULTILINE),
    re.compile(rb"\[[^\]\n]+\]\([^)\n]+\)"),
    re.compile(rb"^[^\n]+\n(?:={3,}|-{3,})\s*$", re.MULTILINE),
)
_MAGIC = (
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x7fELF", "a program"),
    (b"{\\rtf", "RTF"),
    (b"%!PS", "PostScript"),
)


def sniff(content: bytes) -> str:  # noqa: PLR0911 - the first sign that holds decides
    """pdf, docx, html, man, markdown or text; else in words what it is."""
    head = content[:_HEAD]
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head[:4] == b"PK\x03\x04":
        return _archive(content)
    for magic, said in _MAGIC:
        if head.startswith(magic):
            return said
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "text"
    if b"\0" in head or sum(byte < 9 or 13 < byte < 27 for byte in head) > len(head) / 50:
        return "binary data"
    if _HTML.search(head[:4096]) or len(_TAGS.findall(head)) > 8 + len(head) / 400:
        return "html"
    if len(_ROFF.findall(head)) >= 2 or head.startswith((b"'\\\" ", b'.\\" ')):
        return "man"
    return "markdown" if sum(bool(one.search(head)) for one in _MARKDOWN) >= 1 else "text"


def _archive(content: bytes) -> str:
    try:
        names = set(zipfile.ZipFile(io.BytesIO(content)).namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "docx" if b"word/document.xml" in content else "a broken archive"
    return "docx" if "word/document.xml" in names else "an archive"
