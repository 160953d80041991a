"""Masking: turns the variable parts of a log line (numbers, addresses, paths, ...) into placeholders.

The same code serves the template miner, the model's input and training; it knows nothing about units,
trust or time. A line is cut into pieces by one regular expression whose alternatives consume what they
scanned, and each piece is classified by itself (cached), so the time is linear in the length of the text.
"""

from __future__ import annotations

import re

_DIGITS = bytes.maketrans(b"123456789", b"000000000")

# A piece is a size with its unit, a quoted value, a word with inner punctuation, or what lies between.
# No alternative backtracks over more than the piece that another one then consumes: linear time.
_SIZE = r"\d+(?:\.\d+)?[ ](?:[KMGTP]?i?B|[mun]?s|m?sec(?:ond)?s?|min(?:ute)?s?|hours?|days?)\b"
_WORD = r"[\w/](?:[\w.:/@%+~#$*\-]*[\w*/%])?(?:\(\d+\))?"
_PIECE = re.compile(rf"""{_SIZE}|{_WORD}|(?<![\w\\])"[^"]*"|(?<![\w\\])'[^'\n]*'(?!\w)|["']|[^\w/"']+""")
_JSON_PIECE = re.compile(rf"{_WORD}|[^\w/]+")  # in JSON everything is quoted, so quotes say nothing

# On digit-normalised words (every digit is a 0), tried in this order.
_KINDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"0+(?:[.,]0+)?"), "<num>"),
    (re.compile(r"0x[0a-fA-F]+"), "<hex>"),
    (re.compile(r"0{1,3}\.0{1,3}\.0{1,3}\.0{1,3}(?:[:/#]0+)?"), "<ip>"),
    (re.compile(r"(?:0000[-/.]00?[-/.]00?|00?[-/.]00?[-/.]0000|00/00/00)(?:[T:\-.]00?[:.]00.*)?"), "<time>"),
    (re.compile(r"00?:00(?::00)?(?:[.,:]0+)?(?:Z|[+-]00:?00)?"), "<time>"),
    (re.compile(r"[0a-fA-F]{8}-[0a-fA-F]{4}-[0a-fA-F]{4}-[0a-fA-F]{4}-[0a-fA-F]{12}"), "<uuid>"),
    (re.compile(r"(?:[0a-fA-F]{2}[:-]){5,19}[0a-fA-F]{2}"), "<mac>"),
    (re.compile(r"[0a-fA-F]{0,4}(?::[0a-fA-F]{0,4}){2,8}(?:\.0+)*(?:%\w+)?(?:/0+)?"), "<ip>"),
    (
        re.compile(
            r"0+(?:\.0+)?(?:[KMGTPkmgt]i?[bB]?(?:/s|ps)?|[bB]|[mun]?s(?:ecs?)?|min|h|[kMG]?Hz|%|pages)"
        ),
        "<size>",
    ),
    (re.compile(r"(?=[a-fA-F]*0)[0a-fA-F]{6,}"), "<hex>"),
)
_LETTER_MAC = re.compile(r"(?:[a-fA-F]{2}:){5}[a-fA-F]{2}")
_RUN = re.compile(r"-?0+")
_SEGMENT = re.compile(r"[0A-Za-z]+")
_SWITCH = re.compile(r"(?<=[A-Za-z])0|(?<=0)[A-Za-z]")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DAY = frozenset(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", *_MONTHS])
# RFC 9110, section 9
_METHOD = frozenset(["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
_LABEL = r"(?:[\w-]+\.)"
_HOST = re.compile(
    rf"(?:{_LABEL}{{1,9}}(?:com|net|org|edu|gov|local|lan|internal|localdomain|home|arpa)"
    rf"|{_LABEL}{{2,9}}[a-z]{{2,3}})\.?(?::0+)?"
)
_GAP = re.compile(r"\s+|([^\w\s])\1{2,}")
_SIGNED = (" -", "=-", "(-", " +", ",-")

MAX_PIECE = 48  # longer pieces are classified without being cached
MAX_PIECES = 8192  # cached pieces, some 1.5 MB


class Masker(dict[str, str]):
    """Maps a piece of a digit-normalised line to its masked form; a bounded cache that fills itself.

    `misses` counts the pieces that had to be classified, each some 2 us, for callers that hold a budget.
    """

    def __init__(self) -> None:
        super().__init__()
        self.misses = 0

    def __missing__(self, piece: str) -> str:
        """Classify a piece that was not seen lately."""
        self.misses += 1
        masked = classify(piece)
        if len(piece) <= MAX_PIECE:
            if len(self) >= MAX_PIECES:
                self.clear()
            self[piece] = masked
        return masked

    def pieces(self, normal: str) -> list[str]:
        """The masked pieces of a digit-normalised text, words and what lies between them, in order."""
        cut = _JSON_PIECE if normal[:1] == "{" else _PIECE
        return list(map(self.__getitem__, cut.findall(normal)))


def normalise(text: str) -> str:
    """The text with every digit as 0; equal results have equal masks, which makes it a cheap key."""
    # By way of bytes, since that takes a quarter of the time of str.translate.
    normal = text.encode("utf-8", "surrogatepass").translate(_DIGITS).decode("utf-8", "surrogatepass")
    normal = normal.replace(" ()", " (_)")  # an empty value is a value too
    return normal.replace("..", " ") if ".." in normal else normal


def mask(text: str) -> str:
    """The text with its variable parts as placeholders such as `<num>`, `<ip>`, `<path>`, `<str>`."""
    return "".join(_shared.pieces(normalise(text)))


def is_word(masked: str) -> bool:
    """Whether a masked piece is a word or a placeholder, not what lies between two of them."""
    first = masked[0]
    return first.isalnum() or first in "_/" or (first == "<" and masked[-1] == ">" and len(masked) > 3)


def classify(piece: str) -> str:
    """The masked form of one piece of a digit-normalised text."""
    first = piece[0]
    if first in "\"'" and len(piece) > 1:
        method = piece[1:8].partition(" ")[0]
        return f'{method}"<str>"' if method in _METHOD else "<str>"
    if not (first.isalnum() or first in "_/"):
        gap = _GAP.sub(lambda match: match[1] or " ", piece)
        return gap[:-1] if gap.endswith(_SIGNED) else gap
    return _classify_number(piece) if "0" in piece else _classify_word(piece)


def _classify_word(word: str) -> str:
    if word in _DAY:
        return "<time>"
    if word == "_":
        return "<str>"
    return _structure(word) or ("<mac>" if ":" in word and _LETTER_MAC.fullmatch(word) else word)


def _classify_number(word: str) -> str:
    if " " in word:
        return "<size>"
    for pattern, placeholder in _KINDS:
        if pattern.fullmatch(word):
            return placeholder
    return _structure(word) or _RUN.sub("0", _SEGMENT.sub(_mask_segment, word))


def _structure(word: str) -> str:
    """The placeholder of a URL, a path, a mail address or a host name, "" if it is none of them."""
    if "/" in word:
        if "://" in word:
            return "<url>"
        if len(word) > 1 and (word[0] == "/" or word.count("/") > 1):
            return "<path>"
    if "@" in word[1:-1]:
        return "<mail>"
    return "<host>" if "." in word and _HOST.fullmatch(word) else ""


def _mask_segment(match: re.Match[str]) -> str:
    """An identifier such as `eth0` keeps its letters; one that mixes letters and digits is random."""
    segment = match[0]
    mixed = "0" in segment and len(segment) >= 6 and len(_SWITCH.findall(segment)) >= 3
    return "<id>" if mixed else segment


_shared = Masker()
