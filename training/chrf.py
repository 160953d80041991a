"""chrF: how alike two texts are by their character n-grams, and the most alike of many.

Popovic 2015: n-grams of one to six characters without blanks, precision and recall averaged over the orders,
recall weighing twice (beta 2). Knows nothing of where the texts come from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

ORDER = 6
_BETA2 = 4.0
_NEAR = 60  # candidates that are compared exactly; more change the maximum by less than 0.001 (measured)

Grams = list[Counter[str]]


def grams(text: str) -> Grams:
    """The character n-grams of a text, by order."""
    packed = "".join(text.split())
    return [
        Counter(packed[at : at + order] for at in range(len(packed) - order + 1))
        for order in range(1, ORDER + 1)
    ]


def chrf(text: Grams, reference: Grams) -> float:
    """0 for nothing in common, 1 for the same text; an order that neither has does not count."""
    precision = recall = 0.0
    orders = 0
    for mine, theirs in zip(text, reference, strict=True):
        if not mine and not theirs:
            continue
        orders += 1
        common = sum((mine & theirs).values())
        precision += common / max(1, sum(mine.values()))
        recall += common / max(1, sum(theirs.values()))
    if not precision or not recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + _BETA2) * precision * recall / (_BETA2 * precision + recall)


class Nearest:
    """Finds the most alike of many texts: those that share the most word triples are compared exactly.

    A triple that more than `common` texts have tells them not apart and is passed over (0: none is).
    """

    def __init__(self, texts: Iterable[str] = (), *, common: int = 0) -> None:
        self._texts: list[str] = []
        self._common = common
        self._grams: dict[int, Grams] = {}
        self._places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for text in dict.fromkeys(texts):
            self.add(text)

    def add(self, text: str) -> int:
        """Have one more text; its number."""
        place = len(self._texts)
        self._texts.append(text)
        for triple in _triples(text):
            self._places[triple].append(place)
        return place

    def highest(self, text: str) -> float:
        """The largest chrF of `text` with any of the texts."""
        return self.nearest(text)[1]

    def nearest(self, text: str, *, share: float = 0.0) -> tuple[int, float]:
        """The most alike text and its chrF; -1 and 0 where none has this share of its triples."""
        triples = _triples(text)
        found = (self._places.get(triple, ()) for triple in triples)
        shared = Counter(place for places in found if not 0 < self._common < len(places) for place in places)
        mine = grams(text)
        near = [place for place, count in shared.most_common(_NEAR) if count >= share * len(triples)]
        alike = ((place, chrf(mine, self._of(place))) for place in near)
        return max(alike, key=lambda one: one[1], default=(-1, 0.0))

    def _of(self, place: int) -> Grams:
        if place not in self._grams:
            self._grams[place] = grams(self._texts[place])
        return self._grams[place]


def _triples(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(words, words[1:], words[2:], strict=False))
