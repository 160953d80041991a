"""What a text claims, so far as words tell: quantities, denials, and which side of a contrary it takes.

Made for short technical answers in English and German, with the lists of `opposites.toml`; it parses no
grammar. A negator denies the two words after it, or, where its clause ends, the one before ("läuft nicht").
"""

from __future__ import annotations

import math
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

_DENIED = 2  # words that a negator denies
_PREFIXES = ("un", "in", "im", "ir", "non", "non-", "dis", "nicht-")
_ENDINGS = ("ingly", "ing", "ed", "es", "en", "em", "er", "et", "s", "e", "t", "n")
_SAME = 1e-6
_LONGEST = 80  # words of a clause; a longer one is none


class Quantity(NamedTuple):
    """A number as it can be read (1,500 in two ways), times its unit; `words` of its clause, `said` as is."""

    readings: tuple[float, ...]
    amounts: tuple[float, ...]  # without the unit
    kind: str  # what its unit measures, "" without one
    words: frozenset[str]
    said: str

    def same(self, other: Quantity) -> bool:
        """Whether both may mean the same amount; one without a unit may mean the other's."""
        if self.kind != other.kind:
            return not (self.kind and other.kind) and bool(set(self.amounts) & set(other.amounts))
        return any(math.isclose(a, b, rel_tol=_SAME) for a in self.readings for b in other.readings)


class Side(NamedTuple):
    """A side taken between contraries: which pair, which side; `words` of its clause, the word after it."""

    pair: int
    sign: bool
    words: frozenset[str]
    after: str
    said: str


class Denial(NamedTuple):
    """The stems that one negator denies, and the others of its clause."""

    stems: frozenset[str]
    words: frozenset[str]
    said: str


class Claims(NamedTuple):
    """All that was found in a text; `names` are words with digits, dots or slashes in them (hosts, paths)."""

    quantities: list[Quantity]
    names: set[str]
    sides: list[Side]
    denials: list[Denial]
    signs: dict[str, list[tuple[bool, frozenset[str]]]]  # by stem: each time affirmed or not, and its clause


class _Token(NamedTuple):
    kind: str  # word, name, number, break
    text: str
    stem: str
    quantity: tuple[tuple[float, ...], tuple[float, ...], str] | None = None


# --- reading ------------------------------------------------------------------------------------------------


def read(text: str, beside: str = "") -> Claims:
    """The claims of a text; words that `beside` has without a prefix (un-, in-) are read as their denial."""
    known = {token.text for token in _tokens(beside) if token.kind == "word"} if beside else set()
    claims = Claims([], set(), [], [], {})
    for clause in _clauses(_tokens(text)):
        _read_clause(clause, known, claims)
    return claims


def normal(text: str) -> str:
    """Case, width and quotation marks evened out."""
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("\u00df", "ss")


def words(text: str) -> list[str]:
    """The words, names and numbers of a text, evened out."""
    return [token.text for token in _tokens(text) if token.kind != "break"]


