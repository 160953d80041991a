"""Each passage's paragraph: what would be answered by it, and what a judge looks at.

Neighbours in a section mostly share one; it is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.passages import Passage
from training.academy.answers import shown


class Paragraphs:
    """The paragraphs of all passages, of at most that many words each."""

    def __init__(self, passages: Sequence[Passage], words: int) -> None:
        self._known = {one.id: one for one in passages}
        self._sections: dict[int, list[Passage]] = {}
        for one in sorted(passages, key=lambda passage: passage.id):
            self._sections.setdefault(one.section, []).append(one)
        self.texts: list[str] = []  # each once
        self.members: list[list[int]] = []  # the passages of each, by their ids
        self._places: dict[int, int] = {}
        known: dict[str, int] = {}
        for one in passages:
            text = shown(one, self, words)
            place = known.setdefault(text, len(self.texts))
            if place == len(self.texts):
                self.texts.append(text)
                self.members.append([])
            self.members[place].append(one.id)
            self._places[one.id] = place

    def passages(self, keys: Iterable[int]) -> list[Passage]:
        """These passages, by their ids."""
        return [self._known[key] for key in keys]

    def section(self, one: Passage) -> list[Passage]:
        """The passages of its section in their order, itself among them."""
        return self._sections[one.section]

    def place(self, one: Passage) -> int:
        """Which of the paragraphs is its own."""
        return self._places[one.id]
