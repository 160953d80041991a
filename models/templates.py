"""Template mining: groups log lines whose constant words agree, online, deterministic and bounded.

A line is masked (`models.masking`) and looked up by its masked words; only a form that was not seen lately
is compared with a few templates that share half of its words. Where enough templates differ in the same few
words, those words vary and the templates become one. It knows nothing about units, trust or time: an origin
is just a name that keeps one writer's templates apart from another's. The cost of every step is counted in
`Miner.work`, so that a caller can hold a budget without a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from models.digest import blake2b
from models.masking import Masker, is_word, normalise

Words = tuple[str | None, ...]  # None: varies

MAX_CHARS = 512  # of a line that are mined; what follows is data, not structure
MAX_WORDS = 40
CANDIDATES = 12  # templates compared per key of the index; bounds the work on a crafted prefix
SHAPES = 8  # sets of varying positions remembered for one writer and length
CACHE = 4096  # entries of each of the two generations of a cache
ORIGIN_SHARE = 4  # one writer may hold a quarter of all templates, so that it cannot drive out the others

# How many values a word must have taken, all else equal, before it counts as varying. On ten systems of
# the loghub sample 4 groups best (3: 0.973, 4: 0.987, 5: 0.981, 8: 0.945 mean grouping accuracy): most sets
# of constant words (started/stopped, up/down, MAC/IP) have two or three members.
VALUES = 4


class Template:
    """A group of lines; `state` is the caller's. A template that was merged away points to its heir."""

    __slots__ = ("_key", "count", "dead", "heir", "last", "number", "origin", "state", "words")

    def __init__(self, number: int, origin: str, words: Words) -> None:
        self.number = number
        self.origin = origin
        self.words = words
        self.count = 0
        self.last = 0
        self.heir: Template | None = None
        self.dead = False
        self.state: Any = None
        self._key = ""

    @property
    def key(self) -> str:
        """A short stable name of the template."""
        if not self._key:
            text = f"{self.origin}\0{self}"
            self._key = blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()
        return self._key

    def newest(self) -> Template:
        """The template that this one became part of, or itself."""
        found = self
        while found.heir is not None:
            found = found.heir
        if self.heir is not None:
            self.heir = found if found is not self else None
        return found

    def __str__(self) -> str:
        return " ".join("<*>" if word is None else word for word in self.words)


class Form:
    """Lines of a template that say the same, values aside; `state` is the caller's, None if it is new.

    Templates that varied in a word became one, but it may be just this word that tells what a line means.
    """

    __slots__ = ("state", "template")

    def __init__(self, template: Template) -> None:
        self.template = template
        self.state: Any = None