def stem(word: str) -> str:
    """A crude stem, the same for most forms of an English or German word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word.removesuffix(ending)
            break
    if len(word) > 4 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:7]


def denied(text: str, phrase: str) -> bool:
    """Whether each occurrence of `phrase` in `text` stands under a negator that the phrase has not itself."""
    wanted = words(phrase)
    if not wanted or any(_is_negator(one) for one in wanted):
        return False
    found = []
    for clause in _clauses(_tokens(text)):
        said = [token.text for token in clause]
        places = [at for at in range(len(said)) if said[at : at + len(wanted)] == wanted]
        reached = {place for _, places_denied in _denials(clause) for place in places_denied}
        found += [bool(reached & set(range(at, at + len(wanted)))) for at in places]
    return bool(found) and all(found)


def _tokens(text: str) -> list[_Token]:
    return list(_scan(normal(text)))


def _scan(text: str) -> Iterator[_Token]:
    lists = _lists()
    for match in _pattern().finditer(text):
        said = match.group()
        if match["number"]:
            yield _number(match["number"], (match["unit"] or "").strip(" -\u00a0"))
        elif match["word"] and said not in lists.breaks:
            name = any(one.isdigit() or one in "/.:@_" for one in said)
            yield _Token("name" if name else "word", said, said if name else stem(said))
        else:
            yield _Token("break", said, said)


def _number(digits: str, unit: str) -> _Token:
    if digits.count(".") > 1 and not re.fullmatch(r"\d{1,3}(\.\d{3})+(,\d+)?", digits):
        return _Token("name", digits, digits)  # a version or an address
    kind, factor = _lists().units.get(unit, ("", 1.0))
    amounts = tuple(_readings(digits))
    readings = tuple(one * factor for one in amounts)
    return _Token("number", f"{digits} {unit}".strip(), digits, (readings, amounts, kind))


def _readings(digits: str) -> list[float]:
    """1,500 is 1500 or 1.5: English and German write the same marks with contrary meanings."""
    if digits in _lists().numbers:
        return [float(_lists().numbers[digits])]
    if digits[0] in "-\u2212":
        return [-one for one in _readings(digits[1:])]
    whole = re.sub(r"[.,]", "", digits)
    marks = sorted(set(digits) & {".", ","}, key=digits.rfind)
    found = []
    if not marks or re.fullmatch(r"\d{1,3}([.,]\d{3})+", digits):
        found.append(float(whole))
    if marks and digits.count(marks[-1]) == 1:
        before, _, after = digits.rpartition(marks[-1])
        found.append(float(re.sub(r"[.,]", "", before) + "." + after))
    return found or [float(whole)]


# --- clauses ------------------------------------------------------------------------------------------------


def _clauses(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    clause: list[_Token] = []
    for token in tokens:
        if token.kind != "break":
            clause.append(token)
        if clause and (token.kind == "break" or len(clause) == _LONGEST):
            yield clause
            clause = []
    if clause:
        yield clause


def _read_clause(clause: Sequence[_Token], known: set[str], claims: Claims) -> None:
    lists = _lists()
    around = frozenset(token.stem for token in clause if _has_content(token))
    flipped, denied_places = set(), set()
    for negator, places in _denials(clause):
        sided = [place for place in places if lists.pair(clause[place].text)]
        if sided:  # "not enabled" takes a side
            flipped.add(sided[0])
            continue
        denied_places |= set(places)
        stems = frozenset(clause[place].stem for place in places)
        said = " ".join([negator, *(clause[place].text for place in places)])
        claims.denials.append(Denial(stems, around - stems, said))
    for place, token in enumerate(clause):
        if token.quantity:
            claims.quantities.append(Quantity(*token.quantity, around - {token.stem}, token.text))
        elif token.kind == "name":
            claims.names.add(token.text)
        elif (found := lists.pair(token.text)) and _takes_side(clause, place, found[0]):
            after = next((one.stem for one in clause[place + 1 :] if _has_content(one)), "")
            sign = found[1] != (place in flipped)
            claims.sides.append(Side(found[0], sign, around - {token.stem}, after, token.text))
        elif _has_content(token):
            stem_said, affirmed = _unprefixed(token, known)
            if not affirmed and place not in denied_places:
                others = around - {token.stem}
                claims.denials.append(Denial(frozenset({stem_said}), others, token.text))
            sign = affirmed != (place in denied_places)
            claims.signs.setdefault(stem_said, []).append((sign, around))


def _unprefixed(token: _Token, known: set[str]) -> tuple[str, bool]:
    """A word's stem and whether it affirms it: "unreachable" denies the "reachable" of the other text."""
    for prefix in _PREFIXES:
        rest = token.text.removeprefix(prefix)
        if rest != token.text and len(rest) > 3 and rest in known:
            return stem(rest), False
    return token.stem, True


