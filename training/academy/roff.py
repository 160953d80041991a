"""Reads man pages: laid out by `man`, else by a small reader of the macros; the place is the line.

A page may ask the formatter to read other files or run programs; those requests are taken out first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

from training.academy.blocks import Block

TIMEOUT_S = 60.0
_WIDTH = "2000"  # so that a paragraph is one line, and what has several was laid out by hand
_REQUESTS = re.compile(r"^[.'][ \t]*(?:so|mso|sy|pi|open|opena|pso|cf|trf|lf|nx)\b.*$", re.MULTILINE)
_ESCAPES = (
    (re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)"), ""),
    (re.compile(r"\\s[-+]?\d+|\\[&/,|^cdu{}]|\\m\[[^\]]*\]"), ""),
    (re.compile(r"\\\(co"), "(c)"),
    (re.compile(r"\\\((?:em|en)|\\-"), "-"),
    (re.compile(r"\\\((?:lq|rq|dq)"), '"'),
    (re.compile(r"\\\((?:aq|oq|cq)|\\\*\(Aq"), "'"),
    (re.compile(r"\\\(bu"), "*"),
    (re.compile(r"\\e|\\\\"), r"\\"),
    (re.compile(r"\\[ ~0]"), " "),
    (re.compile(r"\\\(..|\\\[[^\]]*\]|\\\*\(..|\\\*\[[^\]]*\]"), ""),
)
_RULE = re.compile("[\u2502\u251c\u250c\u2514]|\\+-{3,}|^\\s*\\|.*\\|\\s*$")
_FONTS = frozenset({"B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB"})


def read_man(text: str) -> list[Block]:
    """Blocks of a man page."""
    laid_out = _lay_out(_REQUESTS.sub("", text))
    return list(_read_layout(laid_out)) if laid_out.strip() else list(_read_macros(text))


def _lay_out(text: str) -> str:
    """The page as `man` shows it, "" where there is no man or it fails."""
    program = shutil.which("man")
    if program is None:
        return ""
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "MANWIDTH": _WIDTH}
    argv = [program, "--no-hyphenation", "--no-justification", "-l", "-"]
    try:
        done = subprocess.run(
            argv, input=text.encode(), env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode("utf-8", "replace"))
    return shown if done.returncode == 0 else ""


def _read_layout(text: str) -> Iterator[Block]:  # noqa: C901 - a branch a kind of line
    """Headings stand at the margin, terms at seven columns with their text below and further in."""
    lines = text.split("\n")
    shown = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    shown = shown[1:-1]  # the page's own head and foot
    paragraph: list[str] = []
    start = depth = previous = rows = 0
    for at, (number, line) in enumerate(shown):
        if _RULE.search(line):
            rows = rows if number == previous + 1 else 0
            previous = number
            cells = [one.strip() for one in re.split("[\u2502|]", line.strip(" \u2502|"))]
            if any(re.search(r"\w", one) for one in cells):
                rows += 1
                yield Block("row", " | ".join(cells), 0, number, int(rows == 1))
            continue
        indent = len(line) - len(line.lstrip())
        after = shown[at + 1] if at + 1 < len(shown) else (number + 2, "")
        deeper = len(after[1]) - len(after[1].lstrip()) > indent and after[0] == number + 1
        if paragraph and (indent != depth or number != previous + 1):
            yield _layout_block(paragraph, start)
            paragraph = []
        previous = number
        if indent <= 3:
            yield Block("heading", line.strip(), 0, number, 1 if indent == 0 else 2)
        elif indent >= 7 and deeper and len(line.strip()) < 200 and not paragraph:
            yield Block("term", line.strip(), 0, number)
        elif (
            indent == 7 and (parted := re.match(r"(\S.{0,12}?)\s{2,}(\S.*)", line.strip())) and not paragraph
        ):
            bullet = parted[1] in {"\u2022", "\u00b7", "-", "*"} or re.fullmatch(r"\d{1,2}\.", parted[1])
            if bullet:
                parted = re.match(r"()(.*)", line.strip())
                assert parted is not None
            else:
                yield Block("term", parted[1], 0, number)
            paragraph, start, depth = [parted[2]], number, 14
        else:
            if not paragraph:
                start, depth = number, indent
            paragraph.append(line)
    if paragraph:
        yield _layout_block(paragraph, start)


def _layout_block(lines: list[str], line: int) -> Block:
    first = lines[0].strip()
    if first.startswith(("\u2022", "\u00b7")) or re.match(r"\d{1,2}\.\s", first):
        return Block("item", " ".join(" ".join(lines).split()), 0, line)
    if len(lines) > 1 and max(map(len, lines)) < int(_WIDTH) // 2:  # not broken by the width
        return Block("code", "\n".join(one.strip() for one in lines), 0, line)
    return Block("text", " ".join(" ".join(lines).split()), 0, line)


def _read_macros(text: str) -> Iterator[Block]:  # noqa: C901 - a branch a kind of macro
    """What the macros of man(7) say of headings, terms and paragraphs; the rest is text."""
    paragraph: list[str] = []
    start, term_next, code = 0, False, False
    for number, raw in enumerate(text.split("\n"), 1):
        if raw.startswith(('.\\"', "'\\\"")):
            continue
        macro, _, rest = raw[1:].strip().partition(" ") if raw[:1] in {".", "'"} else ("", "", raw)
        said = _plain(rest)
        if macro in {"SH", "SS", "Sh", "Ss", "TP", "PP", "P", "LP", "HP", "IP", "nf", "fi", "TH", "RS", "RE"}:
            if paragraph:
                yield Block("code" if code else "text", ("\n" if code else " ").join(paragraph), 0, start)
                paragraph = []
            code = macro == "nf" or (code and macro != "fi")
            term_next = macro == "TP"
            if macro in {"SH", "SS", "Sh", "Ss"} and said:
                yield Block("heading", said, 0, number, 1 if macro[1] in "Hh" else 2)
            elif macro == "IP" and said and len(said.split()[0]) > 1:
                yield Block("term", said.rsplit(" ", 1)[0] if said[-1:].isdigit() else said, 0, number)
        elif not macro or macro in _FONTS:
            if term_next and said:
                yield Block("term", said, 0, number)
                term_next = False
            elif said:
                start = start if paragraph else number
                paragraph.append(said)
    if paragraph:
        yield Block("text", " ".join(paragraph), 0, start)


def _plain(text: str) -> str:
    for pattern, shown in _ESCAPES:
        text = pattern.sub(shown, text)
    return " ".join(text.replace('"', "").split())