class _Generations(dict[Any, Form]):
    """A bounded cache of about least-recently-used order at the cost of one dict lookup."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._old: dict[Any, Form] = {}

    def find(self, key: Any) -> Form | None:
        found = self.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: Any, value: Form) -> None:
        if len(self) >= self._size:
            self._old = dict(self)
            super().clear()
        self[key] = value

    def clear(self) -> None:
        super().clear()
        self._old = {}


def split(pieces: Iterable[str]) -> tuple[str, ...]:
    """The words of a masked line; a run of equal values counts once, so that lists may vary in length."""
    words: list[str] = []
    last = ""
    for piece in pieces:
        if piece != " " and is_word(piece) and not (piece == last and _is_value(piece)):
            words.append(piece)
            last = piece
            if len(words) == MAX_WORDS:
                break
    return tuple(words) or tuple(piece.strip() for piece in pieces)[:1]


def _is_value(word: str) -> bool:
    return word[0] == "<" or "0" in word


# Where the message itself stands in quotes (logfmt's msg="...", klog's E0201 10:00:00 7 file.go:7] "..."),
# or behind the last word that counts, the words do not tell it from others: each text is a form of its own.
QUOTED = re.compile(r'\b(?:msg|message|err|error|reason)="|^[DEFIW]\d{4} [^\]"]{1,96}\] "')


class Miner:
    """Gives every line its template; holds at most `templates_max` of them."""

    def __init__(
        self, templates_max: int = 20000, on_merge: Callable[[Template, Template], None] | None = None
    ) -> None:
        self.work = 0  # about microseconds of a 2020s core
        self.evicted = 0
        self.form = Form(Template(0, "", ()))  # of the line that was added or found last
        self.cut = (
            False  # whether that line goes on behind what is mined, and may end in other words each time
        )
        self._max = templates_max
        self._on_merge = on_merge  # (heir, other), before the other's state is dropped
        self._masker = Masker()
        self._lines = _Generations(CACHE)
        self._forms = _Generations(CACHE)
        self._index: dict[int, list[Template]] = {}
        self._varying: dict[tuple[str, int], list[tuple[int, ...]]] = {}  # positions, by origin and length
        self._origins: dict[str, list[Template]] = {}
        self._total = 0
        self._number = 0
        self._clock = 0

    def __iter__(self) -> Iterator[Template]:
        for templates in self._origins.values():
            yield from templates

    def __len__(self) -> int:
        return self._total

    def find(self, text: str, origin: str = "") -> Template | None:
        """The template of a line that looks like one seen lately; costs a microsecond or two."""
        text = self._head(text)
        self._clock += 1
        self.work += 1
        found = self._lines.find(f"{origin}\0{normalise(text)}")
        return self._touch(found) if found else None

    def add(self, text: str, origin: str = "") -> Template:
        """The template of a line, mined if need be."""
        text = self._head(text)
        self._clock += 1
        self.work += 1
        normal = normalise(text)
        key = f"{origin}\0{normal}"
        found = self._lines.find(key)
        if found is None:
            found = self._mine(normal, origin)
            self._lines.put(key, found)
        return self._touch(found)

    def restore(self, origin: str, words: Words, count: int, key: str) -> Template:
        """Put back a template from a snapshot."""
        template = self._create(origin, words)
        template.count = count
        template._key = key  # noqa: SLF001 - the miner makes templates
        for index in _index_keys(origin, tuple(word or "" for word in words)):
            self._enter(index, template)
        if None in words:
            self._enter_varying(template)
        return template

    def _head(self, text: str) -> str:
        self.cut = len(text) > MAX_CHARS
        return text[:MAX_CHARS].rpartition(" ")[0] or text[:MAX_CHARS] if self.cut else text

    def _touch(self, form: Form) -> Template:
        template = form.template
        if template.heir is not None:
            template = form.template = template.newest()
        template.count += 1
        template.last = self._clock
        self.form = form
        return template

    def _mine(self, normal: str, origin: str) -> Form:
        misses = self._masker.misses
        pieces = self._masker.pieces(normal)
        self.work += 3 + len(pieces) // 4 + 2 * (self._masker.misses - misses)
        words = split(pieces)
        key = hash((origin, words))
        found = self._forms.find(key)
        if found is None:
            found = Form(self._place(origin, words))
            self._forms.put(key, found)
        elif len(words) == MAX_WORDS or ("<str>" in words and QUOTED.search(normal)):
            found = Form(found.template)
        return found

    def _place(self, origin: str, words: tuple[str, ...]) -> Template:
        self.work += 12
        template = self._find_varying(origin, words)
        if template is not None:
            return template
        keys = _index_keys(origin, words)
        groups = self._compare(words, keys)
        for differing in sorted(groups, key=len):
            if _vary(words, differing, groups[differing]):
                template = self._merge(words, differing, groups[differing])
                break
        if template is None:
            self._make_room(origin)
            template = self._create(origin, words)
            for key in keys:  # of one that varies the words that it has kept lead to it
                self._enter(key, template)
        return template

    def _compare(self, words: tuple[str, ...], keys: Sequence[int]) -> dict[tuple[int, ...], list[Template]]:
        """Templates that share a part of the words, by the positions in which they differ."""
        seen: set[int] = set()
        groups: dict[tuple[int, ...], list[Template]] = {}
        for key in keys:
            for listed in self._index.get(key, ()):
                other = listed.newest()
                if other.number in seen or other.dead or len(other.words) != len(words):
                    continue
                seen.add(other.number)
                pairs = zip(words, other.words, strict=True)
                differing = tuple([i for i, (a, b) in enumerate(pairs) if a != b and b is not None])
                groups.setdefault(differing, []).append(other)
        self.work += 2 * len(seen)
        return groups

    def _merge(self, words: tuple[str, ...], differing: tuple[int, ...], others: list[Template]) -> Template:
        """The oldest of `others` takes in the rest and lets the differing words vary."""
        heir = min(others, key=lambda template: template.number)
        varying = {i for other in others for i, word in enumerate(other.words) if word is None}
        varying.update(differing)
        heir.words = tuple(None if i in varying else word for i, word in enumerate(words))
        for other in others:
            if other is not heir:
                if self._on_merge is not None:
                    self._on_merge(heir, other)
                other.heir = heir
                heir.count += other.count
                self._drop(other)
        self._enter_varying(heir)
        return heir

    def _find_varying(self, origin: str, words: tuple[str, ...]) -> Template | None:
        """The template whose constant words these are, whatever the words in its varying positions."""
        for positions in self._varying.get((origin, len(words)), ()):
            for listed in self._index.get(_varying_key(origin, words, positions), ()):
                template = listed.newest()
                pairs = zip(words, template.words, strict=False)
                if not template.dead and all(a == b or b is None for a, b in pairs):
                    return template
        return None

    def _enter_varying(self, template: Template) -> None:
        """Make a template findable by its constant words alone."""
        words = template.words
        positions = tuple(i for i, word in enumerate(words) if word is None)
        known = self._varying.setdefault((template.origin, len(words)), [])
        if positions not in known:
            known.insert(0, positions)
            del known[SHAPES:]
        self._enter(_varying_key(template.origin, words, positions), template)

    def _enter(self, key: int, template: Template) -> None:
        listed = self._index.get(key)
        if listed is None:
            self._index[key] = [template]
        elif template not in listed:
            listed[:] = [other for other in listed if other.heir is None and not other.dead][1 - CANDIDATES :]
            listed.append(template)

    def _create(self, origin: str, words: Words) -> Template:
        self._number += 1
        template = Template(self._number, origin, words)
        self._origins.setdefault(origin, []).append(template)
        self._total += 1
        return template

    def _drop(self, template: Template) -> None:
        """Forget a template that was merged or evicted."""
        template.dead = template.heir is None
        template.state = None
        siblings = self._origins[template.origin]
        siblings.remove(template)
        self._total -= 1
        if not siblings:
            del self._origins[template.origin]

    def _make_room(self, origin: str) -> None:
        """Evict the quarter that was seen rarely and longest ago, of this writer or of all."""
        own = self._origins.get(origin, [])
        if len(own) >= max(16, self._max // ORIGIN_SHARE):
            self._evict(own)
        elif self._total >= self._max:
            self._evict(list(self))

    def _evict(self, templates: list[Template]) -> None:
        doomed = sorted(templates, key=lambda template: (template.count > VALUES, template.last))
        doomed = doomed[: len(templates) // 4 + 1]
        for template in doomed:
            template.dead = True
            template.state = None
        for origin in {template.origin for template in doomed}:
            self._origins[origin] = [template for template in self._origins[origin] if not template.dead]
            if not self._origins[origin]:
                del self._origins[origin]
        self._total -= len(doomed)
        self.evicted += len(doomed)
        self._lines.clear()
        self._forms.clear()
        if len(self._varying) > CACHE:
            self._varying.clear()
        self._index = {
            key: alive
            for key, listed in self._index.items()
            if (alive := [other for other in listed if other.heir is None and not other.dead])
        }


def _index_keys(origin: str, words: tuple[str, ...]) -> list[int]:
    """Keys under which similar lines meet: equal in the first half, the second half, or at the ends."""
    length = len(words)
    half = (length + 1) // 2
    keys = [hash((origin, length, 0, words[:half]))]
    if length > 1:
        keys.append(hash((origin, length, 1, words[half:])))
    if length > 3:
        keys.append(hash((origin, length, 2, words[:2])))
        keys.append(hash((origin, length, 3, words[0], words[-2:])))
    return keys


def _varying_key(origin: str, words: Words, positions: tuple[int, ...]) -> int:
    constant = list(words)
    for position in positions:
        constant[position] = None
    return hash((origin, 4, tuple(constant)))


def _vary(words: tuple[str, ...], differing: tuple[int, ...], others: list[Template]) -> bool:
    """Whether the differing positions hold values: they look like it, or took enough of them."""
    if not differing:
        return True
    if len(differing) * 2 > len(words) or not _constants(others[0].words, differing):
        return False
    example = others[-1].words
    if all(_is_value(words[i]) and _is_value(example[i] or "<") for i in differing):
        return True
    return all(len({other.words[i] for other in others} | {words[i]}) >= VALUES for i in differing)


def _constants(words: Words, differing: tuple[int, ...]) -> int:
    return sum(1 for i, word in enumerate(words) if word and word[0] != "<" and i not in differing)


def assign(lines: Sequence[str]) -> list[int]:
    """The number of each line's template once all lines are known (batch, for evaluation)."""
    miner = Miner(templates_max=max(64, 4 * len(lines)))  # the quarter per writer must hold all of them
    first = [miner.add(line) for line in lines]
    return [template.newest().number for template in first]