def _takes_side(clause: Sequence[_Token], place: int, pair: int) -> bool:
    if pair not in _lists().particles | _lists().comparing:
        return True
    if pair in _lists().comparing:
        return clause[place + 1 : place + 2] != [] and clause[place + 1].text in {"than", "als"}
    rest = [one for one in clause[place + 1 :] if one.text not in _lists().plain]
    return not rest or any(_lists().switches(one.text) for one in clause)


def _denials(clause: Sequence[_Token]) -> Iterator[tuple[str, list[int]]]:
    """Each negator of a clause with the places that it denies."""
    for at, token in enumerate(clause):
        if not _is_negator(token.text):
            continue
        places = _denied_after(clause, at)
        if not places or token.text == "pas":
            places = [place for place in range(at - 1, -1, -1) if _has_content(clause[place])][:1] + places
        if places:
            yield token.text, places


def _denied_after(clause: Sequence[_Token], at: int) -> list[int]:
    """The next words with content; a preposition that is not the first ends them."""
    places: list[int] = []
    for place in range(at + 1, len(clause)):
        found = _lists().pair(clause[place].text)
        if found and bound(found[0]):
            return places or [place]
        if _has_content(clause[place]):
            places.append(place)
        if len(places) == _DENIED:
            break
    return places


def _has_content(token: _Token) -> bool:
    return token.text not in _lists().plain and not _is_negator(token.text)


def _is_negator(word: str) -> bool:
    return word in _lists().negators or word.endswith("n't")


# --- lists --------------------------------------------------------------------------------------------------


class _Lists:
    """`opposites.toml` as it is looked up."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.negators = {normal(one) for one in found["negators"]}
        self.breaks, self.plain = set(found["breaks"]), {normal(one) for one in found["plain"]}
        self.numbers = {normal(name): value for name, value in found["numbers"].items()}
        self.units = {name: (str(one[0]), float(one[1])) for name, one in found["units"].items()}
        self.bound = {number for number, one in enumerate(found["pairs"]) if one.get("bound")}
        self.particles = {number for number, one in enumerate(found["pairs"]) if one.get("particle")}
        self.comparing = {number for number, one in enumerate(found["pairs"]) if one.get("comparing")}
        self._switching = tuple(one.removesuffix("*") for one in found["switching"])
        self._words: dict[str, tuple[int, bool]] = {}
        starts: dict[str, tuple[int, bool]] = {}
        for number, one in enumerate(found["pairs"]):
            for side in ("one", "other"):
                for word in map(normal, one[side]):
                    target = starts if word.endswith("*") else self._words
                    target.setdefault(word.removesuffix("*"), (number, side == "one"))
        self._starts = sorted(starts.items(), key=lambda item: -len(item[0]))

    def switches(self, word: str) -> bool:
        """Whether a word is a verb of switching something on or off."""
        return word.startswith(self._switching)

    def pair(self, word: str) -> tuple[int, bool] | None:
        """Which pair of contraries a word belongs to, and on which side."""
        if word in self._words:
            return self._words[word]
        return next((value for start, value in self._starts if word.startswith(start)), None)


@cache
def _lists() -> _Lists:
    text = resources.files("training").joinpath("opposites.toml").read_text(encoding="utf-8")
    return _Lists(tomllib.loads(text))


@cache
def _pattern() -> re.Pattern[str]:
    units = "|".join(re.escape(one) for one in sorted(_lists().units, key=len, reverse=True))
    numbers = "|".join(re.escape(one) for one in _lists().numbers)
    return re.compile(
        rf"(?<![\w.,:/-])(?P<number>[-\u2212]?\d+(?:[.,]\d+)*|{numbers})"
        rf"(?P<unit>[ \u00a0-]?(?:{units}))?(?![\w]|[:/.-]\w)"
        r"|(?P<word>/?\w+(?:[-._:/@']\w+)*)|[.;:!?,\n\u2013\u2014()]"
    )


def bound(pair: int) -> bool:
    """Whether a pair of contraries says something only of the word after it."""
    return pair in _lists().bound
