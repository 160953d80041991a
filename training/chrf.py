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
    """Finds the most alike of many texts: those that share the most word triples are compared exactly."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(dict.fromkeys(texts))
        self._grams: dict[int, Grams] = {}
        self._places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, text in enumerate(self._texts):
            for triple in _triples(text):
                self._places[triple].append(place)

    def highest(self, text: str) -> float:
        """The largest chrF of `text` with any of the texts."""
        shared = Counter(place for triple in _triples(text) for place in self._places.get(triple, ()))
        mine = grams(text)
        return max((chrf(mine, self._of(place)) for place, _ in shared.most_common(_NEAR)), default=0.0)

    def _of(self, place: int) -> Grams:
        if place not in self._grams:
            self._grams[place] = grams(self._texts[place])
        return self._grams[place]


def _triples(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(words, words[1:], words[2:], strict=False))
