"""Documents as the academy reads them: real files of each format, hostile ones among them."""

from __future__ import annotations

import gzip
import shutil
import time
import zipfile

import docx
import fpdf
import pypdf
import pytest

from daemon.errors import ConfigError
from training.academy import roff
from training.academy.chunks import PASSAGE_WORDS, sentences, split_document
from training.academy.documents import UnreadableError, read_document, read_documents
from training.academy.sniffing import sniff


def quiet(_said: str) -> None:
    """Nobody is told."""


def read(path, **more):
    return read_document(path, tell=quiet, **more)


def make_pdf(path, pages, **more):
    book = fpdf.FPDF()
    book.set_font("helvetica", size=11)
    for page in pages:
        book.add_page()
        if page is not None:
            book.multi_cell(0, 6, page)
    if more.get("password"):
        book.set_encryption(owner_password="owner", user_password=more["password"])
    book.output(str(path))
    return path


MARKDOWN = """# Backup

The backup runs at night. It needs 40 GB of space.

## Restore

1. Stop the database.
2. Unpack the archive.

| Setting | Default |
| --- | --- |
| keep_days | 30 |
| target | /srv/backup |

```sh
borg extract --list repo::latest
```
"""

MAN = """.TH FROB 8
.SH NAME
frob \\- frobs the widget
.SH OPTIONS
.TP
\\fB\\-\\-speed\\fR=\\fIN\\fR
Turns per minute. Defaults to 33.
.TP
.B \\-\\-quiet
Says nothing at all.
.SH FILES
.nf
/etc/frob.conf
/var/lib/frob
.fi
"""

HTML = """<!doctype html><html><head><title>x</title><script>alert(1)</script></head><body><nav>menu</nav>
<h1>Mail</h1><p>The mail server is <b>post.example</b>.</p><h2>Ports</h2>
<table><tr><th>Service</th><th>Port</th></tr><tr><td>imaps</td><td>993</td></tr></table>
<dl><dt>queue_life</dt><dd>How long a mail waits. Defaults to 5 days.</dd></dl>
<ul><li>first item</li><li>second item</li></ul><pre>postqueue -p
postsuper -d ALL</pre></body></html>"""


def pieces(document):
    return [(section.heading, piece) for section in split_document(document) for piece in section.pieces]


def test_markdown_keeps_headings_lists_tables_and_code_with_their_lines(tmp_path):
    (tmp_path / "a.md").write_text(MARKDOWN)
    document = read(tmp_path / "a.md")
    found = pieces(document)
    assert (document.format, document.problems) == ("markdown", [])
    assert ("Backup > Restore", "Setting: keep_days | Default: 30", 12) in [
        (h, p.text, p.line) for h, p in found
    ]
    assert [p.text for _, p in found if p.kind == "item"] == ["Stop the database.", "Unpack the archive."]
    assert [p.text for _, p in found if p.kind == "code"] == ["borg extract --list repo::latest"]


def test_html_gives_its_text_without_scripts_and_menus(tmp_path):
    (tmp_path / "a.html").write_text(HTML)
    found = pieces(read(tmp_path / "a.html"))
    texts = [piece.text for _, piece in found]
    assert "The mail server is post.example." in texts
    assert "Service: imaps | Port: 993" in texts
    assert ("queue_life", "How long a mail waits. Defaults to 5 days.") in [
        (p.term, p.text) for _, p in found
    ]
    assert "postqueue -p\npostsuper -d ALL" in texts
    assert not any("alert" in text or "menu" in text for text in texts)


@pytest.mark.parametrize("laid_out", [True, False])
def test_man_page_terms_keep_their_explanations(tmp_path, monkeypatch, laid_out):
    if laid_out and shutil.which("man") is None:
        pytest.skip("man is not installed")
    if not laid_out:
        monkeypatch.setattr(roff.shutil, "which", lambda _name: None)
    (tmp_path / "frob.8.gz").write_bytes(gzip.compress(MAN.encode()))
    document = read(tmp_path / "frob.8.gz")
    terms = {piece.term: piece.text for _, piece in pieces(document)}
    assert document.format == "man"
    assert terms["--speed=N"] == "Turns per minute. Defaults to 33."
    assert terms["--quiet"] == "Says nothing at all."
    assert any("/etc/frob.conf\n/var/lib/frob" in piece.text for _, piece in pieces(document))


def test_man_page_cannot_make_the_reader_read_other_files(tmp_path):
    (tmp_path / "secret").write_text("the secret word is xyzzy\n")
    (tmp_path / "evil.1").write_text(
        f".TH E 1\n.SH NAME\nevil\n.so {tmp_path}/secret\n.SH SEE\nnothing else\n"
    )
    assert "xyzzy" not in str(read(tmp_path / "evil.1").blocks)


def test_docx_has_headings_tables_lists_and_pages(tmp_path):
    made = docx.Document()
    made.add_heading("Router", 1)
    made.add_paragraph("The router is restarted in the cellar.")
    made.add_paragraph("Pull the plug.", style="List Bullet")
    table = made.add_table(2, 2)
    for cell, text in zip(table._cells, ("Port", "Use", "22", "shell"), strict=True):
        cell.text = text
    made.add_page_break()
    made.add_paragraph("On the second page.")
    made.save(str(tmp_path / "r.docx"))
    document = read(tmp_path / "r.docx")
    found = [(piece.text, piece.page) for _, piece in pieces(document)]
    assert document.format == "docx"
    assert ("Port: 22 | Use: shell", 1) in found
    assert ("On the second page.", 2) in found


@pytest.mark.parametrize("engine", ["auto", "pypdf"])
def test_pdf_text_comes_with_its_page_and_without_running_heads(tmp_path, engine):
    texts = [
        f"House manual\n{n} Chapter {n}\nThe lamp of room {n} has {n}0 watts and hangs low.\nPage {n}"
        for n in range(1, 7)
    ]
    document = read(make_pdf(tmp_path / "m.pdf", texts), engine=engine)
    found = {piece.page: piece.text for _, piece in pieces(document)}
    assert document.pages == 6
    assert found[4] == "The lamp of room 4 has 40 watts and hangs low."


def test_two_thousand_pages_are_read_whole_and_within_bounds(tmp_path):
    small = pypdf.PdfReader(
        make_pdf(tmp_path / "s.pdf", ["The answer of every page is the same long line of words."])
    )
    writer = pypdf.PdfWriter()
    for _ in range(2000):
        writer.add_page(small.pages[0])
    writer.write(str(tmp_path / "big.pdf"))
    started = time.monotonic()
    document = read(tmp_path / "big.pdf")
    assert document.pages == 2000
    assert time.monotonic() - started < 60
    assert {block.page for block in document.blocks} == set(range(1, 2001))


def test_a_reader_that_takes_too_long_is_stopped_and_the_missing_pages_named(tmp_path):
    path = make_pdf(tmp_path / "m.pdf", [f"Sentence number {n} of the document." for n in range(60)])
    with pytest.raises(UnreadableError, match=r"took more than 0\.01 s"):
        read(path, timeout_s=0.01)


def test_encrypted_pdf_is_named_with_its_remedy(tmp_path):
    path = make_pdf(tmp_path / "e.pdf", ["secret"], password="sesame")
    for engine in ("auto", "pypdf"):
        with pytest.raises(UnreadableError, match=r"encrypted.*qpdf"):
            read(path, engine=engine)


def scan(path):
    """A page that is a picture of words."""
    from PIL import Image, ImageDraw  # noqa: PLC0415

    picture = Image.new("L", (900, 260), 255)
    ImageDraw.Draw(picture).text((30, 60), "The valve is closed by hand", fill=0, font_size=56)
    book = fpdf.FPDF()
    book.set_font("helvetica", size=11)
    book.add_page()
    book.multi_cell(0, 6, "The first page is text and says so in words.")
    book.add_page()
    book.image(picture, w=180)
    book.output(str(path))


def test_scanned_page_is_named_and_never_silently_left_out(tmp_path):
    scan(tmp_path / "s.pdf")
    document = read(tmp_path / "s.pdf", ocr=False)
    assert document.problems == ["page 2: scanned, without text; install tesseract-ocr to have it read"]
    assert {block.page for block in document.blocks} == {1}


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_scanned_page_is_read_by_tesseract(tmp_path):
    scan(tmp_path / "s.pdf")
    document = read(tmp_path / "s.pdf")
    assert document.problems == ["page 2: scanned, read by tesseract"]
    assert "valve is closed" in " ".join(block.text for block in document.blocks if block.page == 2)


def test_wrongly_named_files_are_read_by_content_and_named(tmp_path):
    make_pdf(tmp_path / "notes.txt", ["A manual in disguise, with enough words."])
    (tmp_path / "page.pdf").write_text(HTML)
    found, problems = read_documents([tmp_path], tell=quiet)
    assert {one.name: one.format for one in found} == {"notes.txt": "pdf", "page.pdf": "html"}
    assert any("notes.txt: is called .txt but holds pdf" in line for line in problems)
    assert any("page.pdf: is called .pdf but holds html" in line for line in problems)


def test_hostile_files_cost_one_line_each_and_the_rest_is_read(tmp_path):
    (tmp_path / "a.md").write_text(MARKDOWN)
    (tmp_path / "same.md").write_text(MARKDOWN)
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<garbage" + bytes(range(256)) * 20)
    (tmp_path / "broken.docx").write_bytes(b"PK\x03\x04 word/document.xml no archive")
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00 not gzip")
    (tmp_path / "picture.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "old.txt").write_bytes(
        "Größe und Höhe des Schranks\n\nDer Schrank ist blau.".encode("cp1252")
    )
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * (1 << 20))
    found, problems = read_documents([tmp_path], tell=quiet)
    assert sorted(one.name for one in found) == ["a.md", "old.txt"]
    said = {line.split(": ")[0].rpartition("/")[2]: line for line in problems}
    assert set(said) == {path.name for path in tmp_path.iterdir()} - {"a.md"}
    assert "is empty" in said["empty.pdf"]
    assert "broken" in said["broken.pdf"]
    assert "broken DOCX" in said["broken.docx"]
    assert "broken gzip" in said["broken.gz"]
    assert "a picture" in said["picture.md"]
    assert "binary data" in said["noise.txt"]
    assert "the same as" in said["same.md"]
    assert "Windows-1252" in said["old.txt"]


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="neither a file nor a directory"):
        read_documents([tmp_path / "missing.pdf"], tell=quiet)


def test_passages_are_whole_sentences_and_long_ones_are_cut(tmp_path):
    words = " ".join(f"word{n}" for n in range(400))
    (tmp_path / "a.txt").write_text(f"1 Title\n\nShort one, e.g. this. Another one.\n\n{words}.\n")
    found = [piece.text for _, piece in pieces(read(tmp_path / "a.txt"))]
    assert found[0] == "Short one, e.g. this. Another one."
    assert all(len(text.split()) <= 3 * PASSAGE_WORDS for text in found)
    assert " ".join(found[1:]) == f"{words}."
    assert sentences("See e.g. The manual. Then stop.") == ["See e.g. The manual.", "Then stop."]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"plain words only\nand more", "text"), (b"# Head\n\ntext", "markdown"), (b"\x7fELF\x02", "a program")],
)
def test_format_is_told_by_content(content, expected):
    assert sniff(content) == expected
